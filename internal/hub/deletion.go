package hub

import (
	"context"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// What was taken back is in no page and no recovery any more. Members hear of it in its place among the room's messages,
// so nobody gets a message behind the word that it was deleted: those who are sent what is new have it in their mailbox
// before; what waits for those who lag is taken out; who still catches up reads the room's log, where it isn't any more.
// A deletion has no place in the log, so who comes back is told of those that it may have missed.

// DeleteHistory forgets what a room has kept up to now. The room's epoch and its position stay. ErrNoHistory,
// ErrOverloaded, ErrStopped, or ctx's, and then nothing was done. It doesn't block, but where the room's log lies elsewhere:
// that is waited for, and its error may leave open whether it was done. Any goroutine.
func (h *Hub) DeleteHistory(ctx context.Context, name string) error {
	return h.delete(ctx, name, "", everything, func(r *room) (*protocol.Answer, error) {
		if r == nil {
			return nil, nil
		}
		return h.takeBackAll(r, r.position().Offset), nil
	})
}

// takeBackAll takes back all that the room has kept up to an offset, and is what its members are told of that: nil for
// nothing. r.mu is held.
func (h *Hub) takeBackAll(r *room, to uint64) *protocol.Answer {
	h.count(KeptHistory, -h.dropWhile(r, func() bool { return r.log.Len() > 0 && r.log.At(0).Offset <= to }))
	if !r.log.Cleared(to) {
		return nil
	}
	return &protocol.Answer{Kind: protocol.AnswerDeleted, Room: r.name, To: to}
}

// takeBack takes back the message at an offset, and is what its members are told of that: nil where it isn't kept. r.mu
// is held.
func (h *Hub) takeBack(r *room, offset uint64) *protocol.Answer {
	e := r.log.Find(offset)
	if e == nil || e.Deleted {
		return nil
	}
	was := entryBytes(e)
	r.log.Delete(e)
	h.keep(KeptHistory, e.Payer, entryBytes(e)-was)
	return &protocol.Answer{Kind: protocol.AnswerDeleted, Room: r.name, From: offset}
}

// DeleteMessage is DeleteHistory for the message with that offset alone; epoch is the room's, "" for whichever it has.
// ErrNoPosition where the room keeps no such message. One that was deleted before is no error.
func (h *Hub) DeleteMessage(ctx context.Context, name, epoch string, offset uint64) error {
	return h.delete(ctx, name, epoch, offset, func(r *room) (*protocol.Answer, error) {
		if r == nil || epoch != "" && epoch != r.position().Epoch {
			return nil, ErrNoPosition
		}
		if r.log.Find(offset) == nil {
			return nil, ErrNoPosition
		}
		return h.takeBack(r, offset), nil
	})
}

// delete has something taken back from a room's log, nil where there is no such room, and tells the members what that
// was, if it was something. Of a log that lies elsewhere that is the message at offset, or everything.
func (h *Hub) delete(ctx context.Context, name, epoch string, offset uint64, from func(r *room) (*protocol.Answer, error)) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case h.cfg().Policies.For(name).History.Messages == 0:
		return ErrNoHistory
	case h.remoteLog(name):
		return h.deleteRemotely(ctx, name, epoch, offset)
	}
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if h.stopping() {
		return ErrStopped
	}
	r := sh.rooms[name]
	if r != nil {
		if r.full() != nil {
			return ErrOverloaded
		}
		h.trim(r, clock())
	}
	news, err := from(r)
	if news != nil {
		r.retract(news)
		h.tailDeleted(r, news)
	}
	return err
}

// retract tells the members what was deleted. r.mu is held.
func (r *room) retract(news *protocol.Answer) {
	x := &shared{answer: news}
	for _, l := range r.locals {
		l.w.Post(&retraction{l, x}, 0)
	}
}

// deletedSince is what was taken back and a member who stands at an offset may not have heard of. r.mu is held.
func (r *room) deletedSince(offset uint64) (told []protocol.Answer) {
	messages, all := r.log.Deleted(offset)
	for _, m := range messages {
		told = append(told, protocol.Answer{Kind: protocol.AnswerDeleted, Room: r.name, From: m})
	}
	if all != 0 {
		told = append(told, protocol.Answer{Kind: protocol.AnswerDeleted, Room: r.name, To: all})
	}
	return told
}

// retraction is word of what was deleted, on its way to the members of one local. Who is coming home is told when it
// has come; who has joined since gets it too, and forgets what it never had.
type retraction struct {
	local *local
	*shared
}

func (t *retraction) Run(*loop.Worker) {
	l := t.local
	is := func(offset uint64) bool { return offset != 0 && (offset == t.answer.From || offset <= t.answer.To) }
	for offset := range l.replay {
		if is(offset) {
			delete(l.replay, offset)
		}
	}
	f := t.frame(l)
	for i := len(l.members) - 1; i >= 0; i-- { // backwards, as deliver does
		m := l.members[i]
		if g := m.s.lag(l); g != nil {
			g.forget(func(w *waiting) bool { return !w.news && is(w.offset) })
		}
		switch {
		case f == nil || m.s.coming():
		case !l.waits():
			m.conn.Send(f)
		default:
			l.offer(m, &waiting{frame: f, news: true, firm: true})
		}
	}
}
