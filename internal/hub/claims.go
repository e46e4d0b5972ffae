package hub

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
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

// mostMoves is how often a session has moved at most behind a client's back, as far as it is followed.
const mostMoves = 8

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
	a, from, err := h.claim(ctx, r, claimQuestion{r.ID, r.gen, user, look, mine.nonce})
	if err != nil {
		return false
	}
	if r.User = a.User; look {
		return true
	}
	r.User = user
	if a.Session.User != user || !h.install(r.ID, a.Session, addr) {
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

// claim asks for a session, or for a look at it, wherever it is. from is the node that handed it over, none where it was
// granted.
func (h *Hub) claim(ctx context.Context, r *Resumption, q claimQuestion) (a claimAnswer, from broker.NodeID, err error) {
	c := h.cluster
	at, gone, granted, began, lost := r.node, broker.NodeID{}, broker.NodeID{}, time.Now(), 0
	if at == c.id {
		if to, moved := h.whereTo(r.ID); moved {
			at = to
		}
	}
	for hops := 0; hops < mostMoves && ctx.Err() == nil; {
		if at == c.id {
			return a, at, ErrUnknownClient
		}
		if !c.sees(at) || lost > 1 {
			gone = at
			next, here, err := h.inherit(ctx, r, at, granted, q.Look)
			switch {
			case errors.Is(err, errGone):
				lost = 1
				pause(ctx)
				continue
			case err != nil:
				return a, at, err
			case next == c.id:
				if q.Look {
					return a, at, nil
				}
				a.Session = &movedSession{User: q.User, Since: uint32(time.Now().Unix()), Gen: r.gen, Oldest: r.gen, Moves: 1, Code: wire.CloseAbnormal}
				return a, broker.NodeID{}, nil
			case here:
				at, granted, lost = next, broker.NodeID{}, 0
			default:
				at, granted, lost = next, next, 0
			}
			hops++
			continue
		}
		try, cancel := context.WithTimeout(ctx, claimTry)
		a, err = askNode[claimAnswer](try, c, at, callSession, q)
		cancel()
		switch {
		case err == nil && a.Moved != nil:
			at, lost = *a.Moved, 0
			hops++
		case err == nil:
			return a, at, nil
		case errors.Is(err, ErrTimeout) && time.Since(began) < claimWait:
			pause(ctx)
		case errors.Is(err, ErrUnavailable):
			lost++
			pause(ctx)
		case errors.Is(err, ErrUnknownClient) && at == granted: // nor will it: its handshake came to nothing
			at, lost = gone, 2
			hops++
		default:
			return a, at, err
		}
	}
	return a, at, ErrTimeout
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
	for _, name := range h.putRooms(id) {
		opened := make(chan error, 1)
		h.use(name, func(err error) { opened <- err })
		select {
		case <-opened:
		case <-ctx.Done():
		}
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

// claims says that a handshake of this node asks for the session.
func (m *moves) claims(id ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.claiming[id] != nil
}
