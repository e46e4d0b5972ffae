package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/rate"
	"example.com/hubbub/internal/wire"
)

// Two things that meet: each of them has tests of its own.

// A handshake was let in with a token, and by the time that its connection is there the session is another's, or was
// given to a connection that has shown a newer token. It begins anew, and the session is where it was.
func TestATokenThatCountsNoMoreWhenTheConnectionIsThere(t *testing.T) {
	for _, away := range []bool{false, true} {
		for name, spoil := range map[string]func(h *Hub, l *loop.Loop, a *client, of *Resumption) (has *client){
			"another user's": func(h *Hub, l *loop.Loop, a *client, of *Resumption) *client {
				of.User = "bob"
				return a
			},
			"resumed meanwhile": func(h *Hub, l *loop.Loop, a *client, of *Resumption) *client {
				a.lose(h)
				back := a.backAs(h, l, auth.Identity{User: "ann"})
				back.resume(`"r":null`)
				return back
			},
		} {
			t.Run(fmt.Sprintf("%s, away %t", name, away), func(t *testing.T) {
				h, l := newHubOf(t, 2, resumable)
				a := newUser(t, h, l, "ann")
				a.ask(`{"msg_type":"join_room","room":"r","id":1}`)
				of, _ := h.Resume(a.welcome["resume_token"].(string))
				has := spoil(h, l, a, &of)
				if away {
					has.lose(h)
				}
				late := newSession(t, l, h.session(of.ID, auth.Identity{User: of.User}, netip.Addr{}, &of))
				if late.welcome["resumed"] == true || late.id == a.id {
					t.Errorf("who comes with it is told %v", late.welcome)
				}
				if away {
					has = has.backAs(h, l, auth.Identity{User: "ann"})
				} else if h.here(idOf(has)) == nil {
					t.Error("who has the session has lost its connection")
				}
				if has.welcome["resumed"] != true && away || has.id != a.id || len(roomsOf(t, h, has)) != 1 {
					t.Errorf("who has the session is told %v, and is in %v", has.welcome, roomsOf(t, h, has))
				}
			})
		}
	}
}

// A client that gives up while the connection that has its session is asked to go takes nothing with it.
func TestWhoGivesUpWhileItsSessionIsStillAnothers(t *testing.T) {
	h, l := newHubOf(t, 2, resumable)
	a := newUser(t, h, l, "ann")
	s := sessionOf(t, h, a.id)
	old, _ := h.Resume(a.welcome["resume_token"].(string))
	old.gen-- // one that is no good: the session stays where it is
	begun, goOn := make(chan bool), make(chan bool)
	s.conn.Worker().Post(task(func() { close(begun); <-goOn }), 0)
	<-begun
	late := h.session(old.ID, auth.Identity{User: "ann"}, netip.Addr{}, &old)
	far := connectTo(t, l, late)
	defer far.Close()
	until(t, "it asks for the session", func() bool { return s.conn.Worker().Depth() > 1 })
	gone := make(chan bool)
	late.conn.Worker().Post(task(func() { late.conn.Close(wire.CloseNormal, ""); close(gone) }), 0)
	<-gone
	close(goOn)
	a.sync()
	if here := h.here(idOf(a)); here != s {
		t.Errorf("its session is %v", here)
	}
	if mine, err := h.UserClients(t.Context(), "ann"); len(mine) != 1 || err != nil {
		t.Errorf("%d clients are ann's: %v", len(mine), err)
	}
}

// The application puts a client into a room that it is in: whatever it is doing just then, it needs no permission any
// more, now and after it has come back.
func TestWhoIsInAlreadyIsPutIn(t *testing.T) {
	for name, put := range map[string]func(h *Hub, l *loop.Loop, a *client, who auth.Identity) *client{
		"not at all": func(h *Hub, l *loop.Loop, a *client, who auth.Identity) *client { return a },
		"while there": func(h *Hub, l *loop.Loop, a *client, who auth.Identity) *client {
			must(a.t, h.Join(a.t.Context(), "granted.1", idOf(a)))
			return a
		},
		"while away": func(h *Hub, l *loop.Loop, a *client, who auth.Identity) *client {
			a.lose(h)
			must(a.t, h.Join(a.t.Context(), "granted.1", idOf(a)))
			a = a.backAs(h, l, who)
			a.resume(`"granted.1":null`)
			return a
		},
		"before it came back and was silent": func(h *Hub, l *loop.Loop, a *client, who auth.Identity) *client {
			must(a.t, h.Join(a.t.Context(), "granted.1", idOf(a)))
			a.lose(h)
			a = a.backAs(h, l, who)
			a.resume("")
			return a
		},
		"before it came back": func(h *Hub, l *loop.Loop, a *client, who auth.Identity) *client {
			must(a.t, h.Join(a.t.Context(), "granted.1", idOf(a)))
			a.lose(h)
			a = a.backAs(h, l, who)
			a.resume(`"granted.1":null`)
			return a
		},
		"while it comes home": func(h *Hub, l *loop.Loop, a *client, who auth.Identity) *client {
			a.lose(h)
			a = a.backAs(h, l, who)
			must(a.t, h.Join(a.t.Context(), "granted.1", idOf(a)))
			a.resume(`"granted.1":null`)
			return a
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, l := newHubOf(t, 1, func(c *Config) {
				closedRooms(c)
				c.Hooks.Refresh = tokens{"less": {User: "ann", Grants: granting(t, "other")}}.read
			})
			who := auth.Identity{User: "ann", Grants: granting(t, "granted.*")}
			a := newKnown(t, h, l, who)
			a.ask(`{"msg_type":"join_room","room":"granted.1","id":1}`)
			a = put(h, l, a, who)
			a.ask(`{"msg_type":"refresh","token":"less","id":1}`)
			a.sync()
			if in := len(roomsOf(t, h, a)) == 1; in != (name != "not at all") {
				t.Errorf("it is in the room: %t", in)
			}
		})
	}
}

// What a limit on an address refuses is taken neither from the user nor from the client, and what one on a user refuses
// not from the client.
func TestWhatIsRefusedIsTakenFromNobody(t *testing.T) {
	some := func(n int64) (l rate.Limits) {
		l[rate.Messages] = rate.Limit{N: 1, Per: time.Hour.Milliseconds(), Burst: n}
		return l
	}
	for by, limits := range map[string]Limits{
		"address": {Client: some(3), User: some(3), Address: some(2)},
		"user":    {Client: some(3), User: some(2), Address: some(3)},
	} {
		t.Run(by, func(t *testing.T) {
			h, l := newHubOf(t, 1, func(c *Config) { c.Limits = limits })
			addr := netip.MustParseAddr("192.0.2.1")
			c := newSession(t, l, h.session(NewID(), auth.Identity{User: "ann"}, addr, nil))
			for i := range 4 {
				if got := c.ask(`{"msg_type":"room_message","room":"r","content":1,"id":1}`); (got["msg_type"] == "ack") != (i < 2) {
					t.Errorf("message %d: %v", i+1, got)
				}
			}
			s := sessionOf(t, h, c.id)
			onItsWorker(h, s, func() {
				one := rate.Amounts{rate.Messages: 1}
				if wait, _ := s.meter(h.cfg()).buckets.Take(&h.cfg().Limits.Client, s.conn.Worker().Now(), &one); wait != 0 {
					t.Error("the client has nothing left")
				}
			})
			if by == "address" {
				if wait, _ := h.limits.users.take(payerName{user: "ann"}, &rate.Amounts{rate.Messages: 1}); wait != 0 {
					t.Error("the user has nothing left")
				}
			}
		})
	}
}

// Rooms that a client is in cost no join when it names them in a resume.
func TestAResumeOfRoomsThatItIsInCostsNoJoin(t *testing.T) {
	var two rate.Limits
	two[rate.Joins] = rate.Limit{N: 1, Per: time.Hour.Milliseconds(), Burst: 2}
	h, l := newHubOf(t, 1, func(c *Config) { c.Limits = Limits{Client: two} })
	c := newClient(t, h, l)
	for _, room := range []string{"a", "b"} {
		if got := c.ask(`{"msg_type":"join_room","room":%q,"id":1}`, room); got["msg_type"] != "joined" {
			t.Fatal(got)
		}
	}
	if got := c.resume(`"a":null,"b":null,"c":null`); !slices.Equal(got, []string{"resumed a false expired", "resumed b false expired", "resumed c false rate_limited"}) {
		t.Errorf("got %q", got)
	}
	h.Refusals(func(limit, by string, n int64) {
		if want := map[bool]int64{true: 1}[limit == "joins" && by == "client"]; n != want {
			t.Errorf("%d of %s by %s are refused, want %d", n, limit, by, want)
		}
	})
}

// slowLog takes so long to open a room.
type slowLog struct {
	broker.Broker
	by atomic.Int64 // nanoseconds
}

func (s *slowLog) Open(of broker.Room, opened func(broker.Log, error)) (closed func()) {
	by := time.Duration(s.by.Load())
	if by == 0 {
		return s.Broker.Open(of, opened)
	}
	var mu sync.Mutex
	closed = func() {}
	timer := time.AfterFunc(by, func() {
		mu.Lock()
		defer mu.Unlock()
		closed = s.Broker.Open(of, opened)
	})
	return func() {
		timer.Stop()
		mu.Lock()
		defer mu.Unlock()
		closed()
	}
}

// Who comes home may say more of its rooms as long as a log is asked for some, however long that takes.
func TestAHomecomingWaitsForALog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		slow := &slowLog{Broker: brokertest.NewMemory().Broker()}
		h, l := newHubOf(t, 1, func(c *Config) { c.Broker, c.ResumeWindow = slow, time.Hour })
		a := newClient(t, h, l)
		joined := a.ask(`{"msg_type":"join_room","room":"r","id":1}`)
		a.ask(`{"msg_type":"join_room","room":"plain","id":1}`)
		back := a.again(h, l, a.lose(h))
		slow.by.Store(int64(3 * resumeWithin))
		back.say(`{"msg_type":"resume","rooms":{"r":{"epoch":%q,"offset":0},"other":null},"last":false,"id":1}`, joined["epoch"])
		if m := back.next(); m["msg_type"] != "resumed" {
			t.Fatalf("got %v", m)
		}
		if left := len(h.here(idOf(back)).more.coming.left); left != 1 {
			t.Errorf("%d rooms may still be named, want one", left)
		}
	})
}

// An operation that is for all rooms waits for those that were asked before, and those behind it wait for it.
func TestAResumeIsInOrderWithWhatIsAskedOfLogs(t *testing.T) {
	logs, clientOf := twoHubs(t)
	c := clientOf(0)
	c.ask(`{"msg_type":"join_room","room":"r","id":1}`)
	logs.Hold(true)
	c.say(`{"msg_type":"room_message","room":"r","content":1,"id":"published"}`)
	until(t, "it is asked of the log", func() bool { return logs.Held() == 1 })
	c.say(`{"msg_type":"resume","rooms":{"r":null,"s":null},"id":"resumed"}`)
	c.say(`{"msg_type":"history","room":"r","id":"read"}`)
	c.say(`{"msg_type":"ping","id":"pong"}`) // which waits for nothing
	if m := c.next(); m["id"] != "pong" {
		t.Errorf("first comes %v", m)
	}
	logs.Hold(false)
	for _, want := range []string{"published", "resumed", "read"} {
		if m := c.next(); m["id"] != want {
			t.Errorf("got %v, want %s", m, want)
		}
	}
}

// An application's error has the code that the client is told, and what is no code of the protocol counts as internal.
func TestAnErrorOfTheApplicationsOwnIsCounted(t *testing.T) {
	codes := []protocol.Code{0, protocol.Internal + 1, protocol.Forbidden}
	n := 0
	h, l := newHubOf(t, 1, func(c *Config) {
		c.Hooks.Publish = func(context.Context, Identity, Draft) ([]byte, error) {
			n++
			return nil, &protocol.Error{Code: codes[n-1], Message: "no"}
		}
	})
	c := newClient(t, h, l)
	for range codes {
		c.ask(`{"msg_type":"room_message","room":"r","content":1,"id":1}`)
	}
	l.Inspect(time.Minute, func(w *loop.Worker) {
		if e := h.Errors(w); e[protocol.Internal] != 2 || e[protocol.Forbidden] != 1 || e[0] != 0 {
			t.Errorf("counted are %v", e)
		}
	})
}

// Who is in a room again, and still coming home, is told of a loss by the answer to its next resume alone.
func TestALogIsLostDuringAHomecoming(t *testing.T) {
	logs := brokertest.NewMemory()
	h, l := newHubOf(t, 1, func(c *Config) { resumable(c); c.Broker = logs.Broker() })
	a := newClient(t, h, l)
	joined := a.ask(`{"msg_type":"join_room","room":"r","id":1}`)
	back := a.again(h, l, a.lose(h))
	back.say(`{"msg_type":"resume","rooms":{"r":{"epoch":%q,"offset":%v}},"last":false,"id":1}`, joined["epoch"], joined["offset"])
	back.wants("resumed", map[string]any{"id": 1.0})
	logs.Lose()
	until(t, "the room has another epoch", func() bool { now, _ := h.roomHere("r"); return now.Position.Epoch != joined["epoch"] })
	back.sync()
	back.say(`{"msg_type":"resume","rooms":{},"id":2}`)
	back.wants("resumed", map[string]any{"id": 2.0})
}

// A room that nobody was in is counted as one that somebody is in, whoever that is; and who finds no connection free as
// it is welcomed is counted as refused.
func TestWhoIsAwayIsTheFirstInARoom(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) { resumable(c); c.Limits.UserConnections = 1 })
	publish(t, h, "r", `1`)
	a := newUser(t, h, l, "ann")
	late := h.session(NewID(), auth.Identity{User: "ann"}, netip.Addr{}, nil)
	far := connectTo(t, l, late)
	defer far.Close()
	go io.Copy(io.Discard, far)
	until(t, "there is none free", func() (refused bool) {
		h.Refusals(func(limit, by string, n int64) { refused = refused || limit == "connections" && by == "user" && n == 1 })
		return refused
	})
	a.lose(h)
	must(t, h.Join(t.Context(), "r", idOf(a)))
	if n := h.Kept(KeptRooms); n != 0 {
		t.Errorf("%d bytes are counted for rooms that nobody is in", n)
	}
}

// The call of Disconnect is paid for by the client's address, too, for which so many may wait.
func TestADisconnectIsTheAddresss(t *testing.T) {
	open := make(chan struct{})
	h, _ := newHubOf(t, 1, func(c *Config) {
		c.HookTimeout = time.Hour
		c.Hooks.Disconnect = func(context.Context, Identity, int) { <-open }
	})
	addr := addressOf(1)
	gone := h.callDisconnect(addr, Identity{ID: NewID()}, wire.CloseAbnormal)
	h.payers.mu.Lock()
	p := h.payers.all[payerName{addr: addr}]
	h.payers.mu.Unlock()
	if p == nil || p.bytes.Load() != eventCost {
		t.Errorf("the address pays for %+v", p)
	}
	close(open)
	<-gone
	until(t, "it is paid", func() bool { return h.Kept(KeptHooks) == 0 })
}

// The hooks of a session come one at a time, whichever of its connections they are of: what the client says over a new one
// waits until the Disconnect of the old one has returned, however it does, and that waits for a hook of the old one which
// takes no notice of its end.
func TestTheHooksOfAResumedSessionComeOneAtATime(t *testing.T) {
	for how, end := range map[string]func(){"returns": func() {}, "panics": func() { panic("planted") }, "ends its goroutine": runtime.Goexit} {
		for _, taken := range []bool{false, true} {
			t.Run(fmt.Sprintf("it %s, taken over %t", how, taken), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					d := newDoings()
					var once sync.Once
					h, l := newHubOf(t, 2, func(c *Config) {
						resumable(c)
						c.HookTimeout = time.Hour
						c.Hooks.Publish = func(_ context.Context, _ Identity, p Draft) ([]byte, error) {
							d.does("publish " + string(p.Content))
							return nil, nil
						}
						c.Hooks.Disconnect = func(context.Context, Identity, int) {
							d.does("disconnect")
							once.Do(end)
						}
					})
					a := newClient(t, h, l)
					publishTo := func(c *client, content int) {
						c.say(`{"msg_type":"room_message","room":"r","content":%d,"id":%d}`, content, content)
					}
					publishTo(a, 1)
					d.expect(t, "publish 1")
					if !taken {
						a.lose(h)
					}
					back := a.again(h, l, a.token())
					if back.id != a.id {
						t.Fatal("it has no session again")
					}
					publishTo(back, 2)
					publishTo(back, 3)
					d.expect(t) // the old one's runs yet
					for _, next := range []string{"disconnect", "publish 2", "publish 3"} {
						d.end <- true
						d.expect(t, next)
					}
					d.end <- true
					for _, id := range []float64{2, 3} {
						if got := back.next(); got["id"] != id || outcomeOf(got) != "yes" {
							t.Errorf("got %v", got)
						}
					}
					close(d.end)
					synctest.Wait()
					l.Panics.Store(0)
				})
			})
		}
	}
}

// doings are hooks that have begun, each of which ends when it is told to.
type doings struct {
	begun chan string
	end   chan bool
}

func newDoings() *doings { return &doings{make(chan string, 100), make(chan bool)} }

func (d *doings) does(what string) {
	d.begun <- what
	<-d.end
}

// expect has these have begun since it was asked last, and no other, once nothing goes on any more.
func (d *doings) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for len(d.begun) > 0 {
		got = append(got, <-d.begun)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("there began %q, want %q", got, want)
	}
}

// A Disconnect that takes no notice of the end of its time holds its own client up alone, which is told so, and that only
// until it returns; neither a connection that is lost meanwhile, nor one more, nor the server's end waits for ever.
func TestADisconnectThatTakesTooLong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDoings()
		h, l := newHubOf(t, 2, func(c *Config) {
			resumable(c)
			c.Hooks.Join = func(_ context.Context, _ Identity, room string) error { d.does("join " + room); return nil }
			c.Hooks.Disconnect = func(context.Context, Identity, int) { d.does("disconnect") }
		})
		a := newClient(t, h, l)
		back := a.again(h, l, a.lose(h))
		d.expect(t, "disconnect")
		if got := back.resume(`"r":null,"q":null`); !slices.Equal(got, []string{"resumed q false timeout", "resumed r false timeout"}) {
			t.Errorf("the resume: %q", got)
		}
		d.expect(t)
		back.lose(h) // behind whose Disconnect comes that of the next one
		back = back.again(h, l, back.token())
		if got := outcomeOf(back.ask(`{"msg_type":"join_room","room":"r","id":1}`)); got != "timeout" {
			t.Errorf("a join: %s", got)
		}
		other := newClient(t, h, l)
		other.say(`{"msg_type":"join_room","room":"other","id":1}`)
		d.expect(t, "join other")
		d.end <- true // one of the two
		d.end <- true
		d.expect(t, "disconnect")
		other.wants("joined", map[string]any{"room": "other"})
		d.end <- true
		d.expect(t, "join r") // too late: it is not obeyed
		d.end <- true
		back.say(`{"msg_type":"join_room","room":"q","id":2}`)
		d.expect(t, "join q")
		d.end <- true
		back.wants("joined", map[string]any{"room": "q"})
		if got := fmt.Sprint(roomsOf(t, h, back)); got != "[q]" {
			t.Errorf("it is in %s", got)
		}

		last := back.again(h, l, back.token())
		last.say(`{"msg_type":"join_room","room":"last","id":1}`)
		d.expect(t, "disconnect")
		l.Stop(0)
		l.Kill()
		l.Wait()
		d.expect(t, "disconnect") // other's
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if left := h.WaitHooks(ctx); left != 2 {
			t.Errorf("%d hooks are waited for", left)
		}
		close(d.end)
		if left := h.WaitHooks(t.Context()); left != 0 {
			t.Errorf("%d hooks are left", left)
		}
		d.expect(t, "disconnect") // behind a join that nobody waits for
	})
}

// A handshake that comes to nothing has its Disconnect beside the hooks of the session whose id it was told: nobody can
// hold that up by failing.
func TestTheDisconnectOfAHandshakeHoldsNobodyUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := newDoings()
		h, l := newHubOf(t, 1, func(c *Config) {
			resumable(c)
			c.HookTimeout = time.Hour
			c.Hooks.Join = func(_ context.Context, _ Identity, room string) error { d.does("join " + room); return nil }
			c.Hooks.Disconnect = func(context.Context, Identity, int) { d.does("disconnect") }
		})
		a := newClient(t, h, l)
		of, _ := h.Resume(a.token())
		h.Session(Identity{ID: of.ID}, netip.Addr{}, &of).Closed(nil, loop.Ending{Code: wire.CloseAbnormal}) // which got no connection
		d.expect(t, "disconnect")
		a.say(`{"msg_type":"join_room","room":"r","id":1}`)
		d.expect(t, "join r")
		close(d.end)
		a.wants("joined", map[string]any{"room": "r"})
	})
}

// What is asked with a context that has ended is not done.
func TestNothingIsDoneForWhoHasGivenUp(t *testing.T) {
	h, l := newHub(t, 1)
	a := newClient(t, h, l)
	a.ask(`{"msg_type":"join_room","room":"r","id":1}`)
	publish(t, h, "r", `1`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{
		"DeleteHistory": h.DeleteHistory(ctx, "r"), "DeleteMessage": h.DeleteMessage(ctx, "r", "", 1), "Remove": h.Remove(ctx, "r", idOf(a)),
		"Join": h.Join(ctx, "other", idOf(a)), "Disconnect": h.Disconnect(ctx, idOf(a), 4500, ""),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(pageOfRoom(t, h, "r")); n != 1 || fmt.Sprint(roomsOf(t, h, a)) != "[r]" {
		t.Errorf("%d messages are left, and it is in %v", n, roomsOf(t, h, a))
	}
}

// A share is used up to its last byte, be it a client's, its user's or its address's.
func TestAShareToItsLastByte(t *testing.T) {
	for i := range 3 {
		p := &payer{most: 100, up: [2]*payer{{most: 100}, {most: 100}}}
		[]*payer{p, p.up[0], p.up[1]}[i].bytes.Store(60)
		if !p.may(40) || p.may(41) {
			t.Errorf("%d: 40 more: %t, 41 more: %t", i, p.may(40), p.may(41))
		}
	}
}
