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

// together is what a node notes of the others.
type together struct {
	mu     sync.Mutex
	topics map[string]*hearing
	asked  map[broker.NodeID][]string
	silent bool // it answers nothing
	beat   string
	peers  []broker.Peer
	cut    bool
}

// hearing is what has come of a topic.
type hearing struct {
	busy   atomic.Bool // Heard or Missed is being called
	bodies map[broker.NodeID][]string
	missed []time.Time
}

func newTogether() together {
	return together{topics: map[string]*hearing{}, asked: map[broker.NodeID][]string{}}
}

func (n *node) hearing(topic string) *hearing {
	n.together.mu.Lock()
	defer n.together.mu.Unlock()
	h := n.topics[topic]
	if h == nil {
		h = &hearing{bodies: map[broker.NodeID][]string{}}
		n.topics[topic] = h
	}
	return h
}

// called notes that the broker calls for a topic, and that it does so once at a time.
func (n *node) called(topic string, do func(h *hearing)) {
	h := n.hearing(topic)
	if h.busy.Swap(true) {
		n.w.t.Errorf("topic %.20q: Heard or Missed is called twice at a time", topic)
	}
	defer h.busy.Store(false)
	n.together.mu.Lock()
	defer n.together.mu.Unlock()
	do(h)
}

func (n *node) Heard(topic string, from broker.NodeID, body []byte) {
	n.called(topic, func(h *hearing) { h.bodies[from] = append(h.bodies[from], string(body)) })
}

func (n *node) Missed(topic string) {
	n.called(topic, func(h *hearing) { h.missed = append(h.missed, time.Now()) })
}

// Handle answers what it is asked, in capitals.
func (n *node) Handle(from broker.NodeID, body []byte, reply func([]byte)) {
	n.together.mu.Lock()
	defer n.together.mu.Unlock()
	n.asked[from] = append(n.asked[from], string(body))
	if !n.silent {
		reply([]byte(strings.ToUpper(string(body))))
	}
}

func (n *node) Beat() []byte {
	n.together.mu.Lock()
	defer n.together.mu.Unlock()
	return []byte(n.beat)
}

func (n *node) View(peers []broker.Peer, cut bool) {
	n.together.mu.Lock()
	defer n.together.mu.Unlock()
	n.peers, n.cut = peers, cut
}

// says has a node say something else of itself.
func (n *node) says(beat string) {
	n.together.mu.Lock()
	defer n.together.mu.Unlock()
	n.beat = beat
}

// until waits for something that the brokers bring about.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatal("it doesn't come to pass: ", what)
		}
	}
}

// meets waits until a node sees exactly these others.
func (n *node) meets(others ...*node) {
	n.w.t.Helper()
	var ids []broker.NodeID
	for _, o := range others {
		ids = append(ids, o.b.ID())
	}
	n.w.until(fmt.Sprintf("a node sees %d others", len(others)), func() bool {
		n.together.mu.Lock()
		defer n.together.mu.Unlock()
		if n.cut || len(n.peers) != len(ids) {
			return false
		}
		for i, p := range n.peers {
			if !slices.Contains(ids, p.ID) || i > 0 && string(n.peers[i-1].ID[:]) >= string(p.ID[:]) {
				return false
			}
		}
		return true
	})
}

// startTogether starts nodes, which see each other.
func (w *world) startTogether(many int) (nodes []*node) {
	w.t.Helper()
	for range many {
		nodes = append(nodes, w.start())
	}
	for i, n := range nodes {
		n.meets(slices.Concat(nodes[:i], nodes[i+1:])...)
	}
	return nodes
}

// listen listens to a topic, and waits until everything comes.
func (n *node) listen(topic string) (closed func()) {
	n.w.t.Helper()
	ready := make(chan error, 2)
	closed = n.b.Listen(topic, func(err error) { ready <- err })
	if err := wait(n.w.t, ready); err != nil {
		n.w.t.Fatalf("listening to %.20q: %v", topic, err)
	}
	return closed
}

func (n *node) tell(topic, body string) {
	n.w.t.Helper()
	if err := n.b.Tell(topic, []byte(body)); err != nil {
		n.w.t.Fatalf("telling %.20q: %v", topic, err)
	}
}

// hears waits until all of what another node has told a topic has come, in its order, and nothing else.
func (n *node) hears(topic string, from *node, bodies ...string) {
	n.w.t.Helper()
	h := n.hearing(topic)
	var got []string
	n.w.until(fmt.Sprintf("%d bodies of %.20q are heard", len(bodies), topic), func() bool {
		n.together.mu.Lock()
		defer n.together.mu.Unlock()
		got = h.bodies[from.b.ID()]
		return len(got) >= len(bodies)
	})
	if !slices.Equal(got, bodies) {
		n.w.t.Errorf("%.20q: a node has heard %d bodies %.100q, told were %.100q", topic, len(got), got, bodies)
	}
}

// missedNothing says whether no topic of some nodes was told that something is lost.
func missedNothing(t *testing.T, nodes []*node) {
	t.Helper()
	for i, n := range nodes {
		n.together.mu.Lock()
		for topic, h := range n.topics {
			if len(h.missed) > 0 {
				t.Errorf("node %d was told %d times that something of %.20q may be lost, while all was well", i, len(h.missed), topic)
			}
		}
		n.together.mu.Unlock()
	}
}

func telling(t *testing.T, w *world) {
	nodes := w.startTogether(3)
	names := []string{"", "a", "a.b", "*", ">", "hello world", "grüße", strings.Repeat("x", 40), strings.Repeat("x", 41), strings.Repeat("ü.", 85)}
	var closed []func()
	for _, topic := range names {
		nodes[0].listen(topic)
		closed = append(closed, nodes[1].listen(topic))
	}
	const each = 200
	told := make([][]string, len(nodes))
	for k := range each {
		for i, n := range nodes {
			body := fmt.Sprint(i, ".", k)
			switch k {
			case 0:
				body = ""
			case 1:
				body += strings.Repeat("x", 500_000)
			}
			told[i] = append(told[i], body)
			for _, topic := range names[:4] {
				n.tell(topic, body)
			}
			if k < 5 && k != 1 {
				for _, topic := range names[4:] {
					n.tell(topic, body)
				}
			}
			n.tell("nobody listens", body)
		}
	}
	for i := range 2 {
		for k, n := range nodes {
			if i == k {
				continue
			}
			for _, topic := range names[:4] {
				nodes[i].hears(topic, n, told[k]...)
			}
			for _, topic := range names[4:] {
				nodes[i].hears(topic, n, told[k][0], told[k][2], told[k][3], told[k][4])
			}
		}
	}
	if len(nodes[2].topics) > 0 || len(nodes[0].hearing("a").bodies[nodes[0].b.ID()]) > 0 {
		t.Error("a node hears what it doesn't listen to, or itself")
	}
	// Who has closed a topic and listens again hears what is told from there on.
	for _, close := range closed {
		close()
	}
	nodes[0].tell("a", "between")
	nodes[0].tell("a", "more")
	nodes[2].listen("a")
	nodes[1].listen("a")
	nodes[0].tell("a", "last")
	nodes[2].hears("a", nodes[0], "last")
	w.until("the last is heard", func() bool {
		nodes[1].together.mu.Lock()
		defer nodes[1].together.mu.Unlock()
		heard := nodes[1].topics["a"].bodies[nodes[0].b.ID()]
		return heard[len(heard)-1] == "last"
	})
	missedNothing(t, nodes)
}

// readyToHear has topics be listened to one after the other, and told something as soon as they are ready.
func readyToHear(t *testing.T, w *world) {
	nodes := w.startTogether(4)
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			for k := range 60 {
				topic := fmt.Sprint("topic ", i, ".", k)
				closed := n.listen(topic)
				for _, o := range nodes {
					if o != n {
						o.tell(topic, "at once")
						o.tell(topic, "and once more")
					}
				}
				for _, o := range nodes {
					if o != n {
						n.hears(topic, o, "at once", "and once more")
					}
				}
				if k%2 == 0 {
					closed()
				}
			}
		})
	}
	all.Wait()
	missedNothing(t, nodes)
}

func manyTopics(t *testing.T, w *world) {
	nodes := w.startTogether(2)
	const many = 5000
	ready := make(chan error, 2*many)
	for i := range many {
		nodes[0].b.Listen(fmt.Sprint("topic ", i), func(err error) { ready <- err })
	}
	for range many {
		if err := wait(t, ready); err != nil {
			t.Fatal(err)
		}
	}
	for i := range many {
		nodes[1].tell(fmt.Sprint("topic ", i), "hello")
	}
	for i := range many {
		nodes[0].hears(fmt.Sprint("topic ", i), nodes[1], "hello")
	}
	missedNothing(t, nodes)
}

// answer is what comes of a call.
type answer struct {
	body []byte
	err  error
}

func (n *node) ask(to broker.NodeID, body string) <-chan answer {
	c := make(chan answer, 2)
	n.b.Call(to, []byte(body), func(body []byte, err error) { c <- answer{body, err} })
	return c
}

func asking(t *testing.T, w *world) {
	nodes := w.startTogether(3)
	a, b, c := nodes[0], nodes[1], nodes[2]
	var all []<-chan answer
	var bodies []string
	for k := range 500 {
		body := fmt.Sprint("question ", k)
		if k == 10 {
			body += strings.Repeat("x", 900_000)
		}
		bodies = append(bodies, body)
		all = append(all, a.ask(b.b.ID(), body))
	}
	for k, c := range all {
		if o := wait(t, c); o.err != nil || string(o.body) != strings.ToUpper(bodies[k]) {
			t.Errorf("question %d: %.50q, %v", k, o.body, o.err)
		}
	}
	b.together.mu.Lock()
	if !slices.Equal(b.asked[a.b.ID()], bodies) {
		t.Errorf("a node was asked %d questions, not these %d in their order", len(b.asked[a.b.ID()]), len(bodies))
	}
	b.together.mu.Unlock()
	if o := wait(t, a.ask(b.b.ID(), "")); o.err != nil || len(o.body) > 0 {
		t.Errorf("an empty question: %q, %v", o.body, o.err)
	}
	if o := wait(t, a.ask(broker.NodeID{1, 2, 3, 4}, "who are you")); !errors.Is(o.err, broker.ErrUnavailable) {
		t.Errorf("a node that isn't there: %q, %v", o.body, o.err)
	}
	// A node that says nothing, and one that leaves.
	for _, n := range []*node{b, c} {
		n.together.mu.Lock()
		n.silent = true
		n.together.mu.Unlock()
	}
	silent, left := a.ask(b.b.ID(), "well?"), a.ask(c.b.ID(), "are you leaving?")
	w.until("the one that leaves is asked", func() bool {
		c.together.mu.Lock()
		defer c.together.mu.Unlock()
		return len(c.asked[a.b.ID()]) > 0
	})
	c.stop()
	for _, c := range []<-chan answer{left, silent} {
		if o := wait(t, c); !errors.Is(o.err, broker.ErrTimeout) {
			t.Errorf("who doesn't answer: %q, %v", o.body, o.err)
		}
	}
	a.meets(b)
	if o := wait(t, a.ask(c.b.ID(), "still there?")); !errors.Is(o.err, broker.ErrUnavailable) {
		t.Errorf("a node that has left: %q, %v", o.body, o.err)
	}
}

func whoIsThere(t *testing.T, w *world) {
	nodes := w.startTogether(3)
	a, b, c := nodes[0], nodes[1], nodes[2]
	for _, n := range nodes {
		n.listen("topic")
	}
	b.says("hello")
	for _, n := range []*node{a, c} {
		w.until("what a node says of itself is known", func() bool {
			n.together.mu.Lock()
			defer n.together.mu.Unlock()
			return slices.ContainsFunc(n.peers, func(p broker.Peer) bool { return p.ID == b.b.ID() && string(p.Beat) == "hello" })
		})
	}
	d := w.start()
	d.meets(a, b, c)
	a.meets(b, c, d)
	d.tell("topic", "here I am")
	d.tell("topic", "and I leave")
	d.stop()
	a.meets(b, c)
	b.stop()
	a.meets(c)
	a.hears("topic", d, "here I am", "and I leave")
	missedNothing(t, []*node{a, c})
}

// theEndBetween has a node end while much is asked of it: all of that is answered, and what comes behind fails.
func theEndBetween(t *testing.T, w *world) {
	nodes := w.startTogether(2)
	a, b := nodes[0], nodes[1]
	b.together.mu.Lock()
	b.silent = true
	b.together.mu.Unlock()
	var all []<-chan answer
	ready := make(chan error, 200)
	for i := range 100 {
		all = append(all, a.ask(b.b.ID(), fmt.Sprint("question ", i)))
		a.b.Listen(fmt.Sprint("topic ", i), func(err error) { ready <- err })
	}
	a.stop()
	for _, c := range all {
		if o := <-c; !errors.Is(o.err, broker.ErrTimeout) && !errors.Is(o.err, broker.ErrUnavailable) {
			t.Errorf("a question that wasn't answered when its node ended: %q, %v", o.body, o.err)
		}
	}
	for range 100 {
		if err := wait(t, ready); err != nil && !errors.Is(err, broker.ErrUnavailable) {
			t.Error(err)
		}
	}
	if err := a.b.Tell("topic 1", nil); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("a node that has ended tells something: %v", err)
	}
	if o := wait(t, a.ask(b.b.ID(), "still?")); !errors.Is(o.err, broker.ErrUnavailable) {
		t.Errorf("a node that has ended asks something: %v", o.err)
	}
	a.b.Listen("late", func(err error) { ready <- err })
	if err := wait(t, ready); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("a node that has ended listens: %v", err)
	}
	b.meets()
}
