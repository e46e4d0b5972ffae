package hubbub_test

import (
	"net/http"
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
