package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what must come: so long that a busy machine is no reason to fail.
const patience = 3 * time.Minute

var (
	program string // the hubbub under test
	builds  string // a folder for what tests build once
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if missing := missingTools(); len(missing) > 0 {
		fmt.Fprintf(os.Stderr, "The end-to-end tests need what is missing here:\n  %s\nOn Debian as root `make deps` installs it.\n", strings.Join(missing, "\n  "))
		return 1
	}
	var err error
	if builds, err = os.MkdirTemp("", "hubbub-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(builds)
	defer func() {
		if shared.stop != nil {
			shared.stop()
		}
	}()
	if program = os.Getenv("HUBBUB_E2E_BINARY"); program != "" {
		return m.Run()
	}
	program = filepath.Join(builds, "hubbub")
	args := append([]string{"build", "-o", program}, strings.Fields(os.Getenv("HUBBUB_E2E_BUILDFLAGS"))...)
	if out, err := exec.Command("go", append(args, "../cmd/hubbub")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building hubbub: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func missingTools() (missing []string) {
	if _, err := exec.LookPath("node"); err != nil {
		missing = append(missing, "node (Debian: nodejs)")
	}
	for _, name := range []string{"ws", "axe-core"} {
		if _, err := os.Stat("ws/node_modules/" + name + "/package.json"); err != nil {
			missing = append(missing, "the npm package "+name+" (npm ci --prefix e2e/ws)")
		}
	}
	if _, err := os.Stat("pages/node_modules/.package-lock.json"); err != nil {
		missing = append(missing, "React, Vue and esbuild, for docs/recipes (npm ci --prefix e2e/pages)")
	}
	if _, err := os.Stat("../site/node_modules/vitepress/package.json"); err != nil {
		missing = append(missing, "what builds the site of the docs (npm ci --prefix site)")
	}
	if _, err := os.Stat("../js/node_modules/ws/package.json"); err != nil {
		missing = append(missing, "what tests the JavaScript client (npm ci --prefix js)")
	}
	if out, err := exec.Command(python, "-c", "import websockets").CombinedOutput(); err != nil {
		missing = append(missing, fmt.Sprintf("%s with websockets (Debian: python3-websockets): %v %s", python, err, bytes.TrimSpace(out)))
	}
	if _, err := exec.LookPath("php"); err != nil {
		missing = append(missing, "php, for docs/backends/php.md (Debian: php-cli)")
	}
	if _, err := findBrowser(); err != nil {
		missing = append(missing, err.Error())
	}
	if _, err := findFirefox(); err != nil {
		missing = append(missing, err.Error())
	}
	if _, err := exec.LookPath("systemd-socket-activate"); err != nil {
		missing = append(missing, "systemd-socket-activate (Debian: systemd)")
	}
	for _, name := range []string{"prometheus", "promtool"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name+", for deploy/prometheus (Debian: prometheus)")
		}
	}
	for _, name := range []string{"nginx", "haproxy", "caddy", "apache2"} {
		if _, err := exec.LookPath(inSbin(name)); err != nil {
			missing = append(missing, name+", a proxy (Debian: the same)")
		}
	}
	return missing
}

// server is one running hubbub.
type server struct {
	addr   string // host:port
	cmd    *exec.Cmd
	log    syncBuffer
	exited chan struct{}
	secure bool   // it was given a certificate
	base   string // its --base-path
	from   string // the probe's address, where it must be none that is trusted
	socket string // the path of its Unix socket, where it has no port
	broken bool   // it shall panic
	err    error  // of Wait, once exited is closed
}

// start runs `hubbub serve` on a free port until the test ends, with flags after the listening address, and waits until
// it is ready.
func start(t *testing.T, flags ...string) *server {
	t.Helper()
	return startAt(t, freeAddr(t), flags...)
}

func startAt(t *testing.T, addr string, flags ...string) *server {
	t.Helper()
	s := &server{addr: addr, exited: make(chan struct{})}
	s.cmd = exec.Command(program, append([]string{"serve", "--listen", addr}, flags...)...)
	s.run(t)
	return s
}

// run is begin, and waits until the server is ready.
func (s *server) run(t *testing.T) {
	t.Helper()
	s.begin(t)
	s.waitReady(t)
}

// begin starts s.cmd and sees to its end.
func (s *server) begin(t *testing.T) {
	t.Helper()
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.exited)
	}()
	t.Cleanup(func() { s.cleanup(t) })
}

// probe asks /readyz, with TLS where the server has it; its certificate is a test's own.
func (s *server) probe() (*http.Response, error) {
	path := s.base + "/readyz"
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	if s.from != "" {
		transport.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(s.from)}}).DialContext
	}
	if s.socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.socket)
		}
	}
	client := http.Client{Transport: transport}
	if s.secure {
		return client.Get("https://" + s.addr + path)
	}
	return client.Get(s.http(path))
}

func (s *server) waitReady(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		select {
		case <-s.exited:
			t.Fatalf("hubbub ended at its start: %v", s.err)
		default:
		}
		res, err := s.probe()
		if err != nil {
			continue
		}
		res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return
		}
	}
	t.Fatal("hubbub does not become ready")
}

func (s *server) cleanup(t *testing.T) {
	select {
	case <-s.exited:
	default:
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.exited:
		case <-time.After(2 * patience):
			_ = s.cmd.Process.Signal(syscall.SIGQUIT) // for the stacks in its log
			select {
			case <-s.exited:
			case <-time.After(patience):
				_ = s.cmd.Process.Kill()
				<-s.exited
			}
			t.Error("hubbub did not end after SIGTERM")
		}
	}
	log := s.log.String()
	for _, bad := range []string{"panic", "DATA RACE", "fatal error", "not back at zero"} {
		if strings.Contains(log, bad) && !(s.broken && bad == "panic") {
			t.Errorf("hubbub's log has %q", bad)
		}
	}
	if t.Failed() {
		t.Logf("hubbub's log:\n%s", log)
	}
}

// stop sends a signal and returns the exit status.
func (s *server) stop(t *testing.T, sig os.Signal) int {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	return s.exit(t)
}

// exit waits for the end and returns the exit status.
func (s *server) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-s.exited:
	case <-time.After(patience):
		t.Fatal("hubbub does not end")
	}
	var status *exec.ExitError
	if s.err != nil && !errors.As(s.err, &status) {
		t.Fatal(s.err)
	}
	return s.cmd.ProcessState.ExitCode()
}

func (s *server) ws(path string) string   { return "ws://" + s.addr + path }
func (s *server) http(path string) string { return "http://" + s.addr + path }

// hubbub runs a command that is expected to end by itself.
func hubbub(t *testing.T, env []string, args ...string) (out string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	b, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("hubbub %s does not end by itself", strings.Join(args, " "))
	}
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

var ports struct {
	sync.Mutex
	given map[string]bool
}

// freeAddr is an address on which nothing listens, and which no other test got; the kernel gives its port to nobody who
// doesn't ask for it, such as a client of another test, before the server has it.
func freeAddr(t *testing.T) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.given == nil {
		ports.given = map[string]bool{}
	}
	for range 1000 {
		addr := fmt.Sprint("127.0.0.1:", 24000+rand.IntN(8000))
		if !ports.given[addr] && isFree(addr) {
			ports.given[addr] = true
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

// waysOfIO are the values of --io that work here.
func waysOfIO() []string {
	if runtime.GOOS == "linux" {
		return []string{"epoll", "pump"}
	}
	return []string{"pump"}
}

// eachIO runs a story once for each way of I/O, on a server with these flags.
func eachIO(t *testing.T, flags []string, story func(t *testing.T, s *server)) {
	t.Parallel()
	for _, io := range waysOfIO() {
		t.Run(io, func(t *testing.T) {
			t.Parallel()
			story(t, start(t, append([]string{"--io", io}, flags...)...))
		})
	}
}

// eachClient runs a story once for each way of I/O and each foreign client, on a server of several workers, so that
// members of one room live on different ones.
func eachClient(t *testing.T, flags []string, story func(t *testing.T, s *server, dial dialer)) {
	eachIO(t, append([]string{"--workers", "3"}, flags...), func(t *testing.T, s *server) {
		for _, c := range []struct {
			name string
			dial dialer
		}{{"ws", dialWS}, {"websockets", dialPython}} {
			t.Run(c.name, func(t *testing.T) { story(t, s, c.dial) })
		}
	})
}

// syncBuffer may be read while a process writes to it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
