package bench

import (
	"bytes"
	"math/rand/v2"
)

// A payload begins with a marker, by which it is known again in whatever the server wraps around it: "#", the run's id,
// the message, and "#". It is of digits and small letters, so that no JSON encoder changes it.
const (
	runSize    = 8
	markerSize = 1 + runSize + 8 + 6 + 8 + 12 + 1
)

// marker says which message it is.
type marker struct {
	id        uint32 // counts the run's publishes; its slot in the ring
	publisher uint32 // 24 bits; for Echo the connection
	seq       uint32 // counts the publisher's messages
	due       int64  // when it was due: nanoseconds on the run's clock, 48 bits
}

// payloads makes and finds the payloads of one run.
type payloads struct {
	prefix []byte // "#" and the run's id
	filler []byte // what follows the marker, the same in all
}

// words make the filler, which deflate shrinks about as far as it does a text.
var words = []string{
	"room", "message", "member", "the", "a", "is", "to", "of", "time", "player", "score", "status", "online", "update", "price",
	"42", "1017", "x", "value", "from", "hello", "and", "offset", "left", "right", "north", "blue", "green", "note", "page",
}

func newPayloads(run string, size int) *payloads {
	rng := rand.New(rand.NewPCG(1, 2))
	filler := make([]byte, 0, size+16)
	for len(filler) < size-markerSize {
		filler = append(append(filler, words[rng.IntN(len(words))]...), ' ')
	}
	return &payloads{prefix: []byte("#" + run), filler: filler[:size-markerSize]}
}

// append appends a payload.
func (p *payloads) append(dst []byte, m marker) []byte {
	dst = append(dst, p.prefix...)
	dst = appendHex(dst, uint64(m.id), 8)
	dst = appendHex(dst, uint64(m.publisher), 6)
	dst = appendHex(dst, uint64(m.seq), 8)
	dst = appendHex(dst, uint64(m.due), 12)
	dst = append(dst, '#')
	return append(dst, p.filler...)
}

// find gives the first marker in b, and where it begins; hint is where it probably does.
func (p *payloads) find(b []byte, hint int) (m marker, at int, ok bool) {
	if hint <= len(b) && bytes.HasPrefix(b[hint:], p.prefix) {
		if m, ok = p.parse(b[hint:]); ok {
			return m, hint, true
		}
	}
	for at = 0; ; at++ {
		i := bytes.Index(b[at:], p.prefix)
		if i < 0 {
			return marker{}, 0, false
		}
		at += i
		if m, ok = p.parse(b[at:]); ok {
			return m, at, true
		}
	}
}

// parse reads a marker at the front of b, where the prefix is.
func (p *payloads) parse(b []byte) (m marker, ok bool) {
	if len(b) < markerSize || b[markerSize-1] != '#' {
		return marker{}, false
	}
	digits := b[1+runSize:]
	bad := byte(0)
	number := func(n int) (v uint64) {
		for _, c := range digits[:n] {
			d := unhex[c]
			bad |= d
			v = v<<4 | uint64(d&15)
		}
		digits = digits[n:]
		return v
	}
	m.id, m.publisher, m.seq, m.due = uint32(number(8)), uint32(number(6)), uint32(number(8)), int64(number(12))
	return m, bad < 16
}

// intact says whether the rest of a payload whose marker is at b's front came as it was sent, and gives what follows
// it.
func (p *payloads) intact(b []byte) (rest []byte, ok bool) {
	b = b[markerSize:]
	if !bytes.HasPrefix(b, p.filler) {
		return b, false
	}
	return b[len(p.filler):], true
}

const hexDigits = "0123456789abcdef"

// appendHex appends the lowest n digits of v.
func appendHex(dst []byte, v uint64, n int) []byte {
	for n--; n >= 0; n-- {
		dst = append(dst, hexDigits[v>>(4*n)&15])
	}
	return dst
}

// unhex is a digit's value; 16 and above: it is none.
var unhex = func() (t [256]byte) {
	for i := range t {
		t[i] = 16
	}
	for i, c := range []byte(hexDigits) {
		t[c] = byte(i)
	}
	return t
}()
