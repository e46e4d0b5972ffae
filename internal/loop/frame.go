package loop

import (
	"slices"
	"sync/atomic"

	"example.com/hubbub/internal/wire"
)

// Frame is one WebSocket frame, or several joined, ready for the wire. It is immutable once it was made and
// may be queued on any number of connections of any worker; the garbage collector ends it.
type Frame struct {
	b      []byte
	at     int64 // when it was made, milliseconds of the monotonic clock: the age of what waits
	holds  int32 // messages; none in a control frame
	answer bool  // meant for one client: never dropped, and bounded apart from the rooms' frames
	lent   bool  // b lies in the worker's arena and is good until the end of the turn
	large  bool  // compression may make it smaller

	forms atomic.Pointer[forms] // compressed; nil while nobody asked for that, unless joined and large
}

// NewFrame copies payload behind its header. Any goroutine.
func NewFrame(op wire.Opcode, payload []byte) *Frame {
	b := make([]byte, 0, wire.MaxHeader+len(payload))
	return &Frame{b: wire.AppendFrame(b, op, payload), holds: messages(op), at: monotonic(), large: deflatable(op, len(payload))}
}

// NewAnswer is NewFrame for what only one client gets. Any goroutine.
func NewAnswer(op wire.Opcode, payload []byte) *Frame {
	f := NewFrame(op, payload)
	f.answer = true
	return f
}

// Join makes one frame of several, so that a connection gets them by one pointer and one write. Any goroutine.
func Join(frames []*Frame) *Frame {
	if len(frames) == 1 {
		return frames[0]
	}
	n := 0
	for _, f := range frames {
		n += len(f.b)
	}
	joined := &Frame{b: make([]byte, 0, n), at: frames[0].at}
	for _, f := range frames {
		joined.b = append(joined.b, f.b...)
		joined.holds += f.holds
		joined.large = joined.large || f.large
	}
	if joined.large {
		joined.forms.Store(&forms{parts: slices.Clone(frames)})
	}
	return joined
}

// Len is the size on the wire, header and all.
func (f *Frame) Len() int { return len(f.b) }

// queue is what a connection has not sent yet: the first frame apart, because there is mostly only one.
type queue struct {
	first   *Frame
	rest    []*Frame // from the worker's stock; nil while there is no second frame
	off     int      // how much of first is written
	unsent  int      // bytes that wait, the written part of first not counted
	answers int      // of these, bytes of answers; a partly written answer counts whole
}

func (q *queue) push(f *Frame, w *Worker) {
	q.unsent += len(f.b)
	w.counts.Unsent += int64(len(f.b))
	if f.answer {
		q.answers += len(f.b)
	}
	if q.first == nil {
		q.first = f
		return
	}
	if q.rest == nil {
		q.rest = w.stock.get()
	}
	q.rest = append(q.rest, f)
}

// last is the frame queued most recently, or nil.
func (q *queue) last() *Frame {
	if n := len(q.rest); n > 0 {
		return q.rest[n-1]
	}
	return q.first
}

// advance takes n written bytes off the front.
func (q *queue) advance(n int, w *Worker) {
	q.unsent -= n
	w.counts.Unsent -= int64(n)
	n += q.off
	done := 0 // frames of rest that are written whole
	f := q.first
	for f != nil && n >= len(f.b) {
		n -= len(f.b)
		w.counts.MessagesSent += int64(f.holds)
		if f.answer {
			q.answers -= len(f.b)
		}
		f = nil
		if done < len(q.rest) {
			f = q.rest[done]
			done++
		}
	}
	q.first, q.off = f, n
	if done == 0 {
		return
	}
	left := copy(q.rest, q.rest[done:])
	clear(q.rest[left:])
	q.rest = q.rest[:left]
	if left == 0 {
		w.stock.put(q.rest)
		q.rest = nil
	}
}

// drop forgets everything but a partly written frame, which must stay or the stream would break.
func (q *queue) drop(w *Worker) {
	if q.rest != nil {
		clear(q.rest)
		w.stock.put(q.rest[:0])
		q.rest = nil
	}
	if q.off == 0 {
		q.first = nil
	}
	had := q.unsent
	q.unsent, q.answers = 0, 0
	if f := q.first; f != nil {
		q.unsent = len(f.b) - q.off
		if f.answer {
			q.answers = len(f.b)
		}
	}
	w.counts.Unsent += int64(q.unsent - had)
}

// keep copies what is lent by the arena, because it stays queued past the end of the turn.
func (q *queue) keep() {
	if q.first != nil && q.first.lent {
		q.first = q.first.kept()
	}
	for i, f := range q.rest {
		if f.lent {
			q.rest[i] = f.kept()
		}
	}
}

func (f *Frame) kept() *Frame {
	return &Frame{b: append([]byte(nil), f.b...), holds: f.holds, at: f.at, answer: f.answer}
}

// stock keeps slices for queues of more than one frame: an idle connection holds none.
type stock struct{ free [][]*Frame }

const (
	stockSize = 4096 // slices kept at most
	stockCap  = 256  // frames; a longer slice isn't kept
)

func (s *stock) get() []*Frame {
	if n := len(s.free); n > 0 {
		q := s.free[n-1]
		s.free = s.free[:n-1]
		return q
	}
	return make([]*Frame, 0, 16)
}

func (s *stock) put(q []*Frame) {
	if len(s.free) < stockSize && cap(q) <= stockCap {
		s.free = append(s.free, q)
	}
}
