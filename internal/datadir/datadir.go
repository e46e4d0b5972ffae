// Package datadir is the folder in which a server keeps what is to outlive its process: it belongs to one process at a
// time, and has an id.
package datadir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Dir is a folder that is this process's. Any goroutine.
type Dir struct {
	path  string
	id    string
	epoch string // what its file has, before the state; "" until Epoch
	lock  *os.File
	write func(path, text string) error // writeFile, but in tests
}

// Open makes the folder where there is none, and takes it. The error says so where another process has it. It reads and
// writes files.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, lock: lock, write: writeFile}
	if err := lockFile(lock); err != nil {
		by := make([]byte, 32)
		n, _ := lock.Read(by)
		lock.Close()
		return nil, fmt.Errorf("another process has it, by its id %s: %w", strings.TrimSpace(string(by[:n])), err)
	}
	if err := d.begin(); err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

// begin says who has the folder, and finds or makes its id.
func (d *Dir) begin() error {
	_ = d.lock.Truncate(0)
	_, _ = d.lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0) // a full disk is no reason not to begin
	path := filepath.Join(d.path, "node")
	b, err := os.ReadFile(path)
	d.id = strings.TrimSpace(string(b))
	switch {
	case err == nil && d.id != "":
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	d.id = rand.Text()
	return writeFile(path, d.id+"\n")
}

// writeFile has a file appear whole or not at all.
func writeFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "new-*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// ID is a random text that was made with the folder.
func (d *Dir) ID() string { return d.id }

// Folder is one below it, which is made where there is none.
func (d *Dir) Folder(name string) (string, error) {
	path := filepath.Join(d.path, name)
	return path, os.MkdirAll(path, 0o700)
}

// Close gives the folder back. A nil Dir has none.
func (d *Dir) Close() {
	if d != nil {
		d.lock.Close() // the lock ends with it
	}
}
