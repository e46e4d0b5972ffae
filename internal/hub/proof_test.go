package hub

import (
	"testing"
)

// A room without a message stands where the log of all rooms stood when a node opened it, so each node says another
// position. Who comes with one of them to another node hasn't missed anything, and is told so.
func TestAPositionOfAQuietRoomCountsOnEveryNode(t *testing.T) {
	memory, nodes := historyNodes(t, 3, asIs)
	early, late := nodes[0].client(), nodes[1].client()
	join := func(c *client, since map[string]any) map[string]any {
		t.Helper()
		if since == nil {
			return c.asks(`"msg_type":"join_room","room":"quiet"`)
		}
		return c.asks(`"msg_type":"join_room","room":"quiet","since":{"epoch":%q,"offset":%.0f}`, since["epoch"], since["offset"])
	}
	first := join(early, nil)
	memory.Pass(1000)
	second := join(late, nil)
	if first["offset"] == second["offset"] {
		t.Fatalf("both nodes stand at %v", first["offset"])
	}
	for what, c := range map[string]struct {
		on    int
		since map[string]any
	}{
		"the early position on the late node":  {1, first},
		"the late position on the early node":  {0, second},
		"the early position on a third node":   {2, first},
		"the late position on the third again": {2, second},
	} {
		if m := join(nodes[c.on].client(), c.since); m["recovered"] != true {
			t.Errorf("%s: %v", what, m)
		}
	}
	early.say(`{"msg_type":"room_message","room":"quiet","content":1,"id":1}`)
	late.hears(1.0)
	if m := join(nodes[2].client(), map[string]any{"epoch": first["epoch"], "offset": 1e15}); m["code"] != "unavailable" {
		t.Errorf("a position that never was: %v", m)
	}
}

// What nobody has seen can't be proved: the room was open nowhere.
func TestAPositionThatNobodyKnowsOf(t *testing.T) {
	memory, nodes := historyNodes(t, 2, asIs)
	a := nodes[0].client()
	m := a.asks(`"msg_type":"join_room","room":"quiet"`)
	a.asks(`"msg_type":"leave_room","room":"quiet"`)
	until(t, "the room is gone", func() bool { return nodes[0].Rooms() == 0 })
	memory.Pass(1000)
	got := nodes[1].client().asks(`"msg_type":"join_room","room":"quiet","since":{"epoch":%q,"offset":%.0f}`, m["epoch"], m["offset"])
	if got["recovered"] != false || got["reason"] != "expired" {
		t.Errorf("got %v", got)
	}
}
