package hubbub_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// A Server within somebody's program: below a path, behind a middleware, for clients with subprotocols.

// mount serves a handler that has s somewhere in it, by a plain http.Server.
func mount(t *testing.T, s *rawtest.Server, h http.Handler) *rawtest.Server {
	t.Helper()
	front := httptest.NewServer(h)
	t.Cleanup(front.Close)
	return &rawtest.Server{Server: s.Server, Addr: strings.TrimPrefix(front.URL, "http://"), Log: s.Log}
}

// knock asks and gives the answer's head and body.
func knock(t *testing.T, s *rawtest.Server, method, target string, change map[string]string) (*http.Response, string) {
	t.Helper()
	c := rawtest.Connect(t, s)
	c.SendRaw([]byte(rawtest.Request(s, method, target, "HTTP/1.1", change)))
	r := c.Response(method)
	if r.StatusCode == http.StatusSwitchingProtocols {
		return r, ""
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(body)
}

var noUpgrade = map[string]string{"Upgrade": "", "Connection": "", "Sec-WebSocket-Key": "", "Sec-WebSocket-Version": ""}

// However a Server is mounted below /live, all of it is there.
func TestMountedBelowAPath(t *testing.T) {
	for _, tt := range []struct {
		name string
		base string
		wrap func(http.Handler) http.Handler
	}{
		{"a base path", "/live", func(h http.Handler) http.Handler { return h }},
		{"a base path with a final slash", "/live/", func(h http.Handler) http.Handler { return h }},
		{"StripPrefix", "", func(h http.Handler) http.Handler { return http.StripPrefix("/live", h) }},
		{"StripPrefix with a final slash", "", func(h http.Handler) http.Handler { return http.StripPrefix("/live/", h) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := rawtest.Start(t, hubbub.Config{BasePath: tt.base})
			mux := http.NewServeMux()
			mux.Handle("/live/", tt.wrap(server))
			s := mount(t, server, mux)
			for _, path := range []string{"/live/ws", "/live/", "/live/echo"} {
				if r, body := knock(t, s, "GET", path, nil); r.StatusCode != http.StatusSwitchingProtocols {
					t.Errorf("an upgrade at %s: %s %s", path, r.Status, body)
				}
			}
			for path, want := range map[string]string{"/live/": "<title>Hubbub", "/live/healthz": "alive", "/live/readyz": "ready", "/live/metrics": "hubbub_connections"} {
				if r, body := knock(t, s, "GET", path, noUpgrade); r.StatusCode != 200 || !strings.Contains(body, want) {
					t.Errorf("%s: %s %.200s", path, r.Status, body)
				}
			}
			if r, body := knock(t, s, "GET", "/live/nothing", noUpgrade); r.StatusCode != 404 || r.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("what isn't there: %s %s", r.Status, body)
			}
		})
	}
}

// A base path is a part of the path, no mere beginning of its letters; the page needs the slash behind it.
func TestABasePathIsWhole(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{BasePath: "/live"})
	if r, _ := knock(t, s, "GET", "/live", nil); r.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("an upgrade at /live: %s", r.Status)
	}
	if r, _ := knock(t, s, "GET", "/live?name=ann", noUpgrade); r.StatusCode != http.StatusTemporaryRedirect || r.Header.Get("Location") != "./live/?name=ann" {
		t.Errorf("/live: %s to %q", r.Status, r.Header.Get("Location"))
	}
	for _, path := range []string{"/", "/ws", "/livews", "/live.ws", "/Live/ws", "/live//ws", "/x/live/ws", "/healthz"} {
		if r, body := knock(t, s, "GET", path, nil); r.StatusCode != 404 || !strings.Contains(body, "/live/ws") {
			t.Errorf("an upgrade at %s: %s %s", path, r.Status, body)
		}
	}
	for _, base := range []string{"live", "/a//b", "/a/../b", "/a b", "/a?b", "/a%20b", "/größe", "//"} {
		err := hubbub.Config{BasePath: base}.Validate()
		if base == "//" && err == nil {
			continue // no more than slashes
		}
		if err == nil || !strings.Contains(err.Error(), "base-path") {
			t.Errorf("%q: %v", base, err)
		}
	}
}

// Who forgets StripPrefix and the base path is told.
func TestAMountThatStripsNothingIsHelped(t *testing.T) {
	server := rawtest.Start(t, hubbub.Config{})
	mux := http.NewServeMux()
	mux.Handle("/live/", server)
	s := mount(t, server, mux)
	for path, change := range map[string]map[string]string{"/live/ws": nil, "/live/healthz": noUpgrade, "/live/": noUpgrade} {
		if r, body := knock(t, s, "GET", path, change); r.StatusCode != 404 || !strings.Contains(body, `http.StripPrefix(\"/live\"`) || !strings.Contains(body, "--base-path=/live") {
			t.Errorf("%s: %s %s", path, r.Status, body)
		}
	}
	rawtest.Eventually(t, "the upgrade is in the log", func() bool {
		return strings.Contains(s.Log.String(), `would_allow="--base-path=/live"`)
	})
	if n := strings.Count(s.Log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings, want one, for the upgrade", n)
	}
}

func TestASlashTooManyIsTold(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{})
	for _, path := range []string{"/ws/", "/echo/"} {
		if r, body := knock(t, s, "GET", path, nil); r.StatusCode != 404 || !strings.Contains(body, "slash at the end of "+path) || strings.Contains(body, "base-path") {
			t.Errorf("%s: %s %s", path, r.Status, body)
		}
	}
}

// What a middleware has set reaches the client with the 101, but for what is the handshake's own.
func TestAMiddlewaresHeadersGoWithTheUpgrade(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		server := rawtest.Start(t, hubbub.Config{IO: io})
		s := mount(t, server, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
			http.SetCookie(w, &http.Cookie{Name: "node", Value: "a"})
			w.Header().Set("X-Request-Id", "42\r\nX-Forged: yes")
			w.Header()["x-odd name"] = []string{"no header"}
			w.Header()["sec-websocket-accept"] = []string{"wrong"}
			for _, name := range []string{"Connection", "Upgrade", "Content-Length", "Transfer-Encoding", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"} {
				w.Header().Set(name, "1")
			}
			server.ServeHTTP(w, r)
		}))
		c := rawtest.Connect(t, s)
		c.SendRaw([]byte(rawtest.Upgrade(s, "/ws")))
		r := c.Response("GET")
		if r.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(r.Status)
		}
		if got := r.Header["Set-Cookie"]; !slices.Equal(got, []string{"session=1", "node=a"}) {
			t.Errorf("cookies: %q", got)
		}
		if got := r.Header.Get("X-Request-Id"); got != "42  X-Forged: yes" || r.Header.Get("X-Forged") != "" {
			t.Errorf("X-Request-Id: %q", got)
		}
		if len(r.Header) != 5 || r.Header.Get("Sec-Websocket-Accept") != wsclient.Accept || r.Header.Get("Connection") != "Upgrade" {
			t.Errorf("the answer has %v", r.Header)
		}
		if m := c.NextJSON(); m["msg_type"] != "welcome" {
			t.Errorf("got %v", m)
		}
	})
}

func TestSubprotocols(t *testing.T) {
	for _, tt := range []struct {
		has    []string
		offers string // header lines, with \n between
		want   string
	}{
		{nil, "chat", ""},
		{[]string{"chat"}, "", ""},
		{[]string{"chat"}, "chat", "chat"},
		{[]string{"chat", "json"}, "xml, json,chat", "json"}, // the client's order counts
		{[]string{"json", "chat"}, "xml\n ,chat ,json", "chat"},
		{[]string{"chat"}, "Chat, chats, cha t", ""},
		{[]string{"chat"}, `"chat"`, ""},
		{[]string{"v1.hubbub+json"}, "v1.hubbub+json", "v1.hubbub+json"},
	} {
		s := rawtest.Start(t, hubbub.Config{Subprotocols: tt.has})
		for _, path := range []string{"/ws", "/echo"} {
			change := map[string]string{}
			if tt.offers != "" {
				change["Sec-WebSocket-Protocol"] = tt.offers
			}
			r, body := knock(t, s, "GET", path, change)
			if r.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%v: %s %s", tt, r.Status, body)
			}
			if got := strings.Join(r.Header["Sec-Websocket-Protocol"], "|"); got != tt.want {
				t.Errorf("a server of %q answers the offers %q with %q, want %q", tt.has, tt.offers, got, tt.want)
			}
		}
	}
	for _, bad := range [][]string{{""}, {"a b"}, {"a,b"}, {"a", "a"}, {"größe"}, {"a\r\nb"}} {
		if err := (hubbub.Config{Subprotocols: bad}).Validate(); err == nil || !strings.Contains(err.Error(), "subprotocols") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// deaf is a middleware's writer that hides what the one below can.
type deaf struct{ w http.ResponseWriter }

func (d deaf) Header() http.Header         { return d.w.Header() }
func (d deaf) Write(b []byte) (int, error) { return d.w.Write(b) }
func (d deaf) WriteHeader(status int)      { d.w.WriteHeader(status) }

// kind is one that can be looked through.
type kind struct{ deaf }

func (k kind) Unwrap() http.ResponseWriter { return k.w }

// refuser says that it can give its connection away, and can't.
type refuser struct{ deaf }

func (refuser) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.New("it is in use")
}

// A writer that can't be hijacked is a fault of the program: 500, and the log names the writer. No hook hears of it.
func TestAWriterWithoutHijack(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := rawtest.Start(t, hubbub.Config{Hooks: hubbub.Hooks{Connect: func(context.Context, *hubbub.Connect) error { asked.Add(1); return nil }}})
	for name, tt := range map[string]struct {
		h    http.Handler
		want string // in the log; empty: it works
	}{
		"deaf":       {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { server.ServeHTTP(deaf{w}, r) }), "hubbub_test.deaf"},
		"deaf below": {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { server.ServeHTTP(kind{deaf{deaf{w}}}, r) }), "hubbub_test.deaf"},
		"a time-out": {http.TimeoutHandler(server, time.Hour, ""), "*http.timeoutWriter"},
		"refuser":    {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { server.ServeHTTP(refuser{deaf{w}}, r) }), "hubbub_test.refuser: it is in use"},
		"kind":       {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { server.ServeHTTP(kind{deaf{w}}, r) }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := mount(t, server, tt.h)
			before := asked.Load()
			for _, path := range []string{"/ws", "/echo", "/"} {
				r, body := knock(t, s, "GET", path, nil)
				if tt.want == "" {
					if r.StatusCode != http.StatusSwitchingProtocols {
						t.Errorf("%s: %s %s", path, r.Status, body)
					}
					continue
				}
				var p struct{ Detail string }
				if err := json.Unmarshal([]byte(body), &p); err != nil || r.StatusCode != 500 || !strings.Contains(p.Detail, tt.want) {
					t.Errorf("%s: %s %s", path, r.Status, body)
				}
			}
			if tt.want == "" {
				return
			}
			if asked.Load() != before && name != "refuser" {
				t.Error("the hook Connect was asked")
			}
			rawtest.Eventually(t, "the log says so", func() bool {
				for line := range strings.Lines(s.Log.String()) {
					if strings.Contains(line, "level=ERROR") && strings.Contains(line, tt.want) && (name == "refuser" || strings.Contains(line, "http.Hijacker") && strings.Contains(line, "Unwrap")) {
						return true
					}
				}
				return false
			})
		})
	}
	if n := server.Connections(); n > 3 {
		t.Errorf("%d connections are counted, of 3", n)
	}
}
