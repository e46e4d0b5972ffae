package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// level is the difference between two servers that counts as none: the noise of a shared machine is as large.
const level = 0.15

// report is what the page says.
type report struct {
	about
	scenarios []*scenario // in the order they ran
	disturbed int         // measurements whose disturbance outlasted compare.py's repeats
	total     int
}

// scenario is the results of one scenario: the limit's, Hubbub's, the rivals'.
type scenario struct {
	name    string
	results []*result
}

// result is what a server did in a scenario, over all rounds.
type result struct {
	server string
	rounds []measurement // without those that failed
	failed int
	reason string // of the last one that failed
}

// figure is a median, and the range of the rounds.
type figure struct{ median, low, high float64 }

// ratio is a figure as a multiple of another one's median. Of nothing it is 0.
func (f figure) ratio(base figure) figure {
	if base.median == 0 {
		return figure{}
	}
	return figure{f.median / base.median, f.low / base.median, f.high / base.median}
}

// spread is how far the rounds lie apart, as a share of the median.
func (f figure) spread() float64 {
	if f.median == 0 {
		return 0
	}
	return (f.high - f.low) / f.median
}

func (r *result) figure(of func(measurement) float64) figure {
	if len(r.rounds) == 0 {
		return figure{}
	}
	var v []float64
	for _, m := range r.rounds {
		v = append(v, of(m))
	}
	slices.Sort(v)
	middle := (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	return figure{middle, v[0], v[len(v)-1]}
}

func cpu(m measurement) float64       { return m.CPU }
func perSecond(m measurement) float64 { return m.PerSecond }
func p99(m measurement) float64       { return m.LatencyUsec.P99 }
func rss(m measurement) float64       { return m.RSS }

// faults says what a server did wrong, which makes its figures worth less; "" if nothing.
func (r *result) faults() string {
	var lost, dups, closed, refused int
	for _, m := range r.rounds {
		lost += m.Lost
		dups += m.Dups
		closed += m.Closed
		refused += m.Failed
	}
	var said []string
	if r.failed > 0 {
		said = append(said, fmt.Sprintf("no answer in %d of %d rounds (%s)", r.failed, r.failed+len(r.rounds), r.reason))
	}
	for _, count := range []struct {
		n    int
		what string
	}{
		{lost, "%d messages did not reach everybody in time"},
		{dups, "%d deliveries came twice or too late"},
		{closed, "%d connections were closed"},
		{refused, "%d connections failed"},
	} {
		if count.n > 0 {
			said = append(said, fmt.Sprintf(count.what, count.n))
		}
	}
	return strings.Join(said, "; ")
}

// These sort scenarios by compare.py's names. A rate is a fan-out too, but one whose latency says something: publishes
// come whether or not the last arrived.
func (s *scenario) isMemory() bool { return strings.HasPrefix(s.name, "mem") }
func (s *scenario) isEcho() bool   { return strings.HasPrefix(s.name, "echo") }
func (s *scenario) isRate() bool   { return strings.HasPrefix(s.name, "rate") }
func (s *scenario) isFanOut() bool { return !s.isMemory() && !s.isEcho() }

// result returns what a server did; an empty one if it did not run.
func (s *scenario) result(server string) *result {
	for _, r := range s.results {
		if r.server == server {
			return r
		}
	}
	return &result{server: server}
}

func summarize(all []measurement, a about) *report {
	r := &report{about: a, total: len(all)}
	for _, m := range all {
		i := slices.IndexFunc(r.scenarios, func(s *scenario) bool { return s.name == m.Scenario })
		if i < 0 {
			i = len(r.scenarios)
			r.scenarios = append(r.scenarios, &scenario{name: m.Scenario})
		}
		r.scenarios[i].add(m)
		if m.Disturbed >= 0.08 && !r.scenarios[i].isMemory() { // compare.py's bound; memory isn't a matter of time
			r.disturbed++
		}
	}
	for _, s := range r.scenarios {
		slices.SortStableFunc(s.results, func(x, y *result) int { return cmp.Compare(rank(x.server), rank(y.server)) })
	}
	return r
}

func (s *scenario) add(m measurement) {
	r := s.result(m.Server)
	if !slices.Contains(s.results, r) {
		s.results = append(s.results, r)
	}
	if m.Error != "" {
		r.failed++
		r.reason = m.Error
		return
	}
	r.rounds = append(r.rounds, m)
}

// rank has the limit stand first, and Hubbub next, with its defaults before all else; the rivals keep their order.
func rank(server string) int {
	switch {
	case server == "limit":
		return 0
	case server == "hubbub":
		return 1
	case isHubbub(server):
		return 2
	}
	return 3
}

func isHubbub(server string) bool { return strings.HasPrefix(server, "hubbub") }

// servers lists all that ran, in the order of the tables.
func (r *report) servers() (names []string) {
	for _, s := range r.scenarios {
		for _, result := range s.results {
			if !slices.Contains(names, result.server) {
				names = append(names, result.server)
			}
		}
	}
	slices.SortStableFunc(names, func(x, y string) int { return cmp.Compare(rank(x), rank(y)) })
	return names
}

func (r *report) only(kind func(*scenario) bool) (some []*scenario) {
	for _, s := range r.scenarios {
		if kind(s) {
			some = append(some, s)
		}
	}
	return some
}
