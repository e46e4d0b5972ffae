package hub

import (
	"hash/maphash"
	"slices"
	"sync"

	"example.com/hubbub/internal/loop"
)

// room is one order of messages, and the workers that have members of it. It exists while it has members.
type room struct {
	name string
	mu   *sync.Mutex // its shard's; guards all that follows. A post to a mailbox is made under it, and is never waited for.

	seq     uint64 // of the message posted last
	members int
	locals  []*local
}

// local is a room's members on one worker, and owned by that worker's goroutine.
type local struct {
	room    *room
	w       *loop.Worker
	state   *workerState
	members []member
	seen    uint64      // seq of the message delivered last
	fresh   []newcomer  // members who joined behind messages that are still on their way here
	run     []*delivery // gathered, not yet delivered
}

// member is a session's place in a room. A delivery walks over many, so what it needs lies here and in the connection.
type member struct {
	conn *loop.Conn
	s    *session
}

// newcomer has nothing of what was posted up to since: the room's seq at the join.
type newcomer struct {
	s     *session
	since uint64
}

// membership is the session's side of a member.
type membership struct {
	local *local
	at    int32 // index in local.members
}

type roomShard struct {
	mu    sync.Mutex
	rooms map[string]*room
}

var seed = maphash.MakeSeed()

func (h *Hub) roomShard(name string) *roomShard {
	return &h.rooms[maphash.String(seed, name)%shards]
}

func (h *Hub) roomShardBytes(name []byte) *roomShard {
	return &h.rooms[maphash.Bytes(seed, name)%shards]
}

// join makes s a member of the room, which it must not be yet. The goroutine of s's worker.
func (h *Hub) join(s *session, name []byte) {
	sh := h.roomShardBytes(name)
	sh.mu.Lock()
	r := sh.rooms[string(name)]
	if r == nil {
		r = &room{name: string(name), mu: &sh.mu}
		sh.rooms[r.name] = r
	}
	l := r.localFor(s)
	r.members++
	since := r.seq
	sh.mu.Unlock()
	s.rooms = append(s.rooms, membership{l, l.add(s, since)})
}

// localFor finds or makes the room's local of s's worker. r.mu is held.
func (r *room) localFor(s *session) *local {
	w := s.conn.Worker()
	for _, l := range r.locals {
		if l.w == w {
			return l
		}
	}
	l := &local{room: r, w: w, state: s.state(), seen: r.seq}
	r.locals = append(r.locals, l)
	return l
}

// add appends s to the members and returns its index.
func (l *local) add(s *session, since uint64) int32 {
	if l.seen < since {
		l.fresh = append(l.fresh, newcomer{s, since})
	}
	l.members = append(l.members, member{s.conn, s})
	return int32(len(l.members) - 1)
}

// remove takes out the member at index at; the last one moves there.
func (l *local) remove(at int32) {
	s := l.members[at].s
	last := len(l.members) - 1
	if moved := l.members[last]; int(at) != last {
		l.members[at] = moved
		*moved.s.place(l) = at
	}
	l.members[last] = member{}
	l.members = l.members[:last]
	if len(l.fresh) > 0 {
		l.fresh = slices.DeleteFunc(l.fresh, func(n newcomer) bool { return n.s == s })
	}
}

// leave ends a membership of s. The goroutine of s's worker.
func (h *Hub) leave(s *session, m membership) {
	l := m.local
	l.remove(m.at)
	r := l.room
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members--
	if len(l.members) == 0 {
		// A delivery that is still on its way to l finds nobody there.
		r.locals = slices.DeleteFunc(r.locals, func(o *local) bool { return o == l })
		if r.members == 0 {
			delete(h.roomShard(r.name).rooms, r.name)
		}
	}
}

// depart takes s out of everyone. The goroutine of s's worker.
func (h *Hub) depart(s *session) {
	s.state().everyone.remove(s.all)
	h.everyone.mu.Lock()
	h.everyone.members--
	h.everyone.mu.Unlock()
}

// post sends f to all members but from: once a worker, not once a member. r.mu is held, so all workers get the
// room's messages in one order. It returns a worker whose mailbox is above high water, or nil.
func (r *room) post(f *loop.Frame, from *session) (full *loop.Worker) {
	r.seq++
	for _, l := range r.locals {
		if l.w.Post(&delivery{l, f, from, r.seq}, f.Len()) {
			full = l.w
		}
	}
	return full
}

// postUnlessFull is post for those whom nobody can stop reading from. r.mu is held.
func (r *room) postUnlessFull(frame func() *loop.Frame) error {
	for _, l := range r.locals {
		if l.w.Full() {
			return ErrOverloaded
		}
	}
	if len(r.locals) > 0 {
		r.post(frame(), nil)
	}
	return nil
}

// delivery is a room's frame on its way to the members on one worker.
type delivery struct {
	local *local
	frame *loop.Frame
	from  *session // gets nothing; nil excludes nobody
	seq   uint64
}

const (
	maxGather = 512      // deliveries that are sorted by room before they are delivered
	maxRun    = 32 << 10 // bytes of frames that are joined into one
)

// Run delivers this message and those right behind it in the mailbox, room by room, so that all that a room's members
// get is one walk over them.
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
	for i, l := range st.gathered {
		run := l.run
		l.run, st.gathered[i] = nil, nil
		l.deliverAll(run)
		clear(run)
		st.runs = append(st.runs, run[:0])
	}
	st.gathered = st.gathered[:0]
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

// deliverAll delivers run in parts of which each fits into one frame.
func (l *local) deliverAll(run []*delivery) {
	for len(run) > 0 {
		n, size := 0, 0
		for n < len(run) && (n == 0 || size+run[n].frame.Len() <= maxRun) {
			size += run[n].frame.Len()
			n++
		}
		l.deliver(run[:n])
		run = run[n:]
	}
}

// deliver queues the frames of run for the members. Who published one of them, or joined between them, gets the
// others one by one; all else share one frame.
func (l *local) deliver(run []*delivery) {
	if len(l.members) == 0 {
		return
	}
	frames := l.state.frames[:0]
	for _, d := range run {
		frames = append(frames, d.frame)
	}
	l.mark(run, true)
	all := loop.Join(frames)
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
			if d.from != s && since < d.seq {
				c.Send(d.frame)
			}
		}
	}
	l.mark(run, false)
	l.seen = run[len(run)-1].seq
	if len(l.fresh) > 0 {
		l.fresh = slices.DeleteFunc(l.fresh, func(n newcomer) bool { return n.since <= l.seen })
	}
	clear(frames)
	l.state.frames = frames[:0]
}

// mark marks those who don't get the whole of run.
func (l *local) mark(run []*delivery, is bool) {
	for _, d := range run {
		if d.from != nil && d.from.conn.Worker() == l.w {
			d.from.conn.Marked = is
		}
	}
	for _, n := range l.fresh {
		n.s.conn.Marked = is
	}
}

// since is the seq up to which s gets nothing.
func (l *local) since(s *session) uint64 {
	for _, n := range l.fresh {
		if n.s == s {
			return n.since
		}
	}
	return 0
}
