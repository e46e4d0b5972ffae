package bench

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"example.com/hubbub/internal/wsclient"
)

// clock gives nanoseconds since the run began. It never goes back.
type clock struct{ start time.Time }

func (k clock) now() int64 { return int64(time.Since(k.start)) }

// newHistogram holds latencies in nanoseconds up to ten minutes, to three digits from a microsecond on.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(time.Microsecond), int64(10*time.Minute), 3)
}

// record counts a latency; what is out of range counts as the nearest that isn't.
func record(h *hdrhistogram.Histogram, ns int64) {
	h.RecordValue(min(max(ns, 0), h.HighestTrackableValue()))
}

// counts are what a shard counts, over the whole run.
type counts struct {
	delivered int64 // messages of this run that arrived for the first time
	bytes     int64 // of frames, as they came
	others    int64 // messages that are none of this run's
	damaged   int64 // the payload was changed
	stray     int64 // came to somebody who should not have it
	errors    int64 // the server's error messages
}

func (c *counts) add(d *counts) {
	c.delivered += d.delivered
	c.bytes += d.bytes
	c.others += d.others
	c.damaged += d.damaged
	c.stray += d.stray
	c.errors += d.errors
}

// shard is what some of the connections count together.
type shard struct {
	mu       sync.Mutex
	counts   counts
	latency  *hdrhistogram.Histogram // of what was due since the measurement began
	inflater wsclient.Inflater
	composer composer
	_        [64]byte
}

// stats are all shards.
type stats struct {
	shards []*shard
	// from is when the measurement began; what was due before is not measured.
	from atomic.Int64
}

// newStats makes more shards than there are processors, so that two goroutines seldom meet at one lock.
func newStats(run string, compression bool) *stats {
	s := &stats{shards: make([]*shard, min(4*runtime.GOMAXPROCS(0), 64))}
	for i := range s.shards {
		s.shards[i] = &shard{latency: newHistogram(), composer: composer{run: run, compress: compression}}
	}
	s.from.Store(1 << 62)
	return s
}

// sum adds up what was counted so far. h, unless it is nil, gets the latencies.
func (s *stats) sum(h *hdrhistogram.Histogram) (c counts) {
	for _, sh := range s.shards {
		sh.mu.Lock()
		c.add(&sh.counts)
		if h != nil {
			h.Merge(sh.latency)
		}
		sh.mu.Unlock()
	}
	return c
}
