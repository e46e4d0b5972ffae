package main

import (
	"log/slog"
	"os"
	"runtime/debug"

	"example.com/hubbub/internal/cgroup"
)

// memoryShare is what the heap may take of the group's memory, in percent; the rest is for stacks that grow while the
// collector runs, and what the kernel counts as ours.
const memoryShare = 90

// limitMemory has the collector work harder near the limit of the process's control group, at which the kernel would
// kill it. GOMEMLIMIT in the environment counts first.
func limitMemory(log *slog.Logger) {
	if own, set := os.LookupEnv("GOMEMLIMIT"); set {
		log.Info("memory limit", "gomemlimit", own, "from", "the environment")
		return
	}
	limit, file, ok := cgroupMemory()
	if !ok {
		return
	}
	share := limit / 100 * memoryShare
	debug.SetMemoryLimit(share)
	log.Info("memory limit", "gomemlimit", share, "from", file, "bytes", limit)
}

// cgroupMemory is the limit that the kernel holds this process to. There is none where the files are not: elsewhere
// than on Linux.
func cgroupMemory() (limit int64, file string, ok bool) {
	text := func(name string) (string, error) {
		b, err := os.ReadFile(name)
		return string(b), err
	}
	self, err := text("/proc/self/cgroup")
	if err != nil {
		return 0, "", false
	}
	mounts, err := text("/proc/self/mountinfo")
	if err != nil {
		return 0, "", false
	}
	return cgroup.Memory(self, mounts, text)
}
