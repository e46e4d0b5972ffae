package hub

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/protocol"
)

// Direct messages that a node held for a client which has gone on to another one, or was going: acknowledged, so they follow it in
// their order, each until it is there, and none twice, but for a node that dies or is cut off with the answer.

const (
	heldMost = 20 * time.Second // until what was held is given up at the least, where the other node doesn't answer
	heldTime = 60_000           // milliseconds for which it is known what of it has come
)

// heldPart says which of the messages that one node holds for one client a call brings: the same each time it is tried.
type heldPart struct {
	Of    uint64 `json:"of,omitzero"`    // all of them; 0 from an older version, which tries once
	First int    `json:"first,omitzero"` // the number of the call's first one
}

type directsQuestion struct {
	ID      ID       `json:"id"`
	Directs [][]byte `json:"directs"`
	heldPart
}

// sendHeld sends what was held for a client to the node that has it, or had it: one part behind the answer to another. Where
// this node stops, all at once.
func (c *cluster) sendHeld(to broker.NodeID, id ID, directs []waitingDirect) {
	if len(directs) == 0 {
		return
	}
	s := &heldDirects{c: c, to: to, id: id, left: directs, part: heldPart{Of: rand.Uint64()}}
	if !c.moves.background(s.send) {
		s.sendAtOnce()
	}
}

type heldDirects struct {
	c    *cluster
	to   broker.NodeID
	id   ID
	left []waitingDirect
	part heldPart // that comes next
}

func (s *heldDirects) send() {
	c := s.c
	defer c.hub.recovered("sending what was held for a client")
	ctx, cancel := c.untilStop(context.Background(), max(heldMost, c.hub.cfg().ResumeWindow))
	defer cancel()
	for len(s.left) > 0 {
		kind, question, n := s.next()
		try, cancel := context.WithTimeout(ctx, askedWithin)
		_, err := askNode[struct{}](try, c, s.to, kind, question)
		cancel()
		switch {
		case err == nil:
			s.left = s.left[n:]
			s.part.First += n
		case c.hub.stopping():
			s.sendAtOnce()
			return
		case ctx.Err() != nil:
			c.hub.cfg().Log.Warn("direct messages are lost: the node to which their client went doesn't take them",
				"client", s.id.String(), "messages", len(s.left), "error", err)
			return
		case c.sees(s.to) || c.hub.takeOneHeld(ctx, s.id, s.left[0].message, s.part) != nil:
			pause(ctx)
		default: // the client was elsewhere by now, or here again
			s.left = s.left[1:]
			s.part.First++
		}
	}
}

// next is the call of the next part, which has n messages.
func (s *heldDirects) next() (kind callKind, question any, n int) {
	if first := s.left[0].message; first.Size() > movedAtOnce { // alone, and as it is: text within text might be too large for the network
		return callDirect, (&directQuestion{To: s.id, Hops: 1, Held: true, heldPart: s.part, message: first}).encode(), 1
	}
	records := movingDirects(s.left)
	return callDirects, directsQuestion{s.id, records, s.part}, len(records)
}

// sendAtOnce doesn't wait for answers.
func (s *heldDirects) sendAtOnce() {
	for len(s.left) > 0 {
		kind, question, n := s.next()
		s.c.ask(s.to, kind, question, func([]byte, error) {})
		s.left = s.left[n:]
		s.part.First += n
	}
}

// heldCame is what has come of what one node holds for one client.
type heldCame struct {
	mu    sync.Mutex  // held while some are taken
	taken map[int]int // how many of each part, by its first one's number

	until int64 // guarded by moves.mu
}

func (m *moves) heldOf(of uint64) *heldCame {
	if of == 0 {
		return &heldCame{taken: map[int]int{}}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	came := m.held[of]
	if came == nil {
		came = &heldCame{taken: map[int]int{}}
		m.held[of] = came
	}
	came.until = clock() + heldTime
	return came
}

// takeHeld takes what another node held for a client, but for what has come before. An error says to try again. It may block.
func (h *Hub) takeHeld(ctx context.Context, id ID, part heldPart, messages ...*protocol.Message) error {
	came := h.cluster.moves.heldOf(part.Of)
	came.mu.Lock()
	defer came.mu.Unlock()
	for came.taken[part.First] < len(messages) {
		if m := messages[came.taken[part.First]]; m != nil {
			one := heldPart{part.Of, part.First + came.taken[part.First]}
			if part.Of == 0 {
				one.First = 0
			}
			if err := h.takeOneHeld(ctx, id, m, one); err != nil {
				return err
			}
		}
		came.taken[part.First]++
	}
	return nil
}

// takeDirects is takeHeld of records.
func (h *Hub) takeDirects(ctx context.Context, id ID, part heldPart, records [][]byte) error {
	messages := make([]*protocol.Message, len(records))
	for i, record := range records {
		messages[i] = h.movedDirect(record)
	}
	return h.takeHeld(ctx, id, part, messages...)
}

// takeOneHeld takes one message, or passes it on as the same part of the same, so that the next node knows it again.
func (h *Hub) takeOneHeld(ctx context.Context, id ID, m *protocol.Message, part heldPart) error {
	_, no := h.directBy(id, m, nil, nil, true)
	if no == nil || no.Code != protocol.UnknownClient {
		return refusedAs(no)
	}
	done := make(chan error, 1) // it has gone on meanwhile
	h.cluster.sendDirect(&directQuestion{To: id, Held: true, heldPart: part, message: m}, func(err error) { done <- err })
	select {
	case err := <-done:
		if err = applications(err); errors.Is(err, ErrUnknownClient) {
			return nil // it is over
		}
		return err
	case <-ctx.Done():
		return ErrTimeout
	}
}

// endHeld ends the session of a client for which another node holds more than may wait: so it is told that something is lost.
func (h *Hub) endHeld(id ID) {
	h.cluster.moves.background(func() {
		defer h.recovered("ending a session")
		ctx, cancel := h.cluster.untilStop(context.Background(), claimMost)
		defer cancel()
		h.disconnectHere(ctx, id, protocol.CloseSlowConsumer, "more direct messages waited than may")
	})
}
