package outbox

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
)

// cursor is how far the backend has been told. What has a seq was written down here, and synced, before it was sent: so
// no seq ever stands for two events, whatever ends the process.
type cursor struct {
	run     [runSize]byte  // what the ids of requests begin with: random text, made with the outbox
	seq     uint64         // of the first event from heads on; it begins at 1
	heads   [classes]place // what comes next
	ends    [classes]place // where what is under way ends, in one request
	pending uint32         // how many events that is; 0 where nothing is
	missing span           // events that were given up and that the backend wasn't told of yet
	dropped [kinds]int64   // events that were dropped, likewise
	count   uint64         // of writes: the newer slot counts
}

// span is the seqs from..to; from is 0 for none.
type span struct{ from, to uint64 }

const (
	runSize    = 26
	cursorSize = 4 + 8 + runSize + 8 + int(classes)*32 + 4 + 16 + mostKinds*8
	mostKinds  = 16 // of events that there may be in a later version
	// The two slots of the file are written in turn, so one of them is whole at any time. They are a page apart, for a
	// disk may lose what it is just writing.
	slotSize = 4096
)

// newCursor is that of an outbox in which nothing was ever.
func newCursor() (c cursor) {
	copy(c.run[:], rand.Text())
	c.seq = 1
	return c
}

func (c *cursor) append(b []byte) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, c.count)
	b = append(b, c.run[:]...)
	b = binary.LittleEndian.AppendUint64(b, c.seq)
	for _, places := range [][classes]place{c.heads, c.ends} {
		for _, p := range places {
			b = binary.LittleEndian.AppendUint64(b, p.segment)
			b = binary.LittleEndian.AppendUint64(b, uint64(p.offset))
		}
	}
	b = binary.LittleEndian.AppendUint32(b, c.pending)
	b = binary.LittleEndian.AppendUint64(b, c.missing.from)
	b = binary.LittleEndian.AppendUint64(b, c.missing.to)
	var dropped [mostKinds]int64
	copy(dropped[:], c.dropped[:])
	for _, n := range dropped {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	binary.LittleEndian.PutUint32(b[at:], crc32.Checksum(b[at+4:], castagnoli))
	return b
}

// parseCursor reads a slot; ok is false where it was not written to its end.
func parseCursor(b []byte) (c cursor, ok bool) {
	if len(b) < cursorSize || crc32.Checksum(b[4:cursorSize], castagnoli) != binary.LittleEndian.Uint32(b) {
		return c, false
	}
	b = b[4:]
	next := func() (n uint64) {
		n, b = binary.LittleEndian.Uint64(b), b[8:]
		return n
	}
	c.count = next()
	b = b[copy(c.run[:], b):]
	c.seq = next()
	for _, places := range []*[classes]place{&c.heads, &c.ends} {
		for i := range places {
			places[i] = place{next(), int64(next())}
		}
	}
	c.pending, b = binary.LittleEndian.Uint32(b), b[4:]
	c.missing = span{next(), next()}
	for k := range c.dropped {
		c.dropped[k] = int64(next())
	}
	return c, true
}

// cursorFile keeps the cursor on the disk. It is as large as it gets from the start on, so that a full disk is none of
// its concern.
type cursorFile struct{ f *os.File }

// openCursor reads the cursor in a folder, or makes one.
func openCursor(dir string) (*cursorFile, cursor, error) {
	path := filepath.Join(dir, "cursor")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = createCursor(path); err == nil {
			b, err = os.ReadFile(path)
		}
	}
	if err != nil {
		return nil, cursor{}, err
	}
	var c cursor
	found := false
	for at := 0; at < len(b) && at < 2*slotSize; at += slotSize {
		if slot, ok := parseCursor(b[at:]); ok && (!found || slot.count > c.count) {
			c, found = slot, true
		}
	}
	if !found {
		return nil, c, fmt.Errorf("%s is damaged, and with it is lost what the backend was told already: move %s away to begin anew", path, dir)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	return &cursorFile{f}, c, err
}

// createCursor has the file appear whole or not at all.
func createCursor(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "cursor-*.new")
	if err != nil {
		return err
	}
	c := newCursor()
	b := make([]byte, 2*slotSize)
	copy(b, c.append(nil))
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// write writes the cursor over the older of the two, and has it survive a loss of power.
func (f *cursorFile) write(c *cursor) error {
	c.count++
	if _, err := f.f.WriteAt(c.append(nil), int64(c.count%2)*slotSize); err != nil {
		return err
	}
	return f.f.Sync()
}

// syncDir has new names in a folder survive a loss of power, where the system knows such a thing.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	_ = d.Sync() // Windows can't
	return nil
}

func (f *cursorFile) close() error {
	if f == nil {
		return nil
	}
	return f.f.Close()
}
