package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// What the page does where it isn't let in, or not any more.

// A server with tokens: the page says how to get one, takes it, keeps it for the tab alone, and the user's name is the
// token's.
func TestPageTakesAToken(t *testing.T) {
	t.Parallel()
	file := configFile(t, "jwt-key: 0123456789abcdef0123456789abcdef\n")
	s := start(t, "--config", file)
	tokenOf := func(flags ...string) string {
		out, status := hubbub(t, nil, append([]string{"token", "--config", file}, flags...)...)
		if status != 0 {
			t.Fatal(out)
		}
		return strings.TrimSpace(out)
	}
	ann := tokenOf("--user", "ann")
	p := openPage(t, s)
	p.shows("#state", "needs a token")
	p.shows("#identify:not([hidden])", "hubbub token --config")
	p.shows("#identify:not(.trouble) #why", "wants to know who you are")
	p.shows("#code", "{ token }")
	p.until(`document.activeElement.id === "token"`)
	p.accessible()

	p.do(chromedp.Focus(chromedp.CSS("#token")), chromedp.KeyEvent("not.a.token"+kb.Enter))
	p.shows("#identify.trouble #why", "refuses your token")
	p.do(chromedp.Focus(chromedp.CSS("#token")), chromedp.KeyEvent(ann+kb.Enter))
	p.shows("#state", "connected")
	p.until(`document.querySelector("#identify").hidden && document.querySelector("#name").value === "ann" && document.querySelector("#name").readOnly`)
	p.do(chromedp.Reload())
	p.shows("#state", "connected")
	if kept := eval[string](p, `JSON.stringify([location.href, localStorage, document.cookie])`); strings.Contains(kept, ann) {
		t.Errorf("the token is kept: %s", kept)
	}

	// One that comes in the address leaves it at once.
	p.do(chromedp.Navigate("about:blank"), chromedp.Navigate(s.http("/#token="+tokenOf("--user", "bea")+"&room=den")))
	p.until(`document.querySelector("#name").value === "bea"`)
	p.until(`location.hash === "#room=den" && document.querySelector("#room").textContent === "den"`)
	if log := s.log.String(); strings.Contains(log, ann[strings.LastIndexByte(ann, '.'):]) {
		t.Errorf("the log has the token:\n%s", log)
	}
}

// A token that ends: the page asks for a newer one, and the session goes on with it.
func TestPageOutlivesItsToken(t *testing.T) {
	t.Parallel()
	file := configFile(t, "jwt-key: 0123456789abcdef0123456789abcdef\njwt-leeway: 0s\n")
	s := start(t, "--config", file)
	p := openPage(t, s)
	p.shows("#state", "needs a token")
	give := func(flags ...string) {
		out, status := hubbub(t, nil, append([]string{"token", "--config", file, "--user", "ann"}, flags...)...)
		if status != 0 {
			t.Fatal(out)
		}
		p.do(chromedp.Focus(chromedp.CSS("#token")), chromedp.KeyEvent(strings.TrimSpace(out)+kb.Enter))
	}
	give("--expires", "40s") // a busy machine takes long to let the page in
	p.shows("#count", "1 here")
	id := p.text("#session dd")
	p.shows("#why", "Your token ends soon")
	p.shows("#state", "needs a token")
	p.say("typed without a token")
	give()
	p.shows("#state", "connected")
	p.sent()
	p.until(`document.querySelector("#identify").hidden`)
	if now := p.text("#session dd"); now != id {
		t.Errorf("it was %s and is %s: another session", id, now)
	}
}

// What was sent, and for which no answer came before the session was gone, is said and can be sent again.
func TestPageSaysWhatItCantKnow(t *testing.T) {
	t.Parallel()
	s := start(t)
	pages := openPages(t, s, "Ann", "Bob")
	ann, bob := pages[0], pages[1]
	s.cmd.Process.Signal(syscall.SIGSTOP) // it takes what is sent, and answers nothing
	ann.say("into the dark")
	ann.shows("#frames", `"content":{"text":"into the dark"`)
	ann.shows("#messages .fate.waiting", "sending")
	s.stop(t, syscall.SIGKILL)
	ann.shows("#messages .fate.waiting", "waiting for the line")
	startAt(t, s.addr)
	ann.shows("#messages .fate.failed", "perhaps not sent")
	ann.accessible()
	ann.prefers([2]string{"prefers-color-scheme", "dark"})
	ann.accessible()
	bob.shows("#count", "2 here")
	ann.do(chromedp.Click(chromedp.CSS("#messages .fate button")))
	ann.sent()
	bob.shows("#messages", "into the dark")
	if n := bob.says("#messages .text", "into the dark"); n != 1 {
		t.Errorf("it came %d times", n)
	}
}

// Who is told not to come back stays away, and says why.
func TestPageStaysAwayWhenItIsTold(t *testing.T) {
	t.Parallel()
	const key = "0123456789abcdef0123456789abcdef"
	s := start(t, "--api-key", key)
	p := openPage(t, s)
	p.shows("#count", "1 here")
	out, status := hubbub(t, []string{"HUBBUB_API_KEY=" + key}, "kick", eval[string](p, `"client:" + document.querySelector("#session dd").textContent`), "--reason", "be kind", "--url", s.http("/"))
	if status != 0 {
		t.Fatal(out)
	}
	p.shows("#state", "closed")
	p.shows("#trouble:not([hidden])", "code 4500: kicked (be kind)")
	p.accessible()
}

// A room that isn't open to the client: that is said, also after the line was cut, and the rest goes on.
func TestPageSaysThatTheRoomIsClosed(t *testing.T) {
	t.Parallel()
	s := start(t, "--config", configFile(t, "rooms:\n- match: lobby*\n  join: server\n"))
	p := openPage(t, s)
	p.shows("#trouble:not([hidden])", "You can't be in the room “lobby”")
	p.shows("#state", "connected")
	p.do(chromedp.Click(chromedp.CSS("#cut")))
	p.shows("#state", "your line is cut")
	p.shows("#state", "connected")
	p.shows("#trouble:not([hidden])", "You can't be in the room “lobby”")
	p.say("may I?")
	p.shows("#messages .fate.failed", "not sent")
}

func TestPageOff(t *testing.T) {
	t.Parallel()
	s := &server{addr: freeAddr(t), exited: make(chan struct{}), base: "/live"}
	s.cmd = exec.Command(program, "serve", "--listen", s.addr, "--base-path", "/live", "--page", "off")
	s.run(t)
	for path, status := range map[string]int{"/live/": 404, "/live": 404, "/live/page/page.js": 404, "/live/hubbub.js": 200} {
		res, err := http.Get(s.http(path))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("%s: %s, want %d", path, res.Status, status)
		}
		if path == "/live/" {
			answer, err := io.ReadAll(res.Body)
			for _, what := range []string{"no page", "/live/ws", "/live/hubbub.js"} {
				if err != nil || !strings.Contains(string(answer), what) {
					t.Errorf("the answer doesn't say %q: %s %v", what, answer, err)
				}
			}
		}
	}
	dialRaw(t, s, "/live/", "").welcomed() // an upgrade is let in as ever
	if log := s.log.String(); strings.Contains(log, "page=http") {
		t.Errorf("the log speaks of a page:\n%s", log)
	}
}

// The page says why it can't connect, which the browser hides: it asks over HTTP.
func TestPageSaysWhyItCantConnect(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		flags  []string
		proxy  func(*httputil.ProxyRequest)  // what the proxy in between does wrong; nil: there is none
		before func(t *testing.T, s *server) // whom it lets in answers no ping
		says   []string
	}{
		{"a proxy drops Upgrade", nil, func(r *httputil.ProxyRequest) {
			r.Out.Host = r.In.Host
			r.Out.Header.Del("Upgrade")
			r.Out.Header.Del("Connection")
		}, nil, []string{"WebSockets don't get through", "proxy_set_header Upgrade $http_upgrade"}},
		{"a proxy changes Host", nil, func(*httputil.ProxyRequest) {}, nil, []string{"refuses this page", "may not connect", "http://127.0.0.1:"}},
		{"the server is full", []string{"--max-connections", "1", "--ping-interval", "24h"}, nil, func(t *testing.T, s *server) { dialRaw(t, s, "/echo", "") }, []string{"takes no connection just now", "too many connections"}},
		{"the address has its fill", []string{"--max-connections-per-ip", "1", "--ping-interval", "24h"}, nil, func(t *testing.T, s *server) { dialRaw(t, s, "/echo", "") }, []string{"refuses this page", "too many connections from this address"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, tt.flags...)
			if tt.before != nil {
				tt.before(t, s)
			}
			front := s
			if tt.proxy != nil {
				front = frontProxy(t, s, tt.proxy)
			}
			p := openPage(t, front)
			for _, text := range tt.says {
				p.shows("#trouble:not([hidden])", text)
			}
			p.shows("#state", "can't connect")
			if tt.name == "a proxy drops Upgrade" {
				if log := s.log.String(); !strings.Contains(log, "level=WARN") || !strings.Contains(log, "proxy_set_header Upgrade") {
					t.Errorf("the log does not say it:\n%s", log)
				}
			}
		})
	}
}

// frontProxy stands before a server and meddles with requests.
func frontProxy(t *testing.T, s *server, meddle func(*httputil.ProxyRequest)) *server {
	t.Helper()
	front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: s.addr})
		meddle(r)
	}})
	t.Cleanup(front.Close)
	return &server{addr: strings.TrimPrefix(front.URL, "http://")}
}
