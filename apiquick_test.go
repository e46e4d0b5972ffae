package hubbub_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

const quickKey = "0123456789abcdef"

// quickConfig has a key that may publish, and one that may not.
func quickConfig(t testing.TB) hubbub.Config {
	t.Helper()
	cfg := hubbub.Config{PingInterval: 24 * time.Hour}
	for secret, right := range map[string]string{quickKey: "publish", "f" + quickKey: "read"} {
		key, err := hubbub.APIKeyOf(right, secret, right)
		if err != nil {
			t.Fatal(err)
		}
		cfg.APIKeys = append(cfg.APIKeys, key)
	}
	return cfg
}

// plainPublish is a request that needs no net/http, with more header lines.
func plainPublish(body string, lines ...string) string {
	head := fmt.Sprintf("POST /api/v1/publish HTTP/1.1\r\nHost: chat.example:8080\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", quickKey, len(body))
	for _, line := range lines {
		head += line + "\r\n"
	}
	return head + "\r\n" + body
}

// lastRequest has the server answer and close.
const lastRequest = "GET /nowhere HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"

// varies is what two servers may say differently: the time, epochs, and a spread delay.
var varies = regexp.MustCompile(`Date: [^\r]*|"epoch":"[^"]*"|Retry-After: \d|"rate":[0-9.]+`)

// comparable is a stream of answers without what varies.
func comparable(stream []byte) string { return string(varies.ReplaceAll(stream, []byte("…"))) }

// bothWays is a server of ours, and the address of the like behind a server of net/http's.
func bothWays(t *testing.T, cfg hubbub.Config) (quick *rawtest.Server, netHTTP string) {
	t.Helper()
	quick = rawtest.Start(t, cfg)
	plain, err := hubbub.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: plain, ReadHeaderTimeout: time.Minute, MaxHeaderBytes: 32 << 10}
	go srv.Serve(l)
	t.Cleanup(func() {
		srv.Close()
		if err := plain.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return quick, l.Addr().String()
}

// sameAnswers sends a stream to all in one piece and in two, and compares what they say. One has TLS, where it isn't nil.
func sameAnswers(t *testing.T, stream, netHTTP string, quick, secure *rawtest.Server) {
	t.Helper()
	dial := func(addr string) net.Conn {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		return nc
	}
	for _, at := range []int{len(stream), len(stream) / 3} {
		want := exchange(t, dial(netHTTP), stream, at)
		if got := exchange(t, dial(quick.Addr), stream, at); got != want {
			t.Errorf("cut at %d: got\n%s\nwant\n%s", at, got, want)
		}
		if secure == nil {
			continue
		}
		if got := exchange(t, tls.Client(dial(secure.Addr), &tls.Config{InsecureSkipVerify: true}), stream, at); got != want {
			t.Errorf("cut at %d, over TLS: got\n%s\nwant\n%s", at, got, want)
		}
	}
}

// Whatever comes on a connection, a server that answers some of it without net/http says what net/http would, byte for
// byte, also where it comes in two pieces.
func TestAPIAnswersAreTheSameWithoutNetHTTP(t *testing.T) {
	body := `{"room":"r","content":{"text":"hello"}}`
	good := plainPublish(body)
	with := func(old, to string) string { return strings.Replace(good, old, to, 1) }
	quick, netHTTP := bothWays(t, quickConfig(t))
	for name, stream := range map[string]string{
		"one":                       good,
		"nothing before":            "",
		"many":                      strings.Repeat(good, 30), // more than is read at once
		"once":                      plainPublish(body, "Idempotency-Key: a") + plainPublish(body, "idempotency-key: a") + plainPublish(body, "Idempotency-Key: "),
		"to many":                   plainPublish(`{"rooms":["a","\u0007","c"],"content":1}`),
		"to a client who isn't":     plainPublish(`{"client":"11111111-2222-4333-8444-555555555555","content":1}`) + good,
		"to a user who isn't":       plainPublish(`{"user":"ann","content":1}`) + good,
		"to all":                    plainPublish(`{"everyone":true,"content":1}`),
		"to a room without a name":  plainPublish(`{"room":"","content":1}`) + good,
		"a typo":                    plainPublish(`{"room":"r","contents":1}`) + good,
		"no body":                   plainPublish("") + good,
		"another call between":      good + "GET /api/v1/rooms HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer f" + quickKey + "\r\n\r\n" + good,
		"another key":               with(quickKey, "f"+quickKey) + good,
		"a wrong key":               with(quickKey, "x"+quickKey) + good,
		"no key":                    with("Authorization", "X-Authorization") + good,
		"two keys":                  plainPublish(body, "Authorization: Bearer "+quickKey) + good,
		"a scheme in small letters": with("Bearer", "bearer") + good,
		"basic":                     with("Bearer", "Basic") + good,
		"small letters":             with("Content-Length", "content-length") + good,
		"a browser's headers":       plainPublish(body, "Accept: */*", "User-Agent: x", "Accept-Encoding: gzip, deflate", "Connection: keep-alive", "Sec-Fetch-Mode: cors"),
		"an unknown header":         plainPublish(body, "X-Forwarded-For: 192.0.2.1") + good,
		"another type":              with("application/json", "text/plain") + good,
		"a charset":                 with("application/json", "application/json; charset=utf-8") + good,
		"a query":                   with("publish ", "publish?x=1 ") + good,
		"a whole address":           with("/api", "http://chat.example:8080/api") + good,
		"HTTP/1.0":                  with("HTTP/1.1", "HTTP/1.0"),
		"HTTP/2.0":                  with("HTTP/1.1", "HTTP/2.0"),
		"a close":                   plainPublish(body, "Connection: close") + good,
		"an upgrade":                plainPublish(body, "Connection: upgrade", "Upgrade: websocket") + good,
		"expected":                  plainPublish(body, "Expect: 100-continue") + good,
		"expected otherwise":        plainPublish(body, "Expect: miracles") + good,
		"chunks":                    with(fmt.Sprintf("Content-Length: %d", len(body)), "Transfer-Encoding: chunked") + good,
		"chunks and a length":       plainPublish("5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked") + good,
		"chunks by a trick":         plainPublish(body, "Transfer-Encoding : chunked") + good,
		"two lengths":               plainPublish(body, "Content-Length: 5") + good,
		"two lengths alike":         plainPublish(body, fmt.Sprintf("Content-Length: %d", len(body))) + good,
		"a list of lengths":         with(fmt.Sprintf("Length: %d", len(body)), fmt.Sprintf("Length: %[1]d, %[1]d", len(body))) + good,
		"a length with a sign":      with("Length: ", "Length: +") + good,
		"a length with a zero":      with("Length: ", "Length: 0") + good,
		"a length in hexadecimal":   with("Length: ", "Length: 0x") + good,
		"a negative length":         with("Length: ", "Length: -") + good,
		"a shorter length":          with(fmt.Sprint("Length: ", len(body)), "Length: 5") + good,
		"a longer length":           with(fmt.Sprint("Length: ", len(body)), "Length: 60") + good,
		"a folded line":             with("Content-Type: ", "Content-Type:\r\n ") + good,
		"no space":                  with("Content-Type: ", "Content-Type:") + good,
		"two spaces":                with("Content-Type: ", "Content-Type:  ") + good,
		"a space behind":            with("application/json", "application/json ") + good,
		"a space before the colon":  with("Content-Length:", "Content-Length :") + good,
		"a line feed alone":         with("json\r\n", "json\n") + good,
		"all line feeds alone":      strings.ReplaceAll(good, "\r\n", "\n") + good,
		"a carriage return within":  with("chat.example", "chat\rexample") + good,
		"a zero byte":               with("chat.example", "chat\x00example") + good,
		"no host":                   with("Host: chat.example:8080\r\n", "") + good,
		"two hosts":                 plainPublish(body, "Host: other") + good,
		"a host that is none":       with("chat.example", "chat/example") + good,
		"an empty line before":      "\r\n" + good,
		"a method in small letters": with("POST", "post") + good,
		"a path with dots":          with("/api/v1/", "/api/v1/../v1/") + good,
		"an escaped path":           with("publish", "%70ublish") + good,
		"a long head":               plainPublish(body, "User-Agent: "+strings.Repeat("x", 5000)) + good,
		"too long a head":           plainPublish(body, "User-Agent: "+strings.Repeat("x", 40<<10)) + good,
		"a large body":              plainPublish(`{"room":"r","content":"`+strings.Repeat("x", 20_000)+`"}`) + good,
	} {
		t.Run(name, func(t *testing.T) { sameAnswers(t, stream+lastRequest, netHTTP, quick, nil) })
	}
	if _, used := hubbub.Quick(quick.Server, []byte(good)); used != len(good) {
		t.Errorf("%d bytes of %d are answered without net/http: nothing was compared", used, len(good))
	}
}

// exchange sends a stream in two pieces, the second when the first can have been read, and gives all that comes back until
// the connection's end.
func exchange(t *testing.T, nc net.Conn, stream string, at int) string {
	t.Helper()
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(rawtest.Patience))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.WriteString(nc, stream[:at])
		if at < len(stream) {
			time.Sleep(time.Millisecond) // whether it was makes no difference
			io.WriteString(nc, stream[at:])
		}
	}()
	got, err := io.ReadAll(nc)
	if err != nil && len(got) == 0 {
		t.Fatal(err)
	}
	nc.Close()
	<-sent
	return comparable(got)
}

// An idle connection of the API's ends with the server, and is none of what Shutdown waits for.
func TestAPIConnectionsEndAtShutdown(t *testing.T) {
	s := rawtest.Start(t, quickConfig(t))
	nc, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(rawtest.Patience))
	io.WriteString(nc, plainPublish(`{"room":"r","content":1}`))
	r := bufio.NewReader(nc)
	got, err := http.ReadResponse(r, nil)
	if err != nil || got.StatusCode != 200 {
		t.Fatal(got, err)
	}
	io.Copy(io.Discard, got.Body)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("behind the end: %v", err)
	}
}

// What is answered without net/http is answered by it in the same way, and it sees the next request begin at the same
// byte.
func FuzzQuickAnswers(f *testing.F) {
	body := `{"room":"r","content":1}`
	for _, seed := range []string{plainPublish(body), plainPublish(body, "Idempotency-Key: k", "Connection: keep-alive", "Accept: */*"), plainPublish(`{"rooms":["a",""],"content":"x","key":"k","from":"me"}`),
		plainPublish(body, "Transfer-Encoding: chunked"), plainPublish(body, "Content-Length: 3"), plainPublish(body) + plainPublish(body)} {
		f.Add([]byte(seed))
	}
	newServer := func() *hubbub.Server {
		s, err := hubbub.New(quickConfig(f))
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() {
			if err := s.Shutdown(context.Background()); err != nil {
				f.Error(err)
			}
		})
		return s
	}
	quick, plain := newServer(), newServer()
	conns := &pipes{incoming: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: plain}
	served := make(chan error)
	go func() { served <- srv.Serve(conns) }()
	f.Cleanup(func() {
		srv.Close()
		<-served
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := bytes.Clone(b)
		got, used := hubbub.Quick(quick, b)
		if !bytes.Equal(b, whole) || used < 0 || used > len(b) || (used == 0) != (got == nil) {
			t.Fatalf("%d of %q used, which was %q", used, b, whole)
		}
		if used == 0 {
			return
		}
		near, far := net.Pipe()
		defer far.Close()
		conns.incoming <- near
		go io.WriteString(far, string(b[:used])+lastRequest)
		all, err := io.ReadAll(far)
		if err != nil {
			t.Fatal(err)
		}
		first, next, _ := bytes.Cut(all, []byte("HTTP/1.1 404 Not Found\r\n"))
		if comparable(first) != comparable(got) || len(next) == 0 {
			t.Fatalf("%q is answered by\n%s\nand by net/http with\n%s", b[:used], got, all)
		}
	})
}
