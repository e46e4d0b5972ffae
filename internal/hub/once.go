package hub

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// A publish_id counts on all nodes. In a room with history its log sees to that. In one without, the node where a message
// is published asks the id's home before, and tells it afterwards; so a client that tries again on another node publishes
// nothing twice. Who published it remembers it as well, and brings it to another home when nodes have come or gone.

// publishHash is a publishKey to other nodes.
type publishHash [16]byte

func (k publishKey) hash() (h publishHash) {
	sum := sha256.Sum256([]byte(k.text()))
	copy(h[:], sum[:])
	return h
}

const (
	claimCost = 160    // what a claim counts for
	claimsFor = 30_000 // milliseconds until a claim of which nothing is heard any more holds nobody up
)

// claims is what a home knows of publish_ids.
type claims struct {
	mu    sync.Mutex
	all   map[publishHash]claim
	order []claimEnd
	ended int // how many were before the first of order

	homes // whose home this node is
}

// claim is a publish_id that was published, or just now is.
type claim struct {
	by    broker.NodeID
	at    int64 // when it was claimed
	until int64 // when it is forgotten
	done  bool
}

// claimEnd has a claim forgotten, unless it has another end by then.
type claimEnd struct {
	id    publishHash
	until int64
}

// tidy forgets what is older than the window.
func (cs *claims) tidy(h *Hub, now int64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	n := 0
	for ; n < len(cs.order) && cs.order[n].until <= now; n++ {
		if end := cs.order[n]; cs.all[end.id].until == end.until {
			delete(cs.all, end.id)
		}
	}
	cs.order, cs.ended = cs.order[n:], cs.ended+n
	if len(cs.order) == 0 {
		cs.all, cs.order = nil, nil
	}
	h.count(KeptPublishIDs, -int64(n)*claimCost)
}

// each calls f for so many of what was published, from a place on, and says how many milliseconds it counts still; next
// is the place behind, 0 where that was all.
func (cs *claims) each(from, most int, f func(id publishHash, left int64)) (next int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	now := clock()
	i := max(0, from-cs.ended)
	for ; i < len(cs.order) && most > 0; i++ {
		end := cs.order[i]
		if c := cs.all[end.id]; c.done && c.until == end.until && c.until > now {
			f(end.id, c.until-now)
			most--
		}
	}
	if i >= len(cs.order) {
		return 0
	}
	return cs.ended + i
}

// bytes is what the claims count for.
func (cs *claims) bytes() int64 {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return int64(len(cs.order)) * claimCost
}

// set notes a claim. cs.mu is held.
func (cs *claims) set(h *Hub, id publishHash, c claim) {
	if cs.all == nil {
		cs.all = map[publishHash]claim{}
	}
	if cs.all[id].until != c.until {
		cs.order = append(cs.order, claimEnd{id, c.until})
		h.count(KeptPublishIDs, claimCost)
	}
	cs.all[id] = c
}

// errClaimed says that a message is published by its id just now, through another node.
var errClaimed = &protocol.Error{Code: protocol.Unavailable, Message: "a message with this publish_id is being published through another node: try again"}

// claim asks whether a node may publish; duplicate says that it was published. One node may claim an id several times:
// it publishes once all the same.
func (c *cluster) claim(by broker.NodeID, id publishHash) (duplicate bool, err error) {
	h, cs, now := c.hub, &c.claims, clock()
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch old := cs.all[id]; {
	case old.until > now && old.done:
		return true, nil
	case old.until > now && old.by != by && now < old.at+claimsFor && c.sees(old.by):
		return false, errClaimed
	case !cs.knowsAllOf(c, id, now):
		return false, errHomesMove
	}
	if h.stopping() || h.loop.Overloaded() {
		return false, ErrOverloaded
	}
	cs.set(h, id, claim{by: by, at: now, until: now + h.cfg().DedupWindow.Milliseconds()})
	return false, nil
}

// sees says that a node is there.
func (c *cluster) sees(n broker.NodeID) bool {
	peers, _ := c.view()
	return n == c.id || slices.ContainsFunc(peers, func(p broker.Peer) bool { return p.ID == n })
}

// publishedID is one that was published, and for how long it counts, in milliseconds.
type publishedID struct {
	ID   []byte `json:"id"`
	Left int64  `json:"left"`
}

// published notes what a node has published.
func (c *cluster) published(by broker.NodeID, ids []publishedID) {
	cs, now := &c.claims, clock()
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, p := range ids {
		if len(p.ID) != len(publishHash{}) || p.Left <= 0 || c.hub.stopping() {
			continue
		}
		id := publishHash(p.ID)
		until := now + min(p.Left, c.hub.cfg().DedupWindow.Milliseconds())
		if old := cs.all[id]; old.until > now { // its end stays, so that few are kept of each
			until = old.until
		}
		cs.set(c.hub, id, claim{by: by, until: until, done: true})
	}
}

// release forgets what a node has claimed, and not published.
func (c *cluster) release(by broker.NodeID, id publishHash) {
	cs := &c.claims
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if old := cs.all[id]; old.by == by && !old.done {
		delete(cs.all, id)
	}
}

var errBadID = errors.New("no hash of a publish_id")

func readHash(question []byte) (id publishHash, err error) {
	var b []byte
	if err = json.Unmarshal(question, &b); err == nil && len(b) != len(id) {
		err = errBadID
	}
	copy(id[:], b)
	return id, err
}

func answerClaim(h *Hub, from broker.NodeID, question []byte, reply func(any, error)) {
	id, err := readHash(question)
	if err != nil {
		reply(nil, err)
		return
	}
	reply(h.cluster.claim(from, id))
}

func answerRelease(h *Hub, from broker.NodeID, question []byte, reply func(any, error)) {
	id, err := readHash(question)
	if err == nil {
		h.cluster.release(from, id)
	}
	reply(nil, err)
}

func answerPublished(h *Hub, from broker.NodeID, question []byte, reply func(any, error)) {
	var p publishedID
	err := json.Unmarshal(question, &p)
	if err == nil {
		h.cluster.published(from, []publishedID{p})
	}
	reply(nil, err)
}

// asksAgain is how long a node waits at first before it asks the home again, twice as long each time, and asksUpTo when it
// gives up: some 6 s in all, by when a node that has died isn't held for being there any more.
const (
	asksAgain = 25 * time.Millisecond
	asksUpTo  = 4 * time.Second
)

// onceOnNodes is once for all nodes, in a room without history. done is called once, at once or later; and so is publish,
// at most, before that.
func (h *Hub) onceOnNodes(key publishKey, p *payer, publish func() (history.Position, error), done func(duplicate bool, err error)) {
	(&askingHome{h: h, key: key, id: key.hash(), payer: p, publish: publish, done: done, wait: asksAgain}).ask()
}

// askingHome is a publish that asks its home.
type askingHome struct {
	h       *Hub
	key     publishKey
	id      publishHash
	payer   *payer
	publish func() (history.Position, error)
	done    func(duplicate bool, err error)

	home broker.NodeID
	wait time.Duration // until it asks again
}

func (a *askingHome) ask() {
	c := a.h.cluster
	if a.h.remembers(a.key) {
		a.done(true, nil)
		return
	}
	if a.home = c.home(string(a.id[:])); a.home == c.id {
		a.answered(c.claim(c.id, a.id))
		return
	}
	c.ask(a.home, callClaim, a.id[:], func(answer []byte, err error) {
		var duplicate bool
		err = decodeAnswer(answer, err, &duplicate)
		a.answered(duplicate, err)
	})
}

// answered publishes where the home lets it. Where nobody knows just now whether it may, it asks again.
func (a *askingHome) answered(duplicate bool, err error) {
	c, tried := a.h.cluster, false
	if err == nil && !duplicate {
		_, duplicate, err = a.h.once(a.key, a.payer, func() (at history.Position, err error) {
			if c.home(string(a.id[:])) != a.home { // under the lock under which another home is told of what is remembered
				return at, errHomesMove
			}
			tried = true
			return a.publish()
		})
		if err == nil {
			c.tellHome(a.home, publishedID{a.id[:], a.h.cfg().DedupWindow.Milliseconds()})
		}
	}
	if err != nil {
		a.giveBack()
	}
	if err != nil && !tried && !errors.Is(err, ErrOverloaded) {
		if !c.cutOff() && a.wait < asksUpTo && !a.h.stopping() {
			wait := a.wait
			a.wait *= 2 // before another goroutine has it
			time.AfterFunc(wait, a.ask)
			return
		}
		err = ErrUnavailable // whatever it was: nothing was published
	}
	a.done(duplicate, err)
}

// giveBack takes back the claim, where there is one.
func (a *askingHome) giveBack() {
	c := a.h.cluster
	if a.home == c.id {
		c.release(c.id, a.id)
		return
	}
	c.ask(a.home, callRelease, a.id[:], func([]byte, error) {})
}

// tellHome tells what this node has published. Where that fails the home is gone, or asks for it when it is back.
func (c *cluster) tellHome(home broker.NodeID, p publishedID) {
	if home == c.id {
		c.published(c.id, []publishedID{p})
		return
	}
	c.ask(home, callPublished, p, func([]byte, error) {})
}

// remembers says that this node has published by that key.
func (h *Hub) remembers(key publishKey) bool {
	d := h.memory(key)
	d.mu.Lock()
	defer d.mu.Unlock()
	h.forget(d, clock())
	_, is := d.seen[key]
	return is
}

// publishOnNodes is roomMessage for a room without history, where the hub isn't alone.
func (s *session) publishOnNodes(name string, cmd *protocol.Command) {
	h, m := s.hub, s.message(protocol.RoomMessage, cmd)
	m.Room = name
	if policy, _ := s.policyOf(cmd.Room); !policy.IncludeSender {
		m.Except = m.From
	}
	later := cmd.PublishID != nil
	var full *loop.Worker
	publish := func() (at history.Position, err error) {
		sh := h.roomShard(name)
		sh.mu.Lock()
		defer sh.mu.Unlock()
		if h.stopping() {
			return at, ErrStopped
		}
		from := s
		switch {
		case m.Except == "":
			from = nil
		case later:
			from = h.here(s.id) // it may have come back over another connection meanwhile
		}
		at, full, err = h.publishHere(sh, m, from, nil)
		return at, err
	}
	if !later {
		if _, err := publish(); err != nil {
			s.answerError(unavailable(err), cmd.ID)
			return
		}
		s.published(cmd, history.Position{}, false, full)
		return
	}
	o := s.ask(cmd, operation{room: name}) // what comes behind it in the room waits: it would overtake it
	h.onceOnNodes(s.publishKey(cmd), s.payer(), publish, func(duplicate bool, err error) {
		o.end(func() {
			if err != nil {
				s.answerError(unavailable(err), o.id)
				return
			}
			s.published(&protocol.Command{ID: o.id}, history.Position{}, duplicate, full)
		})
	})
}

// publishOnce is Publish in a room without history by a PublishID, where the hub isn't alone. It waits for the id's home.
func (h *Hub) publishOnce(ctx context.Context, p *Publication) (duplicate bool, err error) {
	type outcome struct {
		duplicate bool
		err       error
	}
	done := make(chan outcome, 1)
	h.onceOnNodes(p.publishKey(), nil, func() (history.Position, error) { return h.publishToRoom(p) }, func(duplicate bool, err error) {
		done <- outcome{duplicate, err}
	})
	select {
	case o := <-done:
		return o.duplicate, o.err
	case <-ctx.Done():
		return false, fmt.Errorf("%w: %w", ErrTimeout, ctx.Err())
	}
}
