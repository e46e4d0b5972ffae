package hub

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/presence"
	"example.com/hubbub/internal/protocol"
)

// What nodes tell each other of who is in a room, beside its messages (topics.go). Of a room whose presence is full each
// node with members knows all of them: it tells the room's topic of its own, and asks the others for theirs when it begins
// to hear the topic, or may have missed something (package presence; docs/decisions/0016-nodes.md).

// toldNews is what stands before a presence.News in JSON: what a node tells of its members.
const toldNews = 2

const (
	tellAfter   = 100 * time.Millisecond // news of members are collected for the other nodes
	repeatAfter = 5 * time.Second        // then it is told once more how many there are: who has missed the last news asks
	askAgain    = time.Second            // after what a node was told, or asked, has failed, or was no answer
	heldFor     = 5 * time.Second        // how long who moves to another node is still told to be here
)

// together is what a room has where its presence is full and there are other nodes. Guarded by the room's mu.
type together struct {
	timer   *time.Timer                   // nil until there were news
	soon    bool                          // the timer is to tell news
	waiting []func(error)                 // who waits until all nodes were asked for their members
	moving  map[ID]*moved                 // who is told to be here, and has moved to another node
	retries map[broker.NodeID]*time.Timer // of what is asked again
}

// moved is a member that has left for another node.
type moved struct{ timer *time.Timer }

// members is what a cluster keeps for all rooms.
type members struct {
	lives   atomic.Uint64 // of rooms; see presence.Room.Together
	mu      sync.Mutex
	ended   map[string]uint64             // rooms that have ended here, and of whose last member nobody could be told; by name, the last change
	retries bool                          // these are told again
	lost    map[broker.NodeID]*time.Timer // nodes that are gone, and whose members may still be resumed elsewhere
}

// presenceOf finds or makes the presence of a room whose policy is full. r.mu is held.
func (h *Hub) presenceOf(r *room) *roomPresence {
	if r.presence == nil {
		r.presence = &roomPresence{}
		if c := h.cluster; c != nil {
			r.presence.together = &together{}
			r.presence.Together(presence.Node(c.id), c.members.lives.Add(1)<<32)
		}
	}
	return r.presence
}

// toNodes has the other nodes be told of what has changed. r.mu is held.
func (h *Hub) toNodes(r *room) {
	p := r.presence
	if p.together == nil || !p.Untold() || p.together.soon {
		return
	}
	p.together.soon = true
	h.toNodesIn(r, tellAfter)
}

func (h *Hub) toNodesIn(r *room, wait time.Duration) {
	t := r.presence.together
	if t.timer == nil {
		t.timer = time.AfterFunc(wait, func() { h.tellNodes(r) })
		return
	}
	t.timer.Reset(wait)
}

// tellNodes tells the other nodes of this one's members. The timer's goroutine.
func (h *Hub) tellNodes(r *room) {
	defer h.recovered("telling other nodes of a room's members")
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.presence != nil && !h.stopping() {
		h.tellNodesNow(r)
	}
}

// tellNodesNow is tellNodes. r.mu is held.
func (h *Hub) tellNodesNow(r *room) {
	p := r.presence
	news := p.Untold()
	for _, n := range p.Tell(memberLimits) {
		if h.tellMembers(r.name, n) != nil {
			p.together.soon = true
			h.toNodesIn(r, askAgain)
			return
		}
	}
	p.Told()
	if p.together.soon = false; news && !h.stopping() {
		h.toNodesIn(r, repeatAfter)
	}
}

func (h *Hub) tellMembers(room string, n presence.News) error {
	body, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return h.cluster.b.Tell(room, append([]byte{toldNews}, body...))
}

// heardMembers is what another node has told the room's topic of its members: body begins with its kind, 2 or above. One
// at a time for a room; no lock is held.
func (h *Hub) heardMembers(name string, from broker.NodeID, body []byte) {
	var n presence.News
	if body[0] != toldNews {
		return // that node is of a newer version
	}
	if err := json.Unmarshal(body[1:], &n); err != nil {
		h.cfg().Log.Error("another node's news of members can't be read", "room", name, "error", err)
		return
	}
	h.hearing(name, func(r *room) {
		if r.policy().Presence == PresenceFull && !h.stopping() {
			h.hearMembers(r, from, n)
		}
	})
}

// hearMembers is heardMembers. r.mu is held.
func (h *Hub) hearMembers(r *room, from broker.NodeID, n presence.News) {
	p := h.presenceOf(r)
	if h.loop.Overloaded() && len(n.Here) > 0 {
		p.Skip(presence.Node(from), n)
		h.inquireIn(r, from, repeatAfter)
		return
	}
	ask, charges := p.Hears(presence.Node(from), n, nil, clock())
	h.elsewhereChanged(r, charges)
	if ask {
		h.inquire(r, from)
	}
}

// elsewhereChanged is called when something has changed of the members that other nodes have. r.mu is held.
func (h *Hub) elsewhereChanged(r *room, charges []presence.Charge[*payer]) {
	for _, c := range charges {
		h.keep(KeptPresence, c.Payer, c.Bytes)
	}
	h.tellLater(r, clock())
	h.settled(r, nil)
}

// topicReady is called each time that what others tell the room begins to be heard here. r.mu is held.
func (h *Hub) topicReady(r *room) {
	if r.policy().Presence == PresenceFull {
		h.presenceOf(r).Doubt()
		h.topicMissed(r)
	}
}

// topicMissed is called when something that was told the room may be lost, while it is heard here. r.mu is held.
func (h *Hub) topicMissed(r *room) {
	if r.policy().Presence != PresenceFull {
		return
	}
	h.presenceOf(r)
	peers, _ := h.cluster.view()
	for _, p := range peers {
		h.inquire(r, p.ID)
	}
}

// inquire asks a node for the members that it has in a room, unless that is under way. r.mu is held.
func (h *Hub) inquire(r *room, node broker.NodeID) {
	known, of, begun := r.presence.Inquire(presence.Node(node))
	if begun {
		h.inquireBehind(r, node, memberQuestion{Room: r.name, Limit: memberLimits.Members, Known: known, Of: of})
	}
}

func (h *Hub) inquireBehind(r *room, node broker.NodeID, q memberQuestion) {
	h.cluster.asking.ask(node, q, func(a memberAnswer, err error) { h.inquired(r, node, a, err) })
}

// inquireIn asks later, once. r.mu is held.
func (h *Hub) inquireIn(r *room, node broker.NodeID, wait time.Duration) {
	t := r.presence.together
	if t.retries[node] != nil {
		return
	}
	if t.retries == nil {
		t.retries = map[broker.NodeID]*time.Timer{}
	}
	t.retries[node] = time.AfterFunc(wait, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if p := r.presence; p != nil && p.together == t && t.retries[node] != nil && !h.stopping() {
			delete(t.retries, node)
			h.inquire(r, node)
		}
	})
}

// inquired is what a node has answered. A goroutine of the broker.
func (h *Hub) inquired(r *room, node broker.NodeID, a memberAnswer, err error) {
	defer h.recovered("reading another node's members of a room")
	r.mu.Lock()
	defer r.mu.Unlock()
	p, n := r.presence, presence.Node(node)
	if p == nil || h.stopping() {
		return
	}
	page := &a.Page
	switch {
	case err == nil && len(page.Members) > 0 && h.loop.Overloaded():
		p.Skip(n, presence.News{Summary: &page.Summary})
		fallthrough
	case err != nil:
		there := h.cluster.mayBeThere(node)
		if p.NotListed(n, there); there {
			h.inquireIn(r, node, askAgain)
		}
		h.settled(r, err)
		return
	case a.Same:
		page = nil
	}
	after, again, charges := p.Listed(n, page, nil, clock())
	h.elsewhereChanged(r, charges)
	switch {
	case after != "":
		h.inquireBehind(r, node, memberQuestion{Room: r.name, Limit: memberLimits.Members, After: after})
	case again:
		h.inquireIn(r, node, askAgain)
	}
}

// whenSettled calls done when each node was asked for its members in the room, at once or later, or can't be. r.mu is
// held.
func (h *Hub) whenSettled(r *room, done func(error)) {
	t := r.presence.together
	t.waiting = append(t.waiting, done)
	h.settled(r, nil)
}

// settled tells who waits. r.mu is held.
func (h *Hub) settled(r *room, err error) {
	t := r.presence.together
	if t == nil || err == nil && !r.presence.Settled() {
		return
	}
	for _, done := range t.waiting {
		done(err)
	}
	t.waiting = nil
}

// dropTogether ends what is under way of a room that is removed. r.mu is held.
func (h *Hub) dropTogether(r *room) {
	t := r.presence.together
	if t == nil {
		return
	}
	for _, done := range t.waiting {
		done(broker.ErrUnavailable)
	}
	for _, timer := range t.retries {
		timer.Stop()
	}
	for _, m := range t.moving {
		m.timer.Stop()
	}
	if t.timer != nil {
		t.timer.Stop()
	}
	if (r.presence.Untold() || r.presence.OwnLen() > 0) && !h.stopping() {
		h.cluster.members.end(h, r.name, r.presence.Number())
	}
}

// end has the other nodes be told that this one has no members in a room any more, as soon as they can be.
func (m *members) end(h *Hub, name string, number uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended == nil {
		m.ended = map[string]uint64{}
	}
	m.ended[name] = number
	if !m.retries {
		m.retries = true
		time.AfterFunc(askAgain, func() { m.tellEnds(h) })
	}
}

// tellEnds tells of rooms that have ended here. That it has none is nothing that a node can be told to know, so that it
// asks if it knows of some.
func (m *members) tellEnds(h *Hub) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, number := range m.ended {
		if h.stopping() || h.tellMembers(name, presence.News{To: number, Summary: &presence.Summary{}}) != nil {
			break
		}
		delete(m.ended, name)
	}
	if m.retries = len(m.ended) > 0 && !h.stopping(); m.retries {
		time.AfterFunc(askAgain, func() { m.tellEnds(h) })
	}
}

// movesAway is noteLeft for presence alone, of who goes on being a member on another node: the room's members hear that it
// has left only if that node doesn't say so in time. r.mu is held.
func (h *Hub) movesAway(r *room, who ID) {
	p := r.presence
	if p == nil {
		return
	}
	t, m := p.together, &moved{}
	m.timer = time.AfterFunc(heldFor, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.presence == p && t.moving[who] == m {
			delete(t.moving, who)
			h.set(r, protocol.Member{ClientID: who.String()}, 0, false, nil)
		}
	})
	if t.moving == nil {
		t.moving = map[ID]*moved{}
	}
	t.moving[who] = m
}

// comesBack is called when somebody becomes a member: it isn't moving any more. r.mu is held.
func (p *roomPresence) comesBack(who ID) {
	if p.together == nil {
		return
	}
	if m := p.together.moving[who]; m != nil {
		m.timer.Stop()
		delete(p.together.moving, who)
	}
}

// nodesChanged is called when other nodes have come or are gone, or this one is cut off or isn't any more. What is known of
// the members of one that is gone stays as long as they may be resumed elsewhere. View's goroutine.
func (h *Hub) nodesChanged(was, is seen) {
	m := &h.cluster.members
	m.mu.Lock()
	defer m.mu.Unlock()
	healed := was.cut && !is.cut
	has := func(all []broker.Peer, n broker.NodeID) bool {
		return slices.ContainsFunc(all, func(p broker.Peer) bool { return p.ID == n })
	}
	came := map[broker.NodeID]bool{}
	for _, p := range is.peers {
		if t := m.lost[p.ID]; t != nil {
			t.Stop()
			delete(m.lost, p.ID)
			healed = true // it may have missed what was told
		}
		came[p.ID] = healed || !has(was.peers, p.ID)
	}
	var gone []broker.NodeID
	for _, p := range was.peers {
		if has(is.peers, p.ID) {
			continue
		}
		if m.lost == nil {
			m.lost = map[broker.NodeID]*time.Timer{}
		}
		gone = append(gone, p.ID)
		m.lost[p.ID] = time.AfterFunc(h.cfg().ResumeWindow, func() { h.forgetNode(p.ID) })
	}
	if maps.DeleteFunc(came, func(_ broker.NodeID, is bool) bool { return !is }); len(came)+len(gone) > 0 {
		go func() {
			h.doubtNodes(came, gone, healed)
			h.homesChanged(was, is)
		}()
	}
}

// doubtNodes asks nodes that have come for what they have, and where some are back, tells them of what is here.
func (h *Hub) doubtNodes(came map[broker.NodeID]bool, gone []broker.NodeID, back bool) {
	h.eachTogether(func(r *room) {
		p := r.presence
		for _, n := range gone {
			p.NotListed(presence.Node(n), false)
		}
		h.settled(r, nil)
		for _, n := range slices.Collect(p.Nodes()) {
			if came[broker.NodeID(n)] {
				h.inquire(r, broker.NodeID(n))
			}
		}
		if back && p.OwnLen() > 0 && !p.together.soon {
			h.toNodesIn(r, rand.N(repeatAfter/2)) // not all rooms at once
		}
	})
}

// forgetNode takes the members of a node out that was gone for long.
func (h *Hub) forgetNode(node broker.NodeID) {
	_, cut := h.cluster.view()
	m := &h.cluster.members
	m.mu.Lock()
	gone := m.lost[node] != nil && !h.stopping()
	if gone && cut { // then nobody knows
		m.lost[node].Reset(max(h.cfg().ResumeWindow, askAgain))
		gone = false
	} else {
		delete(m.lost, node)
	}
	m.mu.Unlock()
	if gone {
		h.vacatedBy(node)
		h.eachTogether(func(r *room) {
			h.elsewhereChanged(r, r.presence.Forget(presence.Node(node), clock()))
		})
	}
}

// eachTogether gives each room of which this node knows the members of others, under its lock.
func (h *Hub) eachTogether(do func(r *room)) {
	defer h.recovered("going over rooms of several nodes")
	for i := range h.rooms {
		h.rooms[i].each(func(r *room) {
			if r.presence != nil && r.presence.together != nil && !h.stopping() {
				do(r)
			}
		})
	}
}

// end stops what waits. Stop's goroutine.
func (m *members) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.lost {
		t.Stop()
	}
}
