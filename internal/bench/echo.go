package bench

import (
	"context"
	"sync/atomic"
	"time"
)

// echo has every connection send, and looks whether the same comes back.
type echo struct {
	f        *fleet
	inFlight atomic.Int64
	stopped  atomic.Bool

	// Of the goroutine that drives.
	composer composer
	turn     int
	started  bool
}

func newEcho(f *fleet) *echo {
	return &echo{f: f, composer: composer{run: f.run, compress: f.o.Compression}}
}

func (l *echo) enlist(c *conn) { c.seen.next = make([]uint32, 1) }

func (l *echo) deliver(c *conn, m marker) bool {
	if m.publisher != uint32(c.num) {
		c.shard.counts.stray++
		return false
	}
	if !c.seen.arrive(0, m.seq) {
		return false
	}
	c.echoed++
	return true
}

// again goes on after a read that brought messages back, under the shard's lock: as many new ones leave, in one write.
func (l *echo) again(c *conn) {
	n := c.echoed
	c.echoed = 0
	l.inFlight.Add(int64(-n))
	if l.f.o.Rate == 0 && !l.stopped.Load() {
		l.send(&c.shard.composer, c, n, l.f.clock.now())
	}
}

func (l *echo) send(k *composer, c *conn, n int, due int64) {
	l.inFlight.Add(int64(n))
	l.f.published.Add(int64(n))
	for range n {
		k.sendMarked(c, marker{publisher: uint32(c.num), seq: c.sent.Add(1) - 1, due: due})
	}
	c.flush()
}

func (l *echo) drive(ctx context.Context, from, until int64) {
	if l.f.o.Rate > 0 {
		l.f.pacer.run(ctx, from, until, l.underWay, func(int64) {}, l.sendNext)
		return
	}
	if !l.started {
		l.started = true
		for _, c := range l.f.conns {
			l.send(&l.composer, c, l.f.o.Window, l.f.clock.now())
		}
	}
	l.f.rest(ctx, time.Duration(until-l.f.clock.now()))
}

// sendNext has the next connection send a message that was due at a time.
func (l *echo) sendNext(due int64) bool {
	for range l.f.conns {
		c := l.f.conns[l.turn]
		if l.turn++; l.turn == len(l.f.conns) {
			l.turn = 0
		}
		if !c.gone() {
			l.send(&l.composer, c, 1, due)
			return true
		}
	}
	return false
}

func (l *echo) stop()           { l.stopped.Store(true) }
func (l *echo) underWay() int64 { return l.inFlight.Load() }

func (l *echo) judge(f *Faults, tail bool) {
	for _, c := range l.f.conns {
		if c == nil {
			continue
		}
		c.shard.mu.Lock()
		c.seen.judge(f)
		if tail && !c.gone() {
			f.Lost += int64(c.sent.Load() - c.seen.next[0])
		}
		c.shard.mu.Unlock()
	}
}
