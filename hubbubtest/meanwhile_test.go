package hubbubtest_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
	"example.com/hubbub/internal/rawtest"
)

// One thing while another is under way.

// gate holds hooks up until it is opened.
type gate struct {
	waiting atomic.Int64
	open    chan struct{}
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) pass() {
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	<-g.open
}

// What a hook decides for a client that has gone meanwhile reaches nobody, also not the one that has its place now.
func TestWhatAHookDecidesForOneWhoIsGone(t *testing.T) {
	for name, msg := range map[string]map[string]any{
		"join":    {"msg_type": "join_room", "room": "r", "id": 1},
		"resume":  {"msg_type": "resume", "rooms": map[string]any{"r": nil}, "id": 1},
		"publish": {"msg_type": "room_message", "room": "r", "content": "from the grave", "id": 1},
		"chat":    {"msg_type": "chat", "content": "from the grave", "id": 1},
		"direct":  {"msg_type": "direct_message", "content": "from the grave", "id": 1},
		"handler": {"msg_type": "ask", "id": 1},
	} {
		for _, end := range []string{"good-bye", "cut"} {
			t.Run(name+", "+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g := newGate()
					var slow atomic.Value // the client whose hooks are held up
					slow.Store("")
					hold := func(client string) {
						if client == slow.Load() {
							g.pass()
						}
					}
					srv := hubbubtest.NewServer(t, hubbub.Config{Workers: 1, ResumeWindow: -1,
						Handlers: map[string]hubbub.Handler{"ask": func(_ context.Context, m *hubbub.Message) (any, error) {
							hold(m.Client)
							return "an answer", nil
						}},
						Hooks: hubbub.Hooks{
							Join:    func(_ context.Context, j *hubbub.Join) error { hold(j.Client); return nil },
							Publish: func(_ context.Context, p *hubbub.Publish) error { hold(p.Client); return nil },
						}})
					bob := srv.Connect("bob")
					bob.Join("r")
					ann := srv.Connect("ann")
					slow.Store(ann.ID)
					msg["to"] = bob.ID
					ann.Send(msg)
					hubbubtest.Step(0)
					if g.waiting.Load() != 1 {
						t.Fatal("no hook was asked")
					}
					if end == "cut" {
						ann.Drop()
					} else {
						ann.Close()
					}
					hubbubtest.Step(0)
					cat := srv.Connect("cat") // in the place that ann had
					close(g.open)
					hubbubtest.Step(time.Second)
					cat.ExpectNothing(time.Second)
					bob.ExpectNothing(time.Second)
					if a := bob.Request(map[string]any{"msg_type": "presence", "room": "r"}); a.Count != 1 {
						t.Errorf("in the room are %d, want bob alone", a.Count)
					}
				})
			})
		}
	}
}

// Behind a message whose hook runs a few wait, then the client isn't read, and its silence is ours; in the end all are
// obeyed, in order.
func TestWhatWaitsForAHookIsBounded(t *testing.T) {
	const all, size = 100, 1000
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		srv := hubbubtest.NewServer(t, hubbub.Config{HookTimeout: time.Hour, PingInterval: 2 * time.Second, PongTimeout: 2 * time.Second, Hooks: hubbub.Hooks{
			Publish: func(_ context.Context, p *hubbub.Publish) error {
				if len(p.Content) < 10 { // the first
					g.pass()
				}
				return nil
			},
		}})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		bob.Join("r")
		before := figure(t, srv, "hubbub_messages_received_total")
		ann.Send(map[string]any{"msg_type": "room_message", "room": "r", "content": 0})
		for i := range all {
			ann.Send(map[string]any{"msg_type": "room_message", "room": "r", "content": fmt.Sprint(i+1, strings.Repeat("x", size))})
		}
		hubbubtest.Step(time.Minute)        // many times longer than a client may be silent
		const few, read = 8, 4 << 10 / size // what one read may bring beyond
		if n := figure(t, srv, "hubbub_messages_received_total") - before; n < few || n > 1+few+2*read {
			t.Errorf("%v messages were read while a hook runs, want about %d", n, few)
		}
		bob.ExpectNothing(time.Second)
		close(g.open)
		bob.ExpectMessage("r", 0)
		for i := range all {
			bob.ExpectMessage("r", fmt.Sprint(i+1, strings.Repeat("x", size)))
		}
		srv.Check()
	})
}

// The clock of one who wasn't read begins anew when it is.
func TestThePatienceBeginsAnewBehindAPause(t *testing.T) {
	const ping, pong = 10 * time.Second, 10 * time.Second
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		srv := hubbubtest.NewServer(t, hubbub.Config{HookTimeout: time.Hour, PingInterval: ping, PongTimeout: pong, Hooks: hubbub.Hooks{
			Publish: func(_ context.Context, p *hubbub.Publish) error {
				if string(p.Content) == "0" {
					g.pass()
				}
				return nil
			},
		}})
		ann := srv.Connect("ann")
		for i := range 9 { // one whose hook runs, and as many behind it as make it unread
			ann.Send(map[string]any{"msg_type": "chat", "content": i})
		}
		hubbubtest.Step(0)
		ann.Link.Stall(hubbubtest.ToServer)
		hubbubtest.Step(5*ping - 100*time.Millisecond)
		close(g.open)
		hubbubtest.Step(ping + pong - time.Millisecond)
		if n := figure(t, srv, `hubbub_closed_total{code="4002"}`); n != 0 {
			t.Error("it was closed early: while it isn't read its silence doesn't count")
		}
		ann.ExpectClosed(4002)
	})
}

// Shutdown waits for whatever runs of the application's code, as long as its context allows.
func TestShutdownWaitsForAHookOfEveryKind(t *testing.T) {
	const takes = 2 * time.Second
	for name, begin := range map[string]func(c *hubbubtest.Client){
		"Join":       func(c *hubbubtest.Client) { c.Send(map[string]any{"msg_type": "join_room", "room": "r"}) },
		"Publish":    func(c *hubbubtest.Client) { c.Send(map[string]any{"msg_type": "chat", "content": 1}) },
		"Handler":    func(c *hubbubtest.Client) { c.Send(map[string]any{"msg_type": "ask"}) },
		"Disconnect": func(c *hubbubtest.Client) {},
		"Joined":     func(c *hubbubtest.Client) { c.Join("slow") },
		"Left":       func(c *hubbubtest.Client) { c.Join("slow") },
		"Occupied":   func(c *hubbubtest.Client) { c.Join("slow") },
		"Vacated":    func(c *hubbubtest.Client) { c.Join("slow") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var begun, ended atomic.Int64
				work := func(of string) {
					if of == name {
						begun.Add(1)
						time.Sleep(takes)
						ended.Add(1)
					}
				}
				srv := hubbubtest.NewServer(t, hubbub.Config{
					Handlers: map[string]hubbub.Handler{"ask": func(context.Context, *hubbub.Message) (any, error) { work("Handler"); return nil, nil }},
					Hooks: hubbub.Hooks{
						Join:       func(context.Context, *hubbub.Join) error { work("Join"); return nil },
						Publish:    func(context.Context, *hubbub.Publish) error { work("Publish"); return nil },
						Disconnect: func(context.Context, *hubbub.Disconnect) { work("Disconnect") },
						Joined:     func(context.Context, *hubbub.Joined) { work("Joined") },
						Left:       func(context.Context, *hubbub.Left) { work("Left") },
						Occupied:   func(context.Context, string) { work("Occupied") },
						Vacated:    func(context.Context, string) { work("Vacated") },
					}})
				ann := srv.Connect("ann")
				begin(ann)
				hubbubtest.Step(0)
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				began := time.Now()
				if err := srv.Shutdown(ctx); err != nil {
					t.Error(err)
				}
				if begun.Load() != 1 || ended.Load() != 1 {
					t.Errorf("Shutdown is back after %s: %d calls have begun, %d have ended", time.Since(began), begun.Load(), ended.Load())
				}
				if took := time.Since(began); took < takes {
					t.Errorf("Shutdown took %s, and the hook %s", took, takes)
				}
			})
		})
	}
}

// What one client may leave unsent of its own answers is 64 KiB and one message: up to there all of it arrives when it
// reads on, beyond it is closed. The line and what is on the way to it hold some more.
func TestAnswersThatNobodyReadsAreBounded(t *testing.T) {
	const message = 8 << 10 // the largest
	const buffer = 4 << 10  // of the line
	const pump = 64 << 10   // on the way to it
	pong := len(`{"msg_type":"pong","time":1760000000123,"id":"` + strings.Repeat("x", 64) + `"}`)
	for name, c := range map[string]struct {
		bytes int
		lives bool
	}{
		"within": {64<<10 + message - 1000, true},
		"beyond": {64<<10 + message + pump + buffer + 1000, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := hubbubtest.NewServer(t, hubbub.Config{MaxMessageBytes: message, SendQueueBytes: message, SendQueueAge: time.Hour, PingInterval: 24 * time.Hour, PongTimeout: time.Hour})
				ann, err := srv.ConnectWith("ann", hubbubtest.Options{Buffer: buffer})
				if err != nil {
					t.Fatal(err)
				}
				ann.Link.Stall(hubbubtest.ToClient)
				n := c.bytes / (pong + 2)
				id := func(i int) string { return fmt.Sprintf("%064d", i) }
				for i := range n {
					ann.SendText(`{"msg_type":"ping","id":"` + id(i) + `"}`)
				}
				hubbubtest.Step(time.Second)
				if closed := figure(t, srv, `hubbub_closed_total{code="4000"}`) == 1; closed == c.lives {
					t.Errorf("with %d bytes of answers unread: closed is %t", c.bytes, closed)
				}
				ann.Link.Resume(hubbubtest.ToClient)
				if !c.lives {
					ann.ExpectClosed(4000)
					return
				}
				for i := range n {
					if m := ann.Receive(); m.Type != "pong" || string(m.ID) != `"`+id(i)+`"` {
						t.Fatalf("got %s, want the answer to %d", m, i)
					}
				}
				ann.Ping()
			})
		})
	}
}

// What a client misses goes out of the room's history while the client catches up: it is told of exactly that, and gets
// all else.
func TestWhatAgesWhileAClientCatchesUpIsTold(t *testing.T) {
	const kept = 60 // messages of 4 KB each
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{
			MaxMessageBytes: 8 << 10, SendQueueBytes: 32 << 10,
			Rooms: []hubbub.RoomPolicy{{Match: "*", History: &hubbub.History{Messages: kept, Bytes: 8 << 20}}},
		})
		filler := strings.Repeat("x", 4000)
		latest := int64(0)
		publish := func(n int) {
			for range n {
				latest++
				if err := rawtest.Publish(srv, "r", fmt.Sprint(latest, filler)); err != nil {
					t.Fatal(err)
				}
			}
			hubbubtest.Step(0)
		}
		ann, err := srv.ConnectWith("ann", hubbubtest.Options{Buffer: 4 << 10})
		if err != nil {
			t.Fatal(err)
		}
		ann.Join("r")
		publish(1)
		ann.Receive()
		since := ann.Position("r")
		ann.Leave("r")
		publish(kept - 1)
		ann.Link.Stall(hubbubtest.ToClient)
		ann.Send(map[string]any{"msg_type": "join_room", "room": "r", "since": since, "id": "back"})
		hubbubtest.Step(0)
		publish(kept / 2)
		hubbubtest.Step(time.Second)
		publish(kept / 4)
		ann.Link.Resume(hubbubtest.ToClient)
		if m := ann.Receive(); m.Type != "joined" || !m.Recovered || m.Offset != kept {
			t.Fatalf("got %s", m)
		}
		had, gaps := since.Offset, 0
		for had < latest {
			switch m := ann.Receive(); {
			case m.Type == "room_message" && m.Offset == had+1:
				had++
			case m.Type == "gap" && m.Room == "r" && m.Reason == "history" && m.FromOffset == had+1 && m.ToOffset >= m.FromOffset && int64(m.Count) == m.ToOffset-had:
				gaps++
				had = m.ToOffset
			default:
				t.Fatalf("behind message %d came %.200s", had, m)
			}
		}
		if gaps == 0 {
			t.Error("nothing was lost: the test shows nothing")
		}
		publish(1)
		ann.ExpectMessage("r", fmt.Sprint(latest, filler))
		srv.Check()
	})
}

// Who goes out of a room that it is still catching up with hears no more of it, be it that it leaves or that it is
// taken out.
func TestWhoGoesWhileItCatchesUpHearsNoMore(t *testing.T) {
	for _, kicked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			srv := hubbubtest.NewServer(t, hubbub.Config{
				MaxMessageBytes: 8 << 10, SendQueueBytes: 32 << 10,
				Rooms: []hubbub.RoomPolicy{{Match: "*", History: &hubbub.History{Messages: 100, Bytes: 8 << 20}}},
			})
			ann, err := srv.ConnectWith("ann", hubbubtest.Options{Buffer: 4 << 10})
			if err != nil {
				t.Fatal(err)
			}
			ann.Join("r")
			ann.Publish("r", "kept, so that the room stays")
			since := ann.Position("r")
			ann.Leave("r")
			for i := range 60 {
				if err := rawtest.Publish(srv, "r", fmt.Sprint(i, strings.Repeat("x", 4000))); err != nil {
					t.Fatal(err)
				}
			}
			ann.Link.Stall(hubbubtest.ToClient)
			ann.Send(map[string]any{"msg_type": "join_room", "room": "r", "since": since, "id": "back"})
			hubbubtest.Step(0)
			if kicked {
				if err := srv.Remove(t.Context(), "r", ann.Welcome.ClientID); err != nil {
					t.Fatal(err)
				}
			} else {
				ann.Send(map[string]any{"msg_type": "leave_room", "room": "r", "id": "leave"})
			}
			hubbubtest.Step(0)
			ann.Link.Resume(hubbubtest.ToClient)
			heard := 0
			for m := ann.Receive(); m.Type != "left"; m = ann.Receive() {
				if m.Type == "room_message" {
					heard++
				}
			}
			if heard == 0 || heard > 50 {
				t.Fatalf("it heard %d messages before it was out: the test shows nothing", heard)
			}
			ann.ExpectNothing(time.Second)
		})
	}
}

// Who joins a room again while it is still catching up there is told the position up to which it has been sent the
// room's messages: what is behind that still comes, and were it lost the client would have to ask for it.
func TestWhoJoinsAgainWhileItCatchesUpIsToldWhereItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{
			MaxMessageBytes: 8 << 10, SendQueueBytes: 32 << 10,
			Rooms: []hubbub.RoomPolicy{{Match: "*", History: &hubbub.History{Messages: 100, Bytes: 8 << 20}}},
		})
		ann, err := srv.ConnectWith("ann", hubbubtest.Options{Buffer: 4 << 10})
		if err != nil {
			t.Fatal(err)
		}
		ann.Join("r")
		if err := rawtest.Publish(srv, "r", "kept, so that the room stays"); err != nil {
			t.Fatal(err)
		}
		ann.Receive()
		since := ann.Position("r")
		ann.Leave("r")
		const missed = 60
		for i := range missed {
			if err := rawtest.Publish(srv, "r", fmt.Sprint(i, strings.Repeat("x", 4000))); err != nil {
				t.Fatal(err)
			}
		}
		ann.Link.Stall(hubbubtest.ToClient)
		ann.Send(map[string]any{"msg_type": "join_room", "room": "r", "since": since, "id": "back"})
		hubbubtest.Step(0)
		for _, id := range []string{"again", "with since"} {
			m := map[string]any{"msg_type": "join_room", "room": "r", "id": id}
			if id == "with since" {
				m["since"] = since
			}
			ann.Send(m)
		}
		hubbubtest.Step(0)
		ann.Link.Resume(hubbubtest.ToClient)
		had, again := since.Offset, 0
		for had < since.Offset+missed {
			switch m := ann.Receive(); {
			case m.Type == "joined" && string(m.ID) == `"back"` && m.Recovered:
			case m.Type == "joined":
				again++
				if m.Offset != had || m.Offset == since.Offset+missed {
					t.Errorf("it is told to be at %d, and was sent all up to %d: %s", m.Offset, had, m)
				}
			case m.Type == "room_message" && m.Offset == had+1:
				had++
			default:
				t.Fatalf("behind message %d came %.200s", had, m)
			}
		}
		if again != 2 {
			t.Errorf("%d answers to the joins came in between: the test shows nothing", again)
		}
		srv.Check()
	})
}

// Another user's token brings neither its session nor harm to it, whether its connection stands or has gone.
func TestASessionIsItsUsersAlone(t *testing.T) {
	for _, workers := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			srv := hubbubtest.NewServer(t, hubbub.Config{Workers: workers, Hooks: hubbub.Hooks{Connect: named}})
			enter := func(user, token string) *hubbubtest.Client {
				c, err := srv.ConnectWith(user, hubbubtest.Options{Path: "/ws?user=" + user, Token: token})
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			ann := enter("ann", "")
			ann.Join("r")
			token := ann.Welcome.ResumeToken
			stranger := func() {
				t.Helper()
				bob := enter("bob", token)
				if bob.Welcome.Resumed || bob.ID == ann.ID {
					t.Errorf("bob is in ann's session: %s", bob.Welcome)
				}
				bob.Publish("r", "from bob "+bob.ID)
				bob.Close()
			}
			stranger()
			if m := ann.Receive(); m.User != "bob" {
				t.Errorf("got %s", m)
			}
			ann.Ping() // it is still there
			ann.Drop()
			hubbubtest.Step(0)
			stranger()
			back := ann.Reconnect()
			if !back.Welcome.Resumed || back.ID != ann.ID {
				t.Errorf("ann is not in her own session: %s", back.Welcome)
			}
			if m := back.Receive(); m.User != "bob" {
				t.Errorf("got %s", m)
			}
			srv.Check()
		})
	}
}
