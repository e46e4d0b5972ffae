package main

import (
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"example.com/hubbub"
)

// printed is what a command of ours prints, or its error as main would tell it.
func printed(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var c cli
	ctx, err := newParser(&c).Parse(args)
	if err != nil {
		return "", explained(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = stdout }()
	out := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		out <- string(b)
	}()
	err = ctx.Run()
	w.Close()
	return <-out, err
}

// rooms are the rules of a file.
func rooms(t *testing.T, text string) []hubbub.RoomPolicy {
	t.Helper()
	c, _, err := parse(t, nil, "serve", "--config", write(t, text))
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return c.config(nil).Rooms
}

func TestTheFilesRooms(t *testing.T) {
	got := rooms(t, `
rooms:
  - match: chat.*
    history: {messages: 500, age: 10m, bytes: 1MiB}
    presence: full
    publish: members
    include-sender: on
    slow-consumer: drop-oldest
    idle-ttl: 1h
  - match: "*.quiet"     # unquoted off
    history: off
    presence: off
    include-sender: off
    idle-ttl: 0s
  - match: 'quoted'
    history: "off"
    presence: 'off'
    include-sender: "on"
  - match: part
    history:
      bytes: 65536
  - {match: 1e3}
  - match: base
    history: &short {age: 5s}
  - match: alias
    history: *short
  - match: copies
    history: {replicas: 3}
`)
	off := &hubbub.History{}
	want := []hubbub.RoomPolicy{
		{Match: "chat.*", History: &hubbub.History{Messages: 500, Age: 10 * time.Minute, Bytes: 1 << 20}, Presence: "full", Publish: "members",
			IncludeSender: true, SlowConsumer: "drop-oldest", IdleTTL: new(time.Hour)},
		{Match: "*.quiet", History: off, Presence: "off", IdleTTL: new(time.Duration(0))},
		{Match: "quoted", History: off, Presence: "off", IncludeSender: true},
		{Match: "part", History: &hubbub.History{Bytes: 64 << 10}},
		{Match: "1e3"},
		{Match: "base", History: &hubbub.History{Age: 5 * time.Second}},
		{Match: "alias", History: &hubbub.History{Age: 5 * time.Second}},
		{Match: "copies", History: &hubbub.History{Replicas: 3}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, text := range []string{"rooms: []\n", "listen: :1\n", ""} {
		if got := rooms(t, text); len(got) != 0 {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

// Each is the whole error but for the file's name, FILE.
func TestABadRuleIsRefusedByKeyAndLine(t *testing.T) {
	const keys = "match, history, presence, join, read, publish, include-sender, slow-consumer or idle-ttl"
	const rule = "rooms:\n  - match: a*\n    "
	for _, c := range []struct{ text, want string }{
		// The form.
		{"rooms:\n", `FILE: line 1: rooms: a list of rules is wanted, each with a match`},
		{"rooms: off\n", `FILE: line 1: rooms: a list of rules is wanted, each with a match`},
		{"rooms: {match: a}\n", `FILE: line 1: rooms: a list of rules is wanted, each with a match`},
		{"rooms:\n  - match: a\n  - chat.*\n", `FILE: line 3: rooms[1]: a mapping is wanted, of ` + keys},
		{"rooms: []\nlisten: :1\nrooms: []\n", `FILE: line 3: rooms: stands in line 1 already`},
		{rule + "presents: off\n", `FILE: line 3: rooms[0].presents: there is no such key; use ` + keys},
		{rule + "Presence: off\n", `FILE: line 3: rooms[0].Presence: there is no such key; use ` + keys},
		{rule + "<<: {presence: off}\n", `FILE: line 3: rooms[0].<<: there is no such key; use ` + keys},
		{rule + "match: b\n", `FILE: line 3: rooms[0].match: stands in line 2 already`},
		{rule + "presence:\n", `FILE: line 3: rooms[0].presence: there is no value`},
		{rule + "presence: ''\n", `FILE: line 3: rooms[0].presence: there is no value`},
		{rule + "presence: [off]\n", `FILE: line 3: rooms[0].presence: one value is wanted, not a list`},
		{"rooms:\n  - match: in.${user}\n    include-sender: off\n", `FILE: line 3: rooms[0].include-sender: can't be set where the match has ${user}, off neither`},
		{rule + "publish: {a: b}\n", `FILE: line 3: rooms[0].publish: a value is wanted, not a mapping`},
		{rule + "include-sender: true\n", `FILE: line 3: rooms[0].include-sender: "true": unknown; use on or off`},
		{rule + "idle-ttl: 5\n", `FILE: line 3: rooms[0].idle-ttl: "5" is no time: write 25s or 2m`},
		{rule + "history: on\n", `FILE: line 3: rooms[0].history: "on": write off, or a mapping of messages, age, bytes or replicas`},
		{rule + "history:\n", `FILE: line 3: rooms[0].history: "": write off, or a mapping of messages, age, bytes or replicas`},
		{rule + "history: {}\n", `FILE: line 3: rooms[0].history: write off, or a mapping of messages, age, bytes or replicas`},
		{rule + "history: [100]\n", `FILE: line 3: rooms[0].history: write off, or a mapping of messages, age, bytes or replicas`},
		{rule + "history:\n      ages: 1s\n", `FILE: line 4: rooms[0].history.ages: there is no such key; use messages, age, bytes or replicas`},
		{rule + "history:\n      messages: many\n", `FILE: line 4: rooms[0].history.messages: "many" is no number`},
		{rule + "history:\n      messages: 0\n", `FILE: line 4: rooms[0].history.messages: 0: must be greater; to keep nothing write history: off`},
		{rule + "history:\n      age: 1s\n      bytes: 64furlongs\n", `FILE: line 5: rooms[0].history.bytes: "64furlongs" is no size: write 65536, 64KiB or 1MiB`},
		{rule + "history: {age: 0s}\n", `FILE: line 3: rooms[0].history.age: 0s: must be greater; to keep nothing write history: off`},
		{rule + "history: {replicas: 0}\n", `FILE: line 3: rooms[0].history.replicas: 0: must be greater; to keep nothing write history: off`},
		{rule + "history:\n      replicas: 3\n", `FILE: line 4: rooms[0].history.replicas 3: there are no stores; set cluster-listen, join or nats (match "a*")`},
		{rule + "publish: [a]\n    idle-ttl: x\n", `FILE: line 3: rooms[0].publish: one value is wanted, not a list` + "\n" + `FILE: line 4: rooms[0].idle-ttl: "x" is no time: write 25s or 2m`},
		// What the library knows better, and the line with it.
		{rule + "presence: Off\n", `FILE: line 3: rooms[0].presence "Off": unknown; use off, count or full (match "a*")`},
		{rule + "slow-consumer: no\n", `FILE: line 3: rooms[0].slow-consumer "no": unknown; use disconnect, drop-oldest, latest or latest-by-key (match "a*")`},
		{rule + "history:\n      age: 1s\n      bytes: 1GiB\n", `FILE: line 5: rooms[0].history.bytes 1073741824: not between 1 and 268435456 (match "a*")`},
		{rule + "idle-ttl: -1s\n", `FILE: line 3: rooms[0].idle-ttl -1s: not between 0s and 24h (match "a*")`},
		{"rooms:\n  - match: a\n  - presence: off\n", `FILE: line 3: rooms[1].match "": empty; "*" is every room`},
		{"rooms:\n  - match: ''\n", `FILE: line 2: rooms[0].match "": empty; "*" is every room`},
		{"rooms:\n  - match: a*\n  - presence: off\n    match: ab\n", `FILE: line 4: rooms[1].match "ab": never reached: rooms[0], match "a*", comes first`},
		{"rooms:\n" + strings.Repeat("  - match: a\n", 1001), `FILE: line 1: rooms: 1001 rules, at most 1000 are allowed`},
	} {
		path := write(t, c.text)
		for _, command := range [][]string{{"config"}, {"config", "--room", "a"}} {
			_, err := printed(t, append(command, "--config", path)...)
			if err == nil {
				t.Errorf("taken: %s", c.text)
			} else if got := strings.ReplaceAll(err.Error(), path, "FILE"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		}
	}
}

// What hubbub config prints is a file with the same rooms, also when a name has all that could mean something to YAML.
func TestRoomsArePrintedAsAFile(t *testing.T) {
	for _, text := range []string{
		"",
		"slow-consumer: latest\nrooms:\n  - {match: a, slow-consumer: disconnect}\n  - match: b\n",
		`
rooms:
  - {match: "off", history: off, presence: off, publish: server, include-sender: on, idle-ttl: 1500ms}
  - {match: "a: b # c", history: {messages: 1, replicas: 1}}
  - {match: "'\"\\*[]{}&!|>%@` + "`" + `", history: {age: 90s}}
  - {match: " blanks ", history: {bytes: 1500}}
  - {match: "Grüße, 世界 🎉 \uFEFF\u200B\u00A0", presence: full}
  - {match: "` + strings.Repeat("x y ", 60) + `"}
  - {match: "- no"}
  - {match: "1_000"}
  - {match: "in.${user}", join: users, publish: granted}
  - {match: "in.*", join: server, read: granted}
  - {match: "*"}
`,
	} {
		want := hubbub.Config{SlowConsumer: "latest", Rooms: rooms(t, text)}.Effective().Rooms
		out, err := printed(t, "config", "--slow-consumer", "latest", "--config", write(t, text))
		if err != nil {
			t.Fatal(err)
		}
		got := rooms(t, out)
		if (hubbub.Config{Rooms: got}).Validate() != nil || !reflect.DeepEqual(hubbub.Config{Rooms: got}.Effective().Rooms, want) {
			t.Errorf("from\n%s\ncame\n%s", text, out[strings.Index(out, "\nrooms"):])
		}
		again, err := printed(t, "config", "--config", write(t, out))
		if err != nil || !reflect.DeepEqual(rooms(t, again), got) {
			t.Errorf("the second time: %v\n%s", err, again)
		}
	}
}

func TestConfigUserSaysWhatAUserMayDoAndWhy(t *testing.T) {
	path := write(t, "direct: users\nrooms:\n  - match: inbox.${user}\n    publish: granted\n  - match: inbox.*\n    join: server\n")
	for _, c := range []struct {
		room, user string
		want       []string
	}{
		{"inbox.ann", "ann", []string{
			`# What the user "ann" may do in the room "inbox.ann". Hooks of your program may forbid more.`,
			`join: yes # anyone, by the rule for "inbox.${user}" (rooms[0], from the file FILE, line 3)`,
			`read: yes # anyone, by the rule for "inbox.${user}" (rooms[0], from the file FILE, line 3)`,
			`publish: with a token # granted, by the rule for "inbox.${user}" (rooms[0], from the file FILE, line 3); its claim hubbub needs {"publish": ["inbox.ann"]}`,
			`chat: yes # anyone, by --chat, the default`, `direct: yes # users, by --direct, from the file FILE, line 1`}},
		{"inbox.ann", "bob", []string{
			`# What the user "bob" may do in the room "inbox.ann". Hooks of your program may forbid more.`,
			`join: no # server, by the rule for "inbox.*" (rooms[1], from the file FILE, line 5)`,
			`read: as a member # members, by the rule for "inbox.*" (rooms[1], from the file FILE, line 5)`,
			`publish: as a member # members, by the rule for "inbox.*" (rooms[1], from the file FILE, line 5)`,
			`chat: yes # anyone, by --chat, the default`, `direct: yes # users, by --direct, from the file FILE, line 1`}},
		{"tea", "", []string{
			`# What a client without a name may do in the room "tea". Hooks of your program may forbid more.`,
			`join: yes # anyone, by the default: no rule has a match for it`, `read: yes # anyone, by the default: no rule has a match for it`,
			`publish: yes # anyone, by the default: no rule has a match for it`,
			`chat: yes # anyone, by --chat, the default`, `direct: no # users, by --direct, from the file FILE, line 1`}},
	} {
		out, err := printed(t, "config", "--config", path, "--room", c.room, "--user", c.user)
		if got := strings.TrimSpace(strings.ReplaceAll(out, path, "FILE")); err != nil || got != strings.Join(c.want, "\n") {
			t.Errorf("%s in %s: %v\n%s", c.user, c.room, err, got)
		}
	}
	if _, err := printed(t, "config", "--user", "ann"); err == nil || !strings.Contains(err.Error(), "--room") {
		t.Errorf("without a room: %v", err)
	}
}

func TestConfigRoomSaysWhatARoomGetsAndWhy(t *testing.T) {
	path := write(t, "slow-consumer: drop-oldest\nrooms:\n  - match: chat.*\n    history: off\n    presence: full\n  - match: game\n    history: {age: 1500ms}\n    slow-consumer: latest\n")
	const inFile = " # from the file FILE, line "
	for _, c := range []struct {
		room, by string
		lines    []string
	}{
		{"chat.1", `the rule for "chat.*" (rooms[0], from the file FILE, line 3)`, []string{
			`match: "chat.*"` + inFile + "3", "history: off" + inFile + "4", "presence: full" + inFile + "5", "join: anyone # the default", "read: anyone # the default", "publish: anyone # the default",
			"include-sender: off # the default", "slow-consumer: drop-oldest" + inFile + "1", "idle-ttl: 0s # the default"}},
		{"game", `the rule for "game" (rooms[1], from the file FILE, line 6)`, []string{
			`match: "game"` + inFile + "6", "history:" + inFile + "7", "  messages: 100 # the default", "  age: 2s" + inFile + "7", "  bytes: 64KiB # the default",
			"presence: count # the default", "join: anyone # the default", "read: anyone # the default", "publish: anyone # the default", "include-sender: off # the default",
			"slow-consumer: latest" + inFile + "8", "idle-ttl: 2s # the default"}},
		{"lobby", `the rule for "lobby", which is built in`, []string{
			`match: "lobby" # built in`, "history: # built in", "  messages: 100 # built in", "  age: 2m0s # built in", "  bytes: 64KiB # built in",
			"presence: full # built in", "join: anyone # built in", "read: anyone # built in", "publish: anyone # built in", "include-sender: off # built in",
			"slow-consumer: drop-oldest" + inFile + "1", "idle-ttl: 2m0s # built in"}},
		{"a room", `the default: no rule has a match for it`, []string{
			`match: "*" # built in`, "history: # built in", "  messages: 100 # built in", "  age: 2m0s # built in", "  bytes: 64KiB # built in",
			"presence: count # built in", "join: anyone # built in", "read: anyone # built in", "publish: anyone # built in", "include-sender: off # built in",
			"slow-consumer: drop-oldest" + inFile + "1", "idle-ttl: 2m0s # built in"}},
	} {
		out, err := printed(t, "config", "--config", path, "--room", c.room)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		comments := 0
		for line := range strings.Lines(strings.ReplaceAll(out, path, "FILE")) {
			switch line = strings.TrimSuffix(line, "\n"); {
			case strings.HasPrefix(line, "#"):
				comments++
			case line != "":
				lines = append(lines, line)
			}
		}
		if !reflect.DeepEqual(lines, c.lines) || comments < 8 {
			t.Errorf("%s gets\n%s", c.room, out)
		}
		if first := "# What the room \"" + c.room + "\" gets, by " + c.by + ".\n"; !strings.HasPrefix(strings.ReplaceAll(out, path, "FILE"), first) {
			t.Errorf("no %q in\n%s", first, out)
		}
		var values map[string]any
		if err := yaml.Unmarshal([]byte(out), &values); err != nil || len(values) != 9 {
			t.Errorf("%v: %v", err, values)
		}
	}
	// Where the policy for slow consumers is from, when no rule names one.
	out, err := printed(t, "config", "--config", path, "--room", "chat.1", "--slow-consumer", "latest")
	if err != nil || !strings.Contains(out, "\nslow-consumer: latest # from the flag --slow-consumer\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestConfigRefusesABadRoom(t *testing.T) {
	for room, want := range map[string]string{
		"":   `--room "": room is empty`,
		" ":  `--room " ": room is only white space`,
		"\n": `--room "\n": room has the character U+000A, which is not allowed in a room's name`,
	} {
		if out, err := printed(t, "config", "--room", room); err == nil || err.Error() != want || out != "" {
			t.Errorf("%q: %v, want %s; it prints %q", room, err, want, out)
		}
	}
	// A room is no setting.
	if _, _, err := parse(t, nil, "serve", "--room", "x"); err == nil {
		t.Error("serve takes --room")
	}
	if _, _, err := parse(t, nil, "config", "--config", write(t, "room: x\n")); err == nil || !strings.Contains(err.Error(), "line 1: room: there is no such setting") {
		t.Errorf("the file takes room: %v", err)
	}
	if out, err := func() (string, error) { t.Setenv("HUBBUB_ROOM", "x"); return printed(t, "config") }(); err != nil || !strings.Contains(out, "\nrooms: [] # the default\n") {
		t.Errorf("the environment sets --room: %v\n%s", err, out)
	}
}

// The page on permissions shows what hubbub config really says of the rules that it shows.
func TestThePageOnPermissionsIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../docs/permissions.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	rules, rest, _ := strings.Cut(rest, "```")
	_, rest, _ = strings.Cut(rest, "```console\n")
	console, _, _ := strings.Cut(rest, "```")
	command, want, _ := strings.Cut(strings.TrimPrefix(console, "$ hubbub "), "\n")
	path := write(t, rules)
	got, err := printed(t, strings.Fields(strings.ReplaceAll(command, "hubbub.yaml", path))...)
	if got = strings.ReplaceAll(got, path, "hubbub.yaml"); err != nil || got != want {
		t.Errorf("%s: %v\n%s\nthe page says\n%s", command, err, got, want)
	}
}
