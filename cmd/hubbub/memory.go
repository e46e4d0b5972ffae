package main

import (
	"log/slog"
	"os"
	"runtime/debug"

	"example.com/hubbub/internal/cgroup"
)

// limitMemory has the collector work harder near the limit of the process's control group, at which the kernel would
// kill it: from nine tenths on, the rest is for what Go doesn't count and the kernel does, its socket buffers above
// all. GOMEMLIMIT in the environment counts first.
func limitMemory(log *slog.Logger) {
	if own := os.Getenv("GOMEMLIMIT"); own != "" {
		log.Info("memory limit", "gomemlimit", own, "from", "the environment")
		return
	}
	limit, file, ok := cgroupMemory()
	if !ok {
		return
	}
	share := limit - limit/10
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
