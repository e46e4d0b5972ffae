package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// With one processor, a worker that has work without end must still let requests, handshakes and the collector have
// their share. The times that are allowed are far from what is usual (milliseconds): what must not be is starving.
func TestOneProcessorUnderFullFanOut(t *testing.T) {
	for _, way := range waysOfIO() {
		t.Run(way, func(t *testing.T) {
			addr := freeAddr(t)
			s := &server{addr: addr, exited: make(chan struct{})}
			s.cmd = exec.Command(program, "serve", "--listen", addr, "--io", way)
			s.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
			s.run(t)

			var delivered atomic.Int64
			const members, window = 200, 32
			for range members {
				c := dialRaw(t, s, "/ws", text(`{"msg_type":"join_room","room":"r"}`))
				go func() {
					buf := make([]byte, 64<<10)
					for {
						n, err := c.r.Read(buf)
						delivered.Add(int64(n))
						if err != nil {
							return
						}
					}
				}()
			}
			publisher := dialRaw(t, s, "/ws", "")
			publisher.welcomed()
			stop := make(chan struct{})
			flooded := make(chan error, 1)
			go func() { // window publishes are always outstanding
				burst := strings.Repeat(text(`{"msg_type":"room_message","room":"r","content":"`+strings.Repeat("x", 100)+`"}`), window)
				for {
					select {
					case <-stop:
						flooded <- nil
						return
					default:
					}
					if _, err := io.WriteString(publisher, burst+text(`{"msg_type":"ping"}`)); err != nil {
						flooded <- err
						return
					}
					if _, _, err := publisher.read(); err != nil {
						flooded <- err
						return
					}
				}
			}()
			before := delivered.Load()
			var slowest time.Duration
			for i := range 20 {
				for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
					began := time.Now()
					client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
					res, err := client.Get(s.http(path))
					if err != nil {
						t.Fatalf("%s, round %d: %v", path, i, err)
					}
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
					slowest = max(slowest, time.Since(began))
				}
				began := time.Now()
				dialRaw(t, s, "/ws", "").welcomed()
				slowest = max(slowest, time.Since(began))
			}
			t.Logf("%d MB delivered meanwhile; the slowest request took %s", (delivered.Load()-before)>>20, slowest)
			if delivered.Load() == before {
				t.Error("nothing was delivered meanwhile: there was no load")
			}
			close(stop)
			if err := <-flooded; err != nil {
				t.Errorf("the publisher: %v", err)
			}
		})
	}
}

// net/http leaves some 11 KB of garbage for each handshake; a second after connects fall quiet it must be given back.
func TestMemoryComesDownAfterABurstOfConnects(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("reads /proc")
		return
	}
	s := start(t, "--max-connections", "6000")
	limit := 4 << 10
	if strings.Contains(os.Getenv("HUBBUB_E2E_BUILDFLAGS"), "-race") {
		limit = 16 << 10 // the race detector keeps a shadow of the memory, and gives none back
	}
	before := rss(t, s)
	const n = 5000
	for range n {
		dialRaw(t, s, "/ws", "")
	}
	var each int
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if each = (rss(t, s) - before) / n; each < limit {
			return
		}
	}
	t.Errorf("%d bytes a connection are still resident", each)
}

// rss is the resident memory of a server, in bytes.
func rss(t *testing.T, s *server) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib int
	if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// crypto/tls has no renegotiation for servers; a client that asks for one by hand is cut off.
func TestRenegotiationIsRefused(t *testing.T) {
	t.Parallel()
	c := secureClient(t, "-tls1_2")
	c.write("R\n")
	c.cmd.Wait() // the alert ends it
	if out := c.says.String(); c.ctx.Err() != nil || !strings.Contains(out, "RENEGOTIATING") || !strings.Contains(out, "alert") {
		t.Errorf("s_client says\n%s", out)
	}
}

// A client may change its key at any time, and ask the server to do so (RFC 8446, 4.6.3).
func TestKeysAreUpdated(t *testing.T) {
	t.Parallel()
	c := secureClient(t, "-tls1_3", "-crlf")
	c.write("GET /echo HTTP/1.1\nhost: localhost\nupgrade: websocket\nconnection: upgrade\nsec-websocket-version: 13\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\n\n")
	c.waitFor("101 Switching Protocols", 1)
	echo := func(word string) {
		c.write("\x81" + string([]byte{0x80 | byte(len(word))}) + "\x00\x00\x00\x00" + word)
		c.waitFor("\x81"+string([]byte{byte(len(word))})+word, 1)
	}
	echo("before")
	for i := range 5 {
		c.write("k\n") // its own
		c.waitFor("KEYUPDATE", 2*i+1)
		echo(fmt.Sprint("own", i))
		c.write("K\n") // both
		c.waitFor("KEYUPDATE", 2*i+2)
		echo(fmt.Sprint("both", i))
	}
}

// opensslClient is openssl s_client, which takes lines of one letter as commands.
type opensslClient struct {
	t    *testing.T
	ctx  context.Context
	cmd  *exec.Cmd
	in   io.Writer
	says syncBuffer
}

// secureClient is one that is connected to a server of its own.
func secureClient(t *testing.T, flags ...string) *opensslClient {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
		"-subj", "/CN=localhost", "-keyout", dir+"/key.pem", "-out", dir+"/cert.pem").CombinedOutput()
	if err != nil {
		t.Fatalf("openssl (Debian: openssl): %v %s", err, out)
	}
	addr := freeAddr(t)
	s := &server{addr: addr, exited: make(chan struct{}), secure: true}
	s.cmd = exec.Command(program, "serve", "--listen", addr, "--tls-cert", dir+"/cert.pem", "--tls-key", dir+"/key.pem")
	s.run(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c := &opensslClient{t: t, ctx: ctx}
	c.cmd = exec.CommandContext(ctx, "openssl", append([]string{"s_client", "-connect", addr}, flags...)...)
	c.cmd.Stdout, c.cmd.Stderr = &c.says, &c.says
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		c.cmd.Wait()
	})
	c.waitFor("Verify return code", 1) // it takes letters as commands only once it is connected
	return c
}

func (c *opensslClient) write(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, s); err != nil {
		c.t.Fatal(err)
	}
}

// waitFor waits until it has said text so often.
func (c *opensslClient) waitFor(text string, times int) {
	c.t.Helper()
	for strings.Count(c.says.String(), text) < times {
		if c.ctx.Err() != nil {
			c.t.Fatalf("s_client says\n%q\nwithout %q", c.says.String(), text)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
