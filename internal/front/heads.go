package front

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// Where there is a Quick, the gate's own goroutines read what comes first on a connection, and net/http gets the connection
// only when Quick wants it no more: nothing of what it makes for one is needed for an upgrade. The goroutines are used
// again, since a new one's stack has to grow, which was a twelfth of an upgrade's processor time; the figures are in
// docs/decisions/0007-speed.md.

// maxIdleReaders is how many of these goroutines wait for the next connection; each keeps a stack.
const maxIdleReaders = 64

// heads are buffers for what comes first.
var heads = sync.Pool{New: func() any { return new([4 << 10]byte) }}

// accepted is what Accept gives net/http.
type accepted struct {
	nc  net.Conn
	err error
}

// acceptAll accepts in a goroutine of its own until the listener fails for good, as net/http would.
func (g *Gate) acceptAll() {
	over := false
	defer func() {
		if !over { // what it called has ended the goroutine
			go g.acceptAll()
		}
	}()
	for !over {
		nc, err := g.accept()
		a, ours := nc.(*arrival)
		switch {
		case err != nil:
			temporary, ok := err.(interface{ Temporary() bool })
			over = !g.hand(accepted{err: err}) || !ok || !temporary.Temporary()
		case !ours:
			if !g.hand(accepted{nc: nc}) {
				g.drop(nc)
			}
		case g.sockets != nil:
			g.sockets.begin(a)
		default:
			g.toReader(a)
		}
	}
}

// toReader has a goroutine read what comes first on a connection.
func (g *Gate) toReader(a *arrival) {
	select {
	case g.heads <- a:
	default:
		go g.readHeads(a)
	}
}

// hand gives net/http what was accepted, unless the gate is closed.
func (g *Gate) hand(what accepted) bool {
	select {
	case g.handed <- what:
		return true
	case <-g.over:
		return false
	}
}

// drop closes a connection that nobody has any more.
func (g *Gate) drop(nc net.Conn) {
	nc.Close()
	g.Changed(nc, http.StateClosed)
}

// readHeads reads what comes first on a, and then on others, as long as few goroutines wait for that.
func (g *Gate) readHeads(a *arrival) {
	for {
		g.readHead(a)
		if g.idle.Add(1) > maxIdleReaders {
			g.idle.Add(-1)
			return
		}
		select {
		case a = <-g.heads:
			g.idle.Add(-1)
		case <-g.over:
			return
		}
	}
}

// readHead has Quick serve a connection, and hands it to net/http with what Quick leaves.
func (g *Gate) readHead(a *arrival) {
	b := heads.Get().(*[4 << 10]byte)
	defer heads.Put(b)
	over := false
	defer func() {
		if p := recover(); p != nil {
			g.logPanic(p)
		}
		if !over { // nor where the goroutine ends by runtime.Goexit
			a.Conn.Close() // also of one that was taken, unless its descriptor was given away
			g.drop(a)
		}
	}()
	n, err := a.begin(b[:])
	over = true
	var nc net.Conn = a
	switch err {
	case nil:
		a.left = bytes.Clone(b[:n])
	case errNotOurs:
		nc = g.bare(a)
	default:
		g.drop(a)
		return
	}
	if !g.hand(accepted{nc: nc}) {
		g.drop(nc)
	}
}

// errNotOurs says that the connection itself is net/http's.
var errNotOurs = errors.New("not for the gate")

// bare has a's connection take its place.
func (g *Gate) bare(a *arrival) net.Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	if since, has := g.arrived[a]; has {
		delete(g.arrived, a)
		g.arrived[a.Conn] = since
	}
	return a.Conn
}

func (g *Gate) logPanic(p any) {
	g.log.Error("panic in an upgrade", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// begin reads from a new connection, and has Quick answer, until there is something for net/http in the first n bytes of b.
// After an error the connection is to be closed, where it isn't an upgrade's; but after errNotOurs it is net/http's, without
// the arrival.
func (a *arrival) begin(b []byte) (n int, err error) {
	if a.waitsFor != nil {
		defer a.rest()
		a.waitsFor.serve()
		a.hearOut()
		return 0, io.EOF
	}
	a.Conn.RemoteAddr() // behind a proxy this reads who the client is, within a time of its own
	if a.headBy.IsZero() {
		a.headBy = time.Now().Add(a.quick.Head)
	}
	if a.secure != nil && !a.shakeHands() {
		return 0, errNotOurs
	}
	a.Conn.SetReadDeadline(a.headBy)
	for n = copy(b, a.came); ; {
		if n == 0 {
			n, err = a.read(b)
		}
		if err == nil {
			n, err = a.answer(b[:n])
		}
		if n > 0 || err != nil {
			break
		}
	}
	a.came = nil
	if a.quick.given {
		a.headBy = time.Time{} // the request that net/http gets is a later one
	}
	a.quick = answers{}
	if err == nil && !a.mode.CompareAndSwap(fresh, passed) && !a.mode.CompareAndSwap(resting, passed) {
		err = net.ErrClosed
	}
	return n, err
}

// Read is net/http's.
func (a *arrival) Read(b []byte) (n int, err error) {
	if len(a.left) > 0 {
		n = copy(b, a.left)
		a.left = a.left[n:]
		return n, nil
	}
	return a.read(b)
}
