package front

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// maxLinger is how long a connection whose upgrade was refused is read on, so that what its client still sends can't
// make the system forget the answer.
const maxLinger = 500 * time.Millisecond

// upgrades serves the request at the front of b, if it is an upgrade that Quick wants and has come whole. The connection
// is the upgrade's then, or refused.
func (a *arrival) upgrades(b []byte) bool {
	u := a.upgrade(b)
	if u == nil {
		return false
	}
	a.gate.complete(a)
	u.serve()
	a.hearOut()
	return true
}

// upgradesAtOnce is upgrades for a goroutine that has others to serve: where its turn hasn't come another one serves it
// then, and who is refused is heard out by another one. It says false where the connection isn't done with here.
func (g *Gate) upgradesAtOnce(a *arrival, b []byte) (done bool) {
	if !a.mode.CompareAndSwap(fresh, busy) { // the gate closes it
		g.drop(a)
		return true
	}
	over := false
	defer func() {
		if p := recover(); p != nil {
			g.logPanic(p)
		}
		if !over { // nor where the goroutine ends by runtime.Goexit
			done = true
			a.rest()
			a.Conn.Close() // also of one that was taken, unless its descriptor was given away
			g.drop(a)
		}
	}()
	u := a.upgrade(b)
	if u == nil {
		over = true
		a.rest()
		return false
	}
	g.complete(a)
	if long := a.quick.Long(u.r); long || !u.ticket.turnAtOnce() {
		comesBack := !long && a.quick.ComesBack(u.r)
		over = true
		u.first = bytes.Clone(u.first) // the space is the next one's
		a.waitsFor = u
		if long {
			g.toReader(a)
		} else {
			u.ticket.waitAside(a, comesBack)
		}
		return true
	}
	u.serve()
	over = true
	if a.mode.Load() != taken {
		go func() {
			a.hearOut()
			a.rest()
			g.drop(a)
		}()
	}
	return true
}

// upgrade is a request that net/http doesn't see.
type upgrade struct {
	upgradeContext
	a       *arrival
	r       *http.Request
	handler http.HandlerFunc
	first   []byte // came behind it
}

// upgrade gives the request at the front of b, if it is an upgrade that Quick wants and has come whole; else nil.
func (a *arrival) upgrade(b []byte) *upgrade {
	if a.quick.Upgrade == nil || !bytes.HasPrefix(b, []byte("GET ")) {
		return nil
	}
	r, size := plainUpgrade(b)
	if r == nil {
		return nil
	}
	r.RemoteAddr, r.TLS = addressText(a.Conn), a.tlsState()
	u := &upgrade{upgradeContext: upgradeContext{Context: context.Background(), ticket: ticket{gate: a.gate, nc: a}}, a: a, first: b[size:]}
	u.r = r.WithContext(&u.upgradeContext)
	if u.handler = a.quick.Upgrade(u.r); u.handler == nil {
		return nil
	}
	return u
}

// serve has the connection taken, or refused. It ends a turn that came to nothing.
func (u *upgrade) serve() {
	defer func() {
		if u.a.mode.Load() != taken {
			u.ticket.end()
		}
	}()
	u.handler(&Upgrading{a: u.a, first: u.first, header: http.Header{}}, u.r)
}

// hearOut reads on what a client says that was refused.
func (a *arrival) hearOut() {
	if a.mode.CompareAndSwap(busy, passed) { // so that Close means now
		closeWrite(a.Conn)
		a.Conn.SetReadDeadline(time.Now().Add(maxLinger))
		io.CopyN(io.Discard, a.Conn, 64<<10)
	}
}

// upgradeContext is that of an upgrade which net/http doesn't see. It never ends.
type upgradeContext struct {
	context.Context
	ticket ticket
}

// Value has what the gate wants to know of a request, and what net/http says of each.
func (c *upgradeContext) Value(key any) any {
	switch key {
	case gateKey{}:
		return &c.ticket
	case http.LocalAddrContextKey:
		return c.ticket.nc.LocalAddr()
	}
	return nil
}

// addressText is the text of a connection's RemoteAddr in fewer pieces.
func addressText(nc net.Conn) string {
	if s, ok := nc.(interface{ RemoteAddrPort() netip.AddrPort }); ok {
		return s.RemoteAddrPort().String()
	}
	addr := nc.RemoteAddr()
	if tcp, ok := addr.(*net.TCPAddr); ok {
		of := tcp.AddrPort()
		return netip.AddrPortFrom(of.Addr().Unmap(), of.Port()).String()
	}
	return addr.String()
}

// Upgrading is the http.ResponseWriter of an upgrade that net/http doesn't see: Take has the connection, or one Write the
// whole body of a refusal.
type Upgrading struct {
	a      *arrival
	first  []byte
	header http.Header
	status int
}

// Header implements http.ResponseWriter.
func (u *Upgrading) Header() http.Header { return u.header }

// WriteHeader implements http.ResponseWriter. The head goes out with the body.
func (u *Upgrading) WriteHeader(status int) { u.status = status }

// Write implements http.ResponseWriter.
func (u *Upgrading) Write(body []byte) (int, error) {
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", u.status, http.StatusText(u.status))
	u.header.Write(&head)
	u.a.gate.mu.Lock()
	u.a.gate.pass(u.a) // it waits for its client from here on, and others must not
	u.a.gate.mu.Unlock()
	fmt.Fprintf(&head, "Date: %s\r\nContent-Length: %d\r\n\r\n", time.Now().UTC().Format(http.TimeFormat), len(body))
	u.a.Conn.SetWriteDeadline(time.Now().Add(readWithin))
	if _, err := u.a.Conn.Write(append(head.Bytes(), body...)); err != nil {
		return 0, err
	}
	return len(body), nil
}

// Take gives the connection to the caller, with what was read behind the request. It is called once, and counts in the
// gate no more.
func (u *Upgrading) Take() (nc net.Conn, first []byte) {
	u.a.mode.Store(taken)
	u.a.gate.Changed(u.a, http.StateHijacked)
	return u.a.Conn, bytes.Clone(u.first)
}
