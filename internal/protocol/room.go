package protocol

import (
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// MaxRoomName is the longest name of a room, in bytes.
const MaxRoomName = 255

// CheckRoom refuses a name that a room may not have. Names are compared byte for byte, so what is invisible or turns
// the text around would let one room pose as another.
func CheckRoom(name []byte) *Error {
	if len(name) == 0 {
		return &Error{Code: BadRoom, Message: "room is empty"}
	}
	if len(name) > MaxRoomName {
		return &Error{Code: BadRoom, Message: "room has " + strconv.Itoa(len(name)) + " bytes, at most " +
			strconv.Itoa(MaxRoomName) + " are allowed"}
	}
	visible := false
	for i, b := range name {
		if b >= utf8.RuneSelf {
			return checkRoomRunes(name)
		}
		if b < ' ' || b == 0x7f {
			return badRoomRune(name[i:])
		}
		visible = visible || b != ' '
	}
	if !visible {
		return &Error{Code: BadRoom, Message: "room is only white space"}
	}
	return nil
}

// checkRoomRunes is CheckRoom for names that aren't all ASCII.
func checkRoomRunes(name []byte) *Error {
	visible := false
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRune(name[i:])
		if r == utf8.RuneError && size == 1 || !allowedInRoom(r) {
			return badRoomRune(name[i:])
		}
		visible = visible || !unicode.IsOneOf(showNothing, r)
		i += size
	}
	if !visible {
		return &Error{Code: BadRoom, Message: "room is only white space or characters that show nothing"}
	}
	return nil
}

// showNothing are white space, and what Unicode lets a reader see nothing of: the category Cf and
// Default_Ignorable_Code_Point, which is made of these tables.
var showNothing = []*unicode.RangeTable{unicode.White_Space, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector}

// allowedInRoom is false for controls (Cc), the line and paragraph separators, and what Unicode calls Bidi_Control.
func allowedInRoom(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r <= 0x9f:
		return false
	case r == 0x2028, r == 0x2029:
		return false
	case r == 0x061c, r == 0x200e, r == 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return false
	}
	return true
}

func badRoomRune(rest []byte) *Error {
	r, size := utf8.DecodeRune(rest)
	if r == utf8.RuneError && size == 1 {
		return &Error{Code: BadRoom, Message: "room is not valid UTF-8"}
	}
	return &Error{Code: BadRoom, Message: fmt.Sprintf("room has the character U+%04X, which is not allowed in a room's name", r)}
}
