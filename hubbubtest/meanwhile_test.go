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
				srv := hubbubtest.NewServer(t, hubbub.Config{MaxMessageBytes: message, SendQueueBytes: message, SendQueueAge: time.Hour, PingInterval: time.Hour, PongTimeout: time.Hour})
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
