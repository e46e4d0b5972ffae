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
	if a.quick.Upgrade == nil || !bytes.HasPrefix(b, []byte("GET ")) {
		return false
	}
	r, size := plainUpgrade(b)
	if r == nil {
		return false
	}
	r.RemoteAddr = addressText(a.Conn.RemoteAddr())
	r = r.WithContext(&upgradeContext{Context: context.Background(), ticket: ticket{gate: a.gate, nc: a}, local: a.Conn.LocalAddr()})
	serve := a.quick.Upgrade(r)
	if serve == nil {
		return false
	}
	a.gate.Changed(a, http.StateActive)
	serve(&Upgrading{a: a, first: b[size:], header: http.Header{}}, r)
	if a.mode.CompareAndSwap(busy, passed) { // so that Close means now
		closeWrite(a.Conn)
		a.Conn.SetReadDeadline(time.Now().Add(maxLinger))
		io.CopyN(io.Discard, a.Conn, 64<<10)
	}
	return true
}

// upgradeContext is that of an upgrade which net/http doesn't see. It never ends.
type upgradeContext struct {
	context.Context
	ticket ticket
	local  net.Addr
}

// Value has what the gate wants to know of a request, and what net/http says of each.
func (c *upgradeContext) Value(key any) any {
	switch key {
	case gateKey{}:
		return &c.ticket
	case http.LocalAddrContextKey:
		return c.local
	}
	return nil
}

// addressText is addr.String() in fewer pieces.
func addressText(addr net.Addr) string {
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
