package hubbub_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/wire"
)

// longTime is for a Shutdown that ends by itself: longer than any machine is busy.
func longTime(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// untilClosed reads on, and answers the Close.
func (c *rawClient) untilClosed() {
	for {
		op, p, err := c.tryNext()
		if err != nil {
			return
		}
		if op == wire.Close {
			c.trySend(frame(wire.Close, true, p))
		}
	}
}

// A hook may shut the server down: Shutdown waits for all others but the very one that called it, and they
// have no place but that of this one.
func TestAHookShutsTheServerDown(t *testing.T) {
	for _, kind := range []string{"handler", "join", "connect", "joined", "disconnect"} {
		t.Run(kind, func(t *testing.T) {
			eachIO(t, func(t *testing.T, kindOfIO string) {
				var s *testServer
				var d diary
				stopped := make(chan error, 1)
				stop := func(by string) {
					if by != kind {
						return
					}
					stopped <- s.Shutdown(longTime(t))
					d.add("stopped")
				}
				s = startServer(t, hubbub.Config{IO: kindOfIO, MaxHookCalls: 1, HookTimeout: time.Minute, Handlers: handlers{
					"stop": func(context.Context, *hubbub.Message) (any, error) { stop("handler"); return nil, nil },
				}, Hooks: hubbub.Hooks{
					Connect: func(_ context.Context, c *hubbub.Connect) error {
						if c.User = c.Request.URL.RawQuery; c.User == "ann" {
							stop("connect")
						}
						return nil
					},
					Join:   func(context.Context, *hubbub.Join) error { stop("join"); return nil },
					Joined: func(context.Context, *hubbub.Joined) { stop("joined") },
					Disconnect: func(_ context.Context, e *hubbub.Disconnect) {
						if e.User == "ann" {
							stop("disconnect")
						}
						d.add("%s is gone", e.User)
					},
				}})
				for range 3 {
					other := dial(t, s, "/ws?bob")
					go other.untilClosed()
				}
				ann := connect(t, s)
				ann.sendRaw([]byte(upgradeHead(s, "/ws?ann")))
				switch kind {
				case "handler":
					ann.expectUpgrade()
					ann.text(`{"msg_type":"stop"}`)
					go ann.untilClosed()
				case "join", "joined":
					ann.expectUpgrade()
					ann.text(`{"msg_type":"join_room","room":"r"}`)
					go ann.untilClosed()
				case "disconnect":
					ann.expectUpgrade()
					ann.reset()
				case "connect":
					defer func() {
						r := ann.response("GET")
						if body, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "the server is stopping") {
							t.Errorf("who came while it stopped is told %s, %s", r.Status, body)
						}
					}()
				}
				select {
				case err := <-stopped:
					if err != nil {
						t.Error(err)
					}
				case <-time.After(time.Minute): // half of its time
					t.Fatal("Shutdown waits for itself")
				}
				if err := s.Shutdown(longTime(t)); err != nil { // of somebody else, who waits for that hook too
					t.Error(err)
				}
				got := d.read()
				at := slices.Index(got, "stopped")
				bobs := 0
				for _, line := range got[:max(at, 0)] {
					if line == "bob is gone" {
						bobs++
					}
				}
				if bobs != 3 || !slices.Contains(got, "ann is gone") {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

// A hook of one server that shuts another one down waits for all hooks of that.
func TestAHookShutsAnotherServerDown(t *testing.T) {
	began, release := make(chan bool), make(chan bool)
	other := startServer(t, hubbub.Config{HookTimeout: time.Minute, Handlers: handlers{
		"wait": func(context.Context, *hubbub.Message) (any, error) { began <- true; <-release; return nil, nil },
	}})
	enter(t, other).text(`{"msg_type":"wait"}`)
	<-began
	stopped := make(chan error)
	s := startServer(t, hubbub.Config{HookTimeout: time.Minute, Handlers: handlers{
		"stop": func(context.Context, *hubbub.Message) (any, error) {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			stopped <- other.Shutdown(ctx)
			return nil, nil
		},
	}})
	enter(t, s).text(`{"msg_type":"stop"}`)
	if err := <-stopped; !errors.Is(err, hubbub.ErrHooksRunning) {
		t.Errorf("got %v", err)
	}
	close(release)
}

// Hooks can't be cut off: Shutdown says that they run still, and one that is called later waits for them.
func TestShutdownSaysThatHooksRun(t *testing.T) {
	eachIO(t, func(t *testing.T, io string) {
		began, release := make(chan bool), make(chan bool)
		deaf := func() { began <- true; <-release }
		s := startServer(t, hubbub.Config{
			IO: io, HookTimeout: 50 * time.Millisecond, Handlers: handlers{"wait": func(context.Context, *hubbub.Message) (any, error) { deaf(); return nil, nil }},
			Hooks: hubbub.Hooks{Connect: func(_ context.Context, c *hubbub.Connect) error {
				if c.Request.URL.RawQuery == "slow" {
					deaf()
				}
				return nil
			}},
		})
		dial(t, s, "/ws").text(`{"msg_type":"wait"}`)
		connect(t, s).sendRaw([]byte(upgradeHead(s, "/ws?slow")))
		<-began
		<-began
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		err := s.Shutdown(ctx)
		if !errors.Is(err, hubbub.ErrHooksRunning) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 of them") {
			t.Errorf("got %v", err)
		}
		if err := s.Shutdown(ctx); !errors.Is(err, hubbub.ErrHooksRunning) {
			t.Errorf("again: %v", err)
		}
		again := make(chan error)
		go func() {
			again <- s.Shutdown(longTime(t))
		}()
		select {
		case err := <-again:
			t.Errorf("a later call returns: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
		close(release)
		if err := <-again; err != nil {
			t.Error(err)
		}
	})
}

// What is published when nobody can get it any more is refused, from a hook too.
func TestNothingIsPublishedAfterShutdown(t *testing.T) {
	eachIO(t, func(t *testing.T, io string) {
		var s *testServer
		told := make(chan error, 1)
		s = startServer(t, hubbub.Config{IO: io, Hooks: hubbub.Hooks{Disconnect: func(_ context.Context, d *hubbub.Disconnect) {
			for publish(s, "r", "x") == nil { // the others may be served still
				time.Sleep(time.Millisecond)
			}
			told <- publish(s, "r", "x")
		}}})
		a := enter(t, s).join("r")
		if err := errors.Join(publish(s, "r", 1), broadcast(s, 1), sendTo(s, a.id, 1)); err != nil {
			t.Fatal(err)
		}
		go a.untilClosed()
		if err := s.Shutdown(longTime(t)); err != nil {
			t.Error(err)
		}
		for what, err := range map[string]error{"a hook": <-told, "Publish": publish(s, "r", 1), "Broadcast": broadcast(s, 1), "Send": sendTo(s, a.id, 1)} {
			if !errors.Is(err, hubbub.ErrStopped) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}
