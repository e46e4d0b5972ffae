package hubbub_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"example.com/hubbub"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/rawtest"
)

const jwtSecret = "a secret of thirty-two bytes, no less"

// aToken is a good one of ann's that is signed with the secret, with some claims changed.
func aToken(t testing.TB, change jwt.MapClaims) string {
	t.Helper()
	c := jwt.MapClaims{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(jwtSecret))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func withTokens(change func(*hubbub.Config)) hubbub.Config {
	cfg := hubbub.Config{JWT: hubbub.JWT{Key: jwtSecret}}
	if change != nil {
		change(&cfg)
	}
	return cfg
}

// letInAs wants the handshake to end with a session of that user.
func letInAs(t testing.TB, s *rawtest.Server, user, target string, change map[string]string) (m *member, welcome map[string]any) {
	t.Helper()
	c := rawtest.Connect(t, s)
	c.SendRaw([]byte(rawtest.Request(s, "GET", target, "HTTP/1.1", change)))
	r := c.Response("GET")
	if r.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(r.Body)
		t.Fatalf("%s: %s %s", target, r.Status, body)
	}
	m = &member{Client: c}
	welcome = m.NextJSON()
	m.id, _ = welcome["client_id"].(string)
	list, _, err := s.Clients(t.Context(), hubbub.ClientQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range list {
		if info.ID == m.id {
			if info.User != user {
				t.Errorf("it is %q, want %q", info.User, user)
			}
			return m, welcome
		}
	}
	t.Fatalf("no client %s: %v", m.id, welcome)
	return nil, nil
}

// turnedAway wants an answer before the upgrade, with these words in its detail.
func turnedAway(t testing.TB, s *rawtest.Server, status int, target string, change map[string]string, words ...string) *http.Response {
	t.Helper()
	c := rawtest.Connect(t, s)
	defer c.CloseNow()
	c.SendRaw([]byte(rawtest.Request(s, "GET", target, "HTTP/1.1", change)))
	r := c.Response("GET")
	body, _ := io.ReadAll(r.Body)
	var p struct {
		Status       int
		Code, Detail string
	}
	if err := json.Unmarshal(body, &p); r.StatusCode != status || err != nil || p.Status != status || r.Header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("%.200s: %s %s %v, want %d", target, r.Status, body, err, status)
	}
	for _, w := range words {
		if !strings.Contains(p.Detail, w) {
			t.Errorf("the detail %q lacks %q", p.Detail, w)
		}
	}
	want := map[int]string{401: "unauthorized", 503: "unavailable"}[status]
	auth := r.Header.Get("WWW-Authenticate")
	if p.Code != want || (status == 401) != strings.HasPrefix(auth, `Bearer realm="hubbub"`) {
		t.Errorf("code %q, WWW-Authenticate %q", p.Code, auth)
	}
	return r
}

// noTokenIn fails the test if a part of the token stands in the server's log.
func noTokenIn(t testing.TB, s *rawtest.Server, tokens ...string) {
	t.Helper()
	log := s.Log.String()
	for _, token := range tokens {
		for part := range strings.SplitSeq(token, ".") {
			if len(part) > 8 && strings.Contains(log, part) {
				t.Errorf("the log has a part of a token, %s:\n%s", part, log)
			}
		}
	}
}

func TestATokenComesInFourWays(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, withTokens(func(c *hubbub.Config) { c.IO, c.JWT.Cookie = io, "session" }))
		good, own := aToken(t, nil), "http://"+s.Addr
		letInAs(t, s, "ann", "/ws?token="+good, nil)
		letInAs(t, s, "ann", "/?a=b&token="+good, nil)
		letInAs(t, s, "ann", "/ws", map[string]string{"Authorization": "Bearer " + good})
		letInAs(t, s, "ann", "/ws", map[string]string{"Authorization": "bEARER  " + good + " "})
		letInAs(t, s, "ann", "/ws", map[string]string{"Cookie": "a=b; session=" + good, "Origin": own})
		letInAs(t, s, "ann", "/ws", map[string]string{"Sec-WebSocket-Protocol": "hubbub, token." + good})
		// The same one twice says nothing new, and another scheme nothing at all.
		letInAs(t, s, "ann", "/ws?token="+good+"&token="+good, map[string]string{"Authorization": "Basic YTpi\nBearer " + good})
		letInAs(t, s, "ann", "/ws?token=", map[string]string{"Authorization": "Bearer " + good, "Cookie": "session=", "Origin": own})
		rawtest.Dial(t, s, "/echo?token="+good)
		noTokenIn(t, s, good)
	})
}

func TestTheSubprotocolThatIsChosen(t *testing.T) {
	good := aToken(t, nil)
	for _, tt := range []struct {
		cfg          hubbub.Config
		offers, want string
	}{
		{withTokens(nil), "hubbub, token." + good, "hubbub"},
		{withTokens(nil), "token." + good + "\nhubbub", "hubbub"},
		{withTokens(nil), "token." + good, ""},
		{withTokens(func(c *hubbub.Config) { c.Subprotocols = []string{"chat"} }), "chat, token." + good, "chat"},
		{withTokens(func(c *hubbub.Config) { c.Anonymous = true }), "hubbub", "hubbub"},
		{hubbub.Config{}, "hubbub, token." + good, "hubbub"}, // which wants none
		{hubbub.Config{}, "hubbub", ""},
	} {
		s := rawtest.Start(t, tt.cfg)
		r, body := knock(t, s, "GET", "/ws", map[string]string{"Sec-WebSocket-Protocol": tt.offers})
		if got := r.Header["Sec-Websocket-Protocol"]; r.StatusCode != 101 || strings.Join(got, "|") != tt.want {
			t.Errorf("%.20s: %s %s %q, want %q", tt.offers, r.Status, body, got, tt.want)
		}
		noTokenIn(t, s, good)
	}
}

func TestABadTokenIsRefusedBeforeTheUpgrade(t *testing.T) {
	s := rawtest.Start(t, withTokens(func(c *hubbub.Config) { c.Anonymous, c.JWT.Cookie = true, "session" }))
	good := aToken(t, nil)
	other := aToken(t, jwt.MapClaims{"jti": "2"})
	expired := aToken(t, jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()})
	forged := good[:len(good)-8] + "AAAAAAAA"
	for _, path := range []string{"/ws", "/", "/echo"} {
		turnedAway(t, s, 401, path+"?token="+expired, nil, "expired")
		turnedAway(t, s, 401, path+"?token="+forged, nil, "signature")
	}
	turnedAway(t, s, 401, "/ws", map[string]string{"Authorization": "Bearer x"}, "no JWT")
	turnedAway(t, s, 401, "/ws", map[string]string{"Sec-WebSocket-Protocol": "hubbub, token." + forged}, "signature")
	turnedAway(t, s, 401, "/ws", map[string]string{"Cookie": "session=" + forged, "Origin": "http://" + s.Addr}, "signature")
	for _, change := range []map[string]string{
		{"Authorization": "Bearer " + other}, {"Authorization": "Bearer " + expired},
		{"Cookie": "session=" + other, "Origin": "http://" + s.Addr}, {"Sec-WebSocket-Protocol": "hubbub, token." + other},
	} {
		turnedAway(t, s, 401, "/ws?token="+good, change, "two tokens")
	}
	turnedAway(t, s, 401, "/ws?token="+good+"&token="+other, nil, "two tokens")
	turnedAway(t, s, 401, "/ws", map[string]string{"Authorization": "Bearer " + good + "\nBearer " + other}, "two tokens")
	turnedAway(t, s, 401, "/ws", map[string]string{"Cookie": "session=" + good + "; session=" + other, "Origin": "http://" + s.Addr}, "two tokens")
	turnedAway(t, s, 401, "/ws?token="+strings.Repeat(good, 2), nil, "no JWT")
	if n := scrape(t, s)[`hubbub_upgrades_total{result="unauthorized"}`]; n != 17 {
		t.Errorf("%v are counted", n)
	}
	// Beside all that, those without a token get in, without a name.
	letInAs(t, s, "", "/ws", nil)
	noTokenIn(t, s, good, other, expired, forged)
	if log := s.Log.String(); !strings.Contains(log, "upgrade refused") || strings.Contains(log, "open to all") {
		t.Error(log)
	}
}

// No head of the server's own listener has room for 64 KiB, and no other one lets it through.
func TestATokenOf64KiB(t *testing.T) {
	s := rawtest.Start(t, withTokens(nil))
	long := aToken(t, jwt.MapClaims{"pad": strings.Repeat("x", 48<<10)})
	for _, change := range []map[string]string{{"Authorization": "Bearer " + long}, {"Sec-WebSocket-Protocol": "hubbub, token." + long}} {
		if r, _ := knock(t, s, "GET", "/ws", change); r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s", r.Status)
		}
	}
	elsewhere := httptest.NewServer(s.Server)
	defer elsewhere.Close()
	there := &rawtest.Server{Server: s.Server, Addr: strings.TrimPrefix(elsewhere.URL, "http://"), Log: s.Log}
	turnedAway(t, there, 401, "/ws?token="+long, nil, "at most")
	letInAs(t, there, "ann", "/ws?token="+aToken(t, jwt.MapClaims{"pad": strings.Repeat("x", 16<<10)}), nil)
}

func TestWithoutATokenNobodyGetsIn(t *testing.T) {
	s := rawtest.Start(t, withTokens(nil))
	for _, target := range []string{"/ws", "/", "/echo", "/ws?token=", "/ws?errors=open"} {
		r := turnedAway(t, s, 401, target, nil, "no token")
		if auth := r.Header.Get("WWW-Authenticate"); strings.Contains(auth, "error") {
			t.Errorf("%s", auth) // RFC 6750 3.1
		}
	}
	if r, body := knock(t, s, "GET", "/", noUpgrade); r.StatusCode != 200 || !strings.Contains(body, "html") {
		t.Errorf("the page: %s", r.Status)
	}
}

// Who shows something that is no token isn't let in as who shows none, also where it can't even be read.
func TestWhoShowsABadTokenIsNoGuest(t *testing.T) {
	s := rawtest.Start(t, withTokens(func(c *hubbub.Config) { c.Anonymous = true }))
	letInAs(t, s, "", "/ws", nil)
	for _, target := range []string{"/ws?token=x", "/ws?token=%zz", "/ws?token=" + aToken(t, nil) + "%"} {
		turnedAway(t, s, 401, target, nil)
	}
	turnedAway(t, s, 401, "/ws?token=%zz&token="+aToken(t, nil), nil, "two tokens")
}

func TestAServerSaysThatItIsOpenToAll(t *testing.T) {
	for _, tt := range []struct {
		cfg  hubbub.Config
		open bool
	}{
		{hubbub.Config{}, true},
		{withTokens(nil), false},
		{withTokens(func(c *hubbub.Config) { c.Anonymous = true }), false},
		{hubbub.Config{Hooks: hubbub.Hooks{Connect: func(context.Context, *hubbub.Connect) error { return nil }}}, false},
		{hubbub.Config{Authenticate: func(context.Context, *hubbub.Credentials) (*hubbub.Identity, error) { return nil, nil }}, false},
	} {
		s := rawtest.Start(t, tt.cfg)
		if n := strings.Count(s.Log.String(), "open to all"); n > 1 || tt.open != (n == 1) {
			t.Errorf("%+v: it says so %d times", tt.cfg.JWT, n)
		}
	}
}

// A reload of a file that was emptied, say, takes the keys away.
func TestAReloadThatOpensTheServerToAllIsSaid(t *testing.T) {
	s := rawtest.Start(t, withTokens(nil))
	for range 2 { // once
		if _, _, err := s.Reload(hubbub.Config{Logger: s.Logger()}); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(s.Log.String(), `level=WARN msg="the server is open to all from now on`); n != 1 {
		t.Errorf("it says so %d times: %s", n, s.Log.String())
	}
}

// A browser's page sees no status, so it may ask for a Close.
func TestARefusalAsAClose(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, withTokens(func(c *hubbub.Config) { c.IO = io }))
		for _, tt := range []struct {
			query string
			code  int
		}{
			{"errors=close", 4401},
			{"errors=close&token=" + aToken(t, jwt.MapClaims{"exp": 1}), 4401},
			{"token=x&errors=close", 4503},
			{"errors=close&token=" + aToken(t, jwt.MapClaims{"sub": nil}), 4503},
			{"errors=close&token=x&token=y", 4503},
			{"errors=close&token=" + aToken(t, jwt.MapClaims{"hubbub": "x"}), 4503},
		} {
			for _, path := range []string{"/ws?", "/echo?"} {
				c := rawtest.Dial(t, s, path+tt.query)
				c.AnswerClose(tt.code)
			}
		}
		letInAs(t, s, "ann", "/ws?errors=close&token="+aToken(t, nil), nil)
		scraped(t, s, map[string]float64{
			`upgrades_total{result="unauthorized"}`: 12, `upgrades_total{result="accepted"}`: 1, "connections": 1,
			`closed_total{code="4401"}`: 4, `closed_total{code="4503"}`: 8,
		})
	})
}

// A browser sends the cookie with every page's requests, and always an Origin with it.
func TestACookieNeedsAnOrigin(t *testing.T) {
	s := rawtest.Start(t, withTokens(func(c *hubbub.Config) {
		c.JWT.Cookie, c.AllowedOrigins, c.Anonymous = "session", []string{"https://app.example"}, true
	}))
	good := aToken(t, nil)
	cookie := func(origin string) map[string]string {
		change := map[string]string{"Cookie": "session=" + good}
		if origin != "" {
			change["Origin"] = origin
		}
		return change
	}
	letInAs(t, s, "ann", "/ws", cookie("https://app.example"))
	letInAs(t, s, "ann", "/ws", cookie("http://"+s.Addr))
	for _, origin := range []string{"", "null", "https://evil.example", "file://"} {
		turnedAway(t, s, 403, "/ws", cookie(origin))
		turnedAway(t, s, 403, "/ws?token="+good, cookie(origin))
	}
	// Other programs have no Origin, and no such cookie.
	letInAs(t, s, "ann", "/ws", map[string]string{"Authorization": "Bearer " + good, "Cookie": "other=1"})
	letInAs(t, s, "", "/ws", nil)
	noTokenIn(t, s, good)
}

func TestASessionIsResumedByItsUserAlone(t *testing.T) {
	s := rawtest.Start(t, withTokens(func(c *hubbub.Config) { c.Anonymous = true }))
	ann := aToken(t, nil)
	begin := func(user, query string) (id, resume string) {
		m, welcome := letInAs(t, s, user, "/ws?"+query, nil)
		m.Reset()
		return m.id, welcome["resume_token"].(string)
	}
	for _, tt := range []struct {
		user, query, again, againQuery string
		resumed                        bool
	}{
		{"ann", "token=" + ann, "ann", "token=" + aToken(t, jwt.MapClaims{"jti": "newer"}), true},
		{"ann", "token=" + ann, "bob", "token=" + aToken(t, jwt.MapClaims{"sub": "bob"}), false},
		{"ann", "token=" + ann, "", "", false},
		{"", "", "ann", "token=" + ann, false},
		{"", "", "", "", true},
	} {
		id, resume := begin(tt.user, tt.query)
		var welcome map[string]any
		rawtest.Eventually(t, "the session is parked", func() bool { return scrape(t, s)["hubbub_connections"] == 0 })
		m, welcome := letInAs(t, s, tt.again, "/ws?resume="+resume+"&"+tt.againQuery, nil)
		if welcome["resumed"] != tt.resumed || (m.id == id) != tt.resumed {
			t.Errorf("%q after %q: %v", tt.again, tt.user, welcome)
		}
		m.SendClose(1000, "")
		m.ExpectClose(1000)
		noTokenIn(t, s, ann, resume)
	}
}

func TestAHookCantRenameWhomATokenNames(t *testing.T) {
	var to atomic.Value
	s := rawtest.Start(t, withTokens(func(c *hubbub.Config) {
		c.Anonymous = true
		c.Hooks.Connect = func(_ context.Context, c *hubbub.Connect) error {
			if name := to.Load().(string); name != "keep" {
				c.User = name
			}
			return nil
		}
	}))
	to.Store("keep")
	letInAs(t, s, "ann", "/ws?token="+aToken(t, nil), nil)
	letInAs(t, s, "", "/ws", nil)
	to.Store("bob")
	letInAs(t, s, "bob", "/ws", nil) // who had no name
	for _, name := range []string{"bob", ""} {
		to.Store(name)
		c := rawtest.Dial(t, s, "/ws?token="+aToken(t, nil))
		c.AnswerClose(1013)
	}
}

// provider is one whose keys change while the server runs.
type provider struct {
	*httptest.Server
	keys atomic.Value // of string; what isn't JSON is an outage
}

func newProvider(t *testing.T) *provider {
	p := &provider{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text := p.keys.Load().(string); text != "" {
			io.WriteString(w, text)
			return
		}
		w.WriteHeader(http.StatusBadGateway)
	}))
	t.Cleanup(p.Close)
	p.keys.Store("")
	return p
}

func (p *provider) has(t *testing.T, keys map[string]*ecdsa.PrivateKey) {
	var set jose.JSONWebKeySet
	for kid, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: &k.PublicKey, KeyID: kid})
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	p.keys.Store(string(b))
}

// keyedToken is one of ann's that names its key.
func keyedToken(t *testing.T, kid string, k *ecdsa.PrivateKey, aud string) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"sub": "ann", "aud": aud, "exp": time.Now().Add(time.Hour).Unix()})
	token.Header["kid"] = kid
	text, err := token.SignedString(k)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestTokensOfAProvider(t *testing.T) {
	t.Parallel() // it waits for the pace at which a provider is asked
	p := newProvider(t)
	old, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	next, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	of := func(kid string, k *ecdsa.PrivateKey, aud string) string { return keyedToken(t, kid, k, aud) }
	s := rawtest.Start(t, hubbub.Config{JWT: hubbub.JWT{JWKS: p.URL, Audience: "hubbub"}})
	// The provider is down when the server starts: it says so, and nobody is told that his token is bad.
	turnedAway(t, s, 503, "/ws?token="+of("old", old, "hubbub"), nil, "provider")
	rawtest.Dial(t, s, "/ws?errors=close&token="+of("old", old, "hubbub")).AnswerClose(1013)
	if log := s.Log.String(); !strings.Contains(log, "cannot fetch the keys") || !strings.Contains(log, "502") {
		t.Error(log)
	}
	p.has(t, map[string]*ecdsa.PrivateKey{"old": old})
	lets := func(token string) func() bool {
		return func() bool {
			r, _ := knock(t, s, "GET", "/ws", map[string]string{"Authorization": "Bearer " + token})
			return r.StatusCode == http.StatusSwitchingProtocols
		}
	}
	rawtest.Eventually(t, "the keys are fetched", lets(of("old", old, "hubbub")))
	turnedAway(t, s, 401, "/ws?token="+of("old", old, "another"), nil, "aud")
	turnedAway(t, s, 401, "/ws?token="+of("old", next, "hubbub"), nil, "signature")
	p.has(t, map[string]*ecdsa.PrivateKey{"next": next})
	rawtest.Eventually(t, "the new key is fetched", lets(of("next", next, "hubbub")))
	p.keys.Store("")
	letInAs(t, s, "ann", "/ws?token="+of("next", next, "hubbub"), nil)
	if n := scrape(t, s)[`hubbub_upgrades_total{result="unidentified"}`]; n < 2 {
		t.Errorf("%v are counted", n)
	}
}

// ofApp is an Authenticate that knows tickets.
func ofApp(_ context.Context, c *hubbub.Credentials) (*hubbub.Identity, error) {
	switch c.Token {
	case "":
		if c.Request != nil && c.Request.Header.Get("X-Guest") != "" {
			return &hubbub.Identity{User: "guest"}, nil
		}
		return nil, nil
	case "old":
		return nil, fmt.Errorf("of yesterday: %w", hubbub.ErrTokenExpired)
	case "banned":
		return nil, &hubbub.Error{Code: hubbub.Forbidden, Message: "you are banned"}
	case "busy":
		return nil, &hubbub.Error{Code: hubbub.Unavailable, Message: "come back"}
	case "broken":
		return nil, errors.New("the database says secret things")
	case "panic":
		var nobody *hubbub.Identity
		return &hubbub.Identity{User: nobody.User}, nil
	case "long":
		return &hubbub.Identity{User: strings.Repeat("x", 256)}, nil
	case "bad data":
		return &hubbub.Identity{User: "ann", Data: []byte("{")}, nil
	case "bad room":
		return &hubbub.Identity{User: "ann", Rooms: []string{""}}, nil
	case "nameless":
		return &hubbub.Identity{Chat: true}, nil
	}
	return &hubbub.Identity{User: c.Token, Expires: time.Now().Add(time.Hour), Data: []byte(` {"a":1} `), Rooms: []string{"lobby"}, Join: []string{"a*"}}, nil
}

func TestTheApplicationSaysWhoItIs(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{Authenticate: ofApp})
	by := func(ticket string) map[string]string { return map[string]string{"Authorization": "Bearer " + ticket} }
	letInAs(t, s, "ann", "/ws", by("ann"))
	letInAs(t, s, "", "/ws", by("nameless"))
	letInAs(t, s, "guest", "/ws", map[string]string{"X-Guest": "1"})
	turnedAway(t, s, 401, "/ws", nil, "no token")
	turnedAway(t, s, 401, "/ws", by("old"), "expired")
	turnedAway(t, s, 401, "/ws", by("banned"), "you are banned")
	turnedAway(t, s, 503, "/ws", by("busy"), "come back")
	turnedAway(t, s, 503, "/ws", by("broken"))
	for ticket, code := range map[string]int{"": 4401, "old": 4401, "banned": 4503, "busy": 1013, "broken": 1013, "long": 4503, "bad%20data": 4503, "bad%20room": 4503} {
		rawtest.Dial(t, s, "/ws?errors=close&token="+ticket).AnswerClose(code)
	}
	if log := s.Log.String(); !strings.Contains(log, "Authenticate failed") || !strings.Contains(log, "secret things") {
		t.Error(log)
	}
	open := rawtest.Start(t, hubbub.Config{Authenticate: ofApp, Anonymous: true})
	letInAs(t, open, "", "/ws", nil)
	turnedAway(t, open, 401, "/ws", by("banned"))
}

func TestAuthenticateThatPanicsOrHangs(t *testing.T) {
	hang := make(chan struct{})
	log := &rawtest.Log{}
	s := rawtest.Start(t, hubbub.Config{HookTimeout: time.Millisecond, MaxHookCalls: 1, Logger: logTo(log), Authenticate: func(ctx context.Context, c *hubbub.Credentials) (*hubbub.Identity, error) {
		switch c.Token {
		case "hang":
			<-ctx.Done()
			return nil, ctx.Err()
		case "hold":
			<-hang
		}
		return ofApp(ctx, c)
	}})
	turnedAway(t, s, 503, "/ws?token=panic", nil)
	turnedAway(t, s, 503, "/ws?token=hang", nil)
	held := rawtest.Connect(t, s)
	held.SendRaw([]byte(rawtest.Upgrade(s, "/ws?token=hold")))
	rawtest.Eventually(t, "the only place is taken", func() bool {
		r, _ := knock(t, s, "GET", "/ws?token=ann", nil)
		return r.StatusCode == 503
	})
	close(hang)
	rawtest.Eventually(t, "it is free again", func() bool {
		r, _ := knock(t, s, "GET", "/ws?token=ann", nil)
		return r.StatusCode == 101
	})
	if n := scrape(t, s)["hubbub_panics_total"]; n != 1 || !strings.Contains(log.String(), "panic in Authenticate") {
		t.Errorf("%v %s", n, log)
	}
}

func TestATokenIsRefreshedByItsUserAlone(t *testing.T) {
	ann, nobody := hub.Identity{User: "ann"}, hub.Identity{}
	s := rawtest.Start(t, withTokens(nil))
	app := rawtest.Start(t, hubbub.Config{Authenticate: ofApp})
	open := rawtest.Start(t, hubbub.Config{})
	down := rawtest.Start(t, hubbub.Config{JWT: hubbub.JWT{JWKS: newProvider(t).URL, Audience: "hubbub"}})
	later := time.Now().Add(2 * time.Hour).Truncate(time.Second)
	newer := aToken(t, jwt.MapClaims{"exp": later.Unix(), "hubbub": map[string]any{"join": []string{"a*"}, "data": 7}})
	known, err := hubbub.Refresh(s.Server, t.Context(), ann, newer)
	if err != nil || known.User != "ann" || !known.Expires.Equal(later) || !known.Grants.Join[0].Match("ab", "ann") || string(known.Data) != "7" {
		t.Fatalf("%+v %v", known, err)
	}
	if known, err := hubbub.Refresh(app.Server, t.Context(), ann, "ann"); err != nil || string(known.Data) != `{"a":1}` {
		t.Errorf("%+v %v", known, err)
	}
	for _, tt := range []struct {
		s     *rawtest.Server
		who   hub.Identity
		token string
		code  hubbub.Code
	}{
		{s, hub.Identity{User: "bob"}, newer, hubbub.Forbidden},
		{s, nobody, newer, hubbub.Forbidden},
		{s, ann, "", hubbub.Forbidden},
		{s, ann, "x", hubbub.Forbidden},
		{s, ann, aToken(t, jwt.MapClaims{"exp": 1}), hubbub.Forbidden},
		{s, ann, aToken(t, jwt.MapClaims{"sub": "bob"}), hubbub.Forbidden},
		{s, ann, aToken(t, jwt.MapClaims{"hubbub": map[string]any{"rooms": []string{""}}}), hubbub.Forbidden},
		{app, ann, "bob", hubbub.Forbidden},
		{app, ann, "old", hubbub.Forbidden},
		{app, ann, "", hubbub.Forbidden},
		{app, ann, "banned", hubbub.Forbidden},
		{app, ann, "busy", hubbub.Unavailable},
		{app, ann, "broken", hubbub.Unavailable},
		{open, nobody, newer, hubbub.Unavailable},
		{down, ann, newer, hubbub.Forbidden}, // its algorithm is none of a provider's
		{down, ann, esToken(t), hubbub.Unavailable},
		{down, nobody, esToken(t), hubbub.Forbidden}, // whatever it is; who is nobody makes nobody wait for a provider
	} {
		known, err := hubbub.Refresh(tt.s.Server, t.Context(), tt.who, tt.token)
		var told *hubbub.Error
		if !errors.As(err, &told) || told.Code != tt.code || known.User != "" || strings.Contains(told.Message, "secret things") {
			t.Errorf("%.20q of %q: %+v %v, want %v", tt.token, tt.who.User, known, err, tt.code)
		}
	}
}

// esToken is one that nobody has the key of.
func esToken(t *testing.T) string {
	k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	text, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"sub": "ann", "exp": 9999999999}).SignedString(k)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSettingsOfIdentity(t *testing.T) {
	good := hubbub.JWT{Key: jwtSecret}
	for _, tt := range []struct {
		words string
		cfg   hubbub.Config
	}{
		{"", hubbub.Config{JWT: good}},
		{"", hubbub.Config{JWT: hubbub.JWT{Key: jwtSecret, Issuer: "i", Audience: "a", Leeway: time.Minute, Cookie: "c"}}},
		{"", hubbub.Config{JWT: hubbub.JWT{Key: jwtSecret, Leeway: -1, Cookie: "c"}, AllowedOrigins: []string{"https://*.example.com", "http://localhost:*"}}},
		{"", hubbub.Config{JWT: hubbub.JWT{JWKS: "https://id.example/keys", Audience: "a"}}},
		{"", hubbub.Config{Authenticate: ofApp, Anonymous: true, JWT: hubbub.JWT{Cookie: "c"}}},
		{"at least 32", hubbub.Config{JWT: hubbub.JWT{Key: "short"}}},
		{"no such file", hubbub.Config{JWT: hubbub.JWT{Key: "@/nowhere/key"}}},
		{"--jwt-audience", hubbub.Config{JWT: hubbub.JWT{JWKS: "https://id.example/keys"}}},
		{"write https:", hubbub.Config{JWT: hubbub.JWT{JWKS: "http://id.example/keys", Audience: "a"}}},
		{"use one of them", hubbub.Config{JWT: hubbub.JWT{JWKS: "https://id.example/keys", Key: jwtSecret, Audience: "a"}}},
		{"use one of them", hubbub.Config{JWT: good, Authenticate: ofApp}},
		{"jwt-issuer", hubbub.Config{JWT: hubbub.JWT{Issuer: "i"}}},
		{"jwt-audience", hubbub.Config{JWT: hubbub.JWT{Audience: "a"}}},
		{"jwt-leeway", hubbub.Config{JWT: hubbub.JWT{Key: jwtSecret, Leeway: time.Minute + 1}}},
		{"jwt-cookie", hubbub.Config{JWT: hubbub.JWT{Cookie: "c"}}},
		{"jwt-cookie", hubbub.Config{JWT: hubbub.JWT{Key: jwtSecret, Cookie: "a b"}}},
		{"anonymous", hubbub.Config{Anonymous: true}},
	} {
		err := tt.cfg.Validate()
		if (err == nil) != (tt.words == "") || err != nil && (!strings.Contains(err.Error(), tt.words) || strings.Contains(err.Error(), jwtSecret)) {
			t.Errorf("%+v: %v, want %q", tt.cfg.JWT, err, tt.words)
		}
	}
	for _, open := range []string{"*", "https://*", "http://*", "*://*", "*://*:*", "null", "file://", "https://*.invalid", "*.invalid"} {
		cfg := hubbub.Config{JWT: hubbub.JWT{Key: jwtSecret, Cookie: "c"}, AllowedOrigins: []string{"https://a.example", open}}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "jwt-cookie") && !strings.Contains(err.Error(), "allowed-origins") {
			t.Errorf("with a cookie the origin %s is let in: %v", open, err)
		}
	}
}

func logTo(log *rawtest.Log) *slog.Logger {
	return slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestATokenOverAConnectionsLife(t *testing.T) {
	t.Parallel() // it waits for a token to expire
	s := rawtest.Start(t, withTokens(func(c *hubbub.Config) {
		c.JWT.Leeway = -1
		c.Rooms = []hubbub.RoomPolicy{{Match: "team.*", Join: "granted"}}
	}))
	soon := time.Now().Add(2 * time.Second).Unix()
	grant := map[string]any{"join": []string{"team.*"}, "rooms": []string{"inbox"}}
	m, welcome := letInAs(t, s, "ann", "/ws?token="+aToken(t, jwt.MapClaims{"exp": soon, "hubbub": grant}), nil)
	if welcome["user"] != "ann" || welcome["expires_at"] != float64(soon*1000) {
		t.Errorf("%v", welcome)
	}
	if got := m.NextJSON(); got["msg_type"] != "joined" || got["room"] != "inbox" {
		t.Errorf("the room of the claim: %v", got)
	}
	m.join("team.a")
	for token, code := range map[string]string{
		aToken(t, jwt.MapClaims{"sub": "bob"}): "forbidden", "x": "forbidden", aToken(t, jwt.MapClaims{"exp": 1}): "forbidden",
	} {
		if got := m.ask(`{"msg_type":"refresh","token":"` + token + `"}`); got["code"] != code || strings.Contains(fmt.Sprint(got), token) && token != "x" {
			t.Errorf("%v", got)
		}
	}
	later := time.Now().Add(time.Hour).Unix()
	if got := m.ask(`{"msg_type":"refresh","token":"` + aToken(t, jwt.MapClaims{"exp": later, "hubbub": grant}) + `"}`); got["msg_type"] != "refreshed" || got["expires_at"] != float64(later*1000) {
		t.Errorf("%v", got)
	}
	stays, _ := letInAs(t, s, "ann", "/ws?token="+aToken(t, jwt.MapClaims{"exp": soon}), nil)
	stays.AnswerClose(4401)
	m.hearsNothing() // and lives on
}
