package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Troubles of several nodes, as alarms_test.go has those of one, and the drills that these troubles are.

const clusterRooms = "rooms: [{match: \"live.*\", history: off}]\n"

// storeAndMember are a node that keeps the messages of rooms, and one without a store. config is the member's own.
func storeAndMember(t *testing.T) (store, member *server, config string) {
	t.Helper()
	at := freeAddrs(t)
	config = configFile(t, clusterRooms)
	store = runNode(t, "store", configFile(t, clusterRooms), "--data-dir", t.TempDir(), "--cluster-listen", at)
	store.waitReady(t)
	member = runNode(t, "member", config, "--join", at)
	member.waitReady(t)
	becomes(t, store, "hubbub_peers", 1)
	becomes(t, member, "hubbub_peers", 1)
	return store, member, config
}

// twoPolicies: one of two nodes reads other policies than the other has.
func twoPolicies(t *testing.T, p *prometheus, job string) {
	store, member, config := storeAndMember(t)
	p.watch(t, job, store, member)
	write(t, config, "rooms: [{match: \"live.*\", history: off, publish: server}]\n")
	if err := member.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// frozenStore: the node that keeps the messages of rooms hangs, while the other one is asked and told to publish.
func frozenStore(t *testing.T, p *prometheus, job string) {
	store, member, _ := storeAndMember(t)
	publish := func() int { return member.call(t, consoleKey, "POST", "/publish", `{"room":"kept","content":1}`) }
	if status := publish(); status != http.StatusOK {
		t.Fatalf("a publish is answered %d", status)
	}
	var calls sync.WaitGroup
	t.Cleanup(func() { // when they are watched no more
		_ = store.cmd.Process.Signal(syscall.SIGCONT)
		store.waitReady(t)
		calls.Wait()
	})
	p.watch(t, job, store, member)
	_ = store.cmd.Process.Signal(syscall.SIGSTOP)
	for range 15 {
		calls.Go(func() { member.call(t, consoleKey, "GET", "/clients", "") })
		calls.Go(func() { publish() })
	}
}

// threeStores are nodes that keep the messages of rooms together.
func threeStores(t *testing.T) (nodes []*server) {
	t.Helper()
	at := []string{freeAddrs(t), freeAddrs(t), freeAddrs(t)}
	for i, listen := range at {
		others := slices.DeleteFunc(slices.Clone(at), func(a string) bool { return a == listen })
		nodes = append(nodes, runNode(t, fmt.Sprint("node-", i), configFile(t, clusterRooms), "--data-dir", t.TempDir(), "--cluster-listen", listen, "--join", strings.Join(others, ",")))
	}
	for _, s := range nodes {
		s.waitReady(t)
		becomes(t, s, "hubbub_peers", 2)
	}
	return nodes
}

// lastStore: of three nodes with stores two are killed. The links of the third are to itself, and stay.
func lastStore(t *testing.T, p *prometheus, job string) {
	nodes := threeStores(t)
	p.watch(t, job, nodes...)
	for _, s := range nodes[1:] {
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}

// killedNode: of three nodes with stores one is killed. The others go on, and nothing else fires.
func killedNode(t *testing.T, p *prometheus, job string) {
	nodes := threeStores(t)
	p.watch(t, job, nodes...)
	_ = nodes[2].cmd.Process.Kill()
	<-nodes[2].exited
	for _, s := range nodes[:2] {
		becomes(t, s, "hubbub_peers", 1)
		if status := s.call(t, consoleKey, "POST", "/publish", `{"room":"kept","content":1}`); status != http.StatusOK {
			t.Errorf("without one of three a publish is answered %d", status)
		}
	}
}

// cutNode: what NATS and the other node say reaches one of two no more, and no connection is closed.
func cutNode(t *testing.T, p *prometheus, job string) {
	_, port, _ := net.SplitHostPort(freeAddr(t))
	startNATS(t, port)
	line := newRelay(t, "127.0.0.1:"+port)
	node := func(bus string) *server {
		return start(t, "--nats", "nats://"+bus, "--cluster-secret", "0123456789abcdef", "--api-key", backendKey, "--config", configFile(t, clusterRooms))
	}
	near, far := node("127.0.0.1:"+port), node(line.Addr().String())
	for _, s := range []*server{near, far} {
		becomes(t, s, "hubbub_peers", 1)
	}
	t.Cleanup(func() { line.withhold.Store(false) }) // when they are watched no more
	p.watch(t, job, near, far)
	line.withhold.Store(true)
	for !p.fires(t, job, "HubbubCutOff") {
		if status := far.call(t, backendKey, "POST", "/publish", `{"room":"kept","content":1}`); status == http.StatusOK {
			t.Fatal("a publish is acknowledged behind a line that passes nothing on")
		}
	}
}

// docs/monitoring.md says of each drill which alarms fire then, and which troubles show it; it names each alarm that no
// trouble has fire.
func TestTheDrillsOfTheAlarms(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		b, err := os.ReadFile("../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	all := func(pattern, text string) (found []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			found = append(found, m[1])
		}
		return found
	}
	_, section, _ := strings.Cut(read("monitoring.md"), "\n## Drills\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string][]string{}
	for _, line := range strings.Split(section, "\n") {
		if cells := strings.Split(line, "|"); len(cells) == 7 && strings.Contains(cells[1], "`") {
			for _, drill := range all("`([a-z]+)`", cells[1]) {
				rows[drill] = cells
			}
		}
	}
	_, table, _ := strings.Cut(read("drills.md"), "| drill | what is done |")
	table, _, _ = strings.Cut(table, "\n\n")
	drills := all("(?m)^\\| `([a-z]+)` \\|", table)
	if len(drills) < 20 {
		t.Fatalf("docs/drills.md has %q", drills)
	}
	for _, drill := range drills {
		row := rows[drill]
		if row == nil {
			t.Errorf("docs/monitoring.md says nothing of the drill %s", drill)
			continue
		}
		fire := map[string]bool{}
		for _, name := range all("`([a-z]+)`", row[5]) {
			if troubles[name].make == nil {
				t.Errorf("the drill %s: there is no trouble %s", drill, name)
			}
			for _, alarm := range troubles[name].want {
				fire[alarm] = true
			}
		}
		for _, alarm := range all("`(Hubbub\\w+)`", row[2]) {
			if !fire[alarm] {
				t.Errorf("the drill %s: none of its troubles has %s fire", drill, alarm)
			}
		}
	}
	live := map[string]bool{}
	for _, its := range troubles {
		for _, alarm := range its.want {
			live[alarm] = true
		}
	}
	_, tried, _ := strings.Cut(read("monitoring.md"), "By figures alone")
	tried, _, _ = strings.Cut(tried, "\n\n")
	for _, r := range readRules(t) {
		if byFigures := strings.Contains(tried, "`"+r.Alert+"`"); live[r.Alert] == byFigures {
			t.Errorf("%s fires by a trouble: %t; docs/monitoring.md says that it is tried by figures alone: %t", r.Alert, live[r.Alert], byFigures)
		}
	}
	if said := fmt.Sprintf("%d of the %d alarms fire", len(live), len(readRules(t))); !strings.Contains(read("monitoring.md"), said) {
		t.Errorf("docs/monitoring.md doesn't say that %s", said)
	}
}
