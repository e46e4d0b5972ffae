package nats

import (
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	client "github.com/nats-io/nats.go"

	"example.com/hubbub/broker"
)

// A message of a stream is a group: 1 to 64 of a room's messages that were published together. The offset of one is the
// group's sequence * 64 and its place in it.
const (
	groupBits  = 6
	maxGroup   = 1 << groupBits
	groupBytes = 64 << 10 // what is joined, unless one alone is larger
)

const groupVersion = 1

// appendGroup encodes a group: the version, the room's name, and each body behind its length.
func appendGroup(b []byte, room string, messages []pending) []byte {
	b = append(b, groupVersion)
	b = binary.AppendUvarint(b, uint64(len(room)))
	b = append(b, room...)
	for _, m := range messages {
		b = binary.AppendUvarint(b, uint64(len(m.Body)))
		b = append(b, m.Body...)
	}
	return b
}

// group is one that was stored. Its bodies lie in the memory that was received.
type group struct {
	seq    uint64
	before uint64 // the room's sequence before it, as far as the server knows: 0 where that one has expired
	time   int64  // Unix milliseconds
	bodies [][]byte
}

func (g *group) last() uint64 { return g.seq<<groupBits | uint64(max(1, len(g.bodies))-1) }

// size is about what it takes in memory.
func (g *group) size() (n int) {
	for _, body := range g.bodies {
		n += len(body)
	}
	return n
}

func (g *group) entries(to []broker.Entry) []broker.Entry {
	for i, body := range g.bodies {
		to = append(to, broker.Entry{Offset: g.seq<<groupBits | uint64(i), Time: g.time, Body: body})
	}
	return to
}

var errForeign = errors.New("the message isn't one of this room's groups")

// readGroup reads what a stream republished or gave back for a room. Where only the body can't be read the sequences are
// there: the log goes on behind it.
func readGroup(room string, m *client.Msg) (g group, err error) {
	seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil || seq == 0 || seq >= 1<<(53-groupBits) {
		return g, errForeign
	}
	at, err := time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp"))
	if err != nil {
		return g, errForeign
	}
	g.seq, g.time = seq, at.UnixMilli()
	g.before, _ = strconv.ParseUint(m.Header.Get("Nats-Last-Sequence"), 10, 64)
	g.bodies, err = parseGroup(room, m.Data)
	return g, err
}

func parseGroup(room string, b []byte) (bodies [][]byte, err error) {
	if len(b) == 0 || b[0] != groupVersion {
		return nil, errForeign
	}
	name, b, ok := cutField(b[1:])
	if !ok || string(name) != room {
		return nil, errForeign
	}
	for len(b) > 0 {
		var body []byte
		if body, b, ok = cutField(b); !ok || len(bodies) == maxGroup {
			return nil, errForeign
		}
		bodies = append(bodies, body)
	}
	if len(bodies) == 0 {
		return nil, errForeign
	}
	return bodies, nil
}

func cutField(b []byte) (field, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return nil, nil, false
	}
	b = b[used:]
	return b[:n:n], b[n:], true
}
