package hub

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/wsclient"
)

// fullRooms tell who is in them, but for those that only count, or tell nothing.
func fullRooms(c *Config) {
	c.ResumeWindow = time.Minute
	c.Policies = NewPolicies(Disconnect,
		Rule{glob.New("count*"), Policy{Presence: PresenceCount}}, Rule{glob.New("off*"), Policy{}}, Rule{glob.New("*"), Policy{Presence: PresenceFull}})
}

// who is what a client is told of a room's members: their data by id.
func (c *client) who(room string) map[string]any {
	c.t.Helper()
	c.say(`{"msg_type":"presence","room":%q,"id":"who"}`, room)
	m := c.answer("who", func(map[string]any) {})
	if m["msg_type"] != "presence" {
		c.t.Fatalf("got %v", m)
	}
	all := map[string]any{}
	for _, of := range m["members"].([]any) {
		of := of.(map[string]any)
		all[of["client_id"].(string)] = of["data"]
	}
	if int(m["count"].(float64)) != len(all) || m["more"] != false {
		c.t.Fatalf("%v members are counted, %d are there, more: %v", m["count"], len(all), m["more"])
	}
	return all
}

func (c *client) count(room string) int {
	c.t.Helper()
	c.say(`{"msg_type":"presence","room":%q,"id":"count"}`, room)
	m := c.answer("count", func(map[string]any) {})
	if m["msg_type"] != "presence" || m["members"] != nil && len(m["members"].([]any)) > 0 {
		c.t.Fatalf("got %v", m)
	}
	return int(m["count"].(float64))
}

// follow takes the client's news of members until it believes what is wanted.
func (c *client) follow(room string, believes, want map[string]any) {
	c.t.Helper()
	for !maps.Equal(believes, want) {
		m := c.next()
		switch {
		case m["msg_type"] == "gap" && m["reason"] == "node":
			continue // of messages
		case m["room"] != room && m["members"] != nil:
			continue // of another room's
		case m["room"] != room:
			c.t.Fatalf("got %v", m)
		}
		for _, of := range m["members"].([]any) {
			of := of.(map[string]any)
			if id := of["client_id"].(string); m["msg_type"] == "member_joined" {
				believes[id] = of["data"]
			} else {
				delete(believes, id)
			}
		}
	}
}

func (c *client) joinsWith(room string, data string) {
	c.t.Helper()
	c.say(`{"msg_type":"join_room","room":%q,"data":%s,"id":"join"}`, room, data)
	if m := c.answer("join", func(map[string]any) {}); m["msg_type"] != "joined" {
		c.t.Fatalf("got %v", m)
	}
}

// knows waits until a node counts so many in a room itself, and knows who they are.
func (n *node) knows(room string, want int) {
	n.t.Helper()
	until(n.t, fmt.Sprintf("%d members are known", want), func() bool {
		count, members, _, err := n.PresenceAfter(n.t.Context(), room, ID{}, 2000)
		return err == nil && count == want && len(members) == want
	})
}

// Members of one room on three nodes see who is there at once, wherever they are, and then who comes and goes; and so
// does who comes late, on a node that nobody was on, and who only asks.
func TestMembersAreKnownOnAllNodes(t *testing.T) {
	memory, all := newNodes(t, 3, fullRooms)
	a, b := all[0].client(), all[1].client()
	a.joinsWith("r", `{ "name" : "<Ann>" }`)
	b.joinsWith("r", `"b"`)
	want := map[string]any{a.id: map[string]any{"name": "<Ann>"}, b.id: "b"}
	believes := b.who("r") // it was told, and its node has asked, before it has joined
	if fmt.Sprint(believes) != fmt.Sprint(want) {
		t.Fatalf("got %v, want %v", believes, want)
	}
	if got := all[2].client().who("r"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("who asks from where nobody is got %v, want %v", got, want)
	}
	a.say(`{"msg_type":"leave_room","room":"r"}`)
	a.sync()
	a.joinsWith("r", `"a"`)
	c := all[2].client()
	c.joinsWith("r", `3`)
	want = map[string]any{a.id: "a", b.id: "b", c.id: 3.0}
	believes[a.id] = "other" // it was no comparable value
	b.follow("r", believes, want)
	late := newNode(t, memory, fullRooms)
	know(t, append(slices.Clone(all), late)...)
	d := late.client()
	d.joinsWith("r", `4`)
	want[d.id] = 4.0
	if got := d.who("r"); !maps.Equal(got, want) {
		t.Errorf("who comes late got %v, want %v", got, want)
	}
	b.follow("r", believes, want)
	c.nc.Write(wsclient.Append(nil, true, wsclient.Close, [4]byte{}, []byte{3, 232}))
	delete(want, c.id)
	b.follow("r", believes, want)
	for _, n := range append(all, late) {
		n.knows("r", 3)
	}
	for _, room := range []string{"off", "other"} {
		if count, members, more, err := all[0].PresenceAfter(t.Context(), room, ID{}, 10); room == "off" && err != ErrNoPresence || count+len(members) > 0 || more {
			t.Errorf("%s: %d, %v, %v, %v", room, count, members, more, err)
		}
	}
}

// A node that is cut off goes on knowing whom it knew; what happens meanwhile on both sides is known when it is joined
// again, also of a room that has ended there.
func TestMembersWhileANodeIsCutOff(t *testing.T) {
	t.Parallel()
	memory, all := newNodes(t, 3, fullRooms)
	a, b, c := all[0].client(), all[1].client(), all[2].client()
	for _, room := range []string{"r", "left"} {
		for _, of := range []*client{a, b, c} {
			of.joinsWith(room, `1`)
		}
	}
	for _, n := range all {
		n.knows("r", 3)
		n.knows("left", 3)
	}
	believes := b.who("r")
	memory.Cut(all[0].b, true)
	a2 := all[0].client()
	a2.joinsWith("r", `2`)
	a.say(`{"msg_type":"leave_room","room":"r"}`)
	a.say(`{"msg_type":"leave_room","room":"left"}`)
	a.sync()
	if got, want := a2.who("r"), map[string]any{a2.id: 2.0, b.id: 1.0, c.id: 1.0}; !maps.Equal(got, want) {
		t.Errorf("while it is cut off it says %v, want %v", got, want)
	}
	c.say(`{"msg_type":"leave_room","room":"r"}`)
	b2 := all[1].client()
	b2.joinsWith("r", `3`)
	if got, want := b2.who("r"), map[string]any{a.id: 1.0, b.id: 1.0, b2.id: 3.0}; len(got) < len(want) {
		t.Errorf("the others say %v, want %v", got, want)
	}
	a2.say(`{"msg_type":"presence","room":"count","id":"asked"}`)
	if m := a2.answer("asked", func(map[string]any) {}); m["code"] != "unavailable" || m["retry"] != true { // news of r may come before
		t.Errorf("what it can't know: %v", m)
	}
	all[0].triesToTell("r")
	memory.Cut(all[0].b, false)
	want := map[string]any{a2.id: 2.0, b.id: 1.0, b2.id: 3.0}
	for _, n := range all {
		n.knows("r", 3)
		n.knows("left", 2)
	}
	b.follow("r", believes, want)
	a3 := all[0].client() // what comes then is told as ever
	a3.joinsWith("r", `4`)
	want[a3.id] = 4.0
	b.follow("r", believes, want)
}

// triesToTell has a node tell the others of a room's members now, and no more by what it had set before.
func (n *node) triesToTell(room string) {
	sh := n.roomShard(room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[room]
	r.presence.together.timer.Stop()
	n.tellNodesNow(r)
}

// The members of a node that is gone stay as long as they may be resumed, and then all hear that they have left.
func TestMembersOfANodeThatIsGone(t *testing.T) {
	t.Parallel()
	memory := brokertest.NewMemory()
	set := func(c *Config) { fullRooms(c); c.ResumeWindow = time.Second }
	one, dies := newNode(t, memory, set), &within{T: t}
	two := newNode(dies, memory, set)
	know(t, one, two)
	a := one.client()
	a.joinsWith("r", `1`)
	b := newClient(t, two.Hub, two.l)
	b.joinsWith("r", `2`)
	one.knows("r", 2)
	believes := a.who("r")
	memory.Cut(two.b, true) // what it says at its end isn't heard
	dies.end()
	until(t, "it is gone", func() bool { peers, _ := one.Peers(); return len(peers) == 0 })
	if got := a.who("r"); len(got) != 2 {
		t.Errorf("just after its end: %v", got)
	}
	a.follow("r", believes, map[string]any{a.id: 1.0})
	one.knows("r", 1)
}

// A thousand members on three nodes, of whom many come and go at once, are known in the end.
func TestAThousandMembersOnThreeNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("each of a thousand that joins is told to all nodes: ten seconds of processor time")
	}
	_, all := newNodes(t, 3, fullRooms)
	var clients []*client
	for i := range 1100 {
		c := all[i%3].client()
		c.say(`{"msg_type":"join_room","room":"r","data":%d}`, i)
		clients = append(clients, c)
	}
	for i, c := range clients {
		if c.sync(); i%11 == 0 {
			c.say(`{"msg_type":"leave_room","room":"r"}`)
		}
	}
	for _, n := range all {
		n.knows("r", 1000)
	}
	var pages int
	for after := (ID{}); ; pages++ {
		_, members, more, err := all[1].PresenceAfter(t.Context(), "r", after, 300)
		must(t, err)
		if !more {
			break
		}
		after, _ = ParseID([]byte(members[len(members)-1].ClientID))
	}
	if pages != 3 {
		t.Errorf("%d pages are full", pages)
	}
}

// A room that only counts its members counts those on all nodes, for who asks anywhere, and so are the parked ones.
func TestMembersAreCountedOverAllNodes(t *testing.T) {
	t.Parallel()
	_, all := newNodes(t, 3, fullRooms)
	for i := range 9 {
		c := all[i%3].client()
		c.joins("count")
		if i < 4 {
			c.nc.Close()
			until(t, "it is parked", func() bool { return all[i%3].ParkedSessions() == i/3+1 })
		}
	}
	asks := all[1].client()
	until(t, "all are counted", func() bool { return asks.count("count") == 9 })
	if count, members, more, err := all[2].PresenceAfter(t.Context(), "count", ID{}, 5); count != 9 || members != nil || more || err != nil {
		t.Errorf("got %d, %v, %v, %v", count, members, more, err)
	}
	if n := asks.count("nobody's count"); n != 0 {
		t.Errorf("nobody is counted as %d", n)
	}
	until(t, "the answers are forgotten", func() bool {
		q := &all[1].cluster.asking
		q.mu.Lock()
		defer q.mu.Unlock()
		return len(q.rooms)+len(q.nodes) == 0
	})
	for i, n := range all {
		if faults := n.Audit(); len(faults) > 0 {
			t.Errorf("node %d: %v", i, faults)
		}
	}
}

// When what a client shows changes, all members hear it, on each node.
func TestDataOfAMemberChanges(t *testing.T) {
	_, all := newNodes(t, 2, fullRooms)
	a, b := all[0].client(), all[1].client()
	a.joinsWith("r", `1`)
	b.joinsWith("r", `2`)
	believes := b.who("r")
	id, _ := ParseID([]byte(a.id))
	must(t, all[0].onClient(t.Context(), id, func(s *session) {
		s.self = &self{user: s.name()}
		s.self.is(auth.Identity{Data: []byte(`"new"`)})
		s.showAnew()
	}, func() bool { return false }))
	b.follow("r", believes, map[string]any{a.id: "new", b.id: 2.0})
}
