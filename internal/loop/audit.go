package loop

import (
	"fmt"
	"slices"
)

// audit says of each connection what would never be done for it, and of each sum what it should be. The worker's
// goroutine, inside Run.
func (w *Worker) audit() (faults []string) {
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Sprintf("worker %d: ", w.index)+fmt.Sprintf(format, args...))
	}
	for _, s := range w.slots {
		if s.c != nil {
			if why := w.auditConn(s.c); why != "" {
				fault("connection %d (state %d): %s", s.c.slot, s.c.state, why)
			}
		}
	}
	pending := 0
	for _, slot := range w.wheel.deadlines {
		pending += len(slot)
	}
	if pending != w.wheel.pending {
		fault("%d tasks wait for their time, %d are counted", pending, w.wheel.pending)
	}
	for c := range w.takeovers {
		if c.state == dead {
			fault("the windows of connection %d are kept, which is dead", c.slot)
		}
	}
	w.mail.mu.Lock()
	defer w.mail.mu.Unlock()
	if n := len(w.tasks); w.mail.taken != n {
		fault("%d tasks were taken from the mailbox, %d are counted", n, w.mail.taken)
	}
	if w.mail.bytes < lowWater && len(w.mail.waiting) > 0 {
		fault("%d connections wait for a mailbox that is below low water", len(w.mail.waiting))
	}
	return faults
}

// auditConn is what is wrong with a connection, or empty.
func (w *Worker) auditConn(c *Conn) string {
	unsent, answers := 0, 0
	for i, f := range append([]*Frame{c.out.first}, c.out.rest()...) {
		switch {
		case f == nil:
			continue
		case f.answer:
			answers += len(f.b)
		}
		unsent += len(f.b)
		if m := c.out.more; i == 0 && m != nil {
			unsent -= m.off
		}
	}
	at := c.due // when its timer must have been due
	if c.state == open {
		at = min(at, c.seen+w.patience())
		if c.full && c.out.first != nil {
			old := w.tooOld(c)
			if m := c.out.more; m == nil || !m.forgiven {
				old += w.real - w.now // since the timer was set the process may have stalled
			}
			at = min(at, old)
		}
	}
	tick := int64(c.timer)
	switch {
	case unsent != c.out.unsent() || answers != c.out.answers():
		return fmt.Sprintf("%d bytes wait, %d of answers; counted are %d and %d", unsent, answers, c.out.unsent(), c.out.answers())
	case c.out.first != nil && !c.dirty && !c.full:
		return "something waits for it, and nobody writes"
	case c.unread && !c.listed && !c.stopped():
		return "its socket may hold more, and nobody reads"
	case tick == 0 || tick > max(at/slotTime, w.wheel.tick)+1:
		return fmt.Sprintf("it must be looked at by %d ms, and will be at tick %d of %d ms", at, tick, slotTime)
	case !slices.Contains(w.wheel.slots[tick%wheelSlots], entry{c.slot, c.gen}):
		return "it isn't where its timer is due"
	}
	return ""
}
