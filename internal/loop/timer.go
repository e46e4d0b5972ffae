package loop

import (
	"time"

	"example.com/hubbub/internal/protocol"
)

// wheel fires connections' timers, and runs what was left for a time: slots of a quarter of a second, by the worker's
// clock. An entry is never taken out; a connection's is stale when it is gone or has moved its time, so a timer costs 8
// bytes and no search.
type wheel struct {
	slots     [wheelSlots][]entry
	deadlines [wheelSlots][]deadline
	pending   int // deadlines, in all slots
	spare     []deadline
	tick      int64   // the last one whose slots were visited
	pinged    []*Conn // their pings are queued
}

type entry struct{ slot, gen uint32 }

// deadline is a task that runs when its tick is visited.
type deadline struct {
	tick int64
	task Task
}

// A client is closed at most a second late, and its ping may be late before that: each by a slot and a turn.
const (
	slotTime   = 250 // milliseconds
	wheelSlots = 256
	lookEvery  = 1000 / slotTime // slots, though they be empty: clock must see a stall
)

// advance moves the worker's clock to so many nanoseconds since the process began. After a stall (SIGSTOP, a machine
// that slept) the timers' clock moves by afterStall only: the peers could not be heard meanwhile, so their silence
// doesn't count.
func (w *Worker) advance(nanos int64) {
	real := nanos / int64(time.Millisecond)
	step := real - w.real
	if w.timed() && step > stalled {
		step = afterStall
	}
	w.now += step
	w.real = real
	if !w.timed() {
		w.wheel.tick = max(w.wheel.tick, w.now/slotTime-wheelSlots) // nobody's timers: each slot is visited once
	}
}

// timed says that the wheel holds something, so that the clock is looked at each second.
func (w *Worker) timed() bool { return w.count > 0 || w.wheel.pending > 0 }

// Now is the time by the clock of timers, in milliseconds: a stall of the process hardly moves it. The worker's
// goroutine.
func (w *Worker) Now() int64 { return w.now }

// At runs t once Now has passed at: never early, at most a slot and a turn late. Nothing takes it back; a t that is
// moot by then finds that out itself, and until then it keeps what it names from being collected. What isn't due when
// the worker ends never runs. It costs no connection anything. The worker's goroutine.
func (w *Worker) At(at int64, t Task) {
	tick := max(at/slotTime, w.wheel.tick) + 1
	s := &w.wheel.deadlines[tick%wheelSlots]
	*s = append(*s, deadline{tick, t})
	w.wheel.pending++
}

// nextTick is when the worker must look at the wheel, by the monotonic clock.
func (w *Worker) nextTick() int64 {
	if !w.timed() {
		return w.real + 1000
	}
	next := w.wheel.tick + 1
	for last := w.wheel.tick + lookEvery; next < last && w.wheel.empty(next); {
		next++
	}
	return w.real + max(0, next*slotTime-w.now)
}

func (wh *wheel) empty(tick int64) bool {
	return len(wh.slots[tick%wheelSlots])+len(wh.deadlines[tick%wheelSlots]) == 0
}

// schedule asks for fire(c) once the worker's clock has passed at (milliseconds): never early, at most a slot and a
// turn late. A time that c already has, if it is earlier, stays: fire looks again.
func (w *Worker) schedule(c *Conn, at int64) {
	tick := max(at/slotTime, w.wheel.tick) + 1
	if c.timer != 0 && int64(c.timer) <= tick {
		return
	}
	c.timer = uint32(tick)
	s := &w.wheel.slots[tick%wheelSlots]
	*s = append(*s, entry{c.slot, c.gen})
}

// tick fires what is due. It ends within a second's worth of entries.
func (w *Worker) tick() {
	for now := w.now / slotTime; w.wheel.tick < now; {
		w.wheel.tick++
		w.fireSlot(w.wheel.tick)
		w.runDeadlines(w.wheel.tick)
	}
}

// runDeadlines runs what was left for that tick.
func (w *Worker) runDeadlines(tick int64) {
	s := &w.wheel.deadlines[tick%wheelSlots]
	if len(*s) == 0 {
		return
	}
	all := *s
	*s = w.wheel.spare[:0] // what runs may leave more there
	w.wheel.spare = nil
	ran := 0
	for _, d := range all {
		if d.tick > tick {
			*s = append(*s, d)
			continue
		}
		w.wheel.pending--
		w.runTask(d.task)
		if ran++; ran%mailTurn == 0 {
			w.breathe()
		}
	}
	clear(all)
	if cap(all) <= maxSpare {
		w.wheel.spare = all[:0]
	}
}

func (w *Worker) fireSlot(tick int64) {
	s := &w.wheel.slots[tick%wheelSlots]
	due := *s
	*s = w.later[:0]
	for i, e := range due {
		c := w.lookup(e.slot, e.gen)
		switch {
		case c == nil || c.timer == 0 || (int64(c.timer)-tick)%wheelSlots != 0:
		case int64(c.timer) > tick:
			*s = append(*s, e)
		default:
			c.timer = 0
			w.fire(c)
		}
		if i%mailTurn == mailTurn-1 {
			w.breathe()
			w.sendPings()
		}
	}
	w.sendPings()
	w.later = due[:0]
}

// rearm schedules the connection's next timer.
func (w *Worker) rearm(c *Conn) {
	at := c.due
	if c.state == open {
		at = min(at, c.seen+w.patience())
		switch {
		case c.out.first != nil:
			at = min(at, w.tooOld(c))
		case c.full: // what comes to wait from now on
			at = min(at, w.now+w.cfg().SendQueueAge.Milliseconds())
		}
	}
	w.schedule(c, at)
}

// patience is how long a peer may be silent.
func (w *Worker) patience() int64 {
	return (w.cfg().PingInterval + w.cfg().PongTimeout).Milliseconds()
}

// tooOld is when the oldest unsent frame reaches its greatest age, by the worker's clock; of a queue that is forgiven,
// when the socket has taken nothing for so long.
func (w *Worker) tooOld(c *Conn) int64 {
	most := w.cfg().SendQueueAge.Milliseconds()
	if m := c.out.more; m != nil && m.forgiven {
		return m.took + most
	}
	return w.now - w.real + c.out.first.at + most
}

// fire is called when a connection's timer is due. Times are in whole milliseconds, rounded down, so what is to last so
// many has passed when one more has.
func (w *Worker) fire(c *Conn) {
	defer w.recoverConn(c)
	if c.state != open {
		w.firePatience(c)
		return
	}
	if c.stopped() {
		c.seen = w.now // it isn't read, so its silence is ours
	}
	if w.now > c.seen+w.patience() && w.asked(c) && w.silent(c) {
		w.log.Debug("connection failed", "remote", c.Remote(), "code", protocol.CloseNoSignOfLife, "reason", "no sign of life")
		c.leave(protocol.CloseNoSignOfLife, ByUs)
		c.beginClose(failing, protocol.CloseNoSignOfLife, "no sign of life", takeWait)
		return
	}
	if w.isTooOld(c) {
		c.full = false
		w.flush(c) // it may be that the poller didn't get round to it yet
		if w.isTooOld(c) {
			c.tooSlow("the oldest message is too old", 0)
		}
	}
	switch {
	case c.state != open:
	case w.now > c.due:
		if !c.full { // what waits there already will tell
			c.h.Ping(c)
		}
		w.wheel.pinged = append(w.wheel.pinged, c)
	default:
		w.rearm(c)
	}
}

// asked says that a ping has left since the peer's last byte: where the worker was held up, the time-out may seem to be
// over before the ping has left.
func (w *Worker) asked(c *Conn) bool { return c.seen < c.due-w.cfg().PingInterval.Milliseconds() }

// silent says, of a connection that seems dead, that there is really nothing to read: where many are heard at once, or
// the worker was held up, the poller may not have told of all yet.
func (w *Worker) silent(c *Conn) bool {
	if c.turn != w.turns { // else it was read just now
		w.receive(c)
	}
	return c.state == open && w.now > c.seen+w.patience()
}

// isTooOld says that what waits has waited for too long.
func (w *Worker) isTooOld(c *Conn) bool {
	return c.state == open && c.out.first != nil && c.full && w.now > w.tooOld(c)
}

// sendPings has the pings leave that were queued. Only then does the time-out of their clients begin, however late that
// is: one that answers at once must never be closed.
func (w *Worker) sendPings() {
	if len(w.wheel.pinged) == 0 {
		return
	}
	w.flushAll()
	w.breathe() // the clock is that of the writes
	every := w.cfg().PingInterval.Milliseconds()
	for _, c := range w.wheel.pinged {
		if c.state != open {
			continue
		}
		if !w.asked(c) { // it has answered the one before; else that one's time runs on
			c.seen = max(c.seen, w.now-every)
		}
		c.due = w.now + every
		w.rearm(c)
	}
	clear(w.wheel.pinged)
	w.wheel.pinged = w.wheel.pinged[:0]
}

// firePatience is fire for a connection that is on its way out.
func (w *Worker) firePatience(c *Conn) {
	switch {
	case w.now <= c.due:
		w.schedule(c, c.due)
	case c.out.first != nil: // the Close was not even taken
		w.destroy(c, true)
	default:
		w.destroy(c, false)
	}
}

// clock reads the time as a turn begins; breathe moves it on.
func (w *Worker) clock() {
	w.started = int64(time.Since(began))
	w.advance(w.started)
}

// breathe lets other goroutines run when the worker has had the processor for a millisecond: its system calls are raw,
// so nothing else would take it away for ten. It moves the worker's clock on, so that what is read is never taken for
// much older than it is.
func (w *Worker) breathe() (now int64) {
	if now = int64(time.Since(began)); now-w.breath > turnTime {
		w.giveWay()
		return now
	}
	w.advance(now)
	return now
}

// giveWay lets other goroutines run, moves the worker's clock on, and says how many nanoseconds that took.
func (w *Worker) giveWay() (took int64) {
	from := int64(time.Since(began))
	w.poll.yield()
	w.breath = int64(time.Since(began))
	took = w.breath - from
	w.away += took
	w.advance(w.breath)
	return took
}
