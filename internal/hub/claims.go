package hub

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/wire"
)

// A client whose session isn't here comes with its token: this node asks the one that has it. That is the one which gave
// the token out, or the one to which the session has gone since; where that is dead, see grants.go.

// claiming is one handshake that asks for a session; others that want the same wait for it.
type claiming struct {
	id    ID
	nonce uint64
	done  chan struct{}
}

var errGone = errors.New("the session's node seems to be gone, and nobody knows yet")

// mostTries is how often one handshake asks at most; its time ends before, but where nodes send it round.
const mostTries = 100

// comes has a session that isn't here be parked here, if r is its user's; with look it says only that it may be. r says then
// whose it is, and that it is here. It waits for other nodes, for seconds at most, or for ctx.
func (h *Hub) comes(ctx context.Context, addr netip.Addr, r *Resumption, user string, look bool) bool {
	c := h.cluster
	if !look && r.owner != ownerOf(r.ID, user) {
		return false
	}
	ctx, cancel := c.untilStop(ctx, claimMost)
	defer cancel()
	mine := c.moves.begin(ctx, r.ID)
	if mine == nil {
		return false
	}
	defer c.moves.finish(mine)
	if here, ok := h.wanted(r); here { // another handshake has brought it
		r.elsewhere = !ok
		return ok
	}
	a, from, err := h.claim(ctx, r, claimQuestion{ID: r.ID, Gen: r.gen, User: user, Look: look, Nonce: mine.nonce})
	if err == nil && a.Session != nil {
		err = c.rest(ctx, from, claimQuestion{ID: r.ID, Nonce: mine.nonce}, a.Session)
	}
	if err != nil { // it may be here again, that was on its way
		_, ok := h.wanted(r)
		r.elsewhere = !ok
		return ok
	}
	if r.User = a.User; look {
		return true
	}
	r.User = user
	if a.Session == nil || a.Session.User != user || !h.install(r.ID, a.Session, addr) {
		return false
	}
	r.elsewhere = false
	c.moves.took(r.ID, mine.nonce)
	if from != (broker.NodeID{}) {
		c.arrived(r.ID, mine.nonce, from)
	}
	h.openPut(ctx, r.ID)
	return true
}

// arrived tells the node that gave a session that it is here, and the one where it began.
func (c *cluster) arrived(id ID, nonce uint64, from broker.NodeID) {
	c.ask(from, callArrived, hasQuestion{id, nonce}, func([]byte, error) {}) // if that is lost it asks
	if began := nodeOf(id); began != from && began != c.id && c.sees(began) {
		c.ask(began, callMoved, id, func([]byte, error) {})
	}
}

// chase is one search for a session.
type chase struct {
	r *Resumption
	q claimQuestion

	at      broker.NodeID // that should have it
	lost    int           // how often that couldn't be asked
	gone    broker.NodeID // the node that had it, and is no more
	granted broker.NodeID // to which it was granted then, or has gone, as another says
	led     []broker.NodeID
	late    int // answers that didn't come in time
}

// patience is how long the next answer is waited for when so many have come too late: longer each time, since a busy node's may always
// do so.
func patience(late int) time.Duration { return claimTry << min(late, 2) }

// leads says that the session, whose node is gone, has gone to that one before: it is asked then, once.
func (c *cluster) leads(s *chase, to broker.NodeID) bool {
	if to == c.id || to == s.gone || slices.Contains(s.led, to) || !c.sees(to) {
		return false
	}
	s.led = append(s.led, to)
	s.at, s.granted, s.lost = to, to, 0
	return true
}

// wentTo is movedTo, once a session that is on its way from here has arrived, or is here again.
func (h *Hub) wentTo(ctx context.Context, id ID) (to broker.NodeID, moved bool) {
	if hd := h.handing(id); hd != nil {
		wait(ctx, hd.over)
	}
	return h.movedTo(id)
}

// leadsOn has a session that should be here, and isn't, be sought where it has gone on from here. False where nobody knows.
func (h *Hub) leadsOn(ctx context.Context, s *chase) bool {
	to, moved := h.wentTo(ctx, s.r.ID)
	switch {
	case moved:
		s.at, s.lost = to, 0
	case s.granted != (broker.NodeID{}): // nor has it the one to which it was granted, which led here
		s.at, s.lost = s.gone, 2
	default:
		return false
	}
	return true
}

// claim asks for a session, or for a look at it, wherever it is. from is the node that handed it over, none where it was
// granted.
func (h *Hub) claim(ctx context.Context, r *Resumption, q claimQuestion) (a claimAnswer, from broker.NodeID, err error) {
	c := h.cluster
	s := chase{r: r, q: q, at: r.node}
	for range mostTries {
		switch {
		case ctx.Err() != nil:
			return a, from, ErrTimeout
		case s.at == c.id:
			if !h.leadsOn(ctx, &s) {
				return a, from, ErrUnknownClient
			}
			continue
		case !c.sees(s.at) || s.lost > 1:
			here, err := h.seekHeir(ctx, &s)
			if err != nil {
				return a, from, err
			}
			if here && !q.Look {
				a.Session = &movedSession{User: q.User, Since: uint32(time.Now().Unix()), Gen: r.gen, Oldest: r.gen, Code: wire.CloseAbnormal}
			}
			if here {
				return a, from, nil
			}
			continue
		}
		if a, err = h.claimFrom(ctx, &s); err != nil || a.Session != nil || a.User != "" || a.Here {
			return a, s.at, err
		}
	}
	return a, from, ErrTimeout
}

// claimFrom asks one node. Without an error, and without a session or a look at it, s says which one comes next, or this
// one again.
func (h *Hub) claimFrom(ctx context.Context, s *chase) (a claimAnswer, err error) {
	try, cancel := context.WithTimeout(ctx, patience(s.late))
	defer cancel()
	a, err = askNode[claimAnswer](try, h.cluster, s.at, callSession, s.q)
	switch {
	case err == nil && a.Moved != nil:
		s.at, s.lost = *a.Moved, 0
		return claimAnswer{}, nil
	case err == nil:
		return a, nil
	case errors.Is(err, ErrTimeout): // it may be gone, and nobody has noticed
		s.late++
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrStopped):
		s.lost++
	case errors.Is(err, ErrUnknownClient) && s.at == s.granted: // nor will it: its handshake came to nothing
		s.at, s.lost = s.gone, 2
		return a, nil
	default:
		return a, err
	}
	pause(ctx)
	return a, nil
}

// rest asks for what of a session didn't fit into the answer that brought it. Where it isn't to be had the session is still on its
// way.
func (c *cluster) rest(ctx context.Context, from broker.NodeID, q claimQuestion, m *movedSession) error {
	for late := 0; m.Next > 0; {
		q.First = m.Next
		try, cancel := context.WithTimeout(ctx, patience(late))
		a, err := askNode[claimAnswer](try, c, from, callSession, q)
		cancel()
		switch {
		case err == nil && a.Session != nil:
			m.Rooms, m.Next = append(m.Rooms, a.Session.Rooms...), a.Session.Next
		case !errors.Is(err, ErrTimeout) && !errors.Is(err, ErrUnavailable):
			return ErrUnknownClient
		case ctx.Err() != nil || !c.sees(from):
			return ErrTimeout
		default:
			late++
			pause(ctx)
		}
	}
	return nil
}

// seekHeir finds out who has a session whose node is gone: here says that it is this one from now on, or may be.
func (h *Hub) seekHeir(ctx context.Context, s *chase) (here bool, err error) {
	c, id := h.cluster, s.r.ID
	s.gone = s.at
	to, moved := h.wentTo(ctx, id) // another handshake may have had it here, and another node have asked for it
	if h.has(id, func(string, uint32, uint32) bool { return true }) {
		return false, ErrUnknownClient // of another node; it is here again
	}
	if moved && c.leads(s, to) {
		return false, nil
	}
	next, found, err := h.inherit(ctx, s)
	switch {
	case errors.Is(err, errGone):
		s.lost = 1
		pause(ctx)
		return false, nil
	case err != nil:
		return false, err
	case next == s.at: // which has led there
		return false, nil
	case !found && next == c.id:
		return true, nil
	}
	s.at, s.granted, s.lost = next, broker.NodeID{}, 0
	if !found {
		s.granted = next
	}
	return false, nil
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
}

// openPut opens the rooms of a parked session that the server has put it into: at its resume their positions are told
// whether the client names them or not.
func (h *Hub) openPut(ctx context.Context, id ID) {
	names := h.putRooms(id)
	if len(names) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, claimTry)
	defer cancel()
	opened := make(chan error, len(names))
	for _, name := range names {
		h.use(name, func(err error) { opened <- err })
	}
	for range names {
		select {
		case <-opened:
		case <-ctx.Done(): // backWhenOpen then
		}
	}
	for _, name := range names {
		h.unuse(name) // its member keeps it open
	}
}

// unopened says that the room must be opened, and isn't yet.
func (h *Hub) unopened(r *room) bool {
	if h.cluster == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.remote != nil && !r.remote.open()
}

// backWhenOpen is backIn for such a room: it couldn't be opened when the session came to this node. Its client is in none
// until then.
func (s *session) backWhenOpen(r parkedRoom) {
	s.enterWhenOpen(r.name, r.put)
	s.hub.memberLeft(r.room, s.identity(), s, nil)
}

func (h *Hub) putRooms(id ID) (names []string) {
	sh := h.clientShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if p := sh.parked[id]; p != nil {
		for _, r := range p.rooms {
			if r.put && h.opens(r.name) {
				names = append(names, r.name)
			}
		}
	}
	return names
}

// begin has this node ask for a session, when no other handshake of its own does any more; nil where ctx ends before.
func (m *moves) begin(ctx context.Context, id ID) *claiming {
	mine := &claiming{id, rand.Uint64(), make(chan struct{})}
	for ctx.Err() == nil {
		other := m.beginOr(mine)
		if other == nil {
			return mine
		}
		wait(ctx, other.done)
	}
	return nil
}

func (m *moves) beginOr(mine *claiming) (other *claiming) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if other = m.claiming[mine.id]; other == nil {
		m.claiming[mine.id] = mine
	}
	return other
}

// finish is begin's end: from here on no answer to it counts any more.
func (m *moves) finish(mine *claiming) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.claiming, mine.id)
	close(mine.done)
}

// comes says whether a session comes from another node, or has just come.
func (m *moves) comes(id ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.claiming[id] != nil || m.came[id] > clock()
}

// claims says that a handshake of this node asks for the session.
func (m *moves) claims(id ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.claiming[id] != nil
}
