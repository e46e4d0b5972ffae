package bench

import (
	"time"

	"golang.org/x/sys/unix"
)

// sleep wakes within about 60 us. A Go timer may be a millisecond late when nothing else happens, because the runtime's
// epoll_wait counts in those: which would be a millisecond of latency that isn't the server's.
func sleep(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	unix.Nanosleep(&t, nil) // a signal may end it early: the caller looks at the clock
}
