package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// memoryGroup makes a control group of 256 MiB inside the one that this process is in, of whichever version has the
// memory controller here.
func memoryGroup(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("only root can make a control group: run this test as root")
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	at, file := "", ""
	for line := range strings.Lines(string(self)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(part) != 3:
		case part[1] == "memory":
			at, file = filepath.Join("/sys/fs/cgroup/memory", part[2]), "memory.limit_in_bytes"
		case part[0] == "0" && at == "":
			at, file = filepath.Join("/sys/fs/cgroup", part[2]), "memory.max"
		}
	}
	group := filepath.Join(at, fmt.Sprintf("hubbub-e2e-%d", os.Getpid()))
	if file == "memory.max" { // a group with processes in it can't hand the controller on: beside it, then
		group = filepath.Join(filepath.Dir(at), filepath.Base(group))
	}
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatalf("this test needs a control group of its own: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(group, file), []byte("268435456"), 0); err != nil {
		t.Fatalf("this test needs a control group with a memory limit: %v", err)
	}
	return group
}

func TestTheMemoryLimitFollowsTheControlGroup(t *testing.T) {
	group := memoryGroup(t)
	inside := func(t *testing.T, env ...string) *server {
		s := &server{addr: freeAddr(t), exited: make(chan struct{})}
		s.cmd = exec.Command("/bin/sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, group, program, "serve", "--listen", s.addr)
		for _, e := range os.Environ() {
			if !strings.HasPrefix(e, "GOMEMLIMIT=") {
				s.cmd.Env = append(s.cmd.Env, e)
			}
		}
		s.cmd.Env = append(s.cmd.Env, env...)
		s.run(t)
		return s
	}
	t.Run("nine tenths of it", func(t *testing.T) {
		s := inside(t)
		if now := scrape(t, s)["go_gc_gomemlimit_bytes"]; now != 241591911 {
			t.Errorf("GOMEMLIMIT is %.0f, want nine tenths of 256 MiB", now)
		}
		if log := s.log.String(); !strings.Contains(log, "gomemlimit=241591911") || !strings.Contains(log, group) {
			t.Errorf("the log does not tell:\n%s", log)
		}
		s.stop(t, os.Interrupt)
	})
	t.Run("the environment counts first", func(t *testing.T) {
		s := inside(t, "GOMEMLIMIT=100MiB")
		if now := scrape(t, s)["go_gc_gomemlimit_bytes"]; now != 100<<20 {
			t.Errorf("GOMEMLIMIT is %.0f, want the environment's 100 MiB", now)
		}
		s.stop(t, os.Interrupt)
	})
}
