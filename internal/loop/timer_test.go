package loop

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

func TestWheelIsNeverEarlyAndAtMostASlotLate(t *testing.T) {
	const step = 50
	w := &Worker{loop: &Loop{}, slots: make([]slot, 200)}
	due := make([]int64, len(w.slots))
	for i := range w.slots {
		c := &Conn{w: w, slot: uint32(i), state: closing}
		w.slots[i].c = c
		due[i] = int64(i*777) % 150_000 // beyond one turn of the wheel
		c.due = due[i]
		w.schedule(c, c.due)
		w.schedule(c, c.due+5000) // later: changes nothing
	}
	w.count = len(w.slots)
	for ; w.now < 160_000; w.now += step {
		alive := map[uint32]bool{}
		for _, s := range w.slots {
			if s.c != nil {
				alive[s.c.slot] = true
			}
		}
		w.tick()
		for i, s := range w.slots {
			switch fired := alive[uint32(i)] && s.c == nil; {
			case fired && w.now <= due[i]:
				t.Fatalf("timer %d fired at %d, due at %d", i, w.now, due[i])
			case s.c != nil && w.now > due[i]+slotTime+step:
				t.Fatalf("timer %d has not fired at %d, due at %d", i, w.now, due[i])
			}
		}
	}
}

// Between the slots that have an entry the worker sleeps, but looks at the clock each second.
func TestTheWheelLooksWhereThereIsSomething(t *testing.T) {
	w := &Worker{count: 1}
	c := &Conn{w: w}
	w.schedule(c, 2600)
	for _, want := range []int64{1000, 2000, 2750, 3750} {
		if got := w.nextTick(); got != want {
			t.Fatalf("it looks at %d, want %d", got, want)
		}
		w.now, w.real = want, want
		w.tick()
	}
}

// answerPings reads a connection to its end, and answers each Ping at once.
func answerPings(nc net.Conn) {
	b := make([]byte, 2) // the header is all there is of a Ping
	for {
		if _, err := io.ReadFull(nc, b); err != nil || b[0] != 0x80|byte(wire.Ping) || b[1] != 0 {
			return
		}
		nc.Write(wsclient.Append(nil, true, wsclient.Pong, [4]byte{1, 2, 3, 4}, nil))
	}
}

// Nobody is closed who answers, at the smallest settings, over real time; also where the worker is held up for longer
// than the time-out. The clients are in this process: where the machine keeps it from running for long they don't
// answer in time, and it is tried again.
func TestWhoAnswersEachPingIsNeverClosed(t *testing.T) {
	settings := []answering{
		{time.Second, time.Second, 0}, {2 * time.Second, time.Second, 0}, {5 * time.Second, time.Second, 0},
		{time.Second, time.Second, 1500 * time.Millisecond}, {time.Second, time.Second, 1900 * time.Millisecond},
	}
	eachIO(t, func(t *testing.T, cfg Config) {
		for try := 1; ; try++ {
			stalled := watchStalls()
			var all sync.WaitGroup
			var closed atomic.Int32
			for _, s := range settings {
				all.Go(func() { closed.Add(s.run(t, cfg)) })
			}
			all.Wait()
			longest := stalled()
			if closed.Load() == 0 {
				return
			}
			t.Logf("%d were closed; the longest stall of this process was %s", closed.Load(), longest)
			if try == 5 || longest < 300*time.Millisecond {
				t.Fatal("clients were closed that answer")
			}
		}
	})
}

type answering struct{ interval, timeout, heldUp time.Duration }

// run has 40 clients answer for a while, and returns how many were closed.
func (s answering) run(t *testing.T, cfg Config) int32 {
	cfg.PingInterval, cfg.PongTimeout = s.interval, s.timeout
	l := start(t, cfg)
	var closed atomic.Int32
	h := &script{closed: func(*Conn, int) { closed.Add(1) }}
	var fars []net.Conn
	var clients sync.WaitGroup
	for range 40 {
		far := connect(t, l, h)
		fars = append(fars, far)
		clients.Go(func() { answerPings(far) })
	}
	long := 15 * time.Second
	if testing.Short() {
		long = 6 * time.Second
	}
	for end := time.Now().Add(long); time.Now().Before(end); {
		time.Sleep(time.Second / 3) // the time itself is under test
		if s.heldUp > 0 {
			do(l.workers[0], func() { time.Sleep(s.heldUp) })
		}
	}
	n := closed.Load()
	for _, far := range fars {
		far.Close()
	}
	clients.Wait()
	return n
}

// watchStalls measures until it is asked by how much a goroutine that wanted to run had to wait at most.
func watchStalls() (longest func() time.Duration) {
	stop, result := make(chan struct{}), make(chan time.Duration)
	go func() {
		var most time.Duration
		for last := time.Now(); ; {
			select {
			case <-stop:
				result <- most
				return
			case <-time.After(10 * time.Millisecond):
				now := time.Now()
				most = max(most, now.Sub(last)-10*time.Millisecond)
				last = now
			}
		}
	}()
	return func() time.Duration { close(stop); return <-result }
}

// What a socket holds already is a sign of life, also where the poller has not told of it yet.
func TestAnAnswerThatIsStillUnreadCounts(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		var c *Conn
		far := connect(t, l, &script{opened: func(conn *Conn) { c = conn }})
		w := l.workers[0]
		until(t, "open", func() (in bool) { do(w, func() { in = c != nil }); return in })
		dead := func() (is bool) {
			c.seen, c.turn = w.now-w.patience()-1, w.turns-1 // not heard for long, nor read in this turn
			w.fire(c)
			return c.state != open
		}
		do(w, func() {
			far.Write(wsclient.Append(nil, true, wsclient.Pong, [4]byte{}, nil))
			if p, ok := c.via.(*pump); ok {
				until(t, "the pump has read it", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.in) > 0 })
			}
			if dead() {
				t.Error("closed though its answer lay there")
			}
		})
		do(w, func() {
			if !dead() {
				t.Error("not closed though nothing came")
			}
		})
	})
}

// slowLine is a transport that takes its time for each write.
type slowLine struct {
	transport
	left int64 // when it had taken the last one, by the monotonic clock
}

func (s *slowLine) send(b []byte) (int, error) {
	time.Sleep(50 * time.Millisecond)
	s.left = Monotonic()
	return len(b), nil
}

func (s *slowLine) settle() error { return nil }

// A ping's time-out begins when it has really left, however long the worker was held up before and meanwhile.
func TestThePongTimeoutBeginsWithThePing(t *testing.T) {
	for _, heldUp := range []int64{0, 100, 999, 1000, 1001, 5000} {
		w := idle()
		w.loop.settings.Store(&Config{PingInterval: time.Second, PongTimeout: time.Second})
		w.count = 1
		w.clock()
		line := &slowLine{}
		c := &Conn{w: w, h: &script{}, via: line, seen: w.now - 1000 - heldUp, due: w.now - 1 - heldUp}
		w.fire(c)
		w.sendPings()
		if dead, least := c.seen+w.patience(), line.left+(w.now-w.real)+w.cfg().PongTimeout.Milliseconds(); c.state != open || line.left == 0 || dead < least {
			t.Errorf("held up for %d ms it is closed %d ms before the time-out is over", heldUp, least-dead)
		}
	}
}

// lazyLine takes one write and keeps it to itself, as a link of TLS does when its socket is full.
type lazyLine struct {
	transport
	has bool
}

func (z *lazyLine) send(b []byte) (int, error) {
	if z.has {
		return 0, errAgain
	}
	z.has = true
	return len(b), nil
}

func (z *lazyLine) settle() error { return errAgain }

// The age of what waits is looked at in time, also where nothing waited when the socket took no more.
func TestWhatComesToWaitBehindAFullSocketHasItsAge(t *testing.T) {
	w := idle()
	w.loop.settings.Store(&Config{SendQueueAge: 2 * time.Second, SendQueueBytes: 1 << 20, PingInterval: 1000 * time.Hour, PongTimeout: time.Hour})
	w.log, w.slots, w.count = slog.New(slog.DiscardHandler), make([]slot, 1), 1
	w.clock()
	closed := 0
	c := &Conn{w: w, h: &script{closed: func(_ *Conn, code int) { closed = code }}, via: &lazyLine{}, seen: w.now, due: w.now + time.Hour.Milliseconds()}
	w.slots[0].c = c
	w.rearm(c)
	c.Send(NewFrame(wire.Text, []byte("all of it is taken")))
	w.flushAll()
	if !c.full || c.out.first != nil {
		t.Fatal("the socket takes more: the test shows nothing")
	}
	f := NewFrame(wire.Text, []byte("waits"))
	c.Send(f)
	for end := w.now + 4000; w.now < end && closed == 0; {
		w.now += 100
		w.real += 100
		w.tick()
	}
	if age := w.real - f.at; closed != protocol.CloseSlowConsumer || age < 2000 || age > 3000 {
		t.Errorf("closed with %d after %d ms", closed, age)
	}
}

// What a client sent in one packet takes the worker longer than a client may be silent: its Pongs lie behind that, so
// its silence is the server's.
func TestWhoWaitsToBeHeardIsNotSilent(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.PingInterval, cfg.PongTimeout = 200*time.Millisecond, 200*time.Millisecond
		l := start(t, cfg)
		code := make(chan int, 1)
		heard := make(chan bool, 1)
		far := connect(t, l, &script{
			message: func(_ *Conn, _ wire.Opcode, p []byte) {
				if string(p) == "last" {
					heard <- true
					return
				}
				for began := time.Now(); time.Since(began) < 500*time.Microsecond; {
				}
			},
			closed: func(_ *Conn, n int) { code <- n },
		})
		one := frameTo("")
		packet := bytes.Repeat(one, (readSize-100)/len(one)/4)
		far.Write(append(packet, frameTo("last")...))
		go func() {
			for {
				ping := make([]byte, 2)
				if _, err := io.ReadFull(far, ping); err != nil || ping[0] != 0x89 {
					return
				}
				far.Write(wsclient.Append(nil, true, wsclient.Pong, [4]byte{1, 2, 3, 4}, nil))
			}
		}()
		select {
		case <-heard:
		case n := <-code:
			t.Errorf("closed with %d before it was heard", n)
		}
	})
}
