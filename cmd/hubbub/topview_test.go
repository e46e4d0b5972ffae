package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
)

// Whatever a room is called, its line has no control character, is as wide as the terminal at most, and its figures stand
// where those of the others do.
func TestHostileNamesOfRoomsInTheTable(t *testing.T) {
	now := &look{cpu: 1}
	now.figures.Node, now.figures.Time = "n\x1b[2Jode", 3_000
	for _, name := range []string{
		"plain", "\x1b[2J\x1b]0;title\a", "\u202Egnisrever\u202C", "\u2066isolate", "日本語の部屋の名前はとても長いです", "e\u0301tude", "z" + strings.Repeat("\u0336\u0489", 40), "\u0301first",
		"a\r\nb\tc", "zero\u200Bwidth\u200D", "مرحبا", "👩\u200d👩\u200d👧 family", strings.Repeat("x", 500), "\x7f\u0085\u009b31m", "tag\U000E0041",
	} {
		now.rooms = append(now.rooms, topRoom{name, 12, 3.5})
	}
	for _, width := range []int{20, 33, 80, 200} {
		for _, height := range []int{3, 24, 100} {
			v := &view{now: now, sort: "members", width: width, height: height}
			lines := v.lines()
			if len(lines) > height {
				t.Errorf("%d lines at a height of %d", len(lines), height)
			}
			for _, line := range lines {
				if columnsIn(line) > width {
					t.Errorf("%d columns at a width of %d: %q", columnsIn(line), width, line)
				}
				for _, r := range line {
					if !unicode.IsPrint(r) {
						t.Errorf("%q has %U", line, r)
					}
				}
			}
			if height == 100 && width >= 33 {
				rooms := lines[len(lines)-len(now.rooms):]
				for _, line := range rooms {
					if !strings.HasPrefix(line, "      12         3.5  ") {
						t.Errorf("the figures don't stand where they should: %q", line)
					}
				}
			}
		}
	}
	if got := shownName("z"+strings.Repeat("\u0301", 5), 80); got != "z\u0301\u0301\\u0301\\u0301\\u0301" {
		t.Errorf("%q", got)
	}
	if got := shownName("日本語", 5); got != "日本…" || columnsIn(got) != 5 {
		t.Errorf("%q", got)
	}
	if got := shownName("日本語", 6); got != "日本語" {
		t.Errorf("%q", got)
	}
}

// Rates are of two looks at one process; without both there are none.
func TestRatesInTheTable(t *testing.T) {
	var a, b look
	a.figures.Time, b.figures.Time = 10_000, 12_000
	a.figures.Sent, b.figures.Sent = 100, 5_100
	a.figures.Dropped, b.figures.Dropped = map[string]int64{"latest": 1}, map[string]int64{"latest": 2, "disconnect": 4}
	a.cpu, b.cpu = 1, 2
	b.figures.Closed = map[string]int64{"4000": 7}
	worker := &b.figures
	worker.Workers = append(worker.Workers, struct {
		Connections, Waiting int
		BusyMicros           int64 `json:"busy_micros"`
	}{3, 4, 500_000})
	v := &view{last: &a, now: &b, sort: "rate", width: 100, height: 50}
	shown := strings.Join(v.lines(), "\n")
	for _, want := range []string{"out 2500 msg/s", "dropped 2.5/s, 6 in all", "7 as too slow", "cpu 50 %", "     0            3   25 %      4", "by messages"} {
		if !strings.Contains(shown, want) {
			t.Errorf("no %q in\n%s", want, shown)
		}
	}
	a.figures.Started = 1 // it was another process
	if shown := strings.Join(v.lines(), "\n"); !strings.Contains(shown, "out - msg/s") || !strings.Contains(shown, "cpu -") {
		t.Errorf("rates over a restart:\n%s", shown)
	}
	for i := range 40 {
		v.now.figures.Workers = append(v.now.figures.Workers, v.now.figures.Workers[0])
		_ = i
	}
	if shown := strings.Join(v.lines(), "\n"); !strings.Contains(shown, fmt.Sprintf("... and %d more", 41-maxTopWorkers)) {
		t.Errorf("41 workers:\n%s", shown)
	}
	for key, want := range map[byte]string{'?': "pause, and go on", 'p': "PAUSED"} {
		if v.key(key); !strings.Contains(strings.Join(v.lines(), "\n"), want) {
			t.Errorf("behind %c there is no %q", key, want)
		}
		v.key(key)
	}
}

// Clients stand beside the rooms where the terminal has the lines for both, and alone where c was pressed; their names
// are shown as safely as those of rooms, and the columns stay where they are.
func TestClientsInTheTable(t *testing.T) {
	now := &look{cpu: 1}
	now.figures.Time = 200_000_000
	for i, user := range []string{"slow", "", "日本語の部屋の名前", "\x1b[2J\u202Eevil", strings.Repeat("x", 300)} {
		now.clients = append(now.clients, topClient{strings.Repeat("0", 36), user, int64(i) * 40_000_000, int64(4-i) << 20, []string{"a\x1b[31m", "b"}})
	}
	now.rooms = []topRoom{{"lobby", 2, 1}}
	v := &view{now: now, sort: "members", width: 120, height: 40}
	table := func() string { return strings.Join(v.lines(), "\n") }
	want := "   4.0 MiB    2d      2  slow          " + strings.Repeat("0", 36) + "  a\\u001b[31m, b"
	if got := table(); !strings.Contains(got, want) || !strings.Contains(got, "lobby") || strings.Index(got, "slow") > strings.Index(got, "lobby") {
		t.Errorf("both don't stand there:\n%s\nwant %s", got, want)
	}
	for _, line := range v.lines() {
		if strings.Contains(line, strings.Repeat("0", 36)) && columnsIn(line[:strings.Index(line, "000")]) != 39 {
			t.Errorf("the columns don't stand where they should: %q", line)
		}
		for _, r := range line {
			if !unicode.IsPrint(r) {
				t.Errorf("%q has %U", line, r)
			}
		}
	}
	if v.height = 12; strings.Contains(table(), "UNSENT") || !strings.Contains(table(), "lobby") {
		t.Errorf("12 lines have no place for both:\n%s", table())
	}
	if v.key('c'); !strings.Contains(table(), want) || strings.Contains(table(), "lobby") {
		t.Errorf("behind c there are clients alone:\n%s", table())
	}
	now.clients, now.noClients = nil, errors.New("a worker\x1b hangs")
	if got := table(); !strings.Contains(got, "they can't be had: a worker") || strings.Contains(got, "\x1b") || strings.Contains(got, "there are no") {
		t.Errorf("nothing says why there are none:\n%s", got)
	}
	if v.key('c'); !strings.Contains(table(), "lobby") {
		t.Errorf("c doesn't bring the rooms back:\n%s", table())
	}
	for age, want := range map[time.Duration]string{-time.Second: "0s", 59 * time.Second: "59s", 61 * time.Minute: "1h", 47 * time.Hour: "47h", 50 * time.Hour: "2d"} {
		if got := ageText(age); got != want {
			t.Errorf("%s is %s, want %s", age, got, want)
		}
	}
}

// At 80 columns nothing but names is cut: figures go on on a next line, and of the clients' columns those go that matter
// least. At 140 all are there, and a user's name has more of them.
func TestTheTableByWidth(t *testing.T) {
	now := &look{cpu: 1}
	now.figures.Node, now.figures.Version, now.figures.Time, now.figures.MaxConnections = "chat-7d4b9c-x2x9q", "1.2.3-45-g0123456789ab", 200_000_000, 1_000_000
	now.figures.Memory.MaxBuffered, now.figures.Memory.Process, now.figures.Memory.Buffered, now.figures.Memory.History = 1<<30, 999<<20, 999<<20, 999<<20
	now.figures.NotReady = "this node is cut off from the others"
	id, user := "7c1f0a52-"+strings.Repeat("0", 27), "ann.of.the.long.name@example.com"
	now.clients = []topClient{{id, user, 0, 4 << 20, []string{"lobby", "room.of.a.longer.name", "another"}}}
	now.rooms = []topRoom{{"lobby", 2, 1}}
	for _, tt := range []struct {
		width int
		heads string
		wants []string
	}{
		{62, "    UNSENT  USER          CLIENT", []string{"   4.0 MiB  ann.of.the.…  " + id}},
		{80, "    UNSENT  USER          CLIENT                                IN", []string{"   4.0 MiB  ann.of.the.…  " + id + "  lobby, room.of.…"}},
		{86, "    UNSENT   AGE  USER          CLIENT                                IN", nil},
		{93, "    UNSENT   AGE  ROOMS  USER          CLIENT                                IN", nil},
		{140, "    UNSENT   AGE  ROOMS  USER                    CLIENT                                IN", []string{"ann.of.the.long.name@…  " + id + "  lobby, room.of.a.longer.name, another"}},
		{180, "    UNSENT   AGE  ROOMS  USER                                      CLIENT                                IN", []string{user + "          " + id + "  lobby, "}},
	} {
		v := &view{now: now, sort: "members", width: tt.width, height: 60, err: errors.New("nobody listens at http://localhost:9000: start hubbub serve there, or say by --url or HUBBUB_URL where it is")}
		lines := v.lines()
		table := strings.Join(lines, "\n")
		if !strings.Contains(table, "\n"+tt.heads+"\n") {
			t.Errorf("at %d columns the clients' heads aren't\n%s\nbut\n%s", tt.width, tt.heads, table)
		}
		whole := strings.Join(strings.Fields(table), " ")
		for _, want := range append(tt.wants, "NOT READY: this node is cut off from the others", "connections 0 of 1000000 clients 0 parked 0 rooms 0", "memory 999.0 MiB buffered 999.0 MiB of 1.0 GiB history 999.0 MiB cpu -",
			"or say by --url or HUBBUB_URL where it is", "dropped -/s, 0 in all errors -/s closed -/s, 0 as too slow panics 0") {
			if !strings.Contains(whole, strings.Join(strings.Fields(want), " ")) {
				t.Errorf("at %d columns there is no %q in\n%s", tt.width, want, table)
			}
		}
		for _, line := range lines {
			if columnsIn(line) > tt.width || strings.Contains(line, "…") && !strings.Contains(line, id) {
				t.Errorf("at %d columns a line is %q", tt.width, line)
			}
		}
	}
}
