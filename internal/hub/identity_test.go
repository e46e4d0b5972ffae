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
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// tokens are what Refresh reads: identities by their names.
type tokens map[string]auth.Identity

func (all tokens) read(_ context.Context, _ Identity, token string) (auth.Identity, error) {
	who, ok := all[token]
	if !ok {
		return who, &protocol.Error{Code: protocol.Forbidden, Message: "a bad token"}
	}
	return who, nil
}

// closed is a room which only the server lets in, granted.* one for those who are granted; both have history, and tell
// no news of members: these come when they are due, which may be at any place in a story.
func closedRooms(c *Config) {
	closed, granted := rule("closed.*", Access{Join: ServerOnly, Read: Members, Publish: Members}), rule("granted.*", Access{Join: Granted, Read: Members, Publish: Members})
	closed.Policy.Presence, granted.Policy.Presence = PresenceCount, PresenceCount
	c.Policies = NewPolicies(Disconnect, closed, granted)
	c.ResumeWindow = time.Minute
}

// inShort is what messages are about: "joined a", "left b forbidden".
func inShort(messages []map[string]any) (all []string) {
	for _, m := range messages {
		text := fmt.Sprint(m["msg_type"])
		for _, key := range []string{"room", "reason", "code", "content"} {
			if m[key] != nil {
				text += fmt.Sprint(" ", m[key])
			}
		}
		if m["id"] != nil {
			text += " answer"
		}
		all = append(all, text)
	}
	return all
}

// expectKinds holds what comes against that, and what else there is by then. An answer may overtake what is still on its
// way from elsewhere.
func (c *client) expectKinds(want ...string) {
	c.t.Helper()
	var all []map[string]any
	for range want {
		all = append(all, c.next())
	}
	if got := inShort(append(all, c.sync()...)); !slices.Equal(got, want) {
		c.t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (c *client) resume(rooms string) []string {
	c.t.Helper()
	c.say(`{"msg_type":"resume","rooms":{%s},"id":1}`, rooms)
	var got []string
	answer := c.answer(1.0, func(m map[string]any) { got = append(got, inShort([]map[string]any{m})...) })
	for name, room := range answer["rooms"].(map[string]any) {
		of := room.(map[string]any)
		got = append(got, fmt.Sprint("resumed ", name, " ", of["recovered"], " ", of["reason"]))
	}
	slices.Sort(got)
	return got
}

func TestAClientIsPutIntoTheRoomsOfItsIdentity(t *testing.T) {
	h, l := newHubOf(t, 1, closedRooms)
	at := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	c := newKnown(t, h, l, auth.Identity{User: "ann", Expires: at, Rooms: []string{"closed.1", "b", "closed.1"}})
	if c.welcome["user"] != "ann" || c.welcome["expires_at"] != float64(at.UnixMilli()) {
		t.Errorf("the welcome is %v", c.welcome)
	}
	first := c.next()
	if first["room"] != "closed.1" || first["epoch"] == nil || first["offset"] != 0.0 || first["id"] != nil {
		t.Errorf("first comes %v", first)
	}
	c.expectKinds("joined b")
	// It may leave, and come again.
	c.ask(`{"msg_type":"leave_room","room":"closed.1","id":1}`)
	if got := c.ask(`{"msg_type":"join_room","room":"closed.1","id":1}`); got["msg_type"] != "joined" {
		t.Errorf("it joins again: %v", got)
	}
	if w := newClient(t, h, l).welcome; w["user"] != nil || w["expires_at"] != nil {
		t.Errorf("the welcome of somebody unknown is %v", w)
	}
}

// A resume in which the application is asked about one room is not asked about that of a seat, nor is that refused.
func TestASeatNeedsNoQuestionBesideAnother(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) {
		closedRooms(c)
		c.Hooks.Join = func(_ context.Context, _ Identity, room string) error {
			if room != "free" {
				t.Errorf("it is asked about %q", room)
			}
			return nil
		}
	})
	who := auth.Identity{User: "ann", Rooms: []string{"closed.1"}}
	c := newKnown(t, h, l, who)
	c.expectKinds("joined closed.1")
	c.ask(`{"msg_type":"join_room","room":"free","id":1}`)
	c.lose(h)
	back := c.backAs(h, l, who)
	if got, want := back.resume(`"closed.1":null,"free":null`), []string{"resumed closed.1 false expired", "resumed free false expired"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if rooms := roomsOf(t, h, back); !slices.Equal(rooms, []string{"closed.1", "free"}) {
		t.Errorf("it is in %q", rooms)
	}
}

func TestRoomsOfAnIdentityOverAResume(t *testing.T) {
	t.Parallel()
	h, l := newHubOf(t, 2, closedRooms)
	who := auth.Identity{User: "ann", Rooms: []string{"closed.1", "closed.2"}, Grants: granting(t, "granted.1")}
	c := newKnown(t, h, l, who)
	epoch := c.next()["epoch"]
	c.expectKinds("joined closed.2")
	c.ask(`{"msg_type":"join_room","room":"granted.1","id":1}`)
	c.ask(`{"msg_type":"join_room","room":"free","id":1}`)
	c.lose(h)
	h.Publish(context.Background(), &Publication{Room: "closed.1", Content: []byte(`"missed"`)})

	// What it names is resumed without a permission of its own, what it doesn't name it is in all the same.
	back := c.backAs(h, l, who)
	if back.welcome["resumed"] != true || back.id != c.id {
		t.Fatalf("not resumed: %v", back.welcome)
	}
	if got, want := back.resume(fmt.Sprintf(`"closed.1":{"epoch":%q,"offset":0},"granted.1":null`, epoch)), []string{"resumed closed.1 true <nil>", "resumed granted.1 false expired"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	back.expectKinds("joined closed.2", "room_message closed.1 missed")

	// A newer token grants other things.
	back.lose(h)
	again := back.backAs(h, l, auth.Identity{User: "ann", Rooms: []string{"closed.2", "closed.3"}})
	again.expectKinds("joined closed.3", "joined closed.2") // the one at once, the other as its first message is no resume
	again.lose(h)
	last := again.backAs(h, l, auth.Identity{User: "ann", Rooms: []string{"closed.3"}})
	got := last.resume(`"closed.2":null,"closed.3":null,"granted.1":null`)
	if want := []string{"resumed closed.2 false forbidden", "resumed closed.3 false expired", "resumed granted.1 false forbidden"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if rooms := roomsOf(t, h, last); !slices.Equal(rooms, []string{"closed.3"}) {
		t.Errorf("at last it is in %q", rooms)
	}
}

// Who is put in again as somebody new can still go on from where it was, as long as nothing has come to it. So the rooms
// of its identity miss nothing over an absence that its session did not outlive.
func TestWhoIsPutInMayComeWithAPosition(t *testing.T) {
	for _, how := range []string{`{"msg_type":"resume","rooms":{"closed.1":%s},"id":1}`, `{"msg_type":"join_room","room":"closed.1","since":%s,"id":1}`} {
		h, l := newHubOf(t, 2, closedRooms)
		publish := func(n int) {
			h.Publish(context.Background(), &Publication{Room: "closed.1", Content: fmt.Append(nil, n)})
		}
		who := auth.Identity{User: "ann", Rooms: []string{"closed.1"}}
		first := newKnown(t, h, l, who)
		since := fmt.Sprintf(`{"epoch":%q,"offset":1}`, first.next()["epoch"])
		for n := range 3 {
			publish(n)
		}
		c := newKnown(t, h, l, who)
		if m := c.next(); m["msg_type"] != "joined" || m["offset"] != 3.0 {
			t.Fatalf("%v", m)
		}
		var got []string
		see := func(m map[string]any) { got = append(got, inShort([]map[string]any{m})...) }
		for _, want := range []string{"recovered:true", "reason:expired recovered:false"} { // once
			c.say(how, since)
			if answer := fmt.Sprint(c.answer(1.0, see)); !strings.Contains(answer, want) {
				t.Errorf("%s, want %s", answer, want)
			}
		}
		publish(3)
		for len(got) < 3 {
			see(c.next())
		}
		if want := []string{"room_message closed.1 1", "room_message closed.1 2", "room_message closed.1 3"}; !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}

		// While it comes home to another room nothing comes to it, whatever is published.
		third := newKnown(t, h, l, auth.Identity{User: "ann"})
		third.ask(`{"msg_type":"join_room","room":"free","id":1}`)
		third.lose(h)
		back := third.backAs(h, l, who)
		publish(4)
		back.say(`{"msg_type":"resume","rooms":{"free":null,"closed.1":%s},"id":1}`, since)
		got = nil
		back.answer(1.0, see)
		for len(got) < 5 {
			see(back.next())
		}
		if want := []string{"joined closed.1", "room_message closed.1 1", "room_message closed.1 2", "room_message closed.1 3", "room_message closed.1 4"}; !slices.Equal(got, want) {
			t.Errorf("coming home: %q", got)
		}
	}
}

// What is noted of a room into which the server has put a client goes with the membership: neither do comings and goings
// add up, nor is a position good for a room that it has joined itself since.
func TestWhoWasPutInIsForgottenWithTheRoom(t *testing.T) {
	h, l := newHubOf(t, 1, closedRooms)
	a := newClient(t, h, l)
	other := newClient(t, h, l)
	other.ask(`{"msg_type":"join_room","room":"r","id":1}`)
	publish(t, h, "r", `1`)
	for range 10 {
		must(t, h.Join(t.Context(), "r", idOf(a)))
		must(t, h.Remove(t.Context(), "r", idOf(a)))
	}
	a.sync()
	s := sessionOf(t, h, a.id)
	onItsWorker(h, s, func() {
		if n := len(s.more.placings.entered); n > 0 {
			t.Errorf("%d notes are left of a room in which it isn't", n)
		}
	})
	epoch := a.ask(`{"msg_type":"join_room","room":"r","id":1}`)["epoch"]
	if got := a.ask(`{"msg_type":"join_room","room":"r","since":{"epoch":%q,"offset":0},"id":1}`, epoch); got["recovered"] != false {
		t.Errorf("a member by itself joins again with a position: %v", got)
	}
}

// Who was put in and then says that it has all up to the room's position hears of what was taken back while it was away.
func TestWhoIsPutInHearsWhatWasTakenBack(t *testing.T) {
	for _, how := range []string{`{"msg_type":"resume","rooms":{"closed.1":%s},"id":1}`, `{"msg_type":"join_room","room":"closed.1","since":%s,"id":1}`} {
		h, l := newHubOf(t, 1, closedRooms)
		who := auth.Identity{User: "ann", Rooms: []string{"closed.1"}}
		stays, leaves := newKnown(t, h, l, who), newKnown(t, h, l, who)
		since := fmt.Sprintf(`{"epoch":%q,"offset":2}`, leaves.next()["epoch"])
		stays.next()
		publish(t, h, "closed.1", `1`)
		publish(t, h, "closed.1", `2`)
		leaves.expectKinds("room_message closed.1 1", "room_message closed.1 2")
		leaves.nc.Close()
		must(t, h.DeleteMessage(t.Context(), "closed.1", "", 1))
		back := newKnown(t, h, l, who)
		back.wants("joined", map[string]any{"room": "closed.1", "offset": 2.0})
		back.say(how, since)
		if answer := back.answer(1.0, func(map[string]any) {}); !strings.Contains(fmt.Sprint(answer), "recovered:true") {
			t.Errorf("%v", answer)
		}
		got := back.sync()
		if len(got) != 1 || got[0]["msg_type"] != "deleted" || got[0]["offset"] != 1.0 {
			t.Errorf("it hears %v", got)
		}
		publish(t, h, "closed.1", `3`)
		back.expectKinds("room_message closed.1 3")
	}
}

// roomsOf are the rooms that the hub has the client in, by name.
func roomsOf(t *testing.T, h *Hub, c *client) []string {
	t.Helper()
	d, err := h.Client(context.Background(), idOf(c))
	if err != nil {
		t.Fatal(err)
	}
	return d.Rooms
}

// Whom the application put in stays, whatever its tokens say.
func TestWhomTheApplicationPutInStays(t *testing.T) {
	all := tokens{"none": {User: "ann"}}
	h, l := newHubOf(t, 2, func(c *Config) { closedRooms(c); c.Hooks.Refresh = all.read })
	c := newKnown(t, h, l, auth.Identity{User: "ann", Rooms: []string{"closed.1"}})
	if err := h.Join(context.Background(), "closed.2", idOf(c)); err != nil {
		t.Fatal(err)
	}
	c.expectKinds("joined closed.1", "joined closed.2")
	c.ask(`{"msg_type":"refresh","token":"none","id":1}`)
	c.expectKinds("left closed.1 forbidden")
	c.lose(h)
	back := c.backAs(h, l, auth.Identity{User: "ann"})
	if got := back.resume(`"closed.2":null,"closed.1":null`); !slices.Equal(got, []string{"resumed closed.1 false forbidden", "resumed closed.2 false expired"}) {
		t.Errorf("%q", got)
	}
}

// Rooms of an identity are counted as those that a client joins by itself.
func TestRoomsOfAnIdentityAreLimited(t *testing.T) {
	t.Parallel()
	h, l := newHubOf(t, 1, func(c *Config) { c.MaxRoomsPerClient, c.ResumeWindow = 3, time.Minute })
	c := newKnown(t, h, l, auth.Identity{User: "ann", Rooms: []string{"1", "2", "3", "4", "5"}})
	c.expectKinds("joined 1", "joined 2", "joined 3", "error limit_reached")
	if got := c.ask(`{"msg_type":"join_room","room":"6","id":1}`); got["code"] != "limit_reached" {
		t.Errorf("one more: %v", got)
	}
	c.lose(h)
	back := c.backAs(h, l, auth.Identity{User: "ann", Rooms: []string{"4", "1"}})
	back.expectKinds("error limit_reached", "joined 1") // those that it was in count until it has said that it isn't
}

// A client may be in as many rooms as the limit allows: to be told of all of them at once makes it no slow one.
func TestAnIdentitysRoomsAreMany(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) {
		closedRooms(c)
		c.MaxRoomsPerClient, c.Hooks.Refresh = 1000, tokens{"none": {User: "ann"}}.read
	})
	who := auth.Identity{User: "ann"}
	for i := range 1000 {
		who.Rooms = append(who.Rooms, fmt.Sprint("closed.", strings.Repeat("x", 200), i))
	}
	c := newKnown(t, h, l, who)
	if n := len(c.sync()); n != 1000 {
		t.Errorf("as it connects it is told of %d rooms", n)
	}
	c.lose(h)
	back := c.backAs(h, l, who)
	if n := len(back.sync()); n != 1000 {
		t.Errorf("as it comes back it is told of %d rooms", n)
	}
	back.ask(`{"msg_type":"refresh","token":"none","id":1}`)
	if n := len(back.sync()); n != 1000 {
		t.Errorf("it is told that it has left %d rooms", n)
	}
}

// Who is taken out of a room into which it is still to be put stays out of it, and its identity is as it was.
func TestWhoIsRemovedBeforeItIsPutIn(t *testing.T) {
	h, l := newHubOf(t, 1, closedRooms)
	rooms := []string{"closed.a", "closed.b", "closed.c"}
	c := newKnown(t, h, l, auth.Identity{User: "ann"})
	s := sessionOf(t, h, c.id)
	onItsWorker(h, s, func() {
		s.placings().left = rooms
		if !s.kick("closed.b") {
			t.Error("it is said not to be in the room")
		}
		s.goOnNaming()
		if s.find([]byte("closed.a")) < 0 || s.find([]byte("closed.b")) >= 0 || s.find([]byte("closed.c")) < 0 {
			t.Errorf("it is in %d rooms", len(s.rooms))
		}
	})
	if rooms[1] != "closed.b" {
		t.Errorf("the identity names %q", rooms)
	}
}

func TestAnIdentitysDataIsWhatOthersSee(t *testing.T) {
	all := tokens{"new": {User: "ann", Data: []byte(`"new"`)}, "none": {User: "ann", Expires: time.Now().Add(time.Hour)}}
	h, l := newHubOf(t, 2, func(c *Config) { c.ResumeWindow, c.Hooks.Refresh = time.Minute, all.read })
	watch := newClient(t, h, l)
	seen := func(want string) {
		t.Helper()
		until(t, "they see "+want, func() bool {
			members, _ := watch.ask(`{"msg_type":"presence","room":"lobby","id":1}`)["members"].([]any)
			return len(members) == 1 && fmt.Sprint(members[0].(map[string]any)["data"]) == want
		})
	}
	c := newKnown(t, h, l, auth.Identity{User: "ann", Data: []byte(`"old"`)})
	c.ask(`{"msg_type":"join_room","room":"lobby","data":"mine","id":1}`)
	seen("old")
	c.ask(`{"msg_type":"join_room","room":"lobby","data":"mine","id":1}`)
	seen("old")
	c.ask(`{"msg_type":"refresh","token":"new","id":1}`)
	seen("new")
	c.ask(`{"msg_type":"refresh","token":"none","id":1}`) // says nothing of it
	seen("new")
	c.lose(h)
	c.backAs(h, l, auth.Identity{User: "ann", Data: []byte(`"third"`)}).resume(`"lobby":null`)
	seen("third")
}

// A member that joins again is told the position of what it has been sent: what is still on its way to it comes behind
// that, so that a client which is cut off in between comes back for it.
func TestWhoJoinsAgainIsToldWhatItWasSent(t *testing.T) {
	h, l := newHubOf(t, 1, closedRooms)
	c := newKnown(t, h, l, auth.Identity{User: "ann", Rooms: []string{"r"}})
	epoch := c.next()["epoch"]
	s := sessionOf(t, h, c.id)
	for i, join := range []string{`"id":1`, fmt.Sprintf(`"since":{"epoch":%q,"offset":1},"id":1`, epoch), `"since":{"epoch":"other","offset":0},"id":1`} {
		onItsWorker(h, s, func() {
			publish(t, h, "r", `1`)
			s.Message(s.conn, wire.Text, fmt.Appendf(nil, `{"msg_type":"join_room","room":"r",%s}`, join))
		})
		c.wants("joined", map[string]any{"offset": float64(i)})
		c.wants("room_message", map[string]any{"offset": float64(i + 1)})
	}
	c.ask(`{"msg_type":"join_room","room":"r","id":1}`)
	if got := c.ask(`{"msg_type":"join_room","room":"r","id":1}`); got["offset"] != 3.0 {
		t.Errorf("when it has all: %v", got)
	}
}

// So where it lags: what waits for it comes behind the position that it is told.
func TestWhoLagsAndJoinsAgainIsToldWhatItWasSent(t *testing.T) {
	for p := DropOldest; p <= LatestByKey; p++ {
		h, l := newHubOf(t, 1, slowRooms)
		c := newClient(t, h, l)
		room := p.String()
		c.ask(`{"msg_type":"join_room","room":%q,"id":1}`, room)
		c.deaf.Lock()
		s := h.here(idOf(c))
		for lags := false; !lags; { // its pump may take the little that waits after all, once it is run
			lagging(t, h, room, idOf(c))
			onItsWorker(h, s, func() {
				if lags = s.lag(s.rooms[0].local) != nil; lags {
					s.Message(s.conn, wire.Text, fmt.Appendf(nil, `{"msg_type":"join_room","room":%q,"id":1}`, room))
				}
			})
		}
		c.deaf.Unlock()
		had := 0.0 // before it lagged
		told := c.answer(1.0, func(m map[string]any) { had, _ = m["offset"].(float64) })["offset"].(float64)
		if told < had {
			t.Errorf("%s: it is told %v, and has %v", p, told, had)
		}
		c.say(`{"msg_type":"ping","id":2}`)
		for m := c.next(); m["id"] != 2.0; m = c.next() {
			at, _ := m["offset"].(float64)
			from, _ := m["from_offset"].(float64)
			if first := max(at, from); first != 0 && first <= told {
				t.Errorf("%s: it is told %v, and then comes %v", p, told, first)
			}
		}
	}
}

// The data that an identity shows is kept in each of its rooms, and that within the user's share, however many
// connections there are.
func TestAnIdentitysDataIsWithinTheShare(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) {
		c.MaxBufferedBytes = 4 << 20
		c.Policies = NewPolicies(Disconnect, rule("*", Access{}))
	})
	var rooms []string
	for i := range 10 {
		rooms = append(rooms, fmt.Sprint("r", i))
	}
	who := auth.Identity{User: "ann", Rooms: rooms, Data: []byte(`"` + strings.Repeat("x", 4000) + `"`)}
	for range 20 {
		newKnown(t, h, l, who).sync()
	}
	if kept := h.Kept(KeptPresence); kept > h.cfg().share {
		t.Errorf("%d bytes are kept because of one user, whose share is %d", kept, h.cfg().share)
	}
	last := newKnown(t, h, l, who)
	if got := last.sync(); got[0]["code"] != "limit_reached" {
		t.Errorf("the last one is told %v", got[0])
	}
	if err := h.Join(t.Context(), "r0", idOf(last)); !errors.Is(err, ErrLimitReached) {
		t.Errorf("the application puts it in: %v", err)
	}
}

func TestARefreshTakesTheTokensPlace(t *testing.T) {
	later := time.Now().Add(time.Hour).Truncate(time.Second)
	all := tokens{
		"more":  {User: "ann", Expires: later, Rooms: []string{"closed.1"}, Grants: granting(t, "granted.*")},
		"less":  {User: "ann", Grants: granting(t, "granted.2")},
		"bob's": {User: "bob"}, "nobody's": {}, "long": {User: "ann", Data: make([]byte, protocol.MaxData+1)},
	}
	h, l := newHubOf(t, 1, func(c *Config) { closedRooms(c); c.Hooks.Refresh = all.read })
	c := newKnown(t, h, l, auth.Identity{User: "ann"})
	refresh := func(token string) map[string]any {
		return c.ask(`{"msg_type":"refresh","token":%q,"id":1}`, token)
	}
	for token, code := range map[string]string{"bob's": "forbidden", "nobody's": "forbidden", "bad": "forbidden", "long": "internal"} {
		if got := refresh(token); got["code"] != code {
			t.Errorf("%s: %v", token, got)
		}
	}
	if got := refresh("more"); got["msg_type"] != "refreshed" || got["expires_at"] != float64(later.UnixMilli()) {
		t.Errorf("more: %v", got)
	}
	c.expectKinds("joined closed.1")
	for _, room := range []string{"granted.1", "granted.2", "free"} {
		if got := c.ask(`{"msg_type":"join_room","room":%q,"id":1}`, room); got["msg_type"] != "joined" {
			t.Errorf("%s: %v", room, got)
		}
	}
	c.ask(`{"msg_type":"leave_room","room":"closed.1","id":1}`)
	if got := refresh("more"); got["msg_type"] != "refreshed" {
		t.Errorf("the same again: %v", got)
	}
	c.expectKinds() // nor is it put in again where it left
	c.ask(`{"msg_type":"join_room","room":"closed.1","id":1}`)
	if got := refresh("less"); got["msg_type"] != "refreshed" || got["expires_at"] != nil {
		t.Errorf("less: %v", got)
	}
	c.expectKinds("left granted.1 forbidden", "left closed.1 forbidden")
	if rooms := roomsOf(t, h, c); !slices.Equal(rooms, []string{"free", "granted.2"}) {
		t.Errorf("it is in %q", rooms)
	}
	if got := c.ask(`{"msg_type":"join_room","room":"granted.1","id":1}`); got["code"] != "forbidden" {
		t.Errorf("back into it: %v", got)
	}

	// Who came without a name and without a token has nothing to refresh.
	anon := newClient(t, h, l)
	if got := anon.ask(`{"msg_type":"refresh","token":"nobody's","id":1}`); got["code"] != "forbidden" {
		t.Errorf("of nobody: %v", got)
	}
}

// A room that its old token named and the new one doesn't is left also where the policy lets everyone in, if the hook Join
// has a say and never was asked. One about which it was asked stays.
func TestARefreshLeavesRoomsThatJoinNeverAllowed(t *testing.T) {
	all := tokens{"less": {User: "ann", Rooms: []string{"b"}}}
	h, l := newHubOf(t, 1, func(c *Config) {
		c.Hooks.Refresh = all.read
		c.Hooks.Join = func(_ context.Context, _ Identity, room string) error {
			if room == "allowed" {
				return nil
			}
			return &protocol.Error{Code: protocol.Forbidden, Message: "not there"}
		}
	})
	c := newKnown(t, h, l, auth.Identity{User: "ann", Rooms: []string{"a", "b"}})
	c.ask(`{"msg_type":"join_room","room":"allowed","id":1}`)
	c.ask(`{"msg_type":"refresh","token":"less","id":1}`)
	c.expectKinds("left a forbidden")
	if rooms := roomsOf(t, h, c); !slices.Equal(rooms, []string{"allowed", "b"}) {
		t.Errorf("it is in %q", rooms)
	}
}

// Two refreshes are read together, and the client doesn't take the word of the rooms that the first token names: it gets
// into none of them that the second one doesn't name, and into all that it names.
func TestARefreshMeetsRoomsThatAreStillToBeJoined(t *testing.T) {
	room := func(i int) string { return fmt.Sprint("closed.", strings.Repeat("x", 200), i) }
	all := tokens{"many": {User: "ann"}, "none": {User: "ann"}, "other": {User: "ann", Rooms: []string{room(999), "closed.1"}}}
	many := all["many"]
	for i := range 1000 {
		many.Rooms = append(many.Rooms, room(i))
	}
	all["many"] = many
	for second, want := range map[string][]string{"none": nil, "other": {"closed.1", room(999)}} {
		begin := make(chan struct{})
		h, l := newHubOf(t, 1, func(c *Config) {
			closedRooms(c)
			c.MaxRoomsPerClient, c.HookTimeout = 1000, time.Minute
			c.Hooks.Refresh = func(ctx context.Context, who Identity, token string) (auth.Identity, error) {
				<-begin
				return all.read(ctx, who, token)
			}
		})
		c := newKnown(t, h, l, auth.Identity{User: "ann"})
		s := sessionOf(t, h, c.id)
		c.say(`{"msg_type":"refresh","token":"many","id":1}`)
		c.say(`{"msg_type":"refresh","token":%q,"id":2}`, second)
		until(t, "both are read", func() (read bool) {
			onItsWorker(h, s, func() { read = s.more != nil && s.more.operations != nil && len(s.more.operations.waiting) > 0 })
			return read
		})
		c.deaf.Lock()
		begin <- struct{}{}
		until(t, "the first is obeyed", func() (obeyed bool) {
			onItsWorker(h, s, func() { obeyed = s.naming() })
			return obeyed
		})
		c.deaf.Unlock()
		begin <- struct{}{}
		c.answer(2.0, func(map[string]any) {})
		c.sync()
		if rooms := roomsOf(t, h, c); !slices.Equal(rooms, want) {
			t.Errorf("behind the token %q it is in %d rooms, want %d", second, len(rooms), len(want))
		}
	}
}

// What a client sends behind a refresh is obeyed when it is in all rooms that the new token names, however slowly it takes
// the word of them.
func TestWhatComesBehindARefreshMeetsItsRooms(t *testing.T) {
	many := auth.Identity{User: "ann"}
	for i := range 1000 {
		many.Rooms = append(many.Rooms, fmt.Sprint("closed.", strings.Repeat("x", 200), i))
	}
	begin := make(chan struct{})
	h, l := newHubOf(t, 1, func(c *Config) {
		closedRooms(c)
		c.MaxRoomsPerClient, c.HookTimeout = 1000, time.Minute
		c.Hooks.Refresh = func(context.Context, Identity, string) (auth.Identity, error) {
			<-begin
			return many, nil
		}
	})
	c := newKnown(t, h, l, auth.Identity{User: "ann"})
	s := sessionOf(t, h, c.id)
	c.say(`{"msg_type":"refresh","token":"many","id":2}`)
	c.say(`{"msg_type":"room_message","room":%q,"content":1,"id":1}`, many.Rooms[999])
	until(t, "both are read", func() (read bool) {
		onItsWorker(h, s, func() { read = s.more != nil && s.more.operations != nil && len(s.more.operations.waiting) > 0 })
		return read
	})
	c.deaf.Lock()
	begin <- struct{}{}
	until(t, "the refresh is obeyed", func() (obeyed bool) {
		onItsWorker(h, s, func() { obeyed = s.more.operations.running == nil })
		return obeyed
	})
	c.deaf.Unlock()
	if got := c.answer(1.0, func(map[string]any) {}); got["msg_type"] != "ack" {
		t.Errorf("it is answered %v", got)
	}
}

// What the application has said beside the token stays: its end too, which no token puts off.
func TestARefreshLeavesWhatTheApplicationSaid(t *testing.T) {
	soon, later := time.Now().Add(time.Minute).Truncate(time.Second), time.Now().Add(time.Hour).Truncate(time.Second)
	all := tokens{"less": {User: "ann", Expires: later}}
	h, l := newHubOf(t, 1, func(c *Config) { closedRooms(c); c.Hooks.Refresh = all.read })
	who := auth.Identity{User: "ann", Expires: later, Rooms: []string{"closed.1"}, Grants: granting(t, "granted.1")}
	said := auth.Identity{User: "ann", Expires: soon, Rooms: []string{"closed.2"}, Grants: granting(t, "granted.2"), Data: []byte(`"said"`)}
	if err := who.Add(said); err != nil {
		t.Fatal(err)
	}
	c := newKnown(t, h, l, who)
	c.expectKinds("joined closed.1", "joined closed.2")
	for _, room := range []string{"granted.1", "granted.2", "lobby"} {
		c.ask(`{"msg_type":"join_room","room":%q,"data":"mine","id":1}`, room)
	}
	for _, left := range [][]string{{"left closed.1 forbidden", "left granted.1 forbidden"}, nil} {
		if got := c.ask(`{"msg_type":"refresh","token":"less","id":1}`); got["msg_type"] != "refreshed" || got["expires_at"] != float64(soon.UnixMilli()) {
			t.Errorf("got %v", got)
		}
		c.expectKinds(left...)
	}
	if rooms := roomsOf(t, h, c); !slices.Equal(rooms, []string{"closed.2", "granted.2", "lobby"}) {
		t.Errorf("it is in %q", rooms)
	}
	c.ask(`{"msg_type":"join_room","room":"lobby","data":"mine","id":1}`)
	if got := fmt.Sprint(c.ask(`{"msg_type":"presence","room":"lobby","id":1}`)["members"]); !strings.Contains(got, "data:said") {
		t.Errorf("it shows %s", got)
	}
}

// A join that is under way when a refresh comes is done before it, and one behind it is asked anew: no order of them
// leaves the client in a room that its token doesn't grant.
func TestARefreshMeetsAJoin(t *testing.T) {
	all := tokens{"less": {User: "ann"}}
	asked, answer := make(chan struct{}), make(chan struct{})
	h, l := newHubOf(t, 1, func(c *Config) {
		closedRooms(c)
		c.HookTimeout = time.Minute
		c.Hooks.Refresh = func(ctx context.Context, who Identity, token string) (auth.Identity, error) {
			asked <- struct{}{}
			<-answer
			return all.read(ctx, who, token)
		}
		c.Hooks.Join = func(context.Context, Identity, string) error {
			asked <- struct{}{}
			<-answer
			return nil
		}
	})
	c := newKnown(t, h, l, auth.Identity{User: "ann", Grants: granting(t, "granted.*")})
	c.say(`{"msg_type":"join_room","room":"granted.1","id":2}`)
	<-asked
	c.say(`{"msg_type":"refresh","token":"less","id":3}`)
	c.say(`{"msg_type":"join_room","room":"granted.2","id":4}`)
	answer <- struct{}{} // of the join
	<-asked
	c.say(`{"msg_type":"join_room","room":"granted.3","id":5}`)
	answer <- struct{}{} // of the refresh; granted.2 and granted.3 ask nobody
	var got []string
	c.answer(5.0, func(m map[string]any) { got = append(got, inShort([]map[string]any{m})...) })
	if want := []string{"joined granted.1 answer", "refreshed answer", "left granted.1 forbidden", "error forbidden answer"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if rooms := roomsOf(t, h, c); len(rooms) != 0 {
		t.Errorf("it is in %q", rooms)
	}
}

// So where the room's log lies elsewhere and takes its time; and rooms of the identity are joined there, too.
func TestARefreshMeetsAJoinOfALogElsewhere(t *testing.T) {
	all := tokens{"less": {User: "ann", Rooms: []string{"closed.2"}}}
	logs := brokertest.NewMemory()
	h, l := newHubOf(t, 2, func(c *Config) { closedRooms(c); c.Broker, c.Hooks.Refresh = logs.Broker(), all.read })
	for range 50 {
		c := newKnown(t, h, l, auth.Identity{User: "ann", Rooms: []string{"closed.1"}, Grants: granting(t, "granted.*")})
		c.say(`{"msg_type":"join_room","room":"granted.1","id":2}`)
		c.say(`{"msg_type":"refresh","token":"less","id":3}`)
		c.say(`{"msg_type":"join_room","room":"granted.2","id":4}`)
		c.say(`{"msg_type":"room_message","room":"closed.2","content":1,"id":5}`)
		c.answer(5.0, func(map[string]any) {})
		if rooms := roomsOf(t, h, c); !slices.Equal(rooms, []string{"closed.2"}) {
			t.Errorf("it is in %q", rooms)
		}
		c.say(`{"msg_type":"leave_room","room":"closed.2","id":6}`)
		c.answer(6.0, func(map[string]any) {})
		c.lose(h)
	}
}

// Rooms are taken away from a client that is still being brought what it missed there.
func TestARefreshMeetsAHomecoming(t *testing.T) {
	all := tokens{"less": {User: "ann"}}
	h, l := newHubOf(t, 2, func(c *Config) { closedRooms(c); c.Hooks.Refresh = all.read })
	who := auth.Identity{User: "ann", Grants: granting(t, "granted.*"), Rooms: []string{"closed.1"}}
	for round := range 20 {
		c := newKnown(t, h, l, who)
		epoch := c.next()["epoch"]
		at := c.ask(`{"msg_type":"join_room","room":"granted.1","id":1}`)
		c.lose(h)
		for i := range 50 {
			h.Publish(context.Background(), &Publication{Room: "granted.1", Content: fmt.Appendf(nil, `"%d %s"`, i, strings.Repeat("x", 1000))})
		}
		back := c.backAs(h, l, who)
		last := `,"last":false`
		if round%2 == 0 {
			last = ""
		}
		back.say(`{"msg_type":"resume","rooms":{"granted.1":{"epoch":%q,"offset":%v},"closed.1":{"epoch":%q,"offset":0}}%s,"id":1}`, at["epoch"], at["offset"], epoch, last)
		back.say(`{"msg_type":"refresh","token":"less","id":2}`)
		var after []string
		back.answer(2.0, func(map[string]any) {})
		for _, m := range back.sync() {
			after = append(after, inShort([]map[string]any{m})...)
		}
		if want := []string{"left closed.1 forbidden", "left granted.1 forbidden"}; !slices.Equal(slices.Sorted(slices.Values(after)), want) {
			t.Errorf("behind the refresh came %.200q", after)
		}
		back.nc.Close()
	}
}

// An identity that no client can have is a fault of whoever gave it, and lets nobody in.
func TestABadIdentityIsRefused(t *testing.T) {
	h, _ := newHubOf(t, 1, func(*Config) {})
	h.UpgradeBegins()
	defer h.UpgradeEnds()
	for _, bad := range []auth.Identity{{User: "a\n"}, {Rooms: []string{"a", ""}}, {Data: make([]byte, protocol.MaxData+1)}} {
		if _, err := h.Admit(context.Background(), netip.Addr{}, "", bad, nil); err == nil {
			t.Errorf("%+v is let in", bad)
		}
		_, err := h.Admit(context.Background(), netip.Addr{}, "", auth.Identity{}, func(_ context.Context, _ ID, who *auth.Identity) error {
			*who = bad
			return nil
		})
		if err == nil {
			t.Errorf("%+v is let in by a hook", bad)
		}
	}
}

func TestRequestsAreTheApplications(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) {
		c.Hooks.Request = func(_ context.Context, who Identity, method string, content []byte) ([]byte, error) {
			switch method {
			case "fail":
				return nil, errors.New("a secret")
			case "refuse":
				return nil, &protocol.Error{Code: protocol.RateLimited, Message: "later"}
			case "nothing":
				return nil, nil
			}
			return fmt.Appendf(nil, "[%q,%q,%q]", who.User, method, content), nil
		}
	})
	c := newKnown(t, h, l, auth.Identity{User: "ann"})
	for what, want := range map[string]string{
		`"method":"list","content":{"a": 1}`: `response [ann list {"a": 1}] answer`,
		`"method":"list"`:                    `response [ann list ] answer`,
		`"method":"nothing"`:                 `response answer`,
		`"method":"refuse"`:                  `error rate_limited answer`,
		`"method":"fail"`:                    `error internal answer`,
	} {
		if got := inShort([]map[string]any{c.ask(`{"msg_type":"request",%s,"id":1}`, what)}); got[0] != want {
			t.Errorf("%s: %s", what, got)
		}
	}
	if got := newClient(t, h, l).ask(`{"msg_type":"refresh","token":"x","id":1}`); got["code"] != "unavailable" || got["retry"] != true {
		t.Errorf("without a hook: %v", got)
	}
}
