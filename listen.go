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
	"example.com/hubbub/internal/sparselog"
)

const (
	// maxHandshakes is how many connections may be between Accept and the upgrade. net/http takes 11 KB for each,
	// so a burst of 15,000 at once would leave its memory behind for minutes.
	maxHandshakes = 256
	// slowHead is how long a connection has before it is closed for others that wait, if its head isn't complete; and
	// silentHead if all that has come of it was read. It lets 12,800 a second through that send half a head, or nothing. What
	// is unread may be the rest of the head, on a busy machine.
	slowHead     = time.Second
	silentHead   = 20 * time.Millisecond
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
//
// An address "unix:PATH" is a Unix socket. A socket file that nobody listens at any more is replaced; the new one is open
// to the process's user and group, whatever the umask, and removed when the listener is closed.
func Listen(addr string, secure *tls.Config) (net.Listener, error) {
	network, address, err := ListenAddress(addr)
	if err != nil {
		return nil, fmt.Errorf("hubbub: listen at %q: %w", addr, err)
	}
	var l net.Listener
	if network == "unix" {
		l, err = listenUnix(address)
	} else {
		config := net.ListenConfig{KeepAlive: -1}
		l, err = config.Listen(context.Background(), network, address)
	}
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
		ConnContext:       g.context,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.mu.Lock()
	if s.stopping.Load() {
		s.mu.Unlock()
		l.Close()
		return http.ErrServerClosed
	}
	s.listening[srv] = true
	s.gates = append(s.gates, g)
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
// and hijacking, closing or finishing the request gives it back, or a hook or a lane before that. When none is free, the oldest
// connection whose head is still not complete must go. Of those without a place the oldest goes when there are too many.
type gate struct {
	net.Listener
	maxBeside int
	log       *slog.Logger
	spare     *os.File      // Accept's; nil when not even it could be had
	short     sparselog.Log // of descriptors

	mu      sync.Mutex
	freed   sync.Cond
	arrived map[net.Conn]time.Time // hold a place; the time is zero once the head is complete
	beside  map[net.Conn]time.Time // hold none: in a lane, behind their first request, or at a later one
	closed  bool
}

func newGate(l net.Listener, reserve int, log *slog.Logger) *gate {
	g := &gate{Listener: l, log: log, maxBeside: max(lanes*laneWidth, reserve-maxHandshakes), arrived: map[net.Conn]time.Time{}, beside: map[net.Conn]time.Time{}}
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
	g.short.Log(g.log, slog.LevelWarn, "out of file descriptors: a connection is turned away", "would_allow", "a higher limit of open files, or a lower --max-connections")
	g.spare.Close() // of a nil file it does nothing
	nc, err := g.Listener.Accept()
	if err == nil {
		nc.SetDeadline(time.Now().Add(100 * time.Millisecond))
		io.WriteString(nc, tooBusy(noDescriptor))
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
		if nc == nil { // all heads are complete: a place will be free in a moment
			g.freed.Wait()
			continue
		}
		if time.Since(since) < slowHead {
			nc = g.oldestSilent()
		}
		if nc != nil {
			delete(g.arrived, nc)
			nc.Close()
			continue
		}
		look := time.AfterFunc(silentHead, g.freed.Broadcast)
		g.freed.Wait()
		look.Stop()
	}
}

// oldestSilent is the oldest connection that its client keeps waiting, or nil. mu is held.
func (g *gate) oldestSilent() (found net.Conn) {
	var since time.Time
	for nc, t := range g.arrived {
		if !t.IsZero() && time.Since(t) >= silentHead && (found == nil || t.Before(since)) && silent(nc) {
			found, since = nc, t
		}
	}
	return found
}

// silent says whether all that has come over a plain connection was read. Of TLS nobody knows: a handshake computes, too.
func silent(nc net.Conn) bool {
	c, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	unread := true
	err = raw.Control(func(fd uintptr) { unread = hasUnread(fd) })
	return err == nil && !unread
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
	case http.StateActive: // the head is complete, or a later one has begun
		if _, ok := g.arrived[nc]; ok {
			g.arrived[nc] = time.Time{}
		}
	case http.StateIdle:
		g.pass(nc)
	case http.StateHijacked, http.StateClosed:
		g.forget(nc)
	}
}

// pass gives the place of a connection back that is to stay. mu is held.
func (g *gate) pass(nc net.Conn) {
	g.forget(nc)
	if len(g.beside) >= g.maxBeside {
		old, _ := oldest(g.beside)
		delete(g.beside, old)
		old.Close()
	}
	g.beside[nc] = time.Now()
}

// forget gives the place of a connection back. mu is held.
func (g *gate) forget(nc net.Conn) {
	delete(g.beside, nc)
	delete(g.arrived, nc)
	g.freed.Signal()
}

// unsettled says how many connections the gate still counts. net/http tells of the last ones a moment after it has closed
// them.
func (g *gate) unsettled() []string {
	for end := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		g.mu.Lock()
		arrived, beside := len(g.arrived), len(g.beside)
		g.mu.Unlock()
		switch {
		case arrived+beside == 0:
			return nil
		case time.Now().After(end):
			return []string{fmt.Sprintf("connections of the gate: %d, and %d beside it", arrived, beside)}
		}
	}
}

// context is net/http's ConnContext.
func (g *gate) context(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, gateKey{}, &ticket{g, nc})
}

type gateKey struct{}

// ticket is a connection of the gate.
type ticket struct {
	gate *gate
	nc   net.Conn
}

// ticketOf is that of a request; nil where the listener isn't ours.
func ticketOf(r *http.Request) *ticket {
	t, _ := r.Context().Value(gateKey{}).(*ticket)
	return t
}

// admit lets an upgrade go which may take long: from here on its place under Config.MaxConnections is what bounds it.
func (t *ticket) admit() {
	if t != nil {
		t.gate.mu.Lock()
		defer t.gate.mu.Unlock()
		t.gate.forget(t.nc)
	}
}

// stepAside lets a request go that wants no WebSocket.
func (t *ticket) stepAside() {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.gate.pass(t.nc)
}

// lane bounds the requests of one kind that want no WebSocket. They hold no place in the gate, so that neither holds the
// other up: probes are answered while upgrades wait, and upgrades pass those who read slowly.
type lane chan struct{}

const (
	lanes      = 3                // probes, metrics, the page
	laneWidth  = 32               // places in a lane
	readWithin = 10 * time.Second // the whole answer; else slow readers might keep the places
)

func newLane() lane { return make(lane, laneWidth) }

// aside serves a request in its lane.
func (s *Server) aside(w http.ResponseWriter, r *http.Request, l lane, serve http.HandlerFunc) {
	if t := ticketOf(r); t != nil {
		t.stepAside()
		// Not for another's server, whose deadlines may hold for the connection's later requests.
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(readWithin))
	}
	select {
	case l <- struct{}{}:
	default:
		s.refuse(w, r, refusal{status: http.StatusServiceUnavailable, detail: "too many ask for this at once"})
		return
	}
	defer func() { <-l }()
	serve(w, r)
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
