package hub

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
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
	until(t, "the answer of the first, who isn't waited for once the second has proved it", func() bool {
		sh := nodes[2].roomShard("quiet")
		sh.mu.Lock()
		defer sh.mu.Unlock()
		return float64(sh.rooms["quiet"].log.Floor()) <= oldest["offset"].(float64)
	})
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

// stalling is a broker that brings its node nothing for a while, and says so, as one that is cut off from the log.
type stalling struct {
	broker.Broker
	mu      sync.Mutex
	stalls  bool
	brought []broker.Position
}

type stalled struct {
	broker.Node
	b *stalling
}

func (b *stalling) Run(ctx context.Context, n broker.Node) error {
	return b.Broker.Run(ctx, stalled{n, b})
}

func (b *stalling) stall() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stalls, b.brought = true, b.Broker.Brought()
}

func (b *stalling) Brought() []broker.Position {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stalls {
		return b.brought
	}
	return b.Broker.Brought()
}

func (s stalled) Deliver(room string, e []broker.Entry) {
	s.b.mu.Lock()
	stalls := s.b.stalls
	s.b.mu.Unlock()
	if !stalls {
		s.Node.Deliver(room, e)
	}
}

// A node that has not been given what came in a room mustn't prove that nothing came, also once a client from elsewhere, that has
// come further, has joined there: for it the room is taken to stand where the log does (comesTo), over a hole.
func TestAHoleIsNotSkipped(t *testing.T) {
	for _, further := range []bool{false, true} {
		t.Run(fmt.Sprint("further ", further), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				memory := brokertest.NewMemory()
				var all []*stalling
				nodes := quietNodes(t, memory, 3, 2, func(c *Config) {
					b := &stalling{Broker: c.Broker}
					all = append(all, b)
					c.Broker = b
				})
				first, _ := nodes[0].joins("room", nil)
				all[0].stall()
				for i := range 3 {
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
					_, _, err := nodes[1].h.Publish(ctx, &Publication{Room: "room", Content: []byte(fmt.Sprint(i))})
					cancel()
					if err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(quietAge + 10*time.Second) // they are expired
				later, _ := nodes[1].joins("room", nil)
				if further {
					if m, _ := nodes[0].joins("room", later); m["code"] != "unavailable" {
						t.Errorf("who has all is told %v", m)
					}
				}
				m, _ := nodes[2].joins("room", first)
				if m["recovered"] == true {
					t.Errorf("on a third node: three messages were missed, and who missed them is told %v", m)
				}
			})
		})
	}
}
