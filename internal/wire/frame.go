package wire

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strconv"
)

// Opcode says what a frame is (RFC 6455 5.2).
type Opcode uint8

// The opcodes of RFC 6455 11.8; all others are reserved.
const (
	Continuation Opcode = 0
	Text         Opcode = 1
	Binary       Opcode = 2
	Close        Opcode = 8
	Ping         Opcode = 9
	Pong         Opcode = 10
)

// Deflated beside Text or Binary, where a frame is made, says that its payload is compressed: RSV1, as it stands in the
// header (RFC 7692 6.1).
const Deflated Opcode = rsv1

// Control says whether op is of the control frames, defined or reserved. RFC 6455 5.5: "opcodes where the most
// significant bit of the opcode is 1".
func (op Opcode) Control() bool { return op&8 != 0 }

// known says whether RFC 6455 gives op a meaning.
func (op Opcode) known() bool { return op <= Binary || op >= Close && op <= Pong }

func (op Opcode) String() string {
	switch op {
	case Continuation:
		return "continuation"
	case Text:
		return "text"
	case Binary:
		return "binary"
	case Close:
		return "close"
	case Ping:
		return "ping"
	case Pong:
		return "pong"
	}
	return "opcode " + strconv.Itoa(int(op))
}

// The bits of a header's first two bytes (RFC 6455 5.2).
const (
	finBit   = 0x80
	rsvBits  = 0x70
	rsv1     = 0x40
	opBits   = 0x0F
	maskBit  = 0x80
	lenBits  = 0x7F
	len16    = 126 // the length follows in two bytes
	len64    = 127 // the length follows in eight bytes
	maxByte  = 125 // the longest payload whose length stands in the header's second byte
	maxLen16 = 1<<16 - 1
)

const (
	// MaxHeader is the size of the longest header that a server sends.
	MaxHeader = 10
	// maxClientHeader is that of a client, which has a masking key too.
	maxClientHeader = MaxHeader + 4
	// maxControl bounds a control frame's payload. RFC 6455 5.5: "All control frames MUST have a payload length of 125
	// bytes or less".
	maxControl = 125
)

// AppendHeader appends the header of a server's frame with n bytes of payload: the whole of a message, unmasked.
func AppendHeader(dst []byte, op Opcode, n int) []byte {
	switch first := finBit | byte(op); {
	case n <= maxByte:
		return append(dst, first, byte(n))
	case n <= maxLen16:
		return append(dst, first, len16, byte(n>>8), byte(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, first, len64), uint64(n))
	}
}

// AppendFrame appends a server's frame: a whole message or a control frame. Where dst has no room it grows to what the
// frame needs.
func AppendFrame(dst []byte, op Opcode, payload []byte) []byte {
	dst = slices.Grow(dst, headerSize(len(payload))+len(payload))
	dst = AppendHeader(dst, op, len(payload))
	return append(dst, payload...)
}

// ServerFrame takes a whole message of AppendFrame's apart again.
func ServerFrame(b []byte) (op Opcode, payload []byte) {
	n := 2
	switch b[1] {
	case len16:
		n = 4
	case len64:
		n = MaxHeader
	}
	return Opcode(b[0] &^ finBit), b[n:]
}

// headerSize is the size of an unmasked header before n bytes of payload.
func headerSize(n int) int {
	switch {
	case n <= maxByte:
		return 2
	case n <= maxLen16:
		return 4
	}
	return MaxHeader
}

// Accept is the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key. RFC 6455 4.2.2: the key and the GUID, hashed by
// SHA-1 and encoded by base64.
func Accept(key string) string {
	const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	sum := sha1.Sum([]byte(key + guid))
	return base64.StdEncoding.EncodeToString(sum[:])
}
