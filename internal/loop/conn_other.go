//go:build !linux

package loop

import (
	"fmt"
	"net"
)

func newPoller(kind IO) (poller, error) {
	if kind == Epoll {
		return nil, fmt.Errorf("io %q: %w", kind, errUnsupported)
	}
	return newChanPoller(), nil
}

func takeOver(net.Conn) (int, error) { return -1, errUnsupported }

func (c *Conn) recv(b []byte) (int, error) { return c.pump.recv(b) }
func (c *Conn) send(b []byte) (int, error) { return c.pump.send(b) }
func (c *Conn) shutdownWrite()             { c.pump.shutdownWrite() }
func (c *Conn) hangUp(reset bool)          { c.pump.hangUp(reset) }
