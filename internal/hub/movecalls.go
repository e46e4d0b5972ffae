package hub

import (
	"context"
	"encoding/json"
	"net/netip"

	"example.com/hubbub/broker"
)

// What nodes ask each other about sessions that move.

const (
	callSession callKind = 64 + iota // a session, for its client is with who asks
	callArrived                      // it has the session
	callHas                          // whether it has it
	callDirects                      // direct messages that came for it meanwhile
	callMoved                        // a session that began there is with who asks
	callOrphan                       // whether a session is there, of a node that is gone
	callGrant                        // the id of one that nobody has
	callRivals                       // sessions that are with who asks
	callBring                        // a session of a node that stops
)

// hasAnswer is what callHas comes to.
type hasAnswer uint8

const (
	hasNot hasAnswer = iota // nor will it
	hasIt
	hasAsked // it asks for it
)

type hasQuestion struct {
	ID    ID     `json:"id"`
	Nonce uint64 `json:"nonce"`
}

// maxServing is how many calls of other nodes are answered at a time.
const maxServing = 4096

// none is the address of nobody.
var none netip.Addr

func init() {
	calls[callSession] = answers(func(ctx context.Context, h *Hub, from broker.NodeID, q claimQuestion) (any, error) {
		return h.claimed(ctx, from, q)
	})
	calls[callArrived] = answers(func(_ context.Context, h *Hub, from broker.NodeID, q hasQuestion) (any, error) {
		if hd := h.handing(q.ID); hd != nil && hd.to == from && h.nonceOf(hd) == q.Nonce {
			h.arrived(hd)
		}
		return nil, nil
	})
	calls[callHas] = answers(func(_ context.Context, h *Hub, _ broker.NodeID, q hasQuestion) (any, error) {
		return h.hasSession(q), nil
	})
	calls[callDirects] = answers(func(ctx context.Context, h *Hub, _ broker.NodeID, q directsQuestion) (any, error) {
		return nil, h.takeDirects(ctx, q.ID, q.heldPart, q.Directs)
	})
	calls[callMoved] = answers(func(_ context.Context, h *Hub, from broker.NodeID, id ID) (any, error) {
		h.noteMoved(id, from)
		return nil, nil
	})
	calls[callOrphan] = answers(func(_ context.Context, h *Hub, _ broker.NodeID, q heirQuestion) (any, error) { return h.orphan(q), nil })
	calls[callGrant] = answers(func(_ context.Context, h *Hub, from broker.NodeID, q grantQuestion) (any, error) {
		return h.grant(from, q)
	})
	calls[callRivals] = answers(func(ctx context.Context, h *Hub, from broker.NodeID, theirs []rivalID) (any, error) {
		return h.judge(ctx, from, theirs), nil
	})
	calls[callBring] = answers(func(ctx context.Context, h *Hub, from broker.NodeID, q bringQuestion) (any, error) {
		return hasIt, h.bring(ctx, from, q)
	})
}

// answers makes a call of a function that may block.
func answers[Q any](do func(ctx context.Context, h *Hub, from broker.NodeID, q Q) (any, error)) call {
	return func(h *Hub, from broker.NodeID, question []byte, reply func(any, error)) {
		var q Q
		if err := json.Unmarshal(question, &q); err != nil || h.cluster == nil {
			reply(nil, errUnknownCall)
			return
		}
		serving := &h.cluster.moves.serving
		if serving.Add(1) > maxServing {
			serving.Add(-1)
			reply(nil, ErrTimeout) // nothing was done, and it may be asked again
			return
		}
		begun := h.cluster.moves.background(func() {
			defer serving.Add(-1)
			defer h.recovered("answering another node")
			ctx, cancel := h.cluster.untilStop(context.Background(), claimWait)
			defer cancel()
			reply(do(ctx, h, from, q))
		})
		if !begun {
			serving.Add(-1)
			reply(nil, ErrStopped)
		}
	}
}

// hasSession answers whether a session has come here by a handshake.
func (h *Hub) hasSession(q hasQuestion) hasAnswer {
	m := &h.cluster.moves
	m.mu.Lock()
	mine := m.claiming[q.ID]
	m.mu.Unlock()
	if mine != nil && (mine.nonce == q.Nonce || q.Nonce == 0) {
		return hasAsked
	}
	_, moved := h.whereTo(q.ID)
	if moved || m.tookBy(q.ID, q.Nonce) || h.has(q.ID, func(string, uint32, uint32) bool { return true }) {
		return hasIt
	}
	return hasNot
}

// noteMoved has the id of a session lead to where it is, unless that is here.
func (h *Hub) noteMoved(id ID, to broker.NodeID) {
	sh := h.clientShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.parked[id] == nil && sh.sessions[id] == nil && sh.handing(id) == nil {
		sh.leads(id, to)
	}
}
