package hubbub_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// proxyHeader is what a proxy sends first; client is host:port.
func proxyHeader(t testing.TB, version byte, client string) string {
	t.Helper()
	from, err := net.ResolveTCPAddr("tcp", client)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := proxyproto.HeaderProxyFromAddrs(version, from, from).WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// comeThrough dials, sends a header and asks for a WebSocket; the answer is nil where the server hangs up.
func comeThrough(t testing.TB, s *rawtest.Server, header, path string, secure bool, lines ...string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(s.Addr, "/") {
		network = "unix"
	}
	nc, err := net.Dial(network, s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(rawtest.Patience))
	io.WriteString(nc, header)
	if secure {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	}
	io.WriteString(nc, wsclient.Upgrade("chat.example", path, lines...))
	b := bufio.NewReader(nc)
	r, err := http.ReadResponse(b, nil)
	if err != nil {
		return nc, b, nil
	}
	return nc, b, r
}

// Clients come through with their addresses, by either version, below TLS too, and the loop takes their descriptors
// over: no goroutine stays for them.
func TestWhoComesByTheProxyProtocol(t *testing.T) {
	for _, name := range []string{"plain", "TLS"} {
		t.Run(name, func(t *testing.T) {
			cfg := hubbub.Config{TrustedProxies: []string{"127.0.0.1"}, ProxyProtocol: true, MaxConnectionsPerIP: 2}
			s := rawtest.StartOn(t, cfg, func(log *slog.Logger) (net.Listener, error) {
				if name == "plain" {
					return hubbub.Listen("127.0.0.1:0", nil)
				}
				cert, key := writeCertificate(t, t.TempDir(), "x")
				secure, err := hubbub.CertificateFiles(cert, key, log)
				if err != nil {
					return nil, err
				}
				return hubbub.Listen("127.0.0.1:0", secure)
			})
			before := runtime.NumGoroutine()
			const clients = 50
			for i := range clients {
				version, client := byte(1+i%2), "203.0.113.9:1234"
				switch i / 2 {
				case 0:
				case 1:
					client = "[2001:db8::9]:1234"
				default:
					client = fmt.Sprintf("203.0.113.%d:1", 10+i)
				}
				nc, b, r := comeThrough(t, s, proxyHeader(t, version, client), "/echo", name == "TLS")
				if r == nil || r.StatusCode != http.StatusSwitchingProtocols {
					t.Fatalf("%s by version %d: %v", client, version, r)
				}
				nc.Write(rawtest.Text(client))
				if _, p, err := rawtest.ReadFrame(b); err != nil || string(p) != client {
					t.Fatalf("%s: %s, %v", client, p, err)
				}
			}
			// What a client says itself is nothing: the header has told its address.
			for _, client := range []string{"203.0.113.9:1", "[2001:db8::77]:1"} {
				if _, _, r := comeThrough(t, s, proxyHeader(t, 2, client), "/ws", name == "TLS", "X-Forwarded-For: 198.51.100.1"); r == nil || r.StatusCode != http.StatusTooManyRequests {
					t.Errorf("a third one of %s: %v", client, r)
				}
			}
			if log := s.Log.String(); !strings.Contains(log, "remote=203.0.113.9:1 ") {
				t.Errorf("the log: %s", log)
			}
			if runtime.GOOS == "linux" {
				rawtest.Eventually(t, "the handshakes' goroutines end", func() bool { return runtime.NumGoroutine() <= before+4 })
			}
		})
	}
}

// A trusted proxy that sends no header, or a broken one, is refused and the log says so. Who isn't trusted gets what it
// would get without it: a header of its own is no HTTP.
func TestWithoutAHeaderATrustedProxyIsRefused(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{TrustedProxies: []string{"127.0.0.1"}, ProxyProtocol: true, HandshakeTimeout: 500 * time.Millisecond})
	for _, header := range []string{"", "PROXY TCP4 203.0.113.9\r\n", "\r\n\r\n\x00\r\nQUIT\n\x21\x41\x00\x00"} {
		if _, _, r := comeThrough(t, s, header, "/ws", false); r != nil && r.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %v", header, r)
		}
	}
	if log := s.Log.String(); !strings.Contains(log, "level=WARN") || !strings.Contains(log, "there is no header of the PROXY protocol") || !strings.Contains(log, "send-proxy-v2") {
		t.Errorf("the log: %s", log)
	}
	silent, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	silent.SetDeadline(time.Now().Add(rawtest.Patience))
	io.WriteString(silent, "PROXY TCP4 ")
	if _, err := io.ReadAll(silent); err != nil && !rawtest.IsEndOrReset(err) {
		t.Errorf("half a header: %v", err)
	}

	s = rawtest.Start(t, hubbub.Config{TrustedProxies: []string{"10.0.0.1"}, ProxyProtocol: true})
	if _, _, r := comeThrough(t, s, "", "/ws", false); r == nil || r.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("from elsewhere, without a header: %v", r)
	}
	if _, _, r := comeThrough(t, s, proxyHeader(t, 1, "203.0.113.9:1"), "/ws", false); r != nil && r.StatusCode != http.StatusBadRequest {
		t.Errorf("from elsewhere, with a header: %v", r)
	}
}

// The proxy's own requests are its own; a client whose address it doesn't know can't tell one itself.
func TestAClientThatTheProxyDoesNotKnow(t *testing.T) {
	dir, err := os.MkdirTemp("", "hub") // t.TempDir's is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, addr := range map[string]string{"TCP": "127.0.0.1:0", "a Unix socket": "unix:" + filepath.Join(dir, "s")} {
		t.Run(name, func(t *testing.T) {
			cfg := hubbub.Config{TrustedProxies: []string{"127.0.0.1", "unix"}, ProxyProtocol: true, MaxConnectionsPerIP: 1}
			s := rawtest.StartOn(t, cfg, func(*slog.Logger) (net.Listener, error) { return hubbub.Listen(addr, nil) })
			const unknown, local = "PROXY UNKNOWN\r\n", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
			for _, tt := range []struct {
				header, says string
				want         int
			}{
				{unknown, "X-Forwarded-For: 198.51.100.1", http.StatusSwitchingProtocols},
				{unknown, "X-Forwarded-For: 198.51.100.2", http.StatusTooManyRequests},
				{local, "X-Forwarded-For: 198.51.100.1", http.StatusSwitchingProtocols},
				{local, "X-Forwarded-For: 198.51.100.2", http.StatusSwitchingProtocols},
				{proxyHeader(t, 2, "203.0.113.9:1"), "X-Forwarded-For: 198.51.100.3", http.StatusSwitchingProtocols},
				{proxyHeader(t, 1, "203.0.113.9:2"), "X-Forwarded-For: 198.51.100.4", http.StatusTooManyRequests},
			} {
				if _, _, r := comeThrough(t, s, tt.header, "/ws", false, tt.says); r == nil || r.StatusCode != tt.want {
					t.Errorf("%q, %s: %v, want %d", tt.header, tt.says, r, tt.want)
				}
			}
			if log := s.Log.String(); !strings.Contains(log, "remote=unknown") {
				t.Errorf("the log: %s", log)
			}
		})
	}
}

func TestTheProxyProtocolNeedsTrustedProxies(t *testing.T) {
	if err := (hubbub.Config{ProxyProtocol: true}).Validate(); err == nil || !strings.Contains(err.Error(), "trusted-proxies") {
		t.Error(err)
	}
}
