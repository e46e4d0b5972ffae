package hub

import (
	"slices"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/wire"
)

// delivery is a room's message on its way to the members of one local.
type delivery struct {
	local *local
	*posting
}

// posting is what the deliveries of one message share.
type posting struct {
	shared
	from *session // gets nothing; nil excludes nobody
	seq  uint64
	key  string // of the message, where the policy conflates by it
	cost int    // of a delivery in a mailbox
}

const (
	maxGather = 512      // deliveries that are sorted by room before they are delivered
	maxRun    = 32 << 10 // bytes of frames that are joined into one
)

// Run delivers this message and those right behind it in the mailbox, room by room, so that all that a room's members
// get is one walk over them. Once the turn has enough to write, the rooms whose members it doesn't write to yet are put
// off: what is published to them meanwhile shares those writes (docs/decisions/0007-speed.md).
func (d *delivery) Run(w *loop.Worker) {
	st := d.local.state
	st.gather(d)
	for range maxGather - 1 {
		next, ok := w.Peek().(*delivery)
		if !ok {
			break
		}
		st.gather(next)
		w.Skip()
	}
	all := st.gathered
	defer func() { // also where a delivery panics, or the rooms behind it would wait until something else is published
		for _, l := range slices.Backward(st.gathered) {
			for _, d := range slices.Backward(l.run) {
				w.PutOff(d, d.cost)
			}
			st.spare(l.run)
			l.run = nil
		}
		clear(all)
		st.gathered = all[:0]
	}()
	for len(st.gathered) > 0 && (!w.Enough() || !st.gathered[0].untouched()) {
		l, run := st.gathered[0], st.gathered[0].run
		st.gathered, l.run = st.gathered[1:], nil // first: a panic must cost no other room anything
		l.deliverAll(run)
		st.spare(run)
	}
}

// spare keeps the memory of a run for the next one.
func (st *workerState) spare(run []*delivery) {
	clear(run)
	st.runs = append(st.runs, run[:0])
}

// untouched says that most members, by a sample, aren't written to in this turn.
func (l *local) untouched() bool {
	const sample = 8
	asked, touched := 0, 0
	for i := 0; i < len(l.members); i += len(l.members)/sample + 1 {
		asked++
		if l.members[i].conn.Touched() {
			touched++
		}
	}
	return touched < asked-touched
}

func (st *workerState) gather(d *delivery) {
	l := d.local
	if l.run == nil {
		st.gathered = append(st.gathered, l)
		if n := len(st.runs); n > 0 {
			l.run, st.runs = st.runs[n-1], st.runs[:n-1]
		}
	}
	l.run = append(l.run, d)
}

// deliverAll delivers run in parts of which each fits into one frame. Where that panics some members have got what
// others have not: all of them are closed, and come back for what they miss.
func (l *local) deliverAll(run []*delivery) {
	whole := false
	defer func() {
		if !whole {
			l.mark(run, false)
			l.closeAll()
		}
	}()
	for len(run) > 0 {
		n, size := 0, 0
		for n < len(run) && (n == 0 || size+run[n].cost <= maxRun) {
			size += run[n].cost
			n++
		}
		l.deliver(run[:n])
		run = run[n:]
	}
	whole = true
}

// closeAll closes every member's connection after a fault of ours.
func (l *local) closeAll() {
	l.fresh, l.replay = nil, nil
	for i := len(l.members) - 1; i >= 0; i-- { // backwards, as deliver does
		l.members[i].conn.Close(wire.CloseInternal, "internal error")
	}
}

// deliver queues the frames of run for the members. Who published one of them, joined between them, or lags, gets the
// others one by one; all else share one frame.
func (l *local) deliver(run []*delivery) {
	if len(l.members) == 0 {
		return
	}
	frames := l.state.frames[:0]
	for _, d := range run {
		if f := d.frame(l); f != nil {
			frames = append(frames, f)
		}
	}
	if len(frames) > 0 {
		l.mark(run, true)
		all := loop.Join(frames)
		if l.waits() {
			l.deliverOrWait(run, all)
		} else {
			l.deliverOrClose(run, all)
		}
		l.mark(run, false)
	}
	l.seen = run[len(run)-1].seq
	for s, since := range l.fresh {
		if since <= l.seen {
			l.forgetNewcomer(s)
		}
	}
	clear(frames)
	l.state.frames = frames[:0]
}

// deliverOrClose is deliver under the policy disconnect.
func (l *local) deliverOrClose(run []*delivery, all *loop.Frame) {
	// Backwards: a send may find the client too slow, which takes that member out, and the last moves in its place.
	for i := len(l.members) - 1; i >= 0; i-- {
		c := l.members[i].conn
		if !c.Marked {
			c.Send(all)
			continue
		}
		s := l.members[i].s
		since := l.since(s)
		for _, d := range run {
			if f := d.frame(l); f != nil && d.from != s && since < d.seq {
				c.Send(f)
			}
		}
	}
}

// mark marks those who don't get the whole of run.
func (l *local) mark(run []*delivery, is bool) {
	for _, d := range run {
		if d.from != nil && d.from.conn.Worker() == l.w {
			d.from.conn.Marked = is
		}
	}
	for s := range l.fresh {
		s.conn.Marked = is
	}
	for _, g := range l.lags {
		g.s.conn.Marked = is
	}
}

// since is the seq up to which s gets nothing.
func (l *local) since(s *session) uint64 { return l.fresh[s] }
