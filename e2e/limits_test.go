package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"example.com/hubbub/internal/wsclient"
)

// A peer whose machine has vanished sends neither FIN nor RST: it just never answers. It is closed after ping interval
// and pong timeout together.
func TestDeadPeerIsClosedWith4002(t *testing.T) {
	flags := []string{"--ping-interval", "1s", "--pong-timeout", "2s"}
	eachIO(t, flags, func(t *testing.T, s *server) {
		for _, path := range []string{"/ws", "/echo"} {
			t.Run(path, func(t *testing.T) {
				t.Parallel()
				c := dialRaw(t, s, path, "")
				begin := time.Now()
				pinged := false
				_ = c.SetReadDeadline(time.Now().Add(patience))
				for {
					first, payload, err := c.read()
					if err != nil {
						t.Fatalf("ended without a Close: %v", err)
					}
					pinged = pinged || first == fin|opPing
					if first != fin|opClose {
						continue
					}
					if code, _, err := wsclient.ParseClose([]byte(payload)); code != 4002 {
						t.Errorf("closed with %d (%v), want 4002", code, err)
					}
					break
				}
				notBefore(t, begin, 2900*time.Millisecond)
				if !pinged {
					t.Error("it was not asked by a ping first")
				}
			})
		}
		for name, sign := range map[string]string{
			"pongs of no ping":     frame(fin|opPong, ""),
			"messages":             text(`{"msg_type":"leave_room","room":"x"}`),
			"bytes of a long head": "",
		} {
			t.Run("kept alive by "+name, func(t *testing.T) {
				t.Parallel()
				c := dialRaw(t, s, "/ws", "")
				c.welcomed()
				// One byte a time of a text that is long in coming is a sign of life too.
				slow := text(`{"msg_type":"ping"}`)
				for i := range 9 {
					if sign == "" {
						c.write(slow[i : i+1])
					} else {
						c.write(sign)
					}
					time.Sleep(500 * time.Millisecond)
				}
				if sign == "" {
					c.write(slow[9:])
				} else {
					c.write(slow)
				}
				for {
					switch first, _ := c.expectAny(); first {
					case fin | opText:
						return
					case fin | opClose:
						t.Fatal("closed")
					}
				}
			})
		}
	})
}

// expectAny is the next frame, whatever it is.
func (c *rawConn) expectAny() (first byte, payload string) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	first, payload, err := c.read()
	if err != nil {
		c.t.Fatal(err)
	}
	return first, payload
}

// flood publishes messages of 15 KiB to a room until the time is up. Before the next one each has been acknowledged,
// and received by every reader. It returns the number of the next message.
func flood(publisher *rawConn, room string, n int, d time.Duration, readers ...*rawConn) int {
	publisher.t.Helper()
	pad := strings.Repeat("x", 15<<10)
	for end := time.Now().Add(d); time.Now().Before(end); n++ {
		publisher.write(text(fmt.Sprintf(`{"msg_type":"room_message","room":%q,"id":%d,"content":"%d %s"}`, room, n, n, pad)))
		publisher.message("ack")
		for _, r := range readers {
			if m := r.message("room_message"); !strings.Contains(m.text, fmt.Sprintf(`"content":"%d `, n)) {
				r.t.Fatalf("message %d: got %.100s", n, m.text)
			}
		}
	}
	return n
}

// A reader that does not keep up is closed with 4000 at its own bound, and nobody else waits for it or misses anything.
func TestSlowReaderIsClosedWith4000(t *testing.T) {
	flags := []string{"--workers", "2", "--send-queue-bytes", "64KiB", "--max-message-bytes", "16KiB"}
	eachIO(t, flags, func(t *testing.T, s *server) {
		slow, publisher, reader := dialRaw(t, s, "/ws", ""), dialRaw(t, s, "/ws", ""), dialRaw(t, s, "/ws", "")
		for _, c := range []*rawConn{slow, publisher, reader} {
			c.welcomed()
		}
		// A fixed buffer: it would grow with what is read, and swallow it all.
		if err := slow.Conn.(*net.TCPConn).SetReadBuffer(256 << 10); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*rawConn{slow, reader} {
			c.write(text(`{"msg_type":"join_room","room":"r","id":"j"}`))
			c.message("joined")
		}
		// While the slow one does not read at all, its queue overflows. The server waits a second for its Close to be
		// taken, so it reads as soon as it is known to be closed.
		n := 0
		for end := time.Now().Add(patience); scrape(t, s)[`hubbub_closed_total{code="4000"}`] == 0; {
			if time.Now().After(end) {
				t.Fatalf("not closed after %d messages", n)
			}
			n = flood(publisher, "r", n, 50*time.Millisecond, reader)
		}
		code := drain(slow)
		if code != 4000 {
			t.Errorf("the slow reader was closed with %d, want 4000", code)
		}
		flood(publisher, "r", n, 100*time.Millisecond, reader)
	})
}

// drain reads up to a Close, and returns its code.
func drain(c *rawConn) int {
	c.t.Helper()
	for {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		first, payload, err := c.read()
		if err != nil {
			c.t.Fatalf("the slow reader's connection: %v", err)
		}
		if first == fin|opClose {
			code, _, _ := wsclient.ParseClose([]byte(payload))
			return code
		}
	}
}

// A reader that never reads again is forgotten: when its queue is full, and when what stands in it is too old.
func TestStalledReaderIsForgotten(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, bytes, age string
	}{
		{"full", "64KiB", "1h"},
		{"old", "64MiB", "1s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			flags := []string{"--workers", "2", "--resume-window", "0s", "--max-message-bytes", "16KiB", "--send-queue-bytes", c.bytes, "--send-queue-age", c.age}
			eachIO(t, flags, func(t *testing.T, s *server) {
				stalled, publisher := dialRaw(t, s, "/ws", ""), dialRaw(t, s, "/ws", "")
				id := stalled.welcomed()
				publisher.welcomed()
				stalled.write(text(`{"msg_type":"join_room","room":"s","id":"j"}`))
				stalled.message("joined")
				// More than the kernel's buffers hold, in both cases.
				for n := 0; n < 1000; {
					n = flood(publisher, "s", n, 50*time.Millisecond)
				}
				for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
					publisher.write(text(fmt.Sprintf(`{"msg_type":"direct_message","to":%q,"content":1,"id":1}`, id)))
					var first byte
					var payload string
					for first != fin|opText {
						if first, payload = publisher.expectAny(); first == fin|opClose {
							t.Fatal("the publisher was closed")
						}
					}
					if strings.Contains(payload, "unknown_client") {
						return
					}
					if time.Now().After(end) {
						t.Fatal("the stalled reader is still connected")
					}
				}
			})
		})
	}
}
