package hubbubtest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
)

// What Join says of each room of a resume, however it ends, is told with its reason; the session is in the rooms that it
// allows, and counted nowhere else.
func TestJoinDecidesOverEachRoomOfAResume(t *testing.T) {
	type answer struct {
		reason string
		retry  bool
	}
	in := answer{}
	for name, c := range map[string]struct {
		join func(ctx context.Context, room string) error
		want map[string]answer // of the rooms a, b and c
	}{
		"refuses": {func(_ context.Context, room string) error {
			if room == "b" {
				return &hubbub.Error{Code: hubbub.NotMember, Message: "not for you"}
			}
			return nil
		}, map[string]answer{"a": in, "b": {"forbidden", false}, "c": in}},
		"refuses for now": {func(_ context.Context, room string) error {
			if room == "b" {
				return &hubbub.Error{Code: hubbub.RateLimited, Message: "later"}
			}
			return nil
		}, map[string]answer{"a": in, "b": {"rate_limited", true}, "c": in}},
		"fails": {func(_ context.Context, room string) error {
			if room == "b" {
				return errors.New("no database")
			}
			return nil
		}, map[string]answer{"a": in, "b": {"internal", true}, "c": in}},
		"panics": {func(_ context.Context, room string) error {
			if room == "b" {
				panic("planted")
			}
			return nil
		}, map[string]answer{"a": in, "b": {"internal", true}, "c": in}},
		"ends its goroutine": {func(_ context.Context, room string) error {
			if room == "b" {
				runtime.Goexit()
			}
			return nil
		}, map[string]answer{"a": in, "b": {"internal", true}, "c": {"internal", true}}},
		"obeys the end of its time": {func(ctx context.Context, room string) error {
			if room == "b" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}, map[string]answer{"a": in, "b": {"timeout", true}, "c": in}},
		"hangs": {func(_ context.Context, room string) error {
			if room == "b" {
				time.Sleep(time.Minute)
			}
			return nil
		}, map[string]answer{"a": in, "b": {"timeout", true}, "c": {"timeout", true}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var returns atomic.Bool
				srv := hubbubtest.NewServer(t, hubbub.Config{
					HookTimeout: 5 * time.Second, ResumeWindow: time.Minute, Logger: slog.New(slog.DiscardHandler),
					Rooms: []hubbub.RoomPolicy{{Match: "*", Presence: "full"}},
					Hooks: hubbub.Hooks{Join: func(ctx context.Context, j *hubbub.Join) error {
						if !returns.Load() {
							return nil
						}
						return c.join(ctx, j.Room)
					}},
				})
				watcher, ann := srv.Connect("watcher"), srv.Connect("ann")
				for _, room := range []string{"a", "b", "c"} {
					watcher.Join(room)
					ann.Join(room)
				}
				hubbubtest.Step(time.Second) // all know of each other
				ann.Drop()
				hubbubtest.Step(0)
				returns.Store(true)
				back := ann.Reconnect()
				returns.Store(false)
				if back.ID != ann.ID || !back.Welcome.Resumed {
					t.Fatalf("not resumed: %s", back.Welcome)
				}
				for room, want := range c.want {
					got := back.Resumed.Rooms[room]
					if (answer{got.Reason, got.Retry}) != want || got.Recovered != (want == in) {
						t.Errorf("room %s: %+v, want %+v", room, got, want)
					}
				}
				hubbubtest.Step(2 * time.Minute) // also past the hook that hangs, and the window
				for room, want := range c.want {
					count := 1
					if want == in {
						count = 2
					}
					if got := watcher.Request(map[string]any{"msg_type": "presence", "room": room}); got.Count != count {
						t.Errorf("room %s: %s, want %d members", room, got, count)
					}
				}
				// It hears what is sent to it, and a room that it wasn't let into can be joined.
				watcher.Direct(back, "psst")
				back.ExpectDirect("psst")
				for room := range c.want {
					back.Join(room)
				}
				hubbubtest.Step(time.Second)
				back.Close()
				hubbubtest.Step(time.Second)
				if got := watcher.Request(map[string]any{"msg_type": "presence", "room": "b"}); got.Count != 1 {
					t.Errorf("after the good-bye: %s", got)
				}
			})
		})
	}
}

// Each room of a resume has the time of a hook for itself.
func TestEachRoomOfAResumeHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{
			HookTimeout: 500 * time.Millisecond,
			Hooks:       hubbub.Hooks{Join: func(context.Context, *hubbub.Join) error { time.Sleep(10 * time.Millisecond); return nil }},
		})
		ann := srv.Connect("ann")
		const rooms = 100
		for i := range rooms {
			ann.Join(fmt.Sprint(i))
		}
		ann.Drop()
		hubbubtest.Step(0)
		back := ann.Reconnect()
		for i := range rooms {
			if got := back.Resumed.Rooms[fmt.Sprint(i)]; !got.Recovered {
				t.Fatalf("room %d: %+v", i, got)
			}
		}
		srv.Check()
	})
}

// A session that is lost at any point of its way home is counted once, and ends once.
func TestAWayHomeThatIsCutOff(t *testing.T) {
	for _, named := range []string{"none", "some", "all"} {
		for _, code := range []int{0, 1000} { // cut, or a good-bye
			t.Run(fmt.Sprint(named, " ", code), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					srv := hubbubtest.NewServer(t, hubbub.Config{ResumeWindow: time.Minute, Rooms: []hubbub.RoomPolicy{{Match: "*", Presence: "full"}}})
					watcher, ann := srv.Connect("watcher"), srv.Connect("ann")
					for i := range 20 {
						room := fmt.Sprint("r", i)
						watcher.Join(room)
						ann.Join(room)
					}
					ann.Drop()
					hubbubtest.Step(0)
					back, err := srv.ConnectWith("ann", hubbubtest.Options{Token: ann.Welcome.ResumeToken})
					if err != nil || !back.Welcome.Resumed {
						t.Fatal(err, back.Welcome)
					}
					if n := map[string]int{"none": 0, "some": 18, "all": 20}[named]; n > 0 {
						rooms := map[string]any{}
						for i := range n {
							rooms[fmt.Sprint("r", i)] = nil
						}
						if got := back.Request(map[string]any{"msg_type": "resume", "rooms": rooms, "last": false}); len(got.Rooms) != n {
							t.Fatalf("got %s", got)
						}
					}
					members := func() int {
						return watcher.Request(map[string]any{"msg_type": "presence", "room": "r19"}).Count
					}
					if code == 0 {
						back.Drop()
						hubbubtest.Step(time.Second)
						if n := members(); n != 2 {
							t.Errorf("%d members while it may come back again", n)
						}
						again, err := srv.ConnectWith("ann", hubbubtest.Options{Token: back.Welcome.ResumeToken})
						if err != nil || !again.Welcome.Resumed || again.ID != ann.ID {
							t.Fatal(err, again.Welcome)
						}
						again.Close()
					} else {
						back.Close()
					}
					hubbubtest.Step(time.Second)
					if n := members(); n != 1 {
						t.Errorf("%d members after the end", n)
					}
				})
			})
		}
	}
}

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
