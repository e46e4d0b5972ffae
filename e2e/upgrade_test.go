package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gohub "example.com/hubbub/client"
)

// What docs/upgrade.md says, with two builds of different versions. HUBBUB_E2E_PREVIOUS names a program of an older
// commit, to go from it to this tree and back; else both are built from this tree.

// versions are the program before, and the one that takes its place.
func versions(t *testing.T) (before, after string) {
	t.Helper()
	built, err := buildVersions()
	if err != nil {
		t.Fatal(err)
	}
	before, after = built[0], built[1]
	if previous := os.Getenv("HUBBUB_E2E_PREVIOUS"); previous != "" {
		before = previous
	}
	for _, binary := range []string{before, after} {
		out, err := exec.Command(binary, "version").CombinedOutput()
		if err != nil {
			t.Fatalf("%s version: %v %s", binary, err, out)
		}
		t.Logf("%s: %s", binary, out)
	}
	return before, after
}

// buildVersions builds two of this tree, once.
var buildVersions = sync.OnceValues(func() (binaries [2]string, err error) {
	for i, version := range []string{"0.1.0", "0.2.0"} {
		binaries[i] = filepath.Join(builds, "hubbub-"+version)
		args := append([]string{"build", "-ldflags", "-X example.com/hubbub.version=" + version, "-o", binaries[i]}, strings.Fields(os.Getenv("HUBBUB_E2E_BUILDFLAGS"))...)
		if out, err := exec.Command("go", append(args, "../cmd/hubbub")...).CombinedOutput(); err != nil {
			return binaries, fmt.Errorf("building %s: %w\n%s", version, err, out)
		}
	}
	return binaries, nil
})

// talkers are clients in one room; the first of them publishes numbers until it is told to end.
type talkers struct {
	t       *testing.T
	hubs    []*gohub.Hub
	heard   []chan string // what each of the others got: contents, and what it was told of losses
	stop    chan struct{}
	done    sync.WaitGroup
	acked   []string // these two are the publisher's until it is done
	unknown []string
	count   atomic.Int64
}

// talk connects n clients to these addresses, in turn, and has the first publish.
func talk(ctx context.Context, t *testing.T, n int, addrs ...string) *talkers {
	t.Helper()
	k := &talkers{t: t, stop: make(chan struct{})}
	for i := range n {
		hub, err := gohub.Dial(ctx, "ws://"+addrs[i%len(addrs)]+"/ws", gohub.Options{MaxDelay: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { hub.Close() })
		k.hubs = append(k.hubs, hub)
		room := hub.Room("r")
		if err := room.Join(ctx); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			continue
		}
		heard := make(chan string, 1<<20)
		k.heard = append(k.heard, heard)
		go func() {
			for e := range room.Events(ctx) {
				switch e := e.(type) {
				case gohub.Message:
					heard <- string(e.Content)
				case gohub.Lost, gohub.Gap:
					heard <- fmt.Sprintf("told: %+v", e)
				}
			}
		}()
	}
	k.done.Go(func() {
		room := k.hubs[0].Room("r")
		for i := 1; ; i++ {
			select {
			case <-k.stop:
				return
			default:
			}
			_, err := room.Publish(ctx, json.RawMessage(fmt.Sprint(i)), gohub.PublishOptions{})
			if err == nil {
				k.acked = append(k.acked, fmt.Sprint(i))
				k.count.Add(1)
			} else {
				k.unknown = append(k.unknown, fmt.Sprintf("%d: %v", i, err))
			}
			time.Sleep(time.Millisecond) // so that what is missed fits into the history
		}
	})
	return k
}

// more waits until this many more messages have been acknowledged.
func (k *talkers) more(n int64) {
	k.t.Helper()
	for was, end := k.count.Load(), time.Now().Add(patience); k.count.Load() < was+n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			k.t.Fatalf("nothing is acknowledged any more: %d of %d", k.count.Load()-was, n)
		}
	}
}

// end stops the talk, and returns what each of the listeners heard up to the last that was acknowledged.
func (k *talkers) end() (heard [][]string) {
	k.t.Helper()
	close(k.stop)
	k.done.Wait()
	last := k.acked[len(k.acked)-1]
	for _, from := range k.heard {
		var all []string
		for timeout := time.After(patience); ; {
			select {
			case text := <-from:
				all = append(all, text)
			case <-timeout:
				k.t.Fatalf("%s doesn't come; the last were %v", last, all[max(0, len(all)-5):])
			}
			if all[len(all)-1] == last {
				break
			}
		}
		heard = append(heard, all)
	}
	return heard
}

// whole sees that each of them had all that was acknowledged, once and in order, and was told of no loss.
func (k *talkers) whole() {
	k.t.Helper()
	for i, all := range k.end() {
		want := map[string]bool{}
		for _, text := range k.acked {
			want[text] = true
		}
		was := 0
		for _, text := range all {
			var n int
			if _, err := fmt.Sscan(text, &n); err != nil || n <= was {
				k.t.Errorf("the listener %d got %s behind %d", i, text, was)
				break
			}
			was = n
			delete(want, text)
		}
		if len(want) > 0 {
			k.t.Errorf("the listener %d lacks %d of %d messages", i, len(want), len(k.acked))
		}
	}
	k.t.Logf("%d messages were acknowledged, and had by %d listeners; %d were refused or unknown: %.300v", len(k.acked), len(k.heard), len(k.unknown), k.unknown)
}

// runOf starts one version of the program.
func runOf(t *testing.T, binary, addr string, flags ...string) *server {
	t.Helper()
	s := &server{addr: addr, exited: make(chan struct{})}
	s.cmd = exec.Command(binary, append([]string{"serve", "--listen", addr}, flags...)...)
	s.run(t)
	return s
}

const longHistory = "rooms: [{match: r, history: {messages: 100000, age: 10m, bytes: 64MiB}}]\n"

// One node, up and back again: with a data directory nothing is lost, nothing comes twice, and nobody is told of a loss.
func TestUpgradeOneNode(t *testing.T) {
	t.Parallel()
	before, after := versions(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	flags := []string{"--data-dir", t.TempDir(), "--config", configFile(t, longHistory)}
	if out, err := exec.Command(after, append([]string{"config"}, flags...)...).CombinedOutput(); err != nil {
		t.Fatalf("hubbub config: %v\n%s", err, out)
	}
	addr := freeAddr(t)
	s := runOf(t, before, addr, flags...)
	k := talk(ctx, t, 6, addr)
	for _, next := range []string{after, before} {
		k.more(20)
		if status := s.stop(t, syscall.SIGTERM); status != 0 {
			t.Errorf("exit status %d", status)
		}
		s = runOf(t, next, addr, flags...)
	}
	k.more(20)
	k.whole()
}

// Without a data directory each is told that it can't be proved that nothing was missed.
func TestUpgradeInMemoryIsTold(t *testing.T) {
	t.Parallel()
	before, after := versions(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	addr := freeAddr(t)
	s := runOf(t, before, addr)
	k := talk(ctx, t, 3, addr)
	k.more(20)
	if status := s.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d", status)
	}
	s = runOf(t, after, addr)
	k.more(20)
	becomes(t, s, "hubbub_connections", 3)
	k.more(20)
	for i, all := range k.end() {
		if !strings.Contains(strings.Join(all, "\n"), "epoch") {
			t.Errorf("the listener %d was told nothing", i)
		}
	}
}

// A cluster node by node, to the new version: the sessions go on, nothing is lost and nothing comes twice.
func TestUpgradeNodeByNode(t *testing.T) {
	t.Parallel()
	before, after := versions(t)
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	var addrs, stores []string
	for range 3 {
		addrs, stores = append(addrs, freeAddr(t)), append(stores, freeAddrs(t))
	}
	proxy := freeAddr(t)
	balance(t, strings.NewReplacer("store-1:8080", addrs[0], "store-2:8080", addrs[1], "store-3:8080", addrs[2], "bind :80", "bind "+proxy, "chat.example.com", "chat").
		Replace(readDoc(t, "docs/cluster.md").section("First cluster in five minutes").block("haproxy")))
	config := configFile(t, longHistory)
	env := append(os.Environ(), "HUBBUB_CLUSTER_SECRET="+stageKey, "HUBBUB_API_KEY="+stageKey, "HUBBUB_CONFIG="+config)
	nodes := make([]*server, 3)
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	run := func(binary string, i int) {
		s := &server{addr: addrs[i], exited: make(chan struct{})}
		s.cmd = exec.Command(binary, "serve", "--listen", addrs[i], "--data-dir", dirs[i], "--cluster-listen", stores[i], "--join", strings.Join(stores, ","))
		s.cmd.Env = env
		s.begin(t)
		nodes[i] = s
	}
	well := func(i int) {
		t.Helper()
		nodes[i].waitReady(t)
		for end := time.Now().Add(2 * patience); ; time.Sleep(100 * time.Millisecond) {
			cmd := exec.Command(after, "nodes", "--url", nodes[i].http(""))
			cmd.Env = env
			out, err := cmd.CombinedOutput()
			if err == nil {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("hubbub nodes: %v\n%s", err, out)
			}
		}
	}
	for i := range nodes {
		run(before, i)
	}
	for i := range nodes {
		well(i)
	}
	k := talk(ctx, t, 7, proxy) // who is let in by a proxy that has looked at the nodes already
	var ids []string
	for _, hub := range k.hubs {
		ids = append(ids, hub.ClientID())
	}
	for i := range nodes {
		k.more(20)
		if status := nodes[i].stop(t, syscall.SIGTERM); status != 0 {
			t.Errorf("node %d ends with %d", i, status)
		}
		run(after, i)
		well(i)
	}
	k.more(20)
	k.whole()
	for i, hub := range k.hubs {
		if id := hub.ClientID(); id != ids[i] {
			t.Errorf("the client %s is %s now", ids[i], id)
		}
	}
}
