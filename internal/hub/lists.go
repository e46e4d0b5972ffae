package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Lists of what there is on all nodes: each gives its first so many, and they are merged. Where a node doesn't answer
// there is no list, rather than one that misses a part: ErrUnavailable.

// maxPage bounds what one node answers to a question for a list, in bytes of JSON: the page ends earlier then.
const maxPage = 256 << 10

// listQuestion asks for a page of a list.
type listQuestion struct {
	Room   string `json:"room,omitzero"`
	User   string `json:"user,omitzero"`
	Prefix string `json:"prefix,omitzero"`

	Contains string    `json:"contains,omitzero"`
	Order    RoomOrder `json:"order,omitzero"`
	Figure   int       `json:"figure,omitzero"` // of After, in an Order by one
	Names    []string  `json:"names,omitzero"`  // these alone

	After  string `json:"after,omitzero"` // a name
	Behind ID     `json:"behind,omitzero"`
	Limit  int    `json:"limit"`
}

// listPage is what a node has.
type listPage[T any] struct {
	List []T  `json:"list"`
	More bool `json:"more,omitzero"` // behind List
}

// answered is the page as another node gets it: as much of it as one answer may have.
func (p listPage[T]) answered() (json.RawMessage, error) {
	for {
		b, err := json.Marshal(p)
		if err != nil || len(b) <= maxPage || len(p.List) <= 1 {
			return b, err
		}
		p.List, p.More = p.List[:len(p.List)/2], true
	}
}

// merged is here with the pages of all other nodes: the first so many of all, in their order. What is the same is joined.
func merged[T any](ctx context.Context, h *Hub, kind callKind, q listQuestion, here listPage[T], order func(a, b T) int, join func(into *T, other T)) (listPage[T], error) {
	if h.cluster == nil {
		return here, nil
	}
	pages, err := answersOfAll[listPage[T]](ctx, h.cluster, kind, q)
	if err != nil {
		return listPage[T]{}, err
	}
	var all listPage[T]
	var last *T // nobody knows what a node has behind the end of its page
	for _, p := range append(pages, here) {
		all.List, all.More = append(all.List, p.List...), all.More || p.More
		if n := len(p.List); p.More && n > 0 && (last == nil || order(p.List[n-1], *last) < 0) {
			last = &p.List[n-1]
		}
	}
	slices.SortStableFunc(all.List, order)
	n := 0
	for _, x := range all.List {
		switch {
		case n > 0 && order(all.List[n-1], x) == 0:
			join(&all.List[n-1], x)
		case n == q.Limit || last != nil && order(x, *last) > 0:
			all.More = true
		default:
			all.List[n] = x
			n++
		}
	}
	all.List = all.List[:n]
	return all, nil
}

// answersOfAll are the answers of all other nodes, or ErrUnavailable.
func answersOfAll[A any](ctx context.Context, c *cluster, kind callKind, question any) (all []A, err error) {
	ctx, cancel := context.WithTimeout(ctx, listedWithin)
	defer cancel()
	answers, cut := askedAll[A](ctx, c, kind, question)
	if cut {
		return nil, errCut
	}
	for _, a := range answers {
		if a.Err != nil {
			return nil, fmt.Errorf("%w: node %x: %v", ErrUnavailable, a.Node, a.Err)
		}
		all = append(all, a.Answer)
	}
	return all, nil
}

// joinRooms joins what two nodes know of a room.
func joinRooms(into *RoomInfo, other RoomInfo) {
	into.Members += other.Members
	into.Recent = max(into.Recent, other.Recent) // each node sees all that is published
	if other.Position.Offset > into.Position.Offset || into.Position.Epoch == "" {
		into.Position = other.Position
	}
}

func pageOfFirsts[T any](l *firsts[T]) listPage[T] {
	list, more := l.page()
	return listPage[T]{List: list, More: more}
}

// Room is what is known of the room of that name; false where there is none. It doesn't block, but where the room's log
// lies elsewhere and nobody here has it open: then it waits for the log, and has its errors, or ctx's; and for other
// nodes: ErrUnavailable.
func (h *Hub) Room(ctx context.Context, name string) (info RoomInfo, ok bool, err error) {
	info, ok = h.roomHere(name)
	if h.cluster != nil {
		others, err := answersOfAll[[]RoomInfo](ctx, h.cluster, callRoom, listQuestion{Room: name})
		if err != nil {
			return info, false, err
		}
		for _, has := range others {
			for _, other := range has { // one or none
				info.Name, ok = name, true
				joinRooms(&info, other)
			}
		}
	}
	if ok || !h.remoteLog(name) {
		return info, ok, nil
	}
	page, at, _, err := h.readRemotely(ctx, name, PageQuery{Limit: 1})
	return RoomInfo{Name: name, Position: at}, len(page) > 0, err
}

func (h *Hub) roomAsked(_ context.Context, q listQuestion) (has []RoomInfo, err error) {
	if info, ok := h.roomHere(q.Room); ok {
		has = append(has, info)
	}
	return has, nil
}

// ClientsAfter are the first so many clients, by id, that come after one. ErrUnavailable.
func (h *Hub) ClientsAfter(ctx context.Context, after ID, limit int) (list []ClientInfo, more bool, err error) {
	q := listQuestion{Behind: after, Limit: limit}
	p, err := merged(ctx, h, callClients, q, h.clientsHere(q), byID, joinClients)
	return p.List, p.More, err
}

// joinClients joins what two nodes say of a client that moves from one to the other.
func joinClients(into *ClientInfo, other ClientInfo) { into.Parked = into.Parked && other.Parked }

func (h *Hub) clientsHere(q listQuestion) listPage[ClientInfo] {
	l := firstOf(q.Limit, byID)
	for i := range h.clients {
		h.clients[i].after(l, q.Behind)
	}
	return pageOfFirsts(l)
}

func (h *Hub) clientsAsked(_ context.Context, q listQuestion) (json.RawMessage, error) {
	return h.clientsHere(q).answered()
}

// UsersAfter are the first so many users who have clients, by name, that come after a name; more says that there are
// others behind them. ErrUnavailable.
func (h *Hub) UsersAfter(ctx context.Context, after string, limit int) (list []UserInfo, more bool, err error) {
	q := listQuestion{After: after, Limit: limit}
	byName := func(a, b UserInfo) int { return strings.Compare(a.User, b.User) }
	p, err := merged(ctx, h, callUsers, q, h.usersHere(q), byName, func(into *UserInfo, other UserInfo) { into.Clients += other.Clients })
	return p.List, p.More, err
}

func (h *Hub) usersHere(q listQuestion) listPage[UserInfo] {
	names := firstOf(q.Limit, strings.Compare)
	for i := range h.clients {
		h.clients[i].usersAfter(names, q.After)
	}
	first, more := names.page()
	list := make([]UserInfo, len(first))
	for i := range h.clients {
		h.clients[i].countClients(list, first)
	}
	list = slices.DeleteFunc(list, func(u UserInfo) bool { return u.Clients == 0 }) // gone meanwhile
	return listPage[UserInfo]{List: list, More: more}
}

func (h *Hub) usersAsked(_ context.Context, q listQuestion) (json.RawMessage, error) {
	return h.usersHere(q).answered()
}

// UserClients are all clients of a user, by id. ErrUnavailable, also where there are none and a node is gone that may come back.
func (h *Hub) UserClients(ctx context.Context, user string) (list []ClientInfo, err error) {
	q := listQuestion{User: user, Limit: 1000}
	for {
		here := h.userClientsHere(q)
		if h.cluster == nil {
			return here.List, nil
		}
		p, err := merged(ctx, h, callUserClients, q, here, byID, joinClients)
		if err != nil {
			return nil, err
		}
		list = append(list, p.List...)
		switch {
		case len(list) == 0 && h.cluster.moves.misses():
			return nil, errGoneToo
		case !p.More || len(p.List) == 0:
			return list, nil
		}
		q.Behind = list[len(list)-1].ID
	}
}

func (h *Hub) userClientsHere(q listQuestion) listPage[ClientInfo] {
	var list []ClientInfo
	for i := range h.clients {
		list = h.clients[i].clientsOf(list, q.User)
	}
	slices.SortFunc(list, byID)
	i, found := slices.BinarySearchFunc(list, ClientInfo{Identity: Identity{ID: q.Behind}}, byID)
	if found {
		i++
	}
	return listPage[ClientInfo]{List: list[i:]}
}

func (h *Hub) userClientsAsked(_ context.Context, q listQuestion) (json.RawMessage, error) {
	p := h.userClientsHere(q)
	if most := max(q.Limit, 0); len(p.List) > most {
		p.List, p.More = p.List[:most], true
	}
	return p.answered()
}
