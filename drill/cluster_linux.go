package main

import (
	"fmt"
	"slices"
	"syscall"
	"time"
)

// nodeKilled: kill -9 of one of three nodes after the other, beside publishes.
func nodeKilled(d *drill) {
	ns := d.newStores(3, nil)
	c := d.newCompany(ns, pick(d, 600, 150), pick(d, 100, 30))
	rate, times, every := pick(d, 500.0, 200), pick(d, 15, 3), pick(d, 20*time.Second, 12*time.Second)
	var backs, agains []time.Duration
	var shown time.Duration
	victim := ns.all[0]
	for range times {
		for was := victim; victim == was; { // which has hardly a client yet
			victim = ns.all[d.rng.IntN(len(ns.all))]
		}
		c.slowest = 0
		killed := c.clock()
		victim.kill()
		home, seen, started := int64(0), false, false
		c.talk(rate, every, func() {
			seen = seen || c.away() > 0
			switch {
			case seen && home == 0 && c.away() == 0:
				home = c.clock()
			case !started && c.clock()-killed > int64(every/3):
				victim.start()
				started = true
			case started && !victim.up && victim.ready():
				victim.up = true
			}
		})
		if home == 0 {
			c.gather()
			home = c.clock()
		}
		backs, agains = append(backs, time.Duration(home-killed)), append(agains, c.slowest)
		ns.await(victim)
		shown = max(shown, c.presence())
	}
	slices.Sort(backs)
	slices.Sort(agains)
	back, again := backs[times-1], agains[times-1]
	d.say("%d nodes killed at %.0f publishes/s: clients back within %.1f s (median %.1f), slowest answer %.1f s (median %.1f), presence right %.1f s after",
		times, rate, back.Seconds(), backs[times/2].Seconds(), again.Seconds(), agains[times/2].Seconds(), shown.Seconds())
	c.judgeCompany(false)
	c.judgeRecovered()
	d.timed(back < 5*time.Second, "clients were not back within 5 s")
	d.timed(again < 10*time.Second, "a publish waited for more than 10 s")
	d.timed(shown < 10*time.Second, "presence was not right within 10 s")
}

// rolling: all nodes are replaced, one after the other, as a deploy does.
func rolling(d *drill) {
	ns := d.newStores(3, nil)
	c := d.newCompany(ns, pick(d, 600, 150), pick(d, 100, 30))
	rate := pick(d, 500.0, 200)
	var again time.Duration
	c.talk(rate, 2*time.Second, nil)
	for _, one := range ns.all {
		c.slowest = 0
		one.stop()
		started := false
		for end := c.clock() + int64(patience); !one.up && c.clock() < end; {
			c.talk(rate, 200*time.Millisecond, nil)
			switch {
			case !started && !one.lives():
				d.must(one.err == nil, "a node stops with %v: %s", one.err, one.log.String())
				one.start()
				started = true
			case started:
				one.up = one.ready()
			}
		}
		d.must(one.up, "a node is not back")
		c.talk(rate, pick(d, 10*time.Second, 2*time.Second), nil)
		again = max(again, c.slowest)
	}
	shown := c.presence()
	d.say("three nodes replaced at %.0f publishes/s: slowest answer %.1f s, presence right %.1f s after", rate, again.Seconds(), shown.Seconds())
	c.judgeCompany(false)
	c.judgeRecovered()
	d.must(c.resuming.denied == 0, "%d sessions were not resumed", c.resuming.denied)
	d.timed(again < 10*time.Second, "a publish waited for more than 10 s")
}

// frozen: each node is stopped for a while, and goes on.
func frozen(d *drill) {
	ns := d.newStores(3, nil)
	c := d.newCompany(ns, pick(d, 600, 150), pick(d, 100, 30))
	rate, long := pick(d, 500.0, 200), pick(d, 30*time.Second, 8*time.Second)
	for _, one := range ns.all[:pick(d, 3, 1)] {
		one.signal(syscall.SIGSTOP)
		c.talk(rate, long, nil)
		one.signal(syscall.SIGCONT)
		c.talk(rate, long, nil)
		ns.await(one)
	}
	shown := c.presence()
	d.say("nodes stopped for %v each at %.0f publishes/s: presence right %.1f s after", long, rate, shown.Seconds())
	c.judgeCompany(true) // who is connected to a node that is stopped hears of a timeout
}

// comers: a fourth and a fifth node, which keep no logs, come and go.
func comers(d *drill) {
	ns := d.newStores(3, nil)
	c := d.newCompany(ns, pick(d, 600, 150), pick(d, 100, 30))
	rate := pick(d, 500.0, 200)
	for i := range 2 {
		h := how{addr: [4]byte{127, 0, 0, 1}, port: d.freePort(), flags: append(d.nodeFlags(), "--node-name", fmt.Sprint("comer-", i))}
		for _, one := range ns.all[:3] {
			h.flags = append(h.flags, "--join", one.clusterAddr())
		}
		ns.all = append(ns.all, &node{how: h})
	}
	for range pick(d, 5, 2) {
		for i, one := range ns.all[3:] {
			one.server = d.launch(one.how)
			for end := c.clock() + int64(patience); !one.up && c.clock() < end; one.up = one.ready() {
				c.talk(rate, 100*time.Millisecond, nil)
			}
			for _, other := range c.all { // some move there
				if d.rng.IntN(4) == 0 && other.ready() {
					c.reset(other)
				}
			}
			c.talk(rate, pick(d, 10*time.Second, 3*time.Second), nil)
			if i == 0 {
				one.kill()
			} else {
				one.stop()
			}
			c.talk(rate, pick(d, 10*time.Second, 3*time.Second), nil)
		}
	}
	c.gather()
	shown := c.presence()
	d.say("two nodes came and went at %.0f publishes/s: presence right %.1f s after", rate, shown.Seconds())
	c.judgeCompany(false)
	c.judgeRecovered()
}

// judgeRecovered judges that sessions were resumed, and what members were told as lost, which nothing was. Where nodes have
// too little of the processors they can't answer in time for a session, nor prove that a quiet room had nothing.
func (c *company) judgeRecovered() {
	expired := c.resuming.unrecovered["expired"]
	others := len(c.resuming.unrecovered)
	if expired > 0 {
		others--
	}
	c.d.must(len(c.gaps) == 0 && others == 0, "something was told as lost")
	c.d.timed(expired == 0, "%d rooms were told expired", expired)
	c.d.timed(c.resuming.denied == 0, "%d sessions were not resumed", c.resuming.denied)
}
