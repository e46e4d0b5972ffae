package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/loop"
)

// testNode is a node of a cluster in this process, whose calls can be lost.
type testNode struct {
	t     testing.TB
	h     *Hub
	l     *loop.Loop
	inner broker.Broker
	end   func() // as a process ends that is killed: for the others

	mu   sync.Mutex
	lose func(kind callKind) (question, answer bool)
	away map[broker.NodeID]bool // can't be reached
	slow time.Duration          // after which answers come
	most int                    // bytes of a call or its answer

	views  sync.Mutex // guards what follows, and is held while a view is told
	node   broker.Node
	peers  []broker.Peer
	cut    bool
	hidden map[broker.NodeID]bool // isn't in what the node sees
}

// lossy is its broker.
type lossy struct {
	broker.Broker
	n *testNode
}

func (b *lossy) Call(to broker.NodeID, body []byte, done func([]byte, error)) {
	b.n.mu.Lock()
	lose, away, slow := b.n.lose, b.n.away[to], b.n.slow
	b.n.mu.Unlock()
	b.n.measure(body)
	if answered := done; slow > 0 {
		done = func(body []byte, err error) { time.AfterFunc(slow, func() { answered(body, err) }) }
	}
	if away {
		go done(nil, broker.ErrUnavailable)
		return
	}
	if lose == nil {
		b.Broker.Call(to, body, done)
		return
	}
	question, answer := lose(callKind(body[0]))
	if question {
		go done(nil, broker.ErrTimeout)
		return
	}
	b.Broker.Call(to, body, func(got []byte, err error) {
		b.n.measure(got)
		if answer {
			got, err = nil, broker.ErrTimeout
		}
		done(got, err)
	})
}

func (b *lossy) Run(ctx context.Context, node broker.Node) error {
	ctx, cancel := context.WithCancel(ctx)
	b.n.mu.Lock()
	b.n.end = cancel
	b.n.mu.Unlock()
	return b.Broker.Run(ctx, viewing{node, b.n})
}

// losing has calls of the node be lost as that says.
func (n *testNode) losing(lose func(kind callKind) (question, answer bool)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lose = lose
}

func (n *testNode) measure(body []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.most = max(n.most, len(body))
}

// largest is how many bytes its largest call has had, or the answer to one that might be lost.
func (n *testNode) largest() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.most
}

// dies is how a node is gone for the others.
func (n *testNode) dies(others ...*testNode) {
	n.mu.Lock()
	end := n.end
	n.mu.Unlock()
	end()
	for _, other := range others {
		until(n.t, "the others know", func() bool { return !other.h.cluster.sees(n.inner.ID()) })
	}
}

// nodesOf are so many nodes that see each other.
func nodesOf(t testing.TB, memory *brokertest.Memory, many int, set func(*Config)) (all []*testNode) {
	for range many {
		all = append(all, newTestNode(t, memory, set))
	}
	for _, n := range all {
		until(t, "they see each other", func() bool { peers, _ := n.h.Peers(); return len(peers) == many-1 })
	}
	return all
}

func newTestNode(t testing.TB, memory *brokertest.Memory, set func(*Config)) *testNode {
	n := &testNode{t: t, inner: memory.Broker()}
	n.begin(set)
	return n
}

func (n *testNode) begin(set func(*Config)) {
	n.h, n.l = newHubOf(n.t, 2, func(c *Config) {
		c.Broker, c.ResumeWindow = &lossy{n.inner, n}, time.Minute
		set(c)
	})
}

// comes is a client that comes to the node with a token.
func (n *testNode) comes(token, user string) *client {
	return n.comesAs(token, auth.Identity{User: user})
}

func (n *testNode) comesAs(token string, who auth.Identity) *client {
	s, err := n.h.Admit(context.Background(), netip.Addr{}, token, who, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return newSession(n.t, n.l, s)
}

// member is a new client that has joined a room.
func (n *testNode) member(user, room string) (c *client, joined map[string]any) {
	c = n.comes("", user)
	c.say(`{"msg_type":"join_room","room":%q,"id":"join"}`, room)
	return c, c.answer("join", func(map[string]any) {})
}

func (c *client) token() string { return c.welcome["resume_token"].(string) }

// resumes says that it wants a room again, from a position on, "null" for none, and gives what it is told until that is done.
func (c *client) resumes(room, position string) (resumed map[string]any) {
	c.say(`{"msg_type":"resume","rooms":{%q:%s},"id":"resume"}`, room, position)
	m := c.answer("resume", func(m map[string]any) { c.t.Errorf("before resumed: %v", m) })
	return m["rooms"].(map[string]any)[room].(map[string]any)
}

func position(joined map[string]any) string {
	b, _ := json.Marshal(map[string]any{"epoch": joined["epoch"], "offset": joined["offset"]})
	return string(b)
}

// alive are the nodes on which the id is.
func alive(id ID, nodes ...*testNode) (on []int) {
	for i, n := range nodes {
		if n.h.has(id, func(string, uint32, uint32) bool { return true }) || n.h.handing(id) != nil {
			on = append(on, i)
		}
	}
	return on
}

func expectOn(t testing.TB, id ID, want int, nodes ...*testNode) {
	t.Helper()
	until(t, fmt.Sprintf("the session is on node %d alone", want), func() bool { return slices.Equal(alive(id, nodes...), []int{want}) })
}

// audited has all accounts hold, once nothing is under way.
func audited(t testing.TB, nodes ...*testNode) {
	t.Helper()
	for i, n := range nodes {
		until(t, "nothing is on its way", func() bool {
			for s := range n.h.clients {
				if len(n.h.clients[s].handings()) > 0 {
					return false
				}
			}
			return true
		})
		var faults []string
		until(t, fmt.Sprintf("the accounts of node %d hold", i), func() bool { faults = n.h.Audit(); return len(faults) == 0 })
	}
}

// A client that has lost its connection comes back to another node, and has all that it would have had on its own.
func TestASessionResumesOnAnotherNode(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 3, func(*Config) {})
	a, b, other := nodes[0], nodes[1], nodes[2]
	ann, joined := a.member("ann", "r")
	bob, _ := other.member("bob", "r")
	must(t, a.h.Join(context.Background(), "put", idOf(ann)))
	ann.next()
	ann.say(`{"msg_type":"join_room","room":"r2","id":2}`)
	ann.next()
	ann.lose(a.h)
	bob.say(`{"msg_type":"room_message","room":"r","content":"missed","id":1}`)
	bob.answer(1.0, func(map[string]any) {})
	must(t, a.h.sendToClient(context.Background(), &Publication{Client: idOf(ann), Content: []byte(`"direct"`)}))

	back := b.comes(ann.token(), "ann")
	if back.id != ann.id || back.welcome["resumed"] != true {
		t.Fatalf("welcome %v, want session %s", back.welcome, ann.id)
	}
	if got := back.resumes("r", position(joined)); got["recovered"] != true {
		t.Errorf("resumed %v", got)
	}
	var kinds []string
	for range 3 {
		m := back.next()
		kinds = append(kinds, fmt.Sprint(m["msg_type"], " ", m["room"], " ", m["content"]))
	}
	slices.Sort(kinds)
	want := []string{"direct_message <nil> direct", "joined put <nil>", "room_message r missed"}
	if !slices.Equal(kinds, want) {
		t.Errorf("got %q, want %q", kinds, want)
	}
	expectOn(t, idOf(ann), 1, nodes...)
	if to, moved := a.h.movedTo(idOf(ann)); !moved || to != b.inner.ID() {
		t.Errorf("its id leads to %v (%v) on the node where it began", to, moved)
	}
	bob.say(`{"msg_type":"room_message","room":"r","content":"live"}`)
	if m := back.next(); m["content"] != "live" {
		t.Errorf("got %v", m)
	}
	if _, ok := a.h.roomHere("r2"); ok {
		t.Error("a room that nobody is in any more is kept where the session was")
	}
	audited(t, nodes...)

	// And on: to a third node, by a token of which the welcome was lost, and back to the first.
	lost := b.comes(back.token(), "ann")
	third := other.comes(back.token(), "ann")
	if third.id != ann.id || third.welcome["resumed"] != true {
		t.Fatalf("on the third node: welcome %v", third.welcome)
	}
	if !lost.isClosed() {
		t.Error("the connection before it is still there")
	}
	third.resumes("r", "null")
	first := a.comes(third.token(), "ann")
	if first.id != ann.id || first.welcome["resumed"] != true {
		t.Fatalf("on the first node again: welcome %v", first.welcome)
	}
	expectOn(t, idOf(ann), 0, nodes...)
	audited(t, nodes...)
}

// isClosed waits for the connection's end.
func (c *client) isClosed() bool {
	for {
		select {
		case _, open := <-c.got:
			if !open {
				return true
			}
		case <-time.After(time.Minute):
			return false
		}
	}
}

// Another user's session isn't given, nor one by a token that counts no more; whoever comes so begins anew, and the session
// goes on where it is.
func TestWhoseSessionItIsCountsOnEveryNode(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 2, func(*Config) {})
	a, b := nodes[0], nodes[1]
	ann, _ := a.member("ann", "r")
	first := ann.token()
	if eve := b.comes(first, "eve"); eve.id == ann.id || eve.welcome["resumed"] != false {
		t.Errorf("another user's: welcome %v", eve.welcome)
	}
	second := a.comes(first, "ann")
	second.resumes("r", "null")
	if late := b.comes(first, "ann"); late.id == ann.id || late.welcome["resumed"] != false {
		t.Errorf("by the token before: welcome %v", late.welcome)
	}
	expectOn(t, idOf(ann), 0, nodes...)
	second.say(`{"msg_type":"ping","id":1}`)
	if m := second.next(); m["msg_type"] != "pong" {
		t.Errorf("got %v", m)
	}
	audited(t, nodes...)
}

// Whatever question or answer is lost on the way, the session is on one node in the end, whole: it was handed over, or it is
// where it was.
func TestNothingIsLostWithAnAnswer(t *testing.T) {
	for name, kind := range map[string]callKind{"claim": callSession, "arrived": callArrived, "has": callHas} {
		for _, what := range []string{"question", "answer"} {
			for _, times := range []int{1, 1 << 30} {
				t.Run(fmt.Sprint(name, " ", what, " ", times), func(t *testing.T) {
					t.Parallel()
					nodes := nodesOf(t, brokertest.NewMemory(), 2, func(*Config) {})
					a, b := nodes[0], nodes[1]
					ann, joined := a.member("ann", "r")
					ann.lose(a.h)
					must(t, a.h.sendToClient(context.Background(), &Publication{Client: idOf(ann), Content: []byte(`"direct"`)}))
					var mu sync.Mutex
					left := times
					lose := func(k callKind) (bool, bool) {
						mu.Lock()
						defer mu.Unlock()
						if k != kind || left == 0 {
							return false, false
						}
						left--
						return what == "question", what == "answer"
					}
					a.losing(lose)
					b.losing(lose)
					back := b.comes(ann.token(), "ann")
					a.losing(nil)
					b.losing(nil)
					on := 1
					if back.welcome["resumed"] != true {
						if kind != callSession || times == 1 {
							t.Errorf("welcome %v", back.welcome)
						}
						expectOn(t, idOf(ann), 0, nodes...)
						back, on = a.comes(ann.token(), "ann"), 0
					}
					if back.id != ann.id || back.welcome["resumed"] != true {
						t.Fatalf("welcome %v", back.welcome)
					}
					back.resumes("r", position(joined))
					if m := back.next(); m["content"] != "direct" {
						t.Errorf("got %v", m)
					}
					expectOn(t, idOf(ann), on, nodes...)
					audited(t, nodes...)
				})
			}
		}
	}
}

// Of a client's handshakes on all nodes at once one has the session, and it is on one node.
func TestHandshakesOnAllNodesAtOnce(t *testing.T) {
	t.Parallel()
	for _, dead := range []bool{false, true} {
		t.Run(fmt.Sprint("its node is dead: ", dead), func(t *testing.T) {
			nodes := nodesOf(t, brokertest.NewMemory(), 4, func(*Config) {})
			began, others := nodes[3], nodes[:3]
			var sessions [20]*client
			for i := range sessions {
				sessions[i], _ = began.member("ann", "r")
			}
			if dead {
				began.dies(others...)
			}
			for _, ann := range sessions {
				var all sync.WaitGroup
				var mu sync.Mutex
				resumed := 0
				for _, n := range others {
					for range 3 {
						all.Go(func() {
							c := n.comes(ann.token(), "ann")
							mu.Lock()
							defer mu.Unlock()
							if c.id == ann.id {
								resumed++
							}
						})
					}
				}
				all.Wait()
				if resumed == 0 {
					t.Error("nobody has the session")
				}
				until(t, "it is on one node", func() bool { return len(alive(idOf(ann), others...)) == 1 })
			}
			audited(t, others...)
		})
	}
}

// The session of a node that is dead begins again with its id, its user and nothing else; what was missed comes from the log.
func TestASessionOfADeadNode(t *testing.T) {
	for _, many := range []int{2, 3} {
		t.Run(fmt.Sprint(many, " nodes"), func(t *testing.T) {
			nodes := nodesOf(t, brokertest.NewMemory(), many, func(*Config) {})
			a, b := nodes[0], nodes[1]
			ann, joined := a.member("ann", "r")
			bob, _ := b.member("bob", "r")
			a.dies(nodes[1:]...)
			bob.say(`{"msg_type":"room_message","room":"r","content":"missed","id":1}`)
			bob.answer(1.0, func(map[string]any) {})
			if eve := b.comes(ann.token(), "eve"); eve.id == ann.id || eve.welcome["resumed"] != false {
				t.Errorf("another user's: welcome %v", eve.welcome)
			}
			back := b.comes(ann.token(), "ann")
			if back.id != ann.id || back.welcome["resumed"] != true {
				t.Fatalf("welcome %v", back.welcome)
			}
			if got := back.resumes("r", position(joined)); got["recovered"] != true {
				t.Errorf("resumed %v", got)
			}
			if m := back.next(); m["content"] != "missed" {
				t.Errorf("got %v", m)
			}
			last := nodes[many-1]
			again := last.comes(ann.token(), "ann") // by the token of the dead node, which counts no more
			if many > 2 && again.id == ann.id {
				t.Errorf("a token that counts no more: welcome %v", again.welcome)
			}
			again = last.comes(back.token(), "ann")
			if again.id != ann.id || again.welcome["resumed"] != true {
				t.Fatalf("welcome %v", again.welcome)
			}
			expectOn(t, idOf(ann), many-2, nodes[1:]...) // the dead one doesn't know
			audited(t, nodes[1:]...)
		})
	}
}

// A node that is cut off from the others gives no session a second life, and takes those of its own; when it is back, each
// session that others were given meanwhile is on one node.
func TestSessionsOfANodeThatIsCutOff(t *testing.T) {
	t.Parallel()
	memory := brokertest.NewMemory()
	nodes := nodesOf(t, memory, 3, func(*Config) {})
	a, b := nodes[0], nodes[1]
	ann, _ := a.member("ann", "r")
	bob, _ := b.member("bob", "r")
	carl, _ := a.member("carl", "r")
	ann.lose(a.h)
	must(t, a.h.sendToClient(context.Background(), &Publication{Client: idOf(ann), Content: []byte(`"direct"`)}))
	memory.Cut(a.inner, true)
	until(t, "the others know", func() bool { return !b.h.cluster.sees(a.inner.ID()) })
	if c := a.comes(bob.token(), "bob"); c.id == bob.id || c.welcome["resumed"] != false {
		t.Errorf("another node's session on one that is cut off: welcome %v", c.welcome)
	}
	annAgain := b.comes(ann.token(), "ann")
	carlAgain := a.comes(carl.token(), "carl")
	if annAgain.id != ann.id || carlAgain.id != carl.id {
		t.Fatalf("welcome %v, and %v", annAgain.welcome, carlAgain.welcome)
	}
	annAgain.resumes("r", "null")
	memory.Cut(a.inner, false)
	expectOn(t, idOf(ann), 1, nodes...)
	for m := annAgain.next(); m["content"] != "direct"; m = annAgain.next() { // what waited for it on its first node comes
		if m["msg_type"] != "gap" { // nobody knows of chats
			t.Errorf("got %v", m)
		}
	}
	expectOn(t, idOf(carl), 0, nodes...)
	audited(t, nodes...)
}

// A node that stops gives its parked sessions to the others, and whoever comes finds its own there.
func TestANodeThatStopsGivesItsSessionsAway(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 3, func(*Config) {})
	a, others := nodes[0], nodes[1:]
	const many = 40
	var clients [many]*client
	var at [many]string
	for i := range clients {
		c, joined := a.member(fmt.Sprint("user ", i), fmt.Sprint("r", i%3))
		clients[i], at[i] = c, position(joined)
	}
	a.l.Stop(0)
	a.l.Wait()
	if n := a.h.ParkedSessions(); n != many {
		t.Fatalf("%d are parked", n)
	}
	must(t, a.h.sendToClient(context.Background(), &Publication{Client: idOf(clients[0]), Content: []byte(`"direct"`)}))
	early := others[0].comes(clients[1].token(), "user 1")
	if early.id != clients[1].id {
		t.Errorf("while it stops: welcome %v", early.welcome)
	}
	a.h.Leave(context.Background())
	if n := a.h.ParkedSessions(); n != 0 {
		t.Errorf("%d are still there", n)
	}
	a.dies(others...)
	for i, c := range clients {
		n := others[i%2]
		back := n.comes(c.token(), fmt.Sprint("user ", i))
		if back.id != c.id || back.welcome["resumed"] != true {
			if i != 1 { // whose token counts until the early one is heard
				t.Errorf("client %d: welcome %v", i, back.welcome)
			}
			continue
		}
		if got := back.resumes(fmt.Sprint("r", i%3), at[i]); got["recovered"] != true {
			t.Errorf("client %d: resumed %v", i, got)
		}
		if i == 0 {
			if m := back.next(); m["content"] != "direct" {
				t.Errorf("got %v", m)
			}
		}
	}
	audited(t, others...)
}

// The application's Connect is asked for a client that comes to another node, and told the id that it gets; where the session
// isn't to be had after all it is asked once more.
func TestConnectIsAskedOnTheNewNode(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 2, func(*Config) {})
	a, b := nodes[0], nodes[1]
	ann, _ := a.member("ann", "r")
	ann.lose(a.h)
	var asked []ID
	admit := func(token, user string) *client {
		asked = nil
		s, err := b.h.Admit(context.Background(), netip.Addr{}, token, auth.Identity{}, func(_ context.Context, id ID, who *auth.Identity) error {
			asked = append(asked, id)
			who.User = user
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return newSession(t, b.l, s)
	}
	for _, story := range []struct {
		name, token, user string
		asked             int
		resumed           bool
	}{
		{"another user", ann.token(), "eve", 2, false},
		{"a session that never was", a.h.token(a.h.newID(), 0, "ann"), "ann", 1, false},
		{"its own", ann.token(), "ann", 1, true},
	} {
		c := admit(story.token, story.user)
		if len(asked) != story.asked || c.welcome["resumed"] != story.resumed || c.id != asked[len(asked)-1].String() || (c.id == ann.id) != story.resumed {
			t.Errorf("%s: asked for %v, welcome %v", story.name, asked, c.welcome)
		}
	}
	audited(t, nodes...)
}

// Resuming elsewhere ends with the handshake's own time, whatever the other node does.
func TestAHandshakeDoesNotWaitForLong(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 2, func(*Config) {})
	a, b := nodes[0], nodes[1]
	ann, _ := a.member("ann", "r")
	ann.lose(a.h)
	b.losing(func(callKind) (bool, bool) { return true, false })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	s, err := b.h.Admit(ctx, netip.Addr{}, ann.token(), auth.Identity{User: "ann"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := newSession(t, b.l, s); c.welcome["resumed"] != false {
		t.Errorf("welcome %v", c.welcome)
	}
	expectOn(t, idOf(ann), 0, nodes...)
	audited(t, nodes...)
}

// A node that has just come hasn't heard of all others yet, which are busy. Who comes there with a session of one of these
// has it, once the node hears of that one, or once the others know that it has died.
func TestASessionOfANodeThatOnlyOthersSee(t *testing.T) {
	for _, dies := range []bool{false, true} {
		t.Run(fmt.Sprint("it has died: ", dies), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				memory := brokertest.NewMemory()
				t.Cleanup(memory.Wait)
				nodes := nodesOf(t, memory, 2, func(*Config) {})
				busy, other := nodes[0], nodes[1]
				ann, _ := busy.member("ann", "r")
				comer := &testNode{t: t, inner: memory.Broker(), hidden: map[broker.NodeID]bool{busy.inner.ID(): true}, away: map[broker.NodeID]bool{busy.inner.ID(): true}}
				comer.begin(func(*Config) {})
				until(t, "it sees the other", func() bool { return comer.h.cluster.sees(other.inner.ID()) })
				back := make(chan *client, 1)
				go func() { back <- comer.comes(ann.token(), "ann") }()
				time.Sleep(2 * time.Second)
				if dies {
					busy.dies(other)
				} else {
					comer.reaches(busy, true)
					comer.sees(busy, true)
				}
				if c := <-back; c.id != ann.id || c.welcome["resumed"] != true {
					t.Errorf("welcome %v, it was %s", c.welcome, ann.id)
				}
			})
		})
	}
}

// A node that is so busy that each of its answers comes late hands a session over all the same.
func TestASessionOfANodeThatAnswersLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		t.Cleanup(memory.Wait)
		nodes := nodesOf(t, memory, 2, func(*Config) {})
		busy, comer := nodes[0], nodes[1]
		ann, _ := busy.member("ann", "r")
		comer.mu.Lock()
		comer.slow = 1500 * time.Millisecond
		comer.mu.Unlock()
		if back := comer.comes(ann.token(), "ann"); back.id != ann.id || back.welcome["resumed"] != true {
			t.Errorf("welcome %v, it was %s", back.welcome, ann.id)
		}
	})
}

// What is said of where a session went shortens no doubt about that node.
func TestADoubtIsNotShortened(t *testing.T) {
	var m moves
	m.init()
	defer m.stop()
	a, b, id := broker.NodeID{1}, broker.NodeID{2}, ID{3}
	m.rival(b, id, 1000)
	m.rival(a, id, 10)
	m.settled(a, nil, []movedID{{id, b}})
	if d := m.rivals[b][id]; d.until != 1000 {
		t.Errorf("it is doubted until %d, want 1000", d.until)
	}
}
