package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestHandshakeFaultsHaveTheirStatus(t *testing.T) {
	const key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	const good = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" + key
	eachIO(t, nil, func(t *testing.T, s *server) {
		_, port, _ := strings.Cut(s.addr, ":")
		for _, c := range []struct {
			name, line, headers string
			status              int
			header, value       string // of the answer
		}{
			{"no upgrade", "GET /ws", "", 426, "Upgrade", "websocket"},
			{"no upgrade on the echo", "GET /echo", "", 426, "Upgrade", "websocket"},
			{"wrong version", "GET /ws", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\n" + key, 426, "Sec-WebSocket-Version", "13"},
			{"POST", "POST /ws", "Content-Length: 0\r\n" + good, 405, "", ""},
			{"PUT on the echo", "PUT /echo", "Content-Length: 0\r\n" + good, 405, "", ""},
			{"no key", "GET /ws", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n", 400, "", ""},
			{"key of 15 bytes", "GET /ws", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n", 400, "", ""},
			{"key that is not base64", "GET /ws", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: !!!!IHNhbXBsZSBub25jZQ==\r\n", 400, "", ""},
			{"two keys", "GET /ws", good + key, 400, "", ""},
			{"a body by its length", "GET /ws", "Content-Length: 2\r\n" + good + "\r\nhi", 400, "", ""},
			{"a body in chunks", "GET /ws", "Transfer-Encoding: chunked\r\n" + good + "\r\n0\r\n", 400, "", ""},
			{"another host's page", "GET /ws", "Origin: http://evil.example\r\n" + good, 403, "", ""},
			{"another port's page", "GET /ws", "Origin: http://127.0.0.1:1\r\n" + good, 403, "", ""},
			{"no port is port 80", "GET /ws", "Origin: http://127.0.0.1\r\n" + good, 403, "", ""},
			{"origin null", "GET /ws", "Origin: null\r\n" + good, 403, "", ""},
			{"two origins", "GET /ws", "Origin: http://" + s.addr + "\r\nOrigin: http://" + s.addr + "\r\n" + good, 403, "", ""},
			{"origin with user info", "GET /ws", "Origin: http://a@" + s.addr + "\r\n" + good, 403, "", ""},
			{"origin with a path", "GET /ws", "Origin: http://" + s.addr + "/x\r\n" + good, 403, "", ""},
			{"other origin on the echo", "GET /echo", "Origin: http://evil.example\r\n" + good, 403, "", ""},
			{"other origin at the bare address", "GET /", "Origin: http://evil.example\r\n" + good, 403, "", ""},
		} {
			t.Run(c.name, func(t *testing.T) {
				conn := connect(t, s)
				conn.write(c.line + " HTTP/1.1\r\nHost: " + s.addr + "\r\n" + c.headers + "\r\n")
				res := conn.response("GET")
				if res.StatusCode != c.status {
					t.Fatalf("%s, want %d", res.Status, c.status)
				}
				if c.header != "" && res.Header.Get(c.header) != c.value {
					t.Errorf("%s: %q, want %q", c.header, res.Header.Get(c.header), c.value)
				}
				if !res.Close {
					t.Error("the refusal does not say Connection: close")
				}
				checkProblem(t, res)
			})
		}
		// The refusal of an origin is logged with the flag that would allow it.
		if log := s.log.String(); !strings.Contains(log, "--allowed-origins") || !strings.Contains(log, "evil.example") {
			t.Errorf("the log does not say how to allow http://evil.example")
		}

		for name, headers := range map[string]string{
			"no origin":           good,
			"the own page":        "Origin: http://" + s.addr + "\r\n" + good,
			"letter case is free": "upgrade: WebSocket\r\nCONNECTION: keep-alive, upgrade\r\nsec-websocket-version: 13\r\n" + key,
			"protocols on offer":  "Sec-WebSocket-Protocol: a, b\r\n" + good,
			"extensions on offer": "Sec-WebSocket-Extensions: x-unknown; a=1\r\n" + good,
		} {
			t.Run(name, func(t *testing.T) {
				for _, path := range []string{"/", "/ws"} {
					conn := connect(t, s)
					conn.write("GET " + path + " HTTP/1.1\r\nHost: " + s.addr + "\r\n" + headers + "\r\n")
					res := conn.response("GET")
					if res.StatusCode != 101 || res.Header.Get("Sec-WebSocket-Protocol") != "" || res.Header.Get("Sec-WebSocket-Extensions") != "" {
						t.Fatalf("%s %v", res.Status, res.Header)
					}
					conn.welcomed()
				}
			})
		}
		t.Run("the host's letter case", func(t *testing.T) {
			conn := connect(t, s)
			conn.write("GET /ws HTTP/1.1\r\nHost: LocalHost:" + port + "\r\nOrigin: http://localhost:" + port + "\r\n" + good + "\r\n")
			if res := conn.response("GET"); res.StatusCode != 101 {
				t.Error(res.Status)
			}
		})
	})
}

func checkProblem(t *testing.T, res *http.Response) {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Title  string
		Status int
	}
	if err := json.Unmarshal(b, &p); err != nil || p.Title == "" || p.Status != res.StatusCode {
		t.Errorf("the body is no problem of RFC 9457: %q", b)
	}
	if ct := res.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/problem+json") {
		t.Errorf("Content-Type %q", ct)
	}
}

func TestAllowedOrigins(t *testing.T) {
	eachIO(t, []string{"--allowed-origins", "https://chat.example,http://localhost:*"}, func(t *testing.T, s *server) {
		for origin, status := range map[string]int{
			"https://chat.example":      101,
			"https://CHAT.example":      101,
			"http://localhost:3000":     101,
			"http://chat.example":       403,
			"https://chat.example.evil": 403,
			"https://evil.example":      403,
			"null":                      403,
		} {
			conn := connect(t, s)
			conn.write(strings.Replace(upgrade(s, "/ws"), "\r\n\r\n", "\r\nOrigin: "+origin+"\r\n\r\n", 1))
			if res := conn.response("GET"); res.StatusCode != status {
				t.Errorf("origin %s: %s, want %d", origin, res.Status, status)
			}
		}
	})
}

func TestHealth(t *testing.T) {
	eachIO(t, nil, func(t *testing.T, s *server) {
		for _, path := range []string{"/healthz", "/readyz"} {
			res, err := http.Get(s.http(path))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 200 {
				t.Errorf("%s: %s", path, res.Status)
			}
			if cors := res.Header.Get("Access-Control-Allow-Origin"); path == "/readyz" && cors != "*" {
				t.Errorf("/readyz: Access-Control-Allow-Origin %q, want *", cors)
			}
		}
	})
}

func TestPageIsAtTheBareAddress(t *testing.T) {
	eachIO(t, nil, func(t *testing.T, s *server) {
		res, err := http.Get(s.http("/"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 || !strings.Contains(string(b), "<title>Hubbub") || res.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s %v %v %.80q", res.Status, res.Header, err, b)
		}
		res.Body.Close()
		if res, err = http.Get(s.http("/no-such-page")); err != nil || res.StatusCode != 404 {
			t.Errorf("a path that is not there: %v %v", res, err)
		}
	})
}

func TestMaxConnections(t *testing.T) {
	eachIO(t, []string{"--max-connections", "2"}, func(t *testing.T, s *server) {
		first, second := dialRaw(t, s, "/ws", ""), dialRaw(t, s, "/echo", "")
		first.welcomed()
		conn := connect(t, s)
		conn.write(upgrade(s, "/ws"))
		res := conn.response("GET")
		if res.StatusCode != 503 || !res.Close {
			t.Fatalf("the third connection: %s, close %v", res.Status, res.Close)
		}
		if after, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || after < 1 {
			t.Errorf("Retry-After: %q, want whole seconds", res.Header.Get("Retry-After"))
		}
		checkProblem(t, res)
		if res, err := http.Get(s.http("/healthz")); err != nil || res.StatusCode != 200 {
			t.Errorf("a full server is still alive: %v %v", res, err)
		}

		second.write(closeFrame(1000, ""))
		second.expectClose(1000)
		second.expectEnd()
		for deadline := time.Now().Add(patience); ; {
			conn := connect(t, s)
			conn.write(upgrade(s, "/ws"))
			if conn.response("GET").StatusCode == 101 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("no room for a new connection after one has left")
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

func TestHandshakeTimeout(t *testing.T) {
	eachIO(t, []string{"--handshake-timeout", "1s"}, func(t *testing.T, s *server) {
		for name, head := range map[string]string{
			"silent":      "",
			"half a head": "GET /ws HTTP/1.1\r\nHost: x\r\n",
		} {
			t.Run(name, func(t *testing.T) {
				begin := time.Now()
				conn := connect(t, s)
				conn.write(head)
				_ = conn.SetReadDeadline(time.Now().Add(patience))
				// An answer such as 408 may come before the end, nothing may come after it.
				if _, err := io.Copy(io.Discard, conn); err != nil {
					t.Fatalf("not closed: %v", err)
				}
				notBefore(t, begin, time.Second)
			})
		}
		t.Run("one byte now and then", func(t *testing.T) {
			begin := time.Now()
			conn := connect(t, s)
			go func() {
				for _, b := range []byte(upgrade(s, "/ws")) {
					if _, err := conn.Write([]byte{b}); err != nil {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			}()
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			_, _ = io.Copy(io.Discard, conn) // a reset is an end too: bytes of ours may be unread
			notBefore(t, begin, time.Second)
		})
		t.Run("an upgraded connection stays", func(t *testing.T) {
			conn := dialRaw(t, s, "/ws", "")
			conn.welcomed()
			time.Sleep(2 * time.Second)
			conn.write(text(`{"msg_type":"ping","id":1}`))
			conn.message("pong")
		})
	})
}

// notBefore checks that a timer was not early. How late it was is the machine's too: hubbubtest judges that, in virtual
// time.
func notBefore(t *testing.T, begin time.Time, least time.Duration) {
	t.Helper()
	if took := time.Since(begin); took < least {
		t.Errorf("it happened after %v, want %v at least", took.Round(time.Millisecond), least)
	}
}
