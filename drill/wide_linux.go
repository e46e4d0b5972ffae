package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const widening = "widen"

// wide: as many connections as one machine has place for, on five nodes, all in one room.
func wide(d *drill) {
	each, times := pick(d, 18_000, 1_000), pick(d, 30, 5)
	ns := d.newStores(3, nil)
	for i := range 2 {
		h := how{addr: [4]byte{127, 0, 0, 1}, port: d.freePort(), flags: append(d.nodeFlags(), "--node-name", fmt.Sprint("plain-", i))}
		for _, one := range ns.all[:3] {
			h.flags = append(h.flags, "--join", one.clusterAddr())
		}
		ns.all = append(ns.all, &node{how: h, server: d.launch(h)})
	}
	ns.await(ns.all...)
	empty, kernel := ns.memory(), slabs()
	var children []<-chan string
	began := time.Now()
	for _, one := range ns.all {
		lines, _ := d.child(widening, strconv.Itoa(one.addr.Port), strconv.Itoa(each))
		children = append(children, lines)
	}
	for i, lines := range children {
		if line := d.line1(lines); line != "ready" {
			d.abort("the clients of node %d say %q", i, line)
		}
	}
	all := each * len(ns.all)
	opened := time.Since(began)
	d.say("%d connections on %d nodes in one room, opened in %.0f s", all, len(ns.all), opened.Seconds())
	full := ns.memory()
	d.say("%d bytes a connection in the nodes, %d in the kernel for both ends", (full-empty)/all, (slabs()-kernel)/all)

	f := d.newFleet(ns.all[0].server)
	publisher := f.openAll(1, func(int) want { return want{} })[0]
	quiet := ns.cpu()
	f.rest(5 * time.Second)
	d.say("idle: %.1f %% of a core for all nodes", 100*(ns.cpu()-quiet)/5)
	d.toAll(f, []*client{publisher}, children, times, all, ns.cpu)
}

// toAll has each publisher send messages to the rooms that all the children's clients are in; cpu is what the servers have
// worked, in seconds.
func (d *drill) toAll(f *fleet, publishers []*client, children []<-chan string, times, clients int, cpu func() float64) {
	var sum, worst time.Duration
	before := cpu()
	for range times {
		at := time.Now().UnixNano()
		for _, p := range publishers {
			f.publish(p, 1, 200, f.clock())
		}
		f.rest(50 * time.Millisecond)
		last := at
		for i, lines := range children {
			got, err := strconv.ParseInt(d.line1(lines), 10, 64)
			if err != nil {
				d.abort("the clients of server %d: %v", i, err)
			}
			last = max(last, got)
		}
		took := time.Duration(last - at)
		sum, worst = sum+took, max(worst, took)
	}
	d.say("a message to all, %d times: mean %.0f ms, max %.0f ms until the last has it; %.2f us of the servers' CPU a delivery",
		times, ms(sum)/float64(times), ms(worst), 1e6*(cpu()-before)/float64(times*clients))
	v := f.settle(patience)
	d.must(v.refused == 0 && v.unanswered == 0, "%d refused, %d unanswered", v.refused, v.unanswered)
}

// line1 is the next line of a child.
func (d *drill) line1(lines <-chan string) string {
	select {
	case line, ok := <-lines:
		if !ok {
			d.abort("the clients' process has ended")
		}
		return line
	case <-time.After(10 * time.Minute):
		d.abort("the clients' process says nothing")
		return ""
	}
}

// runWidening is the clients of one node: says when all are in, and of each message when all have it, in Unix nanoseconds.
func runWidening(args []string) {
	port, _ := strconv.Atoi(args[0])
	n, _ := strconv.Atoi(args[1])
	d := &drill{deadline: time.Now().Add(20 * time.Minute), rng: rand.New(rand.NewPCG(uint64(port), 0))}
	d.guarded(func() {
		f := d.newFleet(&server{d: d, addr: unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}})
		f.openAll(n, func(int) want { return want{rooms: []uint32{1}, retries: true} })
		fmt.Println("ready")
		for due := n; ; due += n {
			f.until(20*time.Minute, func() bool { return f.came >= due })
			fmt.Println(time.Now().UnixNano())
		}
	})
	fmt.Println(d.faults)
}

// memory is what all nodes have of it, in bytes, and cpu the seconds that they have worked.
func (ns *nodes) memory() (sum int) {
	for _, n := range ns.all {
		sum += n.memory("VmRSS")
	}
	return sum
}

func (ns *nodes) cpu() (sum float64) {
	for _, n := range ns.all {
		sum += n.cpu()
	}
	return sum
}

// slabs is what the kernel has of memory for its own objects, in bytes: a socket's are there.
func slabs() int { return meminfo("Slab") }
