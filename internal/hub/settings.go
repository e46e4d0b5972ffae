package hub

import (
	"log/slog"
	"math"
	"sync"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/presence"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/tracing"
)

// Config sizes a Hub. Every field must be set, but those of Hooks may be nil, and there may be no Sinks and no Broker.
type Config struct {
	// Dialects make what clients may speak, once for each worker; the first is that of a session which names none. At
	// most six.
	Dialects          []func() protocol.Dialect
	Tracer            *tracing.Tracer // of what the application publishes; nil for none
	TokenKey          [32]byte        // signs the tokens that resume sessions
	Epoch             string          // what the epochs of rooms begin with: no other process may have it
	MaxRoomsPerClient int
	MaxMessageBytes   int   // told to clients; the loop enforces it
	MaxBufferedBytes  int64 // of all that is kept; the loop enforces it
	PingInterval      time.Duration
	PongTimeout       time.Duration
	Policies          *Policies
	Chat, Direct      Who           // who may send chats and direct messages
	Leeway            time.Duration // how long after it has expired an identity's connection is closed
	SlowConsumer      SlowConsumer  // of chats, which belong to no room: the Latest ones count as DropOldest
	Hooks             Hooks
	Sinks             []Sink
	Tells             func(room string) bool // of which rooms with a log of this node's sinks get Published; nil: of none
	Broker            broker.Broker          // keeps the logs of rooms; nil where this node does so itself. Who runs it has it serve the hub
	Alone             bool                   // no other node has the Broker's logs: nobody is told of anything, nor asked
	Beat              func() []byte          // what other nodes shall know of this one, about once a second, at most 4 KiB; nil for nothing
	HookTimeout       time.Duration
	HookLimit         int // hooks that run at once, over all sessions
	DedupWindow       time.Duration
	ResumeWindow      time.Duration // 0 parks no session
	Limits            Limits        // of how much may be done in a time
	Log               *slog.Logger
}

// share is how many bytes of what the hub keeps one client may take: a 64th of all, or what the limits on a client
// allow together where that is more, since what one limit allows the others must not forbid; but at most an eighth.
func (c *Config) share() int64 {
	rooms := int64(c.MaxRoomsPerClient) * (membershipCost + presence.MemberCost + parkedRoomCost)
	log := int64(0) // one client may fill a room's
	for _, r := range c.Policies.rules {
		log = max(log, int64(r.Policy.History.Bytes)+int64(r.Policy.History.Messages)*entryCost)
	}
	limits := rooms + log + 2*int64(c.MaxMessageBytes)
	return max(c.MaxBufferedBytes/64, min(limits, c.MaxBufferedBytes/8))
}

// settings are what the hub goes by from one reload to the next. Immutable: who reads them, a worker too, loads a pointer.
type settings struct {
	Config
	number   uint32 // how many there were before
	share    int64  // bytes of what the hub keeps that one client may take
	welcome  protocol.Welcome
	everyone *Policy // of chats
	limiting
}

func newSettings(cfg Config, number uint32) *settings {
	return &settings{
		Config: cfg, number: number, share: cfg.share(), limiting: newLimiting(cfg.Limits),
		welcome:  protocol.Welcome{MaxMessageBytes: cfg.MaxMessageBytes, PingInterval: cfg.PingInterval, PongTimeout: cfg.PongTimeout, ResumeWindow: cfg.ResumeWindow},
		everyone: &Policy{SlowConsumer: min(cfg.SlowConsumer, DropOldest)},
	}
}

// cfg is what the hub goes by now. Who must not see a part of the next settings loads it once.
func (h *Hub) cfg() *settings { return h.settings.Load() }

// Reload has the hub go by cfg's Policies, SlowConsumer, Chat, Direct, Limits, Hooks, HookTimeout, Leeway, Sinks, Tells,
// MaxRoomsPerClient, MaxMessageBytes and MaxBufferedBytes; the rest stays as New got it. Where there is a Broker the
// Policies must give each room the log that it has, and of several nodes the same rooms must have full presence. What is
// under way goes on by what it began with, and what there is already stays, also beyond new limits. When Reload returns every
// room goes by its new policy. One call at a time, from any goroutine but a worker's; it takes each room's lock for a moment.
func (h *Hub) Reload(cfg Config) {
	was := h.cfg()
	next := was.Config
	next.Policies, next.SlowConsumer, next.Chat, next.Direct = cfg.Policies, cfg.SlowConsumer, cfg.Chat, cfg.Direct
	next.Hooks, next.HookTimeout, next.Sinks, next.Tells = cfg.Hooks, cfg.HookTimeout, cfg.Sinks, cfg.Tells
	next.MaxRoomsPerClient, next.MaxMessageBytes, next.MaxBufferedBytes = cfg.MaxRoomsPerClient, cfg.MaxMessageBytes, cfg.MaxBufferedBytes
	next.Leeway, next.Limits = cfg.Leeway, cfg.Limits
	is := newSettings(next, was.number+1)
	h.settings.Store(is)
	if toldEvents(&cfg) {
		h.told.Store(true)
	}
	if cfg.Limits != was.Limits {
		h.limits.goBy(is)
	}
	if cfg.Limits.UserConnections > 0 && was.Limits.UserConnections == 0 {
		h.loop.Inspect(seatWithin, h.seatAll)
	}
	h.renewRooms(h.everyone.mu, []*room{h.everyone})
	for i := range h.rooms {
		h.renewShard(&h.rooms[i])
	}
}

// renewAtOnce is for how many rooms a shard's lock is held at a time.
const renewAtOnce = 256

// renewShard has the rooms that are there go by the settings of now; those that come, do.
func (h *Hub) renewShard(sh *roomShard) {
	sh.mu.Lock()
	all := make([]*room, 0, len(sh.rooms))
	for _, r := range sh.rooms {
		all = append(all, r)
	}
	sh.mu.Unlock()
	for len(all) > 0 {
		n := min(len(all), renewAtOnce)
		h.renewRooms(&sh.mu, all[:n])
		all = all[n:]
	}
}

// renewRooms renews rooms whose lock is mu.
func (h *Hub) renewRooms(mu *sync.Mutex, rooms []*room) {
	mu.Lock()
	defer mu.Unlock()
	for _, r := range rooms {
		h.renew(r)
	}
}

// renew has a room go by the settings of now. It costs one look where it does so already. r.mu is held.
func (h *Hub) renew(r *room) {
	if c := h.cfg(); r.number != c.number && !r.gone {
		h.renewBy(r, c)
	}
}

func (h *Hub) renewBy(r *room, c *settings) {
	r.number = c.number
	was, is := r.policy(), c.everyone
	if r != h.everyone {
		is = c.Policies.For(r.name)
	}
	r.is.Store(is)
	if r == h.everyone {
		return
	}
	r.tells = c.tells(r.name)
	h.speaks(r, false)
	if h.cluster != nil && r.members > 0 {
		h.stillOccupied(r.name)
	}
	h.renewHistory(r, was.History.Messages > 0)
	if was.Presence != is.Presence && (was.Presence == PresenceFull || is.Presence == PresenceFull) {
		h.renewPresence(r)
	}
	if r.members == 0 {
		h.schedule(r, r.active+r.stay()) // whoever has found it may need it now
	}
}

// renewHistory has the room's history be what its policy says now. It begins with what is published from now on; where
// there was one before, that was of another epoch, so that nobody takes what lies between for nothing. r.mu is held.
func (h *Hub) renewHistory(r *room, kept bool) {
	sh := h.roomShard(r.name)
	switch {
	case kept && !r.keeps():
		h.clearHistory(r, 0)
		if r.log.Position().Offset > 0 {
			sh.epochs.lose(r.name)
		}
	case !kept && r.keeps() && r.remote == nil:
		last := r.log.Position().Offset // of an epoch before, of which members have seen offsets
		r.log = history.Log[*payer]{}
		r.log.Begin(history.Position{Epoch: h.cfg().Epoch + sh.epochs.of(r.name), Offset: last})
	case r.keeps():
		h.trim(r, clock())
		if r.log.Len() > 0 {
			h.schedule(r, r.log.At(0).At+r.policy().History.Age.Milliseconds())
		}
	}
}

// renewPresence has the room begin to know who is in it, or forget it. Each member comes in, or goes, on its worker; who
// has lost its connection when it comes back. r.mu is held.
func (h *Hub) renewPresence(r *room) {
	if r.policy().Presence != PresenceFull {
		h.dropPresence(r)
	}
	for _, l := range r.locals {
		l.w.Post(noting{h, l}, 0)
	}
}

// noting has the members of a local be known to the room, or be known no more: as its policy is when it runs.
type noting struct {
	hub   *Hub
	local *local
}

func (n noting) Run(*loop.Worker) {
	r := n.local.room
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range n.local.members {
		data := n.hub.noteJoined(r, m.s.identity(), m.s, nil, m.s.shows(nil), true)
		m.s.membership(n.local).data = uint16(min(data, math.MaxUint16))
	}
}

// seatWithin is how long a reload waits for a busy worker to count its users' connections.
const seatWithin = 10 * time.Second

// seatAll counts the connections that users of a worker have, where they were not limited before.
func (h *Hub) seatAll(w *loop.Worker) {
	for _, l := range h.workers[w.Index()].everyone {
		if l == nil {
			continue
		}
		for _, m := range l.members {
			if m.s.name() != "" && !m.s.self.sits {
				h.limits.connections.seat(m.s.name())
				m.s.self.sits = true
			}
		}
	}
}
