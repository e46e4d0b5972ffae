package wire

import (
	"encoding/binary"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The close codes of RFC 6455 7.4.1 and of IANA's registry that a server needs.
const (
	CloseNormal        = 1000
	CloseGoingAway     = 1001
	CloseProtocolError = 1002
	CloseUnsupported   = 1003
	CloseNoStatus      = 1005 // a Close frame without a code; never in a frame
	CloseAbnormal      = 1006 // no Close frame came; never in a frame
	CloseInvalidData   = 1007
	ClosePolicy        = 1008
	CloseTooBig        = 1009
	CloseInternal      = 1011
	CloseTryLater      = 1013
)

// ValidCloseCode says whether code may stand in a Close frame.
func ValidCloseCode(code int) bool {
	switch {
	// RFC 6455 7.4.1: 1004 is reserved, 1005, 1006 and 1015 "MUST NOT be set as a status code in a Close control frame
	// by an endpoint". 1012 to 1014 are IANA's.
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014:
		return true
	// RFC 6455 7.4.2: 3000-3999 are registered, 4000-4999 for private use.
	case code >= 3000 && code <= 4999:
		return true
	}
	return false
}

// Error is a fault of the peer. Code is the close code that answers it; CloseAbnormal where none does: the connection
// just ends.
type Error struct {
	Code   int
	Reason string
}

func (e *Error) Error() string {
	return "websocket: " + e.Reason + " (" + strconv.Itoa(e.Code) + ")"
}

// All faults there are, made once: returning one allocates nothing.
var (
	errReservedBits  = &Error{CloseProtocolError, "reserved bit set"}
	errOpcode        = &Error{CloseProtocolError, "unknown opcode"}
	errUnmasked      = &Error{CloseProtocolError, "frame not masked"}
	errUnmaskedClose = &Error{CloseAbnormal, "close frame not masked"}
	errControlPart   = &Error{CloseProtocolError, "fragmented control frame"}
	errControlSize   = &Error{CloseProtocolError, "control frame too long"}
	errNoMessage     = &Error{CloseProtocolError, "continuation without a message"}
	errInterleaved   = &Error{CloseProtocolError, "new message inside a fragmented one"}
	errLengthForm    = &Error{CloseProtocolError, "length not in its shortest form"}
	errLengthHighBit = &Error{CloseProtocolError, "length has its high bit set"}
	errCloseSize     = &Error{CloseProtocolError, "close frame of one byte"}
	errCloseCode     = &Error{CloseProtocolError, "invalid close code"}
	errText          = &Error{CloseInvalidData, "text is not UTF-8"}
	errDeflate       = &Error{CloseInvalidData, "compressed data is broken"}
	errTakeover      = &Error{CloseInvalidData, "compressed data refers to an earlier message, against client_no_context_takeover"}
	errCloseReason   = &Error{CloseInvalidData, "close reason is not UTF-8"}
	errTooBig        = &Error{CloseTooBig, "message too big"}
	errTinyFragments = &Error{ClosePolicy, "too many tiny fragments"}
)

// maxReason is what a Close frame's payload has left beside the code.
const maxReason = maxControl - 2

// AppendClose appends a server's Close frame. The reason is cut between two runes where it is too long. A code that may
// not stand in a frame, such as CloseNoStatus, gives a frame without code and reason.
func AppendClose(dst []byte, code int, reason string) []byte {
	if !ValidCloseCode(code) {
		return AppendHeader(dst, Close, 0)
	}
	// RFC 6455 5.5.1: the reason is UTF-8-encoded data.
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if len(reason) > maxReason {
		cut := maxReason
		for !utf8.RuneStart(reason[cut]) {
			cut--
		}
		reason = reason[:cut]
	}
	dst = AppendHeader(dst, Close, 2+len(reason))
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}

// parseClose reads the unmasked payload of a Close frame, which is never of one byte (Reader.length saw to that).
func parseClose(ev *Event, p []byte) *Error {
	if len(p) == 0 {
		ev.Op, ev.Code = Close, CloseNoStatus
		return nil
	}
	code := int(binary.BigEndian.Uint16(p))
	if !ValidCloseCode(code) {
		return errCloseCode
	}
	// 8.1: "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream is not, in fact, a
	// valid UTF-8 stream, that endpoint MUST _Fail the WebSocket Connection_."
	if !utf8.Valid(p[2:]) {
		return errCloseReason
	}
	ev.Op, ev.Payload, ev.Code = Close, p[2:], code
	return nil
}
