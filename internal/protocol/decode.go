package protocol

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"strconv"
)

// Kind is what a client message asks for.
type Kind uint8

// Custom is a msg_type that the protocol does not define. Decode accepts it, because a program that
// embeds the server may handle it; where nobody does, the answer is UnknownType.
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
)

// Command is one decoded client message. Its slices alias the input or the Command's own scratch
// and are valid until the next Decode into it.
type Command struct {
	Kind Kind
	Type []byte // msg_type, unescaped

	// ID is the raw JSON of the id exactly as sent, nil when absent. It is set also when Decode
	// returns an error other than BadJSON or TooDeep, so that the error can be paired; an id that is
	// itself at fault (of the wrong form, or given twice) is not.
	ID []byte

	Room []byte // unescaped and checked; of join_room, leave_room and room_message
	To   []byte // unescaped; of direct_message

	// Content is the raw JSON value, without white space around it; of chat (where `""` stands for
	// a missing one), room_message, direct_message and Custom (nil when missing).
	Content []byte

	keys    [][]byte // keys that the protocol doesn't know, to find one given twice
	table   []uint32 // of keys, when they are many
	scratch []byte   // what had to be unescaped
}

// keepKeys and keepScratch bound what a Command holds on to after a message that is larger than
// the default limit; no message within it needs more.
const (
	keepKeys    = 16 << 10
	keepScratch = 64 << 10
)

func (c *Command) reset() {
	keys, table, scratch := c.keys[:0], c.table, c.scratch[:0]
	if cap(keys) > keepKeys {
		keys, table = nil, nil
	}
	if cap(scratch) > keepScratch {
		scratch = nil
	}
	*c = Command{keys: keys, table: table, scratch: scratch}
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
	}
	return fieldUnknown
}

// fields holds the raw JSON of the known fields, nil where a field is absent.
type fields struct {
	raw   [fieldCount][]byte
	twice uint16 // one bit for each field that was given more than once
}

// Decode reads one client message into c, which it resets first; nil means that all is well.
//
// When several things are wrong the answer is the first of: broken JSON or its depth, a key given
// twice, the id, the msg_type, what is reserved, the fields of the kind.
func Decode(b []byte, c *Command) *Error {
	c.reset()
	var f fields
	if at, fault := c.scanMessage(b, &f); fault != faultNone {
		return faultError(fault, at)
	}
	badID := c.takeID(&f)
	if name, twice := c.givenTwice(&f); twice {
		return &Error{BadMessage, "the key " + Quote(name) + " is given twice"}
	}
	if badID != nil {
		return badID
	}
	var err *Error
	if c.Type, err = c.text(&f, fieldType); err != nil {
		return err
	}
	c.Kind = kindOf(c.Type)
	if err = c.checkReserved(&f); err != nil {
		return err
	}
	return c.takeFields(&f)
}

// scanMessage reads the whole text, so that what is broken at its end is known before anything is
// believed, and notes where the fields are.
func (c *Command) scanMessage(b []byte, f *fields) (int, fault) {
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

func (c *Command) note(f *fields, key, value []byte) {
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

// givenTwice finds a key that stands twice. The table keeps it from being quadratic: 64 KiB hold
// 8,000 keys.
func (c *Command) givenTwice(f *fields) ([]byte, bool) {
	for k, name := range fieldNames {
		if f.twice&(1<<k) != 0 {
			return []byte(name), true
		}
	}
	if len(c.keys) <= fewKeys {
		for i, key := range c.keys {
			for _, earlier := range c.keys[:i] {
				if bytes.Equal(key, earlier) {
					return key, true
				}
			}
		}
		return nil, false
	}
	// Open addressing, at most half full; an entry is 1 + the index of a key, or 0.
	size := 1 << bits.Len(uint(2*len(c.keys)-1))
	if cap(c.table) < size {
		c.table = make([]uint32, size)
	}
	table := c.table[:size]
	clear(table)
	for i, key := range c.keys {
		at := int(maphash.Bytes(seed, key)) & (size - 1)
		for ; table[at] != 0; at = (at + 1) & (size - 1) {
			if bytes.Equal(key, c.keys[table[at]-1]) {
				return key, true
			}
		}
		table[at] = uint32(i + 1)
	}
	return nil, false
}

// maxID is the largest integer that JavaScript holds exactly, 2^53-1.
const maxID = 1<<53 - 1

// maxIDString is the longest id of letters, in bytes after unescaping.
const maxIDString = 64

// takeID sets c.ID when the message has a good id.
func (c *Command) takeID(f *fields) *Error {
	raw := f.raw[fieldID]
	if raw == nil || f.twice&(1<<fieldID) != 0 {
		return nil
	}
	if !c.goodID(raw) {
		return &Error{BadMessage, "id must be an integer up to 2^53-1 or a string of 1 to " +
			strconv.Itoa(maxIDString) + " bytes"}
	}
	c.ID = raw
	return nil
}

func (c *Command) goodID(raw []byte) bool {
	if raw[0] == '"' {
		n := len(c.unquote(raw))
		return n >= 1 && n <= maxIDString
	}
	digits := raw
	if raw[0] == '-' {
		digits = raw[1:]
	}
	if len(digits) > len("9007199254740991") {
		return false
	}
	var n uint64
	for _, d := range digits {
		if d < '0' || d > '9' { // a fraction, an exponent, or no number at all
			return false
		}
		n = n*10 + uint64(d-'0')
	}
	return n <= maxID
}

func kindOf(name []byte) Kind {
	switch string(name) {
	case "chat":
		return Chat
	case "join_room":
		return JoinRoom
	case "leave_room":
		return LeaveRoom
	case "room_message":
		return RoomMessage
	case "direct_message":
		return DirectMessage
	case "presence":
		return Presence
	case "history":
		return History
	case "ping":
		return Ping
	case "resume":
		return Resume
	}
	return Custom
}

// checkReserved refuses what the protocol has a name for and the server doesn't do yet. Ignoring it
// would lose what the client relies on, in silence.
func (c *Command) checkReserved(f *fields) *Error {
	switch c.Kind {
	case Presence, History, Resume:
		return &Error{Unavailable, "msg_type " + Quote(c.Type) + " is not available yet"}
	case JoinRoom:
		return firstReserved(f, fieldSince, fieldData)
	case RoomMessage:
		return firstReserved(f, fieldKey, fieldPublishID)
	}
	return nil
}

func firstReserved(f *fields, reserved ...field) *Error {
	for _, k := range reserved {
		if f.raw[k] != nil {
			return &Error{Unavailable, fieldNames[k] + " is not available yet"}
		}
	}
	return nil
}

// takeFields checks and sets the fields that the kind uses; the others are not looked at, because
// the seed's clients send "room":null with a chat.
func (c *Command) takeFields(f *fields) (err *Error) {
	c.Content = f.raw[fieldContent]
	switch c.Kind {
	case Custom:
		return nil
	case Chat:
		if c.Content == nil {
			c.Content = emptyString
		}
		return nil
	case DirectMessage:
		if c.To, err = c.text(f, fieldTo); err != nil {
			return err
		}
		return c.needContent()
	case RoomMessage:
		if err = c.takeRoom(f); err != nil {
			return err
		}
		return c.needContent()
	case JoinRoom, LeaveRoom:
		err = c.takeRoom(f)
	}
	c.Content = nil
	return err
}

var emptyString = []byte(`""`)

func (c *Command) needContent() *Error {
	if c.Content == nil {
		return &Error{BadMessage, "content is missing"}
	}
	return nil
}

func (c *Command) takeRoom(f *fields) *Error {
	room, err := c.text(f, fieldRoom)
	if err != nil {
		return err
	}
	if err = CheckRoom(room); err != nil {
		return err
	}
	c.Room = room
	return nil
}

// text returns the unescaped text of a field that must be there and be a string.
func (c *Command) text(f *fields, k field) ([]byte, *Error) {
	raw := f.raw[k]
	if raw == nil {
		return nil, &Error{BadMessage, fieldNames[k] + " is missing"}
	}
	if raw[0] != '"' {
		return nil, &Error{BadMessage, fieldNames[k] + " must be a string"}
	}
	return c.unquote(raw), nil
}

// unquote returns the text of a raw JSON string, in place where nothing is escaped.
func (c *Command) unquote(raw []byte) []byte {
	raw = raw[1 : len(raw)-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	return c.unescape(raw)
}

// unescape appends to the scratch; what it returned before stays valid when the scratch moves.
func (c *Command) unescape(raw []byte) []byte {
	from := len(c.scratch)
	c.scratch = appendUnescaped(c.scratch, raw)
	return c.scratch[from:len(c.scratch):len(c.scratch)]
}

// Defined says whether name is a msg_type of the protocol: no application may give it another meaning.
func Defined(name string) bool { return kindOf([]byte(name)) != Custom }
