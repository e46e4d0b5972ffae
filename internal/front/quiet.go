package front

import (
	"runtime/debug"
	"sync"
	"time"
)

// Quiet gives memory back after a burst of connects: net/http's share of each handshake is garbage by then, and the
// runtime would keep it for minutes. One collection, a second after the last connect, and only after many. The zero
// value is ready. Any goroutine.
type Quiet struct {
	mu      sync.Mutex
	timer   *time.Timer
	last    time.Time
	n       int
	stopped bool
}

const (
	quietAfter = time.Second
	quietBurst = 256 // connects; less garbage than of these isn't worth a collection
)

// Connected counts a connect.
func (q *Quiet) Connected() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last = time.Now()
	q.n++
	if q.n == quietBurst && !q.stopped {
		q.timer = time.AfterFunc(quietAfter, q.look)
	}
}

func (q *Quiet) look() {
	q.mu.Lock()
	left := quietAfter - time.Since(q.last)
	if left > 0 || q.stopped {
		if !q.stopped {
			q.timer.Reset(left)
		}
		q.mu.Unlock()
		return
	}
	q.n = 0
	q.mu.Unlock()
	debug.FreeOSMemory()
}

// Stop ends it.
func (q *Quiet) Stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	if q.timer != nil {
		q.timer.Stop()
	}
}
