package loop

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// stuck is a connection whose far end reads nothing, and whose socket takes no more.
func stuck(t *testing.T, cfg Config) (w *Worker, c *Conn, far net.Conn, code chan int) {
	t.Helper()
	l := start(t, cfg)
	w = l.workers[0]
	code = make(chan int, 1)
	opened := make(chan *Conn, 1)
	far = connect(t, l, &script{opened: func(c *Conn) { opened <- c }, closed: func(_ *Conn, n int) { code <- n }})
	c = <-opened
	if err := far.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil { // else the kernel makes it larger, now and then
		t.Fatal(err)
	}
	before := 0
	for same := 0; same < 10; time.Sleep(20 * time.Millisecond) { // nothing is taken meanwhile
		unsent := 0
		do(w, func() {
			if c.full {
				unsent = c.Unsent()
			} else {
				c.Send(NewFrame(wire.Binary, make([]byte, 256<<10)))
			}
		})
		if same++; unsent == 0 || unsent != before {
			before, same = unsent, 0
		}
	}
	return w, c, far, code
}

// frameOf is one that takes n bytes on the wire, more than 130.
func frameOf(n int, answer bool) *Frame {
	payload := n - 4
	if payload > 1<<16-1 {
		payload = n - wire.MaxHeader
	}
	f := NewFrame(wire.Binary, make([]byte, payload))
	f.answer = answer
	return f
}

// Of rooms' messages as many bytes wait as --send-queue-bytes says, and not one more; of answers 64 KiB and one
// message.
func TestTheQueuesBoundsAreExact(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.SendQueueBytes = 1 << 20
		for name, c := range map[string]struct {
			answer bool
			most   func(c *Conn) int // bytes that still fit
		}{
			"rooms":   {false, func(c *Conn) int { return cfg.SendQueueBytes - c.Unsent() }},
			"answers": {true, func(*Conn) int { return 64<<10 + cfg.MaxMessageBytes + 2*wire.MaxHeader }},
		} {
			for over := 0; over < 2; {
				w, conn, _, code := stuck(t, cfg)
				full := false
				do(w, func() {
					if full = conn.full; !full { // it takes more after all
						return
					}
					left := c.most(conn)
					for ; left > 100_000; left -= 50_000 { // in several
						if f := frameOf(50_000, c.answer); !conn.Send(f) {
							t.Errorf("%s: no more than %d bytes fit, want %d", name, conn.Unsent(), conn.Unsent()+left)
							return
						}
					}
					if fits := conn.Send(frameOf(left+over, c.answer)); fits != (over == 0) {
						t.Errorf("%s: with %d bytes over the bound Send is %t", name, over, fits)
					}
					if over == 0 && conn.Send(frameOf(200, c.answer)) {
						t.Errorf("%s: the bound is reached, and more is taken", name)
					}
				})
				switch {
				case t.Failed():
					return // it may never be closed
				case !full:
					continue
				}
				if n := <-code; n != protocol.CloseSlowConsumer {
					t.Errorf("%s: closed with %d", name, n)
				}
				over++
			}
		}
	})
}

// Answers that have left count no more, though the queue was never empty.
func TestAnswersThatHaveLeftCountNoMore(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		const rest = 32 << 20 // more than the sockets of both sides hold
		cfg.SendQueueBytes, cfg.SendQueueAge = 2*rest, time.Hour
		w, c, far, code := stuck(t, cfg)
		const pieces = rest / 2 / 60_000
		piece := frameOf(60_000, false) // the race detector goes over the whole rest of a frame at each write
		for round := range 3 {
			before := 0
			do(w, func() {
				for range 2 {
					if !c.Send(frameOf(50_000, true)) {
						t.Errorf("round %d: two answers don't fit", round)
					}
				}
				before = c.Unsent()
				for range pieces {
					if !c.Send(piece) || c.Unsent() <= before {
						t.Error("nothing waits behind them")
						return
					}
				}
			})
			buf := make([]byte, 64<<10)
			until(t, "the answers are out", func() (out bool) {
				if _, err := io.ReadFull(far, buf); err != nil {
					t.Fatal(err)
				}
				do(w, func() {
					out = c.Unsent() <= pieces*len(piece.b)
					if c.Unsent() == 0 {
						t.Error("nothing is left: the test shows nothing")
					}
				})
				return out
			})
		}
		select {
		case n := <-code:
			t.Errorf("closed with %d", n)
		default:
		}
	})
}

// An answer that waits behind a large frame keeps its bytes, whatever is answered to others in the turns meanwhile.
func TestAnAnswerThatWaitsKeepsItsBytes(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		opened := make(chan *Conn, 1)
		far := connect(t, l, &script{opened: func(c *Conn) { opened <- c }})
		c := <-opened
		other := connect(t, l, echo())
		const size = 32 << 20 // more than the sockets of both sides hold
		do(c.w, func() {
			c.Send(NewFrame(wire.Binary, make([]byte, size)))
			c.Answer(wire.Text, []byte("first"))
			c.Answer(wire.Text, []byte("second"))
		})
		for range 10 {
			noise := strings.Repeat("noise", 1000)
			other.Write(frameTo(noise))
			expect(t, other, text(noise))
		}
		if _, err := io.CopyN(io.Discard, far, size+wire.MaxHeader); err != nil {
			t.Fatal(err)
		}
		expect(t, far, text("first"), text("second"))
	})
}

// The peer has ended its half, and the socket is full: all that is queued arrives, then the end.
func TestAHalfCloseBehindAFullSocketLosesNothing(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.SendQueueBytes = 64 << 20
		w, c, far, code := stuck(t, cfg)
		var unsent int
		do(w, func() {
			c.Send(NewFrame(wire.Text, []byte("the last word")))
			unsent = c.Unsent()
		})
		if unsent == 0 {
			t.Fatal("nothing waits")
		}
		far.(*net.TCPConn).CloseWrite()
		if n := <-code; n != wire.CloseAbnormal {
			t.Errorf("closed with %d", n)
		}
		var after int
		do(w, func() { after = c.Unsent() })
		if after != unsent {
			t.Errorf("%d of %d bytes are left", after, unsent)
		}
		b, err := io.ReadAll(far)
		if err != nil || !strings.HasSuffix(string(b), string(text("the last word"))) {
			t.Errorf("%d bytes came, without the last word, then %v", len(b), err)
		}
		until(t, "it is gone", func() bool { return w.loop.Connections() == 0 })
	})
}

// A name of a connection that has gone leads nowhere, though another one has its slot.
func TestANameOfOneWhoIsGoneLeadsNowhere(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		w := l.workers[0]
		opened := make(chan *Conn, 1)
		h := &script{opened: func(c *Conn) { opened <- c }}
		var names []Ref
		for range 20 {
			far := connect(t, l, h)
			c := <-opened
			do(w, func() {
				for _, old := range names {
					if got := w.Conn(old); got != nil {
						t.Error("the name of one who is gone leads to the next")
					}
				}
				if w.Conn(c.Ref()) != c {
					t.Error("its own name doesn't lead to it")
				}
				if len(names) > 0 && c.Ref().slot != names[0].slot {
					t.Error("this connection has a slot of its own: the test shows nothing")
				}
				names = append(names, c.Ref())
			})
			far.Close()
			until(t, "it is gone", func() bool { return l.Connections() == 0 })
		}
	})
}

// A connection that waits for a mailbox, and has gone when there is room, doesn't wake the next one in its slot, which
// waits for another.
func TestRoomInAMailboxWakesNobodyElse(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.Workers = 3
		l := start(t, cfg)
		opened := make(chan *Conn, 1)
		h := &script{opened: func(c *Conn) { opened <- c }}
		far := connect(t, l, h)
		first := <-opened
		w := first.w
		var open []func() // lets each of the others go on
		var full []*Worker
		for _, dst := range l.workers {
			if dst == w {
				continue
			}
			g := make(chan struct{})
			dst.Post(taskFunc(func(*Worker) { <-g }), 0)
			for !dst.Full() {
				dst.Post(taskFunc(func(*Worker) {}), 100_000)
			}
			once := sync.OnceFunc(func() { close(g) })
			t.Cleanup(once)
			open, full = append(open, once), append(full, dst)
		}
		do(w, func() { first.Throttle(full[0]) })
		far.(*net.TCPConn).SetLinger(0)
		far.Close()
		until(t, "it is gone", func() bool { return l.Connections() == 0 })
		connect(t, l, h)
		second := <-opened
		var same, paused bool
		do(w, func() {
			same = second.w == w && second.slot == first.slot
			if same {
				second.Throttle(full[1])
			}
		})
		if !same {
			t.Error("this connection has a slot of its own: the test shows nothing")
		}
		open[0]()
		until(t, "the first mailbox is empty", func() bool { return full[0].Depth() == 0 })
		do(full[0], func() {}) // and it has woken who waited
		do(w, func() { paused = second.paused != 0 })
		if !paused && same {
			t.Error("who waits for one mailbox was woken by another's")
		}
		open[1]()
		until(t, "it is woken by its own", func() (on bool) {
			do(w, func() { on = second.paused == 0 })
			return on
		})
	})
}

// A mailbox that has been emptied meanwhile holds nobody up: nothing would wake who waited for it.
func TestAnEmptyMailboxHoldsNobodyUp(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.Workers = 2
		l := start(t, cfg)
		opened := make(chan *Conn, 1)
		h := echo()
		hold := h.opened
		h.opened = func(c *Conn) { hold(c); opened <- c }
		far := connect(t, l, h)
		c := <-opened
		other := l.workers[1-c.w.index]
		do(c.w, func() { c.Throttle(other) })
		far.Write(frameTo("still read"))
		expect(t, far, text("still read"))
	})
}

// A task that is put off counts for what it was posted with, whatever stands in the list where it comes to stand: with
// less an idle mailbox would hold its publishers up for good, and with more it would never be full.
func TestWhatIsPutOffCountsForItself(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		for _, cost := range [][2]int{{2000, 1}, {1, 2000}} {
			w := alone(t, cfg).workers[0]
			const times = 1000
			ran := 0
			do(w, func() { // so each three that it posts lie in one turn
				for range times {
					w.Post(taskFunc(func(w *Worker) {
						first := w.Peek()
						w.Skip()
						w.Skip() // the other one is done with this
						w.PutOff(first, cost[0])
					}), 0)
					w.Post(taskFunc(func(*Worker) { ran++ }), cost[0])
					w.Post(taskFunc(func(*Worker) { t.Error("what was skipped has run") }), cost[1])
				}
			})
			until(t, "all have run", func() (all bool) { do(w, func() { all = ran == times }); return all })
			until(t, "nothing is under way", func() bool {
				w.mail.mu.Lock()
				defer w.mail.mu.Unlock()
				return w.mail.taken == 0 && len(w.mail.tasks) == 0
			})
			w.mail.mu.Lock()
			bytes := w.mail.bytes
			w.mail.mu.Unlock()
			if bytes != 0 {
				t.Errorf("an empty mailbox counts %d bytes", bytes)
			}
		}
	})
}

// What a mailbox counts for is nothing when it is empty: the same number of posts fills it again and again, whatever
// was run, skipped or taken together meanwhile.
func TestAMailboxHoldsAsMuchAgain(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		w := l.workers[0]
		const size = 1000
		fill := func() (n int) {
			g := make(chan struct{})
			w.Post(taskFunc(func(*Worker) { <-g }), 0)
			for ; !w.Full(); n++ {
				w.Post(taskFunc(func(w *Worker) {
					for n%3 == 0 && w.Peek() != nil && n > 0 { // takes off all that follow
						w.Skip()
						n--
					}
				}), size)
			}
			close(g)
			until(t, "all is done", func() bool { return w.Depth() == 0 })
			return n
		}
		plain := func() (n int) {
			g := make(chan struct{})
			w.Post(taskFunc(func(*Worker) { <-g }), 0)
			for ; !w.Full(); n++ {
				w.Post(taskFunc(func(*Worker) {}), size)
			}
			close(g)
			until(t, "all is done", func() bool { return w.Depth() == 0 })
			return n
		}
		want := plain()
		if least := highWater / (size + taskCost); want < least || want > least+1 {
			t.Errorf("%d posts fill a mailbox, want %d", want, least)
		}
		for range 3 {
			fill()
			if got := plain(); got != want {
				t.Fatalf("%d posts fill it, and %d did before", got, want)
			}
		}
	})
}

// What was read and looked at is not kept with what wasn't: a paused connection holds what it counts for.
func TestWhatWasLookedAtIsNotKept(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		var read weak.Pointer[byte]
		paused := make(chan *Conn, 1)
		far := connect(t, l, &script{message: func(c *Conn, _ wire.Opcode, p []byte) {
			if c.in != nil && len(c.in.left) > 1000 && read.Value() == nil {
				read = weak.Make(&c.in.left[0])
			}
			if string(p) == "pause" {
				c.PauseReading()
				paused <- c
				return
			}
			for began := time.Now(); time.Since(began) < 50*time.Microsecond; {
			}
		}})
		one := frameTo("")
		go far.Write(append(append(bytes.Repeat(one, 3500/len(one)), frameTo("pause")...), frameTo("later")...))
		c := <-paused
		until(t, "it is looked at and let go", func() bool {
			var held int64
			do(c.Worker(), func() {
				if c.in != nil {
					held = c.in.counted
				}
			})
			runtime.GC()
			return held > 0 && held < 100 && read.Value() == nil
		})
	})
}
