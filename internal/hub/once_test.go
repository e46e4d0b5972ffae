package hub

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/broker/brokertest"
)

// publishes is how a client of a node publishes by a publish_id, again and again where it is told to try again.
func (c *client) publishes(id, content string) (duplicate bool) {
	c.t.Helper()
	for {
		c.say(`{"msg_type":"room_message","room":"r","content":%q,"publish_id":%q,"id":"asked"}`, content, id)
		m := c.answer("asked", func(m map[string]any) { c.t.Errorf("got %v", m) })
		switch {
		case m["msg_type"] == "ack":
			is, _ := m["duplicate"].(bool)
			return is
		case m["code"] != "unavailable" || m["retry"] != true:
			c.t.Fatalf("got %v", m)
		}
		time.Sleep(time.Millisecond)
	}
}

// homesKnow waits until the homes know of so many publish_ids.
func homesKnow(t *testing.T, want int, nodes ...*node) {
	t.Helper()
	until(t, "the homes know all", func() bool {
		n := 0
		for _, of := range nodes {
			cs := &of.cluster.claims
			cs.mu.Lock()
			for _, c := range cs.all {
				if c.done {
					n++
				}
			}
			cs.mu.Unlock()
		}
		return n >= want
	})
}

// What a user, or the application by the name of its key, has published by an id is published once, whichever node it
// comes to next; an anonymous client's ids are its session's own.
func TestAPublishIDCountsOnAllNodes(t *testing.T) {
	_, all := newNodes(t, 3, asIs)
	reader := all[1].client()
	reader.joins("r")
	const ids = 20 // so that each node is the home of some
	clients := []*client{all[0].as("ann"), all[1].as("ann"), all[2].as("ann")}
	for i := range ids {
		id := fmt.Sprint("id", i)
		for k := range clients {
			if duplicate := clients[(i+k)%3].publishes(id, id); duplicate != (k > 0) {
				t.Fatalf("%s, time %d: duplicate: %t", id, k, duplicate)
			}
		}
		for k := range all {
			p := &Publication{Room: "r", Content: fmt.Appendf(nil, "%q", "app "+id), PublishID: id, Publisher: "backend"}
			_, duplicate, err := all[(i+k)%3].Publish(t.Context(), p)
			for errors.Is(err, ErrUnavailable) { // the home hasn't heard of the one before yet
				_, duplicate, err = all[(i+k)%3].Publish(t.Context(), p)
			}
			if must(t, err); duplicate != (k > 0) {
				t.Fatalf("%s, the application's, time %d: duplicate: %t", id, k, duplicate)
			}
		}
		reader.hears(id, "app "+id)
	}
	for _, n := range all {
		if n.client().publishes("id0", "anonymous") {
			t.Error("another session's publish_id counts")
		}
		reader.hears("anonymous")
	}
	if n := all[0].as("bob"); n.publishes("id0", "bob") {
		t.Error("another user's publish_id counts")
	}
	reader.hears("bob")
	for _, n := range all {
		for _, fault := range n.Audit() {
			t.Error(fault)
		}
	}
}

// The same message that comes to all nodes at once is published by one of them.
func TestAPublishIDOnAllNodesAtOnce(t *testing.T) {
	_, all := newNodes(t, 3, asIs)
	reader := all[0].client()
	reader.joins("r")
	const rounds = 40
	clients := []*client{all[0].as("ann"), all[1].as("ann"), all[2].as("ann")}
	for i := range rounds {
		var wait sync.WaitGroup
		var mu sync.Mutex
		first := 0
		for _, c := range clients {
			wait.Go(func() {
				if !c.publishes(fmt.Sprint(i), fmt.Sprint(i)) {
					mu.Lock()
					defer mu.Unlock()
					first++
				}
			})
		}
		if wait.Wait(); first != 1 {
			t.Fatalf("%d were told that they had published %d", first, i)
		}
		reader.hears(fmt.Sprint(i))
	}
	if got := reader.sync(); len(got) > 0 {
		t.Errorf("got %v too", got)
	}
}

// What comes behind a publish_id, whose home is asked, doesn't overtake it, nor does its acknowledgement.
func TestAPublishIDKeepsItsPlace(t *testing.T) {
	_, all := newNodes(t, 2, asIs)
	reader, c := all[1].client(), all[0].client()
	reader.joins("r")
	const many = 60
	for i := range many {
		if i%3 == 0 {
			c.say(`{"msg_type":"room_message","room":"r","content":"%d","id":%d}`, i, i)
		} else {
			c.say(`{"msg_type":"room_message","room":"r","content":"%d","publish_id":"%d","id":%d}`, i, i, i)
		}
	}
	for i := range many {
		reader.hears(fmt.Sprint(i))
		if m := c.next(); m["msg_type"] != "ack" || m["id"] != float64(i) {
			t.Fatalf("got %v, want the ack of %d", m, i)
		}
	}
}

// Nodes that end, the ids' homes among them, and nodes that come change nothing: who published it brings it to the new
// home. What was published by a node that has ended is known at its home.
func TestAPublishIDOutlivesItsHome(t *testing.T) {
	memory := brokertest.NewMemory()
	set := asIs
	ends := &within{T: t}
	var all []*node
	for range 2 {
		all = append(all, newNode(t, memory, set))
	}
	home := newNode(ends, memory, set)
	know(t, append(all, home)...)
	reader := all[0].client()
	reader.joins("r")
	const ids = 60
	ann := all[0].as("ann")
	for i := range ids {
		ann.publishes(fmt.Sprint(i), fmt.Sprint(i))
		reader.hears(fmt.Sprint(i))
	}
	homesKnow(t, ids, append(all, home)...)
	ends.end()
	know(t, all...)
	homesKnow(t, ids, all...)
	ann = all[1].as("ann")
	for i := range ids {
		if !ann.publishes(fmt.Sprint(i), "again") {
			t.Fatalf("%d is published twice when its home has ended", i)
		}
	}
	late := newNode(t, memory, set)
	all = append(all, late)
	know(t, all...)
	homes := map[string]bool{}
	for i := range ids {
		id := publishKey{user: "ann", room: "r", id: fmt.Sprint(i)}.hash()
		if late.cluster.home(string(id[:])) == late.cluster.id {
			homes[fmt.Sprint(i)] = true
		}
	}
	if len(homes) == 0 {
		t.Fatal("the new node is nothing's home")
	}
	homesKnow(t, len(homes), late)
	ann = late.as("ann")
	for i := range ids {
		if !ann.publishes(fmt.Sprint(i), "again") {
			t.Fatalf("%d is published twice when a node has come", i)
		}
	}
	if got := reader.sync(); len(got) > 0 {
		t.Errorf("got %v too", got)
	}
}

// Where the home was asked and nothing came of it, another node may publish; nobody is told that it was published. That
// holds at once where the node that had asked is gone, and says so, and later where it doesn't.
func TestAClaimThatComesToNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, all := newNodes(t, 2, asIs)
		c, id := all[0].cluster, publishHash{}
		for c.home(string(id[:])) != c.id {
			id[0]++
		}
		wants := func(by *node, duplicate bool, claimed bool) {
			t.Helper()
			got, err := c.claim(by.cluster.id, id)
			if got != duplicate || (err == nil) != claimed {
				t.Errorf("duplicate: %t, %v; want %t and %t", got, err, duplicate, claimed)
			}
		}
		wants(all[1], false, true)
		wants(all[1], false, true)
		wants(all[0], false, false)
		c.release(c.id, id) // not its own
		wants(all[0], false, false)
		time.Sleep(claimsFor * time.Millisecond)
		wants(all[0], false, true)
		c.release(c.id, id)
		c.claim([4]byte{9}, id) // who isn't there
		wants(all[1], false, true)
		c.published(all[1].cluster.id, []publishedID{{id[:], 10_000}, {[]byte("short"), 10_000}, {id[:], -1}})
		wants(all[0], true, true)
		wants(all[1], true, true)
		time.Sleep(time.Minute)
		wants(all[0], false, true)
		time.Sleep(62 * time.Second)
		if n := all[0].Kept(KeptPublishIDs); n != 0 {
			t.Errorf("%d bytes are kept behind the window", n)
		}
	})
}

// Who publishes what is claimed just now waits for what comes of that: it was published, it wasn't, or nobody says.
func TestAPublishWaitsForAnother(t *testing.T) {
	for name, story := range map[string]struct {
		ends  func(c *cluster, by *node, id publishHash)
		wants func(m map[string]any) bool
	}{
		"it was published": {func(c *cluster, by *node, id publishHash) { c.published(by.cluster.id, []publishedID{{id[:], 10_000}}) },
			func(m map[string]any) bool { return m["msg_type"] == "ack" && m["duplicate"] == true }},
		"it was not": {func(c *cluster, by *node, id publishHash) { c.release(by.cluster.id, id) },
			func(m map[string]any) bool { return m["msg_type"] == "ack" && m["duplicate"] == nil }},
		"nobody says": {func(*cluster, *node, publishHash) {},
			func(m map[string]any) bool { return m["code"] == "unavailable" && m["retry"] == true }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				_, all := newNodes(t, 2, asIs)
				ann := all[0].as("ann")
				key := publishKey{user: "ann", room: "r"}
				for at := 0; key.id == "" || all[0].cluster.home(hashText(key)) != all[0].cluster.id; at++ {
					key.id = fmt.Sprint(at)
				}
				c, id := all[0].cluster, key.hash()
				c.claim(all[1].cluster.id, id)
				ann.say(`{"msg_type":"room_message","room":"r","content":1,"publish_id":%q,"id":"asked"}`, key.id)
				for _, m := range ann.sync() {
					t.Errorf("got %v while the id is claimed", m)
				}
				time.Sleep(time.Second)
				story.ends(c, all[1], id)
				if m := ann.next(); !story.wants(m) {
					t.Errorf("got %v", m)
				}
			})
		})
	}
}

func hashText(k publishKey) string {
	h := k.hash()
	return string(h[:])
}
