package nats

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	client "github.com/nats-io/nats.go"

	"example.com/hubbub/broker"
)

// The subjects by which nodes meet. Another version of what is sent has other subjects.
const (
	topicSubject  = "hb.n1.t." // and a topic's token: what is told
	beatSubject   = "hb.n1.b"  // what nodes say of themselves
	fenceSubject  = "hb.n1.f"  // a question to all: whether they know by now to what a node listens
	fencedSubject = "hb.n1.a." // and a node: the answers
	callSubject   = "hb.n1.c." // and a node: what it is asked
)

const (
	beatEvery = time.Second
	ticks     = 10 // looks at what is due, in a beat
	// quiet is how many of its own beats a node hears without one of a peer, until that is gone.
	quiet = 4
	// settling is how long a node that has just come listens until it has heard of all others: each answers its first beat.
	settling = 11 * beatEvery / 10
	maxBeat  = 4 << 10
)

// nodes is what a broker has to do with other nodes. One goroutine (run) takes what arrives, in its order, and owns what isn't
// guarded; the others are those that send (outbox), subscribe (interest) and answer (calls).
type nodes struct {
	b        *Broker
	out      outbox
	told     telling
	calls    calls
	interest interest
	arrived  chan *client.Msg // what is told, beats, and answers to fences
	changed  chan struct{}    // a link has
	soon     atomic.Bool      // a beat is due
	missed   atomic.Uint64
	end      chan struct{}
	ended    chan struct{} // run has

	mu     sync.Mutex
	over   bool
	topics map[string]*topic // by token
	hashes map[uint64]*topic // the same by what tails call them
	view   []broker.Peer
	stores int // of the view; -1 before it has heard of all others
	cut    bool

	// run's own.
	peers     map[broker.NodeID]*peer
	lives     uint64 // of both links
	need      uint64 // the own beat that must come back for this node not to be cut off
	own       uint64 // the own beat that has come back last
	since     int    // ticks since then
	settle    int    // ticks until it has heard of all others; 0 once it has
	tick      int
	missAll   bool     // all topics may have lost something
	missedAll int      // the tick when they were told so last
	again     []*topic // are to be told that once more
	waiting   []*topic
	fence     *fence
	fences    uint64
	fenceDue  time.Time
	fenceWait *time.Timer
	old       []*fence
}

// peer is another node that was heard of.
type peer struct {
	id    broker.NodeID
	known bool // it has said something of itself: it is in the view
	store bool
	beats uint64 // the last one's number
	body  []byte
	quiet int
	base  uint64   // what it had told up to here is heard, or its loss is said
	late  bool     // it hasn't answered a fence, and nothing was heard of it since: no other waits for it
	owed  []*topic // they were ready without it
}

func newNodeID() (id broker.NodeID) {
	rand.Read(id[:])
	return id
}

// ID implements broker.Broker.
func (b *Broker) ID() broker.NodeID { return b.id }

func subjectOf(prefix string, id broker.NodeID) string { return prefix + hex.EncodeToString(id[:]) }

// pickID gives the broker an id that no node has which answers: four bytes are few enough for two to meet in years.
func (b *Broker) pickID() {
	b.id = newNodeID()
	if b.nodes == nil {
		return
	}
	for b.taken(b.id) {
		b.log.Warn("another node has this one's id; it takes a new one", "id", hex.EncodeToString(b.id[:]))
		b.id = newNodeID()
	}
	b.nodes.told.id = b.id
}

// taken asks a node of that id whether it is there. It is only called while nobody waits for the connection.
func (b *Broker) taken(id broker.NodeID) bool {
	_, err := b.send.Request(subjectOf(callSubject, id), nil, time.Second)
	return err == nil
}

func newNodes(b *Broker) *nodes {
	n := &nodes{
		b: b, arrived: make(chan *client.Msg, b.maxArrived), changed: make(chan struct{}, 1), end: make(chan struct{}), ended: make(chan struct{}), cut: true, stores: -1, settle: -1,
		topics: map[string]*topic{}, hashes: map[uint64]*topic{}, peers: map[broker.NodeID]*peer{},
	}
	n.out.wake = make(chan struct{}, 1)
	n.told.round, n.missedAll = 1, -ticks
	n.told.now, n.told.before = map[string]*tale{}, map[string]*tale{}
	n.interest.wake, n.interest.done = make(chan struct{}, 1), make(chan []*topic)
	n.calls.arrived, n.calls.all = make(chan *client.Msg, b.maxArrived), map[uint64]*call{}
	return n
}

// linkChanged is called when a link comes or goes. It doesn't wait.
func (n *nodes) linkChanged() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// start begins to listen, and then to speak.
func (n *nodes) start() error {
	send, receive := n.b.send, n.b.receive
	n.calls.inbox = send.NewInbox() + "."
	answers, err := send.Subscribe(n.calls.inbox+"*", n.answered)
	if err == nil {
		err = answers.SetPendingLimits(-1, -1) // one for each call, which are bounded
	}
	if err == nil { // by the connection that tells: who asks there is known there
		_, err = send.Subscribe(fenceSubject, n.fenceAsked)
	}
	for _, subject := range []string{beatSubject, subjectOf(fencedSubject, n.b.id)} {
		if err == nil {
			_, err = receive.ChanSubscribe(subject, n.arrived)
		}
	}
	if err == nil {
		_, err = receive.ChanSubscribe(subjectOf(callSubject, n.b.id), n.calls.arrived)
	}
	if err != nil {
		return err
	}
	for _, c := range []*client.Conn{send, receive} { // else it might not hear the answers to its first beat, and would wait for the next
		_ = c.FlushTimeout(time.Second)
		if err := c.LastError(); errors.Is(err, client.ErrPermissionViolation) {
			return fmt.Errorf("the account may not publish and subscribe to hb.> and _HB.>, which nodes need: %w", err)
		}
	}
	n.b.node.View(nil, true)
	n.b.work.Go(func() { n.out.send(n.b.ctx, n.b.send) })
	n.b.work.Go(n.subscribe)
	n.b.work.Go(n.handle)
	n.b.work.Go(n.run)
	return nil
}

// stop ends what waits, and says good-bye.
func (n *nodes) stop() {
	n.mu.Lock()
	n.over = true
	n.mu.Unlock()
	close(n.end)
	<-n.ended // it says nothing any more
	n.beat(byeFlag)
	sent := n.out.close()
	ctx, cancel := context.WithTimeout(n.b.ctx, 2*time.Second)
	defer cancel()
	select {
	case <-sent:
		if n.b.sends.look().Up {
			_ = n.b.send.FlushWithContext(ctx) // who doesn't hear it finds out
		}
	case <-ctx.Done():
	}
	n.failCalls(func(*call) bool { return true })
}

// abandon ends what waits where start has failed.
func (n *nodes) abandon() {
	n.mu.Lock()
	n.over = true
	n.mu.Unlock()
	close(n.end)
	n.refuseWishes()
	n.failCalls(func(*call) bool { return true })
}

// run takes what arrives and does what is due, until the end.
func (n *nodes) run() {
	defer close(n.ended)
	due := time.NewTicker(beatEvery / ticks)
	defer due.Stop()
	n.fenceWait = time.NewTimer(time.Hour)
	defer n.fenceWait.Stop()
	n.look()
	for {
		select {
		case m := <-n.arrived:
			n.take(m)
		case topics := <-n.interest.done:
			n.waiting = append(n.waiting, topics...)
			n.startFence()
		case <-n.fenceWait.C:
			n.startFence()
		case <-n.changed:
			n.look()
		case <-due.C:
			n.ticked()
		case <-n.end:
			n.failTopics()
			return
		}
	}
}

func (n *nodes) take(m *client.Msg) {
	switch {
	case strings.HasPrefix(m.Subject, topicSubject):
		n.heard(m)
	case m.Subject == beatSubject:
		n.heardBeat(m.Data)
	default:
		n.fenceAnswered(m.Data)
	}
}

func (n *nodes) ticked() {
	n.tick++
	n.since++
	if n.settle > 0 {
		if n.settle--; n.settle == 0 {
			n.viewChanged()
			n.startFence()
		}
	}
	switch {
	case n.tick%ticks == 0:
		n.beat(regularFlag)
	case n.soon.Load():
		n.beat(0)
	}
	n.look()
	n.fenceTicked()
	n.callsTicked()
	n.missTicked()
}

// look sees whether the node is cut off.
func (n *nodes) look() {
	sends, receives := n.b.sends.look(), n.b.receives.look()
	if lives := sends.Reconnects + receives.Reconnects + 1; lives != n.lives && sends.Up && receives.Up {
		first := n.lives == 0
		n.lives = lives
		n.told.mu.Lock()
		n.need = n.told.beats + 1
		n.told.mu.Unlock()
		if first {
			n.beat(helloFlag)
		} else {
			n.beat(0)
		}
	}
	cut := !sends.Up || !receives.Up || n.own < n.need || n.since > 3*ticks
	n.mu.Lock()
	changed := n.cut != cut
	n.cut = cut
	n.mu.Unlock()
	if changed && n.settle == 0 {
		n.viewChanged()
	}
	if changed && !cut {
		if n.settle < 0 {
			n.settle = int(settling * ticks / beatEvery)
		}
		for _, p := range n.peers { // nobody could hear them
			p.quiet = 0
		}
		n.startFence()
	}
}

const (
	byeFlag     = 1 << iota // the node ends
	helloFlag               // it has just come: all others shall say that they are there
	regularFlag             // a second has gone by
	storeFlag               // the node is a store
)

// beat says what the node says of itself, and the end of what it has told to topics that it tells nothing any more. While it
// can't be sent it waits for the next.
func (n *nodes) beat(flags byte) {
	if !n.b.sends.look().Up {
		return
	}
	n.soon.Store(false)
	body := n.b.node.Beat()
	if len(body) > maxBeat {
		n.b.log.Error("what the node says of itself is too large to be sent", "bytes", len(body))
		body = nil
	}
	if s := n.b.stores; s != nil && s.own != "" {
		flags |= storeFlag
	}
	n.told.beat(&n.out, flags, body)
}

// heardBeat takes a beat: [id] [flags] number, told, the length of the body, the body, and tails to the end.
func (n *nodes) heardBeat(b []byte) {
	id, b, ok := cutID(b)
	if !ok || len(b) == 0 {
		return
	}
	flags := b[0]
	number, b, ok1 := cutNumber(b[1:])
	told, b, ok2 := cutNumber(b)
	body, tails, ok3 := cutField(b)
	if !ok1 || !ok2 || !ok3 {
		return
	}
	if id == n.b.id {
		n.heardOwn(flags, number)
		return
	}
	p := n.peer(id)
	if number <= p.beats {
		return // it was overtaken
	}
	before := p.beats
	p.beats, p.quiet = number, 0
	switch {
	case number == before+1:
		n.heardTails(p, told, tails)
	case told == 0: // nor can anything be lost: a node that comes isn't heard at once by all
	case p.known || n.settle == 0: // the beats between are lost: nobody knows what else
		n.missAll = true
		fallthrough
	default: // this node has just come
		p.base = told
	}
	n.miss(p.owed)
	p.late, p.owed = false, nil
	if flags&helloFlag != 0 {
		n.soon.Store(true)
	}
	if flags&byeFlag != 0 {
		n.lose(p)
		return
	}
	store := p.store || flags&storeFlag != 0 // not every part of a beat says so
	if !p.known || p.store != store || !bytes.Equal(p.body, body) {
		p.known, p.store, p.body = true, store, bytes.Clone(body)
		n.viewChanged()
	}
}

// heardOwn: this node's clock is what comes back of its beats, so that who doesn't hear because it is slow, or cut off, holds
// nobody for gone.
func (n *nodes) heardOwn(flags byte, number uint64) {
	n.own, n.since = max(n.own, number), 0
	n.look()
	if flags&regularFlag == 0 {
		return
	}
	for _, p := range n.peers {
		if p.quiet++; p.quiet < quiet {
			continue
		}
		if p.known { // it has said no good-bye
			n.missAll = true
			n.b.log.Warn("a node is gone", "node", hex.EncodeToString(p.id[:]))
		}
		n.lose(p)
	}
}

func (n *nodes) peer(id broker.NodeID) *peer {
	p := n.peers[id]
	if p == nil {
		p = &peer{id: id}
		n.peers[id] = p
	}
	return p
}

// lose forgets a node that is gone.
func (n *nodes) lose(p *peer) {
	delete(n.peers, p.id)
	n.mu.Lock()
	for _, t := range n.topics {
		t.heard = slices.DeleteFunc(t.heard, func(h heard) bool { return h.p == p })
	}
	n.mu.Unlock()
	n.viewChanged()
	n.failCalls(func(c *call) bool { return c.to == p.id })
	if n.fence != nil {
		delete(n.fence.missing, p.id)
		n.endFence()
	}
}

// viewChanged tells the node who is there, once it has heard of all.
func (n *nodes) viewChanged() {
	var view []broker.Peer
	stores := 0
	for _, id := range slices.SortedFunc(maps.Keys(n.peers), func(a, b broker.NodeID) int { return bytes.Compare(a[:], b[:]) }) {
		if p := n.peers[id]; p.known {
			view = append(view, broker.Peer{ID: id, Beat: p.body})
			if p.store {
				stores++
			}
		}
	}
	n.mu.Lock()
	n.view = view
	if n.settle == 0 {
		n.stores = stores
	}
	cut := n.cut
	n.mu.Unlock()
	if n.settle == 0 {
		n.b.node.View(view, cut)
	}
}

// sees says whether a node is in the view.
func (n *nodes) sees(id broker.NodeID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := slices.BinarySearchFunc(n.view, id, func(p broker.Peer, id broker.NodeID) int { return bytes.Compare(p.ID[:], id[:]) })
	return ok && !n.over
}

// otherStores is how many stores are heard of, this one not counted. ok is false where nobody knows.
func (n *nodes) otherStores() (many int, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stores, n.stores >= 0 && !n.cut
}

func cutID(b []byte) (id broker.NodeID, rest []byte, ok bool) {
	if len(b) < len(id) {
		return id, nil, false
	}
	return broker.NodeID(b[:len(id)]), b[len(id):], true
}

func cutNumber(b []byte) (v uint64, rest []byte, ok bool) {
	v, used := binary.Uvarint(b)
	if used <= 0 {
		return 0, nil, false
	}
	return v, b[used:], true
}
