package protocol

import (
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Code is the `code` of an error message.
type Code uint8

// The codes up to BadPosition mean that the same message would fail again; from RateLimited on it may succeed later.
const (
	BadJSON Code = iota + 1
	BadMessage
	UnknownType
	BadRoom
	TooDeep
	BinaryFrame
	UnknownClient
	NotMember
	Forbidden
	BadPosition
	RateLimited
	LimitReached
	Overloaded
	Unavailable
	Timeout
	Internal
)

var codeNames = [...]string{
	BadJSON:       "bad_json",
	BadMessage:    "bad_message",
	UnknownType:   "unknown_type",
	BadRoom:       "bad_room",
	TooDeep:       "too_deep",
	BinaryFrame:   "binary",
	UnknownClient: "unknown_client",
	NotMember:     "not_member",
	Forbidden:     "forbidden",
	BadPosition:   "bad_position",
	RateLimited:   "rate_limited",
	LimitReached:  "limit_reached",
	Overloaded:    "overloaded",
	Unavailable:   "unavailable",
	Timeout:       "timeout",
	Internal:      "internal",
}

// String is the code's name on the wire. A number outside the table is an error of ours, so it reads "internal":
// clients never see a code that the contract doesn't list.
func (c Code) String() string {
	if c == 0 || int(c) >= len(codeNames) {
		return codeNames[Internal]
	}
	return codeNames[c]
}

// ParseCode is the code of a name on the wire; false where it is none.
func ParseCode(name string) (Code, bool) {
	i := slices.Index(codeNames[1:], name)
	return Code(i + 1), i >= 0
}

// Retry tells whether the same message may succeed later.
func (c Code) Retry() bool {
	return c == 0 || c >= RateLimited
}

// Error is what an `error` message tells the client.
type Error struct {
	Code    Code
	Message string        // for the developer of the client: names the bad field or value
	After   time.Duration // when the same may succeed, of an error that says to retry; 0 where nobody knows
}

func (e *Error) Error() string {
	return e.Code.String() + ": " + e.Message
}

// Close codes of the application. From 4000 to 4499 the client comes back, from 4500 to 4999 it doesn't.
const (
	CloseSlowConsumer = 4000
	CloseTakenOver    = 4001
	CloseNoSignOfLife = 4002
	CloseTokenExpired = 4401
	CloseKicked       = 4500
	CloseRefused      = 4501
	CloseForbidden    = 4503
)

// Why a since or a resume was not recovered: the reason beside recovered.
const (
	ReasonEpoch     = "epoch"      // the room's log was lost since; it has another epoch
	ReasonExpired   = "expired"    // what was missed is no longer kept
	ReasonNoHistory = "no_history" // the room keeps nothing
	ReasonForbidden = "forbidden"  // the client may not be in the room any more
)

// Why messages will not come: the reason of a gap, where it isn't the name of a flow policy.
const (
	GapHistory = "history" // they went out of the history before they could be sent
	GapNode    = "node"    // the node missed them
)

// Why the server took a member out of a room: the reason of a left.
const (
	LeftKicked    = "kicked"
	LeftForbidden = "forbidden"
)

// maxQuote bounds what an error message repeats of the client's own bytes.
const maxQuote = 64

// Quote returns text in single quotes for an Error's Message: at most its first 64 bytes, and always printable UTF-8,
// since the message ends in people's terminals and logs.
func Quote(text []byte) string {
	more := ""
	if len(text) > maxQuote {
		cut := maxQuote
		for cut > maxQuote-utf8.UTFMax && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text, more = text[:cut], "..."
	}
	quoted := strconv.Quote(string(text))
	return "'" + quoted[1:len(quoted)-1] + more + "'"
}
