package hubbub

import (
	"os"
	"strconv"
	"strings"

	"example.com/hubbub/internal/cgroup"
)

// unknownMemory is assumed where the system doesn't tell as Linux does.
const unknownMemory = 4 << 30

// memoryLimit is how much memory the process may use: what its control group allows, or the machine has.
func memoryLimit() int64 {
	text := func(name string) (string, error) {
		b, err := os.ReadFile(name)
		return string(b), err
	}
	machine := int64(unknownMemory)
	if info, err := text("/proc/meminfo"); err == nil {
		if fields := strings.Fields(info); len(fields) > 1 && fields[0] == "MemTotal:" {
			if kib, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				machine = kib << 10
			}
		}
	}
	self, err1 := text("/proc/self/cgroup")
	mounts, err2 := text("/proc/self/mountinfo")
	if err1 == nil && err2 == nil {
		if group, _, ok := cgroup.Memory(self, mounts, text); ok {
			return min(machine, group)
		}
	}
	return machine
}
