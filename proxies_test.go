package hubbub_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// ring asks for a WebSocket with these header lines, and gives the connection and the answer's status. What else comes
// is thrown away.
func ring(t *testing.T, s *rawtest.Server, lines ...string) (net.Conn, int) {
	t.Helper()
	nc, b, r := comeThrough(t, s, "", "/ws", false, lines...)
	if r == nil {
		t.Fatal("the server hung up")
	}
	go io.Copy(io.Discard, b)
	return nc, r.StatusCode
}

// What a trusted proxy says is the client's address everywhere.
func TestTheClientsAddressIsTheOneThatATrustedProxyTells(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, way string) {
		told := make(chan string, 10)
		s := rawtest.Start(t, hubbub.Config{
			IO: way, TrustedProxies: []string{"127.0.0.0/8"}, MaxConnectionsPerIP: 1,
			Hooks: hubbub.Hooks{Connect: func(_ context.Context, c *hubbub.Connect) error { told <- c.Request.RemoteAddr; return nil }},
		})
		nc, status := ring(t, s, "X-Forwarded-For: 198.51.100.1, 203.0.113.9")
		if status != http.StatusSwitchingProtocols {
			t.Fatalf("status %d", status)
		}
		if got := <-told; got != "203.0.113.9:0" {
			t.Errorf("the hook is told %s", got)
		}
		if _, status := ring(t, s, "X-Forwarded-For: 203.0.113.9"); status != http.StatusTooManyRequests {
			t.Errorf("the same client again: %d", status)
		}
		if _, status := ring(t, s, `Forwarded: for="203.0.113.10:77"`); status != http.StatusSwitchingProtocols {
			t.Errorf("another client: %d", status)
		}
		rawtest.Eventually(t, "the refusal's line has the client's address", func() bool {
			return strings.Contains(s.Log.String(), "too many connections from this address\" remote=203.0.113.9:0")
		})
		nc.Write([]byte{0xff, 0x00}) // no frame: the loop's line names the client too
		rawtest.Eventually(t, "the loop's line has it too", func() bool {
			for line := range strings.Lines(s.Log.String()) {
				if strings.Contains(line, "connection failed") {
					return strings.Contains(line, "remote=203.0.113.9:0")
				}
			}
			return false
		})
	})
}

// Nobody else is listened to, and where two headers contradict each other the log says what to do.
func TestOnlyTrustedProxiesTellAddresses(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{TrustedProxies: []string{"10.0.0.0/8", "unix"}, MaxConnectionsPerIP: 1})
	if _, status := ring(t, s, "X-Forwarded-For: 203.0.113.9"); status != http.StatusSwitchingProtocols {
		t.Errorf("status %d", status)
	}
	if _, status := ring(t, s, "X-Forwarded-For: 203.0.113.10"); status != http.StatusTooManyRequests {
		t.Errorf("with another made-up address: %d", status)
	}
	s = rawtest.Start(t, hubbub.Config{TrustedProxies: []string{"127.0.0.1"}, MaxConnectionsPerIP: 1})
	if _, status := ring(t, s, "X-Forwarded-For: 203.0.113.9", "Forwarded: for=198.51.100.1"); status != http.StatusSwitchingProtocols {
		t.Errorf("status %d", status)
	}
	if _, status := ring(t, s, "X-Forwarded-For: 203.0.113.9", "Forwarded: for=198.51.100.2"); status != http.StatusTooManyRequests {
		t.Errorf("with another made-up address beside the proxy's: %d", status)
	}
	if log := s.Log.String(); !strings.Contains(log, "name different clients") || !strings.Contains(log, "proxy=127.0.0.1:") {
		t.Errorf("the log: %s", log)
	}
}

func TestAProxyBehindAUnixSocketTellsAddresses(t *testing.T) {
	dir, err := os.MkdirTemp("", "hub") // t.TempDir's is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := rawtest.StartOn(t, hubbub.Config{TrustedProxies: []string{"unix"}, MaxConnectionsPerIP: 1}, func(*slog.Logger) (net.Listener, error) {
		return hubbub.Listen("unix:"+filepath.Join(dir, "s"), nil)
	})
	for client, want := range map[string]int{"203.0.113.9": http.StatusSwitchingProtocols, "203.0.113.10": http.StatusSwitchingProtocols} {
		if _, status := ring(t, s, "X-Forwarded-For: "+client); status != want {
			t.Errorf("%s: %d", client, status)
		}
	}
	if _, status := ring(t, s, "X-Forwarded-For: 203.0.113.10"); status != http.StatusTooManyRequests {
		t.Errorf("the second one again: %d", status)
	}
}

// A proxy that changes Host may say in X-Forwarded-Host what it was; a refusal says what to set in the proxy.
func TestThePagesOriginBehindAProxyThatChangesHost(t *testing.T) {
	const origin = "Origin: https://app.example:8443"
	for _, tt := range []struct {
		name    string
		trusted bool
		lines   []string
		want    int
		says    string
	}{
		{"trusted", true, []string{"X-Forwarded-Host: app.example:8443"}, http.StatusSwitchingProtocols, ""},
		{"not trusted", false, []string{"X-Forwarded-Host: app.example:8443"}, http.StatusForbidden, "as another"},
		{"another host", true, []string{"X-Forwarded-Host: evil.example:8443"}, http.StatusForbidden, "as another"},
		{"two", true, []string{"X-Forwarded-Host: app.example:8443, chat.example"}, http.StatusForbidden, "as another"},
		{"two lines", true, []string{"X-Forwarded-Host: app.example:8443", "X-Forwarded-Host: app.example:8443"}, http.StatusForbidden, "as another"},
		{"an empty one", true, []string{"X-Forwarded-Host: "}, http.StatusForbidden, "as another"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := hubbub.Config{}
			if tt.trusted {
				cfg.TrustedProxies = []string{"127.0.0.1"}
			}
			s := rawtest.Start(t, cfg)
			if _, status := ring(t, s, append(tt.lines, origin)...); status != tt.want {
				t.Errorf("status %d", status)
			}
			if tt.says == "" {
				return
			}
			log := s.Log.String() // written before the answer
			for _, want := range []string{"--allowed-origins=https://app.example:8443", tt.says, "proxy_set_header Host $http_host;", "ProxyPreserveHost On"} {
				if !strings.Contains(log, want) {
					t.Errorf("no %q in the log: %s", want, log)
				}
			}
		})
	}
	s := rawtest.Start(t, hubbub.Config{})
	ring(t, s, "Origin: https://chat.example:8443")
	if log := s.Log.String(); !strings.Contains(log, "without its port") || !strings.Contains(log, "not $host") {
		t.Errorf("the log: %s", log)
	}
}
