package hubbub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"example.com/hubbub/broker/nats"
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
	// ErrUnavailable says that nothing was done, because the log of a room can't be reached, or another node that has to be
	// asked: with DataDir, or several nodes, alone.
	ErrUnavailable = hub.ErrUnavailable
	// ErrTimeout says that nobody knows whether it was done, or whether all of it was, because the log of a room or another
	// node didn't answer in time: with DataDir, or several nodes, alone. What is published again by the same PublishID is published once.
	ErrTimeout = hub.ErrTimeout
	// ErrStopped says that nothing was done, because Shutdown has ended the last connection.
	ErrStopped = hub.ErrStopped
	// ErrNotMember says that the client is not in the room.
	ErrNotMember = hub.ErrNotMember
	// ErrNoHistory says that the room's policy keeps no history.
	ErrNoHistory = hub.ErrNoHistory
	// ErrNoPresence says that the room's policy doesn't tell who is in it.
	ErrNoPresence = hub.ErrNoPresence
	// ErrNoPosition says that the room has no such position: its log has another epoch, or has not come so far; or keeps
	// no such message any more.
	ErrNoPosition = hub.ErrNoPosition
	// ErrUnknownRoom says that the room has neither members nor history.
	ErrUnknownRoom = errors.New("no such room")
	// ErrLimitReached says that the client may be in no more rooms.
	ErrLimitReached = hub.ErrLimitReached
	// ErrTooManyTails says that as many tails are open as may be.
	ErrTooManyTails = hub.ErrTooManyTails
	// ErrTailClosed says that the tail was closed.
	ErrTailClosed = hub.ErrTailClosed
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

	// Content is encoded as JSON; package json mends a Go string that isn't UTF-8. What clients would have to refuse is an
	// error, also where a json.RawMessage holds it: invalid UTF-8, an escaped lone surrogate, more than 127 levels. Config.MaxMessageBytes, which is for what clients
	// send, doesn't bound it: it goes to a client whose queue is empty whatever its size, and else counts as any other
	// against SendQueueBytes; the newest message stays in the history even when it alone is larger than that. Whoever
	// puts what users wrote into a message bounds it before, since every member's client must be able to take it. With
	// Config.DataDir a Room's has at most 6 MiB.
	Content any
	// From is who it is from: "server" where it is empty; at most 64 bytes of UTF-8 without controls, and never in the form
	// of a client's id.
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

// Publish sends what p says, whoever the policy lets publish. It doesn't block, but with DataDir waits for the log of a
// room with history, 10 seconds at most, and of several nodes for the one that has the Client, or all for a User, 5 seconds
// at most: ErrUnavailable, ErrTimeout. ErrOverloaded says that nothing was sent. Others of
// its errors: ErrUnknownClient, ErrUnknownUser, ErrStopped, ctx's where that has ended, and what is wrong with a field,
// which is named. Any goroutine, a hook's too.
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
	out := hub.Publication{Room: p.Room, User: p.User, Everyone: p.Everyone, From: p.From, PublishID: p.PublishID}
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
	if s.links != nil && s.links.own != nil && p.Room != "" && len(out.Content) > nats.MaxBody {
		return at, fmt.Errorf("Content has %d bytes as JSON, more than the %d that a room's log takes", len(out.Content), nats.MaxBody)
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
	}{{"Key", p.Key, protocol.MaxKey}, {"PublishID", p.PublishID, protocol.MaxPublishID}} {
		if len(text.value) > text.most || !utf8.ValidString(text.value) {
			return fmt.Errorf("%s must be UTF-8 of at most %d bytes, not %s", text.field, text.most, protocol.Quote([]byte(text.value)))
		}
	}
	if err := hub.CheckFrom(p.From); err != nil {
		return fmt.Errorf("From: %w", err)
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
