package hub

import (
	"context"
)

// TailOf says what a Tail is of: one of these.
type TailOf struct {
	Room   string // what passes it: messages, joins, leaves, deletions
	Client ID     // what it sends, what it gets as direct messages, its joins and leaves, and its connects and disconnects
	User   string // that of all clients of a user

	Content bool // what messages say is told, too
}

// TailItem is something that has passed.
type TailItem struct {
	Kind string // "room_message", "chat", "direct_message", "joined", "left", "deleted", "connected" or "disconnected"
	Time int64  // Unix milliseconds

	Room    string
	Client  ID     // of all but room messages and deletions: whose doing it is; zero for the application
	User    string // the client's; "" for none
	To      ID     // of a direct message
	From    string // of messages
	Key     string // of a room message
	Content []byte // where it was asked for; not to be changed
	Size    int    // of the content, in bytes

	Epoch    string // of a room message, and a deletion, in a room with history
	Offset   uint64 // of a deletion 0 where it is all up to ToOffset
	ToOffset uint64
	Code     int // of a disconnected
}

// Tail is what is heard. Its methods are for any goroutine, Next for one at a time.
type Tail struct{}

// Tail begins to listen. ErrTooManyTails.
func (h *Hub) Tail(of TailOf) (*Tail, error) { return nil, errNotYet }

// Next waits for what has passed since the last call, and how much of it was left out because too much came. An error is
// ctx's, or ErrStopped.
func (t *Tail) Next(ctx context.Context) (items []TailItem, lost int64, err error) {
	return nil, 0, errNotYet
}

// Close ends it.
func (t *Tail) Close() {}
