package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/client"
	"example.com/hubbub/internal/rawtest"
)

// What was published and what came, while lines are cut at any byte, stand still, and servers crash: nothing that was
// acknowledged may be missing unless that was said, and nothing may come twice.

// keepsAll is a server whose rooms forget nothing in the time of a test, and whose clients are named by their tokens.
func keepsAll(named bool) hubbub.Config {
	all := hubbub.History{Messages: 100_000, Age: time.Hour, Bytes: 64 << 20}
	cfg := hubbub.Config{Rooms: []hubbub.RoomPolicy{{Match: "*", History: &all}}, ResumeWindow: 10 * time.Second, DedupWindow: time.Hour}
	if named {
		cfg.Authenticate = func(_ context.Context, c *hubbub.Credentials) (*hubbub.Identity, error) {
			return &hubbub.Identity{User: c.Token}, nil
		}
	}
	return cfg
}

// witness is one client, what became of its messages, and what it got.
type witness struct {
	name    string
	hub     *client.Hub
	mu      sync.Mutex
	acked   map[string]client.Position
	unknown int
	got     map[string][]client.Event // by room
}

const (
	roomsInCuts = 3
	perClient   = 300
)

func room(n int) string { return fmt.Sprintf("room %d", n) }

// listen takes all that comes of a room.
func (w *witness) listen(ctx context.Context, name string) {
	for e := range w.hub.Room(name).Events(ctx) {
		w.mu.Lock()
		w.got[name] = append(w.got[name], e)
		w.mu.Unlock()
	}
}

// talk publishes, in all rooms at a time and one after the other in each, with pauses of so long at most.
func (w *witness) talk(t *testing.T, seed uint64, pause time.Duration) {
	var all sync.WaitGroup
	for n := range roomsInCuts {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(n)))
			for i := range perClient / roomsInCuts {
				text := fmt.Sprintf("%s %d %d %s", w.name, n, i, strings.Repeat("x", r.IntN(300)))
				at, err := w.hub.Room(room(n)).Publish(t.Context(), text, client.PublishOptions{})
				w.mu.Lock()
				switch {
				case err == nil:
					w.acked[text] = at
				case errors.Is(err, client.ErrUnknown):
					w.unknown++
				default:
					t.Errorf("%s: publish: %v", w.name, err)
				}
				w.mu.Unlock()
				time.Sleep(time.Duration(r.Int64N(int64(pause))))
			}
		})
	}
	all.Wait()
}

// faults is a story of three clients whose lines break, and whose server crashes so many times. settle waits until what
// is on its way has arrived.
func faults(t *testing.T, w *world, seed uint64, o client.Options, cfg hubbub.Config, pause time.Duration, crashes int, settle func([]*witness)) []*witness {
	r, mu := rand.New(rand.NewPCG(seed, 1)), sync.Mutex{}
	w.next = func(l *line) {
		mu.Lock()
		defer mu.Unlock()
		switch l.left = r.IntN(12_000); r.IntN(10) {
		case 0:
			l.left = r.IntN(400) // in the handshake
		case 1:
			l.left = -1
			time.AfterFunc(time.Duration(r.IntN(5000))*time.Millisecond, l.stall)
		}
	}
	var all []*witness
	for i := range 3 {
		name := fmt.Sprintf("client%d", i)
		o.HTTPClient, o.DedupWindow = w.options().HTTPClient, time.Hour
		if cfg.Authenticate != nil {
			o.Token = func(context.Context) (string, error) { return name, nil }
		}
		h := must[*client.Hub](t)(client.New(address, o))
		t.Cleanup(func() { h.Close() })
		all = append(all, &witness{name: name, hub: h, acked: map[string]client.Position{}, got: map[string][]client.Event{}})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var listening, talking sync.WaitGroup
	for _, one := range all {
		for n := range roomsInCuts {
			join(t, one.hub.Room(room(n)))
			listening.Go(func() { one.listen(ctx, room(n)) })
		}
	}
	for i, one := range all {
		talking.Go(func() { one.talk(t, seed+uint64(i), pause) })
	}
	for range crashes {
		time.Sleep(5 * time.Second)
		w.crash()
		time.Sleep(time.Second)
		w.start(cfg)
	}
	talking.Wait()
	w.mu.Lock()
	w.next = nil // the world is well again
	w.mu.Unlock()
	w.cut()
	for n := range roomsInCuts {
		for _, one := range all { // what was published before is there when the answer is
			waitFor(t, one.hub, client.Online)
			must[client.Page](t)(one.hub.Room(room(n)).History(within(t), client.HistoryOptions{Limit: 1}))
		}
	}
	settle(all)
	cancel()
	listening.Wait()
	return all
}

// inBubble is faults by a bubble's clock.
func inBubble(t *testing.T, seed uint64, cfg hubbub.Config, crashes int) []*witness {
	return faults(t, newWorld(t, cfg), seed, client.Options{}, cfg, 400*time.Millisecond, crashes, func([]*witness) {
		time.Sleep(2 * time.Minute)
		synctest.Wait()
	})
}

// judge fails the test with what is missing and was not told, and with what came twice. told says that Lost may be.
func judge(t *testing.T, all []*witness, told bool) {
	t.Helper()
	came, lost, unknown := 0, 0, 0
	for _, one := range all {
		unknown += one.unknown
		if len(one.acked)+one.unknown != perClient {
			t.Errorf("%s: %d acknowledged, %d unknown, of %d", one.name, len(one.acked), one.unknown, perClient)
		}
		for name, events := range one.got {
			seen := map[string]bool{}
			var at client.Position
			for _, e := range events {
				switch e := e.(type) {
				case client.Message:
					came++
					if text := string(e.Content); seen[text] {
						t.Errorf("%s got twice: %.30s", one.name, text)
					}
					seen[string(e.Content)] = true
					if at.Epoch == "" {
						at.Epoch = e.Position.Epoch
					}
					one.complete(t, all, name, at, e.Position)
					at = e.Position
				case client.Lost:
					if lost++; !told {
						t.Errorf("%s: %+v", one.name, e)
					}
					at = e.Position
				default:
					t.Errorf("%s: %+v", one.name, e)
				}
			}
			one.complete(t, all, name, at, client.Position{Epoch: at.Epoch, Offset: 1 << 50})
		}
	}
	t.Logf("%d messages came, %d times lost was told, %d unknown", came, lost, unknown)
}

// complete says that nobody else's message lies between two that a client got one after the other.
func (w *witness) complete(t *testing.T, all []*witness, room string, from, to client.Position) {
	t.Helper()
	if from.Epoch != to.Epoch || to.Offset <= from.Offset {
		t.Errorf("%s: %v came after %v in %s", w.name, to, from, room)
	}
	for _, other := range all {
		for text, p := range other.acked {
			if other != w && p.Epoch == from.Epoch && p.Offset > from.Offset && p.Offset < to.Offset && "room "+strings.Fields(text)[1] == room {
				t.Errorf("%s did not get %.20s at %v in %s", w.name, text, p, room)
			}
		}
	}
}

func TestNothingIsLostOrDoubledThroughCuts(t *testing.T) {
	for seed := range uint64(12) {
		for _, named := range []bool{false, true} {
			t.Run(fmt.Sprintf("seed %d named %v", seed, named), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					all := inBubble(t, seed, keepsAll(named), 0)
					judge(t, all, false)
					for _, one := range all {
						if named && one.unknown > 0 {
							t.Errorf("%s: %d unknown, and the server knows who it is", one.name, one.unknown)
						}
					}
				})
			})
		}
	}
}

func TestLossIsToldAndNothingDoubledThroughCrashes(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { judge(t, inBubble(t, seed, keepsAll(true), 3), true) })
		})
	}
}

// Over real sockets, by the real clock.
func TestNothingIsLostOrDoubledOverSockets(t *testing.T) {
	cfg := keepsAll(true)
	w := &world{t: t, addr: rawtest.Start(t, cfg).Addr}
	o := client.Options{MinDelay: time.Millisecond, MaxDelay: 20 * time.Millisecond, PingInterval: 500 * time.Millisecond, PongTimeout: time.Second}
	judge(t, faults(t, w, 1, o, cfg, 20*time.Millisecond, 0, func(all []*witness) {
		rawtest.Eventually(t, "all have what the others published", func() bool {
			for _, one := range all {
				one.mu.Lock()
				n := 0
				for _, events := range one.got {
					for _, e := range events {
						if m, is := e.(client.Message); is && !strings.HasPrefix(string(m.Content), `"`+one.name) {
							n++
						}
					}
				}
				one.mu.Unlock()
				if n < (len(all)-1)*perClient {
					return false
				}
			}
			return true
		})
	}), false)
	if w.dials() < 20 {
		t.Errorf("%d connections: the lines break too seldom for this test", w.dials())
	}
}
