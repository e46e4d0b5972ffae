package hub

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// resumption is what a session that began with a token goes through.
type resumption struct {
	of     Resumption  // static
	old    *parked     // while it waits for the message resume. The worker's
	heard  atomic.Bool // a message has come; set by the worker
	oldest uint32      // the oldest token that counts until then. Static after the welcome, as is newest
	newest uint32      // the generation of the token that it gave the client; 0 where no session was resumed

	readmission
}

// homecoming is what a session has said of its rooms before it has said all. Until then it gets nothing of any of them.
// Owned by the session's worker.
type homecoming struct {
	left  map[string]parkedRoom // that count the session still and that it has not named; empty where no session was resumed
	pulls []*pull               // of rooms that it has named, begun when all are
	quiet []*local              // of those without history, live from then on
	until int64                 // when the waiting for the next resume ends, by the worker's clock
	asked bool                  // a resume has come and is not answered yet, so nothing is waited for
	first bool                  // of a session that was resumed: none has come yet
}

// good says whether a token of that generation counts.
func good(token, oldest, gen uint32) bool { return oldest <= token && token <= gen }

// Opened says welcome; where the client wants a session back that another connection has, once that is closed.
func (s *session) Opened(c *loop.Conn) {
	s.conn = c
	if s.self != nil && s.self.resume != nil {
		if rival := s.claim(); rival != nil {
			c.PauseReading()
			rival.conn.Worker().Post(&evict{s, rival}, 0)
			return
		}
	}
	s.begin()
}

// claim makes the parked session that s wants its own, if the token is good. Where another connection has it, it says
// which.
func (s *session) claim() (rival *session) {
	r := s.self.resume
	sh := s.hub.clientShard(r.of.ID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.parked[r.of.ID]
	switch {
	case p == nil:
		return sh.sessions[r.of.ID]
	case p.user != s.name() || !good(r.of.gen, p.oldest, p.gen):
		return nil
	case p.by != nil:
		return p.by
	}
	p.by, p.gen = s, p.gen+1
	r.old, r.oldest, r.newest = p, p.oldest, p.gen
	s.extra().payer = p.payer
	return nil
}

// evict closes the connection of rival, whose session s claims; then s claims it again, and goes without where that one
// is still in the way. Of several handshakes at once the one that ended last has the session in the end.
type evict struct{ s, rival *session }

func (e *evict) Conn(*loop.Worker) *loop.Conn { return e.rival.conn }

// Run is called by the rival's worker.
func (e *evict) Run(*loop.Worker) {
	defer e.s.conn.Worker().Post(&evicted{e.s, e.rival}, 0)
	if r := e.rival; r.conn.Open() && r.name() == e.s.name() && good(e.s.self.resume.of.gen, r.oldest(), r.gen()) {
		r.conn.Close(protocol.CloseTakenOver, "resumed over another connection")
	}
}

type evicted struct{ s, rival *session }

func (e *evicted) Conn(*loop.Worker) *loop.Conn { return e.s.conn }

func (e *evicted) Run(*loop.Worker) {
	s := e.s
	if !s.conn.Open() {
		return
	}
	if rival := s.claim(); rival != nil && rival != e.rival { // a third handshake came in between
		rival.conn.Worker().Post(&evict{s, rival}, 0)
		return
	}
	if s.begin() {
		s.readOn()
	}
}

// begin finds out which session it is, and welcomes the client; or that waits for the application.
func (s *session) begin() (done bool) {
	resumed := false
	if s.self != nil && s.self.resume != nil {
		if old := s.self.resume.old; old != nil {
			s.id, resumed = old.id, true
			s.self.resume.again = nil
		} else if s.readmit() { // somebody else may have the other id
			return false
		}
	}
	s.welcome(resumed)
	return true
}

// welcome has the session found by its id and by chats, and is the first that the client hears.
func (s *session) welcome(resumed bool) {
	if !s.sit() {
		return
	}
	h := s.hub
	w := h.cfg().welcome
	w.Resumed = resumed
	if s.since = uint32(time.Now().Unix()); w.Resumed {
		s.since = s.self.resume.old.since
	} else { // else it leads to what is parked, until the client has said what it had
		h.clientShard(s.id).add(s)
		h.happened(Event{Kind: Connected, Client: s.identity()})
	}
	s.all = h.joinEveryone(s)
	w.ClientID = s.id.String()
	w.User, w.Expires = s.name(), expiresAt(s.known())
	if h.cfg().ResumeWindow > 0 {
		w.ResumeToken = h.token(s.id, s.gen(), s.name())
	}
	s.answer(protocol.Answer{Kind: protocol.AnswerWelcome, Welcome: w})
	if w.Resumed {
		c := s.comeHome(s.self.resume.old.rooms)
		c.first = true
		s.await()
	}
	s.expire()
	s.joinNamed(&auth.Identity{})
}

// joinEveryone has chats reach s from now on, and gives its index among everyone on its worker.
func (h *Hub) joinEveryone(s *session) int32 {
	r := h.everyone
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members++
	l := r.localFor(s)
	s.state().everyone[s.dialect()] = l
	return l.add(s, r.seq)
}

// everyone is the local that the session is in from the welcome on.
func (s *session) everyone() *local { return s.state().everyone[s.dialect()] }

// Closed parks the session, or takes it out of every room.
func (s *session) Closed(_ *loop.Conn, e loop.Ending) {
	defer s.hooksClosed(e.Code)()
	defer s.rise()
	if s.conn == nil {
		return // it never came so far as to a connection
	}
	began := s.began()
	if s.all >= 0 {
		s.forgetExpiry()
		s.hub.leaveEveryone(s)
	}
	if began && s.hub.parks(e) && !(s.more != nil && s.more.final) && s.park(e.Code) {
		return
	}
	s.end()
	if began {
		s.hub.happened(Event{Kind: Disconnected, Client: s.identity(), Code: e.Code})
	}
}

// began says that the connection has a session: a new one, or one that it has claimed.
func (s *session) began() bool { return s.all >= 0 || s.old() != nil }

// end takes the session out of everything. What fails in one room is logged and keeps it in no other.
func (s *session) end() {
	h := s.hub
	if old := s.old(); old != nil {
		s.self.resume.old = nil
		h.unpark(old, nil)
		h.leaveRooms(old, s.unnamed(old))
	}
	for len(s.rooms) > 0 {
		s.leaveRoomSafely(len(s.rooms) - 1)
	}
	h.clientShard(s.id).remove(s)
	if s.more != nil {
		h.unkeepDirects(s.more.waited)
		s.more.waited = nil
		s.more.coming, s.more.pulls = nil, nil
		h.payers.leave(s.more.payer)
	}
}

func (s *session) leaveRoomSafely(i int) {
	defer s.hub.recovered("leaving a room")
	s.leave(i)
}

// old is the parked session of which the client hasn't said yet all that it had, or nil.
func (s *session) old() *parked {
	if s.self == nil || s.self.resume == nil {
		return nil
	}
	return s.self.resume.old
}

// oldest is the generation of the oldest token that counts: the newest alone, once a message has come over the
// connection that got it. Until then its client may never have seen the welcome, nor those of the connections before.
// Any goroutine.
func (s *session) oldest() uint32 {
	if s.self != nil && s.self.resume != nil && s.gen() != 0 && !s.self.resume.heard.Load() {
		return s.self.resume.oldest
	}
	return s.gen()
}

// gen is the generation of the token that resumes the session: static after the welcome, as oldest is. Any goroutine.
func (s *session) gen() uint32 {
	if s.self == nil || s.self.resume == nil {
		return 0
	}
	return s.self.resume.newest
}

// comeHome begins the time in which the client says what it had: rooms are those that count it already.
func (s *session) comeHome(rooms []parkedRoom) *homecoming {
	h := &homecoming{left: make(map[string]parkedRoom, len(rooms))}
	for _, r := range rooms {
		h.left[r.name] = r
	}
	s.extra().coming = h
	return h
}

// await gives the client a while to say more.
func (s *session) await() {
	c := s.more.coming
	c.asked = false
	c.until = s.conn.Worker().Now() + resumeWithin.Milliseconds()
	s.setAlarm()
}

// setAlarm has tooLate look when the time is up. One at a time is on its way, however often a client begins anew.
func (s *session) setAlarm() {
	if !s.more.alarm {
		s.more.alarm = true
		s.conn.Worker().At(s.more.coming.until, tooLate{s})
	}
}

// coming says that the client has not said yet all that it had.
func (s *session) coming() bool { return s.more != nil && s.more.coming != nil }

// tooLate ends a homecoming of which nothing more was said in time.
type tooLate struct{ s *session }

// Conn implements loop.ConnTask.
func (t tooLate) Conn(*loop.Worker) *loop.Conn { return t.s.conn }

func (t tooLate) Run(w *loop.Worker) {
	s := t.s
	s.more.alarm = false
	switch c := s.more.coming; {
	case c == nil || c.asked || !s.conn.Open():
	case w.Now() <= c.until: // another resume has come meanwhile
		s.setAlarm()
	default:
		s.endHomecoming()
	}
}

// heard is called for each message of the client, before it is obeyed: resume is what the first should be.
func (s *session) heard(resume bool) {
	s.self.resume.heard.Store(true)
	if !s.coming() || !s.more.coming.first {
		return
	}
	if s.more.coming.first = false; !resume {
		s.endHomecoming()
	}
}

// endHomecoming ends the homecoming: rooms that the client has not named are left, but for those that the server put it
// into, which it may not know of; what was missed and what is new begins.
func (s *session) endHomecoming() {
	c, old := s.more.coming, s.old()
	s.more.coming = nil
	if old != nil {
		s.self.resume.old = nil
		s.more.waited = s.hub.unpark(old, s)
		s.hub.leaveRooms(old, slices.DeleteFunc(slices.Collect(maps.Values(c.left)), func(r parkedRoom) bool { return r.put || s.named(r.name) }))
	}
	for _, l := range c.quiet {
		l.follow(s, l.room.now())
	}
	for _, joined := range s.backIn(c.left) {
		s.inform(joined)
	}
	s.bringWaited()
	for _, p := range c.pulls {
		s.fallBehind(p)
	}
}

// backIn makes the session a member of those rooms that the server has put it into, and gives what it is told of it.
func (s *session) backIn(rooms map[string]parkedRoom) (joined []protocol.Answer) {
	for name, r := range rooms {
		if !r.put && !s.named(name) {
			continue
		}
		if s.hub.unopened(r.room) {
			s.backWhenOpen(r)
		} else {
			at, _, _ := s.becomeMember(name, nil, nil, true)
			s.rooms[len(s.rooms)-1].put = r.put
			joined = append(joined, joinedByServer(name, at))
		}
	}
	return joined
}

// now is the seq of the message that was posted last.
func (r *room) now() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seq
}

// resumeRooms obeys the message resume: it answers for every room; after the last such message what was missed is
// brought, and rooms that none has named are left. Where no session was resumed the rooms are joined. refused is what
// the application's hook said of each, nil where none was asked.
func (s *session) resumeRooms(cmd *protocol.Command, refused []*protocol.Error) {
	refused = s.forbiddenRooms(cmd, refused)
	if names := s.remoteRooms(cmd, refused); len(names) > 0 {
		s.resumeWhenOpen(cmd, refused, names)
		return
	}
	s.resume(cmd, refused)
}

// resume is resumeRooms for rooms whose positions are known.
func (s *session) resume(cmd *protocol.Command, refused []*protocol.Error) {
	if !s.coming() {
		s.comeHome(nil)
	}
	c := s.more.coming
	answers := make([]protocol.ResumedRoom, len(cmd.Rooms))
	for i, r := range cmd.Rooms {
		var no *protocol.Error
		if refused != nil {
			no = refused[i]
		}
		answers[i] = s.resumeRoom(&r, no)
	}
	s.answer(protocol.Answer{Kind: protocol.AnswerResumed, ID: cmd.ID, Rooms: answers})
	switch {
	case s.more.coming != c: // the answer found the client too slow
	case cmd.More:
		s.await()
	default:
		s.endHomecoming()
	}
}

// resumeRoom brings the session into one room again, unless the application said no.
func (s *session) resumeRoom(at *protocol.RoomPosition, no *protocol.Error) (answer protocol.ResumedRoom) {
	answer.Room = string(at.Room)
	c := s.more.coming
	was, counted := c.left[answer.Room]
	member := s.find(at.Room)
	if no == nil && member < 0 && !counted {
		no = s.limitOfRooms(len(c.left))
	}
	if no != nil {
		if answer.Reason, answer.Retry = protocol.ReasonForbidden, no.Code.Retry(); answer.Retry {
			answer.Reason = no.Code.String()
		}
		return answer
	}
	var since *protocol.Position
	if at.HasAt {
		since = &at.At
	}
	var place history.Position
	var reason string
	var behind *pull
	if member >= 0 { // it has said resume before, or joined
		place, reason, behind = s.stays(member, since)
	} else {
		delete(c.left, answer.Room) // first: from here on it is s's, or nobody's
		place, reason, behind = s.becomeMember(answer.Room, since, nil, counted)
		s.rooms[len(s.rooms)-1].put = was.put
	}
	if behind != nil {
		c.pulls = append(c.pulls, behind)
	}
	if since == nil && reason == "" {
		reason = protocol.ReasonExpired // it can't be proved
		if place == (history.Position{}) {
			reason = protocol.ReasonNoHistory
		}
	}
	answer.Epoch, answer.Offset = place.Epoch, place.Offset
	answer.Recovered, answer.Reason = reason == "", reason
	return answer
}
