package nats

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/hubbub/broker"
)

// Three stores with TLS are started one after the other, and a node that keeps nothing before them: a cluster begins
// when all stores are there, and goes on with most of them.
func TestStoresInAnyOrder(t *testing.T) {
	t.Parallel()
	files := testTLS(t)
	c := newStores(t, 3, func(s *Store) { s.TLS = files })
	joined := run(t, c.join())
	c.start(2)
	c.start(0)
	c.logs("this node can't serve: the stores have no leader")
	c.logs("no way to " + c.configs[1].Listen)
	if joined.Ready() == nil || c.brokers[2].Ready() == nil {
		t.Error("two of three stores that have never met the third begin without it")
	}
	c.start(1)
	c.ready()
	ready(t, joined.Broker)
	r := testRoom("room")
	first := joined.publish(r, "with three", "")
	c.kill(0)
	joined.publish(r, "with two", "")
	c.kill(1)
	c.until("one of three isn't enough", func() bool { return joined.Ready() != nil })
	c.kill(2)
	c.start(1)
	c.start(0)
	c.ready()
	nodes := []*testNode{run(t, c.brokers[0]), run(t, c.brokers[1]), joined}
	for _, n := range nodes {
		n.open(r)
	}
	last := nodes[1].publish(r, "with two again", "")
	if last.at.Epoch != first.at.Epoch {
		t.Errorf("it goes on at %+v, it was at %+v", last.at, first.at)
	}
	for _, n := range nodes {
		if s := n.sees(r.Name, "the last", hasLast("with two again")); !slices.Equal(s.bodies, []string{"with three", "with two", "with two again"}) {
			t.Errorf("a node has seen %v", s.bodies)
		}
	}
	c.startAll()
	c.well(joined)
}

// What is wrong with a store or a node is said in its log, and it isn't ready.
func TestWhatIsWrongIsSaid(t *testing.T) {
	wrong := func(name, says string, change func(s *Store)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := testTLS(t)
			c := newStores(t, 3, func(s *Store) { s.TLS = files })
			change(&c.configs[2])
			for i := range c.configs {
				c.start(i)
			}
			node := c.configs[2].Cluster
			node.Join = c.configs[0].Join
			b, err := Join(node, c.config())
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			c.logs(says)
			for i, b := range c.brokers {
				if b.Ready() == nil && c.configs[i].Join != nil { // one that is alone doesn't miss the others
					t.Error("a store is ready")
				}
			}
		})
	}
	wrong("secret", "refuses this node: it has another --cluster-secret or another --cluster-name", func(s *Store) { s.Secret += "!" })
	wrong("name", "all nodes must have the same --cluster-name", func(s *Store) { s.Name = "another" })
	wrong("TLS", "don't both have TLS", func(s *Store) { s.TLS = nil })
	wrong("CA", "of the same --cluster-tls-ca", func(s *Store) { s.TLS = testTLS(t) })
	wrong("alone", "there is no route to it: it was started without --join", func(s *Store) { s.Join = nil })
	wrong("itself", "name it alike", func(s *Store) { s.Listen = strings.Replace(s.Listen, "127.0.0.1", "localhost", 1) })
	wrong("id", "two stores have the same id", func(s *Store) { s.ID = "store1" })
}

// A node that is to join two stores, each of which is alone, serves with neither: it would have one history today, and
// another tomorrow.
func TestTwoThatAreAlone(t *testing.T) {
	t.Parallel()
	c := newStores(t, 2)
	for i := range c.configs {
		c.configs[i].Join = nil
	}
	c.startAll()
	b, err := Join(Cluster{Secret: testSecret, Join: []string{c.configs[0].Listen, c.configs[1].Listen}}, c.config())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	c.until("it says why", func() bool { return strings.Contains(b.Ready().Error(), "don't know each other") })
}

// A node that was alone becomes a store, and later one of three: rooms go on where they were.
func TestGrowing(t *testing.T) {
	t.Parallel()
	c := newStores(t, 3)
	if err := os.MkdirAll(c.configs[1].Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b, err := Start(c.configs[1].Dir, Config{})
	if err != nil {
		t.Fatal(err)
	}
	n := run(t, b)
	all := names("room ", 20)
	last := map[string]broker.Position{}
	for _, name := range all {
		n.publish(testRoom(name), "alone", "")
	}
	n.stop()
	join := c.configs[1].Join
	c.configs[1].Join = nil
	c.start(1)
	ready(t, c.brokers[1])
	node, err := Join(Cluster{Secret: testSecret, Join: join[1:2]}, c.config())
	if err != nil {
		t.Fatal(err)
	}
	ready(t, node)
	n = run(t, node)
	for _, name := range all {
		n.open(testRoom(name))
		last[name] = n.publish(testRoom(name), "a store", "").at
	}
	if _, err := n.Agree(t.Context(), "key", func([]byte) []byte { return []byte("agreed") }); err != nil {
		t.Error(err)
	}
	c.stop(1)
	c.configs[1].Join = join
	c.startAll()
	if v, err := n.Agree(t.Context(), "key", func(now []byte) []byte { return now }); err != nil || string(v) != "agreed" {
		t.Errorf("nodes have agreed on %q, %v", v, err)
	}
	for _, name := range all {
		at := n.publish(testRoom(name), "of three", "").at
		if was := last[name]; at.Epoch != was.Epoch || at.Offset <= was.Offset {
			t.Errorf("%q goes on at %+v, it was at %+v", name, at, was)
		}
		if s := n.sees(name, "the last", hasLast("of three")); !slices.Equal(s.bodies, []string{"alone", "a store", "of three"}) || len(s.lost) > 0 {
			t.Errorf("a node has seen %v of %q, lost %v", s.bodies, name, s.lost)
		}
	}
	other := run(t, c.join())
	other.open(testRoom(all[0]))
	if s := other.look(all[0]); !slices.Equal(s.bodies, []string{"alone", "a store", "of three"}) {
		t.Errorf("who opens it sees %v", s.bodies)
	}
	c.well(n)
	left, _ := filepath.Glob(c.configs[1].Dir + ".taken-over-*")
	if len(left) != 1 {
		t.Fatalf("beside the folder there is %v", left)
	}
	// Where the servers don't answer who has the cluster begin it isn't said to have begun without that.
	if err := os.Rename(left[0], c.brokers[1].server.aside()); err != nil {
		t.Fatal(err)
	}
	if err := (&stores{b: c.brokers[1], brought: true}).begin(); err != nil || c.brokers[1].server.brings() {
		t.Errorf("what the cluster has taken over counts as unused: %v", err)
	}
}

// Two stores are added to three: streams get five copies.
func TestThreeBecomeFive(t *testing.T) {
	t.Parallel()
	c := newStores(t, 5)
	five := c.configs[0].Join
	for i := range 3 {
		c.configs[i].Join = five[:3]
		c.start(i)
	}
	c.ready()
	n := run(t, c.join())
	r := testRoom("room")
	n.open(r)
	n.publish(r, "three", "")
	c.startAll()
	for i := range 3 {
		c.stop(i)
		c.configs[i].Join = five
		c.startAll()
	}
	n.publish(r, "five", "")
	c.until("each stream has five copies", func() bool {
		o, err := n.Look(t.Context())
		return err == nil && len(o.Problems) == 0 && len(o.Stores) == 5 && !slices.ContainsFunc(o.Streams, func(s StreamState) bool { return len(s.Copies) != 5 })
	})
	c.kill(0)
	c.kill(1)
	n.publish(r, "three of five", "")
	if s := n.sees(r.Name, "the last", hasLast("three of five")); !slices.Equal(s.bodies, []string{"three", "five", "three of five"}) || len(s.lost) > 0 {
		t.Errorf("a node has seen %v, lost %v", s.bodies, s.lost)
	}
}

// A folder that is another cluster's, or of one of several stores, isn't used for something else.
func TestFolderOfAnother(t *testing.T) {
	t.Parallel()
	c := newStores(t, 3)
	refused := func(why string, s Store) {
		t.Helper()
		if b, err := StartStore(s, c.config()); err == nil || !strings.Contains(err.Error(), why) {
			if err == nil {
				b.Close()
			}
			t.Errorf("it isn't refused for %q, but %v", why, err)
		}
	}
	c.start(0)
	c.stop(0)
	s := c.configs[0]
	s.Name = "other"
	refused(`cluster "hubbub"`, s)
	s = c.configs[0]
	s.Join = nil
	refused("no join names them", s)
	if b, err := Start(s.Dir, Config{}); err == nil || !strings.Contains(err.Error(), "no join names them") {
		if err == nil {
			b.Close()
		}
		t.Errorf("a node that is alone takes it: %v", err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, clusterFile), nil, 0o600); err != nil { // the power was cut
		t.Fatal(err)
	}
	refused("no join names them", s)
	c.start(0) // as it was
	c.stop(0)
	if _, err := os.Stat(c.configs[0].Dir + ".alone"); err == nil {
		t.Error("what the cluster has was moved aside")
	}
	if err := os.MkdirAll(c.configs[0].Dir+".alone", 0o700); err != nil {
		t.Fatal(err)
	}
	refused("to go back to that", s)
}

// Look says in words what isn't well, clocks among it.
func TestOverviewJudges(t *testing.T) {
	up := func(name string, skew time.Duration) StoreState {
		return StoreState{Name: name, Address: name + ":7422", Up: true, Skew: skew}
	}
	whole := []CopyState{{Store: "a", Current: true}, {Store: "b", Current: true}, {Store: "c", Current: true}}
	for _, x := range []struct {
		o    Overview
		says []string
	}{
		{Overview{Leader: "a", Stores: []StoreState{up("a", 0), up("b", time.Second), up("c", -time.Second)},
			Streams: []StreamState{{Name: "HB_1", Leader: "a", Replicas: 3, Copies: whole}}}, nil},
		{Overview{Leader: "a", Stores: []StoreState{up("a", 0), up("b", -time.Minute), up("c", time.Hour)}},
			[]string{"the clock of b:7422 differs by -1m0s", "the clock of c:7422 differs by 1h0m0s"}},
		{Overview{Stores: []StoreState{up("a", 0), {Name: "b", LastSeen: time.Minute}}}, []string{"the store b is away since 1m0s", "1 of 3 stores are there", "no leader"}},
		{Overview{Leader: "a", Stores: []StoreState{up("a", 0), up("b", 0), up("c", 0), up("d", 0)}}, []string{"there are 4 stores"}},
		{Overview{Leader: "a", Stores: []StoreState{up("a", 0), up("b", 0), up("c", 0)}, Streams: []StreamState{
			{Name: "HB_1", Replicas: 3, Copies: whole}, {Name: "HB_2", Leader: "a", Replicas: 3, Copies: whole[:2]},
			{Name: "HB_3", Leader: "a", Replicas: 3, Copies: append(slices.Clone(whole[:2]), CopyState{Store: "c"})},
		}}, []string{"1 streams of 3 have a copy that is behind", "1 streams of 3 have fewer copies", "1 streams of 3 have no leader"}},
	} {
		x.o.judge(max(3, len(x.o.Stores)))
		if len(x.o.Problems) != len(x.says) {
			t.Errorf("it says %q, which should be %q", x.o.Problems, x.says)
			continue
		}
		for i, want := range x.says {
			if !strings.Contains(x.o.Problems[i], want) {
				t.Errorf("it says %q, which should be %q", x.o.Problems[i], want)
			}
		}
	}
}

// Streams that are made while a store is away get another copy when it is back.
func TestFewerCopiesForAWhile(t *testing.T) {
	t.Parallel()
	c := newStores(t, 3)
	c.startAll()
	c.stop(2)
	n := run(t, c.brokers[0])
	c.until("two stores serve", func() bool { return n.try(testRoom("room"), "m", "").err == nil })
	c.startAll()
	c.well(n)
}

// A store whose disk is gone is removed, and a new one takes its place. Nothing is removed that is up.
func TestLostStoreIsReplaced(t *testing.T) {
	t.Parallel()
	c := newStores(t, 3)
	c.startAll()
	n := run(t, c.join())
	r := testRoom("room")
	n.open(r)
	n.publish(r, "before", "")
	cluster := c.configs[0].Cluster
	if err := cluster.Remove(t.Context(), "store2"); err == nil || !strings.Contains(err.Error(), "is up") {
		t.Errorf("a store that is up is removed: %v", err)
	}
	if err := cluster.Remove(t.Context(), "nobody"); err == nil || !strings.Contains(err.Error(), "no store") {
		t.Errorf("a store that there isn't is removed: %v", err)
	}
	c.kill(2)
	o, err := cluster.Look(t.Context()) // its copies are whole, as far as their leaders know
	for _, s := range o.Streams {
		if err == nil && slices.ContainsFunc(s.Copies, func(c CopyState) bool { return c.Store == "store2" && c.Current }) {
			t.Errorf("the copy of a store that has died counts: %+v", s)
		}
	}
	c.configs[2].Dir, c.configs[2].ID = filepath.Join(t.TempDir(), "log"), "new"
	n.publish(r, "while it is away", "")
	c.until("it is said that a store is away", func() bool {
		o, err := cluster.Look(t.Context())
		return err == nil && slices.ContainsFunc(o.Problems, func(p string) bool {
			return strings.HasPrefix(p, "the store store2 (") && strings.Contains(p, ") is away")
		})
	})
	if err := cluster.Remove(t.Context(), "store2"); err != nil {
		t.Error(err)
	}
	c.startAll()
	c.well(n)
	c.kill(0)
	n.publish(r, "after", "")
	if s := n.sees(r.Name, "the last", hasLast("after")); !slices.Equal(s.bodies, []string{"before", "while it is away", "after"}) || len(s.lost) > 0 {
		t.Errorf("a node has seen %v, lost %v", s.bodies, s.lost)
	}
}

// A store whose server has given up its files, as it does when the disk is full, starts it anew.
func TestSickStoreIsRevived(t *testing.T) {
	t.Parallel()
	c := newStores(t, 3)
	c.startAll()
	n := run(t, c.brokers[1])
	r := testRoom("room")
	n.open(r)
	n.publish(r, "first", "")
	sick := n.server.running()
	if err := sick.DisableJetStream(); err != nil {
		t.Fatal(err)
	}
	c.until("another server", func() bool { s := n.server.running(); return s != nil && s != sick })
	c.ready()
	n.publish(r, "last", "")
	if s := n.sees(r.Name, "the last", hasLast("last")); !slices.Equal(s.bodies, []string{"first", "last"}) || len(s.lost) > 0 {
		t.Errorf("the node has seen %v, lost %v", s.bodies, s.lost)
	}
}

// A planned stop hands over what the store leads: who publishes hardly waits. It logs how long.
func TestPlannedStop(t *testing.T) {
	t.Parallel()
	c := newStores(t, 3)
	c.startAll()
	n := run(t, c.join())
	rooms := names("room ", 20)
	for _, name := range rooms {
		n.publish(testRoom(name), "m", "")
	}
	for i := range c.brokers {
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			c.stop(i)
		}()
		var worst time.Duration
		for over := false; !over; {
			select {
			case <-stopped:
				over = true
			default:
			}
			for _, name := range rooms {
				began := time.Now()
				if p := n.try(testRoom(name), "m", ""); p.err != nil {
					t.Error(p.err)
				}
				worst = max(worst, time.Since(began))
			}
		}
		t.Logf("while the store %d stopped, the slowest publish took %v", i, worst)
		c.startAll()
	}
}

// What leaders still say of a store that doesn't answer counts for nothing.
func TestOverviewDoubts(t *testing.T) {
	three := func(leader string) StreamState {
		return StreamState{Name: "HB_" + leader, Leader: leader, Replicas: 3, Copies: []CopyState{{Store: "a", Current: true}, {Store: "b", Current: true}, {Store: "c", Current: true}}}
	}
	o := Overview{Leader: "a", Stores: []StoreState{{Name: "a", Up: true}, {Name: "b", Up: true}, {Name: "c"}}, Streams: []StreamState{three("a"), three("c")}}
	o.doubt()
	if s := o.Streams[0]; s.Leader != "a" || !s.Copies[1].Current || s.Copies[1].Offline || s.Copies[2].Current || !s.Copies[2].Offline {
		t.Errorf("a stream of which a copy is away: %+v", s)
	}
	if s := o.Streams[1]; s.Leader != "" || slices.ContainsFunc(s.Copies, func(c CopyState) bool { return c.Current }) || s.Copies[0].Offline {
		t.Errorf("a stream whose leader is away: %+v", s)
	}
	o.judge(3)
	if all := strings.Join(o.Problems, "; "); !strings.Contains(all, "1 streams of 2 have a copy that is behind or away") || !strings.Contains(all, "1 streams of 2 have no leader") {
		t.Errorf("it says %q", o.Problems)
	}
}
