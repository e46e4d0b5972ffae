package outbox

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
)

// A segment is some of the events of one class, behind each other, in a file or in memory in the same form: magic, then
// records. A record is
//
//	4 bytes   how many bytes follow the next four
//	4 bytes   CRC-32C of these
//	8 bytes   stamp
//	8 bytes   time, Unix milliseconds
//	1 byte    kind
//	          the event as JSON, without its seq
//
// all numbers little-endian. What follows the last whole record, as after a crash while it was written, is left alone:
// a segment that was not written by this process is never written to again.

const (
	magic      = "hubbub\x00\x01" // the last byte is the version of this format
	prefixSize = 8
	headSize   = prefixSize + 17
	// maxEvent is how many bytes an event may have. A larger one is dropped, and counted.
	maxEvent = 4 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is an event as it lies in a segment.
type record struct {
	stamp uint64
	time  int64
	kind  kind
	json  []byte
}

func (r *record) size() int { return headSize + len(r.json) }

// appendRecord appends the record of f.
func appendRecord(b []byte, f *fresh) []byte {
	at := len(b)
	b = append(b, make([]byte, prefixSize)...)
	b = binary.LittleEndian.AppendUint64(b, f.stamp)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.time))
	b = append(b, byte(f.kind))
	b = f.append(b)
	rest := b[at+prefixSize:]
	binary.LittleEndian.PutUint32(b[at:], uint32(len(rest)))
	binary.LittleEndian.PutUint32(b[at+4:], crc32.Checksum(rest, castagnoli))
	return b
}

// firstRecord reads the record that b begins with, and doesn't copy it; ok is false where there is no whole one.
func firstRecord(b []byte) (r record, ok bool) {
	need, ok := firstSize(b)
	if !ok || len(b) < need {
		return r, false
	}
	rest := b[prefixSize:need]
	if crc32.Checksum(rest, castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return r, false
	}
	r = record{binary.LittleEndian.Uint64(rest), int64(binary.LittleEndian.Uint64(rest[8:])), kind(rest[16]), rest[17:]}
	return r, r.kind < kinds && r.json[0] == '{'
}

// firstSize is the size of the record that b begins with, as that says itself.
func firstSize(b []byte) (n int, ok bool) {
	const least, most = headSize - prefixSize + len("{}"), headSize - prefixSize + maxEvent
	if len(b) < prefixSize {
		return 0, false
	}
	rest := int64(binary.LittleEndian.Uint32(b))
	return int(prefixSize + rest), rest >= int64(least) && rest <= most
}

// segment is one, and what of it is still to be sent. Owned by the outbox's goroutine.
type segment struct {
	number uint64
	path   string // "" in memory
	file   file   // open while it is written to; nil in memory
	data   []byte // in memory
	size   int64  // of magic and the whole records
	left   [kinds]int64
	dirty  bool // not on the disk for sure
	sealed bool // nothing is written to it any more
}

// file is what the outbox needs of one that it writes.
type file interface {
	io.Writer
	Sync() error
	Close() error
}

func (s *segment) inMemory() bool { return s.path == "" }

func (s *segment) events() (n int64) {
	for _, left := range s.left {
		n += left
	}
	return n
}

// read reads n bytes from an offset on, less at the end.
func (s *segment) read(at int64, n int) ([]byte, error) {
	n = int(min(int64(n), s.size-at))
	if s.inMemory() {
		return s.data[at : at+int64(n)], nil
	}
	f, err := os.Open(s.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	_, err = f.ReadAt(b, at)
	return b, err
}

// scan counts the records of a segment that a process has left, from an offset on, where one begins. It notes where the
// last whole one ends, and gives the highest stamp.
func (s *segment) scan(b []byte, from int64) (highest uint64, err error) {
	switch {
	case len(b) < len(magic):
		return 0, nil // a crash came first
	case string(b[:len(magic)]) != magic:
		return 0, errors.New("it is no file of events, or one of another version of Hubbub")
	}
	at := int64(len(magic))
	for {
		r, ok := firstRecord(b[at:])
		if !ok {
			break
		}
		if at >= from {
			s.left[r.kind]++
		}
		highest = max(highest, r.stamp)
		at += int64(r.size())
	}
	s.size = at
	return highest, nil
}
