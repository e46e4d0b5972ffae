package front

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// arrival is a connection that the gate has accepted, until it is hijacked. It knows whether its client keeps the server
// waiting, or the server its client. Where there is a Quick, net/http gets what this leaves.
type arrival struct {
	net.Conn
	secure *tls.Conn // the same, where it's TLS, whose handshake the gate makes
	gate   *Gate
	quick  answers // the reading goroutine's of the gate
	mode   atomic.Int32
	waits  atomic.Bool // somebody reads, and nothing has come
	since  time.Time   // the client has been silent as often as the gate looked; guarded by the gate's mu

	// The gate's first, then net/http's.
	came     []byte    // was read before a goroutine had it to itself
	waitsFor *upgrade  // likewise, and is served
	left     []byte    // was read, and is net/http's
	headBy   time.Time // when the first request must have come, where net/http has that; zero: it sets the time itself
}

// newArrival gives nc itself where nothing can be told of it, and TLS where net/http makes the handshake.
func (g *Gate) newArrival(nc net.Conn) net.Conn {
	secure, isTLS := nc.(*tls.Conn)
	if _, ok := nc.(syscall.Conn); !ok && (!isTLS || g.Quick == nil) {
		return nc
	}
	a := &arrival{Conn: nc, secure: secure, gate: g, quick: answers{Quick: g.Quick}}
	if g.Quick == nil {
		a.mode.Store(passed)
	}
	return a
}

// SetReadDeadline is net/http's, whose time for the first request counts from when the gate began to read.
func (a *arrival) SetReadDeadline(t time.Time) error {
	if !a.headBy.IsZero() {
		t, a.headBy = a.headBy, time.Time{}
	}
	return a.Conn.SetReadDeadline(t)
}

// read is the connection's.
func (a *arrival) read(b []byte) (int, error) {
	a.waits.Store(true)
	defer a.waits.Store(false)
	return a.Conn.Read(b)
}

// CloseWrite is what net/http uses where it is there.
func (a *arrival) CloseWrite() error { return closeWrite(a.Conn) }

func closeWrite(nc net.Conn) error {
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Bare is the connection itself, for the loop.
func (a *arrival) Bare() net.Conn { return a.Conn }

// shakeHands makes the handshake of TLS, until headBy. It says false where the connection is net/http's from there on, which
// gets the handshake's error from it and answers who doesn't speak TLS, or speaks another protocol in it than HTTP/1.1.
func (a *arrival) shakeHands() bool {
	a.Conn.SetDeadline(a.headBy)
	err := a.secure.HandshakeContext(context.Background())
	a.Conn.SetWriteDeadline(time.Time{})
	protocol := a.secure.ConnectionState().NegotiatedProtocol
	return err == nil && (protocol == "" || protocol == "http/1.1")
}

// tlsState is what a request says of its TLS; nil where there is none.
func (a *arrival) tlsState() *tls.ConnectionState {
	if a.secure == nil {
		return nil
	}
	state := a.secure.ConnectionState()
	return &state
}

// silent says whether the client keeps the server waiting: all that has come was read, and whoever has read it waits
// for more. Who has read a whole head may still be at work on it, for long where many are. One look can be wrong, in the
// moment in which Read returns. Of TLS nobody knows who waits for whom, since a handshake computes.
func (a *arrival) silent() bool {
	if a.secure != nil || !a.waits.Load() {
		return false
	}
	raw, err := a.Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	unread := true
	err = raw.Control(func(fd uintptr) { unread = hasUnread(fd) })
	return err == nil && !unread
}
