package cgroup_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/hubbub/internal/cgroup"
)

// Each folder of testdata is a machine: what /proc/self/cgroup and mountinfo held, and files, a line each, "path
// value".
func TestMemory(t *testing.T) {
	const (
		mib  = 1 << 20
		gib  = 1 << 30
		here = "testdata"
	)
	for _, c := range []struct {
		machine string
		limit   int64 // 0: none
		file    string
	}{
		{"v1", 256 * mib, "/sys/fs/cgroup/memory/service/hubbub/memory.limit_in_bytes"},
		{"v1-parent-is-tighter", 128 * mib, "/sys/fs/cgroup/memory/service/memory.limit_in_bytes"},
		{"v1-no-limit", 0, ""},
		{"v1-in-docker", 512 * mib, "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
		{"v2", gib, "/sys/fs/cgroup/system.slice/hubbub.service/memory.max"},
		{"v2-parent-is-tighter", 768 * mib, "/sys/fs/cgroup/system.slice/memory.max"},
		{"v2-max", 0, ""},
		{"v2-in-namespace", 300 * mib, "/sys/fs/cgroup/memory.max"},
		{"v2-outside-of-what-is-mounted", 64 * mib, "/sys/fs/cgroup/memory.max"},
		{"hybrid", 2 * gib, "/sys/fs/cgroup/memory/user.slice/memory.limit_in_bytes"},
		{"spaces", 100 * mib, "/mnt/control groups/a b/memory.max"},
		{"nothing-mounted", 0, ""},
		{"no-memory-controller", 0, ""},
	} {
		t.Run(c.machine, func(t *testing.T) {
			get := func(name string) string {
				b, err := os.ReadFile(filepath.Join(here, c.machine, name))
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			files := map[string]string{}
			for line := range strings.Lines(get("files")) {
				i := strings.LastIndexByte(strings.TrimSpace(line), ' ')
				files[line[:i]] = line[i+1:]
			}
			read := func(name string) (string, error) {
				if text, ok := files[name]; ok {
					return text, nil
				}
				return "", errors.New("no such file")
			}
			limit, file, ok := cgroup.Memory(get("cgroup"), get("mountinfo"), read)
			if want := c.limit != 0; ok != want || ok && (limit != c.limit || file != c.file) {
				t.Errorf("got %d of %q, %v; want %d of %q", limit, file, ok, c.limit, c.file)
			}
		})
	}
}

// What is not understood is no limit, and no panic.
func FuzzMemory(f *testing.F) {
	f.Add("4:memory:/a", "32 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory", "1")
	f.Add("0::/../x", "1 1 0:1 /a /b rw - cgroup2 c rw", "max")
	f.Fuzz(func(t *testing.T, self, mounts, text string) {
		n := 0
		limit, file, ok := cgroup.Memory(self, mounts, func(string) (string, error) {
			if n++; n > 1000+len(self) {
				t.Fatal("it reads for ever")
			}
			return text, nil
		})
		if ok && file == "" {
			t.Errorf("a limit of %d from nowhere", limit)
		}
	})
}
