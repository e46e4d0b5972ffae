package hub

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hubbub/broker"
)

// How many connections each user has, over all nodes: who wants one more has its node ask the others how many they have.
// A node notes that it lets one in before it asks, and counts those when it is asked: so of two that let somebody in at
// the same time one at least knows of the other. A node that doesn't answer isn't counted: that some can't be reached must
// keep nobody out.

const (
	seatsWithin = 300 * time.Millisecond // how long the others are asked
	comesWithin = 3000                   // milliseconds from when one is let in until it has its connection, or never will
)

// seats are how many connections each user has, where that is limited. Any goroutine.
type seats struct {
	most atomic.Int64 // 0 counts nothing

	// Guarded by mu.
	mu     sync.Mutex
	taken  map[string]int
	coming map[string][]int64 // those who are let in and haven't taken theirs, by when they don't count any more; of several nodes alone
}

// full says that the user has as many as it may.
func (p *seats) full(user string) bool {
	most := int(p.most.Load())
	return most > 0 && p.of(user) >= most
}

// of is how many the user has here, or will have.
func (p *seats) of(user string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ofLocked(user)
}

func (p *seats) ofLocked(user string) int {
	if all, now := p.coming[user], clock(); len(all) > 0 && all[0] <= now {
		p.setComing(user, slices.DeleteFunc(all, func(until int64) bool { return until <= now }))
	}
	return p.taken[user] + len(p.coming[user])
}

func (p *seats) setComing(user string, all []int64) {
	switch {
	case len(all) == 0:
		delete(p.coming, user)
	case p.coming == nil:
		p.coming = map[string][]int64{}
		fallthrough
	default:
		p.coming[user] = all
	}
}

// comes notes that one more is let in, unless the user has as many as it may; before says how many it had.
func (p *seats) comes(user string) (before int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before = p.ofLocked(user)
	if most := int(p.most.Load()); most > 0 && before >= most {
		return before, false
	}
	p.setComing(user, append(p.coming[user], clock()+comesWithin))
	return before, true
}

// goes takes back comes.
func (p *seats) goes(user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if all := p.coming[user]; len(all) > 0 {
		p.setComing(user, all[:len(all)-1])
	}
}

// take takes one more, unless the user has as many as it may.
func (p *seats) take(user string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if all := p.coming[user]; len(all) > 0 {
		p.setComing(user, all[1:]) // this one's, or one as good
	}
	if most := int(p.most.Load()); most > 0 && p.taken[user] >= most {
		return false
	}
	p.seatLocked(user)
	return true
}

// seat is take for a connection that is there already.
func (p *seats) seat(user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seatLocked(user)
}

func (p *seats) seatLocked(user string) {
	if p.taken == nil {
		p.taken = map[string]int{}
	}
	p.taken[user]++
}

// leave gives one back.
func (p *seats) leave(user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[user]--; p.taken[user] <= 0 {
		delete(p.taken, user)
	}
}

// all is how many are taken.
func (p *seats) all() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, of := range p.taken {
		n += of
	}
	return n
}

// tidy forgets who never came.
func (p *seats) tidy() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for user := range p.coming {
		p.ofLocked(user)
	}
}

// AsksNodes says that other nodes are asked whether a client with a name may come in, which may take long where one of them hangs.
// Any goroutine.
func (h *Hub) AsksNodes() bool { return h.cluster != nil && h.limits.connections.most.Load() > 0 }

// mayHaveOneMore says that the user may have one more connection, over all nodes. Where there are others it waits for them.
func (h *Hub) mayHaveOneMore(ctx context.Context, user string) bool {
	l, c := &h.limits.connections, h.cluster
	if l.most.Load() == 0 || c == nil {
		return !l.full(user)
	}
	all, ok := l.comes(user)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, seatsWithin)
	defer cancel()
	peers, _ := c.view()
	c.askEach(ctx, peers, callSeats, user, func(_ broker.NodeID, answer []byte, err error) {
		var has int
		if decodeAnswer(answer, err, &has) == nil && has > 0 {
			all += has
		}
	})
	if most := int(l.most.Load()); most > 0 && all >= most {
		l.goes(user)
		return false
	}
	return true
}

// answerSeats is the call of mayHaveOneMore.
func answerSeats(h *Hub, _ broker.NodeID, question []byte, reply func(any, error)) {
	var user string
	if err := json.Unmarshal(question, &user); err != nil {
		reply(nil, err)
		return
	}
	reply(h.limits.connections.of(user), nil)
}
