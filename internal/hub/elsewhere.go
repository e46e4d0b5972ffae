package hub

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// What clients and the application ask of rooms whose logs lie elsewhere (logs.go): each waits for the log, as an
// operation of its session or on the caller's goroutine.

// What a log that lies elsewhere answers where it can't do what it is asked: nothing was done, or nobody knows.
var (
	ErrUnavailable = broker.ErrUnavailable
	ErrTimeout     = broker.ErrTimeout
)

// unavailable is what a client is told when a log can't be asked, or doesn't answer.
func unavailable(err error) *protocol.Error {
	var e *protocol.Error
	switch {
	case errors.As(err, &e) && e != nil:
		return e
	case errors.Is(err, broker.ErrBusy), errors.Is(err, ErrOverloaded):
		return &protocol.Error{Code: protocol.Overloaded, Message: err.Error()}
	case errors.Is(err, broker.ErrTimeout):
		return &protocol.Error{Code: protocol.Timeout, Message: broker.ErrTimeout.Error()}
	}
	return &protocol.Error{Code: protocol.Unavailable, Message: broker.ErrUnavailable.Error()}
}

// joinWhenOpen is join for a room that must be opened.
func (s *session) joinWhenOpen(cmd *protocol.Command) {
	h, name, copied := s.hub, string(cmd.Room), cmd.Clone()
	o := s.ask(cmd, operation{room: name, dropped: func() { h.unuse(name) }})
	h.useFrom(name, sinceOf(copied), func(err error) {
		o.end(func() {
			defer h.unuse(name)
			if err != nil {
				s.answerError(unavailable(err), o.id)
				return
			}
			if s.find(copied.Room) >= 0 {
				s.joinRoom(copied) // the application has put it in meanwhile
				return
			}
			no := s.limitOfRooms(0) // others may have been joined meanwhile
			if no == nil {
				no = s.limitOfData(copied)
			}
			if no != nil {
				s.answerError(no, o.id)
				return
			}
			s.join(copied)
		})
	})
}

// remoteRooms are the rooms of a resume that have to be opened.
func (s *session) remoteRooms(cmd *protocol.Command, refused []*protocol.Error) (names []string) {
	if s.hub.cfg().Broker == nil {
		return nil // without a look at each
	}
	for i, r := range cmd.Rooms {
		if name := string(r.Room); (refused == nil || refused[i] == nil) && s.hub.opens(name) {
			names = append(names, name)
		}
	}
	return names
}

// resumeWhenOpen is resume for rooms of which some must be opened.
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
	since := map[string]*protocol.Position{}
	for i := range copied.Rooms {
		if r := &copied.Rooms[i]; r.HasAt {
			since[string(r.Room)] = &r.At
		}
	}
	for _, name := range names {
		h.useFrom(name, since[name], func(err error) {
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
	s.hub.append(m, s.publishKey(cmd).text(), func(at history.Position, duplicate bool, err error) {
		o.end(func() {
			if full := s.hub.fullOf(m.Room); full != nil {
				s.conn.Throttle(full)
			}
			switch {
			case err != nil:
				s.answerError(unavailable(err), o.id)
			case o.id != nil:
				s.answer(protocol.Answer{Kind: protocol.AnswerAck, ID: o.id, Epoch: at.Epoch, Offset: at.Offset, Duplicate: duplicate})
			}
		})
	})
}

// append appends m to a log that lies elsewhere, once for each id but "". done is called once, at once where that is
// refused.
func (h *Hub) append(m *protocol.Message, id string, done func(at history.Position, duplicate bool, err error)) {
	if m.Trace != nil {
		done = h.traceAppend(m, done)
	}
	record := m.AppendRecord(make([]byte, 0, m.Size()))
	err := h.cfg().Broker.Publish(h.brokers(m.Room), broker.Message{Body: record, ID: id}, func(at broker.Position, duplicate bool, err error) {
		if err == nil && !duplicate {
			h.tellAppended(m, at)
		}
		tell := func() { done(history.Position(at), duplicate, err) }
		if err != nil {
			tell()
			return
		}
		h.whenBrought(m.Room, at, tell)
	})
	if err != nil {
		done(history.Position{}, false, err)
	}
}

// fullOf is a worker that has too much to do of a room, or nil.
func (h *Hub) fullOf(name string) *loop.Worker {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if r := sh.rooms[name]; r != nil {
		return r.full()
	}
	return nil
}

// tellAppended tells sinks of a message that the log has taken from this node, and tails where it isn't delivered here.
func (h *Hub) tellAppended(m *protocol.Message, at broker.Position) {
	tells := h.cfg().tells(m.Room)
	if !tells && h.tails.all.Load() == nil {
		return
	}
	told := *m
	told.Place(0, at.Offset)
	sh := h.roomShard(m.Room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if r := sh.rooms[m.Room]; r == nil || !r.known() {
		h.tailMessage(&told, at.Epoch)
	}
	if tells {
		h.tellPublished(&told, at.Epoch)
	}
}

// publishRemotely is publishToRoom where the room's log lies elsewhere. It waits for the log.
func (h *Hub) publishRemotely(ctx context.Context, p *Publication) (at history.Position, duplicate bool, err error) {
	type outcome struct {
		at        history.Position
		duplicate bool
		err       error
	}
	if h.fullOf(p.Room) != nil {
		return at, false, ErrOverloaded
	}
	done := make(chan outcome, 1)
	h.append(p.message(protocol.RoomMessage), p.publishKey().text(), func(at history.Position, duplicate bool, err error) {
		done <- outcome{at, duplicate, err}
	})
	select {
	case o := <-done:
		if errors.Is(o.err, broker.ErrBusy) {
			o.err = ErrOverloaded
		}
		return o.at, o.duplicate, o.err
	case <-ctx.Done():
		return at, false, fmt.Errorf("%w: %w", ErrTimeout, ctx.Err())
	}
}

// everything is the offset of a deletion of all that stands before it.
const everything = 1<<53 - 1

// deleteRemotely takes back the message at an offset, or everything, where the room's log lies elsewhere: that stands in
// the log itself, in its order. It waits for the log.
func (h *Hub) deleteRemotely(ctx context.Context, name, epoch string, offset uint64) error {
	record := protocol.AppendDeletion(nil, 0, everything)
	if offset != everything {
		record = protocol.AppendDeletion(nil, offset, 0)
		switch kept, err := h.keptRemotely(ctx, name, epoch, offset); {
		case err != nil:
			return err
		case kept.Deleted:
			return nil
		}
	}
	done := make(chan error, 1)
	err := h.cfg().Broker.Publish(h.brokers(name), broker.Message{Body: record}, func(at broker.Position, _ bool, err error) {
		if err != nil {
			done <- err
			return
		}
		h.whenBrought(name, at, func() { done <- nil })
	})
	if err != nil {
		return ErrOverloaded
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrTimeout, ctx.Err())
	}
}

// keptRemotely is the message at an offset of a log that lies elsewhere, or ErrNoPosition.
func (h *Hub) keptRemotely(ctx context.Context, name, epoch string, offset uint64) (history.Entry[*payer], error) {
	type outcome struct {
		kept  *history.Entry[*payer]
		epoch string
		err   error
	}
	done := make(chan outcome, 1)
	h.cfg().Broker.Read(h.brokers(name), 0, func(log broker.Log, err error) {
		l := h.readLog(name, log, new(uint64))
		done <- outcome{l.Find(offset), log.At.Epoch, err}
	})
	select {
	case o := <-done:
		switch {
		case o.err != nil:
			return history.Entry[*payer]{}, o.err
		case o.kept == nil || epoch != "" && epoch != o.epoch:
			return history.Entry[*payer]{}, ErrNoPosition
		}
		return *o.kept, nil
	case <-ctx.Done():
		return history.Entry[*payer]{}, ctx.Err()
	}
}

// read reads a page of a log that lies elsewhere.
func (h *Hub) read(name string, q PageQuery, done func(page []*protocol.Message, at history.Position, more bool, err error)) {
	h.cfg().Broker.Read(h.brokers(name), 0, func(log broker.Log, err error) {
		if err != nil {
			done(nil, history.Position{}, false, err)
			return
		}
		l := h.readLog(name, log, new(uint64))
		page, at, more, bad := pageOfLog(&l, q)
		if bad != nil {
			done(nil, at, false, bad)
			return
		}
		done(page, at, more, nil)
	})
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
	h.read(room, q, func(page []*protocol.Message, at history.Position, more bool, err error) {
		done <- outcome{page, at, more, err}
	})
	select {
	case o := <-done:
		var bad *protocol.Error
		if errors.As(o.err, &bad) {
			o.err = ErrNoPosition
		}
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
	s.hub.read(name, pageOf(copied), func(page []*protocol.Message, at history.Position, more bool, err error) {
		o.end(func() {
			if err != nil {
				s.answerError(unavailable(err), o.id)
				return
			}
			s.answer(protocol.Answer{Kind: protocol.AnswerHistory, ID: o.id, Room: name, Epoch: at.Epoch, Offset: at.Offset, Messages: page, More: more})
		})
	})
}
