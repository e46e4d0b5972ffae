package hub

import (
	"testing"

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
