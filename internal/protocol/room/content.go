package room

import (
	"errors"
	"strconv"
)

// What the application around the server gives is held to the rules that a client's message is held to: nobody may be
// sent what he would have to refuse, least of all again and again out of a history.

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
