package hub

import (
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// room is one order of messages, and the workers that have members of it. It exists while it has members or history.
type room struct {
	// Static.
	name string
	mu   *sync.Mutex // its shard's; guards all that follows. A post to a mailbox is made under it, and is never waited for.

	is       atomic.Pointer[Policy] // read without mu too: see policy
	seq      uint64                 // of the message posted last: its place in the room's order on this node
	members  int
	locals   []*local
	log      history.Log[*payer] // of a room with history
	remote   *remote             // nil where this node keeps the log itself, and is alone
	presence *roomPresence       // nil unless the policy's is full and somebody was here
	active   int64               // when the last member left, or when it was published to last; the hub's clock
	due      int64               // the tick of the wheel at which tidy looks at it; 0 for none
	pace     pace
	payer    *payer // for whom it is counted; while empty
	empty    bool   // without members, and counted as such
	gone     bool   // not in the shard any more
	tells    bool   // sinks are told of what is published here
	number   uint32 // of the settings that it goes by: see Hub.renew
}

// local is a room's members on one worker who speak one dialect, and owned by that worker's goroutine.
type local struct {
	room    *room
	w       *loop.Worker
	state   *workerState
	dialect dialect
	members []member
	seen    uint64                 // seq of the message delivered last
	fresh   map[*session]uint64    // who has nothing of what was posted up to here: the room's seq at the join, or never while it catches up; nil when none
	replay  map[uint64]*loop.Frame // by offset, what members who catch up have got of the history within replayTime; nil when none does
	lags    []*lag                 // of the members who can't keep up
	run     []*delivery            // gathered, not yet delivered
}

// member is a session's place in a room. A delivery walks over many, so what it needs lies here and in the connection.
type member struct {
	conn *loop.Conn
	s    *session
}

const never = ^uint64(0)

// membership is the session's side of a member.
type membership struct {
	local *local
	at    int32  // index in local.members
	data  uint16 // bytes that the room keeps for its presence
	put   bool   // the server put it in: no join needs to be permitted, and no resume to name the room
}

type roomShard struct {
	mu     sync.Mutex
	rooms  map[string]*room
	epochs epochs
	wheel  wheel

	events map[string]*run // by room, the last hook that was queued for it
}

var seed = maphash.MakeSeed()

func (h *Hub) roomShard(name string) *roomShard {
	return &h.rooms[maphash.String(seed, name)%shards]
}

// room finds or makes the room. sh.mu is held.
func (h *Hub) room(sh *roomShard, name string) *room {
	r := sh.rooms[name]
	if r == nil {
		c := h.cfg()
		r = &room{name: name, number: c.number, tells: c.tells(name), mu: &sh.mu}
		r.is.Store(c.Policies.For(name))
		switch {
		case h.opens(name):
			r.remote = &remote{log: part{needed: r.keeps()}, topic: part{needed: h.listens(r.policy())}}
		case r.keeps():
			r.log.Begin(history.Position{Epoch: h.cfg().Epoch + sh.epochs.of(name)})
		}
		sh.rooms[name] = r
	}
	h.renew(r)
	return r
}

// policy is the room's, as of the last reload.
func (r *room) policy() *Policy { return r.is.Load() }

// joinRoom makes s a member, and begins with what it has missed.
func (s *session) joinRoom(cmd *protocol.Command) {
	i := s.find(cmd.Room)
	switch {
	case i >= 0:
		name := s.rooms[i].local.room.name // joining twice is joining once
		at, reason, behind := s.stays(i, sinceOf(cmd))
		s.answerJoined(cmd, name, at, reason)
		if behind != nil {
			s.fallBehind(behind)
		}
	case s.hub.opens(string(cmd.Room)):
		s.joinWhenOpen(cmd)
	default:
		s.join(cmd)
	}
}

func sinceOf(cmd *protocol.Command) *protocol.Position {
	if !cmd.HasSince {
		return nil
	}
	return &cmd.Since
}

// join is joinRoom for a room that s isn't in and whose position is known.
func (s *session) join(cmd *protocol.Command) {
	name := string(cmd.Room)
	at, reason, behind := s.becomeMember(name, sinceOf(cmd), cmd.Data, false)
	s.answerJoined(cmd, name, at, reason)
	if behind != nil {
		s.fallBehind(behind)
	}
}

// becomeMember makes s a member of a room that it is not in; counted says that the room counts it already, since it is
// a parked session's. With since the reason says why what has come behind it can't be brought, "" for no reason; behind
// is what the caller then has to begin with, after its answer. Where the session is still coming home (resume.go) the
// member gets nothing until that is over.
func (s *session) becomeMember(name string, since *protocol.Position, data []byte, counted bool) (at history.Position, reason string, behind *pull) {
	h := s.hub
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := h.room(sh, name)
	l := r.localFor(s)
	if !counted {
		r.members++
		h.used(r)
	}
	data = s.shows(data)
	// From here on the session leaves what it is counted in, whatever happens.
	s.rooms = append(s.rooms, membership{local: l, at: l.add(s, r.seq)})
	s.remember()
	s.rooms[len(s.rooms)-1].data = uint16(min(h.noteJoined(r, s.identity(), s, nil, data, counted), math.MaxUint16))
	h.trim(r, clock())
	at = r.position()
	if since != nil {
		reason = r.recover(since)
	}
	from := pull{local: l, seq: r.seq, offset: at.Offset, since: at.Offset}
	if since != nil && reason == "" {
		from = r.behind(l, since.Offset)
	}
	if r.keeps() && (s.coming() || from.seq < r.seq || since != nil && reason == "" && len(r.deletedSince(since.Offset)) > 0) {
		l.follow(s, never)
		return at, reason, &from
	}
	if s.coming() {
		l.follow(s, never)
		s.more.coming.quiet = append(s.more.coming.quiet, l)
	}
	return at, reason, nil
}

// stays answers a member that joins again, that of the room at index i: what came since then was sent, so only a
// position that is not behind the room's proves that nothing is missing; unless it was put in and nothing came: then
// behind is what the caller has to begin with, also where that is only what was taken back.
func (s *session) stays(i int, since *protocol.Position) (at history.Position, reason string, behind *pull) {
	l := s.rooms[i].local
	r := l.room
	r.mu.Lock()
	defer r.mu.Unlock()
	at = s.sent(l)
	if since == nil {
		return at, "", nil
	}
	if reason = r.recover(since); reason != "" {
		return at, reason, nil
	}
	misses := since.Offset < at.Offset
	if !misses && len(r.deletedSince(since.Offset)) == 0 {
		return at, "", nil
	}
	if !s.untouched(l, r.position()) {
		if misses {
			reason = protocol.ReasonExpired
		}
		return at, reason, nil
	}
	l.follow(s, never)
	from := r.behind(l, since.Offset)
	return at, "", &from
}

// sent is the position of what the member has been sent: more may be on its way, which comes behind whatever it is told
// now. r.mu is held.
func (s *session) sent(l *local) history.Position {
	log, at := &l.room.log, l.room.position()
	if i := log.After(max(l.seen, l.fresh[s])); i < log.Len() {
		at.Offset = log.At(i).Prev
	}
	if s.more != nil {
		for _, p := range s.more.pulls {
			if p.local == l {
				at.Offset = p.offset
			}
		}
	}
	if first := s.lag(l).firstOffset(); first != 0 {
		at.Offset = log.Floor()
		if e := log.Find(first); e != nil {
			at.Offset = e.Prev
		}
	}
	return at
}

func (s *session) answerJoined(cmd *protocol.Command, room string, at history.Position, reason string) {
	if cmd.ID != nil {
		s.answer(protocol.Answer{Kind: protocol.AnswerJoined, Room: room, ID: cmd.ID, Epoch: at.Epoch, Offset: at.Offset,
			Since: cmd.HasSince, Recovered: reason == "", Reason: reason})
	}
}

// localFor finds or makes the room's local of s's worker and dialect. r.mu is held.
func (r *room) localFor(s *session) *local {
	w, d := s.conn.Worker(), s.dialect()
	for _, l := range r.locals {
		if l.w == w && l.dialect == d {
			return l
		}
	}
	l := &local{room: r, w: w, state: s.state(), dialect: d, seen: r.seq}
	r.locals = append(r.locals, l)
	return l
}

// add appends s to the members and returns its index.
func (l *local) add(s *session, since uint64) int32 {
	l.follow(s, since)
	l.members = append(l.members, member{s.conn, s})
	return int32(len(l.members) - 1)
}

// follow lets a newcomer have what is posted from since on.
func (l *local) follow(s *session, since uint64) {
	if l.seen >= since {
		l.forgetNewcomer(s)
		return
	}
	if l.fresh == nil {
		l.fresh = map[*session]uint64{}
	}
	l.fresh[s] = since
}

// forgetNewcomer forgets that s is a newcomer.
func (l *local) forgetNewcomer(s *session) {
	if delete(l.fresh, s); len(l.fresh) == 0 {
		l.fresh, l.replay = nil, nil
	}
}

// remove takes out the member at index at; the last one moves there.
func (l *local) remove(at int32) {
	s := l.members[at].s
	if len(l.lags) > 0 {
		if g := s.lag(l); g != nil {
			g.end()
		}
	}
	last := len(l.members) - 1
	if moved := l.members[last]; int(at) != last {
		l.members[at] = moved
		*moved.s.place(l) = at
	}
	l.members[last] = member{}
	l.members = l.members[:last]
	l.forgetNewcomer(s)
}

// leaveRoom ends a membership of s. The goroutine of s's worker.
func (h *Hub) leaveRoom(s *session, m membership) {
	h.removeMember(m)
	h.memberLeft(m.local.room, s.identity(), s, nil)
}

// removeMember takes a session's member away; the room counts it still. The goroutine of the session's worker.
func (h *Hub) removeMember(m membership) {
	l := m.local
	l.remove(m.at)
	if len(l.members) > 0 {
		return
	}
	r := l.room
	r.mu.Lock()
	defer r.mu.Unlock()
	// A delivery that is still on its way to l finds nobody there.
	r.locals = slices.DeleteFunc(r.locals, func(o *local) bool { return o == l })
}

// memberLeft is called when a session is a member no more: s, or one that was parked and that p paid for. An empty room
// that is left is kept for whoever left it last.
func (h *Hub) memberLeft(r *room, who Identity, s *session, p *payer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.memberLeftLocked(r, who, s, p)
}

func (h *Hub) memberLeftLocked(r *room, who Identity, s *session, p *payer) {
	r.members--
	r.active = clock()
	if r.members == 0 && s != nil && r.stay() > 0 {
		p = s.payer()
	}
	defer h.unused(r, p) // also where a hook or the presence fails
	h.noteLeft(r, who, s, p)
}

// leaveEveryone takes s out of everyone. The goroutine of s's worker.
func (h *Hub) leaveEveryone(s *session) {
	s.everyone().remove(s.all)
	s.all = -1
	h.everyone.mu.Lock()
	defer h.everyone.mu.Unlock()
	h.everyone.members--
}
