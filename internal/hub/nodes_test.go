package hub

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/auth"
)

// historyNodes are so many, whose rooms keep a history, and whose clients may resume.
func historyNodes(t testing.TB, n int, set func(*Config)) (m *brokertest.Memory, nodes []*node) {
	return newNodes(t, n, func(c *Config) {
		c.Policies, c.ResumeWindow = NewPolicies(Disconnect), time.Minute
		set(c)
	})
}

// nothingUnderWay waits until nobody is sought or asked.
func (n *node) nothingUnderWay() {
	n.t.Helper()
	until(n.t, "nothing is under way", func() bool {
		f := &n.cluster.across.finder
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.seekers == 0 && f.asking == 0 && len(f.waiting) == 0 && len(f.next) == 0 && n.cluster.across.served.Load() == 0
	})
}

// direct sends a direct message, and gives the answer.
func (c *client) direct(to string, content any) map[string]any {
	c.say(`{"msg_type":"direct_message","to":%q,"content":%q,"id":"direct"}`, to, fmt.Sprint(content))
	return c.answer("direct", func(m map[string]any) {
		if m["msg_type"] != "gap" { // it may have missed chats
			c.t.Errorf("got %v", m)
		}
	})
}

// Direct messages reach a client on another node in the order in which they were sent, and each is answered, in order;
// between them the sender may talk to others.
func TestDirectMessagesToAnotherNode(t *testing.T) {
	_, nodes := historyNodes(t, 3, asIs)
	a, b, c, near := nodes[0].as("ann"), nodes[1].client(), nodes[2].client(), nodes[0].client()
	const many = 200
	go func() {
		for i := range many {
			for n, to := range []*client{b, c, near} {
				a.say(`{"msg_type":"direct_message","to":%q,"content":%d,"id":"%d %d"}`, to.id, i, n, i)
			}
		}
	}()
	next := [3]int{}
	for range 3 * many {
		m := a.next()
		var n, i int
		fmt.Sscan(m["id"].(string), &n, &i)
		if m["msg_type"] != "ack" || i != next[n] {
			t.Fatalf("got %v, want the ack of %d", m, next[n])
		}
		next[n]++
	}
	for _, to := range []*client{b, c, near} {
		for i := range many {
			if m := to.next(); m["content"] != float64(i) || m["from"] != a.id || m["user"] != "ann" || m["msg_type"] != "direct_message" {
				t.Fatalf("got %v, want %d", m, i)
			}
		}
	}
	for _, n := range nodes {
		n.nothingUnderWay()
	}
}

// Who isn't there is unknown, wherever it might have been, but for what may be on a node that can't be asked, or is gone.
func TestDirectMessagesToNobody(t *testing.T) {
	m, nodes := historyNodes(t, 3, asIs)
	a, b := nodes[0].client(), nodes[1].client()
	gone := nodes[1].newID()
	strange := NewID() // of a node that was never there
	for what, to := range map[string]string{"who was on another node": gone.String(), "who was here": nodes[0].newID().String(), "nobody's": strange.String(), "no id": "bob"} {
		if m := a.direct(to, 1); m["code"] != "unknown_client" {
			t.Errorf("%s: %v", what, m)
		}
	}
	m.Cut(nodes[2].b, true)
	until(t, "it is gone", func() bool { peers, _ := nodes[0].Peers(); return len(peers) == 1 })
	if m := a.direct(nodes[2].newID().String(), 1); m["code"] != "unavailable" || m["retry"] != true {
		t.Errorf("of a node that is gone: %v", m)
	}
	if m := a.direct(gone.String(), 1); m["code"] != "unknown_client" {
		t.Errorf("who was on another node, while one is gone: %v", m)
	}
	if m := a.direct(b.id, "still"); m["msg_type"] != "ack" {
		t.Errorf("to a node that is there: %v", m)
	}
	lonely := nodes[2].client()
	for what, to := range map[string]string{"who may be there": b.id, "nobody's": strange.String()} {
		if m := lonely.direct(to, 1); m["code"] != "unavailable" || m["retry"] != true {
			t.Errorf("on the node that is cut off, %s: %v", what, m)
		}
	}
	near := nodes[2].client()
	if m := lonely.direct(near.id, 1); m["msg_type"] != "ack" {
		t.Errorf("on the node that is cut off, to one beside it: %v", m)
	}
	m.Cut(nodes[2].b, false)
	until(t, "it is back", func() bool { peers, cut := nodes[2].Peers(); return !cut && len(peers) == 2 })
	if m := lonely.direct(b.id, 2); m["msg_type"] != "ack" {
		t.Errorf("when it is back: %v", m)
	}
}

// saidOf is what a node says of a client, and of its user, to whoever names them: unavailable, or unknown.
func saidOf(asker *testNode, by, c *client, user string) map[string]error {
	h, ctx, id := asker.h, asker.t.Context(), idOf(c)
	clients, err := h.UserClients(ctx, user)
	if err == nil && len(clients) == 0 {
		err = ErrUnknownUser
	}
	all := map[string]error{
		"its user is asked about": err, "its user is disconnected": h.DisconnectUser(ctx, user, 4500, ""),
		"its user is sent to": errOfPublish(h.Publish(ctx, &Publication{User: user, Content: []byte(`1`)})),
		"it is asked about":   errOf(h.Client(ctx, id)), "it is disconnected": h.Disconnect(ctx, id, 4500, ""),
		"it is joined": h.Join(ctx, "r", id), "it is removed": h.Remove(ctx, "r", id),
		"it is sent to": errOfPublish(h.Publish(ctx, &Publication{Client: id, Content: []byte(`1`)})),
	}
	m := by.direct(c.id, 1)
	all["a client sends to it"] = map[any]error{"unavailable": ErrUnavailable, "unknown_client": ErrUnknownClient}[m["code"]]
	return all
}

// expectUnknown has a node say that a client isn't there.
func expectUnknown(asker *testNode, by, c *client, user string) {
	asker.t.Helper()
	for what, err := range saidOf(asker, by, c, user) {
		if !errors.Is(err, ErrUnknownClient) && !errors.Is(err, ErrUnknownUser) {
			asker.t.Errorf("%s, %s: %v", user, what, err)
		}
	}
}

// comesTo is a client that loses its connection to one node and comes to another.
func (c *client) comesTo(to, from *testNode, user string) *client {
	back := to.comes(c.lose(from.h), user)
	if back.id != c.id {
		c.t.Fatalf("welcome %v", back.welcome)
	}
	back.resumes("r", "null")
	return back
}

// While a node is gone that has said no good-bye, as one that stands still, nobody says that its clients aren't there, wherever
// they began and whichever way they came to it, until they can't come back any more. Who was elsewhere is unknown all the same.
func TestWhoMayBeOnANodeThatIsGone(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 4, func(*Config) {})
	a, b, frozen, left := nodes[0], nodes[1], nodes[2], nodes[3]
	here := a.comes("", "here")
	must(t, a.h.Disconnect(t.Context(), idOf(here), 4500, ""))
	on := map[string]*client{
		"began":  frozen.comes("", "began"),
		"moved":  a.comes("", "moved").comesTo(frozen, a, "moved"),
		"roamed": left.comes("", "roamed").comesTo(a, left, "roamed").comesTo(b, a, "roamed").comesTo(frozen, b, "roamed"),
	}
	left.h.Leave(t.Context())
	left.dies(a, b, frozen)
	frozen.dies(a, b)
	for _, asker := range []*testNode{a, b} {
		by := asker.comes("", "asker")
		for user, c := range on {
			for what, err := range saidOf(asker, by, c, user) {
				if !errors.Is(err, ErrUnavailable) {
					t.Errorf("%s, %s: %v", user, what, err)
				}
			}
		}
		if m := by.direct(here.id, 1); m["code"] != "unknown_client" {
			t.Errorf("who was on a node that is there: %v", m)
		}
	}
	for _, n := range []*testNode{a, b} {
		m := &n.h.cluster.moves
		m.mu.Lock()
		for node := range m.lost {
			m.lost[node] = 0
		}
		m.mu.Unlock()
		until(t, "their time is up", func() bool { return !m.misses() })
	}
	for _, asker := range []*testNode{a, b} {
		by := asker.comes("", "asker")
		for user, c := range on {
			expectUnknown(asker, by, c, user)
		}
	}
}

// A node that ends in good order has given its clients away: who isn't with another one then is unknown at once.
func TestWhoWasOnANodeThatHasLeft(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 3, func(*Config) {})
	a, b, leaves := nodes[0], nodes[1], nodes[2]
	gone, stays := leaves.comes("", "gone"), leaves.comes("", "stays")
	must(t, leaves.h.Disconnect(t.Context(), idOf(gone), 4500, ""))
	leaves.l.Stop(0)
	leaves.l.Wait()
	leaves.h.Leave(t.Context())
	leaves.dies(a, b)
	for _, asker := range []*testNode{a, b} {
		by := asker.comes("", "asker")
		expectUnknown(asker, by, gone, "gone")
		if m := by.direct(stays.id, 1); m["msg_type"] != "ack" {
			t.Errorf("to who may come back: %v", m)
		}
	}
}

// A client whose id leads to a node that is gone is found where it is now.
func TestWhoIsElsewhereIsFound(t *testing.T) {
	_, nodes := historyNodes(t, 3, asIs)
	a := nodes[0].client()
	moved := newSession(t, nodes[2].l, nodes[2].session(NewID(), auth.Identity{User: "bob"}, netip.Addr{}, nil))
	for i := range 20 {
		if m := a.direct(moved.id, i); m["msg_type"] != "ack" {
			t.Fatal(m)
		}
		if m := moved.next(); m["content"] != fmt.Sprint(i) {
			t.Fatal(m)
		}
	}
	if _, ok := nodes[0].cluster.lastAt(idOf(moved)); !ok {
		t.Error("where it is isn't remembered")
	}
	if d, err := nodes[1].Client(t.Context(), idOf(moved)); err != nil || d.User != "bob" {
		t.Errorf("from a third node: %+v, %v", d, err)
	}
	if err := nodes[1].Disconnect(t.Context(), idOf(moved), 4500, "out"); err != nil {
		t.Error(err)
	}
	if m := a.direct(moved.id, "late"); m["code"] != "unknown_client" {
		t.Errorf("when it is gone: %v", m)
	}
	if _, ok := nodes[0].cluster.lastAt(idOf(moved)); ok {
		t.Error("where it was is still remembered")
	}
}

// What waits on another node for a client that has lost its connection is paid for there by who sent it: its user, or
// itself where it has no name; so one can't fill the node for all.
func TestWhatWaitsOnAnotherNodeIsTheSenders(t *testing.T) {
	_, nodes := historyNodes(t, 2, func(c *Config) { c.MaxBufferedBytes = 4 << 20 })
	here, there := nodes[0], nodes[1]
	var away []*client
	for range 40 {
		c := there.client()
		c.lose(there.Hub)
		away = append(away, c)
	}
	content := strings.Repeat("x", 30<<10)
	for _, user := range []string{"ann", ""} {
		sender := here.as(user)
		refused := 0
		for _, to := range away {
			if m := sender.direct(to.id, content); m["code"] == "rate_limited" {
				refused++
			} else if m["msg_type"] != "ack" {
				t.Fatal(m)
			}
		}
		if refused == 0 || refused == len(away) {
			t.Errorf("%q: %d of %d are refused", user, refused, len(away))
		}
	}
	if other := here.as("bob").direct(away[0].id, "mine"); other["msg_type"] != "ack" {
		t.Errorf("of another one: %v", other)
	}
	full := here.as("carl")
	full.direct(away[1].id, content)
	if m := full.direct(away[1].id, content+content); m["code"] != "overloaded" {
		t.Errorf("more than may wait for one: %v", m)
	}
	if faults := there.Audit(); len(faults) > 0 {
		t.Error(faults)
	}
	until(t, "its time is up", func() bool {
		for _, c := range away {
			there.disconnectParked(idOf(c), 1006)
		}
		return there.ParkedSessions() == 0
	})
	there.payers.mu.Lock()
	defer there.payers.mu.Unlock()
	for name := range there.payers.all {
		if name.user != "" {
			t.Errorf("%v is still known", name)
		}
	}
}

// The application's calls reach a client on whichever node it is, connected or parked.
func TestTheApplicationNamesClientsOnOtherNodes(t *testing.T) {
	m, nodes := historyNodes(t, 3, asIs)
	ctx := t.Context()
	c := nodes[2].as("ann")
	id := idOf(c)
	if err := nodes[0].Join(ctx, "r", id); err != nil {
		t.Fatal(err)
	}
	c.wants("joined", map[string]any{"room": "r"})
	if d, err := nodes[1].Client(ctx, id); err != nil || !slices.Equal(d.Rooms, []string{"r"}) || d.ID != id || d.User != "ann" || d.Since.IsZero() {
		t.Errorf("%+v, %v", d, err)
	}
	if _, _, err := nodes[0].Publish(ctx, &Publication{Client: id, Content: []byte(`"to one"`)}); err != nil {
		t.Error(err)
	}
	c.wants("direct_message", map[string]any{"content": "to one", "from": "server"})
	if err := nodes[0].Remove(ctx, "r", id); err != nil {
		t.Error(err)
	}
	c.wants("left", map[string]any{"reason": "kicked"})
	if err := nodes[0].Remove(ctx, "r", id); !errors.Is(err, ErrNotMember) {
		t.Errorf("removed twice: %v", err)
	}
	c.lose(nodes[2].Hub)
	if d, err := nodes[1].Client(ctx, id); err != nil || !d.Parked {
		t.Errorf("%+v, %v", d, err)
	}
	if err := nodes[1].Join(ctx, "away", id); err != nil {
		t.Error(err)
	}
	m.Cut(nodes[2].b, true)
	until(t, "it knows", func() bool { _, cut := nodes[2].Peers(); return cut })
	if err := nodes[0].Disconnect(ctx, id, 4500, ""); !errors.Is(err, ErrUnavailable) {
		t.Errorf("of a node that is gone: %v", err)
	}
	strange := nodes[0].newID()
	if err := nodes[2].Disconnect(ctx, strange, 4500, ""); !errors.Is(err, ErrUnavailable) {
		t.Errorf("on the node that is cut off: %v", err)
	}
	m.Cut(nodes[2].b, false)
	until(t, "all are back", func() bool { peers, _ := nodes[0].Peers(); return len(peers) == 2 })
	if err := nodes[0].Disconnect(ctx, id, 4500, ""); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"disconnected twice": nodes[0].Disconnect(ctx, id, 4500, ""), "joined": nodes[1].Join(ctx, "r", id), "removed": nodes[2].Remove(ctx, "r", id),
		"asked about": errOf(nodes[0].Client(ctx, id)), "sent to": errOfPublish(nodes[0].Publish(ctx, &Publication{Client: id, Content: []byte(`1`)})),
	} {
		if !errors.Is(err, ErrUnknownClient) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func errOf[A any](_ A, err error) error { return err }

func errOfPublish[A any](_ A, _ bool, err error) error { return err }

// A user's clients are those on all nodes.
func TestAUserIsOnAllNodes(t *testing.T) {
	m, nodes := historyNodes(t, 3, asIs)
	ctx := t.Context()
	var clients []*client
	for i := range 6 {
		clients = append(clients, nodes[i%2].as("ann"))
	}
	nodes[2].as("bob")
	list, err := nodes[2].UserClients(ctx, "ann")
	if err != nil || len(list) != 6 || !slices.IsSortedFunc(list, byID) {
		t.Errorf("%v, %v", list, err)
	}
	exclude := idOf(clients[0])
	if _, _, err := nodes[2].Publish(ctx, &Publication{User: "ann", Content: []byte(`"all"`), Exclude: exclude}); err != nil {
		t.Error(err)
	}
	for _, c := range clients[1:] {
		c.wants("direct_message", map[string]any{"content": "all"})
	}
	if got := clients[0].sync(); len(got) > 0 {
		t.Errorf("who is excluded got %v", got)
	}
	if err := errOfPublish(nodes[0].Publish(ctx, &Publication{User: "carl", Content: []byte(`1`)})); !errors.Is(err, ErrUnknownUser) {
		t.Errorf("to nobody: %v", err)
	}
	m.Cut(nodes[0].b, true)
	until(t, "it knows", func() bool { _, cut := nodes[0].Peers(); return cut })
	if err := errOfPublish(nodes[0].Publish(ctx, &Publication{User: "ann", Content: []byte(`"half"`)})); !errors.Is(err, ErrUnavailable) {
		t.Errorf("where others can't be asked: %v", err)
	}
	if err := nodes[0].DisconnectUser(ctx, "ann", 4500, ""); !errors.Is(err, ErrUnavailable) {
		t.Errorf("where others can't be asked: %v", err)
	}
	if got := clients[2].sync(); len(got) > 0 {
		t.Errorf("got %v of what wasn't done", got)
	}
	m.Cut(nodes[0].b, false)
	until(t, "all are back", func() bool { peers, cut := nodes[2].Peers(); return len(peers) == 2 && !cut })
	if err := nodes[2].DisconnectUser(ctx, "ann", 4500, "out"); err != nil {
		t.Error(err)
	}
	if err := nodes[2].DisconnectUser(ctx, "ann", 4500, "out"); !errors.Is(err, ErrUnknownUser) {
		t.Errorf("a second time: %v", err)
	}
}

// Lists have what is on all nodes, once, in pages that miss nothing; where a node can't be asked there is no list.
func TestListsAreOfAllNodes(t *testing.T) {
	m, nodes := historyNodes(t, 3, func(c *Config) { c.Policies = NewPolicies(Disconnect, plainRooms) })
	ctx := t.Context()
	var ids, rooms []string
	for i := range 30 {
		c := nodes[i%3].as(fmt.Sprintf("user %02d", i/2)) // two each, on two nodes
		ids = append(ids, c.id)
		for _, name := range []string{fmt.Sprintf("plain.%02d", i/2), "plain.all"} {
			c.say(`{"msg_type":"join_room","room":%q,"id":%q}`, name, name)
			c.answer(name, func(m map[string]any) {})
		}
		if i%2 == 0 {
			rooms = append(rooms, fmt.Sprintf("plain.%02d", i/2))
		}
	}
	slices.Sort(ids)
	rooms = append(rooms, "plain.all")
	for i, n := range nodes {
		var got []string
		var after ID
		for more := true; more; {
			list, again, err := n.ClientsAfter(ctx, after, 7)
			if err != nil || len(list) == 0 {
				t.Fatal(list, err)
			}
			for _, c := range list {
				got = append(got, c.ID.String())
				after = c.ID
			}
			more = again
		}
		if !slices.Equal(got, ids) {
			t.Errorf("clients on node %d: %v", i, got)
		}
		got = nil
		for more, last := true, ""; more; last = got[len(got)-1] {
			list, again, err := n.RoomsAfter(ctx, RoomQuery{Prefix: "plain.", After: last, Limit: 4})
			if err != nil || len(list) == 0 {
				t.Fatal(list, err)
			}
			for _, r := range list {
				got = append(got, r.Name)
				if want := map[bool]int{true: 30, false: 2}[r.Name == "plain.all"]; r.Members != want {
					t.Errorf("%s has %d members, want %d", r.Name, r.Members, want)
				}
			}
			more = again
		}
		if !slices.Equal(got, rooms) {
			t.Errorf("rooms on node %d: %v", i, got)
		}
		largest, more, err := n.RoomsAfter(ctx, RoomQuery{Prefix: "plain.", Order: ByMembers, Limit: 3})
		if err != nil || !more || len(largest) != 3 || largest[0].Name != "plain.all" || largest[0].Members != 30 || largest[1].Name != rooms[1] && largest[1].Name != rooms[0] {
			t.Errorf("the largest rooms on node %d: %v, %t, %v", i, largest, more, err)
		}
		last := largest[2]
		rest, more, err := n.RoomsAfter(ctx, RoomQuery{Prefix: "plain.", Order: ByMembers, After: last.Name, Figure: last.Members, Limit: 1000})
		if err != nil || more || len(rest)+3 != len(rooms) {
			t.Errorf("the other rooms on node %d: %v, %t, %v", i, rest, more, err)
		}
		users, more, err := n.UsersAfter(ctx, "user 02", 5)
		if err != nil || !more || len(users) != 5 || users[0] != (UserInfo{"user 03", 2}) || users[4] != (UserInfo{"user 07", 2}) {
			t.Errorf("users on node %d: %v, %t, %v", i, users, more, err)
		}
		if r, ok, err := n.Room(ctx, "plain.all"); !ok || err != nil || r.Members != 30 {
			t.Errorf("the room on node %d: %v, %t, %v", i, r, ok, err)
		}
	}
	m.Cut(nodes[0].b, true)
	for what, err := range map[string]error{
		"clients": errOfPublish(nodes[0].ClientsAfter(ctx, ID{}, 7)), "rooms": errOfPublish(nodes[0].RoomsAfter(ctx, RoomQuery{Limit: 7})),
		"users": errOfPublish(nodes[0].UsersAfter(ctx, "", 7)), "a user": errOf(nodes[0].UserClients(ctx, "ann")),
	} {
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s on the node that is cut off: %v", what, err)
		}
	}
}

// A node's page that had to end early hides nothing of what comes behind it.
func TestPagesThatEndEarlyAreMerged(t *testing.T) {
	_, nodes := historyNodes(t, 2, asIs)
	there := nodes[1]
	long := strings.Repeat("u", 250)
	for i := range 1500 {
		s := there.session(there.newID(), auth.Identity{User: fmt.Sprintf("%s %04d", long, i)}, netip.Addr{}, nil)
		there.clientShard(s.id).add(s)
		defer there.clientShard(s.id).remove(s)
	}
	got, after := 0, ""
	for more := true; more; {
		list, again, err := nodes[0].UsersAfter(t.Context(), after, 1000)
		if err != nil || len(list) == 0 {
			t.Fatal(len(list), err)
		}
		for _, u := range list {
			if want := fmt.Sprintf("%s %04d", long, got); u.User != want {
				t.Fatalf("got %s, want %s", u.User, want)
			}
			got++
		}
		after, more = list[len(list)-1].User, again
	}
	if got != 1500 {
		t.Errorf("%d users", got)
	}
}

// A node that dies while it is asked makes nobody wait for ever, and leaves nothing behind.
func TestANodeDiesWhileItIsAsked(t *testing.T) {
	m, nodes := historyNodes(t, 3, asIs)
	a := nodes[0].client()
	b := nodes[1].client()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		for ctx.Err() == nil {
			_, err := nodes[0].Client(ctx, idOf(b))
			if err != nil && !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrTimeout) && !errors.Is(err, ErrUnknownClient) && !errors.Is(err, ctx.Err()) {
				t.Errorf("asked about: %v", err)
			}
			if _, _, err := nodes[2].ClientsAfter(ctx, ID{}, 10); err != nil && !errors.Is(err, ErrUnavailable) {
				t.Errorf("a list: %v", err)
			}
		}
	}()
	for i := range 100 {
		if i == 50 {
			m.Cut(nodes[1].b, true)
		}
		switch m := a.direct(b.id, i); m["code"] {
		case nil:
			if got := b.next(); got["content"] != fmt.Sprint(i) {
				t.Fatalf("got %v, want %d", got, i)
			}
		case "unavailable", "unknown_client", "timeout":
			if i < 50 {
				t.Fatalf("before it died: %v", m)
			}
		default:
			t.Fatal(m)
		}
	}
	cancel()
	<-asked
	for _, n := range nodes {
		n.nothingUnderWay()
	}
}
