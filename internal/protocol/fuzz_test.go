package protocol

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// reference decodes as the contract says, slowly, on encoding/json. It shares no code with Decode
// but CheckRoom, which room_test.go holds against Unicode's tables.
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
	has := func(name string) bool { _, ok := fields[name]; return ok }
	switch {
	case v.Kind == "presence", v.Kind == "history", v.Kind == "resume",
		v.Kind == "join_room" && (has("since") || has("data")),
		v.Kind == "room_message" && (has("key") || has("publish_id")):
		v.Error = "unavailable"
		return
	}
	if v.Kind == "join_room" || v.Kind == "leave_room" || v.Kind == "room_message" {
		room, isString := refString(fields["room"])
		if !isString {
			v.Error = "bad_message"
			return
		}
		if CheckRoom([]byte(room)) != nil {
			v.Error = "bad_room"
			return
		}
		v.Room = room
	}
	if v.Kind == "direct_message" {
		to, isString := refString(fields["to"])
		if !isString {
			v.Error = "bad_message"
			return
		}
		v.To = to
	}
	switch v.Kind {
	case "room_message", "direct_message":
		if !has("content") {
			v.Error = "bad_message"
		}
		v.Content = string(fields["content"])
	case "chat", "custom":
		v.Content = string(fields["content"])
		if v.Kind == "chat" && v.Content == "" {
			v.Content = `""`
		}
	}
}

// refFields reads the top level; encoding/json's RawMessage has no white space around it.
func refFields(in []byte) (fields map[string]json.RawMessage, twice map[string]bool) {
	fields, twice = map[string]json.RawMessage{}, map[string]bool{}
	d := json.NewDecoder(bytes.NewReader(in))
	d.Token()
	for d.More() {
		key, _ := d.Token()
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			panic(err)
		}
		if _, seen := fields[key.(string)]; seen {
			twice[key.(string)] = true
			continue
		}
		fields[key.(string)] = raw
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
		var c Command
		err := Decode(in, &c)
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
		if code != "" {
			return
		}
		if kindNames[c.Kind] != want.Kind || string(c.Type) != *want.Type || string(c.Room) != want.Room ||
			string(c.To) != want.To || string(c.Content) != want.Content {
			t.Fatalf("%q: got %s %q %q %q %q, want %+v", in, kindNames[c.Kind], c.Type, c.Room, c.To, c.Content, want)
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
