package nats

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"example.com/hubbub/broker"
)

func roomOf(replicas int, name string) broker.Room {
	r := testRoom(name)
	r.Replicas = replicas
	return r
}

// leaderOf is the store that leads a room's stream, or -1.
func (c *testStores) leaderOf(r broker.Room) int {
	key := streamKeyOf(r)
	name := newStream(c.brokers[0], key).name
	return slices.IndexFunc(c.brokers, func(b *Broker) bool {
		return b.server.running().JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, name)
	})
}

// Of three stores one is killed. Rooms of one replica that it had take nothing until it is back, and then have lost
// nothing; those of another store, and all with three replicas, go on.
func TestOneReplicaOrThree(t *testing.T) {
	t.Parallel()
	c := newStores(t, 3)
	c.startAll()
	n := run(t, c.join())
	ready(t, n.Broker)
	c.until("stores serve", func() bool { return n.try(roomOf(3, "three"), "before", "").err == nil })
	all := roomOf(0, "as the others")
	n.publish(all, "before", "")
	lost := roomOf(1, "one")
	n.publish(lost, "before", "")
	at := c.leaderOf(lost)
	for _, r := range []broker.Room{lost, all, roomOf(3, "three")} {
		n.open(r)
	}
	o, err := n.Look(t.Context())
	if err != nil || len(o.Problems) > 0 {
		t.Errorf("%q, %v", o.Problems, err)
	}
	for _, s := range o.Streams {
		if want := 3 - 2*strings.Count(s.Name, replicasMark+"1"); s.Replicas != want || len(s.Copies) != want {
			t.Errorf("%s has %d replicas and %d copies, it should have %d", s.Name, s.Replicas, len(s.Copies), want)
		}
	}

	was := n.look(lost.Name).at.Epoch
	c.kill(at)
	failed := make(chan error, 2)
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(n.Publish(lost, broker.Message{Body: []byte("meanwhile"), ID: "m"}, func(_ broker.Position, _ bool, err error) { failed <- err }))
	n.Read(lost, 0, func(_ broker.Log, err error) { failed <- err })
	other := roomOf(1, "one elsewhere")
	other.Messages++ // so that it has another stream, which can't be on that store
	c.until("one that is made now", func() bool { return n.try(other, "before", "b").err == nil })
	n.open(other)
	for _, r := range []broker.Room{other, all, roomOf(3, "three")} {
		c.until("it goes on", func() bool { return n.try(r, "meanwhile", "m").err == nil })
	}
	for range cap(failed) {
		if err := <-failed; !errors.Is(err, broker.ErrUnavailable) && !errors.Is(err, broker.ErrTimeout) {
			t.Errorf("the only store of a room is gone: %v", err)
		}
	}

	c.startAll()
	c.until("the only store is back", func() bool { return n.try(lost, "after", "a").err == nil })
	for _, r := range []broker.Room{lost, other, all, roomOf(3, "three")} {
		last := "meanwhile"
		if r == lost {
			last = "after"
		}
		s := n.sees(r.Name, last, hasLast(last))
		if s.bodies[0] != "before" || len(s.bodies) != 2 || len(s.lost) > 0 || r == lost && s.at.Epoch != was {
			t.Errorf("%q: %q, lost %v", r.Name, s.bodies, s.lost)
		}
	}
}

// The store that had the only copy of a log is gone for good, and the cluster forgets it: the log is another one then, and
// members are told. What other stores have isn't touched.
func TestOnlyCopyIsLostWithItsStore(t *testing.T) {
	t.Parallel()
	c := newStores(t, 3)
	c.startAll()
	n := run(t, c.join())
	ready(t, n.Broker)
	lost, kept := roomOf(1, "one"), roomOf(3, "three")
	for _, r := range []broker.Room{lost, kept} {
		c.until("stores serve", func() bool { return n.try(r, "before", "b").err == nil })
		n.open(r)
	}
	was := n.look(lost.Name).at.Epoch
	at := c.leaderOf(lost)
	name := c.brokers[at].server.running().Name()
	c.kill(at)
	c.configs[at].Dir, c.configs[at].ID = filepath.Join(t.TempDir(), "log"), "new"
	c.until("the store can be removed", func() bool { return c.configs[0].Cluster.Remove(t.Context(), name) == nil })
	c.startAll()
	for _, r := range []broker.Room{lost, kept} {
		c.until("it goes on", func() bool { return n.try(r, "after", "a").err == nil })
		n.sees(r.Name, "what comes after", hasLast("after"))
	}
	if s := n.look(lost.Name); s.at.Epoch == was || len(s.lost) == 0 {
		t.Errorf("members of the room whose log is gone have %+v, before %s", s, was)
	}
	if s := n.look(kept.Name); !slices.Equal(s.bodies, []string{"before", "after"}) || len(s.lost) > 0 {
		t.Errorf("members of the other room have %+v", s)
	}
}

// Rooms that say their replicas have streams of their own, whatever the others have.
func TestReplicasAreInNames(t *testing.T) {
	b := &Broker{ctx: t.Context()}
	for replicas, want := range map[int]string{0: "HB_1000_3600000_", 1: "HB_1000_3600000_r1_", 5: "HB_1000_3600000_r5_"} {
		st := newStream(b, streamKeyOf(roomOf(replicas, "r")))
		if !strings.HasPrefix(st.name, want) || ownReplicas(st.name) != replicas || strings.Count(st.subject("p", "N", "t"), ".") != 5 {
			t.Errorf("%d replicas: %s, of which %d are read, %s", replicas, st.name, ownReplicas(st.name), st.subject("p", "N", "t"))
		}
	}
	for _, name := range []string{beginning, agreedStream, "HB_1_2_3"} {
		if n := ownReplicas(name); n != 0 {
			t.Errorf("%s: %d", name, n)
		}
	}
}

// What is published to rooms that one node has open isn't sent to the others.
func TestOnlyWhoHasTheRoomOpenIsSentItsMessages(t *testing.T) {
	e := startEmbedded(t)
	var nodes []*testNode
	for range 3 {
		nodes = append(nodes, run(t, e.node(t)))
	}
	nodes[0].meets(2)
	r := testRoom("of one node")
	nodes[0].open(r)
	nodes[0].listen("of one node")
	before := []uint64{nodes[1].receive.Stats().InBytes, nodes[2].receive.Stats().InBytes}
	const many, size = 100, 10_000
	for i := range many {
		from := nodes[i%3]
		from.publish(r, strings.Repeat("x", size), "")
		if err := from.Tell("of one node", make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	nodes[0].sees(r.Name, "all messages", func(s seen) bool { return len(s.bodies) == many })
	if got := nodes[0].receive.Stats().InBytes; got < many*size {
		t.Errorf("the node that has the room open got %d bytes", got)
	}
	for i, n := range nodes[1:] {
		// Of beats they get some hundred bytes a second.
		if got := n.receive.Stats().InBytes - before[i]; got > many*size/4 {
			t.Errorf("a node that hasn't got the room open got %d bytes", got)
		}
	}
}
