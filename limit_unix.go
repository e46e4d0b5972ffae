//go:build unix

package hubbub

import "syscall"

// openFileLimit is how many descriptors the process may have; the Go runtime has raised it to the hard limit.
func openFileLimit() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || uint64(r.Cur) > 1<<24 {
		return 1 << 24
	}
	return int(r.Cur)
}
