package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const small = `package small

var calls int

func Clamp(n, most int) int {
	if n > most {
		n = most
	}
	calls++
	return n
}

func Both(a, b bool) bool { return a && b }

func Far(n int) int {
	if n > 100 {
		return n - 100
	}
	return max(n, 0)
}
`

const smallTest = `package small

import "testing"

func TestClamp(t *testing.T) {
	if Clamp(5, 3) != 3 || Clamp(1, 3) != 1 {
		t.Error("not clamped")
	}
}

func TestBoth(t *testing.T) {
	if Both(true, false) || !Both(true, true) {
		t.Error("not both")
	}
}

func TestNear(t *testing.T) {
	if Far(7) != 7 {
		t.Error("not near")
	}
}
`

// The faults of a small package: which of them its tests find, and what is said of the others.
func TestFaultsOfASmallPackage(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.com/small\n\ngo 1.26\n", "small.go": small, "small_test.go": smallTest} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := openTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	judges := map[string][]string{".": {"."}}
	if err := mutants(tree, judges, []string{"."}, options{jobs: 2, limit: time.Minute, long: true, out: &out}); err != nil {
		t.Fatal(err)
	}
	var verdicts []string
	for line := range strings.Lines(out.String()) {
		if is, _, ok := strings.Cut(line, " ("); ok && strings.Contains(line, "small.go") {
			verdicts = append(verdicts, is)
		}
	}
	want := []string{
		"dead  small.go:13: not asked: b in a && b",
		"dead  small.go:19: min in place of max(n, 0)",
		"dead  small.go:16: always: n > 100",
		"dead  small.go:6: always: n > most",
		"dead  small.go:6: never: n > most",
		"dead  small.go:7: left out: n = most",
		"lives small.go:13: not asked: a in a && b", // no test has a false
		"lives small.go:16: >= in place of > in n > 100",
		"lives small.go:16: never: n > 100",
		"lives small.go:17: + in place of - in n - 100",
		"lives small.go:6: >= in place of > in n > most", // makes no difference
		"lives small.go:9: calls-- in place of calls++",
		"lives small.go:9: left out: calls++",
	}
	slices.Sort(verdicts)
	slices.Sort(want)
	if !slices.Equal(verdicts, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(verdicts, "\n"), strings.Join(want, "\n"))
	}
	if !strings.Contains(out.String(), "6 of  13 found, 46 %") {
		t.Errorf("the score is not 6 of 13:\n%s", out.String())
	}
}
