package rawtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"example.com/hubbub/internal/wsclient"
)

// Mask is that of every frame that a Client sends.
var Mask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// maxFrame bounds what a Client takes in one frame, in bytes.
const maxFrame = 1 << 30

// Client is one TCP connection to a server, after Dial a WebSocket. What isn't as it must be ends its test. One
// goroutine may send while another receives.
type Client struct {
	T       testing.TB
	NC      *net.TCPConn
	R       *bufio.Reader
	Timeout time.Duration // for each thing that is waited for; Patience
}

// Connect makes a TCP connection and sends nothing.
func Connect(t testing.TB, s *Server) *Client {
	t.Helper()
	nc, err := net.DialTimeout("tcp", s.Addr, Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &Client{T: t, NC: nc.(*net.TCPConn), R: bufio.NewReader(nc), Timeout: Patience}
}

// Dial makes a WebSocket; extra are more header lines.
func Dial(t testing.TB, s *Server, path string, extra ...string) *Client {
	t.Helper()
	c := Connect(t, s)
	c.SendRaw([]byte(Upgrade(s, path, extra...)))
	c.ExpectUpgrade()
	return c
}

// Upgrade is a good handshake; extra are more header lines ("Origin: http://a.example").
func Upgrade(s *Server, path string, extra ...string) string {
	return wsclient.Upgrade(s.Addr, path, extra...)
}

// Request is Upgrade's head with other lines: an empty value takes a line out, values with "\n" between them give
// several.
func Request(s *Server, method, target, proto string, change map[string]string) string {
	lines := []struct{ name, value string }{
		{"Host", s.Addr}, {"Upgrade", "websocket"}, {"Connection", "Upgrade"},
		{"Sec-WebSocket-Key", wsclient.Key}, {"Sec-WebSocket-Version", "13"},
	}
	head := method + " " + target + " " + proto + "\r\n"
	put := func(name, values string) {
		for v := range strings.SplitSeq(values, "\n") {
			head += name + ": " + v + "\r\n"
		}
	}
	used := map[string]bool{}
	for _, l := range lines {
		v, changed := change[l.name]
		used[l.name] = true
		switch {
		case !changed:
			put(l.name, l.value)
		case v != "":
			put(l.name, v)
		}
	}
	for name, v := range change {
		if !used[name] {
			put(name, v)
		}
	}
	return head + "\r\n"
}

// ExpectUpgrade reads the head of an answer, which must be 101 and all that RFC 6455 4.2.2 says of it.
func (c *Client) ExpectUpgrade() {
	c.T.Helper()
	r := c.Response("GET")
	if r.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(r.Body)
		c.T.Fatalf("upgrade: %s: %s", r.Status, body)
	}
	for name, want := range map[string]string{"Upgrade": "websocket", "Connection": "upgrade", "Sec-Websocket-Accept": wsclient.Accept} {
		if got := r.Header[name]; len(got) != 1 || !strings.EqualFold(got[0], want) {
			c.T.Fatalf("upgrade: header %s is %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"Sec-Websocket-Protocol", "Content-Length", "Transfer-Encoding"} {
		if got := r.Header[name]; got != nil {
			c.T.Fatalf("upgrade: header %s is %q, want none", name, got)
		}
	}
}

// Response reads an HTTP answer.
func (c *Client) Response(method string) *http.Response {
	c.T.Helper()
	c.NC.SetReadDeadline(time.Now().Add(c.Timeout))
	r, err := http.ReadResponse(c.R, &http.Request{Method: method})
	if err != nil {
		c.T.Fatalf("read an HTTP answer: %v", err)
	}
	return r
}

// Frame is a client's frame, masked.
func Frame(op wsclient.Opcode, fin bool, payload []byte) []byte {
	return wsclient.Append(nil, fin, op, Mask, payload)
}

// Text is a whole text message's frame.
func Text(p string) []byte { return Frame(wsclient.Text, true, []byte(p)) }

// InFragments is a message in fragments of n bytes.
func InFragments(op wsclient.Opcode, p []byte, n int) (b []byte) {
	for len(p) > n {
		b = wsclient.Append(b, false, op, Mask, p[:n])
		op, p = wsclient.Continuation, p[n:]
	}
	return wsclient.Append(b, true, op, Mask, p)
}

// Send sends one frame.
func (c *Client) Send(op wsclient.Opcode, fin bool, payload []byte) {
	c.T.Helper()
	c.SendRaw(Frame(op, fin, payload))
}

// Text sends a whole text message.
func (c *Client) Text(s string) {
	c.T.Helper()
	c.SendRaw(Text(s))
}

// SendRaw sends bytes as they are, in one write.
func (c *Client) SendRaw(b []byte) {
	c.T.Helper()
	if err := c.TrySend(b); err != nil {
		c.T.Fatalf("send %d bytes: %v", len(b), err)
	}
}

// TrySend is SendRaw where the server may hang up meanwhile.
func (c *Client) TrySend(b []byte) error {
	c.NC.SetWriteDeadline(time.Now().Add(c.Timeout))
	_, err := c.NC.Write(b)
	return err
}

// SendChopped sends bytes in pieces of n, each a write of its own.
func (c *Client) SendChopped(b []byte, n int) {
	c.T.Helper()
	for len(b) > 0 {
		p := b[:min(n, len(b))]
		c.SendRaw(p)
		b = b[len(p):]
	}
}

// SendClose sends a Close frame; wsclient.NoStatus gives one without a code.
func (c *Client) SendClose(code int, reason string) {
	c.T.Helper()
	c.SendRaw(wsclient.AppendClose(nil, Mask, code, reason))
}

// Next is the server's next frame, of any kind; none in time fails the test.
func (c *Client) Next() (op wsclient.Opcode, payload []byte) {
	c.T.Helper()
	op, payload, err := c.TryNext()
	if err != nil {
		c.T.Fatalf("next frame: %v", err)
	}
	return op, payload
}

// TryNext is Next for a stream that may end: then it is io.EOF between two frames, and another error inside of one.
func (c *Client) TryNext() (op wsclient.Opcode, payload []byte, err error) {
	c.NC.SetReadDeadline(time.Now().Add(c.Timeout))
	return ReadFrame(c.R)
}

// ReadFrame reads one frame and holds it against what RFC 6455 demands of a server without extensions, and against what
// ours promises beyond: its messages are never fragmented.
func ReadFrame(r io.Reader) (op wsclient.Opcode, payload []byte, err error) {
	f, err := wsclient.Read(r, maxFrame)
	if err == nil {
		err = check(f)
	}
	return f.Op, f.Payload, err
}

func check(f wsclient.Frame) (err error) {
	switch {
	case !f.Fin || f.Op == wsclient.Continuation:
		return errors.New("a fragment")
	case f.Deflated:
		return wsclient.ErrDeflated
	case f.Op == wsclient.Text && !utf8.Valid(f.Payload):
		return errors.New("a text that is not UTF-8")
	case f.Op == wsclient.Close:
		_, _, err = wsclient.ParseClose(f.Payload)
	}
	return err
}

// Beside is the next frame beside the pings of the heartbeat, the first of which may come at any time.
func (c *Client) Beside() (op wsclient.Opcode, payload []byte) {
	c.T.Helper()
	for {
		if op, payload = c.Next(); op != wsclient.Ping {
			return op, payload
		}
	}
}

// Expect waits for a frame of that kind with that payload; pings don't count.
func (c *Client) Expect(op wsclient.Opcode, payload []byte) {
	c.T.Helper()
	gotOp, got := c.Beside()
	if gotOp != op || !bytes.Equal(got, payload) {
		c.T.Fatalf("got %v %s, want %v %s", gotOp, Brief(got), op, Brief(payload))
	}
}

// Brief shows the beginning of a payload.
func Brief(p []byte) string {
	if len(p) <= 64 {
		return fmt.Sprintf("%q", p)
	}
	return fmt.Sprintf("%q... (%d bytes)", p[:64], len(p))
}

// NextJSON is the next message, which must be text with a JSON object; pings in between are answered.
func (c *Client) NextJSON() map[string]any {
	c.T.Helper()
	for {
		op, p := c.Next()
		if op == wsclient.Ping {
			c.Send(wsclient.Pong, true, p)
			continue
		}
		if op != wsclient.Text {
			c.T.Fatalf("got %v %s, want a text", op, Brief(p))
		}
		var m map[string]any
		if err := json.Unmarshal(p, &m); err != nil {
			c.T.Fatalf("the message %s: %v", Brief(p), err)
		}
		return m
	}
}

// ExpectClose waits for a Close frame with that code (wsclient.NoStatus: without one), behind which the stream ends in
// good order. It sends nothing: where the server began, AnswerClose is meant.
func (c *Client) ExpectClose(code int) {
	c.T.Helper()
	c.ExpectCloseFrame(code)
	c.ExpectEOF()
}

// AnswerClose waits for a Close frame of the server, answers it, and waits for the stream's end.
func (c *Client) AnswerClose(code int) {
	c.T.Helper()
	c.ExpectCloseFrame(code)
	c.SendClose(code, "")
	c.ExpectEOF()
}

// ExpectCloseFrame waits for a Close frame with that code, and no longer.
func (c *Client) ExpectCloseFrame(code int) {
	c.T.Helper()
	op, p := c.Beside()
	if op != wsclient.Close {
		c.T.Fatalf("got %v %s, want a Close with %d", op, Brief(p), code)
	}
	if got, reason, _ := wsclient.ParseClose(p); got != code {
		c.T.Fatalf("got Close %d %q, want %d", got, reason, code)
	}
}

// ExpectEOF waits for the end of the stream: nothing more, and no reset.
func (c *Client) ExpectEOF() {
	c.T.Helper()
	c.NC.SetReadDeadline(time.Now().Add(c.Timeout))
	b, err := c.R.ReadByte()
	if err == nil {
		c.T.Fatalf("got the byte %#x, want the end of the stream", b)
	}
	if !errors.Is(err, io.EOF) {
		c.T.Fatalf("got %v, want the end of the stream", err)
	}
}

// IsEndOrReset says that TCP ended, in good order or not.
func IsEndOrReset(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Quiet says that nothing came by now of what the server had to say before it obeyed what was sent last: a ping goes
// there, and its pong must be the next frame.
func (c *Client) Quiet() {
	c.T.Helper()
	c.Send(wsclient.Ping, true, []byte("anything before this?"))
	c.Expect(wsclient.Pong, []byte("anything before this?"))
}

// EndSending ends the client's half of the TCP stream.
func (c *Client) EndSending() {
	c.T.Helper()
	if err := c.NC.CloseWrite(); err != nil {
		c.T.Fatal(err)
	}
}

// CloseNow closes the TCP connection in good order and without a Close frame.
func (c *Client) CloseNow() { c.NC.Close() }

// Reset closes the TCP connection with a reset.
func (c *Client) Reset() {
	c.NC.SetLinger(0)
	c.NC.Close()
}
