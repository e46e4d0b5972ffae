//go:build unix

package bench

import (
	"syscall"
	"time"
)

// selfCPU is the processor time that this process has used; false where it isn't known.
func selfCPU() (time.Duration, bool) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), true
}

// openFiles raises the soft limit of open files to the hard one and gives it.
func openFiles() uint64 {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 1 << 62
	}
	if r.Cur < r.Max {
		// Go has done it at the start, unless somebody lowered it since.
		raised := r
		raised.Cur = r.Max
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
			r = raised
		}
	}
	return uint64(r.Cur)
}
