package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// quantiles of the watched clients' latencies.
func (f *fleet) quantiles() (p50, p99, worst time.Duration) {
	if len(f.latency) == 0 {
		return
	}
	slices.Sort(f.latency)
	at := func(q float64) time.Duration {
		return time.Duration(f.latency[min(int(q*float64(len(f.latency))), len(f.latency)-1)]) * time.Microsecond
	}
	return at(0.5), at(0.99), at(1)
}

func longestGap(all []*client) (worst time.Duration) {
	for _, c := range all {
		worst = max(worst, c.gap)
	}
	return worst
}

func count(all []*client, is func(*client) bool) (n int) {
	for _, c := range all {
		if is(c) {
			n++
		}
	}
	return n
}

// whyEnded counts the ends of clients by their reason: "4000: 7, reset: 3".
func whyEnded(all []*client) string {
	by := map[string]int{}
	for _, c := range all {
		if c.state == ended && c.why != "" {
			by[c.why]++
		}
	}
	if len(by) == 0 {
		return "none ended"
	}
	var parts []string
	for why, n := range by {
		parts = append(parts, fmt.Sprintf("%d %s", n, why))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
