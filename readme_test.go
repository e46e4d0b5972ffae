package hubbub_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The README's figures are those of docs/benchmarks.md, which `make bench` writes: here is what to correct after it.
func TestFiguresOfTheREADME(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	measured, err := os.ReadFile("docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(readme), "\n## Fast, and small\n")
	shown, _, _ = strings.Cut(shown, "\n## ")
	table := tableRows(shown)
	if len(table) < 4 {
		t.Fatalf("README.md shows %v", table)
	}
	servers := table[0][1:]
	for _, row := range table[1:] {
		m := regexp.MustCompile("^`([a-z0-9-]+)`: (deliveries/s|p99 µs|RSS)\\b").FindStringSubmatch(row[0])
		if m == nil || len(row) != len(table[0]) {
			t.Errorf("README.md has a row %q, of which nobody knows where it is from", row[0])
			continue
		}
		_, scenario, _ := strings.Cut(string(measured), "\n### `"+m[1]+"`")
		scenario, _, _ = strings.Cut(scenario, "\n#")
		from := tableRows(scenario)
		column := -1
		if len(from) > 0 {
			column = slices.Index(from[0], m[2])
		}
		if column < 0 {
			t.Errorf("docs/benchmarks.md has no %s of %s", m[2], m[1])
			continue
		}
		for i, server := range servers {
			at := slices.IndexFunc(from, func(r []string) bool { return r[0] == server })
			if at < 0 || from[at][column] != row[1+i] {
				t.Errorf("README.md: %s of %s: %s, and docs/benchmarks.md has %v", row[0], server, row[1+i], from)
			}
		}
	}
}

// tableRows are the cells of a text's table, its head first.
func tableRows(text string) (rows [][]string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}
