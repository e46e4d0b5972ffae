package loop

import (
	"runtime"
	"time"
)

// poller tells a worker which of its sockets can be read or written.
type poller interface {
	add(fd int, slot, gen uint32) error
	poll() []ready        // never blocks; the slice is good until the next call
	park(until time.Time) // sleeps until something may have happened; a zero time sets no limit
	yield()               // lets every other goroutine run that can
	wake()                // ends a park; any goroutine
	close()
}

type ready struct {
	slot, gen uint32
	what      events
}

type events uint8

const (
	canRead events = 1 << iota
	canWrite
	ended  // the peer has ended its half of the stream
	hungUp // the peer is gone, whatever is still unread
)

// chanPoller serves workers that own no descriptors: their connections are pumps, which post what happens.
type chanPoller struct {
	ch    chan struct{}
	timer *time.Timer
}

func newChanPoller() *chanPoller {
	return &chanPoller{ch: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
}

func (p *chanPoller) add(int, uint32, uint32) error { return errUnsupported }
func (p *chanPoller) poll() []ready                 { return nil }
func (p *chanPoller) close()                        { p.timer.Stop() }

func (p *chanPoller) park(until time.Time) {
	var timer <-chan time.Time
	if !until.IsZero() {
		p.timer.Reset(time.Until(until))
		timer = p.timer.C
	}
	select {
	case <-p.ch:
	case <-timer:
	}
}

func (p *chanPoller) yield() { runtime.Gosched() }

func (p *chanPoller) wake() {
	select {
	case p.ch <- struct{}{}:
	default:
	}
}
