package hub

import (
	"context"

	"example.com/hubbub/internal/protocol"
)

// The hooks Joined, Left, Occupied and Vacated tell what has happened in a room, one at a time for each room and in that
// order, also over the room's end and its next beginning. Each is queued under the room's lock, where the membership
// begins and ends, so none misses its pair.

// eventCost is what a call that waits or runs counts for, for --max-buffered-bytes.
const eventCost = 512

// spareEvents is how many calls a client may have waiting beside one for each room that it may be in.
const spareEvents = 64

// hookJoined queues what the application is told of s's join. r.mu is held.
func (h *Hub) hookJoined(r *room, s *session) {
	hooks, name := &h.cfg.Hooks, r.name
	if hooks.Occupied != nil && r.members == 1 {
		h.queueEvent(r, s.id, s, nil, func(ctx context.Context) { hooks.Occupied(ctx, name) })
	}
	if hooks.Joined != nil {
		who := s.identity()
		h.queueEvent(r, s.id, s, nil, func(ctx context.Context) { hooks.Joined(ctx, who, name) })
	}
}

// hookLeft queues what the application is told of a leave; s is nil when the session was lost and p paid for it. r.mu is
// held.
func (h *Hub) hookLeft(r *room, who Identity, s *session, p *payer) {
	hooks, name := &h.cfg.Hooks, r.name
	if hooks.Left != nil {
		h.queueEvent(r, who.ID, s, p, func(ctx context.Context) { hooks.Left(ctx, who, name) })
	}
	if hooks.Vacated != nil && r.members == 0 {
		h.queueEvent(r, who.ID, s, p, func(ctx context.Context) { hooks.Vacated(ctx, name) })
	}
}

// queueEvent has a hook called when the last one that was queued for the room has returned. r.mu is held.
func (h *Hub) queueEvent(r *room, id ID, s *session, p *payer, call func(ctx context.Context)) {
	if s == nil {
		s = &session{hub: h, id: id}
	} else {
		p = s.payer()
	}
	sh, name := h.roomShard(r.name), r.name
	p.event(1)
	next := &run{s: s, ctx: context.Background()}
	h.paysFor(next, p, eventCost)
	next.do = func(ctx context.Context) outcome {
		defer func() { // also when it panics
			p.event(-1)
			sh.mu.Lock()
			defer sh.mu.Unlock()
			if sh.events[name] == next {
				delete(sh.events, name)
			}
		}()
		call(ctx)
		return outcome{}
	}
	if sh.events == nil {
		sh.events = map[string]*run{}
	}
	h.runs.startAfter(sh.events[name], next)
	sh.events[name] = next
}

// mayBeHooked bounds what waits for the application because of one client, one user and one address. A leave is never
// refused, so the bound is on joins.
func (s *session) mayBeHooked() *protocol.Error {
	h := s.hub
	if hooks := &h.cfg.Hooks; hooks.Joined == nil && hooks.Left == nil && hooks.Occupied == nil && hooks.Vacated == nil {
		return nil
	}
	p, most := s.payer(), min(int64(h.cfg.MaxRoomsPerClient+spareEvents), h.share/eventCost)
	if p.events.Load() >= most || p.up[0].waits() >= most || p.up[1].waits() >= addressShares*most {
		return &protocol.Error{Code: protocol.RateLimited, Message: "too many of your joins and leaves still wait for the application"}
	}
	return nil
}

// waits is how many calls wait or run because of a user's or an address's joins and leaves; p may be nil.
func (p *payer) waits() int64 {
	if p == nil {
		return 0
	}
	return p.events.Load()
}

// event counts n more such calls, or less.
func (p *payer) event(n int64) {
	p.events.Add(n)
	for _, up := range p.up {
		if up != nil {
			up.events.Add(n)
		}
	}
}
