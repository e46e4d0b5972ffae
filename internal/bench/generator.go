package bench

import (
	"fmt"
	"time"
)

// The rules by which the generator was the limit; docs/bench.md explains them.
const (
	// busyShare is the share of its processors above which a generator keeps nobody waiting for the server only.
	busyShare = 0.85
	// lateLeast and lateShare: sends are late when one in a hundred left later than both, a share of the 99th
	// percentile of latency.
	lateLeast = time.Millisecond
	lateShare = 0.1
	// fullShare is the share of time below which a window that is full was not what kept the generator from sending.
	fullShare = 0.05
	// idleShare is the share of the machine's processors that are idle when it is not exhausted.
	idleShare = 0.05
)

// Generator is what this process used, and whether it was the limit.
type Generator struct {
	CPUSeconds float64 `json:"cpu_s"`
	Processors int     `json:"processors"`    // that it may use: GOMAXPROCS
	Busy       float64 `json:"busy"`          // the share of them that it used, 0 to 1
	LateP99    float64 `json:"late_p99_ms"`   // how late sends were, at a fixed rate
	Held       int64   `json:"held"`          // sends that waited because too much was under way: the server's doing
	Limited    bool    `json:"limited"`       // it was the limit, not the server
	Shared     bool    `json:"shared"`        // the machine of both was fully used
	Why        string  `json:"why,omitempty"` // by which rule
	Known      bool    `json:"known"`         // its processor time is known on this system
}

// newGenerator judges the measured time. p is nil for Connect.
func (r *runner) newGenerator(p *pacer) Generator {
	o, before, after := &r.o, r.before, r.after
	span := time.Duration(after.at - before.at)
	g := Generator{Processors: after.procs, Known: before.self >= 0 && after.self >= 0}
	limit := func(format string, args ...any) {
		g.Limited = true
		if g.Why != "" {
			g.Why += "; "
		}
		g.Why += fmt.Sprintf(format, args...)
	}
	if span <= 0 || o.Mode == Idle {
		return g
	}
	if g.Known {
		g.CPUSeconds = (after.self - before.self).Seconds()
		if g.Busy = g.CPUSeconds / span.Seconds() / float64(g.Processors); g.Busy >= busyShare {
			limit("it used %.0f %% of the %d processors it may use", 100*g.Busy, g.Processors)
		}
	}
	if p != nil && o.Rate > 0 {
		late := time.Duration(p.late.ValueAtQuantile(99))
		g.LateP99, g.Held = milliseconds(int64(late)), p.held
		if late > lateLeast && g.LateP99 > lateShare*r.result.Latency.P99 {
			limit("one in a hundred sends left %.1f ms late or more", g.LateP99)
		}
	}
	if p != nil && o.Mode == Fanout && o.Rate == 0 && float64(p.full) < fullShare*float64(span) {
		limit("the window was seldom full: it could not publish faster")
	}
	idle, busy := after.idle-before.idle, after.busy-before.busy
	if r.result.Server != nil && !g.Limited && busy > 0 && float64(idle) < idleShare*float64(idle+busy) {
		g.Shared = true
		server := after.server - before.server
		others := max(0, busy-server-(after.self-before.self))
		g.Why = fmt.Sprintf("of this machine's processors nearly none was idle; the generator had %.2f, the server %.2f, others %.2f",
			g.CPUSeconds/span.Seconds(), server.Seconds()/span.Seconds(), others.Seconds()/span.Seconds())
	}
	return g
}
