package front

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// arrival is a connection that the gate has accepted and net/http reads from, until it is hijacked. It knows whether
// its client keeps the server waiting, or the server its client. See Quick for what net/http never gets.
type arrival struct {
	net.Conn
	gate    *Gate
	context context.Context // net/http's, of all its requests
	quick   answers
	mode    atomic.Int32
	waits   atomic.Bool // somebody reads, and nothing has come
	since   time.Time   // the client has been silent as often as the gate looked; guarded by the gate's mu
}

// newArrival gives nc itself where nothing can be told of it. Of TLS nobody knows who waits for whom, since a handshake
// computes; and net/http must see that it is TLS.
func (g *Gate) newArrival(nc net.Conn) net.Conn {
	if _, ok := nc.(syscall.Conn); !ok {
		return nc
	}
	return &arrival{Conn: nc, gate: g, quick: answers{Quick: g.Quick}}
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

// SetWriteDeadline is net/http's, which sets one behind each request: on a connection that an upgrade has taken it means
// none, and whoever has that would be cut off by it.
func (a *arrival) SetWriteDeadline(t time.Time) error {
	if a.mode.Load() == taken {
		return nil
	}
	return a.Conn.SetWriteDeadline(t)
}

// Bare is the connection itself, for the loop.
func (a *arrival) Bare() net.Conn { return a.Conn }

// silent says whether the client keeps the server waiting: all that has come was read, and whoever has read it waits
// for more. Who has read a whole head may still be at work on it, for long where many are. One look can be wrong, in the
// moment in which Read returns.
func (a *arrival) silent() bool {
	if !a.waits.Load() {
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
