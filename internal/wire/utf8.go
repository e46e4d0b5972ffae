package wire

import "unicode/utf8"

// textCheck checks UTF-8 that comes in pieces and fails at the first byte that no valid text can have there. It holds
// what a sequence cut by the end of a piece still lacks. The zero value stands between two sequences.
type textCheck struct {
	need   uint8 // continuation bytes to come
	lo, hi uint8 // what the next of them may be
}

// feed checks the next piece.
func (c *textCheck) feed(p []byte) bool {
	for c.need > 0 {
		if len(p) == 0 {
			return true
		}
		if !c.next(p[0]) {
			return false
		}
		p = p[1:]
	}
	cut := len(p) - openTail(p)
	if !utf8.Valid(p[:cut]) {
		return false
	}
	for _, b := range p[cut:] {
		if !c.next(b) {
			return false
		}
	}
	return true
}

// done says that no sequence is open.
func (c *textCheck) done() bool { return c.need == 0 }

// next checks one byte, by the table of RFC 3629 4.
func (c *textCheck) next(b byte) bool {
	if c.need > 0 {
		if b < c.lo || b > c.hi {
			return false
		}
		c.need--
		c.lo, c.hi = 0x80, 0xBF
		if c.need == 0 {
			*c = textCheck{}
		}
		return true
	}
	switch {
	case b < 0x80:
	case b < 0xC2: // a continuation, or an overlong form of ASCII
		return false
	case b < 0xE0:
		*c = textCheck{1, 0x80, 0xBF}
	case b == 0xE0: // no overlong forms
		*c = textCheck{2, 0xA0, 0xBF}
	case b == 0xED: // no surrogates
		*c = textCheck{2, 0x80, 0x9F}
	case b < 0xF0:
		*c = textCheck{2, 0x80, 0xBF}
	case b == 0xF0: // no overlong forms
		*c = textCheck{3, 0x90, 0xBF}
	case b < 0xF4:
		*c = textCheck{3, 0x80, 0xBF}
	case b == 0xF4: // nothing above U+10FFFF
		*c = textCheck{3, 0x80, 0x8F}
	default:
		return false
	}
	return true
}

// openTail is the length of the sequence at the end of p that p cuts short, 0 when there is none. It looks at lengths
// alone; the bytes are for others.
func openTail(p []byte) int {
	for n := 1; n <= min(len(p), utf8.UTFMax-1); n++ {
		switch b := p[len(p)-n]; {
		case b < 0x80:
			return 0
		case b < 0xC0:
			continue
		case b >= 0xF0 || b >= 0xE0 && n < 3 || n < 2:
			return n
		default:
			return 0
		}
	}
	return 0
}
