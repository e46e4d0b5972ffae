// Package history keeps the newest messages of a room, and knows the room's position. It is pure: no lock, no clock, no
// goroutine; ages are arguments, and a Log belongs to one goroutine at a time.
//
//	var l history.Log[owner]
//	l.Begin(history.Position{Epoch: epoch})
//	m.Prev, m.Offset = l.Next()
//	l.Append(history.Entry[owner]{Message: m, Seq: seq, At: now})
//	for l.Over(bounds, now) {
//		l.Drop()
//	}
//
// A message's offset says where it stands, and Prev where the one before it does. Nothing is computed with offsets but
// by who gives them (Next): they increase, not always by one, and whether something is missing shows by the chain
// alone.
package history

import (
	"slices"
	"sort"
	"time"

	"example.com/hubbub/internal/protocol"
)

// Position is a place in a room's log: behind the message of that offset, 0 before the first one. The zero Position is
// that of a room without history.
type Position struct {
	Epoch  string // another one means that the log was lost
	Offset uint64
}

// Bounds say what is kept: whichever is reached first. Messages 0 keeps nothing, and then the others are 0 too.
type Bounds struct {
	Messages int
	Age      time.Duration
	Bytes    int // by protocol.Message.Size
}

// Entry is a message that is kept. P is whoever keeps account of it.
type Entry[P any] struct {
	*protocol.Message
	Seq   uint64 // the message's place in the room's order on this node
	At    int64  // milliseconds of any clock that Over is asked by
	Payer P

	// Deleted says that the message was taken back: nothing but its place is left of it then, which counts as a message
	// until it goes.
	Deleted bool
}

// Log is a room's newest messages, oldest first, without a hole. The zero value has no epoch: see Begin.
type Log[P any] struct {
	epoch string
	last  uint64 // the offset of the newest message, kept or not
	floor uint64 // the offset of the newest that is not kept: what is behind it is here

	ring  []Entry[P] // its length is a power of two
	first int        // index of the oldest
	n     int
	bytes int // of the messages

	deletions []deletion // of messages, by when they were; not those of which nobody who can recover may have to hear
	cleared   uint64     // where the log stood when all was taken back last; 0 where it never was
}

// deletion is a message that was taken back, and where the log stood then.
type deletion struct{ offset, at uint64 }

// Begin has the log go on behind a position, with nothing kept. Nothing may be kept yet.
func (l *Log[P]) Begin(at Position) { l.epoch, l.last, l.floor = at.Epoch, at.Offset, at.Offset }

// Skip says that up to an offset, where the log would stand, there is nothing that isn't kept: of a log that lies
// elsewhere the offsets of other rooms are between. One below the newest message's is no matter.
func (l *Log[P]) Skip(offset uint64) { l.last = max(l.last, offset) }

// Reach says that nothing came between an offset and what is kept: somebody else has seen it.
func (l *Log[P]) Reach(offset uint64) { l.floor = min(l.floor, offset) }

// Position is that of the newest message.
func (l *Log[P]) Position() Position { return Position{l.epoch, l.last} }

// Next is the place of a message that shall be appended, for who gives the offsets himself.
func (l *Log[P]) Next() (prev, offset uint64) { return l.last, Next(l.last) }

// Next is the least offset that a message behind that one can have.
func Next(offset uint64) uint64 { return offset + 1 }

// Append adds the newest message. It is false, and nothing is added, where a message is missing before it.
func (l *Log[P]) Append(e Entry[P]) bool {
	if e.Prev != l.last || e.Offset <= l.last {
		return false
	}
	if l.n == len(l.ring) {
		ring := make([]Entry[P], max(4, 2*len(l.ring)))
		for i := range l.n {
			ring[i] = *l.At(i)
		}
		l.ring, l.first = ring, 0
	}
	l.n++
	*l.At(l.n - 1) = e
	l.bytes += e.Size()
	l.last = e.Offset
	return true
}

// Drop takes the oldest out. There must be one.
func (l *Log[P]) Drop() (oldest Entry[P]) {
	e := l.At(0)
	oldest, *e = *e, Entry[P]{}
	l.bytes -= oldest.Size()
	l.floor = oldest.Offset
	l.first = (l.first + 1) & (len(l.ring) - 1)
	if l.n--; l.n == 0 {
		l.ring, l.first = nil, 0
	}
	for len(l.deletions) > 0 && l.deletions[0].at < l.floor { // who recovers stands behind it
		l.deletions = l.deletions[1:]
	}
	return oldest
}

// Find is the message with that offset that is kept, or was taken back; nil where there is none. The pointer is good
// until the next Append or Drop.
func (l *Log[P]) Find(offset uint64) *Entry[P] {
	if i := l.Behind(offset); i > 0 && l.At(i-1).Offset == offset {
		return l.At(i - 1)
	}
	return nil
}

// Delete takes a message back that Find has found, and that is kept.
func (l *Log[P]) Delete(e *Entry[P]) {
	l.bytes -= e.Size()
	left := &protocol.Message{Kind: e.Kind, Room: e.Room}
	left.Place(e.Prev, e.Offset)
	e.Message, e.Deleted = left, true
	l.deletions = append(l.deletions, deletion{e.Offset, l.last})
	l.bytes += e.Size()
}

// Gone is Delete of a message that isn't kept any more: somebody may have it still.
func (l *Log[P]) Gone(offset uint64) { l.deletions = append(l.deletions, deletion{offset, l.last}) }

// Cleared notes that all up to an offset has been taken back, which the caller has dropped. It is false where nothing has
// come since it was said before.
func (l *Log[P]) Cleared(to uint64) bool {
	l.deletions = slices.DeleteFunc(l.deletions, func(d deletion) bool { return d.offset <= to })
	if l.cleared >= to {
		return false
	}
	l.cleared = to
	return true
}

// Deleted is what was taken back and somebody who stands at an offset may not have heard of: messages that he may have,
// and up to where all were taken back, 0 for no such place. A deletion has no place of its own in the log, so he may be
// told twice of one.
func (l *Log[P]) Deleted(offset uint64) (messages []uint64, all uint64) {
	if offset != 0 && l.cleared >= offset {
		all = l.cleared
	}
	since := sort.Search(len(l.deletions), func(i int) bool { return l.deletions[i].at >= offset })
	for _, d := range l.deletions[since:] {
		if d.offset <= offset {
			messages = append(messages, d.offset)
		}
	}
	return messages, all
}

// MaxDeleted is of how many messages that were taken back somebody who recovers may not have heard: then what he has
// can't be mended piece by piece.
const MaxDeleted = 100

// Over says that the bounds don't keep the oldest. The newest message stays even when it alone is too large.
func (l *Log[P]) Over(b *Bounds, now int64) bool {
	return l.n > 0 && (l.n > b.Messages || l.n > 1 && l.bytes > b.Bytes || now-l.At(0).At >= b.Age.Milliseconds())
}

// Len is how many messages are kept, and Bytes their sizes together.
func (l *Log[P]) Len() int { return l.n }

// Bytes is what Len says.
func (l *Log[P]) Bytes() int { return l.bytes }

// At is the message at index i, of Len. The pointer is good until the next Append or Drop.
func (l *Log[P]) At(i int) *Entry[P] { return &l.ring[(l.first+i)&(len(l.ring)-1)] }

// Floor is the offset of the newest message that is not kept any more: 0 where all are.
func (l *Log[P]) Floor() uint64 { return l.floor }

// Recover says whether all that came behind a position is kept, and what was taken back can be told: "", or the reason
// why that can't be proved.
func (l *Log[P]) Recover(epoch []byte, offset uint64) (reason string) {
	switch {
	case string(epoch) != l.epoch || offset > l.last:
		return protocol.ReasonEpoch
	case offset < l.floor:
		return protocol.ReasonExpired
	}
	if messages, _ := l.Deleted(offset); len(messages) > MaxDeleted {
		return protocol.ReasonExpired
	}
	return ""
}

// Behind is the index of the first message behind an offset; Len where there is none.
func (l *Log[P]) Behind(offset uint64) int {
	return sort.Search(l.n, func(i int) bool { return l.At(i).Offset > offset })
}

// After is the index of the first message after a place in the order; Len where there is none.
func (l *Log[P]) After(seq uint64) int {
	return sort.Search(l.n, func(i int) bool { return l.At(i).Seq > seq })
}

// Query asks for a page: what comes behind Since or what is before Before, at most one of which is given, or else the
// newest.
type Query struct {
	Since, Before *uint64
	Limit         int // messages
	Bytes         int // of them; one message is given whatever its size
}

// Page is what q asks for, oldest first; more says that there is more, the way that was asked for.
func (l *Log[P]) Page(q Query) (page []*protocol.Message, more bool) {
	from, to := 0, l.n // indices of those that may be in the page
	switch {
	case q.Since != nil:
		from = l.Behind(*q.Since)
	case q.Before != nil && *q.Before > 0:
		to = l.Behind(*q.Before - 1)
	case q.Before != nil:
		to = 0
	}
	size, n := 0, 0
	fits := func(i int) bool {
		if l.At(i).Deleted {
			return true
		}
		size += l.At(i).Size()
		n++
		return n == 1 || n <= q.Limit && size <= q.Bytes
	}
	if q.Since != nil {
		end := from
		for end < to && fits(end) {
			end++
		}
		return l.messages(from, end), end < to
	}
	begin := to
	for begin > from && fits(begin-1) {
		begin--
	}
	return l.messages(begin, to), begin > from
}

func (l *Log[P]) messages(from, to int) []*protocol.Message {
	page := make([]*protocol.Message, 0, to-from)
	for i := from; i < to; i++ {
		if e := l.At(i); !e.Deleted {
			page = append(page, e.Message)
		}
	}
	return page
}
