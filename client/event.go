package client

import (
	"encoding/json"
	"time"
)

// Position is a place in a room that has history. Its zero value is none.
type Position struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

// Event is what comes of a room or a Hub: a Message, Gap, Lost, Deleted, Left or Entered.
type Event interface{ event() }

// Message is what somebody published.
type Message struct {
	Room     string          // "" for a chat or a direct message
	Direct   bool            // it was sent to this client alone
	From     string          // the sender's client id, or "server"
	User     string          // the sender's name, "" for none
	Key      string          // what it is about, "" for nothing
	Content  json.RawMessage // as it was sent; numbers too large for a float64 are whole in it
	Time     time.Time       // by the server's clock
	Position Position        // where the room has history
}

// Decode reads the content into v, as json.Unmarshal does.
func (m Message) Decode(v any) error { return json.Unmarshal(m.Content, v) }

// Gap says that messages will not come, before any later message of the room. Room is "" where it is about chat.
type Gap struct {
	Room     string
	Count    int    // 0 where it isn't known
	Reason   string // of the protocol's table, or "unread": nobody has ranged over the room here
	From, To uint64 // offsets of the first and the last of them, where known
}

// Lost says that the client was away from a room, and that nobody can say whether it missed something. What it knows of
// the room's state must be fetched anew. Reason is the protocol's: "epoch", "expired", "no_history".
type Lost struct {
	Room, Reason string
	Position     Position // from where it goes on
}

// Deleted says that the message at Offset was taken back, or, where that is 0, all up to ToOffset.
type Deleted struct {
	Room             string
	Offset, ToOffset uint64
}

// Left says that the client is no longer in a room: Reason is "" where it left itself, else why the server took it out.
type Left struct{ Room, Reason string }

// Entered says, among the events of a Hub, that the server put the client into a room.
type Entered struct{ Room string }

func (Message) event() {}
func (Gap) event()     {}
func (Lost) event()    {}
func (Deleted) event() {}
func (Left) event()    {}
func (Entered) event() {}

// size is about what an event takes in memory.
func size(e Event) int {
	const fixed = 256
	if m, ok := e.(Message); ok {
		return fixed + len(m.Content) + len(m.Key)
	}
	return fixed
}

// Member is somebody in a room.
type Member struct {
	ClientID string          `json:"client_id"`
	User     string          `json:"user"`
	Data     json.RawMessage `json:"data"` // of its join, nil for none
}

// Presence is who is in a room: a count, and where the room's policy tells who, the members, at most 1000 of them; More
// says that there are others.
type Presence struct {
	Count   int
	Members []Member
	More    bool
}

// Page is a page of a room's history, the oldest message first. Position is the room's latest. More says that there is
// more in the direction of reading: onwards with Since, else back.
type Page struct {
	Position Position
	Messages []Message
	More     bool
}
