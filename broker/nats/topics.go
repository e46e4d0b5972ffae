package nats

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"

	"example.com/hubbub/broker"
)

// What a node tells is numbered, over all topics, and bears the number of what it has told that topic before: so who listens
// sees a hole. Where nothing follows, a beat brings the number of what was told last (a tail), and then the teller forgets
// the topic: it has to remember those that it has told something in the last two beats. A beat that is missing has all
// topics told that something may be lost.

const (
	maxTales = 1 << 17 // topics that a teller remembers
	// maxTails is how many a beat brings; the others are in further ones.
	maxTails = 4096
	tailSize = 8 + binary.MaxVarintLen64
)

// telling is what this node tells.
type telling struct {
	id broker.NodeID // static

	mu          sync.Mutex
	number      uint64 // of what was told last
	beats       uint64 // the number of the last
	round       uint64 // grows from beat to beat
	now, before map[string]*tale
}

// tale is a topic that was told something in this round, or the one before.
type tale struct {
	subject string
	hash    uint64
	number  uint64
	round   uint64
}

// topicHash is what a tail calls a topic. Clients name topics: they must not be able to make two the same.
func topicHash(token string) uint64 {
	sum := sha256.Sum256([]byte(token))
	return binary.LittleEndian.Uint64(sum[:8])
}

// Tell implements broker.Broker.
func (b *Broker) Tell(topic string, body []byte) error {
	n := b.nodes
	if n == nil || !n.tells() {
		return broker.ErrUnavailable
	}
	if int64(len(body)) > b.maxPayload.Load()-64 {
		return fmt.Errorf("%w: what is told has %d bytes, and the NATS servers take %d", broker.ErrUnavailable, len(body), b.maxPayload.Load())
	}
	if err := n.told.tell(&n.out, topic, body); err != nil {
		return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
	return nil
}

// tells says whether what is told can be sent.
func (n *nodes) tells() bool {
	select {
	case <-n.b.served:
	default:
		return false
	}
	return n.b.sends.up.Load()
}

// tell sends [id] number, number less the one before or 0, body.
func (t *telling) tell(out *outbox, topic string, body []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.now[topic]
	if e == nil {
		if e = t.before[topic]; e == nil {
			if len(t.now)+len(t.before) >= maxTales {
				return errOutboxFull
			}
			token := token(topic)
			e = &tale{subject: topicSubject + token, hash: topicHash(token)}
		}
	}
	number, behind := t.number+1, uint64(0)
	if e.number > 0 {
		behind = number - e.number
	}
	data := make([]byte, 0, len(t.id)+2*binary.MaxVarintLen64+len(body))
	data = append(data, t.id[:]...)
	data = binary.AppendUvarint(data, number)
	data = binary.AppendUvarint(data, behind)
	data = append(data, body...)
	if err := out.push(letter{subject: e.subject, data: data}); err != nil {
		return err
	}
	t.number, e.number = number, number
	if e.round != t.round {
		e.round = t.round
		t.now[topic] = e
	}
	return nil
}

// beat sends one behind all that was told before, or as many as the tails take.
func (t *telling) beat(out *outbox, flags byte, body []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var tails []byte
	n := 0
	end := func(e *tale) {
		if n == maxTails {
			t.sendBeat(out, 0, body, tails)
			tails, n = tails[:0], 0
		}
		tails = binary.LittleEndian.AppendUint64(tails, e.hash)
		tails = binary.AppendUvarint(tails, t.number-e.number)
		n++
	}
	for _, e := range t.before {
		if e.round != t.round {
			end(e)
		}
	}
	if flags&byeFlag != 0 {
		for _, e := range t.now {
			end(e)
		}
		clear(t.now)
	}
	t.sendBeat(out, flags, body, tails)
	clear(t.before)
	t.now, t.before = t.before, t.now
	t.round++
}

// sendBeat: t.mu is held.
func (t *telling) sendBeat(out *outbox, flags byte, body, tails []byte) {
	t.beats++
	b := make([]byte, 0, len(t.id)+1+3*binary.MaxVarintLen64+len(body)+len(tails))
	b = append(append(b, t.id[:]...), flags)
	b = binary.AppendUvarint(b, t.beats)
	b = binary.AppendUvarint(b, t.number)
	b = binary.AppendUvarint(b, uint64(len(body)))
	b = append(b, body...)
	b = append(b, tails...)
	_ = out.push(letter{subject: beatSubject, data: b}) // who doesn't get it will see that
}

// topic is one that this node listens to.
type topic struct {
	name  string
	token string
	hash  uint64
	ready func(error)
	until time.Time // when it is given up

	// Guarded by nodes.mu.
	sub    *client.Subscription
	closed bool

	// nodes.run's own.
	live   bool    // ready was called
	since  *fence  // before it others could tell things that don't count; nil where all of that has been heard of
	heard  []heard // from those whose chain goes on
	missed int     // the tick of the last time
	again  bool    // something else is missed since then
}

// heard is the number of what a peer has told a topic last.
type heard struct {
	p      *peer
	number uint64
}

// Listen implements broker.Broker.
func (b *Broker) Listen(name string, ready func(error)) (closed func()) {
	n := b.nodes
	if n == nil {
		go ready(broker.ErrUnavailable)
		return func() {}
	}
	token := token(name)
	t := &topic{name: name, token: token, hash: topicHash(token), ready: ready, until: time.Now().Add(apiTimeout)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.over {
		go ready(broker.ErrUnavailable)
		return func() {}
	}
	n.topics[t.token], n.hashes[t.hash] = t, t
	n.interest.push(wish{subscribe: t})
	return func() { n.close(t) }
}

func (n *nodes) close(t *topic) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	if n.topics[t.token] == t {
		delete(n.topics, t.token)
		delete(n.hashes, t.hash)
	}
	if t.sub != nil {
		n.interest.push(wish{unsubscribe: t.sub})
		t.sub = nil
	}
}

// interest is what is to be subscribed and not any more, in its order. A server that takes nothing blocks who does it.
type interest struct {
	wake chan struct{}
	done chan []*topic // subscribed, or nil as their sub

	mu    sync.Mutex
	queue []wish
}

type wish struct {
	subscribe   *topic
	unsubscribe *client.Subscription
	fence       []byte // a question behind what was subscribed before
}

func (i *interest) push(w wish) {
	i.mu.Lock()
	i.queue = append(i.queue, w)
	i.mu.Unlock()
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// subscribe does what is wished, until the end.
func (n *nodes) subscribe() {
	for {
		n.interest.mu.Lock()
		queue := n.interest.queue
		n.interest.queue = nil
		n.interest.mu.Unlock()
		var done []*topic
		for _, w := range queue {
			switch {
			case w.subscribe != nil:
				n.subscribeTo(w.subscribe)
				done = append(done, w.subscribe)
			case w.unsubscribe != nil:
				unsubscribe(w.unsubscribe)
			default:
				_ = n.b.receive.Publish(fenceSubject, w.fence) // it is asked again where nobody answers
			}
		}
		if len(done) > 0 {
			select {
			case n.interest.done <- done:
				continue
			case <-n.end:
				fail(done)
			}
		}
		select {
		case <-n.interest.wake:
		case <-n.end:
			n.refuseWishes()
			return
		}
	}
}

// refuseWishes is the end: nobody does them any more.
func (n *nodes) refuseWishes() {
	n.interest.mu.Lock()
	queue := n.interest.queue
	n.interest.queue = nil
	n.interest.mu.Unlock()
	for _, w := range queue {
		if w.subscribe != nil {
			w.subscribe.ready(broker.ErrUnavailable)
		}
	}
}

func (n *nodes) subscribeTo(t *topic) {
	sub, err := n.b.receive.ChanSubscribe(topicSubject+t.token, n.arrived)
	if err != nil {
		return // run sees that there is none
	}
	n.mu.Lock()
	closed := t.closed
	if !closed {
		t.sub = sub
	}
	n.mu.Unlock()
	if closed {
		unsubscribe(sub)
	}
}

func fail(topics []*topic) {
	for _, t := range topics {
		t.ready(broker.ErrUnavailable)
	}
}

// failTopics is run's end.
func (n *nodes) failTopics() {
	fail(n.waiting)
	if n.fence != nil {
		fail(n.fence.topics)
	}
}

// heard takes what is told.
func (n *nodes) heard(m *client.Msg) {
	id, b, ok := cutID(m.Data)
	number, b, ok1 := cutNumber(b)
	behind, body, ok2 := cutNumber(b)
	if !ok || !ok1 || !ok2 || behind > number || id == n.b.id {
		return
	}
	n.mu.Lock()
	t := n.topics[strings.TrimPrefix(m.Subject, topicSubject)]
	ours := t != nil && t.sub == m.Sub
	n.mu.Unlock()
	if !ours {
		return
	}
	p := n.peer(id)
	last := t.last(p)
	if last == nil {
		t.heard = append(t.heard, heard{p: p})
		last = &t.heard[len(t.heard)-1]
	}
	if number <= last.number {
		return // it was overtaken, and has been told as lost
	}
	hole := behind > 0 && number-behind > max(last.number, t.from(p))
	last.number = number
	if !t.live {
		return
	}
	if hole {
		n.miss([]*topic{t})
	}
	n.b.node.Heard(t.name, id, body)
}

// last is what was heard of a peer last; nil where its chain is new.
func (t *topic) last(p *peer) *heard {
	for i := range t.heard {
		if t.heard[i].p == p {
			return &t.heard[i]
		}
	}
	return nil
}

// from is the number up to which what a peer has told needn't have come.
func (t *topic) from(p *peer) uint64 {
	if t.since == nil {
		return p.base
	}
	return max(p.base, t.since.numbers[p.id])
}

// heardTails takes the ends of what a peer has told.
func (n *nodes) heardTails(p *peer, told uint64, b []byte) {
	var lost []*topic
	for len(b) >= 8 {
		hash := binary.LittleEndian.Uint64(b)
		behind, rest, ok := cutNumber(b[8:])
		if b = rest; !ok || behind > told {
			return
		}
		n.mu.Lock()
		t := n.hashes[hash]
		n.mu.Unlock()
		if t == nil {
			continue
		}
		number, had := told-behind, t.from(p)
		if last := t.last(p); last != nil {
			had = max(had, last.number)
			if last.number <= number { // its next chain is a new one
				t.heard = slices.DeleteFunc(t.heard, func(h heard) bool { return h.p == p })
			}
		}
		if number > had {
			lost = append(lost, t)
		}
	}
	n.miss(lost)
}

// miss tells topics that something may be lost: each at once, but only once between two ticks, so that a node which is too slow
// for what arrives isn't kept busy with that.
func (n *nodes) miss(topics []*topic) {
	for _, t := range topics {
		if t.missed == n.tick {
			if !t.again {
				t.again = true
				n.again = append(n.again, t)
			}
			continue
		}
		n.mu.Lock()
		open := t.live && !t.closed
		n.mu.Unlock()
		if open {
			t.missed = n.tick
			n.missed.Add(1)
			n.b.node.Missed(t.name)
		}
	}
}

// missTicked tells what miss didn't, and all topics where that has to be, once a second at most.
func (n *nodes) missTicked() {
	again := n.again
	n.again = nil
	for _, t := range again {
		t.again = false
	}
	n.miss(again)
	if n.missAll && n.tick-n.missedAll >= ticks {
		n.missAll, n.missedAll = false, n.tick
		n.miss(n.live())
	}
}

// live are the topics that the node listens to.
func (n *nodes) live() (topics []*topic) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.topics {
		topics = append(topics, t)
	}
	return topics
}
