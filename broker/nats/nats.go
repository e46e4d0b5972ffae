// Package nats keeps the logs of rooms in JetStream, in servers that are there already (Dial) or in one that runs in
// the process (Start).
//
// Rooms whose histories have the same bounds and replicas share eight streams, by their names' hash. A stream's messages are
// groups of a room's messages (group.go); it republishes each to the nodes that have the room open. An epoch is the
// nonce with which a stream was made, and part of its subjects: what was meant for a log that is gone can't land in
// another.
//
// Publishing goes by lanes, one for each room, and flights, which one goroutine sends (lane.go, flights.go). A room that
// is open delivers what arrives while its chain is whole, and else reads the log (room.go, load.go) by one of the few
// goroutines of its stream (jobs.go). What never arrives and isn't followed by anything is found by looking at the tails
// (tail.go). The reasons are in docs/decisions/0015-nats-log.md.
//
// Nodes say each second that they are there (nodes.go), tell each other by topics (topics.go), which are ready once all know
// of them (fence.go), and ask each other (calls.go), over core NATS: docs/decisions/0016-nodes.md.
package nats

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/hubbub/broker"
)

// Config says how logs are kept. The zero value is as many replicas as suit the servers, and what is published is known
// again for two minutes.
type Config struct {
	Creds    string        // of Dial: a file with an account's credentials; "" for none
	CA       string        // of Dial: a PEM file with who signs for the servers; "" for the system's
	Alone    bool          // no other node can come: nothing is told or asked
	Replicas int           // of each stream whose rooms don't say: 1, 3 or 5; 0 for 3 where the servers are a cluster, else 1
	Window   time.Duration // how long a Message.ID is remembered; also limited by the age that is kept
	Mark     string        // what epochs end with; another one tells all who come back that the logs are others
	Logger   *slog.Logger  // of what goes wrong; nil for none
}

const (
	shards     = 8        // streams of rooms with the same bounds
	maxWaiting = 64 << 20 // bytes that wait to be published, of all rooms
	apiTimeout = 5 * time.Second
	// arrivals is how many groups may have arrived at a stream and wait. What is too much is dropped, and shows in the chain of
	// the next, or in the tail.
	arrivals = 8192
)

// Broker implements broker.Broker.
type Broker struct {
	cfg    Config
	log    *slog.Logger
	id     broker.NodeID
	server *embedded // in this process; nil for Dial and Join
	stores *stores   // of the cluster; nil for Start and Dial
	// What is sent, with its answers, has a connection of its own: a node that is slow to take what arrives must not
	// lose acknowledgements.
	send, receive   *client.Conn
	sends, receives link // how they are
	urls            string
	refused         atomic.Bool // the servers don't take this node's credentials, which is logged
	js              jetstream.JetStream
	maxArrived      int           // see arrivals; tests have less
	overrun         atomic.Uint64 // how often something that arrived was dropped
	maxPayload      atomic.Int64  // that the servers take
	nodes           *nodes        // nil where it is alone

	node    broker.Node
	served  chan struct{}   // closed once there is a node
	ctx     context.Context // done when Run ends
	cancel  context.CancelFunc
	work    sync.WaitGroup // what goroutines of the broker do
	waiting atomic.Int64   // bytes to be published
	marked  atomic.Pointer[string]
	flights flights
	refusal chan error // why Run ends, where this store was removed

	mu      sync.Mutex
	streams map[streamKey]*stream
}

var _ broker.Broker = (*Broker)(nil)

// connect makes a broker of two connections. The server, where there is one, is the broker's from here on.
func connect(s *embedded, cfg Config, url string, options ...client.Option) (*Broker, error) {
	return newBroker(s, cfg).connected(url, options...)
}

func newBroker(s *embedded, cfg Config) *Broker {
	if cfg.Window <= 0 {
		cfg.Window = 2 * time.Minute
	}
	b := &Broker{cfg: cfg, log: cfg.Logger, server: s, maxArrived: arrivals, served: make(chan struct{}), refusal: make(chan error, 1), streams: map[streamKey]*stream{}}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	if !cfg.Alone {
		b.nodes = newNodes(b)
	}
	return b
}

func (b *Broker) connected(url string, options ...client.Option) (*Broker, error) {
	if err := b.dial(url, options); err != nil {
		b.Close()
		return nil, err
	}
	b.pickID()
	return b, nil
}

func (b *Broker) dial(url string, options []client.Option) (err error) {
	b.urls = url
	options = append([]client.Option{
		client.NoEcho(),
		client.MaxReconnects(-1),
		client.ReconnectBufSize(-1), // what can't be sent now is sent again by its lane, in its order
		client.Timeout(10 * time.Second),
		client.SetCustomDialer(dialer{}),
		// A server that takes nothing, or says nothing, is left for another one.
		client.FlusherTimeout(apiTimeout),
		client.PingInterval(apiTimeout),
		client.MaxPingsOutstanding(2),
		client.CustomInboxPrefix("_HB"),
	}, options...)
	linkChanged := func(bool) {
		if b.nodes != nil {
			b.nodes.linkChanged()
		}
	}
	if b.send, err = client.Connect(url, append(slices.Clip(options), append(b.sends.options(b, "sends", func(up bool) {
		if up {
			b.sendAllAgain()
		}
		linkChanged(up)
	}), client.ErrorHandler(func(_ *client.Conn, _ *client.Subscription, err error) {
		b.log.Debug("NATS", "error", err) // who sends learns of it
	}))...)...); err != nil {
		return unreachable(url, err)
	}
	b.sends.conn.Store(b.send)
	if v := b.send.ConnectedServerVersion(); tooOld(v) {
		return fmt.Errorf("NATS at %s is version %s; it must be 2.11 or newer", redacted(url), v)
	}
	if b.js, err = jetstream.New(b.send); err != nil {
		return err
	}
	if b.stores == nil { // else they may come later
		ctx, cancel := context.WithTimeout(b.ctx, 2*apiTimeout)
		defer cancel()
		if _, err := b.js.AccountInfo(ctx); err != nil {
			return withoutJetStream(url, err)
		}
	}
	options = append(options, client.ErrorHandler(func(_ *client.Conn, _ *client.Subscription, err error) {
		if !refused(err) { // pause says so, once
			b.log.Warn("NATS", "error", err)
		}
		if errors.Is(err, client.ErrSlowConsumer) {
			b.overrun.Add(1)
			b.sweepAll()
		}
	}))
	b.maxPayload.Store(b.send.MaxPayload())
	if b.receive, err = client.Connect(url, append(options, b.receives.options(b, "receives", func(up bool) {
		if up {
			b.sweepAll()
		}
		linkChanged(up)
	})...)...); err != nil {
		return unreachable(url, err)
	}
	b.receives.conn.Store(b.receive)
	if _, err := b.receive.Subscribe("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.*", b.elected); err != nil {
		return err
	}
	return b.flights.listen(b.send)
}

// Run implements broker.Broker.
func (b *Broker) Run(ctx context.Context, n broker.Node) error {
	b.node = n
	close(b.served)
	b.work.Go(func() { b.flights.send(b.ctx, b.send) })
	err := b.serveNodes(ctx)
	b.cancel()
	b.mu.Lock()
	streams := b.streams
	b.streams = nil
	b.mu.Unlock()
	for _, st := range streams {
		st.stop()
	}
	for _, c := range []*client.Conn{b.receive, b.send} {
		c.Close() // who waits for it goes on
	}
	b.work.Wait()
	b.Close()
	return err
}

// serveNodes does what there is to do with other nodes, until ctx is done, or this store is refused.
func (b *Broker) serveNodes(ctx context.Context) error {
	if b.nodes != nil {
		if err := b.nodes.start(); err != nil {
			b.nodes.abandon()
			return fmt.Errorf("NATS: %w", err)
		}
		defer b.nodes.stop()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-b.refusal:
		return err
	}
}

// Close ends a broker that was never run.
func (b *Broker) Close() {
	b.cancel()
	for _, c := range []*client.Conn{b.receive, b.send} {
		if c != nil {
			c.Close()
		}
	}
	if b.stores != nil && b.stores.system != nil {
		b.stores.system.Close()
	}
	b.work.Wait() // else who looks at the server finds it gone
	if b.server != nil {
		b.server.stop()
	}
}

// streamKey says which rooms share a stream: with fewer replicas than others they can't have theirs.
type streamKey struct {
	messages int
	age      time.Duration
	replicas int // 0 for those of Config
	shard    uint32
}

func streamKeyOf(r broker.Room) streamKey {
	h := fnv.New32a()
	_, _ = h.Write([]byte(r.Name)) // never fails
	return streamKey{r.Messages, r.Age, r.Replicas, h.Sum32() % shards}
}

// stream is that of a room, or nil once the broker has stopped. One that is new has a goroutine for what arrives.
func (b *Broker) stream(r broker.Room) *stream {
	key := streamKeyOf(r)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.streams == nil {
		return nil
	}
	st := b.streams[key]
	if st == nil {
		st = newStream(b, key)
		b.streams[key] = st
		b.work.Go(st.receive)
		b.work.Go(st.watch)
	}
	return st
}

// sendAllAgain has sent again what isn't answered yet.
func (b *Broker) sendAllAgain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, st := range b.streams {
		st.sendAgain()
	}
}

// sweepAll has the tails of all open rooms looked at: something may have been missed.
func (b *Broker) sweepAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, st := range b.streams {
		st.sweepSoon()
	}
}

// elected is called when a stream has a new leader, which doesn't republish what it has got from the one before.
func (b *Broker) elected(m *client.Msg) {
	name := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, st := range b.streams {
		if st.name == name {
			st.newTerm()
			st.sendAgain()
			st.sweepSoon()
		}
	}
}

// token is a room's name as a part of a subject, which has no blanks, dots or wildcards.
func token(room string) string {
	if len(room) <= 40 {
		return "n" + base64.RawURLEncoding.EncodeToString([]byte(room))
	}
	return "h" + digest(room)
}

// Open implements broker.Broker.
func (b *Broker) Open(r broker.Room, opened func(broker.Log, error)) (closed func()) {
	st := b.stream(r)
	if st == nil {
		go opened(broker.Log{}, broker.ErrUnavailable)
		return func() {}
	}
	ro := &room{st: st, name: r.Name, token: token(r.Name)}
	st.mu.Lock()
	st.rooms[ro.token] = ro
	st.mu.Unlock()
	if !st.jobs.add(func() { ro.open(opened) }) {
		ro.close()
		go opened(broker.Log{}, broker.ErrUnavailable)
	}
	return ro.close
}

// Publish implements broker.Broker.
func (b *Broker) Publish(r broker.Room, m broker.Message, done func(broker.Position, bool, error)) error {
	st := b.stream(r)
	if st == nil {
		go done(broker.Position{}, false, broker.ErrUnavailable)
		return nil
	}
	return st.publish(r.Name, m, done)
}

// Read implements broker.Broker.
func (b *Broker) Read(r broker.Room, behind uint64, done func(broker.Log, error)) {
	st := b.stream(r)
	if st == nil || !st.jobs.add(func() { done(st.read(r.Name, behind)) }) {
		go done(broker.Log{}, broker.ErrUnavailable)
	}
}

func (st *stream) read(room string, behind uint64) (broker.Log, error) {
	ctx := newProgress(st.b.ctx)
	defer ctx.end()
	nonce, err := st.await(ctx)
	if err != nil {
		return broker.Log{}, err
	}
	return st.load(ctx, nonce, room, token(room), behind)
}
