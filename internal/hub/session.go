package hub

import (
	"math/rand/v2"
	"strconv"
	"time"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// session is who is behind a connection and where: owned by the connection's worker, but for id, user and conn, which
// are static.
type session struct {
	hub  *Hub
	conn *loop.Conn
	id   ID
	user string // the name that a Connect hook gave it, or ""

	rooms  []membership   // rooms[0] is everyone
	byName map[string]int // index in rooms by name, made when a search would be long
	apart  bool           // it published one of the messages being delivered
	hooks  *hookQueue     // what waits for the application's code; nil while it never did
}

// manyRooms is when a session gets a map of its rooms.
const manyRooms = 16

func (s *session) state() *workerState { return s.hub.locals[s.conn.Worker().Index()] }

// Opened makes the session and says welcome.
func (h *Hub) Opened(c *loop.Conn) {
	s := &session{hub: h, conn: c}
	if who, ok := c.Data.(Identity); ok {
		s.id, s.user = who.ID, who.User
	} else {
		s.id = NewID()
	}
	c.Data = s
	h.clientShard(s.id).set(s.id, c.Ref())
	all := s.state().everyone
	h.everyone.mu.Lock()
	h.everyone.members++
	since := h.everyone.seq
	h.everyone.mu.Unlock()
	all.add(s, since)

	w := h.welcome
	w.ClientID = s.id.String()
	s.answer(protocol.AppendWelcome(s.buf(), w))
}

// Closed takes the session out of every room.
func (h *Hub) Closed(c *loop.Conn, code int) {
	s, ok := c.Data.(*session)
	if !ok {
		return // Opened did not get so far
	}
	for i := len(s.rooms) - 1; i >= 0; i-- {
		h.leave(s, i)
	}
	s.byName = nil
	h.clientShard(s.id).remove(s.id)
	s.hooksClosed(code)
}

// Stop tells the client when to come back: spread, or all would return at once.
func (h *Hub) Stop(c *loop.Conn) {
	s := c.Data.(*session)
	after := time.Duration(rand.Int64N(h.comeBack.Load()))
	s.answer(protocol.AppendReconnect(s.buf(), after, "drain"))
	c.Close(wire.CloseGoingAway, "server stops")
}

// Message decodes and obeys one message. Bad input is answered, and the connection lives on.
func (h *Hub) Message(c *loop.Conn, op wire.Opcode, p []byte) {
	s := c.Data.(*session)
	cmd := &s.state().cmd
	if op != wire.Text {
		s.answerError(&protocol.Error{Code: protocol.BinaryFrame, Message: "this protocol has text frames only"}, nil)
		return
	}
	if err := protocol.Decode(p, cmd); err != nil {
		s.answerError(err, cmd.ID)
		return
	}
	if s.mustWait(cmd) {
		s.wait(p)
		return
	}
	s.do(cmd, p)
}

// do gives a command to the application's hook for its kind, or obeys it.
func (s *session) do(cmd *protocol.Command, raw []byte) {
	if err := s.check(cmd); err != nil {
		s.answerError(err, cmd.ID)
		return
	}
	if hook := s.hookFor(cmd, raw); hook != nil {
		s.start(hook, raw)
		return
	}
	s.obey(cmd)
}

// check finds what is wrong with a command before any hook is asked.
func (s *session) check(cmd *protocol.Command) *protocol.Error {
	switch cmd.Kind {
	case protocol.JoinRoom:
		if len(s.rooms)-1 >= s.hub.cfg.MaxRoomsPerClient && s.find(cmd.Room) < 0 {
			return &protocol.Error{Code: protocol.LimitReached, Message: "a client may be in so many rooms at most: " + strconv.Itoa(s.hub.cfg.MaxRoomsPerClient)}
		}
	case protocol.Custom:
		if known := s.hub.cfg.Hooks.Known; known == nil || !known(string(cmd.Type)) {
			return &protocol.Error{Code: protocol.UnknownType, Message: "no msg_type " + protocol.Quote(cmd.Type)}
		}
	}
	return nil
}

func (s *session) obey(cmd *protocol.Command) {
	switch cmd.Kind {
	case protocol.Chat:
		s.chat(cmd)
	case protocol.JoinRoom:
		s.joinRoom(cmd)
	case protocol.LeaveRoom:
		if i := s.find(cmd.Room); i > 0 {
			s.leave(i)
		}
		if cmd.ID != nil {
			s.answer(protocol.AppendLeft(s.buf(), string(cmd.Room), cmd.ID))
		}
	case protocol.RoomMessage:
		s.roomMessage(cmd)
	case protocol.DirectMessage:
		s.directMessage(cmd)
	case protocol.Ping:
		s.answer(protocol.AppendPong(s.buf(), time.Now().UnixMilli(), cmd.ID))
	}
}

func (s *session) chat(cmd *protocol.Command) {
	f := s.frame(protocol.AppendChat(s.buf(), s.id.String(), cmd.Content, time.Now().UnixMilli(), s.user))
	r := s.hub.everyone
	r.mu.Lock()
	full := r.post(f, s)
	r.mu.Unlock()
	s.published(full, cmd)
}

func (s *session) roomMessage(cmd *protocol.Command) {
	name := string(cmd.Room)
	f := s.frame(protocol.AppendRoomMessage(s.buf(), s.id.String(), cmd.Content, name, time.Now().UnixMilli(), s.user))
	var full *loop.Worker
	sh := s.hub.roomShard(name)
	sh.mu.Lock()
	if r := sh.rooms[name]; r != nil { // else nobody is there
		full = r.post(f, s)
	}
	sh.mu.Unlock()
	s.published(full, cmd)
}

// published pauses a publisher that is ahead of a worker, and acknowledges.
func (s *session) published(full *loop.Worker, cmd *protocol.Command) {
	if full != nil {
		s.conn.Throttle(full)
	}
	if cmd.ID != nil {
		s.answer(protocol.AppendAck(s.buf(), cmd.ID))
	}
}

func (s *session) directMessage(cmd *protocol.Command) {
	id, ok := ParseID(cmd.To)
	var ref loop.Ref
	if ok {
		ref, ok = s.hub.clientShard(id).get(id)
	}
	if !ok {
		s.answerError(&protocol.Error{Code: protocol.UnknownClient, Message: "no client " + protocol.Quote(cmd.To) + " is connected"}, cmd.ID)
		return
	}
	f := loop.NewAnswer(wire.Text, protocol.AppendDirectMessage(s.buf(), s.id.String(), cmd.Content, time.Now().UnixMilli(), s.user))
	var full *loop.Worker
	if ref.Worker().Post(&direct{ref, f}, f.Len()) {
		full = ref.Worker()
	}
	s.published(full, cmd)
}

func (s *session) joinRoom(cmd *protocol.Command) {
	if s.find(cmd.Room) < 0 {
		s.hub.join(s, cmd.Room)
		s.remember()
	}
	if cmd.ID != nil {
		s.answer(protocol.AppendJoined(s.buf(), string(cmd.Room), cmd.ID))
	}
}

// find is the index in rooms of the room with that name, or -1.
func (s *session) find(name []byte) int {
	if s.byName != nil {
		if i, ok := s.byName[string(name)]; ok {
			return i
		}
		return -1
	}
	for i := 1; i < len(s.rooms); i++ {
		if s.rooms[i].local.room.name == string(name) {
			return i
		}
	}
	return -1
}

// remember keeps byName true after a join.
func (s *session) remember() {
	switch last := len(s.rooms) - 1; {
	case s.byName != nil:
		s.byName[s.rooms[last].local.room.name] = last
	case last >= manyRooms:
		s.byName = make(map[string]int, 2*manyRooms)
		for i, m := range s.rooms[1:] {
			s.byName[m.local.room.name] = i + 1
		}
	}
}

func (s *session) leave(i int) {
	name := s.rooms[i].local.room.name
	s.hub.leave(s, i)
	if s.byName == nil {
		return
	}
	delete(s.byName, name)
	if i < len(s.rooms) { // the last one moved here
		s.byName[s.rooms[i].local.room.name] = i
	}
}

// buf is the worker's buffer for a message that is put together; it is good until the next call.
func (s *session) buf() []byte { return s.state().buf[:0] }

// maxBuf is how much of a buffer that a large message grew is kept.
const maxBuf = 64 << 10

// kept keeps what buf has grown to.
func (s *session) kept(p []byte) {
	if cap(p) <= maxBuf {
		s.state().buf = p[:0]
	}
}

// answer sends one message to this client.
func (s *session) answer(p []byte) {
	s.kept(p)
	s.conn.Answer(wire.Text, p)
}

// frame makes of a message in buf a frame that many can share.
func (s *session) frame(p []byte) *loop.Frame {
	s.kept(p)
	return loop.NewFrame(wire.Text, p)
}

func (s *session) answerError(e *protocol.Error, id []byte) {
	s.state().errors.count(e.Code)
	s.answer(protocol.AppendError(s.buf(), e, 0, id))
}

// Echo is the loop.Handler that sends every message back as it came. It stops reading rather than queue.
type Echo struct{}

// Opened has the loop read only while nothing is unsent.
func (Echo) Opened(c *loop.Conn) { c.HoldReads = true }

// Message sends p back.
func (Echo) Message(c *loop.Conn, op wire.Opcode, p []byte) { c.Answer(op, p) }

// Closed has nothing to do.
func (Echo) Closed(*loop.Conn, int) {}

// Stop closes with 1001.
func (Echo) Stop(c *loop.Conn) { c.Close(wire.CloseGoingAway, "server stops") }
