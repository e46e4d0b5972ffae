package loop

import (
	"slices"
	"sync/atomic"

	"example.com/hubbub/internal/wire"
)

// Frame is one WebSocket frame, or several joined, ready for the wire. It is immutable once it was made and may be
// queued on any number of connections of any worker; the garbage collector ends it.
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
	return &Frame{b: wire.AppendFrame(b, op, payload), holds: messages(op), at: Monotonic(), large: deflatable(op, len(payload))}
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

// Payload is what a frame that isn't joined carries, uncompressed. It must not be changed.
func (f *Frame) Payload() []byte {
	_, p := wire.ServerFrame(f.b)
	return p
}

// Len is the size on the wire, header and all.
func (f *Frame) Len() int { return len(f.b) }

// queue is what a connection has not sent yet. Mostly that is one frame, so all else lies apart.
type queue struct {
	first *Frame
	more  *backlog // from the worker's stock; nil while first is alone and nothing of it is written
}

// backlog is what a queue knows besides its first frame.
type backlog struct {
	frames  []*Frame // behind the first
	off     int      // how much of the first is written
	unsent  int      // bytes that wait, the written part of the first not counted
	answers int      // of these, bytes of answers; a partly written answer counts whole

	forgiven bool  // see Forgive
	took     int64 // when the socket last took a byte, worker's clock; while forgiven
}

// unsent is how many bytes wait.
func (q *queue) unsent() int {
	switch {
	case q.more != nil:
		return q.more.unsent
	case q.first != nil:
		return len(q.first.b)
	}
	return 0
}

// answers is how many bytes of answers wait; a partly written one counts whole.
func (q *queue) answers() int {
	switch {
	case q.more != nil:
		return q.more.answers
	case q.first != nil && q.first.answer:
		return len(q.first.b)
	}
	return 0
}

// rest are the frames behind the first.
func (q *queue) rest() []*Frame {
	if q.more == nil {
		return nil
	}
	return q.more.frames
}

func (q *queue) push(f *Frame, w *Worker) {
	w.counts.Unsent += int64(len(f.b))
	if q.first == nil {
		q.first = f
		return
	}
	m := q.widen(w)
	m.frames = append(m.frames, f)
	m.unsent += len(f.b)
	if f.answer {
		m.answers += len(f.b)
	}
}

// widen gives the backlog of a queue that isn't empty.
func (q *queue) widen(w *Worker) *backlog {
	if q.more == nil {
		m := w.stock.get()
		m.unsent, m.answers = q.unsent(), q.answers()
		q.more = m
	}
	return q.more
}

// grow counts n more bytes of an answer that was queued last.
func (q *queue) grow(n int, w *Worker) {
	w.counts.Unsent += int64(n)
	if q.more != nil {
		q.more.unsent += n
		q.more.answers += n
	}
}

// last is the frame queued most recently, or nil.
func (q *queue) last() *Frame {
	if rest := q.rest(); len(rest) > 0 {
		return rest[len(rest)-1]
	}
	return q.first
}

// advance takes n written bytes off the front.
func (q *queue) advance(n int, w *Worker) {
	w.counts.Unsent -= int64(n)
	if q.more == nil {
		if n == len(q.first.b) {
			w.counts.MessagesSent += int64(q.first.holds)
			q.first = nil
			return
		}
		q.widen(w)
	}
	m := q.more
	m.unsent -= n
	n += m.off
	done := 0 // frames behind the first that are written whole
	f := q.first
	for f != nil && n >= len(f.b) {
		n -= len(f.b)
		w.counts.MessagesSent += int64(f.holds)
		if f.answer {
			m.answers -= len(f.b)
		}
		f = nil
		if done < len(m.frames) {
			f = m.frames[done]
			done++
		}
	}
	q.first, m.off = f, n
	if done > 0 {
		left := copy(m.frames, m.frames[done:])
		clear(m.frames[left:])
		m.frames = m.frames[:left]
	}
	if m.off == 0 && len(m.frames) == 0 && (f == nil || !m.forgiven) {
		q.narrow(w)
	}
}

// narrow gives the backlog back.
func (q *queue) narrow(w *Worker) {
	if q.more != nil {
		w.stock.put(q.more)
		q.more = nil
	}
}

// drop forgets everything but a partly written frame, which must stay or the stream would break.
func (q *queue) drop(w *Worker) {
	m := q.more
	if m == nil || m.off == 0 {
		q.abandon(w)
		return
	}
	clear(m.frames)
	m.frames = m.frames[:0]
	had := m.unsent
	m.unsent, m.answers = len(q.first.b)-m.off, 0
	if q.first.answer {
		m.answers = len(q.first.b)
	}
	w.counts.Unsent += int64(m.unsent - had)
}

// abandon forgets everything.
func (q *queue) abandon(w *Worker) {
	w.counts.Unsent -= int64(q.unsent())
	q.first = nil
	q.narrow(w)
}

// keep copies what is lent by the arena, because it stays queued past the end of the turn.
func (q *queue) keep() {
	if q.first != nil && q.first.lent {
		q.first = q.first.copied()
	}
	for i, f := range q.rest() {
		if f.lent {
			q.more.frames[i] = f.copied()
		}
	}
}

func (f *Frame) copied() *Frame {
	return &Frame{b: append([]byte(nil), f.b...), holds: f.holds, at: f.at, answer: f.answer}
}

// stock keeps backlogs: an idle connection holds none.
type stock struct{ free []*backlog }

const (
	stockSize = 16 << 10 // backlogs kept at most, 200 bytes each
	stockCap  = 256      // frames; one with room for more isn't kept
)

// get gives an empty one.
func (s *stock) get() *backlog {
	if n := len(s.free); n > 0 {
		m := s.free[n-1]
		s.free[n-1] = nil
		s.free = s.free[:n-1]
		return m
	}
	return &backlog{frames: make([]*Frame, 0, 16)}
}

func (s *stock) put(m *backlog) {
	if len(s.free) < stockSize && cap(m.frames) <= stockCap {
		clear(m.frames)
		*m = backlog{frames: m.frames[:0]}
		s.free = append(s.free, m)
	}
}
