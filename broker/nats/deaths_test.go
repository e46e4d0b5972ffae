package nats

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"example.com/hubbub/broker"
)

// What NATS doesn't export is what it is taken for. Where a version has changed it this must fail.
func TestRaftNodesAreFound(t *testing.T) {
	t.Parallel()
	c := newStores(t, 3)
	c.startAll()
	n := run(t, c.brokers[0])
	n.publish(testRoom("room"), "m", "")
	s, found := n.server.running(), 0
	for _, account := range raftAccounts {
		for group, info := range raftGroups(s, account, "") {
			node := lookupRaftNode(s, group)
			if node == nil || node.Group() != group || node.ID() != info.ID {
				t.Fatalf("of %s there is %v", group, node)
			}
			found++
		}
	}
	if found < 3 { // the cluster's own, that of its beginning, and a room's
		t.Errorf("there are %d logs", found)
	}
	if lookupRaftNode(s, "nobody's") != nil {
		t.Error("a log is found that there isn't")
	}
}

// A store that is killed is missed at once, and the others stand for election of what it has led. One that stops as planned
// leaves nothing to be elected.
func TestDeathsAreSeen(t *testing.T) {
	t.Parallel()
	files := testTLS(t)
	c := newStores(t, 3, func(s *Store) { s.TLS = files })
	killed := startApart(t, c.configs[2])
	c.start(0)
	c.start(1)
	ready(t, c.brokers[0])
	ready(t, c.brokers[1])
	n := run(t, c.join())
	rooms := names("room ", 20) // in all streams
	for _, name := range rooms {
		n.open(testRoom(name))
		c.published(n, testRoom(name), "before")
	}
	c.until("the way to the store is known", func() bool {
		return strings.Count(c.log.String(), `"the way to a store is known" store=store2`) >= 2
	})
	c.until("the store leads a log", func() bool {
		led := len(c.brokers[0].server.leads()) + len(c.brokers[1].server.leads())
		if led == shards {
			for _, name := range c.brokers[0].server.leads() {
				_ = c.brokers[0].server.running().JetStreamStepdownStream(server.DEFAULT_GLOBAL_ACCOUNT, name) // the next time
			}
		}
		return led < shards
	})
	killed()
	c.logs(`"a store has died" store=store2`)
	c.logs("a copy stands for election")
	for _, name := range rooms {
		c.published(n, testRoom(name), "after")
	}
	c.startAll()
	c.well(n)
	c.log.reset()
	c.stop(1)
	for _, name := range rooms {
		c.published(n, testRoom(name), "planned")
	}
	c.logs(`"a store has left" store=store1`)
	c.startAll()
	c.well(n)
	for _, says := range []string{"a copy stands for election", "a store has died"} {
		if strings.Contains(c.log.String(), says) {
			t.Error("of a store that stops as planned the log has:", says)
		}
	}
}

// storeApart is what a process has in its environment that is to be a store: its settings.
const storeApart = "HUBBUB_STORE"

// startApart starts a store in a process of its own, which killed ends as kill -9 does.
func startApart(t *testing.T, s Store) (killed func()) {
	t.Helper()
	settings, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), storeApart+"="+string(settings))
	cmd.Stderr = os.Stderr
	line, err := cmd.StdinPipe() // it ends with this process
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	killed = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // says that it was killed
		line.Close()
	})
	t.Cleanup(killed)
	return killed
}

// serveStore is that process.
func serveStore(settings string) {
	var s Store
	err := json.Unmarshal([]byte(settings), &s)
	if err == nil {
		_, err = StartStore(s, Config{})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// published has a node publish until it is acknowledged.
func (c *testStores) published(n *testNode, r broker.Room, body string) {
	c.t.Helper()
	c.until(body, func() bool { return n.try(r, body, "").err == nil })
}
