package hub

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/hubbub/internal/history"
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
		if got := NewPattern(c.pattern).Match(c.name); got != c.want {
			t.Errorf("%q matches %q: %t", c.pattern, c.name, got)
		}
	}
}

// A matcher that tries every run of each star would take for ever.
func TestManyStarsTakeNoTime(t *testing.T) {
	p := NewPattern(strings.Repeat("a*", 10_000) + "b")
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
		if got, want := NewPattern(pattern).Match(name), matches(pattern, name); got != want {
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
			if got := NewPattern(p).Covers(NewPattern(q)); got != want {
				t.Fatalf("%q covers %q: %t", p, q, got)
			}
		}
	}
	if covered <= len(patterns) {
		t.Errorf("%d of %d patterns cover one", covered, len(patterns))
	}
}

func TestTheFirstRuleThatMatchesCounts(t *testing.T) {
	off := Policy{SlowConsumer: Latest}
	members := Policy{Publish: Members}
	all := Policy{Publish: ServerOnly}
	rules := []Rule{{NewPattern("chat.quiet"), off}, {NewPattern("chat.*"), members}}
	def := DefaultPolicy()
	if def != (Policy{History: history.Bounds{Messages: 100, Age: 2 * time.Minute, Bytes: 64 << 10}, Presence: PresenceCount, IdleTTL: 2 * time.Minute}) {
		t.Errorf("the default is %+v", def)
	}
	def.SlowConsumer = DropOldest
	lobby := def
	lobby.Presence = PresenceFull
	some := NewPolicies(DropOldest, rules...)
	for _, c := range []struct {
		p     *Policies
		room  string
		index int
		match string
		want  Policy
	}{
		{some, "chat.quiet", 0, "chat.quiet", off},
		{some, "chat.quiet2", 1, "chat.*", members},
		{some, "chat.", 1, "chat.*", members},
		{some, "chat", 3, "*", def},
		{some, "lobby", 2, "lobby", lobby},
		{some, "lobby2", 3, "*", def},
		{NewPolicies(Disconnect), "any", 1, "*", DefaultPolicy()},
		// A rule of one's own counts before what is built in.
		{NewPolicies(Disconnect, Rule{NewPattern("lobby"), off}), "lobby", 0, "lobby", off},
		{NewPolicies(Disconnect, Rule{NewPattern("l*"), off}), "lobby", 0, "l*", off},
		{NewPolicies(Disconnect, rules[1], Rule{NewPattern("*"), all}), "lobby", 1, "*", all},
	} {
		i, rule := c.p.Rule(c.room)
		if i != c.index || rule.Match.String() != c.match || rule.Policy != c.want {
			t.Errorf("%q: rule %d, %q, %+v", c.room, i, rule.Match, rule.Policy)
		}
		if c.p.For(c.room) != &rule.Policy {
			t.Errorf("%q: two pointers", c.room)
		}
	}
	if some.For("chat.1") != some.For("chat.2") || some.For("x") != some.For("y") || some.For("x") == some.For("lobby") {
		t.Error("rooms of one rule share one policy, others don't")
	}
}

func TestNamesOfPolicies(t *testing.T) {
	checkNames(t, ParsePresence, "off", "count", "full")
	checkNames(t, ParsePublish, "anyone", "members", "server")
	checkNames(t, ParseSlowConsumer, "disconnect", "drop-oldest", "latest", "latest-by-key")
	for want, parse := range map[string]func(string) error{
		`"Off": unknown; use off, count or full`:                                 func(s string) error { _, err := ParsePresence(s); return err },
		`"": unknown; use anyone, members or server`:                             func(s string) error { _, err := ParsePublish(s); return err },
		`"shout": unknown; use disconnect, drop-oldest, latest or latest-by-key`: func(s string) error { _, err := ParseSlowConsumer(s); return err },
	} {
		bad := strings.Split(want, `"`)[1]
		if err := parse(bad); err == nil || err.Error() != want {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// checkNames holds the names against the values 0, 1, 2.
func checkNames[E interface {
	~uint8
	fmt.Stringer
}](t *testing.T, parse func(string) (E, error), names ...string) {
	t.Helper()
	for i, name := range names {
		if got, err := parse(name); err != nil || got != E(i) || got.String() != name {
			t.Errorf("%q is %v, %v", name, got, err)
		}
	}
}

func BenchmarkFor(b *testing.B) {
	for _, n := range []int{0, 10, 100} {
		var rules []Rule
		for i := range n {
			rules = append(rules, Rule{NewPattern(fmt.Sprintf("room-%d.*.chat", i)), DefaultPolicy()})
		}
		p := NewPolicies(Disconnect, rules...)
		for _, c := range []struct{ name, room string }{{"last", fmt.Sprintf("room-%d.eu.chat", n-1)}, {"none", "another"}} {
			b.Run(fmt.Sprintf("%d-rules-%s", n, c.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if p.For(c.room) == nil {
						b.Fatal("no policy")
					}
				}
			})
		}
	}
}

func TestForTakesNoMemory(t *testing.T) {
	p := NewPolicies(Disconnect, Rule{NewPattern("a*b*c"), DefaultPolicy()}, Rule{NewPattern("x"), DefaultPolicy()})
	if n := testing.AllocsPerRun(100, func() { p.For("a-b-d") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
