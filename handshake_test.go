package hubbub_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// What is said of handshakes that are refused, to people: the detail of the answer, and the log.

// Behind a proxy that drops the header Upgrade, or speaks HTTP/1.0, every client fails: the answer and the log say what
// to set there. Without a Sec-WebSocket-Key it was no WebSocket at all, and nobody is told.
func TestAProxyThatDropsTheUpgradeIsNamed(t *testing.T) {
	type change = map[string]string
	for _, tt := range []struct {
		name, target, proto string
		change              change
		status              int
		says                bool
	}{
		{"no Upgrade", "/ws", "HTTP/1.1", change{"Upgrade": "", "Connection": "close"}, 426, true},
		{"no Upgrade at the bare address", "/", "HTTP/1.1", change{"Upgrade": "", "Connection": ""}, 426, true},
		{"no Upgrade to the echo", "/echo", "HTTP/1.1", change{"Upgrade": "", "Connection": ""}, 426, true},
		{"another Upgrade", "/ws", "HTTP/1.1", change{"Upgrade": "h2c"}, 426, true},
		{"no Connection", "/ws", "HTTP/1.1", change{"Connection": "keep-alive"}, 400, true},
		{"HTTP/1.0", "/ws", "HTTP/1.0", nil, 400, true},
		{"a curious person", "/ws", "HTTP/1.1", change{"Upgrade": "", "Connection": "", "Sec-WebSocket-Key": "", "Sec-WebSocket-Version": ""}, 426, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := rawtest.Start(t, hubbub.Config{})
			c := rawtest.Connect(t, s)
			c.SendRaw([]byte(rawtest.Request(s, "GET", tt.target, tt.proto, tt.change)))
			r := c.Response("GET")
			var p struct{ Detail string }
			if err := json.NewDecoder(r.Body).Decode(&p); err != nil || r.StatusCode != tt.status {
				t.Fatalf("%s %v", r.Status, err)
			}
			told := strings.Contains(p.Detail, "proxy") && strings.Contains(p.Detail, "proxy_set_header Upgrade $http_upgrade")
			if told != tt.says {
				t.Errorf("the detail: %s", p.Detail)
			}
			logged := func() bool {
				return strings.Contains(s.Log.String(), "level=WARN") && strings.Contains(s.Log.String(), "proxy_set_header")
			}
			if tt.says {
				rawtest.Eventually(t, "the log says so", logged)
			} else if logged() { // it comes before the answer
				t.Errorf("the log: %s", s.Log.String())
			}
		})
	}
}

// The same for everybody at once is one line a second, and hides no other kind of refusal.
func TestRefusalsAreLoggedByTheirKind(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{})
	const each = 50
	began := time.Now()
	for range each {
		for _, change := range []map[string]string{{"Upgrade": ""}, {"Origin": "https://evil.example"}} {
			c := rawtest.Connect(t, s)
			c.SendRaw([]byte(rawtest.Request(s, "GET", "/ws", "HTTP/1.1", change)))
			c.Response("GET")
			c.CloseNow()
		}
	}
	log := s.Log.String()
	if !strings.Contains(log, "proxy_set_header") || !strings.Contains(log, "would_allow") {
		t.Errorf("one kind hides the other:\n%s", log)
	}
	if n, most := strings.Count(log, "level=WARN"), 2*(1+int(time.Since(began)/time.Second)); n > most {
		t.Errorf("%d warnings of %d refusals, want %d at most", n, 2*each, most)
	}
}

// A page that may not connect learns why by a POST: of an upgrade a browser tells it nothing.
func TestAPostSaysWhyAPageIsRefused(t *testing.T) {
	full := rawtest.Start(t, hubbub.Config{MaxConnectionsPerIP: 1})
	for _, status := range []int{405, 429} {
		if r, body := knock(t, full, "POST", "/ws", map[string]string{"Upgrade": "", "Connection": "", "Content-Length": "0"}); r.StatusCode != status {
			t.Errorf("with %d connections: %s %s, want %d", full.Connections(), r.Status, body, status)
		}
		if status == 405 {
			rawtest.Dial(t, full, "/echo")
		}
	}
	s := rawtest.Start(t, hubbub.Config{})
	for origin, status := range map[string]int{"http://" + s.Addr: 405, "https://evil.example": 403} {
		r, body := knock(t, s, "POST", "/ws", map[string]string{"Origin": origin, "Upgrade": "", "Connection": "", "Content-Length": "0"})
		if r.StatusCode != status {
			t.Errorf("%s gets %s %s", origin, r.Status, body)
		}
		if status == 403 && !strings.Contains(body, "evil.example") {
			t.Errorf("the detail does not name the origin: %s", body)
		}
	}
}
