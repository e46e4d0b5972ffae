package loop

import (
	"time"

	"example.com/hubbub/internal/wire"
)

// partEvery is how often Stop lets some connections go.
const partEvery = 20 * time.Millisecond

// Stop asks the connections' handlers to close them, spread evenly over that time (0: at once), and returns; those who
// remain are served meanwhile. Wait tells when all is over. No connection is adopted any more. A second call changes
// nothing.
func (l *Loop) Stop(over time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	l.stopped = true
	over = max(over, partEvery)
	for i, w := range l.workers {
		w.Post(stopping{}, 0)
		if n := l.load[i].Load(); n > 0 {
			l.done.Go(func() { l.partSlowly(w, int(n), over) })
		}
	}
}

// partSlowly lets n connections of w go over that time, and then all that there are.
func (l *Loop) partSlowly(w *Worker, n int, over time.Duration) {
	tick := time.NewTicker(partEvery)
	defer tick.Stop()
	began := time.Now()
	for asked := 0; asked < n && l.load[w.index].Load() > 0; <-tick.C {
		due := min(n, 1+int(int64(n)*int64(time.Since(began))/int64(over)))
		w.Post(parting(due-asked), 0)
		asked = due
	}
	w.Post(parting(maxParting), 0)
}

const maxParting = 1 << 30

// stopping has the worker end when its last connection has gone.
type stopping struct{}

func (stopping) Run(w *Worker) { w.stop = true }

// parting lets so many open connections go.
type parting int

func (p parting) Run(w *Worker) {
	for n := int(p); n > 0 && w.parted < len(w.slots); w.parted++ {
		if c := w.slots[w.parted].c; c != nil && c.state == open {
			w.sayStop(c)
			n--
		}
	}
}

func (w *Worker) sayStop(c *Conn) {
	defer w.recoverConn(c)
	c.h.Stop(c)
}

// Kill ends, after Stop, what is still connected: without a Close frame where none is out.
func (l *Loop) Kill() {
	l.killed.Store(true)
	l.lingering.Range(func(p, _ any) bool {
		p.(*pump).nc.Close()
		return true
	})
	for _, w := range l.workers {
		w.Post(killing{}, 0)
	}
}

type killing struct{}

func (killing) Run(w *Worker) {
	for _, s := range w.slots {
		if s.c != nil {
			w.kill(s.c)
		}
	}
}

func (w *Worker) kill(c *Conn) {
	defer w.recoverConn(c)
	if c.state == open {
		c.leave(wire.CloseAbnormal, ByNobody)
	}
	w.destroy(c, true)
}

// Wait blocks until all workers and pumps have ended.
func (l *Loop) Wait() { l.done.Wait() }
