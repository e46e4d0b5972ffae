package hubbub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// diary is what the hooks saw, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) add(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// A hook compares ids with those that it was told, however a client writes them.
func TestTheHookPublishGetsTheIDAsItIs(t *testing.T) {
	to := make(chan string, 1)
	s := rawtest.Start(t, hubbub.Config{Hooks: hubbub.Hooks{Publish: func(_ context.Context, p *hubbub.Publish) error {
		to <- p.To
		return nil
	}}})
	a := enter(t, s)
	for text, want := range map[string]string{strings.ToUpper(a.id): a.id, "NOBODY": "NOBODY"} {
		a.Text(`{"msg_type":"direct_message","to":"` + text + `","content":1}`)
		if got := <-to; got != want {
			t.Errorf("to %s: the hook got %s, want %s", text, got, want)
		}
		a.NextJSON()
	}
}

func TestHooksFollowAClientsLife(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var d diary
		names := map[string]string{}
		var mu sync.Mutex
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 2, Hooks: hubbub.Hooks{
			Connect: func(_ context.Context, c *hubbub.Connect) error {
				c.User = c.Request.URL.Query().Get("name")
				mu.Lock()
				names[c.Client] = c.User
				mu.Unlock()
				d.add("connect %s", c.User)
				return nil
			},
			Join: func(_ context.Context, j *hubbub.Join) error {
				d.add("join %s %s", j.User, j.Room)
				if j.Room == "private" {
					return &hubbub.Error{Code: hubbub.Forbidden, Message: "members only"}
				}
				return nil
			},
			Publish: func(_ context.Context, p *hubbub.Publish) error {
				d.add("publish %s %s%s %s", p.User, p.Room, p.To, p.Content)
				if string(p.Content) == `"damn"` {
					p.Content = json.RawMessage(`"d**n"`)
				}
				if string(p.Content) == `"spam"` {
					return &hubbub.Error{Code: hubbub.RateLimited, Message: "enough"}
				}
				return nil
			},
			Disconnect: func(_ context.Context, e *hubbub.Disconnect) { d.add("disconnect %s %d", e.User, e.Code) },
		}})
		enterAs := func(name string) *member {
			m := &member{Client: rawtest.Dial(t, s, "/ws?name="+name)}
			m.id = m.NextJSON()["client_id"].(string)
			mu.Lock()
			defer mu.Unlock()
			if names[m.id] != name {
				t.Errorf("the client %s is not the one that Connect saw", m.id)
			}
			return m
		}
		ann, bob := enterAs("ann"), enterAs("bob")
		ann.join("r")
		bob.join("r")
		if got := ann.ask(`{"msg_type":"join_room","room":"private"}`); got["code"] != "forbidden" || got["message"] != "members only" {
			t.Errorf("got %v", got)
		}
		if n := s.RoomCount(); n != 1 {
			t.Errorf("%d rooms: a refused join made one", n)
		}
		ann.Text(`{"msg_type":"room_message","room":"r","content":"damn","id":"ask"}`)
		ann.gets(map[string]any{"msg_type": "ack", "id": "ask"})
		bob.gets(map[string]any{"msg_type": "room_message", "from": ann.id, "content": "d**n", "room": "r", "user": "ann"})
		if got := ann.ask(`{"msg_type":"chat","content":"spam"}`); got["code"] != "rate_limited" {
			t.Errorf("got %v", got)
		}
		ann.ask(`{"msg_type":"direct_message","to":"` + bob.id + `","content":1}`)
		bob.gets(map[string]any{"msg_type": "direct_message", "from": ann.id, "content": 1.0, "user": "ann"})
		ann.SendClose(1000, "")
		ann.ExpectClose(1000)
		rawtest.Eventually(t, "ann's end is told", func() bool { return slices.Contains(d.read(), "disconnect ann 1000") })
		bob.Reset()
		rawtest.Eventually(t, "bob's end is told", func() bool { return slices.Contains(d.read(), "disconnect bob 1006") })
		want := []string{"connect ann", "connect bob", "join ann r", "join bob r", "join ann private", `publish ann r "damn"`,
			`publish ann  "spam"`, "publish ann " + bob.id + " 1", "disconnect ann 1000", "disconnect bob 1006"}
		if got := d.read(); !slices.Equal(got, want) {
			t.Errorf("the hooks saw\n%q, want\n%q", got, want)
		}
	})
}

func TestConnectRefuses(t *testing.T) {
	t.Parallel()
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var gone diary
		s := rawtest.Start(t, hubbub.Config{IO: io, Logger: quietLogger(), HookTimeout: time.Second, Hooks: hubbub.Hooks{
			Connect: func(ctx context.Context, c *hubbub.Connect) error {
				switch c.Request.URL.RawQuery {
				case "no":
					return &hubbub.Error{Code: hubbub.Forbidden, Message: "not you"}
				case "later":
					return &hubbub.Error{Code: hubbub.RateLimited, Message: "slowly"}
				case "broken":
					return errors.New("secret")
				case "hang":
					<-ctx.Done()
					return ctx.Err()
				case "panic":
					panic("planted")
				case "long":
					c.User = strings.Repeat("x", 256)
				}
				return nil
			},
			Disconnect: func(context.Context, *hubbub.Disconnect) { gone.add("somebody") },
		}})
		for query, want := range map[string]struct {
			code   int
			reason string
		}{
			"no": {4501, "not you"}, "later": {1013, "slowly"}, "broken": {1013, "try again later"},
			"hang": {1013, "try again later"}, "panic": {1013, "try again later"}, "long": {1013, "try again later"},
		} {
			c := rawtest.Dial(t, s, "/ws?"+query)
			op, p := c.Next()
			if op != wsclient.Close || string(p) != string(wsclient.ClosePayload(want.code, want.reason)) {
				t.Errorf("%s: got %v %s, want a Close with %d %s", query, op, rawtest.Brief(p), want.code, want.reason)
			}
			c.SendClose(want.code, "")
			c.ExpectEOF()
		}
		rawtest.Eventually(t, "Disconnect is called for the one whom the hook had let in, with a name that is too long", func() bool { return len(gone.read()) == 1 })
		fine := rawtest.Dial(t, s, "/ws?fine")
		fine.NextJSON()
		fine.CloseNow()
		rawtest.Eventually(t, "the other one who was let in is told of", func() bool { return len(gone.read()) == 2 })
	})
}

// What a client sends behind a message whose hook runs comes behind it, whatever the kinds.
func TestHooksKeepAClientsOrder(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var d diary
		s := rawtest.Start(t, hubbub.Config{IO: io, Hooks: hubbub.Hooks{
			Join: func(_ context.Context, j *hubbub.Join) error {
				time.Sleep(time.Duration(len(j.Room)%3) * time.Millisecond)
				return nil
			},
			Publish: func(_ context.Context, p *hubbub.Publish) error {
				time.Sleep(time.Millisecond)
				d.add("%s", p.Content)
				return nil
			},
			Disconnect: func(context.Context, *hubbub.Disconnect) { d.add("disconnect") },
		}})
		a, b := enter(t, s), enter(t, s).join("r")
		const n = 100
		var script []byte // all in one packet
		for i := range n {
			script = append(script, rawtest.Frame(wsclient.Text, true, fmt.Appendf(nil, `{"msg_type":"join_room","room":"%s","id":%d}`, strings.Repeat("x", i%5+1), 2*i))...)
			script = append(script, rawtest.Frame(wsclient.Text, true, fmt.Appendf(nil, `{"msg_type":"leave_room","room":"%s"}`, strings.Repeat("x", i%5+1)))...)
			script = append(script, rawtest.Frame(wsclient.Text, true, fmt.Appendf(nil, `{"msg_type":"room_message","room":"r","content":%d,"id":%d}`, i, 2*i+1))...)
		}
		a.SendRaw(script)
		for i := range 2 * n {
			if got := a.NextJSON(); got["id"] != float64(i) {
				t.Fatalf("answer %d is %v", i, got)
			}
		}
		for i := range n {
			b.gets(roomMessage(a, "r", float64(i)))
		}
		if n := s.RoomCount(); n != 1 {
			t.Errorf("%d rooms are left, want b's", n)
		}
		// The end of a connection whose hook runs is told behind it.
		a.Text(`{"msg_type":"room_message","room":"r","content":"last"}`)
		rawtest.Eventually(t, "the last one is under way", func() bool { return len(d.read()) >= n })
		a.Reset()
		rawtest.Eventually(t, "the end is told", func() bool { return slices.Contains(d.read(), "disconnect") })
		if lines := d.read(); lines[len(lines)-1] != "disconnect" {
			t.Errorf("behind the end came %q", lines[len(lines)-1])
		}
	})
}

// Who is refused by Join doesn't get at the room by reading: with a Join alone members read, and a Read decides for the
// others.
func TestWhoMayReadARoom(t *testing.T) {
	var d diary
	join := func(_ context.Context, j *hubbub.Join) error {
		d.add("join %s", j.Room)
		if j.Room == "secret" {
			return &hubbub.Error{Code: hubbub.Forbidden, Message: "not you"}
		}
		return nil
	}
	read := func(_ context.Context, r *hubbub.Read) error {
		d.add("read %s by %s %s", r.Room, r.User, r.Client)
		time.Sleep(time.Duration(len(r.Room)) * time.Millisecond) // what comes behind waits
		if r.Room == "secret" {
			return &hubbub.Error{Code: hubbub.Forbidden, Message: "not for you"}
		}
		return nil
	}
	connect := func(_ context.Context, c *hubbub.Connect) error { c.User = "ann"; return nil }
	for name, story := range map[string]struct {
		hooks          hubbub.Hooks
		secret, public string // the code for one who isn't a member
		asked          bool
	}{
		"no hook":       {hubbub.Hooks{}, "", "", false},
		"join":          {hubbub.Hooks{Join: join}, "not_member", "not_member", false},
		"join and read": {hubbub.Hooks{Join: join, Read: read}, "forbidden", "", true},
		"read":          {hubbub.Hooks{Read: read}, "forbidden", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			rawtest.EachIO(t, func(t *testing.T, io string) {
				d.lines = nil
				story.hooks.Connect = connect
				s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 2, Hooks: story.hooks})
				if err := errors.Join(rawtest.Publish(s, "secret", "x"), rawtest.Publish(s, "public", "x")); err != nil {
					t.Fatal(err)
				}
				m := enter(t, s)
				check := func(kind, room, want string) {
					t.Helper()
					got := m.ask(`{"msg_type":"` + kind + `","room":"` + room + `"}`)
					if code, _ := got["code"].(string); code != want || code == "" && got["msg_type"] != kind {
						t.Errorf("%s of %s: got %v, want %q", kind, room, got, want)
					}
				}
				var want []string
				for _, kind := range []string{"history", "presence"} {
					check(kind, "secret", story.secret)
					check(kind, "public", story.public)
					if story.asked {
						want = append(want, "read secret by ann "+m.id, "read public by ann "+m.id)
					}
				}
				if got := d.read(); !slices.Equal(got, want) {
					t.Errorf("the hooks saw %q, want %q", got, want)
				}
				if story.secret != "" { // an error is told without an id too
					m.Text(`{"msg_type":"history","room":"secret"}`)
					if got := m.NextJSON(); got["code"] != story.secret || got["retry"] != false {
						t.Errorf("got %v", got)
					}
				}
				m.join("public") // a member may, and nobody is asked
				d.mu.Lock()
				d.lines = nil
				d.mu.Unlock()
				check("history", "public", "")
				check("presence", "public", "")
				if got := d.read(); len(got) > 0 {
					t.Errorf("for a member: %q", got)
				}
				m.ask(`{"msg_type":"leave_room","room":"public"}`)
				check("history", "public", story.public)
				m.Text(`{"msg_type":"history","room":"secret","id":1}`) // in order: the answers are too
				m.Text(`{"msg_type":"presence","room":"public","id":2}`)
				m.Text(`{"msg_type":"leave_room","room":"public","id":3}`)
				for id := range 3 {
					if got := m.NextJSON(); got["id"] != float64(id+1) {
						t.Errorf("got %v, want the answer to %d", got, id+1)
					}
				}
			})
		})
	}
}

// Shutdown returns behind the last Disconnect.
func TestShutdownWaitsForHooks(t *testing.T) {
	t.Parallel()
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var d diary
		s := rawtest.Start(t, hubbub.Config{IO: io, MaxHookCalls: 2, Hooks: hubbub.Hooks{
			Disconnect: func(context.Context, *hubbub.Disconnect) { time.Sleep(5 * time.Millisecond); d.add("gone") },
		}})
		for range 20 {
			enter(t, s)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		s.Shutdown(ctx) // nobody answers the Close
		if got := len(d.read()); got != 20 {
			t.Errorf("%d of 20 ends were told", got)
		}
	})
}

func ExampleHooks() {
	srv, err := hubbub.New(hubbub.Config{Hooks: hubbub.Hooks{
		Connect: func(ctx context.Context, c *hubbub.Connect) error {
			cookie, err := c.Request.Cookie("session")
			if err != nil {
				return &hubbub.Error{Code: hubbub.Forbidden, Message: "log in first"}
			}
			c.User = userOf(cookie)
			return nil
		},
		Join: func(ctx context.Context, j *hubbub.Join) error {
			if strings.HasPrefix(j.Room, "private:") && j.Room != "private:"+j.User {
				return &hubbub.Error{Code: hubbub.Forbidden, Message: "not your room"}
			}
			return nil
		},
		Read: func(ctx context.Context, r *hubbub.Read) error { // of those who aren't in the room
			if !strings.HasPrefix(r.Room, "public:") {
				return &hubbub.Error{Code: hubbub.NotMember, Message: "join first"}
			}
			return nil
		},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Shutdown(context.Background())
	fmt.Println(srv.Connections(), "connections")
	// Output: 0 connections
}

func userOf(c *http.Cookie) string { return c.Value }

// Who hangs up while Connect runs is no error of the hook's.
func TestHangUpsDuringConnectAreNoErrors(t *testing.T) {
	entered := make(chan struct{})
	s := rawtest.Start(t, hubbub.Config{HookTimeout: time.Hour, Hooks: hubbub.Hooks{Connect: func(ctx context.Context, _ *hubbub.Connect) error {
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}}})
	const n = 50
	for range n {
		c := rawtest.Connect(t, s)
		c.SendRaw([]byte(rawtest.Upgrade(s, "/ws")))
		<-entered
		c.CloseNow()
	}
	rawtest.Eventually(t, "each is told at debug", func() bool {
		return strings.Count(s.Log.String(), "level=DEBUG msg=\"nobody waits for the hook Connect any more") == n
	})
	if log := s.Log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=WARN") {
		t.Errorf("the log: %s", log)
	}
}
