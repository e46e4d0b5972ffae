package hubbub_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// serve is an HTTP server of somebody else.
func serve(h http.Handler, tls bool) (url string, client *http.Client, stop func()) {
	srv := httptest.NewUnstartedServer(h)
	if tls {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	return srv.URL, srv.Client(), srv.Close
}

type handlers map[string]hubbub.Handler

func TestAHandlerAnswersItsOwnMessages(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var s *rawtest.Server
		s = rawtest.Start(t, hubbub.Config{IO: io, Handlers: handlers{
			"add": func(_ context.Context, m *hubbub.Message) (any, error) {
				var in struct{ A, B int }
				if err := m.Decode(&in); err != nil {
					return nil, err
				}
				return in.A + in.B, nil
			},
			"quiet": func(context.Context, *hubbub.Message) (any, error) { return nil, nil },
			"no": func(context.Context, *hubbub.Message) (any, error) {
				return nil, &hubbub.Error{Code: hubbub.Forbidden, Message: "not you"}
			},
			"broken": func(context.Context, *hubbub.Message) (any, error) { return nil, errors.New("secret") },
			// A handler may call the server, for the very client that it serves.
			"to me": func(_ context.Context, m *hubbub.Message) (any, error) {
				return "sent", errors.Join(rawtest.SendTo(s, m.Client, "psst"), rawtest.Publish(s, "r", "psst"), rawtest.Broadcast(s, "psst"))
			},
		}})
		a := enter(t, s)
		a.Text(`{"msg_type":"add","a":2,"b":3,"id":1}`)
		a.gets(map[string]any{"msg_type": "add", "from": "server", "content": 5.0, "id": 1.0})
		a.Text(`{"msg_type":"add","a":2,"b":3}`)
		a.gets(map[string]any{"msg_type": "add", "from": "server", "content": 5.0})
		a.Text(`{"msg_type":"quiet","id":"q"}`)
		a.gets(map[string]any{"msg_type": "ack", "id": "q"})
		a.Text(`{"msg_type":"quiet"}`)
		a.Text(`{"msg_type":"no","id":3}`)
		a.gets(map[string]any{"msg_type": "error", "code": "forbidden", "message": "not you", "retry": false, "id": 3.0})
		a.Text(`{"msg_type":"broken"}`)
		a.gets(map[string]any{"msg_type": "error", "code": "internal", "message": "internal error", "retry": true})
		a.Text(`{"msg_type":"add","a":"two"}`)
		if got := a.NextJSON(); got["code"] != "bad_message" {
			t.Errorf("got %v", got)
		}
		a.Text(`{"msg_type":"to me","id":4}`)
		a.gets(map[string]any{"msg_type": "direct_message", "from": "server", "content": "psst"})
		a.gets(map[string]any{"msg_type": "chat", "from": "server", "content": "psst"})
		a.gets(map[string]any{"msg_type": "to me", "from": "server", "content": "sent", "id": 4.0})
		if !strings.Contains(s.Log.String(), "secret") {
			t.Error("the handler's own error isn't in the log")
		}
	})
}

// What nobody has set up is refused, and no application can take its place.
func TestRefreshAndRequestNeedSomebody(t *testing.T) {
	m := enter(t, rawtest.Start(t, hubbub.Config{}))
	for kind, fields := range map[string]string{"refresh": `"token":"x"`, "request": `"method":"x"`} {
		got := m.raw(`{"msg_type":%q,%s,"id":1}`, kind, fields)
		if got["code"] != "unavailable" || got["retry"] != true {
			t.Errorf("%s: %v", kind, got)
		}
		err := hubbub.Config{Handlers: handlers{kind: func(context.Context, *hubbub.Message) (any, error) { return nil, nil }}}.Validate()
		if err == nil || !strings.Contains(err.Error(), kind) {
			t.Errorf("a handler for %s: %v", kind, err)
		}
	}
}

// One at a time and in order for a client, whatever each takes; and one that waits delays nobody else.
func TestHandlersOfOneClientRunInOrder(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var running, most atomic.Int32
		release := make(chan struct{})
		s := rawtest.Start(t, hubbub.Config{IO: io, HookTimeout: time.Minute, Handlers: handlers{
			"step": func(_ context.Context, m *hubbub.Message) (any, error) {
				if n := running.Add(1); n > most.Load() {
					most.Store(n)
				}
				defer running.Add(-1)
				<-release
				return m.Raw, nil
			},
		}})
		a, b := enter(t, s), enter(t, s)
		const n = 300
		for i := range n {
			a.Text(fmt.Sprintf(`{"msg_type":"step","id":%d}`, i))
		}
		rawtest.Eventually(t, "the first runs", func() bool { return running.Load() == 1 })
		b.hearsNothing()
		close(release)
		for i := range n {
			if got := a.NextJSON(); got["id"] != float64(i) {
				t.Fatalf("answer %d is %v", i, got)
			}
		}
		if most.Load() != 1 {
			t.Errorf("%d ran at once for one client", most.Load())
		}
	})
}

func TestAHandlerThatHangsIsAnsweredFor(t *testing.T) {
	t.Parallel()
	rawtest.EachIO(t, func(t *testing.T, io string) {
		release := make(chan struct{})
		ended := make(chan error, 1)
		s := rawtest.Start(t, hubbub.Config{IO: io, HookTimeout: time.Second, Handlers: handlers{
			"deaf": func(context.Context, *hubbub.Message) (any, error) { <-release; return "late", nil },
			"polite": func(ctx context.Context, _ *hubbub.Message) (any, error) {
				<-ctx.Done()
				ended <- ctx.Err()
				return nil, ctx.Err()
			},
			"fine": func(context.Context, *hubbub.Message) (any, error) { return "fine", nil },
		}})
		a := enter(t, s)
		a.Text(`{"msg_type":"deaf","id":1}`)
		a.Text(`{"msg_type":"polite","id":2}`)
		a.Text(`{"msg_type":"fine","id":3}`)
		if got := a.NextJSON(); got["code"] != "timeout" || got["id"] != 1.0 {
			t.Errorf("got %v, want a timeout for 1", got)
		}
		a.hearsNothing() // the next one waits for it, but nothing else does
		close(release)
		if got := a.NextJSON(); got["code"] != "timeout" || got["id"] != 2.0 { // the late answer isn't sent
			t.Errorf("got %v, want a timeout for 2", got)
		}
		a.gets(map[string]any{"msg_type": "fine", "from": "server", "content": "fine", "id": 3.0})
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the context ended with %v", err)
		}
	})
}

// A call that ends just when its time is up is answered once, and before the next one begins.
func TestAnswersKeepTheirOrderWhereTheTimeIsUp(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, HookTimeout: time.Millisecond, Logger: quietLogger(), Handlers: handlers{
			"polite": func(ctx context.Context, _ *hubbub.Message) (any, error) { <-ctx.Done(); return nil, ctx.Err() },
			"fine":   func(context.Context, *hubbub.Message) (any, error) { return "fine", nil },
		}})
		var all sync.WaitGroup
		for range 8 {
			a := enter(t, s)
			all.Go(func() {
				const n = 300
				for i := range n {
					a.Text(fmt.Sprintf(`{"msg_type":%q,"id":%d}`, []string{"polite", "fine"}[i%2], i))
				}
				for i := range n {
					if got := a.NextJSON(); got["id"] != float64(i) {
						t.Errorf("answer %d is %v", i, got)
						return
					}
				}
			})
		}
		all.Wait()
	})
}

func TestAHandlersContextEndsWithItsClient(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		started, ended := make(chan bool), make(chan error, 1)
		s := rawtest.Start(t, hubbub.Config{IO: io, HookTimeout: time.Minute, Handlers: handlers{
			"wait": func(ctx context.Context, _ *hubbub.Message) (any, error) {
				started <- true
				<-ctx.Done()
				ended <- ctx.Err()
				return nil, ctx.Err()
			},
		}})
		for _, n := range []int{1, 20} { // so many wait for it that the client isn't read
			a := enter(t, s)
			a.SendRaw(bytes.Repeat(rawtest.Frame(wsclient.Text, true, []byte(`{"msg_type":"wait"}`)), n))
			<-started
			a.Reset()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("the context ended with %v", err)
			}
		}
	})
}

// Over all clients no more than MaxHookCalls run; the others wait their turn.
func TestABoundOnHandlersOfAllClients(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var running, most atomic.Int32
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 2, MaxHookCalls: 3, Handlers: handlers{
			"work": func(context.Context, *hubbub.Message) (any, error) {
				if n := running.Add(1); n > most.Load() {
					most.Store(n)
				}
				defer running.Add(-1)
				time.Sleep(2 * time.Millisecond)
				return "done", nil
			},
		}})
		var all []*member
		for range 20 {
			m := enter(t, s)
			m.Text(`{"msg_type":"work","id":1}`)
			m.Text(`{"msg_type":"work","id":2}`)
			all = append(all, m)
		}
		for _, m := range all {
			for id := range 2 {
				m.gets(map[string]any{"msg_type": "work", "from": "server", "content": "done", "id": float64(id + 1)})
			}
		}
		if n := most.Load(); n > 3 || n < 1 {
			t.Errorf("%d ran at once, want at most 3", n)
		}
	})
}

// A hook that panics, or ends its goroutine as a test's FailNow does, is answered for, and costs nobody else anything:
// there is one place for all of them.
func TestAHookThatDoesNotReturnIsAnError(t *testing.T) {
	for way, end := range map[string]func(){"panic": func() { panic("planted") }, "exit": runtime.Goexit, "both": func() {
		defer runtime.Goexit()
		panic("planted")
	}, "both the other way round": func() {
		defer panic("planted")
		runtime.Goexit()
	}} {
		t.Run(way, func(t *testing.T) {
			rawtest.EachIO(t, func(t *testing.T, io string) {
				var d diary
				s := rawtest.Start(t, hubbub.Config{IO: io, Logger: quietLogger(), MaxHookCalls: 1, Handlers: handlers{
					"oops": func(context.Context, *hubbub.Message) (any, error) { end(); return nil, nil },
					"fine": func(context.Context, *hubbub.Message) (any, error) { return "fine", nil },
				}, Hooks: hubbub.Hooks{
					Connect: func(_ context.Context, c *hubbub.Connect) error {
						if c.Request.URL.RawQuery == "oops" {
							end()
						}
						return nil
					},
					Join: func(_ context.Context, j *hubbub.Join) error {
						if j.Room == "oops" {
							end()
						}
						return nil
					},
					Read:       func(context.Context, *hubbub.Read) error { end(); return nil },
					Publish:    func(context.Context, *hubbub.Publish) error { end(); return nil },
					Disconnect: func(context.Context, *hubbub.Disconnect) { d.add("disconnect"); end() },
					Occupied:   func(context.Context, string) { d.add("occupied"); end() },
					Joined:     func(context.Context, *hubbub.Joined) { d.add("joined"); end() },
					Left:       func(context.Context, *hubbub.Left) { d.add("left"); end() },
					Vacated:    func(context.Context, string) { d.add("vacated"); end() },
				}})
				refused := rawtest.Dial(t, s, "/ws?oops")
				refused.AnswerClose(1013)
				a := enter(t, s)
				for _, message := range []string{
					`{"msg_type":"oops"}`, `{"msg_type":"join_room","room":"oops"}`, `{"msg_type":"history","room":"r"}`, `{"msg_type":"chat"}`,
				} {
					if got := a.ask(message); got["code"] != "internal" || got["retry"] != true {
						t.Errorf("%s: got %v", message, got)
					}
					if got := a.ask(`{"msg_type":"fine"}`); got["content"] != "fine" {
						t.Errorf("behind it: %v", got)
					}
				}
				a.join("r").ask(`{"msg_type":"leave_room","room":"r"}`)
				a.SendClose(1000, "")
				a.ExpectClose(1000)
				rawtest.Eventually(t, "all hooks are called", func() bool { return len(d.read()) == 5 })
				for _, what := range []string{"occupied", "joined", "left", "vacated", "disconnect"} {
					if !slices.Contains(d.read(), what) {
						t.Errorf("no %s in %q", what, d.read())
					}
				}
				if way == "panic" || way == "exit" {
					scraped(t, s, map[string]float64{"panics_total": 10})
				}
				refused.CloseNow()
				if err := s.Shutdown(longTime(t)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// quietLogger is for stories in which a panic belongs into the log.
func quietLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }

// With one processor and workers that always have work, a handler still gets its share, and so does its answer.
func TestHandlersAnswerOnOneProcessorUnderFullFanOut(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 2, Handlers: handlers{
			"now": func(context.Context, *hubbub.Message) (any, error) { return "now", nil },
		}})
		for range 50 {
			m := enter(t, s).join("r")
			go func() {
				for {
					if _, _, err := m.TryNext(); err != nil {
						return
					}
				}
			}()
		}
		stop := make(chan struct{})
		flooded := make(chan struct{})
		publisher := enter(t, s)
		go func() {
			defer close(flooded)
			burst := bytes.Repeat(rawtest.Frame(wsclient.Text, true, []byte(`{"msg_type":"room_message","room":"r","content":"x"}`)), 20)
			burst = append(burst, rawtest.Frame(wsclient.Text, true, []byte(`{"msg_type":"ping"}`))...)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if publisher.TrySend(burst) != nil {
					return
				}
				if _, _, err := publisher.TryNext(); err != nil {
					return
				}
			}
		}()
		a := enter(t, s)
		for range 20 {
			if got := a.ask(`{"msg_type":"now"}`); got["content"] != "now" {
				t.Errorf("got %v", got)
			}
		}
		close(stop)
		<-flooded
	})
}

// spinVariable is in the environment of a process that is a server with a handler that computes, and prints its
// address.
const spinVariable = "HUBBUB_TEST_SPIN"

func init() {
	if os.Getenv(spinVariable) == "" {
		return
	}
	s, err := hubbub.New(hubbub.Config{Handlers: handlers{
		"compute": func(ctx context.Context, _ *hubbub.Message) (any, error) {
			for ctx.Err() == nil { // no system call, and nothing else that gives way
			}
			return nil, ctx.Err()
		},
	}, HookTimeout: 500 * time.Millisecond, Logger: quietLogger()})
	if err != nil {
		panic(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin) // nobody is left behind when the test ends before it ends this
		os.Exit(0)
	}()
	panic(s.Serve(l))
}

// A handler that computes has no right to the only processor: others are served meanwhile. The server is alone in its
// process, as the system calls of clients would wake the runtime's monitor.
func TestAHandlerThatComputesLeavesTheOthersTheirShare(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(exe)
	child.Env = append(os.Environ(), spinVariable+"=1", "GOMAXPROCS=1")
	child.Stderr = os.Stderr
	_, err1 := child.StdinPipe()
	out, err2 := child.StdoutPipe()
	if err := errors.Join(err1, err2, child.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		child.Process.Kill() // it may be computing still
		child.Wait()
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	s := &rawtest.Server{Addr: strings.TrimSpace(addr)}
	a, b := enter(t, s), enter(t, s)
	for range 8 { // a timer may wake the monitor in time, but not each time
		time.Sleep(200 * time.Millisecond) // it sleeps only while all is idle
		a.Text(`{"msg_type":"compute","id":1}`)
		answered := make(chan map[string]any, 1)
		go func() {
			defer close(answered)
			answered <- a.NextJSON()
		}()
		time.Sleep(time.Millisecond) // the server is at it
		if got := b.ask(`{"msg_type":"ping"}`); got["msg_type"] != "pong" {
			t.Fatalf("got %v", got)
		}
		if len(answered) > 0 {
			t.Error("who only pinged had to wait for the handler of another")
		}
		if got := <-answered; got["code"] != "timeout" {
			t.Errorf("got %v", got)
		}
	}
}

// A Handler is called for one message of a client at a time, also when a call outlasts its time: who keeps a client's
// state without a lock relies on it.
func TestCallsForOneClientNeverOverlap(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var running, most atomic.Int32
		release := make(chan struct{})
		handler := func(ctx context.Context, m *hubbub.Message) (any, error) {
			n := running.Add(1)
			defer running.Add(-1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			<-release // deaf to ctx
			return "done", nil
		}
		s := rawtest.Start(t, hubbub.Config{IO: io, HookTimeout: 20 * time.Millisecond,
			Handlers: map[string]hubbub.Handler{"deaf": handler}})
		c := rawtest.Dial(t, s, "/ws")
		c.NextJSON()
		c.Text(`{"msg_type":"deaf","id":1}`)
		c.Text(`{"msg_type":"deaf","id":2}`)
		if m := c.NextJSON(); m["code"] != "timeout" || m["id"] != 1.0 {
			t.Errorf("got %v, want a timeout for the first call", m)
		}
		c.Text(`{"msg_type":"ping","id":3}`)
		for m := c.NextJSON(); m["id"] != 3.0; m = c.NextJSON() { // the answer to the second may come before
		}
		// The second can't have begun: the first is still under way.
		if most.Load() > 1 {
			t.Errorf("%d calls of one client ran at once", most.Load())
		}
		close(release)
		rawtest.Eventually(t, "all calls have ended", func() bool { return running.Load() == 0 })
	})
}
