package loop

import (
	"runtime"
	"testing"
	"time"
	"weak"

	"example.com/hubbub/internal/wire"
)

// idle is a worker without a goroutine and without connections.
func idle() *Worker {
	l := &Loop{}
	l.settings.Store(&Config{})
	return &Worker{loop: l, poll: newChanPoller()}
}

func TestADeadlineIsNeverEarlyAndAtMostASlotLate(t *testing.T) {
	for _, conns := range []int{0, 1} {
		const step = 50
		w := idle()
		w.count = conns
		due := make([]int64, 200)
		ran := make([]int, len(due))
		for i := range due {
			due[i] = int64(i*777) % 150_000 // beyond one turn of the wheel
			w.At(due[i], taskFunc(func(w *Worker) {
				ran[i]++
				if w.Now() <= due[i] || w.Now() > due[i]+slotTime+step {
					t.Errorf("%d connections: what was due at %d ran at %d", conns, due[i], w.Now())
				}
			}))
		}
		for ; w.now < 160_000; w.now += step {
			w.tick()
		}
		for i, n := range ran {
			if n != 1 {
				t.Fatalf("%d connections: what was due at %d ran %d times", conns, due[i], n)
			}
		}
		if w.wheel.pending != 0 {
			t.Errorf("%d deadlines are counted still", w.wheel.pending)
		}
	}
}

// What runs may leave more, for the very slot in which it lies and for a time that is past.
func TestADeadlineLeavesAnother(t *testing.T) {
	w := idle()
	var at []int64
	var again taskFunc
	again = func(w *Worker) {
		if at = append(at, w.Now()); len(at) < 4 {
			w.At(w.Now()+(wheelSlots-1)*slotTime, again)
			return
		}
		w.At(0, taskFunc(func(*Worker) { at = append(at, w.Now()) }))
	}
	w.At(100, again)
	for ; w.wheel.pending > 0; w.now += slotTime {
		w.tick()
	}
	const turn = wheelSlots * slotTime
	want := []int64{slotTime, slotTime + turn, slotTime + 2*turn, slotTime + 3*turn, 2*slotTime + 3*turn}
	if len(at) != len(want) {
		t.Fatalf("ran at %d, want %d", at, want)
	}
	for i := range want {
		if at[i] != want[i] {
			t.Fatalf("ran at %d, want %d", at, want)
		}
	}
}

// A worker without connections sleeps until something is due, and looks at its clock each second until then.
func TestADeadlineWakesAWorkerThatHasNoConnection(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		w := l.workers[0]
		ran := make(chan int64, 3)
		began := Monotonic()
		do(w, func() {
			for _, d := range []int64{1200, 300, 0} {
				at := w.Now() + d
				w.At(at, taskFunc(func(w *Worker) {
					if w.Now() <= at {
						t.Errorf("%d ms early", at-w.Now())
					}
					ran <- d
				}))
			}
		})
		for _, d := range []int64{0, 300, 1200} {
			if got := <-ran; got != d {
				t.Errorf("the one after %d ms ran, want that after %d ms", got, d)
			}
		}
		if took := Monotonic() - began; took < 1200 {
			t.Errorf("it took %d ms", took)
		}
	})
}

// A process that was stopped doesn't find that everybody's time is up.
func TestAStallEndsNoDeadline(t *testing.T) {
	w := idle()
	w.advance(int64(time.Second))
	ran := false
	w.At(w.Now()+10_000, taskFunc(func(*Worker) { ran = true }))
	w.advance(int64(time.Minute))
	w.tick()
	if ran || w.Now() > 1000+afterStall {
		t.Errorf("after a minute in which it was stopped it is %d, and the task has run: %t", w.Now(), ran)
	}
	for s := time.Minute; s < 72*time.Second; s += time.Second {
		w.advance(int64(s))
		w.tick()
	}
	if !ran {
		t.Error("it never runs")
	}
}

// onConn is a ConnTask that panics where the connection is still there.
type onConn struct {
	ref Ref
	ran chan bool // whether it was
}

func (o onConn) Conn(w *Worker) *Conn { return w.Conn(o.ref) }

func (o onConn) Run(w *Worker) {
	there := w.Conn(o.ref) != nil
	o.ran <- there
	if there {
		panic("planted")
	}
}

func TestADeadlineOutlivesItsConnectionAndAPanicInItEndsThatAlone(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		w := l.workers[0]
		ran := make(chan bool, 2)
		opened := make(chan *Conn, 1)
		h := echo()
		h.opened = func(c *Conn) { opened <- c }
		stays := connect(t, l, h)
		c := <-opened
		bystander := connect(t, l, h)
		<-opened
		goes := connect(t, l, h)
		gone := <-opened
		do(w, func() {
			w.At(w.Now()+500, onConn{c.Ref(), ran})
			w.At(w.Now()+250, onConn{gone.Ref(), ran})
		})
		goes.Close()
		if <-ran {
			t.Error("a connection that is closed is found")
		}
		if !<-ran {
			t.Error("a connection that is open isn't found")
		}
		expect(t, stays, wire.AppendClose(nil, wire.CloseInternal, "internal error"))
		bystander.Write(frameTo("there?"))
		expect(t, bystander, text("there?"))
	})
}

// What has run is not kept, and in the long run deadlines take no memory of their own.
func TestADeadlineThatIsOverKeepsNothing(t *testing.T) {
	w := idle()
	left := func() weak.Pointer[Conn] {
		c := &Conn{}
		w.At(100, taskFunc(func(*Worker) { c.slot++ }))
		return weak.Make(c)
	}()
	for range wheelSlots {
		w.now += slotTime
		w.tick()
	}
	runtime.GC()
	if left.Value() != nil {
		t.Error("a connection is kept by a deadline that is over")
	}
	nothing := taskFunc(func(*Worker) {})
	slot := func() {
		for i := range int64(10) {
			w.At(w.now+100*i, nothing)
		}
		w.now += slotTime
		w.tick()
	}
	for range 2 * wheelSlots {
		slot()
	}
	if n := testing.AllocsPerRun(wheelSlots, slot); n != 0 {
		t.Errorf("%v allocations a slot", n)
	}
}
