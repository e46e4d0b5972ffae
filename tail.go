package hubbub

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
)

// TailOf says what a Tail hears: exactly one of Room, Client and User.
type TailOf struct {
	Room   string // what passes it: messages, joins, leaves, deletions. It need not be there yet
	Client string // an id: what it sends, what it gets as direct messages, its joins and leaves, and that it comes and goes
	User   string // that of all clients of a user

	Content bool // what messages say is told, too
}

// TailItem is something that has passed. Fields that a kind doesn't have are zero.
type TailItem struct {
	// Kind is "room_message", "chat", "direct_message", "joined", "left", "deleted", "connected" or "disconnected".
	Kind string
	Time time.Time

	Client string // whose doing it is; "" for the application's
	User   string // its name; "" for none
	Room   string // of all but a chat, a direct message, connected and disconnected
	To     string // of a direct message, a client

	// Of messages.
	From    string
	Key     string
	Size    int             // of the content, in bytes
	Content json.RawMessage // nil unless it was asked for

	Position Position // of messages, and of a message that was deleted, in a room with history
	ToOffset uint64   // of a deletion of all up to there

	Code int // of a disconnected: with which the last connection ended
}

// Tail is what is heard, for people who look for a fault; see Server.Tail.
type Tail struct{ t *hub.Tail }

// Tail begins to listen. Nobody ever waits for a tail: where more comes than is taken from it, it leaves out what is
// new, and says how much. At most 64 may be open: ErrTooManyTails. ErrStopped, and what is wrong with a field, which is
// named. Whoever calls it closes the tail. It doesn't block, but of several nodes waits a second at most until all hear:
// a tail is of all of them, and has each thing once, though not in one order over nodes. What can't be heard of a node is
// said to be missing, as at least so much.
func (s *Server) Tail(of TailOf) (*Tail, error) {
	t, err := s.tail(of)
	if err != nil {
		return nil, fmt.Errorf("hubbub: tail: %w", err)
	}
	return &Tail{t}, nil
}

func (s *Server) tail(of TailOf) (*hub.Tail, error) {
	out := hub.TailOf{Room: of.Room, User: of.User, Content: of.Content}
	if of.Client != "" {
		var ok bool
		if out.Client, ok = hub.ParseID([]byte(of.Client)); !ok {
			return nil, fmt.Errorf("Client is no client's id: %s", protocol.Quote([]byte(of.Client)))
		}
	}
	if of.Room != "" {
		if bad := protocol.CheckRoom([]byte(of.Room)); bad != nil {
			return nil, bad
		}
	}
	if of.User != "" {
		if err := protocol.CheckUser(of.User); err != nil {
			return nil, fmt.Errorf("User: %w", err)
		}
	}
	return s.hub.Tail(out)
}

// Next waits for what has passed since the last call: items in their order for each room and each client, and how many
// were left out behind them because too many came. The error is ctx's, ErrTailClosed, or ErrStopped when the server has
// stopped. Any goroutine, one at a time.
func (t *Tail) Next(ctx context.Context) (items []TailItem, lost int64, err error) {
	all, lost, err := t.t.Next(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("hubbub: tail: %w", err)
	}
	for _, i := range all {
		items = append(items, TailItem{
			Kind: string(i.Kind), Time: time.UnixMilli(i.Time), Client: text(i.Client.ID), User: i.Client.User, Room: i.Room, To: text(i.To),
			From: i.From, Key: i.Key, Size: i.Size, Content: bytes.Clone(i.Content), Position: Position{Epoch: i.Epoch, Offset: i.Offset}, ToOffset: i.ToOffset, Code: i.Code,
		})
	}
	return items, lost, nil
}

// text is an id as the application knows it, "" for none.
func text(id hub.ID) string {
	if id == (hub.ID{}) {
		return ""
	}
	return id.String()
}

// Close ends the tail, and whoever waits for it. Any goroutine; a second call does nothing.
func (t *Tail) Close() { t.t.Close() }
