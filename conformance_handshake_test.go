package hubbub_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/wire"
)

// The opening handshake (RFC 6455 4.2): what is refused and how, and bytes that come in odd packets.

// request builds a head, of which a test changes some lines: an empty value takes a line out, values with "\n" between
// them give several.
func request(s *testServer, method, target, proto string, change map[string]string) string {
	lines := []struct{ name, value string }{
		{"Host", s.addr}, {"Upgrade", "websocket"}, {"Connection", "Upgrade"},
		{"Sec-WebSocket-Key", testKey}, {"Sec-WebSocket-Version", "13"},
	}
	head := method + " " + target + " " + proto + "\r\n"
	put := func(name, values string) {
		for v := range strings.SplitSeq(values, "\n") {
			head += name + ": " + v + "\r\n"
		}
	}
	used := map[string]bool{}
	for _, l := range lines {
		v, changed := change[l.name]
		used[l.name] = true
		switch {
		case !changed:
			put(l.name, l.value)
		case v != "":
			put(l.name, v)
		}
	}
	for name, v := range change {
		if !used[name] {
			put(name, v)
		}
	}
	return head + "\r\n"
}

// expectRefusal reads an answer that must be a problem (RFC 9457) with that status, and then the end of the stream.
func (c *rawClient) expectRefusal(method string, status int) http.Header {
	c.t.Helper()
	r := c.response(method)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Fatalf("read the body: %v", err)
	}
	if r.StatusCode != status {
		c.t.Fatalf("got %s %s, want %d", r.Status, body, status)
	}
	if !r.Close {
		c.t.Errorf("the header Connection is %q, without close", r.Header["Connection"])
	}
	if got := r.Header.Get("Content-Type"); got != "application/problem+json" {
		c.t.Errorf("the content is of the type %q", got)
	}
	if method != http.MethodHead {
		var p struct {
			Type, Title, Detail string
			Status              int
		}
		if err := json.Unmarshal(body, &p); err != nil {
			c.t.Errorf("the body %s: %v", body, err)
		}
		if p.Type == "" || p.Title == "" || p.Detail == "" || p.Status != status {
			c.t.Errorf("the problem lacks something: %s", body)
		}
	}
	c.expectEOF()
	return r.Header
}

func TestHandshakeFaults(t *testing.T) {
	type change = map[string]string
	for _, tt := range []struct {
		name   string
		method string
		target string
		proto  string
		change change
		status int
		header [2]string
	}{
		{"POST", "POST", "/ws", "HTTP/1.1", nil, 405, [2]string{"Allow", "GET"}},
		{"HEAD", "HEAD", "/ws", "HTTP/1.1", nil, 405, [2]string{"Allow", "GET"}},
		{"POST to the echo", "POST", "/echo", "HTTP/1.1", nil, 405, [2]string{"Allow", "GET"}},
		{"POST of an upgrade to /", "POST", "/", "HTTP/1.1", nil, 405, [2]string{"Allow", "GET"}},
		{"a method of its own", "BREW", "/ws", "HTTP/1.1", nil, 405, [2]string{"Allow", "GET"}},
		{"no upgrade", "GET", "/ws", "HTTP/1.1", change{"Upgrade": ""}, 426, [2]string{"Upgrade", "websocket"}},
		{"no upgrade to the echo", "GET", "/echo", "HTTP/1.1", change{"Upgrade": "", "Connection": ""}, 426, [2]string{"Upgrade", "websocket"}},
		{"another upgrade", "GET", "/ws", "HTTP/1.1", change{"Upgrade": "h2c"}, 426, [2]string{"Upgrade", "websocket"}},
		{"nearly the upgrade", "GET", "/ws", "HTTP/1.1", change{"Upgrade": "websockets"}, 426, [2]string{"Upgrade", "websocket"}},
		{"version 12", "GET", "/ws", "HTTP/1.1", change{"Sec-WebSocket-Version": "12"}, 426, [2]string{"Sec-WebSocket-Version", "13"}},
		{"version 8", "GET", "/echo", "HTTP/1.1", change{"Sec-WebSocket-Version": "8"}, 426, [2]string{"Sec-WebSocket-Version", "13"}},
		{"version 013", "GET", "/ws", "HTTP/1.1", change{"Sec-WebSocket-Version": "013"}, 426, [2]string{"Sec-WebSocket-Version", "13"}},
		{"no version", "GET", "/ws", "HTTP/1.1", change{"Sec-WebSocket-Version": ""}, 400, [2]string{}},
		{"two versions", "GET", "/ws", "HTTP/1.1", change{"Sec-WebSocket-Version": "13\n13"}, 400, [2]string{}},
		{"no key", "GET", "/ws", "HTTP/1.1", change{"Sec-WebSocket-Key": ""}, 400, [2]string{}},
		{"a short key", "GET", "/ws", "HTTP/1.1", change{"Sec-WebSocket-Key": "c2hvcnQ="}, 400, [2]string{}},
		{"a long key", "GET", "/ws", "HTTP/1.1", change{"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQAA"}, 400, [2]string{}},
		{"a key not in base64", "GET", "/ws", "HTTP/1.1", change{"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZ!=="}, 400, [2]string{}},
		{"two keys", "GET", "/ws", "HTTP/1.1", change{"Sec-WebSocket-Key": testKey + "\n" + testKey}, 400, [2]string{}},
		{"no Connection", "GET", "/ws", "HTTP/1.1", change{"Connection": ""}, 400, [2]string{}},
		{"Connection without the token", "GET", "/ws", "HTTP/1.1", change{"Connection": "keep-alive"}, 400, [2]string{}},
		{"Connection with nearly the token", "GET", "/ws", "HTTP/1.1", change{"Connection": "upgraded, re-upgrade"}, 400, [2]string{}},
		{"HTTP/1.0", "GET", "/ws", "HTTP/1.0", nil, 400, [2]string{}},
		{"a body by its length, which comes", "GET", "/ws", "HTTP/1.1", change{"Content-Length": "5"}, 400, [2]string{}},
		{"a body in chunks, which come", "GET", "/echo", "HTTP/1.1", change{"Transfer-Encoding": "chunked"}, 400, [2]string{}},
		{"another path", "GET", "/nothing", "HTTP/1.1", nil, 404, [2]string{}},
		{"a path below", "GET", "/ws/", "HTTP/1.1", nil, 404, [2]string{}},
		{"a path in capitals", "GET", "/WS", "HTTP/1.1", nil, 404, [2]string{}},
		{"health by POST", "POST", "/healthz", "HTTP/1.1", nil, 405, [2]string{"Allow", "GET, HEAD"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachIO(t, func(t *testing.T, io string) {
				s := startServer(t, hubbub.Config{IO: io})
				c := connect(t, s)
				head := request(s, tt.method, tt.target, tt.proto, tt.change)
				if tt.change["Content-Length"] != "" {
					head += "hello"
				}
				if tt.change["Transfer-Encoding"] != "" {
					head += "5\r\nhello\r\n0\r\n\r\n"
				}
				c.sendRaw([]byte(head))
				h := c.expectRefusal(tt.method, tt.status)
				if name := tt.header[0]; name != "" && h.Get(name) != tt.header[1] {
					t.Errorf("the header %s is %q, want %q", name, h.Get(name), tt.header[1])
				}
				if n := s.Connections(); n != 0 {
					t.Errorf("%d connections are counted", n)
				}
			})
		})
	}
}

func TestHandshakesThatAreFine(t *testing.T) {
	type change = map[string]string
	for _, tt := range []struct {
		name   string
		target string
		change change
	}{
		{"many tokens", "/ws", change{"Connection": "keep-alive, Upgrade"}},
		{"tokens in several lines", "/ws", change{"Connection": "keep-alive\nfoo ,\tUPGRADE ,bar"}},
		{"any letter case", "/ws", change{"Connection": "uPGRADE", "Upgrade": "WebSocket"}},
		{"one of several upgrades", "/ws", change{"Upgrade": "h2c, websocket"}},
		{"the bare address, as the simplest clients dial it", "/", nil},
		{"a query", "/ws?a=b", nil},
		{"a body of no bytes", "/ws", change{"Content-Length": "0"}},
		{"extensions and protocols that it does not know", "/ws", change{"Sec-WebSocket-Extensions": "x-foo; a=1, x-bar", "Sec-WebSocket-Protocol": "chat, superchat"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachIO(t, func(t *testing.T, io string) {
				s := startServer(t, hubbub.Config{IO: io})
				c := connect(t, s)
				c.sendRaw([]byte(request(s, "GET", tt.target, "HTTP/1.1", tt.change)))
				c.expectUpgrade()
				if m := c.nextJSON(); m["msg_type"] != "welcome" {
					t.Errorf("got %v, want welcome", m)
				}
			})
		})
	}
}

func TestOrigins(t *testing.T) {
	s := startServer(t, hubbub.Config{AllowedOrigins: []string{"https://*.friend.example", "http://localhost:*"}})
	for _, tt := range []struct {
		host, origin string // the Host; Origin lines, "-" for none
		status       int
	}{
		{"chat.example", "-", 101},
		{"chat.example", "http://chat.example", 101},
		{"chat.example", "https://chat.example", 101},
		{"chat.example:80", "http://chat.example", 101},
		{"chat.example", "http://chat.example:80", 101},
		{"chat.example:443", "https://chat.example", 101},
		{"chat.example", "https://chat.example:443", 101},
		{"Chat.Example", "HTTP://CHAT.example", 101},
		{"chat.example:8080", "http://chat.example:8080", 101},
		{"[::1]:8080", "http://[::1]:8080", 101},
		{"[::1]", "http://[::1]", 101},
		{"chat.example", "https://a.friend.example", 101},
		{"chat.example", "http://localhost:5173", 101},
		{"chat.example", "null", 403},
		{"chat.example", "", 403},
		{"chat.example", "http://chat.example\nhttp://chat.example", 403},
		{"chat.example", "http://chat.example http://evil.example", 403},
		{"chat.example", "http://chat.example, http://evil.example", 403},
		{"chat.example", "http://user@chat.example", 403},
		{"chat.example", "http://user:secret@chat.example", 403},
		{"chat.example", "http://evil.example@chat.example", 403},
		{"chat.example", "http://chat.example/", 403},
		{"chat.example", "http://chat.example/path", 403},
		{"chat.example", "http://chat.example?q", 403},
		{"chat.example", "http://chat.example#f", 403},
		{"chat.example", "chat.example", 403},
		{"chat.example", "//chat.example", 403},
		{"chat.example", "http://evil.example", 403},
		{"chat.example", "http://chat.example.evil.example", 403},
		{"chat.example", "http://evilchat.example", 403},
		{"chat.example", "http://chat.example:8080", 403},
		{"chat.example:8080", "http://chat.example", 403},
		{"chat.example:80", "https://chat.example", 403},
		{"chat.example", "http://a.friend.example", 403},
		{"chat.example", "https://friend.example", 403},
		{"chat.example", "https://localhost:5173", 403},
		{"chat.example", "file://", 403},
	} {
		t.Run(fmt.Sprintf("%s from %q", tt.host, tt.origin), func(t *testing.T) {
			c := connect(t, s)
			change := map[string]string{"Host": tt.host}
			if tt.origin != "-" {
				change["Origin"] = tt.origin
			}
			c.sendRaw([]byte(request(s, "GET", "/echo", "HTTP/1.1", change)))
			if tt.status == http.StatusSwitchingProtocols {
				c.expectUpgrade()
				return
			}
			c.expectRefusal("GET", tt.status)
		})
	}
	eventually(t, "the log names the setting that would allow it", func() bool {
		return strings.Contains(s.log.String(), "--allowed-origins")
	})
}

// Frames may come with the handshake in one packet, cut anywhere.
func TestFramesInTheHandshakesPacket(t *testing.T) {
	frames := bytes.Join([][]byte{ping("early"), text(`{"msg_type":"ping","id":1}`), begin(`{"msg_type":"pi`), last(`ng","id":2}`)}, nil)
	eachIO(t, func(t *testing.T, io string) {
		s := startServer(t, hubbub.Config{IO: io})
		for _, path := range []string{"/ws", "/echo"} {
			head := upgradeHead(s, path)
			all := append([]byte(head), frames...)
			cuts := []int{len(all)}
			for cut := len(head) - 4; cut < len(all); cut++ {
				cuts = append(cuts, cut)
			}
			for _, cut := range cuts {
				c := connect(t, s)
				c.sendRaw(all[:cut])
				if cut < len(all) {
					c.sendRaw(all[cut:])
				}
				c.expectUpgrade()
				c.expectEarlyAnswers(path)
				c.closeNow()
			}
		}
	})
}

func (c *rawClient) expectEarlyAnswers(path string) {
	c.t.Helper()
	if path == "/echo" {
		c.expect(wire.Pong, []byte("early"))
		c.expect(wire.Text, []byte(`{"msg_type":"ping","id":1}`))
		c.expect(wire.Text, []byte(`{"msg_type":"ping","id":2}`))
		return
	}
	if m := c.nextJSON(); m["msg_type"] != "welcome" {
		c.t.Fatalf("got %v, want welcome first", m)
	}
	c.expect(wire.Pong, []byte("early"))
	for id := 1.0; id <= 2; id++ {
		if m := c.nextJSON(); m["msg_type"] != "pong" || m["id"] != id {
			c.t.Fatalf("got %v, want the pong with the id %v", m, id)
		}
	}
}

func TestMuchInTheHandshakesPacket(t *testing.T) {
	eachIO(t, func(t *testing.T, io string) {
		s := startServer(t, hubbub.Config{IO: io})
		c := connect(t, s)
		p := pattern(1000)
		c.sendRaw(append([]byte(upgradeHead(s, "/echo")), bytes.Repeat(frame(wire.Text, true, p), 100)...))
		c.expectUpgrade()
		for range 100 {
			c.expect(wire.Text, p)
		}
	})
}

func TestHandshakeByteByByte(t *testing.T) {
	eachIO(t, func(t *testing.T, io string) {
		s := startServer(t, hubbub.Config{IO: io})
		c := connect(t, s)
		c.sendChopped(append([]byte(upgradeHead(s, "/ws")), text(`{"msg_type":"ping","id":"slow"}`)...), 1)
		c.expectUpgrade()
		c.nextJSON()
		if m := c.nextJSON(); m["id"] != "slow" {
			t.Errorf("got %v", m)
		}
	})
}

func TestHeadThatNeverEndsIsCutOff(t *testing.T) {
	const patient = 300 * time.Millisecond
	for _, tt := range []struct {
		name string
		head string
		drip string // goes on and on
	}{
		{"nothing", "", ""},
		{"half a line", "GET /ws HT", ""},
		{"all but the empty line", "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n", ""},
		{"slow headers", "GET /ws HTTP/1.1\r\nHost: x\r\n", "A: b\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startServer(t, hubbub.Config{HandshakeTimeout: patient})
			c := connect(t, s)
			c.sendRaw([]byte(tt.head))
			began := time.Now()
			for drip := time.NewTicker(10 * time.Millisecond); tt.drip != ""; <-drip.C {
				if c.trySend([]byte(tt.drip)) != nil {
					break
				}
				if time.Since(began) > patience {
					t.Fatal("still open")
				}
			}
			_, err := io.ReadAll(c.r)
			if took := time.Since(began); took < patient/2 || took > patience {
				t.Errorf("closed after %s", took)
			}
			if err != nil && !isEndOrReset(err) {
				t.Errorf("the stream ended with %v", err)
			}
		})
	}
}

func TestHeadsThatAreTooLarge(t *testing.T) {
	s := startServer(t, hubbub.Config{})
	for name, extra := range map[string]string{
		"one long line": "A: " + strings.Repeat("a", 64<<10),
		"many lines":    strings.TrimSuffix(strings.Repeat("A: b\r\n", 16<<10), "\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, s)
			go c.trySend([]byte(upgradeHead(s, "/ws", extra)))
			if r := c.response("GET"); r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("got %s", r.Status)
			}
		})
	}
}

// A request whose body never comes is no reason to keep its place among those that wait for their handshake.
func TestBodiesThatNeverComeHoldNobodyUp(t *testing.T) {
	for _, first := range []string{
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n",
		"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nContent-Length: 10\r\n\r\n",
		"GET /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
	} {
		line, _, _ := strings.Cut(first, " HTTP")
		t.Run(line, func(t *testing.T) {
			s := startServer(t, hubbub.Config{HandshakeTimeout: 500 * time.Millisecond})
			for range 300 { // more than may be on their way at once
				connect(t, s).sendRaw([]byte(first))
			}
			c := dial(t, s, "/echo")
			c.quiet()
		})
	}
}

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
			s := startServer(t, hubbub.Config{})
			c := connect(t, s)
			c.sendRaw([]byte(request(s, "GET", tt.target, tt.proto, tt.change)))
			r := c.response("GET")
			var p struct{ Detail string }
			if err := json.NewDecoder(r.Body).Decode(&p); err != nil || r.StatusCode != tt.status {
				t.Fatalf("%s %v", r.Status, err)
			}
			told := strings.Contains(p.Detail, "proxy") && strings.Contains(p.Detail, "proxy_set_header Upgrade $http_upgrade")
			if told != tt.says {
				t.Errorf("the detail: %s", p.Detail)
			}
			logged := func() bool {
				return strings.Contains(s.log.String(), "level=WARN") && strings.Contains(s.log.String(), "proxy_set_header")
			}
			if tt.says {
				eventually(t, "the log says so", logged)
			} else if logged() { // it comes before the answer
				t.Errorf("the log: %s", s.log.String())
			}
		})
	}
}

// The same for everybody at once is one line a second, and hides no other kind of refusal.
func TestRefusalsAreLoggedByTheirKind(t *testing.T) {
	s := startServer(t, hubbub.Config{})
	const each = 50
	began := time.Now()
	for range each {
		for _, change := range []map[string]string{{"Upgrade": ""}, {"Origin": "https://evil.example"}} {
			c := connect(t, s)
			c.sendRaw([]byte(request(s, "GET", "/ws", "HTTP/1.1", change)))
			c.response("GET")
			c.closeNow()
		}
	}
	log := s.log.String()
	if !strings.Contains(log, "proxy_set_header") || !strings.Contains(log, "would_allow") {
		t.Errorf("one kind hides the other:\n%s", log)
	}
	if n, most := strings.Count(log, "level=WARN"), 2*(1+int(time.Since(began)/time.Second)); n > most {
		t.Errorf("%d warnings of %d refusals, want %d at most", n, 2*each, most)
	}
}

// A page that may not connect learns why by a POST: of an upgrade a browser tells it nothing.
func TestAPostSaysWhyAPageIsRefused(t *testing.T) {
	full := startServer(t, hubbub.Config{MaxConnectionsPerIP: 1})
	for _, status := range []int{405, 429} {
		if r, body := knock(t, full, "POST", "/ws", map[string]string{"Upgrade": "", "Connection": "", "Content-Length": "0"}); r.StatusCode != status {
			t.Errorf("with %d connections: %s %s, want %d", full.Connections(), r.Status, body, status)
		}
		if status == 405 {
			dial(t, full, "/echo")
		}
	}
	s := startServer(t, hubbub.Config{})
	for origin, status := range map[string]int{"http://" + s.addr: 405, "https://evil.example": 403} {
		r, body := knock(t, s, "POST", "/ws", map[string]string{"Origin": origin, "Upgrade": "", "Connection": "", "Content-Length": "0"})
		if r.StatusCode != status {
			t.Errorf("%s gets %s %s", origin, r.Status, body)
		}
		if status == 403 && !strings.Contains(body, "evil.example") {
			t.Errorf("the detail does not name the origin: %s", body)
		}
	}
}
