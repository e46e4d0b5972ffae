package wire

import (
	"testing"
	"unicode/utf8"
)

// viable says whether p begins some valid text, by unicode/utf8.
func viable(p []byte) bool {
	for len(p) > 0 && utf8.FullRune(p) {
		r, n := utf8.DecodeRune(p)
		if r == utf8.RuneError && n == 1 {
			return false
		}
		p = p[n:]
	}
	return true
}

// checkText checks p in two pieces against unicode/utf8.
func checkText(t *testing.T, p []byte, cut int) {
	t.Helper()
	var c textCheck
	fed := c.feed(p[:cut])
	if fed != viable(p[:cut]) {
		t.Fatalf("% x: feed is %v", p[:cut], fed)
	}
	if !fed {
		return
	}
	fed = c.feed(p[cut:])
	if fed != viable(p) {
		t.Fatalf("% x | % x: feed is %v", p[:cut], p[cut:], fed)
	}
	if valid := fed && c.done(); valid != utf8.Valid(p) {
		t.Fatalf("% x | % x: valid is %v", p[:cut], p[cut:], valid)
	}
	if fed && c.done() && c != (textCheck{}) {
		t.Fatalf("% x | % x: done but not zero: %v", p[:cut], p[cut:], c)
	}
}

// Every four bytes of those at which RFC 3629's table turns, in two pieces.
func TestTextAtTheEdgesOfTheTable(t *testing.T) {
	edges := []byte("\x00\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xdf\xe0\xe1\xec\xed\xee\xef\xf0\xf1\xf3\xf4\xf5\xff")
	p := make([]byte, 4)
	for _, p[0] = range edges {
		for _, p[1] = range edges {
			for _, p[2] = range edges {
				for _, p[3] = range edges {
					for cut := range 5 {
						checkText(t, p, cut)
					}
				}
			}
		}
	}
}

func FuzzUTF8(f *testing.F) {
	for _, s := range []string{"", "plain", "Жук €10 😀", "\xf4\x90", "\xf4\x8f\xbf\xbf", "\xed\xa0\x80", "\xe2\x82", "long enough for words Ж and\xc3 more"} {
		f.Add([]byte(s), uint(3))
	}
	f.Fuzz(func(t *testing.T, p []byte, cut uint) {
		checkText(t, p, int(cut%uint(len(p)+1)))
		p = p[:min(len(p), 200)] // viable makes the rest quadratic
		var c textCheck
		for i := range p {
			if fed := c.feed(p[i : i+1]); fed != viable(p[:i+1]) {
				t.Fatalf("% x: feed of the last byte is %v", p[:i+1], fed)
			} else if !fed {
				return
			}
		}
		if c.done() != utf8.Valid(p) {
			t.Fatalf("% x: done is %v", p, c.done())
		}
	})
}
