package loop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

func echo() *script {
	return &script{
		opened:  func(c *Conn) { c.HoldReads = true },
		message: func(c *Conn, op wire.Opcode, p []byte) { c.Answer(op, p) },
	}
}

func TestAnswersComeBackInOrder(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		far := connect(t, start(t, cfg), echo())
		var sent, want []byte
		for i := range 1000 {
			s := strings.Repeat(fmt.Sprint(i), i%50+1)
			sent = append(sent, frameTo(s)...)
			want = append(want, text(s)...)
		}
		go far.Write(sent)
		expect(t, far, want)
	})
}

// A large message that is echoed doesn't fit the socket at once, and its client sends the next before it reads.
func TestEchoStopsReadingRatherThanQueue(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		var c atomic.Pointer[Conn]
		h := echo()
		opened := h.opened
		h.opened = func(conn *Conn) { opened(conn); c.Store(conn) }
		l := start(t, cfg)
		far := connect(t, l, h)
		big := strings.Repeat("x", 60<<10)
		const n = 400 // 24 MB: more than the sockets of both sides hold
		sent := make(chan error, 1)
		go func() {
			for range n {
				if _, err := far.Write(frameTo(big)); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		until(t, "the echo's queue fills", func() (full bool) {
			do(l.workers[0], func() { full = c.Load() != nil && c.Load().full })
			return full
		})
		var unsent int
		do(l.workers[0], func() { unsent = c.Load().Unsent() })
		if limit := 2*(64<<10) + readSize + 100; unsent > limit {
			t.Errorf("%d bytes are unsent, want at most what one read brought: %d", unsent, limit)
		}
		for range n {
			expect(t, far, text(big))
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
}

// One write for each connection and turn, however many messages it got: counted on a pumped connection.
func TestOneWriteForAllThatATurnBrought(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		var members []*Conn
		l := start(t, cfg)
		h := &script{opened: func(c *Conn) { members = append(members, c) }}
		h.message = func(c *Conn, op wire.Opcode, p []byte) {
			for range 100 {
				f := NewFrame(wire.Text, []byte("to all"))
				for _, m := range members {
					m.Send(f)
				}
				c.Answer(wire.Text, []byte("ok"))
			}
		}
		var far []net.Conn
		for range 10 {
			far = append(far, connect(t, l, h))
		}
		w := l.workers[0]
		until(t, "all are in", func() (all bool) { do(w, func() { all = len(members) == 10 }); return all })
		var before, after int64
		do(w, func() { before = w.counts.Writes })
		far[3].Write(frameTo("go"))
		for i, f := range far {
			for range 100 {
				expect(t, f, text("to all"))
				if i == 3 {
					expect(t, f, text("ok"))
				}
			}
		}
		do(w, func() { after = w.counts.Writes })
		if after-before != 10 {
			t.Errorf("%d writes for 10 connections, want one each", after-before)
		}
	})
}

func TestAClientThatDoesNotReadIsDisconnected(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.SendQueueBytes = 256 << 10
		code := make(chan int, 1)
		var slow, healthy *Conn
		l := start(t, cfg)
		slowFar := connect(t, l, &script{opened: func(c *Conn) { slow = c }, closed: func(_ *Conn, n int) { code <- n }})
		slowFar.(*net.TCPConn).SetReadBuffer(4 << 10)
		healthyFar := connect(t, l, &script{opened: func(c *Conn) { healthy = c }})
		w := l.workers[0]
		until(t, "both are in", func() (all bool) { do(w, func() { all = slow != nil && healthy != nil }); return all })

		payload := strings.Repeat("y", 16<<10)
		var got atomic.Int64
		go func() {
			buf := make([]byte, len(text(payload)))
			for {
				if _, err := io.ReadFull(healthyFar, buf); err != nil {
					return
				}
				got.Add(1)
			}
		}()
		sent := int64(0)
		var most int
		var closed int
		for closed == 0 {
			do(w, func() {
				f := NewFrame(wire.Text, []byte(payload))
				slow.Send(f)
				healthy.Send(f)
				most = max(most, slow.Unsent())
			})
			sent++
			select {
			case closed = <-code:
			default:
			}
			until(t, "the healthy one keeps up", func() bool { return got.Load() == sent })
			if sent > 5000 {
				t.Fatal("the slow one was never closed")
			}
		}
		if closed != protocol.CloseSlowConsumer {
			t.Errorf("closed with %d, want %d", closed, protocol.CloseSlowConsumer)
		}
		if most > cfg.SendQueueBytes {
			t.Errorf("%d bytes were queued, bound %d", most, cfg.SendQueueBytes)
		}
	})
}

// The bound on age: here nothing but time makes the client too slow.
func TestAQueueThatIsTooOldDisconnects(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.SendQueueBytes = 64 << 20
		cfg.SendQueueAge = time.Second
		code := make(chan int, 1)
		var c *Conn
		l := start(t, cfg)
		far := connect(t, l, &script{opened: func(conn *Conn) { c = conn }, closed: func(_ *Conn, n int) { code <- n }})
		w := l.workers[0]
		until(t, "open", func() (in bool) { do(w, func() { in = c != nil }); return in })
		began := time.Now()
		do(w, func() { c.Send(NewFrame(wire.Binary, make([]byte, 32<<20))) })
		if got := <-code; got != protocol.CloseSlowConsumer {
			t.Errorf("closed with %d", got)
		}
		if took := time.Since(began); took < time.Second {
			t.Errorf("closed after %s: earlier than the age allows", took)
		}
		// Not even the Close fits: the peer is reset.
		until(t, "the connection is given up", func() bool { return l.Connections() == 0 })
		if _, err := io.Copy(io.Discard, far); err == nil {
			t.Error("the stream ended in good order, want a reset")
		}
	})
}

// A queue that is forgiven isn't too old, nor its client dead, while the socket takes a byte now and then.
func TestAForgivenQueueIsTooOldWhenNothingIsTaken(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.SendQueueBytes = 64 << 20
		cfg.SendQueueAge, cfg.PingInterval, cfg.PongTimeout = 10*time.Second, 6*time.Second, 6*time.Second
		code := make(chan int, 1)
		var c *Conn
		l := start(t, cfg)
		far := connect(t, l, &script{opened: func(conn *Conn) { c = conn }, closed: func(_ *Conn, n int) { code <- n }})
		w := l.workers[0]
		until(t, "open", func() (in bool) { do(w, func() { in = c != nil }); return in })
		do(w, func() {
			f := NewFrame(wire.Binary, make([]byte, 60<<10))
			for range 1000 { // one frame of that size has the race detector go over all of it at each write
				c.Send(f)
			}
			c.Forgive()
		})
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if _, err := io.CopyN(io.Discard, far, 256<<10); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case got := <-code:
			t.Fatalf("closed with %d while it was read", got)
		default:
		}
		if got := <-code; got != protocol.CloseSlowConsumer && got != protocol.CloseNoSignOfLife { // both are due
			t.Errorf("closed with %d", got)
		}
	})
}

func TestAPeerWithoutASignOfLifeIsClosed(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.PingInterval, cfg.PongTimeout = time.Second, time.Second
		l := start(t, cfg)
		began := time.Now()
		far := connect(t, l, &script{})
		expect(t, far, wire.AppendFrame(nil, wire.Ping, nil))
		var rest bytes.Buffer
		io.Copy(&rest, far)
		took := time.Since(began)
		if took < 2*time.Second {
			t.Errorf("closed after %s, earlier than both times together", took)
		}
		want := wire.AppendClose(nil, protocol.CloseNoSignOfLife, "no sign of life")
		if !bytes.HasSuffix(rest.Bytes(), want) {
			t.Errorf("the last bytes are % x, want the Close % x", rest.Bytes(), want)
		}
	})
}

func TestAnyByteIsASignOfLife(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.PingInterval, cfg.PongTimeout = time.Second, time.Second
		l := start(t, cfg)
		far := connect(t, l, echo())
		slowly := frameTo("one byte at a time")
		for i := range slowly {
			if _, err := far.Write(slowly[i : i+1]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(250 * time.Millisecond) // the time itself is under test: 6 s, three times the patience
		}
		var got []byte
		for !bytes.Contains(got, text("one byte at a time")) {
			b := make([]byte, 256)
			n, err := far.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, b[:n]...)
		}
	})
}

// SIGSTOP, or a machine that slept: nobody could be heard meanwhile, so nobody is closed for it.
func TestAStallOfOursIsNobodysSilence(t *testing.T) {
	w := idle()
	w.count = 1
	w.clock()
	before := w.now
	began = began.Add(-time.Hour)
	defer func() { began = began.Add(time.Hour) }()
	w.clock()
	if moved := w.now - before; moved > afterStall {
		t.Errorf("the timers' clock moved by %d ms after an hour's stall, want %d at most", moved, afterStall)
	}
}

func TestAPanicClosesOnlyItsConnection(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		code := make(chan int, 1)
		bad := connect(t, l, &script{message: func(*Conn, wire.Opcode, []byte) { panic("planted") }, closed: func(_ *Conn, n int) { code <- n }})
		worse := connect(t, l, &script{
			message: func(*Conn, wire.Opcode, []byte) { panic("planted") },
			closed:  func(*Conn, int) { panic("planted too") },
		})
		good := connect(t, l, echo())
		bad.Write(frameTo("x"))
		expect(t, bad, wire.AppendClose(nil, wire.CloseInternal, "internal error"))
		if got := <-code; got != wire.CloseInternal {
			t.Errorf("Closed got %d", got)
		}
		worse.Write(frameTo("x"))
		if _, err := io.ReadAll(worse); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		good.Write(frameTo("still here"))
		expect(t, good, text("still here"))
		l.workers[0].Post(taskFunc(func(*Worker) { panic("planted") }), 0)
		good.Write(frameTo("and now"))
		expect(t, good, text("and now"))
		if n := l.Panics.Load(); n != 4 {
			t.Errorf("%d panics counted, want 4", n)
		}
	})
}

// Close waits for the peer's Close while messages under way are ignored, also when one was half read.
func TestCloseInTheMiddleOfAMessage(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		var c *Conn
		far := connect(t, l, &script{opened: func(conn *Conn) { c = conn }, message: func(*Conn, wire.Opcode, []byte) { t.Error("a message after Close") }})
		w := l.workers[0]
		half := frameTo("half of this comes before, half behind")
		far.Write(half[:12])
		until(t, "half a message is read", func() (in bool) { do(w, func() { in = c != nil && c.in != nil }); return in })
		do(w, func() { c.Close(4500, "kicked") })
		expect(t, far, wire.AppendClose(nil, 4500, "kicked"))
		far.Write(half[12:])
		far.Write(wsclient.Append(nil, true, wsclient.Close, [4]byte{}, []byte{0x11, 0x94}))
		if rest, err := io.ReadAll(far); err != nil || len(rest) > 0 {
			t.Errorf("after both Closes: %q, %v; want the end", rest, err)
		}
	})
}

func TestAMailboxAboveHighWaterStopsItsPublishers(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.Workers = 2
		l := start(t, cfg)
		var publisher *Conn
		got := 0
		h := &script{
			opened:  func(c *Conn) { publisher = c },
			message: func(c *Conn, _ wire.Opcode, p []byte) { got++ },
		}
		far := connect(t, l, h)
		src := l.workers[0]
		until(t, "open", func() (in bool) { do(src, func() { in = publisher != nil }); return in })
		dst := l.workers[1]
		if publisher.Worker() == dst {
			src, dst = dst, src
		}
		gate := make(chan struct{})
		dst.Post(taskFunc(func(*Worker) { <-gate }), 0) // the receiver is busy
		full := false
		for range 3 * highWater / (1 << 10) {
			full = dst.Post(taskFunc(func(*Worker) {}), 1<<10)
		}
		if !full || !dst.Full() {
			t.Fatal("a mailbox with three times high water doesn't say so")
		}
		do(src, func() { publisher.Throttle(dst) })
		far.Write(frameTo("not read yet"))
		time.Sleep(50 * time.Millisecond)
		var before int
		do(src, func() { before = got })
		close(gate)
		until(t, "reading goes on", func() (on bool) { do(src, func() { on = got == 1 }); return on })
		if before != 0 {
			t.Error("the publisher was read while the mailbox was above high water")
		}
		until(t, "the mailbox is empty", func() bool { return !dst.Full() })
	})
}

func TestPostsFromManyGoroutinesAllArriveInOrder(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		w := l.workers[0]
		const senders, each = 8, 20000
		last := make([]int, senders)
		var disorder, arrived atomic.Int64
		for s := range senders {
			go func() {
				for i := 1; i <= each; i++ {
					w.Post(taskFunc(func(*Worker) {
						if last[s]+1 != i {
							disorder.Add(1)
						}
						last[s] = i
						arrived.Add(1)
					}), 0)
				}
			}()
		}
		until(t, "all posts arrive", func() bool { return arrived.Load() == senders*each })
		if n := disorder.Load(); n > 0 {
			t.Errorf("%d posts out of order", n)
		}
	})
}

func TestStopSaysGoodbyeAndRefusesMore(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.Workers = 2
		l := start(t, cfg)
		var in atomic.Int32
		h := &script{opened: func(*Conn) { in.Add(1) }, stop: func(c *Conn) {
			c.Answer(wire.Text, []byte("good-bye"))
			c.Close(wire.CloseGoingAway, "")
		}}
		a, b := connect(t, l, h), connect(t, l, h)
		until(t, "both are in", func() bool { return in.Load() == 2 })
		l.Stop(0)
		for _, far := range []net.Conn{a, b} {
			expect(t, far, text("good-bye"), wire.AppendClose(nil, wire.CloseGoingAway, ""))
			far.Write(wsclient.Append(nil, true, wsclient.Close, [4]byte{}, []byte{0x03, 0xe9}))
		}
		l.Wait()
		near, far := net.Pipe()
		defer far.Close()
		l.Reserve(10)
		if err := l.Adopt(near, h, wire.Deflate{}, nil, nil); !errors.Is(err, ErrStopped) {
			t.Errorf("Adopt after Stop: %v", err)
		}
		l.Release()
	})
}

// Two big debtors, one of each kind, and a small one: only the big ones go when all together hold too much.
func TestTheLargestDebtorsAreShed(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.SendQueueBytes = 64 << 20
		cfg.MaxMessageBytes = 4 << 20
		cfg.MaxBufferedBytes = 8 << 20
		l := start(t, cfg)
		w := l.workers[0]
		codes := make(chan int, 10)
		var conns []*Conn
		h := &script{opened: func(c *Conn) { conns = append(conns, c) }, closed: func(_ *Conn, code int) { codes <- code }}
		small, stalled, half := connect(t, l, h), connect(t, l, h), connect(t, l, h)
		until(t, "all are in", func() (all bool) { do(w, func() { all = len(conns) == 3 }); return all })
		stalled.(*net.TCPConn).SetReadBuffer(4 << 10)
		small.Write(frameTo(strings.Repeat("s", 5000))[:4000])
		head := wsclient.Append(nil, true, wsclient.Binary, [4]byte{}, make([]byte, 4<<20))
		half.Write(head[:4<<20-1])
		until(t, "two half messages are held", func() bool { return l.Buffered() > 4<<20 })
		if l.Overloaded() {
			t.Fatal("overloaded already")
		}
		do(w, func() { conns[1].Send(NewFrame(wire.Binary, make([]byte, 16<<20))) })
		if code := <-codes; code != wire.CloseTryLater {
			t.Errorf("closed with %d, want %d", code, wire.CloseTryLater)
		}
		until(t, "it is below the limit again", func() bool { return !l.Overloaded() })
		var states []state
		do(w, func() {
			for _, c := range conns {
				states = append(states, c.state)
			}
		})
		if states[0] != open {
			t.Error("the smallest debtor was closed")
		}
		if states[1] == open {
			t.Error("the largest debtor is still connected")
		}
	})
}

func TestATaskThatIsPutOffComesFirst(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		w := l.workers[0]
		const cost = 1 << 10
		var ran []string
		say := func(what string) Task { return taskFunc(func(*Worker) { ran = append(ran, what) }) }
		do(w, func() { // so all that it posts lies in one turn
			w.Post(taskFunc(func(w *Worker) {
				turn := w.turns
				first, second := w.Peek(), say("second")
				w.Skip()
				w.PutOff(second, cost)
				w.PutOff(first, cost)
				w.Post(taskFunc(func(w *Worker) {
					if w.turns == turn {
						ran = append(ran, "all in one turn")
					}
				}), 0)
				ran = append(ran, "putting off")
			}), cost)
			w.Post(say("first"), cost)
			w.Post(say("third"), cost)
			w.Post(say("fourth"), cost)
		})
		until(t, "all have run", func() (all bool) { do(w, func() { all = len(ran) == 5 }); return all })
		if want := []string{"putting off", "first", "second", "third", "fourth"}; !slices.Equal(ran, want) {
			t.Errorf("%q, want %q", ran, want)
		}
		until(t, "the cost of all is given back", func() bool {
			w.mail.mu.Lock()
			defer w.mail.mu.Unlock()
			return w.mail.bytes == 0 && w.mail.taken == 0
		})
	})
}

// How often a worker looks in vain is bounded by what it wrote too: other programs may have had the processor in a long turn.
func TestLooksAreAPartOfTheWork(t *testing.T) {
	for _, tt := range []struct{ took, wrote, looks int64 }{
		{0, 1000, 0},
		{4_800_000, 1000, 250},   // 1,000 writes of 4.8 us each
		{480_000_000, 1000, 250}, // the same, for which others had the processor a hundred times as long
		{4_800_000, 8, 2},        // little to share
		{4_800_000, 0, 0},
		{1_000_000_000, 1_000_000, mostLooks},
	} {
		if looks := looksAfter(tt.took, tt.wrote); looks != tt.looks {
			t.Errorf("after %d writes in %d ns it looks %d times, want %d", tt.wrote, tt.took, looks, tt.looks)
		}
	}
}
