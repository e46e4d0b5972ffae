package hubbubtest_test

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
)

// Hooks that take their time, end their goroutine, are asked for clients that hang up, or shut the server down.
func TestHooksInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var mu sync.Mutex
		var lines []string
		note := func(line string) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, time.Since(began).Truncate(time.Second).String()+" "+line)
		}
		ids := map[string]string{} // by user; guarded by mu
		var srv *hubbubtest.Server
		stopped := make(chan error, 1)
		srv = hubbubtest.NewServer(t, hubbub.Config{
			HookTimeout: 5 * time.Second, Logger: slog.New(slog.DiscardHandler),
			Handlers: map[string]hubbub.Handler{"stop": func(ctx context.Context, m *hubbub.Message) (any, error) {
				note("stop")
				stopped <- srv.Shutdown(context.WithoutCancel(ctx))
				note("stopped")
				return nil, nil
			}},
			Hooks: hubbub.Hooks{
				Connect: func(_ context.Context, c *hubbub.Connect) error {
					c.User = c.Request.URL.Query().Get("user")
					mu.Lock()
					ids[c.User] = c.Client
					mu.Unlock()
					switch c.User {
					case "late":
						time.Sleep(8 * time.Second)
					case "cut":
						time.Sleep(2 * time.Second)
					}
					note("in: " + c.User)
					return nil
				},
				Join: func(context.Context, *hubbub.Join) error { runtime.Goexit(); return nil },
				Disconnect: func(_ context.Context, d *hubbub.Disconnect) {
					mu.Lock()
					known := ids[d.User] == d.Client
					mu.Unlock()
					if !known {
						t.Errorf("the end of %s is told with the id %s", d.User, d.Client)
					}
					if d.User == "ann" {
						time.Sleep(3 * time.Second)
					}
					note("gone: " + d.User)
				},
			},
		})
		began = time.Now()
		if _, err := srv.ConnectWith("late", hubbubtest.Options{Path: "/ws?user=late"}); err == nil || time.Since(began) != 5*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		hubbubtest.Step(5 * time.Second)
		_, err := srv.ConnectWith("cut", hubbubtest.Options{Path: "/ws?user=cut", Link: func(l *hubbubtest.Link) {
			time.AfterFunc(time.Second, l.Cut)
		}})
		if err == nil {
			t.Error("a client whose line was cut is connected")
		}
		hubbubtest.Step(9 * time.Second)
		var clients []*hubbubtest.Client
		for _, user := range []string{"ann", "bob"} {
			c, err := srv.ConnectWith(user, hubbubtest.Options{Path: "/ws?user=" + user})
			if err != nil {
				t.Fatal(err)
			}
			clients = append(clients, c)
		}
		asked := time.Now()
		if got := clients[1].Request(map[string]any{"msg_type": "join_room", "room": "r"}); got.Code != "internal" || time.Since(asked) > time.Second {
			t.Errorf("after %s: got %s", time.Since(asked), got)
		}
		if got := clients[1].Request(map[string]any{"msg_type": "history", "room": "r"}); got.Code != "not_member" {
			t.Errorf("got %s", got)
		}
		clients[1].Send(map[string]any{"msg_type": "stop"})
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		want := []string{
			"8s in: late", "8s gone: late", "12s in: cut", "12s gone: cut", "20s in: ann", "20s in: bob",
			"20s stop", "23s gone: ann", "23s stopped", "23s gone: bob",
		}
		if !slices.Equal(lines, want) {
			t.Errorf("got  %q\nwant %q", lines, want)
		}
	})
}

// Two calls: the delay passes once, both return when all is over, and a third one returns at once.
func TestASecondShutdownWaitsLikeTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 10 * time.Second
		srv := hubbubtest.NewServer(t, hubbub.Config{ShutdownDelay: delay, Hooks: hubbub.Hooks{
			Disconnect: func(context.Context, *hubbub.Disconnect) { time.Sleep(2 * time.Second) },
		}})
		ann := srv.Connect("ann")
		began := time.Now()
		done := make(chan time.Duration)
		stop := func() {
			if err := srv.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			done <- time.Since(began)
		}
		go stop()
		hubbubtest.Step(delay / 2)
		go stop()
		ann.ExpectClosed(1001)
		if at := time.Since(began); at < delay || at > delay+time.Second {
			t.Errorf("ann is sent away after %s", at)
		}
		for range 2 {
			if at := <-done; at < delay+2*time.Second || at > delay+3*time.Second {
				t.Errorf("Shutdown returns after %s", at)
			}
		}
		over := time.Now()
		go stop()
		<-done
		if took := time.Since(over); took > 0 {
			t.Errorf("after the end it takes %s", took)
		}
	})
}
