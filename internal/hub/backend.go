package hub

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// What the application asks for, in its own name: from any goroutine, a hook's too. None blocks but Remove and
// Disconnect, which wait for the client's worker, and those that ask a log which lies elsewhere: these wait for it.

// Server stands in `from` for what the application itself publishes, where it doesn't say otherwise.
const Server = "server"

// Errors of what the application asks for.
var (
	ErrUnknownClient = errors.New("no such client")
	ErrUnknownUser   = errors.New("no client of this user")
	ErrOverloaded    = errors.New("overloaded: too much waits already")
	ErrStopped       = errors.New("the server has stopped")
	ErrNotMember     = errors.New("the client is not in the room")
	ErrNoHistory     = errors.New("the room keeps no history")
	ErrNoPosition    = errors.New("the room has no such position")
	ErrNoPresence    = errors.New("the room does not tell who is in it")
	ErrLimitReached  = errors.New("the client may be in no more rooms")
	ErrTooManyTails  = errors.New("too many tails: close one first")
)

// Publication is what the application publishes.
type Publication struct {
	// Where to: one of these.
	Room     string
	Client   ID
	User     string // all clients of that name
	Everyone bool

	Content   []byte // one JSON value
	From      string // Server where it is empty; see CheckFrom
	Key       []byte // nil for none; of a Room, as is PublishID
	PublishID string // "" for none
	Publisher string // the API key's name, whose publish_ids are its own; "" for the application itself
	Exclude   ID     // the client that doesn't get it; zero for nobody

	trace *string // as Message.Trace
}

// message is what p publishes. It has no place yet.
func (p *Publication) message(kind protocol.Kind) *protocol.Message {
	m := &protocol.Message{Kind: kind, Room: p.Room, From: cmp.Or(p.From, Server), Content: p.Content, Key: p.Key, Time: time.Now().UnixMilli(), Trace: p.trace}
	if p.Exclude != (ID{}) {
		m.Except = p.Exclude.String()
	}
	return m
}

// publishKey is what p is known by in a room.
func (p *Publication) publishKey() publishKey {
	return publishKey{apiKey: p.Publisher, room: p.Room, id: p.PublishID}
}

// maxFrom is the longest name of who publishes, in bytes.
const maxFrom = 64

// CheckFrom refuses a name that the application may not publish under: what no text on a screen should be, and what a
// client's id could be, whatever its letters' case.
func CheckFrom(from string) error {
	switch _, isID := ParseID([]byte(from)); {
	case len(from) > maxFrom || !utf8.ValidString(from):
		return fmt.Errorf("from must be UTF-8 of at most %d bytes, not %s", maxFrom, protocol.Quote([]byte(from)))
	case strings.ContainsFunc(from, unicode.IsControl):
		return fmt.Errorf("from has a control character: %s", protocol.Quote([]byte(from)))
	case isID:
		return fmt.Errorf("from has the form of a client's id: %s", from)
	}
	return nil
}

// Publish sends what p says, and gives its position in a room with history. It goes nowhere when the room has no member
// and keeps no history. duplicate says that the publisher has published it by this PublishID before, at this position.
// ErrOverloaded says that nothing was sent, and so do ErrStopped, ErrUnknownClient, ErrUnknownUser, and CheckFrom's.
func (h *Hub) Publish(ctx context.Context, p *Publication) (at history.Position, duplicate bool, err error) {
	if h.cfg().Tracer != nil {
		return h.publishTraced(ctx, p)
	}
	return h.publishAnywhere(ctx, p)
}

func (h *Hub) publishAnywhere(ctx context.Context, p *Publication) (at history.Position, duplicate bool, err error) {
	if err := CheckFrom(p.From); err != nil {
		return at, false, err
	}
	switch {
	case h.stopping():
		return at, false, ErrStopped
	case p.Everyone:
		return at, false, h.broadcast(p)
	case p.Client != ID{}:
		return at, false, h.sendToClient(ctx, p)
	case p.User != "":
		return at, false, h.sendToUser(ctx, p)
	case h.remoteLog(p.Room):
		return h.publishRemotely(ctx, p)
	case p.PublishID == "":
		at, err = h.publishToRoom(p)
		return at, false, err
	case h.cluster != nil:
		duplicate, err = h.publishOnce(ctx, p)
		return at, duplicate, err
	case h.loop.Overloaded(): // one more publish_id can't be remembered
		return at, false, ErrOverloaded
	}
	return h.once(p.publishKey(), nil, func() (history.Position, error) { return h.publishToRoom(p) })
}

func (h *Hub) publishToRoom(p *Publication) (at history.Position, err error) {
	m, except := p.message(protocol.RoomMessage), h.here(p.Exclude)
	sh := h.roomShard(p.Room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if h.stopping() {
		return at, ErrStopped
	}
	if r := sh.rooms[p.Room]; r != nil && r.full() != nil {
		return at, ErrOverloaded
	}
	at, _, err = h.publishHere(sh, m, except, nil)
	return at, err
}

func (h *Hub) broadcast(p *Publication) error {
	m, except := p.message(protocol.Chat), h.here(p.Exclude)
	m.Place(0, 0)
	r := h.everyone
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case h.stopping():
		return ErrStopped
	case r.full() != nil:
		return ErrOverloaded
	}
	if err := h.tellOthers(m); err != nil {
		return err
	}
	h.renew(r)
	h.apply(r, m, except, nil)
	return nil
}

// send sends a direct message of the application's to each of the clients, which are here, or to none of them.
func (h *Hub) send(ids []ID, p *Publication, m *protocol.Message) error {
	for _, id := range ids {
		if id != p.Exclude && !h.clientShard(id).takes(id, m) {
			return ErrOverloaded
		}
	}
	var failed error
	reached := 0
	for _, id := range ids {
		if id == p.Exclude {
			continue
		}
		_, err := h.direct(id, m, nil)
		switch {
		case err == nil:
			reached++
		case err.Code == protocol.UnknownClient:
			failed = cmp.Or(failed, ErrUnknownClient)
		default:
			failed = ErrOverloaded
		}
	}
	if reached > 0 {
		return nil // of a user's clients one may have left just now, or too much may have come for it
	}
	return failed
}

// here is the session of a client that is connected, or nil; the zero id is nobody's. Only what is static of it may be
// read.
func (h *Hub) here(id ID) *session {
	if id == (ID{}) {
		return nil // without a lock: most messages exclude nobody
	}
	s, _ := h.lookUp(id)
	return s
}

// lookUp is here; parked says that the client has lost its connection, and nobody has claimed its session yet.
func (h *Hub) lookUp(id ID) (s *session, parked bool) {
	sh := h.clientShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if p := sh.parked[id]; p != nil {
		return p.by, p.by == nil
	}
	return sh.sessions[id], false
}

// clientsOf are the clients of a user, the parked ones too.
func (h *Hub) clientsOf(user string) (ids []ID) {
	for i := range h.clients {
		ids = h.clients[i].ofUser(ids, user)
	}
	return ids
}

// PageQuery asks for a page of a room's history: what comes behind Since or what is before Before, at most one of which
// is given, or else the newest.
type PageQuery struct {
	Since, Before *protocol.Position
	Limit         int // messages, 1 to protocol.MaxPage
}

// History is a page of a room's history, oldest first, and the room's position; more says that there is more, the way
// that was asked for. A page has 64 KiB or one message. ErrNoHistory, ErrNoPosition.
func (h *Hub) History(ctx context.Context, room string, q PageQuery) (page []*protocol.Message, at history.Position, more bool, err error) {
	if h.cfg().Policies.For(room).History.Messages == 0 {
		return nil, at, false, ErrNoHistory
	}
	if h.remoteLog(room) {
		return h.readRemotely(ctx, room, q)
	}
	page, at, more, bad := h.page(room, q)
	if bad != nil {
		return nil, at, false, ErrNoPosition
	}
	return page, at, more, nil
}

// PresenceAfter is how many are in the room, and where its policy is full the first so many of them, by id, that come
// after one; more says that there are others behind them. ErrNoPresence. Where there are other nodes that have to be asked
// it waits for them, and has the errors of ErrUnavailable, ErrTimeout or ctx's.
func (h *Hub) PresenceAfter(ctx context.Context, room string, after ID, limit int) (count int, members []protocol.Member, more bool, err error) {
	if h.cfg().Policies.For(room).Presence == PresenceOff {
		return 0, nil, false, ErrNoPresence
	}
	if h.cluster != nil {
		return h.presenceTogether(ctx, room, after, limit)
	}
	count, members, more = h.presenceHere(room, after, limit)
	return count, members, more, nil
}

// presenceHere is PresenceAfter as far as this node knows.
func (h *Hub) presenceHere(room string, after ID, limit int) (count int, members []protocol.Member, more bool) {
	sh := h.roomShard(room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[room]
	if r == nil {
		return 0, nil, false
	}
	if r.presence == nil {
		return r.members, nil, false
	}
	members, more = r.presence.After(after.String(), limit)
	return r.presence.Count(), members, more
}

// RoomInfo is what is known of a room from outside.
type RoomInfo struct {
	Name     string
	Members  int
	Recent   int // about how many messages came in the last 10 s
	Position history.Position
}

func (h *Hub) roomHere(name string) (info RoomInfo, ok bool) {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[name]
	if r == nil || !r.known() {
		return info, false
	}
	return r.info(time.Now().UnixMilli()), true
}

// known says that the room's log is here, where it has one: else it is still being opened, for who isn't in yet. One
// without is not when only what others tell it is listened to.
func (r *room) known() bool {
	return r.remote == nil || r.remote.log.done() && (r.keeps() || r.members > 0)
}

// info is at a time, in Unix milliseconds.
func (r *room) info(now int64) RoomInfo {
	return RoomInfo{r.name, r.members, r.pace.recent(now), r.position()}
}

// ClientInfo is what is known of a client from outside.
type ClientInfo struct {
	Identity
	Parked bool // it has lost its connection and may come back
}

func byID(a, b ClientInfo) int { return bytes.Compare(a.ID[:], b.ID[:]) }

// removeHere is Remove where the client is here.
func (h *Hub) removeHere(ctx context.Context, room string, client ID) error {
	var was bool
	err := h.onClient(ctx, client, func(s *session) { was = s.kick(room) }, func() (done bool) {
		was, done = h.kickParked(room, client)
		return done
	})
	if err == nil && !was {
		return ErrNotMember
	}
	return err
}

// kick takes the session out of a room, if it is in it.
func (s *session) kick(room string) (was bool) {
	if i := s.find([]byte(room)); i >= 0 {
		s.leave(i)
		s.answer(protocol.Answer{Kind: protocol.AnswerLeft, Room: room, Reason: protocol.LeftKicked})
		return true
	}
	if s.naming() && s.more.placings.giveUp(room) {
		return true
	}
	if !s.coming() {
		return false
	}
	r, was := s.more.coming.left[room] // it hasn't named it yet
	if was {
		delete(s.more.coming.left, room)
		s.hub.memberLeftSafely(r.room, s.old())
	}
	return was
}

// kickParked takes a client out of a room, if it is in it, where its session is parked; else nothing is done. Its
// shard's lock is held to the end: behind that who resumes joins the room anew, and whose time is up is gone.
func (h *Hub) kickParked(name string, client ID) (was, parked bool) {
	defer h.recovered("leaving a room")
	rooms, sh := h.roomShard(name), h.clientShard(client)
	rooms.mu.Lock()
	defer rooms.mu.Unlock()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.parked[client]
	if p == nil || p.by != nil {
		return false, false
	}
	i := p.find(name)
	if i < 0 {
		return false, true
	}
	r := p.rooms[i].room
	p.rooms = slices.Delete(p.rooms, i, i+1)
	p.cost -= parkedRoomCost
	h.keep(KeptParked, p.payer, -parkedRoomCost)
	was, parked = true, true
	h.memberLeftLocked(r, Identity{p.id, p.user}, nil, p.payer)
	return was, parked
}

// disconnectHere is Disconnect where the client is here.
func (h *Hub) disconnectHere(ctx context.Context, client ID, code int, reason string) error {
	return h.onClient(ctx, client, func(s *session) {
		s.extra().final = true
		s.conn.Close(code, reason)
	}, func() (done bool) { return h.disconnectParked(client, code) })
}

// disconnectParked ends a client's session where it is parked.
func (h *Hub) disconnectParked(client ID, code int) (was bool) {
	p := h.takeParked(client)
	if p != nil {
		h.endParked(p, code)
	}
	return p != nil
}

// onClient has something done with a client wherever it is: on its worker, or where its session is parked; that is
// false where it isn't any more. It waits for the worker or for ctx.
func (h *Hub) onClient(ctx context.Context, id ID, live func(*session), lost func() (done bool)) error {
	for ctx.Err() == nil {
		if h.stopping() {
			return ErrStopped
		}
		s, parked := h.lookUp(id)
		switch {
		case parked:
			if lost() {
				return nil
			}
			continue
		case s == nil:
			if hd := h.handing(id); hd != nil {
				wait(ctx, hd.over)
				continue
			}
			return ErrUnknownClient
		}
		w, v := s.conn.Worker(), &visit{s: s, do: live, done: make(chan struct{})}
		w.Post(v, 0)
		select {
		case <-v.done:
		case <-ctx.Done():
		case <-w.Ended():
		}
		if v.begun.Swap(true) { // else it never will
			if <-v.done; v.was {
				return nil
			} // it has gone meanwhile, and may be parked or here again
		}
	}
	return ctx.Err()
}

// visit is something that is done with a session on its worker, unless who asked for it has given up before.
type visit struct {
	s     *session
	do    func(*session)
	begun atomic.Bool // or given up
	was   bool        // it was done; its connection hadn't ended
	done  chan struct{}
}

// Conn implements loop.ConnTask.
func (v *visit) Conn(*loop.Worker) *loop.Conn { return v.s.conn }

func (v *visit) Run(*loop.Worker) {
	if v.begun.Swap(true) {
		return
	}
	defer close(v.done) // also where it panics
	if v.s.conn.Open() {
		v.do(v.s)
		v.was = true
	}
}
