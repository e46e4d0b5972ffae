package hub

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// What one message about members holds at most; a name counts for the most that it may take when it is escaped.
const (
	rollMembers = 1000
	rollBytes   = 62 << 10 // of members; with the room and the id it stays under 64 KiB
)

// News of members are collected for a millisecond for each of them, within these bounds: more of them make more news,
// and each message goes to more.
const (
	newsDelay    = 100 * time.Millisecond
	newsDelayMax = time.Second
)

// occupantCost is what an occupant counts for, for --max-buffered-bytes, beside its user and its data.
const occupantCost = 256

// presence is who is in a room whose policy is full, on all workers, and what its members are not told yet. Guarded by
// the room's mu.
type presence struct {
	all   map[ID]*occupant // who is here, and who is gone but not yet told to be
	here  []*occupant      // in no order
	news  []*occupant      // who may have to be told of, oldest first
	asked uint64           // how often somebody was told who is here
	timer *time.Timer      // runs while there are news; nil until there were any
}

// occupant is a client in a room, and what the room's members know of it. Told is what the messages so far amount to;
// when it equals here again before the next one, nobody need hear of what was between, unless somebody asked then.
type occupant struct {
	protocol.Member
	id     ID
	payer  *payer
	at     int // index in presence.here
	here   bool
	told   bool
	stale  bool   // somebody may know other than told
	queued bool   // it is in news
	asked  uint64 // presence.asked when here changed last
}

func (o *occupant) cost() int64 { return occupantCost + int64(len(o.User)+len(o.Data)) }

// arrive notes that s became a member of r, or is one again if the room counted it already, and gives how many bytes of
// data the room keeps for it. r.mu is held; the goroutine of s's worker.
func (h *Hub) arrive(r *room, s *session, data []byte, counted bool) (kept int) {
	if !counted {
		h.hookJoined(r, s)
	}
	if r.policy.Presence != PresenceFull {
		return 0 // there is nobody to show the data to
	}
	p := r.presence
	if p == nil {
		p = &presence{all: map[ID]*occupant{}}
		r.presence = p
	}
	o := p.all[s.id]
	if counted && o != nil {
		return len(o.Data)
	}
	if o == nil {
		o = &occupant{Member: protocol.Member{ClientID: s.id.String()}, id: s.id, payer: s.payer(), asked: p.asked}
		p.all[s.id] = o
		h.keep(KeptPresence, o.payer, o.cost())
	}
	if o.User != s.name() || !bytes.Equal(o.Data, data) {
		before := o.cost()
		o.User, o.Data = s.name(), bytes.Clone(data)
		h.keep(KeptPresence, o.payer, o.cost()-before)
		o.stale = o.stale || o.told
	}
	h.set(r, o, true)
	return len(data)
}

// part notes that who is no member of r any more; s is its session, or nil when that was lost and p paid for it. r.mu is
// held.
func (h *Hub) part(r *room, who Identity, s *session, p *payer) {
	h.hookLeft(r, who, s, p)
	if r.presence == nil {
		return
	}
	if o := r.presence.all[who.ID]; o != nil {
		h.set(r, o, false)
	}
}

// set has o be here, or not any more, and the others hear of it in time: of many that come and go at once together. To set
// what is so already changes nothing. r.mu is held.
func (h *Hub) set(r *room, o *occupant, here bool) {
	if o.here == here {
		return
	}
	p := r.presence
	if o.here != o.told && o.asked != p.asked {
		o.stale = true // somebody was told what turns out to be not worth telling
	}
	o.asked = p.asked
	if o.here = here; here {
		o.at = len(p.here)
		p.here = append(p.here, o)
	} else {
		last := len(p.here) - 1
		p.here[o.at] = p.here[last]
		p.here[o.at].at = o.at
		p.here[last] = nil
		p.here = p.here[:last]
	}
	if o.queued {
		return
	}
	o.queued = true
	p.news = append(p.news, o)
	if len(p.news) == 1 {
		h.tellLater(r)
	}
}

// tellLater has the news told when enough of them may have come together. r.mu is held.
func (h *Hub) tellLater(r *room) {
	p := r.presence
	wait := min(max(time.Duration(len(p.here))*time.Millisecond, newsDelay), newsDelayMax)
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
	p := r.presence
	if p == nil || h.stopping() {
		return
	}
	if !r.full() { // else it waits until the workers keep up
		joined, left := h.takeNews(p)
		n := len(p.here)
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
	if len(p.news) > 0 {
		h.tellLater(r)
	}
}

// takeNews takes the oldest news, as many as two messages hold: first of those who joined, then of those who left. Who
// came and went meanwhile is in both if somebody was told of it, and else in none.
func (h *Hub) takeNews(p *presence) (joined, left []protocol.Member) {
	var in, out roll
	n := 0
	for _, o := range p.news {
		comes := o.here && (!o.told || o.stale) || !o.here && !o.told && o.stale
		goes := !o.here && (o.told || o.stale)
		if comes && !in.fits(o) || goes && !out.fits(o) {
			break
		}
		if comes {
			in.add(o)
		}
		if goes {
			out.add(o)
		}
		o.told, o.stale, o.queued = o.here, false, false
		if !o.here {
			delete(p.all, o.id)
			h.keep(KeptPresence, o.payer, -o.cost())
		}
		n++
	}
	p.news = slices.Delete(p.news, 0, n)
	if len(p.news) == 0 {
		p.news = nil
	}
	return in.members, out.members
}

// roll is the members of one message.
type roll struct {
	members []protocol.Member
	bytes   int
}

// memberSize is how many bytes a member takes in a message at most.
func memberSize(user string, data []byte) int {
	const frame = len(`{"client_id":"","user":"","data":},`) + 36
	return frame + 6*len(user) + len(data)
}

func (l *roll) fits(o *occupant) bool {
	return len(l.members) < rollMembers && l.bytes+memberSize(o.User, o.Data) <= rollBytes
}

func (l *roll) add(o *occupant) {
	l.members = append(l.members, o.Member)
	l.bytes += memberSize(o.User, o.Data)
}

// dropPresence forgets the presence of a room that is removed. r.mu is held.
func (h *Hub) dropPresence(r *room) {
	p := r.presence
	if p == nil {
		return
	}
	r.presence = nil
	if p.timer != nil {
		p.timer.Stop()
	}
	for _, o := range p.all {
		h.keep(KeptPresence, o.payer, -o.cost())
	}
}

// announce sends news of members to all of them but one, in its place among the room's messages. It has no offset and is in
// no history: who comes later asks who is here. r.mu is held.
func (r *room) announce(news *protocol.Answer, but ID) {
	x := &shared{answer: news}
	cost := 0
	for _, m := range news.Members {
		cost += memberSize(m.User, m.Data)
	}
	for _, l := range r.locals {
		l.w.Post(&announcement{l, x, but}, cost)
	}
}

// announcement is a message about members on its way to those of one worker. A member who has joined since then gets it
// too, and may know it already: what it says is true of the members as of then, and what follows makes it true again. One
// that is still coming home asks who is here when it has come.
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
	policy := h.cfg.Policies.For(name)
	if policy.Presence == PresenceOff {
		s.answerError(&protocol.Error{Code: protocol.Forbidden, Message: "the room does not tell who is in it"}, cmd.ID)
		return
	}
	if cmd.ID == nil {
		return // nobody waits for the answer
	}
	here, count := h.whoIsHere(name)
	if policy.Presence == PresenceFull && here == nil {
		here = []protocol.Member{}
	}
	s.answer(protocol.Answer{Kind: protocol.AnswerPresence, ID: cmd.ID, Room: name, Count: int64(count), Members: here, More: len(here) < count})
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
	var here roll
	if p := r.presence; p != nil {
		p.asked++
		for _, o := range p.here {
			if !here.fits(o) {
				break
			}
			here.add(o)
		}
	}
	return here.members, r.members
}

// mayEnter holds a join against what presence and hooks keep for each client.
func (s *session) mayEnter(cmd *protocol.Command) *protocol.Error {
	if cmd.Data != nil && s.hub.cfg.Policies.For(string(cmd.Room)).Presence == PresenceFull {
		all, most := len(cmd.Data), s.hub.cfg.MaxMessageBytes
		for i := range s.rooms {
			all += int(s.rooms[i].data)
		}
		if all > most {
			return &protocol.Error{Code: protocol.LimitReached, Message: "a client's data, in all its rooms together, may have so many bytes at most: " + strconv.Itoa(most)}
		}
		if s.hub.loop.Overloaded() {
			return &protocol.Error{Code: protocol.Overloaded, Message: "the server can't keep more data"}
		}
		if !s.payer().may(occupantCost + int64(len(s.name())+len(cmd.Data))) {
			return tooMuch(protocol.LimitReached, "its data in rooms")
		}
	}
	return s.mayBeHooked()
}
