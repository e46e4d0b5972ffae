package hub

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/loop"
)

// node is one of several hubs in a test.
type node struct {
	*Hub
	t testing.TB
	b broker.Broker
	l *loop.Loop
}

// newNodes are so many, whose rooms keep no history.
func newNodes(t testing.TB, n int, set func(*Config)) (m *brokertest.Memory, nodes []*node) {
	m = brokertest.NewMemory()
	for range n {
		nodes = append(nodes, newNode(t, m, set))
	}
	know(t, nodes...)
	return m, nodes
}

func newNode(t testing.TB, m *brokertest.Memory, set func(*Config)) *node {
	n := &node{t: t, b: m.Broker()}
	n.Hub, n.l = newHubOf(t, 2, func(c *Config) {
		c.Broker, c.Policies = n.b, liveRooms(Disconnect)
		set(c)
	})
	return n
}

func liveRooms(slow SlowConsumer) *Policies {
	return NewPolicies(slow, Rule{glob.New("*"), Policy{SlowConsumer: slow}})
}

func asIs(*Config) {}

// know waits until each knows of the others, and what they have published.
func know(t testing.TB, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		until(t, "the nodes know each other", func() bool { return n.seesAll(len(nodes) - 1) })
	}
}

// seesAll says that the node sees so many others, and what they have published.
func (n *node) seesAll(others int) bool {
	peers, cut := n.Peers()
	cs := &n.cluster.claims
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(peers) == others && !cut && len(cs.missing) == 0 && len(cs.peers) == others
}

func (n *node) client() *client { return n.as("") }

// as is a client of a user.
func (n *node) as(user string) *client {
	return newSession(n.t, n.l, n.session(n.newID(), auth.Identity{User: user}, netip.Addr{}, nil))
}

func (c *client) joins(room string) {
	c.t.Helper()
	if m := c.asks(`"msg_type":"join_room","room":%q`, room); m["msg_type"] != "joined" {
		c.t.Fatalf("got %v", m)
	}
}

// asks is the answer to a message, which is all that comes.
func (c *client) asks(format string, args ...any) map[string]any {
	c.t.Helper()
	c.say(`{%s,"id":"asked"}`, fmt.Sprintf(format, args...))
	return c.answer("asked", func(m map[string]any) { c.t.Errorf("got %v", m) })
}

// hears holds what comes next against what it should say.
func (c *client) hears(contents ...any) {
	c.t.Helper()
	for _, want := range contents {
		if m := c.next(); m["content"] != want {
			c.t.Fatalf("got %v, want %v", m, want)
		}
	}
}

// What clients and applications publish on three nodes, in rooms without history and as chats, reaches every member on
// each of them once, in each publisher's order, and not who sent it or is excluded.
func TestWhatIsPublishedOnOneNodeReachesAll(t *testing.T) {
	const nodes, each = 3, 40
	_, all := newNodes(t, nodes, asIs)
	var clients []*client
	for _, n := range all {
		for range 2 {
			c := n.client()
			c.joins("r")
			clients = append(clients, c)
		}
	}
	excluded := clients[len(clients)-1]
	excludedID, _ := ParseID([]byte(excluded.id))
	var wait sync.WaitGroup
	for i, c := range clients {
		wait.Go(func() {
			for n := range each {
				c.say(`{"msg_type":"room_message","room":"r","content":"client %d: %d"}`, i, n)
				c.say(`{"msg_type":"chat","content":"chat of %d: %d"}`, i, n)
			}
		})
	}
	for i, n := range all {
		wait.Go(func() {
			for k := range each {
				_, _, err := n.Publish(t.Context(), &Publication{Room: "r", Content: fmt.Appendf(nil, `"node %d: %d"`, i, k), Exclude: excludedID})
				must(t, err)
				_, _, err = n.Publish(t.Context(), &Publication{Everyone: true, Content: fmt.Appendf(nil, `"to all of %d: %d"`, i, k), Exclude: excludedID})
				must(t, err)
			}
		})
	}
	wait.Wait()
	for i, c := range clients {
		await := 2 * each * (len(clients) - 1)
		if c != excluded {
			await += 2 * each * nodes
		}
		next := map[string]int{}
		for range await {
			m := c.next()
			from, n, _ := strings.Cut(m["content"].(string), ": ")
			if n != fmt.Sprint(next[from]) {
				t.Fatalf("client %d got %v, want %d", i, m, next[from])
			}
			next[from]++
		}
		if own := next[fmt.Sprint("client ", i)] + next[fmt.Sprint("chat of ", i)]; own > 0 {
			t.Errorf("client %d got %d of its own", i, own)
		}
		for _, m := range c.sync() {
			t.Errorf("client %d got %v too", i, m)
		}
	}
}

// The application may publish where nobody is on its node, or leave out a client of another one.
func TestARoomMayBeElsewhere(t *testing.T) {
	_, all := newNodes(t, 2, asIs)
	a := all[1].client()
	a.joins("r")
	publish(t, all[0].Hub, "r", `1`)
	b := all[0].client() // it needn't be a member either
	b.say(`{"msg_type":"room_message","room":"r","content":2}`)
	a.hears(1.0, 2.0)
	if n := all[0].Rooms(); n != 0 {
		t.Errorf("the node has %d rooms that nobody is in", n)
	}
}

// A node that is cut off refuses what others can't hear, to clients and to the application, and nobody gets it; a room
// that is open there may be joined, another one not. When it is joined again all members of rooms, and all clients, are
// told that they may have missed something, once, and it goes on.
func TestANodeThatIsCutOff(t *testing.T) {
	memory, all := newNodes(t, 3, asIs)
	cut := all[0]
	a, b, c := cut.client(), cut.client(), all[1].client()
	a.joins("r")
	c.joins("r")
	memory.Cut(cut.b, true)
	for _, what := range []string{`"msg_type":"room_message","room":"r","content":"lost"`, `"msg_type":"chat","content":"lost"`, `"msg_type":"join_room","room":"other"`,
		`"msg_type":"room_message","room":"r","content":"lost","publish_id":"x"`} {
		if m := b.asks("%s", what); m["code"] != "unavailable" || m["retry"] != true {
			t.Errorf("%s: %v", what, m)
		}
	}
	for name, p := range map[string]*Publication{"room": {Room: "r"}, "nobody's": {Room: "nobody's"}, "all": {Everyone: true}, "once": {Room: "r", PublishID: "y"}} {
		p.Content = []byte(`"lost"`)
		if _, _, err := cut.Publish(t.Context(), p); err == nil || err.Error() != ErrUnavailable.Error() {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.joins("r")
	c.say(`{"msg_type":"room_message","room":"r","content":"missed"}`)
	c.sync()
	memory.Cut(cut.b, false)
	know(t, all...)
	for _, of := range []*client{a, b, c} {
		first, second := of.next(), of.next() // the room's and the chat's
		if first["room"] == nil {
			first, second = second, first
		}
		for _, m := range []map[string]any{first, second} {
			if m["msg_type"] != "gap" || m["reason"] != "node" || m["count"] != nil {
				t.Errorf("got %v", m)
			}
		}
		if first["room"] != "r" || second["room"] != nil {
			t.Errorf("got %v and %v", first, second)
		}
	}
	b.say(`{"msg_type":"room_message","room":"r","content":1}`)
	a.hears(1.0)
	c.hears(1.0)
	b.joins("other")
	for _, of := range []*client{a, b, c} {
		if got := of.sync(); len(got) > 0 {
			t.Errorf("got %v too", got)
		}
	}
}

// Who joins while others publish, on any node, gets all that comes behind the answer.
func TestAJoinWhileOthersPublish(t *testing.T) {
	_, all := newNodes(t, 3, asIs)
	for round := range 8 {
		room := fmt.Sprint("r", round)
		var mu sync.Mutex
		sent := [2]int{}
		stop := make(chan struct{})
		var floods sync.WaitGroup
		for i := range sent {
			c := all[i].client()
			floods.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					mu.Lock()
					sent[i] = n + 1
					mu.Unlock()
					if m := c.asks(`"msg_type":"room_message","room":%q,"content":[%d,%d]`, room, i, n); m["msg_type"] != "ack" {
						t.Errorf("got %v", m)
					}
				}
			})
		}
		time.Sleep(time.Duration(round) * time.Millisecond)
		c := all[2].client()
		next := [2]int{-1, -1}
		see := func(m map[string]any) {
			content := m["content"].([]any)
			i, n := int(content[0].(float64)), int(content[1].(float64))
			if next[i] >= 0 && n != next[i] {
				t.Errorf("got %v, want %d", m, next[i])
			}
			next[i] = n + 1
		}
		c.say(`{"msg_type":"join_room","room":%q,"id":"joined"}`, room)
		c.answer("joined", see)
		mu.Lock()
		at := sent // what is published from here on must come
		mu.Unlock()
		for next[0] <= at[0]+5 || next[1] <= at[1]+5 {
			before := next
			see(c.next())
			for i := range next {
				if before[i] < 0 && next[i] > at[i]+1 {
					t.Errorf("%d of node %d is the first, though %d were published before the join", next[i]-1, i, at[i])
				}
			}
		}
		close(stop)
		floods.Wait()
	}
}

// A room that its last member has left is listened to for a while, so that who comes back in that time needs nobody else;
// then it is gone, and so is what it counted for.
func TestARoomLingersWithoutMembers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		memory, all := newNodes(t, 2, asIs)
		a, b := all[0].client(), all[1].client()
		a.joins("r")
		a.asks(`"msg_type":"leave_room","room":"r"`)
		if _, ok, _ := all[0].Room(t.Context(), "r"); ok || all[0].Kept(KeptRooms) != roomCost {
			t.Errorf("a room that nobody is in is listed: %v; %d bytes are counted", ok, all[0].Kept(KeptRooms))
		}
		time.Sleep(10 * time.Second)
		memory.Cut(all[0].b, true)
		a.joins("r")
		memory.Cut(all[0].b, false)
		a.next()
		a.next() // gaps
		b.next()
		b.say(`{"msg_type":"room_message","room":"r","content":1}`)
		a.hears(1.0)
		a.asks(`"msg_type":"leave_room","room":"r"`)
		time.Sleep(14 * time.Second)
		synctest.Wait()
		if n := all[0].Rooms(); n != 1 {
			t.Errorf("after 14 s there are %d rooms", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := all[0].Rooms(); n != 0 || all[0].Kept(KeptRooms) != 0 {
			t.Errorf("after 16 s there are %d rooms, and %d bytes are counted", n, all[0].Kept(KeptRooms))
		}
		for _, fault := range all[0].Audit() {
			t.Error(fault)
		}
	})
}

// Where a worker has more to do than it can, what other nodes publish is left out there, and its members are told in its
// place; what comes when it has caught up is delivered.
func TestWhatIsTooMuchFromOtherNodesIsTold(t *testing.T) {
	for _, policy := range []SlowConsumer{Disconnect, DropOldest} {
		_, all := newNodes(t, 2, func(c *Config) { c.Policies = liveRooms(policy) })
		a, b := all[1].client(), all[0].client()
		a.joins("r")
		free := make(chan struct{})
		for _, w := range all[1].l.Workers() {
			w.Post(task(func() { <-free }), 0)
		}
		filler := strings.Repeat("x", 30_000)
		const many = 400
		for i := range many {
			if m := b.asks(`"msg_type":"room_message","room":"r","content":[%d,%q]`, i, filler); m["msg_type"] != "ack" {
				t.Fatalf("got %v", m)
			}
		}
		sh := all[1].roomShard("r")
		until(t, "all is heard", func() bool {
			sh.mu.Lock()
			defer sh.mu.Unlock()
			return sh.rooms["r"].seq >= many
		})
		close(free)
		got, gaps := 0, 0
		for ; gaps == 0; got++ {
			m := a.next()
			if m["msg_type"] == "gap" {
				gaps++
				break
			}
			if n := int(m["content"].([]any)[0].(float64)); n != got {
				t.Fatalf("got %d, want %d", n, got)
			}
		}
		if got == 0 || got == many {
			t.Errorf("%d came before the gap", got)
		}
		b.say(`{"msg_type":"room_message","room":"r","content":"behind"}`)
		for m := a.next(); m["content"] != "behind"; m = a.next() {
			if gaps++; m["msg_type"] != "gap" || m["reason"] != "node" || gaps > 2 {
				t.Fatalf("got %v", m)
			}
		}
	}
}

// Sinks hear of a message once, on the node where it was published.
func TestSinksHearOfAMessageWhereItIsPublished(t *testing.T) {
	var mu sync.Mutex
	var told []string
	at := 0
	_, all := newNodes(t, 3, func(c *Config) {
		me := at
		at++
		c.Tells = func(string) bool { return true }
		c.Sinks = []Sink{sinkFunc(func(e Event) {
			if e.Kind == Published {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, fmt.Sprint(me, " ", string(e.Message.Content)))
			}
		})}
	})
	a := all[1].client()
	a.joins("r")
	publish(t, all[0].Hub, "r", `1`)
	b := all[1].client()
	b.say(`{"msg_type":"room_message","room":"r","content":2}`)
	a.hears(1.0, 2.0)
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"0 1", "1 2"}; !slices.Equal(told, want) {
		t.Errorf("the sinks were told %v, want %v", told, want)
	}
}

// A session that comes back on its node is live again in a room without history, and knows that it may have missed what
// came meanwhile, from other nodes too.
func TestAResumeInARoomWithoutHistoryOfSeveralNodes(t *testing.T) {
	_, all := newNodes(t, 2, func(c *Config) { c.ResumeWindow = time.Minute })
	n, b := all[0], all[1].client()
	a := n.client()
	a.joins("r")
	token := a.lose(n.Hub)
	b.say(`{"msg_type":"room_message","room":"r","content":"missed"}`)
	b.sync()
	back := a.again(n.Hub, n.l, token)
	rooms := back.asks(`"msg_type":"resume","rooms":{"r":null,"new":null}`)["rooms"].(map[string]any)
	for _, room := range []string{"r", "new"} {
		if r := rooms[room].(map[string]any); r["recovered"] != false || r["reason"] != "no_history" {
			t.Errorf("%s: %v", room, r)
		}
	}
	b.say(`{"msg_type":"room_message","room":"r","content":1}`)
	b.say(`{"msg_type":"room_message","room":"new","content":2}`)
	for got := 0.0; got != 3; {
		m := back.next()
		if m["content"] == "missed" {
			continue // it may have been on its way
		}
		got += m["content"].(float64)
	}
}
