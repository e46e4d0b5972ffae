package main

import (
	"fmt"
	"syscall"
	"time"
)

var loadTime time.Duration

// load: many rooms at a steady rate.
func load(d *drill) {
	clients, rooms := pick(d, 19_000, 2_000), pick(d, 500, 50)
	rate, long := 5000.0, pick(d, loadTime, 20*time.Second)
	f := d.newFleet(d.serve())
	all := f.openAll(clients, func(i int) want { return want{rooms: []uint32{uint32(i % rooms)}, watched: true} })
	f.pace(rate/float64(clients/rooms-1), long, func(due int64) {
		i := d.rng.IntN(clients)
		f.publish(all[i], uint32(i%rooms), 200, due)
	})
	v := f.settle(patience)
	p50, p99, worst := f.quantiles()
	d.say("%d connections, %d rooms, %.0f deliveries/s for %v", clients, rooms, float64(v.deliveries)/long.Seconds(), long)
	d.judge(f, v)
	d.noneEnded(all, "clients")
	d.say("p50 %.1f ms, p99 %.1f ms, max %.0f ms", ms(p50), ms(p99), ms(worst))
	d.timed(p99 < 100*time.Millisecond, "p99 is not under 100 ms")
}

// fanOut: everyone in one room.
func fanOut(d *drill) {
	clients, times := pick(d, 19_000, 5_000), pick(d, 100, 20)
	f := d.newFleet(d.serve())
	all := f.openAll(clients, func(int) want { return want{rooms: []uint32{1}, watched: true} })
	for _, c := range all { // 19,000 logs that grow at once would hold the clients up
		c.log.received = make([]received, 0, times)
	}
	f.latency = make([]int32, 0, times*clients)
	f.rest(2 * time.Second) // what connecting has left is put away
	var sum, worst time.Duration
	late := 0
	for n := range times {
		start, from := f.clock(), all[d.rng.IntN(clients)]
		f.publish(from, 1, 200, start)
		f.until(patience, func() bool { return len(f.latency) >= (n+1)*(clients-1) })
		took := time.Duration(f.clock() - start)
		if sum, worst = sum+took, max(worst, took); took >= 300*time.Millisecond {
			late++
		}
		f.rest(50 * time.Millisecond)
	}
	v := f.settle(patience)
	d.say("to %d members %d times: mean %.0f ms, max %.0f ms", clients-1, times, ms(sum)/float64(times), ms(worst))
	d.judge(f, v)
	d.noneEnded(all, "members")
	d.timed(late == 0, "%d are not under 0.3 s", late)
}

// slowReaders: some of a room stop reading.
func slowReaders(d *drill) {
	clients, stalled := pick(d, 2_000, 500), pick(d, 200, 50)
	bound, long := pick(d, 1<<20, 128<<10), pick(d, 45*time.Second, 15*time.Second)
	s := d.serve("--send-queue-bytes", fmt.Sprint(bound))
	f := d.newFleet(s)
	slow := f.openAll(stalled, func(int) want { return want{rooms: []uint32{1}, distant: true, stalls: true} })
	all := f.openAll(clients-stalled, func(int) want { return want{rooms: []uint32{1}, watched: true} })
	publisher := f.openAll(1, func(int) want { return want{} })[0] // no member, who would miss its own
	f.pace(20, long, func(due int64) { f.publish(publisher, 1, 4096, due) })
	v := f.settle(patience)
	f.until(patience, func() bool { return count(slow, func(c *client) bool { return c.state == ended }) == stalled })
	d.say("%d stalled of %d: %s", stalled, clients, whyEnded(slow))
	told := count(slow, func(c *client) bool { return c.why == "4000" || c.why == "reset" })
	d.must(told == stalled, "%d of the stalled were not closed with 4000 or reset", stalled-told)
	d.judge(f, v)
	d.noneEnded(all, "others")
	_, p99, _ := f.quantiles()
	d.say("others: longest gap %.0f ms, p99 %.1f ms", ms(longestGap(all)), ms(p99))
	d.timed(longestGap(all) < 250*time.Millisecond, "a gap is not under 250 ms")
	most := s.memory("VmHWM")
	d.say("server's memory at most %d MiB", most>>20)
	d.must(most < stalled*bound+64<<20, "that is more than %d bounds and 64 MiB", stalled)
}

// noneEnded judges that nobody of these lost the connection.
func (d *drill) noneEnded(all []*client, who string) {
	n := count(all, func(c *client) bool { return c.state == ended })
	d.say("%d %s closed", n, who)
	d.must(n == 0, "%s: %s", who, whyEnded(all))
}

func (s *server) signal(sig syscall.Signal) { s.d.check(s.cmd.Process.Signal(sig)) }

func ms(d time.Duration) float64 { return float64(d) / 1e6 }
