package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

var manyServers = 13 // of the full form of many

// many: as many connections as one machine has place for, on servers that don't know of each other, since a process has
// 20,000 open files only: what an idle one costs, and how long a message to all takes.
func many(d *drill) {
	d.needRoot("the sizes of the kernel's objects")
	n, each := pick(d, manyServers, 2), pick(d, 19_000, 500)
	d.crowd(n, each, 25*time.Second, true)           // the default
	d.crowd(min(n, 13), each, 10*time.Second, false) // as many pings as two processors have time for
}

// crowd is one run of it; thorough waits until the servers' collectors have run.
func (d *drill) crowd(n, each int, pings time.Duration, thorough bool) {
	began := len(d.undo)
	var servers []*server
	var children []<-chan string
	for range n {
		servers = append(servers, d.serve("--ping-interval", pings.String()))
	}
	empty, kernel := resident(servers), meminfo("SUnreclaim")
	opening := time.Now()
	for i, s := range servers {
		if spare := meminfo("MemAvailable"); spare < 6<<30 && !d.short {
			d.abort("%d MiB of memory are left at %d connections: others need them", spare>>20, i*each)
		}
		lines, _ := d.child(widening, strconv.Itoa(s.addr.Port), strconv.Itoa(each))
		if line := d.line1(lines); line != "ready" {
			d.abort("the clients of server %d say %q", i, line)
		}
		children = append(children, lines)
	}
	all := n * each
	d.say("%d connections on %d servers, pings every %v", all, n, pings)
	if thorough {
		d.say("opened in %.0f s; just then %d bytes a connection in the servers", time.Since(opening).Seconds(), (resident(servers)-empty)/all)
	}

	f := d.newFleet(servers[0])
	var publishers []*client
	for _, s := range servers {
		f.to = s.addr
		publishers = append(publishers, f.openAll(1, func(int) want { return want{} })...)
	}
	if thorough {
		f.rest(pick(d, 3*time.Minute, time.Second)) // the runtime collects every 2 min where nothing is allocated, and gives back
		d.say("later %d, and %d in the kernel for both ends; an empty server %d MiB", (resident(servers)-empty)/all, (meminfo("SUnreclaim")-kernel)/all+2*d.socketCaches(), empty/n>>20)
	}
	quiet, watched := busy(servers), pick(d, 2*pings, time.Second)
	f.rest(watched)
	cpu := busy(servers) - quiet
	d.say("idle: %.1f %% of a core for all servers, %.1f us a ping and its pong", 100*cpu/watched.Seconds(), 1e6*cpu/watched.Seconds()*pings.Seconds()/float64(all))

	d.toAll(f, publishers, children, pick(d, 10, 3), all, func() float64 { return busy(servers) })
	for _, s := range servers {
		closed := 0.
		for _, code := range []string{"1013", "4000", "4002"} {
			if n, ok := s.metric(fmt.Sprintf("hubbub_closed_total{code=%q}", code)); ok {
				closed += n
			}
		}
		open, _ := s.metric("hubbub_connections")
		d.must(closed == 0 && open == float64(each+1), "a server has %v connections and closed %v", open, closed)
	}
	d.forget()
	for i := len(d.undo) - 1; i >= began; i-- { // the next run needs the memory
		d.guarded(d.undo[i])
	}
	d.undo = d.undo[:began]
}

// resident is the servers' memory in bytes, busy the seconds that they have worked.
func resident(servers []*server) (sum int) {
	for _, s := range servers {
		sum += s.memory("VmRSS")
	}
	return sum
}

func busy(servers []*server) (sum float64) {
	for _, s := range servers {
		sum += s.cpu()
	}
	return sum
}

// meminfo is a line of /proc/meminfo, in bytes.
func meminfo(name string) int {
	b, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kb << 10
		}
	}
	return 0
}

// socketCaches is what a socket has of the two caches that count as memory to be given back, which others' files fill: the
// bytes of its inode and of its directory entry.
func (d *drill) socketCaches() (sum int) {
	b, err := os.ReadFile("/proc/slabinfo") // root's
	d.check(err)
	for line := range strings.Lines(string(b)) {
		if words := strings.Fields(line); words[0] == "sock_inode_cache" || words[0] == "dentry" {
			size, _ := strconv.Atoi(words[3])
			sum += size
		}
	}
	return sum
}
