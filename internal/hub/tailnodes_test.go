package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// hearsOf takes what a tail hears until it has so many items.
func (t *Tail) hearsOf(tb testing.TB, n int) (all []TailItem, lost int64) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	for len(all) < n {
		items, more, err := t.Next(ctx)
		if err != nil {
			tb.Fatalf("heard %v, then %v", all, err)
		}
		all, lost = append(all, items...), lost+more
	}
	return all, lost
}

func tailOn(t testing.TB, n *node, of TailOf) *Tail {
	tail, err := n.Tail(of)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tail.Close)
	return tail
}

// lentTails is how many tails of others are open on the node.
func (n *node) lentTails() (lent int) {
	for _, t := range n.tails.list() {
		if t.lent {
			lent++
		}
	}
	return lent
}

// A tail on one node hears what passes on all of them, once: what a client does elsewhere, what a user's clients do, and
// the messages of a room that has members on several nodes.
func TestATailHearsAllNodes(t *testing.T) {
	_, nodes := historyNodes(t, 3, asIs)
	a, b := nodes[1].as("ann"), nodes[2].as("bob")
	ofClient := tailOn(t, nodes[0], TailOf{Client: idOf(a)})
	ofUser := tailOn(t, nodes[1], TailOf{User: "bob", Content: true})
	ofRoom := tailOn(t, nodes[2], TailOf{Room: "r"})
	for _, c := range []*client{a, b} {
		c.say(`{"msg_type":"join_room","room":"r","id":1}`)
		c.answer(1.0, func(map[string]any) {})
	}
	const many = 100
	go func() {
		for i := range many {
			a.say(`{"msg_type":"room_message","room":"r","content":%d}`, i)
		}
		a.say(`{"msg_type":"direct_message","to":%q,"content":"to bob"}`, b.id)
	}()
	items, _ := ofClient.hearsOf(t, many+2)
	if items[0].Kind != TailJoined || items[0].Client != (Identity{idOf(a), "ann"}) {
		t.Errorf("heard %+v", items[0])
	}
	if !slices.ContainsFunc(items, func(i TailItem) bool { return i.Kind == TailDirectMessage && i.To == idOf(b) }) {
		t.Errorf("heard no direct message: %+v", items)
	}
	kinds, offsets := map[TailKind]int{}, map[uint64]bool{}
	items, _ = ofRoom.hearsOf(t, many+2)
	for _, i := range items {
		kinds[i.Kind]++
		if i.Offset != 0 && offsets[i.Offset] {
			t.Errorf("offset %d is told twice", i.Offset)
		}
		offsets[i.Offset] = true
	}
	if kinds[TailJoined] != 2 || kinds[TailRoomMessage] != many {
		t.Errorf("the room: %v", kinds)
	}
	items, _ = ofUser.hearsOf(t, 2)
	if m := items[1]; items[0].Kind != TailJoined || m.Kind != TailDirectMessage || string(m.Content) != `"to bob"` || m.To != idOf(b) || m.Client.User != "ann" {
		t.Errorf("the user: %+v", items)
	}
	for _, tail := range []*Tail{ofClient, ofUser, ofRoom} {
		tail.Close()
		if _, _, err := tail.Next(t.Context()); !errors.Is(err, ErrTailClosed) {
			t.Error(err)
		}
	}
	for i, n := range nodes {
		until(t, fmt.Sprintf("node %d lends no tail any more", i), func() bool { return len(n.tails.list()) == 0 })
	}
}

// Where a node couldn't be asked for a while a tail says that something may be missing; a tail that is lent to a node
// that is gone ends.
func TestATailOfANodeThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, nodes := historyNodes(t, 2, asIs)
		a := nodes[1].as("ann")
		tail := tailOn(t, nodes[0], TailOf{User: "ann"})
		if n := nodes[1].lentTails(); n != 1 {
			t.Fatalf("%d tails are lent", n)
		}
		m.Cut(nodes[0].b, true)
		until(t, "the tail that is lent ends", func() bool { return nodes[1].lentTails() == 0 })
		a.say(`{"msg_type":"join_room","room":"r"}`)
		a.sync()
		m.Cut(nodes[0].b, false)
		until(t, "it is lent again", func() bool { return nodes[1].lentTails() == 1 })
		a.say(`{"msg_type":"leave_room","room":"r"}`)
		items, lost := tail.hearsOf(t, 1)
		if items[0].Kind != TailLeft || lost == 0 {
			t.Errorf("heard %+v, and that %d are missing", items, lost)
		}
	})
}
