package hub

import (
	"encoding/json"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/protocol"
)

// A client may name a position of a room's log that lies elsewhere which this node can't judge: one that is ahead of
// it, since another node has brought the client further, or that room was empty when each opened it, and stands where
// the log of all rooms stood then; or one behind what can be proved here, since all that this node knows of the time
// before it opened the room is what is kept now. The log and the other nodes know more.

// provedWithin is how long they are asked.
const provedWithin = 5 * time.Second

// callReaches asks since when a room has had nothing up to an offset.
const callReaches callKind = 128

func init() { calls[callReaches] = answerReaches }

type reachesQuestion struct {
	Room  string `json:"room"`
	Epoch string `json:"epoch"`
	Since uint64 `json:"-"` // who has come that far
	To    uint64 `json:"to"`
}

// useFrom is use for who has come as far as since, nil for nobody: ready waits until that can be judged. The error is
// that nobody can just now.
func (h *Hub) useFrom(name string, since *protocol.Position, ready func(error)) {
	h.use(name, func(err error) {
		if err != nil || since == nil {
			ready(err)
			return
		}
		h.prove(name, since, ready)
	})
}

// prove is the second half of useFrom. The room's mu is held.
func (h *Hub) prove(name string, since *protocol.Position, ready func(error)) {
	r := h.roomShard(name).rooms[name]
	at := r.position()
	switch {
	case !r.keeps() || string(since.Epoch) != at.Epoch:
		ready(nil)
	case since.Offset > at.Offset:
		h.cfg().Broker.Read(h.brokers(name), at.Offset, func(log broker.Log, err error) {
			if err == nil {
				h.comesTo(name, since.Offset, log, time.Now().Add(provedWithin), ready)
				return
			}
			ready(err)
		})
	case since.Offset < r.log.Floor() && h.cluster != nil:
		r.log.Reach(h.cluster.witness.nothingSince(name, at.Epoch, r.log.Floor()))
		if since.Offset >= r.log.Floor() {
			ready(nil)
			return
		}
		h.reach(reachesQuestion{name, at.Epoch, since.Offset, r.log.Floor()}, ready)
	default:
		ready(nil)
	}
}

// comesTo waits until a room has come up to an offset. log is what has come behind where it stood. Where that is nothing, and
// some of it may have expired before it was read, it counts once this node has been given what there was.
func (h *Hub) comesTo(name string, offset uint64, log broker.Log, until time.Time, ready func(error)) {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[name]
	if r == nil || !r.known() || r.position().Epoch != log.At.Epoch {
		ready(nil)
		return
	}
	if len(log.Entries) == 0 && h.hasAll(r, log) {
		r.log.Skip(log.At.Offset)
	}
	switch {
	case r.position().Offset >= offset:
		ready(nil)
		return
	case len(log.Entries) > 0:
	case time.Now().After(until):
		ready(broker.ErrUnavailable)
		return
	default:
		time.AfterFunc(provedWithin/50, func() { h.comesTo(name, offset, log, until, ready) })
		return
	}
	var told atomic.Bool
	late := time.AfterFunc(provedWithin, func() {
		if !told.Swap(true) {
			ready(broker.ErrUnavailable)
		}
	})
	r.remote.behind = append(r.remote.behind, appended{offset, func() {
		if late.Stop(); !told.Swap(true) {
			ready(nil)
		}
	}})
}

// reach asks all other nodes. What is asked of many rooms at once is asked side by side. Where a node that is there
// doesn't answer, nobody can judge; one that can't be asked is taken to be gone.
func (h *Hub) reach(q reachesQuestion, ready func(error)) {
	peers, _ := h.cluster.view()
	var told, silent atomic.Bool
	tell := func(err error) {
		if !told.Swap(true) {
			ready(err)
		}
	}
	if len(peers) == 0 {
		tell(nil)
		return
	}
	late := time.AfterFunc(provedWithin, func() { tell(broker.ErrUnavailable) })
	left := atomic.Int64{}
	left.Store(int64(len(peers)))
	for _, p := range peers {
		h.cluster.ask(p.ID, callReaches, q, func(answer []byte, err error) {
			from := q.To
			if err := decodeAnswer(answer, err, &from); err != nil {
				from = q.To
				if errors.Is(err, broker.ErrTimeout) && h.cluster.mayBeThere(p.ID) {
					silent.Store(true)
				}
			}
			if from < q.To {
				h.reaches(q, from)
			}
			switch {
			case from <= q.Since:
				late.Stop()
				tell(nil)
			case left.Add(-1) == 0:
				late.Stop()
				if silent.Load() {
					tell(broker.ErrUnavailable)
				} else {
					tell(nil)
				}
			}
		})
	}
}

// reaches notes that another node has had the room open since an offset, and that nothing came between that and what
// can be proved here. All that it knows is taken over, also what nobody has asked for yet: it may be gone then.
func (h *Hub) reaches(q reachesQuestion, from uint64) {
	sh := h.roomShard(q.Room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if r := sh.rooms[q.Room]; r != nil && r.known() && r.position().Epoch == q.Epoch && r.log.Floor() <= q.To {
		r.log.Reach(from)
	}
}

// answerReaches says behind which offset nothing came up to the question's To, as far as this node knows: To itself
// where it knows nothing.
func answerReaches(h *Hub, _ broker.NodeID, question []byte, reply func(any, error)) {
	var q reachesQuestion
	if err := json.Unmarshal(question, &q); err != nil {
		reply(nil, err)
		return
	}
	from, sure := h.nothingSince(q)
	if from = h.cluster.witness.nothingSince(q.Room, q.Epoch, from); from >= q.To && !sure {
		reply(nil, broker.ErrTimeout) // it may know in a moment
		return
	}
	reply(from, nil)
}

// nothingSince is what this node knows itself, by having the room open. It isn't sure where it may have yet to be given
// something that stands before the question's To, as when it was cut off from the log.
func (h *Hub) nothingSince(q reachesQuestion) (from uint64, sure bool) {
	sh := h.roomShard(q.Room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[q.Room]
	if r == nil || !r.keeps() || r.remote == nil || !r.known() || r.position().Epoch != q.Epoch {
		return q.To, true
	}
	from = r.log.Floor()
	if i := r.log.Behind(q.To); i > 0 {
		from = r.log.At(i - 1).Offset
	}
	if from < q.To && r.position().Offset < q.To && !h.hasBrought(q.Epoch, q.To) {
		return q.To, false
	}
	return min(from, q.To), true
}

// hasAll says that nothing of what stood in the room's log before the log's floor is missing here. A broker of somebody's own
// may not say what it has brought; who has it all counts as before then. r.mu is held.
func (h *Hub) hasAll(r *room, log broker.Log) bool {
	return h.cluster == nil || log.Floor <= r.position().Offset || h.cluster.b.Brought() == nil || h.hasBrought(log.At.Epoch, log.Floor)
}

// hasBrought says that all up to an offset of a log has been delivered in the rooms that are open here, or that the broker
// doesn't say how far that is.
func (h *Hub) hasBrought(epoch string, offset uint64) bool {
	up := h.cluster.b.Brought()
	return up == nil || slices.ContainsFunc(up, func(at broker.Position) bool { return at.Epoch == epoch && at.Offset >= offset })
}
