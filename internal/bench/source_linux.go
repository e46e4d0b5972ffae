package bench

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// portLater has bind leave the choice of a port to connect, which may take one that another source or another server
// uses.
func portLater(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) // without it there are fewer ports
	})
}
