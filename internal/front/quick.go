package front

import (
	"io"
	"net"
	"net/http"
	"time"
)

// Answer answers the request at the front of b without net/http: it appends the whole answer to dst, and says how many
// bytes of b the request was; 0: the request is net/http's. It keeps nothing of b, and doesn't block.
type Answer func(b, dst []byte) (answer []byte, used int)

// Quick has requests answered without net/http, from the first of a connection on until one comes that neither Answer nor
// Upgrade will have, or that hasn't arrived whole. From there on the connection is net/http's for good, which gets all
// that wasn't answered: it has never seen this connection before, so the two can't disagree about where a request
// begins.
type Quick struct {
	Answer Answer // nil: none
	// Upgrade says who serves an upgrade: nil for net/http. Who does writes to an *Upgrading, and must not wait for long:
	// that the client has gone doesn't end the request's context. nil: nobody.
	Upgrade func(r *http.Request) http.HandlerFunc
	Head    time.Duration // for the first request, be it net/http's then; as net/http has it for a head
	Idle    time.Duration // between an answer and the next request
	// Descriptors says that Upgrade may get a loop.Socket. Then ComesBack says of a request of Upgrade's what TakeTurn is
	// told of it, and Long whether to serve it is so much work that others shouldn't wait for it.
	Descriptors     bool
	ComesBack, Long func(r *http.Request) bool
}

// What an arrival is about.
const (
	fresh   = iota // Quick waits for what comes first
	resting        // Quick has answered, and waits
	passed         // Quick wants it no more: it is net/http's, or a refused client is heard out
	busy           // Quick is at work
	ending         // likewise, and it is closed as soon as that is answered
	taken          // for good, by an upgrade
)

// maxSpace is how much of an answer a connection keeps for the next one.
const maxSpace = 1 << 10

// answers is the goroutine's that reads.
type answers struct {
	*Quick              // nil: net/http has the connection, or gets it
	given     bool      // one or more
	refreshed time.Time // when the connection's time was last counted anew
	space     []byte    // of an answer, for the next one
}

// answer has the requests in b answered, until what is left in the first n bytes of b is net/http's.
func (a *arrival) answer(b []byte) (n int, err error) {
	if was := a.mode.Load(); was == ending || !a.mode.CompareAndSwap(was, busy) {
		return 0, net.ErrClosed
	}
	defer a.rest()
	for used := 0; used < len(b); used += n {
		if a.upgrades(b[used:]) {
			return 0, io.EOF
		}
		if a.quick.Answer == nil {
			return copy(b, b[used:]), nil
		}
		var out []byte
		if out, n = a.quick.Answer(b[used:], a.quick.space); n == 0 {
			return copy(b, b[used:]), nil
		}
		if cap(out) <= maxSpace {
			a.quick.space = out[:0]
		}
		a.refresh()
		if _, err := a.Conn.Write(out); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// refresh counts the connection's time anew, for an answer and behind it, as net/http would: but once a second.
func (a *arrival) refresh() {
	now := time.Now()
	if now.Sub(a.quick.refreshed) < time.Second {
		return
	}
	a.quick.given, a.quick.refreshed = true, now
	a.Conn.SetReadDeadline(now.Add(a.quick.Idle))
	a.Conn.SetWriteDeadline(now.Add(readWithin))
	a.gate.mu.Lock()
	defer a.gate.mu.Unlock()
	a.gate.pass(a)
	if a.gate.closed { // it was too late for dismiss
		a.Close()
	}
}

// rest ends what answer has begun.
func (a *arrival) rest() {
	now := int32(fresh)
	if a.quick.given {
		now = resting
	}
	if !a.mode.CompareAndSwap(busy, now) && a.mode.Load() != taken {
		a.Conn.Close()
	}
}

// Close ends the connection; where Quick is at work the client gets its answer first, if it takes it within a second.
func (a *arrival) Close() error { return a.end(a.Conn.Close) }

// end is Close, by that of the connection.
func (a *arrival) end(byClose func() error) error {
	switch {
	case a.mode.CompareAndSwap(busy, ending):
		return a.Conn.SetWriteDeadline(time.Now().Add(time.Second))
	case a.mode.Load() >= ending:
		return nil
	}
	return byClose()
}

// dismiss is Close for what net/http doesn't have, which closes its own when they rest.
func (a *arrival) dismiss() {
	for {
		switch now := a.mode.Load(); now {
		case busy:
			a.Close()
		case fresh, resting:
			if a.mode.CompareAndSwap(now, ending) {
				cut(a.Conn)
			}
		default:
			return
		}
	}
}
