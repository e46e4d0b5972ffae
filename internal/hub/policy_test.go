package hub

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/history"
)

func TestTheFirstRuleThatMatchesCounts(t *testing.T) {
	off := Policy{SlowConsumer: Latest}
	members := Policy{Access: Access{Publish: Members}}
	all := Policy{Access: Access{Publish: ServerOnly}}
	rules := []Rule{{glob.New("chat.quiet"), off}, {glob.New("chat.*"), members}}
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
		{NewPolicies(Disconnect, Rule{glob.New("lobby"), off}), "lobby", 0, "lobby", off},
		{NewPolicies(Disconnect, Rule{glob.New("l*"), off}), "lobby", 0, "l*", off},
		{NewPolicies(Disconnect, rules[1], Rule{glob.New("*"), all}), "lobby", 1, "*", all},
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
	checkNames(t, ParseWho, "anyone", "members", "users", "granted", "server")
	checkNames(t, ParseSlowConsumer, "disconnect", "drop-oldest", "latest", "latest-by-key")
	for want, parse := range map[string]func(string) error{
		`"Off": unknown; use off, count or full`:                                 func(s string) error { _, err := ParsePresence(s); return err },
		`"": unknown; use anyone, members, users, granted or server`:             func(s string) error { _, err := ParseWho(s); return err },
		`"members": unknown; use anyone, users, granted or server`:               func(s string) error { _, err := ParseOutsider(s); return err },
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
			rules = append(rules, Rule{glob.New(fmt.Sprintf("room-%d.*.chat", i)), DefaultPolicy()})
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
	p := NewPolicies(Disconnect, Rule{glob.New("a*b*c"), DefaultPolicy()}, Rule{glob.New("x"), DefaultPolicy()})
	if n := testing.AllocsPerRun(100, func() { p.For("a-b-d") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
