package hub

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"example.com/hubbub/broker"
)

// Occupied and Vacated, once for all nodes. Each node tells the room's home of its first member and of its last one; the
// home tells the application. A second node is told the same and says nothing: by the way homes are chosen it is the next
// home when the first is gone. Only where somebody is told of events.

// occupied is in which rooms nodes have members.
type occupied struct {
	mu    sync.Mutex
	rooms map[string]*roomHere       // what this node says of its own, until its last member's end is heard
	homes map[broker.NodeID]*reports // what is to be told to others
	known map[string]*roomThere      // of which this one is the home, or the next one
	view  int64                      // when nodes have come or gone, by clock
	round int                        // of what is told: they are asked to tell again when this node was cut off
	ended bool
}

// roomHere is whether a room has members on this node.
type roomHere struct {
	here   bool
	number uint64 // grows with each change
	known  bool   // a home has heard that it has some
}

// reports are the rooms of which a node is to be told.
type reports struct {
	waiting map[string]bool
	busy    bool
}

// roomThere is what is known of a room on all nodes.
type roomThere struct {
	nodes map[broker.NodeID]int // that have members, and in which round they have said so
	sure  bool                  // that the application knows that it is occupied
	left  int64                 // when the last of them has left, by clock
	timer *time.Timer           // looks at it; nil for none
}

// report says whether a node has members in a room, and whether some home has known that it has. One without a room asks
// for all reports of whom it is told.
type report struct {
	Room        string
	Here, Known bool `json:",omitempty"`
}

const (
	vacatedAfter = time.Second     // who moves to another node leaves no room vacated
	nextVacates  = 5 * time.Second // where the home hasn't said it, which is gone by then
	maxReports   = 1000            // in one call
)

// toldEvents says that somebody is told of what has happened in rooms.
func (h *Hub) toldEvents() bool {
	return h.cfg.Hooks.Occupied != nil || h.cfg.Hooks.Vacated != nil || len(h.cfg.Sinks) > 0
}

// occupies is called when a room has got its first member here, or has lost its last one. r.mu is held.
func (h *Hub) occupies(name string, here bool) {
	if !h.toldEvents() {
		return
	}
	o := &h.cluster.occupied
	first, next := h.cluster.homes(name)
	o.mu.Lock()
	e := o.rooms[name]
	if e == nil {
		if o.rooms == nil {
			o.rooms = map[string]*roomHere{}
		}
		e = &roomHere{}
		o.rooms[name] = e
	}
	e.here = here
	e.number++
	own := report{name, e.here, e.known}
	for _, home := range []broker.NodeID{first, next} {
		if home != h.cluster.id {
			h.report(home, name)
		}
	}
	if first == h.cluster.id {
		o.heard(name, e, e.number)
	}
	o.mu.Unlock()
	if first == h.cluster.id || next == h.cluster.id {
		h.reported(h.cluster.id, own)
	}
}

// heard notes that the home has heard of a change. o.mu is held.
func (o *occupied) heard(name string, e *roomHere, number uint64) {
	if e.number != number {
		return
	}
	if e.known = e.here; !e.here {
		delete(o.rooms, name)
	}
}

// report has a node be told of a room. o.mu is held.
func (h *Hub) report(home broker.NodeID, name string) {
	o := &h.cluster.occupied
	if home == (broker.NodeID{}) {
		return
	}
	to := o.homes[home]
	if to == nil {
		if o.homes == nil {
			o.homes = map[broker.NodeID]*reports{}
		}
		to = &reports{waiting: map[string]bool{}}
		o.homes[home] = to
	}
	to.waiting[name] = true
	h.sendReports(home, to)
}

// sendReports tells a node of the rooms that wait. o.mu is held.
func (h *Hub) sendReports(home broker.NodeID, to *reports) {
	o := &h.cluster.occupied
	if to.busy {
		return
	}
	var all []report
	numbers := map[string]uint64{}
	for name := range to.waiting {
		delete(to.waiting, name)
		if e := o.rooms[name]; e != nil {
			all = append(all, report{name, e.here, e.known})
			numbers[name] = e.number
		}
		if len(all) == maxReports {
			break
		}
	}
	if len(all) == 0 {
		delete(o.homes, home)
		return
	}
	to.busy = true
	h.cluster.ask(home, callOccupied, all, func(body []byte, err error) {
		h.sentReports(home, to, numbers, decodeAnswer(body, err, nil))
	})
}

// sentReports is what has come of them. Where a home is gone the next ones are told instead, by the view.
func (h *Hub) sentReports(home broker.NodeID, to *reports, numbers map[string]uint64, err error) {
	o := &h.cluster.occupied
	there := h.cluster.mayBeThere(home)
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, number := range numbers {
		e := o.rooms[name]
		switch {
		case e == nil:
		case err == nil:
			if first, _ := h.cluster.homes(name); first == home {
				o.heard(name, e, number)
			}
		case there:
			to.waiting[name] = true
		}
	}
	if err == nil || !there {
		to.busy = false
		h.sendReports(home, to)
		return
	}
	time.AfterFunc(askAgain, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if to.busy = false; !h.stopping() {
			h.sendReports(home, to)
		}
	})
}

// answerOccupied is told of rooms by another node.
func answerOccupied(h *Hub, from broker.NodeID, question []byte, reply func(any, error)) {
	var all []report
	if err := json.Unmarshal(question, &all); err != nil {
		reply(nil, err)
		return
	}
	for _, r := range all {
		if r.Room == "" {
			go h.reportAll(from)
		} else {
			h.reportedBy(from, r)
		}
	}
	reply(nil, nil)
}

func (h *Hub) reportedBy(from broker.NodeID, r report) {
	defer h.recovered("noting where a room has members")
	sh := h.roomShard(r.Room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !h.stopping() {
		h.reported(from, r)
	}
}

// reported notes what a node says of its members in a room, this one's home or next one. The mu of the room's shard is
// held.
func (h *Hub) reported(from broker.NodeID, r report) {
	first, _ := h.cluster.homes(r.Room)
	o := &h.cluster.occupied
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.known[r.Room]
	if e == nil {
		if !r.Here && !r.Known {
			return
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
			return
		}
		h.nowOccupied(r.Room, e)
	}
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

// homesChanged is called when nodes have come or are gone. Those that are homes now are told of what is here; what this one
// knows as a home that it isn't any more is forgotten.
func (h *Hub) homesChanged(was, is seen) {
	if !h.toldEvents() {
		return
	}
	c := h.cluster
	o := &c.occupied
	o.mu.Lock()
	o.view = clock()
	names := make([]string, 0, len(o.rooms))
	for name := range o.rooms {
		names = append(names, name)
	}
	o.mu.Unlock()
	for _, name := range names {
		f0, n0 := c.homesAmong(was.peers, name)
		first, next := c.homesAmong(is.peers, name)
		if first != f0 || was.cut {
			h.reportAnew(first, name)
		}
		if next != f0 && next != n0 || was.cut {
			h.reportAnew(next, name)
		}
	}
	h.forgetRooms()
	if was.cut {
		h.askAnew()
	}
}

// askAnew asks all nodes for what they would have told this one while it was cut off.
func (h *Hub) askAnew() {
	o := &h.cluster.occupied
	o.mu.Lock()
	o.round++
	round := o.round
	o.mu.Unlock()
	peers, _ := h.cluster.view()
	for _, p := range peers {
		h.cluster.ask(p.ID, callOccupied, []report{{}}, func(body []byte, err error) {
			if decodeAnswer(body, err, nil) == nil {
				time.AfterFunc(nextVacates, func() { h.dropOld(p.ID, round) })
			}
		})
	}
}

// dropOld forgets what a node has said before it was asked anew: it would have said it again. A room that is vacated
// by that may have been before, and told so by another home.
func (h *Hub) dropOld(node broker.NodeID, round int) {
	o := &h.cluster.occupied
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, e := range o.known {
		if of, has := e.nodes[node]; !has || of >= round {
			continue
		}
		if delete(e.nodes, node); len(e.nodes) == 0 {
			h.lookAt(name, e, vacatedAfter)
		}
	}
}

// reportAll tells a node of all rooms of which it is the home, or the next one.
func (h *Hub) reportAll(to broker.NodeID) {
	o := &h.cluster.occupied
	o.mu.Lock()
	defer o.mu.Unlock()
	for name := range o.rooms {
		if first, next := h.cluster.homes(name); first == to || next == to {
			h.report(to, name)
		}
	}
}

// reportAnew tells a node of a room.
func (h *Hub) reportAnew(home broker.NodeID, name string) {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	o := &h.cluster.occupied
	o.mu.Lock()
	e := o.rooms[name]
	if e == nil || home != h.cluster.id {
		if e != nil && !h.stopping() {
			h.report(home, name)
		}
		o.mu.Unlock()
		return
	}
	own := report{name, e.here, e.known}
	if first, _ := h.cluster.homes(name); first == home {
		o.heard(name, e, e.number)
	}
	o.mu.Unlock()
	h.reported(home, own)
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
		sh := h.roomShard(name)
		sh.mu.Lock()
		first, _ := h.cluster.homes(name)
		if e.sure && (alone || len(e.nodes) == 0 && first == h.cluster.id) {
			h.happened(Event{Kind: Vacated, Room: name})
		}
		sh.mu.Unlock()
	}
}

func (c *cluster) seenPeers() []broker.Peer {
	peers, _ := c.view()
	return peers
}

// homes are the home of a room, and the one that it has when that is gone, which is zero where there is only one node.
func (c *cluster) homes(name string) (first, next broker.NodeID) {
	peers, _ := c.view()
	return c.homesAmong(peers, name)
}

func (c *cluster) homesAmong(peers []broker.Peer, name string) (first, next broker.NodeID) {
	first = home(idsOf(c.id, peers), name)
	if len(peers) == 0 {
		return first, next
	}
	if first != c.id {
		others := slices.DeleteFunc(slices.Clone(peers), func(p broker.Peer) bool { return p.ID == first })
		return first, home(idsOf(c.id, others), name)
	}
	most := uint64(0)
	for _, p := range peers {
		if w := weight(p.ID, name); w >= most {
			next, most = p.ID, w
		}
	}
	return first, next
}
