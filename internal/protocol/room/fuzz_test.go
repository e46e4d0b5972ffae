package room

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// reference decodes as the contract says, slowly, on encoding/json. It shares no code with Decode but CheckRoom, which
// room_test.go holds against Unicode's tables.
func reference(in []byte) (want decodeVector) {
	trimmed := bytes.Trim(in, " \t\r\n")
	broken := !json.Valid(in) || !utf8.Valid(in) || trimmed[0] != '{' || refLoneSurrogate(in)
	deep := refDepth(in) > maxDepth
	switch {
	case broken && deep:
		want.Error = "bad_json or too_deep" // whichever the reader meets first
		return
	case broken:
		want.Error = "bad_json"
		return
	case deep:
		want.Error = "too_deep"
		return
	}
	fields, twice := refFields(in)
	id, given := fields["id"]
	goodID := given && refGoodID(id)
	if goodID && !twice["id"] {
		want.ID = string(id)
	}
	kind, isString := refString(fields["msg_type"])
	if len(twice) > 0 || given && !goodID || !isString {
		want.Error = "bad_message"
		return
	}
	want.Kind = "custom"
	for _, name := range kindNames {
		if name == kind && kind != "custom" {
			want.Kind = kind
		}
	}
	want.Type = &kind
	want.refTake(fields)
	return
}

// refTake is what the kinds demand of their fields.
func (v *decodeVector) refTake(fields map[string]json.RawMessage) {
	switch v.Kind {
	case "custom":
		v.Content = string(fields["content"])
	case "chat":
		if v.Content = `""`; fields["content"] != nil {
			v.Content = string(fields["content"])
		}
	case "direct_message":
		to, isString := refString(fields["to"])
		v.To, v.Content = to, string(fields["content"])
		if !isString || v.Content == "" {
			v.Error = "bad_message"
		}
	case "refresh":
		if v.Token, _ = refString(fields["token"]); v.Token == "" {
			v.Error = "bad_message"
		}
	case "request":
		v.Method, _ = refString(fields["method"])
		v.Content = string(fields["content"])
		if v.ID == "" || len(v.Method) < 1 || len(v.Method) > 64 {
			v.Error = "bad_message"
		}
	case "resume":
		v.refRooms(fields["rooms"], fields["last"])
	case "join_room", "leave_room", "room_message", "presence", "history":
		if room, isString := refString(fields["room"]); !isString {
			v.Error = "bad_message"
		} else if protocol.CheckRoom([]byte(room)) != nil {
			v.Error = "bad_room"
		} else {
			v.Room = room
			v.refInRoom(fields)
		}
	}
}

// refInRoom takes what the kinds that name a room have beside it.
func (v *decodeVector) refInRoom(fields map[string]json.RawMessage) {
	bad := false
	short := func(name string, most int) string {
		text, isString := refString(fields[name])
		bad = bad || fields[name] != nil && (!isString || len(text) < 1 || len(text) > most)
		return text
	}
	position := func(name string) (p *vectorPosition) {
		if fields[name] != nil {
			p = refPosition(fields[name])
			bad = bad || p == nil
		}
		return p
	}
	switch v.Kind {
	case "join_room":
		v.Since, v.Data = position("since"), string(fields["data"])
		bad = bad || v.Since != nil && v.ID == "" || len(v.Data) > 4096
	case "room_message":
		v.Content = string(fields["content"])
		v.Key, v.PublishID = short("key", 255), short("publish_id", 64)
		bad = bad || v.Content == ""
	case "history":
		v.Since, v.Before = position("since"), position("before")
		bad = bad || v.Since != nil && v.Before != nil
		if fields["limit"] != nil {
			n, isInteger := refInteger(fields["limit"])
			bad = bad || !isInteger || n < 1 || n > 1000
			v.Limit = int(n)
		}
	}
	if bad {
		v.Error = "bad_message"
	}
}

func (v *decodeVector) refRooms(raw, last json.RawMessage) {
	if v.ID == "" || len(raw) == 0 || raw[0] != '{' {
		v.Error = "bad_message"
		return
	}
	names, values := refMembers(raw)
	for i, name := range names {
		r := vectorRoom{Room: name, At: refPosition(values[i])}
		switch {
		case i >= 1000:
			v.Error = "limit_reached"
		case protocol.CheckRoom([]byte(name)) != nil:
			v.Error = "bad_room"
		case string(values[i]) != "null" && r.At == nil:
			v.Error = "bad_message"
		}
		if v.Error != "" {
			return
		}
		v.Rooms = append(v.Rooms, r)
	}
	slices.Sort(names)
	if len(slices.Compact(names)) < len(values) {
		v.Error = "bad_message"
	}
	switch string(last) {
	case "", "true":
	case "false":
		v.More = true
	default:
		v.Error = "bad_message"
	}
}

// refPosition is nil for what is no position.
func refPosition(raw json.RawMessage) *vectorPosition {
	if raw[0] != '{' {
		return nil
	}
	fields, twice := refFields(raw)
	epoch, isString := refString(fields["epoch"])
	offset, isInteger := refInteger(fields["offset"])
	if len(twice) > 0 || !isString || len(epoch) < 1 || len(epoch) > 64 || !isInteger || offset > 1<<53-1 {
		return nil
	}
	return &vectorPosition{epoch, offset}
}

var digits = regexp.MustCompile(`^[0-9]+$`)

func refInteger(raw json.RawMessage) (uint64, bool) {
	n, err := strconv.ParseUint(string(raw), 10, 64)
	return n, digits.Match(raw) && err == nil
}

// refMembers reads one object; encoding/json's RawMessage has no white space around it.
func refMembers(in []byte) (keys []string, values []json.RawMessage) {
	d := json.NewDecoder(bytes.NewReader(in))
	d.Token()
	for d.More() {
		key, _ := d.Token()
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			panic(err)
		}
		keys, values = append(keys, key.(string)), append(values, raw)
	}
	return keys, values
}

func refFields(in []byte) (fields map[string]json.RawMessage, twice map[string]bool) {
	fields, twice = map[string]json.RawMessage{}, map[string]bool{}
	keys, values := refMembers(in)
	for i, key := range keys {
		if fields[key] != nil {
			twice[key] = true
			continue
		}
		fields[key] = values[i]
	}
	return fields, twice
}

func refString(raw json.RawMessage) (s string, ok bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	return s, json.Unmarshal(raw, &s) == nil
}

var plainInteger = regexp.MustCompile(`^-?[0-9]+$`)

func refGoodID(raw json.RawMessage) bool {
	if s, ok := refString(raw); ok {
		return len(s) >= 1 && len(s) <= 64
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	return plainInteger.Match(raw) && err == nil && n <= 1<<53-1 && n >= -(1<<53-1)
}

// One match for each escape of valid JSON; a pair is one.
var escapes = regexp.MustCompile(`\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u....|.)`)

var surrogate = regexp.MustCompile(`^\\u[dD][89a-fA-F]..$`)

func refLoneSurrogate(in []byte) bool {
	for _, escape := range escapes.FindAll(in, -1) {
		if surrogate.Match(escape) {
			return true
		}
	}
	return false
}

// refDepth is how deep the text goes before it first breaks, as far as encoding/json reads it.
func refDepth(in []byte) int {
	depth, deepest := 0, 0
	d := json.NewDecoder(bytes.NewReader(in))
	d.UseNumber()
	for {
		token, err := d.Token()
		if err != nil {
			return deepest
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
			deepest = max(deepest, depth)
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range benchTexts {
		f.Add([]byte(m.text[:min(len(m.text), 200)]))
	}
	var vectors []decodeVector
	readVectors(&testing.T{}, "decode.json", &vectors)
	for _, v := range vectors {
		f.Add(v.text(&testing.T{}))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var c decoding
		err := decode(in, &c)
		want := reference(in)
		code := ""
		if err != nil {
			code = err.Code.String()
			if !utf8.ValidString(err.Message) || len(err.Message) > 400 {
				t.Errorf("message %q", err.Message)
			}
		}
		if code != want.Error && !(want.Error == "bad_json or too_deep" && (code == "bad_json" || code == "too_deep")) {
			t.Fatalf("%q: got %v, want %s", in, err, want.Error)
		}
		if code == "bad_json" || code == "too_deep" {
			return
		}
		if string(c.ID) != want.ID {
			t.Fatalf("%q: id %q, want %q", in, c.ID, want.ID)
		}
		if got := decoded(&c); code == "" && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q:\ngot  %v\nwant %v", in, got, want)
		}
	})
}

// A content is good for the application where it is good for a client.
func FuzzCheckContent(f *testing.F) {
	for _, s := range []string{`{"a":[1]}`, `1,"a":2`, "\"\xff\"", `"\udc00"`, " null\t", "", "-", strings.Repeat("[", 128) + strings.Repeat("]", 128)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := CheckContent(in)
		if err != nil && !utf8.ValidString(err.Error()) {
			t.Errorf("%q: the error %q", in, err)
		}
		var c decoding
		bad := decode(slices.Concat([]byte(`{"msg_type":"chat","content":`), in, []byte("}")), &c)
		ofClient := bad == nil && bytes.Equal(c.Content, bytes.Trim(in, " \t\r\n"))
		if (err == nil) != ofClient || err == nil && !bytes.Equal(got, c.Content) {
			t.Fatalf("%q: got %q, %v; as a client's %q, %v", in, got, err, c.Content, bad)
		}
		if err == nil && !json.Valid(got) {
			t.Fatalf("%q isn't JSON", got)
		}
	})
}

func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "plain", "a\"b\\c/", "\b\f\n\r\t\x00\x1f\x7f", "é語😀\u2028", "\xff\xc0\xaf", "\xed\xa0\x80", "<>&"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := AppendString(nil, s)
		if !json.Valid(got) || !utf8.Valid(got) {
			t.Fatalf("%q: %q is not JSON", s, got)
		}
		var theirs bytes.Buffer
		e := json.NewEncoder(&theirs)
		e.SetEscapeHTML(false)
		e.Encode(s)
		var back, theirBack string
		if json.Unmarshal(got, &back) != nil || json.Unmarshal(theirs.Bytes(), &theirBack) != nil || back != theirBack {
			t.Fatalf("%q: comes back as %q, from encoding/json as %q", s, back, theirBack)
		}
		// encoding/json escapes two characters that RFC 8259 does not ask for, and U+FFFD for broken bytes.
		want := strings.NewReplacer(`\u2028`, "\u2028", `\u2029`, "\u2029").Replace(strings.TrimSuffix(theirs.String(), "\n"))
		if utf8.ValidString(s) && !strings.Contains(s, `\u202`) && string(got) != want {
			t.Fatalf("%q: got %s, want %s", s, got, want)
		}
	})
}

// Messages come out as JSON whatever their texts and their content hold; an element of a history is the room's message
// without two of its members; and Size counts the bytes.
func FuzzAppendMessage(f *testing.F) {
	f.Add("server", `{"a":1,"room":"b","time":2}`, "lobby", "", "", uint64(1), int64(5))
	f.Add(`,"room":`, `",\"room\":\"a\""`, `,"room":"`, `,"room":"a",`, `\,"room":`, uint64(1<<53-1), int64(1760000000000))
	f.Add("0", "[]", "\b\x7f\xd9", "\x88", "", uint64(44), int64(69)) // no text each, but one together
	f.Add("\x00", ` [ ] `, "\b\f\n\r\t\x01\x7f", "\\", "\\\"é", uint64(0), int64(0))
	f.Fuzz(func(t *testing.T, from, content, name, user, key string, offset uint64, at int64) {
		if !json.Valid([]byte(content)) || !utf8.ValidString(strings.Join([]string{from, name, user, key}, "|")) || at < 0 {
			return
		}
		m := &protocol.Message{Kind: protocol.RoomMessage, Room: name, From: from, User: user, Content: []byte(content), Key: []byte(key), Time: at, Offset: offset}
		page := dialect.AppendAnswer(nil, &protocol.Answer{Kind: protocol.AnswerHistory, Room: name, Epoch: "e", Offset: offset, Messages: []*protocol.Message{m, m}, ID: []byte("1")})
		var got struct{ Messages []map[string]json.RawMessage }
		if err := json.Unmarshal(page, &got); err != nil || len(got.Messages) != 2 {
			t.Fatalf("%s: %v", page, err)
		}
		want, _ := refFields(dialect.AppendMessage(nil, m))
		delete(want, "msg_type")
		delete(want, "room")
		for _, got := range got.Messages {
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%v\ncame out as %s", want, page)
			}
		}
		for _, kind := range []protocol.Kind{protocol.RoomMessage, protocol.Chat, protocol.DirectMessage} {
			m.Kind = kind
			if kind != protocol.RoomMessage {
				m.Room = ""
			}
			p := dialect.AppendMessage(nil, m)
			if frame := wire.AppendFrame(nil, wire.Text, p); m.Size() != len(frame) {
				t.Fatalf("%s: the size is %d, its frame has %d bytes", p, m.Size(), len(frame))
			}
		}
	})
}

// What one side writes the other reads: texts of every kind as they come out of AppendString.
func FuzzFieldsComeThrough(f *testing.F) {
	f.Add("lobby", "cpu", "p-1", "e1", uint64(7), 50)
	f.Add("\"\\", "\n\x00", "語😀", "\u2028", uint64(1<<53), 1001)
	f.Fuzz(func(t *testing.T, room, key, publishID, epoch string, offset uint64, limit int) {
		valid := func(s string, most int) bool { return len(s) >= 1 && len(s) <= most && utf8.ValidString(s) }
		if !valid(room, 255) || protocol.CheckRoom([]byte(room)) != nil || !valid(key, 255) || !valid(publishID, 64) || !valid(epoch, 64) {
			return
		}
		offset &= 1<<53 - 1
		limit = 1 + limit&511
		q := func(s string) string { return string(AppendString(nil, s)) }
		at := `{"epoch":` + q(epoch) + `,"offset":` + strconv.FormatUint(offset, 10) + `}`
		position := &vectorPosition{epoch, offset}
		for text, want := range map[string]decodeVector{
			`{"msg_type":"room_message","room":` + q(room) + `,"content":[1],"key":` + q(key) + `,"publish_id":` + q(publishID) + `}`: {Kind: "room_message", Room: room, Content: "[1]", Key: key, PublishID: publishID},
			`{"msg_type":"history","room":` + q(room) + `,"before":` + at + `,"limit":` + strconv.Itoa(limit) + `}`:                   {Kind: "history", Room: room, Before: position, Limit: limit},
			`{"msg_type":"join_room","id":1,"room":` + q(room) + `,"since":` + at + `,"data":` + at + `}`:                             {Kind: "join_room", ID: "1", Room: room, Since: position, Data: at},
			`{"msg_type":"resume","id":1,"rooms":{` + q(room) + `:` + at + `}}`:                                                       {Kind: "resume", ID: "1", Rooms: []vectorRoom{{room, position}}},
		} {
			var c decoding
			if err := decode([]byte(text), &c); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			want.Type = &want.Kind
			if got := decoded(&c); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s:\ngot  %v\nwant %v", text, got, want)
			}
		}
	})
}
