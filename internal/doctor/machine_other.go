//go:build !linux

package doctor

import (
	"context"
	"runtime"
	"time"
)

// Only Linux tells these.

func (s *Subject) holder(string) (pid int, program string) { return 0, "" }

func descriptors(context.Context, *Subject) []Finding {
	return []Finding{ok("machine", "limits and memory were not looked at: that is for Linux alone, and this is %s", runtime.GOOS)}
}

func memory(context.Context, *Subject) []Finding { return nil }
func kernel(context.Context, *Subject) []Finding { return nil }

func clock(ctx context.Context, s *Subject) []Finding {
	off, from := s.peerClock(ctx)
	switch {
	case from == "":
		return nil
	case off.Abs() > 5*time.Second:
		return []Finding{warning("clock", "have the system keep its time", "%s has a time that is %s from ours", from, off.Round(time.Second))}
	}
	return []Finding{ok("clock", "%s agrees to the second or so", from)}
}

func free(string) (bytes uint64, share, inodes float64, ok bool) { return 0, 0, 0, false }
