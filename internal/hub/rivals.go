package hub

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"example.com/hubbub/broker"
)

// Two nodes that couldn't hear each other may have a session both: one was given it while the other seemed to be gone. When
// they can, one of them has it: the one whose client has resumed it more often. Where the other one has given it on meanwhile it
// is sought there.

// rivalID is a session that is here, and the generation that it has.
type rivalID struct {
	ID    ID     `json:"id"`
	Gen   uint32 `json:"gen"`
	doubt uint64 // its number
}

// judged is what a node says of them.
type judged struct {
	Kept  []ID      `json:"kept,omitempty"`  // are with that node
	Moved []movedID `json:"moved,omitempty"` // went on from there to others
	Again []ID      `json:"again,omitempty"` // come there, go or are resumed just then: nobody knows yet
}

type movedID struct {
	ID ID            `json:"id"`
	To broker.NodeID `json:"to"`
}

// rivalsAtOnce is how many one call has.
const rivalsAtOnce = 500

// tellRivals tells a node of the sessions that it may have as well, and gives up those that it keeps.
func (h *Hub) tellRivals(node broker.NodeID) {
	c := h.cluster
	m := &c.moves
	defer m.told(node)
	all := m.rivalsOf(node, h)
	ctx, cancel := c.untilStop(context.Background(), claimMost)
	defer cancel()
	for len(all) > 0 {
		some := all[:min(len(all), rivalsAtOnce)]
		all = all[len(some):]
		says, err := askNode[judged](ctx, c, node, callRivals, some)
		if err != nil {
			return // the next time
		}
		some = slices.DeleteFunc(some, func(r rivalID) bool {
			return slices.Contains(says.Again, r.ID) ||
				slices.Contains(says.Kept, r.ID) && !h.yield(ctx, node, r.ID, func(gen uint32) bool { return gen == r.Gen })
		})
		m.settled(node, some, slices.DeleteFunc(says.Moved, func(w movedID) bool { return w.To == c.id || w.To == node }))
	}
}

func (m *moves) told(node broker.NodeID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.asking, node)
}

// settled forgets what a node has answered of, but for what was noted anew since it was asked: it may have got that meanwhile. Some
// are sought elsewhere for as long as they would have been there.
func (m *moves) settled(node broker.NodeID, some []rivalID, moved []movedID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range moved {
		if d, is := m.rivals[node][w.ID]; is {
			m.rival(w.To, w.ID, d.until)
		}
	}
	for _, r := range some {
		if m.rivals[node][r.ID].number == r.doubt {
			delete(m.rivals[node], r.ID)
		}
	}
}

// rivalsOf are those of a node that are here still.
func (m *moves) rivalsOf(node broker.NodeID, h *Hub) (all []rivalID) {
	m.mu.Lock()
	ids := maps.Clone(m.rivals[node])
	m.mu.Unlock()
	for id, d := range ids {
		h.has(id, func(_ string, _, gen uint32) bool {
			all = append(all, rivalID{id, gen, d.number})
			return true
		})
	}
	return all
}

// brought notes that a session comes here from another node. What that has asked before (tellRivals) tells of it as its own.
func (m *moves) brought(id ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.came[id] = clock() + 2*claimMost.Milliseconds()
}

// judge says which of another node's sessions are here, too, and stay, and where others went on; the rest ends here, in silence.
func (h *Hub) judge(ctx context.Context, from broker.NodeID, theirs []rivalID) (j judged) {
	for _, r := range theirs {
		unknown := h.cluster.moves.comes(r.ID) || h.handing(r.ID) != nil // before what follows
		here, stays := false, false
		h.has(r.ID, func(_ string, _, gen uint32) bool {
			here = true
			stays = gen > r.Gen || gen == r.Gen && bytes.Compare(h.cluster.id[:], from[:]) > 0
			return true
		})
		switch to, moved := h.movedTo(r.ID); {
		case stays:
			j.Kept = append(j.Kept, r.ID)
		case here:
			if unknown || !h.yield(ctx, from, r.ID, func(gen uint32) bool { return gen <= r.Gen }) {
				j.Again = append(j.Again, r.ID)
			}
		case unknown:
			j.Again = append(j.Again, r.ID)
		case moved:
			j.Moved = append(j.Moved, movedID{r.ID, to})
		}
	}
	return j
}

// yield ends a session here that another node has; what waits for it goes there. False where it isn't ok any more, or doesn't end
// in time.
func (h *Hub) yield(ctx context.Context, to broker.NodeID, id ID, ok func(gen uint32) bool) bool {
	hd, err := h.take(ctx, id, to, 0, func(_ string, _, gen uint32) bool { return ok(gen) })
	if err == nil {
		h.arrived(hd)
	}
	return err == nil
}

// Leave gives the parked sessions to other nodes, since this one stops: whoever comes with a token of one finds it there. It
// is for when no connection is left, and waits until they have them, or for ctx.
func (h *Hub) Leave(ctx context.Context) {
	c := h.cluster
	if c == nil {
		return
	}
	ctx, cancel := c.untilStop(ctx, leaveTime)
	defer cancel()
	c.moves.leave()
	ids := make(chan ID)
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for id := range ids {
				h.leaveOne(ctx, id)
			}
		})
	}
	for i := range h.clients {
		for _, id := range h.clients[i].parkedIDs() {
			ids <- id
		}
	}
	close(ids)
	all.Wait()
	c.sayLeft(ctx)
}

const leaveTime = 10 * time.Second

// leave has no more sessions be brought here.
func (m *moves) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leaving = true
}

func (m *moves) leaves() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leaving
}

func (sh *clientShard) parkedIDs() (all []ID) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for id := range sh.parked {
		all = append(all, id)
	}
	return all
}

type bringQuestion struct {
	ID      ID            `json:"id"`
	Nonce   uint64        `json:"nonce"`
	Session *movedSession `json:"session"`
}

// leaveOne gives one session to another node, or to a next one where that doesn't take it.
func (h *Hub) leaveOne(ctx context.Context, id ID) {
	c := h.cluster
	tried := map[broker.NodeID]bool{c.id: true}
	for ctx.Err() == nil {
		to, ok := c.heir(id, func(n broker.NodeID) bool { return tried[n] })
		if !ok {
			return
		}
		tried[to] = true
		nonce := rand.Uint64()
		hd, err := h.take(ctx, id, to, nonce, func(string, uint32, uint32) bool { return true })
		if err != nil {
			return // it has gone meanwhile
		}
		switch err = c.brings(ctx, to, bringQuestion{id, nonce, h.packed(hd, 0)}); {
		case err == nil, ctx.Err() != nil: // or nobody will know any more: as settleHandings
			h.arrived(hd)
			return
		case errors.Is(err, ErrTimeout): // it may have it all the same
			c.moves.doubt(id, h.doubtTime())
		}
		h.parkedAgain(hd)
	}
}

// brings asks a node to take a session until that has said whether it has it. ErrTimeout where it is gone, and may have it; the
// others say that it hasn't.
func (c *cluster) brings(ctx context.Context, to broker.NodeID, q bringQuestion) (err error) {
	for asked := false; ; asked = true {
		_, err = askNode[hasAnswer](ctx, c, to, callBring, q)
		lost := errors.Is(err, ErrTimeout)
		switch {
		case err == nil || ctx.Err() != nil || !asked && !lost:
			return err
		case !lost || !c.sees(to): // it may have taken it, and gone on with it
			return ErrTimeout
		}
		pause(ctx)
	}
}

// bring takes in a session of a node that stops.
func (h *Hub) bring(ctx context.Context, from broker.NodeID, q bringQuestion) error {
	c := h.cluster
	switch {
	case q.Nonce != 0 && c.moves.tookBy(q.ID, q.Nonce):
		return nil // the answer to another try was lost
	case c.moves.leaves() || h.stopping() || q.Session == nil:
		return ErrStopped
	}
	mine := c.moves.begin(ctx, q.ID)
	if mine == nil {
		return ErrTimeout
	}
	defer c.moves.finish(mine)
	if h.has(q.ID, func(string, uint32, uint32) bool { return true }) {
		if q.Nonce == 0 {
			return nil // it was brought before, by a node of an older version
		}
		return h.takeDirects(ctx, q.ID, heldPart{Of: q.Nonce}, q.Session.Directs) // it came in another way; what waited there for it is its
	}
	if err := c.rest(ctx, from, claimQuestion{ID: q.ID, Nonce: q.Nonce}, q.Session); err != nil {
		return err
	}
	if !h.install(q.ID, q.Session, none) {
		return ErrStopped // meanwhile: it goes to the next node
	}
	c.moves.took(q.ID, q.Nonce)
	return nil
}
