package hubbub

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/nats"
	"example.com/hubbub/internal/datadir"
	"example.com/hubbub/internal/hub"
)

// links are what a Server has of the logs of rooms and of other nodes: its broker, as the hub has it, which counts what is
// asked, and has no logs until the node is in its cluster. A Server whose rooms are in memory has none.
type links struct {
	broker.Broker // Listen, Tell and ID are its own

	// Static once it runs.
	s      *Server
	own    *nats.Broker // the same one; nil where it is Config.Broker
	alone  bool         // there are no other nodes, whatever the broker is
	began  time.Time
	cancel context.CancelFunc
	work   sync.WaitGroup

	in       atomic.Bool // the node serves, or has served
	counts   linkCounts
	viewed   chan struct{} // gets one when the view has changed
	failed   chan struct{} // closed with failure
	failOnce sync.Once

	mu      sync.Mutex
	peers   []broker.Peer
	cut     bool
	seen    bool                     // there was a view
	failure error                    // why this node can't be one of them
	waits   string                   // what it waits for before it is in
	known   map[broker.NodeID]string // the digests of other nodes' policies
}

// linkCounts are for /metrics.
type linkCounts struct {
	publishing, calling, topics   atomic.Int64
	unpublished, uncalled, untold atomic.Int64
	missed, lost, cuts, came      atomic.Int64
}

// openLinks takes the data directory, where the settings name one, and what the settings say of logs and other nodes.
func (s *Server) openLinks() (err error) {
	s.node = cmp.Or(s.cfg().NodeName, newNode())
	if s.cfg().DataDir != "" {
		if s.dataDir, err = datadir.Open(s.cfg().DataDir); err != nil {
			return fmt.Errorf("data-dir %s: %w", s.cfg().DataDir, err)
		}
		s.node = cmp.Or(s.cfg().NodeName, s.dataDir.ID())
	}
	l := &links{s: s, began: time.Now(), Broker: s.cfg().Broker, viewed: make(chan struct{}, 1), failed: make(chan struct{}), known: map[broker.NodeID]string{}}
	c := nats.Config{Replicas: s.cfg().Cluster.Replicas, Window: s.cfg().DedupWindow, Logger: s.log}
	switch s.cfg().role() {
	case roleBroker:
	case roleNATS:
		c.Creds, c.CA = s.cfg().NATS.Creds, s.cfg().NATS.CA
		l.own, err = nats.Dial(strings.Join(s.cfg().NATS.URLs, ","), c)
		if err == nil {
			err = l.agreeOnName()
		}
		if err == nil {
			err = l.agreeOnKey()
		}
	case roleStore:
		l.own, err = s.startStore(c)
	case roleJoining:
		l.own, err = nats.Join(s.cfg().natsCluster(), c)
	default:
		if s.dataDir == nil {
			return nil
		}
		l.alone = true
		l.own, err = s.openLog(c)
	}
	if l.own != nil { // a nil *nats.Broker would be one that isn't nil
		l.Broker = l.own
		s.warnOfLogFiles()
	}
	if l.Broker != nil {
		s.links = l
	}
	return err
}

func (s *Server) startStore(c nats.Config) (*nats.Broker, error) {
	dir, err := s.dataDir.Folder("log")
	if err != nil {
		return nil, err
	}
	if _, err := s.dataDir.Epoch(""); err != nil { // of the folder, for Cluster
		return nil, err
	}
	l := &s.cfg().Cluster
	return nats.StartStore(nats.Store{Cluster: s.cfg().natsCluster(), Dir: dir, ID: s.dataDir.ID(), Listen: l.Listen, Advertise: l.Advertise}, c)
}

// agreeTime is how long a node waits for what all must agree on.
const agreeTime = 15 * time.Second

// agreeOnKey has nodes that have no secret in common agree on a key for the tokens that resume sessions.
func (l *links) agreeOnKey() error {
	if l.s.cfg().Cluster.Secret != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), agreeTime)
	defer cancel()
	secret, err := l.own.Agree(ctx, "resume-secret", func(now []byte) []byte {
		if now != nil {
			return now
		}
		return []byte(rand.Text())
	})
	l.s.tokenSecret = string(secret)
	return err
}

// startLinks has the broker serve the hub. A node that is alone is in at once. With a Broker of the application's own it
// waits for the others; where they are to be reached over the network that goes on behind it, and /readyz says so.
func (s *Server) startLinks() error {
	l := s.links
	if l == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.in.Store(l.alone)
	l.work.Go(func() {
		if err := l.Broker.Run(ctx, linked{s.hub, l}); err != nil {
			l.fail(fmt.Errorf("the broker serves no more: %w", err))
		}
	})
	if l.alone {
		return nil
	}
	entered := make(chan struct{})
	l.work.Go(func() {
		defer close(entered)
		if err := l.enter(ctx); err != nil && ctx.Err() == nil {
			l.fail(err)
		}
	})
	if l.own == nil {
		<-entered
	}
	return l.failedWith()
}

// What a node that comes waits for.
const (
	// settle is how long it looks for others that are there before it takes itself for the first one, where it may be. A beat is
	// a second.
	settle = 2500 * time.Millisecond
	// waitTold is the time between two lines of the log about what it waits for.
	waitTold = 10 * time.Second
	// firstView is how long it waits for the first view.
	firstView = 10 * time.Second
)

// enter makes the node one of its cluster. An error says why it can't be; while others can't be reached it waits.
func (l *links) enter(ctx context.Context) error {
	began := time.Now()
	if err := l.reach(ctx); err != nil {
		return err
	}
	l.waitFor("it looks for the other nodes")
	if err := l.meet(ctx); err != nil {
		return err
	}
	if err := l.agreeOnLogs(ctx); err != nil {
		return err
	}
	l.waitFor("")
	l.in.Store(true)
	peers, _ := l.others()
	l.s.log.Info("the node is in its cluster", "node", l.s.node, "others", len(peers), "after", time.Since(began).Round(time.Millisecond))
	return nil
}

// reach waits for the stores, and tells the log every ten seconds what it waits for.
func (l *links) reach(ctx context.Context) error {
	if l.own == nil {
		return nil
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for told := time.Now(); ; {
		err := l.own.Ready()
		if err == nil {
			return nil
		}
		l.waitFor(err.Error())
		if time.Since(told) > waitTold {
			told = time.Now()
			l.s.log.Warn("the node waits for its cluster", "why", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// meet waits until others are known, or it is sure enough that there are none.
func (l *links) meet(ctx context.Context) error {
	late, alone := time.NewTimer(firstView), time.NewTimer(settle)
	defer late.Stop()
	defer alone.Stop()
	for sure := l.own == nil; ; {
		peers, seen := l.others()
		if err := l.s.fits(peers); err != nil {
			return err
		}
		if len(peers) > 0 || seen && sure {
			return nil
		}
		select {
		case <-l.viewed:
		case <-alone.C:
			sure = l.s.cfg().mayBeAlone() // else they are busy
		case <-late.C:
			l.s.log.Warn("nothing is heard of other nodes, nor that there are none; the node goes on alone until it hears of them")
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// agreeOnLogs has all nodes mark epochs with the same text.
func (l *links) agreeOnLogs(ctx context.Context) error {
	if l.own == nil {
		return nil
	}
	l.waitFor("the stores keep nothing yet")
	decide := l.markDecision()
	for told := time.Now(); ; {
		once, cancel := context.WithTimeout(ctx, agreeTime/5)
		v, err := l.own.Agree(once, "logs", decide)
		cancel()
		if err == nil {
			mark, _, _ := strings.Cut(string(v), " ")
			l.own.SetMark("." + mark)
			if l.s.cfg().role() != roleStore {
				return nil
			}
			return l.s.dataDir.NoteCluster(mark)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.waitFor(err.Error())
		if time.Since(told) > waitTold {
			told = time.Now()
			l.s.log.Warn("the node waits for its cluster", "why", err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// markDecision says which mark all shall have: the one that they have, but for two cases, in which clients must be told
// that the logs may be others. All of them had stopped, and the bounds of history are others now, or a room might come back
// to a log that it was in before, without what it has had since. Or no node is in, and this store was in with that very mark
// before its machine went down: so may the others have been, and the end of logs may be gone.
func (l *links) markDecision() func(now []byte) []byte {
	rules := digestOf(l.s.cfg().historyRules())
	var was string
	if l.s.cfg().role() == roleStore {
		mark, doubt := l.s.dataDir.Cluster()
		others, _ := l.others()
		if doubt && !slices.ContainsFunc(others, func(o hub.NodeInfo) bool { return o.In }) {
			was = mark
		}
	}
	return func(now []byte) []byte {
		mark, of, ok := strings.Cut(string(now), " ")
		if ok && of == rules && (was == "" || mark != was) {
			return now
		}
		return []byte(rand.Text()[:6] + " " + rules)
	}
}

func (l *links) waitFor(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits = what
}

// fail says for good that this node can't be one of its cluster: Serve returns it.
func (l *links) fail(err error) {
	l.failOnce.Do(func() {
		l.mu.Lock()
		l.failure = err
		l.mu.Unlock()
		l.s.log.Error("the node can't serve", "error", err)
		close(l.failed)
	})
}

// closeIfFailed closes an HTTP server when this node can't serve, until it is called back.
func (l *links) closeIfFailed(srv *http.Server) (stop func()) {
	if l == nil {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		select {
		case <-l.failed:
			srv.Close()
		case <-done:
		}
	}()
	return func() { close(done) }
}

func (l *links) failedWith() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// closeLinks ends the broker and gives the data directory back. Nothing uses either any more.
func (s *Server) closeLinks() {
	if l := s.links; l != nil {
		switch {
		case l.cancel != nil:
			l.cancel()
			l.work.Wait()
		case l.own != nil:
			l.own.Close()
		}
		if l.own != nil {
			s.dataDir.Ended()
		}
	}
	s.dataDir.Close()
}

// trouble says why the node isn't ready, or "". One that isn't in yet, or can't be, lets nobody in.
func (l *links) trouble() (why string, out bool) {
	if l == nil || l.alone {
		return "", false
	}
	l.mu.Lock()
	failure, waits, cut := l.failure, l.waits, l.cut
	l.mu.Unlock()
	switch {
	case failure != nil:
		return failure.Error(), true
	case !l.in.Load():
		return "the node isn't in its cluster yet: " + cmp.Or(waits, "it begins"), true
	}
	if l.own != nil {
		if err := l.own.Ready(); err != nil {
			return err.Error(), false
		}
	}
	if cut {
		return "the node is cut off from the others", false
	}
	return "", false
}

// errNotIn is what a node says of logs before it is in.
var errNotIn = fmt.Errorf("the node isn't in its cluster yet: %w", broker.ErrUnavailable)

// Open implements broker.Broker.
func (l *links) Open(r broker.Room, opened func(broker.Log, error)) (closed func()) {
	if !l.in.Load() {
		go opened(broker.Log{}, errNotIn)
		return func() {}
	}
	return l.Broker.Open(r, opened)
}

// Publish implements broker.Broker.
func (l *links) Publish(r broker.Room, m broker.Message, done func(broker.Position, bool, error)) error {
	if !l.in.Load() {
		go done(broker.Position{}, false, errNotIn)
		return nil
	}
	l.counts.publishing.Add(1)
	err := l.Broker.Publish(r, m, func(at broker.Position, duplicate bool, err error) {
		l.counts.publishing.Add(-1)
		if err != nil {
			l.counts.unpublished.Add(1)
		}
		done(at, duplicate, err)
	})
	if err != nil {
		l.counts.publishing.Add(-1)
		l.counts.unpublished.Add(1)
	}
	return err
}

// Read implements broker.Broker.
func (l *links) Read(r broker.Room, behind uint64, done func(broker.Log, error)) {
	if !l.in.Load() {
		go done(broker.Log{}, errNotIn)
		return
	}
	l.Broker.Read(r, behind, done)
}

// Brought implements broker.Broker.
func (l *links) Brought() []broker.Position {
	if !l.in.Load() {
		return nil
	}
	return l.Broker.Brought()
}

// Listen implements broker.Broker.
func (l *links) Listen(topic string, ready func(error)) (closed func()) {
	l.counts.topics.Add(1)
	var once sync.Once
	gone := func() { once.Do(func() { l.counts.topics.Add(-1) }) }
	end := l.Broker.Listen(topic, func(err error) {
		if err != nil {
			gone()
		}
		ready(err)
	})
	return func() {
		gone()
		end()
	}
}

// Tell implements broker.Broker.
func (l *links) Tell(topic string, body []byte) error {
	err := l.Broker.Tell(topic, body)
	if err != nil {
		l.counts.untold.Add(1)
	}
	return err
}

// Call implements broker.Broker.
func (l *links) Call(to broker.NodeID, body []byte, done func([]byte, error)) {
	l.counts.calling.Add(1)
	l.Broker.Call(to, body, func(answer []byte, err error) {
		l.counts.calling.Add(-1)
		if err != nil {
			l.counts.uncalled.Add(1)
		}
		done(answer, err)
	})
}

// linked is the hub as the broker has it: the Server sees what comes, too.
type linked struct {
	*hub.Hub
	l *links
}

// Missed implements broker.Node.
func (n linked) Missed(topic string) {
	n.l.counts.missed.Add(1)
	n.Hub.Missed(topic)
}

// Lost implements broker.Node.
func (n linked) Lost(room string, log broker.Log) {
	n.l.counts.lost.Add(1)
	n.Hub.Lost(room, log)
}

// View implements broker.Node.
func (n linked) View(peers []broker.Peer, cut bool) {
	n.l.view(peers, cut)
	n.Hub.View(peers, cut)
}
