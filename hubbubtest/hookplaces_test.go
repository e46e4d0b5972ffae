package hubbubtest_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
)

// Slow hooks of one client take a share of the places, and the others' hooks go on.
func TestOneClientsHooksDontHoldTheOthersUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Int32
		srv := hubbubtest.NewServer(t, hubbub.Config{
			HookTimeout: time.Minute, MaxHookCalls: 64, Logger: slog.New(slog.DiscardHandler),
			Handlers: map[string]hubbub.Handler{"quick": func(context.Context, *hubbub.Message) (any, error) { return 1, nil }},
			Hooks: hubbub.Hooks{Joined: func(_ context.Context, j *hubbub.Joined) {
				if j.Room[0] == 's' {
					slow.Add(1)
					time.Sleep(30 * time.Second)
				}
			}},
		})
		greedy, other := srv.Connect("greedy"), srv.Connect("other")
		for i := range 300 {
			greedy.Join(fmt.Sprint("slow", i))
		}
		began := time.Now()
		if got := other.Request(map[string]any{"msg_type": "quick"}); got.Type != "quick" || time.Since(began) > 0 {
			t.Errorf("after %s: %s", time.Since(began), got)
		}
		if n := slow.Load(); n == 0 || n > 16 {
			t.Errorf("%d of 64 places are one client's", n)
		}
		hubbubtest.Step(time.Hour)
		if n := slow.Load(); n != 300 {
			t.Errorf("%d of 300 hooks were called", n)
		}
	})
}

// A hook that waits for its client's place gets it when that is free, though the calls behind those that ended are
// others'.
func TestAPlaceThatIsFreeIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := map[string]chan struct{}{"ann": make(chan struct{}), "bob": make(chan struct{})}
		var names sync.Map // by id
		var last atomic.Bool
		srv := hubbubtest.NewServer(t, hubbub.Config{
			HookTimeout: time.Hour, MaxHookCalls: 64, Logger: slog.New(slog.DiscardHandler),
			Hooks: hubbub.Hooks{Joined: func(_ context.Context, j *hubbub.Joined) {
				if j.Room == "last" {
					last.Store(true)
					return
				}
				name, _ := names.Load(j.Client)
				<-slow[name.(string)]
			}},
		})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		names.Store(ann.ID, "ann")
		names.Store(bob.ID, "bob")
		for _, c := range []*hubbubtest.Client{ann, bob} {
			for i := range 4 { // as many as may run for one
				c.Join(fmt.Sprint("r", i))
			}
		}
		ann.Join("last")
		hubbubtest.Step(time.Second)
		if last.Load() {
			t.Error("more of one client's hooks run than may")
		}
		close(slow["ann"])
		hubbubtest.Step(time.Second)
		if !last.Load() {
			t.Error("4 of 64 places are taken, and a hook waits")
		}
		close(slow["bob"])
	})
}

// A user who comes and goes has slow hooks Disconnect: they take its share of the places, and count as what waits.
func TestTheHooksOfThoseWhoHaveGoneAreTheirUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int32
		open := make(chan struct{})
		defer close(open)
		srv := hubbubtest.NewServer(t, hubbub.Config{
			HookTimeout: time.Hour, MaxHookCalls: 64, Logger: slog.New(slog.DiscardHandler),
			Handlers: map[string]hubbub.Handler{"quick": func(context.Context, *hubbub.Message) (any, error) { return 1, nil }},
			Hooks: hubbub.Hooks{
				Connect: func(_ context.Context, c *hubbub.Connect) error {
					c.User = c.Request.URL.Query().Get("user")
					return nil
				},
				Disconnect: func(_ context.Context, d *hubbub.Disconnect) {
					if d.User == "greedy" {
						running.Add(1)
						<-open
					}
				},
			},
		})
		other, err := srv.ConnectWith("other", hubbubtest.Options{Path: "/ws?user=other"})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			c, err := srv.ConnectWith("greedy", hubbubtest.Options{Path: "/ws?user=greedy"})
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			hubbubtest.Step(0)
		}
		if n := running.Load(); n < 1 || n > 4 {
			t.Errorf("%d of 64 places are one user's", n)
		}
		if got := other.Request(map[string]any{"msg_type": "quick"}); got.Type != "quick" {
			t.Errorf("got %s", got)
		}
		if n := metric(t, srv, `hubbub_kept_bytes{kind="hooks"}`); n < 100*100 {
			t.Errorf("%v bytes are counted of 100 hooks", n)
		}
	})
}

// Where the server bounds what one address may take, that is so of the places of hooks too, however many clients it
// has.
func TestTheHooksOfOneAddressTakeAShareOfThePlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, called atomic.Int32
		open := make(chan struct{})
		srv := hubbubtest.NewServer(t, hubbub.Config{
			HookTimeout: time.Hour, MaxHookCalls: 64, MaxConnectionsPerIP: 100, Logger: slog.New(slog.DiscardHandler),
			Handlers: map[string]hubbub.Handler{"quick": func(context.Context, *hubbub.Message) (any, error) { return 1, nil }},
			Hooks: hubbub.Hooks{Joined: func(context.Context, *hubbub.Joined) {
				called.Add(1)
				defer running.Add(-1)
				running.Add(1)
				<-open
			}},
		})
		for i := range 40 {
			c, err := srv.ConnectWith("greedy", hubbubtest.Options{IP: "192.0.2.1"})
			if err != nil {
				t.Fatal(err)
			}
			for n := range 3 {
				c.Join(fmt.Sprint(i, ".", n))
			}
		}
		if n := running.Load(); n < 4 || n > 16 {
			t.Errorf("%d of 64 places are one address's", n)
		}
		other, err := srv.ConnectWith("other", hubbubtest.Options{IP: "192.0.2.2"})
		if err != nil {
			t.Fatal(err)
		}
		if got := other.Request(map[string]any{"msg_type": "quick"}); got.Type != "quick" {
			t.Errorf("got %s", got)
		}
		close(open)
		hubbubtest.Step(time.Second)
		if n := called.Load(); n != 40*3 {
			t.Errorf("%d of %d hooks were called", n, 40*3)
		}
	})
}

// Calls of the application's code that wait because of one user are a share of what the server keeps, however many
// connections it has: then its joins are refused, and nobody else's.
func TestTheCallsThatWaitForOneUserAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		defer close(open)
		srv := hubbubtest.NewServer(t, hubbub.Config{
			HookTimeout: time.Hour, MaxBufferedBytes: 4 << 20, Logger: slog.New(slog.DiscardHandler),
			Hooks: hubbub.Hooks{
				Connect: func(_ context.Context, c *hubbub.Connect) error {
					c.User = c.Request.URL.Query().Get("user")
					return nil
				},
				Joined: func(_ context.Context, j *hubbub.Joined) {
					if j.User == "greedy" {
						<-open
					}
				},
			},
		})
		refused := 0
		for i := range 40 {
			c, err := srv.ConnectWith("greedy", hubbubtest.Options{Path: "/ws?user=greedy"})
			if err != nil {
				t.Fatal(err)
			}
			for n := range 15 * 20 { // of which few count as memberships
				room := fmt.Sprint(i, ".", n)
				if got := c.Request(map[string]any{"msg_type": "join_room", "room": room}); got.Type == "error" {
					if got.Code != "rate_limited" || !got.Retry {
						t.Fatalf("refused by %s", got)
					}
					refused++
					break
				}
				c.Leave(room)
			}
		}
		if refused == 0 {
			t.Error("nothing was refused")
		}
		if n := metric(t, srv, `hubbub_kept_bytes{kind="hooks"}`); n > 4<<20/7 || n < 10_000 {
			t.Errorf("%v bytes are kept", n)
		}
		other, err := srv.ConnectWith("other", hubbubtest.Options{Path: "/ws?user=other"})
		if err != nil {
			t.Fatal(err)
		}
		other.Join("r")
	})
}

// Hooks of one client that shut the server down wait for those of its own that wait for their places.
func TestHooksThatShutDownLeaveTheirPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var srv *hubbubtest.Server
		var idle sync.Map // by id
		var told, early atomic.Int32
		srv = hubbubtest.NewServer(t, hubbub.Config{
			HookTimeout: time.Hour, MaxHookCalls: 64, ShutdownDelay: time.Second, Logger: slog.New(slog.DiscardHandler),
			Handlers: map[string]hubbub.Handler{"stop": func(ctx context.Context, _ *hubbub.Message) (any, error) {
				if err := srv.Shutdown(context.WithoutCancel(ctx)); err != nil {
					t.Error(err)
				}
				if told.Load() != 2 {
					early.Add(1)
				}
				return nil, nil
			}},
			Hooks: hubbub.Hooks{
				Connect: func(_ context.Context, c *hubbub.Connect) error { c.User = "ann"; return nil },
				Disconnect: func(_ context.Context, d *hubbub.Disconnect) {
					if _, is := idle.Load(d.Client); is {
						time.Sleep(time.Second)
						told.Add(1)
					}
				},
			},
		})
		for range 2 {
			idle.Store(srv.Connect("idle").ID, true)
		}
		var stopping []*hubbubtest.Client
		for range 4 { // as many as may run for one
			stopping = append(stopping, srv.Connect("stopping"))
		}
		for _, c := range stopping {
			c.Send(map[string]any{"msg_type": "stop"})
		}
		hubbubtest.Step(time.Minute)
		if n := early.Load(); n != 0 || told.Load() != 2 {
			t.Errorf("%d of 4 have not waited, %d of 2 ends were told", n, told.Load())
		}
	})
}

// metric is the value of a line of /metrics, which begins with its name and labels.
func metric(t *testing.T, srv *hubbubtest.Server, line string) (value float64) {
	res, err := srv.HTTPClient().Get("http://any.host/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(body), "\n"+line+" ")
	if !ok {
		t.Fatalf("no line %s", line)
	}
	fmt.Sscan(rest, &value)
	return value
}
