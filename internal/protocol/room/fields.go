package room

import (
	"strconv"

	"example.com/hubbub/internal/protocol"
)

// takeFields checks and sets the fields that the kind uses; the others are not looked at, because some clients send
// "room":null with a chat.
func (c *decoder) takeFields(f *fields) (err *protocol.Error) {
	switch c.Kind {
	case protocol.Custom:
		c.Content = f.raw[fieldContent]
	case protocol.Chat:
		if c.Content = f.raw[fieldContent]; c.Content == nil {
			c.Content = emptyString
		}
	case protocol.DirectMessage:
		if c.To, err = c.text(f, fieldTo); err != nil {
			return err
		}
		return c.takeContent(f)
	case protocol.RoomMessage:
		return c.takeRoomMessage(f)
	case protocol.JoinRoom:
		return c.takeJoin(f)
	case protocol.LeaveRoom, protocol.Presence:
		return c.takeRoom(f)
	case protocol.History:
		return c.takeHistory(f)
	case protocol.Resume:
		return c.takeResume(f)
	case protocol.Refresh:
		return c.takeRefresh(f)
	case protocol.Request:
		return c.takeRequest(f)
	}
	return nil
}

var emptyString = []byte(`""`)

func (c *decoder) takeContent(f *fields) *protocol.Error {
	if c.Content = f.raw[fieldContent]; c.Content == nil {
		return &protocol.Error{Code: protocol.BadMessage, Message: "content is missing"}
	}
	return nil
}

func (c *decoder) takeRoom(f *fields) *protocol.Error {
	room, err := c.text(f, fieldRoom)
	if err != nil {
		return err
	}
	if err = protocol.CheckRoom(room); err != nil {
		return err
	}
	c.Room = room
	return nil
}

func (c *decoder) takeRoomMessage(f *fields) (err *protocol.Error) {
	if err = c.takeRoom(f); err != nil {
		return err
	}
	if err = c.takeContent(f); err != nil {
		return err
	}
	if c.Key, err = c.shortText(f, fieldKey, protocol.MaxKey); err != nil {
		return err
	}
	c.PublishID, err = c.shortText(f, fieldPublishID, protocol.MaxPublishID)
	return err
}

func (c *decoder) takeJoin(f *fields) (err *protocol.Error) {
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
	if len(data) > protocol.MaxData {
		return &protocol.Error{Code: protocol.BadMessage, Message: "data has " + strconv.Itoa(len(data)) + " bytes, at most " + strconv.Itoa(protocol.MaxData) + " are allowed"}
	}
	c.Data = data
	return nil
}

func (c *decoder) takeHistory(f *fields) (err *protocol.Error) {
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
		return &protocol.Error{Code: protocol.BadMessage, Message: "since and before exclude each other"}
	}
	if raw := f.raw[fieldLimit]; raw != nil {
		n, ok := integer(raw)
		if !ok || n < 1 || n > protocol.MaxPage {
			return &protocol.Error{Code: protocol.BadMessage, Message: "limit must be an integer from 1 to " + strconv.Itoa(protocol.MaxPage)}
		}
		c.Limit = int(n)
	}
	return nil
}

func (c *decoder) takeRefresh(f *fields) (err *protocol.Error) {
	if c.Token, err = c.text(f, fieldToken); err == nil && len(c.Token) == 0 {
		err = &protocol.Error{Code: protocol.BadMessage, Message: "token is empty"}
	}
	return err
}

func (c *decoder) takeRequest(f *fields) (err *protocol.Error) {
	if err = c.needID("request"); err != nil {
		return err
	}
	if c.Method, err = c.shortText(f, fieldMethod, protocol.MaxMethod); err != nil {
		return err
	}
	if c.Method == nil {
		return &protocol.Error{Code: protocol.BadMessage, Message: "method is missing"}
	}
	c.Content = f.raw[fieldContent]
	return nil
}

// needID refuses what has nowhere to be answered to.
func (c *decoder) needID(what string) *protocol.Error {
	if c.ID == nil {
		return &protocol.Error{Code: protocol.BadMessage, Message: what + " needs an id"}
	}
	return nil
}

// takeResume reads {"name": position or null, ...}. The first fault in the text is answered, and a room named twice
// after all else.
func (c *decoder) takeResume(f *fields) *protocol.Error {
	if err := c.needID("resume"); err != nil {
		return err
	}
	raw := f.raw[fieldRooms]
	if raw == nil {
		return &protocol.Error{Code: protocol.BadMessage, Message: "rooms is missing"}
	}
	if raw[0] != '{' {
		return &protocol.Error{Code: protocol.BadMessage, Message: "rooms must be an object"}
	}
	names := len(c.keys) // from here on; the keys before were found to differ
	for o := openObject(raw); o.next(); {
		if len(c.rooms) == protocol.MaxResumeRooms {
			return &protocol.Error{Code: protocol.LimitReached, Message: "rooms has more than " + strconv.Itoa(protocol.MaxResumeRooms) + " rooms"}
		}
		room := protocol.RoomPosition{Room: c.unquote(o.key)}
		if err := protocol.CheckRoom(room.Room); err != nil {
			return err
		}
		c.keys = append(c.keys, room.Room)
		if room.HasAt = o.value[0] != 'n'; room.HasAt {
			var fault string
			if room.At, fault = c.position(o.value); fault != "" {
				return &protocol.Error{Code: protocol.BadMessage, Message: "rooms: the position in " + protocol.Quote(room.Room) + fault}
			}
		}
		c.rooms = append(c.rooms, room)
	}
	if name := c.keyTwice(names); name != nil {
		return &protocol.Error{Code: protocol.BadMessage, Message: "rooms has " + protocol.Quote(name) + " twice"}
	}
	switch last := string(f.raw[fieldLast]); last {
	case "", "true":
	case "false":
		c.More = true
	default:
		return &protocol.Error{Code: protocol.BadMessage, Message: "last must be true or false"}
	}
	c.Rooms = c.rooms
	return nil
}

// takePosition reads the position of a field that may be absent.
func (c *decoder) takePosition(f *fields, k field) (p protocol.Position, given bool, err *protocol.Error) {
	raw := f.raw[k]
	if raw == nil {
		return p, false, nil
	}
	p, fault := c.position(raw)
	if fault != "" {
		return protocol.Position{}, false, &protocol.Error{Code: protocol.BadMessage, Message: fieldNames[k] + fault}
	}
	return p, true, nil
}

// position reads {"epoch": string, "offset": integer}; other keys are ignored. A fault is what follows the name of that
// which should be a position.
func (c *decoder) position(raw []byte) (p protocol.Position, fault string) {
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
		return p, " has the key " + protocol.Quote(key) + " twice"
	}
	c.keys = c.keys[:from]
	if epoch == nil || epoch[0] != '"' {
		return p, " must have an epoch that is a string"
	}
	if p.Epoch = c.unquote(epoch); len(p.Epoch) < 1 || len(p.Epoch) > protocol.MaxEpoch {
		return p, " must have an epoch of 1 to " + strconv.Itoa(protocol.MaxEpoch) + " bytes"
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
func (c *decoder) shortText(f *fields, k field, most int) ([]byte, *protocol.Error) {
	raw := f.raw[k]
	if raw == nil {
		return nil, nil
	}
	if raw[0] == '"' {
		if text := c.unquote(raw); len(text) >= 1 && len(text) <= most {
			return text, nil
		}
	}
	return nil, &protocol.Error{Code: protocol.BadMessage, Message: fieldNames[k] + " must be a string of 1 to " + strconv.Itoa(most) + " bytes"}
}
