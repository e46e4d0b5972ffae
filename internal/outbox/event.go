package outbox

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/protocol/room"
)

// kind is what an event tells of. Records on disk have these numbers, so a new one goes to the end.
type kind uint8

const (
	clientConnected kind = iota
	clientDisconnected
	memberJoined
	memberLeft
	roomOccupied
	roomVacated
	messagePublished
	nodeStarted
	kinds // how many there are
)

// kindOf is the kind of a hub's event.
var kindOf = [...]kind{
	hub.Connected: clientConnected, hub.Disconnected: clientDisconnected, hub.Joined: memberJoined, hub.Left: memberLeft,
	hub.Occupied: roomOccupied, hub.Vacated: roomVacated, hub.Published: messagePublished,
}

// kindNames are the names of the events, as the backend and the settings have them.
var kindNames = [kinds]string{
	"client.connected", "client.disconnected", "member.joined", "member.left", "room.occupied", "room.vacated",
	"message.published", "node.started",
}

func (k kind) String() string { return kindNames[k] }

// class is what may be dropped before what. Each has its own spool, so that dropping is removing the oldest file.
type class uint8

const (
	states   class = iota // what a snapshot mends: who is connected, who is where
	messages              // message.published
	starts                // node.started, never dropped
	classes
)

// classNames are what the files of a class begin with.
var classNames = [classes]string{"state", "message", "start"}

func (k kind) class() class {
	switch k {
	case messagePublished:
		return messages
	case nodeStarted:
		return starts
	}
	return states
}

// Selection is which events the backend is told of.
type Selection [kinds]bool

// Messages says that message.published is one of them.
func (s *Selection) Messages() bool { return s[messagePublished] }

// Select takes the names of events; without any it is all but message.published. node.started is always told: it is
// what seq begins with. The error names each that there isn't, and those that there are.
func Select(names []string) (s Selection, err error) {
	var unknown []string
	for _, name := range names {
		i := slices.Index(kindNames[:], name)
		if i < 0 {
			unknown = append(unknown, strconv.Quote(name))
			continue
		}
		s[i] = true
	}
	if len(unknown) > 0 {
		return s, fmt.Errorf("%s: unknown; there are %s", strings.Join(unknown, ", "), strings.Join(kindNames[:], ", "))
	}
	if len(names) == 0 {
		for k := range s {
			s[k] = kind(k) != messagePublished
		}
	}
	s[nodeStarted] = true
	return s, nil
}

// fresh is an event that is not written yet. What it refers to is never changed.
type fresh struct {
	kind    kind
	stamp   uint64 // its place among all events of the process
	time    int64  // Unix milliseconds
	room    string
	who     hub.Identity
	code    int
	data    []byte // one JSON value
	message *protocol.Message
	epoch   string
}

// cost is what it counts for while it waits.
func (f *fresh) cost() int64 {
	const itself = 192
	n := itself + len(f.room) + len(f.who.User) + len(f.data)
	if f.message != nil {
		n += len(f.message.Content) + len(f.message.Key)
	}
	return int64(n)
}

// tooLarge says of an event that it can't be told, however its JSON reads.
func (f *fresh) tooLarge() bool {
	return len(f.data) > maxEvent || f.message != nil && len(f.message.Content) > maxEvent
}

// append appends the event as JSON, but for its seq.
func (f *fresh) append(b []byte) []byte {
	text := func(name, value string) {
		if value != "" {
			b = append(append(append(b, `,"`...), name...), `":`...)
			b = room.AppendString(b, value)
		}
	}
	raw := func(name string, value []byte) {
		if value != nil {
			b = append(append(append(append(b, `,"`...), name...), `":`...), value...)
		}
	}
	b = append(append(append(b, `{"type":"`...), f.kind.String()...), `","time":`...)
	b = strconv.AppendInt(b, f.time, 10)
	text("room", f.room)
	if f.who.ID != (hub.ID{}) {
		text("client", f.who.ID.String())
	}
	text("user", f.who.User)
	raw("data", f.data)
	if f.kind == clientDisconnected {
		b = strconv.AppendInt(append(b, `,"code":`...), int64(f.code), 10)
	}
	if m := f.message; m != nil {
		text("from", m.From)
		raw("content", m.Content)
		if m.Key != nil {
			b = room.AppendString(append(b, `,"key":`...), string(m.Key))
		}
		if f.epoch != "" {
			text("epoch", f.epoch)
			b = strconv.AppendUint(append(b, `,"offset":`...), m.Offset, 10)
		}
	}
	return append(b, '}')
}
