package brokertest

import (
	"bytes"
	"crypto/rand"
	"slices"
	"time"

	"example.com/hubbub/broker"
)

// What Memory does between nodes: topics, calls and the view. A node can be cut off from the others (Memory.Cut).

// Cut cuts a node off from the others, both ways, until it is joined again; a broker that Memory.Broker has made. What is
// on its way still arrives.
func (m *Memory) Cut(b broker.Broker, cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := b.(*memoryNode)
	n.cut = cut
	if !cut {
		for topic, in := range n.topics {
			m.bring(n, in, func(node broker.Node) { node.Missed(topic) })
		}
		for _, other := range m.nodes {
			if other == n {
				continue
			}
			for topic, in := range other.topics {
				m.bring(other, in, func(node broker.Node) { node.Missed(topic) })
			}
		}
	}
	m.changed()
}

// reaches: m.mu is held.
func (n *memoryNode) reaches(other *memoryNode) bool {
	return !n.m.down && !n.cut && !other.cut && n.runs && other.runs
}

// changed tells every node who is there. m.mu is held.
func (m *Memory) changed() {
	m.failCalls()
	for _, n := range m.nodes {
		var peers []broker.Peer
		for _, other := range m.nodes {
			if other != n && n.reaches(other) {
				peers = append(peers, broker.Peer{ID: other.id, Beat: other.beat})
			}
		}
		slices.SortFunc(peers, func(a, b broker.Peer) int { return bytes.Compare(a.ID[:], b.ID[:]) })
		cut := n.cut || m.down
		if cut {
			peers = n.peers
		}
		n.peers = peers
		m.bring(n, &n.views, func(node broker.Node) { node.View(peers, cut) })
	}
}

// beats has a node say what it says of itself, until it ends.
func (n *memoryNode) beats(done <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		beat := n.node.Beat()
		n.m.mu.Lock()
		if !bytes.Equal(beat, n.beat) {
			n.beat = beat
			n.m.changed()
		}
		n.m.mu.Unlock()
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

// comes and goes are Run's.
func (n *memoryNode) comes() {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	n.runs, n.views.opened = true, true
	n.m.nodes = append(n.m.nodes, n)
	n.m.changed()
}

func (n *memoryNode) goes() {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	n.runs = false
	clear(n.topics)
	n.m.nodes = slices.DeleteFunc(n.m.nodes, func(other *memoryNode) bool { return other == n })
	n.m.changed()
}

func (n *memoryNode) ID() broker.NodeID { return n.id }

func newNodeID() (id broker.NodeID) {
	rand.Read(id[:])
	return id
}

func (n *memoryNode) Listen(topic string, ready func(error)) (closed func()) {
	in := &inbox{}
	n.m.later(func() {
		<-n.served
		n.m.mu.Lock()
		if n.m.down || n.cut || !n.runs {
			n.m.mu.Unlock()
			ready(broker.ErrUnavailable)
			return
		}
		if !in.closed {
			n.topics[topic] = in
		}
		n.m.mu.Unlock()
		ready(nil)
		n.begin(in)
	})
	return n.ending(in, func() {
		if n.topics[topic] == in {
			delete(n.topics, topic)
		}
	})
}

func (n *memoryNode) Tell(topic string, body []byte) error {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	if n.m.down || n.cut || !n.runs {
		return broker.ErrUnavailable
	}
	body = bytes.Clone(body)
	for _, other := range n.m.nodes {
		if in := other.topics[topic]; in != nil && other != n && n.reaches(other) {
			n.m.bring(other, in, func(node broker.Node) { node.Heard(topic, n.id, body) })
		}
	}
	return nil
}

// memoryCall is a question that isn't answered.
type memoryCall struct {
	from, to *memoryNode
	done     func(answer []byte, err error)
	timer    *time.Timer
}

func (n *memoryNode) Call(to broker.NodeID, body []byte, done func([]byte, error)) {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	i := slices.IndexFunc(n.m.nodes, func(other *memoryNode) bool { return other.id == to })
	if i < 0 || !n.reaches(n.m.nodes[i]) {
		n.m.later(func() { done(nil, broker.ErrUnavailable) })
		return
	}
	other, body := n.m.nodes[i], bytes.Clone(body)
	c := &memoryCall{from: n, to: other, done: done}
	c.timer = time.AfterFunc(5*time.Second, func() {
		n.m.mu.Lock()
		waits := n.m.calls[c]
		delete(n.m.calls, c)
		n.m.mu.Unlock()
		if waits {
			done(nil, broker.ErrTimeout)
			n.m.work.end()
		}
	})
	n.m.calls[c] = true
	n.m.work.begin() // until it has ended: Run waits for it
	in := other.asked[n]
	if in == nil {
		in = &inbox{opened: true}
		other.asked[n] = in
	}
	n.m.bring(other, in, func(node broker.Node) {
		node.Handle(n.id, body, func(answer []byte) {
			n.m.later(func() {
				n.m.mu.Lock()
				defer n.m.mu.Unlock()
				n.m.answer(c, answer, nil)
			})
		})
	})
}

// answer ends a call, once. m.mu is held.
func (m *Memory) answer(c *memoryCall, answer []byte, err error) {
	if !m.calls[c] {
		return
	}
	delete(m.calls, c)
	c.timer.Stop()
	m.later(func() { c.done(answer, err) })
	m.work.end()
}

// failCalls ends those whose nodes don't reach each other any more. m.mu is held.
func (m *Memory) failCalls() {
	for c := range m.calls {
		if !c.from.reaches(c.to) {
			m.answer(c, nil, broker.ErrTimeout)
		}
	}
}
