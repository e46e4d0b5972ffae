package loop

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub/internal/wire"
)

// gathered opens n connections of one worker and gives them with their far ends.
func gathered(t *testing.T, cfg Config, n int, h *script) (w *Worker, conns []*Conn, far []net.Conn) {
	t.Helper()
	l := start(t, cfg)
	opened := make(chan *Conn, 1)
	h.opened = func(c *Conn) { opened <- c }
	for range n {
		far = append(far, connect(t, l, h))
		conns = append(conns, <-opened)
	}
	return l.workers[0], conns, far
}

// Sockets that take a part of a write, or nothing, get the rest later: each byte once and in order, whatever else was
// written in the same turn.
func TestReadersThatLagGetEveryByteInOrder(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.SendQueueBytes, cfg.SendQueueAge = 64<<20, time.Hour
		cfg.PingInterval = 1000 * time.Hour // the first is due at any time in it, and this may take a while
		w, conns, far := gathered(t, cfg, 6, &script{})
		want := make([][]byte, len(conns))
		sent := 0
		send := func(i int) {
			for range 3 { // one write's worth: it is a write of all together that finds the socket full
				f := NewFrame(wire.Binary, bytes.Repeat([]byte{byte(i), byte(sent), byte(sent >> 8)}, 100+sent%7*1_000))
				want[i] = append(want[i], f.b...)
				if sent++; !conns[i].Send(f) {
					t.Errorf("connection %d takes no more", i)
				}
			}
		}
		for full := false; !full; {
			do(w, func() {
				full = true
				for i, c := range conns {
					if !c.full {
						full = false
						send(i)
					}
				}
			})
		}
		do(w, func() {
			for i := range conns {
				send(i)
			}
		})
		for i := range far {
			got := make([]byte, len(want[i]))
			if _, err := io.ReadFull(far[i], got); err != nil {
				t.Fatal(err)
			}
			for at := range got {
				if got[at] != want[i][at] {
					t.Fatalf("connection %d: from byte %d of %d on it is % .10x, want % .10x", i, at, len(got), got[at:], want[i][at:])
				}
			}
		}
		until(t, "all is accounted for", func() (nothing bool) {
			do(w, func() { nothing = w.counts.Unsent == 0 })
			return
		})
		do(w, func() {
			if n := w.counts.MessagesSent; n != int64(sent) {
				t.Errorf("%d messages are counted as sent, want %d", n, sent)
			}
		})
	})
}

// A handler that is told that its queue is empty, and has another connection written to at once whose bytes went out
// with its own, doesn't have them go out again.
func TestWhatGoesOutTogetherGoesOutOnce(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.SendQueueBytes = 1000
		var conns []*Conn
		first, second := NewFrame(wire.Binary, make([]byte, 900)), NewFrame(wire.Binary, bytes.Repeat([]byte{1}, 800))
		h := &script{drained: func(c *Conn) {
			for _, other := range conns {
				other.Send(second) // the two don't fit at once: its socket is tried first
			}
		}}
		w, all, far := gathered(t, cfg, 8, h)
		do(w, func() {
			conns = all
			conns[0].TellDrained = true
			for _, c := range conns {
				c.Send(first)
			}
		})
		for _, f := range far {
			expect(t, f, first.b, second.b)
		}
		do(w, func() {
			if n := w.counts.MessagesSent; n != int64(2*len(conns)) {
				t.Errorf("%d messages were sent, want %d", n, 2*len(conns))
			}
		})
	})
}

// Of connections that are written to together some may be gone: they end, and the others get what is theirs.
func TestWhoIsGoneDoesNotKeepOthersFromTheirs(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		var closed atomic.Int32
		w, conns, far := gathered(t, cfg, 9, &script{closed: func(*Conn, int) { closed.Add(1) }})
		do(w, func() { // the worker doesn't hear of it before it writes
			for i, c := range conns {
				if i%3 == 0 {
					far[i].(*net.TCPConn).SetLinger(0)
					far[i].Close()
				}
				c.Send(NewFrame(wire.Text, []byte(fmt.Sprint("yours is ", i))))
			}
		})
		until(t, "three are closed", func() bool { return closed.Load() == 3 })
		for i, f := range far {
			if i%3 != 0 {
				expect(t, f, text(fmt.Sprint("yours is ", i)))
			}
		}
		do(w, func() {
			if w.count != 6 {
				t.Errorf("%d connections are left, want 6", w.count)
			}
		})
	})
}
