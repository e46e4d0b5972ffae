package hubbubtest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
)

// What Join says of each room of a resume, however it ends, is told with its reason; the session is in the rooms that
// it allows, and counted nowhere else.
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

// A client hangs up while the application is asked once more about it: it comes in nowhere, whatever other hooks there
// are.
func TestAHangUpWhileConnectIsAskedAgain(t *testing.T) {
	for _, told := range []bool{false, true} {
		t.Run(fmt.Sprint("Disconnect: ", told), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked, in, out atomic.Int32
				hooks := hubbub.Hooks{Connect: func(context.Context, *hubbub.Connect) error {
					if asked.Add(1) > 1 { // all but the first one's
						time.Sleep(2 * time.Second)
					}
					in.Add(1)
					return nil
				}}
				if told {
					hooks.Disconnect = func(context.Context, *hubbub.Disconnect) { out.Add(1) }
				}
				srv := hubbubtest.NewServer(t, hubbub.Config{Hooks: hooks})
				ann := srv.Connect("ann")
				time.AfterFunc(time.Second, ann.Close) // meanwhile the session ends that the second wants
				_, err := srv.ConnectWith("ann", hubbubtest.Options{Token: ann.Welcome.ResumeToken, Link: func(l *hubbubtest.Link) {
					time.AfterFunc(3*time.Second, l.Cut)
				}})
				if err == nil || asked.Load() != 3 {
					t.Fatalf("asked %d times, then %v", asked.Load(), err)
				}
				hubbubtest.Step(10 * time.Second)
				if told && in.Load() != out.Load() {
					t.Errorf("%d were let in, of %d the end was told", in.Load(), out.Load())
				}
			})
		})
	}
}

// Its direct messages are too much for a client that comes home and reads nothing for now: they wait for its line, and what it said
// with the same breath is obeyed.
func TestWhoIsSlowToComeHomeLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{Workers: 1, Logger: slog.New(slog.DiscardHandler)})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		ann.Drop()
		hubbubtest.Step(time.Second)
		for range 4 {
			bob.Direct(ann, strings.Repeat("x", 15_000))
		}
		back, err := srv.ConnectWith("ann", hubbubtest.Options{Token: ann.Welcome.ResumeToken, Buffer: 1024})
		if err != nil || !back.Welcome.Resumed {
			t.Fatal(err)
		}
		back.Request(map[string]any{"msg_type": "resume", "rooms": map[string]any{}, "last": false})
		back.Link.Stall(hubbubtest.Both)
		back.Link.Resume(hubbubtest.ToServer)
		for i := range 1950 { // nearly as many answers as may wait
			back.SendText(fmt.Sprintf(`{"msg_type":"ping","id":"%020d"}`, i))
			if i%100 == 0 {
				hubbubtest.Step(0)
			}
		}
		hubbubtest.Step(time.Second)
		back.Send(map[string]any{"msg_type": "join_room", "room": "r", "id": 1})
		hubbubtest.Step(10 * time.Second)
		if n := srv.Connections(); n != 2 {
			t.Fatalf("%d connections", n)
		}
		back.Link.Resume(hubbubtest.ToClient)
		for directs := 0; directs < 4; {
			if m := back.Receive(); m.Type == "direct_message" { // among the answers to its pings
				directs++
			}
		}
		hubbubtest.Step(time.Second)
		if got := bob.Request(map[string]any{"msg_type": "presence", "room": "r"}); got.Count != 1 {
			t.Errorf("in the room are %d", got.Count)
		}
	})
}

// A ping between the messages of a resume ends nothing, also where the session that the client wants has ended
// meanwhile.
func TestAPingAmongTheMessagesOfAResume(t *testing.T) {
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprint("gone: ", gone), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := hubbubtest.NewServer(t, hubbub.Config{Hooks: hubbub.Hooks{Connect: func(context.Context, *hubbub.Connect) error {
					time.Sleep(2 * time.Second)
					return nil
				}}})
				ann, bob := srv.Connect("ann"), srv.Connect("bob")
				ann.Join("a")
				ann.Join("b")
				time.AfterFunc(time.Second, func() {
					if gone {
						ann.Close()
					} else {
						ann.Drop()
					}
				})
				back, err := srv.ConnectWith("ann", hubbubtest.Options{Token: ann.Welcome.ResumeToken})
				if err != nil || back.Welcome.Resumed == gone {
					t.Fatal(err, back.Welcome)
				}
				back.Request(map[string]any{"msg_type": "resume", "rooms": map[string]any{"a": nil}, "last": false})
				back.Ping()
				bob.Publish("a", "early")
				back.ExpectNothing(time.Second)
				back.Request(map[string]any{"msg_type": "resume", "rooms": map[string]any{"b": nil}})
				back.ExpectMessage("a", "early")
			})
		})
	}
}

// Who has not said all of its rooms hears nothing of any, also not who comes and goes.
func TestNoNewsOfMembersOnTheWayHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{Rooms: []hubbub.RoomPolicy{{Match: "*", Presence: "full"}}})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		ann.Join("a")
		ann.Drop()
		hubbubtest.Step(time.Second)
		back, err := srv.ConnectWith("ann", hubbubtest.Options{Token: ann.Welcome.ResumeToken})
		if err != nil || !back.Welcome.Resumed {
			t.Fatal(err, back.Welcome)
		}
		back.Request(map[string]any{"msg_type": "resume", "rooms": map[string]any{"a": nil}, "last": false})
		bob.Join("a")
		back.ExpectNothing(2 * time.Second)
		back.Request(map[string]any{"msg_type": "resume", "rooms": map[string]any{}})
		if got := back.Request(map[string]any{"msg_type": "presence", "room": "a"}); got.Count != 2 {
			t.Errorf("got %s", got)
		}
		bob.Leave("a")
	})
}

// What the client says of its rooms is in time also where the application takes long to answer it: until then the
// session is in all of them, and in those that it has named from then on.
func TestAHomecomingWaitsForTheHook(t *testing.T) {
	const takes = 15 * time.Second // longer than the client would have for its next word
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		var left atomic.Int32
		srv := hubbubtest.NewServer(t, hubbub.Config{HookTimeout: 2 * takes, Hooks: hubbub.Hooks{
			Join: func(context.Context, *hubbub.Join) error {
				if slow.Load() {
					time.Sleep(takes)
				}
				return nil
			},
			Left: func(context.Context, *hubbub.Left) { left.Add(1) },
		}})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		ann.Join("a")
		bob.Join("a")
		ann.Drop()
		hubbubtest.Step(time.Second)
		slow.Store(true)
		back := backWith(t, srv, ann.Welcome.ResumeToken)
		bob.Direct(ann, "waits until it has said all")
		began := time.Now()
		back.Send(map[string]any{"msg_type": "resume", "rooms": map[string]any{"a": nil}, "id": "r"})
		if m := back.Receive(); m.Type != "resumed" || m.Rooms["a"].Epoch == "" || time.Since(began) < takes {
			t.Fatalf("after %s came %s", time.Since(began), m)
		}
		back.ExpectDirect("waits until it has said all")
		bob.Publish("a", 1)
		back.ExpectMessage("a", 1)
		if n := left.Load(); n != 0 {
			t.Errorf("%d rooms were left", n)
		}
		srv.Check()
	})
}
