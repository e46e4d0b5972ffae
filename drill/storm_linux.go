package main

import (
	"fmt"
	"time"
)

// storm: most clients are reset and come back at the same moment, without their sessions.
func storm(d *drill) { d.storm(false) }

// resume: the same, and each comes back with its session.
func resume(d *drill) { d.storm(true) }

// A crowd goes and comes back, beside those who stay.
type crowd struct {
	*fleet
	stayed, gone []*client
	rooms        int
	resumes      bool
	refused      map[string]int // those who came back, by how it ended
}

func (d *drill) storm(resumes bool) {
	clients, stay, rooms, times := pick(d, 10_000, 3_000), pick(d, 500, 200), pick(d, 100, 40), pick(d, 5, 3)
	window := pick(d, 30*time.Second, 15*time.Second)
	s := d.serve("--resume-window", window.String())
	before := s.fds()
	c := &crowd{fleet: d.newFleet(s), rooms: rooms, resumes: resumes, refused: map[string]int{}}
	c.resuming = resuming{window: window, unrecovered: map[string]int{}}
	c.stayed = c.openAll(stay, func(i int) want { return want{rooms: []uint32{uint32(i % rooms)}, watched: true} })
	c.gone = c.openAll(clients, func(i int) want {
		w := want{rooms: []uint32{uint32(i % rooms)}, retries: true, resumes: resumes}
		if resumes { // an answer for each of two
			w.rooms = append(w.rooms, uint32((i+rooms/2)%rooms))
		}
		return w
	})
	var slowest time.Duration
	for range times {
		c.goAway()
		slowest = max(slowest, c.comeBack())
		c.pace(20, 2*time.Second, c.talk)
	}
	v := c.settle(patience)
	_, p99, worst := c.quantiles()
	d.say("%d clients back %d times, slowest %.1f s, tries that failed: %v", clients, times, slowest.Seconds(), c.refused)
	if resumes {
		c.judgeResumes(s, times*clients)
	}
	d.judge(c.fleet, v)
	d.noneEnded(c.stayed, "who stayed")
	d.say("who stayed: p99 %.0f ms, max %.0f ms", ms(p99), ms(worst))
	d.timed(slowest < 20*time.Second, "not all were served within 20 s")
	d.timed(p99 < time.Second, "p99 is not under 1 s")
	d.leftOver(s, before+len(c.byFD), "connected")
	for _, one := range append(c.gone, c.stayed...) {
		one.retries = false
		c.reset(one)
	}
	d.leftOver(s, before, "after all")
	d.becomesNone(s, "hubbub_parked_sessions", window+patience)
	d.say("memory %d MiB at last, %d at most", s.memory("VmRSS")>>20, s.memory("VmHWM")>>20)
}

// talk publishes one message: who goes does so too, where it can send it again.
func (c *crowd) talk(due int64) {
	if i := c.d.rng.IntN(len(c.gone)); c.resumes && c.gone[i].ready() && c.d.rng.IntN(2) == 0 {
		c.publish(c.gone[i], uint32(i%c.rooms), 200, due)
		return
	}
	i := c.d.rng.IntN(len(c.stayed))
	c.publish(c.stayed[i], uint32(i%c.rooms), 200, due)
}

// goAway resets all of the crowd. Who can resume stays away for a while, and is cut in the middle of messages to every
// room, its own and those of others.
func (c *crowd) goAway() {
	if c.resumes {
		for room := range c.rooms {
			now := c.clock()
			c.publish(c.stayed[room], uint32(room), 200, now)
			i := room + c.rooms*c.d.rng.IntN(len(c.gone)/c.rooms)
			c.publish(c.gone[i], uint32(room), 200, now)
		}
	}
	for _, one := range c.gone {
		c.reset(one)
	}
	if c.resumes {
		c.pace(20, time.Duration(c.d.rng.Int64N(int64(2*time.Second))), c.talk)
	}
}

// comeBack has them all come back at once, and says how long it took. In the first second some of those who can resume
// are cut again on their way.
func (c *crowd) comeBack() time.Duration {
	start := c.clock()
	for _, one := range c.gone {
		c.dial(one)
	}
	for back, round := 0, 0; back < len(c.gone); round++ {
		c.pace(20, 100*time.Millisecond, c.talk)
		for range pick(c.d, 100, 30) {
			if one := c.gone[c.d.rng.IntN(len(c.gone))]; c.resumes && round < 10 && one.state != ended {
				if !one.ready() {
					c.resuming.cutAgain++
				}
				c.reset(one)
				c.dial(one)
			}
		}
		back = 0
		for _, one := range c.gone {
			switch {
			case one.ready():
				back++
			case one.state == ended && c.clock() > one.retryAt:
				c.refused[one.why]++
				c.dial(one)
			}
		}
		if c.clock()-start > int64(40*time.Second) {
			c.d.abort("only %d of %d are back after 40 s", back, len(c.gone))
		}
	}
	return time.Duration(c.clock() - start)
}

// judgeResumes: everyone had its session back, each time, and there was something to recover.
func (c *crowd) judgeResumes(s *server, least int) {
	d, r := c.d, &c.resuming
	d.say("%d resumes (at most %.1f s after the loss), %d cut again before they were answered, %d deliveries of what was missed, %d publishes sent again of which %d were known",
		r.answered, r.longest.Seconds(), r.cutAgain, r.missed, r.sentAgain, r.duplicates)
	if r.tooLate > 0 {
		d.say("%d came back after the window of %v", r.tooLate, r.window)
	}
	if len(r.unrecovered) > 0 {
		d.say("rooms not recovered: %v", r.unrecovered)
	}
	d.must(r.denied == 0, "%d came back within the window and were told resumed: false", r.denied)
	d.must(r.answered+r.tooLate >= least, "only %d resumes were answered", r.answered)
	d.must(r.missed > 0 && r.sentAgain > 0, "nothing was missed or cut off: this is no trial")
	d.becomesNone(s, "hubbub_parked_sessions", patience)
}

// leftOver waits until a server has no more descriptors than it should, and as many connections as it says.
func (d *drill) leftOver(s *server, most int, when string) {
	for end := time.Now().Add(patience); s.fds() > most+16 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		d.alive()
	}
	d.say("%d descriptors %s", s.fds(), when)
	d.must(s.fds() <= most+16, "%s, the server should have at most %d and 16 descriptors", when, most)
	if n, ok := s.metric("hubbub_connections"); ok {
		d.must(int(n) <= most, "%s, hubbub_connections is %.0f", when, n)
	}
}

// becomesNone waits until a figure of /metrics is 0.
func (d *drill) becomesNone(s *server, name string, limit time.Duration) {
	last := "missing"
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		d.alive()
		if n, ok := s.metric(name); ok {
			if last = fmt.Sprint(n); n == 0 {
				return
			}
		}
	}
	d.must(false, "%s is %s and should be 0", name, last)
}
