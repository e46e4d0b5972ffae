package hub

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/loop"
)

// Random clients on five nodes, in virtual time: they come back on any node, to several at once, while some of these can't reach
// each other, or take each other for gone, or die. In the end, when all can hear each other again, each session is on one node at
// most. The name of a run is its seed; what is random in the hub isn't repeated.
func TestASessionIsOnOneNodeInTheEnd(t *testing.T) {
	runs := uint64(60)
	if testing.Short() {
		runs = 10
	}
	for seed := range runs {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { playApart(t, rand.New(rand.NewPCG(seed, 17))) })
		})
	}
}

func playApart(t *testing.T, r *rand.Rand) {
	memory := brokertest.NewMemory()
	t.Cleanup(memory.Wait)
	nodes := nodesOf(t, memory, 5, func(*Config) {})
	living := slices.Clone(nodes)
	type person struct {
		mu    sync.Mutex
		c     *client
		token string
	}
	var people [8]person
	ids := map[ID]bool{}
	for i := range people {
		c, _ := nodes[r.IntN(len(nodes))].member("ann", "r")
		people[i].c, people[i].token = c, c.token()
		ids[idOf(c)] = true
	}
	var handshakes sync.WaitGroup
	comes := func(p *person, n *testNode) {
		handshakes.Go(func() {
			p.mu.Lock()
			token := p.token
			p.mu.Unlock()
			s, err := n.h.Admit(context.Background(), netip.Addr{}, token, auth.Identity{User: "ann"}, nil)
			if err != nil {
				return
			}
			c := newSession(t, n.l, s)
			p.mu.Lock()
			defer p.mu.Unlock()
			if c.id == p.c.id {
				p.c, p.token = c, c.token()
			} else {
				c.nc.Close()
			}
		})
	}
	apart := func(a, b *testNode, ok bool) {
		a.reaches(b, ok)
		b.reaches(a, ok)
	}
	seen := func(a, b *testNode, ok bool) {
		a.sees(b, ok)
		b.sees(a, ok)
	}
	some := func() *testNode { return living[r.IntN(len(living))] }
	for range 60 {
		switch a, b := some(), some(); r.IntN(10) {
		case 0, 1:
			apart(a, b, a == b)
		case 2: // as a node that has died, at first; the other way round, later
			apart(a, b, a == b)
			a.sees(b, a == b)
		case 3:
			apart(a, b, a == b)
			seen(a, b, a == b)
		case 4:
			seen(a, b, true)
			apart(a, b, true)
		case 5:
			if len(living) > 3 && r.IntN(3) == 0 {
				living = slices.DeleteFunc(living, func(n *testNode) bool { return n == a })
				a.dies()
			}
		case 6, 7, 8:
			p := &people[r.IntN(len(people))]
			for range 1 + r.IntN(3) {
				comes(p, some())
			}
		case 9:
			time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
		}
		if r.IntN(3) == 0 {
			time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
		}
	}
	handshakes.Wait()
	for _, a := range living {
		for _, b := range living {
			apart(a, b, true)
			seen(a, b, true)
		}
	}
	time.Sleep(2*claimMost + 10*time.Second) // what has just come is judged later
	synctest.Wait()
	for id := range ids {
		if on := alive(id, living...); len(on) > 1 {
			t.Errorf("the session %s is on the nodes %v", id, on)
		}
	}
}

// A client comes to two nodes at once when its own has died, and one of them doesn't see a third: for some clients each asks another
// node, or itself, who has the session, and both get it. In the end it is on one.
func TestTwoNodesAreGivenASession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		t.Cleanup(memory.Wait)
		nodes := nodesOf(t, memory, 4, func(*Config) {})
		began, others := nodes[0], nodes[1:]
		var sessions [20]*client
		for i := range sessions {
			sessions[i], _ = began.member("ann", "r")
		}
		others[0].sees(others[2], false)
		began.dies(others...)
		for _, ann := range sessions {
			var both sync.WaitGroup
			for _, n := range others[:2] {
				both.Go(func() { n.comes(ann.token(), "ann") })
			}
			both.Wait()
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for _, ann := range sessions {
			if on := alive(idOf(ann), others...); len(on) != 1 {
				t.Errorf("the session %s is on the nodes %v", ann.id, on)
			}
		}
	})
}

// viewing is the node, from which some others may be hidden.
type viewing struct {
	broker.Node
	n *testNode
}

func (v viewing) View(peers []broker.Peer, cut bool) {
	v.n.views.Lock()
	defer v.n.views.Unlock()
	v.n.node, v.n.peers, v.n.cut = v.Node, peers, cut
	v.n.tellView()
}

// tellView: views is held.
func (n *testNode) tellView() {
	n.node.View(slices.DeleteFunc(slices.Clone(n.peers), func(p broker.Peer) bool { return n.hidden[p.ID] }), n.cut)
}

// reaches says whether the node can ask another one, and sees whether it sees it.
func (n *testNode) reaches(other *testNode, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.away == nil {
		n.away = map[broker.NodeID]bool{}
	}
	n.away[other.inner.ID()] = !ok
}

func (n *testNode) sees(other *testNode, ok bool) {
	n.views.Lock()
	defer n.views.Unlock()
	if n.hidden == nil {
		n.hidden = map[broker.NodeID]bool{}
	}
	if n.hidden[other.inner.ID()] != !ok {
		n.hidden[other.inner.ID()] = !ok
		n.tellView()
	}
}

// A session that goes to the very node that is asked about it, while the question is on its way, isn't ended there: nobody
// would have it.
func TestASessionGoesWhereItIsAskedFor(t *testing.T) {
	for _, how := range []string{"leave", "handshake"} {
		t.Run(how, func(t *testing.T) {
			nodes := nodesOf(t, brokertest.NewMemory(), 2, func(*Config) {})
			a, b := nodes[0], nodes[1]
			if bytes.Compare(b.h.cluster.id[:], a.h.cluster.id[:]) > 0 {
				a, b = b, a // b would give it up
			}
			c, _ := a.member("ann", "r")
			id, token := idOf(c), c.token()
			a.h.cluster.moves.doubt(id, a.h.doubtTime())
			asked := a.h.cluster.moves.rivalsOf(b.h.cluster.id, a.h)
			if len(asked) != 1 {
				t.Fatalf("asked for are %v", asked)
			}
			c.lose(a.h)
			var s loop.Handler
			if how == "leave" {
				a.h.leaveOne(context.Background(), id)
			} else {
				var err error
				s, err = b.h.Admit(context.Background(), netip.Addr{}, token, auth.Identity{User: "ann"}, nil)
				if err != nil {
					t.Fatal(err)
				}
			}
			if j := b.h.judge(context.Background(), a.h.cluster.id, asked); len(j.Again) != 1 || len(j.Kept)+len(j.Moved) > 0 {
				t.Errorf("it is judged %+v", j)
			}
			var back *client
			if how == "leave" {
				back = b.comes(token, "ann")
			} else {
				back = newSession(b.t, b.l, s)
			}
			if back.id != c.id {
				t.Errorf("the session is gone: was %s, welcome %v", c.id, back.welcome)
			}
		})
	}
}

// A session that is doubted anew while a node is asked about it stays in doubt: that node may have got it behind its answer. And
// there are so many doubts at most.
func TestADoubtThatIsNotedAnewStays(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 2, func(*Config) {})
	a, b := nodes[0], nodes[1].inner.ID()
	a.sees(nodes[1], false) // nobody else asks it
	m := &a.h.cluster.moves
	ann, _ := a.member("ann", "r")
	bob, _ := a.member("bob", "r")
	until := a.h.doubtTime()
	m.doubt(idOf(ann), until)
	m.doubt(idOf(bob), until)
	asked := m.rivalsOf(b, a.h)
	m.doubt(idOf(ann), until)
	m.settled(b, asked, nil)
	if left := m.rivalsOf(b, a.h); len(asked) != 2 || len(left) != 1 || left[0].ID != idOf(ann) {
		t.Errorf("asked for were %v, and in doubt are %v, not %s alone", asked, left, ann.id)
	}
	for range manyDoubts {
		m.doubt(NewID(), until)
	}
	m.doubt(idOf(ann), until+1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.rivals[b]); n != manyDoubts || m.rivals[b][idOf(ann)].until != until+1 {
		t.Errorf("%d doubts are noted, of ann %v", n, m.rivals[b][idOf(ann)])
	}
}
