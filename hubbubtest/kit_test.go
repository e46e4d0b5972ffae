package hubbubtest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
	"example.com/hubbub/internal/rawtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eachClock runs a story in a bubble, and with the real clock.
func eachClock(t *testing.T, story func(t *testing.T)) {
	t.Run("bubble", func(t *testing.T) { synctest.Test(t, story) })
	t.Run("real clock", story)
}

func TestAStoryWithEveryVerb(t *testing.T) {
	eachClock(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{})
		ann, bob, cat := srv.Connect("ann"), srv.Connect("bob"), srv.Connect("cat")
		ann.Join("kitchen")
		bob.Join("kitchen")
		ann.Publish("kitchen", map[string]any{"dish": "soup"})
		m := bob.ExpectMessage("kitchen", map[string]any{"dish": "soup"})
		if m.From != ann.ID || m.Room != "kitchen" {
			t.Errorf("got %s, want it from %s", m, ann.ID)
		}
		cat.Chat("hello")
		ann.ExpectChat("hello")
		bob.ExpectChat("hello")
		ann.Direct(cat, 1)
		cat.ExpectDirect(1)
		rawtest.Publish(srv, "kitchen", "wash up")
		ann.ExpectMessage("kitchen", "wash up")
		bob.ExpectMessage("kitchen", "wash up")
		rawtest.Broadcast(srv, "good night")
		rawtest.SendTo(srv, cat.ID, "you too")
		for _, c := range []*hubbubtest.Client{ann, bob, cat} {
			c.ExpectChat("good night")
		}
		cat.ExpectDirect("you too")
		bob.Leave("kitchen")
		ann.Publish("kitchen", "alone")
		bob.ExpectNothing(10 * time.Millisecond)
		bob.Send(map[string]any{"msg_type": "nonsense"})
		bob.ExpectError("unknown_type")
		bob.SendFrame(2, true, []byte{1})
		bob.ExpectError("binary")
		if now := ann.Ping(); time.Since(now).Abs() > time.Minute {
			t.Errorf("the server's time is %s, the test's %s", now, time.Now())
		}
		bob.Close()
		bob.ExpectClosed(1000)
		srv.Check()
	})
}

func TestTimersRunInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{PingInterval: 25 * time.Second, PongTimeout: 10 * time.Second})
		silent, alive := srv.Connect("silent"), srv.Connect("alive")
		silent.Link.Stall(hubbubtest.ToServer)
		began := time.Now()
		silent.ExpectNothing(35*time.Second - time.Nanosecond)
		silent.ExpectClosed(4002)
		if took := time.Since(began); took < 35*time.Second || took > 36*time.Second {
			t.Errorf("closed after %s, want 35 s and not a second more", took)
		}
		alive.ExpectNothing(24 * time.Hour)
	})
}

func TestTheLongestStallOfALinkThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		ann.Join("r")
		bob.Join("r")
		bob.Link.Stall(hubbubtest.Both)
		for i := range 3 {
			ann.Publish("r", i)
		}
		hubbubtest.Step(29 * time.Second)
		srv.Check() // nothing is lost: it may still come
		bob.ExpectNothing(1)
		bob.Link.Resume(hubbubtest.Both)
		for i := range 3 {
			bob.ExpectMessage("r", i)
		}
		srv.Check()
	})
}

func TestASlowReaderIsClosedByItsBound(t *testing.T) {
	eachClock(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{SendQueueBytes: 64 << 10})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		bob.Join("r")
		bob.Link.Stall(hubbubtest.ToClient)
		big := strings.Repeat("x", 30<<10)
		for i := range 20 { // the link, the pump and the queue hold 64 KiB each
			ann.Publish("r", fmt.Sprint(i, big))
		}
		bob.Link.Resume(hubbubtest.ToClient)
		bob.ExpectMessage("r", fmt.Sprint(0, big))
		bob.ExpectClosed(4000)
		srv.Check()
	})
}

func TestASlowLinkTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		bob.Join("r")
		bob.Link.Slow(hubbubtest.ToClient, 100)
		began, before := time.Now(), bob.Link.Carried(hubbubtest.ToClient)
		ann.Publish("r", strings.Repeat("x", 600))
		bob.Receive()
		bytes, took := bob.Link.Carried(hubbubtest.ToClient)-before, time.Since(began)
		if want := time.Duration(bytes) * time.Second / 100; took > want || took < want-time.Second {
			t.Errorf("%d bytes took %s at 100 a second", bytes, took)
		}
		bob.Link.Slow(hubbubtest.ToClient, 0)
		began = time.Now()
		ann.Publish("r", strings.Repeat("y", 600))
		bob.Receive()
		if took := time.Since(began); took > 0 {
			t.Errorf("it still took %s", took)
		}
	})
}

// A line that breaks anywhere within a message gives the whole message or nothing.
func TestCutAtEveryByte(t *testing.T) {
	for _, cut := range []struct {
		name string
		how  func(l *hubbubtest.Link, n int)
	}{
		{"to the client, abruptly", func(l *hubbubtest.Link, n int) { l.CutAfter(hubbubtest.ToClient, n) }},
		{"to the client, in good order", func(l *hubbubtest.Link, n int) { l.EndAfter(hubbubtest.ToClient, n) }},
		{"to the server, abruptly", func(l *hubbubtest.Link, n int) { l.CutAfter(hubbubtest.ToServer, n) }},
		{"to the server, in good order", func(l *hubbubtest.Link, n int) { l.EndAfter(hubbubtest.ToServer, n) }},
	} {
		t.Run(cut.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := hubbubtest.NewServer(t, hubbub.Config{PingInterval: 24 * time.Hour})
				ann, bob := srv.Connect("ann"), srv.Connect("bob")
				ann.Join("r")
				whole := 0
				const cuts = 120 // up to 357 bytes: c's answer and the message come within 300
				for n := 0; n < 3*cuts; n += 3 {
					c := srv.Connect(fmt.Sprint("cut at ", n))
					c.Join("r")
					bob.Publish("r", fmt.Sprint("before ", n))
					c.Receive()
					cut.how(c.Link, n)
					c.Send(map[string]any{"msg_type": "room_message", "room": "r", "content": fmt.Sprint("its own ", n), "id": 77})
					bob.Publish("r", fmt.Sprint("after ", n))
					hubbubtest.Step(0)
					if strings.Contains(c.Log(), "after") {
						whole++
					}
					c.Drop()
				}
				srv.Check()
				if whole == 0 || whole == cuts {
					t.Errorf("%d of %d cuts came after the message", whole, cuts)
				}
				hubbubtest.Step(time.Second)
				if n := srv.Connections(); n != 2 {
					t.Errorf("the server has %d connections, want ann and bob", n)
				}
			})
		})
	}
}

func TestAnEndInGoodOrderBringsWhatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		bob.Join("r")
		bob.Link.Stall(hubbubtest.ToClient)
		ann.Publish("r", 1)
		hubbubtest.Step(0)
		bob.Link.End()
		bob.Link.Resume(hubbubtest.ToClient)
		bob.ExpectMessage("r", 1)
		bob.ExpectClosed(0)
	})
}

func TestARefusedHandshake(t *testing.T) {
	eachClock(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{MaxConnectionsPerIP: 1})
		if _, err := srv.ConnectWith("first", hubbubtest.Options{IP: "10.0.0.1"}); err != nil {
			t.Fatal(err)
		}
		_, err := srv.ConnectWith("second", hubbubtest.Options{IP: "10.0.0.1"})
		var refused *hubbubtest.RefusedError
		if !errors.As(err, &refused) || refused.Status != http.StatusTooManyRequests || refused.Header.Get("Retry-After") == "" {
			t.Errorf("got %v, want 429", err)
		}
		if _, err := srv.ConnectWith("other", hubbubtest.Options{IP: "10.0.0.2"}); err != nil {
			t.Error(err)
		}
		_, err = srv.ConnectWith("page", hubbubtest.Options{Header: http.Header{"Origin": {"https://evil.example"}}})
		if !errors.As(err, &refused) || refused.Status != http.StatusForbidden {
			t.Errorf("got %v, want 403", err)
		}
		_, err = srv.ConnectWith("cut", hubbubtest.Options{Link: func(l *hubbubtest.Link) { l.CutAfter(hubbubtest.ToClient, 10) }})
		if err == nil || errors.As(err, new(*hubbubtest.RefusedError)) {
			t.Errorf("got %v, want that the line broke", err)
		}
	})
}

func TestShutdownIsSeenByClients(t *testing.T) {
	eachClock(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{})
		ann := srv.Connect("ann")
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if m := ann.ExpectReconnect(); m.Reason != "drain" {
			t.Errorf("got %s", m)
		}
		ann.ExpectClosed(1001)
	})
}

// Any other client gets to the server too.
func TestForeignClients(t *testing.T) {
	eachClock(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{})
		res, err := srv.HTTPClient().Get("http://any.host/healthz")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(body) != "alive\n" {
			t.Errorf("got %q", body)
		}
		ctx, cancel := context.WithTimeout(context.Background(), hubbubtest.Patience)
		defer cancel()
		foreign, _, err := websocket.Dial(ctx, "ws://any.host/ws", &websocket.DialOptions{HTTPClient: srv.HTTPClient()})
		if err != nil {
			t.Fatal(err)
		}
		defer foreign.CloseNow()
		if _, b, err := foreign.Read(ctx); err != nil || !strings.Contains(string(b), "welcome") {
			t.Errorf("got %s, %v", b, err)
		}
		srv.Connect("ann").Chat("hello")
		if _, b, err := foreign.Read(ctx); err != nil || !strings.Contains(string(b), "hello") {
			t.Errorf("got %s, %v", b, err)
		}
	})
}

// failing is a T that notes why the test would have failed.
type failing struct {
	*testing.T
	why string
}

func (f *failing) Errorf(format string, args ...any) { f.why += fmt.Sprintf(format, args...) }
func (f *failing) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	panic(f)
}

func TestWhatAFailureSays(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(ann, bob *hubbubtest.Client)
		want []string
	}{
		{"another message", func(ann, bob *hubbubtest.Client) {
			ann.Publish("r", "tea")
			bob.ExpectMessage("r", "coffee")
		}, []string{`bob: want the message "coffee" in "r", got {"msg_type":"room_message"`, `"tea"`, `bob: 4 joined id=1 in "r"`}},
		{"nothing at all", func(ann, bob *hubbubtest.Client) { bob.Receive() }, []string{"bob: want a message, but nothing came within 1m0s"}},
		{"something", func(ann, bob *hubbubtest.Client) {
			ann.Publish("r", "tea")
			bob.ExpectNothing(time.Second)
		}, []string{"bob: want nothing for 1s, got", `"tea"`}},
		{"another end", func(ann, bob *hubbubtest.Client) {
			bob.SendFrame(3, true, nil)
			bob.ExpectClosed(1000)
		}, []string{"bob: want the end with code 1000, got Close 1002"}},
		{"no end", func(ann, bob *hubbubtest.Client) { bob.ExpectClosed(1000) }, []string{"the connection still stands after 1m0s"}},
		{"an error for an answer", func(ann, bob *hubbubtest.Client) { bob.Join("") }, []string{`want joined as the answer to {"msg_type":"join_room","room":""}, got {"msg_type":"error","code":"bad_room"`}},
		{"no line", func(ann, bob *hubbubtest.Client) {
			bob.Link.Cut()
			bob.Publish("r", 1)
		}, []string{"bob: want an answer to", "the connection has ended", "connection reset"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &failing{T: t}
				srv := hubbubtest.NewServer(f, hubbub.Config{})
				ann, bob := srv.Connect("ann"), srv.Connect("bob")
				bob.Join("r")
				func() {
					defer func() {
						if r := recover(); r != f {
							t.Errorf("recovered %v, want that the test failed", r)
						}
					}()
					c.do(ann, bob)
				}()
				for _, want := range c.want {
					if !strings.Contains(f.why, want) {
						t.Errorf("it says %s\nwant %s", f.why, want)
					}
				}
			})
		})
	}
}

// A server that alters what clients say is found out.
func TestCheckFindsAServersFault(t *testing.T) {
	eachClock(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{Hooks: hubbub.Hooks{Publish: func(_ context.Context, p *hubbub.Publish) error {
			if string(p.Content) == `"tea"` {
				p.Content = []byte(`"coffee"`)
			}
			return nil
		}}})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		bob.Join("r")
		ann.Publish("r", "water")
		if got := srv.Faults(); got != nil {
			t.Fatalf("found %q before there was one", got)
		}
		ann.Publish("r", "tea")
		got := srv.Faults()
		for _, want := range []string{`lost: bob lacks "tea"`, `misdelivered: bob got "coffee", which nobody sent`} {
			if !slices.ContainsFunc(got, func(f string) bool { return strings.HasPrefix(f, want) }) {
				t.Errorf("found %q, want %s", got, want)
			}
		}
	})
}

func TestCheckKnowsWhatTheApplicationSaid(t *testing.T) {
	eachClock(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		ann.Join("r")
		bob.Join("r")
		for _, p := range []hubbub.Publication{
			{Room: "r", Content: "tea", From: "the shop", Exclude: ann.ID},
			{Everyone: true, Content: "closing time", Exclude: strings.ToUpper(ann.ID)},
			{Client: strings.ToUpper(bob.ID), Content: "psst", From: "the cook"},
		} {
			if _, err := srv.Publish(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		bob.ExpectMessage("r", "tea")
		bob.ExpectChat("closing time")
		bob.ExpectDirect("psst")
		ann.ExpectNothing(time.Millisecond)
		srv.Check()
	})
}

// BenchmarkCrowd fills one room that counts its members; an operation is a client that joins. When all are in, a third
// leaves and a third loses its connections, and the count must be right at each step, and the rest get what is
// published. The clients are in this process and on lines in memory, so that there may be more of them than a process
// has descriptors. Another figure is what the answer to presence takes at the full size:
//
//	go test -run '^$' -bench Crowd -benchtime 100000x ./hubbubtest
func BenchmarkCrowd(b *testing.B) {
	const window = 30 * time.Second
	s := hubbubtest.NewServer(b, hubbub.Config{ResumeWindow: window, MaxConnections: b.N + 1})
	clients := make([]*hubbubtest.Client, b.N)
	for i := range clients {
		clients[i] = s.Connect(fmt.Sprint(i))
	}
	outside := s.Connect("outside")
	count := func() int {
		return outside.Request(map[string]any{"msg_type": "presence", "room": "crowd"}).Count
	}
	b.ResetTimer()
	for _, c := range clients {
		c.Join("crowd")
	}
	b.StopTimer()
	if got := count(); got != b.N {
		b.Errorf("%d are in the room, and %d are counted", b.N, got)
	}
	const asks = 1000
	began := time.Now()
	for range asks {
		count()
	}
	b.ReportMetric(float64(time.Since(began).Nanoseconds())/asks, "ns/answer")

	leave, lose, stay := clients[:b.N/3], clients[b.N/3:b.N/3*2], clients[b.N/3*2:]
	for _, c := range leave {
		c.Leave("crowd")
	}
	if got, want := count(), len(lose)+len(stay); got != want {
		b.Errorf("when a third has left there are %d, and %d are counted", want, got)
	}
	lost := time.Now()
	for _, c := range lose {
		c.Drop()
	}
	if got, want := count(), len(lose)+len(stay); got != want && time.Since(lost) < window {
		b.Errorf("as long as a third may come back there are %d, and %d are counted", want, got)
	}
	for deadline := lost.Add(2*window + hubbubtest.Patience); count() != len(stay); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("when nobody can come back there are %d, and %d are counted", len(stay), count())
		}
	}
	if err := rawtest.Publish(s, "crowd", "who is left"); err != nil {
		b.Fatal(err)
	}
	for _, c := range stay {
		c.ExpectMessage("crowd", "who is left")
		c.ExpectNothing(0) // and never heard who came or went
	}
}

// The checker takes whatever the application may publish, and to whom, for right.
func TestTheCheckKnowsWhatTheApplicationMayPublish(t *testing.T) {
	asUser := hubbub.Hooks{Connect: func(_ context.Context, c *hubbub.Connect) error { c.User = "u"; return nil }}
	for name, p := range map[string]hubbub.Publication{
		"to a room, but one":     {Room: "kitchen", Exclude: "bob"},
		"to everyone, but one":   {Everyone: true, Exclude: "bob"},
		"to a user, but one":     {User: "u", Exclude: "bob"},
		"to a room by a name":    {Room: "kitchen", From: "the cook"},
		"to everyone by a name":  {Everyone: true, From: "the cook"},
		"to one client by name":  {Client: "bob", From: "the cook"},
		"to a user by a name":    {User: "u", From: "the cook"},
		"to a room once":         {Room: "kitchen", PublishID: "1"},
		"to a room under a name": {Room: "kitchen", Key: "soup"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := hubbubtest.NewServer(t, hubbub.Config{Hooks: asUser})
			ann, bob := srv.Connect("ann"), srv.Connect("bob")
			ann.Join("kitchen")
			bob.Join("kitchen")
			if p.Exclude != "" {
				p.Exclude = strings.ToUpper(bob.ID)
			}
			if p.Client != "" {
				p.Client = bob.ID
			}
			p.Content = "soup"
			for range 1 + len(p.PublishID) {
				if _, err := srv.Publish(t.Context(), p); err != nil {
					t.Fatal(err)
				}
			}
			srv.Check()
		})
	}
}

// The checker knows that the application may take clients out of rooms, and end their sessions.
func TestTheCheckKnowsWhomTheApplicationRemoves(t *testing.T) {
	for how, remove := range map[string]func(srv *hubbubtest.Server, client string) error{
		"from a room": func(srv *hubbubtest.Server, client string) error { return srv.Remove(t.Context(), "lobby", client) },
		"for good":    func(srv *hubbubtest.Server, client string) error { return srv.Disconnect(t.Context(), client, 0, "") },
	} {
		for _, noticed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, noticed: %t", how, noticed), func(t *testing.T) {
				srv := hubbubtest.NewServer(t, hubbub.Config{})
				ann, bob := srv.Connect("ann"), srv.Connect("bob")
				ann.Join("lobby")
				bob.Join("lobby")
				ann.Publish("lobby", "1")
				bob.ExpectMessage("lobby", "1")
				if err := remove(srv, bob.ID); err != nil {
					t.Fatal(err)
				}
				if noticed && how == "for good" {
					bob.ExpectClosed(4500)
				} else if noticed {
					bob.Request(map[string]any{"msg_type": "ping"})
				}
				if p := ann.Request(map[string]any{"msg_type": "presence", "room": "lobby"}); p.Count != 1 {
					t.Errorf("got %s", p)
				}
				ann.Publish("lobby", "2")
				if how == "from a room" {
					bob.Join("lobby")
					ann.Publish("lobby", "3")
				}
				ann.Request(map[string]any{"msg_type": "presence", "room": "lobby"})
				srv.Check()
			})
		}
	}
}
