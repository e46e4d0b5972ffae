package nats

import (
	"encoding/binary"
	"time"

	client "github.com/nats-io/nats.go"

	"example.com/hubbub/broker"
)

// A server learns late to what a node at another one listens. So a node that has subscribed asks all others, behind that on the
// same connection: the question goes the same way as the news of the subscription, and who answers, by the connection that
// it tells with, is at a server that knows. One such fence is under way at a time, for all topics that wait.
const (
	fenceEvery   = 5 * time.Millisecond // begins one at most: what is subscribed meanwhile goes with the next
	fencePatient = time.Second          // with who doesn't answer: it is likely to be gone soon
	// fenceKept is for how many ticks a fence is remembered: what was told before it is a tail, or goes on, by then.
	fenceKept = 10 * ticks
)

type fence struct {
	number  uint64
	lives   uint64 // of the links, when it was asked
	until   time.Time
	topics  []*topic
	missing map[broker.NodeID]bool   // haven't answered
	numbers map[broker.NodeID]uint64 // of what each had told last, when it answered
	tick    int                      // when it ended
}

// startFence asks for the topics that wait, if it is time to.
func (n *nodes) startFence() {
	if n.fence != nil || len(n.waiting) == 0 || n.settle != 0 || n.isCut() {
		return
	}
	now := time.Now()
	if wait := n.fenceDue.Sub(now); wait > 0 {
		n.fenceWait.Reset(wait)
		return
	}
	n.fenceDue = now.Add(fenceEvery)
	n.fences++
	f := &fence{
		number: n.fences, lives: n.lives, until: now.Add(fencePatient), topics: n.waiting,
		missing: map[broker.NodeID]bool{n.b.id: true}, numbers: map[broker.NodeID]uint64{},
	}
	n.waiting, n.fence = nil, f
	for id, p := range n.peers {
		switch {
		case !p.known:
		case p.late:
			p.owed = append(p.owed, f.topics...)
		default:
			f.missing[id] = true
		}
	}
	n.interest.push(wish{fence: binary.AppendUvarint(n.b.id[:len(n.b.id):len(n.b.id)], f.number)})
}

func (n *nodes) isCut() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut
}

// fenceAsked answers another node's, or this one's own.
func (n *nodes) fenceAsked(m *client.Msg) {
	id, rest, ok := cutID(m.Data)
	if !ok || len(rest) > binary.MaxVarintLen64 {
		return
	}
	answer := append(append(make([]byte, 0, 32), n.b.id[:]...), rest...)
	n.told.mu.Lock()
	defer n.told.mu.Unlock()
	answer = binary.AppendUvarint(answer, n.told.number)
	_ = n.out.push(letter{subject: subjectOf(fencedSubject, id), data: answer}) // who asks goes on without
}

func (n *nodes) fenceAnswered(b []byte) {
	id, b, ok := cutID(b)
	number, b, ok1 := cutNumber(b)
	told, _, ok2 := cutNumber(b)
	f := n.fence
	if !ok || !ok1 || !ok2 || f == nil || f.number != number {
		return
	}
	delete(f.missing, id)
	f.numbers[id] = told
	n.endFence()
}

// endFence has the topics be ready, where all have answered.
func (n *nodes) endFence() {
	f := n.fence
	if f == nil || len(f.missing) > 0 {
		return
	}
	n.fence = nil
	if f.lives != n.lives { // the answers are about a connection that is gone
		n.waiting = append(f.topics, n.waiting...)
		n.startFence()
		return
	}
	f.tick = n.tick
	n.old = append(n.old, f)
	for _, t := range f.topics {
		n.begin(t, f)
	}
	f.topics = nil
	n.startFence()
}

// begin has a topic be ready. What arrives is taken behind that: it is this goroutine that does.
func (n *nodes) begin(t *topic, f *fence) {
	n.mu.Lock()
	open := t.sub != nil
	n.mu.Unlock()
	if !open { // it is closed, or couldn't be subscribed
		n.close(t)
		t.ready(broker.ErrUnavailable)
		return
	}
	t.since = f
	t.ready(nil)
	t.live = true
}

// fenceTicked ends a fence that somebody doesn't answer, and gives up topics that wait for too long.
func (n *nodes) fenceTicked() {
	now := time.Now()
	if f := n.fence; f != nil && now.After(f.until) {
		if f.missing[n.b.id] { // the question is lost
			n.fence = nil
			n.waiting = append(f.topics, n.waiting...)
		} else {
			for id := range f.missing {
				p := n.peer(id)
				p.late, p.owed = true, append(p.owed, f.topics...)
			}
			clear(f.missing)
			n.endFence()
		}
	}
	var late []*topic
	kept := n.waiting[:0]
	for _, t := range n.waiting {
		if now.After(t.until) {
			late = append(late, t)
		} else {
			kept = append(kept, t)
		}
	}
	n.waiting = kept
	for _, t := range late {
		n.close(t)
		t.ready(broker.ErrUnavailable)
	}
	n.startFence()
	for len(n.old) > 0 && n.tick-n.old[0].tick > fenceKept {
		n.old[0].numbers = nil
		n.old = n.old[1:]
	}
}
