package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"example.com/hubbub/internal/cgroup"
)

func hostname() string {
	name, _ := os.Hostname()
	return name
}

func inUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// text is a file of the system without its last line break, "" where there is none.
func (s *Subject) text(path string) string {
	b, err := os.ReadFile(filepath.Join("/", s.Root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// number is the field at index i of such a file.
func (s *Subject) number(path string, i int) (n int64, ok bool) {
	fields := strings.Fields(s.text(path))
	if i >= len(fields) {
		return 0, false
	}
	n, err := strconv.ParseInt(fields[i], 10, 64)
	return n, err == nil
}

// isHubbub says whether a program is this one, by its name: some call it otherwise, with its version, say.
func isHubbub(program string) bool {
	own, err := os.Executable()
	return program == "hubbub" || err == nil && program == filepath.Base(own)
}

// process is the folder in /proc of the server that listens, or of this process.
func (s *Subject) process() (folder, whose string) {
	if pid, program := s.holder(s.Listen); isHubbub(program) {
		return "/proc/" + strconv.Itoa(pid), "of the server, process " + strconv.Itoa(pid)
	}
	return "/proc/self", "here; the server's may be others, where it is started in another way"
}

// Process is the folder in /proc of the server that listens, or of this process.
func (s *Subject) Process() string {
	folder, _ := s.process()
	return folder
}

// memoryLimit is that of a process's control group, or of the machine.
func (s *Subject) memoryLimit(folder string) (limit int64, from string) {
	read := func(name string) (string, error) {
		b, err := os.ReadFile(filepath.Join("/", s.Root, name))
		return string(b), err
	}
	if limit, file, ok := cgroup.Memory(s.text(folder+"/cgroup")+"\n", s.text(folder+"/mountinfo")+"\n", read); ok {
		return limit, file
	}
	for line := range strings.Lines(s.text("/proc/meminfo")) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, "the machine"
		}
	}
	return 0, ""
}
