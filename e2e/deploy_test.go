package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/hubbub/internal/wsclient"
)

// The configurations of docs/deploy.md, run as they stand there with the real proxies, but for addresses and files.

// frontend is a running proxy.
type frontend struct {
	addr   string
	name   string       // whose certificate it has, with the port
	renew  func()       // gives it a new certificate, which it reads at a reload
	reload func() error // may not be done when it returns: see shows
	log    *syncBuffer
}

// deployed are the proxies of docs/deploy.md: the block's language, and how a program runs what is there.
var deployed = map[string]func(t *testing.T, f *frontend, dir, conf string) (run, again *exec.Cmd){
	"nginx": func(t *testing.T, f *frontend, dir, conf string) (run, again *exec.Cmd) {
		file := filepath.Join(dir, "nginx.conf")
		write(t, file, fmt.Sprintf("daemon off; pid %[1]s/pid; user root; worker_processes 1; events {}\nhttp {\naccess_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;\n%[2]s\n}\n", dir, conf))
		return exec.Command(inSbin("nginx"), "-e", "stderr", "-p", dir, "-c", file), exec.Command(inSbin("nginx"), "-e", "stderr", "-p", dir, "-c", file, "-s", "reload")
	},
	"haproxy": func(t *testing.T, f *frontend, dir, conf string) (run, again *exec.Cmd) {
		file := filepath.Join(dir, "haproxy.cfg")
		write(t, file, "global\n    maxconn 1000\n"+conf)
		return exec.Command(inSbin("haproxy"), "-W", "-db", "-f", file), nil // SIGUSR2 reloads
	},
	"caddyfile": func(t *testing.T, f *frontend, dir, conf string) (run, again *exec.Cmd) {
		file := filepath.Join(dir, "Caddyfile")
		admin := "unix/" + dir + "/admin.sock"
		write(t, file, "{\n\tadmin "+admin+"\n\tdefault_bind 127.0.0.1\n\tauto_https disable_redirects\n\tstorage file_system "+dir+"\n}\n"+conf)
		return exec.Command("caddy", "run", "--adapter", "caddyfile", "--config", file), exec.Command("caddy", "reload", "--force", "--adapter", "caddyfile", "--config", file, "--address", admin)
	},
	"apache": func(t *testing.T, f *frontend, dir, conf string) (run, again *exec.Cmd) {
		file := filepath.Join(dir, "apache.conf")
		var modules strings.Builder
		for _, m := range []string{"mpm_event", "authz_core", "proxy", "proxy_http", "headers", "ssl", "socache_shmcb"} {
			fmt.Fprintf(&modules, "LoadModule %[1]s_module /usr/lib/apache2/modules/mod_%[1]s.so\n", m)
		}
		_, port, _ := net.SplitHostPort(f.addr)
		write(t, file, modules.String()+fmt.Sprintf("ServerName localhost\nUser www-data\nGroup www-data\nListen 127.0.0.1:%s\nPidFile %[2]s/pid\nDefaultRuntimeDir %[2]s\nErrorLog /dev/stderr\n%[3]s", port, dir, conf))
		return exec.Command(inSbin("apache2"), "-D", "FOREGROUND", "-f", file), exec.Command(inSbin("apache2"), "-f", file, "-k", "graceful")
	},
}

// inSbin finds what Debian keeps where not everybody's PATH leads.
func inSbin(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return "/usr/sbin/" + name
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// block is a configuration of docs/deploy.md, by its language and its first line.
func block(t *testing.T, language, title string) string {
	t.Helper()
	b, err := os.ReadFile("../docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "```"+language+"\n# "+title+"\n")
	conf, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatalf("docs/deploy.md has no block of %s that begins with %q", language, title)
	}
	return conf
}

// deploy runs a configuration before a server, with these changes to it.
func deploy(t *testing.T, language, title, behind string, change ...string) *frontend {
	t.Helper()
	dir, err := os.MkdirTemp("", "hub")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cert, key := certificate(t, dir)
	f := &frontend{addr: freeAddr(t), log: &syncBuffer{}}
	_, port, _ := net.SplitHostPort(f.addr)
	f.name = "localhost:" + port
	conf := strings.NewReplacer(append(change, "127.0.0.1:8080", behind, "listen 443", "listen "+f.addr, "*:443", f.addr, "bind :443", "bind "+f.addr,
		"frontend chat.example.com", "frontend chat", "chat.example.com {", "https://"+f.name+" {", "chat.example.com", "localhost",
		"/etc/ssl/chat.pem", cert, "/etc/ssl/chat.key", key, "/etc/ssl/chat-with-key.pem", dir+"/both.pem")...).Replace(block(t, language, title))
	run, again := deployed[language](t, f, dir, conf)
	run.Stdout, run.Stderr, run.Dir = f.log, f.log, dir
	run.Env = append(os.Environ(), "HOME="+dir)
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := run.Start(); err != nil {
		t.Fatalf("%v (make deps installs it)", err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-run.Process.Pid, syscall.SIGKILL)
		_ = run.Wait()
		if t.Failed() {
			t.Logf("%s says:\n%s\nwith\n%s", language, f.log.String(), conf)
		}
	})
	f.renew = func() { certificate(t, dir) }
	f.reload = func() error {
		if again == nil {
			return run.Process.Signal(syscall.SIGUSR2)
		}
		again.Env = run.Env
		if out, err := again.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if nc, err := net.Dial("tcp", f.addr); err == nil {
			nc.Close()
			return f
		} else if time.Now().After(end) {
			t.Fatalf("%s doesn't listen: %v", language, err)
		}
	}
}

// certificate writes a new one for localhost, its key, and both in one file.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	cert, key = dir+"/cert.pem", dir+"/key.pem"
	if out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
		"-keyout", key, "-out", cert).CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	both, err := exec.Command("cat", cert, key).Output()
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/both.pem", string(both))
	return cert, key
}

// trusting are the settings of its clients.
func trusting() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"http/1.1"}}
}

// shows is the certificate that the proxy has now; "" while it doesn't answer.
func (f *frontend) shows() string {
	nc, err := tls.Dial("tcp", f.addr, trusting())
	if err != nil {
		return ""
	}
	defer nc.Close()
	return string(nc.ConnectionState().PeerCertificates[0].Raw)
}

// ask asks for a WebSocket by TLS, from an address of the loopback, as the front's own page does, with more header
// lines. The HTTP status comes back.
func (f *frontend) ask(t *testing.T, from, path string, lines ...string) (*rawConn, int) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		nc, err := d.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(patience))
		nc = tls.Client(nc, trusting())
		c := &rawConn{t, nc, bufio.NewReader(nc)}
		fmt.Fprint(nc, wsclient.Upgrade(f.name, path, append(lines, "Origin: https://"+f.name)...))
		res, err := http.ReadResponse(c.r, nil)
		if err == nil && (res.StatusCode < 502 || res.StatusCode > 504) {
			return c, res.StatusCode
		}
		if time.Now().After(end) {
			t.Fatalf("no answer: %v, %v", res, err)
		}
		nc.Close() // the proxy hasn't seen yet that the server is there
	}
}

// A page of the front's own connects, a client's address is its own whatever it says of itself, and limits hold by it.
func TestDeployedProxies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		language, title string
		path            string // of the WebSocket, from outside
		flags, change   []string
	}{
		{"nginx", "TLS here, all paths", "/ws", nil, nil},
		{"nginx", "TLS here, the prefix taken off", "/live/ws", nil, nil},
		{"nginx", "TLS here, all paths", "/live/ws", []string{"--base-path", "/live"}, []string{"location / ", "location /live/ "}},
		{"nginx", "TLS here, all paths", "/ws", nil, []string{"Host $http_host", "Host $host; proxy_set_header X-Forwarded-Host $http_host"}},
		{"haproxy", "TLS here, all paths", "/ws", nil, nil},
		{"haproxy", "TLS here, all paths", "/live/ws", nil, []string{"    option forwardfor", "    http-request replace-path /live(/.*) \\1\n    option forwardfor"}},
		{"haproxy", "TLS at hubbub, the PROXY protocol", "/ws", []string{"--proxy-protocol", "on"}, nil},
		{"caddyfile", "TLS here, all paths", "/ws", nil, nil},
		{"caddyfile", "TLS here, all paths", "/live/ws", nil, []string{"\treverse_proxy", "\thandle_path /live/* {\n\treverse_proxy", "-Forwarded\n\t}", "-Forwarded\n\t}\n\t}"}},
		{"caddyfile", "TLS here, all paths", "/live/ws", []string{"--base-path", "/live"}, nil},
		{"apache", "TLS here, all paths", "/ws", nil, nil},
	} {
		t.Run(fmt.Sprint(tt.language, " ", tt.title, tt.flags, tt.path), func(t *testing.T) {
			t.Parallel()
			s := deployServer(t, tt.flags...)
			f := deploy(t, tt.language, tt.title, s.addr, tt.change...)
			forged := []string{"X-Forwarded-For: 198.51.100.7", "Forwarded: for=198.51.100.7"}
			c, status := f.ask(t, "127.0.0.2", tt.path, forged...)
			if status != 101 {
				t.Fatalf("status %d\n%s", status, s.log.String())
			}
			c.welcomed()
			if _, status := f.ask(t, "127.0.0.2", tt.path, "X-Forwarded-For: 198.51.100.8", "Forwarded: for=198.51.100.8"); status != 429 {
				t.Errorf("the same client again: status %d\n%s", status, s.log.String())
			}
			s.says(t, "remote=127.0.0.2:")
			if c, status := f.ask(t, "127.0.0.3", tt.path, forged...); status != 101 {
				t.Errorf("another client: status %d\n%s", status, s.log.String())
			} else {
				c.welcomed()
			}
		})
	}
}

// says waits for a text in a server's log.
func (s *server) says(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(s.log.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("no %q in the log:\n%s", text, s.log.String())
			return
		}
	}
}

// deployServer is what docs/deploy.md wants behind a proxy, with one connection for each address.
func deployServer(t *testing.T, flags ...string) *server {
	t.Helper()
	s := &server{addr: freeAddr(t), exited: make(chan struct{})}
	flags = append([]string{"serve", "--listen", s.addr, "--trusted-proxies", "127.0.0.1", "--max-connections-per-ip", "1"}, flags...)
	for i, flag := range flags {
		switch flag {
		case "--base-path":
			s.base = flags[i+1]
		case "--proxy-protocol": // a probe of the test's own comes without a header, from an address that isn't trusted
			s.secure, s.from = true, "127.0.0.9"
			cert, key := certificate(t, t.TempDir())
			flags = append(flags, "--tls-cert", cert, "--tls-key", key)
		}
	}
	s.cmd = exec.Command(program, flags...)
	s.run(t)
	return s
}

// nginx as its own page about WebSockets has it, or with $host at another port, and Apache without ProxyPreserveHost:
// the page is refused, and the log says what to set.
func TestTheLogHelpsThroughAProxyThatChangesHost(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		language string
		change   []string
		path     string
		status   int
		says     []string
	}{
		"nginx without Host":    {"nginx", []string{"        proxy_set_header Host $http_host;\n", ""}, "/ws", 403, []string{"as another", "proxy_set_header Host $http_host;"}},
		"nginx with $host":      {"nginx", []string{"Host $http_host", "Host $host"}, "/ws", 403, []string{"without its port", "proxy_set_header Host $http_host;", "not $host"}},
		"Apache":                {"apache", []string{"    ProxyPreserveHost On\n", ""}, "/ws", 403, []string{"ProxyPreserveHost On"}},
		"a prefix that is kept": {"nginx", []string{"location / ", "location /live/ "}, "/live/ws", 404, []string{"--base-path=/live"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t) // Apache says X-Forwarded-Host by itself, which counts from a trusted proxy
			f := deploy(t, tt.language, "TLS here, all paths", s.addr, tt.change...)
			if _, status := f.ask(t, "127.0.0.2", tt.path); status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			for _, want := range tt.says {
				s.says(t, want)
			}
		})
	}
}
