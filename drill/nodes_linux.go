package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// nodes are those of a cluster, each in a process of its own.
type nodes struct {
	d    *drill
	all  []*node
	from int // where any begins to look
}

// A node has its address, and what it keeps, over its lives.
type node struct {
	*server
	how how
	up  bool // clients may dial it
}

const clusterSecret = "0123456789abcdef0123456789abcdef"

// policies has a few rooms tell who is in them.
const policies = `rooms:
  - match: "r9000*"
    presence: full
`

// newStores starts n nodes that keep the logs, and waits until all are ready. under is what each runs under, and at its
// address; nil for this namespace.
func (d *drill) newStores(n int, under func(i int) (words []string, addr [4]byte)) *nodes {
	d.check(os.MkdirAll(d.dir, 0o755))
	d.check(os.WriteFile(filepath.Join(d.dir, "hubbub.yaml"), []byte(policies), 0o600))
	ns := &nodes{d: d}
	var hosts []string
	for i := range n {
		h := how{}
		port := 7000
		if under != nil {
			h.under, h.addr = under(i)
		} else {
			h.addr = [4]byte{127, 0, 0, 1}
			h.port, port = d.freePort(), d.freePorts()
		}
		hosts = append(hosts, fmt.Sprintf("%d.%d.%d.%d:%d", h.addr[0], h.addr[1], h.addr[2], h.addr[3], port))
		ns.all = append(ns.all, &node{how: h})
	}
	for i, one := range ns.all {
		one.how.flags = append(d.nodeFlags(), "--cluster-listen", hosts[i], "--data-dir", filepath.Join(d.dir, fmt.Sprint("store", i)), "--node-name", fmt.Sprint("store-", i))
		for j, host := range hosts {
			if j != i {
				one.how.flags = append(one.how.flags, "--join", host)
			}
		}
		one.server = d.launch(one.how)
	}
	ns.await(ns.all...)
	return ns
}

func (d *drill) nodeFlags() []string {
	return []string{"--config", filepath.Join(d.dir, "hubbub.yaml"), "--cluster-secret", clusterSecret, "--api-key", backendKey, "--resume-window", "60s", "--replicas", "3"}
}

// freePorts is a free port whose next one is free, too, and given to nobody else.
func (d *drill) freePorts() int {
	for first := d.freePort(); ; {
		next := d.freePort()
		if next == first+1 {
			return first
		}
		first = next
	}
}

// await waits until nodes are ready.
func (ns *nodes) await(some ...*node) {
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		ns.d.alive()
		left := slices.IndexFunc(some, func(n *node) bool { return !n.ready() })
		if left < 0 {
			break
		}
		if time.Since(start) > patience {
			ns.d.abort("node %d does not become ready: %s", left, some[left].log.String())
		}
	}
	for _, n := range some {
		n.up = true
	}
	ns.d.scraped()
}

// any is a node that clients may dial, each in its turn.
func (ns *nodes) any() *node {
	for range ns.all {
		ns.from++
		if n := ns.all[ns.from%len(ns.all)]; n.up {
			return n
		}
	}
	return ns.all[0] // and is refused
}

// A company is clients who stay, come back wherever a node is up, and talk, while something happens to their nodes.
type company struct {
	*fleet
	all   []*client
	rooms int
	talks int
}

// rooms whose policy tells who is in them are from firstShown on.
const (
	firstShown = 90000
	shown      = 10
)

func (d *drill) newCompany(ns *nodes, clients, rooms int) *company {
	c := &company{fleet: d.newFleet(ns.all[0].server), rooms: rooms}
	c.nodes = ns
	c.resuming = resuming{window: time.Minute, unrecovered: map[string]int{}}
	c.all = c.openAll(clients, func(i int) want {
		return want{rooms: []uint32{uint32(i % rooms), uint32((i + rooms/3) % rooms), firstShown + uint32(i%shown)}, retries: true, resumes: true}
	})
	return c
}

// talk publishes at a rate for so long, and has those come back who were cut off. each is called now and then.
func (c *company) talk(rate float64, long time.Duration, each func()) {
	c.pace(rate, long, func(due int64) {
		if c.talks++; c.talks%8 == 0 {
			c.comeBack()
			if each != nil {
				each()
			}
		}
		if i := c.d.rng.IntN(len(c.all)); c.all[i].ready() { // else what it has to send again comes first
			c.publish(c.all[i], uint32(i%c.rooms), 200, due)
		}
	})
}

// comeBack dials for those whose time it is.
func (c *company) comeBack() {
	for _, one := range c.all {
		if one.state == ended && c.clock() > one.retryAt {
			c.dial(one)
		}
	}
}

// away is how many clients aren't back yet.
func (c *company) away() int { return len(c.all) - count(c.all, (*client).ready) }

// gather waits until all are here, and returns how long it took.
func (c *company) gather() time.Duration {
	start := c.clock()
	if !c.until(patience, func() bool { c.comeBack(); return c.away() == 0 }) {
		c.d.abort("%d of %d clients do not come back: %s", c.away(), len(c.all), whyEnded(c.all))
	}
	return time.Duration(c.clock() - start)
}

// members is how many members each node says that the rooms have which tell it; ok says that all nodes say what is so.
func (c *company) members() (said string, ok bool) {
	var all []string
	ok = true
	for _, n := range c.nodes.all {
		if !n.up {
			continue
		}
		for room := firstShown; room < firstShown+shown; room++ {
			want := count(c.all, func(one *client) bool { return one.ready() && one.rooms[2] == uint32(room) })
			body, err := n.get(fmt.Sprintf("/api/v1/rooms/r%d/presence", room))
			_, text, _ := strings.Cut(string(body), "\r\n\r\n")
			var answer struct{ Count int }
			if err == nil {
				err = json.Unmarshal([]byte(text), &answer)
			}
			if err != nil || answer.Count != want {
				all = append(all, fmt.Sprintf("%s: r%d has %d, want %d (%v %.80s)", n.name(), room, answer.Count, want, err, text))
				ok = false
			}
		}
	}
	return strings.Join(all[:min(len(all), 3)], "; "), ok
}

func (n *node) name() string {
	if i := slices.Index(n.how.flags, "--node-name"); i >= 0 {
		return n.how.flags[i+1]
	}
	return "node"
}

// presence waits until all nodes say who is in the rooms, and says how long it took.
func (c *company) presence() time.Duration {
	start := c.clock()
	for {
		said, ok := c.members()
		if ok {
			return time.Duration(c.clock() - start)
		}
		if time.Duration(c.clock()-start) > patience {
			c.d.must(false, "presence does not become right: %s", said)
			return patience
		}
		c.rest(100 * time.Millisecond)
	}
}

// kill ends a node as a crash does, and stop as a deploy does.
func (n *node) kill() {
	n.up = false
	n.server.kill()
}

func (n *node) stop() {
	n.up = false
	n.signal(syscall.SIGTERM)
	n.killed = true // its end is judged here
}

// start starts a node again; it is up once it is ready.
func (n *node) start() { n.server = n.d.launch(n.how) }

// judgeCompany judges what all have seen.
func (c *company) judgeCompany(refusals bool) {
	d := c.d
	c.gather()
	v := c.settle(patience)
	d.say("%s", v)
	d.must(v.clean(), "%s", strings.Join(v.examples, "; "))
	d.must(v.acked > 0 && v.deliveries > 0, "nothing was delivered")
	d.must(len(c.faults) == 0, "%d answers make no sense: %s", len(c.faults), strings.Join(c.faults[:min(3, len(c.faults))], "; "))
	r := &c.resuming
	d.say("%d published, %d refused; %d resumes (at most %.1f s after the loss), %d began anew (at most %.1f s after it), %d tried again; %d publishes sent again, of which %d were known", v.acked, v.refused, r.answered, r.longest.Seconds(), r.denied+r.tooLate, r.deniedIn.Seconds(), r.retried, r.sentAgain, r.duplicates)
	if len(r.unrecovered) > 0 || len(c.gaps) > 0 {
		d.say("rooms not recovered: %v, gaps told: %v", r.unrecovered, c.gaps)
	}
	d.must(refusals || v.refused == 0, "%d publishes were answered with an error", v.refused)
}

// clusterAddr is where a store listens for nodes.
func (n *node) clusterAddr() string {
	return n.how.flags[slices.Index(n.how.flags, "--cluster-listen")+1]
}
