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
)

var noID = strings.Repeat("0", 36)

// nobodyJoins has no client join a room by itself.
func nobodyJoins(context.Context, *hubbub.Join) error {
	return &hubbub.Error{Code: hubbub.Forbidden, Message: "nobody joins"}
}

// The application puts clients into rooms, sees them there, and sends a user away.
func TestClientsAndUsersAreManaged(t *testing.T) {
	eachServerWith(t, hubbub.Config{Hooks: hubbub.Hooks{Connect: asUser, Join: nobodyJoins}}, func(t *testing.T, s *rawtest.Server) {
		ctx := t.Context()
		before := time.Now().Truncate(time.Second)
		ann, ann2, bob := enterAs(t, s, "ann"), enterAs(t, s, "ann"), enterAs(t, s, "bob")
		if got := ann.raw(`{"msg_type":"join_room","room":"r","id":1}`); got["code"] != "forbidden" {
			t.Fatal(got)
		}
		for range 2 {
			if err := s.Join(ctx, "r", strings.ToUpper(ann.id)); err != nil {
				t.Fatal(err)
			}
		}
		ann.gets(map[string]any{"msg_type": "joined", "room": "r"})
		ann.hearsNothing()
		if r, err := s.Room(ctx, "r"); err != nil || r.Members != 1 || r.Name != "r" || r.Position.Epoch == "" {
			t.Errorf("%+v, %v", r, err)
		}
		c, err := s.Client(ctx, ann.id)
		if err != nil || c.ID != ann.id || c.User != "ann" || !slices.Equal(c.Rooms, []string{"r"}) || c.Address != "127.0.0.1" || c.Since.Before(before) || c.Parked {
			t.Errorf("%+v, %v", c, err)
		}
		users, more, err := s.Users(ctx, hubbub.UserQuery{Limit: 1})
		if err != nil || !more || !slices.Equal(users, []hubbub.User{{Name: "ann", Clients: 2}}) {
			t.Errorf("%+v, %t, %v", users, more, err)
		}
		users, more, err = s.Users(ctx, hubbub.UserQuery{After: "ann"})
		if err != nil || more || !slices.Equal(users, []hubbub.User{{Name: "bob", Clients: 1}}) {
			t.Errorf("%+v, %t, %v", users, more, err)
		}
		list, err := s.UserClients(ctx, "ann")
		if err != nil || len(list) != 2 || list[0].ID > list[1].ID || !slices.Contains(list, hubbub.Client{ID: ann2.id, User: "ann"}) {
			t.Errorf("%+v, %v", list, err)
		}
		if i := s.Info(); i.Clients != 3 || i.Connections != 3 || i.Rooms != 1 || i.Parked != 0 || i.MaxBuffered <= i.Buffered {
			t.Errorf("%+v", i)
		}
		if err := s.DisconnectUser(ctx, "ann", 4777, "out"); err != nil {
			t.Fatal(err)
		}
		for _, m := range []*member{ann, ann2} {
			m.AnswerClose(4777)
		}
		bob.hearsNothing()
		rawtest.Eventually(t, "ann is gone", func() bool {
			_, err := s.UserClients(ctx, "ann")
			return errors.Is(err, hubbub.ErrUnknownUser)
		})
	})
}

// A client's address is what a trusted proxy says of it.
func TestAClientsAddressBehindAProxy(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{TrustedProxies: []string{"127.0.0.1"}})
	for header, want := range map[string]string{"X-Forwarded-For: 2001:db8::7": "2001:db8::7", "X-Other: 1": "127.0.0.1"} {
		id := rawtest.Dial(t, s, "/ws", header).NextJSON()["client_id"].(string)
		if c, err := s.Client(t.Context(), id); err != nil || c.Address != want {
			t.Errorf("%s: %q, %v", header, c.Address, err)
		}
	}
}

// Who has lost its connection is put into a room, and hears so when it is back, though it names no room and nobody may
// join; what it missed there it doesn't get, as at a join.
func TestWhoIsAwayIsPutIntoARoom(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{ResumeWindow: time.Minute, Hooks: hubbub.Hooks{Join: nobodyJoins}})
	a := rawtest.Dial(t, s, "/ws")
	welcome := a.NextJSON()
	a.Reset()
	id := welcome["client_id"].(string)
	rawtest.Eventually(t, "it is parked", func() bool {
		c, err := s.Client(t.Context(), id)
		return err == nil && c.Parked
	})
	if err := s.Join(t.Context(), "r", id); err != nil {
		t.Fatal(err)
	}
	if err := rawtest.Publish(s, "r", 1); err != nil {
		t.Fatal(err)
	}
	back := rawtest.Dial(t, s, "/ws?resume="+welcome["resume_token"].(string))
	if got := back.NextJSON(); got["resumed"] != true {
		t.Fatal(got)
	}
	back.Text(`{"msg_type":"resume","rooms":{},"id":1}`)
	for _, want := range []string{"resumed", "joined"} {
		if got := back.NextJSON(); got["msg_type"] != want {
			t.Fatal(got)
		}
	}
	rawtest.Publish(s, "r", 2)
	if got := back.NextJSON(); got["content"] != 2.0 {
		t.Error(got)
	}
}

// What was taken back is in no page, and those who are there hear of it.
func TestMessagesAreTakenBack(t *testing.T) {
	eachServerWith(t, hubbub.Config{}, func(t *testing.T, s *rawtest.Server) {
		ctx := t.Context()
		a := enter(t, s)
		a.join("r")
		var at [3]hubbub.Position
		for i := range at {
			var err error
			if at[i], err = s.Publish(ctx, hubbub.Publication{Room: "r", Content: i}); err != nil {
				t.Fatal(err)
			}
			a.gets(map[string]any{"msg_type": "room_message", "room": "r", "from": "server", "content": float64(i)})
		}
		if err := s.DeleteMessage(ctx, "r", at[1]); err != nil {
			t.Fatal(err)
		}
		if got := a.NextJSON(); got["msg_type"] != "deleted" || got["room"] != "r" || got["offset"] != 2.0 {
			t.Fatal(got)
		}
		page, err := s.History(ctx, "r", hubbub.HistoryQuery{})
		if err != nil || len(page.Messages) != 2 || page.Messages[1].Offset != 3 {
			t.Errorf("%+v, %v", page, err)
		}
		if err := s.DeleteHistory(ctx, "r"); err != nil {
			t.Fatal(err)
		}
		a.gets(map[string]any{"msg_type": "deleted", "room": "r", "to_offset": 3.0})
		if page, err := s.History(ctx, "r", hubbub.HistoryQuery{}); err != nil || len(page.Messages) != 0 || page.Position != at[2] {
			t.Errorf("%+v, %v", page, err)
		}
		b := enter(t, s)
		for i, want := range map[int]any{1: "expired", 2: nil} {
			if got := b.raw(`{"msg_type":"join_room","room":"r","since":%s,"id":1}`, rawAt(at[i])); got["reason"] != want {
				t.Error(got)
			}
			if want == nil { // it may have been here before
				b.gets(map[string]any{"msg_type": "deleted", "room": "r", "to_offset": 3.0})
			}
			b.raw(`{"msg_type":"leave_room","room":"r","id":1}`)
		}
	})
}

func rawAt(p hubbub.Position) string { return at(p.Epoch, int(p.Offset)) }

// A tail hears what passes, with what was said where that is asked for.
func TestATail(t *testing.T) {
	eachServerWith(t, hubbub.Config{Hooks: hubbub.Hooks{Connect: asUser}}, func(t *testing.T, s *rawtest.Server) {
		tail, err := s.Tail(hubbub.TailOf{Room: "r", Content: true})
		if err != nil {
			t.Fatal(err)
		}
		defer tail.Close()
		ann := enterAs(t, s, "ann")
		ann.join("r")
		ann.raw(`{"msg_type":"room_message","room":"r","content":{"a":1},"key":"k","id":1}`)
		var heard []hubbub.TailItem
		for len(heard) < 2 {
			items, lost, err := tail.Next(t.Context())
			if err != nil || lost != 0 {
				t.Fatal(lost, err)
			}
			heard = append(heard, items...)
		}
		if i := heard[0]; i.Kind != "joined" || i.Client != ann.id || i.User != "ann" || i.Room != "r" {
			t.Errorf("%+v", i)
		}
		if i := heard[1]; i.Kind != "room_message" || i.From != ann.id || string(i.Content) != `{"a":1}` || i.Key != "k" || i.Size != 7 || i.Position.Offset != 1 || i.Position.Epoch == "" || i.To != "" {
			t.Errorf("%+v", i)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := tail.Next(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		tail.Close()
		if _, _, err := tail.Next(t.Context()); !errors.Is(err, hubbub.ErrTailClosed) {
			t.Error(err)
		}
	})
}

// What can't be done says so by an error that a program can tell from others, and names what is wrong.
func TestWhatIsRefusedNamesWhatIsWrong(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{MaxRoomsPerClient: 1, Rooms: []hubbub.RoomPolicy{{Match: "plain", History: &hubbub.History{}}}})
	a := enter(t, s)
	a.join("r")
	ctx := t.Context()
	ended, cancel := context.WithCancel(ctx)
	cancel()
	var tails []*hubbub.Tail
	for i := range 64 {
		tail, err := s.Tail(hubbub.TailOf{Room: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		tails = append(tails, tail)
	}
	tailOf := func(of hubbub.TailOf) error { _, err := s.Tail(of); return err }
	client := func(ctx context.Context, id string) error { _, err := s.Client(ctx, id); return err }
	for what, c := range map[string]struct {
		err  error
		is   error
		says string
	}{
		"join an unknown client":         {s.Join(ctx, "r", noID), hubbub.ErrUnknownClient, noID},
		"join what is no id":             {s.Join(ctx, "r", "x"), hubbub.ErrUnknownClient, "'x'"},
		"join to a bad room":             {s.Join(ctx, "\n", a.id), nil, "U+000A"},
		"join one too many":              {s.Join(ctx, "r2", a.id), hubbub.ErrLimitReached, "r2"},
		"join too late":                  {s.Join(ended, "r2", a.id), context.Canceled, "r2"},
		"an unknown room":                {errOf(s.Room(ctx, "nowhere")), hubbub.ErrUnknownRoom, "nowhere"},
		"a bad room":                     {errOf(s.Room(ctx, "")), nil, "empty"},
		"an unknown client":              {client(ctx, noID), hubbub.ErrUnknownClient, noID},
		"a client too late":              {client(ended, a.id), context.Canceled, a.id},
		"an unknown user":                {errOf(s.UserClients(ctx, "x")), hubbub.ErrUnknownUser, "'x'"},
		"a user too late":                {errOf(s.UserClients(ended, "x")), context.Canceled, "'x'"},
		"disconnect an unknown user":     {s.DisconnectUser(ctx, "x", 0, ""), hubbub.ErrUnknownUser, "'x'"},
		"disconnect a user with 1000":    {s.DisconnectUser(ctx, "x", 1000, ""), nil, "1000"},
		"disconnect a user with a novel": {s.DisconnectUser(ctx, "x", 0, strings.Repeat("x", 124)), nil, "123"},
		"delete what isn't there":        {s.DeleteMessage(ctx, "r", hubbub.Position{Offset: 7}), hubbub.ErrNoPosition, "7"},
		"delete in no history":           {s.DeleteMessage(ctx, "plain", hubbub.Position{Offset: 7}), hubbub.ErrNoHistory, "plain"},
		"delete no history":              {s.DeleteHistory(ctx, "plain"), hubbub.ErrNoHistory, "plain"},
		"delete in a bad room":           {s.DeleteHistory(ctx, "\x7f"), nil, "U+007F"},
		"delete too late":                {s.DeleteHistory(ended, "r"), context.Canceled, "r"},
		"too many tails":                 {tailOf(hubbub.TailOf{Room: "r"}), hubbub.ErrTooManyTails, "tail"},
		"a tail of nothing":              {tailOf(hubbub.TailOf{}), nil, "a room"},
		"a tail of two":                  {tailOf(hubbub.TailOf{Room: "r", User: "x"}), nil, "a room"},
		"a tail of no id":                {tailOf(hubbub.TailOf{Client: "x"}), nil, "'x'"},
		"a tail of a bad room":           {tailOf(hubbub.TailOf{Room: "\n"}), nil, "U+000A"},
		"a tail of a bad user":           {tailOf(hubbub.TailOf{User: "\n"}), nil, "U+000A"},
		"from a control":                 {errOf(s.Publish(ctx, hubbub.Publication{Room: "r", From: "a\tb"})), nil, "From"},
		"users beyond the limit":         {errOf2(s.Users(ctx, hubbub.UserQuery{Limit: 1001})), nil, "1001"},
	} {
		if c.err == nil || c.is != nil && !errors.Is(c.err, c.is) || !strings.Contains(c.err.Error(), c.says) || !strings.HasPrefix(c.err.Error(), "hubbub: ") {
			t.Errorf("%s: %v, want one that is %v and says %q", what, c.err, c.is, c.says)
		}
	}
	for _, tail := range tails {
		tail.Close()
	}
}

func errOf[T any](_ T, err error) error          { return err }
func errOf2[T any](_ T, _ bool, err error) error { return err }
