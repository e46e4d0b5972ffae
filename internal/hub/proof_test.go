package hub

import (
	"fmt"
	"testing"
)

// A room without a message stands where the log of all rooms stood when a node opened it, so each node says another
// position. Who comes with one of them to another node hasn't missed anything, and is told so.
func TestAPositionOfAQuietRoomCountsOnEveryNode(t *testing.T) {
	t.Parallel()
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

// What a node knows of a quiet room is handed on with the first proof, all of it: clients of whom nobody has asked yet are
// recovered when the one that knew it is gone.
func TestWhatIsProvedOutlivesWhoKnewIt(t *testing.T) {
	memory, nodes := historyNodes(t, 3, asIs)
	join := func(n *node, since any) map[string]any {
		t.Helper()
		c := n.client()
		if since == nil {
			return c.asks(`"msg_type":"join_room","room":"quiet"`)
		}
		m := since.(map[string]any)
		return c.asks(`"msg_type":"join_room","room":"quiet","since":{"epoch":%q,"offset":%.0f}`, m["epoch"], m["offset"])
	}
	oldest := join(nodes[0], nil)
	memory.Pass(1000)
	older := join(nodes[1], nil)
	memory.Pass(1000)
	join(nodes[2], nil)
	if m := join(nodes[2], older); m["recovered"] != true {
		t.Fatalf("while all are there: %v", m)
	}
	memory.Cut(nodes[0].b, true)
	memory.Cut(nodes[1].b, true)
	until(t, "the others are gone", func() bool { peers, _ := nodes[2].Peers(); return len(peers) == 0 })
	if m := join(nodes[2], oldest); m["recovered"] != true {
		t.Errorf("when who knew it is gone: %v", m)
	}
}

// A node that is there and doesn't answer may know what would be needed: nothing is told as lost, but to try again.
func TestWhoIsSilentMayKnowBetter(t *testing.T) {
	t.Parallel()
	memory, nodes := historyNodes(t, 2, asIs)
	first := nodes[0].client().asks(`"msg_type":"join_room","room":"quiet"`)
	memory.Pass(1000)
	late := nodes[1].client()
	late.asks(`"msg_type":"join_room","room":"quiet"`)
	sh := nodes[0].roomShard("quiet")
	sh.mu.Lock() // so it can't look
	m := nodes[1].client().asks(`"msg_type":"join_room","room":"quiet","since":{"epoch":%q,"offset":%.0f}`, first["epoch"], first["offset"])
	sh.mu.Unlock()
	if m["code"] != "unavailable" {
		t.Errorf("while the other node is silent: %v", m)
	}
	m = nodes[1].client().asks(`"msg_type":"join_room","room":"quiet","since":{"epoch":%q,"offset":%.0f}`, first["epoch"], first["offset"])
	if m["recovered"] != true {
		t.Errorf("when it speaks again: %v", m)
	}
}

// A node that has yet to be given something of the log doesn't know whether that was in the room: it is asked again.
func TestWhoIsBehindTheLogIsntSure(t *testing.T) {
	memory, nodes := historyNodes(t, 2, asIs)
	first := nodes[0].client().asks(`"msg_type":"join_room","room":"quiet"`)
	other := "other"
	for n := 0; nodes[0].roomShard(other) == nodes[0].roomShard("quiet"); n++ {
		other = fmt.Sprint("other ", n)
	}
	nodes[0].client().joins(other)
	again := func() map[string]any {
		return nodes[1].client().asks(`"msg_type":"join_room","room":"quiet","since":{"epoch":%q,"offset":%.0f}`, first["epoch"], first["offset"])
	}
	sh := nodes[0].roomShard(other)
	sh.mu.Lock() // so nothing can be given to it
	if _, _, err := nodes[1].Publish(t.Context(), &Publication{Room: other, Content: []byte("1")}); err != nil {
		t.Error(err)
	}
	memory.Pass(1000)
	m := again()
	sh.mu.Unlock()
	if m["code"] != "unavailable" {
		t.Errorf("while the other node is behind: %v", m)
	}
	until(t, "it has been given all", func() bool { return again()["recovered"] == true })
}
