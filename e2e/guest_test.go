package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A page of the tests' own (the folder guest), of another origin than the server's and with a strict policy, which
// imports the server's /hubbub.js; and what drives it in any browser.

// tab is a page in one of the browsers.
type tab interface {
	visit(url string) error
	back() error                                // where it was before, as its button does
	leave()                                     // closes it
	evaluate(expression string) ([]byte, error) // the JSON of what the expression, or its promise, gives
}

// stage is what a story needs: a server, a line to it that can be cut, and the origin of the page.
type stage struct {
	t     *testing.T
	open  func(url string) tab
	flags []string
	s     *server
	line  *proxy
	site  *site
}

// opener opens a page in one of the browsers, as a tab that is closed with the test.
type opener func(t *testing.T, url string) tab

const stageKey = "a-key-of-thirty-two-bytes-or-more"

// setStage starts a server with these flags, which lets the page in and has tokens for users, if the page has one.
func setStage(t *testing.T, open opener, flags ...string) *stage {
	t.Helper()
	g := &stage{t: t, site: startSite(t), open: func(url string) tab { return open(t, url) }}
	config := configFile(t, "anonymous: \"on\"\njwt-key: "+stageKey+"\n"+
		"rooms:\n- match: '*'\n  presence: full\n  history: {messages: 100000, age: 10m, bytes: 64MiB}\n")
	g.flags = append([]string{"--config", config, "--allowed-origins", g.site.url, "--api-key", stageKey}, flags...)
	g.s = start(t, g.flags...)
	g.line = startProxy(t, g.s, nil)
	g.site.admit(g.s, g.line.front)
	return g
}

// restart starts the server once more where it was.
func (g *stage) restart() {
	g.t.Helper()
	g.s = startAt(g.t, g.s.addr, g.flags...)
	g.t.Cleanup(func() { g.line.away.Store(true) }) // it ends before the pages do
}

// token is one of the user ann's, which ends after so long, or has ended that long ago.
func token(ends time.Duration) string {
	claims := jwt.MapClaims{"sub": "ann", "exp": time.Now().Add(ends).Unix()}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(stageKey))
	if err != nil {
		panic(err) // HMAC takes every key
	}
	return signed
}

// publish puts the numbers from..to into a room, one after the other, as a backend does.
func (g *stage) publish(room string, from, to int) {
	g.t.Helper()
	for n := from; n <= to; n++ {
		g.call("POST", "/publish", fmt.Sprintf(`{"room":%q,"content":%d}`, room, n))
	}
}

// call asks the server's API.
func (g *stage) call(method, path, body string) {
	g.t.Helper()
	req, err := http.NewRequest(method, g.s.http("/api/v1"+path), strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+stageKey)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	if answer, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		g.t.Fatalf("%s %s: %s %s", path, body, res.Status, answer)
	}
}

// site is the origin of the page. It fails the test for all that breaks the page's policy.
type site struct {
	url string

	mu     sync.Mutex
	policy string
	server string // the origin of /hubbub.js
	token  func() string
}

func startSite(t *testing.T) *site {
	t.Helper()
	w := &site{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /violation", func(_ http.ResponseWriter, r *http.Request) {
		report, _ := io.ReadAll(io.LimitReader(r.Body, 64<<10))
		t.Errorf("the page's policy is broken: %s", report)
	})
	mux.HandleFunc("GET /token", func(rw http.ResponseWriter, _ *http.Request) {
		w.mu.Lock()
		token := w.token
		w.mu.Unlock()
		_, _ = io.WriteString(rw, token())
	})
	mux.HandleFunc("GET /{file}", func(rw http.ResponseWriter, r *http.Request) {
		text, err := os.ReadFile(path.Join("guest", path.Base(r.PathValue("file"))))
		if err != nil {
			http.NotFound(rw, r)
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		kind := "text/html; charset=utf-8"
		if strings.HasSuffix(r.URL.Path, ".js") {
			kind = "text/javascript"
		}
		rw.Header().Set("Content-Type", kind)
		rw.Header().Set("Content-Security-Policy", w.policy)
		_, _ = io.WriteString(rw, strings.ReplaceAll(string(text), "{{server}}", w.server))
	})
	l := httptest.NewServer(mux)
	w.url = l.URL
	t.Cleanup(l.Close)
	return w
}

// gives sets what the page gets where it asks for a token.
func (w *site) gives(token func() string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.token = token
}

// admit makes the policy: nothing from anywhere but this origin, the module of the server, and connections to these.
func (w *site) admit(s *server, others ...*server) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.server = "http://" + s.addr
	connections := ""
	for _, each := range append(others, s) {
		connections += " ws://" + each.addr + " http://" + each.addr
	}
	w.policy = "default-src 'none'; script-src 'self' " + w.server + "; worker-src 'self' " + w.server + "; img-src 'self' data:; connect-src 'self'" + connections +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; report-uri /violation"
}

// guest is a client in a page, or in a page's worker.
type guest struct {
	t      *testing.T
	tab    tab
	name   string
	worker bool
}

// page shows the page in a tab of its own.
func (g *stage) page() tab {
	g.t.Helper()
	p := g.open(g.site.url + "/page.html")
	wait(g.t, p, "globalThis.ready")
	return p
}

// guest has the page make a client, over the line that can be cut; options are the client's, as JavaScript.
func (g *stage) guest(p tab, name, options string) *guest {
	g.t.Helper()
	v := &guest{t: g.t, tab: p, name: name}
	v.do("visit", fmt.Sprintf("%q, %s", g.line.front.ws("/ws"), options))
	return v
}

// do calls a function of guest.js for this client.
func (v *guest) do(function, arguments string) {
	v.t.Helper()
	if arguments != "" {
		arguments = ", " + arguments
	}
	call := fmt.Sprintf("%s(%q%s)", function, v.name, arguments)
	if v.worker {
		call = fmt.Sprintf("ask(%q, %q%s)", function, v.name, arguments)
	}
	if _, err := v.tab.evaluate(call); err != nil {
		v.t.Fatalf("%s: %v", call, err)
	}
}

func (v *guest) join(room string) { v.t.Helper(); v.do("join", fmt.Sprintf("%q", room)) }

func (v *guest) publish(room string, from, to int) {
	v.t.Helper()
	v.do("publish", fmt.Sprintf("%q, %d, %d", room, from, to))
}

// stateOf is a state of the client's, with its detail.
type stateOf struct {
	State, Reason string
	Code          int
	Delay         float64
	Refused       bool
}

// record is what guest.js has written down.
type record struct {
	States  []stateOf
	Got     []int
	Told    [][2]string
	Direct  []int
	Acked   []int
	Failed  []json.RawMessage
	Members struct {
		List  []string
		Count int
	}
	State, ID, User string
	Pending, Timers int
	Socket          bool
}

func (v *guest) record() record {
	v.t.Helper()
	call := fmt.Sprintf("report(%q)", v.name)
	if v.worker {
		call = fmt.Sprintf("ask(%q, %q)", "report", v.name)
	}
	return ask[record](v.t, v.tab, call)
}

// until waits until the record is so.
func (v *guest) until(what string, so func(record) bool) record {
	v.t.Helper()
	var r record
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if r = v.record(); so(r) {
			return r
		}
	}
	v.t.Fatalf("%s: it does not come: %s\n%+v", v.name, what, r)
	return r
}

func (v *guest) online() record {
	v.t.Helper()
	return v.until("online", func(r record) bool { return r.State == "online" })
}

// path is the states it went through, one after the other.
func (r record) path() string {
	var states []string
	for _, s := range r.States {
		if n := len(states); n == 0 || states[n-1] != s.State {
			states = append(states, s.State)
		}
	}
	return strings.Join(states, " ")
}

// cameBack says whether it was online, lost its connection, and is online again, however many tries that took.
func (r record) cameBack() bool {
	return strings.HasPrefix(r.path(), "connecting online waiting connecting") && r.State == "online"
}

// ended says whether a connection has ended with this code.
func (r record) ended(code int) bool {
	for _, s := range r.States {
		if s.Code == code {
			return true
		}
	}
	return false
}

// hears waits until the numbers 1..n have come, all, once, in order, and nothing else was told.
func (v *guest) hears(n int) {
	v.t.Helper()
	r := v.until(fmt.Sprintf("message %d", n), func(r record) bool { return len(r.Got) >= n })
	for i, got := range r.Got {
		if got != i+1 {
			v.t.Fatalf("%s: message %d is %d, of %d", v.name, i+1, got, len(r.Got))
		}
	}
	if len(r.Got) != n || len(r.Told) != 0 {
		v.t.Errorf("%s has %d messages, want %d; it was told %v", v.name, len(r.Got), n, r.Told)
	}
}

func ask[T any](t *testing.T, p tab, expression string) T {
	t.Helper()
	var value T
	b, err := p.evaluate(expression)
	if err == nil {
		err = json.Unmarshal(b, &value)
	}
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// wait waits for a JavaScript expression to be true. An error is none as long as it passes: a page that comes or goes has
// some.
func wait(t *testing.T, p tab, expression string) {
	t.Helper()
	var b []byte
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if b, err = p.evaluate("!!(" + expression + ")"); err == nil && string(b) == "true" {
			return
		}
	}
	t.Fatalf("it does not come: %s: %s %v", expression, b, err)
}
