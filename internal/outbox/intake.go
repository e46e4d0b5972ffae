package outbox

import (
	"bytes"
	"sync"
	"time"

	"example.com/hubbub/internal/hub"
)

// intake is where events lie between whoever makes them happen and the outbox's goroutine. It is all of this package
// that a worker touches: a lock that is held for an append.
type intake struct {
	most int64 // bytes that may wait, and as many again that are being written; static

	mu      sync.Mutex
	queues  [classes]queue // guarded by mu, as is what follows
	stamp   uint64         // of the newest
	queued  int64          // bytes in queues
	taken   int64          // bytes that were taken and are not written yet
	dropped [kinds]int64   // since they were last asked for, as are those that are too large
	large   [kinds]int64
	closed  bool
}

// queue is events by age, in pieces, so that to append is never to copy all.
type queue [][]fresh

const piece = 128

func (q *queue) push(f fresh) {
	if n := len(*q); n == 0 || len((*q)[n-1]) == cap((*q)[n-1]) {
		*q = append(*q, make([]fresh, 0, piece))
	}
	last := &(*q)[len(*q)-1]
	*last = append(*last, f)
}

// pop takes the oldest out.
func (q *queue) pop() (f fresh, ok bool) {
	if len(*q) == 0 {
		return f, false
	}
	first := &(*q)[0]
	f, (*first)[0] = (*first)[0], fresh{}
	if *first = (*first)[1:]; len(*first) == 0 {
		(*q)[0] = nil
		*q = (*q)[1:]
	}
	return f, true
}

// add takes an event, and drops the oldest where there are too many. Any goroutine; it doesn't block.
func (in *intake) add(f fresh) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		in.dropped[f.kind]++
		return
	}
	if f.tooLarge() { // it would push all others out, and then be dropped itself
		in.large[f.kind]++
		return
	}
	in.stamp++
	f.stamp = in.stamp
	in.queued += f.cost()
	in.queues[f.kind.class()].push(f)
	for in.queued > in.most {
		old, ok := in.queues[states].pop()
		if !ok {
			old, ok = in.queues[messages].pop()
		}
		if !ok {
			return
		}
		in.queued -= old.cost()
		in.dropped[old.kind]++
	}
}

// take takes all there is, in each class by age, and how many were dropped, or are too large. written must be called
// behind it.
func (in *intake) take() (all [classes]queue, dropped, large [kinds]int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	all, dropped, large = in.queues, in.dropped, in.large
	in.queues, in.dropped, in.large = [classes]queue{}, [kinds]int64{}, [kinds]int64{}
	in.queued, in.taken = 0, in.queued
	return all, dropped, large
}

// written is called when what was taken lies in the outbox.
func (in *intake) written() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.taken = 0
}

// close has everything that comes dropped, and counted.
func (in *intake) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
}

// waiting is how many bytes are not written yet.
func (in *intake) waiting() int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.queued + in.taken
}

// Event takes what has happened, for the backend: Outbox is a hub.Sink. Any goroutine; it neither blocks nor calls the
// hub. The order of calls is the order in which the backend is told.
func (o *Outbox) Event(e hub.Event) {
	k := kindOf[e.Kind]
	if !o.target.Load().Events[k] || o.stopped.Load() {
		return
	}
	f := fresh{kind: k, time: time.Now().UnixMilli(), room: e.Room, who: e.Client, code: e.Code, data: bytes.Clone(e.Data)}
	if m := e.Message; m != nil {
		f.message, f.epoch, f.time = m, e.Epoch, m.Time
		f.who = hub.Identity{User: m.User}
	}
	o.add(f)
}

func (o *Outbox) add(f fresh) {
	o.intake.add(f)
	o.rouse()
}

// rouse has the outbox's goroutine look what there is to do.
func (o *Outbox) rouse() {
	select {
	case o.wake <- struct{}{}:
	default: // it is awake
	}
}
