package e2e

import (
	"fmt"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

func openPage(t *testing.T, s *server) *page {
	t.Helper()
	return startBrowser(t).open(s.http("/"), "WebSocket connection to", "Failed to load resource")
}

// say types with the keyboard alone: the text field has the focus.
func (p *page) say(text string) {
	p.t.Helper()
	p.do(chromedp.Focus(chromedp.CSS("#text")), chromedp.KeyEvent(text+kb.Enter))
}

func TestPage(t *testing.T) {
	eachIO(t, []string{"--workers", "2"}, func(t *testing.T, s *server) {
		p := openPage(t, s)
		p.shows("#state", "connected")
		p.shows("#messages", "joined “lobby”")
		me := p.text("#me")

		other := dialWS(t, s.ws("/ws")).welcomed()
		other.join("lobby")
		p.shows("#here", "2 here: you")

		// A word in the lobby, each way.
		p.say("hello from the page")
		m := other.message("room_message")
		if m.str("from") != me || m.str("content") != "hello from the page" || m.str("room") != "lobby" {
			t.Errorf("the page sent %s", m.text)
		}
		p.shows("#messages li.mine .fate", "sent")
		other.send(`{"msg_type":"room_message","room":"lobby","content":"hello from ws"}`)
		p.shows("#messages", "hello from ws")
		p.shows("#messages", "in lobby")

		// A stranger's text stays text.
		other.send(`{"msg_type":"chat","content":"<img src=x onerror=\"document.title='broken into'\"><b>bold</b>"}`)
		p.shows("#messages", "<b>bold</b>")
		other.sendf(`{"msg_type":"direct_message","to":%q,"content":{"a":[1,null]}}`, me)
		p.shows("#messages", `{"a":[1,null]}`)
		p.shows("#messages", "to you only")

		// A click on a sender aims at it.
		p.do(chromedp.Click(chromedp.CSS("#messages .from")))
		p.say("only you")
		if m := other.message("direct_message"); m.str("content") != "only you" || m.str("from") != me {
			t.Errorf("the page sent %s", m.text)
		}

		// Everyone.
		p.do(chromedp.Focus(chromedp.CSS("#target")), chromedp.KeyEvent("everyone"))
		p.say("all of you")
		other.message("chat")

		// Another room, by keyboard, and out of it again.
		p.do(chromedp.Focus(chromedp.CSS("#room")), chromedp.KeyEvent("kitchen"+kb.Enter))
		p.shows("#messages", "joined “kitchen”")
		other.send(`{"msg_type":"room_message","room":"kitchen","content":"what's cooking?"}`)
		p.shows("#messages", "what's cooking?")
		p.do(chromedp.Click(chromedp.CSS(`#rooms [aria-label="Leave kitchen"]`)))
		p.shows("#messages", "left “kitchen”")
		p.shows("#here", other.id[:8])

		// What is refused is said.
		p.do(chromedp.Focus(chromedp.CSS("#room")), chromedp.KeyEvent("   "+kb.Enter))
		p.shows("#messages li.error", "bad_room")
		p.shows("#frames", `→ {"msg_type":"join_room","room":"kitchen"`)

		// It fits a phone, and the list does not grow without end.
		p.do(chromedp.EmulateViewport(360, 640, chromedp.EmulateMobile))
		p.until(`document.documentElement.scrollWidth <= 360`)
		for i := range 600 {
			other.sendf(`{"msg_type":"room_message","room":"lobby","content":"n%d."}`, i)
		}
		p.shows("#messages", "n599.")
		p.until(`document.querySelectorAll("#messages li").length <= 500`)

		p.until(`document.title === "Hubbub"`)
	})
}

func TestPageComesBackAfterARestart(t *testing.T) {
	eachIO(t, nil, func(t *testing.T, s *server) {
		p := openPage(t, s)
		p.shows("#messages", "joined “lobby”")
		before := p.text("#me")
		if status := s.stop(t, syscall.SIGTERM); status != 0 {
			t.Errorf("exit status %d, want 0", status)
		}
		p.shows("#messages", "code 1001")
		p.shows("#state", "reconnecting")

		again := startAt(t, s.addr)
		p.shows("#state", "connected")
		p.until(fmt.Sprintf(`document.querySelector("#me").textContent !== %q`, before))
		other := dialPython(t, again.ws("/ws")).welcomed()
		p.until(`document.querySelectorAll("#messages li.note").length >= 3`) // joined, closed, joined
		p.shows("#messages li:last-child", "joined “lobby”")
		other.send(`{"msg_type":"room_message","room":"lobby","content":"welcome back"}`)
		p.shows("#messages", "welcome back")
	})
}

// The page says why it can't connect, which the browser hides: it asks over HTTP.
func TestPageSaysWhyItCantConnect(t *testing.T) {
	for _, tt := range []struct {
		name   string
		flags  []string
		proxy  func(*httputil.ProxyRequest) // what the proxy in between does wrong; nil: there is none
		before func(t *testing.T, s *server)
		says   []string
	}{
		{"a proxy drops Upgrade", nil, func(r *httputil.ProxyRequest) {
			r.Out.Host = r.In.Host
			r.Out.Header.Del("Upgrade")
			r.Out.Header.Del("Connection")
		}, nil, []string{"WebSockets don't get through", "proxy_set_header Upgrade $http_upgrade"}},
		{"a proxy changes Host", nil, func(*httputil.ProxyRequest) {}, nil, []string{"refuses this page", "may not connect", "http://127.0.0.1:"}},
		{"the server is full", []string{"--max-connections", "1"}, nil, func(t *testing.T, s *server) { dialRaw(t, s, "/echo", "") }, []string{"takes no connection just now", "too many connections"}},
		{"the address has its fill", []string{"--max-connections-per-ip", "1"}, nil, func(t *testing.T, s *server) { dialRaw(t, s, "/echo", "") }, []string{"refuses this page", "too many connections from this address"}},
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
				p.shows("#messages li.error", text)
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
