package hubbub

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/protocol/room"
)

// Errors of what the application asks a Server for.
var (
	// ErrUnknownClient says that there is no client with that id: neither connected nor to be resumed.
	ErrUnknownClient = hub.ErrUnknownClient
	// ErrUnknownUser says that there is no client of that user.
	ErrUnknownUser = hub.ErrUnknownUser
	// ErrOverloaded says that nothing was sent, because too much waits already: try again later.
	ErrOverloaded = hub.ErrOverloaded
	// ErrStopped says that nothing was done, because Shutdown has ended the last connection.
	ErrStopped = hub.ErrStopped
	// ErrNotMember says that the client is not in the room.
	ErrNotMember = hub.ErrNotMember
	// ErrNoHistory says that the room's policy keeps no history.
	ErrNoHistory = hub.ErrNoHistory
	// ErrNoPresence says that the room's policy doesn't tell who is in it.
	ErrNoPresence = hub.ErrNoPresence
	// ErrNoPosition says that the room has no such position: its log has another epoch, or has not come so far.
	ErrNoPosition = hub.ErrNoPosition
)

// Publication is what the application publishes.
type Publication struct {
	// Where to: exactly one of these. Room reaches the room's members, as a room_message; that it has none is no error.
	// Client is one client by its id, and User all clients of that name, as a direct_message. Everyone is all clients,
	// as a chat.
	Room     string
	Client   string
	User     string
	Everyone bool

	// Content is encoded as JSON. What clients would have to refuse is an error, also where a json.RawMessage holds it:
	// invalid UTF-8, an escaped lone surrogate, more than 127 levels. Config.MaxMessageBytes, which is for what clients
	// send, doesn't bound it: it goes to a client whose queue is empty whatever its size, and else counts as any other
	// against SendQueueBytes; the newest message stays in the history even when it alone is larger than that. Whoever
	// puts what users wrote into a message bounds it before, since every member's client must be able to take it.
	Content any
	// From is who it is from: "server" where it is empty; at most 64 bytes, and never in the form of a client's id.
	From string
	// Exclude is the id of a client that doesn't get it.
	Exclude string

	// Of a Room alone. Key is by what the policy "latest-by-key" conflates, at most 255 bytes. PublishID has the
	// message published once: a second call within Config.DedupWindow for the same room gives the first one's position,
	// with Duplicate set; at most 64 bytes.
	Key       string
	PublishID string
}

// Position is a place in the log of a room: behind the message with that offset. Another epoch means that the log was
// lost. The zero Position is that of a room without history, of a client, of a user, of everyone.
type Position struct {
	Epoch     string
	Offset    uint64
	Duplicate bool // of a Publish: it was published before, at this position
}

const maxFrom = 64 // bytes

// Publish sends what p says, whoever the policy lets publish. It doesn't block: ErrOverloaded says that nothing was
// sent. Others of its errors: ErrUnknownClient, ErrUnknownUser, ErrStopped, ctx's where that has ended, and what is
// wrong with a field, which is named. Any goroutine, a hook's too.
func (s *Server) Publish(ctx context.Context, p Publication) (Position, error) {
	at, err := s.publish(ctx, &p)
	if err != nil {
		return Position{}, fmt.Errorf("hubbub: publish: %w", err)
	}
	return at, nil
}

func (s *Server) publish(ctx context.Context, p *Publication) (at Position, err error) {
	if err := ctx.Err(); err != nil {
		return at, err
	}
	if err := p.check(); err != nil {
		return at, err
	}
	out := hub.Publication{Room: p.Room, User: p.User, Everyone: p.Everyone, From: cmp.Or(p.From, hub.Server), PublishID: p.PublishID}
	if p.Key != "" {
		out.Key = []byte(p.Key)
	}
	if p.Client != "" {
		var ok bool
		if out.Client, ok = hub.ParseID([]byte(p.Client)); !ok {
			return at, ErrUnknownClient
		}
	}
	if p.Exclude != "" {
		out.Exclude, _ = hub.ParseID([]byte(p.Exclude)) // check has looked
	}
	if out.Content, err = encode(p.Content); err != nil {
		return at, err
	}
	place, duplicate, err := s.hub.Publish(ctx, &out)
	return Position{place.Epoch, place.Offset, duplicate}, err
}

// check says which field can't be used.
func (p *Publication) check() error {
	targets := 0
	for _, is := range []bool{p.Room != "", p.Client != "", p.User != "", p.Everyone} {
		if is {
			targets++
		}
	}
	if targets != 1 {
		return fmt.Errorf("exactly one of Room, Client, User and Everyone must be set, not %d of them", targets)
	}
	if p.Room != "" {
		if err := protocol.CheckRoom([]byte(p.Room)); err != nil {
			return err
		}
	} else if p.Key != "" || p.PublishID != "" {
		return errors.New("Key and PublishID go with Room alone")
	}
	if p.User != "" {
		if err := protocol.CheckUser(p.User); err != nil {
			return fmt.Errorf("User: %w", err)
		}
	}
	for _, text := range []struct {
		field, value string
		most         int
	}{{"From", p.From, maxFrom}, {"Key", p.Key, protocol.MaxKey}, {"PublishID", p.PublishID, protocol.MaxPublishID}} {
		if len(text.value) > text.most || !utf8.ValidString(text.value) {
			return fmt.Errorf("%s must be UTF-8 of at most %d bytes, not %s", text.field, text.most, protocol.Quote([]byte(text.value)))
		}
	}
	if _, is := hub.ParseID([]byte(p.From)); is {
		return fmt.Errorf("From has the form of a client's id: %s", p.From)
	}
	if _, is := hub.ParseID([]byte(p.Exclude)); p.Exclude != "" && !is {
		return fmt.Errorf("Exclude is no client's id: %s", protocol.Quote([]byte(p.Exclude)))
	}
	return nil
}

// encode makes the JSON of what the application gives, and holds it to the protocol: json.Marshal takes a
// json.RawMessage, wherever it lies, nearly as it is.
func encode(content any) ([]byte, error) {
	b, err := json.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("encode the content: %w", err)
	}
	return room.CheckContent(b)
}

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

// afterID is the id after which a page begins, zero for the first one.
func afterID(after string) (id hub.ID, err error) {
	id, ok := hub.ParseID([]byte(after))
	if after != "" && !ok {
		err = fmt.Errorf("After is no client's id: %s", protocol.Quote([]byte(after)))
	}
	return id, err
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

// Presence says who is in a room. ErrNoPresence, ctx's. It doesn't block.
func (s *Server) Presence(ctx context.Context, room string, q PresenceQuery) (Presence, error) {
	limit, err := limited(q.Limit, maxList)
	after, badAfter := afterID(q.After)
	if bad := protocol.CheckRoom([]byte(room)); bad != nil {
		err = errors.Join(err, bad)
	}
	if err = errors.Join(ctx.Err(), err, badAfter); err != nil {
		return Presence{}, fmt.Errorf("hubbub: presence: %w", err)
	}
	count, members, more, err := s.hub.PresenceAfter(room, after, limit)
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
	Position Position // zero without history
}

// RoomQuery asks for rooms by name.
type RoomQuery struct {
	Prefix string // of their names
	After  string // the last name of the page before; "" for the first page
	Limit  int    // at most 1000; 0 is 100
}

// Rooms are those that have members or history, by name; more says that there are others behind them. It doesn't block,
// and goes over all rooms.
func (s *Server) Rooms(ctx context.Context, q RoomQuery) (list []Room, more bool, err error) {
	limit, err := limited(q.Limit, maxList)
	if err = errors.Join(ctx.Err(), err); err != nil {
		return nil, false, fmt.Errorf("hubbub: rooms: %w", err)
	}
	rooms, more := s.hub.RoomsAfter(q.Prefix, q.After, limit)
	for _, r := range rooms {
		list = append(list, Room{r.Name, r.Members, positionOf(r.Position)})
	}
	return list, more, nil
}

// Client is what is known of a client from outside.
type Client struct {
	ID     string
	User   string // "" for none
	Parked bool   // it has lost its connection, and may come back and resume its session
}

// ClientQuery asks for clients by id.
type ClientQuery struct {
	After string // the last id of the page before; "" for the first page
	Limit int    // at most 1000; 0 is 100
}

// Clients are all who are connected or may come back, by id; more says that there are others behind them. It doesn't
// block, and goes over all clients.
func (s *Server) Clients(ctx context.Context, q ClientQuery) (list []Client, more bool, err error) {
	limit, err := limited(q.Limit, maxList)
	after, badAfter := afterID(q.After)
	if err = errors.Join(ctx.Err(), err, badAfter); err != nil {
		return nil, false, fmt.Errorf("hubbub: clients: %w", err)
	}
	clients, more := s.hub.ClientsAfter(after, limit)
	for _, c := range clients {
		list = append(list, Client{c.ID.String(), c.User, c.Parked})
	}
	return list, more, nil
}

// Remove takes a client out of a room; it is told so, with the reason "kicked", and may join again. One that has lost
// its connection isn't told, and joins again when it resumes: who is to stay out is refused by the hook Join.
// ErrUnknownClient, ErrNotMember, ErrStopped, ctx's. It waits until the client is out, or for ctx; an error says that
// nothing was done, nor will be.
func (s *Server) Remove(ctx context.Context, room, client string) error {
	id, ok := hub.ParseID([]byte(client))
	err := error(ErrUnknownClient)
	if ok {
		err = s.hub.Remove(ctx, room, id)
	}
	if err != nil {
		return fmt.Errorf("hubbub: remove %s from %s: %w", protocol.Quote([]byte(client)), protocol.Quote([]byte(room)), err)
	}
	return nil
}

// Disconnect closes a client's connection with a code from 4000 to 4999 (0 is 4500, "kicked": from 4500 on clients
// don't come back by themselves) and a reason of at most 123 bytes, and ends its session: it can't be resumed.
// ErrUnknownClient, ErrStopped, ctx's. It waits until the Close is on its way, or for ctx; an error says that nothing
// was done, nor will be. A client's own hook or Handler may call it, whose ctx ends then.
func (s *Server) Disconnect(ctx context.Context, client string, code int, reason string) error {
	code = cmp.Or(code, protocol.CloseKicked)
	id, ok := hub.ParseID([]byte(client))
	err := error(ErrUnknownClient)
	switch {
	case code < 4000 || code > 4999:
		err = fmt.Errorf("the code must be 4000 to 4999, not %d", code)
	case len(reason) > maxReason || !utf8.ValidString(reason):
		err = fmt.Errorf("the reason must be UTF-8 of at most %d bytes, not %s", maxReason, protocol.Quote([]byte(reason)))
	case ok:
		err = s.hub.Disconnect(ctx, id, code, reason)
	}
	if err != nil {
		return fmt.Errorf("hubbub: disconnect %s: %w", protocol.Quote([]byte(client)), err)
	}
	return nil
}

// maxReason is what a Close frame has room for beside its code (RFC 6455 5.5).
const maxReason = 123
