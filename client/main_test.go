package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/hubbub"
	"example.com/hubbub/client"
	"example.com/hubbub/hubbubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is servers in memory, one after the other at the same address, and the lines to them.
type world struct {
	t      *testing.T
	mu     sync.Mutex
	server *hubbubtest.Server // nil: nobody listens
	addr   string             // of a server on the loopback, in its place
	lines  []*line
	// next makes of a new connection the line that the client gets.
	next func(*line)
}

// newWorld starts with a server.
func newWorld(t *testing.T, cfg hubbub.Config) *world {
	w := &world{t: t}
	w.start(cfg)
	return w
}

// start starts another server in the place of the one before.
func (w *world) start(cfg hubbub.Config) {
	s := hubbubtest.NewServer(w.t, cfg)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.server = s
}

// crash ends the server with all its connections, and with all that it knew.
func (w *world) crash() {
	w.mu.Lock()
	w.server = nil
	w.mu.Unlock()
	w.cut()
}

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	server, next := w.server, w.next
	w.mu.Unlock()
	var nc net.Conn
	var err error
	switch {
	case w.addr != "":
		nc, err = (&net.Dialer{}).DialContext(ctx, network, w.addr)
	case server == nil:
		err = errors.New("nobody listens")
	default:
		nc, err = server.DialContext(ctx, network, address)
	}
	if err != nil {
		return nil, err
	}
	l := &line{Conn: nc, left: -1, closed: make(chan struct{})}
	if next != nil {
		next(l)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, l)
	return l, nil
}

// dials is how often somebody has connected.
func (w *world) dials() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.lines)
}

// cut breaks all lines.
func (w *world) cut() {
	w.mu.Lock()
	lines := slices.Clone(w.lines)
	w.mu.Unlock()
	for _, l := range lines {
		l.Close()
	}
}

// options reach the world's server.
func (w *world) options() client.Options {
	return client.Options{HTTPClient: &http.Client{Transport: &http.Transport{DialContext: w.dial, DisableKeepAlives: true}}}
}

const address = "ws://hubbub.test/ws"

// client is one that is connected, and ends with the test.
func (w *world) client(o client.Options) *client.Hub {
	w.t.Helper()
	o.HTTPClient = w.options().HTTPClient
	h, err := client.Dial(w.t.Context(), address, o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { h.Close() })
	return h
}

// line is a connection that breaks after so many bytes, in both directions together, or stands still.
type line struct {
	net.Conn
	mu     sync.Mutex
	left   int  // bytes; -1: it holds
	still  bool // nothing is carried
	deaf   bool // nothing comes
	closed chan struct{}
	once   sync.Once
}

// carries waits while the line stands still, and says how many of n bytes it carries.
func (l *line) carries(n int, comes bool) (int, error) {
	l.mu.Lock()
	still := l.still || comes && l.deaf
	l.mu.Unlock()
	if still {
		<-l.closed
		return 0, net.ErrClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left < 0 {
		return n, nil
	}
	if n = min(n, l.left); n == 0 {
		return 0, errors.New("the line is cut")
	}
	l.left -= n
	return n, nil
}

func (l *line) stall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.still = true
}

func (l *line) deafen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = true
}

func (l *line) Read(b []byte) (int, error) {
	got, err := l.Conn.Read(b)
	if err != nil {
		return got, err
	}
	n, err := l.carries(got, true)
	if n < got { // the rest never comes
		l.Close()
	}
	return n, err
}

func (l *line) Write(b []byte) (int, error) {
	n, err := l.carries(len(b), false)
	if err == nil {
		n, err = l.Conn.Write(b[:n])
	}
	if err == nil && n < len(b) {
		err = errors.New("the line is cut")
	}
	if err != nil {
		l.Close()
	}
	return n, err
}

func (l *line) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Conn.Close()
}

// within is a context that a test doesn't outlive.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// must fails the test with an error.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
