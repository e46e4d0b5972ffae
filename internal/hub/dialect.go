package hub

import (
	"sync/atomic"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// A dialect is an index into Config.Dialects: what a session's client speaks. Members of a room on one worker lie in
// one local for each dialect, so a delivery asks no member for it.
type dialect uint8

// maxDialects bounds Config.Dialects.
const maxDialects = 6

// speaker is a worker's own Dialect.
type speaker struct {
	protocol.Dialect
	op wire.Opcode // of its frames
}

func speakers(dialects []func() protocol.Dialect) (all []speaker) {
	for _, make := range dialects {
		s := speaker{make(), wire.Text}
		if s.Binary() {
			s.op = wire.Binary
		}
		all = append(all, s)
	}
	return all
}

// shared is something that several clients get: a message, or an answer. Each dialect's frame of it is made once, by
// the first worker that needs it.
type shared struct {
	message *protocol.Message
	answer  *protocol.Answer // where message is nil

	frames [maxDialects]atomic.Pointer[loop.Frame]
}

// frame is what l's members get of x; nil where their dialect has no word for it. The goroutine of l's worker.
func (x *shared) frame(l *local) *loop.Frame {
	at := &x.frames[l.dialect]
	if f := at.Load(); f != nil {
		return f
	}
	st := l.state
	speaks := &st.speakers[l.dialect]
	p := st.buf[:0]
	if x.message != nil {
		p = speaks.AppendMessage(p, x.message)
	} else {
		p = speaks.AppendAnswer(p, x.answer)
	}
	st.keepBuf(p)
	if len(p) == 0 {
		return nil
	}
	f := loop.NewFrame(speaks.op, p)
	if !at.CompareAndSwap(nil, f) {
		return at.Load() // another worker was faster; it must be one frame, or it would be compressed twice
	}
	return f
}

// maxBuf is how much of a buffer that a large message grew is kept.
const maxBuf = 64 << 10

// keepBuf keeps what the buffer has grown to.
func (st *workerState) keepBuf(p []byte) {
	if cap(p) <= maxBuf {
		st.buf = p[:0]
	}
}

// dialect is what the session's client speaks. Any goroutine.
func (s *session) dialect() dialect {
	if s.self == nil {
		return 0
	}
	return s.self.dialect
}

func (s *session) speaker() *speaker { return &s.state().speakers[s.dialect()] }

// Wording is how a Close of ours reads in the client's dialect.
func (s *session) Wording(code int, reason string) (int, string) {
	return s.speaker().Close(code, reason)
}

// Ping asks for a sign of life in the client's dialect; before the welcome nothing is said in that.
func (s *session) Ping(c *loop.Conn) {
	p := s.state().buf[:0]
	if s.all >= 0 {
		p = s.speaker().AppendAnswer(p, &ping)
	}
	if len(p) == 0 {
		loop.Plain{}.Ping(c)
		return
	}
	s.send(p)
}

var ping = protocol.Answer{Kind: protocol.AnswerPing}

// answer sends an answer to this client.
func (s *session) answer(a protocol.Answer) {
	st := s.state()
	st.answer = a
	s.send(s.speaker().AppendAnswer(st.buf[:0], &st.answer))
	st.answer = protocol.Answer{} // what it points to isn't kept
}

// inform sends what the client didn't ask for, once for each of its rooms: they may be so many that it is bounded as the
// rooms' messages are, and as answers are only where these leave no room.
func (s *session) inform(a protocol.Answer) {
	st := s.state()
	st.answer = a
	p := s.speaker().AppendAnswer(st.buf[:0], &st.answer)
	st.answer = protocol.Answer{}
	st.keepBuf(p)
	if len(p) == 0 {
		return
	}
	if f := loop.NewFrame(s.speaker().op, p); s.conn.Fits(f) {
		s.conn.Send(f)
	} else {
		s.conn.Answer(s.speaker().op, p)
	}
}

// tell sends a message to this client alone.
func (s *session) tell(m *protocol.Message) {
	s.send(s.speaker().AppendMessage(s.state().buf[:0], m))
}

// send sends what was put together in the worker's buffer.
func (s *session) send(p []byte) {
	s.state().keepBuf(p)
	if len(p) > 0 {
		s.conn.Answer(s.speaker().op, p)
	}
}
