package wire

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFramesOfAServer(t *testing.T) {
	tests := []struct {
		op     Opcode
		size   int
		header []byte
	}{
		{Text, 0, []byte{0x81, 0}},
		{Text, 5, []byte{0x81, 5}},
		{Binary, 125, []byte{0x82, 125}},
		{Text, 126, []byte{0x81, 126, 0, 126}},
		{Text, 65535, []byte{0x81, 126, 0xff, 0xff}},
		{Binary, 65536, []byte{0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
		{Ping, 4, []byte{0x89, 4}},
		{Pong, 0, []byte{0x8a, 0}},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%v of %d bytes", test.op, test.size), func(t *testing.T) {
			payload := bytes.Repeat([]byte("x"), test.size)
			if got := AppendHeader([]byte("before"), test.op, test.size); string(got) != "before"+string(test.header) {
				t.Errorf("header % x", got)
			}
			want := join([]byte("before"), test.header, payload)
			if got := AppendFrame([]byte("before"), test.op, payload); !bytes.Equal(got, want) {
				t.Errorf("frame % .20x", got)
			}
			if len(test.header) > MaxHeader {
				t.Errorf("a header of %d bytes", len(test.header))
			}
		})
	}
}

// A frame lives as long as a room's history: it must not hold what it never uses.
func TestFrameHasNoSpareRoom(t *testing.T) {
	for _, size := range []int{0, 10, 200, 1000, 5000, 70000} {
		if got := AppendFrame(nil, Text, make([]byte, size)); cap(got) > len(got)+len(got)/4+16 {
			t.Errorf("%d bytes of frame hold %d", len(got), cap(got))
		}
	}
}

func TestAccept(t *testing.T) {
	if got := Accept("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // RFC 6455 1.3
		t.Error(got)
	}
}

func TestOpcodes(t *testing.T) {
	for op, name := range map[Opcode]string{
		Continuation: "continuation", Text: "text", Binary: "binary", 3: "opcode 3",
		Close: "close", Ping: "ping", Pong: "pong", 11: "opcode 11",
	} {
		if op.String() != name || op.Control() != (op >= 8) {
			t.Errorf("%d: %v, control %v", uint8(op), op, op.Control())
		}
	}
}

func TestValidCloseCodes(t *testing.T) {
	for code := -1; code < 70000; code++ {
		want := code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
		if ValidCloseCode(code) != want {
			t.Errorf("%d: %v", code, !want)
		}
	}
}

func TestAppendClose(t *testing.T) {
	x := strings.Repeat("x", 200)
	tests := []struct {
		name   string
		code   int
		reason string
		want   string
	}{
		{"a code and a reason", 1001, "bye", "\x88\x05\x03\xe9bye"},
		{"a code alone", 4999, "", "\x88\x02\x13\x87"},
		{"no status", CloseNoStatus, "unseen", "\x88\x00"},
		{"a code that is never sent", CloseAbnormal, "unseen", "\x88\x00"},
		{"a reason of 123 bytes", 1000, x[:123], "\x88\x7d\x03\xe8" + x[:123]},
		{"a longer reason", 1000, x, "\x88\x7d\x03\xe8" + x[:123]},
		{"a cut between two runes", 1000, x[:119] + "😀😀", "\x88\x7d\x03\xe8" + x[:119] + "😀"},
		{"a cut inside a rune", 1000, x[:122] + "Ж", "\x88\x7c\x03\xe8" + x[:122]},
		{"a cut inside a long rune", 1000, x[:120] + "😀", "\x88\x7a\x03\xe8" + x[:120]},
		{"a reason that is not UTF-8", 1000, "a\xff\xfeb", "\x88\x07\x03\xe8a\uFFFDb"},
		{"many wrong bytes", 1000, strings.Repeat("\xff", 200), "\x88\x05\x03\xe8\uFFFD"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := AppendClose([]byte("before"), test.code, test.reason)
			if string(got) != "before"+test.want {
				t.Errorf("got %q", got)
			}
			if got = got[len("before"):]; len(got) > 4 && !utf8.Valid(got[4:]) {
				t.Error("the reason is not UTF-8")
			}
		})
	}
}

func TestErrorNamesItsCode(t *testing.T) {
	if got := errText.Error(); got != "websocket: text is not UTF-8 (1007)" {
		t.Error(got)
	}
	for _, err := range []*Error{errReservedBits, errText, errTooBig, errTinyFragments} {
		if !ValidCloseCode(err.Code) || len(err.Reason) > maxReason {
			t.Errorf("%v can't be answered", err)
		}
	}
}
