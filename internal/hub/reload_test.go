package hub

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/internal/glob"
)

// Members that are there get each new policy: who slows them down, what is kept, and who is shown.
func TestAReloadGivesRoomsTheirNewPolicies(t *testing.T) {
	h, l := newHubOf(t, 1, func(*Config) {})
	a, b := newClient(t, h, l), newClient(t, h, l)
	for _, c := range []*client{a, b} {
		c.asks(`"msg_type":"join_room","room":"r"`)
	}
	first := a.asks(`"msg_type":"room_message","room":"r","content":1`)
	reload := func(p Policy) {
		cfg := h.cfg().Config
		cfg.Policies = NewPolicies(LatestByKey, Rule{glob.New("r"), p})
		h.Reload(cfg)
	}
	full := DefaultPolicy()
	full.Presence = PresenceFull
	reload(full)
	if h.Policy("other").SlowConsumer != LatestByKey {
		t.Error("a room that no rule names isn't as slow-consumer says")
	}
	onItsWorker(h, sessionOf(t, h, a.id), func() {}) // behind what was posted to it
	if got := a.who("r"); len(got) != 2 {
		t.Errorf("who is here: %v", got)
	}
	none := full
	none.History.Messages, none.Presence = 0, PresenceOff
	reload(none)
	if got := a.asks(`"msg_type":"room_message","room":"r","content":2`); got["epoch"] != nil || got["msg_type"] != "ack" {
		t.Errorf("without history: %v", got)
	}
	if got := a.asks(`"msg_type":"presence","room":"r"`); got["code"] != "forbidden" {
		t.Errorf("who is here: %v", got)
	}
	reload(full)
	again := a.asks(`"msg_type":"room_message","room":"r","content":3`)
	if again["epoch"] == first["epoch"] || again["offset"].(float64) <= first["offset"].(float64) {
		t.Errorf("first %v, then %v", first, again)
	}
}

// A message whose room begins or ends to keep history just then goes by the one policy or the other, as a whole.
func TestAPublishGoesByOnePolicy(t *testing.T) {
	h, l := newHubOf(t, 1, func(*Config) {})
	newClient(t, h, l).asks(`"msg_type":"join_room","room":"r"`)
	end, none := make(chan struct{}), DefaultPolicy()
	none.History.Messages = 0
	var reloads sync.WaitGroup
	reloads.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-end:
				return
			default:
			}
			cfg := h.cfg().Config
			cfg.Policies = NewPolicies(Disconnect, Rule{glob.New("r"), []Policy{none, DefaultPolicy()}[i%2]})
			h.Reload(cfg)
		}
	})
	for range 20_000 {
		if _, _, err := h.Publish(t.Context(), &Publication{Room: "r", Content: []byte("1")}); err != nil && !errors.Is(err, ErrOverloaded) {
			t.Fatal(err)
		}
	}
	close(end)
	reloads.Wait()
}

// Whatever is reloaded beside whatever clients do, all accounts hold.
func TestReloadsLeaveTheAccountsRight(t *testing.T) {
	h, l := newHubOf(t, 2, func(c *Config) { c.ResumeWindow = time.Minute })
	end := make(chan struct{})
	var reloads sync.WaitGroup
	reloads.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
			}
			cfg := h.cfg().Config
			p := DefaultPolicy()
			p.Presence = []Presence{PresenceOff, PresenceCount, PresenceFull}[rand.IntN(3)]
			p.SlowConsumer = []SlowConsumer{Disconnect, DropOldest, Latest, LatestByKey}[rand.IntN(4)]
			if rand.IntN(2) == 0 {
				p.History.Messages = 0
			} else {
				p.History.Messages = 1 + rand.IntN(20)
			}
			p.IdleTTL = time.Duration(rand.IntN(2)) * time.Minute
			cfg.Policies = NewPolicies(Disconnect, Rule{glob.New("r*"), p})
			cfg.Limits.UserConnections = []int{0, 100}[rand.IntN(2)]
			h.Reload(cfg)
		}
	})
	var all sync.WaitGroup
	for k := range 6 {
		all.Go(func() {
			who := Identity{ID: NewID(), User: fmt.Sprint("u", k%3)}
			c := newSession(t, l, h.Session(who, netip.Addr{}, nil))
			for range 100 { // fewer than the parkings that a shard may keep behind their sessions
				room := fmt.Sprint("r", rand.IntN(3))
				switch rand.IntN(6) {
				case 0, 1:
					c.say(`{"msg_type":"join_room","room":%q,"data":"%0*d"}`, room, rand.IntN(200), 7)
				case 2:
					c.say(`{"msg_type":"leave_room","room":%q}`, room)
				case 3, 4:
					c.say(`{"msg_type":"room_message","room":%q,"content":"%0*d"}`, room, rand.IntN(200), 7)
				default:
					token := c.lose(h)
					of, ok := h.Resume(token)
					if !ok {
						t.Error("the token is not good")
						return
					}
					c = newSession(t, l, h.Session(Identity{ID: of.ID, User: of.User}, netip.Addr{}, &of))
					if rand.IntN(2) == 0 {
						c.say(`{"msg_type":"resume","rooms":{%q:null},"id":1}`, room)
					}
				}
				c.sync()
			}
		})
	}
	all.Wait()
	close(end)
	reloads.Wait()
	settled(t, h)
}
