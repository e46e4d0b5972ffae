package hub

import (
	"context"
	"encoding/json"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/protocol"
)

// A client that comes to another node may know more of a room's log than that node: it has got what is on its way here, or
// was told where the log would go on when nothing was in it. Or this node has just read the log, and can't know what was
// before, but others have heard it all. Both would be told as lost, and nothing is.

// callProven asks a node that has a room open how far back nothing was published.
const callProven callKind = 34

type provenQuestion struct {
	Room  string `json:"room"`
	Epoch string `json:"epoch"`
	Floor uint64 `json:"floor"` // who asks knows all behind it
}

type provenAnswer struct {
	Known bool   `json:"known,omitempty"`
	Floor uint64 `json:"floor,omitempty"` // between that and the other one nothing was published
}

func init() {
	calls[callProven] = func(h *Hub, _ broker.NodeID, question []byte, reply func(any, error)) {
		var q provenQuestion
		if err := json.Unmarshal(question, &q); err != nil {
			reply(nil, err)
			return
		}
		reply(h.proven(q), nil)
	}
}

// useFrom is use for a client that has had all up to a position, nil for none: the room is as far as that then, where it can
// be, and reaches back to it.
func (h *Hub) useFrom(name string, since *protocol.Position, ready func(error)) {
	h.use(name, func(err error) {
		if err != nil || since == nil || h.cluster == nil {
			ready(err)
			return
		}
		r := h.roomShard(name).rooms[name] // r.mu is held
		switch at := r.position(); {
		case !r.keeps() || at.Epoch != string(since.Epoch):
			ready(nil)
		case since.Offset > at.Offset:
			h.bringUp(r, ready)
		case since.Offset < r.log.Floor():
			q := provenQuestion{name, at.Epoch, r.log.Floor()}
			go func() {
				if !h.cluster.moves.background(func() { h.reachBack(q, ready) }) {
					ready(nil)
				}
			}()
		default:
			ready(nil)
		}
	})
}

// bringUp has the room come as far as its log is now. r.mu is held.
func (h *Hub) bringUp(r *room, ready func(error)) {
	was := r.position()
	h.cfg.Broker.Read(h.brokers(r.name), was.Offset, func(log broker.Log, err error) {
		if err != nil {
			ready(err)
			return
		}
		newest := broker.Position(was)
		if n := len(log.Entries); n > 0 {
			newest.Offset = log.Entries[n-1].Offset
		}
		h.whenBrought(r.name, newest, func() { // with r.mu
			if r.known() && !r.gone && r.position() == history.Position(newest) && log.At.Epoch == newest.Epoch {
				r.log.Skip(log.At.Offset) // there is nothing of this room
			}
			ready(nil)
		})
	})
}

// reachBack asks the other nodes what was before the log that this one has.
func (h *Hub) reachBack(q provenQuestion, ready func(error)) {
	ctx, cancel := h.cluster.untilStop(context.Background(), claimTry)
	defer cancel()
	answers, _ := askedAll[provenAnswer](ctx, h.cluster, callProven, q)
	floor := q.Floor
	for _, a := range answers {
		if a.Err == nil && a.Answer.Known {
			floor = min(floor, a.Answer.Floor)
		}
	}
	sh := h.roomShard(q.Room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if r := sh.rooms[q.Room]; r != nil && r.known() && r.position().Epoch == q.Epoch && r.log.Floor() == q.Floor {
		r.log.Lower(floor)
	}
	ready(nil)
}

// proven answers for a room that was open here while others may have been closed: what was published was brought.
func (h *Hub) proven(q provenQuestion) (a provenAnswer) {
	_, cut := h.cluster.view()
	sh := h.roomShard(q.Room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[q.Room]
	if cut || r == nil || !r.keeps() || !r.known() || r.position().Epoch != q.Epoch {
		return a
	}
	a.Floor = r.log.Floor()
	if i := r.log.Behind(q.Floor); i > 0 {
		a.Floor = r.log.At(i - 1).Offset
	}
	a.Known = a.Floor <= q.Floor
	return a
}

// sinceIn are the positions of a resume.
func sinceIn(cmd *protocol.Command) map[string]*protocol.Position {
	all := make(map[string]*protocol.Position, len(cmd.Rooms))
	for i := range cmd.Rooms {
		if r := &cmd.Rooms[i]; r.HasAt {
			all[string(r.Room)] = &r.At
		}
	}
	return all
}
