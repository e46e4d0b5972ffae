package hub

import (
	"encoding/json"
	"slices"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/protocol"
)

// The home of a publish_id changes when nodes come and go. The new one asks each node what it has published of that, or
// knows as a home, and says of no id that it is new before all have answered that they see the same nodes. A node
// publishes only while the home that it has asked is the one that it sees; so what was published by one home's leave, the
// next one knows.

const (
	bringsIn   = 3_000 // milliseconds after which a home waits for nobody's answer any more
	bringAgain = 100 * time.Millisecond
	bringsOnce = 4_000 // publish_ids in an answer
)

// errHomesMove says that nobody knows just now whether a message was published by its id.
var errHomesMove = &protocol.Error{Code: protocol.Unavailable, Message: "nodes have come or gone, and publish_ids move: try again"}

// homes is how much a home knows. Guarded by claims.mu.
type homes struct {
	peers   []broker.Peer          // whom this node sees
	change  int                    // how often they have become others
	since   int64                  // when they became these
	missing map[broker.NodeID]bool // who hasn't answered yet
	known   []broker.Peer          // peers when nobody was missing; this node knows what it was home of among these
	ever    bool                   // since it could last hear of the others
}

// bringing asks a node for what it has published, and this node is the home of.
type bringing struct {
	View  uint64          `json:"view"`            // whom this node sees
	Known []broker.NodeID `json:"known,omitempty"` // what it was home of among these, itself included, it knows
	From  place           `json:"from"`            // where to begin: zero, or what was Next
}

// place is where a node stands that brings what it has: in one of its shards, and behind these in the home's claims.
type place struct {
	Shard int `json:"shard"`
	At    int `json:"at"`
}

// brought is the answer.
type brought struct {
	Sees bool          `json:"sees"` // the node sees the same nodes, or else answers nothing yet
	IDs  []publishedID `json:"ids"`
	Next place         `json:"next"` // where it goes on; zero where that was all
}

// viewOf is the same for all who see the same nodes.
func viewOf(self broker.NodeID, peers []broker.Peer) (view uint64) {
	view = weight(self, "")
	for _, p := range peers {
		view += weight(p.ID, "")
	}
	return view
}

func idsOf(self broker.NodeID, peers []broker.Peer) []broker.NodeID {
	ids := []broker.NodeID{self}
	for _, p := range peers {
		ids = append(ids, p.ID)
	}
	return ids
}

// init has the node wait for its first view.
func (hs *homes) init(self broker.NodeID) {
	hs.since, hs.missing = clock(), map[broker.NodeID]bool{self: true}
}

// sees notes who is there, before this node asks or answers anybody by that; healed says that it couldn't hear of the
// others for a while. begin is to be called when it does.
func (cs *claims) sees(c *cluster, peers []broker.Peer, healed bool) (begin func()) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.change > 0 && !healed && slices.EqualFunc(cs.peers, peers, func(a, b broker.Peer) bool { return a.ID == b.ID }) {
		return func() {}
	}
	cs.peers, cs.since, cs.missing = peers, clock(), map[broker.NodeID]bool{}
	cs.change++
	all := idsOf(c.id, peers)
	cs.ever = cs.ever && !healed
	b := bringing{View: viewOf(c.id, peers)}
	if cs.ever {
		b.Known = idsOf(c.id, cs.known)
	}
	for _, n := range all {
		cs.missing[n] = true
	}
	change := cs.change
	return func() {
		for _, n := range all {
			c.fetch(n, b, change)
		}
	}
}

// cutOff says that this node can't hear of the others any more. It isn't before it has heard of any.
func (c *cluster) cutOff() bool {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	_, cut := c.view()
	return cut && c.claims.change > 0
}

// fetch asks a node, which may be this one, for what it has published, until it has answered or that is too late.
func (c *cluster) fetch(from broker.NodeID, b bringing, change int) {
	cs := &c.claims
	cs.mu.Lock()
	moot := cs.change != change || clock() >= cs.since+bringsIn || c.hub.stopping()
	cs.mu.Unlock()
	if moot {
		return
	}
	done := func(got brought, err error) {
		if err != nil || !got.Sees {
			time.AfterFunc(bringAgain, func() { c.fetch(from, b, change) })
			return
		}
		c.published(from, got.IDs)
		if b.From = got.Next; b.From != (place{}) {
			c.fetch(from, b, change)
			return
		}
		cs.mu.Lock()
		defer cs.mu.Unlock()
		if cs.change == change {
			delete(cs.missing, from)
		}
	}
	if from == c.id {
		c.hub.were(from, b, done)
		return
	}
	c.ask(from, callWere, b, func(answer []byte, err error) {
		var got brought
		err = decodeAnswer(answer, err, &got)
		done(got, err)
	})
}

// knowsAllOf says that an id would be known if a node that is there had published by it. cs.mu is held.
func (cs *claims) knowsAllOf(c *cluster, id publishHash, now int64) bool {
	key := string(id[:])
	if home(idsOf(c.id, cs.peers), key) != c.id {
		return false // who asks sees others than this node
	}
	if len(cs.missing) == 0 || now >= cs.since+bringsIn {
		cs.known, cs.ever = cs.peers, true
		return true
	}
	return cs.ever && home(idsOf(c.id, cs.known), key) == c.id
}

func answerWere(h *Hub, from broker.NodeID, question []byte, reply func(any, error)) {
	var b bringing
	if err := json.Unmarshal(question, &b); err != nil {
		reply(nil, err)
		return
	}
	h.were(from, b, func(got brought, err error) { reply(got, err) })
}

// were gives what this node has published, and to is the home of. It doesn't block; reply is called once.
func (h *Hub) were(to broker.NodeID, b bringing, reply func(brought, error)) {
	peers, cut := h.cluster.view()
	if cut || viewOf(h.cluster.id, peers) != b.View {
		reply(brought{}, nil)
		return
	}
	go func() { // there may be many
		got := brought{Sees: true, Next: place{max(0, b.From.Shard), max(0, b.From.At)}}
		now := idsOf(h.cluster.id, peers)
		add := func(id publishHash, left int64) {
			if k := string(id[:]); home(now, k) == to && (b.Known == nil || home(b.Known, k) != to) {
				got.IDs = append(got.IDs, publishedID{id[:], left})
			}
		}
		next := &got.Next
		for next.Shard <= shards && len(got.IDs) < bringsOnce {
			each := h.cluster.claims.each
			if next.Shard < shards {
				each = h.memories[next.Shard].each
			}
			if next.At = each(next.At, bringsOnce-len(got.IDs), add); next.At == 0 {
				next.Shard++
			}
		}
		if next.Shard > shards {
			*next = place{}
		}
		reply(got, nil)
	}()
}

// each is claims.each for what this node has published itself.
func (d *memory) each(from, most int, f func(id publishHash, left int64)) (next int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := clock()
	for i := max(0, from-d.ended); i < len(d.order); i++ {
		if most--; most < 0 {
			return d.ended + i
		}
		f(d.order[i].key.hash(), d.order[i].until-now)
	}
	return 0
}
