// Package packages tests what make release builds, with the tools that people install it by: dpkg, rpm, tar, helm,
// systemd-analyze. It needs root on a Debian: make packages-test.
package packages

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience guards against hanging alone.
const patience = 5 * time.Minute

// root is the folder of Hubbub.
const root = "../../.."

// dists are the folders of two releases, one after the other, of one source; the second is for other systems too.
var dists struct{ old, new string }

const (
	oldVersion = "1.2.3" // the version of docs/packages.md
	newVersion = "1.3.0-rc1"
	newPackage = "1.3.0~rc1"
	newTargets = "linux/amd64 linux/arm64 windows/amd64"
	epoch      = "1750000000"
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, "packages are installed as root: run it as root on a Debian")
			return 1
		}
		dir, err := os.MkdirTemp("", "hubbub-packages-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		dists.old, dists.new = filepath.Join(dir, "old"), filepath.Join(dir, "new")
		for _, r := range [][3]string{{dists.old, oldVersion, "linux/amd64"}, {dists.new, newVersion, newTargets}} {
			if out, err := release(root, r[0], r[1], r[2]).CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "release: %v\n%s", err, out)
				return 1
			}
		}
		return m.Run()
	}())
}

// release is the command that builds one of the source in a folder.
func release(source, out, version, targets string) *exec.Cmd {
	cmd := exec.Command("go", "-C", filepath.Join(source, "scripts/tools"), "run", "./release", "-root", abs(source), "-out", out, "-version", version, "-targets", targets)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+epoch)
	return cmd
}

func abs(path string) string {
	full, err := filepath.Abs(path)
	if err != nil {
		panic(err) // the working folder is gone
	}
	return full
}

// says runs a command that must succeed, and gives what it prints.
func says(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// read is a file's text.
func read(t *testing.T, elements ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elements...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// one is the one file that fits.
func one(t *testing.T, pattern string) string {
	t.Helper()
	all, err := filepath.Glob(pattern)
	if err != nil || len(all) != 1 {
		t.Fatalf("%s: %v %v", pattern, all, err)
	}
	return all[0]
}

// eventually waits for what must come.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in %s: %s", patience, what)
		}
	}
}

// same says whether two files have the same bytes.
func same(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}
