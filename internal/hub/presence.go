package hub

import (
	"strconv"
	"time"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/presence"
	"example.com/hubbub/internal/protocol"
)

// memberLimits are what one message about members holds at most. With the room and the id it stays under 64 KiB.
var memberLimits = presence.Limits{Members: 1000, Bytes: 62 << 10, Size: memberSize}

// memberSize is what a member takes in a message; its name counts for the most that it may take when it is escaped.
func memberSize(m protocol.Member) int {
	const frame = len(`{"client_id":"","user":"","data":},`) + idLen
	return frame + 6*len(m.User) + len(m.Data)
}

// roomPresence is who is in a room whose policy is full, on all workers, and when its members are told. Guarded by the
// room's mu.
type roomPresence struct {
	presence.Room[*payer]
	timer *time.Timer // nil until there were news
	runs  bool        // the timer does: there are news

	together *together // nil where the hub is alone
}

// noteJoined notes that who became a member of r, or is one again if the room counted it already, and gives how many
// bytes of data the room keeps for it: at most protocol.MaxData. s is its session, or nil when that is parked and p pays
// for it. r.mu is held; the goroutine of s's worker.
func (h *Hub) noteJoined(r *room, of Identity, s *session, p *payer, data []byte, counted bool) (kept int) {
	if !counted {
		h.tellJoined(r, of, s, p, data)
	}
	if r.policy().Presence != PresenceFull {
		return 0 // there is nobody to show the data to
	}
	h.presenceOf(r).comesBack(of.ID)
	who := protocol.Member{ClientID: of.ID.String(), User: of.User, Data: data}
	if counted {
		if was, here := r.presence.FindOwn(who.ClientID); here && (s == nil || s.shows(nil) == nil) {
			return len(was.Data)
		}
	}
	version := uint16(0)
	if s != nil {
		p, version = s.payer(), uint16(s.gen())
	}
	h.set(r, who, version, true, p)
	return len(data)
}

// noteLeft notes that who is no member of r any more; s is its session, or nil when that was lost and p paid for it.
// r.mu is held.
func (h *Hub) noteLeft(r *room, who Identity, s *session, p *payer) {
	h.tellLeft(r, who, s, p)
	if r.presence != nil {
		h.set(r, protocol.Member{ClientID: who.ID.String()}, 0, false, nil)
		if r.members == 0 && r.presence.together != nil {
			h.tellNodesNow(r) // the room may be removed
		}
	}
}

// set has who be here, for which p pays, or not any more; the others hear of it in time. Where a client has moved from
// another node its version is a higher one. r.mu is held.
func (h *Hub) set(r *room, who protocol.Member, version uint16, here bool, p *payer) {
	now := clock()
	more := r.presence.SetVersion(presence.Entry{Member: who, Version: version}, here, p, now)
	h.keep(KeptPresence, more.Payer, more.Bytes)
	h.tellLater(r, now)
	h.toNodes(r)
}

// tellLater has the news told when they are due. r.mu is held.
func (h *Hub) tellLater(r *room, now int64) {
	p := r.presence
	due, any := p.Due()
	if !any || p.runs {
		return
	}
	p.runs = true
	wait := time.Duration(due-now) * time.Millisecond
	if p.timer == nil {
		p.timer = time.AfterFunc(wait, func() { h.tell(r) })
		return
	}
	p.timer.Reset(wait)
}

// stopping says that Stop was called. Any goroutine.
func (h *Hub) stopping() bool {
	select {
	case <-h.stop:
		return true
	default:
		return false
	}
}

// tell tells the members who came and who left. The timer's goroutine.
func (h *Hub) tell(r *room) {
	defer h.recovered("telling a room's news of members")
	r.mu.Lock()
	defer r.mu.Unlock()
	p, now := r.presence, clock()
	if p == nil || h.stopping() {
		return
	}
	p.runs = false
	if r.full() != nil { // then it waits until the workers keep up
		p.PutOff(now)
	} else {
		joined, left, freed := p.News(now, memberLimits)
		for _, c := range freed {
			h.keep(KeptPresence, c.Payer, -c.Bytes)
		}
		r.announceNews(joined, left)
	}
	h.tellLater(r, now)
}

// announceNews tells the members who has joined, and then who has left. r.mu is held.
func (r *room) announceNews(joined, left []protocol.Member) {
	n := r.presence.Count()
	if len(joined) > 0 {
		var but ID // who is alone in the message knows it
		if len(joined) == 1 {
			but, _ = ParseID([]byte(joined[0].ClientID))
		}
		r.announce(&protocol.Answer{Kind: protocol.AnswerMemberJoined, Room: r.name, Count: int64(n + len(left)), Members: joined}, but)
	}
	if len(left) > 0 {
		r.announce(&protocol.Answer{Kind: protocol.AnswerMemberLeft, Room: r.name, Count: int64(n), Members: left}, ID{})
	}
}

// dropPresence forgets the presence of a room that is removed. r.mu is held.
func (h *Hub) dropPresence(r *room) {
	p := r.presence
	if p == nil {
		return
	}
	h.dropTogether(r)
	r.presence = nil
	if p.timer != nil {
		p.timer.Stop()
	}
	for c := range p.Kept() {
		h.keep(KeptPresence, c.Payer, -c.Bytes)
	}
}

// announce sends news of members to all of them but one, in its place among the room's messages. It has no offset and
// is in no history: who comes later asks who is here. r.mu is held.
func (r *room) announce(news *protocol.Answer, but ID) {
	x := &shared{answer: news}
	cost := 0
	for _, m := range news.Members {
		cost += memberSize(m)
	}
	for _, l := range r.locals {
		l.w.Post(&announcement{l, x, but}, cost)
	}
}

// announcement is a message about members on its way to those of one worker. A member who has joined since then gets it
// too, and may know it already: what it says is true of the members as of then, and what follows makes it true again.
// One that is still coming home asks who is here when it has come.
type announcement struct {
	local *local
	*shared
	but ID
}

func (a *announcement) Run(*loop.Worker) {
	l := a.local
	f := a.frame(l)
	if f == nil {
		return
	}
	for i := len(l.members) - 1; i >= 0; i-- { // backwards, as deliver does
		if m := l.members[i]; m.s.id != a.but && !m.s.coming() {
			l.send(m, f)
		}
	}
}

// readPresence answers the message presence.
func (s *session) readPresence(cmd *protocol.Command) {
	h := s.hub
	name := string(cmd.Room)
	policy := h.cfg().Policies.For(name)
	if policy.Presence == PresenceOff {
		s.answerError(&protocol.Error{Code: protocol.Forbidden, Message: "the room does not tell who is in it"}, cmd.ID)
		return
	}
	if cmd.ID == nil {
		return // nobody waits for the answer
	}
	if h.cluster != nil {
		s.askPresence(cmd)
		return
	}
	here, count := h.whoIsHere(name)
	s.answerPresence(cmd.ID, name, here, count)
}

func (s *session) answerPresence(id []byte, name string, here []protocol.Member, count int) {
	if s.hub.cfg().Policies.For(name).Presence == PresenceFull && here == nil {
		here = []protocol.Member{}
	}
	s.answer(protocol.Answer{Kind: protocol.AnswerPresence, ID: id, Room: name, Count: int64(count), Members: here, More: len(here) < count})
}

// askPresence is readPresence where there may be members on other nodes.
func (s *session) askPresence(cmd *protocol.Command) {
	h, name := s.hub, string(cmd.Room)
	o := s.ask(cmd, operation{room: name})
	if h.whenKnown(name, func(err error) {
		o.end(func() {
			if err != nil {
				s.answerError(unavailable(err), o.id)
				return
			}
			here, count := h.whoIsHere(name)
			s.answerPresence(o.id, name, here, count)
		})
	}) {
		return
	}
	h.elsewhere(name, func(e elsewhere, err error) {
		o.end(func() {
			if err != nil {
				s.answerError(unavailable(err), o.id)
				return
			}
			here, _ := joinMembers(e.members, memberLimits)
			s.answerPresence(o.id, name, here, h.membersOf(name)+e.count)
		})
	})
}

// whenKnown calls known when this node knows all members of a room, at once or later; false says that it doesn't keep
// itself informed: it hears nothing of the room, and has no members there, or knows only how many it has itself.
func (h *Hub) whenKnown(name string, known func(error)) bool {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[name]
	if r == nil || r.presence == nil || !r.remote.topic.ready {
		return false
	}
	h.whenSettled(r, known)
	return true
}

// membersOf is how many members of a room are here.
func (h *Hub) membersOf(name string) int {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if r := sh.rooms[name]; r != nil {
		return r.members
	}
	return 0
}

// whoIsHere is how many are in the room, and where it keeps that who they are, as many as one message holds.
func (h *Hub) whoIsHere(name string) (members []protocol.Member, count int) {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[name]
	if r == nil {
		return nil, 0
	}
	if r.presence == nil {
		return nil, r.members
	}
	return r.presence.List(memberLimits), r.presence.Count()
}

// limitOfData holds a join against what presence and hooks keep for each client.
func (s *session) limitOfData(cmd *protocol.Command) *protocol.Error {
	if data := s.shows(cmd.Data); data != nil && s.hub.cfg().Policies.For(string(cmd.Room)).Presence == PresenceFull {
		all, most := len(data), s.hub.cfg().MaxMessageBytes
		for i := range s.rooms {
			all += int(s.rooms[i].data)
		}
		if all > most && s.shows(nil) == nil {
			return &protocol.Error{Code: protocol.LimitReached, Message: "a client's data, in all its rooms together, may have so many bytes at most: " + strconv.Itoa(most)}
		}
		if s.hub.loop.Overloaded() {
			return &protocol.Error{Code: protocol.Overloaded, Message: "the server can't keep more data"}
		}
		if !s.payer().may(presence.MemberCost + int64(len(s.name())+len(data))) {
			return tooMuch(protocol.LimitReached, "its data in rooms")
		}
	}
	return s.mayBeHooked()
}
