package hub

import (
	"maps"
	"slices"
	"time"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// parked is a session whose connection was lost. Until it is resumed, or its time is up, its rooms count it as a member
// and what is sent to it alone waits. Guarded by its clientShard's mu, but for what is static, and for rooms, which are
// its claimer's while there is one.
type parked struct {
	// Static.
	id    ID
	user  string
	payer *payer
	since uint32 // as the session's

	rooms   []parkedRoom
	gen     uint32   // of the newest token
	oldest  uint32   // that counts as well: nothing has come over the connections that got those behind it
	by      *session // whose client has claimed it and not yet said what it had
	code    int      // with which its connection ended
	until   int64    // the hub's clock; moot while by is set
	directs []waitingDirect
	cost    int64 // what the ledger counts for it
	unsent  int   // bytes of directs
	held    int   // of these, what another node held while the session was on its way
}

// parkedRoom is a room that counts a session which is parked, or is coming home and has not named it yet.
type parkedRoom struct {
	*room
	put bool // as the membership's
}

// waitingDirect is a direct message that waits for a parked session; who sent it pays.
type waitingDirect struct {
	message *protocol.Message
	payer   *payer
}

const (
	parkedCost     = 512            // what a parked session counts for
	parkedRoomCost = 64             // and each of its rooms
	maxDirects     = 64 << 10       // bytes that wait for a parked session
	maxHeld        = 2 * maxDirects // and of what other nodes held for it: all that the one before had, its own part and that of the one before that
	resumeWithin   = 10 * time.Second
	tokenLife      = 30 * 24 * time.Hour // far beyond any window: that the session is still here is what counts
)

// parking is when a parked session's time is up. It is stale when that has changed, or the session is here again; then
// it must not keep what was parked.
type parking struct {
	id    ID
	until int64
}

// staleParkings is how many a shard keeps beside as many as it has parked sessions: a client can come and go often in
// its window.
const staleParkings = 64

// parks says whether a connection that ended so leaves its session behind. A client that says good-bye by 1000, 1001 or
// without a code doesn't come back, and one that we told not to needn't. Whom we send away because the server stops
// may: its session is there until the Hub stops.
func (h *Hub) parks(e loop.Ending) bool {
	switch {
	case h.cfg().ResumeWindow == 0:
		return false
	case e.By == loop.ByPeer:
		return e.Code != wire.CloseNormal && e.Code != wire.CloseGoingAway && e.Code != wire.CloseNoStatus
	case e.By == loop.ByUs:
		return e.Code < 4500
	}
	return true
}

// park leaves the session behind: its rooms count it still. It is false where the server keeps too much for the client
// already: then its session ends with its connection.
func (s *session) park(code int) bool {
	p := s.old()
	rooms := s.unnamed(p)
	for _, m := range s.rooms {
		rooms = append(rooms, parkedRoom{m.local.room, m.put})
	}
	cost := parkedCost + parkedRoomCost*int64(len(rooms))
	back := membershipCost * int64(max(0, len(s.rooms)-manyRooms)) // which it pays for now, and then no more
	switch {
	case p != nil && s.hub.paysTooMuch(p):
		return false
	case p != nil:
	case !s.payer().may(cost - back):
		return false
	default:
		p = &parked{id: s.id, user: s.name(), payer: s.payer(), since: s.since, gen: s.gen()}
	}
	s.forgetRooms() // what can fail comes first: who is parked is in no local any more, but still counted
	s.parkAs(p, rooms, cost, code)
	return true
}

// paysTooMuch says that a session's owner, who pays for what came with it from another node, has more than its share by that, and
// other things besides. A session that wasn't resumed whole is parked again as it was: this is all that bounds how many of
// those there are.
func (h *Hub) paysTooMuch(p *parked) bool {
	sh := h.clientShard(p.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	moved := int64(0)
	for _, d := range p.directs {
		if d.payer == p.payer {
			moved += int64(d.message.Size())
		}
	}
	return moved > 0 && p.payer.over(p.cost+moved)
}

// forgetRooms takes the session out of its locals; its rooms count it still.
func (s *session) forgetRooms() {
	for len(s.rooms) > 0 {
		last := len(s.rooms) - 1
		if last >= manyRooms {
			s.hub.keep(KeptMemberships, s.more.payer, -membershipCost)
		}
		m := s.rooms[last]
		s.rooms = s.rooms[:last]
		s.hub.removeMember(m)
	}
	s.rooms = nil
	if m := s.more; m != nil {
		m.byName, m.pulls, m.coming = nil, nil, nil
	}
	if s.self != nil && s.self.resume != nil {
		s.self.resume.old = nil
	}
}

// parkAs has the session's id lead to p until its time is up.
func (s *session) parkAs(p *parked, rooms []parkedRoom, cost int64, code int) {
	h := s.hub
	sh := h.clientShard(p.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p.rooms, p.oldest, p.by, p.code = rooms, s.oldest(), nil, code
	h.keep(KeptParked, p.payer, cost-p.cost)
	p.cost = cost
	if s.more != nil && len(s.more.waited) > 0 { // its socket hasn't taken them
		p.directs, s.more.waited = s.more.waited, nil
		for _, d := range p.directs {
			p.unsent += d.message.Size()
		}
	}
	if sh.sessions[p.id] == s {
		delete(sh.sessions, p.id)
	}
	if sh.parked[p.id] != p {
		if sh.parked == nil {
			sh.parked = map[ID]*parked{}
		}
		sh.parked[p.id] = p
		h.parkedNow.Add(1)
	}
	p.until = clock() + h.cfg().ResumeWindow.Milliseconds()
	sh.order = append(sh.order, parking{p.id, p.until})
	if len(sh.order) > 2*len(sh.parked)+staleParkings {
		sh.order = slices.DeleteFunc(sh.order, func(o parking) bool { return sh.due(o) == nil })
	}
}

// due is the session whose time is up then, or nil where o is stale. mu is held.
func (sh *clientShard) due(o parking) *parked {
	if p := sh.parked[o.id]; p != nil && p.by == nil && p.until == o.until {
		return p
	}
	return nil
}

// unnamed are the rooms of p, the session that is being resumed, which the client hasn't named yet.
func (s *session) unnamed(p *parked) []parkedRoom {
	switch {
	case p == nil:
		return nil
	case s.more == nil || s.more.coming == nil:
		return p.rooms
	}
	return slices.Collect(maps.Values(s.more.coming.left))
}

// unpark takes p out of the shard, and gives what waited for it, which is kept still. The id leads to s from here on; where
// that is nil nothing is kept any more.
func (h *Hub) unpark(p *parked, s *session) (directs []waitingDirect) {
	sh := h.clientShard(p.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s == nil {
		h.unparkForGood(sh, p)
		return nil
	}
	directs, p.directs, p.unsent = p.directs, nil, 0
	h.removeParked(sh, p)
	sh.sessions[p.id] = s
	return directs
}

// bringWaited sends the session what waited for it, as fast as its socket takes that; true when that is done.
func (s *session) bringWaited() (done bool) {
	for s.more != nil && len(s.more.waited) > 0 && s.conn.Open() {
		d := s.more.waited[0]
		if unsent := s.conn.Unsent(); unsent > 0 && unsent+d.message.Size() > maxDirects {
			s.conn.TellDrained = true
			return false
		}
		s.more.waited = s.more.waited[1:]
		s.hub.keep(KeptParked, d.payer, -int64(d.message.Size()))
		s.tell(d.message)
	}
	return s.more == nil || len(s.more.waited) == 0
}

// takeParked takes the parked session of that id out of the shard, unless somebody has claimed it; nil where there is
// none.
func (h *Hub) takeParked(id ID) *parked {
	sh := h.clientShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.parked[id]
	if p == nil || p.by != nil {
		return nil
	}
	h.unparkForGood(sh, p)
	return p
}

// unparkForGood is unpark where nobody has the id from here on. mu is held.
func (h *Hub) unparkForGood(sh *clientShard, p *parked) {
	h.removeParked(sh, p)
	sh.removeFromUser(p.id, p.user)
}

// removeParked takes p out of the shard. mu is held.
func (h *Hub) removeParked(sh *clientShard, p *parked) {
	delete(sh.parked, p.id)
	h.unkeep(p)
	h.parkedNow.Add(-1)
}

// unkeep has the ledger forget what is kept for p. mu is held.
func (h *Hub) unkeep(p *parked) {
	h.keep(KeptParked, p.payer, -p.cost)
	h.unkeepDirects(p.directs)
}

func (h *Hub) unkeepDirects(directs []waitingDirect) {
	for _, d := range directs {
		h.keep(KeptParked, d.payer, -int64(d.message.Size()))
	}
}

// leaveRooms takes a session that was parked out of the rooms that it is still counted in.
func (h *Hub) leaveRooms(p *parked, rooms []parkedRoom) {
	for _, r := range rooms {
		h.memberLeftSafely(r.room, p)
	}
}

// endParked ends a session that was parked and is taken out of the shard.
func (h *Hub) endParked(p *parked, code int) {
	h.leaveRooms(p, p.rooms)
	h.payers.leave(p.payer)
	h.happened(Event{Kind: Disconnected, Client: Identity{p.id, p.user}, Code: code})
}

func (h *Hub) memberLeftSafely(r *room, p *parked) {
	defer h.recovered("leaving a room")
	h.memberLeft(r, Identity{p.id, p.user}, nil, p.payer)
}

// endDue ends the parked sessions whose time is up.
func (h *Hub) endDue(sh *clientShard, now int64) {
	for _, p := range h.takeDue(sh, now) {
		h.endParked(p, p.code)
	}
}

// takeDue takes out those whose time is up.
func (h *Hub) takeDue(sh *clientShard, now int64) (over []*parked) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	n := 0
	for ; n < len(sh.order) && sh.order[n].until <= now; n++ {
		if p := sh.due(sh.order[n]); p != nil {
			h.unparkForGood(sh, p)
			over = append(over, p)
		}
	}
	if sh.order = sh.order[n:]; len(sh.order) == 0 {
		sh.order = nil
	}
	return over
}

// direct sends a message to the client, or keeps it where its session is parked; from, nil for the application, pays.
// full is a worker that is above high water, or nil.
func (h *Hub) direct(id ID, m *protocol.Message, from *session) (full *loop.Worker, err *protocol.Error) {
	return h.directBy(id, m, from, nil, false)
}

// directBy is direct from a client of another node, where by isn't nil: that one pays. held is what another node held for
// the client, acknowledged and told tails of: what came here meanwhile is no reason to refuse it.
func (h *Hub) directBy(id ID, m *protocol.Message, from *session, by *visitor, held bool) (full *loop.Worker, err *protocol.Error) {
	sh := h.clientShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := sh.sessions[id]; s != nil {
		var p *payer
		if from != nil && h.cfg().ResumeWindow > 0 {
			p = from.payer() // it may be parked by the time that the message is there
		}
		if !held {
			h.tailDirect(m, id, s.name())
		}
		if w := s.conn.Worker(); w.Post(&direct{s, m, p, by}, m.Size()) {
			full = w
		}
		return full, nil
	}
	parked := sh.waits(id)
	if parked == nil {
		return nil, unknownClient([]byte(id.String()))
	}
	var p *payer
	if from != nil {
		p = from.payer()
	}
	if by != nil {
		p = h.visits(by)
		defer h.payers.leave(p)
	}
	if held && sh.handing(id) == nil && !parked.takesHeld(m) {
		h.endHeld(id)
		return nil, nil
	}
	if no := h.leaveDirect(parked, m, p, held); no != nil {
		return nil, no
	}
	if !held {
		h.tailDirect(m, id, parked.user)
	}
	return nil, nil
}

// waits is the session of that id for which direct messages wait, or nil. mu is held.
func (sh *clientShard) waits(id ID) *parked {
	if p := sh.parked[id]; p != nil || sh.away == nil {
		return p
	}
	if hd := sh.away.handed[id]; hd != nil {
		return hd.p
	}
	return nil
}

// leaveDirect leaves a message for a parked session. Its shard's mu is held.
func (h *Hub) leaveDirect(p *parked, m *protocol.Message, from *payer, held bool) *protocol.Error {
	if held { // its sender is another node's
		from = p.payer
	}
	switch {
	case !held && !p.takes(m):
		return &protocol.Error{Code: protocol.Overloaded, Message: "too much waits for the client, which has lost its connection"}
	case !held && !from.may(int64(m.Size())):
		return tooMuch(protocol.RateLimited, "its messages to clients that have lost their connections")
	}
	p.directs = append(p.directs, waitingDirect{m, from})
	p.unsent += m.Size()
	if held {
		p.held += m.Size()
	}
	h.keep(KeptParked, from, int64(m.Size()))
	return nil
}

// takesHeld is takes for what other nodes held for the session. Its shard's mu is held.
func (p *parked) takesHeld(m *protocol.Message) bool {
	return p.held == 0 || p.held+m.Size() <= maxHeld
}

// takes says that no more waits for the parked session than may, with one message more. Its shard's mu is held.
func (p *parked) takes(m *protocol.Message) bool {
	return p.unsent == 0 || p.unsent+m.Size() <= maxDirects
}

// takes says that the client can be sent one message more, as far as the application's go: nobody's id takes any.
func (sh *clientShard) takes(id ID, m *protocol.Message) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := sh.sessions[id]; s != nil {
		return !s.conn.Worker().Full()
	}
	p := sh.waits(id)
	return p == nil || p.takes(m)
}

// direct is a message on its way to one client.
type direct struct {
	to      *session
	message *protocol.Message
	payer   *payer
	by      *visitor // pays instead, where it isn't nil
}

func (d *direct) Conn(*loop.Worker) *loop.Conn { return d.to.conn }

func (d *direct) Run(*loop.Worker) {
	if d.to.conn.Open() {
		d.to.tell(d.message)
		return
	}
	d.goOn() // it has gone meanwhile, and may be parked or here again
}

func (d *direct) goOn() {
	h, id := d.to.hub, d.to.id
	if d.by != nil {
		d.payer = h.visits(d.by)
		defer h.payers.leave(d.payer)
	}
	sh := h.clientShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := sh.sessions[id]; s != nil {
		d.to = s
		s.conn.Worker().Post(d, d.message.Size())
	} else if p := sh.waits(id); p != nil {
		h.leaveDirect(p, d.message, d.payer, false)
	} else if sh.away != nil {
		if to, moved := sh.away.gone[id]; moved {
			h.cluster.sendHeld(to, id, []waitingDirect{{d.message, nil}})
		}
	}
}

// ParkedSessions is how many wait to be resumed. Any goroutine.
func (h *Hub) ParkedSessions() int { return int(h.parkedNow.Load()) }
