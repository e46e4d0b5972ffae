package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/presence"
	"example.com/hubbub/internal/protocol"
)

// Who is in a room, or how many are, where that is asked of the other nodes: of many rooms in one call.

// memberQuestion asks a node how many members it has in a room, and for the first of them behind After, if Limit isn't 0.
// Where these are still the Known ones it need not tell.
type memberQuestion struct {
	Room  string
	After string `json:",omitempty"`
	Limit int    `json:",omitempty"`
	Known uint64 `json:",omitempty"`
	Of    presence.Summary
}

// memberAnswer is what it has. Later says that the answer had no room for it.
type memberAnswer struct {
	presence.Page
	Same, Later bool `json:",omitempty"`
}

const (
	maxQuestions    = 256
	maxAnswerBytes  = 256 << 10
	maxAsked        = 1 << 17 // questions that wait for one node
	questionTimeout = 3 * time.Second
)

// questions are what is asked of the other nodes. One call to each is under way at a time; what comes meanwhile shares the
// next.
type questions struct {
	c     *cluster
	mu    sync.Mutex
	nodes map[broker.NodeID]*askedNode
	rooms map[string]*askedRoom
}

type askedNode struct {
	waiting []waitingQuestion
	busy    bool
}

type waitingQuestion struct {
	memberQuestion
	done func(memberAnswer, error)
}

// ask asks a node; done is called once, by any goroutine, and never inside of ask. It may be called under a room's lock.
func (a *questions) ask(node broker.NodeID, q memberQuestion, done func(memberAnswer, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.nodes == nil {
		a.nodes = map[broker.NodeID]*askedNode{}
	}
	n := a.nodes[node]
	if n == nil {
		n = &askedNode{}
		a.nodes[node] = n
	}
	if len(n.waiting) >= maxAsked {
		go done(memberAnswer{}, broker.ErrUnavailable)
		return
	}
	n.waiting = append(n.waiting, waitingQuestion{q, done})
	a.next(node, n)
}

// next asks what waits for a node. a.mu is held.
func (a *questions) next(node broker.NodeID, n *askedNode) {
	switch {
	case n.busy:
		return
	case len(n.waiting) == 0:
		delete(a.nodes, node)
		return
	}
	n.busy = true
	part := n.waiting[:min(len(n.waiting), maxQuestions)]
	n.waiting = slices.Clone(n.waiting[len(part):])
	questions := make([]memberQuestion, len(part))
	for i := range part {
		questions[i] = part[i].memberQuestion
	}
	var once sync.Once
	answered := func(body []byte, err error) {
		once.Do(func() { a.answered(node, n, part, body, err) })
	}
	late := time.AfterFunc(questionTimeout, func() { answered(nil, broker.ErrTimeout) })
	a.c.ask(node, callMembers, questions, func(body []byte, err error) {
		late.Stop()
		answered(body, err)
	})
}

// answered gives what a node has answered, and asks it for more.
func (a *questions) answered(node broker.NodeID, n *askedNode, part []waitingQuestion, body []byte, err error) {
	var answers []memberAnswer
	if err = decodeAnswer(body, err, &answers); err == nil && len(answers) != len(part) {
		err = fmt.Errorf("another node has given %d answers to %d questions", len(answers), len(part))
	}
	var later []waitingQuestion
	for i, q := range part {
		switch {
		case err != nil:
			q.done(memberAnswer{}, err)
		case answers[i].Later:
			later = append(later, q)
		default:
			q.done(answers[i], nil)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	n.busy = false
	n.waiting = append(later, n.waiting...)
	a.next(node, n)
}

// answerMembers answers another node's questions. Off the broker's goroutine, since the lists may be long.
func answerMembers(h *Hub, _ broker.NodeID, question []byte, reply func(any, error)) {
	var questions []memberQuestion
	if err := json.Unmarshal(question, &questions); err != nil {
		reply(nil, err)
		return
	}
	go func() {
		answers := make([]memberAnswer, len(questions))
		bytes := 0
		for i := range questions {
			if answers[i].Later = bytes > maxAnswerBytes; answers[i].Later {
				continue
			}
			answers[i] = h.membersHere(&questions[i])
			for _, e := range answers[i].Members {
				bytes += memberSize(e.Member)
			}
		}
		reply(answers, nil)
	}()
}

// membersHere are this node's own members of a room.
func (h *Hub) membersHere(q *memberQuestion) (a memberAnswer) {
	defer h.recovered("listing a room's members")
	sh := h.roomShard(q.Room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[q.Room]
	switch {
	case r == nil:
		return a
	case r.presence == nil || r.presence.together == nil || q.Limit == 0:
		a.Count = r.members
		return a
	}
	limits := memberLimits
	limits.Members = max(1, min(limits.Members, q.Limit))
	a.Page = r.presence.Own(q.After, limits)
	if q.After == "" && a.Number == q.Known && a.Summary == q.Of {
		a.Same, a.Members, a.More = true, nil, false
	}
	return a
}

// askedRoom is who is in a room on the other nodes, as a client asks: those who ask while others do, or a moment later,
// share the answer.
type askedRoom struct {
	waiting []func(elsewhere, error) // nil once it is answered
	answer  elsewhere
	cost    int64
}

// elsewhere is who is in a room on other nodes: how many, and the first of them where it tells who.
type elsewhere struct {
	count   int
	members []protocol.Member
	more    bool
}

// answerLife is how long an answer is good for others.
const answerLife = time.Second

// elsewhere asks all other nodes who is in a room. done is called once, by any goroutine, perhaps inside; it has an error
// where some node doesn't answer, or there may be others that can't be asked.
func (h *Hub) elsewhere(name string, done func(elsewhere, error)) {
	a := &h.cluster.asking
	a.mu.Lock()
	of := a.rooms[name]
	switch {
	case of == nil:
		if a.rooms == nil {
			a.rooms = map[string]*askedRoom{}
		}
		a.rooms[name] = &askedRoom{waiting: []func(elsewhere, error){done}}
		a.mu.Unlock()
		h.askAll(memberQuestion{Room: name, Limit: h.listed(name)}, func(e elsewhere, err error) { h.answeredRoom(name, e, err) })
	case of.waiting != nil:
		of.waiting = append(of.waiting, done)
		a.mu.Unlock()
	default:
		a.mu.Unlock()
		done(of.answer, nil)
	}
}

// listed is how many members of a room are told at once.
func (h *Hub) listed(name string) int {
	if h.cfg().Policies.For(name).Presence == PresenceFull {
		return memberLimits.Members
	}
	return 0
}

// answeredRoom tells all who wait.
func (h *Hub) answeredRoom(name string, e elsewhere, err error) {
	a := &h.cluster.asking
	a.mu.Lock()
	of := a.rooms[name]
	waiting := of.waiting
	of.waiting, of.answer = nil, e
	if err != nil || h.stopping() {
		delete(a.rooms, name)
	} else {
		of.cost = presence.MemberCost
		for _, m := range e.members {
			of.cost += presence.MemberCost + int64(len(m.User)+len(m.Data))
		}
		h.keep(KeptPresence, nil, of.cost)
		time.AfterFunc(answerLife, func() { a.forget(name, of) })
	}
	a.mu.Unlock()
	for _, done := range waiting {
		done(e, err)
	}
}

func (a *questions) forget(name string, of *askedRoom) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rooms[name] == of {
		delete(a.rooms, name)
		a.c.hub.keep(KeptPresence, nil, -of.cost)
	}
}

// stop forgets all answers.
func (a *questions) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, of := range a.rooms {
		if of.waiting == nil {
			delete(a.rooms, name)
			a.c.hub.keep(KeptPresence, nil, -of.cost)
		}
	}
}

// askAll asks all other nodes one question, and joins the answers.
func (h *Hub) askAll(q memberQuestion, done func(elsewhere, error)) {
	peers, cut := h.cluster.view()
	if cut {
		done(elsewhere{}, broker.ErrUnavailable)
		return
	}
	if len(peers) == 0 {
		done(elsewhere{}, nil)
		return
	}
	var mu sync.Mutex
	var all elsewhere
	var failed error
	left, upTo := len(peers), "" // behind that id some node may have others; "" for none
	for _, p := range peers {
		h.cluster.asking.ask(p.ID, q, func(a memberAnswer, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil && h.cluster.mayBeThere(p.ID) { // what is gone has no members any more
				failed = err
			}
			all.count += a.Count
			if last := len(a.Members) - 1; a.More && last >= 0 && (upTo == "" || a.Members[last].ClientID < upTo) {
				all.more, upTo = true, a.Members[last].ClientID
			}
			for _, e := range a.Members {
				all.members = append(all.members, e.Member)
			}
			if left--; left > 0 {
				return
			}
			if upTo != "" {
				all.members = slices.DeleteFunc(all.members, func(m protocol.Member) bool { return m.ClientID > upTo })
			}
			done(all, failed)
		})
	}
}

// mayBeThere says that a node is there, or that nobody knows.
func (c *cluster) mayBeThere(node broker.NodeID) bool {
	peers, cut := c.view()
	return cut || slices.ContainsFunc(peers, func(p broker.Peer) bool { return p.ID == node })
}

// joinMembers sorts what several nodes have by id, has each once, and cuts it off at a limit.
func joinMembers(all []protocol.Member, limits presence.Limits) (list []protocol.Member, cut bool) {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b protocol.Member) int { return strings.Compare(a.ClientID, b.ClientID) })
	all = slices.CompactFunc(all, func(a, b protocol.Member) bool { return a.ClientID == b.ClientID })
	bytes := 0
	for i, m := range all {
		if bytes += memberSize(m); i > 0 && (i == limits.Members || bytes > limits.Bytes) {
			return all[:i], true
		}
	}
	return all, false
}

// presenceElsewhere is PresenceAfter where the other nodes have to be asked. It waits for them.
func (h *Hub) presenceElsewhere(ctx context.Context, q memberQuestion) (e elsewhere, err error) {
	type outcome struct {
		e   elsewhere
		err error
	}
	answered := make(chan outcome, 1)
	done := func(e elsewhere, err error) { answered <- outcome{e, err} }
	if q.Limit == 0 {
		h.elsewhere(q.Room, done)
	} else {
		h.askAll(q, done)
	}
	select {
	case o := <-answered:
		return o.e, o.err
	case <-ctx.Done():
		return e, fmt.Errorf("%w: %w", ErrTimeout, ctx.Err())
	}
}

// presenceTogether is PresenceAfter for a hub that isn't alone.
func (h *Hub) presenceTogether(ctx context.Context, room string, after ID, limit int) (count int, members []protocol.Member, more bool, err error) {
	known := make(chan error, 1)
	if h.whenKnown(room, func(err error) { known <- err }) {
		select {
		case err = <-known:
		case <-ctx.Done():
			err = fmt.Errorf("%w: %w", ErrTimeout, ctx.Err())
		}
		if err == nil {
			count, members, more = h.presenceHere(room, after, limit)
		}
		return count, members, more, err
	}
	q := memberQuestion{Room: room}
	if h.listed(room) > 0 {
		q.After, q.Limit = after.String(), limit
	}
	e, err := h.presenceElsewhere(ctx, q)
	if err != nil {
		return 0, nil, false, err
	}
	page := memberLimits
	page.Members = limit
	members, cut := joinMembers(e.members, page)
	return h.membersOf(room) + e.count, members, e.more || cut, nil
}

// recount counts the answers that are kept.
func (a *questions) recount(c *recount) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, of := range a.rooms {
		c.keep(KeptPresence, nil, of.cost)
	}
}
