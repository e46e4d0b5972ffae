package main

import (
	"path/filepath"
	"strings"
	"time"
)

// webhooks: a backend that is down, then slow, then moody, while clients come and go and the server is killed twice.
func webhooks(d *drill) {
	b := d.newBackend()
	flags := []string{
		"--webhook-url", "http://" + b.addr + "/", "--webhook-secret", webhookSecret, "--data-dir", filepath.Join(d.dir, "data"),
		"--api-key", backendKey, "--resume-window", "1s",
	}
	s := d.serve(flags...)
	n := pick(d, 2000, 200)
	t := &traffic{fleet: d.newFleet(s), rooms: uint32(n / 10)}
	t.all = t.openAll(n, t.want)
	killed := 0
	kill := func() {
		s.kill()
		killed++
		s = d.serveAs(how{port: s.addr.Port, flags: flags}) // where it was, as by a service manager
		t.to = s.addr
	}
	t.goOn(pick(d, 10*time.Second, time.Second))

	b.goDown()
	t.goOn(pick(d, 60*time.Second, 2*time.Second))
	kill()
	t.goOn(pick(d, 60*time.Second, 2*time.Second))
	b.is(pick(d, time.Second, 100*time.Millisecond), false)
	b.comeUp(d)
	t.goOn(pick(d, 60*time.Second, 3*time.Second))
	b.is(0, true)
	t.goOn(pick(d, 30*time.Second, 2*time.Second))
	kill()
	t.goOn(pick(d, 30*time.Second, 2*time.Second))

	// Who is here stays, and the backend hears of all.
	t.gather()
	b.is(0, false)
	told := d.toldAll(t, b, s)
	rooms, differ, err := b.differs(s)
	d.check(err)
	d.must(differ == 0 && rooms > 0, "in %d of %d rooms the backend knows what isn't so", differ, rooms)
	for _, c := range t.all {
		t.reset(c)
	}
	left := told && t.until(patience, func() bool {
		value, ok := s.metric("hubbub_parked_sessions")
		return ok && value == 0
	})
	d.must(left && d.toldAll(t, b, s), "not all have left, or the backend isn't told")
	after, differ, err := b.differs(s)
	d.check(err)

	b.mu.Lock()
	defer b.mu.Unlock()
	d.must(after == 0 && differ == 0 && len(b.clients) == 0, "at last %d rooms are occupied and %d clients connected, as the backend knows", after, len(b.clients))
	d.must(len(b.faults) == 0, "%d faults: %s", len(b.faults), strings.Join(b.faults[:min(3, len(b.faults))], "; "))
	d.must(b.starts == killed+1, "%d starts were told, want %d", b.starts, killed+1)
	d.must(b.refused > 0 && b.again > 0, "the backend was never moody: %d requests refused, %d events again", b.refused, b.again)
	d.say("%d clients, killed %d times: %d events in %d requests, %d refused, %d events came again; %d rooms as the snapshot has them", n, killed, b.seq, b.requests, b.refused, b.again, rooms)
}

// traffic is clients that come and go, each in a room that is now and then empty.
type traffic struct {
	*fleet
	all   []*client
	rooms uint32
}

func (t *traffic) want(i int) want {
	return want{rooms: []uint32{uint32(i) % t.rooms}, retries: true}
}

// goOn has some go and others come for so long.
func (t *traffic) goOn(long time.Duration) {
	for end := t.clock() + int64(long); t.clock() < end; t.step(10 * time.Millisecond) {
		for range 1 + len(t.all)/200 {
			if c := t.all[t.d.rng.IntN(len(t.all))]; c.ready() {
				t.reset(c)
				c.retryAt = t.clock() + t.d.rng.Int64N(int64(3*time.Second))
			}
		}
		t.comeBack()
	}
}

// comeBack dials for those whose time it is.
func (t *traffic) comeBack() {
	for _, c := range t.all {
		if c.state == ended && t.clock() > c.retryAt {
			t.dial(c)
		}
	}
}

// gather waits until all are here.
func (t *traffic) gather() {
	ok := t.until(patience, func() bool {
		t.comeBack()
		return count(t.all, (*client).ready) == len(t.all)
	})
	if !ok {
		t.d.abort("only %d of %d are here: %s", count(t.all, (*client).ready), len(t.all), whyEnded(t.all))
	}
}

// toldAll waits until nothing waits for the backend any more, and nobody is parked.
func (d *drill) toldAll(t *traffic, b *backend, s *server) bool {
	return t.until(patience, func() bool {
		t.rest(50 * time.Millisecond)
		waiting, ok := s.metric("hubbub_webhook_outbox_events")
		parked, _ := s.metric("hubbub_parked_sessions")
		return ok && waiting == 0 && parked == 0
	})
}
