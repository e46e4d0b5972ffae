package hub

import (
	"iter"
	"net/netip"
	"sync"
	"sync/atomic"
)

// The ledger counts what the hub keeps: by kind, and for whom it is kept. Together with what the loop counts itself it
// is what --max-buffered-bytes bounds; and what one payer may take of it is small against the whole, so that nobody
// fills it for all. Hub.keep changes both sides at once; audit holds them against what is really there.

// Kind is a kind of what is kept.
type Kind uint8

// The kinds there are.
const (
	KeptHistory     Kind = iota // the messages of rooms
	KeptRooms                   // rooms that nobody is in
	KeptMemberships             // those of a client beyond the first few
	KeptPublishIDs              // publish_ids of the window
	KeptParked                  // sessions to be resumed, and the direct messages that wait for them
	KeptPresence                // who is in rooms that tell it, with their data
	KeptQuiet                   // what other nodes have told of rooms in which nothing comes
	KeptTails                   // what waits for those who listen
	KeptHooks                   // messages and calls that wait for the application's code; the last one, see Audit
	kinds
)

// The names of the kinds, as the metrics have them.
var kindNames = [kinds]string{"history", "rooms", "memberships", "publish_ids", "parked", "presence", "quiet_rooms", "tails", "hooks"}

func (k Kind) String() string { return kindNames[k] }

// payer is for whom something is kept: a session, and above it its user, over all sessions of that name, and its
// address where the server bounds these. What a session has left behind is still its user's and its address's. A nil
// one is the application, which pays for nothing.
type payer struct {
	bytes atomic.Int64
	most  int64
	up    [2]*payer // user, address; nil without

	events atomic.Int64 // calls that wait or run because of joins and leaves

	// Of its hooks; guarded by runs.mu.
	running int
	hooks   []*run // that wait for a place
	queued  bool   // it is in runs.queued

	// Of a user or an address alone.
	name     payerName // static
	sessions int       // that have it above them; guarded by payers.mu
}

// payerName is a user, or an address.
type payerName struct {
	user string
	addr netip.Addr
}

// payers finds those whom several sessions share.
type payers struct {
	mu  sync.Mutex // taken last
	all map[payerName]*payer
}

// addressShares is how many clients' shares one address may take.
const addressShares = 4

// newPayer is that of a new session of a user and an address; either may be missing.
func (h *Hub) newPayer(user string, addr netip.Addr) *payer {
	p := &payer{most: h.cfg().share}
	if user != "" {
		p.up[0] = h.payers.join(payerName{user: user}, h.cfg().share)
	}
	if addr.IsValid() {
		p.up[1] = h.payers.join(payerName{addr: addr}, addressShares*h.cfg().share)
	}
	return p
}

func (ps *payers) join(name payerName, most int64) *payer {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.all[name]
	if p == nil {
		p = &payer{most: most, name: name}
		ps.all[name] = p
	}
	p.sessions++
	return p
}

// leave is called when a session ends for good. What is still kept for it stays counted.
func (ps *payers) leave(session *payer) {
	if session == nil {
		return
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range session.up {
		if p != nil {
			p.sessions--
			ps.forget(p)
		}
	}
}

// settled is called when nothing is kept for p any more.
func (ps *payers) settled(p *payer) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.forget(p)
}

// forget drops one that nobody needs. ps.mu is held.
func (ps *payers) forget(p *payer) {
	if p.sessions == 0 && p.bytes.Load() == 0 && ps.all[p.name] == p {
		delete(ps.all, p.name)
	}
}

// may says that n more bytes stay within the shares of p. Whoever has nothing yet may have anything: no bound on a
// share forbids what another limit allows. Any goroutine.
func (p *payer) may(n int64) bool {
	if p == nil {
		return true
	}
	return p.mayItself(n) && p.up[0].mayItself(n) && p.up[1].mayItself(n)
}

func (p *payer) mayItself(n int64) bool {
	if p == nil {
		return true
	}
	has := p.bytes.Load()
	return has == 0 || has+n <= p.most
}

// over says that p has more than one of its shares, and more than these n bytes. Any goroutine.
func (p *payer) over(n int64) bool {
	if p == nil {
		return false
	}
	for _, each := range []*payer{p, p.up[0], p.up[1]} {
		if each == nil {
			continue
		}
		if has := each.bytes.Load(); has > each.most && has > n {
			return true
		}
	}
	return false
}

// charge counts n more bytes, or less, for p. With Hub.count it is the ledger's other side: use keep where both change.
func (h *Hub) charge(p *payer, n int64) {
	if p == nil || n == 0 {
		return
	}
	p.bytes.Add(n)
	for _, up := range p.up {
		if up != nil && up.bytes.Add(n) == 0 {
			h.payers.settled(up)
		}
	}
}

// count counts n more bytes of a kind, or less.
func (h *Hub) count(k Kind, n int64) {
	if n != 0 {
		h.kept[k].Add(n)
		h.loop.Keep(n)
	}
}

// keep counts n more bytes of a kind, or less, for p, which may be nil. Any goroutine.
func (h *Hub) keep(k Kind, p *payer, n int64) {
	h.charge(p, n)
	h.count(k, n)
}

// Kinds are all there are.
func Kinds() iter.Seq[Kind] {
	return func(yield func(Kind) bool) {
		for k := Kind(0); k < kinds && yield(k); k++ {
		}
	}
}

// Kept is how many bytes of a kind are kept. Any goroutine.
func (h *Hub) Kept(k Kind) int64 { return h.kept[k].Load() }

// allKept is all that is kept.
func (h *Hub) allKept() (n int64) {
	for k := range h.kept {
		n += h.kept[k].Load()
	}
	return n
}
