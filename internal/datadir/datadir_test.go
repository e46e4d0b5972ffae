package datadir

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFolderBelongsToOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), fmt.Sprint("by its id ", os.Getpid())) {
		t.Errorf("a second one: %v", err)
	}
	id := d.ID()
	below, err := d.Folder("x")
	if err != nil || below != filepath.Join(path, "x") {
		t.Errorf("a folder below it: %q, %v", below, err)
	}
	d.Close()
	if d, err = Open(path); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.ID() != id || len(id) < 20 {
		t.Errorf("its id was %q, and is %q", id, d.ID())
	}
	if left, _ := filepath.Glob(filepath.Join(path, "new-*")); len(left) > 0 {
		t.Errorf("it keeps %v", left)
	}
}

// A crash while the id is first written leaves none, or an empty file.
func TestAnIDThatIsMissingIsMade(t *testing.T) {
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "node"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.ID() == "" {
		t.Error("it has no id")
	}
}

func TestAFolderThatCantBeIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file: %v", err)
	}
	var none *Dir
	none.Close()
}
