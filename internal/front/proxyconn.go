package front

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"example.com/hubbub/internal/sparselog"
)

// ProxyListener is a listener whose connections from trusted proxies begin with a header of the PROXY protocol, which
// says who the client is. Such a connection without one is ended. A connection from elsewhere is what it always was.
type ProxyListener struct {
	net.Listener
	trusted func() Proxies
	within  time.Duration // for a header
	log     *slog.Logger
	bad     sparselog.Log
}

// NewProxyListener stands before l, and below TLS. trusted is called for each connection.
func NewProxyListener(l net.Listener, trusted func() Proxies, within time.Duration, log *slog.Logger) *ProxyListener {
	return &ProxyListener{Listener: l, trusted: trusted, within: within, log: log}
}

// Accept waits for a connection, and not for its header.
func (l *ProxyListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil || !l.trusts(nc) {
		return nc, err
	}
	return &proxiedConn{Conn: nc, of: l}, nil
}

func (l *ProxyListener) trusts(nc net.Conn) bool {
	if nc.LocalAddr().Network() == "unix" {
		return slices.Contains(l.trusted(), netip.Prefix{})
	}
	tcp, ok := nc.RemoteAddr().(*net.TCPAddr)
	return ok && l.trusted().Trusts(tcp.AddrPort().Addr())
}

// proxiedConn is a connection from a trusted proxy. Whoever first reads from it or asks for the client's address reads
// the header, which is net/http, in the connection's own goroutine: so nobody else waits for it.
type proxiedConn struct {
	net.Conn
	of     *ProxyListener
	once   sync.Once
	client net.Addr // static after once, as is err
	err    error
}

// unknownClient is the address of a client that the proxy doesn't know. The proxy's own would be trusted, and with it
// what the client says.
type unknownClient struct{}

const unknownAddress = "unknown"

func (unknownClient) Network() string { return "tcp" }
func (unknownClient) String() string  { return unknownAddress }

func (c *proxiedConn) readHeader() {
	c.client = c.Conn.RemoteAddr()
	c.Conn.SetReadDeadline(time.Now().Add(c.of.within))
	of, err := readProxyHeader(c.Conn)
	if err != nil {
		c.err = err
		if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) { // a probe that only connects; or the gate
			c.of.bad.Log(c.of.log, slog.LevelWarn, "a connection from a trusted proxy doesn't begin as the PROXY protocol wants, and is refused", "proxy", c.client.String(), "why", err,
				"would_allow", "send-proxy-v2 or send-proxy in HAProxy, proxy_protocol on in nginx's stream; or no --proxy-protocol")
		}
		return
	}
	switch of.kind {
	case sourceKnown:
		c.client = net.TCPAddrFromAddrPort(of.addr)
	case sourceUnknown:
		c.client = unknownClient{}
	}
	c.err = c.Conn.SetReadDeadline(time.Time{})
}

// Read gives what follows the header.
func (c *proxiedConn) Read(b []byte) (int, error) {
	if c.once.Do(c.readHeader); c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(b)
}

// RemoteAddr is the client's, and waits for the header.
func (c *proxiedConn) RemoteAddr() net.Addr {
	c.once.Do(c.readHeader)
	return c.client
}

// CloseWrite is what net/http uses where it has.
func (c *proxiedConn) CloseWrite() error { return closeWrite(c.Conn) }

// SyscallConn is the socket's, for the gate.
func (c *proxiedConn) SyscallConn() (syscall.RawConn, error) {
	if raw, ok := c.Conn.(syscall.Conn); ok {
		return raw.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// Bare is the connection itself, for the loop: none of its bytes are held back here.
func (c *proxiedConn) Bare() net.Conn { return c.Conn }
