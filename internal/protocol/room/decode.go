package room

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"strconv"

	"example.com/hubbub/internal/protocol"
)

// Version is the protocol's number, which `welcome` carries.
const Version = 1

// Dialect is the room protocol as a protocol.Dialect. The zero value is ready.
type Dialect struct{ decoder }

// Next reads one client message, a text. When several things are wrong the error is the first of: broken JSON or its
// depth, a key given twice, the id, the msg_type, the fields of the kind in the order of the document's table. c.ID is
// set also beside an error other than BadJSON or TooDeep; an id that is itself at fault (of the wrong form, or given
// twice) is not.
func (d *Dialect) Next(frame []byte, binary bool, c *protocol.Command) (rest []byte, err *protocol.Error) {
	d.Command = c
	d.reset()
	if binary {
		return nil, &protocol.Error{Code: protocol.BinaryFrame, Message: "this protocol has text frames only"}
	}
	return nil, d.decode(frame)
}

// Binary is false: messages are texts.
func (*Dialect) Binary() bool { return false }

// Close is as it is: docs/protocol.md has the table of the codes.
func (*Dialect) Close(code int, reason string) (int, string) { return code, reason }

// decoder is what Next needs to make a Command.
type decoder struct {
	*protocol.Command

	keys    [][]byte // keys that must differ, to find one given twice
	table   []uint32 // of keys, when they are many
	rooms   []protocol.RoomPosition
	scratch []byte // what had to be unescaped
}

// keepKeys and keepScratch bound what a decoder holds on to after a message that is larger than the default limit; no
// message within it needs more.
const (
	keepKeys    = 16 << 10
	keepScratch = 64 << 10
)

func (c *decoder) reset() {
	*c.Command = protocol.Command{}
	c.keys, c.rooms, c.scratch = c.keys[:0], c.rooms[:0], c.scratch[:0]
	if cap(c.keys) > keepKeys {
		c.keys, c.table = nil, nil
	}
	if cap(c.scratch) > keepScratch {
		c.scratch = nil
	}
}

// field is a top-level key that some kind uses.
type field uint8

const (
	fieldType field = iota
	fieldID
	fieldRoom
	fieldTo
	fieldContent
	fieldSince
	fieldData
	fieldKey
	fieldPublishID
	fieldBefore
	fieldLimit
	fieldRooms
	fieldLast
	fieldToken
	fieldMethod
	fieldCount
	fieldUnknown = fieldCount
)

var fieldNames = [fieldCount]string{
	fieldType:      "msg_type",
	fieldID:        "id",
	fieldRoom:      "room",
	fieldTo:        "to",
	fieldContent:   "content",
	fieldSince:     "since",
	fieldData:      "data",
	fieldKey:       "key",
	fieldPublishID: "publish_id",
	fieldBefore:    "before",
	fieldLimit:     "limit",
	fieldRooms:     "rooms",
	fieldLast:      "last",
	fieldToken:     "token",
	fieldMethod:    "method",
}

// fieldOf is fieldNames the other way round; a switch costs a third of a map's look-up.
func fieldOf(key []byte) field {
	switch string(key) {
	case "msg_type":
		return fieldType
	case "id":
		return fieldID
	case "room":
		return fieldRoom
	case "to":
		return fieldTo
	case "content":
		return fieldContent
	case "since":
		return fieldSince
	case "data":
		return fieldData
	case "key":
		return fieldKey
	case "publish_id":
		return fieldPublishID
	case "before":
		return fieldBefore
	case "limit":
		return fieldLimit
	case "rooms":
		return fieldRooms
	case "last":
		return fieldLast
	case "token":
		return fieldToken
	case "method":
		return fieldMethod
	}
	return fieldUnknown
}

// fields holds the raw JSON of the known fields, nil where a field is absent.
type fields struct {
	raw   [fieldCount][]byte
	twice uint16 // one bit for each field that was given more than once
}

func (c *decoder) decode(b []byte) *protocol.Error {
	var f fields
	if at, fault := c.scanMessage(b, &f); fault != faultNone {
		return faultError(fault, at)
	}
	badID := c.takeID(&f)
	if name := c.givenTwice(&f); name != nil {
		return &protocol.Error{Code: protocol.BadMessage, Message: "the key " + protocol.Quote(name) + " is given twice"}
	}
	if badID != nil {
		return badID
	}
	var err *protocol.Error
	if c.Type, err = c.text(&f, fieldType); err != nil {
		return err
	}
	c.Kind = kindOf(c.Type)
	return c.takeFields(&f)
}

// scanMessage reads the whole text, so that what is broken at its end is known before anything is believed, and notes
// where the fields are.
func (c *decoder) scanMessage(b []byte, f *fields) (int, fault) {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return i, faultNotObject
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return scanEnd(b, i+1)
	}
	for {
		end, value, escaped, bad := scanKey(b, i)
		if bad != faultNone {
			return value, bad
		}
		key := b[i+1 : end-1]
		if escaped {
			key = c.unescape(key)
		}
		if i, bad = scanValue(b, value); bad != faultNone {
			return i, bad
		}
		c.note(f, key, b[value:i])
		i = skipSpace(b, i)
		if i >= len(b) {
			return i, faultEnd
		}
		if b[i] == '}' {
			return scanEnd(b, i+1)
		}
		if b[i] != ',' {
			return i, faultComma
		}
		i = skipSpace(b, i+1)
	}
}

func scanEnd(b []byte, i int) (int, fault) {
	if i = skipSpace(b, i); i < len(b) {
		return i, faultTrailing
	}
	return i, faultNone
}

func (c *decoder) note(f *fields, key, value []byte) {
	k := fieldOf(key)
	switch {
	case k == fieldUnknown:
		c.keys = append(c.keys, key)
	case f.raw[k] != nil:
		f.twice |= 1 << k
	default:
		f.raw[k] = value
	}
}

// fewKeys is up to where comparing each key with each is cheaper than a table.
const fewKeys = 16

// seed keeps a client from choosing keys that fall on one place of the table.
var seed = maphash.MakeSeed()

// givenTwice finds a key of the message that stands twice; nil when there is none.
func (c *decoder) givenTwice(f *fields) []byte {
	for k, name := range fieldNames {
		if f.twice&(1<<k) != 0 {
			return []byte(name)
		}
	}
	return c.keyTwice(0)
}

// keyTwice finds one that stands twice among c.keys from that index on; nil when there is none. The table keeps it from
// being quadratic: 64 KiB hold 8,000 keys.
func (c *decoder) keyTwice(from int) []byte {
	keys := c.keys[from:]
	if len(keys) <= fewKeys {
		for i, key := range keys {
			for _, earlier := range keys[:i] {
				if bytes.Equal(key, earlier) {
					return key
				}
			}
		}
		return nil
	}
	// Open addressing, at most half full; an entry is 1 + the index of a key, or 0.
	size := 1 << bits.Len(uint(2*len(keys)-1))
	if cap(c.table) < size {
		c.table = make([]uint32, size)
	}
	table := c.table[:size]
	clear(table)
	for i, key := range keys {
		at := int(maphash.Bytes(seed, key)) & (size - 1)
		for ; table[at] != 0; at = (at + 1) & (size - 1) {
			if bytes.Equal(key, keys[table[at]-1]) {
				return key
			}
		}
		table[at] = uint32(i + 1)
	}
	return nil
}

// maxInteger is the largest integer that JavaScript holds exactly, 2^53-1.
const maxInteger = 1<<53 - 1

// maxIDString is the longest id of letters, in bytes after unescaping.
const maxIDString = 64

// takeID sets c.ID when the message has a good id.
func (c *decoder) takeID(f *fields) *protocol.Error {
	raw := f.raw[fieldID]
	if raw == nil || f.twice&(1<<fieldID) != 0 {
		return nil
	}
	if !c.goodID(raw) {
		return &protocol.Error{Code: protocol.BadMessage, Message: "id must be an integer up to 2^53-1 or a string of 1 to " +
			strconv.Itoa(maxIDString) + " bytes"}
	}
	c.ID = raw
	return nil
}

func (c *decoder) goodID(raw []byte) bool {
	if raw[0] == '"' {
		n := len(c.unquote(raw))
		return n >= 1 && n <= maxIDString
	}
	if raw[0] == '-' {
		raw = raw[1:]
	}
	_, ok := integer(raw)
	return ok
}

// integer reads a number of digits alone, up to 2^53-1.
func integer(raw []byte) (n uint64, ok bool) {
	if len(raw) > len("9007199254740991") {
		return 0, false
	}
	for _, d := range raw {
		if d < '0' || d > '9' { // a fraction, an exponent, or no number at all
			return 0, false
		}
		n = n*10 + uint64(d-'0')
	}
	return n, n <= maxInteger
}

func kindOf(name []byte) protocol.Kind {
	switch string(name) {
	case "chat":
		return protocol.Chat
	case "join_room":
		return protocol.JoinRoom
	case "leave_room":
		return protocol.LeaveRoom
	case "room_message":
		return protocol.RoomMessage
	case "direct_message":
		return protocol.DirectMessage
	case "presence":
		return protocol.Presence
	case "history":
		return protocol.History
	case "ping":
		return protocol.Ping
	case "resume":
		return protocol.Resume
	case "refresh":
		return protocol.Refresh
	case "request":
		return protocol.Request
	}
	return protocol.Custom
}

// Defined says whether name is a msg_type of the protocol, of a client's messages, the server's, or those to come: no
// application may give it another meaning.
func Defined(name string) bool {
	switch name {
	case "welcome", "joined", "left", "ack", "gap", "deleted", "member_joined", "member_left", "resumed", "pong", "error", "reconnect":
		return true
	case "refreshed", "response":
		return true
	}
	return kindOf([]byte(name)) != protocol.Custom
}

// text returns the unescaped text of a field that must be there and be a string.
func (c *decoder) text(f *fields, k field) ([]byte, *protocol.Error) {
	raw := f.raw[k]
	if raw == nil {
		return nil, &protocol.Error{Code: protocol.BadMessage, Message: fieldNames[k] + " is missing"}
	}
	if raw[0] != '"' {
		return nil, &protocol.Error{Code: protocol.BadMessage, Message: fieldNames[k] + " must be a string"}
	}
	return c.unquote(raw), nil
}

// unquote returns the text of a raw JSON string, in place where nothing is escaped.
func (c *decoder) unquote(raw []byte) []byte {
	raw = raw[1 : len(raw)-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	return c.unescape(raw)
}

// unescape appends to the scratch; what it returned before stays valid when the scratch moves.
func (c *decoder) unescape(raw []byte) []byte {
	from := len(c.scratch)
	c.scratch = appendUnescaped(c.scratch, raw)
	return c.scratch[from:len(c.scratch):len(c.scratch)]
}
