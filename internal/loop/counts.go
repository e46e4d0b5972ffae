package loop

import (
	"fmt"
	"maps"
	"strconv"
	"time"

	"example.com/hubbub/internal/wire"
)

// Counts is what a worker has counted since it began, and what it holds now. The worker alone writes them, plain
// integers: Inspect is how others read.
type Counts struct {
	MessagesReceived int64 // whole text and binary messages
	MessagesSent     int64 // the last byte of which a socket took
	BytesReceived    int64 // of frames, before TLS; what came in the packet of a handshake too
	BytesSent        int64 // of frames, before TLS, and of the answer 101
	Writes           int64 // calls that wrote these
	MessagesDropped  int64 // thrown away because their client was too slow and was closed

	Unsent       int64 // bytes now: what waits for sockets, as if no two clients shared a frame
	HalfReceived int64 // bytes now: of messages that are not complete

	Closed map[int]int64 // connections by close code, 0 for what CloseCode doesn't tell apart

	Turns     [len(TurnBounds) + 1]int64 // by the first of TurnBounds that is not less, and then the rest
	TurnNanos int64                      // of all turns together
}

// TurnBounds are upper bounds of turns, in nanoseconds.
var TurnBounds = [...]int64{10e3, 25e3, 50e3, 100e3, 250e3, 500e3, 1e6, 2.5e6, 5e6, 10e6, 25e6, 50e6, 100e6, 250e6, 1e9}

// meter is a worker's counts and what they need; owned by the worker's goroutine.
type meter struct {
	counts  Counts
	started int64         // when the turn began, nanoseconds
	ended   chan struct{} // closed when the goroutine has ended
}

// Counts is a copy. The worker's goroutine, or anyone's once the worker has ended.
func (w *Worker) Counts() Counts {
	c := w.counts
	c.Closed = maps.Clone(c.Closed)
	return c
}

// Ended is closed when the worker's goroutine has ended: what was posted and hasn't run never will. Any goroutine.
func (w *Worker) Ended() <-chan struct{} { return w.ended }

// endTurn ends a turn and counts how long it was. What the last breath costs is not the turn's.
func (w *Worker) endTurn() {
	away := w.away
	took := w.breathe() - w.started
	w.worked.Store(took - away)
	w.away = 0
	w.counts.TurnNanos += took
	for i, most := range TurnBounds {
		if took <= most {
			w.counts.Turns[i]++
			return
		}
	}
	w.counts.Turns[len(TurnBounds)]++
}

// countClose counts a connection under the code with which it ended.
func (w *Worker) countClose(code int, by Ender) {
	if by == ByPeer {
		code = peersCode(code)
	}
	if w.counts.Closed == nil {
		w.counts.Closed = map[int]int64{}
	}
	w.counts.Closed[code]++
}

// peersCode is the code under which a Close that the peer began is counted. 1000, 1001 and none are usual; any other is
// 0, or a client could raise the counts of our own faults and make as many of them as there are codes.
func peersCode(code int) int {
	switch code {
	case wire.CloseNormal, wire.CloseGoingAway, wire.CloseNoStatus:
		return code
	}
	return 0
}

// messages is how many messages a frame of op is: none if it is a control frame.
func messages(op wire.Opcode) int32 {
	if op.Control() {
		return 0
	}
	return 1
}

// messages is how many wait; one that is partly written counts.
func (q *queue) messages() (n int64) {
	if q.first != nil {
		n = int64(q.first.holds)
	}
	for _, f := range q.rest() {
		n += int64(f.holds)
	}
	return n
}

// drop empties the queue of a client that is too slow. What is lost is counted, lost messages that were not in it too.
func (c *Conn) drop(lost int64) {
	had := c.out.messages()
	c.out.drop(c.w)
	c.w.counts.MessagesDropped += had - c.out.messages() + lost
}

// measure keeps the worker's count of half received bytes true. c.in is not nil.
func (c *Conn) measure() {
	n := int64(c.in.Buffered() + len(c.in.left))
	c.w.counts.HalfReceived += n - c.in.counted
	c.in.counted = n
}

// forgetHalf drops what is half received.
func (c *Conn) forgetHalf() {
	if c.in != nil {
		c.w.counts.HalfReceived -= c.in.counted
		c.in = nil
	}
}

// Depth is how many tasks are posted to the worker and not yet run; those of the turn that is under way count until all
// have run. Any goroutine.
func (w *Worker) Depth() int {
	w.mail.mu.Lock()
	defer w.mail.mu.Unlock()
	return len(w.mail.tasks) + w.mail.taken
}

// Load is how many connections the worker has, those on their way to it included. Any goroutine.
func (w *Worker) Load() int { return int(w.loop.load[w.index].Load()) }

// Inspect calls f for every worker: on its goroutine, or for one that has ended on the caller's. It returns when all
// calls have ended, or after limit; a worker that was too busy calls f later, so f must not touch what is the caller's
// alone. Any goroutine but a worker's.
func (l *Loop) Inspect(limit time.Duration, f func(w *Worker)) {
	looks := make([]*look, len(l.workers))
	for i, w := range l.workers {
		looks[i] = &look{f, make(chan struct{})}
		w.Post(looks[i], 0)
	}
	late := make(chan struct{})
	timer := time.AfterFunc(limit, func() { close(late) })
	defer timer.Stop()
	for i, w := range l.workers {
		select {
		case <-looks[i].done:
		case <-w.ended:
			f(w)
		case <-late:
		}
	}
}

type look struct {
	f    func(w *Worker)
	done chan struct{}
}

func (l *look) Run(w *Worker) {
	l.f(w)
	close(l.done)
}

// Unsettled names each account of the loop that is not back at zero, with what it holds: none, once Wait has returned
// and what Hold counted was taken back. Any goroutine, after Wait.
func (l *Loop) Unsettled() (all []string) {
	account := func(n int64, format string, args ...any) {
		if n != 0 {
			all = append(all, fmt.Sprintf(format, args...)+": "+strconv.FormatInt(n, 10))
		}
	}
	account(l.total.Load(), "places of connections")
	account(l.Buffered(), "bytes of all that is buffered")
	for i, w := range l.workers {
		w.mail.mu.Lock()
		bytes, taken := w.mail.bytes, w.mail.taken
		w.mail.mu.Unlock()
		account(int64(bytes), "worker %d: bytes in the mailbox", i)
		account(int64(taken), "worker %d: tasks taken from the mailbox", i)
		account(l.load[i].Load(), "worker %d: load", i)
		account(int64(w.count), "worker %d: connections", i)
		account(w.counts.Unsent, "worker %d: unsent bytes", i)
		account(w.counts.HalfReceived, "worker %d: half received bytes", i)
		account(int64(len(w.owed)), "worker %d: connections that are owed something", i)
		account(int64(len(w.takeovers)), "worker %d: compressions with context", i)
	}
	return all
}

// Recount counts anew what the worker's connections and its mailbox hold, and names each account that says something
// else. The worker's goroutine, inside Run.
func (w *Worker) Recount() (faults []string) {
	account := func(what string, has, is int64) {
		if has != is {
			faults = append(faults, fmt.Sprintf("worker %d: %d %s are counted, %d are there", w.index, has, what, is))
		}
	}
	var unsent, half, count int64
	for _, s := range w.slots {
		if s.c == nil {
			continue
		}
		count++
		unsent += w.owed[s.c].bytes
		for i, f := range append([]*Frame{s.c.out.first}, s.c.out.rest()...) {
			if f != nil {
				unsent += int64(len(f.b))
			}
			if i == 0 && s.c.out.more != nil {
				unsent -= int64(s.c.out.more.off)
			}
		}
		if s.c.in != nil {
			half += int64(s.c.in.Buffered() + len(s.c.in.left))
		}
	}
	account("connections", int64(w.count), count)
	account("unsent bytes", w.counts.Unsent, unsent)
	account("half received bytes", w.counts.HalfReceived, half)
	faults = append(faults, w.audit()...)
	w.mail.mu.Lock()
	defer w.mail.mu.Unlock()
	bytes := w.ran
	for _, list := range [][]posted{w.tasks[w.next:], w.mail.tasks} {
		for _, t := range list {
			bytes += t.cost
		}
	}
	account("bytes in the mailbox", int64(w.mail.bytes), int64(bytes))
	return faults
}
