package hub

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// session is who is behind a connection, and where: the loop.Handler of it. It is owned by the connection's worker, but
// for what is static.
type session struct {
	// Static after Opened; id, self and since after the welcome, from when on others find it by its id.
	hub  *Hub
	conn *loop.Conn
	id   ID
	self *self // nil for most

	rooms []membership
	all   int32  // index among everyone on its worker, -1 before the welcome
	since uint32 // when the session began, in Unix seconds: it outlives connections. Here for the sake of 80 bytes in all
	more  *more  // nil for most
}

// self is what a session began with, where that was more than a connection.
type self struct {
	dialect dialect
	user    string
	who     *auth.Identity // nil where there is no more to it than the name. The worker's
	addr    netip.Addr     // where the server bounds what one address may take
	resume  *resumption    // nil for one that began without a token
	sits    bool           // it has one of its user's connections. The worker's
	expiry  *expiry        // nil where who doesn't expire. The worker's
}

// more is what few sessions have.
type more struct {
	text       string          // the id as text, once it was asked for
	byName     map[string]int  // index in rooms by name, made when a search would be long
	payer      *payer          // for what is kept because of it; nil while nothing was
	operations *operations     // what is under way; nil while nothing ever was
	coming     *homecoming     // what it says of its rooms before it has said all; nil else
	waited     []waitingDirect // direct messages that waited while it was parked, and are brought before what it misses of rooms
	pulls      []*pull         // rooms of which it misses something, in the order in which they are caught up with
	flow       flow
	meter      *meter    // what is left of its limits; nil where there are none, and before the first message
	placings   *placings // what is still to be done, or to be known, of the rooms of its identity; nil for most

	alarm bool // tooLate is on its way
	final bool // the session ends with its connection
}

func (s *session) extra() *more {
	if s.more == nil {
		s.more = &more{}
	}
	return s.more
}

// Identity is what the application knows of a session.
func (s *session) identity() Identity { return Identity{s.id, s.name()} }

// name is the user's, or "". Any goroutine.
func (s *session) name() string {
	if s.self == nil {
		return ""
	}
	return s.self.user
}

// addr is the client's address where the server bounds what one may take, and else none. Any goroutine.
func (s *session) addr() (none netip.Addr) {
	if s.self == nil {
		return none
	}
	return s.self.addr
}

// payer is for whom what the hub keeps because of the session is kept.
func (s *session) payer() *payer {
	m := s.extra()
	if m.payer == nil {
		m.payer = s.hub.newPayer(s.name(), s.addr())
	}
	return m.payer
}

// manyRooms is when a session gets a map of its rooms, and from when on each is counted for it: what fewer of them take
// is bounded by how many clients there are.
const (
	manyRooms      = 16
	membershipCost = 256
)

func (s *session) state() *workerState { return s.hub.workers[s.conn.Worker().Index()] }

// is notes who the session is.
func (s *self) is(who auth.Identity) {
	s.user, s.who = who.User, nil
	if who.BeyondName() {
		s.who = &who
	}
}

// Session is the loop.Handler of a new connection, that of who. addr is its address where one address may take so much
// only, and resume what its token stands for, nil for none.
func (h *Hub) Session(who Identity, addr netip.Addr, resume *Resumption) loop.Handler {
	return h.session(who.ID, auth.Identity{User: who.User}, addr, resume)
}

func (h *Hub) session(id ID, who auth.Identity, addr netip.Addr, resume *Resumption) *session {
	s := &session{hub: h, id: id, all: -1}
	if who.User != "" || who.BeyondName() || addr.IsValid() || resume != nil {
		s.self = &self{addr: addr}
		s.self.is(who)
		if resume != nil {
			s.self.resume = &resumption{of: *resume}
		}
	}
	return s
}

// Stop tells the client when to come back: spread, or all would return at once.
func (s *session) Stop(c *loop.Conn) {
	if s.all >= 0 { // nothing comes before the welcome
		after := time.Duration(rand.Int64N(s.hub.comeBack.Load()))
		s.answer(protocol.Answer{Kind: protocol.AnswerReconnect, After: after, Reason: "drain"})
	}
	c.Close(wire.CloseGoingAway, "server stops")
}

// Message decodes and obeys what is in a frame. Bad input is answered, and the connection lives on.
func (s *session) Message(_ *loop.Conn, op wire.Opcode, p []byte) {
	for {
		cmd := &s.state().cmd
		rest, err := s.speaker().Next(p, op == wire.Binary, cmd)
		s.command(cmd, p[:len(p)-len(rest)], err)
		if p = rest; len(p) == 0 || !s.conn.Open() {
			return
		}
	}
}

// command takes one command of the client, and how it was read; raw is what it was read from.
func (s *session) command(cmd *protocol.Command, raw []byte, err *protocol.Error) {
	if s.self != nil && s.self.resume != nil {
		s.heard(err == nil && cmd.Kind == protocol.Resume)
		if !s.conn.Open() {
			return // as in do
		}
	}
	if no := s.mayDoCommand(raw); no != nil {
		err = no
	}
	if err != nil {
		s.answerError(err, cmd.ID)
		return
	}
	if s.mustWait(cmd) {
		s.wait(raw)
		return
	}
	s.do(cmd, raw)
}

// do gives a command to the application's hook for its kind, or obeys it.
func (s *session) do(cmd *protocol.Command, raw []byte) {
	if s.coming() && cmd.Kind != protocol.Resume && cmd.Kind != protocol.Ping {
		s.endHomecoming() // it says no more of its rooms
	}
	if !s.conn.Open() {
		return // what waited for it found it too slow: it is in no room any more, and must get into none
	}
	ask, no := s.question(cmd, raw)
	switch {
	case no != nil:
		s.answerError(no, cmd.ID)
		return
	case ask != nil:
		if s.coming() {
			s.more.coming.asked = true
		}
		s.start(ask, raw)
		return
	}
	s.obey(cmd)
}

func (s *session) obey(cmd *protocol.Command) {
	switch cmd.Kind {
	case protocol.Chat:
		s.chat(cmd)
	case protocol.JoinRoom:
		s.joinRoom(cmd)
	case protocol.LeaveRoom:
		if i := s.find(cmd.Room); i >= 0 {
			s.leave(i)
		}
		if cmd.ID != nil {
			s.answer(protocol.Answer{Kind: protocol.AnswerLeft, Room: string(cmd.Room), ID: cmd.ID})
		}
	case protocol.RoomMessage:
		s.roomMessage(cmd)
	case protocol.DirectMessage:
		s.directMessage(cmd)
	case protocol.History:
		s.readHistory(cmd)
	case protocol.Presence:
		s.readPresence(cmd)
	case protocol.Resume:
		var limited []*protocol.Error
		if s.hub.cfg().Hooks.Join == nil { // else question has charged for them, and none is beyond a limit
			limited = s.limitedRooms(cmd)
		}
		if s.conn.Open() {
			s.resumeRooms(cmd, limited)
		}
	case protocol.Ping:
		s.answer(protocol.Answer{Kind: protocol.AnswerPong, Time: time.Now().UnixMilli(), ID: cmd.ID})
	}
}

func (s *session) chat(cmd *protocol.Command) {
	m := s.message(protocol.Chat, cmd)
	m.Place(0, 0)
	full, err := s.hub.chat(m, s)
	if err != nil {
		s.answerError(unavailable(err), cmd.ID)
		return
	}
	s.published(cmd, history.Position{}, false, full)
}

// chat sends m to all but from, or to nobody: ErrUnavailable.
func (h *Hub) chat(m *protocol.Message, from *session) (full *loop.Worker, err error) {
	r := h.everyone
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := h.tellOthers(m); err != nil {
		return nil, err
	}
	h.renew(r)
	return h.apply(r, m, from, nil), nil
}

func (s *session) directMessage(cmd *protocol.Command) {
	id, ok := ParseID(cmd.To)
	if !ok {
		s.answerError(unknownClient(cmd.To), cmd.ID)
		return
	}
	m := s.message(protocol.DirectMessage, cmd)
	m.Place(0, 0)
	full, err := s.hub.direct(id, m, s)
	if err != nil && err.Code == protocol.UnknownClient && s.hub.cluster != nil {
		s.directElsewhere(cmd, id, m)
		return
	}
	if err != nil {
		s.answerError(err, cmd.ID)
		return
	}
	s.published(cmd, history.Position{}, false, full)
}

// find is the index in rooms of the room with that name, or -1.
func (s *session) find(name []byte) int {
	if s.more != nil && s.more.byName != nil {
		if i, ok := s.more.byName[string(name)]; ok {
			return i
		}
		return -1
	}
	for i := range s.rooms {
		if s.rooms[i].local.room.name == string(name) {
			return i
		}
	}
	return -1
}

// remember keeps byName true after a join, and counts the membership where there are many.
func (s *session) remember() {
	last := len(s.rooms) - 1
	if last >= manyRooms {
		s.hub.keep(KeptMemberships, s.payer(), membershipCost)
	}
	switch {
	case s.more != nil && s.more.byName != nil:
		s.more.byName[s.rooms[last].local.room.name] = last
	case last >= manyRooms:
		s.more.byName = make(map[string]int, 2*manyRooms)
		for i, m := range s.rooms {
			s.more.byName[m.local.room.name] = i
		}
	}
}

// leave takes the session out of the room at index i; the last one moves there.
func (s *session) leave(i int) {
	m := s.rooms[i]
	last := len(s.rooms) - 1
	s.rooms[i] = s.rooms[last]
	s.rooms[last] = membership{}
	s.rooms = s.rooms[:last]
	if s.more != nil {
		if last >= manyRooms {
			s.hub.keep(KeptMemberships, s.more.payer, -membershipCost)
		}
		if s.more.byName != nil {
			delete(s.more.byName, m.local.room.name)
			if i < last {
				s.more.byName[s.rooms[i].local.room.name] = i
			}
		}
		if s.more.placings != nil {
			s.more.placings.forget(m.local)
		}
		of := func(p *pull) bool { return p.local == m.local }
		s.more.pulls = slices.DeleteFunc(s.more.pulls, of)
		if c := s.more.coming; c != nil { // the application takes it out
			c.pulls = slices.DeleteFunc(c.pulls, of)
			c.quiet = slices.DeleteFunc(c.quiet, func(l *local) bool { return l == m.local })
		}
	}
	s.hub.leaveRoom(s, m)
}

// place is where the session keeps its index in l.members. It is a member of l.
func (s *session) place(l *local) *int32 {
	if l.room == s.hub.everyone {
		return &s.all
	}
	return &s.membership(l).at
}

// membership is that of the session in a room whose local it is in.
func (s *session) membership(l *local) *membership {
	if s.more != nil && s.more.byName != nil {
		return &s.rooms[s.more.byName[l.room.name]]
	}
	for i := range s.rooms {
		if s.rooms[i].local == l {
			return &s.rooms[i]
		}
	}
	panic("hub: no member of " + l.room.name)
}

// idText is the id as text, which all that the client publishes shares. From the welcome on.
func (s *session) idText() string {
	m := s.extra()
	if m.text == "" {
		m.text = s.id.String()
	}
	return m.text
}

// message is what the client publishes by cmd. It has no place yet.
func (s *session) message(kind protocol.Kind, cmd *protocol.Command) *protocol.Message {
	m := &protocol.Message{Kind: kind, From: s.idText(), User: s.name(), Time: time.Now().UnixMilli()}
	n := len(cmd.Content)
	both := append(append(make([]byte, 0, n+len(cmd.Key)), cmd.Content...), cmd.Key...)
	m.Content = both[:n:n]
	if cmd.Key != nil {
		m.Key = both[n:]
	}
	return m
}

func (s *session) answerError(e *protocol.Error, id []byte) {
	s.state().errors.count(e.Code)
	s.answer(protocol.Answer{Kind: protocol.AnswerError, Err: e, ID: id, After: e.After})
}

// Drained goes on with what the session is missing.
func (s *session) Drained(c *loop.Conn) {
	if s.more != nil && (len(s.more.waited)+len(s.more.pulls)+len(s.more.flow.lags) > 0 || s.naming()) {
		c.Worker().Post(&pulling{s}, 0) // in a later turn: the others come first
	}
}

// Echo is the loop.Handler that sends every message back as it came. It stops reading rather than queue.
type Echo struct{ loop.Plain }

// Opened has the loop read only while nothing is unsent.
func (Echo) Opened(c *loop.Conn) { c.HoldReads = true }

// Message sends p back.
func (Echo) Message(c *loop.Conn, op wire.Opcode, p []byte) { c.Answer(op, p) }

// Closed has nothing to do.
func (Echo) Closed(*loop.Conn, loop.Ending) {}

// Drained isn't called.
func (Echo) Drained(*loop.Conn) {}

// Stop closes with 1001.
func (Echo) Stop(c *loop.Conn) { c.Close(wire.CloseGoingAway, "server stops") }
