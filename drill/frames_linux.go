package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
)

// The client's side of RFC 6455 and of the room protocol, as much as a drill needs.

const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

const (
	wsKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	wsAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// appendUpgrade appends the handshake of a client that has this token, or "".
func appendUpgrade(b []byte, token string) []byte {
	path := "/ws"
	if token != "" {
		path += "?resume=" + token
	}
	return fmt.Appendf(b, "GET %s HTTP/1.1\r\nHost: drill\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", path, wsKey)
}

// appendFrame appends a masked frame.
func appendFrame(b []byte, op byte, payload []byte, mask uint32) []byte {
	b = append(b, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = binary.BigEndian.AppendUint32(b, mask)
	start := len(b)
	b = append(b, payload...)
	for i := range b[start:] {
		b[start+i] ^= byte(mask >> (24 - 8*(i&3)))
	}
	return b
}

// splitFrame takes one whole frame of a server off b; size is 0 while it isn't all there.
func splitFrame(b []byte) (op byte, payload []byte, size int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	if b[0]&0xf0 != 0x80 || b[1]&0x80 != 0 {
		return 0, nil, 0, fmt.Errorf("not a whole unmasked frame: %x", b[:2])
	}
	head, n := 2, uint64(b[1])
	switch {
	case n == 126 && len(b) >= 4:
		head, n = 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case n == 127 && len(b) >= 10:
		head, n = 10, binary.BigEndian.Uint64(b[2:])
	case n >= 126:
		return 0, nil, 0, nil
	}
	if uint64(len(b)-head) < n {
		return 0, nil, 0, nil
	}
	return b[0] & 15, b[head : head+int(n)], head + int(n), nil
}

// appendPublish appends a room message whose content tells its publisher and its
// counter. One that is made to be sent again has a publish_id.
func appendPublish(b []byte, room, from, seq uint32, size int, again bool) []byte {
	b = fmt.Appendf(b, `{"msg_type":"room_message","room":"r%d","content":"%08x:%08x:`, room, from, seq)
	for range size - 18 {
		b = append(b, 'x')
	}
	if again {
		b = fmt.Appendf(b, `","publish_id":"%d`, seq)
	}
	return fmt.Appendf(b, `","id":%d}`, seq)
}

// A serverMessage is what a server's message holds that matters here.
type serverMessage struct {
	Kind     string          `json:"msg_type"`
	From     string          `json:"from"`
	Content  string          `json:"content"`
	Room     string          `json:"room"`
	ClientID string          `json:"client_id"`
	Code     string          `json:"code"`
	ID       json.RawMessage `json:"id"`
	place

	Token     string                  `json:"resume_token"`
	Resumed   bool                    `json:"resumed"`
	Rooms     map[string]resumedPlace `json:"rooms"`
	Duplicate bool                    `json:"duplicate"`
}

// A place is how far a client has got in a room.
type place struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

type resumedPlace struct {
	place
	Recovered bool   `json:"recovered"`
	Reason    string `json:"reason"`
}

const deliveryHead = `{"msg_type":"room_message","from":"`

// A delivery is a room message as it arrives.
type delivery struct {
	from        []byte
	sender, seq uint32 // by the content
	room        uint32
	offset      uint64
}

// parseDelivery is the short cut for nearly all that comes. What isn't written
// as the server does write today goes the long way.
func parseDelivery(p []byte) (d delivery, ok bool) {
	rest, ok := bytes.CutPrefix(p, []byte(deliveryHead))
	if !ok {
		return d, false
	}
	from, rest, ok1 := bytes.Cut(rest, []byte(`","content":"`))
	at := bytes.LastIndex(rest, []byte(`","room":"r`))
	if !ok1 || at < 18 {
		return d, false
	}
	room, tail, ok2 := bytes.Cut(rest[at+len(`","room":"r`):], []byte(`"`))
	_, offset, ok3 := bytes.Cut(tail, []byte(`,"offset":`))
	n, err := strconv.ParseUint(string(bytes.TrimSuffix(offset, []byte("}"))), 10, 53)
	if d, ok = newDelivery(from, rest[:at], room, n); !ok2 || !ok3 || err != nil {
		return d, false
	}
	return d, ok
}

func newDelivery(from, content, room []byte, offset uint64) (delivery, bool) {
	if len(content) < 18 || content[8] != ':' || content[17] != ':' {
		return delivery{}, false
	}
	sender, err1 := strconv.ParseUint(string(content[:8]), 16, 32)
	seq, err2 := strconv.ParseUint(string(content[9:17]), 16, 32)
	number, err3 := strconv.ParseUint(string(room), 10, 32)
	return delivery{from, uint32(sender), uint32(seq), uint32(number), offset}, err1 == nil && err2 == nil && err3 == nil
}
