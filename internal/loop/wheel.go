package loop

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
	sec := at/1000 + 1
	if sec <= w.wheel.sec {
		sec = w.wheel.sec + 1
	}
	if c.timer != 0 && c.timer <= sec {
		return
	}
	c.timer = sec
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
		case c == nil || c.timer%wheelSlots != sec%wheelSlots || c.timer == 0:
		case c.timer > sec:
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
