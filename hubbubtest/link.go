package hubbubtest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Direction is one of a link's two, or both.
type Direction int

// The directions of a link. ToServer is what the client sends.
const (
	ToServer Direction = 1 << iota
	ToClient
	Both = ToServer | ToClient
)

// Link is the line between one client and the server: in memory, with a bounded buffer each way, as a socket has. A
// test cuts it, at any byte, stalls it or slows it. All methods may be called from any goroutine and none blocks. Of
// what is cut, stalled or slow the server learns as it would on a network: by an error, by silence, by a full buffer.
type Link struct {
	client, server *end // static

	mu      sync.Mutex
	changed sync.Cond // anything below
	lines   [2]line   // to the server, to the client; guarded by mu
	reset   bool      // the link was cut: both ends have an error; guarded by mu
}

// line is one direction of a link.
type line struct {
	buf     []byte // written and not yet read
	max     int    // of buf
	fin     bool   // the writer has ended its half
	dropped bool   // nobody reads any more
	stalled bool
	rate    int       // bytes a second; 0: no limit
	free    time.Time // when a limited line may carry the next byte
	armed   bool      // a timer wakes the reader at free
	carried int64     // bytes read so far
	limit   int64     // bytes after which it ends; -1: none
	abrupt  bool      // how it ends there
}

// linkBuffer is what a line holds unless Options say otherwise, about what a socket does.
const linkBuffer = 64 << 10

func newLink(client, server net.Addr, buffer int) *Link {
	l := &Link{}
	l.changed.L = &l.mu
	for i := range l.lines {
		l.lines[i] = line{max: buffer, limit: -1}
	}
	l.client = &end{link: l, in: &l.lines[1], out: &l.lines[0], local: client, remote: server}
	l.server = &end{link: l, in: &l.lines[0], out: &l.lines[1], local: server, remote: client}
	return l
}

// each calls f for the lines of a direction, then wakes who waits.
func (l *Link) each(d Direction, f func(*line)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d&ToServer != 0 {
		f(&l.lines[0])
	}
	if d&ToClient != 0 {
		f(&l.lines[1])
	}
	l.changed.Broadcast()
}

func (l *Link) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed.Broadcast()
}

// Cut breaks the link as a reset does: both ends get an error, and what was on its way is lost.
func (l *Link) Cut() { l.CutAfter(Both, 0) }

// CutAfter does so once n more bytes have crossed in that direction; of Both, in either. The receiver gets exactly
// those n bytes.
func (l *Link) CutAfter(d Direction, n int) { l.endAfter(d, n, true) }

// End ends the link in good order, as a proxy does that stops: each end reads what is on its way, then the end of the
// stream.
func (l *Link) End() { l.each(Both, func(p *line) { p.fin, p.dropped = true, true }) }

// EndAfter does so once n more bytes have crossed in that direction; of Both, in either. What comes behind them is
// lost.
func (l *Link) EndAfter(d Direction, n int) { l.endAfter(d, n, false) }

func (l *Link) endAfter(d Direction, n int, abrupt bool) {
	l.each(d, func(p *line) {
		p.limit, p.abrupt = p.carried+int64(n), abrupt
		l.endAtLimit(p)
	})
}

// endAtLimit ends the link if p has carried what it may. l.mu is held.
func (l *Link) endAtLimit(p *line) {
	if p.limit < 0 || p.carried < p.limit {
		return
	}
	if p.abrupt {
		l.reset = true
	}
	p.buf = nil
	for i := range l.lines {
		l.lines[i].fin, l.lines[i].dropped = true, true
	}
}

// Stall holds back what is sent in that direction, for good unless Resume is called: the sender's buffer fills, and
// neither end is told.
func (l *Link) Stall(d Direction) { l.each(d, func(p *line) { p.stalled = true }) }

// Resume ends a Stall: what was held back arrives.
func (l *Link) Resume(d Direction) { l.each(d, func(p *line) { p.stalled = false }) }

// Slow carries so many bytes a second in that direction, of the clock that the test has; 0 is as many as there are.
func (l *Link) Slow(d Direction, bytesPerSecond int) {
	l.each(d, func(p *line) { p.rate, p.free = bytesPerSecond, time.Now() })
}

// Carried is how many bytes have crossed in that direction so far; of Both, in both together.
func (l *Link) Carried(d Direction) (n int64) {
	l.each(d, func(p *line) { n += p.carried })
	return n
}

// stalled says that a direction is.
func (l *Link) stalled() (is bool) {
	l.each(Both, func(p *line) { is = is || p.stalled })
	return is
}

// end is one end of a link, a net.Conn.
type end struct {
	link          *Link
	in, out       *line
	local, remote net.Addr

	closed            bool // guarded by link.mu
	readBy, writeBy   time.Time
	readWake, outWake *time.Timer
}

func (e *end) LocalAddr() net.Addr  { return e.local }
func (e *end) RemoteAddr() net.Addr { return e.remote }

func passed(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// Read waits for bytes, as far as the line carries them.
func (e *end) Read(b []byte) (int, error) {
	l, p := e.link, e.in
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case e.closed:
			return 0, net.ErrClosed
		case l.reset:
			return 0, syscall.ECONNRESET
		case passed(e.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case p.stalled:
		case len(p.buf) == 0 && p.fin:
			return 0, io.EOF
		case len(p.buf) > 0 && l.carries(p):
			return l.carry(p, b), nil
		}
		l.changed.Wait()
	}
}

// carries says whether a limited line may carry something now, and else has the reader woken when it may. l.mu is held.
func (l *Link) carries(p *line) bool {
	if p.rate == 0 || passed(p.free) {
		return true
	}
	if !p.armed {
		p.armed = true
		time.AfterFunc(time.Until(p.free), func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			p.armed = false
			l.changed.Broadcast()
		})
	}
	return false
}

// carry takes bytes off a line. l.mu is held.
func (l *Link) carry(p *line, b []byte) int {
	n := min(len(b), len(p.buf))
	if p.rate > 0 {
		n = min(n, max(1, p.rate/20))
		p.free = time.Now().Add(time.Duration(n) * time.Second / time.Duration(p.rate))
	}
	if p.limit >= 0 {
		n = min(n, int(p.limit-p.carried))
	}
	copy(b, p.buf[:n])
	p.buf = p.buf[n:]
	p.carried += int64(n)
	l.endAtLimit(p)
	l.changed.Broadcast()
	return n
}

// Write waits until the line's buffer has taken all of b.
func (e *end) Write(b []byte) (n int, err error) {
	l, p := e.link, e.out
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case e.closed:
			return n, net.ErrClosed
		case l.reset:
			return n, syscall.ECONNRESET
		case p.fin || p.dropped:
			return n, syscall.EPIPE
		case passed(e.writeBy):
			return n, os.ErrDeadlineExceeded
		}
		if k := min(len(b), p.max-len(p.buf)); k > 0 {
			p.buf = append(p.buf, b[:k]...)
			b, n = b[k:], n+k
			l.changed.Broadcast()
		}
		if len(b) == 0 {
			return n, nil
		}
		l.changed.Wait()
	}
}

// Close ends both halves: what was written still arrives, what comes is thrown away.
func (e *end) Close() error {
	l := e.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	e.closed = true
	e.out.fin = true
	e.in.dropped, e.in.buf = true, nil
	for _, t := range []*time.Timer{e.readWake, e.outWake} {
		if t != nil {
			t.Stop()
		}
	}
	l.changed.Broadcast()
	return nil
}

// CloseWrite ends this end's half.
func (e *end) CloseWrite() error {
	e.link.mu.Lock()
	defer e.link.mu.Unlock()
	e.out.fin = true
	e.link.changed.Broadcast()
	return nil
}

func (e *end) SetDeadline(t time.Time) error {
	e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

func (e *end) SetReadDeadline(t time.Time) error {
	return e.deadline(&e.readBy, &e.readWake, t)
}

func (e *end) SetWriteDeadline(t time.Time) error {
	return e.deadline(&e.writeBy, &e.outWake, t)
}

func (e *end) deadline(by *time.Time, wake **time.Timer, t time.Time) error {
	e.link.mu.Lock()
	defer e.link.mu.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	if *wake != nil {
		(*wake).Stop()
		*wake = nil
	}
	*by = t
	if left := time.Until(t); !t.IsZero() && left > 0 { // a timer that is due at once crashed Go 1.26's race detector in a bubble, twice
		*wake = time.AfterFunc(left, e.link.wake)
	}
	e.link.changed.Broadcast()
	return nil
}
