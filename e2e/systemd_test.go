package e2e

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// notifySocket is systemd's end of sd_notify(3).
func notifySocket(t *testing.T) (path string, next func() string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path, func() string {
		t.Helper()
		l.SetReadDeadline(time.Now().Add(patience))
		b := make([]byte, 4096)
		n, err := l.Read(b)
		if err != nil {
			t.Fatalf("systemd is told nothing more: %v", err)
		}
		return string(b[:n])
	}
}

// systemd hears that the server is ready when it listens, again and again that its workers turn, and at the end that it
// stops and how long that may take.
func TestSystemdIsTold(t *testing.T) {
	t.Parallel()
	path, next := notifySocket(t)
	s := &server{addr: freeAddr(t), exited: make(chan struct{})}
	s.cmd = exec.Command(program, "serve", "--listen", s.addr, "--shutdown-delay", "1s", "--shutdown-timeout", "20s")
	s.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=20000")
	s.run(t)
	heard := map[string]int{}
	for heard["READY=1"] < 1 || heard["WATCHDOG=1"] < 3 {
		heard[next()]++
	}
	if heard["READY=1"] != 1 || len(heard) != 2 {
		t.Errorf("systemd was told %v", heard)
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	said := next()
	for said == "WATCHDOG=1" {
		said = next()
	}
	if want := "STOPPING=1\nEXTEND_TIMEOUT_USEC=31000000"; said != want {
		t.Errorf("at its end it says %q, want %q", said, want)
	}
	if status := s.exit(t); status != 0 {
		t.Errorf("it ends with %d", status)
	}
}

// systemd hears when a reload begins, by the clock that Type=notify-reload compares, and when it has ended: also where the
// file has a fault, or there is none.
func TestSystemdIsToldOfReloads(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"max-rooms-per-client: 1\n", ""} {
		path, next := notifySocket(t)
		s := &server{addr: freeAddr(t), exited: make(chan struct{})}
		args, config := []string{"serve", "--listen", s.addr}, filepath.Join(t.TempDir(), "hubbub.yaml")
		write := func(text string) {
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if file != "" {
			write(file)
			args = append(args, "--config", config)
		}
		s.cmd = exec.Command(program, args...)
		s.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
		s.run(t)
		if said := next(); said != "READY=1" {
			t.Fatalf("at its start it says %q", said)
		}
		for _, text := range []string{"max-rooms-per-client: 2\n", "max-rooms-per-client: none\n"} {
			if file != "" {
				write(text)
			}
			before := monotonic(t)
			if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			begin, at, _ := strings.Cut(strings.TrimSpace(next()), "\nMONOTONIC_USEC=")
			if usec, err := strconv.ParseInt(at, 10, 64); begin != "RELOADING=1" || err != nil || usec < before || usec > monotonic(t) {
				t.Errorf("at a reload it says %q, and %q for a time behind %d", begin, at, before)
			}
			if said := next(); said != "READY=1" {
				t.Errorf("behind a reload it says %q", said)
			}
		}
		if status := s.stop(t, syscall.SIGTERM); status != 0 {
			t.Errorf("it ends with %d", status)
		}
	}
}

// monotonic is the clock of systemd, in microseconds.
func monotonic(t *testing.T) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano() / 1000
}

// The sockets of systemd-socket-activate are served in the place of --listen and --admin-listen; who comes before the
// server runs is its first client.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	addr, admin, elsewhere := freeAddr(t), freeAddr(t), freeAddr(t)
	s := &server{addr: addr, exited: make(chan struct{})}
	s.cmd = exec.Command("systemd-socket-activate", "--listen="+addr, "--listen="+admin, "--fdname=hubbub.socket:admin-listen",
		program, "serve", "--listen", elsewhere)
	s.run(t)
	for _, of := range []struct {
		at   string
		path string
		want int
	}{{addr, "/readyz", 200}, {addr, "/metrics", 404}, {admin, "/metrics", 200}} {
		answer, err := (&http.Client{Timeout: patience}).Get("http://" + of.at + of.path)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != of.want {
			t.Errorf("%s%s: %s, want %d", of.at, of.path, answer.Status, of.want)
		}
	}
	if nc, err := net.Dial("tcp", elsewhere); err == nil {
		nc.Close()
		t.Error("it listens at the address of --listen as well")
	}
	dialRaw(t, s, "/ws", "").message("welcome")
	if status := s.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("it ends with %d", status)
	}
}

// A socket that would be nobody's is refused.
func TestASocketTooMany(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	cmd := exec.Command("systemd-socket-activate", "--listen="+addr, "--listen="+freeAddr(t), "--fdname=a:b", program, "serve")
	var log syncBuffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if nc, err := net.Dial("tcp", addr); err == nil { // it starts with its first client
			defer nc.Close()
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	select {
	case <-ended:
	case <-time.After(patience):
		cmd.Process.Kill()
		t.Fatal("it serves")
	}
	if says := log.String(); cmd.ProcessState.ExitCode() != 2 || !strings.Contains(says, "LISTEN_FDS: b: one socket is taken") {
		t.Errorf("status %d: %s", cmd.ProcessState.ExitCode(), says)
	}
}
