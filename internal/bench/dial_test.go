package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

// serve gives the WebSocket address of a handler.
func serve(t *testing.T, h http.Handler) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http")
}

// answers listens and answers every connection with the same bytes; the empty text keeps silent.
func answers(t *testing.T, text string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go func() {
				b := make([]byte, 4096)
				if n, _ := c.Read(b); n > 0 {
					c.Write([]byte(text))
				}
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "ws://" + l.Addr().String()
}

const upgraded = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"

// What is no upgrade is told as what it is, and the run ends soon though many connections were asked for.
func TestRefusedHandshakes(t *testing.T) {
	for _, c := range []struct{ name, answer, says string }{
		{"full", "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\n\r\n{\"detail\":\"full\"}", "503 Service Unavailable: {\"detail\":\"full\"}"},
		{"not found", "HTTP/1.1 404 Not Found\r\n\r\n", "refused with 404 Not Found"},
		{"another key", upgraded + "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", "Sec-WebSocket-Accept is missing or wrong"},
		{"no key", upgraded + "\r\n", "Sec-WebSocket-Accept is missing or wrong"},
		{"no upgrade", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "no Upgrade: websocket"},
		{"an extension", upgraded + "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n\r\n", "without an offer"},
		{"another protocol", "SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP/1.1"},
		{"endless", strings.Repeat("x", maxHead+1), "head has more than"},
		{"silence", "", "timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Options{Mode: Echo, URL: answers(t, c.answer), Conns: 1000, Concurrency: 10, Timeout: 100 * time.Millisecond}
			if c.answer != "" {
				o.Timeout = patience
			}
			r := run(t, o)
			err := r.Err()
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "only 0 of 1000 connections opened") {
				t.Errorf("says %v, want %s", err, c.says)
			}
			tries := 0
			for _, n := range r.Faults.Failed {
				tries += n
			}
			if tries < hopeless || tries > hopeless+o.Concurrency {
				t.Errorf("%d tries", tries)
			}
			if c.answer == "" {
				return
			}
			o.Mode = Connect
			if r := run(t, o); r.Ended != errHopeless.Error() || r.Err() == nil {
				t.Errorf("connect ended: %s, %v", r.Ended, r.Err())
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if _, err := Run(t.Context(), Options{Mode: Fanout, URL: "ws://" + addr}); err == nil || !strings.Contains(err.Error(), "nothing listens at "+addr) {
		t.Errorf("says %v", err)
	}
}

func TestTLS(t *testing.T) {
	s := newChatServer(t, nil)
	target := strings.Replace(strings.TrimSuffix(s.URL, "/chat"), "ws", "http", 1)
	// The same server behind TLS.
	secure := httptest.NewUnstartedServer(proxy(t, target))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	o := s.options()
	o.URL = "wss" + strings.TrimPrefix(secure.URL, "https") + "/chat"

	if err := run(t, o).Err(); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	o.TLS = &tls.Config{RootCAs: roots}
	if r := run(t, o); r.Err() != nil || r.Delivered == 0 {
		t.Errorf("a known one: %v", r.Err())
	}
	o.TLS = &tls.Config{InsecureSkipVerify: true}
	if r := run(t, o); r.Err() != nil || r.Delivered == 0 {
		t.Errorf("unchecked: %v", r.Err())
	}
}

// proxy passes upgrades on, byte for byte.
func proxy(t *testing.T, target string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to, err := net.Dial("tcp", strings.TrimPrefix(target, "http://"))
		if err != nil {
			t.Error(err)
			return
		}
		defer to.Close()
		from, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer from.Close()
		r.Write(to)
		done := make(chan struct{})
		go func() {
			defer close(done)
			buffered.Reader.WriteTo(to)
			to.(*net.TCPConn).CloseWrite()
		}()
		b := make([]byte, 4096)
		for {
			n, err := to.Read(b)
			if _, werr := from.Write(b[:n]); err != nil || werr != nil {
				break
			}
		}
		from.Close()
		<-done
	})
}

// Many connections to loopback come from several addresses, and those that are closed at once always do.
func TestSourceAddresses(t *testing.T) {
	url := answers(t, "")
	for _, c := range []struct {
		o    Options
		want int
	}{{Options{Mode: Idle, Conns: 25_000}, 0}, {Options{Mode: Idle, Conns: 60_000}, 3}, {Options{Mode: Connect}, connectSources}} {
		c.o.URL = url
		o := c.o.withDefaults()
		u, err := o.parseURL()
		if err != nil {
			t.Fatal(err)
		}
		d, err := newDialer(context.Background(), &o, u)
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "linux" {
			c.want = 0
		}
		if d.sources != c.want {
			t.Errorf("%s of %d: %d sources, want %d", o.Mode, o.Conns, d.sources, c.want)
		}
	}
}

func TestConnectionsHaveToFitUnderTheLimitOfFiles(t *testing.T) {
	o := Options{Mode: Idle, Conns: 30_000}
	err := checkFiles(&o, 20_000)
	if err == nil || !strings.Contains(err.Error(), "30,000 connections need 30,064 open files, the limit is 20,000") {
		t.Errorf("says %v", err)
	}
	if err := checkFiles(&o, 30_064); err != nil {
		t.Error(err)
	}
	o = Options{Mode: Connect, Conns: 30_000, Concurrency: 64}
	if err := checkFiles(&o, 1024); err != nil {
		t.Error(err)
	}
}

func TestOptionsThatCantBe(t *testing.T) {
	for want, o := range map[string]Options{
		"size 10":              {Mode: Echo, Size: 10},
		"members 1":            {Mode: Fanout, Members: 1},
		"publishers 101":       {Mode: Fanout, Publishers: 101},
		"window 40000":         {Mode: Echo, Window: 40_000},
		`url "ftp://x"`:        {Mode: Echo, URL: "ftp://x"},
		`url "ws://"`:          {Mode: Echo, URL: "ws://"},
		`url "ws://a:b@c"`:     {Mode: Echo, URL: "ws://a:b@c"},
		`header "x"`:           {Mode: Echo, Header: []string{"x"}},
		`reply "x"`:            {Mode: Echo, Reply: []string{"x"}},
		"%q is no":             {Mode: Echo, Publish: "%q %p"},
		"has no %p":            {Mode: Echo, Publish: "hello"},
		"a % at the end":       {Mode: Fanout, Init: []string{"100 %"}, Publish: "%p"},
		"init without publish": {Mode: Fanout, Init: []string{"J"}},
		`order "x"`:            {Mode: Fanout, Order: "x"},
		"rate -1":              {Mode: Fanout, Rate: -1},
		"duration -1s":         {Mode: Fanout, Duration: -time.Second},
		"to keep an eye on":    {Mode: Fanout, Members: 10_000, Publishers: 10_000},
		`mode ""`:              {},
	} {
		if o.URL == "" {
			o.URL = "ws://127.0.0.1:1"
		}
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestURLs(t *testing.T) {
	for in, want := range map[string]string{
		"": "ws://localhost:8080/ws", "ws://h": "ws://h/ws", "h:9": "ws://h:9/ws", "https://h": "wss://h/ws", "http://h/": "ws://h/", "wss://h/x?y=1#z": "wss://h/x?y=1",
	} {
		o := Options{Mode: Fanout, URL: in}.withDefaults()
		u, err := o.parseURL()
		if err != nil || u.String() != want {
			t.Errorf("%q becomes %v, %v", in, u, err)
		}
	}
	o := Options{Mode: Echo}.withDefaults()
	if u, err := o.parseURL(); err != nil || u.Path != "/echo" {
		t.Errorf("echo goes to %v, %v", u, err)
	}
}
