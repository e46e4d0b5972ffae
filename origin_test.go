package hubbub_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"example.com/hubbub"
)

// Every pattern of AllowedOrigins either matches what a browser sends, or is refused with what to write instead.

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
			s := startServer(t, hubbub.Config{AllowedOrigins: []string{"https://other.example", tt.pattern}})
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
func statusFor(t *testing.T, s *testServer, origin string) int {
	t.Helper()
	c := connect(t, s)
	defer c.closeNow()
	c.sendRaw([]byte(request(s, "GET", "/echo", "HTTP/1.1", map[string]string{"Host": "chat.example", "Origin": origin})))
	return c.response("GET").StatusCode
}

func TestPatternsThatMatchNothingAreRefused(t *testing.T) {
	for _, tt := range []struct{ pattern, says string }{
		{"", "empty"},
		{"  ", "empty"},
		{`"https://a.example"`, "quotes are taken for a part of it: write https://a.example"},
		{"'https://a.example'", "write https://a.example"},
		{"“https://a.example”", "write https://a.example"},
		{"https://a.example https://b.example", "comma"},
		{"https://a.example;https://b.example", "comma"},
		{"a.example", "isn't of the form scheme://host: write https://a.example"},
		{"//a.example", "write https://a.example"},
		{"*.a.example", "write https://*.a.example"},
		{"localhost:3000", "write http://localhost:3000"},
		{"a.example/chat", "write https://a.example"},
		{"://a.example", "no scheme"},
		{"1s://a.example", "scheme"},
		{"https://", "no host"},
		{"https://:443", "no host"},
		{"https://a.example/", "path is no part of an origin: write https://a.example"},
		{"https://a.example/chat?x#y", "write https://a.example"},
		{"https://me@a.example", "write https://a.example"},
		{"https://me:secret@a.example/x", "write https://a.example"},
		{"https://a.example:", "port"},
		{"https://a.example:0", "port"},
		{"https://a.example:0443", "port"},
		{"https://a.example:65536", "port"},
		{"https://a.example:https", "port"},
		{"https://a.example:0*", "port"},
		{"https://a%2eexample", "can't be in a host"},
		{"https://a!.example", "can't be in a host"},
		{"https://*bücher.example", "write the whole word"},
		{"http://127.1:3000", "four numbers"},
		{"http://10.0.0.256", "four numbers"},
		{"http://10.0.*.256", "four numbers"},
		{"http://010.0.0.1", "four numbers"},
		{"http://0x7f.0.0.0x1", "four numbers"},
		{"http://a.b.1", "four numbers"},
		{"http://[::1", "IPv6"},
		{"https:a.example", "write https://a.example"},
		{"http:/a.example:80", "write http://a.example"},
		{"file:/home/me", "write file://"},
		{"http://[::g]", "IPv6"},
		{"http://[fe80::1%25eth0]", "IPv6"},
		{"file:///home/me/page.html", "write file://"},
		{"file://*", "write file://"},
		{"about:blank", "write null"},
		{"data://x", "write null"},
		{"https://" + strings.Repeat("ü", 10_000), "longer"},
	} {
		err := hubbub.Config{AllowedOrigins: []string{tt.pattern}}.Validate()
		switch {
		case err == nil:
			t.Errorf("%q is taken", tt.pattern)
			continue
		case !strings.Contains(err.Error(), "allowed-origins") || !strings.Contains(err.Error(), tt.says):
			t.Errorf("%q: no %q in: %v", tt.pattern, tt.says, err)
		}
		// What to write instead can be written.
		if write := regexp.MustCompile(`write (\S+://\S*|null)$`).FindStringSubmatch(err.Error()); write != nil {
			if err := (hubbub.Config{AllowedOrigins: []string{write[1]}}).Validate(); err != nil {
				t.Errorf("%q: the advice is refused too: %v", tt.pattern, err)
			}
		}
	}
}

// A page of another scheme is never the server's own, whatever its host is called.
func TestADesktopShellIsNotTheServersOwnPage(t *testing.T) {
	s := startServer(t, hubbub.Config{})
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
			s := startServer(t, hubbub.Config{})
			if got := statusFor(t, s, origin); got != http.StatusForbidden {
				t.Errorf("it gets %d", got)
			}
			eventually(t, "it is logged", func() bool { return strings.Contains(s.log.String(), "upgrade refused") })
			if log := s.log.String(); strings.Contains(log, "would_allow") || !strings.Contains(log, "level=WARN") {
				t.Errorf("%s", log)
			}
		})
	}
}
