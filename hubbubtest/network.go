package hubbubtest

import (
	"context"
	"net"
	"sync"
	"syscall"
)

// network is where a Server listens: in memory, so that it works in a synctest bubble, where a goroutine that waits for
// a socket would stop the clock.
type network struct {
	addr     *net.TCPAddr // static
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func newNetwork() *network {
	return &network{addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, incoming: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept waits for the next dial.
func (n *network) Accept() (net.Conn, error) {
	select {
	case nc := <-n.incoming:
		return nc, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and refuses dials.
func (n *network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

func (n *network) Addr() net.Addr { return n.addr }

// dial makes a link and waits until the server has accepted it.
func (n *network) dial(ctx context.Context, from net.Addr, buffer int) (*Link, error) {
	l := newLink(from, n.addr, buffer)
	select {
	case n.incoming <- l.server:
		return l, nil
	case <-n.closed:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
