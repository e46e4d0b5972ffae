package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/rate"
)

// A grant is for its verb alone.
func TestAGrantIsForItsVerbAlone(t *testing.T) {
	patterns := []string{"granted.*"}
	grants := map[string]auth.Grants{"join": {}, "read": {}, "publish": {}, "chat": {Chat: true}, "direct": {Direct: true}}
	for verb, g := range grants {
		t.Run(verb, func(t *testing.T) {
			h, l := newHubOf(t, 1, func(c *Config) {
				c.Policies = NewPolicies(Disconnect, rule("granted.*", Access{Join: Granted, Read: Granted, Publish: Granted}))
				c.Chat, c.Direct = Granted, Granted
			})
			all, err := auth.NewGrants(patterns, patterns, patterns, g.Chat, g.Direct)
			must(t, err)
			for of, list := range map[string]*[]*glob.Template{"join": &all.Join, "read": &all.Read, "publish": &all.Publish} {
				if of != verb {
					*list = nil
				}
			}
			c := newKnown(t, h, l, auth.Identity{User: "ann", Grants: all})
			for _, of := range []struct{ verb, say string }{
				{"read", `{"msg_type":"history","room":"granted.1","id":1}`},
				{"read", `{"msg_type":"presence","room":"granted.1","id":1}`},
				{"publish", `{"msg_type":"room_message","room":"granted.1","content":1,"id":1}`},
				{"chat", `{"msg_type":"chat","content":1,"id":1}`},
				{"direct", fmt.Sprintf(`{"msg_type":"direct_message","to":%q,"content":1,"id":1}`, c.id)},
				{"join", `{"msg_type":"join_room","room":"granted.1","id":1}`}, // last: a member may read
			} {
				if got := outcomeOf(c.ask("%s", of.say)); (got == "yes") != (of.verb == verb) || got != "yes" && got != "forbidden" {
					t.Errorf("who may %s says %s: %s", verb, of.say, got)
				}
			}
		})
	}
}

// Where a rule for one's own name is the only one that bounds something, it does.
func TestARuleForOnesOwnNameAloneBounds(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) {
		c.Policies = NewPolicies(Disconnect).WithPersonal([]Personal{{Match: glob.NewTemplate("inbox.${user}"), Access: Access{Publish: ServerOnly}}}...)
	})
	for user, want := range map[string]string{"ann": "forbidden", "bob": "yes", "": "yes"} {
		c := newKnown(t, h, l, auth.Identity{User: user})
		if got := outcomeOf(c.ask(`{"msg_type":"room_message","room":"inbox.ann","content":1,"id":1}`)); got != want {
			t.Errorf("%q: %s, want %s", user, got, want)
		}
	}
}

// A client's own data has a bound over all its rooms, up to the last byte; its identity's is nobody's to bound here.
func TestTheDataOfAllRoomsTogether(t *testing.T) {
	for name, c := range map[string]struct {
		who  auth.Identity
		want []string
	}{
		"its own":        {auth.Identity{}, []string{"yes", "yes", "limit_reached", "yes"}},
		"its identity's": {auth.Identity{User: "ann", Data: []byte(`"` + strings.Repeat("x", 498) + `"`)}, []string{"yes", "yes", "yes", "yes"}},
	} {
		t.Run(name, func(t *testing.T) {
			h, l := newHubOf(t, 1, func(c *Config) {
				c.MaxMessageBytes = 1000
				c.Policies = NewPolicies(Disconnect, rule("full.*", Access{}))
			})
			a := newKnown(t, h, l, c.who)
			for i, size := range []int{498, 498, 0, 0} {
				data := `,"data":"` + strings.Repeat("y", size) + `"`
				if i == 3 {
					data = ""
				}
				if got := outcomeOf(a.ask(`{"msg_type":"join_room","room":"full.%d"%s,"id":1}`, i, data)); got != c.want[i] {
					t.Errorf("room %d: %s, want %s", i, got, c.want[i])
				}
			}
		})
	}
}

// For a parked session so much waits as may, up to the last byte; and one message whatever its size.
func TestWhatWaitsForOneWhoIsAwayIsBoundedToTheByte(t *testing.T) {
	h, l := newHubOf(t, 1, resumable)
	of := func(size int) (p *Publication) { // a message of that size
		for n := 0; ; n++ {
			p = &Publication{Content: []byte(`"` + strings.Repeat("x", n) + `"`)}
			switch over := p.message(protocol.DirectMessage).Size() - size; {
			case over == 0:
				return p
			case over < -100:
				n -= over + 100
			case over > 0:
				t.Fatalf("no message has %d bytes", size)
			}
		}
	}
	for name, c := range map[string]struct {
		sizes []int // of messages, all but the last of which wait
		last  bool  // that one too
	}{
		"just full":    {[]int{maxDirects / 2, maxDirects / 2}, true},
		"a byte more":  {[]int{maxDirects / 2, maxDirects/2 + 1}, false},
		"one is large": {[]int{2 * maxDirects}, true},
		"behind it":    {[]int{2 * maxDirects, 200}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := newClient(t, h, l)
			a.lose(h)
			for i, size := range c.sizes {
				p := of(size)
				p.Client = idOf(a)
				_, _, err := h.Publish(t.Context(), p)
				if want := i < len(c.sizes)-1 || c.last; (err == nil) != want || err != nil && !errors.Is(err, ErrOverloaded) {
					t.Errorf("message %d of %d bytes: %v", i, size, err)
				}
			}
		})
	}
}

// The user or address that is forgotten is the one that has most of what its limits allow.
func TestTheFullestMeterIsForgotten(t *testing.T) {
	limits := perSecond(100)
	sh := meterShard{all: map[payerName]*rate.Buckets{}}
	now := clock()
	for i := range meterLooks {
		b := &rate.Buckets{}
		b.Take(&limits, now, &rate.Amounts{rate.Messages: int64(10 * (i + 1))})
		sh.all[payerName{user: fmt.Sprint(i)}] = b
	}
	for i := range meterLooks - 1 {
		sh.forgetOne(&limits, now)
		if name := (payerName{user: fmt.Sprint(i)}); sh.all[name] != nil || len(sh.all) != meterLooks-1-i {
			t.Fatalf("%d is known still, with %d others", i, len(sh.all))
		}
	}
}

// What is too old is there for nobody, though nobody has tidied yet.
func TestWhatIsTooOldIsThereForNobody(t *testing.T) {
	for name, see := range map[string]func(h *Hub, c *client, epoch string) (there bool){
		"a join": func(h *Hub, c *client, epoch string) bool {
			return c.ask(`{"msg_type":"join_room","room":"r","since":{"epoch":%q,"offset":0},"id":1}`, epoch)["recovered"] == true
		},
		"a page": func(h *Hub, c *client, epoch string) bool {
			return len(c.ask(`{"msg_type":"history","room":"r","id":1}`)["messages"].([]any)) > 0
		},
		"a deletion": func(h *Hub, c *client, epoch string) bool {
			return !errors.Is(h.DeleteMessage(c.t.Context(), "r", "", 1), ErrNoPosition)
		},
	} {
		for _, old := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, old %t", name, old), func(t *testing.T) {
				h, l := newHub(t, 1)
				c := newClient(t, h, l)
				publish(t, h, "r", `1`)
				sh := h.roomShard("r")
				sh.mu.Lock()
				r := sh.rooms["r"]
				epoch := r.position().Epoch
				if old {
					r.log.At(0).At -= r.policy().History.Age.Milliseconds()
				}
				sh.mu.Unlock()
				if there := see(h, c, epoch); there == old {
					t.Errorf("it is there: %t", there)
				}
			})
		}
	}
}

// Memory is freed in an order: rooms that nobody is in, then those who are away, the longest first, then what others
// keep but for the newest message. Where nothing can be freed nobody looks again for a while.
func TestWhatGoesFirstWhenMemoryIsShort(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, l := newHubOf(t, 1, resumable)
		c := newClient(t, h, l)
		c.ask(`{"msg_type":"join_room","room":"here","id":1}`)
		for range 3 {
			publish(t, h, "here", `1`)
			publish(t, h, "empty", `1`)
		}
		var away []*client
		for range 3 {
			a := newClient(t, h, l)
			a.lose(h)
			away = append(away, a)
			time.Sleep(15 * time.Second)
		}
		c.sync()
		left := func() (all string) {
			if _, ok := h.roomHere("empty"); ok {
				all += "room "
			}
			for _, a := range away {
				if _, parked := h.lookUp(idOf(a)); parked {
					all += "away "
				}
			}
			return all + fmt.Sprint(len(pageOfRoom(t, h, "here")))
		}
		for _, want := range []string{"room away away away 3", "away away away 3", "away away 3", "away 3", "3"} {
			if got := left(); got != want {
				t.Errorf("there are %s, want %s", got, want)
			}
			if want != "3" {
				h.Relieve(1)
			}
		}
		h.Relieve(1 << 40)
		if got := left(); got != "1" {
			t.Errorf("in the end there are %s", got)
		}
		publish(t, h, "empty", `1`)
		if h.Relieve(1) != 0 {
			t.Error("it looks again at once")
		}
		time.Sleep(relieveEvery * time.Millisecond)
		if h.Relieve(1) == 0 {
			t.Error("it never looks again")
		}
	})
}

// Of those whose identities expire a worker closes so many in a turn, and each about when its own time has come, in
// whatever order they came.
func TestEachIdentityExpiresAtItsTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, l := newHubOf(t, 1, func(*Config) {})
		at := time.Now().Add(100 * time.Second)
		for i := range 20 {
			closedWith(t, h, l, auth.Identity{User: "ann", Expires: at.Add(-time.Duration(i) * time.Second)})
			synctest.Wait()
			closedWith(t, h, l, auth.Identity{User: "ann", Expires: time.Now()}) // which is the first of all
			synctest.Wait()
		}
		for h.Clients() > 0 {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			l.Inspect(time.Minute, func(w *loop.Worker) {
				if all := h.workers[0].expiring; len(all) > 0 && time.Now().UnixMilli() > all[0].at+500 {
					t.Fatalf("one is %d ms late", time.Now().UnixMilli()-all[0].at)
				}
			})
		}
		for range 2*expireAtOnce + 1 {
			closedWith(t, h, l, auth.Identity{User: "ann", Expires: time.Now().Add(time.Hour)})
		}
		synctest.Wait()
		l.Workers()[0].Post(task(func() {
			st := h.workers[0]
			for _, x := range st.expiring {
				x.at = 0
			}
			(&expired{st, st.alarm}).Run(l.Workers()[0])
			if n := len(st.expiring); n != expireAtOnce+1 {
				t.Errorf("%d are left for the next turn", n)
			}
		}), 0)
		synctest.Wait()
		expectExpiring(t, h, l, 0)
	})
}

// With one place for hooks those who wait take turns, however many each has.
func TestThoseWhoseHooksWaitTakeTurns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var order []string
		open := make(chan struct{})
		h, _ := newHubOf(t, 1, func(c *Config) { c.HookLimit, c.HookTimeout = 1, time.Hour })
		call := func(name string) *run {
			s := h.session(NewID(), auth.Identity{}, addressOf(1), nil)
			r := &run{s: s, ctx: context.Background(), do: func(context.Context) outcome {
				<-open
				order = append(order, name)
				return outcome{}
			}}
			return r
		}
		ann, bob := &payer{most: 1 << 20}, &payer{most: 1 << 20}
		for _, of := range []struct {
			p    *payer
			name string
		}{{ann, "a1"}, {ann, "a2"}, {ann, "a3"}, {bob, "b1"}, {bob, "b2"}} {
			r := call(of.name)
			h.paysFor(r, of.p, 1)
			h.runs.start(r)
		}
		close(open)
		synctest.Wait()
		if want := []string{"a1", "a2", "b1", "a3", "b2"}; !slices.Equal(order, want) {
			t.Errorf("they are called in the order %v, want %v", order, want)
		}
	})
}

// A hook that obeys its context when its time is over is one that was too slow, whatever it says then; the log has a
// line, and of a resume's rooms the others are asked about all the same.
func TestAHookThatObeysTheEndOfItsTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log strings.Builder
		late := func(ctx context.Context) error {
			<-ctx.Done()
			return &protocol.Error{Code: protocol.Forbidden, Message: "too late"}
		}
		h, l := newHubOf(t, 1, func(c *Config) {
			resumable(c)
			c.Log = slog.New(slog.NewTextHandler(&log, nil))
			c.Hooks.Join = func(ctx context.Context, _ Identity, room string) error {
				if strings.HasPrefix(room, "slow") {
					return late(ctx)
				}
				return nil
			}
		})
		c := newClient(t, h, l)
		for range 20 {
			if got := outcomeOf(c.ask(`{"msg_type":"join_room","room":"slow","id":1}`)); got != "timeout" {
				t.Fatalf("the client is told %s", got)
			}
		}
		synctest.Wait()
		if n := strings.Count(log.String(), "a hook takes too long"); n == 0 {
			t.Errorf("the log has %d lines", n)
		}
		a := newClient(t, h, l)
		back := a.again(h, l, a.lose(h))
		if got := back.resume(`"fine.1":null,"slow":null,"fine.2":null`); !slices.Equal(got, []string{"resumed fine.1 false expired", "resumed fine.2 false expired", "resumed slow false timeout"}) {
			t.Errorf("got %q", got)
		}
	})
}

// A Join of a resume that takes far too long is logged, too.
func TestAJoinOfAResumeThatTakesTooLongIsLogged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log strings.Builder
		h, l := newHubOf(t, 1, func(c *Config) {
			resumable(c)
			c.Log = slog.New(slog.NewTextHandler(&log, nil))
			c.Hooks.Join = func(context.Context, Identity, string) error { time.Sleep(time.Minute); return nil }
		})
		a := newClient(t, h, l)
		back := a.again(h, l, a.lose(h))
		if got := back.resume(`"a":null,"b":null`); !slices.Equal(got, []string{"resumed a false timeout", "resumed b false timeout"}) {
			t.Errorf("got %q", got)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "a hook takes too long"); n != 1 {
			t.Errorf("the log has %d lines", n)
		}
	})
}

// What a log elsewhere brings twice comes once; what it is asked for twice is done once; that it is busy is told as
// such; and who publishes hears of it also when the log is lost.
func TestALogElsewhereThatRepeatsItself(t *testing.T) {
	logs := brokertest.NewMemory()
	h, l := newHubOf(t, 1, func(c *Config) { c.Broker = logs.Broker() })
	c := newClient(t, h, l)
	c.ask(`{"msg_type":"join_room","room":"r","id":1}`)
	publish(t, h, "r", `1`)
	publish(t, h, "r", `2`)
	for _, want := range []float64{1, 2} {
		c.wants("room_message", map[string]any{"content": want})
	}
	all := logs.Entries("r")
	h.Deliver("r", all)
	h.Deliver("r", all[1:])
	if got := c.sync(); len(got) > 0 {
		t.Errorf("again comes %v", got)
	}
	for range 2 {
		must(t, h.DeleteMessage(t.Context(), "r", "", all[0].Offset))
	}
	if n := len(logs.Entries("r")); n != len(all)+1 {
		t.Errorf("the log has %d entries for one deletion", n-len(all))
	}
	told := 0
	info, _ := h.roomHere("r")
	at := broker.Position{Epoch: info.Position.Epoch, Offset: info.Position.Offset + 1000}
	h.whenBrought("r", at, func() { told++ })
	if told != 0 {
		t.Error("it is told before the room has come so far")
	}
	logs.Lose()
	until(t, "the room has another epoch", func() bool { now, _ := h.roomHere("r"); return now.Position.Epoch != at.Epoch })
	until(t, "who published is told", func() bool { h.roomShard("r").mu.Lock(); defer h.roomShard("r").mu.Unlock(); return told == 1 })
}

// busyLog is a broker that has no room for anything.
type busyLog struct{ broker.Broker }

func (busyLog) Publish(_ broker.Room, _ broker.Message, done func(broker.Position, bool, error)) error {
	done(broker.Position{}, false, broker.ErrBusy)
	return nil
}

func TestALogElsewhereThatIsBusy(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) { c.Broker = busyLog{brokertest.NewMemory().Broker()} })
	if _, _, err := h.Publish(t.Context(), &Publication{Room: "r", Content: []byte(`1`)}); !errors.Is(err, ErrOverloaded) {
		t.Errorf("the application is told %v", err)
	}
	if got := outcomeOf(newClient(t, h, l).ask(`{"msg_type":"room_message","room":"r","content":1,"id":1}`)); got != "overloaded" {
		t.Errorf("a client is told %s", got)
	}
}
