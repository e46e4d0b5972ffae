package loop

import (
	"bufio"
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

// inflating reads a server's frames as a client would that has one window for all of them.
type inflating struct {
	r    *bufio.Reader
	past []byte
}

// next is a message, and how many bytes of payload it took; compressed says whether it had RSV1.
func (z *inflating) next() (msg string, size int, compressed bool, err error) {
	f, err := wsclient.Read(z.r, 1<<30)
	size = len(f.Payload)
	if err != nil || !f.Deflated {
		return string(f.Payload), size, false, err
	}
	p := append(f.Payload, "\x00\x00\xff\xff\x01\x00\x00\xff\xff"...)
	out, err := io.ReadAll(flate.NewReaderDict(bytes.NewReader(p), z.past))
	z.past = append(z.past, out...)
	z.past = z.past[max(0, len(z.past)-32768):]
	return string(out), size, true, err
}

// large is a message that compresses well, and its frame.
func large(i, n int) (string, *Frame) {
	s := fmt.Sprint(i, strings.Repeat(fmt.Sprintf(" message %d", i), n/9))[:n]
	return s, NewFrame(wire.Text, []byte(s))
}

// agreed is what half of the members of a room have: none, or one of two windows.
func agreed(i int) wire.Deflate {
	return []wire.Deflate{{}, {ServerBits: 15, ClientBits: 15}, {}, {ServerBits: 10, ClientBits: 15}}[i%4]
}

// One message to a hundred members of which fifty compress, with two windows, on three workers, is compressed twice. So
// it is where it is joined with others.
func TestABroadcastIsDeflatedOnceForEachWindow(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.Workers = 3
		l := start(t, cfg)
		var mu sync.Mutex
		byWorker := map[*Worker][]*Conn{}
		h := &script{opened: func(c *Conn) {
			mu.Lock()
			defer mu.Unlock()
			byWorker[c.Worker()] = append(byWorker[c.Worker()], c)
		}}
		const members = 100
		clients := make([]*inflating, members)
		for i := range clients {
			clients[i] = &inflating{r: bufio.NewReader(connectDeflated(t, l, h, agreed(i)))}
		}
		until(t, "all are open", func() bool {
			mu.Lock()
			defer mu.Unlock()
			n := 0
			for _, conns := range byWorker {
				n += len(conns)
			}
			return n == members
		})
		send := func(frames ...*Frame) {
			for w, conns := range byWorker {
				w.Post(taskFunc(func(*Worker) {
					all := Join(frames)
					for _, c := range conns {
						c.Send(all)
					}
				}), 0)
			}
		}
		one, f1 := large(1, 5000)
		two, f2 := large(2, 70000)
		small, f3 := large(3, minDeflate-1)
		send(f1)
		send(f1, f2, f3)
		send(f2)
		send(f3)
		for i, z := range clients {
			for _, want := range []string{one, one, two, small, two, small} {
				got, size, compressed, err := z.next()
				if got != want || err != nil {
					t.Fatalf("client %d: %.20q and %v, want %.20q", i, got, err, want)
				}
				if compressed != (i%2 == 1 && len(want) >= minDeflate) || compressed && size > len(want)/10 {
					t.Fatalf("client %d: %d bytes for %d, compressed: %v", i, size, len(want), compressed)
				}
				z.past = nil // each message stands alone
			}
		}
		if n := l.Deflates.Load(); n != 4 {
			t.Errorf("two messages and two windows took %d deflates", n)
		}
		var sent int64
		for _, w := range l.Workers() {
			do(w, func() { sent += w.counts.MessagesSent })
		}
		if sent != 6*members {
			t.Errorf("%d messages are counted as sent, want %d", sent, 6*members)
		}
	})
}

func TestWithoutCompressionNothingIsDeflated(t *testing.T) {
	_, f := large(1, 5000)
	joined := Join([]*Frame{f, f})
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		far := connect(t, l, &script{opened: func(c *Conn) { c.Send(f); c.Send(joined) }})
		expect(t, far, f.b, f.b, f.b)
		if n := l.Deflates.Load(); n != 0 || f.forms.Load() != nil {
			t.Errorf("%d deflates", n)
		}
	})
}

// What can't be compressed goes out as it is, and is tried once.
func TestNoiseIsSentPlain(t *testing.T) {
	noise := make([]byte, 5000)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	for name, d := range map[string]wire.Deflate{"alone": {ServerBits: 15, ClientBits: 15}, "in context": {ServerBits: 15, ClientBits: 15, ServerTakeover: true, ClientTakeover: true}} {
		t.Run(name, func(t *testing.T) {
			eachIO(t, func(t *testing.T, cfg Config) {
				f := NewFrame(wire.Binary, noise)
				l := start(t, cfg)
				far := connectDeflated(t, l, &script{opened: func(c *Conn) { c.Send(f); c.Send(Join([]*Frame{f, f})); c.Answer(wire.Binary, noise) }}, d)
				expect(t, far, f.b, f.b, f.b, f.b)
			})
		})
	}
}

// With context takeover each connection has a window of its own, over shared frames, joined ones and answers.
func TestContextIsTakenOverInOrder(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.Workers = 2
		l := start(t, cfg)
		var frames []*Frame
		var want []string
		for i := range 40 {
			s, f := large(i, 300+i*100)
			frames = append(frames, f)
			want = append(want, s)
		}
		joined := Join(frames[20:])
		h := &script{opened: func(c *Conn) {
			for i, f := range frames[:20] {
				if i%3 == 0 {
					c.Answer(wire.Text, []byte(want[i]))
				} else {
					c.Send(f)
				}
			}
			c.Send(joined)
			c.Send(joined)
		}}
		for range 4 {
			far := connectDeflated(t, l, h, wire.Deflate{ServerBits: 15, ClientBits: 13, ServerTakeover: true, ClientTakeover: true})
			z := &inflating{r: bufio.NewReader(far)}
			for i, want := range append(want, want[20:]...) {
				got, size, compressed, err := z.next()
				if got != want || err != nil {
					t.Fatalf("message %d: %.20q and %v, want %.20q", i, got, err, want)
				}
				if compressed != (len(want) >= minDeflate) || i == len(frames)+19 && size > 60 {
					t.Fatalf("message %d: %d bytes for %d", i, size, len(want))
				}
			}
			far.Close()
		}
		for _, w := range l.Workers() {
			until(t, "the windows are gone with their connections", func() (none bool) {
				do(w, func() { none = len(w.takeovers) == 0 })
				return none
			})
		}
	})
}

// The bounds of the queue count what is really sent: this many plain bytes would not fit.
func TestBoundsCountCompressedBytes(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.SendQueueBytes = 64 << 10
		l := start(t, cfg)
		conn := make(chan *Conn, 1)
		connectDeflated(t, l, &script{opened: func(c *Conn) { conn <- c }}, agreed(1))
		c := <-conn
		do(c.w, func() {
			_, f := large(1, 60000)
			for range 50 {
				if !c.Send(f) {
					t.Error("closed as too slow")
					return
				}
			}
			if n := c.Unsent(); n > 30000 || n < 50*100 {
				t.Errorf("%d bytes wait", n)
			}
		})
	})
}

// A message comes in compressed, in one read or many, and the connection keeps nothing between two.
func TestCompressedMessagesComeIn(t *testing.T) {
	const hello = "\xf2\x48\xcd\xc9\xc9\x07\x00"
	stream := wsclient.Append(nil, true, wsclient.Text|wsclient.Deflated, [4]byte{1, 2, 3, 4}, []byte(hello))
	stream = wsclient.Append(stream, false, wsclient.Text|wsclient.Deflated, [4]byte{1, 2, 3, 4}, []byte(hello[:2]))
	stream = wsclient.Append(stream, true, wsclient.Continuation, [4]byte{1, 2, 3, 4}, []byte(hello[2:]))
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		conn := make(chan *Conn, 2)
		h := echo()
		h.opened = func(c *Conn) { conn <- c }
		far := connectDeflated(t, l, h, agreed(1))
		far.Write(stream)
		expect(t, far, text("Hello"), text("Hello"))
		for i := range stream {
			far.Write(stream[i : i+1])
		}
		expect(t, far, text("Hello"), text("Hello"))
		c := <-conn
		do(c.w, func() {
			if c.in != nil || c.out.first != nil || len(c.w.takeovers) > 0 {
				t.Errorf("it holds %v %v %v", c.in, c.out.first, c.w.takeovers)
			}
		})
		plain := connect(t, l, h) // the same worker, and nothing agreed
		plain.Write(stream)
		expect(t, plain, wire.AppendClose(nil, wire.CloseProtocolError, "reserved bit set"))
	})
}
