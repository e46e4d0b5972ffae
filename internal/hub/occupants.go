package hub

import (
	"encoding/json"
	"time"

	"example.com/hubbub/broker"
)

// What the home of a room knows of it, and the next one (occupied.go).

// answerOccupied is told of rooms by another node.
func answerOccupied(h *Hub, from broker.NodeID, question []byte, reply func(any, error)) {
	var all []report
	if err := json.Unmarshal(question, &all); err != nil {
		reply(nil, err)
		return
	}
	if h.loop.Overloaded() {
		reply(nil, ErrOverloaded) // it is told later, and of many changes of a room of the last one alone
		return
	}
	untold := []string{}
	for _, r := range all {
		if r.Room == "" {
			go h.reportAll(from)
		} else if !h.reportedBy(from, r) {
			untold = append(untold, r.Room)
		}
	}
	reply(untold, nil)
}

func (h *Hub) reportedBy(from broker.NodeID, r report) (told bool) {
	defer h.recovered("noting where a room has members")
	sh := h.roomShard(r.Room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return !h.stopping() && h.reported(from, r)
}

// reported notes what a node says of its members in a room, whose home this node is, or the next one. told says that the
// application knows that it is occupied. The mu of the room's shard is held.
func (h *Hub) reported(from broker.NodeID, r report) (told bool) {
	first, _ := h.cluster.homes(r.Room)
	o := &h.cluster.occupied
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.known[r.Room]
	if e == nil {
		if !r.Here && !r.Known {
			return false
		}
		if o.known == nil {
			o.known = map[string]*roomThere{}
		}
		e = &roomThere{nodes: map[broker.NodeID]int{}}
		o.known[r.Room] = e
	}
	e.sure = r.Known || e.sure && first == h.cluster.id
	if r.Here {
		e.nodes[from] = o.round
	} else {
		delete(e.nodes, from)
	}
	switch {
	case len(e.nodes) == 0:
		e.left = clock()
		h.lookAt(r.Room, e, h.vacates(first))
	case !e.sure && first == h.cluster.id:
		if settles := o.view + vacatedAfter.Milliseconds() - clock(); settles > 0 && len(h.cluster.seenPeers()) > 0 {
			h.lookAt(r.Room, e, time.Duration(settles)*time.Millisecond) // another node may say that it is known
			return false
		}
		h.nowOccupied(r.Room, e)
	}
	return e.sure
}

// vacates is after how long a room without members is vacated, by the home or the next one.
func (h *Hub) vacates(home broker.NodeID) time.Duration {
	if home == h.cluster.id {
		return vacatedAfter
	}
	return nextVacates
}

// nowOccupied tells the application. The mu of the room's shard is held, and o.mu.
func (h *Hub) nowOccupied(name string, e *roomThere) {
	e.sure = true
	if own := h.cluster.occupied.rooms[name]; own != nil && own.here && !own.known {
		own.known = true
		h.reportNext(name)
	}
	h.happened(Event{Kind: Occupied, Room: name})
}

// lookAt looks at a room later, once. o.mu is held.
func (h *Hub) lookAt(name string, e *roomThere, wait time.Duration) {
	o := &h.cluster.occupied
	if e.timer != nil || o.ended {
		return
	}
	e.timer = time.AfterFunc(wait, func() {
		defer h.recovered("looking whether a room is vacated")
		sh := h.roomShard(name)
		sh.mu.Lock()
		defer sh.mu.Unlock()
		h.look(name, e)
	})
}

// look tells the application what has become of a room. The mu of its shard is held.
func (h *Hub) look(name string, e *roomThere) {
	first, _ := h.cluster.homes(name)
	o := &h.cluster.occupied
	o.mu.Lock()
	defer o.mu.Unlock()
	if e.timer == nil || o.known[name] != e {
		return
	}
	e.timer = nil
	wait := time.Duration(e.left-clock())*time.Millisecond + h.vacates(first)
	switch {
	case len(e.nodes) == 0 && wait > 0 && !o.ended:
		h.lookAt(name, e, wait)
	case len(e.nodes) == 0:
		delete(o.known, name)
		if e.sure && first == h.cluster.id {
			h.happened(Event{Kind: Vacated, Room: name})
		}
	case !e.sure && first == h.cluster.id:
		h.nowOccupied(name, e)
	}
}

// forgetRooms forgets the rooms of which this node is no home any more, and has those that it has taken over looked at.
func (h *Hub) forgetRooms() {
	c := h.cluster
	o, peers := &c.occupied, c.seenPeers()
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, e := range o.known {
		first, next := c.homesAmong(peers, name)
		switch {
		case first != c.id && next != c.id:
			if e.timer != nil {
				e.timer.Stop()
			}
			delete(o.known, name)
		case first == c.id:
			h.lookAt(name, e, vacatedAfter)
		}
	}
}

// vacatedBy takes a node that was gone for long out of all rooms.
func (h *Hub) vacatedBy(node broker.NodeID) {
	o := &h.cluster.occupied
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, e := range o.known {
		_, has := e.nodes[node]
		if delete(e.nodes, node); has && len(e.nodes) == 0 {
			e.sure = true // it was told, as far as anybody knows
			h.lookAt(name, e, vacatedAfter)
		}
	}
}

// endOccupied tells of rooms that are vacated as the hub stops.
func (h *Hub) endOccupied() {
	o := &h.cluster.occupied
	alone := len(h.cluster.seenPeers()) == 0
	o.mu.Lock()
	o.ended = true
	known := o.known
	o.known = nil
	o.mu.Unlock()
	for name, e := range known {
		first, _ := h.cluster.homes(name)
		if e.sure && (alone || len(e.nodes) == 0 && first == h.cluster.id) {
			h.vacatedAtEnd(name)
		}
	}
}

func (h *Hub) vacatedAtEnd(name string) {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	h.happened(Event{Kind: Vacated, Room: name})
}
