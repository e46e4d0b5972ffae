package hub

import (
	"bytes"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/presence"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/sparselog"
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

// Hub knows who is where and decides who gets what.
type Hub struct {
	// Static after New and Start.
	cfg     Config
	loop    *loop.Loop
	workers []*workerState
	welcome protocol.Welcome

	cluster  *cluster // nil where the hub is alone
	everyone *room    // all sessions: those that a chat reaches
	rooms    [shards]roomShard
	clients  [shards]clientShard
	share    int64 // bytes of what the hub keeps that one client may take
	kept     [kinds]atomic.Int64
	payers   payers
	relieve  atomic.Int64 // when Relieve may go over the rooms again, by clock

	parkedNow atomic.Int64
	denials   sparselog.Log
	unnamed   sparselog.Log // clients that can't be put into their rooms
	runs      runs
	limits    limits
	stop      chan struct{}
	stopOnce  sync.Once
	swept     chan struct{} // closed when sweep has ended

	memories [shards]memory
	tails    tails
	comeBack atomic.Int64 // nanoseconds over which those who are told to go come back
}

// shards spreads the locks of rooms and of clients, so that workers seldom meet.
const shards = 64

// workerState is owned by one worker's goroutine.
type workerState struct {
	cmd      protocol.Command
	buf      []byte // where an outgoing message is put together
	answer   protocol.Answer
	speakers []speaker // by dialect
	frames   []*loop.Frame
	everyone []*local      // by dialect; nil while nobody on the worker speaks it
	gathered []*local      // rooms with a run
	runs     [][]*delivery // spare
	errors   Errors
	dropped  Dropped
	denied   Denied
	expiring expiries
	alarm    int64 // when the next look at these is due, by the worker's clock; 0 for none
}

// New makes a Hub; Start must be called before connections come.
func New(cfg Config) *Hub {
	h := &Hub{cfg: cfg, payers: payers{all: map[payerName]*payer{}}, stop: make(chan struct{}), swept: make(chan struct{})}
	h.share = cfg.share()
	h.cluster = newCluster(h)
	h.ComeBackWithin(2 * time.Second)
	h.welcome = protocol.Welcome{MaxMessageBytes: cfg.MaxMessageBytes, PingInterval: cfg.PingInterval, PongTimeout: cfg.PongTimeout, ResumeWindow: cfg.ResumeWindow}
	for i := range h.rooms {
		h.rooms[i].rooms = map[string]*room{}
		h.clients[i].sessions = map[ID]*session{}
	}
	h.runs.init(h)
	h.limits.init(cfg.Limits)
	return h
}

// Start gives the hub the loop whose workers serve its sessions.
func (h *Hub) Start(l *loop.Loop) {
	h.loop = l
	h.everyone = &room{mu: new(sync.Mutex), policy: &Policy{SlowConsumer: min(h.cfg.SlowConsumer, DropOldest)}}
	if h.cluster != nil {
		h.everyone.remote = &remote{topic: part{needed: true}}
		defer h.listenToAll()
	}
	for range l.Workers() {
		h.workers = append(h.workers, &workerState{speakers: speakers(h.cfg.Dialects), everyone: make([]*local, len(h.cfg.Dialects))})
	}
	go h.sweep()
}

// ComeBackWithin sets the time over which clients are told to come back, each at its own random moment, when the loop
// stops. Any goroutine.
func (h *Hub) ComeBackWithin(d time.Duration) { h.comeBack.Store(int64(d)) }

// Errors counts the error messages that a worker's clients were sent, by code.
type Errors [protocol.Internal + 1]int64

// Errors is a copy. The worker's goroutine, or anyone's once the worker has ended.
func (h *Hub) Errors(w *loop.Worker) Errors { return h.workers[w.Index()].errors }

func (e *Errors) count(c protocol.Code) {
	if c == 0 || c > protocol.Internal { // an application's own number: clients are told "internal"
		c = protocol.Internal
	}
	e[c]++
}

// Rooms is how many rooms there are. Any goroutine.
func (h *Hub) Rooms() (n int) {
	for i := range h.rooms {
		sh := &h.rooms[i]
		sh.mu.Lock()
		n += len(sh.rooms)
		sh.mu.Unlock()
	}
	return n
}

// Clients is how many sessions there are. Any goroutine.
func (h *Hub) Clients() (n int) {
	for i := range h.clients {
		sh := &h.clients[i]
		sh.mu.Lock()
		n += len(sh.sessions)
		sh.mu.Unlock()
	}
	return n
}

// clientShard finds a client's session by its id. Guarded by mu, which is taken last (docs/locks.md).
type clientShard struct {
	mu       sync.Mutex
	sessions map[ID]*session // only what is static of them may be read
	parked   map[ID]*parked
	order    []parking      // by time
	users    map[string]ids // those, here or parked, who have a name
	away     *away          // those that went to other nodes; nil while none did
}

func (h *Hub) clientShard(id ID) *clientShard { return &h.clients[id[0]%shards] }

func (sh *clientShard) add(s *session) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.sessions[s.id] = s
	sh.addToUser(s.id, s.name())
}

// addToUser: mu is held.
func (sh *clientShard) addToUser(id ID, user string) {
	if user == "" {
		return
	}
	if sh.users == nil {
		sh.users = map[string]ids{}
	}
	sh.users[user] = sh.users[user].with(id)
}

// removeFromUser takes the id of a session that has ended from its user. mu is held.
func (sh *clientShard) removeFromUser(id ID, user string) {
	if ids := sh.users[user].without(id); len(ids.all) > 0 {
		sh.users[user] = ids
	} else {
		delete(sh.users, user)
	}
}

// ofUser adds the ids of a user's clients.
func (sh *clientShard) ofUser(ids []ID, user string) []ID {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return append(ids, sh.users[user].all...)
}

// after adds the clients whose ids come after one.
func (sh *clientShard) after(list *firsts[ClientInfo], after ID) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	add := func(who Identity, parked bool) {
		if bytes.Compare(who.ID[:], after[:]) > 0 {
			list.add(ClientInfo{who, parked})
		}
	}
	for _, s := range sh.sessions {
		add(s.identity(), false)
	}
	for _, p := range sh.parked {
		add(Identity{p.id, p.user}, p.by == nil)
	}
}

// remove takes s out, where the id leads to it.
func (sh *clientShard) remove(s *session) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.sessions[s.id] == s {
		delete(sh.sessions, s.id)
		sh.removeFromUser(s.id, s.name())
	}
}
