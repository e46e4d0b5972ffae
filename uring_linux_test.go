package hubbub_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.com/hubbub"
)

// Where a seccomp filter or the kernel has no io_uring a server that was told to use it doesn't start, and says why and
// what to do; it doesn't go on with something else. The filter stays with its process, so that is another one.
func TestUringIsRefusedWhereItIsForbidden(t *testing.T) {
	if forbidden := os.Getenv("HUBBUB_TEST_FORBID"); forbidden != "" {
		underFilter(t, forbidden)
		return
	}
	if err := (hubbub.Config{IO: "uring"}).Validate(); err != nil {
		if os.Getenv("HUBBUB_TEST_WITHOUT_URING") == "" {
			t.Fatalf("nothing of io_uring can be tested here: %v; HUBBUB_TEST_WITHOUT_URING=1 says that this is known", err)
		}
		t.Skip(err)
	}
	for forbidden, words := range map[string][]string{
		"io_uring_setup EPERM":  {"io_uring_setup: operation not permitted", "seccomp", "kernel.io_uring_disabled", `use "auto"`},
		"io_uring_enter EPERM":  {"io_uring_enter: operation not permitted", "seccomp", `use "auto"`},
		"io_uring_setup ENOSYS": {"io_uring_setup: function not implemented", "this kernel has none", `use "auto"`},
		"io_uring_setup EINVAL": {"io_uring_setup: invalid argument", "Linux 5.19", `use "auto"`},
	} {
		t.Run(forbidden, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestUringIsRefusedWhereItIsForbidden$", "-test.v")
			cmd.Env = append(os.Environ(), "HUBBUB_TEST_FORBID="+forbidden)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, w := range append(words, `io "uring"`) {
				if !strings.Contains(string(out), w) {
					t.Errorf("the reason doesn't say %q:\n%s", w, out)
				}
			}
		})
	}
}

// underFilter says why a server with io_uring doesn't start in this process, from which a system call is taken.
func underFilter(t *testing.T, forbidden string) {
	name, errno, _ := strings.Cut(forbidden, " ")
	call := map[string]uint32{"io_uring_setup": unix.SYS_IO_URING_SETUP, "io_uring_enter": unix.SYS_IO_URING_ENTER}[name]
	e := map[string]unix.Errno{"EPERM": unix.EPERM, "ENOSYS": unix.ENOSYS, "EINVAL": unix.EINVAL}[errno]
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: call},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(e)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); e != 0 {
		t.Fatal("seccomp: ", e)
	}
	s, err := hubbub.New(hubbub.Config{IO: "uring", Logger: quietLogger()})
	if err == nil {
		s.Shutdown(t.Context())
		t.Fatal("it starts")
	}
	t.Log(err)
	if s, err := hubbub.New(hubbub.Config{Logger: quietLogger()}); err != nil {
		t.Errorf("nor does it start with auto: %v", err)
	} else {
		s.Shutdown(t.Context())
	}
}
