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
// that wasn't answered: it has never seen any of this connection before, so the two can't disagree about where a request
// begins. Not where there is TLS.
type Quick struct {
	Answer Answer // nil: none
	// Upgrade says who serves an upgrade: nil for net/http. Who does writes to an *Upgrading, and must not wait for long:
	// that the client has gone doesn't end the request's context. nil: nobody.
	Upgrade func(r *http.Request) http.HandlerFunc
	Head    time.Duration // for the first request of net/http's, behind one of Answer's
	Idle    time.Duration // between an answer and the next request
}

// What an arrival is about.
const (
	fresh   = iota // nothing was answered yet, or net/http has it
	resting        // Quick has answered, and waits
	busy           // Quick is at work
	ending         // likewise, and it is closed as soon as that is answered
	taken          // for good, by an upgrade
)

// maxSpace is how much of an answer a connection keeps for the next one.
const maxSpace = 1 << 10

// answers is the goroutine's that reads.
type answers struct {
	*Quick              // nil: net/http has the connection
	given     bool      // one or more
	refreshed time.Time // when the connection's time was last counted anew
	space     []byte    // of an answer, for the next one
}

// Read is net/http's, which asks for the beginning of a request with room for 4 KiB. What Quick answers it never sees.
func (a *arrival) Read(b []byte) (n int, err error) {
	if a.quick.Quick == nil {
		return a.read(b)
	}
	for n == 0 && err == nil {
		if n, err = a.read(b); err == nil {
			n, err = a.answer(b[:n])
		}
	}
	if a.quick.given {
		a.Conn.SetReadDeadline(time.Now().Add(a.quick.Head)) // net/http has set one for the connection's first request
	}
	a.quick.Quick, a.quick.space = nil, nil
	if a.mode.CompareAndSwap(resting, fresh); a.mode.Load() == ending {
		return 0, net.ErrClosed // net/http must not begin what nobody would be told of
	}
	return n, err
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
func (a *arrival) Close() error {
	switch {
	case a.mode.CompareAndSwap(busy, ending):
		return a.Conn.SetWriteDeadline(time.Now().Add(time.Second))
	case a.mode.Load() >= ending:
		return nil
	}
	return a.Conn.Close()
}

// dismiss is Close for what is Quick's alone: net/http closes its own when they rest.
func (a *arrival) dismiss() {
	for {
		switch a.mode.Load() {
		case busy:
			a.Close()
		case resting:
			if a.mode.CompareAndSwap(resting, ending) {
				a.Conn.Close()
			}
		default:
			return
		}
	}
}
