package loop

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub/internal/wire"
)

// A peer that has ended its half is looked at when its time is up: not only when its next ping would have been due.
func TestWhoHasEndedItsHalfIsLookedAt(t *testing.T) {
	w, conns := byHand(1, echo())
	c := conns[0]
	w.slots = []slot{{c: c}}
	c.due = w.now + time.Hour.Milliseconds()
	w.schedule(c, c.due)
	c.full = true
	c.Send(NewFrame(wire.Text, []byte("waits")))
	w.peerEnded(c)
	if fault := w.auditConn(c); fault != "" {
		t.Error(fault)
	}
}

// A queue that seems too old is tried once more: the poller may not have told yet that its socket takes something.
func TestAQueueThatSeemsTooOldIsTriedOnceMore(t *testing.T) {
	w, conns := byHand(1, echo())
	w.cfg().SendQueueAge, w.cfg().PingInterval, w.cfg().PongTimeout = time.Second, 1000*time.Hour, time.Hour
	c := conns[0]
	w.slots, w.count = []slot{{c: c}}, 1
	c.full = true
	c.Send(NewFrame(wire.Text, []byte("waits")))
	w.real = Monotonic()
	w.now, c.seen = w.real, w.real
	c.due = w.now + time.Hour.Milliseconds()
	w.real += 2000
	w.now += 2000
	if w.fire(c); c.state != open || c.out.first != nil {
		t.Errorf("its state is %d, and %d bytes wait", c.state, c.out.unsent())
	}
}

// When others are thrown away an answer that is partly written is still one.
func TestAnAnswerThatIsPartlyWrittenStaysOne(t *testing.T) {
	for _, answer := range []bool{false, true} {
		w := &Worker{}
		var q queue
		first := NewFrame(wire.Text, []byte("first"))
		first.answer = answer
		q.push(first, w)
		q.push(NewAnswer(wire.Text, []byte("second")), w)
		q.advance(3, w)
		q.drop(w)
		want := 0
		if answer {
			want = len(first.b)
		}
		if n := q.answers(); n != want || q.unsent() != len(first.b)-3 {
			t.Errorf("%d bytes of answers wait, want %d", n, want)
		}
		q.push(NewAnswer(wire.Text, []byte("third")), w)
		if q.advance(len(first.b)-3, w); q.answers() != len(q.first.b) {
			t.Errorf("%d bytes of answers wait behind it", q.answers())
		}
	}
}

// Where enough can be freed of what is kept no client is closed for it; and where it can't the log has a line.
func TestNobodyIsShedForWhatCanBeFreed(t *testing.T) {
	for _, frees := range []bool{true, false} {
		t.Run(fmt.Sprint("some can be freed: ", frees), func(t *testing.T) {
			eachIO(t, func(t *testing.T, cfg Config) {
				const kept = 8 << 20
				var log bytes.Buffer // written by the worker, and read when it has ended
				var l *Loop
				var asked atomic.Int64
				ready := make(chan struct{})
				cfg.Workers = 2 // it has more than its part then
				cfg.MaxBufferedBytes, cfg.SendQueueBytes, cfg.Log = 4<<20, 64<<20, slog.New(slog.NewTextHandler(&log, nil))
				cfg.Relieve = func(excess int64) int64 {
					<-ready
					if asked.Add(1) > 1 || !frees {
						return 0
					}
					l.Keep(-kept)
					return kept
				}
				l = start(t, cfg)
				close(ready)
				codes := make(chan int, 1)
				opened := make(chan *Conn, 1)
				connect(t, l, &script{opened: func(c *Conn) { opened <- c }, closed: func(_ *Conn, code int) { codes <- code }})
				c := <-opened
				do(c.w, func() { c.Owe(3<<20, 1) })
				l.Keep(kept)
				until(t, "it has been asked", func() bool { do(c.w, func() {}); return asked.Load() > 0 })
				if !frees {
					if code := <-codes; code != wire.CloseTryLater {
						t.Errorf("closed with %d", code)
					}
					l.Keep(-kept)
				}
				until(t, "there is room again", func() bool { do(c.w, func() {}); return !l.Overloaded() })
				do(c.w, func() {
					if is := c.state == open; is != frees {
						t.Errorf("it is open: %t", is)
					}
					if c.w.owed[c] != (owed{}) {
						c.Owe(-3<<20, -1)
					}
					if n := strings.Count(log.String(), "the largest debtors were closed"); (n == 1) == frees {
						t.Errorf("the log has %d lines of it: %s", n, log.String())
					}
				})
			})
		})
	}
}

// A handler that closes another large debtor, as its own is shed, isn't told of that one's end twice.
func TestADebtorThatIsClosedMeanwhileIsntShed(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		w := l.workers[0]
		var conns []*Conn
		told := map[*Conn]int{}
		h := &script{opened: func(c *Conn) { conns = append(conns, c) }}
		h.closed = func(c *Conn, _ int) {
			told[c]++
			c.Owe(-1000, -1)
			for _, other := range conns {
				other.Close(4500, "")
			}
		}
		for range 2 {
			connect(t, l, h)
		}
		until(t, "both are in", func() (both bool) { do(w, func() { both = len(conns) == 2 }); return both })
		do(w, func() {
			for _, c := range conns {
				c.Owe(1000, 1)
			}
			w.shed(1 << 20)
			if told[conns[0]] != 1 || told[conns[1]] != 1 {
				t.Errorf("told of their ends %d and %d times", told[conns[0]], told[conns[1]])
			}
		})
	})
}

// What a debtor held that such a handler has closed is given back as well: nobody else goes for it.
func TestWhatAHandlerFreesIsCounted(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		w := l.workers[0]
		debts := []int64{1000, 999, 10}
		var conns []*Conn
		owes := map[*Conn]int64{}
		h := &script{opened: func(c *Conn) { owes[c] = debts[len(conns)]; conns = append(conns, c) }}
		h.closed = func(c *Conn, _ int) {
			c.Owe(-owes[c], -1)
			if c == conns[0] {
				conns[1].Close(4500, "")
			}
		}
		for range debts {
			connect(t, l, h)
		}
		until(t, "all are in", func() (all bool) { do(w, func() { all = len(conns) == len(debts) }); return all })
		do(w, func() {
			for _, c := range conns {
				c.Owe(owes[c], 1)
			}
			w.shed(1500)
			if conns[2].state != open {
				t.Error("the third is closed, though the first two have given back more than was asked for")
			}
		})
	})
}
