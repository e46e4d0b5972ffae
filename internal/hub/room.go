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
	newest  uint64 // the largest since among those who ever joined
}

// member is a session's place in a room; membership is its counterpart in the session. Each knows the other's
// index, so that both can be taken out without a search.
type member struct {
	s     *session
	since uint64 // the room's seq at the join: what was posted up to then is not for this member
	at    int32  // index in s.rooms
}

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
	l.add(s, since)
}

// localFor finds or makes the room's local of s's worker. r.mu is held.
func (r *room) localFor(s *session) *local {
	w := s.conn.Worker()
	for _, l := range r.locals {
		if l.w == w {
			return l
		}
	}
	l := &local{room: r, w: w, state: s.state()}
	r.locals = append(r.locals, l)
	return l
}

func (l *local) add(s *session, since uint64) {
	l.newest = max(l.newest, since)
	l.members = append(l.members, member{s, since, int32(len(s.rooms))})
	s.rooms = append(s.rooms, membership{l, int32(len(l.members) - 1)})
}

// remove takes the membership s.rooms[i] out of both lists; the last of each moves into the hole.
func (l *local) remove(s *session, i int) {
	at := s.rooms[i].at
	last := len(l.members) - 1
	if moved := l.members[last]; int(at) != last {
		l.members[at] = moved
		moved.s.rooms[moved.at].at = at
	}
	l.members[last] = member{}
	l.members = l.members[:last]

	end := len(s.rooms) - 1
	if moved := s.rooms[end]; i != end {
		s.rooms[i] = moved
		moved.local.members[moved.at].at = int32(i)
	}
	s.rooms[end] = membership{}
	s.rooms = s.rooms[:end]
}

// leave ends the membership s.rooms[i]. The goroutine of s's worker.
func (h *Hub) leave(s *session, i int) {
	l := s.rooms[i].local
	l.remove(s, i)
	r := l.room
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members--
	if len(l.members) == 0 && r != h.everyone {
		// A delivery that is still on its way to l finds nobody there.
		r.locals = slices.DeleteFunc(r.locals, func(o *local) bool { return o == l })
		if r.members == 0 {
			delete(h.roomShard(r.name).rooms, r.name)
		}
	}
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

// maxRun bounds the frames that are joined into one.
const maxRun = 32 << 10 // bytes

// Run delivers this message, and those to the same members right behind it in the mailbox, in one walk over them.
func (d *delivery) Run(w *loop.Worker) {
	l := d.local
	run := append(l.state.run[:0], d)
	for size := d.frame.Len(); size < maxRun; {
		next, ok := w.Peek().(*delivery)
		if !ok || next.local != l {
			break
		}
		size += next.frame.Len()
		run = append(run, next)
		w.Skip()
	}
	l.deliver(run)
	clear(run)
	l.state.run = run[:0]
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
		if d.from != nil && d.from.conn.Worker() == l.w {
			d.from.apart = true
		}
	}
	all := loop.Join(frames)
	fresh := l.newest >= run[0].seq
	// Backwards: a send may find the client too slow, which takes that member out, and the last moves in its place.
	for i := len(l.members) - 1; i >= 0; i-- {
		m := &l.members[i]
		if !m.s.apart && (!fresh || m.since < run[0].seq) {
			m.s.conn.Send(all)
			continue
		}
		s, since := m.s, m.since
		for _, d := range run {
			if d.from != s && since < d.seq {
				s.conn.Send(d.frame)
			}
		}
	}
	for _, d := range run {
		if d.from != nil && d.from.conn.Worker() == l.w {
			d.from.apart = false
		}
	}
	clear(frames)
	l.state.frames = frames[:0]
}
