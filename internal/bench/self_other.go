//go:build !unix

package bench

import "time"

// selfCPU is the processor time that this process has used; false where it isn't known.
func selfCPU() (time.Duration, bool) { return 0, false }

// openFiles is the limit of open files; there is none that is known.
func openFiles() uint64 { return 1 << 62 }
