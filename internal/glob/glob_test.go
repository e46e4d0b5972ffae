package glob

import (
	"strings"
	"testing"
)

func TestAStarIsAnyRunOfCharacters(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true},
		{"", "a", false},
		{"a", "a", true},
		{"a", "A", false}, // byte for byte
		{"a", "ab", false},
		{"a", "ba", false},
		{"*", "", true},
		{"*", "a", true},
		{"**", "a", true},
		{"chat.*", "chat.", true}, // a run may be empty
		{"chat.*", "chat.eu", true},
		{"chat.*", "chat.eu.1", true}, // and is not held up by a dot
		{"chat.*", "chatXeu", false},  // a dot is a dot
		{"chat.*", "xchat.eu", false}, // over the whole name
		{"chat.*", "chat", false},
		{"*.eu", "chat.eu", true},
		{"*.eu", "chat.eu.1", false},
		{"*.eu", ".eu", true},
		{"chat.*.eu", "chat.1.eu", true},
		{"chat.*.eu", "chat.eu", false}, // the dots are two
		{"chat.*.eu", "chat..eu", true},
		{"ab*ba", "aba", false}, // nothing counts twice
		{"ab*ba", "abba", true},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "a-c-b", false},
		{"*a*b*", "xbxaxbx", true},
		{"*a*b*", "xbxax", false},
		{"*aba*ab", "abab", false},
		{"*aba*ab", "ababab", true},
		{"a?c", "abc", false}, // no other character means anything
		{"[ab]", "a", false},
		{"[ab]", "[ab]", true},
		{`\*`, "*", false},
		{`\*`, `\x`, true},
		{"é*", "été", true},
		{"*\xa9t\xc3*", "été", true}, // bytes, not characters
		{"é", "e\u0301", false},
	} {
		if got := New(c.pattern).Match(c.name); got != c.want {
			t.Errorf("%q matches %q: %t", c.pattern, c.name, got)
		}
	}
}

// A matcher that tries every run of each star would take for ever.
func TestManyStarsTakeNoTime(t *testing.T) {
	p := New(strings.Repeat("a*", 10_000) + "b")
	if p.Match(strings.Repeat("a", 1_000_000)) {
		t.Error("there is no b")
	}
	if !p.Match(strings.Repeat("a", 1_000_000) + "b") {
		t.Error("there is a b")
	}
}

// matches is what a star means, by trying.
func matches(p, s string) bool {
	if p == "" {
		return s == ""
	}
	if p[0] == '*' {
		return matches(p[1:], s) || s != "" && matches(p, s[1:])
	}
	return s != "" && p[0] == s[0] && matches(p[1:], s[1:])
}

func FuzzPattern(f *testing.F) {
	f.Add("a*b*a", "aabbaa")
	f.Add("**a", "ba")
	f.Add("ab*ba", "aba")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 8 || len(name) > 12 {
			return // trying takes too long
		}
		if got, want := New(pattern).Match(name), matches(pattern, name); got != want {
			t.Errorf("%q matches %q: %t", pattern, name, got)
		}
	})
}

// words are all texts of some letters up to a length.
func words(letters string, most int) []string {
	all := []string{""}
	for from := 0; most > 0; most-- {
		to := len(all)
		for _, w := range all[from:to] {
			for _, l := range letters {
				all = append(all, w+string(l))
			}
		}
		from = to
	}
	return all
}

func TestAPatternCoversAnother(t *testing.T) {
	patterns, names := words("ab*", 4), words("abc", 5)
	matched := map[string][]bool{}
	for _, p := range patterns {
		for _, n := range names {
			matched[p] = append(matched[p], matches(p, n))
		}
	}
	covered := 0
	for _, p := range patterns {
		for _, q := range patterns {
			want := true
			for i, m := range matched[q] {
				want = want && (!m || matched[p][i])
			}
			if want {
				covered++
			}
			if got := New(p).Covers(New(q)); got != want {
				t.Fatalf("%q covers %q: %t", p, q, got)
			}
		}
	}
	if covered <= len(patterns) {
		t.Errorf("%d of %d patterns cover one", covered, len(patterns))
	}
}
