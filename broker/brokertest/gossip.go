package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub/broker"
)

// faultsBetween has three nodes tell topics, ask each other, and a fourth listen now and then, while one fault after the
// other is injected. What doesn't come is said to be missed; nothing comes twice, or out of order.
func faultsBetween(t *testing.T, w *world) {
	nodes := w.startTogether(3)
	topics := []string{"", "one", "two", "seldom"}
	for _, n := range nodes {
		for _, topic := range topics {
			n.listen(topic)
		}
	}
	g := &gossip{w: w, nodes: nodes, topics: topics, told: map[gossipKey][]word{}}
	g.run(func() { time.Sleep(100 * time.Millisecond) })
	g.settled(t)
	missedNothing(t, nodes)
	for _, f := range w.Faults {
		ok := t.Run(f.Name, func(t *testing.T) {
			g.run(f.Inject)
			for i, n := range nodes {
				n.meets(slices.Concat(nodes[:i], nodes[i+1:])...)
			}
			g.settled(t)
			t.Logf("%d told, %d of them lost to some node, %d times missed", g.count(), g.lost, g.missed())
		})
		if !ok {
			return
		}
	}
}

type gossipKey struct {
	from  *node
	topic string
}

type word struct {
	body string
	at   time.Time
}

// gossip is nodes that tell each other.
type gossip struct {
	w      *world
	nodes  []*node
	topics []string
	next   atomic.Int64
	lost   int

	mu   sync.Mutex
	told map[gossipKey][]word // what was taken, in its order
}

func (g *gossip) count() (n int) {
	for _, words := range g.told {
		n += len(words)
	}
	return n
}

func (g *gossip) missed() (n int) {
	for _, node := range g.nodes {
		node.together.mu.Lock()
		for _, h := range node.topics {
			n += len(h.missed)
		}
		node.together.mu.Unlock()
	}
	return n
}

// run has all tell and ask while something happens.
func (g *gossip) run(happens func()) {
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for i, n := range g.nodes {
		for _, topic := range g.topics {
			pause := 500 * time.Microsecond
			if topic == "seldom" {
				pause = 700 * time.Millisecond
			}
			busy.Go(func() { g.tell(n, topic, pause, stop) })
		}
		busy.Go(func() { g.ask(n, g.nodes[(i+1)%len(g.nodes)], stop) })
	}
	time.Sleep(50 * time.Millisecond)
	happens()
	close(stop)
	busy.Wait()
}

func (g *gossip) tell(n *node, topic string, pause time.Duration, stop chan struct{}) {
	key := gossipKey{n, topic}
	for {
		body := fmt.Sprint(g.next.Add(1))
		g.mu.Lock()
		if at := time.Now(); n.b.Tell(topic, []byte(body)) == nil {
			g.told[key] = append(g.told[key], word{body, at})
		}
		g.mu.Unlock()
		select {
		case <-stop:
			return
		case <-time.After(pause):
		}
	}
}

func (g *gossip) ask(n, other *node, stop chan struct{}) {
	for {
		body := fmt.Sprint("question ", g.next.Add(1))
		switch o := wait(g.w.t, n.ask(other.b.ID(), body)); {
		case o.err == nil && string(o.body) != strings.ToUpper(body):
			g.w.t.Errorf("%q was answered with %q", body, o.body)
		case o.err != nil && !errors.Is(o.err, broker.ErrUnavailable) && !errors.Is(o.err, broker.ErrTimeout):
			g.w.t.Errorf("%q: %v", body, o.err)
		}
		select {
		case <-stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// settled waits until each word has been heard by all other nodes, or is said to be missed.
func (g *gossip) settled(t *testing.T) {
	t.Helper()
	g.lost = 0
	for key, words := range g.told {
		for i, n := range g.nodes {
			if n == key.from {
				continue
			}
			what := fmt.Sprintf("node %d has heard all that node %d told %q, or is told that it has missed something", i, slices.Index(g.nodes, key.from), key.topic)
			g.w.until(what, func() bool {
				time.Sleep(20 * time.Millisecond)
				heard, missed := n.heardOf(key)
				lost, ok := g.lostOf(words, heard)
				if !ok {
					t.Fatalf("node %d has heard what node %d didn't tell %q, or heard it twice, or out of order", i, slices.Index(g.nodes, key.from), key.topic)
				}
				if len(lost) > 0 && (len(missed) == 0 || missed[len(missed)-1].Before(lost[len(lost)-1].at)) {
					return false
				}
				g.lost += len(lost)
				return true
			})
		}
	}
	for i, n := range g.nodes {
		n.together.mu.Lock()
		for _, questions := range n.asked {
			seen := map[string]bool{}
			for _, q := range questions {
				if seen[q] {
					t.Errorf("node %d was asked %q twice", i, q)
				}
				seen[q] = true
			}
		}
		n.together.mu.Unlock()
	}
}

func (n *node) heardOf(key gossipKey) (bodies []string, missed []time.Time) {
	h := n.hearing(key.topic)
	n.together.mu.Lock()
	defer n.together.mu.Unlock()
	return slices.Clone(h.bodies[key.from.b.ID()]), slices.Clone(h.missed)
}

// lostOf are the words that aren't among those heard. It is false where these aren't what was told, in its order.
func (g *gossip) lostOf(words []word, heard []string) (lost []word, ok bool) {
	for _, body := range heard {
		for {
			if len(words) == 0 {
				return nil, false
			}
			w := words[0]
			words = words[1:]
			if w.body == body {
				break
			}
			lost = append(lost, w)
		}
	}
	return append(lost, words...), true
}
