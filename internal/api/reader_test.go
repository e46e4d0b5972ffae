package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"example.com/hubbub/internal/protocol"
)

const most = 1 << 10 // bytes of a content

func TestWhatIsWrongWithAPublishIsNamed(t *testing.T) {
	id := "11111111-2222-4333-8444-555555555555"
	for _, c := range []struct{ body, code, says string }{
		{``, "bad_json", "the text ends too early"},
		{`[]`, "bad_message", "the body must be an object"},
		{`{"room":"r","content":1`, "bad_json", "at byte 23: a comma or a closing bracket"},
		{`{"room":"r","content":1}}`, "bad_json", "at byte 24: something follows"},
		{`{"room":"r","content":01}`, "bad_json", "a number is malformed"},
		{"{\"room\":\"r\",\"content\":\"\xff\"}", "bad_json", "not valid UTF-8"},
		{`{"room" "r"}`, "bad_json", "a colon"},
		{`{room:"r"}`, "bad_json", "a key in double quotes"},
		{`{"content":1}`, "bad_message", "the body must say where to by one of room, rooms, client, user, everyone, not none"},
		{`{"room":"r","user":"u","content":1}`, "bad_message", "not room and user"},
		{`{"room":"r"}`, "bad_message", "content is missing"},
		{`{"room":"r","content":1,"contents":2}`, "bad_message", "contents is no field here"},
		{`{"room":"r","Content":1}`, "bad_message", "Content is no field here"},
		{`{"room":"r","content":1,"content":2}`, "bad_message", "content is given twice"},
		{`{"room":"r","content":1,"\u0063ontent":2}`, "bad_message", "content is given twice"},
		{`{"room":7,"content":1}`, "bad_message", "room must be a string"},
		{`{"room":null,"content":1}`, "bad_message", "room must be a string"},
		{`{"room":"","content":1}`, "bad_room", "room can't be used: room is empty"},
		{`{"room":"a\u0007","content":1}`, "bad_room", "U+0007"},
		{`{"room":"\ud800","content":1}`, "bad_json", "room has an escaped surrogate"},
		{`{"room":"` + strings.Repeat("x", 256) + `","content":1}`, "bad_room", "256 bytes"},
		{`{"rooms":"r","content":1}`, "bad_message", "rooms must be a list"},
		{`{"rooms":[],"content":1}`, "bad_message", "rooms must have 1 to 1000 rooms, not 0"},
		{`{"rooms":["r",7],"content":1}`, "bad_message", "rooms[1] must be a string"},
		{`{"rooms":["r"` + strings.Repeat(`,"r"`, 1000) + `],"content":1}`, "bad_message", "not 1001"},
		{`{"everyone":false,"content":1}`, "bad_message", "everyone must be true"},
		{`{"everyone":1,"content":1}`, "bad_message", "everyone must be true"},
		{`{"everyone":true,"content":1,"key":"k"}`, "bad_message", "key goes with room or rooms alone"},
		{`{"user":"u","content":1,"publish_id":"k"}`, "bad_message", "publish_id goes with room or rooms alone"},
		{`{"user":"\n","content":1}`, "bad_message", "user can't be used"},
		{`{"room":"r","content":1,"from":"` + id + `"}`, "bad_message", "from can't be used: from has the form of a client's id"},
		{`{"room":"r","content":1,"from":"a\u009bb"}`, "bad_message", "from can't be used: from has a control character"},
		{`{"room":"r","content":1,"from":""}`, "bad_message", "from must have 1 to 64 bytes"},
		{`{"room":"r","content":1,"from":"` + strings.Repeat("f", 65) + `"}`, "bad_message", "from must have 1 to 64 bytes, not 65"},
		{`{"room":"r","content":1,"key":""}`, "bad_message", "key must have 1 to 255"},
		{`{"room":"r","content":1,"publish_id":["x"]}`, "bad_message", "publish_id must be a string"},
		{`{"room":"r","content":1,"exclude":"bob"}`, "bad_message", "exclude is no client's id: bob"},
		{`{"room":"r","content":"\udc00"}`, "bad_json", "content has an escaped surrogate that stands alone"},
		{`{"room":"r","content":` + strings.Repeat("[", 128) + strings.Repeat("]", 128) + `}`, "too_deep", "content nests deeper than 127"},
		{`{"room":"r","content":"` + strings.Repeat("x", most) + `"}`, "too_large", "content has 1026 bytes, at most 1024"},
	} {
		_, no := readPublish([]byte(c.body), most)
		if no == nil || no.code != c.code || !strings.Contains(no.detail, c.says) {
			t.Errorf("%.90s\n got %+v\nwant %s, %s", c.body, no, c.code, c.says)
		}
	}
}

func TestWhatIsWrongWithOneCallOfABatchIsItsOwn(t *testing.T) {
	deep := strings.Repeat("[", 400) + strings.Repeat("]", 400)
	for _, c := range []struct{ call, code, says string }{
		{`7`, "bad_message", "calls[1] must be an object"},
		{`{}`, "bad_message", "calls[1] has no call"},
		{`{"pubish":{}}`, "bad_message", "calls[1].pubish is no field here; there are publish, join"},
		{`{"publish":{},"join":{}}`, "bad_message", "calls[1].publish must say where to"},
		{`{"publish":{"room":"r","content":1},"join":{}}`, "bad_message", "calls[1].join is a second call"},
		{`{"publish":7}`, "bad_message", "calls[1].publish must be an object"},
		{`{"publish":{"room":"r","content":1,"x":1}}`, "bad_message", "calls[1].publish.x is no field"},
		{`{"publish":{"room":"r","content":` + deep + `}}`, "too_deep", "calls[1].publish.content nests deeper"},
		{`{"publish":{"room":"r","content":"\ud800 \ud800"}}`, "bad_json", "calls[1].publish.content has an escaped surrogate"},
		{`{"publish":{"room":"r","content":"` + strings.Repeat("x", most) + `"}}`, "too_large", "calls[1].publish.content has 1026"},
		{`{"publish":{"rooms":["r",{}],"content":1}}`, "bad_message", "calls[1].publish.rooms[1] must be a string"},
		{`{"join":{"room":"r"}}`, "bad_message", "calls[1].join.client is missing"},
		{`{"leave":{"client":"c"}}`, "bad_message", "calls[1].leave.room is missing"},
		{`{"join":{"room":"r","client":"c","client":"d"}}`, "bad_message", "calls[1].join.client is given twice"},
		{`{"disconnect":{}}`, "bad_message", "calls[1].disconnect needs client or user"},
		{`{"disconnect":{"client":"c","user":"u"}}`, "bad_message", "calls[1].disconnect needs client or user"},
		{`{"disconnect":{"client":"c","code":1000}}`, "bad_message", "calls[1].disconnect.code must be a whole number from 4000 to 4999"},
		{`{"disconnect":{"client":"c","code":4000.5}}`, "bad_message", "calls[1].disconnect.code must be a whole number"},
		{`{"disconnect":{"client":"c","reason":"` + strings.Repeat("x", 124) + `"}}`, "bad_message", "calls[1].disconnect.reason must have 0 to 123"},
		{`{"delete":{}}`, "bad_message", "calls[1].delete.room is missing"},
		{`{"delete":{"room":"r","offset":0}}`, "bad_message", "calls[1].delete.offset must be a whole number from 1"},
		{`{"delete":{"room":"r","offset":-1}}`, "bad_message", "calls[1].delete.offset must be"},
		{`{"delete":{"room":"r","epoch":"e"}}`, "bad_message", "calls[1].delete.epoch goes with offset alone"},
	} {
		good := `{"publish":{"room":"r","content":{"a":[1]}}}`
		all, no := readBatch([]byte(`{"calls": [`+good+` , `+c.call+` , `+good+`] } `), most)
		if no != nil || len(all) != 3 || all[0].wrong != nil || all[2].wrong != nil {
			t.Errorf("%.90s: the whole is refused: %+v", c.call, no)
			continue
		}
		if string(all[2].content) != `{"a":[1]}` {
			t.Errorf("%.90s: the call behind it publishes %s", c.call, all[2].content)
		}
		if got := all[1].wrong; got == nil || got.code != c.code || !strings.Contains(got.detail, c.says) {
			t.Errorf("%.90s\n got %+v\nwant %s, %s", c.call, got, c.code, c.says)
		}
	}
	for body, says := range map[string]string{
		`{}`:                       "calls is missing",
		`{"calls":{}}`:             "calls must be a list",
		`{"calls":[],"calls":[]}`:  "calls is given twice",
		`{"calls":[],"call":[]}`:   "call is no field here",
		`{"calls":[{"publish":}]}`: "no JSON value begins like this",
		`{"calls":[`:               "the text ends too early",
		`{"calls":[{}` + strings.Repeat(`,{}`, 1000) + `]}`: "calls has more than 1000",
	} {
		if _, no := readBatch([]byte(body), most); no == nil || !strings.Contains(no.detail, says) {
			t.Errorf("%.60s: %+v, want %s", body, no, says)
		}
	}
}

func TestContentStaysByteForByte(t *testing.T) {
	for _, content := range []string{`{ "a" : [1,  2e5] ,"b":"\u00e9\/<>&é"}`, `"\ud83d\ude00"`, `[]`, `{}`, "-0.0", "null", `[ [ ] , { } ]`} {
		p, no := readPublish([]byte(" {\"room\" : \"r\" ,\n\"content\" :\t"+content+" } "), most)
		if no != nil || string(p.content) != content {
			t.Errorf("%s became %s, %+v", content, p.content, no)
		}
	}
	p, no := readPublish([]byte(`{"content":1,"room":"a\u002fb \ud83d\ude00\"\\"}`), most)
	if no != nil || p.room != "a/b 😀\"\\" {
		t.Errorf("%+v, %+v", p, no)
	}
}

// What the reader takes is JSON, and what is JSON of the right form it takes: encoding/json is the reference for both.
func FuzzBodies(f *testing.F) {
	for _, body := range []string{
		`{"room":"r","content":1}`, `{"rooms":["a","b"],"content":{"x":[null,true,"\ud83d\ude00"]},"from":"f","key":"k","publish_id":"p"}`,
		`{"calls":[{"publish":{"room":"r","content":1}},{"join":{"room":"r","client":"c"}},{"delete":{"room":"r","offset":7,"epoch":"e"}}]}`,
		`{"calls":[{"disconnect":{"user":"u","code":4001,"reason":"x"}},{"x":[[{}]]},7]}`, `{"everyone":true,"content":"\ud800"}`, "[[[[", `{"calls":[{"a":{"b":"`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		p, no := readPublish(body, most)
		if no == nil {
			if !json.Valid(body) {
				t.Fatalf("taken, and no JSON: %q", body)
			}
			var fields map[string]json.RawMessage
			if err := json.Unmarshal(body, &fields); err != nil || len(p.content) == 0 {
				t.Fatalf("%q: %v", body, err)
			}
			if got := bytes.TrimSpace(fields["content"]); !bytes.Equal(got, p.content) {
				t.Fatalf("the content %q was read as %q", got, p.content)
			}
		}
		all, no := readBatch(body, most)
		if no == nil {
			var batch struct{ Calls []json.RawMessage }
			if err := json.Unmarshal(body, &batch); err != nil || len(batch.Calls) != len(all) {
				t.Fatalf("%q: %d calls, %v", body, len(all), err)
			}
			for i := range all {
				if all[i].wrong == nil && all[i].name == "" {
					t.Fatalf("%q: call %d does nothing", body, i)
				}
			}
		} else if no.detail == "" || no.status < 400 {
			t.Fatalf("%q: %+v", body, no)
		}
		if !bytes.Equal(before, body) {
			t.Fatal("the body was written to")
		}
	})
}

func FuzzPositions(f *testing.F) {
	for _, text := range []string{"e:1", "a.b:c:0", ":1", "e:", "e:-1", "e:+1", "e:9007199254740992", "e:1e3"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, ok := parsePosition(text)
		if ok && (len(at.Epoch) == 0 || len(at.Epoch) > 64 || at.Offset > maxOffset || !strings.HasPrefix(text, string(at.Epoch)+":")) {
			t.Fatalf("%q was read as %s:%d", text, at.Epoch, at.Offset)
		}
		if n := fmt.Sprintf("%s:%d", at.Epoch, at.Offset); ok && strings.TrimLeft(text[len(at.Epoch)+1:], "0") != strings.TrimLeft(n[len(at.Epoch)+1:], "0") {
			t.Fatalf("%q was read as %s", text, n)
		}
	})
}

// Lists take as many as they may, and a position's epoch as many bytes; what is one more is named.
func TestTheEndsOfLists(t *testing.T) {
	list := func(n int, item string) string { return "[" + strings.Repeat(item+",", n-1) + item + "]" }
	for _, n := range []int{1, maxRooms, maxRooms + 1} {
		p, wrong := readPublish([]byte(`{"rooms":`+list(n, `"r"`)+`,"content":1}`), 100)
		if fine := n <= maxRooms; fine != (wrong == nil) || fine && len(p.rooms) != n {
			t.Errorf("%d rooms: %d, %+v", n, len(p.rooms), wrong)
		}
	}
	for _, n := range []int{1, maxCalls, maxCalls + 1} {
		all, wrong := readBatch([]byte(`{"calls":`+list(n, `{"leave":{"room":"r","client":"c"}}`)+`}`), 100)
		if fine := n <= maxCalls; fine != (wrong == nil) || fine && len(all) != n {
			t.Errorf("%d calls: %d, %+v", n, len(all), wrong)
		}
	}
	for text, fine := range map[string]bool{
		"e:0": true, "a:b:7": true, ":7": false, "e:": false, "e": false, "e:+1": false, "e:-1": false, "e:9007199254740991": true, "e:9007199254740992": false,
		strings.Repeat("e", protocol.MaxEpoch) + ":1": true, strings.Repeat("e", protocol.MaxEpoch+1) + ":1": false,
	} {
		at, ok := parsePosition(text)
		if ok != fine {
			t.Errorf("%s is a position: %t", text, ok)
		}
		if end := strings.LastIndexByte(text, ':'); ok && string(at.Epoch) != text[:end] {
			t.Errorf("%s has the epoch %s", text, at.Epoch)
		}
	}
}
