// Package glob is patterns of names in which a star stands for any run of characters: of rooms, of origins. It is pure.
package glob

import "strings"

// Pattern is a text in which "*" stands for any run of characters, also none, and all else for itself, byte for byte.
// Immutable.
type Pattern struct {
	text        string
	exact       bool // without a star; the rest is not set then
	first, last string
	between     []string // what stands between two stars
}

// New compiles a pattern; every text is one.
func New(text string) *Pattern {
	parts := strings.Split(text, "*")
	last := len(parts) - 1
	if last == 0 {
		return &Pattern{text: text, exact: true}
	}
	return &Pattern{text: text, first: parts[0], last: parts[last], between: parts[1:last]}
}

// String is the text that p was made of.
func (p *Pattern) String() string { return p.text }

// Match says whether p stands for the whole of s. It goes over s once, whatever the number of stars: a part may be
// taken where it comes first, because that leaves most to those after it.
func (p *Pattern) Match(s string) bool {
	if p.exact {
		return s == p.text
	}
	if len(s) < len(p.first)+len(p.last) || !strings.HasPrefix(s, p.first) || !strings.HasSuffix(s, p.last) {
		return false
	}
	s = s[len(p.first) : len(s)-len(p.last)]
	for _, part := range p.between {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return true
}

// Covers says whether p matches all that q matches; neither may have a zero byte. Such a byte in the place of q's stars
// is matched by stars of p alone, and these match whatever else may stand there.
func (p *Pattern) Covers(q *Pattern) bool { return p.Match(strings.ReplaceAll(q.text, "*", "\x00")) }
