//go:build !linux

package front

import "net"

// sockets are Linux's.
type sockets struct{}

func newSockets(*Gate) *sockets            { return nil }
func (*sockets) accept() (net.Conn, error) { return nil, net.ErrClosed }
func (*sockets) begin(*arrival)            {}
func (*sockets) close()                    {}
