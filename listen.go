package hubbub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"example.com/hubbub/internal/loop"
)

const (
	// maxHandshakes is how many connections may be between Accept and the upgrade. net/http takes 11 KB for each,
	// so a burst of 15,000 at once would leave its memory behind for minutes.
	maxHandshakes = 256
	// slowHead is how long a connection has before it is closed for others that wait, if its head isn't complete.
	slowHead     = time.Second
	maxHeadBytes = 32 << 10
	keepAlive    = 30 * time.Second
)

// ListenAndServe listens on addr and calls Serve.
func (s *Server) ListenAndServe(addr string) error {
	l, err := Listen(addr, nil)
	if err != nil {
		return err
	}
	return s.Serve(l)
}

// Listen is net.Listen for TCP, or tls.Listen where secure is not nil, with two differences: TCP's own keep-alive is off,
// which would probe each idle connection every 15 s beside our pings; and a Server's workers can take the connections
// over with their TLS, where those of any other TLS listener need two goroutines each.
func Listen(addr string, secure *tls.Config) (net.Listener, error) {
	config := net.ListenConfig{KeepAlive: -1}
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("hubbub: %w", err)
	}
	if secure == nil {
		return l, nil
	}
	secure = secure.Clone()
	secure.NextProtos = []string{"http/1.1"} // a WebSocket can't be upgraded from HTTP/2 here
	secure.DynamicRecordSizingDisabled = true
	return &tlsListener{l, secure}, nil
}

type tlsListener struct {
	net.Listener
	config *tls.Config
}

func (l *tlsListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return loop.ServerTLS(nc, l.config), nil
}

// Serve answers what comes in on l until Shutdown; then it returns http.ErrServerClosed. Next to http.Serve it bounds
// what connections that are not upgraded yet can cost, in number, in time and in bytes.
func (s *Server) Serve(l net.Listener) error {
	g := newGate(l, max(maxHandshakes, openFileLimit()-s.cfg.MaxConnections-fdsOfOurs), s.log)
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.cfg.HandshakeTimeout,
		ReadTimeout:       s.cfg.HandshakeTimeout,
		WriteTimeout:      time.Minute, // a hijacked connection has none
		IdleTimeout:       keepAlive,
		MaxHeaderBytes:    maxHeadBytes,
		ConnState:         g.changed,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.mu.Lock()
	if s.stopping.Load() {
		s.mu.Unlock()
		l.Close()
		return http.ErrServerClosed
	}
	s.listening[srv] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listening, srv)
		s.mu.Unlock()
	}()
	err := srv.Serve(g)
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("hubbub: serve: %w", err)
	}
	return err
}

// fdsOfOurs are the descriptors that are neither a connection nor a request: files, epolls, the listener.
const fdsOfOurs = 32

// gate admits connections to net/http. Those on their way to an upgrade share maxHandshakes places: Accept takes one,
// and hijacking, closing or finishing the request gives it back. When none is free, the oldest connection whose head
// is still not complete must go; idle ones go when there are too many, oldest first.
type gate struct {
	net.Listener
	maxIdle int
	log     *slog.Logger
	spare   *os.File // Accept's; nil when not even it could be had

	mu      sync.Mutex
	freed   sync.Cond
	arrived map[net.Conn]time.Time // hold a place; the time is zero once the head is complete
	idle    map[net.Conn]time.Time // between two requests; no place
	closed  bool
}

func newGate(l net.Listener, reserve int, log *slog.Logger) *gate {
	g := &gate{Listener: l, log: log, maxIdle: max(1, reserve-maxHandshakes), arrived: map[net.Conn]time.Time{}, idle: map[net.Conn]time.Time{}}
	g.freed.L = &g.mu
	g.spare, _ = os.Open(os.DevNull)
	return g
}

// Accept waits for a place, then for a connection.
func (g *gate) Accept() (net.Conn, error) {
	g.waitForPlace()
	nc, err := g.Listener.Accept()
	for errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		g.turnAway()
		nc, err = g.Listener.Accept()
	}
	if err != nil {
		g.spare.Close() // the listener is closed
		return nil, err
	}
	g.mu.Lock()
	g.arrived[nc] = time.Now()
	g.mu.Unlock()
	return nc, nil
}

// turnAway tells the next connection in the queue that there is no descriptor for it: a spare one is given up to accept
// it. Else it would wait for an answer, and Accept would fail again and again. Only Accept calls.
func (g *gate) turnAway() {
	g.log.Warn("out of file descriptors: a connection is turned away", "would_allow", "a higher limit of open files, or a lower --max-connections")
	g.spare.Close() // of a nil file it does nothing
	nc, err := g.Listener.Accept()
	if err == nil {
		nc.SetDeadline(time.Now().Add(100 * time.Millisecond))
		io.WriteString(nc, tooBusy())
		nc.Close()
	} else {
		time.Sleep(10 * time.Millisecond) // somebody else took what was given up
	}
	g.spare, _ = os.Open(os.DevNull)
}

func (g *gate) waitForPlace() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.arrived) >= maxHandshakes && !g.closed {
		nc, since := oldest(g.arrived)
		switch age := time.Since(since); {
		case nc == nil: // all heads are complete: a place will be free in a moment
			g.freed.Wait()
		case age >= slowHead:
			delete(g.arrived, nc)
			nc.Close()
		default:
			look := time.AfterFunc(slowHead-age, g.freed.Broadcast)
			g.freed.Wait()
			look.Stop()
		}
	}
}

func oldest(of map[net.Conn]time.Time) (found net.Conn, since time.Time) {
	for nc, t := range of {
		if !t.IsZero() && (found == nil || t.Before(since)) {
			found, since = nc, t
		}
	}
	return found, since
}

// changed is net/http's ConnState.
func (g *gate) changed(nc net.Conn, state http.ConnState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch state {
	case http.StateActive: // the head is complete
		delete(g.idle, nc)
		if _, ok := g.arrived[nc]; ok {
			g.arrived[nc] = time.Time{}
		}
		return
	case http.StateIdle:
		if len(g.idle) >= g.maxIdle {
			old, _ := oldest(g.idle)
			delete(g.idle, old)
			old.Close()
		}
		g.idle[nc] = time.Now()
	case http.StateHijacked, http.StateClosed:
		delete(g.idle, nc)
	case http.StateNew:
		return
	}
	delete(g.arrived, nc)
	g.freed.Signal()
}

// Close lets Accept go.
func (g *gate) Close() error {
	g.mu.Lock()
	g.closed = true
	g.freed.Broadcast()
	g.mu.Unlock()
	return g.Listener.Close()
}

// quiet gives memory back after a burst of connects: net/http's share of each handshake is garbage by then, and the
// runtime would keep it for minutes. One collection, a second after the last connect, and only after many.
type quiet struct {
	mu      sync.Mutex
	timer   *time.Timer
	last    time.Time
	n       int
	stopped bool
}

const (
	quietAfter = time.Second
	quietBurst = 256 // connects; less garbage than of these isn't worth a collection
)

func (q *quiet) connected() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last = time.Now()
	q.n++
	if q.n == quietBurst && !q.stopped {
		q.timer = time.AfterFunc(quietAfter, q.look)
	}
}

func (q *quiet) look() {
	q.mu.Lock()
	left := quietAfter - time.Since(q.last)
	if left > 0 || q.stopped {
		if !q.stopped {
			q.timer.Reset(left)
		}
		q.mu.Unlock()
		return
	}
	q.n = 0
	q.mu.Unlock()
	debug.FreeOSMemory()
}

func (q *quiet) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	if q.timer != nil {
		q.timer.Stop()
	}
}
