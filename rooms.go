package hubbub

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
)

// HistoryQuery asks for a page of a room's history: what comes behind Since or what is before Before, at most one of
// which is set, or else the newest messages.
type HistoryQuery struct {
	Since, Before *Position
	Limit         int // messages, at most 1000; 0 is 100
}

// HistoryPage is a part of a room's history.
type HistoryPage struct {
	Position Position    // of the room: that of its newest message
	Messages []Published // oldest first
	More     bool        // there are more, the way that was asked for
}

// Published is a message that a room keeps.
type Published struct {
	From, User string // User is "" for none
	Content    json.RawMessage
	Key        string // "" for none
	Time       time.Time
	Offset     uint64
}

// History is a page of what a room keeps: 64 KiB or one message at most. ErrNoHistory, ErrNoPosition, ctx's. It doesn't
// block.
func (s *Server) History(ctx context.Context, room string, q HistoryQuery) (HistoryPage, error) {
	page, err := s.history(ctx, room, q)
	if err != nil {
		return HistoryPage{}, fmt.Errorf("hubbub: history of %s: %w", protocol.Quote([]byte(room)), err)
	}
	return page, nil
}

func (s *Server) history(ctx context.Context, room string, q HistoryQuery) (page HistoryPage, err error) {
	if err := ctx.Err(); err != nil {
		return page, err
	}
	if err := protocol.CheckRoom([]byte(room)); err != nil {
		return page, err
	}
	if q.Since != nil && q.Before != nil {
		return page, errors.New("Since and Before exclude each other")
	}
	limit, err := limited(q.Limit, protocol.MaxPage)
	if err != nil {
		return page, err
	}
	messages, at, more, err := s.hub.History(ctx, room, hub.PageQuery{Since: asked(q.Since), Before: asked(q.Before), Limit: limit})
	if err != nil {
		return page, err
	}
	page = HistoryPage{Position: positionOf(at), More: more}
	for _, m := range messages {
		page.Messages = append(page.Messages, Published{m.From, m.User, bytes.Clone(m.Content), string(m.Key), time.UnixMilli(m.Time), m.Offset})
	}
	return page, nil
}

func positionOf(at history.Position) Position { return Position{Epoch: at.Epoch, Offset: at.Offset} }

func asked(p *Position) *protocol.Position {
	if p == nil {
		return nil
	}
	return &protocol.Position{Epoch: []byte(p.Epoch), Offset: p.Offset}
}

// limited is the limit of a list: 100 for 0.
func limited(limit, most int) (int, error) {
	if limit < 0 || limit > most {
		return 0, fmt.Errorf("Limit must be 1 to %d, or 0 for 100, not %d", most, limit)
	}
	return cmp.Or(limit, 100), nil
}

// maxList is how many a list has at most.
const maxList = 1000

// PresenceQuery asks who is in a room.
type PresenceQuery struct {
	After string // the last id of the page before; "" for the first page
	Limit int    // at most 1000; 0 is 100
}

// Presence is who is in a room, those who are to be resumed too.
type Presence struct {
	Count   int
	Members []Member // by id; none unless the room's policy is "full"
	More    bool     // there are others behind these
}

// Member is a client in a room.
type Member struct {
	ID   string
	User string          // "" for none
	Data json.RawMessage // what it joined with; nil for nothing
}

// Presence says who is in a room. ErrNoPresence, ctx's. It doesn't block, but where there are other nodes that have to be
// asked: then ErrUnavailable and ErrTimeout, too.
func (s *Server) Presence(ctx context.Context, room string, q PresenceQuery) (Presence, error) {
	limit, err := limited(q.Limit, maxList)
	after, badAfter := afterID(q.After)
	if bad := protocol.CheckRoom([]byte(room)); bad != nil {
		err = errors.Join(err, bad)
	}
	if err = errors.Join(ctx.Err(), err, badAfter); err != nil {
		return Presence{}, fmt.Errorf("hubbub: presence: %w", err)
	}
	count, members, more, err := s.hub.PresenceAfter(ctx, room, after, limit)
	if err != nil {
		return Presence{}, fmt.Errorf("hubbub: presence of %s: %w", protocol.Quote([]byte(room)), err)
	}
	p := Presence{Count: count, More: more}
	for _, m := range members {
		p.Members = append(p.Members, Member{m.ClientID, m.User, bytes.Clone(m.Data)})
	}
	return p, nil
}

// Room is what is known of a room from outside.
type Room struct {
	Name     string
	Members  int      // those who are to be resumed too
	Rate     float64  // messages a second, of about the last ten
	Position Position // zero without history
}

// RoomQuery asks for a page of rooms.
type RoomQuery struct {
	Prefix, Contains string  // of their names
	Order            string  // "name", or the most first: "members" or "rate". "" is by name
	After            string  // the last name of the page before; "" for the first page
	Figure           float64 // the Members or the Rate of that room, where Order is by one
	Limit            int     // at most 1000; 0 is 100
}

// Rooms are those that have members or history; more says that there are others behind them. With DataDir those that are
// in memory alone: somebody is in them, or was lately. It doesn't block, and goes over all rooms; of several nodes it
// waits for their lists: ErrUnavailable. Then an Order by a figure is of the rooms that are among the first 1000 of some
// node.
func (s *Server) Rooms(ctx context.Context, q RoomQuery) (list []Room, more bool, err error) {
	limit, err := limited(q.Limit, maxList)
	asked := hub.RoomQuery{Prefix: q.Prefix, Contains: q.Contains, After: q.After, Limit: limit}
	if q.Order != "" {
		var bad error
		if asked.Order, bad = hub.ParseRoomOrder(q.Order); bad != nil {
			err = errors.Join(err, fmt.Errorf("Order %w", bad))
		}
	}
	if asked.Figure = int(math.Round(q.Figure)); asked.Order == hub.ByRate {
		asked.Figure = int(math.Round(q.Figure * rateOf))
	}
	if err = errors.Join(ctx.Err(), err); err != nil {
		return nil, false, fmt.Errorf("hubbub: rooms: %w", err)
	}
	rooms, more, err := s.hub.RoomsAfter(ctx, asked)
	if err != nil {
		return nil, false, fmt.Errorf("hubbub: rooms: %w", err)
	}
	for _, r := range rooms {
		list = append(list, roomOf(r))
	}
	return list, more, nil
}

// rateOf is of how many seconds hub.RoomInfo.Recent is.
const rateOf = 10

func roomOf(r hub.RoomInfo) Room {
	return Room{r.Name, r.Members, float64(r.Recent) / rateOf, positionOf(r.Position)}
}

// Room is what is known of one room. ErrUnknownRoom, ctx's. It doesn't block, but with DataDir waits for the log of a room
// that isn't in memory, and of several nodes for what each knows of it: ErrUnavailable.
func (s *Server) Room(ctx context.Context, name string) (Room, error) {
	err := checked(ctx, name)
	if err == nil {
		r, ok, failed := s.hub.Room(ctx, name)
		switch err = failed; {
		case ok:
			return roomOf(r), nil
		case err == nil:
			err = ErrUnknownRoom
		}
	}
	return Room{}, fmt.Errorf("hubbub: room %s: %w", protocol.Quote([]byte(name)), err)
}

// checked says why nothing can be asked of a room: ctx has ended, or no room has such a name.
func checked(ctx context.Context, room string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if bad := protocol.CheckRoom([]byte(room)); bad != nil {
		return bad
	}
	return nil
}

// DeleteHistory takes back all that a room has kept up to now: it is in no page and no recovery any more, and the
// members are told, by a deleted with the offset up to which. The room's epoch and its position stay. That it keeps
// nothing is no error. ErrNoHistory, ErrOverloaded, ErrStopped, ctx's; then nothing was done. It doesn't block, but with
// DataDir waits for the room's log: ErrUnavailable, ErrTimeout.
func (s *Server) DeleteHistory(ctx context.Context, room string) error {
	err := checked(ctx, room)
	if err == nil {
		err = s.hub.DeleteHistory(ctx, room)
	}
	if err != nil {
		return fmt.Errorf("hubbub: delete the history of %s: %w", protocol.Quote([]byte(room)), err)
	}
	return nil
}

// DeleteMessage is DeleteHistory for the one message at that position; an Epoch of "" stands for the room's. Until it
// would have gone anyway, it counts for the room's bound on messages. ErrNoPosition where the room doesn't keep it; that
// it was deleted before is no error.
func (s *Server) DeleteMessage(ctx context.Context, room string, at Position) error {
	err := checked(ctx, room)
	if err == nil {
		err = s.hub.DeleteMessage(ctx, room, at.Epoch, at.Offset)
	}
	if err != nil {
		return fmt.Errorf("hubbub: delete message %d of %s: %w", at.Offset, protocol.Quote([]byte(room)), err)
	}
	return nil
}
