package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// badLine: clients share a slow line that loses packets, in namespaces of their own.
func badLine(d *drill) {
	clients, long := 20, pick(d, 5*time.Minute, 40*time.Second)
	near, far := d.line("256kbit", 5)
	var s *server
	var f *fleet
	var publisher *client
	d.inside(near, func() {
		s = d.serveAs(how{under: []string{"ip", "netns", "exec", near}, addr: [4]byte{10, 99, 0, 1}})
		f = d.newFleet(s)
		publisher = f.openAll(1, func(int) want { return want{} })[0] // its line is good
	})
	var all []*client
	d.inside(far, func() {
		all = f.openAll(clients, func(int) want { return want{rooms: []uint32{1}, watched: true} })
	})
	f.pace(1, long, func(due int64) { f.publish(publisher, 1, 200, due) })
	v := f.settle(time.Minute)
	p50, p99, worst := f.quantiles()
	d.say("%d clients on 256 kbit/s with 5 %% loss each way, %d packets dropped, %v", clients, d.dropped(near)+d.dropped(far), long)
	d.judge(f, v)
	d.noneEnded(all, "healthy clients")
	d.say("p50 %.0f ms, p99 %.1f s, max %.1f s", ms(p50), p99.Seconds(), worst.Seconds())
	d.must(d.dropped(near) > 0 && d.dropped(far) > 0, "the line has lost nothing: this is no trial")
}

// line makes two namespaces with a slow line between them, 10.99.0.1 and .2,
// that loses so many in a hundred packets each way.
func (d *drill) line(rate string, loss int) (near, far string) {
	d.needRoot("network namespaces")
	near, far = fmt.Sprintf("hubbub-drill-%d-near", os.Getpid()), fmt.Sprintf("hubbub-drill-%d-far", os.Getpid())
	for _, ns := range []string{near, far} {
		d.command("ip", "netns", "add", ns)
		d.cleanup(func() { d.command("ip", "netns", "del", ns) })
	}
	d.command("ip", "-n", near, "link", "add", "line", "type", "veth", "peer", "name", "line", "netns", far)
	for i, ns := range []string{near, far} {
		d.command("ip", "-n", ns, "addr", "add", fmt.Sprintf("10.99.0.%d/24", i+1), "dev", "line")
		d.command("ip", "-n", ns, "link", "set", "lo", "up")
		d.command("ip", "-n", ns, "link", "set", "line", "up")
		d.command("tc", "-n", ns, "qdisc", "add", "dev", "line", "root", "tbf", "rate", rate, "burst", "4kb", "latency", "400ms")
		nft := []string{"ip", "netns", "exec", ns, "nft"}
		d.command(append(nft, "add table inet drill")...)
		d.command(append(nft, "add chain inet drill in { type filter hook input priority 0; }")...)
		d.command(append(nft, fmt.Sprintf("add rule inet drill in iifname line numgen random mod 100 < %d counter drop", loss))...)
	}
	return near, far
}

// dropped is how many packets a namespace has thrown away.
func (d *drill) dropped(ns string) (n int) {
	out := d.command("ip", "netns", "exec", ns, "nft", "list", "table", "inet", "drill")
	for i := range len(out) {
		if k, _ := fmt.Sscanf(out[i:], "counter packets %d", &n); k == 1 {
			return n
		}
	}
	d.abort("no counter in %q", out)
	return 0
}

// inside runs f with this thread in a network namespace; "" is where it is. Sockets stay in the one where they were made.
func (d *drill) inside(ns string, f func()) {
	if ns == "" || ns == d.ns {
		f()
		return
	}
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	d.check(err)
	defer unix.Close(home)
	there, err := unix.Open("/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	d.check(err)
	defer unix.Close(there)
	d.check(unix.Setns(there, unix.CLONE_NEWNET))
	before := d.ns
	d.ns = ns
	defer func() {
		d.ns = before
		if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
	}()
	f()
}
