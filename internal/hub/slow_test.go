package hub

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/history"
)

// slowly reads so many bytes in so many steps, of which each takes five seconds.
func slowly(t *testing.T, far net.Conn, bytes, steps int) {
	t.Helper()
	b := make([]byte, bytes/steps)
	for range steps {
		time.Sleep(5 * time.Second)
		if _, err := io.ReadFull(far, b); err != nil {
			t.Fatalf("the connection has ended: %v", err)
		}
	}
}

// Whoever takes a little now and then isn't too slow, however long that takes: as it begins to lag, when what waited for
// it is sent at last, and as it catches up. One who takes nothing is closed.
func TestWhoTakesALittleNowAndThenStays(t *testing.T) {
	publishes := func(t *testing.T, h *Hub, room string, n, size int) {
		for range n {
			publish(t, h, room, `"`+strings.Repeat("x", size)+`"`)
			synctest.Wait()
		}
	}
	for name, story := range map[string]func(t *testing.T, h *Hub, far net.Conn){
		"it begins to lag": func(t *testing.T, h *Hub, far net.Conn) {
			far.Write(masked(`{"msg_type":"join_room","room":"drop-oldest"}`))
			publishes(t, h, "drop-oldest", 100, 20_000)
			slowly(t, far, 300_000, 30)
		},
		"it gets what waited": func(t *testing.T, h *Hub, far net.Conn) {
			far.Write(masked(`{"msg_type":"join_room","room":"drop-oldest"}`))
			publishes(t, h, "drop-oldest", 100, 20_000)
			slowly(t, far, 300_000, 30)
			slowly(t, far, 800_000, 2)
			slowly(t, far, 300_000, 30)
		},
		"it catches up": func(t *testing.T, h *Hub, far net.Conn) {
			publishes(t, h, "disconnect", 5, 200_000)
			info, _ := h.roomHere("disconnect")
			far.Write(masked(`{"msg_type":"join_room","room":"disconnect","since":{"epoch":%q,"offset":0},"id":1}`, info.Position.Epoch))
			synctest.Wait()
			slowly(t, far, 190_000, 19) // it ages meanwhile
		},
	} {
		for _, reads := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, reads %t", name, reads), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					h, l := newHubOf(t, 1, slowRooms)
					h.cfg().ResumeWindow = 0
					far := dial(t, h, l, auth.Identity{})
					defer far.Close()
					io.ReadAtLeast(far, make([]byte, 1000), 1)
					if reads {
						story(t, h, far)
					} else {
						far.Write(masked(`{"msg_type":"join_room","room":"drop-oldest"}`))
						publishes(t, h, "drop-oldest", 100, 20_000)
						time.Sleep(2 * time.Minute)
					}
					if n := h.Clients(); (n == 1) != reads {
						t.Errorf("%d clients are there", n)
					}
					go io.Copy(io.Discard, far)
					synctest.Wait()
				})
			})
		}
	}
}

// Rooms that lag are caught up with in turns: a busy one holds none up.
func TestRoomsThatLagTakeTurns(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) {
		policy := DefaultPolicy()
		policy.SlowConsumer = DropOldest
		c.Policies = NewPolicies(Disconnect, Rule{glob.New("slow.*"), policy})
	})
	a := newClient(t, h, l)
	for _, room := range []string{"slow.a", "slow.b"} {
		a.ask(`{"msg_type":"join_room","room":%q,"id":1}`, room)
	}
	a.deaf.Lock()
	lagging(t, h, "slow.a", idOf(a))
	for _, room := range []string{"slow.a", "slow.b"} {
		for range 10 {
			until(t, "the worker has room", func() bool {
				_, _, err := h.Publish(t.Context(), &Publication{Room: room, Content: []byte(`"` + strings.Repeat("x", 20_000) + `"`)})
				return err == nil
			})
		}
	}
	a.deaf.Unlock()
	turns, last, of := 0, "", map[string]int{}
	for of["slow.b"] < 10 {
		m := a.next()
		if room, _ := m["room"].(string); m["msg_type"] == "room_message" {
			if of[room]++; room != last {
				turns++
			}
			last = room
		}
	}
	if turns < 6 {
		t.Errorf("of two rooms with ten messages and more each there are %d turns", turns)
	}
}

// The accounts hold of one who lags in chats, too, for as long as it does.
func TestTheAccountsOfOneWhoLagsInChatsHold(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) { c.SlowConsumer = DropOldest })
	a := newClient(t, h, l)
	a.deaf.Lock()
	defer a.deaf.Unlock()
	s := h.here(idOf(a))
	for lags := false; !lags; {
		until(t, "the worker has room", func() bool {
			return h.broadcast(&Publication{Content: []byte(`"` + strings.Repeat("x", 20_000) + `"`)}) == nil
		})
		onItsWorker(h, s, func() { lags = s.lag(s.everyone()) != nil })
	}
	if faults := h.Audit(); len(faults) > 0 {
		t.Error(faults)
	}
}

// Of several who lag in one room each gets what waits for it, whoever has caught up before: then those who still lag go
// on to, in their order and with what comes meanwhile.
func TestThoseWhoLagCatchUpOneByOne(t *testing.T) {
	for name, order := range map[string][]int{"forwards": {0, 1, 2}, "backwards": {2, 1, 0}} {
		t.Run(name, func(t *testing.T) {
			h, l := newHubOf(t, 1, slowRooms)
			room := DropOldest.String()
			var all [3]*client
			for i := range all {
				all[i] = newClient(t, h, l)
				all[i].ask(`{"msg_type":"join_room","room":%q,"id":1}`, room)
				all[i].deaf.Lock()
			}
			for _, c := range all {
				lagging(t, h, room, idOf(c))
			}
			for _, i := range order {
				all[i].deaf.Unlock()
				var at history.Position
				until(t, "the worker has room", func() (ok bool) {
					var err error
					at, _, err = h.Publish(t.Context(), &Publication{Room: room, Content: fmt.Append(nil, i)})
					return err == nil
				})
				all[i].hearsAllUpTo(at.Offset)
			}
		})
	}
}

// hearsAllUpTo reads until there, and each message comes or is told as lost.
func (c *client) hearsAllUpTo(to uint64) {
	c.t.Helper()
	for last := uint64(0); last < to; {
		m := c.next()
		from, upTo := m["offset"], m["offset"]
		switch m["msg_type"] {
		case "room_message":
		case "gap":
			from, upTo = m["from_offset"], m["to_offset"]
		default:
			continue
		}
		if from != float64(last+1) {
			c.t.Fatalf("behind %d comes %.100v", last, m)
		}
		last = uint64(upTo.(float64))
	}
}

// A gap that was to come before a message is told though that message is taken back: what the member has got, what it is
// told to be lost and what was taken back is all that there was.
func TestAGapOutlivesTheMessageBehindIt(t *testing.T) {
	for _, policy := range []SlowConsumer{DropOldest, LatestByKey} {
		t.Run(policy.String(), func(t *testing.T) {
			h, l := newHubOf(t, 1, slowRooms)
			a := newClient(t, h, l)
			room := policy.String()
			a.ask(`{"msg_type":"join_room","room":%q,"id":1}`, room)
			a.deaf.Lock()
			lagging(t, h, room, idOf(a))
			s := h.here(idOf(a))
			for range 60 { // more than wait
				p := &Publication{Room: room, Content: []byte(`"` + strings.Repeat("y", 50_000) + `"`), Key: []byte("one")}
				until(t, "the worker has room", func() bool { _, _, err := h.Publish(t.Context(), p); return err == nil })
			}
			var waits []uint64
			var lost int64
			onItsWorker(h, s, func() {
				for w := s.more.flow.lags[0].first; w != nil; w = w.next {
					if lost += w.lost.count; w.lost.count > 0 {
						waits = append(waits, w.offset)
					}
				}
			})
			if lost == 0 {
				t.Fatal("nothing is lost")
			}
			got := map[uint64]bool{}
			for _, offset := range waits {
				must(t, h.DeleteMessage(t.Context(), room, "", offset))
				got[offset] = true
			}
			d, err := h.Client(t.Context(), idOf(a))
			onItsWorker(h, s, func() {
				if f := s.more.flow; err != nil || d.Unsent != int64(s.conn.Unsent())+f.plain+f.keyed {
					t.Errorf("%d bytes are told to wait for it, by key %d, and %d: %v", d.Unsent, f.keyed, f.plain, err)
				}
			})
			until(t, "the worker has room", func() bool {
				_, _, err := h.Publish(t.Context(), &Publication{Room: room, Content: []byte(`"end"`)})
				return err == nil
			})
			a.deaf.Unlock()
			gaps := int64(0)
			var last uint64
			for m := a.next(); m["content"] != "end"; m = a.next() {
				switch m["msg_type"] {
				case "room_message":
					last = uint64(m["offset"].(float64))
					got[last] = true
				case "gap":
					gaps += int64(m["count"].(float64))
				}
			}
			info, _ := h.roomHere(room)
			if missing := int64(info.Position.Offset) - 1 - int64(len(got)); missing != gaps {
				t.Errorf("of %d messages %d are missing, and it is told that %d are", info.Position.Offset, missing, gaps)
			}
		})
	}
}

// A client that is coming home is there, whoever asks, and its session is as old as it was.
func TestWhoComesHomeIsThere(t *testing.T) {
	h, l := newHubOf(t, 1, resumable)
	a := newUser(t, h, l, "ann")
	a.lose(h)
	sh := h.clientShard(idOf(a))
	sh.mu.Lock()
	sh.parked[idOf(a)].since -= 1000
	since := sh.parked[idOf(a)].since
	sh.mu.Unlock()
	for _, parked := range []bool{true, false} {
		all, _, err := h.ClientsAfter(t.Context(), ID{}, 10)
		must(t, err)
		anns, err := h.UserClients(t.Context(), "ann")
		must(t, err)
		d, err := h.Client(t.Context(), idOf(a))
		must(t, err)
		for of, list := range map[string][]ClientInfo{"all": all, "ann's": anns, "itself": {d.ClientInfo}} {
			if len(list) != 1 || list[0].Parked != parked || list[0].User != "ann" {
				t.Errorf("%s: %+v, parked is %t", of, list, parked)
			}
		}
		if d.Since.Unix() != int64(since) {
			t.Errorf("its session is since %v", d.Since)
		}
		if parked {
			a = a.backAs(h, l, auth.Identity{User: "ann"})
		}
	}
	a.resume("")
	if d, _ := h.Client(t.Context(), idOf(a)); d.Since.Unix() != int64(since) {
		t.Errorf("its session is since %v", d.Since)
	}
}

// A Connect for whom nobody waits any more, as the hub stops, has its context ended.
func TestAConnectEndsWithTheHub(t *testing.T) {
	h, _ := newHubOf(t, 1, func(c *Config) { c.HookTimeout = time.Hour })
	begun, ended, left := make(chan bool), make(chan bool), make(chan error, 1)
	go func() {
		h.UpgradeBegins()
		defer h.UpgradeEnds()
		_, err := h.Admit(context.Background(), netip.Addr{}, "", auth.Identity{}, func(ctx context.Context, _ ID, _ *auth.Identity) error {
			close(begun)
			<-ctx.Done()
			close(ended)
			return ctx.Err()
		})
		left <- err
	}()
	<-begun
	h.stopOnce.Do(func() { close(h.stop) })
	if err := <-left; err == nil {
		t.Error("it is let in")
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the hook's context has not ended")
	}
}

// Where what is done with a client panics, who asked for it doesn't wait for ever.
func TestWhoAsksOfAClientOutlivesAPanic(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) {
		c.Sinks = []Sink{sinkFunc(func(e Event) {
			if e.Kind == Left && e.Room == "r" {
				panic("as it leaves")
			}
		})}
	})
	a := newClient(t, h, l)
	a.ask(`{"msg_type":"join_room","room":"r","id":1}`)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h.Remove(ctx, "r", idOf(a))
	if ctx.Err() != nil {
		t.Error("it has waited for ever")
	}
	until(t, "the client is closed", func() bool { return h.Clients() == 0 })
	l.Panics.Store(0)
}

// Of the words that must not be dropped so many bytes wait as may; those beyond are dropped as others are.
func TestWhatMustNotBeDroppedIsBounded(t *testing.T) {
	h, l := newHubOf(t, 1, slowRooms)
	a := newClient(t, h, l)
	room := DropOldest.String()
	a.ask(`{"msg_type":"join_room","room":%q,"id":1}`, room)
	a.deaf.Lock()
	defer a.deaf.Unlock()
	lagging(t, h, room, idOf(a))
	s := h.here(idOf(a))
	onItsWorker(h, s, func() {
		g, most := s.more.flow.lags[0], int64(keyedQueues*s.conn.Bound())
		for range 2 * most / g.first.cost() {
			g.add(&waiting{frame: g.first.frame, news: true, firm: true})
		}
		if n := s.more.flow.keyed; n > most || n < most*9/10 {
			t.Errorf("%d bytes wait that must not be dropped, at most %d may", n, most)
		}
	})
}
