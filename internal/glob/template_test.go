package glob

import (
	"strings"
	"testing"
)

func TestUserIsTheNameLiterally(t *testing.T) {
	for _, c := range []struct {
		template, name, user string
		want                 bool
	}{
		{"inbox.${user}", "inbox.ann", "ann", true},
		{"inbox.${user}", "inbox.ann", "bob", false},
		{"inbox.${user}", "inbox.ann.x", "ann", false},
		{"inbox.${user}", "inbox.", "", false}, // nobody has no name
		{"inbox.${user}", "inbox.${user}", "ann", false},
		{"inbox.${user}", "inbox.${user}", "${user}", true},
		{"inbox.${user}", "inbox.ann", "*", false}, // a star in a name is a star
		{"inbox.${user}", "inbox.*", "*", true},
		{"inbox.${user}", "inbox.a.b", "a.b", true},
		{"inbox.${user}.*", "inbox.ann.x", "ann", true},
		{"inbox.${user}.*", "inbox.ann.", "ann", true},
		{"inbox.${user}.*", "inbox.ann", "ann", false},
		{"inbox.${user}.*", "inbox.ann.b.x", "ann.b", false}, // ann's too, so nobody's but hers
		{"inbox.${user}.*", "inbox.ann.b.x", "ann", true},
		{"inbox.${user}.in.*", "inbox.a.b.in.x", "a.b", true}, // "in" and its dots are not in the name
		{"inbox.${user}*", "inbox.ann1", "ann", false},        // nothing fits
		{"*.${user}", "a.b.ann", "ann", true},
		{"*.${user}", "ann", "ann", false},
		{"*.${user}.*", "x.ann.y", "ann", true},
		{"*.${user}.*", "x.anne.ann.y", "ann", true},
		{"*.${user}.*", "x.anne.y", "ann", false},
		{"*-${user}-${user}-*", "x-ab-a-ab-ab-y", "ab", true},
		{"${user}", "ann", "ann", true},
		{"${user}${user}", "annann", "ann", true},
		{"${user}${user}", "anann", "ann", false},
		{"a*${user}", "aann", "ann", true},
		{"an*${user}", "ann", "ann", false}, // nothing counts twice
		{"${USER}", "${USER}", "ann", true}, // no other name means anything
		{"chat.*", "chat.1", "", true},      // without it, it is a pattern
	} {
		if got := NewTemplate(c.template).Match(c.name, c.user); got != c.want {
			t.Errorf("%q fits %q for %q: %t", c.template, c.name, c.user, got)
		}
	}
}

func TestATemplateTakesNoMemoryForAUser(t *testing.T) {
	p := NewTemplate("*.${user}.x.*.y")
	if n := testing.AllocsPerRun(100, func() { p.Match("a.anne.b.ann.x.z.y", "ann") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestATemplateThatFitsNothing(t *testing.T) {
	for text, want := range map[string]bool{"${user}*": true, "a*${user}*b": true, "${user}.*": false, "*${user}": false, "*": false} {
		if got := NewTemplate(text).Never(); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}

// fits is what a template means, by trying, but for the texts that must not be in a name.
func fits(p, s, user string) bool {
	if rest, ok := strings.CutPrefix(p, User); ok {
		s, ok = strings.CutPrefix(s, user)
		return user != "" && ok && fits(rest, s, user)
	}
	switch {
	case p == "":
		return s == ""
	case p[0] == '*':
		return fits(p[1:], s, user) || s != "" && fits(p, s[1:], user)
	}
	return s != "" && p[0] == s[0] && fits(p[1:], s[1:], user)
}

// stands says, by the contract's words, whether the text between a User and the next star is in the name.
func stands(p, user string) bool {
	for {
		_, behind, ok := strings.Cut(p, User)
		if !ok {
			return false
		}
		p = behind
		if between, _, star := strings.Cut(behind, "*"); star && strings.Contains(user, strings.ReplaceAll(between, User, user)) {
			return true
		}
	}
}

func TestATemplateMeansWhatItsModelMeans(t *testing.T) {
	matched := 0
	for _, w := range words("ab*u", 4) {
		text := strings.ReplaceAll(w, "u", User)
		p := NewTemplate(text)
		for _, user := range []string{"", "a", "b", "ab", "ba", "*"} {
			for _, name := range words("ab*", 4) {
				want := fits(text, name, user) && !stands(text, user)
				if got := p.Match(name, user); got != want {
					t.Fatalf("%q fits %q for %q: %t", text, name, user, got)
				}
				if want {
					matched++
				}
			}
		}
	}
	if matched < 1000 {
		t.Errorf("only %d fit", matched)
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("a.${user}.*", "a.b.c", "b")
	f.Add("*${user}*${user}", "xabxab", "ab")
	f.Fuzz(func(t *testing.T, text, name, user string) {
		if len(text) > 24 || len(name) > 12 || strings.Count(text, "*") > 4 {
			return // trying takes too long
		}
		want := fits(text, name, user) && !stands(text, user)
		if got := NewTemplate(text).Match(name, user); got != want {
			t.Errorf("%q fits %q for %q: %t", text, name, user, got)
		}
	})
}

// What one covers it matches for every user.
func TestATemplateThatCoversAnotherMatchesAllOfIt(t *testing.T) {
	var all []*Template
	for _, w := range words("a*u", 3) {
		all = append(all, NewTemplate(strings.ReplaceAll(w, "u", User)))
	}
	names, users, covered := words("ab", 5), []string{"a", "b", "ab"}, 0
	for _, p := range all {
		for _, q := range all {
			if !p.Covers(q) {
				continue
			}
			covered++
			for _, user := range users {
				for _, name := range names {
					if q.Match(name, user) && !p.Match(name, user) {
						t.Fatalf("%q covers %q, but not %q of %q", p, q, name, user)
					}
				}
			}
		}
	}
	if covered <= len(all) {
		t.Errorf("%d of %d cover one", covered, len(all))
	}
	if !NewTemplate("in.*").Covers(NewTemplate("in.${user}")) || NewTemplate("in.${user}").Covers(NewTemplate("in.*")) {
		t.Error("a star covers a name, and not the other way round")
	}
}

func TestWhatIsNoPlaceholder(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "a": "", User: "", "a.${user}.*.${user}": "", "${user": "", "$user": "", "{user}": "", "}${": "",
		"${User}": "${User}", "a.${user}.${room}": "${room}", "${}": "${}", "${a${user}": "${a${user}",
	} {
		if got := Unknown(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
