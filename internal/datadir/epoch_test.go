package datadir

import (
	"os"
	"path/filepath"
	"testing"
)

// The mark of epochs stays over restarts, and is another one with other rules, also when they are the first again, and
// without its file.
func TestTheMarkOfEpochs(t *testing.T) {
	path := t.TempDir()
	mark := func(rules string) string {
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		mark, err := d.Epoch(rules)
		if err != nil || mark == "" {
			t.Fatalf("the mark is %q, %v", mark, err)
		}
		return mark
	}
	seen := map[string]string{}
	another := func(what, rules string) {
		got := mark(rules)
		if before, twice := seen[got]; twice {
			t.Errorf("%s: the same as of %s", what, before)
		}
		if again := mark(rules); again != got {
			t.Errorf("%s: another one after a restart", what)
		}
		seen[got] = what
	}
	another("the first rules", "a")
	another("other rules", "b")
	another("the first rules again", "a")
	file := filepath.Join(path, "epoch")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	another("an empty file", "a")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	another("no file", "a")
}
