package hubbub_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// midway is a ResponseWriter that has something happen within a handshake: when the server looks whether it can have the
// connection, which is behind its look at the origin and before that at the token.
type midway struct {
	http.ResponseWriter
	happens func()
}

func (m midway) Unwrap() http.ResponseWriter {
	m.happens()
	return m.ResponseWriter
}

// A handshake within which the settings are reloaded goes by the old ones to its end: a part of these and one of the next
// would let in whom neither lets in.
func TestAHandshakeGoesByOneSettings(t *testing.T) {
	for name, story := range map[string]struct {
		old, next     func(*hubbub.Config)
		request       map[string]string
		before, after int
	}{
		"a cookie that becomes a token": {
			next: func(c *hubbub.Config) { c.JWT.Cookie = "t" }, request: map[string]string{"Cookie": "t=" + aToken(t, nil)}, before: 401, after: 403,
		},
		"an origin that goes when guests come": {
			old:     func(c *hubbub.Config) { c.AllowedOrigins = []string{"https://a.example"} },
			next:    func(c *hubbub.Config) { c.Anonymous = true },
			request: map[string]string{"Origin": "https://a.example"}, before: 401, after: 403,
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := rawtest.Start(t, withTokens(story.old))
			next := withTokens(story.next)
			next.Logger = server.Logger()
			var once sync.Once
			s := mount(t, server, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				server.ServeHTTP(midway{w, func() {
					once.Do(func() {
						if changed, _, err := server.Reload(next); err != nil || len(changed) == 0 {
							t.Errorf("changed %v, %v", changed, err)
						}
					})
				}}, r)
			}))
			if r, body := knock(t, s, "GET", "/ws", story.request); r.StatusCode != story.before {
				t.Errorf("within the reload: %s %s, want %d", r.Status, body, story.before)
			}
			if r, body := knock(t, s, "GET", "/ws", story.request); r.StatusCode != story.after {
				t.Errorf("behind the reload: %s %s, want %d", r.Status, body, story.after)
			}
		})
	}
}

// An upgrade of which it was found that it waits for nobody doesn't wait for a provider that a reload brings then.
func TestAQuickUpgradeGoesByTheSettingsThatMadeItQuick(t *testing.T) {
	server := rawtest.Start(t, withTokens(nil))
	var once sync.Once
	s := mount(t, server, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serve := hubbub.QuickUpgrade(server.Server, r)
		if serve == nil {
			t.Error("it isn't quick")
			return
		}
		once.Do(func() {
			next := hubbub.Config{JWT: hubbub.JWT{JWKS: "http://127.0.0.1:1/", Audience: "a"}, Logger: server.Logger()}
			if _, _, err := server.Reload(next); err != nil {
				t.Error(err)
			}
		})
		serve(w, r)
		if hubbub.QuickUpgrade(server.Server, r) != nil {
			t.Error("an upgrade that may wait for a provider is quick")
		}
	}))
	letInAs(t, s, "ann", "/ws?token="+aToken(t, nil), nil)
	if log := server.Log.String(); strings.Contains(log, "upgrade refused") {
		t.Error(log)
	}
}

// A reload to another provider: who waits for the keys of the one before is let in by these, who comes then by the new
// ones alone. Settings with a fault change nothing.
func TestAReloadToAnotherProvider(t *testing.T) {
	keys := map[string]*ecdsa.PrivateKey{}
	for _, kid := range []string{"old", "next"} {
		keys[kid], _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	token := func(kid string) string { return "/ws?token=" + keyedToken(t, kid, keys[kid], "hubbub") }
	was, is, down := newProvider(t), newProvider(t), newProvider(t)
	was.has(t, map[string]*ecdsa.PrivateKey{"old": keys["old"]})
	is.has(t, map[string]*ecdsa.PrivateKey{"next": keys["next"]})
	answer := make(chan struct{})
	answers := sync.OnceFunc(func() { close(answer) })
	defer answers()
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-answer
		was.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(slow.Close)
	by := func(url string) hubbub.Config { return hubbub.Config{JWT: hubbub.JWT{JWKS: url, Audience: "hubbub"}} }
	server := rawtest.Start(t, by(slow.URL))
	reload := func(cfg hubbub.Config) ([]string, error) {
		cfg.Logger = server.Logger()
		changed, _, err := server.Reload(cfg)
		return changed, err
	}
	begun := make(chan struct{}, 1)
	s := mount(t, server, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		server.ServeHTTP(midway{w, func() {
			select {
			case begun <- struct{}{}:
			default:
			}
		}}, r)
	}))
	waits := rawtest.Connect(t, s)
	waits.SendRaw([]byte(rawtest.Request(s, "GET", token("old"), "HTTP/1.1", nil)))
	<-begun

	if changed, err := reload(by(is.URL)); err != nil || !slices.Equal(changed, []string{"jwt-jwks"}) {
		t.Fatalf("changed %v, %v", changed, err)
	}
	answers()
	if r := waits.Response("GET"); r.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("who waited for the keys of before: %s", r.Status)
	}
	if got := waits.NextJSON(); got["msg_type"] != "welcome" {
		t.Errorf("who waited for the keys of before got %v", got)
	}
	letInAs(t, s, "ann", token("next"), nil)
	turnedAway(t, s, 401, token("old"), nil)

	for name, fault := range map[string]func(*hubbub.Config){
		"another setting": func(c *hubbub.Config) { c.Chat = "nobody" },
		"no audience":     func(c *hubbub.Config) { c.JWT.Audience = "" },
		"by http":         func(c *hubbub.Config) { c.JWT.JWKS = "http://a.example/keys" },
		"a file":          func(c *hubbub.Config) { c.JWT.JWKS, c.JWT.Key = "", "@"+t.TempDir()+"/none" },
	} {
		cfg := by(was.URL)
		fault(&cfg)
		if changed, err := reload(cfg); err == nil || len(changed) > 0 {
			t.Errorf("%s: changed %v, %v", name, changed, err)
		}
	}
	letInAs(t, s, "ann", token("next"), nil)
	turnedAway(t, s, 401, token("old"), nil)

	// One that is down is believed, not asked first: nobody is told that his token is bad, and the keys of before don't count.
	if _, err := reload(by(down.URL)); err != nil {
		t.Fatal(err)
	}
	turnedAway(t, s, 503, token("next"), nil, "provider")
	if _, err := reload(by(is.URL)); err != nil {
		t.Fatal(err)
	}
	letInAs(t, s, "ann", token("next"), nil)
}
