package hubbub_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
)

// policy is one with every field set, as PolicyOf gives it.
func policy(match string, change func(*hubbub.RoomPolicy)) hubbub.RoomPolicy {
	p := hubbub.RoomPolicy{
		Match: match, History: &hubbub.History{Messages: 100, Age: 2 * time.Minute, Bytes: 64 << 10}, Presence: "count", Join: "anyone", Read: "anyone", Publish: "anyone",
		SlowConsumer: "disconnect", IdleTTL: new(2 * time.Minute),
	}
	if change != nil {
		change(&p)
	}
	return p
}

func TestWhatARoomGets(t *testing.T) {
	cfg := hubbub.Config{Rooms: []hubbub.RoomPolicy{
		{Match: "all.set", History: &hubbub.History{Messages: 1, Age: time.Hour, Bytes: 5, Replicas: 1}, Presence: "off", Join: "users", Read: "granted", Publish: "server",
			IncludeSender: true, SlowConsumer: "latest-by-key", IdleTTL: new(time.Minute)},
		{Match: "bare.*"},
		{Match: "off", History: &hubbub.History{}},
		{Match: "off.kept", History: &hubbub.History{}, IdleTTL: new(time.Hour)},
		{Match: "some", History: &hubbub.History{Age: 1500 * time.Millisecond}}, // rounded up
		{Match: "atonce", History: &hubbub.History{Bytes: 1}, IdleTTL: new(time.Duration(0))},
	}}
	before := *cfg.Rooms[4].History
	for _, c := range []struct {
		room string
		rule int
		want hubbub.RoomPolicy
	}{
		{"all.set", 0, cfg.Rooms[0]},
		{"bare.", 1, policy("bare.*", nil)},
		{"bare.x.y", 1, policy("bare.*", nil)},
		{"off", 2, policy("off", func(p *hubbub.RoomPolicy) { p.History, p.IdleTTL = &hubbub.History{}, new(time.Duration(0)) })},
		{"off.kept", 3, policy("off.kept", func(p *hubbub.RoomPolicy) { p.History, p.IdleTTL = &hubbub.History{}, new(time.Hour) })},
		{"some", 4, policy("some", func(p *hubbub.RoomPolicy) { p.History.Age, p.IdleTTL = 2*time.Second, new(2*time.Second) })},
		{"atonce", 5, policy("atonce", func(p *hubbub.RoomPolicy) { p.History.Bytes, p.IdleTTL = 1, new(time.Duration(0)) })},
		{"lobby", -1, policy("lobby", func(p *hubbub.RoomPolicy) { p.Presence = "full" })},
		{"any other", -1, policy("*", nil)},
	} {
		got, rule, err := cfg.PolicyOf(c.room)
		if err != nil || rule != c.rule || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: rule %d, %+v (%v), want rule %d, %+v", c.room, rule, got, err, c.rule, c.want)
		}
	}
	if effective := cfg.Effective().Rooms; !reflect.DeepEqual(effective[1], policy("bare.*", nil)) {
		t.Errorf("effective: %+v", effective[1])
	}
	if cfg.Rooms[1].History != nil || cfg.Rooms[1].Presence != "" || *cfg.Rooms[4].History != before {
		t.Errorf("the caller's own rules were filled in: %+v", cfg.Rooms)
	}
}

func TestRoomsThatNameNoneTakeTheServersSlowConsumer(t *testing.T) {
	for _, server := range []string{"disconnect", "drop-oldest", "latest", "latest-by-key"} {
		cfg := hubbub.Config{SlowConsumer: server, Rooms: []hubbub.RoomPolicy{{Match: "own", SlowConsumer: "disconnect"}, {Match: "none"}}}
		for room, want := range map[string]string{"own": "disconnect", "none": server, "lobby": server, "other": server} {
			if got, _, err := cfg.PolicyOf(room); err != nil || got.SlowConsumer != want {
				t.Errorf("%s under %s: %q (%v)", room, server, got.SlowConsumer, err)
			}
		}
	}
}

func TestARuleOfOnesOwnCountsBeforeTheLobbys(t *testing.T) {
	for _, match := range []string{"lobby", "lob*", "*"} {
		got, rule, err := hubbub.Config{Rooms: []hubbub.RoomPolicy{{Match: match}}}.PolicyOf("lobby")
		if err != nil || rule != 0 || got.Presence != "count" {
			t.Errorf("%s: rule %d, presence %s (%v)", match, rule, got.Presence, err)
		}
	}
}

func TestABadRuleIsRefusedByName(t *testing.T) {
	history := func(h hubbub.History) []hubbub.RoomPolicy { return []hubbub.RoomPolicy{{Match: "a*", History: &h}} }
	for _, c := range []struct {
		rooms []hubbub.RoomPolicy
		want  string
	}{
		{[]hubbub.RoomPolicy{{}}, `rooms[0].match "": empty; "*" is every room`},
		{[]hubbub.RoomPolicy{{Match: "a"}, {Match: "b\n*"}}, `rooms[1].match "b\n*": no room has such a name: room has the character U+000A, which is not allowed in a room's name`},
		{[]hubbub.RoomPolicy{{Match: strings.Repeat("a", 256)}}, `no room has such a name: room has 256 bytes, at most 255 are allowed`},
		{[]hubbub.RoomPolicy{{Match: "  "}}, `rooms[0].match "  ": no room has such a name: room is only white space`},
		{[]hubbub.RoomPolicy{{Match: "\xff*"}}, `rooms[0].match "\xff*": no room has such a name: room is not valid UTF-8`},
		{[]hubbub.RoomPolicy{{Match: "a"}, {Match: "b"}, {Match: "a"}}, `rooms[2].match "a": never reached: rooms[0], match "a", comes first`},
		{[]hubbub.RoomPolicy{{Match: "a"}, {Match: "a*"}, {Match: "ab*c"}}, `rooms[2].match "ab*c": never reached: rooms[1], match "a*", comes first`},
		{[]hubbub.RoomPolicy{{Match: "*"}, {Match: "**"}}, `rooms[1].match "**": never reached: rooms[0], match "*", comes first`},
		{[]hubbub.RoomPolicy{{Match: "x"}, {Match: "a*", Presence: "some"}}, `rooms[1].presence "some": unknown; use off, count or full (match "a*")`},
		{[]hubbub.RoomPolicy{{Match: "a*", Publish: "nobody"}}, `rooms[0].publish "nobody": unknown; use anyone, members, users, granted or server (match "a*")`},
		{[]hubbub.RoomPolicy{{Match: "a*", Join: "members"}}, `rooms[0].join "members": unknown; use anyone, users, granted or server (match "a*")`},
		{[]hubbub.RoomPolicy{{Match: "a*", Read: "all"}}, `rooms[0].read "all": unknown; use anyone, members, users, granted or server (match "a*")`},
		{[]hubbub.RoomPolicy{{Match: "a.${user}", Join: "members"}}, `rooms[0].join "members": unknown; use anyone, users, granted or server (match "a.${user}")`},
		{[]hubbub.RoomPolicy{{Match: "a.${user}*"}}, `rooms[0].match "a.${user}*": a * right behind ${user} fits nothing: put a text between them that is in no user's name`},
		{[]hubbub.RoomPolicy{{Match: "a.${User}"}}, `rooms[0].match "a.${User}": there is no ${User}; did you mean ${user}, the client's own name?`},
		{[]hubbub.RoomPolicy{{Match: "a.${user}.${room}", Join: "users"}}, `there is no ${room}; did you mean ${user}, the client's own name?`},
		{[]hubbub.RoomPolicy{{Match: "a*"}, {Match: "a.${user}"}}, `rooms[1].match "a.${user}": never reached: rooms[0], match "a*", comes first`},
		{[]hubbub.RoomPolicy{{Match: "a.${user}.*"}, {Match: "a*"}, {Match: "a.${user}.*"}}, `rooms[2].match "a.${user}.*": never reached: rooms[0], match "a.${user}.*", comes first`},
		{[]hubbub.RoomPolicy{{Match: "a.${user}", Presence: "off"}}, `rooms[0].presence ` + alone},
		{[]hubbub.RoomPolicy{{Match: "a.${user}", History: &hubbub.History{}}}, `rooms[0].history ` + alone},
		{[]hubbub.RoomPolicy{{Match: "a.${user}", IncludeSender: true}}, `rooms[0].include-sender ` + alone},
		{[]hubbub.RoomPolicy{{Match: "a.${user}", SlowConsumer: "latest"}}, `rooms[0].slow-consumer ` + alone},
		{[]hubbub.RoomPolicy{{Match: "a.${user}", IdleTTL: new(time.Second)}}, `rooms[0].idle-ttl ` + alone},
		{[]hubbub.RoomPolicy{{Match: "a*", SlowConsumer: "shout"}}, `rooms[0].slow-consumer "shout": unknown; use disconnect, drop-oldest, latest or latest-by-key (match "a*")`},
		{[]hubbub.RoomPolicy{{Match: "a*", IdleTTL: new(-time.Nanosecond)}}, `rooms[0].idle-ttl -1ns: not between 0s and 24h (match "a*")`},
		{[]hubbub.RoomPolicy{{Match: "a*", IdleTTL: new(24*time.Hour + 1)}}, `rooms[0].idle-ttl 24h0m1s: not between 0s and 24h (match "a*")`},
		{history(hubbub.History{Messages: -1}), `rooms[0].history.messages -1: not between 1 and 100000 (match "a*")`},
		{history(hubbub.History{Messages: 100_001}), `rooms[0].history.messages 100001: not between 1 and 100000 (match "a*")`},
		{history(hubbub.History{Age: -time.Millisecond}), `rooms[0].history.age -1ms: not between 1s and 24h (match "a*")`},
		{history(hubbub.History{Age: 25 * time.Hour}), `rooms[0].history.age 25h0m0s: not between 1s and 24h (match "a*")`},
		{history(hubbub.History{Bytes: -1}), `rooms[0].history.bytes -1: not between 1 and 268435456 (match "a*")`},
		{history(hubbub.History{Bytes: 1 << 40}), `rooms[0].history.bytes 1099511627776: not between 1 and 268435456 (match "a*")`},
		{make([]hubbub.RoomPolicy, 1001), `rooms: 1001 rules, at most 1000 are allowed`},
	} {
		cfg := hubbub.Config{Rooms: c.rooms}
		err := cfg.Validate()
		if err == nil {
			t.Errorf("taken, want %s", c.want)
			continue
		}
		if lines := strings.Split(err.Error(), "\n"); !strings.HasSuffix(lines[0], c.want) {
			t.Errorf("%v\nwant %s", err, c.want)
		}
		if _, err := hubbub.New(cfg); err == nil {
			t.Errorf("New takes it: %s", c.want)
		}
		if _, _, err := cfg.PolicyOf("a"); err == nil {
			t.Errorf("PolicyOf takes it: %s", c.want)
		}
	}
	// The bounds themselves are taken.
	for _, r := range []hubbub.RoomPolicy{
		{Match: strings.Repeat("a", 255), History: &hubbub.History{Messages: 1, Age: 1, Bytes: 1}, IdleTTL: new(time.Duration(0))},
		{Match: "$user {user} ${user"},
		{Match: "*", History: &hubbub.History{Messages: 100_000, Age: 24 * time.Hour, Bytes: 256 << 20}, IdleTTL: new(24 * time.Hour)},
	} {
		if err := (hubbub.Config{Rooms: []hubbub.RoomPolicy{r}}).Validate(); err != nil {
			t.Error(err)
		}
	}
}

// alone is what is said of all else beside a match with a user's name.
const alone = "can't be set where the match has ${user}: join, read and publish alone; set it in a rule without (match \"a.${user}\")"

func TestWhoMayByDefault(t *testing.T) {
	for _, c := range []struct{ rule, want hubbub.RoomPolicy }{
		{hubbub.RoomPolicy{}, hubbub.RoomPolicy{Join: "anyone", Read: "anyone", Publish: "anyone"}},
		{hubbub.RoomPolicy{Join: "anyone", Publish: "server"}, hubbub.RoomPolicy{Join: "anyone", Read: "anyone", Publish: "server"}},
		{hubbub.RoomPolicy{Join: "users"}, hubbub.RoomPolicy{Join: "users", Read: "members", Publish: "members"}},
		{hubbub.RoomPolicy{Join: "granted", Read: "users"}, hubbub.RoomPolicy{Join: "granted", Read: "users", Publish: "members"}},
		{hubbub.RoomPolicy{Join: "server", Publish: "anyone"}, hubbub.RoomPolicy{Join: "server", Read: "members", Publish: "anyone"}},
	} {
		c.rule.Match = "a"
		got, _, err := hubbub.Config{Rooms: []hubbub.RoomPolicy{c.rule}}.PolicyOf("a")
		if err != nil || got.Join != c.want.Join || got.Read != c.want.Read || got.Publish != c.want.Publish {
			t.Errorf("%+v: %+v (%v)", c.rule, got, err)
		}
	}
}

// A rule for a client's own name says nothing of what the room keeps.
func TestWhatARoomKeepsDependsOnNoName(t *testing.T) {
	cfg := hubbub.Config{Rooms: []hubbub.RoomPolicy{
		{Match: "x"}, {Match: "in.${user}", Join: "users"}, {Match: "in.*", Join: "server", Presence: "off"}, {Match: "${user}", Join: "server"}, {Match: "y", Presence: "off"},
	}}
	for room, want := range map[string]int{"x": 0, "in.ann": 2, "y": 4, "z": -1} {
		p, rule, err := cfg.PolicyOf(room)
		if err != nil || rule != want || want > 0 && p.Presence != "off" {
			t.Errorf("%s: rule %d, %+v (%v)", room, rule, p, err)
		}
	}
}

func TestAllBadRulesAreNamedAtOnce(t *testing.T) {
	err := hubbub.Config{SlowConsumer: "whisper", Rooms: []hubbub.RoomPolicy{
		{Match: "a", Presence: "x", Publish: "y"}, {Match: "b"}, {Match: "c", SlowConsumer: "z"},
	}}.Validate()
	if err == nil {
		t.Fatal("taken")
	}
	got := strings.Split(err.Error(), "\n")
	for i, want := range []string{`slow-consumer "whisper"`, `rooms[0].presence "x"`, `rooms[0].publish "y"`, `rooms[2].slow-consumer "z"`} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Errorf("no %s as number %d in\n%v", want, i, err)
		}
	}
	if len(got) != 4 { // what rooms take from the server is said once
		t.Errorf("%d errors:\n%v", len(got), err)
	}
}

func TestPolicyOfARoomThatCantBe(t *testing.T) {
	for room, want := range map[string]string{
		"":                       `"": room is empty`,
		"a\x00":                  `"a\x00": room has the character U+0000, which is not allowed in a room's name`,
		strings.Repeat("a", 256): `room has 256 bytes, at most 255 are allowed`,
	} {
		if _, _, err := (hubbub.Config{}).PolicyOf(room); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", room, err, want)
		}
	}
}
