package bench

import (
	"strings"
	"testing"
	"time"
)

// The rules by which the generator was the limit, each alone.
func TestWasTheGeneratorTheLimit(t *testing.T) {
	const second = time.Second
	at := func(s, self, idle, busy time.Duration) sample {
		return sample{at: int64(s), self: self, server: 0, idle: idle, busy: busy, procs: 2}
	}
	for _, c := range []struct {
		name    string
		o       Options
		after   sample // ten seconds after nothing
		late    time.Duration
		p99     float64
		full    time.Duration
		local   bool
		limited bool
		shared  bool
		why     string
	}{
		{name: "at ease", o: Options{Mode: Fanout}, after: at(10*second, 5*second, 10*second, 10*second), full: 5 * second, local: true},
		{name: "busy", o: Options{Mode: Fanout}, after: at(10*second, 18*second, 1*second, 19*second), full: 5 * second, limited: true, why: "90 % of the 2 processors"},
		{name: "busy, holding", o: Options{Mode: Idle}, after: at(10*second, 18*second, 1*second, 19*second)},
		{name: "late", o: Options{Mode: Fanout, Rate: 10}, after: at(10*second, 5*second, 10*second, 10*second), late: 3 * time.Millisecond, p99: 10, limited: true, why: "one in a hundred sends left 3.0 ms late"},
		{name: "late, but the server by far more", o: Options{Mode: Fanout, Rate: 10}, after: at(10*second, 5*second, 10*second, 10*second), late: 3 * time.Millisecond, p99: 100},
		{name: "late by too little to matter", o: Options{Mode: Fanout, Rate: 10}, after: at(10*second, 5*second, 10*second, 10*second), late: 900 * time.Microsecond, p99: 1},
		{name: "never waiting", o: Options{Mode: Fanout}, after: at(10*second, 10*second, 10*second, 10*second), full: second / 10, limited: true, why: "seldom full"},
		{name: "sharing", o: Options{Mode: Echo}, after: at(10*second, 9*second, second/2, 19*second+second/2), local: true, shared: true, why: "the generator had 0.90, the server 0.00, others 1.05"},
		{name: "a busy machine, the server elsewhere", o: Options{Mode: Echo}, after: at(10*second, 9*second, second/2, 19*second+second/2)},
	} {
		r := &runner{o: c.o, after: c.after, result: &Result{Latency: &Latency{P99: c.p99}}}
		if c.local {
			r.result.Server = &Server{}
		}
		p := &pacer{late: newHistogram(), full: int64(c.full)}
		for range 100 {
			record(p.late, int64(c.late))
		}
		g := r.newGenerator(p)
		if g.Limited != c.limited || g.Shared != c.shared || !strings.Contains(g.Why, c.why) || c.why == "" && g.Why != "" {
			t.Errorf("%s: %+v", c.name, g)
		}
		var said strings.Builder
		if err := (&Result{Mode: c.o.Mode, Generator: g}).Print(&said); err != nil {
			t.Error(err)
		}
		if c.limited != strings.Contains(said.String(), "THE GENERATOR WAS THE LIMIT") || !strings.Contains(said.String(), c.why) {
			t.Errorf("%s: the table says\n%s", c.name, &said)
		}
	}
}
