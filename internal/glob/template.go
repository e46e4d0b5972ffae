package glob

import "strings"

// User is what stands in a Template for the name of a user.
const User = "${user}"

// Unknown is what stands in a text as User does, ${...}, and is another; "" where nothing does.
func Unknown(text string) string {
	for {
		_, rest, begins := strings.Cut(text, "${")
		name, after, ends := strings.Cut(rest, "}")
		switch found := "${" + name + "}"; {
		case !begins || !ends:
			return ""
		case found != User:
			return found
		}
		text = after
	}
}

// Template is a pattern in which User stands for a user's name, literally: a star in the name is a star. Nothing is
// compiled for a user. Where a star follows User, the text between them must not be in the name, or nothing fits: else
// "inbox.${user}.*" would give the user "ann.b" what lies below "inbox.ann". Immutable.
type Template struct {
	text  string
	plain *Pattern // nil where User stands in it; the rest is set then
	parts []part   // what stands between stars, at least one
	apart []string // what a name must not have in it
}

// part is the texts between which the name stands: "inbox.", "." is inbox.NAME. with a dot at both its ends.
type part []string

// NewTemplate compiles a template; every text is one.
func NewTemplate(text string) *Template {
	t := &Template{text: text}
	if !strings.Contains(text, User) {
		t.plain = New(text)
		return t
	}
	stars := strings.Split(text, "*")
	for i, between := range stars {
		p := part(strings.Split(between, User))
		t.parts = append(t.parts, p)
		if i < len(stars)-1 && len(p) > 1 {
			t.apart = append(t.apart, p[len(p)-1])
		}
	}
	return t
}

// String is the text that t was made of.
func (t *Template) String() string { return t.text }

// Plain is the pattern that t is where User doesn't stand in it, and else nil.
func (t *Template) Plain() *Pattern { return t.plain }

// Never says that t fits no name at all: a star stands right behind User.
func (t *Template) Never() bool {
	for _, text := range t.apart {
		if text == "" {
			return true
		}
	}
	return false
}

// Match says whether t stands for the whole of s, for the user of that name; "" is no user. It takes no memory.
func (t *Template) Match(s, user string) bool {
	if t.plain != nil {
		return t.plain.Match(s)
	}
	if user == "" {
		return false
	}
	for _, text := range t.apart {
		if strings.Contains(user, text) {
			return false
		}
	}
	last := len(t.parts) - 1
	s, ok := t.parts[0].cut(s, user)
	if !ok || last == 0 {
		return ok && s == ""
	}
	for _, p := range t.parts[1:last] {
		for size := p.size(user); ; s = s[1:] { // where it comes first leaves most to those after it, as in Pattern
			if len(s) < size {
				return false
			}
			if rest, ok := p.cut(s, user); ok {
				s = rest
				break
			}
		}
	}
	size := t.parts[last].size(user)
	if len(s) < size {
		return false
	}
	_, ok = t.parts[last].cut(s[len(s)-size:], user)
	return ok
}

// cut takes p, with the name in it, from the beginning of s.
func (p part) cut(s, user string) (rest string, ok bool) {
	for i, text := range p {
		if i > 0 {
			if s, ok = strings.CutPrefix(s, user); !ok {
				return "", false
			}
		}
		if s, ok = strings.CutPrefix(s, text); !ok {
			return "", false
		}
	}
	return s, true
}

func (p part) size(user string) (n int) {
	for _, text := range p {
		n += len(text)
	}
	return n + (len(p)-1)*len(user)
}

// Covers says that t matches all that o matches, for whatever user; neither may have a byte below two. It may be false
// of two templates that differ where it is so all the same.
func (t *Template) Covers(o *Template) bool {
	if t.text == o.text {
		return true
	}
	if len(t.apart) > 0 {
		return false // it fits nothing for some names, and o may
	}
	const user = "\x01" // as stars in Pattern.Covers
	// A Replacer would be dearer to make than all else here.
	return t.Match(strings.ReplaceAll(strings.ReplaceAll(o.text, "*", "\x00"), User, user), user)
}
