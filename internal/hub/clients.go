package hub

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/presence"
	"example.com/hubbub/internal/protocol"
)

// What the application asks of clients and users, beside Remove and Disconnect.

// joinHere is Join where the client is here.
func (h *Hub) joinHere(ctx context.Context, room string, client ID) error {
	if h.cluster != nil && !h.hasClient(client) {
		return ErrUnknownClient // no log is opened for it
	}
	if h.opens(room) {
		opened := make(chan error, 1)
		h.use(room, func(err error) { opened <- err })
		defer h.unuse(room)
		select {
		case err := <-opened:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var no error
	err := h.onClient(ctx, client, func(s *session) { no = s.put(room) }, func() (done bool) {
		done, no = h.putParked(room, client)
		return done
	})
	if err != nil {
		return err
	}
	return no
}

// put is Join where the client is connected.
func (s *session) put(name string) error {
	if i := s.find([]byte(name)); i >= 0 {
		s.rooms[i].put = true
		return nil
	}
	if s.coming() {
		left := s.more.coming.left
		if r, in := left[name]; in {
			left[name] = parkedRoom{r.room, true}
			return nil
		}
	}
	if no := s.enter(name, true); no != nil {
		return limited(no)
	}
	return nil
}

// limited is what the application is told of a limit on its client.
func limited(no *protocol.Error) error {
	if no.Code == protocol.LimitReached {
		return fmt.Errorf("%w: %s", ErrLimitReached, no.Message)
	}
	return fmt.Errorf("%w: %s", ErrOverloaded, no.Message)
}

// joinedByServer is what a client is told that didn't ask.
func joinedByServer(room string, at history.Position) protocol.Answer {
	return protocol.Answer{Kind: protocol.AnswerJoined, Room: room, Epoch: at.Epoch, Offset: at.Offset}
}

// find is the index of the room of that name in those of p, or -1. Its shard's mu is held.
func (p *parked) find(room string) int {
	return slices.IndexFunc(p.rooms, func(r parkedRoom) bool { return r.name == room })
}

// putParked is Join where the client's session is parked; else nothing is done. The locks are those of kickParked.
func (h *Hub) putParked(name string, client ID) (parked bool, err error) {
	defer h.recovered("joining a room")
	rooms, sh := h.roomShard(name), h.clientShard(client)
	rooms.mu.Lock()
	defer rooms.mu.Unlock()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.parked[client]
	if p == nil || p.by != nil {
		return false, nil
	}
	if i := p.find(name); i >= 0 {
		p.rooms[i].put = true
		return true, nil
	}
	if len(p.rooms) >= h.cfg().MaxRoomsPerClient || !p.payer.may(parkedRoomCost+presence.MemberCost+int64(len(p.user))) {
		return true, ErrLimitReached
	}
	r := h.room(rooms, name)
	r.members++
	h.used(r)
	p.rooms = append(p.rooms, parkedRoom{r, true})
	p.cost += parkedRoomCost
	h.keep(KeptParked, p.payer, parkedRoomCost)
	parked = true
	h.noteJoined(r, Identity{p.id, p.user}, nil, p.payer, nil, false)
	return parked, nil
}

// disconnectUserHere is DisconnectUser for the user's clients that are here.
func (h *Hub) disconnectUserHere(ctx context.Context, user string, code int, reason string) error {
	ids := h.clientsOf(user)
	const atOnce = 64
	errs := make([]error, len(ids))
	var all sync.WaitGroup
	for first := range min(atOnce, len(ids)) {
		all.Go(func() {
			for i := first; i < len(ids); i += atOnce {
				errs[i] = h.disconnectHere(ctx, ids[i], code, reason)
			}
		})
	}
	all.Wait()
	gone := 0
	for _, err := range errs {
		switch {
		case errors.Is(err, ErrUnknownClient):
			gone++
		case err != nil:
			return err
		}
	}
	if gone == len(ids) {
		return ErrUnknownUser
	}
	return nil
}

// UserInfo is what is known of a user from outside.
type UserInfo struct {
	User    string
	Clients int // the parked ones too
}

// usersAfter adds the users whose names come after one.
func (sh *clientShard) usersAfter(names *firsts[string], after string) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for name := range sh.users {
		if name > after {
			names.add(name)
		}
	}
}

// countClients adds to each user of list, whose names are given, how many clients it has here.
func (sh *clientShard) countClients(list []UserInfo, names []string) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for i, name := range names {
		list[i].User = name
		list[i].Clients += len(sh.users[name].all)
	}
}

// ClientDetail is what is known of one client.
type ClientDetail struct {
	ClientInfo
	Since   time.Time // when its session began, to the second
	Address string    // of the client, without a port; "" where it is parked
	Unsent  int64     // bytes that wait for it
	Rooms   []string  // by name
}

// clientHere is Client where the client is here.
func (h *Hub) clientHere(ctx context.Context, id ID) (ClientDetail, error) {
	var d ClientDetail
	err := h.onClient(ctx, id, func(s *session) { d = s.detail() }, func() (done bool) {
		sh := h.clientShard(id)
		sh.mu.Lock()
		defer sh.mu.Unlock()
		p := sh.parked[id]
		if p == nil || p.by != nil {
			return false
		}
		d = p.detail()
		return true
	})
	if err != nil {
		return ClientDetail{}, err
	}
	slices.Sort(d.Rooms)
	return d, nil
}

// ClientsByUnsent are the first so many of the clients that are connected here, those for whom most bytes wait first,
// then by id; more says that there are others. Where nothing waits for anybody they are just any. It waits for all
// workers, or for so long: context.DeadlineExceeded. ctx's error where it has ended before. Any goroutine but a worker's.
func (h *Hub) ClientsByUnsent(ctx context.Context, limit int, within time.Duration) (list []ClientDetail, more bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	var mu sync.Mutex
	answered := 0
	h.loop.Inspect(within, func(w *loop.Worker) {
		here, others := h.workers[w.Index()].mostUnsent(limit, w.Counts().Unsent == 0)
		mu.Lock()
		defer mu.Unlock()
		list, more, answered = append(list, here...), more || others, answered+1
	})
	mu.Lock()
	defer mu.Unlock()
	if answered < len(h.workers) {
		return nil, false, fmt.Errorf("list clients: %d of %d workers answered: %w", answered, len(h.workers), context.DeadlineExceeded)
	}
	slices.SortFunc(list, func(a, b ClientDetail) int {
		return cmp.Or(cmp.Compare(b.Unsent, a.Unsent), byID(a.ClientInfo, b.ClientInfo))
	})
	if len(list) > limit {
		list, more = list[:limit], true
	}
	return list, more, nil
}

// mostUnsent are the first so many of a worker's clients, and whether there are others. Where nothing waits it goes over
// no more of them than it needs. The worker's goroutine.
func (st *workerState) mostUnsent(limit int, nothing bool) (list []ClientDetail, more bool) {
	type owed struct {
		unsent int64
		s      *session
	}
	most, seen := firstOf(limit, func(a, b owed) int {
		return cmp.Or(cmp.Compare(b.unsent, a.unsent), bytes.Compare(a.s.id[:], b.s.id[:]))
	}), 0
	for _, l := range st.everyone {
		if l == nil {
			continue
		}
		for _, m := range l.members {
			if seen++; nothing && seen > limit+1 {
				break
			}
			most.add(owed{m.s.unsent(), m.s})
		}
	}
	first, more := most.page()
	for _, o := range first {
		d := o.s.detail()
		slices.Sort(d.Rooms)
		list = append(list, d)
	}
	return list, more
}

// unsent is how many bytes wait for the client.
func (s *session) unsent() int64 {
	n := int64(s.conn.Unsent())
	if s.more != nil {
		n += s.more.flow.plain + s.more.flow.keyed
	}
	return n
}

func (s *session) detail() ClientDetail {
	d := ClientDetail{ClientInfo: ClientInfo{s.identity(), false}, Since: time.Unix(int64(s.since), 0), Address: s.address(), Unsent: s.unsent()}
	for _, m := range s.rooms {
		d.Rooms = append(d.Rooms, m.local.room.name)
	}
	if s.coming() {
		for name := range s.more.coming.left {
			d.Rooms = append(d.Rooms, name)
		}
	}
	return d
}

// address is the client's, asked for when it is needed: nothing keeps it.
func (s *session) address() string {
	at, err := netip.ParseAddrPort(s.conn.Remote())
	if err != nil {
		return ""
	}
	return at.Addr().Unmap().String()
}

// detail is what is known of a parked one. Its shard's mu is held.
func (p *parked) detail() ClientDetail {
	d := ClientDetail{ClientInfo: ClientInfo{Identity{p.id, p.user}, true}, Since: time.Unix(int64(p.since), 0), Unsent: int64(p.unsent)}
	for _, r := range p.rooms {
		d.Rooms = append(d.Rooms, r.name)
	}
	return d
}

// clientsOf adds a user's clients.
func (sh *clientShard) clientsOf(list []ClientInfo, user string) []ClientInfo {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, id := range sh.users[user].all {
		p := sh.parked[id]
		list = append(list, ClientInfo{Identity{id, user}, p != nil && p.by == nil})
	}
	return list
}

// ids are the clients of one user in a shard. Where they are many they are found by a map.
type ids struct {
	all []ID
	at  map[ID]int // index in all; nil while a search is short
}

const manyIDs = 32

func (s ids) with(id ID) ids {
	s.all = append(s.all, id)
	switch {
	case s.at != nil:
		s.at[id] = len(s.all) - 1
	case len(s.all) > manyIDs:
		s.at = make(map[ID]int, 2*manyIDs)
		for i, id := range s.all {
			s.at[id] = i
		}
	}
	return s
}

func (s ids) without(id ID) ids {
	i := s.find(id)
	if i < 0 {
		return s
	}
	last := len(s.all) - 1
	s.all[i] = s.all[last]
	s.all = s.all[:last]
	if s.at != nil {
		delete(s.at, id)
		if i < last {
			s.at[s.all[i]] = i
		}
	}
	return s
}

// find is the index of an id, or -1.
func (s ids) find(id ID) int {
	if s.at == nil {
		return slices.Index(s.all, id)
	}
	if i, ok := s.at[id]; ok {
		return i
	}
	return -1
}
