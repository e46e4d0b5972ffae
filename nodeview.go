package hubbub

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/api"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/metrics"
)

// view is what the broker knows of other nodes.
func (l *links) view(peers []broker.Peer, cut bool) {
	l.mu.Lock()
	was, are := map[broker.NodeID]bool{}, map[broker.NodeID]bool{}
	for _, p := range l.peers {
		was[p.ID] = true
	}
	for _, p := range peers {
		are[p.ID] = true
	}
	maps.DeleteFunc(l.known, func(id broker.NodeID, _ string) bool { return !are[id] })
	var apart []hub.NodeInfo
	changed := cut != l.cut
	if cut && !l.cut {
		l.counts.cuts.Add(1)
	}
	l.peers, l.cut, l.seen = peers, cut, l.seen || !cut
	for _, p := range peers {
		if !was[p.ID] {
			l.counts.came.Add(1)
		}
		if info, ok := hub.InfoOf(p); ok && l.known[p.ID] != info.Policies { // it is new, or has read its settings again
			l.known[p.ID] = info.Policies
			if info.Policies != l.s.cfg().policies {
				apart = append(apart, info)
			}
		}
	}
	l.mu.Unlock()
	if l.alone {
		return
	}
	if l.in.Load() {
		for _, info := range apart { // one that has come later refuses itself; where it doesn't, rooms are not what they should be
			l.s.log.Error("another node has other policies of rooms: what their members are told and allowed depends on the node; give all nodes the same rooms", "node", info.Name, "differs", l.s.difference(info))
		}
		switch {
		case changed && cut:
			l.s.log.Warn("the node is cut off from the others: clients that are here stay, and what needs the others is refused")
		case changed:
			l.s.log.Info("the node hears of the others again", "others", len(peers))
		}
	}
	select {
	case l.viewed <- struct{}{}:
	default:
	}
}

// others are the other nodes that have said something of themselves. seen says whether there was a view at all.
func (l *links) others() (all []hub.NodeInfo, seen bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.peers {
		if info, ok := hub.InfoOf(p); ok {
			all = append(all, info)
		}
	}
	return all, l.seen
}

// comesIn is how long a store may take to come in before it counts as cut off: most of the others may be gone for good.
const comesIn = 15 * time.Second

// figures are for /metrics.
func (l *links) figures() (f metrics.Links) {
	if l == nil {
		return f
	}
	c := &l.counts
	f = metrics.Links{
		Came: c.came.Load(), Cuts: c.cuts.Load(), Publishing: c.publishing.Load(), Calling: c.calling.Load(), Topics: c.topics.Load(),
		Unpublished: c.unpublished.Load(), Uncalled: c.uncalled.Load(), Untold: c.untold.Load(), Missed: c.missed.Load(), Lost: c.lost.Load(),
	}
	lost := false
	if l.own != nil {
		h := l.own.Health()
		lost = h.Cut && (l.in.Load() || time.Since(l.began) > comesIn)
		f.WaitingBytes, f.Overrun = h.Waiting, int64(h.Overrun)
		for _, link := range h.Links {
			if link.Up {
				f.Up++
			}
			f.Reconnects += int64(link.Reconnects)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f.Peers, f.Cut = len(l.peers), (l.cut || lost) && !l.alone
	for _, p := range l.peers {
		if policies := l.known[p.ID]; policies != "" && policies != l.s.cfg().policies {
			f.Apart++
		}
	}
	return f
}

// fits says which of the nodes that were there before has other policies than this one.
func (s *Server) fits(others []hub.NodeInfo) error {
	own := s.nodeInfo()
	for _, o := range others {
		first := o.In || o.Started < own.Started || o.Started == own.Started && o.ID < own.ID
		if first && o.Policies != own.Policies {
			return fmt.Errorf("the policies of rooms are others than those of the node %s, which is there already: %s; give all nodes the same rooms: a reload of each changes them, or a stop of all", o.Name, s.difference(o))
		}
	}
	return nil
}

// difference names the first rule that a node hasn't got as this one has it.
func (s *Server) difference(o hub.NodeInfo) string {
	set := s.cfg() // once: its rules and their digests go together
	none, _ := new(Config).policyDigests()
	if len(o.Rules) == 0 && o.Policies != none || len(set.rules) == 0 && len(set.Rooms) > 0 {
		return "one of rooms" // too many to be told
	}
	for i := range len(set.rules) / ruleDigest {
		at := i * ruleDigest
		if at >= len(o.Rules) {
			return fmt.Sprintf("rooms[%d] (match %q) isn't there", i, set.Rooms[i].Match)
		}
		if !bytes.Equal(set.rules[at:at+ruleDigest], o.Rules[at:min(at+ruleDigest, len(o.Rules))]) {
			return fmt.Sprintf("rooms[%d] (match %q) is another one there", i, set.Rooms[i].Match)
		}
	}
	if n := len(set.rules) / ruleDigest; len(o.Rules) > len(set.rules) {
		return fmt.Sprintf("it has more rules than this node, which has %d", n)
	}
	return "one of rooms"
}

// How much of the policies is in a beat.
const (
	ruleDigest = 3   // bytes for each rule
	maxTold    = 256 // with more rules, none of them
)

// policyDigests are of all policies of rooms together, and of each: of what they come to, not of how they are written.
func (c *Config) policyDigests() (all string, each []byte) {
	whole := sha256.New()
	for _, r := range c.Rooms {
		b, _ := json.Marshal(r) // strings, numbers and lists of them
		whole.Write(append(b, '\n'))
		sum := sha256.Sum256(b)
		each = append(each, sum[:ruleDigest]...)
	}
	if len(c.Rooms) > maxTold {
		each = nil
	}
	return hex.EncodeToString(whole.Sum(nil)[:8]), each
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// nodeInfo is what this node says of itself.
func (s *Server) nodeInfo() hub.NodeInfo {
	set := s.cfg()
	info := hub.NodeInfo{
		Name: s.node, Version: Version(), Started: s.started.UnixMilli(), Role: "node",
		Connections: s.Connections(), Clients: s.hub.Clients(), Parked: s.hub.ParkedSessions(), Rooms: s.RoomCount(),
		Policies: set.policies, Rules: set.rules, In: true, NotReady: s.notReady(),
	}
	if l := s.links; l != nil {
		id := l.ID()
		info.ID, info.In = hex.EncodeToString(id[:]), l.in.Load()
	}
	if set.role() == roleStore {
		info.Role, info.Store = "store", set.storeAddress()
	}
	return info
}

// beat is nodeInfo for other nodes.
func (s *Server) beat() []byte {
	b, _ := json.Marshal(s.nodeInfo())
	return b
}

// notReady is why /readyz says 503, or "".
func (s *Server) notReady() string {
	if no := s.unready(); no != nil {
		return no.detail
	}
	return ""
}

// knownNodes are what this node and the others say of themselves, this one first; cut says that the others are the last
// ones that were known of.
func (s *Server) knownNodes() (all []hub.NodeInfo, cut bool) {
	all = append(all, s.nodeInfo())
	peers, cut := s.hub.Peers()
	for _, p := range peers {
		if info, ok := hub.InfoOf(p); ok {
			all = append(all, info)
		}
	}
	return all, cut
}

// nodes is what GET /nodes says.
func (s *Server) nodes(ctx context.Context) api.Nodes {
	var n api.Nodes
	n.Nodes, n.Cut = s.knownNodes()
	if r := s.cfg().role(); r == roleStore || r == roleJoining {
		stores, err := s.links.own.Look(ctx)
		if err != nil {
			n.Error = err.Error()
			return n
		}
		n.Stores = stores
	}
	return n
}

// removeNode has the cluster forget a store, by its name; its address is known only while it is up.
func (s *Server) removeNode(ctx context.Context, store string) error {
	if r := s.cfg().role(); r != roleStore && r != roleJoining {
		return fmt.Errorf("%w: this server has no stores", api.ErrUnknownNode)
	}
	o, err := s.links.own.Look(ctx)
	if err != nil {
		return err
	}
	for _, is := range o.Stores {
		switch {
		case is.Name != store && is.Address != store:
		case is.Up:
			return fmt.Errorf("%w: the store %s is up; stop it first", api.ErrNoRemoval, store)
		default:
			c := s.cfg().natsCluster()
			c.Join = s.cfg().stores()
			return c.Remove(ctx, is.Name)
		}
	}
	return api.ErrUnknownNode
}
