package room

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf8"

	"example.com/hubbub/internal/protocol"
)

// maxDepth is how deep a text may nest; the message's own object is depth 1.
const maxDepth = 128

// fault is what the scanner found wrong. It is a small number and not an Error, so that the functions below stay cheap
// to call; faultError makes the Error.
type fault uint8

const (
	faultNone fault = iota
	faultEnd
	faultNotObject
	faultTrailing
	faultKey
	faultColon
	faultComma
	faultValue
	faultNumber
	faultControl
	faultEscape
	faultSurrogate
	faultUTF8
	faultDeep
)

var faultTexts = [...]string{
	faultEnd:       "the text ends too early",
	faultNotObject: "a message is one JSON object",
	faultTrailing:  "something follows the message's object",
	faultKey:       "a key in double quotes is expected",
	faultColon:     "a colon is expected after a key",
	faultComma:     "a comma or a closing bracket is expected",
	faultValue:     "no JSON value begins like this",
	faultNumber:    "a number is malformed",
	faultControl:   "a control character in a string must be escaped",
	faultEscape:    "an escape in a string is malformed",
	faultSurrogate: "an escaped surrogate stands alone",
	faultUTF8:      "a string is not valid UTF-8",
}

func faultError(f fault, at int) *protocol.Error {
	if f == faultDeep {
		return &protocol.Error{Code: protocol.TooDeep, Message: "nesting deeper than " + strconv.Itoa(maxDepth) + " at byte " + strconv.Itoa(at)}
	}
	return &protocol.Error{Code: protocol.BadJSON, Message: "broken JSON at byte " + strconv.Itoa(at) + ": " + faultTexts[f]}
}

// Every scan function takes the text and where to begin, and returns where it stopped: behind what it read, or at the
// fault.

// skipSpace skips what RFC 8259 section 2 calls ws.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// scanKey reads a key with its quotes, the colon and the space around it. The key's text is b[i+1:end-1], the value
// begins at next.
func scanKey(b []byte, i int) (end, next int, escaped bool, f fault) {
	if i >= len(b) {
		return i, i, false, faultEnd
	}
	if b[i] != '"' {
		return i, i, false, faultKey
	}
	end, escaped, f = scanString(b, i)
	if f != faultNone {
		return end, end, false, f
	}
	next = skipSpace(b, end)
	if next >= len(b) {
		return end, next, false, faultEnd
	}
	if b[next] != ':' {
		return end, next, false, faultColon
	}
	return end, skipSpace(b, next+1), escaped, faultNone
}

// scanValue reads one value of the message's own object.
func scanValue(b []byte, i int) (int, fault) {
	if i < len(b) && (b[i] == '{' || b[i] == '[') {
		return scanNested(b, i)
	}
	return scanScalar(b, i)
}

// scanNested reads an object or an array with all that it holds. The kinds of the open brackets lie in a fixed array,
// so an attacker's nesting costs neither memory nor the goroutine's stack.
func scanNested(b []byte, i int) (int, fault) {
	var isObject [maxDepth + 1]bool
	depth := 1 // the message's own object
	for {
		var f fault
		if i < len(b) && (b[i] == '{' || b[i] == '[') {
			if depth == maxDepth {
				return i, faultDeep
			}
			depth++
			isObject[depth] = b[i] == '{'
			i = skipSpace(b, i+1)
			if i >= len(b) || b[i] != closing(isObject[depth]) {
				if isObject[depth] {
					if _, i, _, f = scanKey(b, i); f != faultNone {
						return i, f
					}
				}
				continue
			}
		} else {
			if i, f = scanScalar(b, i); f != faultNone {
				return i, f
			}
			i = skipSpace(b, i)
		}
		// A value has ended, or an empty bracket is about to.
		for i < len(b) && b[i] == closing(isObject[depth]) {
			i++
			if depth--; depth == 1 {
				return i, faultNone
			}
			i = skipSpace(b, i)
		}
		if i >= len(b) {
			return i, faultEnd
		}
		if b[i] != ',' {
			return i, faultComma
		}
		i = skipSpace(b, i+1)
		if isObject[depth] {
			if _, i, _, f = scanKey(b, i); f != faultNone {
				return i, f
			}
		}
	}
}

func closing(object bool) byte {
	if object {
		return '}'
	}
	return ']'
}

// scanScalar reads a string, a number or one of the three literals.
func scanScalar(b []byte, i int) (int, fault) {
	if i >= len(b) {
		return i, faultEnd
	}
	switch c := b[i]; {
	case c == '"':
		end, _, f := scanString(b, i)
		return end, f
	case c == '-' || c >= '0' && c <= '9':
		return scanNumber(b, i)
	case c == 't':
		return scanLiteral(b, i, "true")
	case c == 'f':
		return scanLiteral(b, i, "false")
	case c == 'n':
		return scanLiteral(b, i, "null")
	}
	return i, faultValue
}

func scanLiteral(b []byte, i int, word string) (int, fault) {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return i, faultValue
	}
	return i + len(word), faultNone
}

// scanNumber follows RFC 8259 section 6: [ minus ] int [ frac ] [ exp ], no leading zero.
func scanNumber(b []byte, i int) (int, fault) {
	if b[i] == '-' {
		i++
	}
	first := i
	i = skipDigits(b, i)
	if i == first || b[first] == '0' && i > first+1 {
		return first, faultNumber
	}
	if i < len(b) && b[i] == '.' {
		first = i + 1
		if i = skipDigits(b, first); i == first {
			return i, faultNumber
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		first = i + 1
		if first < len(b) && (b[first] == '+' || b[first] == '-') {
			first++
		}
		if i = skipDigits(b, first); i == first {
			return i, faultNumber
		}
	}
	return i, faultNone
}

func skipDigits(b []byte, i int) int {
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	return i
}

const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// marks sets the top bit of bytes of w at which a string's plain run ends: a quote, a backslash or a control character.
// Only the lowest bit set is exact, those above it may be a borrow's; none is set when there is no such byte.
//
// Flipping bit 1 puts the quote (0x22) right above the controls, so that one subtraction finds both; a byte of the
// UTF-8 beyond ASCII has its top bit set in w and is masked out.
func marks(w uint64) uint64 {
	low := (w ^ 0x02*ones) - 0x21*ones
	back := (w ^ '\\'*ones) - ones
	return (low | back) & ^w & highs
}

// lastWord returns what is left of b from i, fewer than eight bytes, filled up with zeros, which count as controls: a
// search in it always ends.
func lastWord(b []byte, i int) uint64 {
	left := len(b) - i
	if len(b) >= 8 {
		return binary.LittleEndian.Uint64(b[len(b)-8:]) >> (64 - 8*left)
	}
	var w uint64
	for k := range left {
		w |= uint64(b[i+k]) << (8 * k)
	}
	return w
}

// scanString reads the string whose opening quote is b[i], and tells whether it holds escapes. Strings are most of a
// message's bytes, so it takes eight at a time. Bytes outside ASCII are only noticed on the way; a string that has some
// is then checked as a whole.
func scanString(b []byte, i int) (end int, escaped bool, f fault) {
	start := i
	var seen uint64
	for i++; ; {
		var w uint64
		if i+8 <= len(b) {
			w = binary.LittleEndian.Uint64(b[i:])
		} else {
			w = lastWord(b, i)
		}
		m := marks(w)
		if m == 0 {
			seen |= w
			i += 8
			continue
		}
		seen |= w & (m&-m - 1)
		i += bits.TrailingZeros64(m) >> 3
		if i >= len(b) {
			return i, escaped, faultEnd
		}
		switch b[i] {
		case '"':
			if seen&highs != 0 && !utf8.Valid(b[start:i]) {
				return start, escaped, faultUTF8
			}
			return i + 1, escaped, faultNone
		case '\\':
			escaped = true
			if i, f = scanEscape(b, i); f != faultNone {
				return i, escaped, f
			}
		default:
			return i, escaped, faultControl
		}
	}
}

// scanEscape reads the escape whose backslash is b[i]; an escaped pair of surrogates is one.
func scanEscape(b []byte, i int) (int, fault) {
	if i+1 >= len(b) {
		return i, faultEnd
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2, faultNone
	case 'u':
		r := hexRune(b, i)
		switch {
		case r < 0:
			return i, faultEscape
		case r < 0xd800 || r > 0xdfff:
			return i + 6, faultNone
		case r > 0xdbff:
			return i, faultSurrogate
		}
		if low := hexRune(b, i+6); low < 0xdc00 || low > 0xdfff {
			return i, faultSurrogate
		}
		return i + 12, faultNone
	}
	return i, faultEscape
}

// hexRune returns the number in \uXXXX at b[i], and -1 when there is no such escape.
func hexRune(b []byte, i int) rune {
	if len(b)-i < 6 || b[i] != '\\' || b[i+1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range b[i+2 : i+6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// appendUnescaped appends the text of a string, without its quotes, that scanString has accepted.
func appendUnescaped(dst, raw []byte) []byte {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			dst = append(dst, raw[i])
			continue
		}
		i++
		switch c := raw[i]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := hexRune(raw, i-1)
			i += 4
			if r >= 0xd800 && r <= 0xdbff {
				r = (r-0xd800)<<10 + hexRune(raw, i+1) - 0xdc00 + 0x10000
				i += 6
			}
			dst = utf8.AppendRune(dst, r)
		default: // a quote, a backslash or a slash stands for itself
			dst = append(dst, c)
		}
	}
	return dst
}
