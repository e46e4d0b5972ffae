package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/hubbub/internal/wsclient"
)

// rawConn speaks WebSocket byte by byte, right or wrong as a test likes.
type rawConn struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

// The first byte of a frame.
const (
	opContinuation = byte(wsclient.Continuation)
	opText         = byte(wsclient.Text)
	opBinary       = byte(wsclient.Binary)
	opClose        = byte(wsclient.Close)
	opPing         = byte(wsclient.Ping)
	opPong         = byte(wsclient.Pong)
	rsv1           = byte(wsclient.Deflated)
	fin            = 0x80
)

func connect(t *testing.T, s *server) *rawConn {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &rawConn{t, conn, bufio.NewReader(conn)}
}

// upgrade is the sample handshake of RFC 6455, section 1.3.
func upgrade(s *server, path string) string {
	return wsclient.Upgrade(s.addr, path)
}

// dialRaw upgrades; first goes in the same packet as the handshake.
func dialRaw(t *testing.T, s *server, path, first string) *rawConn {
	t.Helper()
	c := connect(t, s)
	c.write(upgrade(s, path) + first)
	res := c.response("GET")
	if res.StatusCode != 101 || res.Header.Get("Sec-Websocket-Accept") != wsclient.Accept {
		t.Fatalf("handshake: %s, %v", res.Status, res.Header)
	}
	return c
}

// tryDial is dialRaw, for any goroutine, where the connection may break at any byte. The caller closes it.
func tryDial(t *testing.T, s *server, path string) (*rawConn, error) {
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		return nil, err
	}
	c := &rawConn{t, conn, bufio.NewReader(conn)}
	_ = c.SetDeadline(time.Now().Add(patience))
	var answer string // its head as a whole: net/http calls half a line malformed
	_, err = io.WriteString(c, upgrade(s, path))
	for err == nil && !strings.HasSuffix(answer, "\r\n\r\n") {
		var line string
		line, err = c.r.ReadString('\n')
		answer += line
	}
	if err == nil && !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		err = fmt.Errorf("the handshake is answered by %q", answer)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	_ = c.SetDeadline(time.Time{})
	return c, nil
}

// lost says that err is the loss of a connection, or what follows from it. A server that doesn't answer is another
// thing.
func lost(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) && !op.Timeout()
}

func (c *rawConn) write(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal(err)
	}
}

func (c *rawConn) response(method string) *http.Response {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	return res
}

// frame makes a masked frame in the shortest form.
func frame(first byte, payload string) string {
	return string(wsclient.Append(nil, first&fin != 0, wsclient.Opcode(first&^fin), [4]byte{0x12, 0x34, 0x56, 0x78}, []byte(payload)))
}

func text(payload string) string { return frame(fin|opText, payload) }

// read is the next frame: its first byte and its payload.
func (c *rawConn) read() (first byte, payload string, err error) {
	f, err := wsclient.Read(c.r, 1<<30)
	first = byte(f.Op)
	if f.Fin {
		first |= fin
	}
	if f.Deflated {
		first |= rsv1
	}
	return first, string(f.Payload), err
}

// expect is the payload of the next frame, whose first byte must be this. The server's pings are left out: the first
// comes at a random time.
func (c *rawConn) expect(first byte) string {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for {
		got, payload, err := c.read()
		if err == nil && got == fin|opPing {
			continue
		}
		if err != nil || got != first {
			c.t.Fatalf("a frame %#x %.300q (%v), want %#x", got, payload, err, first)
		}
		return payload
	}
}

func (c *rawConn) message(kind string) message {
	c.t.Helper()
	return parse(c.t, c.expect(fin|opText), kind)
}

// expectClose reads up to the Close, which must have this code, and the end of the connection after it, which must not
// be a reset. It does not answer.
func (c *rawConn) expectClose(code int) {
	c.t.Helper()
	if got := c.untilClose(); got != code {
		c.t.Fatalf("closed with %d, want %d", got, code)
	}
}

// untilClose reads until a Close and returns its code, 1005 if it has none.
func (c *rawConn) untilClose() int {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for {
		first, payload, err := c.read()
		switch {
		case err != nil:
			c.t.Fatalf("the connection ended without a Close: %v", err)
		case first != fin|opClose:
			continue
		}
		code, _, err := wsclient.ParseClose([]byte(payload))
		if err != nil {
			c.t.Fatal(err)
		}
		return code
	}
}

// expectEnd reads until the server ends the TCP connection.
func (c *rawConn) expectEnd() {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if n, err := io.Copy(io.Discard, c.r); err != nil || n > 0 {
		c.t.Fatalf("%d more bytes, then %v; want the end of the connection", n, err)
	}
}

func (c *rawConn) welcomed() string {
	c.t.Helper()
	return c.message("welcome").str("client_id")
}

func closeFrame(code int, reason string) string {
	return frame(fin|opClose, string([]byte{byte(code >> 8), byte(code)})+reason)
}

func TestFramesInTheHandshakesPacket(t *testing.T) {
	eachIO(t, nil, func(t *testing.T, s *server) {
		c := dialRaw(t, s, "/ws", text(`{"msg_type":"ping","id":1}`)+text(`{"msg_type":"ping","id":2}`))
		c.welcomed() // before the answers
		for _, id := range []string{"1", "2"} {
			if m := c.message("pong"); m.raw("id") != id {
				t.Errorf("got %s, want the id %s", m.text, id)
			}
		}
	})
}

func TestOneByteAtATime(t *testing.T) {
	eachIO(t, nil, func(t *testing.T, s *server) {
		c := dialRaw(t, s, "/echo", "")
		in := frame(opText, "häl") + frame(fin|opPing, "x") + frame(fin|opContinuation, "lo € 𝄞")
		for i := range len(in) {
			c.write(in[i : i+1])
		}
		if got := c.expect(fin | opPong); got != "x" {
			t.Errorf("pong %q, want the ping's payload", got)
		}
		if got := c.expect(fin | opText); got != "hällo € 𝄞" {
			t.Errorf("echo %q", got)
		}
	})
}

func TestPongsOfNoPingAreNothing(t *testing.T) {
	eachIO(t, nil, func(t *testing.T, s *server) {
		c := dialRaw(t, s, "/echo", "")
		c.write(frame(fin|opPong, "") + frame(fin|opPong, "one") + frame(fin|opPong, "one") + text("still here"))
		if got := c.expect(fin | opText); got != "still here" {
			t.Errorf("echo %q", got)
		}
	})
}

func TestCloseIsEchoed(t *testing.T) {
	eachIO(t, nil, func(t *testing.T, s *server) {
		for _, code := range []int{1000, 1001, 1011, 3000, 4321} {
			c := dialRaw(t, s, "/echo", "")
			c.write(closeFrame(code, "bye"))
			c.expectClose(code)
			c.expectEnd()
		}
		c := dialRaw(t, s, "/echo", "")
		c.write(frame(fin|opClose, ""))
		if code := c.untilClose(); code != 1005 && code != 1000 {
			t.Errorf("a Close without a code is answered by %d", code)
		}
		c.expectEnd()
	})
}

func TestBrokenFramesCloseWithTheCodeOfTheRFC(t *testing.T) {
	type broken struct {
		name, in string
		code     int
	}
	cases := []broken{
		{"not masked", "\x81\x02hi", 1002},
		{"reserved bit 1 without an extension", frame(fin|0x40|opText, "x"), 1002},
		{"reserved bit 2", frame(fin|0x20|opText, "x"), 1002},
		{"reserved bit 3", frame(fin|0x10|opText, "x"), 1002},
		{"unknown opcode", frame(fin|0x3, "x"), 1002},
		{"unknown control opcode", frame(fin|0xB, "x"), 1002},
		{"fragmented ping", frame(opPing, "x"), 1002},
		{"ping over 125 bytes", frame(fin|opPing, strings.Repeat("x", 126)), 1002},
		{"continuation of nothing", frame(fin|opContinuation, "x"), 1002},
		{"text within a fragmented text", frame(opText, "x") + text("y"), 1002},
		{"length 5 in 16 bits", "\x81\xfe\x00\x05\x00\x00\x00\x00hello", 1002},
		{"length 5 in 64 bits", "\x81\xff\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00hello", 1002},
		{"length with its high bit set", "\x81\xff\x80\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00", 1002},
		{"text that is not UTF-8", text("a\xffb"), 1007},
		{"text that ends within a character", text("\xe2\x82"), 1007},
		{"a surrogate in UTF-8", text("\xed\xa0\x80"), 1007},
		{"not UTF-8 in a message that never ends", frame(opText, "a\xff"), 1007},
		{"close with half a code", frame(fin|opClose, "\x03"), 1002},
		{"close with 999", closeFrame(999, ""), 1002},
		{"close with 1005", closeFrame(1005, ""), 1002},
		{"close with 5000", closeFrame(5000, ""), 1002},
		{"close with a reason that is not UTF-8", closeFrame(1000, "\xff"), 1007},
		{"too long by its header", "\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", 1009},
		{"too long by one byte", text(strings.Repeat("x", 64<<10+1)), 1009},
		{"too long in two fragments", frame(opText, strings.Repeat("x", 64<<10)) + frame(fin|opContinuation, "x"), 1009},
	}
	eachIO(t, nil, func(t *testing.T, s *server) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				for _, path := range []string{"/echo", "/ws"} {
					conn := dialRaw(t, s, path, "")
					conn.write(c.in)
					conn.expectClose(c.code)
					conn.expectEnd()
				}
				dialRaw(t, s, "/ws", "").welcomed() // the server is well
			})
		}
	})
}
