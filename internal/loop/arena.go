package loop

import (
	"slices"

	"example.com/hubbub/internal/wire"
)

// arena holds the answers of one turn. Most are written at its end, so they need no memory of their own; what
// isn't is copied by queue.keep.
type arena struct {
	b      []byte
	frames []Frame // a frame is lent to one connection for the turn
	used   int
}

const (
	arenaSize   = 192 << 10
	arenaFrames = 1024
	arenaFlush  = 64 << 10 // past this the worker writes before it reads on, while the bytes are in the cache
)

func newArena() arena {
	return arena{b: make([]byte, 0, arenaSize), frames: make([]Frame, arenaFrames)}
}

func (a *arena) room(n int) bool { return cap(a.b)-len(a.b) >= n }

func (a *arena) frame() *Frame {
	if a.used == len(a.frames) {
		return nil
	}
	f := &a.frames[a.used]
	a.used++
	*f = Frame{answer: true, lent: true}
	return f
}

// endsWith says whether b is the end of what was appended last, so that it can grow in place.
func (a *arena) endsWith(b []byte) bool {
	return len(b) > 0 && len(a.b) > 0 && &b[len(b)-1] == &a.b[len(a.b)-1]
}

// extend appends a frame to the arena and returns b, which ended there, with the frame behind it.
func (a *arena) extend(b []byte, op wire.Opcode, payload []byte) []byte {
	start := len(a.b) - len(b)
	a.b = wire.AppendFrame(a.b, op, payload)
	return a.b[start:len(a.b):len(a.b)]
}

func (a *arena) busy() bool { return len(a.b) > arenaFlush || a.used > arenaFrames*3/4 }

func (a *arena) reset() {
	a.b = a.b[:0]
	a.used = 0
}

// joined is the buffer in which the frames of one write are put side by side, and which frames lie in it: members
// of a room mostly get the same ones.
type joined struct {
	b      []byte
	frames []*Frame
}

const joinSize = 64 << 10

// join gives the bytes of the next write: those of the first frame as they lie, or several frames side by side.
func (w *Worker) join(q *queue) []byte {
	if q.more == nil {
		return q.first.b
	}
	m := q.more
	if len(m.frames) == 0 || m.unsent > joinSize && len(q.first.b)-m.off >= joinSize/2 {
		return q.first.b[m.off:]
	}
	j := &w.joined
	if m.off == 0 && len(j.frames) == len(m.frames)+1 && j.frames[0] == q.first && slices.Equal(j.frames[1:], m.frames) {
		return j.b
	}
	clear(j.frames)
	j.frames = j.frames[:0]
	j.b = append(j.b[:0], q.first.b[m.off:]...)
	took := 1
	for _, f := range m.frames {
		if len(j.b)+len(f.b) > joinSize {
			break
		}
		j.b = append(j.b, f.b...)
		took++
	}
	if m.off == 0 && took == len(m.frames)+1 {
		j.frames = append(append(j.frames, q.first), m.frames...)
	}
	return j.b
}
