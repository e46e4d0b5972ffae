package hub

import (
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

// toldEvents says that somebody is told of what has happened in rooms. Once somebody was, it is noted to the hub's end who
// is occupied (Hub.told), though nobody be told any more: a reload may have it told again.
func toldEvents(c *Config) bool {
	return c.Hooks.Occupied != nil || c.Hooks.Vacated != nil || len(c.Sinks) > 0
}

// stillOccupied is occupies for a room that has members, and may have got them before anybody was told of events. r.mu is
// held.
func (h *Hub) stillOccupied(name string) {
	o := &h.cluster.occupied
	o.mu.Lock()
	known := o.rooms[name] != nil
	o.mu.Unlock()
	if !known {
		h.occupies(name, true)
	}
}

// occupies is called when a room has got its first member here, or has lost its last one. r.mu is held.
func (h *Hub) occupies(name string, here bool) {
	if !h.told.Load() {
		return
	}
	o := &h.cluster.occupied
	o.mu.Lock()
	first, next := h.cluster.homes(name) // under mu: whoever sees others from here on has them told of this, too
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
	number := e.number
	o.mu.Unlock()
	if first == h.cluster.id || next == h.cluster.id {
		h.reportHere(name, e, own, number, first == h.cluster.id)
	}
}

// reportHere tells this node itself, as the room's home or the next one. The mu of the room's shard is held.
func (h *Hub) reportHere(name string, e *roomHere, own report, number uint64, home bool) {
	o := &h.cluster.occupied
	if told := h.reported(h.cluster.id, own); home {
		o.mu.Lock()
		defer o.mu.Unlock()
		h.heardOf(name, e, number, told)
	}
}

// heardOf notes that the home has heard of a change; told says that it has told the application, which the next one is to
// know, too. o.mu is held.
func (h *Hub) heardOf(name string, e *roomHere, number uint64, told bool) {
	o := &h.cluster.occupied
	if e.number != number || o.rooms[name] != e {
		return
	}
	was := e.known
	if e.known = e.here && (was || told); !e.here {
		delete(o.rooms, name)
	}
	if e.known && !was {
		h.reportNext(name)
	}
}

// reportNext tells a room's next home. o.mu is held.
func (h *Hub) reportNext(name string) {
	if _, next := h.cluster.homes(name); next != h.cluster.id {
		h.report(next, name)
	} else if of := h.cluster.occupied.known[name]; of != nil {
		of.sure = true
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
		var untold []string
		err = decodeAnswer(body, err, &untold)
		h.sentReports(home, to, numbers, untold, err)
	})
}

// sentReports is what has come of them: untold are the rooms of which the home has not told the application yet. Where a
// home is gone the next ones are told instead, by the view.
func (h *Hub) sentReports(home broker.NodeID, to *reports, numbers map[string]uint64, untold []string, err error) {
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
				h.heardOf(name, e, number, !slices.Contains(untold, name))
			}
		case there:
			to.waiting[name] = true
		}
	}
	if len(untold) > 0 { // by then it has
		time.AfterFunc(vacatedAfter+vacatedAfter/4, func() { h.reportUntold(home, untold) })
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

// reportUntold tells a home again of rooms that it wasn't sure of.
func (h *Hub) reportUntold(home broker.NodeID, rooms []string) {
	o := &h.cluster.occupied
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, name := range rooms {
		if e := o.rooms[name]; e != nil && !e.known && !h.stopping() {
			h.report(home, name)
		}
	}
}

// homesChanged is called when nodes have come or are gone. Those that are homes now are told of what is here; what this one
// knows as a home that it isn't any more is forgotten.
func (h *Hub) homesChanged(was, is seen) {
	if !h.told.Load() {
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
	own, number := report{name, e.here, e.known}, e.number
	o.mu.Unlock()
	first, _ := h.cluster.homes(name)
	h.reportHere(name, e, own, number, first == home)
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
