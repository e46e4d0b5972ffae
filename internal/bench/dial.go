package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// portsPerAddress is how many connections one source address is trusted with: Linux gives out 28,232 ports of its
	// own (net.ipv4.ip_local_port_range), and those that wait in TIME_WAIT are taken too.
	portsPerAddress = 25_000
	// connectSources is how many addresses connections come from that are closed again at once.
	connectSources = 8
)

// dialer opens connections to one server.
type dialer struct {
	addr        netip.AddrPort
	tls         *tls.Config // nil for ws://
	head        []byte      // the request up to the key
	compression bool
	timeout     time.Duration
	sources     int // addresses 127.0.0.1 and up to dial from; 0: whatever the system takes
	dialed      atomic.Uint64
}

// newDialer finds the server: the address that takes a connection is the one for all.
func newDialer(ctx context.Context, o *Options, u *url.URL) (*dialer, error) {
	d := &dialer{compression: o.Compression, timeout: o.Timeout}
	port := u.Port()
	if port == "" {
		port = map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
	}
	if u.Scheme == "wss" {
		d.tls = &tls.Config{}
		if o.TLS != nil {
			d.tls = o.TLS.Clone()
		}
		if d.tls.ServerName == "" {
			d.tls.ServerName = u.Hostname()
		}
		d.tls.NextProtos = []string{"http/1.1"}
	}
	d.head = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n", u.RequestURI(), u.Host)
	if o.Compression {
		d.head = fmt.Appendf(d.head, "Sec-WebSocket-Extensions: %s\r\n", deflateOffer)
	}
	for _, line := range o.Header {
		d.head = fmt.Appendf(d.head, "%s\r\n", line)
	}
	d.head = append(d.head, "Sec-WebSocket-Key: "...)

	wanted := 0
	switch {
	case o.Mode == Connect:
		wanted = connectSources
	case o.Conns > portsPerAddress:
		wanted = o.Conns/portsPerAddress + 1
	}
	return d, d.probe(ctx, net.JoinHostPort(u.Hostname(), port), wanted)
}

// probe opens a connection and closes it again, and learns the server's address.
func (d *dialer) probe(ctx context.Context, address string, sources int) error {
	try := func(address string) error {
		dialer := net.Dialer{Timeout: d.timeout}
		nc, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		defer nc.Close()
		d.addr = nc.RemoteAddr().(*net.TCPAddr).AddrPort()
		d.addr = netip.AddrPortFrom(d.addr.Addr().Unmap(), d.addr.Port())
		return nil
	}
	switch err := try(address); {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens at %s: start a server there, such as hubbub serve (%w)", address, err)
	case err != nil:
		return err
	}
	// Linux has all of 127.0.0.0/8; of ::1 there is one.
	if sources > 0 && runtime.GOOS == "linux" && d.addr.Addr().IsLoopback() {
		if d.addr.Addr().Is6() {
			six := d.addr
			if try(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), six.Port()).String()) != nil {
				d.addr = six
			}
		}
		if d.addr.Addr().Is4() {
			d.sources = min(sources, 200)
		}
	}
	return nil
}

// dialed is a connection that was opened.
type dialed struct {
	tcp     *net.TCPConn
	conn    net.Conn // tcp, or TLS on it
	rest    []byte   // what came behind the handshake's answer
	deflate bool
}

// dial opens a connection: TCP, TLS and upgrade, in at most the timeout.
func (d *dialer) dial(ctx context.Context) (c dialed, err error) {
	deadline := time.Now().Add(d.timeout)
	dialer := net.Dialer{Deadline: deadline, KeepAlive: -1}
	if d.sources > 0 {
		n := d.dialed.Add(1) % uint64(d.sources)
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+n))}
		dialer.Control = portLater
	}
	nc, err := dialer.DialContext(ctx, "tcp", d.addr.String())
	if err != nil {
		return c, err
	}
	c.tcp = nc.(*net.TCPConn)
	c.tcp.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { c.tcp.SetDeadline(time.Unix(1, 0)) })
	c.conn = c.tcp
	if d.tls != nil {
		secure := tls.Client(c.tcp, d.tls)
		if err = secure.Handshake(); err != nil {
			err = fmt.Errorf("TLS: %w", err)
		}
		c.conn = secure
	}
	if err == nil {
		c.rest, c.deflate, err = d.upgrade(c.conn)
	}
	if !stop() && err == nil {
		err = ctx.Err() // or its deadline would fall on whoever gets the connection
	}
	if err != nil {
		abandon(c.tcp)
		return c, err
	}
	c.tcp.SetDeadline(time.Time{})
	return c, nil
}

// abandon closes a connection without TIME_WAIT, which would keep its port from those that follow.
func abandon(tcp *net.TCPConn) {
	tcp.SetLinger(0)
	tcp.Close()
}

// reason says in a few words why a connection failed: the same for all that failed alike, so that they can be counted.
func reason(err error) string {
	var refused *refusal
	var errno syscall.Errno
	switch {
	case errors.As(err, &refused):
		return "refused with " + refused.status
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "out of local ports"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	text := err.Error()
	if e := (*net.OpError)(nil); errors.As(err, &e) {
		text = e.Err.Error() // without the ports, which differ
	}
	return strings.TrimSpace(text)
}
