package conformance

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
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// The opening handshake (RFC 6455 4.2): what is refused and how, and bytes that come in odd packets.

// expectRefusal reads an answer that must be a problem (RFC 9457) with that status, and then the end of the stream.
func expectRefusal(c *rawtest.Client, method string, status int) http.Header {
	c.T.Helper()
	r := c.Response(method)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		c.T.Fatalf("read the body: %v", err)
	}
	if r.StatusCode != status {
		c.T.Fatalf("got %s %s, want %d", r.Status, body, status)
	}
	if !r.Close {
		c.T.Errorf("the header Connection is %q, without close", r.Header["Connection"])
	}
	if got := r.Header.Get("Content-Type"); got != "application/problem+json" {
		c.T.Errorf("the content is of the type %q", got)
	}
	if method != http.MethodHead {
		var p struct {
			Type, Title, Detail string
			Status              int
		}
		if err := json.Unmarshal(body, &p); err != nil {
			c.T.Errorf("the body %s: %v", body, err)
		}
		if p.Type == "" || p.Title == "" || p.Detail == "" || p.Status != status {
			c.T.Errorf("the problem lacks something: %s", body)
		}
	}
	c.ExpectEOF()
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
		{"two keys", "GET", "/ws", "HTTP/1.1", change{"Sec-WebSocket-Key": wsclient.Key + "\n" + wsclient.Key}, 400, [2]string{}},
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
			rawtest.EachIO(t, func(t *testing.T, io string) {
				s := rawtest.Start(t, hubbub.Config{IO: io})
				c := rawtest.Connect(t, s)
				head := rawtest.Request(s, tt.method, tt.target, tt.proto, tt.change)
				if tt.change["Content-Length"] != "" {
					head += "hello"
				}
				if tt.change["Transfer-Encoding"] != "" {
					head += "5\r\nhello\r\n0\r\n\r\n"
				}
				c.SendRaw([]byte(head))
				h := expectRefusal(c, tt.method, tt.status)
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
			rawtest.EachIO(t, func(t *testing.T, io string) {
				s := rawtest.Start(t, hubbub.Config{IO: io})
				c := rawtest.Connect(t, s)
				c.SendRaw([]byte(rawtest.Request(s, "GET", tt.target, "HTTP/1.1", tt.change)))
				c.ExpectUpgrade()
				if m := c.NextJSON(); m["msg_type"] != "welcome" {
					t.Errorf("got %v, want welcome", m)
				}
			})
		})
	}
}

func TestOrigins(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{AllowedOrigins: []string{"https://*.friend.example", "http://localhost:*"}})
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
			c := rawtest.Connect(t, s)
			change := map[string]string{"Host": tt.host}
			if tt.origin != "-" {
				change["Origin"] = tt.origin
			}
			c.SendRaw([]byte(rawtest.Request(s, "GET", "/echo", "HTTP/1.1", change)))
			if tt.status == http.StatusSwitchingProtocols {
				c.ExpectUpgrade()
				return
			}
			expectRefusal(c, "GET", tt.status)
		})
	}
	rawtest.Eventually(t, "the log names the setting that would allow it", func() bool {
		return strings.Contains(s.Log.String(), "--allowed-origins")
	})
}

// Frames may come with the handshake in one packet, cut anywhere.
func TestFramesInTheHandshakesPacket(t *testing.T) {
	frames := bytes.Join([][]byte{ping("early"), text(`{"msg_type":"ping","id":1}`), begin(`{"msg_type":"pi`), last(`ng","id":2}`)}, nil)
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		for _, path := range []string{"/ws", "/echo"} {
			head := rawtest.Upgrade(s, path)
			all := append([]byte(head), frames...)
			cuts := []int{len(all)}
			for cut := len(head) - 4; cut < len(all); cut++ {
				cuts = append(cuts, cut)
			}
			for _, cut := range cuts {
				c := rawtest.Connect(t, s)
				c.SendRaw(all[:cut])
				if cut < len(all) {
					c.SendRaw(all[cut:])
				}
				c.ExpectUpgrade()
				expectEarlyAnswers(c, path)
				c.CloseNow()
			}
		}
	})
}

func expectEarlyAnswers(c *rawtest.Client, path string) {
	c.T.Helper()
	if path == "/echo" {
		c.Expect(wsclient.Pong, []byte("early"))
		c.Expect(wsclient.Text, []byte(`{"msg_type":"ping","id":1}`))
		c.Expect(wsclient.Text, []byte(`{"msg_type":"ping","id":2}`))
		return
	}
	if m := c.NextJSON(); m["msg_type"] != "welcome" {
		c.T.Fatalf("got %v, want welcome first", m)
	}
	c.Expect(wsclient.Pong, []byte("early"))
	for id := 1.0; id <= 2; id++ {
		if m := c.NextJSON(); m["msg_type"] != "pong" || m["id"] != id {
			c.T.Fatalf("got %v, want the pong with the id %v", m, id)
		}
	}
}

func TestMuchInTheHandshakesPacket(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		c := rawtest.Connect(t, s)
		p := pattern(1000)
		c.SendRaw(append([]byte(rawtest.Upgrade(s, "/echo")), bytes.Repeat(rawtest.Frame(wsclient.Text, true, p), 100)...))
		c.ExpectUpgrade()
		for range 100 {
			c.Expect(wsclient.Text, p)
		}
	})
}

func TestHandshakeByteByByte(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		c := rawtest.Connect(t, s)
		c.SendChopped(append([]byte(rawtest.Upgrade(s, "/ws")), text(`{"msg_type":"ping","id":"slow"}`)...), 1)
		c.ExpectUpgrade()
		c.NextJSON()
		if m := c.NextJSON(); m["id"] != "slow" {
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
			s := rawtest.Start(t, hubbub.Config{HandshakeTimeout: patient})
			c := rawtest.Connect(t, s)
			c.SendRaw([]byte(tt.head))
			began := time.Now()
			for drip := time.NewTicker(10 * time.Millisecond); tt.drip != ""; <-drip.C {
				if c.TrySend([]byte(tt.drip)) != nil {
					break
				}
				if time.Since(began) > rawtest.Patience {
					t.Fatal("still open")
				}
			}
			_, err := io.ReadAll(c.R)
			if took := time.Since(began); took < patient/2 || took > rawtest.Patience {
				t.Errorf("closed after %s", took)
			}
			if err != nil && !rawtest.IsEndOrReset(err) {
				t.Errorf("the stream ended with %v", err)
			}
		})
	}
}

func TestHeadsThatAreTooLarge(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{})
	for name, extra := range map[string]string{
		"one long line": "A: " + strings.Repeat("a", 64<<10),
		"many lines":    strings.TrimSuffix(strings.Repeat("A: b\r\n", 16<<10), "\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			c := rawtest.Connect(t, s)
			go c.TrySend([]byte(rawtest.Upgrade(s, "/ws", extra)))
			if r := c.Response("GET"); r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
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
		"OPTIONS * HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", // which net/http answers by itself, as it does
		"POST /ws HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\nContent-Length: 10\r\n\r\n",
	} {
		line, _, _ := strings.Cut(first, " HTTP")
		t.Run(line, func(t *testing.T) {
			s := rawtest.Start(t, hubbub.Config{HandshakeTimeout: time.Hour})
			for range 300 { // more than may be on their way at once
				rawtest.Connect(t, s).SendRaw([]byte(first))
			}
			c := rawtest.Dial(t, s, "/echo")
			c.Quiet()
		})
	}
}
