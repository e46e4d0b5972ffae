package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/protocol"
)

// patience is how long a test waits for what must come.
const patience = 2 * time.Minute

// backend is the application's: a real HTTP server, which takes nothing that isn't signed.
type backend struct {
	*httptest.Server
	t           *testing.T
	connections atomic.Int64 // that were ever made to it
}

// serve starts a backend. answer gets the body of each question.
func serve(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, question map[string]any)) *backend {
	t.Helper()
	b := &backend{t: t}
	b.Server = httptest.NewUnstartedServer(b.handler(answer))
	b.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			b.connections.Add(1)
		}
	}
	b.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	b.Start()
	t.Cleanup(b.Close)
	return b
}

func (b *backend) handler(answer func(w http.ResponseWriter, r *http.Request, question map[string]any)) http.Handler {
	verifier, err := standardwebhooks.NewWebhook(newSecret)
	if err != nil {
		b.t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // it was given up
		}
		if err := verifier.Verify(body, r.Header); err != nil {
			b.t.Errorf("a question that isn't signed: %v", err)
		}
		if kind := r.Header.Get("Content-Type"); r.Method != http.MethodPost || kind != "application/json" || r.Header.Values("Idempotency-Key") != nil {
			b.t.Errorf("%s of %s, %v", r.Method, kind, r.Header)
		}
		var question map[string]any
		if err := json.Unmarshal(body, &question); err != nil {
			b.t.Errorf("the question %s: %v", body, err)
		}
		w.Header().Set("Content-Type", "application/json")
		answer(w, r, question)
	})
}

// says is a backend that answers all alike.
func says(t *testing.T, answer string) *backend {
	return serve(t, func(w http.ResponseWriter, _ *http.Request, _ map[string]any) { io.WriteString(w, answer) })
}

// asks is Questions of all kinds to a backend, and what they log.
func (b *backend) asks(change func(*QuestionsConfig)) (*Questions, *log) {
	b.t.Helper()
	kinds, err := ParseQuestions(questionNames[:])
	if err != nil {
		b.t.Fatal(err)
	}
	var lines log
	cfg := QuestionsConfig{
		URL: b.URL + "/hook?of=all", Node: "n1", Kinds: kinds, Secrets: secrets(b.t, newSecret, oldSecret), Timeout: patience, AtOnce: 8,
		MaxContent: 1000, MaxRooms: 3, Log: slog.New(slog.NewTextHandler(&lines, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	q := NewQuestions(cfg)
	b.t.Cleanup(q.Close)
	return q, &lines
}

type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var ann = Asker{Client: "0b0d4e0e-0000-4000-8000-000000000001", User: "ann"}

// each puts one question of each kind, and gives what came of it.
func each(ctx context.Context, q *Questions) map[Question]error {
	var who auth.Identity
	_, published := q.Publish(ctx, ann, Draft{Room: "r", Content: []byte(`1`)})
	_, requested := q.Request(ctx, ann, "m", nil)
	return map[Question]error{
		AskConnect: q.Connect(ctx, Handshake{Asker: Asker{Client: ann.Client}}, &who),
		AskJoin:    q.Join(ctx, ann, "r"),
		AskPublish: published,
		AskRequest: requested,
	}
}

// counted fails the test unless so many questions of a kind came to that.
func counted(t *testing.T, q *Questions, k Question, what result, n int64) {
	t.Helper()
	for _, c := range q.Counts() {
		if c.Question == k && c.Results[resultNames[what]] != n {
			t.Errorf("%s: %d are counted as %s, not %d: %v", k, c.Results[resultNames[what]], resultNames[what], n, c.Results)
		}
	}
}

func TestEachKindAsksAndIsAnswered(t *testing.T) {
	var asked []map[string]any
	b := serve(t, func(w http.ResponseWriter, r *http.Request, question map[string]any) {
		asked = append(asked, question)
		if r.URL.RequestURI() != "/hook?of=all" {
			t.Errorf("it was posted to %s", r.URL.RequestURI())
		}
		switch question["type"] {
		case "hubbub.connect":
			fmt.Fprintf(w, `{"user":"ann","data":{"name":"Ann"},"rooms":["lobby","r"],"join":["chat.*"],"read":["news"],"publish":[],"chat":true,"direct":false,"expires_at":%d}`, int64(4e12))
		case "hubbub.join":
			io.WriteString(w, " {}\n")
		case "hubbub.publish":
			io.WriteString(w, `{"content":{"text":"d**n", "n":12345678901234567890}}`)
		case "hubbub.request":
			io.WriteString(w, `{"content":null}`)
		}
	})
	q, _ := b.asks(nil)
	ctx := t.Context()
	var who auth.Identity
	err := q.Connect(ctx, Handshake{Asker: Asker{Client: ann.Client}, Address: "192.0.2.1", Query: "a=b", Headers: map[string]string{"cookie": "session=1"}}, &who)
	if err != nil {
		t.Fatal(err)
	}
	g := who.Grants
	if who.User != "ann" || string(who.Data) != `{"name":"Ann"}` || !slices.Equal(who.Rooms, []string{"lobby", "r"}) || !who.Expires.Equal(time.UnixMilli(4e12)) || g == nil {
		t.Fatalf("it is %+v", who)
	}
	if len(g.Join) != 1 || g.Join[0].String() != "chat.*" || len(g.Read) != 1 || len(g.Publish) != 0 || !g.Chat || g.Direct {
		t.Errorf("it is granted %+v", g)
	}
	if err := q.Join(ctx, ann, "r"); err != nil {
		t.Error(err)
	}
	content, err := q.Publish(ctx, ann, Draft{Room: "r", Key: "k", Content: []byte(`{"text":"<damn>"}`)})
	if err != nil || string(content) != `{"text":"d**n", "n":12345678901234567890}` {
		t.Errorf("%s is published, %v", content, err)
	}
	if reply, err := q.Request(ctx, ann, "price", []byte(`{"of":"tea"}`)); err != nil || string(reply) != "null" {
		t.Errorf("it is answered %s, %v", reply, err)
	}
	want := []map[string]any{
		{"type": "hubbub.connect", "node": "n1", "client": ann.Client, "address": "192.0.2.1", "query": "a=b", "headers": map[string]any{"cookie": "session=1"}},
		{"type": "hubbub.join", "node": "n1", "client": ann.Client, "user": "ann", "room": "r"},
		{"type": "hubbub.publish", "node": "n1", "client": ann.Client, "user": "ann", "room": "r", "key": "k", "content": map[string]any{"text": "<damn>"}},
		{"type": "hubbub.request", "node": "n1", "client": ann.Client, "user": "ann", "method": "price", "content": map[string]any{"of": "tea"}},
	}
	for i := range want {
		if fmt.Sprint(asked[i]) != fmt.Sprint(want[i]) {
			t.Errorf("it was asked\n%v, not\n%v", asked[i], want[i])
		}
	}
	for k := range questionKinds {
		counted(t, q, k, allowed, 1)
	}
	if n := b.connections.Load(); n != 1 {
		t.Errorf("%d connections were made for questions one after the other", n)
	}
	for _, c := range q.Counts() {
		if n := c.Times; len(n) != len(QuestionBounds)+1 || c.Sum <= 0 {
			t.Errorf("%s: its times are %v, %s in all", c.Question, n, c.Sum)
		}
	}
}

func TestAMessageToOneAndToAllIsToldApart(t *testing.T) {
	var asked []map[string]any
	b := serve(t, func(w http.ResponseWriter, _ *http.Request, question map[string]any) {
		asked = append(asked, question)
		io.WriteString(w, "{}")
	})
	q, _ := b.asks(nil)
	for _, d := range []Draft{{To: ann.Client, Content: []byte(`1`)}, {Content: []byte(`"as it was"`)}} {
		content, err := q.Publish(t.Context(), ann, d)
		if err != nil || string(content) != string(d.Content) {
			t.Errorf("%s: %s, %v", d.Content, content, err)
		}
	}
	if to := asked[0]["to"]; to != ann.Client || asked[0]["everyone"] != nil {
		t.Errorf("a direct message: %v", asked[0])
	}
	if asked[1]["everyone"] != true || asked[1]["to"] != nil || asked[1]["room"] != nil {
		t.Errorf("a chat message: %v", asked[1])
	}
}

func TestTheBackendRefuses(t *testing.T) {
	q, lines := serve(t, func(w http.ResponseWriter, _ *http.Request, question map[string]any) {
		if question["type"] == "hubbub.connect" {
			io.WriteString(w, `{"reject":{"reason":"not you","retry":false}}`)
			return
		}
		io.WriteString(w, `{"error":{"code":"rate_limited","message":"slowly"}}`)
	}).asks(nil)
	for k, err := range each(t.Context(), q) {
		var no *protocol.Error
		want := protocol.Error{Code: protocol.RateLimited, Message: "slowly"}
		if k == AskConnect {
			want = protocol.Error{Code: protocol.Forbidden, Message: "not you"}
		}
		if !errors.As(err, &no) || *no != want || errors.As(err, new(*Unanswered)) {
			t.Errorf("%s: %v", k, err)
		}
		counted(t, q, k, refused, 1)
	}
	if lines.String() != "" {
		t.Errorf("what the backend decides is logged: %s", lines)
	}
}

// What keeps an answer from counting, what a client is told then, and what the log says.
func TestWhatIsNoAnswer(t *testing.T) {
	unclear, down := protocol.Internal, protocol.Unavailable
	for name, is := range map[string]struct {
		answer func(w http.ResponseWriter)
		tells  protocol.Code
		logs   string
	}{
		"bad JSON":           {func(w http.ResponseWriter) { io.WriteString(w, `{`) }, unclear, "broken JSON"},
		"nothing":            {func(http.ResponseWriter) {}, unclear, "no JSON object"},
		"a field unknown":    {func(w http.ResponseWriter) { io.WriteString(w, `{"usr":"ann"}`) }, unclear, "the field 'usr' is not known"},
		"500":                {func(w http.ResponseWriter) { w.WriteHeader(500); io.WriteString(w, "{}") }, down, "status 500"},
		"503":                {func(w http.ResponseWriter) { w.WriteHeader(503) }, down, "status 503"},
		"429":                {func(w http.ResponseWriter) { w.WriteHeader(429) }, down, "status 429"},
		"408":                {func(w http.ResponseWriter) { w.WriteHeader(408) }, down, "status 408"},
		"599":                {func(w http.ResponseWriter) { w.WriteHeader(599) }, down, "status 599"},
		"499":                {func(w http.ResponseWriter) { w.WriteHeader(499) }, unclear, "status 499, not 200"},
		"404":                {func(w http.ResponseWriter) { w.WriteHeader(404); io.WriteString(w, "{}") }, unclear, "status 404, not 200"},
		"204":                {func(w http.ResponseWriter) { w.WriteHeader(204) }, unclear, "status 204, not 200"},
		"another type":       {func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/html"); io.WriteString(w, "{}") }, unclear, "Content-Type is 'text/html', not application/json"},
		"no type":            {func(w http.ResponseWriter) { w.Header()["Content-Type"] = nil; io.WriteString(w, "{}") }, unclear, "Content-Type is ''"},
		"10 MB":              {func(w http.ResponseWriter) { io.WriteString(w, strings.Repeat(" ", 10<<20)+"{}") }, unclear, "more than 6"},
		"10 MB in a stream":  {func(w http.ResponseWriter) { endless(w, 10<<20) }, unclear, "more than 6"},
		"a body cut short":   {func(w http.ResponseWriter) { w.Header().Set("Content-Length", "9"); io.WriteString(w, "{}") }, down, "unexpected EOF"},
		"a connection ended": {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, down, "EOF"},
		"headers of 1 MB":    {func(w http.ResponseWriter) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, down, "exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, lines := serve(t, func(w http.ResponseWriter, _ *http.Request, _ map[string]any) { is.answer(w) }).asks(nil)
			for k, err := range each(t.Context(), q) {
				var no *protocol.Error
				var u *Unanswered
				if !errors.As(err, &no) || no.Code != is.tells || !errors.As(err, &u) || !strings.Contains(u.Why.Error(), is.logs) {
					t.Errorf("%s: %v", k, err)
				}
				if !no.Code.Retry() || strings.Contains(no.Message, is.logs) {
					t.Errorf("%s: a client is told %q", k, no.Message)
				}
				what := unavailable
				if is.tells == unclear {
					what = notClear
				}
				counted(t, q, k, what, 1)
			}
			if !strings.Contains(lines.String(), is.logs) || strings.Contains(lines.String(), "of=all") {
				t.Errorf("the log is %s", lines)
			}
		})
	}
}

// endless writes so much in pieces.
func endless(w http.ResponseWriter, n int) {
	piece := bytes.Repeat([]byte(" "), 4096)
	for ; n > 0; n -= len(piece) {
		if _, err := w.Write(piece); err != nil {
			return
		}
		w.(http.Flusher).Flush()
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	var followed atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		q, _ := serve(t, func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
			http.Redirect(w, r, elsewhere.URL, status)
		}).asks(nil)
		var u *Unanswered
		if err := q.Join(t.Context(), ann, "r"); !errors.As(err, &u) || !strings.Contains(u.Why.Error(), "a Location, which is not followed") {
			t.Errorf("%d: %v", status, err)
		}
	}
	if followed.Load() {
		t.Error("it was followed")
	}
}

func TestABackendThatIsDown(t *testing.T) {
	b := says(t, "{}")
	q, lines := b.asks(nil)
	b.Close()
	for k, err := range each(t.Context(), q) {
		var no *protocol.Error
		if !errors.As(err, &no) || no.Code != protocol.Unavailable {
			t.Errorf("%s: %v", k, err)
		}
		counted(t, q, k, unavailable, 1)
	}
	if !strings.Contains(lines.String(), "connection refused") {
		t.Errorf("the log is %s", lines)
	}
}

// One that takes the question and says nothing, one that begins to answer, and one that doesn't even take it.
func TestABackendThatIsTooSlow(t *testing.T) {
	over := make(chan struct{})
	silent := serve(t, func(http.ResponseWriter, *http.Request, map[string]any) { <-over })
	halting := serve(t, func(w http.ResponseWriter, _ *http.Request, _ map[string]any) {
		io.WriteString(w, `{"content":`)
		w.(http.Flusher).Flush()
		<-over
	})
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	defer close(over)
	for name, url := range map[string]string{"silent": silent.URL, "halting": halting.URL, "deaf": "http://" + deaf.Addr().String()} {
		q, lines := silent.asks(func(c *QuestionsConfig) { c.URL, c.Timeout = url, 50*time.Millisecond })
		for k, err := range each(t.Context(), q) {
			var no *protocol.Error
			if !errors.As(err, &no) || no.Code != protocol.Unavailable {
				t.Errorf("%s, %s: %v", name, k, err)
			}
			counted(t, q, k, unavailable, 1)
		}
		if !strings.Contains(lines.String(), "no answer within 50ms") {
			t.Errorf("%s: the log is %s", name, lines)
		}
	}
}

// A backend that has been taken over, or no HTTP server at all, gets no hold of who asks.
func TestABackendThatLeavesHTTP(t *testing.T) {
	for head, logs := range map[string]string{
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n": "status 101, not 200",
		"SSH-2.0-OpenSSH\r\n":           "malformed HTTP",
		"HTTP/1.1 100 Continue\r\n\r\n": "no answer within",
		"HTTP/1.0 200 OK\r\n\r\n{}":     "no answer within", // and no end
	} {
		q, _ := serve(t, func(w http.ResponseWriter, _ *http.Request, _ map[string]any) {
			nc, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			io.WriteString(nc, head)
			io.Copy(io.Discard, nc) // until the other end is closed
		}).asks(func(c *QuestionsConfig) { c.Timeout = 200 * time.Millisecond })
		var u *Unanswered
		if err := q.Join(t.Context(), ann, "r"); !errors.As(err, &u) || !strings.Contains(u.Why.Error(), logs) {
			t.Errorf("%q: %v", head, err)
		}
	}
}

func TestWhoIsGoneIsNotAskedFor(t *testing.T) {
	asked, left := make(chan struct{}), make(chan struct{})
	q, lines := serve(t, func(_ http.ResponseWriter, r *http.Request, _ map[string]any) {
		close(asked)
		<-r.Context().Done() // the connection has ended
		close(left)
	}).asks(nil)
	ctx, gone := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- q.Join(ctx, ann, "r") }()
	<-asked
	gone()
	if err := <-ended; err == nil {
		t.Error("it was allowed")
	}
	select {
	case <-left:
	case <-time.After(patience):
		t.Fatal("the backend is still asked")
	}
	counted(t, q, AskJoin, abandoned, 1)
	if lines.String() != "" {
		t.Errorf("the log is %s", lines)
	}
}

func TestBeyondTheBoundNobodyIsAsked(t *testing.T) {
	asked, answer := make(chan struct{}, 100), make(chan struct{})
	b := serve(t, func(w http.ResponseWriter, _ *http.Request, _ map[string]any) {
		asked <- struct{}{}
		<-answer
		io.WriteString(w, "{}")
	})
	q, _ := b.asks(func(c *QuestionsConfig) { c.AtOnce = 3 })
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if err := q.Join(t.Context(), ann, "r"); err != nil {
				t.Error(err)
			}
		})
	}
	for range 3 {
		<-asked
	}
	var no *protocol.Error
	if err := q.Join(t.Context(), ann, "r"); !errors.As(err, &no) || no.Code != protocol.Overloaded {
		t.Errorf("the fourth: %v", err)
	}
	counted(t, q, AskJoin, overloaded, 1)
	// Those who want in have places of their own.
	all.Go(func() {
		if err := q.Connect(t.Context(), Handshake{}, new(auth.Identity)); err != nil {
			t.Error(err)
		}
	})
	<-asked
	close(answer)
	all.Wait()
	if err := q.Join(t.Context(), ann, "r"); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
	if n := b.connections.Load(); n > 4 {
		t.Errorf("%d connections were made for four questions at once", n)
	}
}

// A backend that closes a kept connection is asked once more on another one; but for what may have had an effect.
func TestAKeptConnectionThatIsClosedLosesNoQuestion(t *testing.T) {
	var n atomic.Int64
	var ids sync.Map
	b := serve(t, func(w http.ResponseWriter, r *http.Request, question map[string]any) {
		if n.Add(1)%2 == 0 {
			ids.Store(r.Header.Get("webhook-id"), true)
			panic(http.ErrAbortHandler)
		}
		if _, again := ids.Load(r.Header.Get("webhook-id")); n.Load() == 3 && !again {
			t.Error("it is asked once more under another id")
		}
		io.WriteString(w, `{"content":1}`)
	})
	q, _ := b.asks(nil)
	for range 2 {
		if _, err := q.Publish(t.Context(), ann, Draft{Room: "r", Content: []byte("1")}); err != nil {
			t.Error(err)
		}
	}
	if n.Load() != 3 {
		t.Errorf("it was asked %d times", n.Load())
	}
	if _, err := q.Request(t.Context(), ann, "pay", nil); err == nil || n.Load() != 4 {
		t.Errorf("a request: %v, and the backend was asked %d times", err, n.Load())
	}
}

func TestTLSIsVerified(t *testing.T) {
	b := &backend{t: t}
	b.Server = httptest.NewUnstartedServer(b.handler(func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
		if r.ProtoMajor != 1 {
			t.Errorf("it is asked by %s", r.Proto)
		}
		io.WriteString(w, "{}")
	}))
	b.EnableHTTP2 = true
	b.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	b.StartTLS()
	t.Cleanup(b.Close)
	q, lines := b.asks(nil)
	if err := q.Join(t.Context(), ann, "r"); err == nil || !strings.Contains(lines.String(), "certificate") {
		t.Errorf("a certificate that nobody vouches for: %v, and the log is %s", err, lines)
	}
	roots := x509.NewCertPool()
	roots.AddCert(b.Certificate())
	q, _ = b.asks(func(c *QuestionsConfig) { c.TLS = &tls.Config{RootCAs: roots} })
	if err := q.Join(t.Context(), ann, "r"); err != nil {
		t.Error(err)
	}
}

func TestNamesOfQuestions(t *testing.T) {
	set, err := ParseQuestions([]string{"request", "connect"})
	if err != nil || set != (QuestionSet{AskConnect: true, AskRequest: true}) {
		t.Errorf("%v, %v", set, err)
	}
	for names, says := range map[string]string{"leave": `"leave"`, "join,join": `"join"`, "Connect,x": `"Connect", "x"`, "": `""`} {
		if _, err := ParseQuestions(strings.Split(names, ",")); err == nil || !strings.HasPrefix(err.Error(), says+": ") {
			t.Errorf("%q: %v", names, err)
		}
	}
	var none *Questions
	none.Close()
	if none.Asks(AskJoin) || none.Counts() != nil {
		t.Error("nil asks")
	}
}

func TestURLsThatCantBePostedTo(t *testing.T) {
	for url, says := range map[string]string{
		"": "http://", "backend:80": "http://", "ftp://x/": "http://", "http://": "no host", "http:///hook": "no host",
		"https://ann:pw@x/": "user's name", "http://x/#a": "fragment", "http://x:99999/": "port", "https://x:0/": "port", "http://x:y/": "no URL", "http://x/\n": "no URL", "http://ann:pw#@x/": "no URL",
	} {
		if err := CheckURL(url); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "pw") {
			t.Errorf("%q: %v", url, err)
		}
	}
	for _, url := range []string{"http://127.0.0.1:3000", "https://backend.example/hook?a=b", "http://[::1]:80/"} {
		if err := CheckURL(url); err != nil {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// Whatever an answer is, it is understood to the letter or not at all.
func TestAnswersToTheLetter(t *testing.T) {
	now := time.UnixMilli(2e12)
	connect := func(raw string) error { _, err := answerToConnect([]byte(raw), 2, now); return err }
	join := func(raw string) error { return answerToJoin([]byte(raw)) }
	publish := func(raw string) error { _, err := answerToPublish([]byte(raw), 5); return err }
	request := func(raw string) error { _, err := answerToRequest([]byte(raw), 5); return err }
	for _, c := range []struct {
		of   string
		take func(string) error
		raw  string
		says string // empty: it is understood
	}{
		{"connect", connect, `{}`, ""},
		{"connect", connect, `{"user":null,"data":null,"rooms":null,"join":null,"chat":null,"expires_at":null,"reject":null}`, ""},
		{"connect", connect, `{"user":"ann","data":[1],"rooms":["a","b"],"join":["*"],"direct":true,"expires_at":2000000000001}`, ""},
		{"connect", connect, `{"user":""}`, "user: the user's name is empty; leave it out"},
		{"connect", connect, `{"user":7}`, "user: it is no text"},
		{"connect", connect, `{"user":"a\u0000"}`, "control character"},
		{"connect", connect, `{"user":"\ud800"}`, "surrogate"},
		{"connect", connect, "{\"user\":\"\xff\"}", "UTF-8"},
		{"connect", connect, `{"user":"` + strings.Repeat("x", 256) + `"}`, "256 bytes"},
		{"connect", connect, `{"User":"ann"}`, "the field 'User' is not known"},
		{"connect", connect, `{"user":"ann","user":"bob"}`, "user: it is there twice"},
		{"connect", connect, `{"us\u0065r":"ann","user":"bob"}`, "user: it is there twice"},
		{"connect", connect, `{"rooms":"a"}`, "rooms: it is no list of texts"},
		{"connect", connect, `{"rooms":[null]}`, "rooms: '': room is empty"},
		{"connect", connect, `{"rooms":["a","a"]}`, "rooms: 'a' is there twice"},
		{"connect", connect, `{"rooms":["a","b","c"]}`, "in 2 at most"},
		{"connect", connect, `{"join":"*"}`, "join: it is no list of texts"},
		{"connect", connect, `{"join":[1]}`, "join: it is no list of texts"},
		{"connect", connect, `{"read":[null]}`, "a pattern is empty"},
		{"connect", connect, `{"chat":"yes"}`, "chat: it is neither true nor false"},
		{"connect", connect, `{"direct":1}`, "direct: it is neither true nor false"},
		{"connect", connect, `{"expires_at":2000000000000}`, "2000000000000 is no time to come, in milliseconds"},
		{"connect", connect, `{"expires_at":2000000100}`, "in milliseconds"},
		{"connect", connect, `{"expires_at":9007199254740992000}`, "no time to come"},
		{"connect", connect, `{"expires_at":2000000000001.5}`, "no whole number"},
		{"connect", connect, `{"expires_at":"2033-05-18"}`, "no whole number"},
		{"connect", connect, `{"data":"` + strings.Repeat("x", 4095) + `"}`, "data: it has 4097 bytes"},
		{"connect", connect, `{"error":{"code":"forbidden"}}`, "the field 'error' is not known"},
		{"connect", connect, `{"reject":true}`, "reject: it is no JSON object"},
		{"connect", connect, `{"reject":{},"user":"ann"}`, "other fields beside it"},
		{"connect", connect, `{"reject":{"retry":"no"}}`, "reject: retry: it is neither true nor false"},
		{"connect", connect, `{"reject":{"Reason":"no"}}`, "'Reason' is not known"},
		{"connect", connect, `{"reject":{"reason":"` + strings.Repeat("x", 1025) + `"}}`, "reason: it has 1025 bytes"},
		{"join", join, `{"error":null}`, ""},
		{"join", join, `{"user":"ann"}`, "'user' is not known"},
		{"join", join, `{"ok":false}`, "'ok' is not known"},
		{"join", join, `false`, "no JSON object"},
		{"join", join, `[]`, "no JSON object"},
		{"join", join, `{} {}`, "something follows"},
		{"join", join, `{"error":{}}`, "code: '' is no code"},
		{"join", join, `{"error":{"code":"Forbidden"}}`, "'Forbidden' is no code"},
		{"join", join, `{"error":{"code":"forbidden","message":"` + strings.Repeat("x", 1025) + `"}}`, "message: it has 1025 bytes"},
		{"join", join, `{"error":{"code":"forbidden","retry":true}}`, "'retry' is not known"},
		{"join", join, `{"error":"forbidden"}`, "error: it is no JSON object"},
		{"join", join, `{"error":` + strings.Repeat("[", 200), "broken JSON"},
		{"publish", publish, `{"content":"abc"}`, ""},
		{"publish", publish, `{"content":"abcd"}`, "content: it has 6 bytes, at most 5"},
		{"publish", publish, `{"content":null}`, "leave it out"},
		{"publish", publish, `{"content":1,"error":{"code":"forbidden"}}`, "content is there too"},
		{"publish", publish, `{"Content":1}`, "'Content' is not known"},
		{"request", request, `{"content":12345}`, ""},
		{"request", request, `{}`, "content: it is missing"},
		{"request", request, `{"content":123456}`, "content: it has 6 bytes"},
		{"request", request, `{"content":null,"error":{"code":"forbidden"}}`, "content is there too"},
	} {
		err := c.take(c.raw)
		var no *protocol.Error
		if c.says == "" && err != nil || c.says != "" && (err == nil || errors.As(err, &no) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s %.80s: %v, and not %q", c.of, c.raw, err, c.says)
		}
	}
	for raw, want := range map[string]protocol.Error{
		`{"reject":{}}`: {Code: protocol.Forbidden, Message: "refused"},
		`{"reject":{"retry":true,"reason":"later"}}`: {Code: protocol.Unavailable, Message: "later"},
	} {
		var no *protocol.Error
		if err := connect(raw); !errors.As(err, &no) || *no != want {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

// An answer changes nothing of a user who is known, nor does one that isn't understood.
func TestConnectCantChangeAUser(t *testing.T) {
	for raw, is := range map[string]struct{ user, fails string }{
		`{"user":"bob","join":["*"]}`: {"ann", `user: "bob", but it has been identified as "ann" already`},
		`{"user":"ann"}`:              {"ann", ""},
		`{}`:                          {"ann", ""},
		`{"join":["*"],"x":1}`:        {"ann", "not known"},
	} {
		q, lines := says(t, raw).asks(nil)
		who := auth.Identity{User: "ann"}
		err := q.Connect(t.Context(), Handshake{}, &who)
		if who.User != is.user || who.Grants != nil || (err == nil) != (is.fails == "") || !strings.Contains(strings.ReplaceAll(lines.String(), `\"`, `"`), is.fails) {
			t.Errorf("%s: %+v, %v, and the log is %s", raw, who, err, lines)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	for _, raw := range []string{
		`{}`, `{"user":"ann","data":{"a":1},"rooms":["r"],"join":["chat.*"],"publish":[],"read":["*"],"chat":true,"direct":false,"expires_at":4000000000000}`,
		`{"reject":{"reason":"no","retry":true}}`, `{"content":{"a":[1]}}`, `{"error":{"code":"forbidden","message":"no"}}`, `{"content":null}`, `{"a":1,"a":2}`,
	} {
		f.Add([]byte(raw))
	}
	now := time.UnixMilli(2e12)
	f.Fuzz(func(t *testing.T, raw []byte) {
		who, err := answerToConnect(raw, 10, now)
		if err == nil {
			if who.User != "" && protocol.CheckUser(who.User) != nil || len(who.Rooms) > 10 || len(who.Data) > protocol.MaxData || !who.Expires.IsZero() && !who.Expires.After(now) {
				t.Errorf("%s: %+v", raw, who)
			}
			if !json.Valid(raw) {
				t.Errorf("%q is no JSON", raw)
			}
			known := map[string]any{}
			json.Unmarshal(raw, &known)
			for _, name := range []string{"user", "data", "rooms", "join", "publish", "read", "chat", "direct", "expires_at", "reject"} {
				delete(known, name)
			}
			if len(known) > 0 {
				t.Errorf("%s: %v are not looked at", raw, slices.Collect(maps.Keys(known)))
			}
		}
		answerToJoin(raw)
		for _, take := range []func([]byte, int) ([]byte, error){answerToPublish, answerToRequest} {
			if content, err := take(raw, 100); err == nil && content != nil && (len(content) > 100 || !json.Valid(content)) {
				t.Errorf("%s: the content %q", raw, content)
			}
		}
	})
}

// What a question costs; the time of the backend, which is in the same process, is in it.
func BenchmarkQuestion(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
	}))
	defer server.Close()
	key, err := ParseSecrets([]string{newSecret})
	if err != nil {
		b.Fatal(err)
	}
	q := NewQuestions(QuestionsConfig{
		URL: server.URL, Kinds: QuestionSet{AskPublish: true}, Secrets: key, Timeout: patience, AtOnce: 8, MaxContent: 1000, Log: slog.New(slog.DiscardHandler),
	})
	defer q.Close()
	content := []byte(`{"text":"` + strings.Repeat("x", 200) + `"}`)
	for b.Loop() {
		if _, err := q.Publish(b.Context(), ann, Draft{Room: "r", Content: content}); err != nil {
			b.Fatal(err)
		}
	}
}
