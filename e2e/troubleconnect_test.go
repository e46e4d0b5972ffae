package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"example.com/hubbub/internal/wsclient"
)

// Symptoms of who can't connect, by the headings of docs/troubleshooting.md.
var cannotConnect = map[string]func(*mishap){
	"403: the page is of another origin": func(tr *mishap) {
		tr.start()
		tr.upgrade("/ws", "Origin: https://shop.example.com")
		tr.s.says(tr.t, "would_allow")
		would := regexp.MustCompile(`would_allow="?(--allowed-origins=[^"\s]+)`).FindStringSubmatch(tr.s.log.String())
		if would == nil {
			tr.t.Fatalf("the log names no flag:\n%s", tr.s.log.String())
		}
		(&mishap{t: tr.t, s: start(tr.t, would[1])}).works("/ws", "Origin: https://shop.example.com")
	},
	"426 or 400: the upgrade is lost on its way": func(tr *mishap) {
		tr.start()
		tr.request("GET /ws HTTP/1.1\r\nHost: " + tr.s.addr + "\r\nConnection: close\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		tr.request("GET /ws HTTP/1.1\r\nHost: " + tr.s.addr + "\r\nUpgrade: websocket\r\nConnection: close\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	},
	"431: the cookies are too large": func(tr *mishap) {
		tr.start()
		cookies := func(bytes int) string { return "Cookie: a=" + strings.Repeat("x", bytes) }
		if status, _ := tr.upgrade("/ws", cookies(60<<10)); status != http.StatusRequestHeaderFieldsTooLarge {
			tr.t.Errorf("it is answered %d", status)
		}
		tr.works("/ws", cookies(31<<10))
	},
	"404: the path is another": func(tr *mishap) {
		tr.start()
		tr.upgrade("/live/ws")
		s := &server{addr: freeAddr(tr.t), exited: make(chan struct{}), base: "/live"}
		s.cmd = exec.Command(program, "serve", "--listen", s.addr, "--base-path=/live")
		s.run(tr.t)
		(&mishap{t: tr.t, s: s}).works("/live/ws")
	},
	"401: no token, or one that doesn't count": func(tr *mishap) {
		tr.start("--jwt-key", stageKey)
		tr.upgrade("/ws")
		tr.upgrade("/ws?token=" + token(-time.Hour))
		tr.works("/ws?token=" + token(time.Hour))
	},
	"401 although the token is new": func(tr *mishap) {
		tr.start("--jwt-key", stageKey)
		hour := time.Now().Add(time.Hour)
		for _, claims := range []jwt.MapClaims{
			{"sub": "ann", "exp": hour.Add(time.Hour).Unix(), "nbf": hour.Unix()},
			{"sub": "ann", "exp": hour.UnixMilli()},
		} {
			signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(stageKey))
			if err != nil {
				tr.t.Fatal(err)
			}
			tr.upgrade("/ws?token=" + signed)
		}
	},
	"503: nobody can say who the client is": func(tr *mishap) {
		tr.start("--jwt-jwks", "http://"+freeAddr(tr.t)+"/keys", "--jwt-audience", "hubbub")
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			tr.t.Fatal(err)
		}
		signed, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"sub": "ann", "aud": "hubbub", "exp": time.Now().Add(time.Hour).Unix()}).SignedString(key)
		if err != nil {
			tr.t.Fatal(err)
		}
		tr.upgrade("/ws?token=" + signed)
	},
	"503: it is full": func(tr *mishap) {
		tr.start("--max-connections", "1")
		tr.enter()
		tr.upgrade("/ws")
		tr.get("/readyz")
	},
	"429: all have the proxy's address": func(tr *mishap) {
		flags := []string{"--max-connections-per-ip", "1"}
		tr.start(flags...)
		tr.enter()
		tr.upgrade("/ws", "X-Forwarded-For: 192.0.2.7")
		mended := &mishap{t: tr.t, s: start(tr.t, append(flags, "--trusted-proxies", "127.0.0.1")...)}
		mended.enter()
		mended.works("/ws", "X-Forwarded-For: 192.0.2.7")
	},
	"429: it connects too often": func(tr *mishap) {
		tr.start("--config", configFile(tr.t, "limits:\n  address:\n    connects: 1/h burst 1\n"))
		tr.enter()
		tr.upgrade("/ws")
	},
	"503: the server stops": func(tr *mishap) {
		tr.start("--shutdown-delay", "1h")
		tr.enter()
		if err := tr.s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			tr.t.Fatal(err)
		}
		tr.s.waitDraining(tr.t)
		tr.get("/readyz")
		tr.s.says(tr.t, "msg=\"stopping")
		tr.t.Cleanup(func() { _ = tr.s.cmd.Process.Signal(syscall.SIGTERM) }) // once more, and it ends
	},
	"503: the node is not in its cluster": func(tr *mishap) {
		addr, own := freeAddr(tr.t), freeAddrs(tr.t)
		tr.unready(exec.Command(program, "serve", "--listen", addr, "--data-dir", tr.t.TempDir(), "--cluster-listen", own, "--cluster-secret", stageKey,
			"--join", own+","+freeAddrs(tr.t)+","+freeAddrs(tr.t)), addr)
		tr.upgrade("/ws")
		tr.get("/readyz")
	},
	"503: more connect at once than can be let in": func(tr *mishap) {
		letGo := tr.stuckWorker()
		answers := make(chan struct{})
		for range 24 {
			c := connect(tr.t, tr.s)
			c.write(upgrade(tr.s, "/ws"))
			go func() {
				if res, err := http.ReadResponse(c.r, nil); err == nil && res.StatusCode == http.StatusServiceUnavailable {
					body, _ := io.ReadAll(res.Body)
					tr.see("HTTP/1.1 %s\nRetry-After: %s\n%s", res.Status, res.Header.Get("Retry-After"), body)
					answers <- struct{}{}
				}
			}()
		}
		for range 20 { // four of them wait for the worker
			<-answers
		}
		letGo()
	},
	"One worker is busy, and all that it owns waits": func(tr *mishap) {
		letGo := tr.stuckWorker()
		call := exec.Command("curl", "-sS", "--noproxy", "*", "-H", "Authorization: Bearer "+stageKey, "-d", `{"everyone":true,"content":1}`, tr.s.http("/api/v1/publish"))
		if err := call.Start(); err != nil {
			tr.t.Fatal(err)
		}
		tr.get("/healthz")
		tr.check(symptoms(tr.t)["One worker is busy, and all that it owns waits"]) // before it goes on
		letGo()
		if err := call.Wait(); err != nil {
			tr.t.Error(err)
		}
	},
	"No answer at all: out of descriptors": func(tr *mishap) {
		addr := freeAddr(tr.t)
		s := &server{addr: addr, exited: make(chan struct{})}
		s.cmd = exec.Command("bash", "-c", `ulimit -n 100 && exec "$@"`, "-", program, "serve", "--listen", addr, "--max-connections", "1000")
		s.run(tr.t)
		tr.s, tr.before = s, scrape(tr.t, s)
		for range 120 {
			c := connect(tr.t, s)
			c.write(upgrade(s, "/ws"))
		}
		s.says(tr.t, "out of file descriptors")
		c, err := tryDial(tr.t, s, "/ws")
		if err == nil {
			c.Close()
			tr.t.Fatal("one more was let in")
		}
		tr.see("%v", err)
	},
	"The certificate has expired": func(tr *mishap) {
		dir := tr.t.TempDir()
		pool := x509.NewCertPool()
		pool.AddCert(oldCertificate(tr.t, dir))
		tr.s = secureServer(tr.t, dir)
		_, err := tls.Dial("tcp", tr.s.addr, &tls.Config{RootCAs: pool, ServerName: "localhost"})
		tr.see("%v", err)
	},
	"A new certificate isn't taken": func(tr *mishap) {
		dir := tr.t.TempDir()
		certificate(tr.t, dir)
		tr.s = secureServer(tr.t, dir)
		write(tr.t, dir+"/cert.pem", "half of a file")
		for end := time.Now().Add(patience); !strings.Contains(tr.s.log.String(), "can't be used"); {
			nc, err := tls.Dial("tcp", tr.s.addr, trusting())
			if err != nil {
				tr.t.Fatal(err)
			}
			tr.see("the certificate is of %s", nc.ConnectionState().PeerCertificates[0].Subject)
			nc.Close()
			if time.Now().After(end) {
				tr.t.Fatal("the log says nothing")
			}
		}
	},
	"A proxy's connections end at once: the PROXY protocol": func(tr *mishap) {
		s := &server{addr: freeAddr(tr.t), exited: make(chan struct{}), from: "127.0.0.9"}
		s.cmd = exec.Command(program, "serve", "--listen", s.addr, "--proxy-protocol", "on", "--trusted-proxies", "127.0.0.1")
		s.run(tr.t)
		tr.s = s
		out, err := exec.Command("curl", "-sS", "--noproxy", "*", s.http("/readyz")).CombinedOutput()
		if err == nil {
			tr.t.Error("curl is served")
		}
		tr.see("%s", out)
		out, err = exec.Command("curl", "-sS", "--noproxy", "*", "--haproxy-protocol", s.http("/readyz")).CombinedOutput()
		if err != nil {
			tr.t.Errorf("with the header: %v %s", err, out)
		}
	},
	"The client closes at once: no subprotocol was chosen": func(tr *mishap) {
		tr.start("--log-level", "debug")
		cmd := exec.Command("node", "ws/client.js", tr.s.ws("/ws"))
		cmd.Env = append(os.Environ(), `SUBPROTOCOLS=["chat.v1"]`)
		e := drive(tr.t, "ws", cmd).next()
		tr.see("%+v", e)
	},
	"The address in the log is the proxy's": func(tr *mishap) {
		tr.start("--trusted-proxies", "127.0.0.1")
		tr.upgrade("/nothing", "X-Forwarded-For: 192.0.2.7", "Forwarded: for=198.51.100.1")
	},
	"503, or 1013 at once: the backend gives no answer": func(tr *mishap) {
		tr.start("--hook-url", "http://"+freeAddr(tr.t), "--hook-events", "connect", "--webhook-secret", hookSecret)
		tr.upgrade("/ws")
	},
}

// works says that what was mended is: an upgrade is let in.
func (tr *mishap) works(path string, lines ...string) {
	tr.t.Helper()
	c := connect(tr.t, tr.s)
	c.write(wsclient.Upgrade(tr.s.addr, path, lines...))
	if res := c.response("GET"); res.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(res.Body)
		tr.t.Errorf("what was to mend it doesn't: %s %s", res.Status, body)
	}
}

// buildBroken builds the program of that folder once.
var buildBroken = sync.OnceValues(func() (binary string, err error) {
	binary = filepath.Join(builds, "broken")
	args := append([]string{"build", "-o", binary}, strings.Fields(os.Getenv("HUBBUB_E2E_BUILDFLAGS"))...)
	out, err := exec.Command("go", append(args, "./broken")...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("building broken: %w\n%s", err, out)
	}
	return binary, err
})

// broken runs that program, which has the server in it and a fault of its own.
func (tr *mishap) broken(flags ...string) {
	tr.t.Helper()
	binary, err := buildBroken()
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.s = &server{addr: freeAddr(tr.t), exited: make(chan struct{}), broken: true}
	tr.s.cmd = exec.Command(binary, append([]string{"-listen", tr.s.addr, "-api-key", stageKey}, flags...)...)
	tr.s.run(tr.t)
	tr.before = scrape(tr.t, tr.s)
}

// stuckWorker runs a server whose one worker stands still.
func (tr *mishap) stuckWorker() (letGo func()) {
	tr.t.Helper()
	tr.broken()
	letGo = sync.OnceFunc(func() { _ = tr.s.cmd.Process.Signal(syscall.SIGUSR1) })
	tr.t.Cleanup(letGo)
	dialRaw(tr.t, tr.s, "/echo", "").write("\xff\x00") // no frame
	tr.s.says(tr.t, "a fault")
	return letGo
}

func secureServer(t *testing.T, dir string) *server {
	t.Helper()
	s := &server{addr: freeAddr(t), exited: make(chan struct{}), secure: true}
	s.cmd = exec.Command(program, "serve", "--listen", s.addr, "--tls-cert", dir+"/cert.pem", "--tls-key", dir+"/key.pem")
	s.run(t)
	return s
}

// oldCertificate writes one that was good until yesterday.
func oldCertificate(t *testing.T, dir string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		write(t, filepath.Join(dir, name), string(pem.EncodeToMemory(block)))
	}
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
