package protocol

import "strconv"

// What a client may ask for at once.
const (
	MaxPage        = 1000 // messages of a history
	MaxResumeRooms = 1000
	MaxData        = 4096 // bytes of join_room's data, as JSON
)

// The longest of the short texts, in bytes after unescaping.
const (
	maxEpoch     = 64
	maxKey       = 255
	maxPublishID = 64
)

// takeFields checks and sets the fields that the kind uses; the others are not looked at, because
// some clients send "room":null with a chat.
func (c *Command) takeFields(f *fields) (err *Error) {
	switch c.Kind {
	case Custom:
		c.Content = f.raw[fieldContent]
	case Chat:
		if c.Content = f.raw[fieldContent]; c.Content == nil {
			c.Content = emptyString
		}
	case DirectMessage:
		if c.To, err = c.text(f, fieldTo); err != nil {
			return err
		}
		return c.takeContent(f)
	case RoomMessage:
		return c.takeRoomMessage(f)
	case JoinRoom:
		return c.takeJoin(f)
	case LeaveRoom, Presence:
		return c.takeRoom(f)
	case History:
		return c.takeHistory(f)
	case Resume:
		return c.takeResume(f)
	}
	return nil
}

var emptyString = []byte(`""`)

func (c *Command) takeContent(f *fields) *Error {
	if c.Content = f.raw[fieldContent]; c.Content == nil {
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

func (c *Command) takeRoomMessage(f *fields) (err *Error) {
	if err = c.takeRoom(f); err != nil {
		return err
	}
	if err = c.takeContent(f); err != nil {
		return err
	}
	if c.Key, err = c.shortText(f, fieldKey, maxKey); err != nil {
		return err
	}
	c.PublishID, err = c.shortText(f, fieldPublishID, maxPublishID)
	return err
}

func (c *Command) takeJoin(f *fields) (err *Error) {
	if err = c.takeRoom(f); err != nil {
		return err
	}
	if c.Since, c.HasSince, err = c.takePosition(f, fieldSince); err != nil {
		return err
	}
	if c.HasSince {
		if err = c.needID("since"); err != nil {
			return err
		}
	}
	data := f.raw[fieldData]
	if len(data) > MaxData {
		return &Error{BadMessage, "data has " + strconv.Itoa(len(data)) + " bytes, at most " + strconv.Itoa(MaxData) + " are allowed"}
	}
	c.Data = data
	return nil
}

func (c *Command) takeHistory(f *fields) (err *Error) {
	if err = c.takeRoom(f); err != nil {
		return err
	}
	if c.Since, c.HasSince, err = c.takePosition(f, fieldSince); err != nil {
		return err
	}
	if c.Before, c.HasBefore, err = c.takePosition(f, fieldBefore); err != nil {
		return err
	}
	if c.HasSince && c.HasBefore {
		return &Error{BadMessage, "since and before exclude each other"}
	}
	if raw := f.raw[fieldLimit]; raw != nil {
		n, ok := integer(raw)
		if !ok || n < 1 || n > MaxPage {
			return &Error{BadMessage, "limit must be an integer from 1 to " + strconv.Itoa(MaxPage)}
		}
		c.Limit = int(n)
	}
	return nil
}

// needID refuses what has nowhere to be answered to.
func (c *Command) needID(what string) *Error {
	if c.ID == nil {
		return &Error{BadMessage, what + " needs an id"}
	}
	return nil
}

// takeResume reads {"name": position or null, ...}. The first fault in the text is answered, and a
// room named twice after all else.
func (c *Command) takeResume(f *fields) *Error {
	if err := c.needID("resume"); err != nil {
		return err
	}
	raw := f.raw[fieldRooms]
	if raw == nil {
		return &Error{BadMessage, "rooms is missing"}
	}
	if raw[0] != '{' {
		return &Error{BadMessage, "rooms must be an object"}
	}
	names := len(c.keys) // from here on; the keys before were found to differ
	for o := openObject(raw); o.next(); {
		if len(c.rooms) == MaxResumeRooms {
			return &Error{LimitReached, "rooms has more than " + strconv.Itoa(MaxResumeRooms) + " rooms"}
		}
		room := RoomPosition{Room: c.unquote(o.key)}
		if err := CheckRoom(room.Room); err != nil {
			return err
		}
		c.keys = append(c.keys, room.Room)
		if room.HasAt = o.value[0] != 'n'; room.HasAt {
			var fault string
			if room.At, fault = c.position(o.value); fault != "" {
				return &Error{BadMessage, "rooms: the position in " + Quote(room.Room) + fault}
			}
		}
		c.rooms = append(c.rooms, room)
	}
	if name := c.keyTwice(names); name != nil {
		return &Error{BadMessage, "rooms has " + Quote(name) + " twice"}
	}
	switch last := string(f.raw[fieldLast]); last {
	case "", "true":
	case "false":
		c.More = true
	default:
		return &Error{BadMessage, "last must be true or false"}
	}
	c.Rooms = c.rooms
	return nil
}

// takePosition reads the position of a field that may be absent.
func (c *Command) takePosition(f *fields, k field) (p Position, given bool, err *Error) {
	raw := f.raw[k]
	if raw == nil {
		return p, false, nil
	}
	p, fault := c.position(raw)
	if fault != "" {
		return Position{}, false, &Error{BadMessage, fieldNames[k] + fault}
	}
	return p, true, nil
}

// position reads {"epoch": string, "offset": integer}; other keys are ignored. A fault is what
// follows the name of that which should be a position.
func (c *Command) position(raw []byte) (p Position, fault string) {
	if raw[0] != '{' {
		return p, " must be an object with epoch and offset"
	}
	from := len(c.keys)
	var epoch, offset []byte
	for o := openObject(raw); o.next(); {
		key := c.unquote(o.key)
		c.keys = append(c.keys, key)
		switch string(key) {
		case "epoch":
			epoch = o.value
		case "offset":
			offset = o.value
		}
	}
	if key := c.keyTwice(from); key != nil {
		return p, " has the key " + Quote(key) + " twice"
	}
	c.keys = c.keys[:from]
	if epoch == nil || epoch[0] != '"' {
		return p, " must have an epoch that is a string"
	}
	if p.Epoch = c.unquote(epoch); len(p.Epoch) < 1 || len(p.Epoch) > maxEpoch {
		return p, " must have an epoch of 1 to " + strconv.Itoa(maxEpoch) + " bytes"
	}
	ok := false
	if offset != nil {
		p.Offset, ok = integer(offset)
	}
	if !ok {
		return p, " must have an offset that is an integer from 0 to 2^53-1"
	}
	return p, ""
}

// object walks over an object that the scanner has accepted.
type object struct {
	raw   []byte
	at    int
	key   []byte // raw, with its quotes
	value []byte
}

func openObject(raw []byte) object { return object{raw: raw, at: 1} }

// next sets key and value; false at the object's end.
func (o *object) next() bool {
	i := skipSpace(o.raw, o.at)
	if o.raw[i] == ',' {
		i = skipSpace(o.raw, i+1)
	}
	if o.raw[i] == '}' {
		return false
	}
	end, value, _, _ := scanKey(o.raw, i)
	o.at, _ = scanValue(o.raw, value)
	o.key, o.value = o.raw[i:end], o.raw[value:o.at]
	return true
}

// shortText returns the unescaped text of a field that may be absent, of 1 to most bytes.
func (c *Command) shortText(f *fields, k field, most int) ([]byte, *Error) {
	raw := f.raw[k]
	if raw == nil {
		return nil, nil
	}
	if raw[0] == '"' {
		if text := c.unquote(raw); len(text) >= 1 && len(text) <= most {
			return text, nil
		}
	}
	return nil, &Error{BadMessage, fieldNames[k] + " must be a string of 1 to " + strconv.Itoa(most) + " bytes"}
}
