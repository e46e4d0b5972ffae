package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A server is a hubbub in a process of its own.
type server struct {
	d      *drill
	addr   unix.SockaddrInet4
	cmd    *exec.Cmd
	pid    int
	log    tail
	exited chan struct{}
	err    error // once exited is closed
	killed bool  // by the drill
}

// how a server is started.
type how struct {
	under  []string // a program that becomes the server: prlimit, ip netns exec, ...
	addr   [4]byte  // 127.0.0.1
	port   int      // 0 for any
	stderr *os.File // its log; else the drill keeps the end of it
	flags  []string
}

func (d *drill) serve(flags ...string) *server { return d.serveAs(how{flags: flags}) }

// serveAs starts a server and waits until it is ready.
func (d *drill) serveAs(h how) *server {
	s := d.launch(h)
	for start := time.Now(); !s.ready(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > patience {
			d.abort("the server does not become ready: %s", s.log.String())
		}
	}
	d.scraped()
	return s
}

// launch starts a server, which isn't ready yet.
func (d *drill) launch(h how) *server {
	s := &server{d: d, exited: make(chan struct{})}
	s.addr.Addr, s.addr.Port = h.addr, h.port
	switch {
	case h.addr != [4]byte{}:
		s.addr.Port = max(h.port, 8080) // in a namespace all ports are free
	case h.port == 0:
		s.addr.Port = d.freePort()
		fallthrough
	default:
		s.addr.Addr = [4]byte{127, 0, 0, 1}
	}
	listen := net.JoinHostPort(net.IP(s.addr.Addr[:]).String(), strconv.Itoa(s.addr.Port))
	d.scrape(listen)
	words := append(append(h.under, d.program, "serve", "--listen", listen, "--shutdown-timeout", "2s"), h.flags...)
	s.cmd = exec.Command(words[0], words[1:]...)
	var log io.Writer = &s.log
	if d.logs != "" {
		file, err := os.CreateTemp(d.logs, d.name+"-*.log")
		d.check(err)
		d.cleanup(func() { d.check(file.Close()) })
		log = io.MultiWriter(log, file)
	}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if h.stderr != nil {
		s.cmd.Stderr = h.stderr
	}
	// It dies with the drill, and a Ctrl-C is not for it.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	d.check(s.cmd.Start())
	s.pid = s.cmd.Process.Pid
	go func() {
		s.err = s.cmd.Wait()
		close(s.exited)
	}()
	d.cleanup(s.end)
	return s
}

var lastPort = 10_000 + rand.IntN(10_000)

// freePort is another one each time, and none that the kernel gives to a connection (those begin with 32768,
// ip_local_port_range): nobody takes it until a server listens there, or while one is started anew.
func (d *drill) freePort() int {
	for range 10_000 {
		lastPort++
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", lastPort))
		if err == nil {
			l.Close()
			return lastPort
		}
	}
	d.abort("no port is free")
	return 0
}

// ready says whether the server says so. It must live.
func (s *server) ready() bool {
	if !s.lives() {
		s.d.abort("the server does not start: %v: %s", s.err, s.log.String())
	}
	body, err := s.get("/readyz")
	return err == nil && bytes.Contains(body, []byte(" 200 "))
}

func (s *server) lives() bool {
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// kill ends the server as a crash does.
func (s *server) kill() {
	s.killed = true
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// end stops the server, which holds its accounts against zero then, and looks into its log.
func (s *server) end() {
	if s.lives() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.exited:
		case <-time.After(2 * time.Minute):
			_ = s.cmd.Process.Kill()
			<-s.exited
		}
		s.d.must(s.err == nil, "the server stops with %v: %s", s.err, s.log.String())
	} else if !s.killed {
		s.d.must(false, "the server ended by itself: %v: %s", s.err, s.log.String())
	}
	for _, bad := range []string{"panic", "fatal error", "DATA RACE"} {
		s.d.must(!strings.Contains(s.log.String(), bad), "the server's log has %q: %s", bad, s.log.String())
	}
}

func (s *server) get(path string) ([]byte, error) { return get(s.addr, path) }

// get is a GET with the backend's key, from the thread's own network namespace. It is HTTP/1.0, whose answers have no chunks: the beginning of
// one may stand in the middle of a figure.
func get(addr unix.SockaddrInet4, path string) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	patience := unix.Timeval{Sec: 5}
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience)
	if err := unix.Connect(fd, &addr); err != nil {
		return nil, err
	}
	if _, err := unix.Write(fd, fmt.Appendf(nil, "GET %s HTTP/1.0\r\nHost: drill\r\nAuthorization: Bearer %s\r\n\r\n", path, backendKey)); err != nil {
		return nil, err
	}
	var answer []byte
	for buf := make([]byte, 32<<10); ; {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return answer, nil
		}
		answer = append(answer, buf[:n]...)
	}
}

// metric is a figure of /metrics; ok is false where there is none.
func (s *server) metric(name string) (value float64, ok bool) {
	body, err := s.get("/metrics")
	if err != nil {
		return 0, false
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)`).FindSubmatch(body)
	if m == nil {
		return 0, false
	}
	value, err = strconv.ParseFloat(string(m[1]), 64)
	return value, err == nil
}

// fds is how many descriptors it has open.
func (s *server) fds() int {
	dir, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.pid))
	s.d.check(err)
	return len(dir)
}

// memory is a line of /proc/PID/status: VmRSS, or VmHWM, the most there was of it.
func (s *server) memory(line string) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	m := regexp.MustCompile(line + `:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		return 0
	}
	kb, _ := strconv.Atoi(string(m[1]))
	return kb << 10
}

// cpu is how many seconds it has worked.
func (s *server) cpu() (sum float64) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	words := strings.Fields(rest)
	if len(words) < 13 {
		return 0
	}
	for _, w := range words[11:13] { // utime and stime, in hundredths of a second
		ticks, _ := strconv.ParseFloat(w, 64)
		sum += ticks / 100
	}
	return sum
}

// flagged says whether this server knows a flag.
func (s *server) flagged(flag string) bool {
	out, _ := exec.Command(s.d.program, "serve", "--help").CombinedOutput()
	return bytes.Contains(out, []byte(flag))
}

// tail keeps the last of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if n := len(t.b) - 64<<10; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(b), nil
}

// String is its last lines.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b[max(0, len(t.b)-1000):]))
}
