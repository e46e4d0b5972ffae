package main

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
)

func columns(text string) (n int) {
	for _, r := range text {
		n += columnsOf(r)
	}
	return n
}

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
				if columns(line) > width {
					t.Errorf("%d columns at a width of %d: %q", columns(line), width, line)
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
	if got := shownName("日本語", 5); got != "日本…" || columns(got) != 5 {
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
