package protocol

import (
	"bytes"
	"slices"
)

// Kind is what a client message asks for.
type Kind uint8

// The kinds there are. Custom is one that the protocol does not define: a program that embeds the server may handle it,
// and where nobody does, the answer is UnknownType.
const (
	Custom Kind = iota
	Chat
	JoinRoom
	LeaveRoom
	RoomMessage
	DirectMessage
	Presence
	History
	Ping
	Resume
	Refresh
	Request
)

// Command is one thing that a client asks for. Its slices alias the frame that it came in, or a dialect's scratch, and
// are good until that dialect reads the next one.
type Command struct {
	Kind Kind
	Type []byte // msg_type, unescaped

	// ID is the id exactly as sent, nil when absent.
	ID []byte

	Room []byte // unescaped and checked; of join_room, leave_room, room_message, presence and history
	To   []byte // unescaped; of direct_message

	// Content is the raw JSON value, without white space around it; of chat (where `""` stands for a missing one),
	// room_message, direct_message, request and Custom (nil when missing, of these two).
	Content []byte

	Key       []byte // unescaped, nil when absent; of room_message, as is PublishID
	PublishID []byte

	// Since and Before count where Has says so; Since is of join_room and history, Before of history.
	Since, Before       Position
	HasSince, HasBefore bool

	Token  []byte // unescaped, not empty; of refresh
	Method []byte // unescaped, 1 to MaxMethod bytes; of request

	Limit int            // 1 to MaxPage, 0 when absent; of history
	Data  []byte         // raw JSON, nil when absent; of join_room
	Rooms []RoomPosition // at most MaxResumeRooms, no room twice; of resume, as is More
	More  bool           // last is false: another resume follows
}

// Clone is a copy that lasts.
func (c *Command) Clone() *Command {
	d := *c
	for _, b := range []*[]byte{&d.Type, &d.ID, &d.Room, &d.To, &d.Content, &d.Key, &d.PublishID, &d.Token, &d.Method, &d.Data, &d.Since.Epoch, &d.Before.Epoch} {
		*b = bytes.Clone(*b)
	}
	d.Rooms = slices.Clone(d.Rooms)
	for i := range d.Rooms {
		d.Rooms[i].Room, d.Rooms[i].At.Epoch = bytes.Clone(d.Rooms[i].Room), bytes.Clone(d.Rooms[i].At.Epoch)
	}
	return &d
}

// Position is a place in a room's log.
type Position struct {
	Epoch  []byte // unescaped, 1 to 64 bytes
	Offset uint64 // at most 2^53-1
}

// RoomPosition is a room that a resume names, and where the client was in it.
type RoomPosition struct {
	Room  []byte // unescaped and checked
	At    Position
	HasAt bool // false for null: a room without history
}

// What a client may ask for at once.
const (
	MaxPage        = 1000 // messages of a history
	MaxResumeRooms = 1000
	MaxData        = 4096 // bytes of join_room's data, as JSON
)

// The longest of the short texts, in bytes.
const (
	MaxEpoch     = 64
	MaxKey       = 255
	MaxPublishID = 64
	MaxMethod    = 64
)
