package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"example.com/hubbub/broker"
)

// A client whose id leads nowhere is sought on all nodes. What is sought at the same time is asked in one question, so
// that who names clients that never were costs each node little.

const (
	maxSought   = 256                   // clients in one question
	maxSeekers  = 4096                  // who wait for an answer at a time
	maxFinds    = 4                     // questions under way at a time: one may wait for a node that is slow
	maxFound    = 4096                  // clients of which it is remembered where they were
	findWithin  = time.Second           // how long a node may take to answer
	movingPause = 20 * time.Millisecond // how long a client is given that moves, before it is asked for again
	movingTries = 10                    // and how often that is done: much longer than an answer takes that brings it
)

// finder seeks clients. Guarded by mu, below which nothing is taken.
type finder struct {
	mu      sync.Mutex
	waiting map[ID][]func(broker.NodeID, error) // by client, who wants to know of it
	next    []ID                                // of these, the ones that no question has yet
	seekers int
	asking  int // questions under way

	found map[ID]broker.NodeID // clients that have been found far from where they began; may be old
}

// find tells which node has a client, this one or another, or ErrUnknownClient where all have said no, ErrUnavailable
// where that isn't known, ErrOverloaded. done is called once, perhaps before find returns. It doesn't block.
func (c *cluster) find(id ID, done func(broker.NodeID, error)) {
	f := &c.across.finder
	f.mu.Lock()
	if f.seekers >= maxSeekers {
		f.mu.Unlock()
		done(broker.NodeID{}, ErrOverloaded)
		return
	}
	defer f.mu.Unlock()
	f.seekers++
	if f.waiting == nil {
		f.waiting = map[ID][]func(broker.NodeID, error){}
	}
	if f.waiting[id] == nil {
		f.next = append(f.next, id)
	}
	f.waiting[id] = append(f.waiting[id], done)
	if f.asking < maxFinds {
		f.asking++
		go c.findAll()
	}
}

// whoHas is find, and waits for the answer or for ctx.
func (c *cluster) whoHas(ctx context.Context, id ID) (broker.NodeID, error) {
	type outcome struct {
		node broker.NodeID
		err  error
	}
	done := make(chan outcome, 1)
	c.find(id, func(n broker.NodeID, err error) { done <- outcome{n, err} })
	select {
	case o := <-done:
		return o.node, o.err
	case <-ctx.Done():
		return broker.NodeID{}, fmt.Errorf("%w: no answer to who has the client: %w", ErrUnavailable, ctx.Err())
	}
}

// findAll asks for all that are sought, until none is.
func (c *cluster) findAll() {
	f := &c.across.finder
	for {
		f.mu.Lock()
		if len(f.next) == 0 {
			f.asking--
			f.mu.Unlock()
			return
		}
		n := min(maxSought, len(f.next))
		ids := append([]ID(nil), f.next[:n]...)
		f.next = append([]ID(nil), f.next[n:]...)
		f.mu.Unlock()
		c.findThese(ids)
	}
}

// findThese asks all nodes for some clients, and tells each seeker as soon as it is known. One that has just left a node
// and isn't on the other one yet is asked for again.
func (c *cluster) findThese(ids []ID) {
	ctx, cancel := context.WithTimeout(context.Background(), findWithin)
	defer cancel()
	for range movingTries {
		ids = c.findOnce(ctx, ids, true)
		if len(ids) == 0 {
			return
		}
		select {
		case <-time.After(movingPause):
		case <-c.hub.stop:
		}
	}
	c.findOnce(ctx, ids, false)
}

// findOnce gives the clients that no node has, and of which one says that they have moved; none where there is no patience left
// for that.
func (c *cluster) findOnce(ctx context.Context, ids []ID, patient bool) (moved []ID) {
	left := map[ID]error{} // and why a no isn't one
	for _, id := range ids {
		left[id] = nil
	}
	heard := func(n broker.NodeID, where []whereabouts, err error) {
		if err == nil && len(where) != len(ids) {
			err = errUnknownCall
		}
		for i, id := range ids {
			switch before, is := left[id]; {
			case !is:
			case err != nil:
				left[id] = fmt.Errorf("%w: node %x: %w", ErrUnavailable, n, err)
			case where[i] == isHere:
				delete(left, id)
				c.tellFound(id, n, nil)
			case where[i] == hasMoved && patient && (before == nil || before == errGoneToo):
				left[id] = errMoving
			case where[i] == inDoubt && before == nil:
				left[id] = errGoneToo
			}
		}
	}
	heard(c.id, c.hub.whereAre(ids), nil)
	peers, cut := c.view()
	c.askEach(ctx, peers, callSeek, ids, func(n broker.NodeID, answer []byte, err error) {
		var where []whereabouts
		err = decodeAnswer(answer, err, &where)
		heard(n, where, err)
	})
	for id, err := range left {
		switch {
		case err == errMoving:
			moved = append(moved, id)
			continue
		case err == nil && cut:
			err = errCut
		case err == nil:
			err = ErrUnknownClient
		}
		c.tellFound(id, broker.NodeID{}, err)
	}
	return moved
}

var (
	errMoving  = errors.New("the client is moving from node to node")
	errGoneToo = fmt.Errorf("%w: a node is gone that may have the client, and may come back", ErrUnavailable)
	errCut     = fmt.Errorf("%w: this node is cut off from the others", ErrUnavailable)
)

// askEach asks nodes, and has heard called for each, by this goroutine and in the order of their answers: with
// ErrTimeout for those that haven't answered when ctx ends. It blocks until then.
func (c *cluster) askEach(ctx context.Context, nodes []broker.Peer, kind callKind, question any, heard func(n broker.NodeID, answer []byte, err error)) {
	type answer struct {
		node broker.NodeID
		body []byte
		err  error
	}
	answers, missing := make(chan answer, len(nodes)), map[broker.NodeID]bool{}
	for _, p := range nodes {
		missing[p.ID] = true
		c.ask(p.ID, kind, question, func(body []byte, err error) { answers <- answer{p.ID, body, err} })
	}
	for len(missing) > 0 {
		select {
		case a := <-answers:
			delete(missing, a.node)
			heard(a.node, a.body, a.err)
		case <-ctx.Done():
			for n := range missing {
				heard(n, nil, ErrTimeout)
			}
			return
		}
	}
}

// tellFound tells all who seek a client.
func (c *cluster) tellFound(id ID, n broker.NodeID, err error) {
	f := &c.across.finder
	f.mu.Lock()
	seekers := f.waiting[id]
	delete(f.waiting, id)
	f.seekers -= len(seekers)
	if err == nil && n != c.id && n != nodeOf(id) {
		if len(f.found) >= maxFound || f.found == nil {
			f.found = map[ID]broker.NodeID{}
		}
		f.found[id] = n
	}
	f.mu.Unlock()
	for _, done := range seekers {
		done(n, err)
	}
}

// lastAt is where a client was found last, far from where it began.
func (c *cluster) lastAt(id ID) (broker.NodeID, bool) {
	f := &c.across.finder
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.found[id]
	return n, ok
}

// notAt forgets that a client was found on a node.
func (c *cluster) notAt(id ID, n broker.NodeID) {
	f := &c.across.finder
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.found[id] == n {
		delete(f.found, id)
	}
}

// whereabouts is what a node says of a client that is sought.
type whereabouts int

const (
	isUnknown whereabouts = iota
	isHere
	hasMoved // to another node, which says that it is there as soon as it is
	inDoubt  // it may be on a node that is gone; to a node that doesn't know of this it is isUnknown
)

// whereAre says of each client whether it is here.
func (h *Hub) whereAre(ids []ID) []whereabouts {
	all, misses := make([]whereabouts, len(ids)), h.cluster.moves.misses()
	for i, id := range ids {
		to, moved := h.movedTo(id)
		if !moved {
			to = nodeOf(id)
		}
		switch sees := h.cluster.sees(to); {
		case h.hasClient(id):
			all[i] = isHere
		case sees && moved:
			all[i] = hasMoved
		case !sees && misses: // who would know can't say where it has gone on from there
			all[i] = inDoubt
		}
	}
	return all
}

// hasClient says that a client is here, connected or to be resumed.
func (h *Hub) hasClient(id ID) bool {
	sh := h.clientShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.sessions[id] != nil || sh.waits(id) != nil
}

// answerSeek is the call of findThese.
func answerSeek(h *Hub, _ broker.NodeID, question []byte, reply func(any, error)) {
	var ids []ID
	if err := json.Unmarshal(question, &ids); err != nil || len(ids) > maxSought || h.cluster == nil {
		reply(nil, errUnknownCall)
		return
	}
	reply(h.whereAre(ids), nil)
}
