package hubbub_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// pipes is a listener whose connections hold nothing: what one side writes waits until the other has read it.
type pipes struct {
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-l.incoming:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// ask sends a request over a connection of its own; whoever wants the answer reads it.
func (l *pipes) ask(t *testing.T, head string) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close() })
	near.SetDeadline(time.Now().Add(time.Minute))
	select {
	case l.incoming <- far:
	case <-time.After(time.Minute):
		t.Fatal("nobody accepts a connection")
	}
	if _, err := io.WriteString(near, head); err != nil {
		t.Fatal(err)
	}
	return near
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: a.example\r\n\r\n" }

func servePipes(t *testing.T, s *rawtest.Server) *pipes {
	l := &pipes{incoming: make(chan net.Conn), closed: make(chan struct{})}
	served := make(chan error)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		l.Close()
		<-served
	})
	return l
}

func status(t *testing.T, nc net.Conn) int {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode == http.StatusServiceUnavailable && r.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	return r.StatusCode
}

const manyHandshakes = 300 // more than may be between Accept and the upgrade

// Those who wait for Connect hold up neither probes nor other clients.
func TestSlowConnectHooksHoldNobodyElseUp(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		release := make(chan bool)
		s := rawtest.Start(t, hubbub.Config{IO: io, HookTimeout: time.Hour, MaxHookCalls: 10, Hooks: hubbub.Hooks{
			Connect: func(context.Context, *hubbub.Connect) error { <-release; return nil },
		}})
		var all []*rawtest.Client
		for range manyHandshakes {
			c := rawtest.Connect(t, s)
			c.SendRaw([]byte(rawtest.Upgrade(s, "/ws")))
			all = append(all, c)
		}
		for _, path := range []string{"/healthz", "/readyz", "/metrics", "/"} {
			c := rawtest.Connect(t, s)
			c.SendRaw([]byte(get(path)))
			if r := c.Response("GET"); r.StatusCode != http.StatusOK {
				t.Errorf("%s: %s", path, r.Status)
			}
		}
		rawtest.Dial(t, s, "/echo")
		close(release)
		for _, c := range all {
			c.ExpectUpgrade()
			c.NextJSON()
			c.Reset()
		}
	})
}

// Those who don't read what they asked for hold up neither upgrades nor each other, but for those of their kind.
func TestSlowReadersHoldNobodyElseUp(t *testing.T) {
	for _, slow := range []string{"/metrics", "/", "/healthz", "/readyz"} {
		t.Run(slow, func(t *testing.T) {
			s := rawtest.Start(t, hubbub.Config{})
			l := servePipes(t, s)
			var readers []net.Conn
			for range manyHandshakes {
				readers = append(readers, l.ask(t, get(slow)))
			}
			for _, path := range []string{"/healthz", "/readyz", "/metrics", "/"} {
				if path == slow && (path == "/metrics" || path == "/") { // the answers of the others are small, and on their way
					rawtest.Eventually(t, path+" has no room", func() bool { return status(t, l.ask(t, get(path))) == http.StatusServiceUnavailable })
				} else if got := status(t, l.ask(t, get(path))); got != http.StatusOK {
					t.Errorf("%s: %d", path, got)
				}
			}
			if got := status(t, l.ask(t, rawtest.Upgrade(s, "/echo"))); got != http.StatusSwitchingProtocols {
				t.Errorf("an upgrade: %d", got)
			}
			for _, nc := range readers {
				nc.Close()
			}
			rawtest.Eventually(t, "there is room again", func() bool { return status(t, l.ask(t, get(slow))) == http.StatusOK })
		})
	}
}

// A connection that is kept after its first request holds no place, but there is a bound on these too, whatever they
// do.
func TestKeptConnectionsAreBounded(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{MaxConnections: 1 << 20}) // all descriptors are for WebSockets: few are left for these
	l := servePipes(t, s)
	const n = 704 // twice the places of all lanes
	var all []net.Conn
	for range n {
		nc := l.ask(t, get("/healthz"))
		if got := status(t, nc); got != http.StatusOK {
			t.Fatal(got)
		}
		io.WriteString(nc, get("/healthz")) // whose answer isn't read; it may be closed by now
		all = append(all, nc)
	}
	if got := status(t, l.ask(t, get("/healthz"))); got != http.StatusOK {
		t.Errorf("a new one: %d", got)
	}
	var closed atomic.Int64
	for _, nc := range all {
		go func() {
			if _, err := nc.Read(make([]byte, 1)); err == io.EOF {
				closed.Add(1)
			}
		}()
	}
	rawtest.Eventually(t, "the older half is closed", func() bool { return closed.Load() >= n/2 })
}

// Nor do those who have no key push out who listens with one.
func TestKeptConnectionsLeaveCallsAlone(t *testing.T) {
	cfg, secrets := keyed(t, hubbub.Config{MaxConnections: 1 << 20})
	s := rawtest.Start(t, cfg)
	l := servePipes(t, s)
	listens := l.ask(t, "GET /api/v1/tail?room=r HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer "+secrets["tail"]+"\r\n\r\n")
	defer listens.Close()
	hears := bufio.NewReader(listens)
	awaitLine(t, hears, ": listening")
	for range 400 { // more than are kept
		if got := status(t, l.ask(t, get("/healthz"))); got != http.StatusOK {
			t.Fatal(got)
		}
	}
	if err := rawtest.Publish(s, "r", 1); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, hears, "event: room_message")
}
