package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/hubbub/internal/doctor"
)

// Where the server runs that is looked at: --url, then the flags that say where it listens, then HUBBUB_URL, then the other
// settings. Only where somebody said that it runs it has to.
func TestWhichServerIsLookedAt(t *testing.T) {
	for _, tt := range []struct {
		flags, env string // env is HUBBUB_URL
		url        string
		runs       bool
	}{
		{"", "", "http://127.0.0.1:8080", false},
		{"", "http://elsewhere:1/", "http://elsewhere:1", true},
		{"--listen :81 --base-path /live", "", "http://127.0.0.1:81/live", false},
		{"--listen :81 --base-path /live", "http://elsewhere:1", "http://127.0.0.1:81/live", false},
		{"--admin-listen :82", "http://elsewhere:1", "http://127.0.0.1:82", false},
		{"--base-path /live", "http://elsewhere:1", "http://elsewhere:1", true},
		{"--listen :81 --url http://there:2", "http://elsewhere:1", "http://there:2", true},
	} {
		if tt.env != "" {
			t.Setenv("HUBBUB_URL", tt.env)
		}
		for _, command := range []string{"doctor", "bundle"} {
			var c cli
			ctx, err := newParser(&c).Parse(append([]string{command}, strings.Fields(tt.flags)...))
			if err != nil {
				t.Fatal(err)
			}
			var s doctor.Subject
			if command == "doctor" {
				s = c.Doctor.subject(ctx, &c.Doctor.lookFlags)
			} else {
				s = c.Bundle.subject(ctx, &c.Bundle.lookFlags)
			}
			if s.URL != tt.url || s.Runs != tt.runs {
				t.Errorf("%s %s, HUBBUB_URL=%s: %s, it has to run %t; want %s, %t", command, tt.flags, tt.env, s.URL, s.Runs, tt.url, tt.runs)
			}
		}
		t.Setenv("HUBBUB_URL", "")
	}
}

// A time in which nothing can be done is refused by its name.
func TestLooksTakeTime(t *testing.T) {
	for _, args := range []string{"doctor --limit 0s", "doctor --limit=-1s", "doctor --idle=-1s", "health --timeout 0s"} {
		_, err := printed(t, strings.Fields(args)...)
		flag, _, _ := strings.Cut(strings.Fields(args)[1], "=")
		if err == nil || !strings.HasPrefix(err.Error(), flag+" ") || !strings.Contains(err.Error(), "is wanted") {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// A bundle that can't be written leaves nothing that is in the way of the next one.
func TestAHalfBundleIsTakenAway(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a device that is always full is Linux's")
	}
	full, err := syscall.Open("/dev/full", syscall.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "b.tar.gz")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := &bundle{scrub: newScrubber(&serveCmd{}, false, "")}
	b.text("large", "more than a buffer", strings.Repeat("x", 1<<20))
	if err := b.save(os.NewFile(uintptr(full), name)); err == nil {
		t.Error("a full disk was written to")
	}
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the half of it is there: %v", err)
	}
}

// Bundles of one second have names of their own, unless one is given.
func TestTwoBundlesOfASecond(t *testing.T) {
	t.Chdir(t.TempDir())
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, want := range []string{"hubbub-bundle-20260101-120000.tar.gz", "hubbub-bundle-20260101-120000-2.tar.gz", "hubbub-bundle-20260101-120000-3.tar.gz"} {
		f, err := createBundle("", now)
		if err != nil {
			t.Fatal(err)
		}
		if f.Close(); f.Name() != want {
			t.Errorf("it is %s, want %s", f.Name(), want)
		}
		if _, err := createBundle(want, now); !errors.Is(err, fs.ErrExist) {
			t.Errorf("one that is there is written over: %v", err)
		}
	}
	if _, err := createBundle("missing/bundle.tar.gz", now); err == nil {
		t.Error("it is made in a folder that isn't there")
	}
}

// The line of the log that says where the server listens says how it reads and writes, where that was chosen.
func TestTheStartSaysTheWayToReadAndWrite(t *testing.T) {
	for io, want := range map[string]bool{"auto": false, "epoll": true, "uring": true, "pump": true} {
		c := serveCmd{IO: io}
		uses := c.machine()
		if says := slices.Contains(uses, any("io")) && slices.Contains(uses, any(io)); says != want || uses[0] != "processors" {
			t.Errorf("with %s it says %v", io, uses)
		}
	}
}
