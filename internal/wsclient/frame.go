package wsclient

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Opcode says what a frame is (RFC 6455 5.2).
type Opcode byte

// The opcodes of RFC 6455 11.8; all others are reserved.
const (
	Continuation Opcode = 0
	Text         Opcode = 1
	Binary       Opcode = 2
	Close        Opcode = 8
	Ping         Opcode = 9
	Pong         Opcode = 10
)

// Deflated beside Text or Binary, in a call of Append, says that the payload is compressed: RSV1 (RFC 7692 6.1).
const Deflated Opcode = 0x40

// Control says whether op is of the control frames.
func (op Opcode) Control() bool { return op&8 != 0 }

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

// NoStatus is the code of a Close frame without one (RFC 6455 7.1.5).
const NoStatus = 1005

const (
	minHeader  = 2
	maxHeader  = 14
	maxControl = 125 // bytes of a control frame's payload
)

// Append appends a client's frame, its length in the shortest form. It checks nothing; reserved bits may stand beside
// op.
func Append(dst []byte, fin bool, op Opcode, mask [4]byte, payload []byte) []byte {
	dst = slices.Grow(dst, maxHeader+len(payload))
	first := byte(op)
	if fin {
		first |= 0x80
	}
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, first, 0x80|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, first, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, first, 0x80|127), uint64(n))
	}
	dst = append(dst, mask[:]...)
	at := len(dst)
	dst = dst[:at+len(payload)]
	xor(dst[at:], payload, mask)
	return dst
}

// AppendClose appends a Close frame; NoStatus gives one without a code, whatever the reason.
func AppendClose(dst []byte, mask [4]byte, code int, reason string) []byte {
	return Append(dst, true, Close, mask, ClosePayload(code, reason))
}

// ClosePayload is that of a Close frame.
func ClosePayload(code int, reason string) []byte {
	if code == NoStatus {
		return nil
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
}

// xor writes the XOR of src and the mask to dst, which is as long. Eight words a turn make it as fast as wire's up to 2
// KiB, beyond which that has vectors (BenchmarkAppend).
func xor(dst, src []byte, mask [4]byte) {
	le := binary.LittleEndian
	m := le.Uint32(mask[:])
	w := uint64(m)<<32 | uint64(m)
	for len(src) >= 64 && len(dst) >= 64 {
		s, d := src[:64:64], dst[:64:64]
		le.PutUint64(d, le.Uint64(s)^w)
		le.PutUint64(d[8:], le.Uint64(s[8:])^w)
		le.PutUint64(d[16:], le.Uint64(s[16:])^w)
		le.PutUint64(d[24:], le.Uint64(s[24:])^w)
		le.PutUint64(d[32:], le.Uint64(s[32:])^w)
		le.PutUint64(d[40:], le.Uint64(s[40:])^w)
		le.PutUint64(d[48:], le.Uint64(s[48:])^w)
		le.PutUint64(d[56:], le.Uint64(s[56:])^w)
		dst, src = dst[64:], src[64:]
	}
	for len(src) >= 8 && len(dst) >= 8 {
		le.PutUint64(dst, le.Uint64(src)^w)
		dst, src = dst[8:], src[8:]
	}
	for i, b := range src {
		dst[i] = b ^ mask[i&3]
	}
}

// Frame is what one frame of a server says.
type Frame struct {
	Op       Opcode
	Fin      bool
	Deflated bool // RSV1; whether that was agreed on is the caller's to know
	Payload  []byte
}

// What no server may send.
var (
	errMasked   = errors.New("the server masked a frame")
	errReserved = errors.New("the server set a reserved bit, or an unknown opcode")
	errControl  = errors.New("the server sent a control frame in pieces, or with more than 125 bytes")
	errLong     = errors.New("the server sent a message that is too long")
	errShortest = errors.New("the server wrote a length not in its shortest form")
	errFragment = errors.New("the server mixed up the fragments of messages")
	errClose    = errors.New("the server sent a Close with half a code, or whose reason is not UTF-8")
)

// tooLong is errLong with the bound.
func tooLong(most int) error { return fmt.Errorf("%w: more than %d bytes", errLong, most) }

// Parse reads the frame at the front of b, of at most that many bytes of payload. It takes size bytes; where b has
// less, f is not there yet and size is a lower bound. f.Payload aliases b.
func Parse(b []byte, most int) (f Frame, size int, err error) {
	if len(b) < minHeader {
		return f, minHeader, nil
	}
	f.Op, f.Fin, f.Deflated = Opcode(b[0]&0x0F), b[0]&0x80 != 0, b[0]&0x40 != 0
	n, at, least := uint64(b[1]&0x7F), minHeader, uint64(0)
	switch {
	case b[1]&0x80 != 0: // RFC 6455 5.1: "A server MUST NOT mask any frames that it sends to the client."
		return f, 0, errMasked
	case b[0]&0x30 != 0, f.Op > Binary && f.Op < Close, f.Op > Pong:
		return f, 0, errReserved
	case f.Op.Control() && (!f.Fin || n > maxControl || f.Deflated):
		return f, 0, errControl
	case n == 126:
		at, least = at+2, 126
	case n == 127:
		at, least = at+8, 1<<16
	}
	if len(b) < at {
		return f, at, nil
	}
	switch n {
	case 126:
		n = uint64(binary.BigEndian.Uint16(b[minHeader:]))
	case 127:
		n = binary.BigEndian.Uint64(b[minHeader:])
	}
	switch {
	case n < least: // RFC 6455 5.2: "the minimal number of bytes MUST be used to encode the length"
		return f, 0, errShortest
	case n > uint64(most):
		return f, 0, tooLong(most)
	}
	size = at + int(n)
	if len(b) >= size {
		f.Payload = b[at:size]
	}
	return f, size, nil
}

// Read reads one frame of at most that many bytes of payload, and not a byte more. io.EOF is an end before the frame,
// io.ErrUnexpectedEOF one within it.
func Read(r io.Reader, most int) (f Frame, err error) {
	b := make([]byte, 0, 16)
	for size := minHeader; len(b) < size; {
		have := len(b)
		b = slices.Grow(b, size-have)[:size]
		if _, err := io.ReadFull(r, b[have:]); err != nil {
			if have > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return Frame{}, err
		}
		if f, size, err = Parse(b, most); err != nil {
			return Frame{}, err
		}
	}
	return f, nil
}

// ParseClose reads the payload of a Close frame.
func ParseClose(payload []byte) (code int, reason string, err error) {
	switch {
	case len(payload) == 0:
		return NoStatus, "", nil
	case len(payload) == 1 || !utf8.Valid(payload[2:]):
		return 0, "", errClose
	}
	return int(binary.BigEndian.Uint16(payload)), string(payload[2:]), nil
}
