//go:build !linux

package loop

import (
	"fmt"
	"net"
)

func newPoller(kind IO) (poller, error) {
	if kind == Epoll || kind == Uring {
		return nil, fmt.Errorf("io %q: %w", kind, errUnsupported)
	}
	return newChanPoller(), nil
}

func takeOver(net.Conn) (int, error) { return -1, errUnsupported }

// No connection has a descriptor of its own here.
func rawRecv(int32, []byte) (int, error) { return 0, errUnsupported }
func rawSend(int32, []byte) (int, error) { return 0, errUnsupported }
func rawPeer(int32) string               { return "" }
func rawShutdownWrite(int32)             {}
func rawHangUp(int32, bool)              {}

// WakeMonitor has nothing to do where no worker makes raw system calls.
func WakeMonitor() {}
