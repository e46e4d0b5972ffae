//go:build unix

package hubbub

import "syscall"

// hasUnread says whether anything waits to be read from a socket, be it its end.
func hasUnread(fd uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return err != syscall.EAGAIN
}

// openFileLimit is how many descriptors the process may have; the Go runtime has raised it to the hard limit.
func openFileLimit() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || uint64(r.Cur) > 1<<24 {
		return 1 << 24
	}
	return int(r.Cur)
}
