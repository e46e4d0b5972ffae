package hubbub_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// Every pattern of AllowedOrigins that is taken matches what a browser sends.

func TestPatternsOfOrigins(t *testing.T) {
	for _, tt := range []struct {
		pattern   string
		lets, not []string // Origin headers
	}{
		{"https://a.example", []string{"https://a.example", "https://a.example:443", "HTTPS://A.Example"}, []string{"http://a.example", "https://a.example:8443", "https://b.example", "null", "file://"}},
		{" https://a.example\t", []string{"https://a.example"}, nil},
		{"HTTPS://A.example", []string{"https://a.example"}, nil},
		{"https://a.example:443", []string{"https://a.example", "https://a.example:443"}, []string{"http://a.example:443"}},
		{"http://a.example:80", []string{"http://a.example", "http://a.example:80"}, []string{"https://a.example", "https://a.example:80"}},
		{"https://a.example:8443", []string{"https://a.example:8443"}, []string{"https://a.example"}},
		{"wss://a.example", []string{"https://a.example"}, []string{"http://a.example"}},
		{"ws://a.example:3000", []string{"http://a.example:3000"}, []string{"https://a.example:3000"}},
		{"https://bücher.example", []string{"https://xn--bcher-kva.example"}, []string{"https://bucher.example"}},
		{"https://*.BÜCHER.example", []string{"https://www.xn--bcher-kva.example"}, []string{"https://xn--bcher-kva.example"}},
		{"https://faß.example", []string{"https://xn--fa-hia.example"}, []string{"https://fass.example"}},
		{"https://例え。テスト", []string{"https://xn--r8jz45g.xn--zckzah"}, nil},
		{"http://[0:0::1]:3000", []string{"http://[::1]:3000"}, []string{"http://[::1]"}},
		{"http://[::FFFF:10.0.0.1]", []string{"http://[::ffff:a00:1]"}, nil},
		{"http://10.0.0.*", []string{"http://10.0.0.7", "http://10.0.0.7:3000"}, []string{"http://10.0.1.7"}},
		{"http://localhost:*", []string{"http://localhost:3000", "http://localhost"}, []string{"https://localhost:3000", "http://localhost.evil.example:1"}},
		{"*://a.example", []string{"http://a.example", "https://a.example"}, []string{"https://a.example:8443"}},
		{"*://a.example:443", []string{"https://a.example", "http://a.example:443"}, []string{"http://a.example"}},
		{"*://a.*:443", []string{"https://a.example"}, []string{"https://a.example:8443", "http://a.example"}}, // the scheme's own port is that of an origin without one
		{"https://*.a.example", []string{"https://b.a.example", "https://c.b.a.example"}, []string{"https://a.example", "https://ba.example"}},
		{"https://a\u200b.example", []string{"https://a.example"}, nil}, // browsers leave it out too
		{"http://my_host", []string{"http://my_host"}, nil},
		// Pages without a host are let in by their very names alone.
		{"*", []string{"https://a.example", "http://b.example:3000", "tauri://localhost"}, []string{"null", "file://"}},
		{"*://*", []string{"https://a.example", "app://-"}, []string{"null", "file://"}},
		{"f*://*", []string{"foo://bar"}, []string{"file://"}},
		{"null", []string{"null"}, []string{"file://", "https://a.example", "https://null"}},
		{"file://", []string{"file://"}, []string{"null", "file:///", "file:///home", "https://a.example"}},
		{"tauri://localhost", []string{"tauri://localhost"}, []string{"http://localhost"}},
		{"chrome-extension://abcdefghijklmnop", []string{"chrome-extension://abcdefghijklmnop"}, []string{"chrome-extension://other"}},
	} {
		t.Run(tt.pattern, func(t *testing.T) {
			s := rawtest.Start(t, hubbub.Config{AllowedOrigins: []string{"https://other.example", tt.pattern}})
			for _, origin := range tt.lets {
				if got := statusFor(t, s, origin); got != http.StatusSwitchingProtocols {
					t.Errorf("%s gets %d", origin, got)
				}
			}
			for _, origin := range tt.not {
				if got := statusFor(t, s, origin); got != http.StatusForbidden {
					t.Errorf("%s gets %d, want 403", origin, got)
				}
			}
		})
	}
}

// statusFor is the answer to a handshake of a page of that origin.
func statusFor(t *testing.T, s *rawtest.Server, origin string) int {
	t.Helper()
	c := rawtest.Connect(t, s)
	defer c.CloseNow()
	c.SendRaw([]byte(rawtest.Request(s, "GET", "/echo", "HTTP/1.1", map[string]string{"Host": "chat.example", "Origin": origin})))
	return c.Response("GET").StatusCode
}

// A page of another scheme is never the server's own, whatever its host is called.
func TestADesktopShellIsNotTheServersOwnPage(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{})
	for _, origin := range []string{"tauri://chat.example", "capacitor://chat.example", "foo://chat.example:80"} {
		if got := statusFor(t, s, origin); got != http.StatusForbidden {
			t.Errorf("%s gets %d", origin, got)
		}
	}
}

// What no setting allows is logged as well, and without advice that would not help.
func TestAnOriginThatNothingAllowsIsLoggedWithoutAdvice(t *testing.T) {
	for _, origin := range []string{"http://a.example\nhttp://a.example", "http://me@a.example", "http://a.example/x", "http://*", "https://*.example", "http://a,http://b", "a.example", "http://127.1"} {
		t.Run(fmt.Sprintf("%q", origin), func(t *testing.T) {
			s := rawtest.Start(t, hubbub.Config{})
			if got := statusFor(t, s, origin); got != http.StatusForbidden {
				t.Errorf("it gets %d", got)
			}
			rawtest.Eventually(t, "it is logged", func() bool { return strings.Contains(s.Log.String(), "upgrade refused") })
			if log := s.Log.String(); strings.Contains(log, "would_allow") || !strings.Contains(log, "level=WARN") {
				t.Errorf("%s", log)
			}
		})
	}
}
