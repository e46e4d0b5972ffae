package hub

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/sparselog"
)

// Hub knows who is where and decides who gets what.
type Hub struct {
	// Static after New and Start.
	loop    *loop.Loop
	workers []*workerState

	settings atomic.Pointer[settings] // see cfg
	cluster  *cluster                 // nil where the hub is alone
	everyone *room                    // all sessions: those that a chat reaches
	rooms    [shards]roomShard
	clients  [shards]clientShard
	kept     [kinds]atomic.Int64
	payers   payers
	relieve  atomic.Int64 // when Relieve may go over the rooms again, by clock

	told      atomic.Bool // see occupied.go
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
	h := &Hub{payers: payers{all: map[payerName]*payer{}}, stop: make(chan struct{}), swept: make(chan struct{})}
	h.settings.Store(newSettings(cfg, 0))
	h.told.Store(toldEvents(&cfg))
	h.cluster = newCluster(h)
	h.ComeBackWithin(2 * time.Second)
	for i := range h.rooms {
		h.rooms[i].rooms = map[string]*room{}
		h.clients[i].sessions = map[ID]*session{}
	}
	h.runs.init(h)
	h.limits.goBy(h.cfg())
	return h
}

// Start gives the hub the loop whose workers serve its sessions.
func (h *Hub) Start(l *loop.Loop) {
	h.loop = l
	h.everyone = &room{mu: new(sync.Mutex)}
	h.everyone.is.Store(h.cfg().everyone)
	if h.cluster != nil {
		h.everyone.remote = &remote{topic: part{needed: true}}
		defer h.listenToAll()
	}
	for range l.Workers() {
		h.workers = append(h.workers, &workerState{speakers: speakers(h.cfg().Dialects), everyone: make([]*local, len(h.cfg().Dialects))})
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
