package bench

import (
	"context"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// look is how often a sender that waits looks around: has ctx ended, what has expired.
	look = 50 * time.Millisecond
	// maxQueued bounds the bytes under way at a fixed rate.
	maxQueued = 64 << 20
)

// pacer sends at a rate. It belongs to the goroutine that drives the load.
type pacer struct {
	f    *fleet
	late *hdrhistogram.Histogram // how long after its time each message was sent
	held int64                   // messages that waited because too much was under way
	full int64                   // nanoseconds in which the window was full
}

// most is how many messages may be under way at a fixed rate.
func (p *pacer) most() int64 {
	return max(1, min(maxWindow, maxQueued/int64(p.f.o.Size)))
}

// run calls send for each message when it is due, from one time until another: the rate times that many, however late
// it was called itself. What is late is sent at once, and its latency counts from when it was due: so a server that
// stands still for a second has the latencies of all that was due in that second, not of the one message that hit it
// (coordinated omission). send says whether there was anyone to send it.
func (p *pacer) run(ctx context.Context, from, until int64, underWay func() int64, expire func(now int64), send func(due int64) bool) {
	most := p.most()
	free := from // since when something might be sent
	for n := 0; ; n++ {
		due := from + int64(float64(n)*1e9/p.f.o.Rate)
		if due >= until {
			p.wait(ctx, until)
			return
		}
		if !p.wait(ctx, due) {
			return
		}
		if underWay() >= most {
			p.held++
			for underWay() >= most {
				now := p.f.clock.now()
				if now >= until || p.f.rest(ctx, time.Millisecond) != nil {
					return
				}
				expire(now)
			}
			free = p.f.clock.now()
		}
		now := p.f.clock.now()
		record(p.late, now-max(due, free))
		expire(now)
		if !send(due) {
			return
		}
	}
}

// wait sleeps until a time, and says whether there is reason to go on.
func (p *pacer) wait(ctx context.Context, due int64) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-p.f.gone:
			return false
		default:
		}
		left := due - p.f.clock.now()
		if left <= 0 {
			return true
		}
		sleep(min(time.Duration(left), look))
	}
}
