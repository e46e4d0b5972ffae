package outbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// spool is the events of one class that are still to be sent, oldest first. Owned by the outbox's goroutine.
type spool struct {
	class    class
	dir      string // "" without a disk
	limits   *limits
	segments []*segment // by number; the last is written to, where it is open
	next     uint64     // number of the next segment
	head     place      // of what comes first
}

// place is where a record begins, or what was read last ends.
type place struct {
	segment uint64
	offset  int64
}

func (p place) before(q place) bool {
	return p.segment < q.segment || p.segment == q.segment && p.offset < q.offset
}

// openSpool finds what an earlier process has left from head on, and gives the highest stamp. What was under way then
// ends at ends.
func openSpool(c class, dir string, l *limits, head, ends place) (s *spool, highest uint64, err error) {
	s = &spool{class: c, dir: dir, limits: l, next: 1, head: head}
	if dir == "" {
		return s, 0, nil
	}
	files, err := os.ReadDir(dir) // by name; a pattern would take what is special in one for that in the folder's name too
	if err != nil {
		return nil, 0, err
	}
	for _, f := range files {
		text, begins := strings.CutPrefix(f.Name(), classNames[c]+"-")
		text, ends := strings.CutSuffix(text, ".log")
		number, err := strconv.ParseUint(text, 16, 64)
		if !begins || !ends || err != nil || len(text) != 16 {
			continue // another class's, or not ours
		}
		path := filepath.Join(dir, f.Name())
		s.next = number + 1
		if number < head.segment { // sent, and the process ended before it was removed
			_ = os.Remove(path)
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, 0, err
		}
		from := int64(0)
		if number == head.segment {
			from = head.offset
		}
		g := &segment{number: number, path: path}
		top, err := g.scan(b, from)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", path, err)
		}
		highest = max(highest, top)
		if torn := int64(len(b)) - g.size; torn > 0 {
			l.log.Warn("the outbox for webhooks has a record that was not written to its end; it is left out", "file", path, "bytes", torn)
		}
		if g.events() == 0 && number > head.segment {
			_ = os.Remove(path)
			continue
		}
		s.segments = append(s.segments, g)
	}
	s.next = max(s.next, head.segment+1, ends.segment+1) // also where some of it was in memory alone: nothing new is taken for it
	return s, highest, nil
}

// open is the segment that is written to; a new one where the last is full or is not this process's. memory says that
// it must not be on the disk.
func (s *spool) open(memory bool) (*segment, error) {
	memory = memory || s.dir == ""
	if n := len(s.segments); n > 0 {
		switch last := s.segments[n-1]; {
		case memory && last.inMemory() && !last.sealed && last.size < s.limits.memorySegment:
			return last, nil
		case !memory && last.file != nil && last.size < s.limits.diskSegment:
			return last, nil
		default:
			if err := last.end(); err != nil && !memory {
				return nil, err
			}
		}
	}
	g := &segment{number: s.next}
	if memory {
		g.data, g.size = append(g.data, magic...), int64(len(magic))
	} else if err := g.create(s.path(g.number), s.limits, []byte(magic)); err != nil {
		return nil, err
	}
	s.next++
	s.segments = append(s.segments, g)
	return g, nil
}

func (s *spool) path(number uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s-%016x.log", classNames[s.class], number))
}

// create makes the segment's file, which begins with b. Where that fails none is left.
func (g *segment) create(path string, l *limits, b []byte) error {
	f, err := l.create(path)
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(path))
	}
	g.path, g.file, g.size, g.dirty = path, f, int64(len(b)), true
	return nil
}

// end closes the file of a segment that is not written to any more. It is synced first, or nobody would.
func (g *segment) end() error {
	if g.file == nil {
		return nil
	}
	err := errors.Join(g.sync(), g.file.Close())
	g.file = nil
	return err
}

func (g *segment) sync() error {
	if !g.dirty || g.file == nil {
		return nil
	}
	err := g.file.Sync()
	g.dirty = err != nil
	return err
}

// outline is what a spool has to know of a record.
type outline struct {
	size int
	kind kind
}

// append appends the records that lie in b behind each other. Where the disk fails it says how many of them it has
// taken nevertheless.
func (s *spool) append(b []byte, of []outline, memory bool) (taken int, err error) {
	g, err := s.open(memory)
	if err != nil {
		return 0, err
	}
	n := len(b)
	if g.inMemory() {
		g.data = append(g.data, b...)
	} else {
		n, err = g.file.Write(b)
		g.dirty = true
	}
	for size := 0; taken < len(of); taken++ {
		if size += of[taken].size; size > n {
			break
		}
		g.size += int64(of[taken].size)
		g.left[of[taken].kind]++
	}
	if err != nil {
		err = errors.Join(err, g.end()) // what lies behind the last whole record stays there, unread
	}
	return taken, err
}

// sync has what was appended survive a loss of power.
func (s *spool) sync() error {
	if n := len(s.segments); n > 0 {
		return s.segments[n-1].sync()
	}
	return nil
}

// forget takes out what is in memory and sent.
func (s *spool) forget() {
	s.segments = slices.DeleteFunc(s.segments, func(g *segment) bool { return g.inMemory() && g.events() == 0 })
}

// toDisk writes the segments that are in memory, oldest first, and stops where that fails.
func (s *spool) toDisk() error {
	s.forget()
	for _, g := range s.segments {
		if !g.inMemory() {
			continue
		}
		data := g.data
		if err := g.create(s.path(g.number), s.limits, data); err != nil {
			return err
		}
		if err := g.sync(); err != nil {
			path := g.path
			g.file.Close()
			g.path, g.file, g.dirty = "", nil, false
			return errors.Join(err, os.Remove(path))
		}
		g.data = nil
		_ = g.end() // it is synced
	}
	return nil
}

// bytes are those on the disk and in memory.
func (s *spool) bytes() (disk, memory int64) {
	for _, g := range s.segments {
		if g.inMemory() {
			memory += int64(cap(g.data))
		} else {
			disk += g.size
		}
	}
	return disk, memory
}

// oldest is the number of the oldest segment, in memory or on the disk, behind another; ok is false where there is none.
func (s *spool) oldest(memory bool, behind uint64) (number uint64, ok bool) {
	for _, g := range s.segments {
		if g.number > behind && g.inMemory() == memory {
			return g.number, true
		}
	}
	return 0, false
}

// drop takes out what lies in the segments from..to, but for what is under way, and says what that was.
func (s *spool) drop(from, to uint64, underWay *batch) (left [kinds]int64) {
	s.segments = slices.DeleteFunc(s.segments, func(g *segment) bool {
		if g.number < from || g.number > to {
			return false
		}
		stays := underWay.in(g)
		for k, n := range stays {
			left[k] += g.left[k] - n
		}
		if g.left = stays; stays != [kinds]int64{} {
			_ = g.end()
			g.sealed = true // what came behind would be taken for what was dropped
			return false
		}
		g.remove()
		return true
	})
	return left
}

// trim removes what lies before the head.
func (s *spool) trim() {
	for len(s.segments) > 0 {
		g := s.segments[0]
		last := len(s.segments) == 1
		if g.number > s.head.segment || g.number == s.head.segment && (s.head.offset < g.size || last) {
			return
		}
		g.remove()
		s.segments = slices.Delete(s.segments, 0, 1)
	}
}

func (g *segment) remove() {
	if g.file != nil {
		g.file.Close()
		g.file = nil
	}
	if g.path != "" {
		if err := os.Remove(g.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return // the next process removes it: it lies before the head
		}
	}
}

// reader walks over a spool from its head on, and takes nothing out.
type reader struct {
	spool *spool
	place
	segment *segment
	buf     []byte // what begins at place
}

// readAtOnce is how much of a file is read at once, unless a record is larger.
const readAtOnce = 64 << 10

func (s *spool) reader() *reader { return &reader{spool: s, place: s.head} }

// peek is the record at the reader's place; ok is false where there is none yet. What can't be read any more is left
// out: lost is told of the segment, and counts what is left of it.
func (r *reader) peek(lost func(g *segment)) (rec record, ok bool) {
	for {
		g := r.spool.from(r.place.segment)
		if g == nil {
			return rec, false
		}
		if r.place.segment != g.number || r.offset < int64(len(magic)) {
			r.place, r.buf = place{g.number, int64(len(magic))}, nil
		}
		r.segment = g
		if rec, ok = firstRecord(r.buf); ok {
			return rec, true
		}
		if r.offset < g.size {
			if rec, ok = r.fill(g); ok {
				return rec, true
			}
			lost(g)
			_ = g.end()
			g.size = r.offset
		}
		if g == r.spool.segments[len(r.spool.segments)-1] {
			return rec, false
		}
		r.place, r.buf = place{g.number + 1, 0}, nil
	}
}

// fill reads on at the reader's place.
func (r *reader) fill(g *segment) (rec record, ok bool) {
	b, err := g.read(r.offset, readAtOnce)
	if n, sane := firstSize(b); err == nil && sane && n > len(b) {
		b, err = g.read(r.offset, n)
	}
	if err != nil {
		return rec, false
	}
	r.buf = b
	return firstRecord(b)
}

// skip goes on behind the record that peek gave.
func (r *reader) skip(rec *record) {
	r.buf = r.buf[rec.size():]
	r.offset += int64(rec.size())
}

// from is the first segment of that number or a later one, or nil.
func (s *spool) from(number uint64) *segment {
	i, _ := slices.BinarySearchFunc(s.segments, number, func(g *segment, n uint64) int {
		switch {
		case g.number < n:
			return -1
		case g.number > n:
			return 1
		}
		return 0
	})
	if i == len(s.segments) {
		return nil
	}
	return s.segments[i]
}
