//go:build !linux

package bench

import "syscall"

// portLater is for source addresses, which only Linux is given.
func portLater(_, _ string, _ syscall.RawConn) error { return nil }
