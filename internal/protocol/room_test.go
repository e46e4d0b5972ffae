package protocol

import (
	"testing"
	"unicode"
	"unicode/utf8"
)

// The contract names Cc, the separators and the bidirectional controls; Unicode's own tables say which characters those
// are.
func TestEveryCharacterIsJudgedByUnicodesTables(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		want := !unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
		if err := CheckRoom([]byte("a" + string(r))); (err == nil) != want {
			t.Errorf("%U: %v", r, err)
		}
		if !want {
			continue
		}
		seen := !unicode.In(r, unicode.White_Space, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
		for _, name := range []string{string(r), " " + string(r) + "\u200b"} {
			if err := CheckRoom([]byte(name)); (err == nil) != seen {
				t.Errorf("%U alone, as %q: %v", r, name, err)
			}
		}
	}
}

func TestARoomsNameIsUTF8(t *testing.T) {
	for _, name := range []string{"\xff", "a\x80", "\xc0\xaf", "\xed\xa0\x80", "語\xe8\xaa"} {
		if err := CheckRoom([]byte(name)); err == nil || err.Code != BadRoom || err.Message != "room is not valid UTF-8" {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := CheckRoom([]byte("\ufffd")); err != nil {
		t.Errorf("U+FFFD itself is a character: %v", err)
	}
}
