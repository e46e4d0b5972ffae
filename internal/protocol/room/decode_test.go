package room

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"example.com/hubbub/internal/protocol"
)

// What the vectors can't say: messages for people, memory, and time.

func TestAnErrorNamesWhatIsWrong(t *testing.T) {
	for in, want := range map[string]string{
		`[1]`:                                     "broken JSON at byte 0: a message is one JSON object",
		`{"msg_type":"ping"`:                      "broken JSON at byte 18: the text ends too early",
		`{"msg_type":"ping"}}`:                    "broken JSON at byte 19: something follows the message's object",
		`{"msg_type":"chat","content":01}`:        "broken JSON at byte 29: a number is malformed",
		`{"content":1}`:                           "msg_type is missing",
		`{"msg_type":5}`:                          "msg_type must be a string",
		`{"msg_type":"resume"}`:                   "resume needs an id",
		`{"msg_type":"resume","id":1}`:            "rooms is missing",
		`{"msg_type":"resume","id":1,"rooms":[]}`: "rooms must be an object",
		`{"msg_type":"resume","id":1,"rooms":{"a":null,"\u0061":null}}`:                                        "rooms has 'a' twice",
		`{"msg_type":"resume","id":1,"rooms":{"a\nb":null}}`:                                                   "room has the character U+000A, which is not allowed in a room's name",
		`{"msg_type":"resume","id":1,"rooms":{"a":{"epoch":"e"}}}`:                                             "rooms: the position in 'a' must have an offset that is an integer from 0 to 2^53-1",
		`{"msg_type":"join_room","room":"a","since":7}`:                                                        "since must be an object with epoch and offset",
		`{"msg_type":"join_room","room":"a","since":{"offset":1}}`:                                             "since must have an epoch that is a string",
		`{"msg_type":"join_room","room":"a","since":{"epoch":"","offset":1}}`:                                  "since must have an epoch of 1 to 64 bytes",
		`{"msg_type":"join_room","room":"a","since":{"epoch":"e","offset":1.5}}`:                               "since must have an offset that is an integer from 0 to 2^53-1",
		`{"msg_type":"join_room","room":"a","since":{"epoch":"e","x":1,"x":1}}`:                                "since has the key 'x' twice",
		`{"msg_type":"join_room","room":"a","since":{"epoch":"e","offset":1}}`:                                 "since needs an id",
		`{"msg_type":"join_room","room":"a","data":"` + strings.Repeat("x", 5000) + `"}`:                       "data has 5002 bytes, at most 4096 are allowed",
		`{"msg_type":"history","room":"a","before":[]}`:                                                        "before must be an object with epoch and offset",
		`{"msg_type":"history","room":"a","since":{"epoch":"e","offset":1},"before":{"epoch":"e","offset":1}}`: "since and before exclude each other",
		`{"msg_type":"history","room":"a","limit":0}`:                                                          "limit must be an integer from 1 to 1000",
		`{"msg_type":"room_message","room":"a","content":1,"key":7}`:                                           "key must be a string of 1 to 255 bytes",
		`{"msg_type":"room_message","room":"a","content":1,"publish_id":""}`:                                   "publish_id must be a string of 1 to 64 bytes",
		`{"msg_type":"join_room"}`:                                                                             "room is missing",
		`{"msg_type":"join_room","room":["a"]}`:                                                                "room must be a string",
		`{"msg_type":"join_room","room":"a\u202eb"}`:                                                           "room has the character U+202E, which is not allowed in a room's name",
		`{"msg_type":"direct_message","content":1}`:                                                            "to is missing",
		`{"msg_type":"room_message","room":"a"}`:                                                               "content is missing",
		`{"msg_type":"ping","x\ny":1,"x\ny":2}`:                                                                `the key 'x\ny' is given twice`,
		`{"msg_type":"ping","id":1.5}`:                                                                         "id must be an integer up to 2^53-1 or a string of 1 to 64 bytes",
	} {
		var c decoding
		if err := decode([]byte(in), &c); err == nil || err.Message != want {
			t.Errorf("%s\ngot  %v\nwant %s", in, err, want)
		}
	}
}

func TestAnErrorRepeatsLittleOfTheClientsText(t *testing.T) {
	for _, key := range []string{strings.Repeat("x", 9000), strings.Repeat("語", 9000), strings.Repeat("\u202e", 9000)} {
		var c decoding
		err := decode([]byte(`{"`+key+`":1,"`+key+`":2}`), &c)
		if err == nil || err.Code != protocol.BadMessage || len(err.Message) > 300 || !utf8.ValidString(err.Message) {
			t.Errorf("got %v", err)
		}
	}
}

func TestQuoteIsBoundedAndPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "''",
		"move":                            "'move'",
		"a\nb":                            `'a\nb'`,
		"\xff":                            `'\xff'`,
		strings.Repeat("x", 64):           "'" + strings.Repeat("x", 64) + "'",
		strings.Repeat("x", 65):           "'" + strings.Repeat("x", 64) + "...'",
		strings.Repeat("x", 63) + "語語":    "'" + strings.Repeat("x", 63) + "...'",
		strings.Repeat("\x80", 100) + "x": "'" + strings.Repeat(`\x80`, 60) + "...'",
	} {
		if got := protocol.Quote([]byte(in)); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

// Escapes are unescaped into one scratch that moves as it grows: what was taken from it before must stay what it was.
func TestEveryTextSurvivesAGrowingScratch(t *testing.T) {
	long := strings.Repeat(`\u0061`, 50)
	var c decoding
	in := `{"\u0072oom":"` + strings.Repeat(`\u0062`, 200) + `","i\u0064":"` + long + `","msg_typ\u0065":"room_messag\u0065","content":"\u0063"}`
	if err := decode([]byte(in), &c); err != nil {
		t.Fatal(err)
	}
	if string(c.Type) != "room_message" || string(c.Room) != strings.Repeat("b", 200) || string(c.ID) != `"`+long+`"` || string(c.Content) != `"\u0063"` {
		t.Errorf("got %q %q %q %q", c.Type, c.Room, c.ID, c.Content)
	}
	var rooms []string
	want := decodeVector{Kind: "resume", ID: "1"}
	want.Type = &want.Kind
	for n := range 300 {
		epoch := strings.Repeat("x", 1+n%64)
		rooms = append(rooms, fmt.Sprintf(`"r%d\u00e9":{"\u0065poch":"\u0078%s","offset":%d}`, n, epoch[1:], n))
		want.Rooms = append(want.Rooms, vectorRoom{fmt.Sprintf("r%dé", n), &vectorPosition{epoch, uint64(n)}})
	}
	if err := decode([]byte(`{"msg_type":"resume","id":1,"rooms":{`+strings.Join(rooms, ",")+`}}`), &c); err != nil {
		t.Fatal(err)
	}
	if got := decoded(&c); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestDecodeDoesNotWriteToItsInput(t *testing.T) {
	in := []byte(`{"msg_type":"join_room","\u0072oom":"\ud83d\ude00","id":"\u0061"}`)
	before := bytes.Clone(in)
	var c decoding
	if err := decode(in, &c); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(in, before) {
		t.Errorf("the input has become %s", in)
	}
}

// Every cut of a message is broken JSON, wherever it falls in the eight bytes that the scanner takes at a time; and
// white space before it moves what stands where.
func TestATextCutAnywhereIsBroken(t *testing.T) {
	whole := ` {"msg_type":"room_message","room":"\u00e9\ud83d\ude00語","content":{"a":[1.5e+3,true,"x\\"]},"id":12} `
	var c decoding
	for shift := range 8 {
		text := []byte(strings.Repeat(" ", shift) + whole)
		if err := decode(text, &c); err != nil {
			t.Fatal(err)
		}
		for n := range len(text) - 1 {
			// A copy of its own, so that the race detector and bounds checks see a read past the end.
			cut := append(make([]byte, 0, n), text[:n]...)
			if err := decode(cut, &c); err == nil || err.Code != protocol.BadJSON || c.ID != nil {
				t.Fatalf("%s: got %v, id %q", cut, err, c.ID)
			}
		}
	}
}

// The scanner looks for three kinds of bytes in a word at once; try each byte at each place.
func TestAStringEndsAtTheRightByte(t *testing.T) {
	for b := range 256 {
		for at := range 20 {
			plain := bytes.Repeat([]byte("!"), 20) // 0x21 is the neighbour of the quote
			plain[at] = byte(b)
			text := `{"msg_type":"chat","content":"` + string(plain) + `"}`
			var c decoding
			err := decode([]byte(text), &c)
			if good := b >= ' ' && b < 0x80 && b != '"' && b != '\\'; good != (err == nil) {
				t.Errorf("byte %#x at %d: %v", b, at, err)
			}
		}
	}
}

func TestTheTypicalMessageAllocatesNothing(t *testing.T) {
	for _, text := range []string{
		benchTexts[0].text,
		`{"msg_type":"room_message","room":"\u00e9t\u00e9","content":{"a":[1,2,{"b":"\n"}]},"id":"\u0061"}`,
		`{"msg_type":"ping"` + manyKeys(64<<10) + `}`,
	} {
		in := []byte(text)
		var c decoding
		if err := decode(in, &c); err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(1000, func() { decode(in, &c) }); n != 0 {
			t.Errorf("%.40s...: %v allocations", text, n)
		}
	}
}

func TestACommandLetsGoOfAHugeScratch(t *testing.T) {
	var c decoding
	decode([]byte(`{"msg_type":"ping","x`+strings.Repeat(`\n`, 100_000)+`":1`+manyKeys(1<<20)+`}`), &c)
	decode([]byte(`{"msg_type":"ping"}`), &c)
	if cap(c.dialect.scratch) > keepScratch || cap(c.dialect.keys) > keepKeys || c.dialect.table != nil {
		t.Errorf("it still holds %d bytes, %d keys, %d places", cap(c.dialect.scratch), cap(c.dialect.keys), cap(c.dialect.table))
	}
}

// Sixteen times the bytes may take sixteen times as long, and not 256 times. A wide margin and many tries, because the
// machines that run this are busy.
func TestTimeIsLinear(t *testing.T) {
	for name, text := range map[string]func(n int) string{
		"many keys":         func(n int) string { return `{"msg_type":"ping"` + manyKeys(n) + `}` },
		"equal long keys":   func(n int) string { return `{"` + strings.Repeat("k", n) + `":1,"` + strings.Repeat("k", n) + `":1}` },
		"escapes":           func(n int) string { return `{"` + strings.Repeat(`\n`, n/2) + `":"` + strings.Repeat(`\n`, n/2) + `"}` },
		"an array of zeros": func(n int) string { return `{"x":[` + strings.Repeat("0,", n/2) + `0]}` },
		"white space":       func(n int) string { return strings.Repeat(" ", n) + `{}` },
		"keys of a position": func(n int) string {
			return `{"msg_type":"history","room":"a","since":{"epoch":"e","offset":1` + manyKeys(n) + `}}`
		},
		"large positions": func(n int) string {
			position := `,"x%d":{"epoch":"e","offset":1` + manyKeys(n/64) + `}`
			var s strings.Builder
			for i := range 64 {
				fmt.Fprintf(&s, position, i)
			}
			return `{"msg_type":"resume","id":1,"rooms":{"a":null` + s.String() + `}}`
		},
	} {
		var c decoding
		took := func(in []byte) float64 { return elapsed(func() { decode(in, &c) }) }
		shortText, longText := []byte(text(64<<10)), []byte(text(1<<20))
		short, long := took(shortText), took(longText)
		for try := 0; try < 50 && long > 100*short && (try < 8 || long < 1e9); try++ { // a second is beyond doubt, but for other programs
			short, long = min(short, took(shortText)), min(long, took(longText))
		}
		if long > 100*short {
			t.Errorf("%s: 64 KiB took %.0f ns, 1 MiB %.0f ns", name, short, long)
		}
	}
}
