package loop

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"example.com/hubbub/internal/wire"
)

// Worker is one goroutine and all that its connections need. A turn: read what is readable, run the mailbox, fire
// timers, then write once to each connection that got something; and then the same for some whose reads are much work.
type Worker struct {
	// Static after New.
	loop  *Loop
	index int
	log   *slog.Logger
	poll  poller

	mail mailbox // any goroutine posts

	// Owned by the worker's goroutine.
	slots  []slot
	free   []uint32 // slots that can be used again
	count  int      // connections that are not dead
	again  []*Conn  // to be read though no event says so
	heavy  []*Conn  // the same, of those that are read after the others, first come first
	dirty  []*Conn  // to be written at the end of the turn
	dying  []dying  // to be closed at the end of the turn
	wheel  wheel
	now    int64 // milliseconds: the clock of timers, which a stall of the process doesn't move
	real   int64 // milliseconds of the monotonic clock at the turn's start
	breath int64 // when others last could run, nanoseconds
	reader wire.Reader
	arena  arena
	stock  stock
	owed   map[*Conn]owed // nil while nobody was ever owed

	inflater  *wire.Inflater // these three are nil until somebody compresses
	deflater  *wire.Deflater
	takeovers map[*Conn]takeover

	together together
	joined   joined
	work     int    // bytes of what the connections said and were answered, and messageWork for each message
	in       []byte // what is read lands here
	stop     bool
	parted   int   // slots that Stop has been through
	told     int64 // what the loop knows of the bytes that the connections hold
	meter
	wrote  int64        // calls of the last turn that wrote to a connection
	away   int64        // nanoseconds of this turn that other goroutines had
	worked atomic.Int64 // nanoseconds of the last turn, without those. The worker alone writes it, any reads

	tasks  []posted // of this turn, and what the one before left; next is the index of the one to run next
	next   int
	ran    int  // the cost of those that ran in this turn
	rest   bool // the other tasks are left to the next turn
	before int  // connections on dirty when the first of tasks ran
	spare  []posted
	later  []entry
	turns  uint32  // how many there were; it may wrap around
	spent  []*Conn // spare for again
}

type slot struct {
	c   *Conn
	gen uint32
}

type dying struct {
	c     *Conn
	reset bool // hang up with a reset
}

const (
	readSize    = 64 << 10 // from one connection in one turn
	turnTime    = int64(time.Millisecond)
	stalled     = 2000 // milliseconds between two turns that are no turn of ours any more
	afterStall  = 250  // what the clock of timers moves then: pongs that came meanwhile must be read before their time is up
	events2work = 32   // events, and writes, between looks at the clock
	moreLooks   = 8
	lookPart    = 64  // of the last turn's time
	lookTime    = 300 // nanoseconds, about
	writeLooks  = 4   // writes of the last turn for a look at most: a write is about 16 looks long
	mostLooks   = 1000
	mostWorked  = 4  // times what the worker itself worked are looked on for
	wayLooks    = 10 // what giving way costs at least, about
)

var began = time.Now()

// Monotonic is milliseconds since the process began. Any goroutine.
func Monotonic() int64 { return time.Since(began).Milliseconds() }

// Index is the worker's number, from 0.
func (w *Worker) Index() int { return w.index }

// Conn finds the connection that ref names, if it is open or closing. The worker's goroutine.
func (w *Worker) Conn(ref Ref) *Conn { return w.lookup(ref.slot, ref.gen) }

func (w *Worker) lookup(i, gen uint32) *Conn {
	if int(i) >= len(w.slots) || w.slots[i].gen != gen {
		return nil
	}
	return w.slots[i].c
}

func (w *Worker) run() {
	defer w.loop.done.Done()
	defer close(w.ended)
	w.clock()
	for !w.stop || w.count > 0 {
		w.turns++
		writes := w.counts.Writes
		ready := w.poll.poll()
		if len(ready) == 0 && len(w.again) == 0 && len(w.heavy) == 0 && len(w.tasks) == 0 && w.mail.empty() {
			if due := w.nextTick(); due > w.real {
				w.sleep()
			}
		}
		w.clock()
		w.read(ready)
		w.readOn()
		w.runMail()
		w.tick()
		w.flushAll()
		w.readHeavy()
		w.account()
		w.bury()
		w.wrote = w.counts.Writes - writes
		w.endTurn()
	}
	w.mail.end(w.tasks)
	w.tasks = nil
	w.closeIO()
}

func (w *Worker) closeIO() {
	w.poll.close()
	if w.together.sender != nil {
		w.together.close()
	}
}

// sleep parks until an event, a post or the next tick. A post that comes after asleep was set wakes it; one that came
// before is seen by the check.
func (w *Worker) sleep() {
	w.mail.asleep.Store(true)
	if w.mail.empty() {
		var until time.Time
		if w.timed() {
			until = began.Add(time.Duration(w.nextTick()) * time.Millisecond)
		}
		w.poll.park(until)
	}
	w.mail.asleep.Store(false)
	w.breath = int64(time.Since(began))
}

func (w *Worker) read(ready []ready) {
	for i, e := range ready {
		if c := w.lookup(e.slot, e.gen); c != nil {
			w.event(c, e.what)
		}
		w.between(i)
	}
	// What is put on the list from here on waits for the next turn, so that one connection can't hold it up.
	again := w.again
	w.again = w.spent[:0]
	for i, c := range again {
		c.listed = false
		w.event(c, 0)
		w.between(i)
	}
	clear(again)
	w.spent = again[:0]
}

// readOn looks again, before what was posted goes out, whether more has come: each message that is read now shares the
// writes of those before it. An empty look costs 0.3 us; the figures are in docs/decisions/0007-speed.md.
// After a long turn, with much to write, it goes on looking for a little of the time that this took: the next will take as
// long, whatever it brings. A turn that was long because other programs had the processor has written no more for it, so
// the writes bound the looks as well. Where workers share a processor it gives way meanwhile, so that the others read what has come to
// them and post it here, or each would write by itself what all have read together.
func (w *Worker) readOn() {
	took, wrote := w.worked.Load(), w.wrote
	if w.loop.crowded {
		took, wrote = w.loop.worked(w), mostWorked*wrote
	}
	looks := looksAfter(took, wrote)
	for range moreLooks {
		if w.mail.empty() && len(w.tasks) == 0 {
			return
		}
		ready := w.poll.poll()
		for ; len(ready) == 0; looks-- {
			if looks <= 0 {
				return
			}
			if w.loop.crowded && looks >= wayLooks {
				looks -= w.giveWay() / lookTime
			}
			ready = w.poll.poll()
		}
		w.read(ready)
	}
}

// looksAfter is how often to look in vain after a turn of so many nanoseconds and writes.
func looksAfter(took, wrote int64) int64 {
	return min(took/(lookPart*lookTime), wrote/writeLooks, mostLooks)
}

func (w *Worker) between(i int) {
	if w.arena.busy() {
		w.flushAll()
	}
	if i%events2work == events2work-1 {
		w.breathe()
	}
}

// event handles what the poller, or the list of those to read again, says of a connection.
func (w *Worker) event(c *Conn, what events) {
	defer w.recoverConn(c)
	if what&canWrite != 0 && c.full {
		c.full = false
		c.seen = w.now // the peer has taken something, and no ping gets through before what is queued
		w.flush(c)
	}
	if what&(canRead|hungUp) != 0 {
		c.unread = true
		c.ended = c.ended || what&(ended|hungUp) != 0
	}
	if what&hungUp != 0 && c.stopped() {
		w.lost(c) // nobody is there to answer; what is unread goes with it
		return
	}
	if c.heavy {
		c.again()
		return
	}
	w.hear(c)
}

// hear reads from a connection if there may be something.
func (w *Worker) hear(c *Conn) {
	switch {
	case !c.unread || c.state == dead || c.stopped():
	case c.turn == w.turns: // once a turn: the bounds on answers count with what one read brings
		c.again()
	default:
		w.receive(c)
	}
}

// receive reads once, unless some of the last read is left. A read that fills the buffer leaves the rest for the next
// turn.
func (w *Worker) receive(c *Conn) {
	c.turn = w.turns
	if c.in != nil && len(c.in.left) > 0 {
		c.seen = w.now // its Pongs lie behind that: until all of it was looked at its silence is ours
		w.feed(c, c.in.left)
		c.again()
		return
	}
	n, err := c.recv(w.in)
	switch {
	case err == errAgain:
		c.unread = c.ended // TLS may not have come to the end, which was told together with a part of a record
		c.again()
	case err == io.EOF && n == 0:
		w.peerEnded(c)
	case err != nil && n == 0:
		w.lost(c)
	default:
		c.seen = w.now
		c.ended = c.ended || err != nil // the next read meets the error again
		w.counts.BytesReceived += int64(n)
		w.feed(c, w.in[:n])
		// A short read emptied the socket; but the end of the stream may have been told together with these bytes.
		c.unread = n == len(w.in) || c.ended || c.in != nil && len(c.in.left) > 0
		c.again()
	}
}

// peerEnded is called at the end of the peer's half of the stream. It may have ended only that, and be waiting for what
// is still unsent: a connection whose socket is full hangs up when that is out, or after a while.
func (w *Worker) peerEnded(c *Conn) {
	if !c.full {
		w.flush(c)
	}
	if c.out.first == nil || c.state == dead {
		w.lost(c)
		return
	}
	if c.state == open {
		c.leave(wire.CloseAbnormal, ByNobody)
	}
	c.state = ending
	c.forgetHalf()
	c.unread, c.ended = false, false
	c.due = w.now + closeWait
	w.rearm(c)
}

// feed hands bytes from the peer through the frame reader to the handler. It stops when the connection is paused, or
// has had its share of the turn: what is left then waits in c.in for the next one.
func (w *Worker) feed(c *Conn, b []byte) {
	if c.state != open && c.state != closing {
		return // thrown away
	}
	r := &w.reader
	if c.in != nil {
		r = &c.in.Reader
	}
	z := w.inflaterFor(c)
	rest := c.in != nil && len(c.in.left) > 0 // of a read that was begun in an earlier turn
	begin := w.work
	share := share{next: begin + lookWork}
	for len(b) > 0 && !c.stopped() && !share.over(w) {
		ev, n, ok, err := r.Next(b, w.cfg().MaxMessageBytes, z)
		if err != nil {
			w.reader = wire.Reader{}
			c.fail(err.Code, err.Reason)
			return
		}
		b = b[n:]
		if !ok {
			break
		}
		if w.handle(c, ev); c.state != open && c.state != closing {
			w.reader = wire.Reader{}
			return
		}
	}
	c.heavy = c.heavy && rest || w.work-begin >= lookWork
	w.keepHalf(c, r, b)
}

// keepHalf keeps what is not complete, and what was left, until more comes or the next turn.
func (w *Worker) keepHalf(c *Conn, r *wire.Reader, left []byte) {
	idle := r.Idle()
	if c.in == nil {
		if idle && len(left) == 0 || c.state == dead {
			w.reader = wire.Reader{}
			return
		}
		c.in = &half{Reader: w.reader}
		w.reader = wire.Reader{}
	}
	if idle && len(left) == 0 {
		c.forgetHalf()
		return
	}
	if len(c.in.left) == 0 || len(left) < c.in.whole/2 { // else left is the end of it: what is kept is about what is counted
		left = slices.Clone(left)
		c.in.whole = len(left)
	}
	c.in.left = left
	c.measure()
}

func (w *Worker) handle(c *Conn, ev wire.Event) {
	switch ev.Op {
	case wire.Close:
		c.answerClose(ev.Code)
	case wire.Ping:
		// RFC 6455 5.5.2: a Pong answers, "unless it already received a Close frame"; it carries the same data.
		c.Answer(wire.Pong, ev.Payload)
	case wire.Pong: // 5.5.3: also unsolicited, then "a response is not expected"
	default:
		if c.state == open {
			w.counts.MessagesReceived++
			c.h.Message(c, ev.Op, ev.Payload)
		}
	}
	w.work += messageWork + len(ev.Payload)
}

// lost ends a connection that TCP has ended.
func (w *Worker) lost(c *Conn) {
	if c.state == open {
		c.leave(wire.CloseAbnormal, ByNobody)
	}
	w.destroy(c, false)
}

// destroy takes the connection away; its descriptor is closed at the end of the turn. With reset the peer gets a RST
// and the kernel forgets what it had not delivered.
func (w *Worker) destroy(c *Conn, reset bool) {
	if c.state == dead {
		return
	}
	c.state = dead
	delete(w.takeovers, c)
	c.out.abandon(w)
	if o, ok := w.owed[c]; ok { // Closed failed
		c.Owe(-o.bytes, -o.messages)
	}
	c.forgetHalf()
	w.slots[c.slot].c = nil
	w.slots[c.slot].gen++
	w.count--
	w.dying = append(w.dying, dying{c, reset})
}

// bury closes the descriptors of the dead. Not before the end of the turn: the kernel gives a number out again at once,
// and an event of this turn could then mean another socket.
func (w *Worker) bury() {
	for _, d := range w.dying {
		d.c.hangUp(d.reset)
		w.free = append(w.free, d.c.slot)
		w.loop.forget(d.c)
	}
	clear(w.dying)
	w.dying = w.dying[:0]
}

// open takes a connection in.
func (w *Worker) open(c *Conn, o *opening) {
	if n := len(w.free); n > 0 {
		c.slot = w.free[n-1]
		w.free = w.free[:n-1]
	} else {
		c.slot = uint32(len(w.slots))
		w.slots = append(w.slots, slot{})
	}
	c.gen = w.slots[c.slot].gen
	w.slots[c.slot].c = c
	w.count++
	c.seen = w.now
	// Pings are spread at random, or all the connections of one burst would be due together for ever.
	c.due = w.now + rand.Int64N(w.cfg().PingInterval.Milliseconds()) + 1
	w.rearm(c)
	defer w.recoverConn(c)
	if p, ok := c.via.(*pump); ok {
		p.start(c.Ref())
	} else if err := w.poll.add(int(c.fd), c.slot, c.gen); err != nil {
		w.log.Error("cannot watch a connection", "err", err)
		c.leave(wire.CloseAbnormal, ByNobody)
		w.destroy(c, true)
		return
	}
	if o.deflate.ServerBits != 0 {
		w.agree(c, o.deflate)
	}
	if len(o.preface) > 0 {
		c.push(&Frame{b: o.preface, at: w.real, answer: true})
	}
	if w.stop {
		c.h.Opened(c)
		c.h.Stop(c)
		return
	}
	c.h.Opened(c)
	w.counts.BytesReceived += int64(len(o.first))
	w.feed(c, o.first)
	if c.via != nil || c.in != nil && len(c.in.left) > 0 { // it may have read ahead, so that no event would tell
		c.unread = true
		c.again()
	}
}

// recoverConn keeps a fault of our own to the connection in whose event it happened: 1011, and the rest goes on.
func (w *Worker) recoverConn(c *Conn) {
	r := recover()
	if r == nil {
		return
	}
	w.panicked(r)
	w.endAfterPanic(c)
}

// endAfterPanic ends a connection in whose event, or task, something panicked.
func (w *Worker) endAfterPanic(c *Conn) {
	w.reader = wire.Reader{}
	if c.state == open {
		c.leave(wire.CloseInternal, ByUs)
		c.beginClose(failing, wire.CloseInternal, "internal error", takeWait)
	} else {
		w.destroy(c, false)
	}
}

func (w *Worker) panicked(r any) {
	w.loop.Panics.Add(1)
	w.log.Error("panic in a worker", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
}
