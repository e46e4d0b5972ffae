package loop

import (
	"bytes"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

// counts reads a loop of one worker, and holds its sums against what its connections have.
func counts(t *testing.T, l *Loop) (c Counts) {
	t.Helper()
	l.Inspect(hang, func(w *Worker) {
		c = w.Counts()
		var unsent, half int64
		for _, s := range w.slots {
			if s.c == nil {
				continue
			}
			unsent += int64(s.c.out.unsent())
			if s.c.in != nil {
				half += int64(s.c.in.Buffered())
			}
		}
		if c.Unsent != unsent || c.HalfReceived != half {
			t.Errorf("%d bytes are counted as unsent and %d as half received; it is %d and %d", c.Unsent, c.HalfReceived, unsent, half)
		}
	})
	return c
}

func TestWhatComesAndGoesIsCounted(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		far := connect(t, l, echo())
		in := append(frameTo("one"), wsclient.Append(nil, true, wsclient.Ping, [4]byte{}, []byte("p"))...)
		in = append(in, frameTo("two")...)
		far.Write(in)
		expect(t, far, text("one"), wire.AppendFrame(nil, wire.Pong, []byte("p")), text("two"))
		c := counts(t, l)
		out := 2*len(text("one")) + 3
		if c.MessagesReceived != 2 || c.BytesReceived != int64(len(in)) || c.MessagesSent != 2 || c.BytesSent != int64(out) {
			t.Errorf("got %+v, want 2 messages in %d and %d bytes: a ping and a pong are none", c, len(in), out)
		}
		if c.Unsent != 0 || c.HalfReceived != 0 || c.MessagesDropped != 0 || len(c.Closed) != 0 {
			t.Errorf("got %+v, want nothing held, dropped or closed", c)
		}
		// Half a message.
		far.Write(wsclient.Append(nil, false, wsclient.Text, [4]byte{}, bytes.Repeat([]byte("x"), 5000)))
		until(t, "the half is counted", func() bool { return counts(t, l).HalfReceived >= 5000 })
		far.Write(wsclient.Append(nil, true, wsclient.Continuation, [4]byte{}, nil))
		until(t, "the whole is not", func() bool { c := counts(t, l); return c.HalfReceived == 0 && c.MessagesReceived == 3 })
		// Several in one frame, as rooms send them.
		do(l.workers[0], func() {
			w := l.workers[0]
			f := Join([]*Frame{NewFrame(wire.Text, []byte("a")), NewFrame(wire.Text, []byte("b")), NewFrame(wire.Text, []byte("c"))})
			w.slots[0].c.Send(f)
		})
		until(t, "three more are sent", func() bool { return counts(t, l).MessagesSent == 6 })
		far.Write(wsclient.Append(nil, false, wsclient.Text, [4]byte{}, []byte("half")))
		until(t, "a half again", func() bool { return counts(t, l).HalfReceived > 0 })
		far.Close()
		until(t, "it goes with its connection", func() bool { return counts(t, l).HalfReceived == 0 })
	})
}

// What came in the packet of the handshake is counted as what comes later.
func TestWhatCameWithTheHandshakeIsCounted(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		far := connectWith(t, l, echo(), wire.Deflate{}, append(frameTo("one"), frameTo("two")[:3]...))
		far.Write(frameTo("two")[3:])
		expect(t, far, text("one"), text("two"))
		if c := counts(t, l); c.MessagesReceived != 2 || c.BytesReceived != int64(2*len(frameTo("one"))) {
			t.Errorf("%d messages in %d bytes are counted, want 2 in %d", c.MessagesReceived, c.BytesReceived, 2*len(frameTo("one")))
		}
	})
}

func TestClosesAreCountedByCode(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		by := func(code int) []byte {
			return wsclient.Append(nil, true, wsclient.Close, [4]byte{}, []byte{byte(code >> 8), byte(code)})
		}
		want := map[int]int64{}
		for _, c := range []struct {
			send []byte
			code int
		}{
			{by(1000), 1000},
			{by(1000), 1000},
			{by(1001), 1001},
			{wsclient.Append(nil, true, wsclient.Close, [4]byte{}, nil), wire.CloseNoStatus},
			{by(1011), 0}, // a client's own trouble is not ours
			{by(4000), 0}, // nor can it pass itself off as slow
			{by(4321), 0},
			{[]byte{0x81, 0x00}, 1002}, // not masked
			{append(frameTo("x"), by(4999)...), 0},
		} {
			far := connect(t, l, echo())
			far.Write(c.send)
			want[c.code]++
			until(t, "the close is counted", func() bool { return counts(t, l).Closed[c.code] == want[c.code] })
		}
		far := connect(t, l, echo())
		far.Write(frameTo("there"))
		expect(t, far, text("there"))
		far.Close()
		want[wire.CloseAbnormal]++
		until(t, "so is one without a Close", func() bool { return counts(t, l).Closed[wire.CloseAbnormal] == 1 })
		if got := counts(t, l).Closed; !maps.Equal(got, want) {
			t.Errorf("closed: %v, want %v", got, want)
		}
	})
}

func TestWhatASlowClientLosesIsCounted(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		var conn atomic.Pointer[Conn]
		connect(t, l, &script{opened: func(c *Conn) { conn.Store(c) }})
		until(t, "it is open", func() bool { return conn.Load() != nil })
		f := NewFrame(wire.Text, bytes.Repeat([]byte("x"), 10_000))
		var tried int64
		for open := true; open; {
			do(l.workers[0], func() { open = conn.Load().Send(f) })
			tried++
		}
		c := counts(t, l)
		if c.Closed[protocol.CloseSlowConsumer] != 1 {
			t.Errorf("closed: %v", c.Closed)
		}
		// A frame that is partly written stays; all others were sent or dropped.
		if rest := tried - c.MessagesSent - c.MessagesDropped; rest < 0 || rest > 1 || c.MessagesDropped < int64(cfg.SendQueueBytes)/int64(f.Len())/2 {
			t.Errorf("of %d messages %d were sent and %d dropped", tried, c.MessagesSent, c.MessagesDropped)
		}
		until(t, "nothing is left", func() bool { c := counts(t, l); return c.Unsent == 0 && l.Connections() == 0 })
	})
}

// What the handler keeps for a client is lost with it, and counted so, however the client is found to be too slow.
func TestWhatIsOwedToASlowClientIsCounted(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.SendQueueBytes = 32 << 20 // half of it is more than a socket takes that has room again
		for name, tooSlow := range map[string]func(w *Worker, c *Conn){
			"its queue is full": func(w *Worker, c *Conn) {
				c.Send(NewFrame(wire.Text, make([]byte, cfg.SendQueueBytes)))
			},
			"what waits is too old": func(w *Worker, c *Conn) {
				w.clock() // what waits was made by the real time, which a worker that was held up is behind
				w.now += cfg.SendQueueAge.Milliseconds() + 1
				w.real += cfg.SendQueueAge.Milliseconds() + 1
				w.fire(c)
			},
			"all together hold too much": func(w *Worker, c *Conn) { w.shed(1) },
		} {
			w, c, _, code := stuck(t, cfg)
			var before, after int64
			do(w, func() {
				closed := c.h.(*script).closed
				c.h.(*script).closed = func(c *Conn, code int) {
					c.Owe(-1000, -7) // as the hub does: its lags end
					closed(c, code)
				}
				c.Send(NewFrame(wire.Binary, make([]byte, cfg.SendQueueBytes/2)))
				before = w.counts.MessagesDropped
				c.Owe(1000, 7)
				waits := c.out.messages()
				tooSlow(w, c)
				after = w.counts.MessagesDropped
				if lost := after - before; lost < 7+waits-2 || lost > 7+waits+1 { // one may be taken after all, one partly written, and one more was tried
					t.Errorf("%s: %d messages are counted as dropped, and 7 were owed beside %d in the queue", name, lost, waits)
				}
			})
			select {
			case <-code:
			case <-time.After(hang):
				t.Fatalf("%s: it isn't closed", name)
			}
		}
	})
}

func TestTurnsAreCounted(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		before := counts(t, l)
		do(l.workers[0], func() { time.Sleep(30 * time.Millisecond) })
		until(t, "a turn of more than 25 ms is counted", func() bool {
			c := counts(t, l)
			var slow int64
			for i, n := range c.Turns {
				if i > 0 && TurnBounds[i-1] >= 25e6 {
					slow += n
				}
			}
			return slow >= 1 && c.TurnNanos-before.TurnNanos >= 30e6
		})
	})
}

// A worker that is stuck holds nobody up, and its mailbox tells.
func TestInspectDoesNotWaitForAStuckWorker(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.Workers = 2
		l := start(t, cfg)
		stuck, free := make(chan struct{}), make(chan struct{})
		l.workers[0].Post(taskFunc(func(*Worker) { close(stuck); <-free }), 0)
		<-stuck
		for range 3 {
			l.workers[0].Post(taskFunc(func(*Worker) {}), 0)
		}
		if d := l.workers[0].Depth(); d != 4 {
			t.Errorf("%d tasks wait for the stuck worker, want the one that runs and 3", d)
		}
		var seen [2]atomic.Bool
		l.Inspect(2*time.Second, func(w *Worker) { seen[w.index].Store(true) }) // and returns, though one never does
		if seen[0].Load() || !seen[1].Load() {
			t.Error("want the free worker seen and the stuck one not")
		}
		close(free)
		until(t, "it is seen later", func() bool { return seen[0].Load() && l.workers[0].Depth() == 0 })
	})
}

func TestInspectSeesWorkersThatHaveEnded(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		far := connect(t, l, echo())
		far.Write(frameTo("x"))
		expect(t, far, text("x"))
		far.Close()
		until(t, "it is gone", func() bool { return l.Connections() == 0 })
		l.Stop(0)
		l.Wait()
		if c := counts(t, l); c.MessagesReceived != 1 {
			t.Errorf("got %+v", c)
		}
	})
}
