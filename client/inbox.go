package client

import (
	"context"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
)

// inbox keeps what nobody has read yet, up to a bound: see "Slow readers" in doc.go. One goroutine puts, any number
// takes.
type inbox struct {
	room string // static, "" for a Hub's own
	max  int    // bytes; static

	mu      sync.Mutex // what is below
	events  []Event
	bytes   int
	readers int           // who ranges over it now
	missed  int           // messages that were dropped since somebody was told
	ended   bool          // nothing comes any more
	changed chan struct{} // closed at every change of these
}

// overflow is how many times the bound an inbox may hold while a call waits for its answer, which lies behind.
const overflow = 4

func newInbox(room string, limit int) *inbox {
	return &inbox{room: room, max: limit, changed: make(chan struct{})}
}

// change wakes who waits. b.mu is held.
func (b *inbox) change() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// put waits until there is room for e, but where nobody reads. calls is how many wait for their answers, and poked comes
// when one begins to.
func (b *inbox) put(ctx context.Context, e Event, calls *atomic.Int64, poked <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n := size(e); len(b.events) > 0 && b.bytes+n > b.max && b.readers > 0 && !b.ended; {
		if b.bytes+n <= overflow*b.max && calls.Load() > 0 {
			break
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-poked:
		case <-ctx.Done():
			b.mu.Lock()
			return
		}
		b.mu.Lock()
	}
	if b.ended {
		return
	}
	b.events = append(b.events, e)
	b.bytes += size(e)
	for b.readers == 0 && b.bytes > b.max && len(b.events) > 1 {
		b.drop()
	}
	b.change()
}

// drop drops the oldest event. b.mu is held.
func (b *inbox) drop() {
	n := 1 // of a Lost nobody knows how many; what a Deleted took back may still be shown
	if gap, is := b.events[0].(Gap); is {
		n = max(1, gap.Count) // it may not say how many
	}
	b.missed += n
	b.shift()
}

func (b *inbox) shift() Event {
	e := b.events[0]
	b.events[0] = nil
	b.events = b.events[1:]
	b.bytes -= size(e)
	return e
}

// forgetLeft takes out word that the client has left, for one who comes again.
func (b *inbox) forgetLeft() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = slices.DeleteFunc(b.events, func(e Event) bool {
		_, is := e.(Left)
		if is {
			b.bytes -= size(e)
		}
		return is
	})
}

// end lets readers have what is there, and then end.
func (b *inbox) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.change()
}

// next waits for an event.
func (b *inbox) next(ctx context.Context) (Event, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		switch {
		case ctx.Err() != nil:
			return nil, false
		case b.missed > 0:
			e := Gap{Room: b.room, Count: b.missed, Reason: "unread"}
			b.missed = 0
			return e, true
		case len(b.events) > 0:
			e := b.shift()
			b.change()
			return e, true
		case b.ended:
			return nil, false
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		b.mu.Lock()
	}
}

func (b *inbox) attend(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readers += n
	b.change()
}

// all ranges over what comes until ctx or the inbox ends.
func (b *inbox) all(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		b.attend(1)
		defer b.attend(-1)
		for {
			e, ok := b.next(ctx)
			if !ok || !yield(e) {
				return
			}
		}
	}
}
