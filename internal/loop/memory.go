package loop

import (
	"cmp"
	"slices"

	"example.com/hubbub/internal/wire"
)

// Buffered is how many bytes all connections hold: unsent, as if no two clients shared a frame, and half received. It
// is true as of each worker's last turn. Any goroutine.
func (l *Loop) Buffered() int64 { return l.buffered.Load() }

// Keep counts n more bytes, or less, that are kept elsewhere. Any goroutine.
func (l *Loop) Keep(n int64) { l.buffered.Add(n) }

// Overloaded says that Buffered is above Config.MaxBufferedBytes. Any goroutine.
func (l *Loop) Overloaded() bool { return l.Buffered() > l.cfg().MaxBufferedBytes }

// account tells the loop what the worker's connections hold, and where all together hold too much, closes the worker's
// largest debtors. The worker with the largest share of an excess has more than its part of the limit, so one always
// acts.
func (w *Worker) account() {
	own := w.counts.Unsent + w.counts.HalfReceived
	if own != w.told {
		w.loop.buffered.Add(own - w.told)
		w.told = own
	}
	if !w.loop.Overloaded() {
		return
	}
	limit := w.cfg().MaxBufferedBytes
	excess := w.loop.Buffered() - limit + limit/10
	if w.cfg().Relieve != nil {
		excess -= w.cfg().Relieve(excess)
	}
	if excess > limit/10 && own > limit/int64(len(w.loop.workers)) {
		w.shed(excess)
	}
}

// shed closes the largest debtors, which together hold excess bytes, with 1013.
func (w *Worker) shed(excess int64) {
	type debtor struct {
		c    *Conn
		debt int64
	}
	var debtors []debtor
	for _, s := range w.slots {
		if s.c != nil && s.c.state == open && s.c.debt() > 0 {
			debtors = append(debtors, debtor{s.c, s.c.debt()})
		}
	}
	slices.SortFunc(debtors, func(a, b debtor) int { return cmp.Compare(b.debt, a.debt) })
	closed, freed := 0, int64(0)
	for _, d := range debtors {
		if freed >= excess {
			break
		}
		freed += d.debt
		if d.c.state == open { // else the end of one before has ended it
			closed++
			w.shedOne(d.c)
		}
	}
	if closed > 0 {
		w.log.Warn("too much is buffered: the largest debtors were closed", "clients", closed, "bytes", freed,
			"would_allow", "a higher --max-buffered-bytes")
	}
}

func (w *Worker) shedOne(c *Conn) {
	defer w.recoverConn(c)
	owed := w.owed[c]
	c.leave(wire.CloseTryLater, ByUs)
	c.drop(owed.messages)
	if c.out.first != nil { // a frame that is partly written would have to stay, however large
		w.destroy(c, true)
		return
	}
	c.beginClose(failing, wire.CloseTryLater, "server overloaded", takeWait)
}

// debt is how many bytes the server holds for a client.
func (c *Conn) debt() int64 {
	n := int64(c.out.unsent()) + c.w.owed[c].bytes
	if c.in != nil {
		n += c.in.counted
	}
	return n
}

// owed is what the handler keeps for a client until its socket drains.
type owed struct{ bytes, messages int64 }

// Owe counts more, or less, that the handler keeps for the client: as Unsent, and when the client is closed for its
// slowness as dropped. By the end of Closed it must have been taken back.
func (c *Conn) Owe(bytes, messages int64) {
	w := c.w
	w.counts.Unsent += bytes
	o := w.owed[c]
	o.bytes += bytes
	o.messages += messages
	switch {
	case o == owed{}:
		delete(w.owed, c)
		return
	case w.owed == nil:
		w.owed = map[*Conn]owed{}
	}
	w.owed[c] = o
}

// Owed is how many bytes the handler keeps for the client, by Owe.
func (c *Conn) Owed() int64 { return c.w.owed[c].bytes }
