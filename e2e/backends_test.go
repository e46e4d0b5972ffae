package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// The programs of docs/backends, run as they stand there, with the server that docs/api.md sets up for them.

// language is one page there: the kind of its blocks, its files' ending, and how a program of it is run. addr is where
// a receiver shall listen, which all but PHP's learn from PORT.
type language struct {
	page, block, ending string
	command             func(t *testing.T, file, addr string) []string
}

var languages = []language{
	{"node", "js", "js", func(_ *testing.T, file, _ string) []string { return []string{"node", file} }},
	{"python", "python", "py", func(_ *testing.T, file, _ string) []string { return []string{python, file} }},
	{"go", "go", "go", func(t *testing.T, file, _ string) []string {
		built := strings.TrimSuffix(file, ".go")
		build := exec.Command("go", "build", "-o", built, file)
		build.Dir = filepath.Dir(file) // in no module: the standard library is all that it finds
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return []string{built}
	}},
	{"php", "php", "php", func(_ *testing.T, file, addr string) []string {
		if addr == "" {
			return []string{"php", file}
		}
		return []string{"php", "-S", addr, file}
	}},
}

const (
	backendKey    = "0123456789abcdef0123456789abcdef"
	backendSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
)

// program is one of a page's, ready to run in a folder of its own.
func (l language) program(t *testing.T, name, addr, secret string, env ...string) *exec.Cmd {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+"."+l.ending)
	write(t, file, codeBlock(t, "../docs/backends/"+l.page+".md", l.block, name+"."+l.ending))
	words := l.command(t, file, addr)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = filepath.Dir(file)
	cmd.Env = append(os.Environ(), "NO_PROXY=*", "no_proxy=*", "HUBBUB_API_KEY="+backendKey, "HUBBUB_JWT_KEY="+backendKey)
	cmd.Env = append(append(cmd.Env, "HUBBUB_WEBHOOK_SECRET="+secret), env...)
	return cmd
}

// codeBlock is the one of a page whose first line ends with a file's name.
func codeBlock(t *testing.T, page, kind, name string) string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, rest := range strings.Split(string(b), "\n```"+kind+"\n")[1:] {
		code, _, closed := strings.Cut(rest, "\n```\n")
		if first, _, _ := strings.Cut(code, "\n"); closed && strings.HasSuffix(first, " "+name) {
			return code + "\n"
		}
	}
	t.Fatalf("%s has no block %s that begins with %s", page, kind, name)
	return ""
}

func TestBackendsOfTheDocs(t *testing.T) {
	t.Parallel()
	for _, l := range languages {
		t.Run(l.page, func(t *testing.T) {
			t.Parallel()
			receiver := l.receive(t, backendSecret)
			receiver.isShown(t)
			config := strings.ReplaceAll(codeBlock(t, "../docs/api.md", "yaml", "hubbub.yaml"), "127.0.0.1:3000", receiver.addr)
			s := start(t, "--config", configFile(t, config), "--api-key", backendKey, "--jwt-key", backendKey,
				"--webhook-secret", backendSecret, "--dedup-window", "1h", "--ping-interval", "24h") // a raw client answers no ping
			enter(t, s, tokenFor(t, "mallory")).expectClose(4501)
			members := map[string]*rawConn{}
			for _, user := range []string{"ann", "bob", "cid", "dan", "eve", "fay"} {
				c := enter(t, s, tokenFor(t, user))
				c.isIn(user)
				members[user] = c
			}
			ann := members["ann"]
			ann.asks(`{"msg_type":"room_message","room":"orders/eu","content":"damn it","id":1}`, "ack")
			if m := members["bob"].hears("room_message"); m.str("content") != "d**n it" {
				t.Errorf("bob hears %s", m.text)
			}
			m := ann.asks(`{"msg_type":"room_message","room":"orders/eu","content":5,"id":2}`, "error")
			if m.str("code") != "forbidden" || m.str("message") != "text only" {
				t.Errorf("ann is told %s", m.text)
			}
			receiver.tells(t, "member.joined orders/eu fay")
			l.calls(t, s, members)
			receiver.tells(t, "client.disconnected  bob")
		})
	}
}

// A secret that is set to nothing is known to all.
func TestBackendsWithoutASecretTakeNothing(t *testing.T) {
	t.Parallel()
	for _, l := range languages {
		t.Run(l.page, func(t *testing.T) {
			t.Parallel()
			r := l.receive(t, "")
			select {
			case <-r.ended:
				if !strings.Contains(r.says(), "HUBBUB_WEBHOOK_SECRET is no secret") {
					t.Errorf("it says %s", r.says())
				}
			default:
				const body = `{"type":"hubbub.events","node":"n","events":[]}`
				if status := r.post(t, "whsec_", time.Now(), body, body); status != http.StatusUnauthorized {
					t.Errorf("what is signed with nothing is answered by %d", status)
				}
			}
		})
	}
}

// calls runs a page's first program: once through moods, and once more, when all has been published already.
func (l language) calls(t *testing.T, s *server, members map[string]*rawConn) {
	t.Helper()
	said := l.output(t, moods(t, s))
	ann := members["ann"]
	for _, content := range []string{`{"order":7,"state":"paid"}`, `{"order":8}`} {
		if m := ann.hears("room_message"); strings.ReplaceAll(m.raw("content"), " ", "") != content {
			t.Errorf("ann hears %s, want %s", m.text, content)
		}
	}
	members["bob"].expectClose(4500)
	// Offset 1 was "damn it".
	if len(said) != 7 || !strings.HasPrefix(said[0], "published ") || !strings.HasSuffix(said[0], " 2 before") {
		t.Fatalf("it says %q", said)
	}
	var in []string
	for _, line := range said[1:6] {
		in = append(in, line[strings.LastIndexByte(line, ' ')+1:])
	}
	if slices.Sort(in); !slices.Equal(in, []string{"ann", "cid", "dan", "eve", "fay"}) {
		t.Errorf("it finds %q", said)
	}
	token, _ := strings.CutPrefix(said[6], "token ")
	enter(t, s, token).isIn("ann")
	again := l.output(t, s.http(""))
	if again[0] != said[0] || again[1] != "failed 2 not_found user: no client of this user is here" {
		t.Errorf("again it says %q", again)
	}
	ann.asks(`{"msg_type":"ping"}`, "pong") // nothing else was published
}

// output runs a page's first program to its end.
func (l language) output(t *testing.T, server string) []string {
	t.Helper()
	cmd := l.program(t, "calls", "", "", "HUBBUB_URL="+server)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, &stderr)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// moods is the address of a proxy before a server that makes pages small, and refuses calls and breaks connections:
// the first publish is refused, the second done without an answer, the third refused.
func moods(t *testing.T, s *server) string {
	target, err := url.Parse(s.http(""))
	if err != nil {
		t.Fatal(err)
	}
	pass := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	var mu sync.Mutex
	at := map[string][]time.Time{} // by path, when it was called
	wait := map[string]time.Duration{}
	refuse := func(w http.ResponseWriter, path string, status, seconds int) {
		wait[path] = time.Duration(seconds) * time.Second
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		http.Error(w, `{"code":"overloaded"}`, status)
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		path := r.URL.Path
		const clocks = 100 * time.Millisecond // may be wrong by as much
		if before := at[path]; wait[path] > 0 && time.Since(before[len(before)-1]) < wait[path]-clocks {
			t.Errorf("%s comes again before its time", path)
		}
		wait[path] = 0
		at[path] = append(at[path], time.Now())
		if id := r.Header.Get("Idempotency-Key"); path == "/api/v1/publish" && id != "order-7-paid" {
			t.Errorf("publish has the key %q", id)
		}
		switch fmt.Sprint(path, len(at[path])) {
		case "/api/v1/publish1":
			refuse(w, path, http.StatusServiceUnavailable, 2)
		case "/api/v1/publish2":
			pass.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case "/api/v1/publish3":
			refuse(w, path, http.StatusTooManyRequests, 1)
		case "/api/v1/batch1":
			refuse(w, path, http.StatusServiceUnavailable, 1)
		default:
			r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "limit=1000", "limit=2", 1)
			pass.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		proxy.Close()
		for path, times := range map[string]int{"publish": 4, "batch": 2, "rooms/orders/eu/presence": 3} {
			if calls := at["/api/v1/"+path]; len(calls) != times {
				t.Errorf("%s was called at %v, want %d times", path, calls, times)
			}
		}
	})
	return proxy.URL
}

// backendReceiver is a page's second program, running. PHP's tells of events on its standard error.
type backendReceiver struct {
	addr     string
	ended    chan struct{} // closed, when it has
	out, log syncBuffer
}

// receive runs it until the test ends, and waits until it listens or has ended.
func (l language) receive(t *testing.T, secret string) *backendReceiver {
	t.Helper()
	r := &backendReceiver{addr: freeAddr(t), ended: make(chan struct{})}
	_, port, _ := net.SplitHostPort(r.addr)
	cmd := l.program(t, "receiver", r.addr, secret, "PORT="+port)
	cmd.Stdout, cmd.Stderr = &r.out, &r.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		cmd.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-r.ended
		if t.Failed() {
			t.Logf("the receiver says:\n%s", r.says())
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if nc, err := net.Dial("tcp", r.addr); err == nil {
			nc.Close()
			return r
		}
		select {
		case <-r.ended:
			return r
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("the receiver doesn't listen")
		}
	}
}

// isShown sends it what isn't Hubbub's, and what has come before.
func (r *backendReceiver) isShown(t *testing.T) {
	t.Helper()
	const (
		one   = `{"type":"hubbub.events","node":"n","events":[{"seq":1,"type":"test.one"}]}`
		two   = `{"type":"hubbub.events","node":"n","events":[{"seq":1,"type":"test.one"},{"seq":2,"type":"test.two"}]}`
		of    = `{"type":"hubbub.events","node":"m","events":[{"seq":1,"type":"other.one"},{"seq":2,"type":"other.two"}]}`
		other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDb2Z2c3RhcnM="
	)
	now := time.Now()
	for what, status := range map[string]int{
		"unsigned": r.post(t, "", now, one, one),
		"forged":   r.post(t, other, now, one, one),
		"changed":  r.post(t, backendSecret, now, one, two),
		"old":      r.post(t, backendSecret, now.Add(-time.Hour), one, one),
		"early":    r.post(t, backendSecret, now.Add(time.Hour), one, one),
	} {
		if status != http.StatusUnauthorized {
			t.Errorf("what is %s is answered by %d", what, status)
		}
	}
	for _, body := range []string{one, one, two, two, of} {
		if status := r.post(t, backendSecret, time.Now(), body, body); status != 200 && status != 204 {
			t.Errorf("%s is answered by %d", body, status)
		}
	}
	r.tells(t, "event 2 other.two")
	for _, event := range []string{"event 1 test.one", "event 2 test.two", "event 1 other.one"} {
		if n := strings.Count(r.says(), event); n != 1 {
			t.Errorf("%s is taken %d times", event, n)
		}
	}
}

func (r *backendReceiver) says() string { return r.out.String() + r.log.String() }

// post sends a body with the signature of another, by this secret, or with none, and returns the status.
func (r *backendReceiver) post(t *testing.T, secret string, at time.Time, signed, body string) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+r.addr+"/hubbub", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if secret != "" {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil {
			t.Fatal(err)
		}
		key, err := standardwebhooks.NewWebhookRaw(raw)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := key.Sign("msg_1", at, []byte(signed))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(standardwebhooks.HeaderWebhookID, "msg_1")
		req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
		req.Header.Set(standardwebhooks.HeaderWebhookSignature, "v1,bm90IHRoaXMgb25l "+signature)
	}
	client := http.Client{Timeout: patience}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

// tells waits until the receiver has taken an event.
func (r *backendReceiver) tells(t *testing.T, event string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(r.says(), event); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the receiver takes no %q", event)
		}
	}
}

// enter connects with a token, again where the machine is so busy that no question is answered in time.
func enter(t *testing.T, s *server, token string) *rawConn {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		c, err := tryDial(t, s, "/ws?token="+token)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// isIn sees that the user is let in and put into a room of their own, and joins the others.
func (c *rawConn) isIn(user string) {
	c.t.Helper()
	if m := c.message("welcome"); m.str("user") != user {
		c.t.Errorf("%s is welcomed by %s", user, m.text)
	}
	if m := c.hears("joined"); m.str("room") != "inbox."+user {
		c.t.Errorf("%s is put into %s", user, m.text)
	}
	c.asks(`{"msg_type":"join_room","room":"orders/eu","id":1}`, "joined")
}

// asks returns the answer, which must be of this kind; where it is "try again", for the reason that enter has, it does.
func (c *rawConn) asks(request, kind string) message {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		c.write(text(request))
		data := c.news()
		if !strings.Contains(data, `"retry":true`) || time.Now().After(deadline) {
			return parse(c.t, data, kind)
		}
	}
}

// hears is the next message, which must be of this kind.
func (c *rawConn) hears(kind string) message {
	c.t.Helper()
	return parse(c.t, c.news(), kind)
}

// news is the next message that isn't about members who come and go.
func (c *rawConn) news() string {
	c.t.Helper()
	for {
		if data := c.expect(fin | opText); !strings.HasPrefix(data, `{"msg_type":"member_`) {
			return data
		}
	}
}

func tokenFor(t *testing.T, user string) string {
	t.Helper()
	out, status := hubbub(t, []string{"HUBBUB_JWT_KEY=" + backendKey}, "token", "--user", user, "--join", "orders/*")
	if status != 0 {
		t.Fatal(out)
	}
	return strings.TrimSpace(out)
}
