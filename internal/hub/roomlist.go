package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// RoomOrder is what rooms are listed by.
type RoomOrder uint8

// What RoomOrder may be.
const (
	ByName    RoomOrder = iota
	ByMembers           // the most first
	ByRate              // those first in which most was published lately
)

var roomOrders = []string{ByName: "name", ByMembers: "members", ByRate: "rate"}

// ParseRoomOrder is the RoomOrder of that name. The error names it and those that there are.
func ParseRoomOrder(name string) (RoomOrder, error) { return byName[RoomOrder](roomOrders, name) }

// RoomQuery asks for a page of rooms.
type RoomQuery struct {
	Prefix, Contains string // of their names
	Order            RoomOrder
	After            string // the last name of the page before, "" for the first page
	Figure           int    // the figure of that room, in an Order by one
	Limit            int
}

// figure is what the order is by: 0 where it is by name.
func (o RoomOrder) figure(r RoomInfo) int {
	switch o {
	case ByMembers:
		return r.Members
	case ByRate:
		return r.Recent
	}
	return 0
}

func (o RoomOrder) compare(a, b RoomInfo) int {
	return cmp.Or(o.figure(b)-o.figure(a), strings.Compare(a.Name, b.Name))
}

// RoomsAfter are the first so many rooms that are asked for. Of several nodes they are whole by name; by a figure they
// are of those rooms that are among the first firstsOfNode of some node. ErrUnavailable.
func (h *Hub) RoomsAfter(ctx context.Context, query RoomQuery) (list []RoomInfo, more bool, err error) {
	q := listQuestion{Prefix: query.Prefix, Contains: query.Contains, Order: query.Order, After: query.After, Figure: query.Figure, Limit: query.Limit}
	if h.cluster != nil && q.Order != ByName {
		return h.largestRooms(ctx, q)
	}
	p, err := merged(ctx, h, callRooms, q, h.roomsHere(q), ByName.compare, joinRooms)
	return p.List, p.More, err
}

// Bounds on what nodes are asked where rooms are in an order by a figure.
const (
	firstsOfNode = 1000 // rooms
	namesAtOnce  = 200  // whose figures are asked for in one question
)

// largestRooms asks all nodes for their firsts, and then for what each knows of these: a room is as large as its parts
// are together.
func (h *Hub) largestRooms(ctx context.Context, q listQuestion) (list []RoomInfo, more bool, err error) {
	firsts := listQuestion{Prefix: q.Prefix, Contains: q.Contains, Order: q.Order, Limit: firstsOfNode}
	pages, err := answersOfAll[listPage[RoomInfo]](ctx, h.cluster, callRooms, firsts)
	if err != nil {
		return nil, false, err
	}
	var names []string
	for _, p := range append(pages, h.roomsHere(firsts)) {
		for _, r := range p.List {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	after := RoomInfo{Name: q.After, Members: q.Figure, Recent: q.Figure}
	for some := range slices.Chunk(slices.Compact(names), namesAtOnce) {
		of := listQuestion{Names: some, Limit: len(some)}
		p, err := merged(ctx, h, callRooms, of, h.roomsHere(of), ByName.compare, joinRooms)
		if err != nil {
			return nil, false, err
		}
		for _, r := range p.List {
			if q.After == "" || q.Order.compare(after, r) < 0 {
				list = append(list, r)
			}
		}
	}
	slices.SortFunc(list, q.Order.compare)
	if len(list) > q.Limit {
		return list[:q.Limit], true, nil
	}
	return list, false, nil
}

func (h *Hub) roomsHere(q listQuestion) listPage[RoomInfo] {
	l := firstOf(q.Limit, q.Order.compare)
	for _, name := range q.Names {
		if r, ok := h.roomHere(name); ok {
			l.add(r)
		}
	}
	if q.Names != nil {
		return pageOfFirsts(l)
	}
	after := RoomInfo{Name: q.After, Members: q.Figure, Recent: q.Figure}
	now := time.Now().UnixMilli()
	for i := range h.rooms {
		h.rooms[i].each(func(r *room) {
			if !strings.HasPrefix(r.name, q.Prefix) || !strings.Contains(r.name, q.Contains) || !r.known() {
				return
			}
			if info := r.info(now); q.After == "" || q.Order.compare(after, info) < 0 {
				l.add(info)
			}
		})
	}
	return pageOfFirsts(l)
}

func (h *Hub) roomsAsked(_ context.Context, q listQuestion) (json.RawMessage, error) {
	if int(q.Order) >= len(roomOrders) { // of a later version
		q.Order = ByName
	}
	return h.roomsHere(q).answered()
}

// pace counts what was published to a room lately. Guarded by the room's mu.
type pace struct {
	window      uint32 // the newest in which something was
	now, before uint32 // messages in that window, and in the one before it
}

const paceWindow = 10_000 // ms

// add counts a message of a time, in Unix milliseconds. What is a little too late counts with the others.
func (p *pace) add(ms int64) {
	switch w := uint32(ms / paceWindow); {
	case w == p.window+1:
		p.window, p.before, p.now = w, p.now, 0
	case w > p.window:
		p.window, p.before, p.now = w, 0, 0
	case w+1 < p.window: // it is brought from the log
		return
	}
	p.now++
}

// recent is about how many messages came in the last paceWindow: those of the window that isn't over, and of the one
// before as much as still counts.
func (p *pace) recent(ms int64) int {
	now, before := int64(p.now), int64(p.before)
	switch w := uint32(ms / paceWindow); {
	case w == p.window+1:
		now, before = 0, now
	case w > p.window+1:
		return 0
	}
	return int(now + before*(paceWindow-ms%paceWindow)/paceWindow)
}
