package nats

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"

	"example.com/hubbub/broker"
)

// others is what a testNode notes of other nodes.
type others struct {
	mu      sync.Mutex
	heard   []string // "topic: body", and "topic missed"
	peers   []broker.Peer
	cut     bool
	views   int
	slow    chan struct{} // Heard waits for it
	hearing func()        // is called instead of noting it; nil for nothing
}

func (o *others) note(s string) {
	o.mu.Lock()
	slow, hearing := o.slow, o.hearing
	o.mu.Unlock()
	if hearing != nil {
		hearing()
		return
	}
	if slow != nil {
		<-slow
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.heard = append(o.heard, s)
}

func (o *others) Heard(topic string, _ broker.NodeID, body []byte) {
	o.note(topic + ": " + string(body))
}
func (o *others) Missed(topic string) { o.note(topic + " missed") }

func (o *others) Handle(_ broker.NodeID, body []byte, reply func([]byte)) {
	reply(body)
}

func (o *others) Beat() []byte { return nil }

func (o *others) View(peers []broker.Peer, cut bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.peers, o.cut = peers, cut
	o.views++
}

// until waits for something that a node notes of others.
func (n *testNode) until(what string, ok func(o *others) bool) {
	n.t.Helper()
	o := &n.others
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		o.mu.Lock()
		is := ok(o)
		o.mu.Unlock()
		if is {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("it doesn't come to pass: %s; heard %q, sees %d, cut off %v", what, o.heard, len(o.peers), o.cut)
		}
	}
}

// meets waits until a node sees so many others.
func (n *testNode) meets(many int) {
	n.t.Helper()
	n.until(fmt.Sprint(many, " others are seen"), func(o *others) bool { return !o.cut && o.views > 1 && len(o.peers) == many })
}

// hears waits until a node has heard all of this, and nothing else.
func (n *testNode) hears(words ...string) {
	n.t.Helper()
	n.until(fmt.Sprintf("%q is heard", words), func(o *others) bool { return len(o.heard) >= len(words) })
	n.others.mu.Lock()
	defer n.others.mu.Unlock()
	if !slices.Equal(n.heard, words) {
		n.t.Errorf("heard %q, want %q", n.heard, words)
	}
	n.heard = nil
}

func (n *testNode) listen(topics ...string) {
	n.t.Helper()
	ready := make(chan error, 1)
	for _, topic := range topics {
		n.Listen(topic, func(err error) { ready <- err })
		if err := <-ready; err != nil {
			n.t.Fatalf("listening to %q: %v", topic, err)
		}
	}
}

func (n *testNode) ask(to broker.NodeID, body string) (answer string, err error) {
	done := make(chan struct{})
	n.Call(to, []byte(body), func(b []byte, e error) {
		answer, err = string(b), e
		close(done)
	})
	<-done
	return answer, err
}

// puppet is a node that a test plays by hand.
type puppet struct {
	t      *testing.T
	id     broker.NodeID
	c      *client.Conn
	number uint64 // of the last beat
	told   uint64 // of what was told last
}

func newPuppet(t *testing.T, e *testServer) *puppet {
	c, err := client.Connect("", client.InProcessServer(e))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &puppet{t: t, id: newNodeID(), c: c}
}

// answers has it answer fences.
func (p *puppet) answers() {
	if _, err := p.c.Subscribe(fenceSubject, func(m *client.Msg) {
		answer := append(slices.Clone(p.id[:]), m.Data[len(p.id):]...)
		_ = p.c.Publish(subjectOf(fencedSubject, broker.NodeID(m.Data[:len(p.id)])), binary.AppendUvarint(answer, 0))
	}); err != nil {
		p.t.Error(err)
	}
	_ = p.c.Flush()
}

// beat says that it is there, and the numbers of what it has told last to some topics.
func (p *puppet) beat(flags byte, tails map[string]uint64) {
	p.number++
	b := append(slices.Clone(p.id[:]), flags)
	b = binary.AppendUvarint(b, p.number)
	b = binary.AppendUvarint(b, p.told)
	b = append(b, 0) // it says nothing of itself
	for topic, number := range tails {
		b = binary.LittleEndian.AppendUint64(b, topicHash(token(topic)))
		b = binary.AppendUvarint(b, p.told-number)
	}
	p.send(beatSubject, b)
}

// tell tells a topic what stands behind another word of the same chain, 0 for none.
func (p *puppet) tell(topic, body string, number, before uint64) {
	p.told = max(p.told, number)
	behind := uint64(0)
	if before > 0 {
		behind = number - before
	}
	b := binary.AppendUvarint(binary.AppendUvarint(slices.Clone(p.id[:]), number), behind)
	p.send(topicSubject+token(topic), append(b, body...))
}

func (p *puppet) send(subject string, b []byte) {
	if err := p.c.Publish(subject, b); err != nil {
		p.t.Error(err)
	}
	_ = p.c.Flush()
}

// beating has it beat each second until the test ends, or stop is called.
func (p *puppet) beating() (stop func()) {
	end := make(chan struct{})
	var over sync.WaitGroup
	over.Go(func() {
		for {
			p.beat(0, nil)
			select {
			case <-time.After(beatEvery):
			case <-end:
				return
			}
		}
	})
	stop = sync.OnceFunc(func() {
		close(end)
		over.Wait()
	})
	p.t.Cleanup(stop)
	return stop
}

// A word that is lost is missed when the next one of its topic comes, or when the topic's tail does, by that topic alone; what
// was overtaken isn't heard any more, and a beat that is lost is missed by all topics.
func TestHolesAreSeen(t *testing.T) {
	e := startEmbedded(t)
	n := run(t, e.node(t))
	n.meets(0)
	p := newPuppet(t, e)
	p.answers()
	p.beat(0, nil)
	n.meets(1)
	n.listen("a", "b")

	p.tell("a", "one", 1, 0)
	p.tell("b", "two", 2, 0)
	p.tell("a", "four", 4, 3)
	p.tell("a", "late", 3, 1)
	n.hears("a: one", "b: two", "a missed", "a: four")
	p.tell("a", "five", 5, 4)
	p.beat(0, map[string]uint64{"a": 5, "b": 2, "other": 3})
	p.tell("a", "six", 6, 0)
	n.hears("a: five", "a: six")
	p.told = 8
	p.beat(0, map[string]uint64{"a": 6, "b": 8})
	n.hears("b missed")
	p.number++
	p.told = 20
	p.beat(0, map[string]uint64{"a": 15})
	n.until("all is missed", func(o *others) bool { return len(o.heard) == 2 })
	n.others.mu.Lock()
	slices.Sort(n.heard)
	n.others.mu.Unlock()
	n.hears("a missed", "b missed")
	p.tell("a", "21", 21, 19) // that one is missed already
	p.tell("b", "22", 22, 0)
	p.beat(byeFlag, map[string]uint64{"a": 21, "b": 22})
	n.hears("a: 21", "b: 22")
	n.meets(0)
}

// A node that comes may be heard late: its route is made just then. What it has told by then is missed; where that is nothing,
// nobody misses anything.
func TestWhoComesIsHeardLate(t *testing.T) {
	for told, want := range map[uint64][]string{0: {"a: next"}, 3: {"a: next", "a missed"}} {
		e := startEmbedded(t)
		n := run(t, e.node(t))
		n.meets(0)
		n.listen("a")
		p := newPuppet(t, e)
		beats, err := p.c.SubscribeSync(beatSubject)
		if err != nil {
			t.Fatal(err)
		}
		p.number, p.told = 2, told
		p.beat(0, nil)
		p.tell("a", "next", told+1, 0)
		for own := 0; own < 3; { // it has told what is missed by then
			m, err := beats.NextMsg(patience)
			if err != nil {
				t.Fatal(err)
			}
			if id, _, _ := cutID(m.Data); id == n.ID() {
				own++
			}
		}
		n.hears(want...)
	}
}

// Who was there when a topic was listened to, but hadn't answered, may have told it something until it is heard of again.
func TestWhoDoesntAnswerIsMissed(t *testing.T) {
	e := startEmbedded(t)
	n := run(t, e.node(t))
	n.meets(0)
	p := newPuppet(t, e)
	p.beat(0, nil)
	n.meets(1)
	n.listen("a", "b") // the second doesn't wait for it
	n.hears()
	p.beat(0, nil)
	n.until("both are missed", func(o *others) bool { return len(o.heard) == 2 })
	n.hears("a missed", "b missed")
}

// A node that is gone without a good-bye may have told something that was lost with it.
func TestVanished(t *testing.T) {
	e := startEmbedded(t)
	n := run(t, e.node(t))
	n.meets(0)
	p := newPuppet(t, e)
	p.answers()
	p.beat(0, nil)
	n.meets(1)
	n.listen("a")
	sub, err := p.c.SubscribeSync(subjectOf(callSubject, p.id))
	if err != nil {
		t.Fatal(err)
	}
	_ = p.c.Flush()
	if _, err := n.ask(p.id, "hello"); !errors.Is(err, broker.ErrTimeout) {
		t.Errorf("a node that vanishes: %v", err)
	}
	if m, err := sub.NextMsg(time.Second); err != nil || string(m.Data[len(p.id)+1:]) != "hello" {
		t.Errorf("it was asked: %v", err)
	}
	n.meets(0)
	n.hears("a missed")
}

// Nobody has a node's subject though it is there, as when its connection is just lost: it was never asked.
func TestNobodyIsAsked(t *testing.T) {
	e := startEmbedded(t)
	n := run(t, e.node(t))
	n.meets(0)
	p := newPuppet(t, e)
	p.beating()
	n.meets(1)
	if _, err := n.ask(p.id, "hello"); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("a node that isn't reached: %v", err)
	}
}

// A node that takes what arrives too slowly loses some of it, and is told.
func TestSlowNodeMisses(t *testing.T) {
	e := startEmbedded(t)
	b := e.node(t)
	b.nodes.arrived = make(chan *client.Msg, 4)
	a, n := run(t, e.node(t)), run(t, b)
	n.meets(1)
	n.listen("a", "b")
	slow := make(chan struct{})
	n.others.mu.Lock()
	n.others.slow = slow
	n.others.mu.Unlock()
	for range 100 {
		if err := a.Tell("a", []byte("word")); err != nil {
			t.Fatal(err)
		}
	}
	n.until("some of it is dropped", func(*others) bool { return n.Health().Overrun > 0 })
	close(slow)
	n.until("a is told", func(o *others) bool { return slices.Contains(o.heard, "a missed") })
	if n.Health().Missed == 0 {
		t.Error("Health doesn't say so")
	}
}

// gated is a node of the server's behind a gate.
func (s *testServer) gated(t testing.TB) (*gate, *Broker) {
	g := &gate{testServer: s}
	b, err := connect(nil, Config{}, "", client.InProcessServer(g))
	if err != nil {
		t.Fatal(err)
	}
	return g, b
}

// A node that is cut off knows that, can't tell anything, and is told afterwards what it may have missed. The others see that
// it is gone, and that it is back.
func TestCutOff(t *testing.T) {
	e := startEmbedded(t)
	g, b := e.gated(t)
	a, n := run(t, e.node(t)), run(t, b)
	a.meets(1)
	n.meets(1)
	a.listen("a")
	n.listen("a")
	g.shut(true)
	n.until("it knows that it is cut off", func(o *others) bool { return o.cut && len(o.peers) == 1 })
	if h := n.Health(); !h.Cut || h.Up() || h.Links[0].Error == "" && h.Links[1].Error == "" {
		t.Errorf("Health says %+v", h)
	}
	n.until("it can't send", func(*others) bool { return !n.Health().Links[0].Up })
	if err := n.Tell("a", []byte("m")); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("it tells: %v", err)
	}
	if _, err := n.ask(a.ID(), "m"); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("it asks: %v", err)
	}
	ready := make(chan error, 1)
	n.Listen("b", func(err error) { ready <- err })
	if err := <-ready; !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("it listens: %v", err)
	}
	if err := a.Tell("a", []byte("lost")); err != nil {
		t.Error(err)
	}
	a.meets(0)
	a.hears("a missed")
	g.shut(false)
	n.meets(1)
	a.meets(1)
	n.hears("a missed")
	if h := n.Health(); h.Cut || !h.Up() || h.Peers != 1 || h.Links[0].Reconnects == 0 {
		t.Errorf("Health says %+v", h)
	}
}

// A server that takes nothing doesn't hold up who tells, asks or listens.
func TestStalledTelling(t *testing.T) {
	e := startEmbedded(t)
	g, b := e.gated(t)
	a, n := run(t, e.node(t)), run(t, b)
	n.meets(1)
	stall := make(chan struct{})
	g.mu.Lock()
	g.stall = stall
	g.mu.Unlock()
	begin := time.Now()
	for i := range 1000 {
		_ = n.Tell("a", make([]byte, 1000))
		n.Listen(fmt.Sprint("topic ", i), func(error) {})
		n.Call(a.ID(), nil, func([]byte, error) {})
	}
	if took := time.Since(begin); took > 4*time.Second { // the connection waits for five
		t.Errorf("it took %v", took)
	}
	close(stall)
	n.meets(1)
}

// Two nodes never have one id.
func TestTakenID(t *testing.T) {
	e := startEmbedded(t)
	a := run(t, e.node(t))
	a.meets(0)
	b := e.node(t)
	defer b.Close()
	if !b.taken(a.ID()) {
		t.Error("a node doesn't see that its id is another's")
	}
	if b.taken(b.ID()) {
		t.Error("its own id is said to be taken")
	}
}

// What is too large for the servers isn't told or asked.
func TestTooLargeForNodes(t *testing.T) {
	e := startEmbedded(t)
	a, b := run(t, e.node(t)), run(t, e.node(t))
	a.meets(1)
	b.listen("a")
	if err := a.Tell("a", make([]byte, maxPayload)); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("it was told: %v", err)
	}
	if _, err := a.ask(b.ID(), string(make([]byte, maxPayload))); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("it was asked: %v", err)
	}
	if answer, err := a.ask(b.ID(), string(make([]byte, MaxBody))); err != nil || len(answer) != MaxBody {
		t.Errorf("the largest question has an answer of %d bytes: %v", len(answer), err)
	}
	b.hears()
}

// No word, beat or answer can harm a node.
func FuzzNodes(f *testing.F) {
	f.Add([]byte("1234"), []byte{0, 0, 0, 0, 1, 1, 0, 0})
	f.Add([]byte("1234\x05\x02body"), []byte("1234\x00\x01\x09\x02xx12345678\x01"))
	f.Fuzz(func(t *testing.T, told, beat []byte) {
		b := newBroker(nil, Config{})
		b.node = &testNode{t: t}
		tp := &topic{name: "a", token: "a", live: true, sub: &client.Subscription{}}
		b.nodes.topics["a"], b.nodes.hashes[0] = tp, tp
		b.nodes.settle = 0
		b.nodes.heard(&client.Msg{Subject: topicSubject + "a", Data: told, Sub: tp.sub})
		b.nodes.heardBeat(beat)
		b.nodes.fenceAnswered(beat)
		b.nodes.fenceAsked(&client.Msg{Data: told})
	})
}

// A node may begin before the servers can be reached, and then meets the others.
func TestServersComeLater(t *testing.T) {
	e := startEmbedded(t)
	a := run(t, e.node(t))
	g := &gate{testServer: e}
	g.shut(true)
	b := newBroker(nil, Config{})
	b.stores = &stores{b: b} // which may come later
	if _, err := b.connected("", client.InProcessServer(g), client.RetryOnFailedConnect(true)); err != nil {
		t.Fatal(err)
	}
	n := run(t, b)
	if err := n.Tell("a", nil); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("it tells: %v", err)
	}
	g.shut(false)
	n.meets(1)
	a.meets(1)
	n.listen("a")
	if err := a.Tell("a", []byte("hello")); err != nil {
		t.Error(err)
	}
	n.hears("a: hello")
}
