package front

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
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/hubbub/internal/sparselog"
)

const (
	// maxHandshakes is how many connections may be between Accept and the upgrade. net/http takes 11 KB for each, so a
	// burst of 15,000 at once would leave its memory behind for minutes.
	maxHandshakes = 256
	// slowHead is how long a connection has before it is closed for others that wait, if its head isn't complete; and
	// silentHead if all that has come of it was read. It lets 12,800 a second through that send half a head, or
	// nothing. What is unread may be the rest of the head, on a busy machine.
	slowHead   = time.Second
	silentHead = 20 * time.Millisecond
)

// Gate is a listener that admits connections to net/http. Those on their way to an upgrade share maxHandshakes places:
// Accept takes one, and hijacking, closing or finishing the request gives it back, or Admit or StepAside before that; what
// net/http answers by itself has none from its head on (Handler).
// When none is free, the oldest connection whose head is still not complete must go. Of those without a place the
// oldest goes when there are too many, unless it is kept (Keep).
//
// Its http.Server must have Changed as its ConnState, Context as its ConnContext, and what Handler makes of its handler.
type Gate struct {
	net.Listener

	// Static after NewGate; Quick, which may be nil, is set before the first Accept.
	Quick    *Quick
	maxTurns int
	slowHead time.Duration // slowHead, but in a test
	sorry    func() string
	log      *slog.Logger

	heads   chan *arrival // to goroutines that wait for a connection to read from
	handed  chan accepted // to net/http, where there is a Quick
	over    chan struct{} // closed with the gate
	idle    atomic.Int32  // goroutines that receive from heads
	begun   bool          // there was an Accept; set by it, with mu
	sockets *sockets      // how connections are had where the loop can take descriptors; else nil. Set once, by Accept with mu

	// accept's.
	reserve *os.File      // a descriptor to refuse with; nil when not even it could be had
	short   sparselog.Log // of descriptors and watches

	mu      sync.Mutex
	freed   sync.Cond
	arrived map[net.Conn]time.Time // hold a place; the time is zero once the head is complete
	silent  []*arrival             // whose clients were found silent by the last look at all, the oldest first
	beside  map[net.Conn]time.Time // hold none: in a lane, behind their first request, or at a later one
	kept    map[net.Conn]bool      // likewise, and don't go for others: see Keep
	closed  bool

	// Guarded by mu too.
	maxBeside            int
	turns                int   // taken, see TakeTurn
	returners, newcomers queue // wait for one
	passed               int   // returners that went while newcomers waited, since one of these did
}

// NewGate stands before l. descriptors is how many there are for connections that are no WebSockets (yet), and turns how
// many upgrades may be under way at once between a head and a worker. sorry is the
// whole HTTP answer to one for which there is none; log gets a line of that.
func NewGate(l net.Listener, descriptors, turns int, sorry func() string, log *slog.Logger) *Gate {
	g := &Gate{
		Listener: l, maxTurns: turns, slowHead: slowHead, sorry: sorry, log: log,
		heads: make(chan *arrival), handed: make(chan accepted), over: make(chan struct{}),
		arrived: map[net.Conn]time.Time{}, beside: map[net.Conn]time.Time{}, kept: map[net.Conn]bool{},
	}
	g.freed.L = &g.mu
	g.Descriptors(descriptors)
	g.reserve, _ = os.Open(os.DevNull)
	return g
}

// Descriptors says how many there are from now on. Any goroutine.
func (g *Gate) Descriptors(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.maxBeside = max(lanes*laneWidth+wideLane, n-maxHandshakes)
}

// Accept waits for a connection that net/http is to serve. One goroutine calls.
func (g *Gate) Accept() (net.Conn, error) {
	if !g.begun && !g.begin() {
		return nil, net.ErrClosed
	}
	if g.Quick == nil {
		return g.accept()
	}
	select {
	case a := <-g.handed:
		return a.nc, a.err
	case <-g.over:
		return nil, net.ErrClosed
	}
}

// begin says false where the gate was closed before.
func (g *Gate) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.begun = true
	if g.Quick != nil {
		g.sockets = newSockets(g)
		go g.acceptAll()
	}
	return true
}

// accept waits for a place, then for a connection.
func (g *Gate) accept() (net.Conn, error) {
	g.waitForPlace()
	nc, err := g.next()
	for errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		if !g.cutSilent() {
			g.turnAway()
		}
		nc, err = g.next()
	}
	if err != nil {
		g.reserve.Close() // the listener is closed
		return nil, err
	}
	nc = g.newArrival(nc)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed && g.Quick != nil { // it was too late for dismiss
		g.reserve.Close()
		nc.Close()
		return nil, net.ErrClosed
	}
	g.arrived[nc] = time.Now()
	return nc, nil
}

// next is the listener's next connection.
func (g *Gate) next() (net.Conn, error) {
	if g.sockets != nil {
		return g.sockets.accept()
	}
	return g.Listener.Accept()
}

// turnAway tells the next connection in the queue that there is no descriptor for it: a spare one is given up to accept
// it. Else it would wait for an answer, and accept would fail again and again. Only accept calls.
func (g *Gate) turnAway() {
	g.short.Log(g.log, slog.LevelWarn, "out of file descriptors: a connection is turned away", "would_allow", "a higher limit of open files, or a lower --max-connections")
	g.reserve.Close() // of a nil file it does nothing
	nc, err := g.next()
	if err == nil {
		nc.SetDeadline(time.Now().Add(100 * time.Millisecond))
		io.WriteString(nc, g.sorry())
		nc.Close()
	} else {
		time.Sleep(10 * time.Millisecond) // somebody else took what was given up
	}
	g.reserve, _ = os.Open(os.DevNull)
}

func (g *Gate) waitForPlace() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.arrived) >= maxHandshakes && !g.closed {
		nc, since := oldest(g.arrived)
		if nc == nil { // all heads are complete: a place will be free in a moment
			g.freed.Wait()
			continue
		}
		if time.Since(since) < g.slowHead {
			nc = g.nextSilent()
		}
		if nc != nil {
			delete(g.arrived, nc)
			cut(nc)
			continue
		}
		waitAtMost(&g.freed, silentHead)
	}
}

// cut closes a connection; TLS without a word, since a full socket would hold that up for five seconds, and so the gate,
// whose mu is held.
func cut(nc net.Conn) {
	switch nc := nc.(type) {
	case *arrival:
		nc.end(func() error { cut(nc.Conn); return nil })
	case *tls.Conn:
		nc.NetConn().Close()
	default:
		nc.Close()
	}
}

// waitAtMost is c.Wait, ended by a broadcast after d. The broadcast waits for the lock: one that came before Wait has
// let it go would wake nobody.
func waitAtMost(c *sync.Cond, d time.Duration) {
	end := time.AfterFunc(d, func() {
		c.L.Lock()
		defer c.L.Unlock()
		c.Broadcast()
	})
	c.Wait()
	end.Stop()
}

// cutSilent has the oldest of those go who keep the server waiting, and says whether there is one: they go for others where
// descriptors are short, as they do where places are.
func (g *Gate) cutSilent() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	nc := g.nextSilent()
	if nc == nil {
		return false
	}
	delete(g.arrived, nc)
	cut(nc)
	return true
}

// nextSilent is the oldest connection whose client has been seen to keep the server waiting for long enough, or nil. Only
// when those that the last look found are gone it looks at all again, since it asks the kernel about each. mu is held.
func (g *Gate) nextSilent() net.Conn {
	if len(g.silent) == 0 {
		g.lookForSilent()
	}
	for len(g.silent) > 0 {
		a := g.silent[0]
		g.silent = g.silent[1:]
		if !g.arrived[a].IsZero() && a.silent() { // it's there, its head isn't complete, and nothing has come of it since
			return a
		}
	}
	return nil
}

func (g *Gate) lookForSilent() {
	for nc, t := range g.arrived {
		a, ok := nc.(*arrival)
		switch {
		case !ok || t.IsZero():
		case !a.silent():
			a.since = time.Time{}
		case a.since.IsZero():
			a.since = time.Now()
		case time.Since(a.since) >= silentHead:
			g.silent = append(g.silent, a)
		}
	}
	slices.SortFunc(g.silent, func(a, b *arrival) int { return g.arrived[a].Compare(g.arrived[b]) })
}

func oldest(of map[net.Conn]time.Time) (found net.Conn, since time.Time) {
	for nc, t := range of {
		if !t.IsZero() && (found == nil || t.Before(since)) {
			found, since = nc, t
		}
	}
	return found, since
}

// Changed is net/http's ConnState.
func (g *Gate) Changed(nc net.Conn, state http.ConnState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch state {
	case http.StateActive: // what net/http answers by itself, some of it when a body has come, holds no place: see Handler
		if _, ok := g.arrived[nc]; ok {
			g.pass(nc)
		}
	case http.StateIdle:
		g.pass(nc)
	case http.StateHijacked, http.StateClosed:
		g.forget(nc)
	}
}

// complete says that a connection's head has come: it doesn't go for others.
func (g *Gate) complete(nc net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.arrived[nc]; ok {
		g.arrived[nc] = time.Time{}
	}
}

// pass gives the place of a connection back that is to stay. mu is held.
func (g *Gate) pass(nc net.Conn) {
	g.forget(nc)
	if len(g.beside)+len(g.kept) >= g.maxBeside {
		if old, _ := oldest(g.beside); old != nil {
			delete(g.beside, old)
			cut(old)
		}
	}
	g.beside[nc] = time.Now()
}

// forget gives the place of a connection back. mu is held.
func (g *Gate) forget(nc net.Conn) {
	delete(g.beside, nc)
	delete(g.kept, nc)
	delete(g.arrived, nc)
	g.freed.Signal()
}

// Unsettled says how many connections the gate still counts. net/http tells of the last ones a moment after it has
// closed them, on a busy machine some moments, so it waits for that up to ten seconds.
func (g *Gate) Unsettled() []string {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		g.mu.Lock()
		arrived, beside, turns := len(g.arrived), len(g.beside)+len(g.kept), g.turns
		g.mu.Unlock()
		switch {
		case arrived+beside+turns == 0:
			return nil
		case time.Now().After(end):
			return []string{fmt.Sprintf("connections of the gate: %d, and %d beside it; turns: %d", arrived, beside, turns)}
		}
	}
}

// Context is net/http's ConnContext.
func (g *Gate) Context(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, gateKey{}, &ticket{gate: g, nc: nc})
}

type gateKey struct{}

// ticket is a connection of the gate.
type ticket struct {
	gate  *Gate
	nc    net.Conn
	begun bool          // a request of it is, or was, served; guarded by the gate's mu
	asked bool          // for a turn; the handshake's, as is mayGo
	mayGo chan struct{} // closed when the turn has come, where it was waited for
	turn  bool          // it has one; guarded by the gate's mu

	// Where nobody waits.
	aside   *arrival    // is served by a goroutine when the turn has come, or when it's too late
	late    *time.Timer // until then
	tooLate bool        // of the goroutine that serves
}

// Handler is h, whose requests hold a place while it serves them, the first of a connection until it steps aside; and say which
// TLS they came by also where the gate made the handshake, of which net/http doesn't know.
func (g *Gate) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if t := ticketOf(r); t != nil {
			if a, ok := t.nc.(*arrival); ok {
				r.TLS = a.tlsState()
			}
			t.serve()
			defer t.served()
		}
		h.ServeHTTP(w, r)
	})
}

// serve takes the place again that the connection had until its first request.
func (t *ticket) serve() {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	if _, open := t.gate.beside[t.nc]; open && !t.begun {
		delete(t.gate.beside, t.nc)
		t.gate.arrived[t.nc] = time.Time{}
	}
	t.begun = true
}

// served gives the place back: net/http may still wait for a body.
func (t *ticket) served() {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	if _, has := t.gate.arrived[t.nc]; has {
		t.gate.pass(t.nc)
	}
}

// ticketOf is that of a request; nil where the listener isn't ours.
func ticketOf(r *http.Request) *ticket {
	t, _ := r.Context().Value(gateKey{}).(*ticket)
	return t
}

// Admit lets an upgrade go which may take long: it holds no place in the gate any more, nor a turn until TakeTurn is
// called anew. So the caller has to bound it.
func Admit(r *http.Request) {
	if t := ticketOf(r); t != nil {
		t.gate.mu.Lock()
		defer t.gate.mu.Unlock()
		t.gate.forget(t.nc)
		t.endTurn()
	}
}

// StepAside lets a request go that wants no WebSocket. From here on its client has ten seconds to take the whole
// answer.
func StepAside(w http.ResponseWriter, r *http.Request) {
	t := ticketOf(r)
	if t == nil {
		return // another's server, whose deadlines may hold for the connection's later requests
	}
	t.gate.mu.Lock()
	t.gate.pass(t.nc)
	t.gate.mu.Unlock()
	Answers(w, r)
}

// Keep has the connection of a request that has stepped aside stay until that is answered, however many others come.
// The caller bounds how many these are, and has found out who asks.
func Keep(r *http.Request) {
	if t := ticketOf(r); t != nil {
		t.gate.mu.Lock()
		defer t.gate.mu.Unlock()
		if _, open := t.gate.beside[t.nc]; open {
			delete(t.gate.beside, t.nc)
			t.gate.kept[t.nc] = true
		}
	}
}

// Answers gives the client of a request that has stepped aside its ten seconds anew: its body, and what it asked for,
// have taken of them.
func Answers(w http.ResponseWriter, r *http.Request) {
	if ticketOf(r) != nil {
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(readWithin))
	}
}

// Close lets Accept go, and the connections that net/http doesn't have.
func (g *Gate) Close() error {
	g.mu.Lock()
	if !g.closed {
		close(g.over)
		if !g.begun {
			g.reserve.Close() // else accept does it
		}
	}
	g.closed = true
	g.freed.Broadcast()
	for _, all := range []map[net.Conn]time.Time{g.arrived, g.beside} {
		for nc := range all {
			if a, ok := nc.(*arrival); ok {
				a.dismiss()
			}
		}
	}
	sockets := g.sockets
	g.mu.Unlock()
	if sockets != nil {
		sockets.close()
	}
	return g.Listener.Close()
}
