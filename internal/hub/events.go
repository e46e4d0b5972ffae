package hub

import (
	"context"

	"example.com/hubbub/internal/protocol"
)

// Event is something that has happened to a client, or in a room.
type Event struct {
	Kind   EventKind
	Client Identity // of all but Occupied and Vacated
	Room   string   // of all but Connected and Disconnected
	Code   int      // of Disconnected: what ended the client's last connection, as closes are counted
	Data   []byte   // of Joined: what the client gave with it; only to be read before Event returns

	// Of Published.
	Message *protocol.Message
	Epoch   string // of the room's log; "" where it has none

	s *session // whose doing it is, or nil where that is parked or was lost
	p *payer   // who paid for it
}

// EventKind is what has happened.
type EventKind uint8

// The kinds there are.
const (
	Connected    EventKind = iota // a session has begun; a resume is none
	Disconnected                  // a session has ended for good: it can't be resumed any more
	Joined
	Left
	Occupied  // the first member has joined, which comes before its Joined
	Vacated   // the last one has left, which comes behind its Left
	Published // a message, in a room of which Config.Tells says so
)

// Sink is told of all that happens, in its order for each client and for each room, and none misses its pair: who
// connected is disconnected, who joined has left, and what was occupied is vacated, by Stop at the latest. Of several nodes
// each tells of its own clients, and one, the room's home, when it is occupied and vacated: nothing comes then of what a
// node knew that has died, and what is told while nodes are cut off from each other may be told twice. It is called
// by any goroutine and under locks of the hub, so it must neither block nor call the hub.
type Sink interface{ Event(e Event) }

// happened tells every sink. Of a room's events r.mu is held.
func (h *Hub) happened(e Event) {
	h.hookEvent(e)
	h.tailEvent(&e)
	for _, sink := range h.cfg().Sinks {
		sink.Event(e)
	}
}

// tells says whether sinks are told of what is published to a room of that name.
func (c *Config) tells(name string) bool { return c.Tells != nil && c.Tells(name) }

// tellPublished tells of a message. The mu of its room's shard is held.
func (h *Hub) tellPublished(m *protocol.Message, epoch string) {
	h.happened(Event{Kind: Published, Room: m.Room, Message: m, Epoch: epoch})
}

// tellJoined tells of a join; s is nil when the session is parked and p pays for it. r.mu is held.
func (h *Hub) tellJoined(r *room, who Identity, s *session, p *payer, data []byte) {
	if r.members == 1 && h.cluster != nil {
		h.occupies(r.name, true)
	} else if r.members == 1 {
		h.happened(Event{Kind: Occupied, Room: r.name, s: s, p: p})
	}
	h.happened(Event{Kind: Joined, Room: r.name, Client: who, Data: data, s: s, p: p})
}

// tellLeft tells of a leave; s is nil when the session was lost and p paid for it. r.mu is held.
func (h *Hub) tellLeft(r *room, who Identity, s *session, p *payer) {
	h.happened(Event{Kind: Left, Room: r.name, Client: who, s: s, p: p})
	if r.members == 0 && h.cluster != nil {
		h.occupies(r.name, false)
	} else if r.members == 0 {
		h.happened(Event{Kind: Vacated, Room: r.name, s: s, p: p})
	}
}

// The hooks Joined, Left, Occupied and Vacated are called one at a time for each room and in the order of its events,
// also over the room's end and its next beginning. Each is queued under the room's lock, where the membership begins
// and ends.

// eventCost is what a call that waits or runs counts for, for --max-buffered-bytes.
const eventCost = 512

// moreEvents is how many calls a client may have waiting beside one for each room that it may be in.
const moreEvents = 64

// hookEvent has the application's hook for e called, if there is one.
func (h *Hub) hookEvent(e Event) {
	hooks := &h.cfg().Hooks
	switch {
	case e.Kind == Joined && hooks.Joined != nil:
		h.queueEvent(e, func(ctx context.Context) { hooks.Joined(ctx, e.Client, e.Room) })
	case e.Kind == Left && hooks.Left != nil:
		h.queueEvent(e, func(ctx context.Context) { hooks.Left(ctx, e.Client, e.Room) })
	case e.Kind == Occupied && hooks.Occupied != nil:
		h.queueEvent(e, func(ctx context.Context) { hooks.Occupied(ctx, e.Room) })
	case e.Kind == Vacated && hooks.Vacated != nil:
		h.queueEvent(e, func(ctx context.Context) { hooks.Vacated(ctx, e.Room) })
	}
}

// queueEvent has a hook called when the last one that was queued for the event's room has returned. r.mu is held.
func (h *Hub) queueEvent(e Event, call func(ctx context.Context)) {
	s, p := e.s, e.p
	if s == nil {
		s = &session{hub: h, id: e.Client.ID}
	} else {
		p = s.payer()
	}
	sh, name := h.roomShard(e.Room), e.Room
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
	if hooks := &h.cfg().Hooks; hooks.Joined == nil && hooks.Left == nil && hooks.Occupied == nil && hooks.Vacated == nil {
		return nil
	}
	p, most := s.payer(), min(int64(h.cfg().MaxRoomsPerClient+moreEvents), h.cfg().share/eventCost)
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
	if p == nil {
		return // nobody's here: the room's home tells of what has happened on other nodes
	}
	p.events.Add(n)
	for _, up := range p.up {
		if up != nil {
			up.events.Add(n)
		}
	}
}
