package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/loop"
)

// Whatever is kept for a client, of each kind by itself, is within its share: beyond it the client is refused, or goes
// without, and another client isn't. Those that other tests drive are its messages in histories, its data at a join,
// its rooms, and its messages to those who are away.
func TestEachKindOfWhatIsKeptIsWithinTheShare(t *testing.T) {
	const share = 8 << 10
	data := func(n int) string { return fmt.Sprintf(`"%0*d"`, n, 0) }
	for name, story := range map[string]func(t *testing.T, h *Hub, l *loop.Loop) (kept Kind){
		"publish_ids": func(t *testing.T, h *Hub, l *loop.Loop) Kind {
			publishes := func(c *client) (code any) {
				for i := 0; i < 100 && code == nil; i++ {
					code = c.ask(`{"msg_type":"room_message","room":"plain","content":1,"publish_id":"p%d","id":1}`, i)["code"]
				}
				return code
			}
			for _, user := range []string{"ann", "bob"} {
				c := newUser(t, h, l, user)
				if code := publishes(c); code != "rate_limited" {
					t.Errorf("beyond the share of %s the answer is %v", user, code)
				}
				if got := c.ask(`{"msg_type":"room_message","room":"plain","content":1,"id":1}`); got["msg_type"] != "ack" {
					t.Errorf("a message that need not be remembered: %v", got)
				}
			}
			return KeptPublishIDs
		},
		"rooms of one who is away": func(t *testing.T, h *Hub, l *loop.Loop) Kind {
			for _, user := range []string{"ann", "bob"} {
				c := newUser(t, h, l, user)
				c.lose(h)
				var err error
				for i := 0; i < h.cfg().MaxRoomsPerClient && err == nil; i++ {
					err = h.Join(t.Context(), fmt.Sprint("r", i), idOf(c))
				}
				if !errors.Is(err, ErrLimitReached) {
					t.Errorf("beyond the share of %s: %v", user, err)
				}
			}
			return KeptParked
		},
		"data of a new token": func(t *testing.T, h *Hub, l *loop.Loop) Kind {
			for _, user := range []string{"ann", "bob"} {
				c := newSession(t, l, h.session(NewID(), auth.Identity{User: user, Data: []byte("1")}, netip.Addr{}, nil))
				for i := range 10 {
					if got := c.ask(`{"msg_type":"join_room","room":"full.%d","id":1}`, i); got["msg_type"] != "joined" {
						t.Fatalf("room %d: %v", i, got)
					}
				}
				if got := c.ask(`{"msg_type":"refresh","token":%q,"id":1}`, user); got["msg_type"] != "refreshed" {
					t.Fatalf("%v", got)
				}
				anew := 0
				for i := range 10 {
					_, members, _, _ := h.PresenceAfter(t.Context(), fmt.Sprint("full.", i), ID{}, 10)
					for _, m := range members {
						if m.User == user && len(m.Data) > 1 {
							anew++
						}
					}
				}
				if anew == 0 || anew == 10 {
					t.Errorf("in %d of 10 rooms the members see the new data of %s", anew, user)
				}
			}
			return KeptPresence
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, l := newHubOf(t, 1, func(c *Config) {
				resumable(c)
				c.MaxRoomsPerClient = 1000
				c.Policies = NewPolicies(Disconnect, plainRooms, rule("full.*", Access{}))
				c.Hooks.Refresh = tokens{
					"ann": {User: "ann", Data: []byte(data(1500))}, "bob": {User: "bob", Data: []byte(data(1500))},
				}.read
			})
			h.cfg().share = share
			kind := story(t, h, l)
			if n := h.Kept(kind); n > 2*share || n < share {
				t.Errorf("%d bytes are kept for two who may have %d each", n, share)
			}
		})
	}
}

// Behind a command that waits for the application few bytes of a client wait, however few its commands are; all are
// obeyed in the end.
func TestFewBytesWaitBehindAHook(t *testing.T) {
	bubble(t, func(t *testing.T) {
		open, called := make(chan struct{}), 0
		h, l := newHubOf(t, 1, func(c *Config) {
			c.HookTimeout = time.Hour
			c.Hooks.Known = func(string) bool { return true }
			c.Hooks.Custom = func(context.Context, Identity, string, []byte) ([]byte, error) {
				<-open
				called++
				return nil, nil
			}
		})
		const size, messages = 30_000, 7 // fewer than fewWaiting
		far := dial(t, h, l, auth.Identity{})
		defer far.Close()
		go io.Copy(io.Discard, far)
		go func() {
			for range messages {
				far.Write(masked(`{"msg_type":"slow","padding":%q}`, strings.Repeat("x", size)))
			}
		}()
		synctest.Wait()
		if n, most := h.Kept(KeptHooks), int64(size+h.cfg().MaxMessageBytes+size+1000); n > most || n < int64(h.cfg().MaxMessageBytes) {
			t.Errorf("%d bytes wait for the application, at most %d may", n, most)
		}
		close(open)
		synctest.Wait()
		if called != messages {
			t.Errorf("%d of %d are obeyed", called, messages)
		}
	})
}

// Joins are refused when as many calls of the application's code wait as one client may have waiting, be it because of
// that client alone, of its user's, or of those of its address; and nobody else's are.
func TestTheCallsThatWaitForOneAreBounded(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	for name, c := range map[string]struct {
		session func(h *Hub, n int) loop.Handler // the nth that is meant
		shares  int64
	}{
		"client": {func(h *Hub, _ int) loop.Handler { return h.session(NewID(), auth.Identity{}, netip.Addr{}, nil) }, 1},
		"user": {func(h *Hub, _ int) loop.Handler {
			return h.session(NewID(), auth.Identity{User: "ann"}, netip.Addr{}, nil)
		}, 1},
		"address": {func(h *Hub, n int) loop.Handler {
			return h.session(NewID(), auth.Identity{User: fmt.Sprint(n)}, addr, nil)
		}, addressShares},
	} {
		t.Run(name, func(t *testing.T) {
			open := make(chan struct{})
			h, l := newHubOf(t, 1, func(c *Config) {
				c.HookTimeout, c.MaxRoomsPerClient = time.Hour, 4
				c.Hooks.Joined = func(context.Context, Identity, string) { <-open }
			})
			t.Cleanup(func() {
				close(open)
				until(t, "all are called", func() bool { return h.Kept(KeptHooks) == 0 })
			})
			const most = 4 + moreEvents
			h.cfg().share = 2 * most * eventCost // which bounds less
			joins := func(c *client) (joined int64) {
				for i := range 3 * most {
					if got := c.ask(`{"msg_type":"join_room","room":"r%d","id":1}`, i); got["msg_type"] != "joined" {
						if got["code"] != "rate_limited" {
							t.Fatalf("refused by %v", got)
						}
						return joined
					}
					joined++
					c.say(`{"msg_type":"leave_room","room":"r%d"}`, i)
				}
				return joined
			}
			var all int64
			sessions := 1
			if c.shares > 1 || name == "user" {
				sessions = int(2 * c.shares)
			}
			for n := range sessions {
				all += joins(newSession(t, l, c.session(h, n)))
			}
			if all != most*c.shares {
				t.Errorf("%d joins are waiting for the application, want %d", all, most*c.shares)
			}
			if n := joins(newUser(t, h, l, "another")); n != most {
				t.Errorf("another one may have %d, want %d", n, most)
			}
		})
	}
}
