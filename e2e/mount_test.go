package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Behind a proxy that strips nothing, all is below the base path.
func TestBasePath(t *testing.T) {
	t.Parallel()
	s := &server{addr: freeAddr(t), exited: make(chan struct{}), base: "/live"}
	s.cmd = exec.Command(program, "serve", "--listen", s.addr, "--base-path", "/live")
	s.run(t)
	dialRaw(t, s, "/live/ws", "").welcomed()
	dialRaw(t, s, "/live", "").welcomed()
	for path, status := range map[string]int{"/live/": 200, "/live": 200 /* by a redirect */, "/live/healthz": 200, "/healthz": 404, "/ws": 404, "/live/ws": 426} {
		res, err := http.Get(s.http(path))
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != status {
			t.Errorf("%s: %s, want %d", path, res.Status, status)
		}
		if status >= 400 {
			checkProblem(t, res)
		}
		res.Body.Close()
	}
	if log := s.log.String(); !strings.Contains(log, "/live/ws") {
		t.Errorf("the log does not say where to connect:\n%s", log)
	}
	p := openPage(t, &server{addr: s.addr + "/live"})
	p.shows("#count", "1 here")
}

// Clients that offer subprotocols want one of them chosen, or close.
func TestSubprotocolsOfForeignClients(t *testing.T) {
	t.Parallel()
	s := start(t, "--subprotocols", "json,chat")
	for name, command := range map[string][]string{"ws": {"node", "ws/client.js"}, "websockets": {python, "websockets_client.py"}} {
		cmd := exec.Command(command[0], append(command[1:], s.ws("/ws"))...)
		cmd.Env = append(os.Environ(), `SUBPROTOCOLS=["xml","chat","json"]`)
		c := drive(t, name, cmd)
		if e := c.expect("open"); e.Reason != "chat" {
			t.Errorf("%s has the subprotocol %q, want chat", name, e.Reason)
		}
		c.message("welcome")
	}
	p := openPage(t, s)
	p.until(fmt.Sprintf(`(window.other ??= new WebSocket(%q, ["xml", "chat"])).readyState === 1 && window.other.protocol === "chat"`, s.ws("/ws")))
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "hub")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	run := func() *server {
		s := &server{addr: "localhost", exited: make(chan struct{}), socket: path}
		s.cmd = exec.Command(program, "serve", "--listen", "unix:"+path)
		s.run(t)
		return s
	}
	s := run()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := &rawConn{t, conn, bufio.NewReader(conn)}
	c.write(upgrade(s, "/ws"))
	if res := c.response("GET"); res.StatusCode != 101 {
		t.Fatal(res.Status)
	}
	c.welcomed()
	conn.Close()
	if out, status := hubbub(t, nil, "serve", "--listen", "unix:"+path); status != 1 || !strings.Contains(out, "another process listens there") {
		t.Errorf("a second server: exit status %d\n%s", status, out)
	}
	if out, status := hubbub(t, nil, "config", "--listen", "unix:"+path); status != 0 {
		t.Errorf("the settings are fine: exit status %d\n%s", status, out)
	}
	if log := s.log.String(); !strings.Contains(log, "socket="+path) {
		t.Errorf("the log does not say where it listens:\n%s", log)
	}
	if status := s.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}

	// A killed one leaves it behind, and the next takes the place.
	killed := run()
	killed.stop(t, syscall.SIGKILL)
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	run()
}

// An expired certificate is used, and said to be.
func TestAnExpiredCertificateIsSaid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	oldCertificate(t, dir)
	flags := []string{"--tls-cert", dir + "/cert.pem", "--tls-key", dir + "/key.pem"}
	s := secureServer(t, dir)
	if log := s.log.String(); !strings.Contains(log, "level=WARN") || !strings.Contains(log, "the certificate is expired") {
		t.Errorf("the log does not say so:\n%s", log)
	}
	if out, status := hubbub(t, nil, append([]string{"config"}, flags...)...); status != 0 || !strings.Contains(out, "the certificate is expired") {
		t.Errorf("hubbub config: exit status %d\n%s", status, out)
	}
}

// /readyz is for balancers: a full server gets no more clients.
func TestAFullServerIsNotReady(t *testing.T) {
	eachIO(t, []string{"--max-connections", "1"}, func(t *testing.T, s *server) {
		c := dialRaw(t, s, "/ws", "")
		c.welcomed()
		res, err := http.Get(s.http("/readyz"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if b, _ := io.ReadAll(res.Body); res.StatusCode != 503 || !strings.Contains(string(b), "too many connections") || res.Header.Get("Retry-After") == "" ||
			res.Header.Get("Access-Control-Expose-Headers") != "Retry-After" {
			t.Errorf("%s %v %s", res.Status, res.Header, b)
		}
		c.write(closeFrame(1000, ""))
		c.expectClose(1000)
		c.expectEnd()
		for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			res, err := http.Get(s.http("/readyz"))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode == 200 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("it does not become ready again")
			}
		}
	})
}
