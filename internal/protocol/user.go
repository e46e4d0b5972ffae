package protocol

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

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
