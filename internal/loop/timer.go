package loop

import (
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// wheel fires connections' timers: slots of one second, by the worker's clock. An entry is never taken out;
// it is stale when its connection is gone or has moved its time, so a timer costs 8 bytes and no search.
type wheel struct {
	slots [wheelSlots][]entry
	sec   int64 // the last second whose slot was visited
}

type entry struct{ slot, gen uint32 }

const wheelSlots = 64

// schedule asks for fire(c) once the worker's clock has passed at (milliseconds): never early, at most a second
// and a turn late. A time that c already has, if it is earlier, stays: fire looks again.
func (w *Worker) schedule(c *Conn, at int64) {
	sec := max(at/1000, w.wheel.sec) + 1
	if c.timer != 0 && int64(c.timer) <= sec {
		return
	}
	c.timer = uint32(sec)
	s := &w.wheel.slots[sec%wheelSlots]
	*s = append(*s, entry{c.slot, c.gen})
}

// tick fires what is due. It ends within a second's worth of entries.
func (w *Worker) tick() {
	now := w.now / 1000
	for w.wheel.sec < now {
		w.wheel.sec++
		w.fireSlot(w.wheel.sec)
	}
}

func (w *Worker) fireSlot(sec int64) {
	s := &w.wheel.slots[sec%wheelSlots]
	due := *s
	*s = w.later[:0]
	for i, e := range due {
		c := w.lookup(e.slot, e.gen)
		switch {
		case c == nil || c.timer == 0 || (int64(c.timer)-sec)%wheelSlots != 0:
		case int64(c.timer) > sec:
			*s = append(*s, e)
		default:
			c.timer = 0
			w.fire(c)
		}
		if i%mailTurn == mailTurn-1 {
			w.breathe()
		}
	}
	w.later = due[:0]
}

// rearm schedules the connection's next timer.
func (w *Worker) rearm(c *Conn) {
	at := c.due
	if c.state == open {
		at = min(at, c.seen+w.patience())
		if c.out.first != nil {
			at = min(at, w.tooOld(c))
		}
	}
	w.schedule(c, at)
}

// patience is how long a peer may be silent.
func (w *Worker) patience() int64 {
	return (w.cfg.PingInterval + w.cfg.PongTimeout).Milliseconds()
}

// tooOld is when the oldest unsent frame reaches its greatest age, by the worker's clock; of a queue that is forgiven,
// when the socket has taken nothing for so long.
func (w *Worker) tooOld(c *Conn) int64 {
	most := w.cfg.SendQueueAge.Milliseconds()
	if m := c.out.more; m != nil && m.forgiven {
		return m.took + most
	}
	return w.now - w.real + c.out.first.at + most
}

// fire is called when a connection's timer is due.
func (w *Worker) fire(c *Conn) {
	defer w.recoverConn(c)
	if c.state != open {
		w.firePatience(c)
		return
	}
	if c.paused != 0 || c.HoldReads && c.full {
		c.seen = w.now // it isn't read, so its silence is ours
	}
	switch {
	case w.now >= c.seen+w.patience():
		w.log.Debug("connection failed", "remote", c.remote(), "code", protocol.CloseNoSignOfLife, "reason", "no sign of life")
		c.leave(protocol.CloseNoSignOfLife)
		c.beginClose(failing, protocol.CloseNoSignOfLife, "no sign of life", takeWait)
		return
	case c.out.first != nil && c.full && w.now >= w.tooOld(c):
		c.tooSlow("the oldest message is too old", 0)
		return
	case w.now >= c.due:
		c.due = w.now + w.cfg.PingInterval.Milliseconds()
		if !c.full { // what waits there already will tell
			c.Answer(wire.Ping, nil)
		}
	}
	w.rearm(c)
}

// firePatience is fire for a connection that is on its way out.
func (w *Worker) firePatience(c *Conn) {
	switch {
	case w.now < c.due:
		w.schedule(c, c.due)
	case c.out.first != nil: // the Close was not even taken
		w.destroy(c, true)
	default:
		w.destroy(c, false)
	}
}
