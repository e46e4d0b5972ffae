package hubbub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// asUser has a client's query name its user.
func asUser(_ context.Context, c *hubbub.Connect) error {
	c.User = c.Request.URL.Query().Get("user")
	return nil
}

// enterAs is enter for a user.
func enterAs(t *testing.T, s *rawtest.Server, user string) *member {
	m := &member{Client: rawtest.Dial(t, s, "/ws?user="+user)}
	m.id = m.NextJSON()["client_id"].(string)
	return m
}

func TestPublishReachesWhomItNames(t *testing.T) {
	eachServerWith(t, hubbub.Config{Hooks: hubbub.Hooks{Connect: asUser}}, func(t *testing.T, s *rawtest.Server) {
		ctx := context.Background()
		ann, ann2, bob := enterAs(t, s, "ann"), enterAs(t, s, "ann"), enterAs(t, s, "bob")
		for _, m := range []*member{ann, ann2, bob} {
			m.join("r")
		}
		first, err := s.Publish(ctx, hubbub.Publication{Room: "r", Content: 1, From: "the shop", Key: "tea", Exclude: strings.ToUpper(bob.id)})
		if err != nil || first.Epoch == "" || first.Offset != 1 || first.Duplicate {
			t.Fatalf("%+v, %v", first, err)
		}
		want := map[string]any{"msg_type": "room_message", "from": "the shop", "content": 1.0, "room": "r", "key": "tea"}
		ann.gets(want)
		ann2.gets(want)
		bob.hearsNothing()
		// Who was excluded doesn't get it in a recovery either; who wasn't does.
		if got := bob.raw(`{"msg_type":"leave_room","room":"r","id":1}`); got["msg_type"] != "left" {
			t.Fatal(got)
		}
		if got := bob.raw(`{"msg_type":"join_room","room":"r","since":%s,"id":1}`, at(first.Epoch, 0)); got["recovered"] != true {
			t.Fatal(got)
		}
		bob.hearsNothing()

		if at, err := s.Publish(ctx, hubbub.Publication{User: "ann", Content: "psst", Exclude: ann2.id}); err != nil || at != (hubbub.Position{}) {
			t.Errorf("%+v, %v", at, err)
		}
		ann.gets(map[string]any{"msg_type": "direct_message", "from": "server", "content": "psst"})
		ann2.hearsNothing()
		if _, err := s.Publish(ctx, hubbub.Publication{Everyone: true, Content: "all", Exclude: ann.id}); err != nil {
			t.Error(err)
		}
		ann2.gets(map[string]any{"msg_type": "chat", "from": "server", "content": "all"})
		bob.gets(map[string]any{"msg_type": "chat", "from": "server", "content": "all"})
		ann.hearsNothing()

		if _, err := s.Publish(ctx, hubbub.Publication{User: "nobody", Content: 1}); !errors.Is(err, hubbub.ErrUnknownUser) {
			t.Error(err)
		}
		if _, err := s.Publish(ctx, hubbub.Publication{Client: "nobody", Content: 1}); !errors.Is(err, hubbub.ErrUnknownClient) {
			t.Error(err)
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := s.Publish(ended, hubbub.Publication{Room: "r", Content: 1}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		ann.hearsNothing()
	})
}

// To all clients of a user or to none: one that has lost its connection, and for whom too much waits, is seen before.
func TestAUsersClientsGetAMessageAllOrNone(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{Hooks: hubbub.Hooks{Connect: asUser}, MaxMessageBytes: 256 << 10})
	ann, lost := enterAs(t, s, "ann"), enterAs(t, s, "ann")
	lost.Reset()
	parked(t, s, 1)
	if err := rawtest.SendTo(s, lost.id, strings.Repeat("x", 200<<10)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Publish(t.Context(), hubbub.Publication{User: "ann", Content: 1}); !errors.Is(err, hubbub.ErrOverloaded) {
		t.Errorf("%v, though too much waits for one of them", err)
	}
	ann.hearsNothing()
	if _, err := s.Publish(t.Context(), hubbub.Publication{User: "ann", Content: 2, Exclude: lost.id}); err != nil {
		t.Error(err)
	}
	ann.gets(map[string]any{"msg_type": "direct_message", "from": "server", "content": 2.0})
}

func TestThePublishIDOfTheApplicationIsItsOwn(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a := enter(t, s).join("r")
		p := hubbub.Publication{Room: "r", Content: 1, PublishID: "x"}
		first, err := s.Publish(context.Background(), p)
		if err != nil || first.Offset != 1 || first.Duplicate {
			t.Fatalf("%+v, %v", first, err)
		}
		first.Duplicate = true
		if again, err := s.Publish(context.Background(), p); err != nil || again != first {
			t.Errorf("%+v, %v", again, err)
		}
		a.hears("r", 1, 1)
		if got := a.ask(`{"msg_type":"room_message","room":"r","content":2,"publish_id":"x"}`); got["duplicate"] != nil {
			t.Errorf("another publisher's id: %v", got)
		}
		p.Room = "elsewhere"
		if other, err := s.Publish(context.Background(), p); err != nil || other.Duplicate {
			t.Errorf("%+v, %v", other, err)
		}
		a.hearsNothing()
	})
}

func TestPublishNamesTheFieldThatIsWrong(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{})
	uuid := "01234567-89ab-4cde-8f01-23456789abcd"
	for _, c := range []struct {
		p     hubbub.Publication
		names string
	}{
		{hubbub.Publication{Content: 1}, "Room, Client, User and Everyone"},
		{hubbub.Publication{Room: "r", Everyone: true, Content: 1}, "not 2"},
		{hubbub.Publication{Room: "\n", Content: 1}, "room"},
		{hubbub.Publication{User: "\x00", Content: 1}, "User"},
		{hubbub.Publication{Everyone: true, Key: "k", Content: 1}, "Key"},
		{hubbub.Publication{Client: uuid, PublishID: "k", Content: 1}, "PublishID"},
		{hubbub.Publication{Room: "r", From: uuid, Content: 1}, "From"},
		{hubbub.Publication{Room: "r", From: strings.Repeat("x", 65), Content: 1}, "From"},
		{hubbub.Publication{Room: "r", Key: strings.Repeat("x", 256), Content: 1}, "Key"},
		{hubbub.Publication{Room: "r", PublishID: strings.Repeat("x", 65), Content: 1}, "PublishID"},
		{hubbub.Publication{Room: "r", Key: "\xff", Content: 1}, "Key"},
		{hubbub.Publication{Room: "r", Exclude: "me", Content: 1}, "Exclude"},
		{hubbub.Publication{Room: "r", Content: func() {}}, "content"},
	} {
		if _, err := s.Publish(context.Background(), c.p); err == nil || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%+v: %v, which doesn't name %s", c.p, err, c.names)
		}
	}
}

func TestTheApplicationReadsHistoryInPages(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		ctx := context.Background()
		for i := range 5 {
			if _, err := s.Publish(ctx, hubbub.Publication{Room: "r", Content: i + 1, Key: "k"}); err != nil {
				t.Fatal(err)
			}
		}
		read := func(q hubbub.HistoryQuery) (offsets []uint64, page hubbub.HistoryPage) {
			page, err := s.History(ctx, "r", q)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page.Messages {
				if string(m.Content) != fmt.Sprint(m.Offset) || m.From != "server" || m.Key != "k" || time.Since(m.Time) > time.Minute {
					t.Errorf("%+v", m)
				}
				offsets = append(offsets, m.Offset)
			}
			return offsets, page
		}
		all, page := read(hubbub.HistoryQuery{})
		if !slices.Equal(all, []uint64{1, 2, 3, 4, 5}) || page.More || page.Position.Offset != 5 || page.Position.Epoch == "" {
			t.Errorf("%v, %+v", all, page)
		}
		at := page.Position
		at.Offset = 2
		if got, page := read(hubbub.HistoryQuery{Since: &at, Limit: 2}); !slices.Equal(got, []uint64{3, 4}) || !page.More {
			t.Errorf("%v, %+v", got, page)
		}
		if got, page := read(hubbub.HistoryQuery{Before: &at, Limit: 2}); !slices.Equal(got, []uint64{1}) || page.More {
			t.Errorf("%v, %+v", got, page)
		}
		at.Epoch = "another"
		for _, bad := range []struct {
			room string
			q    hubbub.HistoryQuery
			is   error
		}{
			{"r", hubbub.HistoryQuery{Since: &at}, hubbub.ErrNoPosition},
			{"r", hubbub.HistoryQuery{Since: &at, Before: &at}, nil},
			{"r", hubbub.HistoryQuery{Limit: 1001}, nil},
			{"", hubbub.HistoryQuery{}, nil},
		} {
			if _, err := s.History(ctx, bad.room, bad.q); err == nil || bad.is != nil && !errors.Is(err, bad.is) {
				t.Errorf("%+v: %v", bad, err)
			}
		}
	})
}

// A page may have 1000 entries and not one more, whatever is listed.
func TestTheLimitOfAPageAtItsEdge(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{})
	ctx := context.Background()
	for limit, fits := range map[int]bool{-1: false, 0: true, 1: true, 1000: true, 1001: false} {
		_, history := s.History(ctx, "r", hubbub.HistoryQuery{Limit: limit})
		_, presence := s.Presence(ctx, "r", hubbub.PresenceQuery{Limit: limit})
		_, _, rooms := s.Rooms(ctx, hubbub.RoomQuery{Limit: limit})
		_, _, clients := s.Clients(ctx, hubbub.ClientQuery{Limit: limit})
		for i, err := range []error{history, presence, rooms, clients} {
			if (err == nil) != fits || err != nil && !strings.Contains(err.Error(), fmt.Sprint("not ", limit)) {
				t.Errorf("list %d by %d: %v", i, limit, err)
			}
		}
	}
}

func TestRoomsAndClientsAreListedInPages(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		ctx := context.Background()
		var names, ids []string
		for i := range 25 {
			m := enter(t, s).join(fmt.Sprintf("room %02d", i))
			names, ids = append(names, fmt.Sprintf("room %02d", i)), append(ids, m.id)
		}
		enter(t, s).join("room 03").join("another")
		var got []string
		for q := (hubbub.RoomQuery{Prefix: "room", Limit: 10}); ; {
			list, more, err := s.Rooms(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range list {
				if want := 1 + strings.Count(r.Name, "03"); r.Members != want || r.Position.Epoch == "" {
					t.Errorf("%+v, want %d members", r, want)
				}
				got = append(got, r.Name)
			}
			if !more {
				break
			}
			q.After = got[len(got)-1]
		}
		if !slices.Equal(got, names) {
			t.Errorf("got  %q\nwant %q", got, names)
		}
		got = nil
		for q := (hubbub.ClientQuery{Limit: 10}); ; {
			list, more, err := s.Clients(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range list {
				got = append(got, c.ID)
			}
			if !more {
				break
			}
			q.After = got[len(got)-1]
		}
		if len(got) != 26 || !slices.IsSorted(got) {
			t.Errorf("%d clients: %q", len(got), got)
		}
		for _, id := range ids {
			if !slices.Contains(got, id) {
				t.Errorf("%s is missing", id)
			}
		}
		if _, _, err := s.Clients(ctx, hubbub.ClientQuery{After: "x"}); err == nil {
			t.Error("After x is no id")
		}
	})
}

func TestTheApplicationTakesAClientOutOfARoom(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		ctx := context.Background()
		a, token := enterFor(t, s)
		b := enter(t, s).join("r").join("stays")
		a.join("r")
		a.join("stays")
		if err := s.Remove(ctx, "r", a.id); err != nil {
			t.Fatal(err)
		}
		a.gets(map[string]any{"msg_type": "left", "room": "r", "reason": "kicked"})
		if err := s.Remove(ctx, "r", a.id); !errors.Is(err, hubbub.ErrNotMember) {
			t.Errorf("again: %v", err)
		}
		for _, id := range []string{"nobody", "01234567-89ab-4cde-8f01-23456789abcd"} {
			if err := s.Remove(ctx, "r", id); !errors.Is(err, hubbub.ErrUnknownClient) {
				t.Errorf("%s: %v", id, err)
			}
		}
		rawtest.Publish(s, "r", 1)
		a.hearsNothing()
		b.hears("r", 1, 1)

		// Also out of one that its lost connection has left it in, and while it comes back.
		a.join("r")
		a.Reset()
		parked(t, s, 1)
		members := func(room string) int {
			list, _, _ := s.Rooms(ctx, hubbub.RoomQuery{Prefix: room})
			return list[0].Members
		}
		if err := s.Remove(ctx, "r", a.id); err != nil || members("r") != 1 || members("stays") != 2 {
			t.Errorf("%v, %d and %d members", err, members("r"), members("stays"))
		}
		back, _ := comeBack(t, s, token)
		if err := s.Remove(ctx, "stays", back.id); err != nil || members("stays") != 1 {
			t.Errorf("%v, %d members", err, members("stays"))
		}
		if got := back.ask(`{"msg_type":"resume","rooms":{}}`); got["msg_type"] != "resumed" {
			t.Error(got)
		}
		rawtest.Publish(s, "stays", 1)
		back.hearsNothing()
		b.hears("stays", 1, 1) // it is counted out once
		if n := members("stays"); n != 1 {
			t.Errorf("%d members", n)
		}
	})
}

func TestTheApplicationEndsASession(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		ctx := context.Background()
		a, token := enterFor(t, s)
		a.join("r")
		if err := s.Disconnect(ctx, a.id, 4007, "enough"); err != nil {
			t.Fatal(err)
		}
		if op, p := a.Next(); op != wsclient.Close || string(p) != "\x0f\xa7enough" { // 4007
			t.Errorf("closed with %q", p)
		}
		parked(t, s, 0)
		if b, welcome := comeBack(t, s, token); welcome["resumed"] != false || b.id == a.id {
			t.Errorf("it is back: %v", welcome)
		}
		if n := s.RoomCount(); n != 0 {
			t.Errorf("%d rooms", n)
		}

		c, token := enterFor(t, s)
		c.Reset()
		parked(t, s, 1)
		if err := s.Disconnect(ctx, c.id, 0, ""); err != nil {
			t.Fatal(err)
		}
		parked(t, s, 0)
		if d, welcome := comeBack(t, s, token); welcome["resumed"] != false || d.id == c.id {
			t.Errorf("it is back: %v", welcome)
		}
		if err := s.Disconnect(ctx, c.id, 0, ""); !errors.Is(err, hubbub.ErrUnknownClient) {
			t.Error(err)
		}
		for _, code := range []int{1000, 3999, 5000, -1} {
			if err := s.Disconnect(ctx, c.id, code, ""); err == nil || !strings.Contains(err.Error(), fmt.Sprint(code)) {
				t.Errorf("%d: %v", code, err)
			}
		}
		if err := s.Disconnect(ctx, c.id, 0, strings.Repeat("x", 124)); err == nil || !strings.Contains(err.Error(), "reason") {
			t.Error(err)
		}
	})
}

// The context of a client's own handler ends with the connection: that must not pass for a failure.
func TestAHandlerEndsItsOwnSession(t *testing.T) {
	var srv *hubbub.Server
	said := make(chan error, 1)
	handlers := map[string]hubbub.Handler{"bye": func(ctx context.Context, m *hubbub.Message) (any, error) {
		said <- srv.Disconnect(ctx, m.Client, 4007, "bye")
		return nil, nil
	}}
	eachServerWith(t, hubbub.Config{Handlers: handlers}, func(t *testing.T, s *rawtest.Server) {
		srv = s.Server
		for range 20 {
			m := enter(t, s)
			m.Text(`{"msg_type":"bye"}`)
			if op, p := m.Next(); op != wsclient.Close || string(p) != "\x0f\xa7bye" { // 4007
				t.Errorf("closed with %q", p)
			}
			if err := <-said; err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestWhatTheApplicationGivesUpIsNotDone(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		a := enter(t, s).join("r")
		b, _ := enterFor(t, s)
		b.join("r")
		b.Reset()
		parked(t, s, 1)
		for _, m := range []*member{a, b} {
			if err := s.Remove(ended, "r", m.id); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if err := s.Disconnect(ended, m.id, 0, ""); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		a.hearsNothing()
		if list, _, err := s.Rooms(context.Background(), hubbub.RoomQuery{}); err != nil || len(list) != 1 || list[0].Members != 2 {
			t.Errorf("%+v, %v", list, err)
		}
		a.Reset() // nobody is there to answer the Close of Shutdown
		parked(t, s, 2)
		if err := s.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, m := range []*member{a, b} {
			if err := s.Remove(context.Background(), "r", m.id); !errors.Is(err, hubbub.ErrStopped) {
				t.Error(err)
			}
			if err := s.Disconnect(context.Background(), m.id, 0, ""); !errors.Is(err, hubbub.ErrStopped) {
				t.Error(err)
			}
		}
	})
}

func TestTheApplicationSeesWhoIsInARoom(t *testing.T) {
	rooms := []hubbub.RoomPolicy{{Match: "full", Presence: "full"}, {Match: "off", Presence: "off"}}
	eachServerWith(t, hubbub.Config{Rooms: rooms, Hooks: hubbub.Hooks{Connect: asUser}}, func(t *testing.T, s *rawtest.Server) {
		ctx := context.Background()
		var ids []string
		for i := range 12 {
			m := enterAs(t, s, fmt.Sprint("user", i))
			m.join("counted").join("off") // before there is news of others
			m.ask(fmt.Sprintf(`{"msg_type":"join_room","room":"full","data":{"n":%d}}`, i))
			ids = append(ids, m.id)
		}
		var got []string
		for q := (hubbub.PresenceQuery{Limit: 5}); ; {
			p, err := s.Presence(ctx, "full", q)
			if err != nil || p.Count != 12 {
				t.Fatalf("%+v, %v", p, err)
			}
			for _, m := range p.Members {
				if i := slices.Index(ids, m.ID); i < 0 || m.User != fmt.Sprint("user", i) || string(m.Data) != fmt.Sprintf(`{"n":%d}`, i) {
					t.Errorf("%+v", m)
				}
				got = append(got, m.ID)
			}
			if !p.More {
				break
			}
			q.After = got[len(got)-1]
		}
		if slices.Sort(ids); !slices.Equal(got, ids) {
			t.Errorf("got  %q\nwant %q", got, ids)
		}
		if p, err := s.Presence(ctx, "full", hubbub.PresenceQuery{After: strings.ToUpper(ids[9])}); err != nil || len(p.Members) != 2 || p.Members[0].ID != ids[10] {
			t.Errorf("%+v, %v", p, err)
		}
		if _, err := s.Presence(ctx, "full", hubbub.PresenceQuery{After: "x"}); err == nil {
			t.Error("After x is no id")
		}
		if p, err := s.Presence(ctx, "counted", hubbub.PresenceQuery{}); err != nil || p.Count != 12 || p.Members != nil || p.More {
			t.Errorf("%+v, %v", p, err)
		}
		if p, err := s.Presence(ctx, "nowhere", hubbub.PresenceQuery{}); err != nil || p.Count != 0 {
			t.Errorf("%+v, %v", p, err)
		}
		if _, err := s.Presence(ctx, "off", hubbub.PresenceQuery{}); !errors.Is(err, hubbub.ErrNoPresence) {
			t.Error(err)
		}
	})
}

// What the application was given is its own: it may change that while others read the same.
func TestWhatTheApplicationWasGivenIsItsOwn(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{Rooms: []hubbub.RoomPolicy{{Match: "r", Presence: "full"}}})
	ctx := context.Background()
	a := enter(t, s)
	a.Text(`{"msg_type":"join_room","room":"r","data":"data"}`)
	for range 2 {
		if got := a.ask(`{"msg_type":"room_message","room":"r","content":"content"}`); got["msg_type"] != "ack" {
			t.Fatal(got)
		}
		page, err := s.History(ctx, "r", hubbub.HistoryQuery{})
		if err != nil {
			t.Fatal(err)
		}
		who, err := s.Presence(ctx, "r", hubbub.PresenceQuery{})
		if err != nil || len(who.Members) != 1 {
			t.Fatal(who, err)
		}
		given := [][]byte{who.Members[0].Data}
		for _, m := range page.Messages {
			given = append(given, m.Content)
		}
		for i, b := range given {
			if !strings.Contains(`"content" "data"`, string(b)) {
				t.Errorf("%d: %s", i, b)
			}
			clear(b)
		}
	}
}
