package hubbub_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// longTime is for a Shutdown that ends by itself: longer than any machine is busy.
func longTime(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// untilClosed reads on, and answers the Close.
func untilClosed(c *rawtest.Client) {
	for {
		op, p, err := c.TryNext()
		if err != nil {
			return
		}
		if op == wsclient.Close {
			c.TrySend(rawtest.Frame(wsclient.Close, true, p))
		}
	}
}

// A hook may shut the server down: Shutdown waits for all others but the very one that called it, and they have no
// place but that of this one.
func TestAHookShutsTheServerDown(t *testing.T) {
	for _, kind := range []string{"handler", "join", "connect", "joined", "disconnect"} {
		t.Run(kind, func(t *testing.T) {
			rawtest.EachIO(t, func(t *testing.T, kindOfIO string) {
				var s *rawtest.Server
				var d diary
				stopped := make(chan error, 1)
				stop := func(by string) {
					if by != kind {
						return
					}
					stopped <- s.Shutdown(longTime(t))
					d.add("stopped")
				}
				s = rawtest.Start(t, hubbub.Config{IO: kindOfIO, MaxHookCalls: 1, HookTimeout: time.Minute, Handlers: handlers{
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
					other := rawtest.Dial(t, s, "/ws?bob")
					go untilClosed(other)
				}
				ann := rawtest.Connect(t, s)
				ann.SendRaw([]byte(rawtest.Upgrade(s, "/ws?ann")))
				switch kind {
				case "handler":
					ann.ExpectUpgrade()
					ann.Text(`{"msg_type":"stop"}`)
					go untilClosed(ann)
				case "join", "joined":
					ann.ExpectUpgrade()
					ann.Text(`{"msg_type":"join_room","room":"r"}`)
					go untilClosed(ann)
				case "disconnect":
					ann.ExpectUpgrade()
					ann.Reset()
				case "connect":
					defer func() {
						r := ann.Response("GET")
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
	t.Parallel()
	began, release := make(chan bool), make(chan bool)
	other := rawtest.Start(t, hubbub.Config{HookTimeout: time.Minute, Handlers: handlers{
		"wait": func(context.Context, *hubbub.Message) (any, error) { began <- true; <-release; return nil, nil },
	}})
	enter(t, other).Text(`{"msg_type":"wait"}`)
	<-began
	stopped := make(chan error)
	s := rawtest.Start(t, hubbub.Config{HookTimeout: time.Minute, Handlers: handlers{
		"stop": func(context.Context, *hubbub.Message) (any, error) {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			stopped <- other.Shutdown(ctx)
			return nil, nil
		},
	}})
	enter(t, s).Text(`{"msg_type":"stop"}`)
	if err := <-stopped; !errors.Is(err, hubbub.ErrHooksRunning) {
		t.Errorf("got %v", err)
	}
	close(release)
}

// Hooks can't be cut off: Shutdown says that they run still, and one that is called later waits for them.
func TestShutdownSaysThatHooksRun(t *testing.T) {
	t.Parallel()
	rawtest.EachIO(t, func(t *testing.T, io string) {
		began, release := make(chan bool), make(chan bool)
		deaf := func() { began <- true; <-release }
		s := rawtest.Start(t, hubbub.Config{
			IO: io, HookTimeout: 50 * time.Millisecond, Handlers: handlers{"wait": func(context.Context, *hubbub.Message) (any, error) { deaf(); return nil, nil }},
			Hooks: hubbub.Hooks{Connect: func(_ context.Context, c *hubbub.Connect) error {
				if c.Request.URL.RawQuery == "slow" {
					deaf()
				}
				return nil
			}},
		})
		rawtest.Dial(t, s, "/ws").Text(`{"msg_type":"wait"}`)
		rawtest.Connect(t, s).SendRaw([]byte(rawtest.Upgrade(s, "/ws?slow")))
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
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var s *rawtest.Server
		told := make(chan error, 1)
		s = rawtest.Start(t, hubbub.Config{IO: io, Hooks: hubbub.Hooks{Disconnect: func(_ context.Context, d *hubbub.Disconnect) {
			for rawtest.Publish(s, "r", "x") == nil { // the others may be served still
				time.Sleep(time.Millisecond)
			}
			told <- rawtest.Publish(s, "r", "x")
		}}})
		a := enter(t, s).join("r")
		if err := errors.Join(rawtest.Publish(s, "r", 1), rawtest.Broadcast(s, 1), rawtest.SendTo(s, a.id, 1)); err != nil {
			t.Fatal(err)
		}
		go untilClosed(a.Client)
		if err := s.Shutdown(longTime(t)); err != nil {
			t.Error(err)
		}
		for what, err := range map[string]error{"a hook": <-told, "Publish": rawtest.Publish(s, "r", 1), "Broadcast": rawtest.Broadcast(s, 1), "Send": rawtest.SendTo(s, a.id, 1)} {
			if !errors.Is(err, hubbub.ErrStopped) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

// What Shutdown can't end in time it cuts off, a request that is only half there too.
func TestShutdownCutsOffHalfARequest(t *testing.T) {
	t.Parallel()
	server, err := hubbub.New(hubbub.Config{Logger: slog.New(slog.DiscardHandler), HandshakeTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	s := &rawtest.Server{Server: server, Addr: l.Addr().String()}
	slow := rawtest.Connect(t, s)
	slow.SendRaw([]byte("GET /ws HTTP/1.1\r\n"))
	rawtest.Dial(t, s, "/echo").Quiet() // by now the other one is accepted too

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	server.Shutdown(ctx) // the request itself would take an hour
	<-served
	slow.NC.SetReadDeadline(time.Now().Add(slow.Timeout))
	if _, err := slow.R.ReadByte(); !rawtest.IsEndOrReset(err) {
		t.Errorf("half a request after Shutdown: %v, want the end of the stream", err)
	}
}

// Who serves behind Shutdown is told so at once, and its listener is closed.
func TestServeBehindShutdown(t *testing.T) {
	server, err := hubbub.New(hubbub.Config{Logger: quietLogger()})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Shutdown(longTime(t)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		if !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	case <-time.After(rawtest.Patience):
		t.Error("it serves on")
	}
	if nc, err := net.Dial("tcp", l.Addr().String()); err == nil {
		nc.Close()
		t.Error("somebody listens still")
	}
}

// A store that doesn't end is waited for until the deadline, and a while longer.
func TestWhatDoesntEndIsGivenUp(t *testing.T) {
	for name, tt := range map[string]struct {
		ends, takes time.Duration
		want        bool
	}{
		"in time":          {time.Second, time.Second, true},
		"in its grace":     {35 * time.Second, 35 * time.Second, true},
		"an hour too late": {time.Hour, 40 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				done, began := make(chan struct{}), time.Now()
				time.AfterFunc(tt.ends, func() { close(done) })
				if got := hubbub.EndsWithin(ctx, done, 10*time.Second); got != tt.want || time.Since(began) != tt.takes {
					t.Errorf("%v after %v, want %v after %v", got, time.Since(began), tt.want, tt.takes)
				}
			})
		})
	}
}
