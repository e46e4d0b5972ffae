package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The epoch stays over a process that ends or is killed, and is another one where something may have come between.
func TestAnEpochIsAnotherOneWhereSomethingMayBeMissing(t *testing.T) {
	path := t.TempDir()
	file := filepath.Join(path, epochFile)
	run := func(rules string, ends bool) string {
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		mark, err := d.Epoch(rules)
		if err != nil || mark == "" {
			t.Fatalf("the mark is %q, %v", mark, err)
		}
		if ends {
			d.Ended()
		}
		return mark
	}
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]string{}
	first := run("a", true)
	seen[first] = "the first"
	if got := run("a", false); got != first {
		t.Error("another one after an end")
	}
	if got := run("a", false); got != first {
		t.Error("another one after a kill")
	}
	b, _ := os.ReadFile(file)
	another := func(what, rules string) {
		got := run(rules, false)
		if before, twice := seen[got]; twice {
			t.Errorf("%s: the same as of %s", what, before)
		}
		seen[got] = what
	}
	write(strings.Replace(string(b), boot(), "another-boot", 1))
	another("the system went down", "a")
	another("other rules", "b")
	another("the first rules again", "a")
	write("")
	another("an empty file", "a")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	another("no file", "a")
}

// On a disk that takes nothing a server begins with the epoch that is there.
func TestAnEpochThatCantBeNoted(t *testing.T) {
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	first, _ := d.Epoch("a")
	d.Ended()
	d.write = func(string, string) error { return syscall.ENOSPC }
	if again, err := d.Epoch("a"); again != first || err != nil {
		t.Errorf("%q, %v; it was %q", again, err, first)
	}
	if _, err := d.Epoch("b"); !errors.Is(err, syscall.ENOSPC) {
		t.Error("one that can't be noted is used")
	}
}
