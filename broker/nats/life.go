package nats

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The log of one machine loses its newest messages where the machine goes down without a warning: they were in the
// system's hands alone. Their offsets are given again then, to others, and who has seen the lost ones must not go on as
// if these were what it had. So each such end gives the log another epoch. A process that is killed loses nothing, and is
// told apart by the system's boot: "last" is a file with that of the last process, whether it has ended well, and how
// often a log was cut short.

// life is what "last" says.
type life struct {
	path string
	boot string // of the system; "" where it doesn't say
	cuts uint64
}

// bootID is another one behind each start of the system, and "" where there is none.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id") // proc(5)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

const (
	running = "running"
	ended   = "ended"
)

// begin reads how the last process in a folder ended, and notes that this one runs, on that boot of the system.
func begin(dir, boot string) (*life, error) {
	l := &life{path: filepath.Join(dir, "last"), boot: boot}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(l.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return l, l.note(running)
	case err != nil:
		return nil, err
	}
	var was, state string
	if n, _ := fmt.Sscan(string(b), &state, &l.cuts, &was); n < 2 { // was is nothing on some systems
		return nil, fmt.Errorf("%s can't be read: remove it, and clients are told that messages may have been lost", l.path)
	}
	if state == running && was != boot {
		l.cuts++
	}
	return l, l.note(running)
}

// note has the file appear whole or not at all.
func (l *life) note(state string) error {
	f, err := os.CreateTemp(filepath.Dir(l.path), "last-*")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, state, l.cuts, l.boot)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), l.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// mark is what epochs end with: "" for a log that was never cut short.
func (l *life) mark() string {
	if l == nil || l.cuts == 0 {
		return ""
	}
	return "." + strconv.FormatUint(l.cuts, 36)
}
