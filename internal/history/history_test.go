package history

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"example.com/hubbub/internal/protocol"
)

// model is a Log without a ring: all messages that ever were, and how many of them are not kept.
type model struct {
	all     []Entry[int]
	dropped int
	begin   uint64
	cleared uint64
	deleted []deletion // all, of messages
}

func (m *model) kept() []Entry[int] { return m.all[m.dropped:] }

func (m *model) last() uint64 {
	if len(m.all) == 0 {
		return m.begin
	}
	return m.all[len(m.all)-1].Offset
}

func (m *model) floor() uint64 {
	if m.dropped == 0 {
		return m.begin
	}
	return m.all[m.dropped-1].Offset
}

// over says that the bounds don't keep the oldest: more messages, or more bytes than the newest alone has, or one too
// old.
func (m *model) over(b Bounds, now int64) bool {
	kept, size := m.kept(), 0
	for _, e := range kept {
		size += e.Size()
	}
	return len(kept) > b.Messages || len(kept) > 1 && size > b.Bytes || len(kept) > 0 && now-kept[0].At >= b.Age.Milliseconds()
}

// page is what a query means, message by message.
func (m *model) page(q Query) (page []uint64, more bool) {
	var may []Entry[int]
	for _, e := range m.kept() {
		if !e.Deleted && (q.Since == nil || e.Offset > *q.Since) && (q.Before == nil || e.Offset < *q.Before) {
			may = append(may, e)
		}
	}
	if q.Since == nil {
		slices.Reverse(may)
	}
	size := 0
	for _, e := range may {
		size += e.Size()
		if len(page) > 0 && (len(page) == q.Limit || size > q.Bytes) {
			more = true
			break
		}
		page = append(page, e.Offset)
	}
	if q.Since == nil {
		slices.Reverse(page)
	}
	return page, more
}

// news is what was taken back and is news to who stands at an offset, message by message.
func (m *model) news(offset uint64) (messages []uint64, all uint64) {
	for _, d := range m.deleted {
		if d.offset <= offset && d.at >= offset && d.at >= m.floor() {
			messages = append(messages, d.offset)
		}
	}
	if offset > 0 && m.cleared >= offset {
		all = m.cleared
	}
	return messages, all
}

// take takes a message back, if it is there: what is left of it is its place, and a few bytes.
func (m *model) take(offset uint64) {
	for i, e := range m.kept() {
		if e.Offset == offset && !e.Deleted {
			e.Deleted = true
			m.deleted = append(m.deleted, deletion{offset, m.last()})
			e.Message = &protocol.Message{Offset: e.Offset, Prev: e.Prev}
			m.kept()[i] = e
		}
	}
}

// FuzzLog does what the bytes say to a Log and to its model, and holds them against each other after each step.
func FuzzLog(f *testing.F) {
	f.Add([]byte{0, 1, 10, 0, 2, 200, 1, 0, 0, 1, 1, 2, 5, 3, 1, 9})
	f.Add(bytes.Repeat([]byte{0, 1, 7}, 40))
	f.Add(append(bytes.Repeat([]byte{0, 3, 250}, 9), bytes.Repeat([]byte{1, 0, 0, 2, 40, 2}, 9)...))
	f.Add([]byte{0, 1, 250, 6, 0, 0, 0, 1, 9, 0, 1, 251, 6, 20, 0, 6, 30, 0})
	f.Add([]byte{3, 0, 0, 0, 1, 9, 3, 0, 0, 0, 2, 9, 3, 2, 0, 0, 1, 9})
	f.Add([]byte{0, 1, 10, 0, 2, 200, 4, 0, 9, 0, 1, 7, 4, 3, 9, 4, 3, 9, 1, 0, 0, 5, 0, 0, 5, 0, 0, 0, 0, 8, 4, 0, 0})
	f.Add([]byte{0, 2, 10, 4, 3, 1, 0, 0, 9, 1, 1, 1}) // who stands where nothing is kept any more hears of a deletion
	f.Add(append(bytes.Repeat([]byte{0, 0, 50}, 120), bytes.Repeat([]byte{4, 1, 30, 4, 40, 2}, 60)...))
	f.Fuzz(func(t *testing.T, ops []byte) {
		ops = ops[:min(len(ops), 900)] // more take seconds: each step looks at all that there was
		var l Log[int]
		m := &model{begin: 7}
		l.Begin(Position{"e", m.begin})
		now := int64(0)
		for len(ops) >= 3 {
			op, a, b := ops[0], uint64(ops[1]), ops[2]
			ops = ops[3:]
			switch op % 6 {
			case 0: // a message so far behind the last one
				prev, next := l.Next()
				e := Entry[int]{Message: &protocol.Message{Offset: next + a, Prev: prev, Content: make([]byte, b)}, Seq: uint64(len(m.all) + 1), At: now, Payer: int(b)}
				if !l.Append(e) {
					t.Fatalf("offset %d behind %d is not appended", e.Offset, e.Prev)
				}
				m.all = append(m.all, e)
			case 1: // the oldest goes
				if l.Len() > 0 {
					if got := l.Drop(); !same(got, m.kept()[0]) {
						t.Fatalf("dropped %v, want %v", got, m.kept()[0])
					}
					m.dropped++
				}
			case 2: // time passes
				now += int64(a)
				bounds := Bounds{Messages: 9, Age: 50 * time.Millisecond, Bytes: 2000}
				if op&4 != 0 {
					bounds.Bytes = 200 // one message may have more
				}
				for l.Over(&bounds, now) {
					l.Drop()
				}
				for m.over(bounds, now) { // check sees whether as many have gone, and not one more
					m.dropped++
				}
			case 4: // a message is taken back, which may be one that isn't there, or no more
				offset := m.begin + a
				e := l.Find(offset)
				if is := slices.ContainsFunc(m.kept(), func(e Entry[int]) bool { return e.Offset == offset }); is != (e != nil) {
					t.Fatalf("offset %d is found: %v, want %v", offset, e, is)
				}
				if e != nil && !e.Deleted {
					l.Delete(e)
				}
				m.take(offset)
			case 5: // all are
				for l.Len() > 0 {
					l.Drop()
				}
				if news := l.Cleared(m.last()); news != (m.cleared != m.last()) {
					t.Fatalf("cleared at %d, and at %d before: %v", m.last(), m.cleared, news)
				}
				m.dropped, m.cleared, m.deleted = len(m.all), m.last(), nil
			case 3: // a message is missing, or comes again
				for _, e := range []*protocol.Message{{Prev: m.last() + 1 + a, Offset: m.last() + 2 + a}, {Prev: m.last(), Offset: m.last()}} {
					if l.Append(Entry[int]{Message: e}) {
						t.Fatalf("%d behind %d is appended to %d", e.Offset, e.Prev, m.last())
					}
				}
			}
			check(t, &l, m, a, int(b))
		}
	})
}

func check(t *testing.T, l *Log[int], m *model, a uint64, limit int) {
	t.Helper()
	if l.Position() != (Position{"e", m.last()}) || l.Floor() != m.floor() || l.Len() != len(m.kept()) {
		t.Fatalf("at %v, floor %d, %d kept; want %d, %d, %d", l.Position(), l.Floor(), l.Len(), m.last(), m.floor(), len(m.kept()))
	}
	size := 0
	for i, e := range m.kept() {
		if !same(*l.At(i), e) {
			t.Fatalf("message %d is %v, want %v", i, *l.At(i), e)
		}
		size += e.Size()
	}
	if l.Bytes() != size {
		t.Fatalf("%d bytes, want %d", l.Bytes(), size)
	}
	offset := m.begin + a*3
	want := ""
	if offset > m.last() {
		want = protocol.ReasonEpoch
	} else if slices.ContainsFunc(m.all[:m.dropped], func(e Entry[int]) bool { return e.Offset > offset }) || offset < m.begin {
		want = protocol.ReasonExpired
	}
	wantDeleted, wantAll := m.news(offset)
	if want == "" && len(wantDeleted) > MaxDeleted {
		want = protocol.ReasonExpired
	}
	if got, all := l.Deleted(offset); !slices.Equal(got, wantDeleted) || all != wantAll {
		t.Fatalf("deleted for who stands at %d: %v, and up to %d; want %v, %d", offset, got, all, wantDeleted, wantAll)
	}
	if got := l.Recover([]byte("e"), offset); got != want {
		t.Fatalf("recover from %d: %q, want %q", offset, got, want)
	}
	if got := l.Recover([]byte("f"), offset); got != protocol.ReasonEpoch {
		t.Fatalf("recover from another epoch: %q", got)
	}
	if i := l.After(a); i != len(m.kept())-count(m.kept(), func(e Entry[int]) bool { return e.Seq > a }) {
		t.Fatalf("after %d: %d", a, i)
	}
	for _, q := range []Query{{}, {Since: &offset}, {Before: &offset}, {Before: new(uint64)}, {Since: new(uint64)}} {
		q.Limit, q.Bytes = 1+limit%20, 10*limit
		got, more := l.Page(q)
		var offsets []uint64
		for _, m := range got {
			offsets = append(offsets, m.Offset)
		}
		if want, wantMore := m.page(q); !slices.Equal(offsets, want) || more != wantMore {
			t.Fatalf("%+v: %v, more %v; want %v, %v", q, offsets, more, want, wantMore)
		}
	}
}

// same compares what is left of a message that was taken back by its place.
func same(a, b Entry[int]) bool {
	if !a.Deleted {
		return a == b
	}
	place := func(e Entry[int]) [6]any {
		return [6]any{e.Seq, e.At, e.Payer, e.Deleted, e.Offset, len(e.Content) + e.Size()}
	}
	return place(a) == place(b)
}

func count(all []Entry[int], of func(Entry[int]) bool) (n int) {
	for _, e := range all {
		if of(e) {
			n++
		}
	}
	return n
}

func TestALogThatIsEmptyTakesNoMemory(t *testing.T) {
	var l Log[int]
	l.Begin(Position{Epoch: "e"})
	for i := range 100 {
		prev, offset := l.Next()
		l.Append(Entry[int]{Message: &protocol.Message{Prev: prev, Offset: offset, Content: fmt.Appendf(nil, "%d", i)}})
	}
	for l.Len() > 0 {
		l.Drop()
	}
	if l.ring != nil || l.Bytes() != 0 || l.Floor() != 100 {
		t.Errorf("%d places, %d bytes, floor %d", len(l.ring), l.Bytes(), l.Floor())
	}
}

// Of deletions nothing is kept but what somebody who can recover may not have heard of.
func TestDeletionsGoWithWhoeverMayNotHaveHeard(t *testing.T) {
	var l Log[int]
	l.Begin(Position{Epoch: "e"})
	for range 1000 {
		m := &protocol.Message{Content: []byte("1")}
		m.Place(l.Next())
		l.Append(Entry[int]{Message: m})
		l.Delete(l.Find(m.Offset))
		for l.Len() > 10 {
			l.Drop()
		}
		if n := len(l.deletions); n > 11 {
			t.Fatalf("%d deletions are kept of a room that keeps %d messages", n, l.Len())
		}
	}
}
