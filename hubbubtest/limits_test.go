package hubbubtest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
)

// What one client, one user and one address may do in a time, and what becomes of those who do more.

// perSecond is a rate with a burst as large.
func perSecond(n int) hubbub.Rate { return hubbub.Rate{N: n} }

// byHeader has a Connect hook give each client the name that its handshake's header says.
func byHeader(cfg hubbub.Config) hubbub.Config {
	cfg.Hooks.Connect = func(_ context.Context, c *hubbub.Connect) error {
		c.User = c.Request.Header.Get("X-User")
		return nil
	}
	return cfg
}

func as(user string) hubbubtest.Options {
	return hubbubtest.Options{Header: http.Header{"X-User": {user}}}
}

// comeIn connects, and must be let in.
func comeIn(t *testing.T, srv *hubbubtest.Server, name string, o hubbubtest.Options) *hubbubtest.Client {
	t.Helper()
	c, err := srv.ConnectWith(name, o)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return c
}

// tooMany fails the test unless that is what err says, with a Retry-After.
func tooMany(t *testing.T, err error) {
	t.Helper()
	no := new(hubbubtest.RefusedError)
	if !errors.As(err, &no) || no.Status != http.StatusTooManyRequests {
		t.Fatalf("want 429, got %v", err)
	}
	if after, err := strconv.Atoi(no.Header.Get("Retry-After")); err != nil || after < 1 {
		t.Errorf("Retry-After is %q", no.Header.Get("Retry-After"))
	}
}

// publish asks for one message, with an id.
func publish(c *hubbubtest.Client, content any) hubbubtest.Message {
	return c.Request(map[string]any{"msg_type": "room_message", "room": "r", "content": content})
}

// What is beyond isn't published, and the client is told when it would be.
func TestAClientIsToldWhenItMaySendAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{Workers: 2, Limits: hubbub.Limits{Client: hubbub.ClientLimits{Messages: hubbub.Rate{N: 10, Burst: 20}}}})
		bob := srv.Connect("bob")
		bob.Join("r")
		ann := srv.Connect("ann")
		for i := range 20 {
			if a := publish(ann, i); a.Type != "ack" {
				t.Fatalf("message %d: %s", i, a)
			}
			bob.ExpectMessage("r", i)
		}
		no := publish(ann, "too much")
		if no.Code != "rate_limited" || !no.Retry || no.RetryAfterMS < 1 || no.RetryAfterMS > 100 || !strings.Contains(no.Text, "limits.client.messages") {
			t.Errorf("the 21st: %s", no)
		}
		bob.ExpectNothing(0)
		hubbubtest.Step(time.Duration(no.RetryAfterMS) * time.Millisecond)
		if a := publish(ann, "now"); a.Type != "ack" {
			t.Errorf("after retry_after_ms: %s", a)
		}
		bob.ExpectMessage("r", "now")
		if n := figure(t, srv, `hubbub_limited_total{by="client",limit="messages"}`); n != 1 {
			t.Errorf("%v are counted", n)
		}
		srv.Check()
	})
}

// Whatever a client sends is a message: what is none, and a ping, too.
func TestPingsAndMistakesAreMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{Workers: 1, Limits: hubbub.Limits{Client: hubbub.ClientLimits{Messages: hubbub.Rate{N: 1, Burst: 4}}}})
		ann := srv.Connect("ann")
		ann.Ping()
		ann.SendText("{")
		ann.ExpectError("bad_json")
		ann.SendText(`{"msg_type":"nonsense"}`)
		ann.ExpectError("unknown_type")
		ann.SendFrame(2, true, []byte("x"))
		ann.ExpectError("binary")
		for _, text := range []string{"{", `{"msg_type":"ping"}`, `{"msg_type":"nonsense","id":1}`} {
			ann.SendText(text)
			ann.ExpectError("rate_limited")
		}
	})
}

func TestBytesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{Workers: 1, Limits: hubbub.Limits{Client: hubbub.ClientLimits{Bytes: perSecond(1000)}}}) // 64 KiB at once
		ann := srv.Connect("ann")
		if a := publish(ann, strings.Repeat("x", 60_000)); a.Type != "ack" {
			t.Fatal(a)
		}
		no := publish(ann, strings.Repeat("x", 60_000))
		if no.Code != "rate_limited" || no.RetryAfterMS < 50_000 || no.RetryAfterMS > 60_000 || !strings.Contains(no.Text, "limits.client.bytes") {
			t.Errorf("60,000 bytes more: %s", no)
		}
		if a := publish(ann, "x"); a.Type != "ack" {
			t.Errorf("a small one, for which there is enough: %s", a)
		}
	})
}

// A room in which the client is already isn't joined again, and what a hook refuses was asked for all the same.
func TestJoinsAreLimitedBeforeTheHookIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		srv := hubbubtest.NewServer(t, hubbub.Config{
			Workers: 1, Limits: hubbub.Limits{Client: hubbub.ClientLimits{Joins: hubbub.Rate{N: 1, Burst: 3}}},
			Hooks: hubbub.Hooks{Join: func(_ context.Context, j *hubbub.Join) error {
				asked.Add(1)
				if j.Room == "secret" {
					return &hubbub.Error{Code: hubbub.Forbidden, Message: "no"}
				}
				return nil
			}},
		})
		ann := srv.Connect("ann")
		join := func(room string) string {
			return ann.Request(map[string]any{"msg_type": "join_room", "room": room}).Code
		}
		for room, want := range map[string]string{"a": "", "b": "", "secret": "forbidden"} {
			if got := join(room); got != want {
				t.Errorf("join %s: %q, want %q", room, got, want)
			}
		}
		for range 5 {
			if got := join("a"); got != "" {
				t.Errorf("joining once more: %q", got)
			}
		}
		if got := join("c"); got != "rate_limited" {
			t.Errorf("the fourth room: %q", got)
		}
		if n := asked.Load(); n != 3 {
			t.Errorf("the application was asked %d times, want 3", n)
		}
		hubbubtest.Step(time.Second)
		if got := join("c"); got != "" {
			t.Errorf("a second later: %q", got)
		}
	})
}

// A resumed session's rooms are free. One that comes too late joins anew: as many as it may, and is told of each other
// room that it may try again.
func TestAResumeJoinsWhatItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{Workers: 2, Limits: hubbub.Limits{Client: hubbub.ClientLimits{Joins: hubbub.Rate{N: 1, Burst: 3}}}})
		ann := srv.Connect("ann")
		for i := range 5 {
			hubbubtest.Step(time.Second)
			ann.Join(fmt.Sprint("room ", i))
		}
		ann.Drop()
		ann = ann.Reconnect()
		for i := range 5 {
			if r := ann.Resumed.Rooms[fmt.Sprint("room ", i)]; !r.Recovered {
				t.Errorf("room %d of the session: %s", i, ann.Resumed)
			}
		}
		ann.Drop()
		hubbubtest.Step(time.Minute)
		ann = ann.Reconnect()
		in, later := 0, 0
		for _, r := range ann.Resumed.Rooms {
			switch {
			case r.Reason == "rate_limited" && r.Retry:
				later++
			default:
				in++
			}
		}
		if in != 3 || later != 2 {
			t.Errorf("%d rooms are joined and %d may be later: %s", in, later, ann.Resumed)
		}
		srv.Check()
	})
}

// With the default burst, what a client may be in it may also be in at once: a restart of the server costs nobody a
// room.
func TestARestartPunishesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := hubbub.Limits{
			Client: hubbub.ClientLimits{Messages: perSecond(10), Joins: perSecond(1)}, Address: hubbub.AddressLimits{Joins: perSecond(1)},
		}
		srv := hubbubtest.NewServer(t, hubbub.Config{Workers: 2, Limits: all, MaxRoomsPerClient: 300})
		ann := srv.Connect("ann")
		rooms := map[string]any{}
		for i := range 300 {
			rooms[fmt.Sprint("room ", i)] = nil
		}
		a := ann.Request(map[string]any{"msg_type": "resume", "rooms": rooms})
		for name, r := range a.Rooms {
			if r.Retry {
				t.Errorf("%s: %s", name, a)
			}
		}
	})
}

// Messages that wait for a hook have been counted when they came, and the hook isn't asked for those beyond.
func TestMessagesAreLimitedBeforeTheHookIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		srv := hubbubtest.NewServer(t, hubbub.Config{
			Workers: 1, Limits: hubbub.Limits{Client: hubbub.ClientLimits{Messages: perSecond(5)}},
			Hooks: hubbub.Hooks{Publish: func(context.Context, *hubbub.Publish) error {
				asked.Add(1)
				time.Sleep(100 * time.Millisecond)
				return nil
			}},
		})
		ann := srv.Connect("ann")
		for i := range 8 {
			ann.Send(map[string]any{"msg_type": "room_message", "room": "r", "content": i})
		}
		for range 3 {
			ann.ExpectError("rate_limited")
		}
		hubbubtest.Step(time.Second)
		if n := asked.Load(); n != 5 {
			t.Errorf("the application was asked %d times, want 5", n)
		}
	})
}

// Who goes on at ten times its limit is closed, and its session with it; those beside it, of the same user and the same
// address, hear nothing of that.
func TestWhoGoesOnIsClosedAndNobodyBesideIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, byHeader(hubbub.Config{Workers: 2, Limits: hubbub.Limits{
			Client: hubbub.ClientLimits{Messages: perSecond(10)}, User: hubbub.UserLimits{Messages: perSecond(40)}, Address: hubbub.AddressLimits{Messages: perSecond(60)},
		}}))
		abuser, often := comeIn(t, srv, "abuser", as("ann")), comeIn(t, srv, "often", as("ann"))
		friend, neighbour := comeIn(t, srv, "friend", as("ann")), comeIn(t, srv, "neighbour", as("bob"))
		began := time.Now()
		for i := 0; time.Since(began) < 20*time.Second && !abuser.Closed(); i++ {
			abuser.Send(map[string]any{"msg_type": "ping"})
			if i%2 == 0 {
				often.Send(map[string]any{"msg_type": "ping"}) // five times what it may
			}
			if i%20 == 0 {
				friend.Ping()
				neighbour.Ping()
			}
			hubbubtest.Step(10 * time.Millisecond)
		}
		if took := time.Since(began); took < 10*time.Second || took > 12*time.Second {
			t.Errorf("closed after %s", took)
		}
		abuser.ExpectClosed(1008)
		hubbubtest.Step(20 * time.Second)
		often.Ping()
		friend.Ping()
		if n := figure(t, srv, "hubbub_parked_sessions"); n != 0 {
			t.Errorf("%v sessions are parked", n)
		}
		if n := strings.Count(srv.Log(), "goes on at ten times"); n != 1 {
			t.Errorf("the log tells of it %d times", n)
		}
		if n := figure(t, srv, `hubbub_limited_total{by="user",limit="messages"}`); n != 0 {
			t.Errorf("%v messages were refused because of the user: what a client's own limit refuses must take nothing from it", n)
		}
	})
}

// Resumes are no way around the limit on joins: who goes on with them is closed as well, and is in no room then.
func TestWhoGoesOnWithResumesIsClosed(t *testing.T) {
	for name, join := range map[string]func(context.Context, *hubbub.Join) error{
		"no hook": nil, "a hook": func(context.Context, *hubbub.Join) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := hubbubtest.NewServer(t, hubbub.Config{Workers: 1, Hooks: hubbub.Hooks{Join: join}, Limits: hubbub.Limits{Client: hubbub.ClientLimits{Joins: hubbub.Rate{N: 1, Burst: 1}}}})
				ann := srv.Connect("ann")
				rooms := map[string]any{}
				for i := range 30 {
					rooms[fmt.Sprint("room ", i)] = nil
				}
				began := time.Now()
				for time.Since(began) < 20*time.Second && !ann.Closed() {
					ann.Send(map[string]any{"msg_type": "resume", "id": 1, "rooms": rooms})
					hubbubtest.Step(50 * time.Millisecond)
				}
				if took := time.Since(began); took < 10*time.Second || took > 12*time.Second {
					t.Errorf("closed after %s", took)
				}
				ann.ExpectClosed(1008)
				hubbubtest.Step(time.Second)
				if n := figure(t, srv, "hubbub_rooms"); n != 0 {
					t.Errorf("there are %v rooms still", n)
				}
			})
		})
	}
}

// However many clients on however many workers a user has, together they get what the user may.
func TestAUsersClientsShareItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, byHeader(hubbub.Config{Workers: 4, Limits: hubbub.Limits{User: hubbub.UserLimits{Messages: hubbub.Rate{N: 600, Per: time.Minute, Burst: 30}}}}))
		other := comeIn(t, srv, "other", as("bob"))
		nobody := srv.Connect("nobody")
		heard := srv.Connect("heard")
		heard.Join("r")
		var all []*hubbubtest.Client
		for i := range 8 {
			all = append(all, comeIn(t, srv, fmt.Sprint("ann ", i), as("ann")))
		}
		for range 50 { // 5 s
			for _, c := range all {
				c.Send(map[string]any{"msg_type": "room_message", "room": "r", "content": "x"})
			}
			other.Ping()
			nobody.Ping()
			hubbubtest.Step(100 * time.Millisecond)
		}
		got := heard.Request(map[string]any{"msg_type": "history", "room": "r", "limit": 1}).Offset
		if got < 30+49 || got > 30+51 {
			t.Errorf("%d messages of the user came through in 5 s, want the burst of 30 and 10 a second", got)
		}
	})
}

// Connects of one address: of IPv6 a /64 is one.
func TestConnectsOfAnAddressAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{Workers: 2, Limits: hubbub.Limits{Address: hubbub.AddressLimits{Connects: hubbub.Rate{N: 1, Burst: 2}}}})
		for i := range 2 {
			comeIn(t, srv, fmt.Sprint("c", i), hubbubtest.Options{IP: fmt.Sprintf("2001:db8::%d", i)})
		}
		_, err := srv.ConnectWith("late", hubbubtest.Options{IP: "2001:db8::77"})
		tooMany(t, err)
		comeIn(t, srv, "elsewhere", hubbubtest.Options{IP: "2001:db8:0:1::1"})
		comeIn(t, srv, "v4", hubbubtest.Options{})
		if n := figure(t, srv, `hubbub_upgrades_total{result="rate_limited"}`); n != 1 {
			t.Errorf("%v upgrades are counted", n)
		}
		hubbubtest.Step(time.Second)
		comeIn(t, srv, "patient", hubbubtest.Options{IP: "2001:db8::77"})
	})
}

// A user is known when the application has named it. Whom a limit refuses then was let in by the application, and is
// gone for it.
func TestConnectsOfAUserAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var in, gone atomic.Int32
		cfg := byHeader(hubbub.Config{Workers: 2, Limits: hubbub.Limits{User: hubbub.UserLimits{Connects: hubbub.Rate{N: 60, Per: time.Minute, Burst: 3}}}})
		name := cfg.Hooks.Connect
		cfg.Hooks.Connect = func(ctx context.Context, c *hubbub.Connect) error { in.Add(1); return name(ctx, c) }
		cfg.Hooks.Disconnect = func(context.Context, *hubbub.Disconnect) { gone.Add(1) }
		srv := hubbubtest.NewServer(t, cfg)
		for range 3 {
			comeIn(t, srv, "ann", as("ann")).Close()
		}
		_, err := srv.ConnectWith("ann", as("ann"))
		tooMany(t, err)
		comeIn(t, srv, "bob", as("bob")).Close()
		srv.Connect("nobody").Close()
		hubbubtest.Step(time.Second)
		comeIn(t, srv, "ann", as("ann")).Close()
		hubbubtest.Step(time.Minute)
		if in.Load() != 7 || gone.Load() != 7 {
			t.Errorf("%d were let in, and %d are gone", in.Load(), gone.Load())
		}
	})
}

// Where a token says who the user is, the application isn't asked about those who connect too often, and rooms that the
// token names are no joins.
func TestATokensUserIsLimitedBeforeTheApplicationIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		srv := hubbubtest.NewServer(t, hubbub.Config{
			Workers: 1,
			Limits: hubbub.Limits{
				Client: hubbub.ClientLimits{Joins: hubbub.Rate{N: 1, Burst: 1}}, User: hubbub.UserLimits{Connects: hubbub.Rate{N: 1, Burst: 2}},
			},
			Authenticate: func(_ context.Context, c *hubbub.Credentials) (*hubbub.Identity, error) {
				return &hubbub.Identity{User: c.Request.Header.Get("X-User"), Rooms: []string{"a", "b", "c"}}, nil
			},
			Hooks: hubbub.Hooks{Connect: func(context.Context, *hubbub.Connect) error { asked.Add(1); return nil }},
		})
		ann := comeIn(t, srv, "ann", as("ann"))
		comeIn(t, srv, "ann", as("ann"))
		_, err := srv.ConnectWith("ann", as("ann"))
		tooMany(t, err)
		if n := asked.Load(); n != 2 {
			t.Errorf("the application was asked %d times, want 2", n)
		}
		if a := ann.Request(map[string]any{"msg_type": "join_room", "room": "d"}); a.Type != "joined" {
			t.Errorf("the first room that it joins itself: %s", a)
		}
	})
}

// A connection that takes another's place isn't one more; a lost one counts no more, but the one that brings its
// session back does.
func TestAUserHasSoManyConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, byHeader(hubbub.Config{Workers: 2, Limits: hubbub.Limits{User: hubbub.UserLimits{Connections: 2}}}))
		first, second := comeIn(t, srv, "first", as("ann")), comeIn(t, srv, "second", as("ann"))
		_, err := srv.ConnectWith("third", as("ann"))
		tooMany(t, err)
		if n := figure(t, srv, `hubbub_limited_total{by="user",limit="connections"}`); n != 1 {
			t.Errorf("%v are counted", n)
		}
		comeIn(t, srv, "bob", as("bob"))

		first.Link.Stall(hubbubtest.Both) // its client is elsewhere now, and the server hasn't noticed
		again := comeIn(t, srv, "first", hubbubtest.Options{Header: as("ann").Header, Token: first.Welcome.ResumeToken})
		if !again.Welcome.Resumed || again.ID != first.ID {
			t.Errorf("its place was taken over: %s", again.Welcome)
		}

		second.Drop()
		hubbubtest.Step(time.Second)
		third := comeIn(t, srv, "third", as("ann"))
		_, err = srv.ConnectWith("second", hubbubtest.Options{Header: as("ann").Header, Token: second.Welcome.ResumeToken})
		tooMany(t, err)
		third.Close()
		hubbubtest.Step(time.Second)
		if back := comeIn(t, srv, "second", hubbubtest.Options{Header: as("ann").Header, Token: second.Welcome.ResumeToken}); !back.Welcome.Resumed {
			t.Errorf("the session that was refused is still there: %s", back.Welcome)
		}
	})
}

// Of many who come at once no more get in than may, though each was below the limit when it asked.
func TestManyAtOnceAreNoMoreThanMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := byHeader(hubbub.Config{Workers: 4, Limits: hubbub.Limits{User: hubbub.UserLimits{Connections: 3}}})
		srv := hubbubtest.NewServer(t, cfg)
		const many = 40
		in := make(chan *hubbubtest.Client, many)
		for range many {
			go func() {
				c, _ := srv.ConnectWith("ann", as("ann"))
				in <- c
			}()
		}
		n := 0
		for range many {
			if c := <-in; c != nil {
				n++
			}
		}
		hubbubtest.Step(time.Second)
		if open := figure(t, srv, "hubbub_connections"); n != 3 || open != 3 {
			t.Errorf("%d were welcomed, %v are connected, want 3", n, open)
		}
	})
}
