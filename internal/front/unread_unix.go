//go:build unix

package front

import "syscall"

// hasUnread says whether anything waits to be read from a socket, be it its end.
func hasUnread(fd uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return err != syscall.EAGAIN
}
