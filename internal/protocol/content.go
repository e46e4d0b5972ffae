package protocol

import (
	"errors"
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// What the application around the server gives is held to the rules that a client's message is held to: nobody may be sent
// what he would have to refuse, least of all again and again out of a history.

// CheckContent gives the one JSON value of b without white space around it, or says what is wrong with it and where:
// broken JSON, invalid UTF-8, an escaped lone surrogate, or more levels than leave the message within its bound.
func CheckContent(b []byte) ([]byte, error) {
	from := skipSpace(b, 0)
	end, f := scanValue(b, from)
	at := end
	if f == faultNone {
		at, f = scanEnd(b, end)
	}
	switch f {
	case faultNone:
		return b[from:end:end], nil
	case faultDeep:
		return nil, errors.New("the content makes its message nest deeper than " + strconv.Itoa(maxDepth) + " at byte " + strconv.Itoa(at))
	case faultTrailing:
		return nil, errors.New("the content is broken JSON at byte " + strconv.Itoa(at) + ": something follows the value")
	}
	return nil, errors.New("the content is broken JSON at byte " + strconv.Itoa(at) + ": " + faultTexts[f])
}

// MaxUser is the longest name of a user, in bytes.
const MaxUser = 255

// CheckUser refuses a name that a user may not have.
func CheckUser(name string) error {
	switch {
	case name == "":
		return errors.New("the user's name is empty")
	case len(name) > MaxUser:
		return fmt.Errorf("the user's name has %d bytes, at most %d are allowed", len(name), MaxUser)
	case !utf8.ValidString(name):
		return fmt.Errorf("the user's name is not valid UTF-8: %s", Quote([]byte(name)))
	}
	for _, r := range name {
		if unicode.IsControl(r) {
			return fmt.Errorf("the user's name has the control character U+%04X", r)
		}
	}
	return nil
}
