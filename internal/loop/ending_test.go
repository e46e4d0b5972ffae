package loop

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

// ends are ways in which a connection ends, and what the handler is told.
var ends = []struct {
	name  string
	begin func(l *Loop, c *Conn, far net.Conn)
	want  Ending
	says  bool // the client gets a Close frame of ours
}{
	{"the peer closes", func(_ *Loop, _ *Conn, far net.Conn) { far.Write(closeFrom(1000)) }, Ending{1000, ByPeer}, false},
	{"the peer closes with a code of ours", func(_ *Loop, _ *Conn, far net.Conn) { far.Write(closeFrom(4500)) }, Ending{4500, ByPeer}, false},
	{"the peer closes without a code", func(_ *Loop, _ *Conn, far net.Conn) {
		far.Write(wsclient.Append(nil, true, wsclient.Close, [4]byte{1, 2, 3, 4}, nil))
	}, Ending{wire.CloseNoStatus, ByPeer}, false},
	{"the handler closes", func(l *Loop, c *Conn, _ net.Conn) { do(l.workers[0], func() { c.Close(4501, "refused") }) }, Ending{4501, ByUs}, true},
	{"the loop stops", func(l *Loop, _ *Conn, _ net.Conn) { l.Stop(0) }, Ending{wire.CloseGoingAway, ByUs}, true},
	{"an unmasked frame", func(_ *Loop, _ *Conn, far net.Conn) { far.Write(text("x")) }, Ending{wire.CloseProtocolError, ByUs}, true},
	{"no UTF-8", func(_ *Loop, _ *Conn, far net.Conn) { far.Write(frameTo("\xff")) }, Ending{wire.CloseInvalidData, ByUs}, true},
	{"a large message", func(_ *Loop, _ *Conn, far net.Conn) { far.Write(frameTo(strings.Repeat("x", 70_000))) }, Ending{wire.CloseTooBig, ByUs}, true},
	{"a panic", func(_ *Loop, _ *Conn, far net.Conn) { far.Write(frameTo("panic")) }, Ending{wire.CloseInternal, ByUs}, true},
	{"no sign of life", func(l *Loop, c *Conn, _ net.Conn) {
		do(l.workers[0], func() {
			w := l.workers[0]
			c.seen = w.now - w.patience() - 1
			c.due = w.now + 1 + w.cfg().PingInterval.Milliseconds()
			w.fire(c)
		})
	}, Ending{protocol.CloseNoSignOfLife, ByUs}, true},
	{"too slow", func(l *Loop, c *Conn, _ net.Conn) { do(l.workers[0], func() { c.tooSlow("it is", 0) }) }, Ending{protocol.CloseSlowConsumer, ByUs}, true},
	{"too large a debt", func(l *Loop, c *Conn, _ net.Conn) { do(l.workers[0], func() { l.workers[0].shedOne(c) }) }, Ending{wire.CloseTryLater, ByUs}, true},
	{"the line is cut", func(_ *Loop, _ *Conn, far net.Conn) { far.(*net.TCPConn).SetLinger(0); far.Close() }, Ending{wire.CloseAbnormal, ByNobody}, false},
	{"the stream ends", func(_ *Loop, _ *Conn, far net.Conn) { far.Close() }, Ending{wire.CloseAbnormal, ByNobody}, false},
	{"it is killed", func(l *Loop, c *Conn, _ net.Conn) { do(l.workers[0], func() { l.workers[0].kill(c) }) }, Ending{wire.CloseAbnormal, ByNobody}, false},
}

func closeFrom(code int) []byte {
	return wsclient.Append(nil, true, wsclient.Close, [4]byte{1, 2, 3, 4}, []byte{byte(code >> 8), byte(code)})
}

// eachEnd begins each of them, on a connection with that handler.
func eachEnd(t *testing.T, story func(t *testing.T, h *script, begin func() (l *Loop, far net.Conn), want Ending, says bool)) {
	for _, e := range ends {
		t.Run(e.name, func(t *testing.T) {
			eachIO(t, func(t *testing.T, cfg Config) {
				opened := make(chan *Conn, 1)
				h := &script{opened: func(c *Conn) { opened <- c }, message: func(*Conn, wire.Opcode, []byte) { panic("planted") }}
				story(t, h, func() (*Loop, net.Conn) {
					l := start(t, cfg)
					far := connect(t, l, h)
					e.begin(l, <-opened, far)
					return l, far
				}, e.want, e.says)
			})
		})
	}
}

func TestTheHandlerIsToldWhoEndedAConnection(t *testing.T) {
	eachEnd(t, func(t *testing.T, h *script, begin func() (*Loop, net.Conn), want Ending, _ bool) {
		ended := make(chan Ending, 2)
		h.ended = func(e Ending) { ended <- e }
		l, far := begin()
		if got := <-ended; got != want {
			t.Errorf("told %v, want %v", got, want)
		}
		far.Close()
		l.Stop(0)
		l.Wait()
		if len(ended) > 0 {
			t.Errorf("told again: %v", <-ended)
		}
	})
}

// nextFrame is the next short one from the server.
func nextFrame(t *testing.T, far net.Conn) (op wire.Opcode, payload []byte) {
	t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(far, head); err != nil {
		t.Fatal(err)
	}
	payload = make([]byte, head[1])
	if _, err := io.ReadFull(far, payload); err != nil {
		t.Fatal(err)
	}
	return wire.Opcode(head[0] & 0xf), payload
}

// closeFrame is the payload of the Close that comes next.
func closeFrame(t *testing.T, far net.Conn) string {
	t.Helper()
	op, p := nextFrame(t, far)
	if op != wire.Close {
		t.Fatalf("got a frame %d, want a Close", op)
	}
	return string(p)
}

// closePayload is that of a Close.
func closePayload(code int, reason string) string {
	return string([]byte{byte(code >> 8), byte(code)}) + reason
}

// What the loop or the handler closes with reads as the handler says; what is counted, and what the handler is told, is
// the code as it was. The peer's own code comes back as it is.
func TestACloseReadsAsTheHandlerSays(t *testing.T) {
	eachEnd(t, func(t *testing.T, h *script, begin func() (*Loop, net.Conn), want Ending, says bool) {
		ended := make(chan Ending, 1)
		h.ended = func(e Ending) { ended <- e }
		h.wording = func(code int, reason string) (int, string) {
			if code < 4000 && code > 1013 || reason == "" && code != wire.CloseGoingAway {
				t.Errorf("asked how %d %q reads", code, reason)
			}
			return 3000 + code%1000, "as they say there"
		}
		l, far := begin()
		if got := <-ended; got != want {
			t.Errorf("told %v, want %v", got, want)
		}
		switch {
		case says:
			if p := closeFrame(t, far); p != closePayload(3000+want.Code%1000, "as they say there") {
				t.Errorf("it reads %q", p)
			}
		case want.By == ByPeer:
			own := closePayload(want.Code, "")
			if want.Code == wire.CloseNoStatus {
				own = ""
			}
			if p := closeFrame(t, far); p != own {
				t.Errorf("the peer's code comes back as %q", p)
			}
		}
		far.Close()
		l.Stop(0)
		l.Wait()
		counted := want.Code
		if want.By == ByPeer {
			counted = peersCode(want.Code)
		}
		if got := l.workers[0].Counts().Closed; got[counted] != 1 || len(got) != 1 {
			t.Errorf("counted are %v, want one %d", got, counted)
		}
	})
}

// A wording that panics, also after a panic, leaves a Close as it is.
func TestAWordingThatPanics(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		far := connect(t, l, &script{message: func(*Conn, wire.Opcode, []byte) { panic("planted") }, wording: func(int, string) (int, string) { panic("planted too") }})
		far.Write(frameTo("go"))
		expect(t, far, wire.AppendClose(nil, wire.CloseInternal, "internal error"))
		if n := l.Panics.Load(); n != 2 {
			t.Errorf("%d panics are counted, want 2", n)
		}
	})
}

// What asks for a sign of life is the handler's; whoever answers it in any way lives, and whoever doesn't is closed.
func TestTheHandlerAsksForASignOfLife(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		cfg.PingInterval, cfg.PongTimeout = 200*time.Millisecond, 5*time.Second
		answers := make(chan bool, 100)
		code := make(chan int, 1)
		far := connect(t, start(t, cfg), &script{
			ping:    func(c *Conn) { c.Answer(wire.Text, []byte("are you there?")) },
			message: func(*Conn, wire.Opcode, []byte) { answers <- true },
			closed:  func(_ *Conn, n int) { code <- n },
		})
		for range 5 {
			expect(t, far, text("are you there?"))
			far.Write(frameTo("yes"))
			<-answers
		}
		silent := time.Now()
		if n, took := <-code, time.Since(silent); n != protocol.CloseNoSignOfLife || took < cfg.PongTimeout {
			t.Errorf("closed with %d after %s", n, took)
		}
		op, _ := nextFrame(t, far)
		for op == wire.Text { // it has asked meanwhile
			op, _ = nextFrame(t, far)
		}
		if op != wire.Close {
			t.Errorf("got a frame %d", op)
		}
	})
}

// A fault of the peer behind a Close of ours ends the connection at once: a second Close is not allowed.
func TestAFaultBehindOurCloseEndsTheConnection(t *testing.T) {
	w, conns := byHand(1, echo())
	c := conns[0]
	w.slots = []slot{{c: c}}
	c.Close(wire.CloseGoingAway, "")
	w.flushAll()
	if c.state != closing {
		t.Fatalf("its state is %d", c.state)
	}
	hear(w, c, []byte{0x81, 1, 'x'}) // not masked
	if c.state != dead {
		t.Errorf("its state is %d, want %d", c.state, dead)
	}
}

// A peer that has ended its half and takes nothing of what is still unsent has closeWait for it.
func TestAPeerThatHasEndedItsHalfTakesWhatWaitsOrIsReset(t *testing.T) {
	w, conns := byHand(1, echo())
	c := conns[0]
	w.slots = []slot{{c: c}}
	c.due = w.now + time.Hour.Milliseconds() // its ping
	c.full = true
	c.Send(NewFrame(wire.Text, []byte("waits")))
	w.peerEnded(c)
	for _, step := range []struct {
		after int64
		state state
	}{{closeWait, ending}, {1, dead}} {
		w.now += step.after
		if w.fire(c); c.state != step.state {
			t.Errorf("%d ms behind its end: its state is %d, want %d", w.now, c.state, step.state)
		}
	}
}

// Kill ends at once those too whose closing is over but for bytes that their peers don't take: without it they have
// pumpLinger for that.
func TestKillWaitsForNobodyWhoTakesNothing(t *testing.T) {
	for _, killed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			l, err := New(Config{Workers: 1, IO: Pump, MaxMessageBytes: 64 << 10, SendQueueBytes: 1 << 20, MaxBufferedBytes: 1 << 30,
				SendQueueAge: time.Hour, PingInterval: 1000 * time.Hour, PongTimeout: time.Hour, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			near, far := net.Pipe()
			defer far.Close()
			l.Reserve(1)
			if err := l.Adopt(near, &script{opened: func(c *Conn) { c.Send(NewFrame(wire.Text, []byte("nobody reads this"))) }}, wire.Deflate{}, nil, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := far.Write(closeFrom(wire.CloseNormal)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := l.Connections(); n != 0 {
				t.Fatalf("%d connections are there behind the peer's Close", n)
			}
			begun := time.Now()
			l.Stop(0)
			if killed {
				l.Kill()
			}
			l.Wait()
			took, want := time.Since(begun), time.Duration(0)
			if !killed {
				want = pumpLinger
			}
			if took < want || took > want+time.Second {
				t.Errorf("killed %t: it took %s, want %s", killed, took, want)
			}
		})
	}
}
