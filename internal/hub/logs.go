package hub

import (
	"context"
	"errors"
	"sync"

	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/protocol"
)

// Logs keeps the logs of the rooms with history for several nodes. Where there is none, each node keeps its own, and
// nothing of this file is in the way. No method waits, or calls back before it returns, and each may be called under a
// room's lock; what is called back is called once, by any goroutine.
type Logs interface {
	// Open has a room's entries come by Hub.Deliver until close is called: those behind the position that opened is
	// given.
	Open(room string, opened func(at history.Position, err error)) (close func())
	// Publish appends m, whose place in the log isn't known yet, to its room's log: once for each id, unless that is
	// "". The position is that of the first time where it is a duplicate.
	Publish(m *protocol.Message, id string, done func(at history.Position, duplicate bool, err error))
	// Read reads a page of a room's log.
	Read(room string, q PageQuery, done func(page []*protocol.Message, at history.Position, more bool, err error))
}

// remote is what a room has where its log lies elsewhere. Guarded by the room's mu; members, and users, hold it open.
type remote struct {
	open   bool          // the position is known, and entries come
	opened []func(error) // who waits for that
	users  int           // who needs the room to stay, beside its members
	close  func()
}

// Remote says whether rooms may have their logs elsewhere, so that a publish may wait.
func (h *Hub) Remote() bool { return h.cfg.Logs != nil }

// remoteLog says that the room's log lies elsewhere.
func (h *Hub) remoteLog(name string) bool {
	return h.cfg.Logs != nil && h.cfg.Policies.For(name).History.Messages > 0
}

// use opens a room whose log lies elsewhere, and calls ready when it is, at once or later. The room stays until unuse.
func (h *Hub) use(name string, ready func(error)) {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := h.room(sh, name)
	r.remote.users++
	if r.remote.open {
		ready(nil)
		return
	}
	r.remote.opened = append(r.remote.opened, ready)
	if r.remote.close == nil {
		r.remote.close = h.cfg.Logs.Open(name, func(at history.Position, err error) { h.opened(r, at, err) })
	}
}

// unuse is use's end.
func (h *Hub) unuse(name string) {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[name]
	r.remote.users--
	h.unused(r, nil)
}

// opened is called when a room's position is known, or can't be.
func (h *Hub) opened(r *room, at history.Position, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.gone:
		return
	case err == nil:
		r.log.Begin(at)
		r.remote.open = true
	default:
		r.remote.close()
		r.remote.close = nil
	}
	for _, ready := range r.remote.opened {
		ready(err)
	}
	r.remote.opened = nil
}

// Deliver applies the next entry of a room's log. It is false, and nothing is done, where one is missing before it. Any
// goroutine, one at a time for a room; it doesn't block.
func (h *Hub) Deliver(m *protocol.Message) bool {
	sh := h.roomShard(m.Room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[m.Room]
	switch {
	case r == nil || !r.remote.open || m.Offset <= r.position().Offset:
		return true // nobody needs it
	case m.Prev != r.position().Offset:
		return false
	}
	except, _ := ParseID([]byte(m.Except))
	h.apply(r, m, h.here(except), nil)
	return true
}

// unavailable is what a client is told when a log can't be asked.
func unavailable(err error) *protocol.Error {
	var e *protocol.Error
	if errors.As(err, &e) && e != nil {
		return e
	}
	return &protocol.Error{Code: protocol.Unavailable, Message: "the room's log can't be reached"}
}

// joinWhenOpen is join for a room whose log lies elsewhere.
func (s *session) joinWhenOpen(cmd *protocol.Command) {
	h, name, copied := s.hub, string(cmd.Room), cmd.Clone()
	o := s.ask(cmd, operation{room: name, dropped: func() { h.unuse(name) }})
	h.use(name, func(err error) {
		o.end(func() {
			defer h.unuse(name)
			no := s.limitOfRooms(0) // others may have been joined meanwhile
			if err != nil {
				no = unavailable(err)
			}
			if no != nil {
				s.answerError(no, o.id)
				return
			}
			if s.find(copied.Room) >= 0 {
				s.joinRoom(copied) // the application has put it in meanwhile
				return
			}
			s.join(copied)
		})
	})
}

// remoteRooms are the rooms of a resume that have to be opened.
func (s *session) remoteRooms(cmd *protocol.Command, refused []*protocol.Error) (names []string) {
	if s.hub.cfg.Logs == nil {
		return nil
	}
	for i, r := range cmd.Rooms {
		if name := string(r.Room); (refused == nil || refused[i] == nil) && s.hub.remoteLog(name) {
			names = append(names, name)
		}
	}
	return names
}

// resumeWhenOpen is resume for rooms of which some have their logs elsewhere.
func (s *session) resumeWhenOpen(cmd *protocol.Command, refused []*protocol.Error, names []string) {
	h, copied := s.hub, cmd.Clone()
	unuse := func() {
		for _, name := range names {
			h.unuse(name)
		}
	}
	if refused == nil {
		refused = make([]*protocol.Error, len(cmd.Rooms))
	}
	o := s.ask(cmd, operation{dropped: unuse})
	a := &openings{left: len(names), failed: map[string]error{}}
	for _, name := range names {
		h.use(name, func(err error) {
			if !a.last(name, err) {
				return
			}
			o.end(func() {
				defer unuse()
				for i, r := range copied.Rooms {
					if err := a.failed[string(r.Room)]; err != nil {
						refused[i] = unavailable(err)
					}
				}
				s.resume(copied, s.forbiddenRooms(copied, refused)) // it may have been taken out of some meanwhile
			})
		})
	}
}

// openings counts the rooms of a resume that are being opened.
type openings struct {
	mu     sync.Mutex
	left   int
	failed map[string]error
}

// last notes how one has ended, and says whether that was the last.
func (o *openings) last(name string, err error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.failed[name] = err
	}
	o.left--
	return o.left == 0
}

// publishRemotely is roomMessage for a room whose log lies elsewhere.
func (s *session) publishRemotely(cmd *protocol.Command) {
	m := s.message(protocol.RoomMessage, cmd)
	m.Room = string(cmd.Room)
	if policy, _ := s.policyOf(cmd.Room); !policy.IncludeSender {
		m.Except = m.From
	}
	o := s.ask(cmd, operation{room: m.Room, publish: true})
	acked := func(at history.Position, duplicate bool, err error) {
		o.end(func() {
			switch {
			case err != nil:
				s.answerError(unavailable(err), o.id)
			case o.id != nil:
				s.answer(protocol.Answer{Kind: protocol.AnswerAck, ID: o.id, Epoch: at.Epoch, Offset: at.Offset, Duplicate: duplicate})
			}
		})
	}
	s.hub.cfg.Logs.Publish(m, s.publishKey(cmd).text(), acked)
}

// publishRemotely is publishToRoom where the room's log lies elsewhere. It waits for the log.
func (h *Hub) publishRemotely(ctx context.Context, p *Publication) (at history.Position, duplicate bool, err error) {
	type outcome struct {
		at        history.Position
		duplicate bool
		err       error
	}
	done := make(chan outcome, 1)
	h.cfg.Logs.Publish(p.message(protocol.RoomMessage), p.publishKey().text(), func(at history.Position, duplicate bool, err error) {
		done <- outcome{at, duplicate, err}
	})
	select {
	case o := <-done:
		return o.at, o.duplicate, o.err
	case <-ctx.Done():
		return at, false, ctx.Err()
	}
}

// readRemotely is History where the room's log lies elsewhere. It waits for the log.
func (h *Hub) readRemotely(ctx context.Context, room string, q PageQuery) (page []*protocol.Message, at history.Position, more bool, err error) {
	type outcome struct {
		page []*protocol.Message
		at   history.Position
		more bool
		err  error
	}
	done := make(chan outcome, 1)
	h.cfg.Logs.Read(room, q, func(page []*protocol.Message, at history.Position, more bool, err error) {
		done <- outcome{page, at, more, err}
	})
	select {
	case o := <-done:
		return o.page, o.at, o.more, o.err
	case <-ctx.Done():
		return nil, history.Position{}, false, ctx.Err()
	}
}

// readRemotely answers the message history for a room whose log lies elsewhere.
func (s *session) readRemotely(cmd *protocol.Command) {
	name := string(cmd.Room)
	copied := cmd.Clone()
	o := s.ask(cmd, operation{room: name})
	s.hub.cfg.Logs.Read(name, pageOf(copied), func(page []*protocol.Message, at history.Position, more bool, err error) {
		o.end(func() {
			if err != nil {
				s.answerError(unavailable(err), o.id)
				return
			}
			s.answer(protocol.Answer{Kind: protocol.AnswerHistory, ID: o.id, Room: name, Epoch: at.Epoch, Offset: at.Offset, Messages: page, More: more})
		})
	})
}
