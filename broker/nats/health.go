package nats

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	client "github.com/nats-io/nats.go"
)

// Health is how a broker is connected, for readiness and metrics.
type Health struct {
	// Links are the two connections: what sends, and what receives.
	Links [2]Link
	// Cut says that this node can't hear of the others: a link is down, or not even what it says itself comes back. Of
	// StartStore and Join it also says that the stores don't serve: a store that is cut off still has links, to itself.
	Cut   bool
	Peers int // other nodes that are there, as far as it knows

	Waiting int64 // bytes that wait to be published to rooms' logs, or to be acknowledged
	Telling int64 // bytes that wait to be sent to other nodes
	Calls   int   // questions to other nodes that aren't answered

	Overrun uint64 // how often this node was too slow to take what arrived, so that some of it was dropped
	Missed  uint64 // how often a topic was told that something of other nodes may be lost
}

// Link is one connection to the NATS servers.
type Link struct {
	Name       string // "sends" or "receives"
	Up         bool
	Since      time.Time // when Up has become what it is; zero for never
	Server     string    // the name of the server that it is connected to, or was last
	URL        string    // that server's, without credentials
	Reconnects uint64
	Error      string // why it was lost last, or "" for never
}

// Up says whether both links are.
func (h Health) Up() bool { return h.Links[0].Up && h.Links[1].Up }

// Health doesn't wait, and may be called by any goroutine.
func (b *Broker) Health() Health {
	h := Health{
		Links:   [2]Link{b.sends.look(), b.receives.look()},
		Waiting: b.waiting.Load(),
		Overrun: b.overrun.Load(),
	}
	if n := b.nodes; n != nil {
		n.health(&h)
	}
	if b.stores != nil {
		h.Cut = h.Cut || b.stores.lost() != nil
	}
	return h
}

func (n *nodes) health(h *Health) {
	n.mu.Lock()
	h.Cut, h.Peers = n.cut, len(n.view)
	n.mu.Unlock()
	n.calls.mu.Lock()
	h.Calls = len(n.calls.all)
	n.calls.mu.Unlock()
	h.Telling, h.Missed = int64(n.out.waits()), n.missed.Load()
}

// link is what is known of a connection. The connection's own methods aren't asked for that: they wait while a server takes
// nothing.
type link struct {
	conn  atomic.Pointer[client.Conn]
	up    atomic.Bool
	mu    sync.Mutex
	state Link

	// Of the goroutine that reconnects.
	reached uint64 // connections made, at the last pause
	refused int    // pauses in a row before which a server was reached and didn't let this node in
}

func (l *link) look() Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// options have the connection say how it is; then changed is called, which must not wait.
func (l *link) options(b *Broker, name string, changed func(up bool)) []client.Option {
	l.state.Name = name
	up := func(c *client.Conn, again uint64) {
		server, url := c.ConnectedServerName(), redacted(c.ConnectedUrl())
		b.maxPayload.Store(c.MaxPayload())
		l.mu.Lock()
		l.state.Up, l.state.Since, l.state.Server, l.state.URL = true, time.Now(), server, url
		l.state.Reconnects += again
		l.mu.Unlock()
		l.up.Store(true)
		b.refused.Store(false)
		changed(true)
	}
	return []client.Option{
		client.Name("hubbub, " + name),
		client.CustomReconnectDelay(func(tries int) time.Duration { return l.pause(b, tries) }),
		client.ConnectHandler(func(c *client.Conn) { up(c, 0) }),
		client.ReconnectHandler(func(c *client.Conn) { up(c, 1) }),
		client.DisconnectErrHandler(func(_ *client.Conn, err error) {
			l.up.Store(false)
			l.mu.Lock()
			l.state.Up, l.state.Since = false, time.Now()
			if err != nil {
				l.state.Error = err.Error()
			}
			l.mu.Unlock()
			changed(false)
		}),
	}
}

// What is waited before all servers are tried again: at least this and, at random, up to twice that. It doubles while
// servers are reached that don't let the node in, as where its secret is wrong: that takes an operator.
const (
	pauseLeast = 100 * time.Millisecond
	pauseMost  = 4 * time.Second
)

// pause is called when all servers have been tried, for the given time since the connection was lost.
func (l *link) pause(b *Broker, tries int) time.Duration {
	if c := l.conn.Load(); c != nil { // else it is just being made
		reached := c.Stats().Reconnects // also those that came to nothing
		if tries > 1 && reached > l.reached {
			l.refused++
		} else {
			l.refused = 0
		}
		l.reached = reached
		if err := c.LastError(); l.refused > 0 && refused(err) && !b.refused.Swap(true) {
			why := unreachable(b.urls, err).Error()
			if b.stores != nil {
				why = reason("a store", err)
			}
			b.log.Warn(why)
		}
	}
	pause := min(pauseLeast<<min(l.refused, 10), pauseMost)
	return pause + rand.N(pause)
}
