package hub

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// refuseJoins is an application that lets nobody into a room by itself.
func refuseJoins(c *Config) {
	resumable(c)
	c.Hooks.Join = func(context.Context, Identity, string) error {
		return &protocol.Error{Code: protocol.Forbidden, Message: "nobody joins"}
	}
}

func (c *client) wants(msgType string, fields map[string]any) {
	c.t.Helper()
	got := c.next()
	fields["msg_type"] = msgType
	for name, want := range fields {
		if got[name] != want {
			c.t.Fatalf("got %v, want %s %v", got, name, want)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func publish(t testing.TB, h *Hub, room, content string) {
	t.Helper()
	_, _, err := h.Publish(t.Context(), &Publication{Room: room, Content: []byte(content)})
	must(t, err)
}

// The application puts a client into a room which that may not join: it hears so, with the room's position, and then
// what is said there. A second time changes nothing.
func TestAClientIsPutIntoARoom(t *testing.T) {
	h, l := newHubOf(t, 1, refuseJoins)
	a := newClient(t, h, l)
	publish(t, h, "r", `"before"`)
	for range 2 {
		must(t, h.Join(t.Context(), "r", idOf(a)))
	}
	publish(t, h, "r", `"after"`)
	a.wants("joined", map[string]any{"room": "r", "offset": 1.0, "id": nil, "recovered": nil})
	a.wants("room_message", map[string]any{"content": "after"})
	if info, ok, _ := h.Room(t.Context(), "r"); !ok || info.Members != 1 || info.Position.Offset != 2 {
		t.Errorf("the room: %+v, %t", info, ok)
	}
	if _, ok, _ := h.Room(t.Context(), "other"); ok {
		t.Error("a room that nobody was in is there")
	}
}

func TestWhoCanNotBePutIntoARoom(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) {
		resumable(c)
		c.MaxRoomsPerClient = 2
	})
	a, b := newClient(t, h, l), newClient(t, h, l)
	b.lose(h)
	for _, c := range []*client{a, b} {
		for room, want := range []error{nil, nil, ErrLimitReached} {
			if err := h.Join(t.Context(), fmt.Sprint(room), idOf(c)); !errors.Is(err, want) {
				t.Errorf("room %d: %v, want %v", room, err, want)
			}
		}
		must(t, h.Join(t.Context(), "0", idOf(c))) // it is in already
	}
	if err := h.Join(t.Context(), "r", NewID()); !errors.Is(err, ErrUnknownClient) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Join(ctx, "r", idOf(a)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Who has lost its connection is put in, too, and is told when it comes back, whether it names the room or not. Nobody
// is asked whether it may be there, however often it comes back.
func TestWhoIsAwayIsPutIntoARoom(t *testing.T) {
	for _, names := range []bool{false, true} {
		t.Run(fmt.Sprintf("names the room %t", names), func(t *testing.T) {
			h, l := newHubOf(t, 2, refuseJoins)
			a := newClient(t, h, l)
			token := a.lose(h)
			must(t, h.Join(t.Context(), "r", idOf(a)))
			if info, _, _ := h.Room(t.Context(), "r"); info.Members != 1 {
				t.Fatalf("%d members", info.Members)
			}
			publish(t, h, "r", `"missed"`)
			for n := range 3 {
				back := a.again(h, l, token)
				rooms := "{}"
				if names {
					rooms = `{"r":null}`
				}
				back.say(`{"msg_type":"resume","rooms":%s,"id":1}`, rooms)
				back.wants("resumed", map[string]any{})
				if !names {
					back.wants("joined", map[string]any{"room": "r", "offset": float64(n + 1), "id": nil})
				}
				publish(t, h, "r", `"new"`)
				back.wants("room_message", map[string]any{"content": "new"})
				if info, _, _ := h.Room(t.Context(), "r"); info.Members != 1 {
					t.Fatalf("%d members", info.Members)
				}
				token = back.lose(h)
			}
			must(t, h.Remove(t.Context(), "r", idOf(a)))
			back := a.again(h, l, token)
			back.say(`{"msg_type":"resume","rooms":{"r":null},"id":1}`)
			if got := back.next()["rooms"].(map[string]any)["r"].(map[string]any); got["reason"] != "forbidden" {
				t.Errorf("who was taken out again comes back by itself: %v", got)
			}
		})
	}
}

// Who is put into a room while it comes home hears so, and gets what is said there when it has come.
func TestWhoComesHomeIsPutIntoARoom(t *testing.T) {
	for _, room := range []string{"kept", "plain"} {
		t.Run(room, func(t *testing.T) {
			h, l := newHubOf(t, 1, func(c *Config) {
				refuseJoins(c)
				c.Policies = NewPolicies(Disconnect, plainRooms)
			})
			a := newClient(t, h, l)
			must(t, h.Join(t.Context(), "old", idOf(a)))
			a.sync()
			back := a.again(h, l, a.lose(h))
			must(t, h.Join(t.Context(), room, idOf(a)))
			must(t, h.Join(t.Context(), "old", idOf(a)))
			back.wants("joined", map[string]any{"room": room})
			back.say(`{"msg_type":"resume","rooms":{},"last":false,"id":1}`)
			back.wants("resumed", map[string]any{})
			publish(t, h, room, `"early"`)
			if got := back.sync(); len(got) > 0 {
				t.Fatalf("before it has come it gets %v", got)
			}
			back.say(`{"msg_type":"resume","rooms":{},"id":2}`)
			back.wants("resumed", map[string]any{})
			back.wants("joined", map[string]any{"room": "old"})
			if room == "kept" {
				back.wants("room_message", map[string]any{"content": "early"})
			}
			publish(t, h, room, `"late"`)
			back.wants("room_message", map[string]any{"content": "late"})
			for _, fault := range h.Audit() {
				t.Error(fault)
			}
		})
	}
}

// Clients that are put into a room, taken out, lost and resumed at the same time are there once, or not at all.
func TestWhoeverIsPutInMeetsAResume(t *testing.T) {
	sink := newLedgerOfEvents()
	h, l := newHubOf(t, 2, func(c *Config) {
		resumable(c)
		c.Sinks = []Sink{sink}
	})
	for i := range 200 {
		a := newClient(t, h, l)
		token := a.lose(h)
		of, _ := h.Resume(token)
		var calls sync.WaitGroup
		calls.Go(func() {
			if err := h.Join(context.Background(), "lobby", idOf(a)); err != nil {
				t.Error(err)
			}
		})
		if i%2 == 0 {
			calls.Go(func() {
				if err := h.Remove(context.Background(), "lobby", idOf(a)); err != nil && !errors.Is(err, ErrNotMember) {
					t.Error(err)
				}
			})
		}
		back := newSession(t, l, h.Session(Identity{ID: of.ID}, netip.Addr{}, &of))
		back.say(`{"msg_type":"resume","rooms":{},"id":1}`)
		back.sync()
		calls.Wait()
		if i%3 == 0 {
			back.nc.Close()
			continue
		}
		back.say(`{"msg_type":"leave_room","room":"lobby"}`)
		back.sync()
	}
	until(t, "all is settled", func() bool { return len(h.Audit()) == 0 })
	sink.mu.Lock()
	defer sink.mu.Unlock()
	if len(sink.faults) > 0 {
		t.Errorf("%d faults, the first: %s", len(sink.faults), sink.faults[0])
	}
}

// What is known of one client: while it is here, while it is away, and when it has come back.
func TestWhatIsKnownOfAClient(t *testing.T) {
	h, l := newHubOf(t, 1, resumable)
	before := time.Now().Truncate(time.Second)
	a := newUser(t, h, l, "ann")
	a.say(`{"msg_type":"join_room","room":"b"}`)
	a.say(`{"msg_type":"join_room","room":"a"}`)
	a.sync()
	detail := func() ClientDetail {
		t.Helper()
		d, err := h.Client(t.Context(), idOf(a))
		must(t, err)
		if d.ID != idOf(a) || d.User != "ann" || !slices.Equal(d.Rooms, []string{"a", "b"}) || d.Since.Before(before) || d.Since.After(time.Now()) {
			t.Errorf("%+v", d)
		}
		return d
	}
	if d := detail(); d.Parked || d.Unsent != 0 {
		t.Errorf("here: %+v", d)
	}
	since := detail().Since
	a.lose(h)
	_, _, err := h.Publish(t.Context(), &Publication{Client: idOf(a), Content: []byte(`"waits"`)})
	must(t, err)
	if d := detail(); !d.Parked || d.Unsent == 0 || d.Since != since || d.Address != "" {
		t.Errorf("away: %+v", d)
	}
	if list, _ := h.UserClients(t.Context(), "ann"); len(list) != 1 || !list[0].Parked || list[0].ID != idOf(a) {
		t.Errorf("the user's clients: %+v", list)
	}
	of, _ := h.Resume(a.welcome["resume_token"].(string))
	back := newSession(t, l, h.Session(Identity{of.ID, "ann"}, netip.Addr{}, &of))
	if d := detail(); d.Parked || d.Since != since { // it has named no room yet
		t.Errorf("coming home: %+v", d)
	}
	back.nc.Close()
	if _, err := h.Client(t.Context(), NewID()); !errors.Is(err, ErrUnknownClient) {
		t.Error(err)
	}
}

// Who is taken out of a room while the application is asked about a message of its there may not publish any more.
func TestWhoIsRemovedWhileItsPublishIsAskedAbout(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	h, l := newHubOf(t, 1, func(c *Config) {
		closedRooms(c)
		c.HookTimeout = time.Minute
		c.Hooks.Publish = func(context.Context, Identity, Draft) ([]byte, error) {
			asked <- struct{}{}
			<-answer
			return nil, nil
		}
	})
	a, b := newKnown(t, h, l, auth.Identity{Rooms: []string{"closed.1"}}), newKnown(t, h, l, auth.Identity{Rooms: []string{"closed.1"}})
	a.expectKinds("joined closed.1")
	b.expectKinds("joined closed.1")
	a.say(`{"msg_type":"room_message","room":"closed.1","content":1,"id":1}`)
	<-asked
	must(t, h.Remove(t.Context(), "closed.1", idOf(a)))
	answer <- struct{}{}
	if got := a.answer(1.0, func(map[string]any) {}); got["code"] != "not_member" {
		t.Errorf("it is answered %v", got)
	}
	b.expectKinds()
}

// Who was put into a room is asked about by no resume; but where it is taken out while the resume waits for what is said
// of other rooms, it isn't let in again unasked.
func TestWhoIsRemovedWhileItsResumeIsAskedAbout(t *testing.T) {
	asked, answer := make(chan string), make(chan error)
	h, l := newHubOf(t, 1, func(c *Config) {
		resumable(c)
		c.HookTimeout = time.Minute
		c.Hooks.Join = func(_ context.Context, _ Identity, room string) error {
			asked <- room
			return <-answer
		}
	})
	a := newClient(t, h, l)
	must(t, h.Join(t.Context(), "put", idOf(a)))
	a.sync()
	back := a.again(h, l, a.lose(h))
	back.say(`{"msg_type":"resume","rooms":{"put":null,"other":null},"id":1}`)
	if room := <-asked; room != "other" {
		t.Fatalf("asked about %s", room)
	}
	must(t, h.Remove(t.Context(), "put", idOf(a)))
	answer <- nil
	back.answer(1.0, func(map[string]any) {})
	if rooms := roomsOf(t, h, back); !slices.Equal(rooms, []string{"other"}) {
		t.Errorf("it is in %q", rooms)
	}
}

// Rooms into which a client is put while the application is asked about a join of its count as all others do.
func TestWhoIsPutInWhileItsJoinIsAskedAbout(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	h, l := newHubOf(t, 1, func(c *Config) {
		c.MaxRoomsPerClient, c.HookTimeout = 1, time.Minute
		c.Hooks.Join = func(context.Context, Identity, string) error {
			asked <- struct{}{}
			<-answer
			return nil
		}
	})
	a := newClient(t, h, l)
	for room, want := range map[string]string{"put": "joined <nil>", "other": "error limit_reached"} {
		a.say(`{"msg_type":"join_room","room":%q,"id":1}`, room)
		<-asked
		must(t, h.Join(t.Context(), "put", idOf(a)))
		answer <- struct{}{}
		got := a.answer(1.0, func(map[string]any) {})
		if text := fmt.Sprint(got["msg_type"], " ", got["code"]); text != want {
			t.Errorf("%s: %s, want %s", room, text, want)
		}
		if rooms := roomsOf(t, h, a); !slices.Equal(rooms, []string{"put"}) {
			t.Errorf("it is in %q", rooms)
		}
		must(t, h.Remove(t.Context(), "put", idOf(a)))
	}
}

// So where the resume waits for the log of another room.
func TestWhoIsRemovedWhileItsResumeWaitsForALog(t *testing.T) {
	logs := brokertest.NewMemory()
	h, l := newHubOf(t, 1, func(c *Config) { closedRooms(c); c.Broker, c.Alone = logs.Broker(), true }) // Freeze would hold up what is told to others
	a := newClient(t, h, l)
	must(t, h.Join(t.Context(), "closed.1", idOf(a)))
	a.sync()
	back := a.again(h, l, a.lose(h))
	thaw := logs.Freeze()
	back.say(`{"msg_type":"resume","rooms":{"closed.1":null,"free":null},"id":1}`)
	back.sync()
	must(t, h.Remove(t.Context(), "closed.1", idOf(a)))
	thaw()
	back.answer(1.0, func(map[string]any) {})
	if rooms := roomsOf(t, h, back); !slices.Equal(rooms, []string{"free"}) {
		t.Errorf("it is in %q", rooms)
	}
}

// newUser is a client of a user.
func newUser(t testing.TB, h *Hub, l *loop.Loop, user string) *client {
	return newSession(t, l, h.Session(Identity{NewID(), user}, netip.Addr{}, nil))
}

// A client's address is that of its connection's peer, or what a proxy that is trusted says of it.
func TestAClientsAddress(t *testing.T) {
	s := newSocketHub(t)
	for _, proxied := range []bool{false, true} {
		near, far := s.pair()
		id, want := NewID(), "127.0.0.1"
		var h loop.Handler = s.hub.session(id, auth.Identity{}, netip.Addr{}, nil)
		if proxied {
			h, want = behindProxy{h}, "2001:db8::7"
		}
		s.adopt(near, h)
		s.readFrame(far)
		d, err := s.hub.Client(t.Context(), id)
		must(t, err)
		if d.Address != want {
			t.Errorf("proxied %t: %q, want %q", proxied, d.Address, want)
		}
	}
}

// behindProxy is a handler whose client has another address than its socket's peer.
type behindProxy struct{ loop.Handler }

func (behindProxy) Address() string { return "[2001:db8::7]:0" }

// A user is disconnected with all its clients, those too which are away; another user isn't.
func TestAUserIsDisconnected(t *testing.T) {
	h, l := newHubOf(t, 2, resumable)
	other := newUser(t, h, l, "bob")
	var anns []*client
	for i := range 150 {
		anns = append(anns, newUser(t, h, l, "ann"))
		if i%3 == 0 {
			anns[i].lose(h)
		}
	}
	must(t, h.DisconnectUser(t.Context(), "ann", 4500, "out"))
	until(t, "all are gone", func() bool {
		list, _ := h.UserClients(t.Context(), "ann")
		return len(list) == 0
	})
	if err := h.DisconnectUser(t.Context(), "ann", 4500, "out"); !errors.Is(err, ErrUnknownUser) {
		t.Error(err)
	}
	other.sync()
}

// Pages of users, each user once with all its clients, in order, whatever the size of a page.
func TestUsersComeInPages(t *testing.T) {
	h, l := newHub(t, 2)
	want := map[string]int{}
	for i := range 120 {
		user := fmt.Sprintf("u%03d", i%50)
		newUser(t, h, l, user)
		want[user]++
	}
	newClient(t, h, l) // has no name
	for _, limit := range []int{1, 7, 50, 1000} {
		got, after, last := map[string]int{}, "", ""
		for {
			page, more, _ := h.UsersAfter(t.Context(), after, limit)
			for _, u := range page {
				if u.User <= last {
					t.Fatalf("%q comes after %q", u.User, last)
				}
				last, after = u.User, u.User
				got[u.User] = u.Clients
			}
			if !more {
				break
			}
			if len(page) != limit {
				t.Fatalf("a page of %d with more behind it, limit %d", len(page), limit)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("limit %d: %v, want %v", limit, got, want)
		}
	}
}

// A page takes memory for a page, however many there are.
func TestAPageIsSmall(t *testing.T) {
	f := firstOf(10, strings.Compare)
	for i := range 100_000 {
		f.add(fmt.Sprint((i * 7919) % 50_000)) // each twice
		if len(f.list) > 22 || cap(f.list) > 64 {
			t.Fatalf("%d of %d places after %d", len(f.list), cap(f.list), i)
		}
	}
	first, more := f.page()
	if want := []string{"0", "1", "10", "100", "1000", "10000", "10001", "10002", "10003", "10004"}; !slices.Equal(first, want) || !more {
		t.Errorf("%v, %t", first, more)
	}
}

// The ids of a user stand once each, and nothing is left of those that go, few or many.
func TestTheIDsOfAUser(t *testing.T) {
	var s ids
	all := make([]ID, 3*manyIDs)
	for i := range all {
		all[i] = NewID()
		s = s.with(all[i])
	}
	s = s.without(NewID())
	for i := range all {
		at := (i * 7) % len(all) // out of order
		if s.find(all[at]) < 0 || s.all[s.find(all[at])] != all[at] {
			t.Fatalf("id %d isn't found", at)
		}
		if s = s.without(all[at]); s.find(all[at]) >= 0 || len(s.all) != len(all)-1-i || s.at != nil && len(s.at) != len(s.all) {
			t.Fatalf("id %d is found, or others aren't: %d left", at, len(s.all))
		}
	}
}

// The four kinds of publishers: who has the same name as one of another kind, or none, is another publisher.
func TestPublishersOfFourKinds(t *testing.T) {
	h, l := newHub(t, 1)
	a := newUser(t, h, l, "ann")
	anon := newClient(t, h, l)
	member := newClient(t, h, l)
	member.say(`{"msg_type":"join_room","room":"r"}`)
	member.sync()
	say := func(c *client) {
		c.say(`{"msg_type":"room_message","room":"r","content":1,"publish_id":"p"}`)
		c.sync()
	}
	api := func(publisher string) {
		_, _, err := h.Publish(t.Context(), &Publication{Room: "r", Content: []byte(`1`), PublishID: "p", Publisher: publisher})
		must(t, err)
	}
	for range 2 {
		say(a)
		say(anon)
		api("")
		api("ann")
		api("bob")
	}
	if got := member.sync(); len(got) != 5 {
		t.Errorf("%d messages, want 5: %v", len(got), got)
	}
	for _, fault := range h.Audit() {
		t.Error(fault)
	}
	if a, b := (publishKey{user: "x", room: "r", id: "p"}), (publishKey{apiKey: "x", room: "r", id: "p"}); a.text() == b.text() || a.cost() != b.cost() {
		t.Errorf("%q and %q", a.text(), b.text())
	}
}

func TestWhoNobodyMayPublishAs(t *testing.T) {
	h, _ := newHub(t, 1)
	id := NewID().String()
	for from, ok := range map[string]bool{
		"": true, "server": true, "Ann's bot ☕": true, strings.Repeat("x", 64): true, strings.ReplaceAll(id, "-", ""): true,
		id: false, strings.ToUpper(id): false, strings.Repeat("x", 65): false, "a\nb": false, "a\x7f": false, "\xff": false, "\u0085": false,
	} {
		_, _, err := h.Publish(t.Context(), &Publication{Room: "r", Content: []byte(`1`), From: from})
		if (err == nil) != ok {
			t.Errorf("%q: %v", from, err)
		}
	}
}

// A hundred thousand users, a page at a time, beside whoever comes and goes.
func BenchmarkUsers(b *testing.B) {
	h, _ := newHub(b, 1)
	for i := range 100_000 {
		s := h.session(NewID(), auth.Identity{User: fmt.Sprintf("user %d", i)}, netip.Addr{}, nil)
		h.clientShard(s.id).add(s)
		defer h.clientShard(s.id).remove(s)
	}
	for b.Loop() {
		h.UsersAfter(b.Context(), "user 5", 100)
	}
}
