package loop

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ringOrSkip is a ring, on a system that has it; where it hasn't, TestUringIsRefusedWhereItIsForbidden of the root fails.
func ringOrSkip(t *testing.T) *ring {
	t.Helper()
	r, err := newRing()
	if err != nil {
		t.Skip("no io_uring here: ", err)
	}
	t.Cleanup(r.close)
	return r
}

// pair is two connected sockets; the first doesn't block.
func pair(t *testing.T) (near int32, far *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	far = os.NewFile(uintptr(p[1]), "far")
	t.Cleanup(func() { unix.Close(p[0]); far.Close() })
	return int32(p[0]), far
}

// Each write of one call has its own outcome: whole, in part, no room, nobody there, no such descriptor.
func TestTheOutcomeOfEachWriteOfARing(t *testing.T) {
	r := ringOrSkip(t)
	whole, wholeFar := pair(t)
	part, partFar := pair(t)
	full, _ := pair(t)
	gone, goneFar := pair(t)
	goneFar.Close()
	for _, err := rawSend(full, make([]byte, 1<<10)); err == nil; {
		_, err = rawSend(full, make([]byte, 1<<10))
	}
	large := bytes.Repeat([]byte("0123456789"), 1<<20)
	for turn := range 3 * ringSize / 7 { // past the end of what is mapped
		for _, w := range []struct {
			fd int32
			b  []byte
		}{{whole, []byte("all")}, {part, large}, {full, []byte("x")}, {gone, []byte("x")}, {-1, []byte("x")}, {part, []byte("x")}, {whole, []byte(" of it")}} {
			if !r.put(w.fd, w.b) {
				t.Fatal("no room for seven")
			}
		}
		all := r.send()
		if len(all) != 7 || all[0] != (sent{n: 3}) || all[6] != (sent{n: 6}) {
			t.Fatalf("turn %d: %v, want 3 bytes first and 6 last", turn, all)
		}
		if n := all[1].n; n <= 0 || n >= len(large) || all[1].err != nil {
			t.Fatalf("turn %d: of %d bytes %v went out, want a part", turn, len(large), all[1])
		}
		for i, want := range map[int]error{2: errAgain, 3: unix.EPIPE, 4: unix.EBADF, 5: errAgain} {
			if all[i].n != 0 || !errors.Is(all[i].err, want) {
				t.Fatalf("turn %d: write %d: %v, want %v", turn, i, all[i], want)
			}
		}
		got := make([]byte, all[1].n)
		if _, err := io.ReadFull(partFar, got); err != nil || !bytes.Equal(got, large[:len(got)]) {
			t.Fatalf("turn %d: what went out in part arrived otherwise: %v", turn, err)
		}
	}
	got := make([]byte, 9)
	if _, err := io.ReadFull(wholeFar, got); err != nil || string(got) != "all of it" {
		t.Errorf("%q, %v", got, err)
	}
}

// A ring takes as many writes as it says, and makes all of them.
func TestAFullRingIsSentWhole(t *testing.T) {
	r := ringOrSkip(t)
	near, far := pair(t)
	for range 3 {
		n := 1
		for r.put(near, []byte{byte(n)}) {
			n++
		}
		if all := r.send(); len(all) != ringSize || n != ringSize {
			t.Fatalf("%d were put, of %d something is known; want %d", n, len(all), ringSize)
		}
		got := make([]byte, ringSize)
		if _, err := io.ReadFull(far, got); err != nil {
			t.Fatal(err)
		}
		for i, b := range got {
			if int(b) != i+1 {
				t.Fatalf("byte %d is %d", i, b)
			}
		}
	}
}

// Where the kernel has no memory for more writes, or a signal comes between, each byte is still sent once.
func TestWritesThatTheRingDoesNotTake(t *testing.T) {
	for name, refuse := range map[string]func(call int) (most int, e syscall.Errno){
		"none":          func(int) (int, syscall.Errno) { return 0, unix.ENOMEM },
		"two, and none": func(call int) (int, syscall.Errno) { return max(0, 2-2*call), unix.EAGAIN },
		"two each time": func(int) (int, syscall.Errno) { return 2, 0 },
		"a signal": func(call int) (int, syscall.Errno) {
			if call == 0 {
				return 0, unix.EINTR
			}
			return ringSize, 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := ringOrSkip(t)
			near, far := pair(t)
			call, real := 0, r.enter
			r.enter = func(fd, submit, wait, flags int) (int, syscall.Errno) {
				most, e := refuse(call)
				call++
				if most > 0 {
					return real(fd, min(submit, most), wait, flags)
				}
				return -1, e
			}
			for range 2 * ringSize / 5 {
				for _, b := range []string{"a", "b", "c", "d", "e"} {
					r.put(near, []byte(b))
				}
				call = 0
				for i, one := range r.send() {
					if one != (sent{n: 1}) {
						t.Fatalf("write %d: %v", i, one)
					}
				}
				got := make([]byte, 5)
				if _, err := io.ReadFull(far, got); err != nil || string(got) != "abcde" {
					t.Fatalf("%q arrived, %v", got, err)
				}
			}
			unix.Shutdown(int(near), unix.SHUT_WR)
			if n, err := far.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Error("something arrived twice")
			}
		})
	}
}
