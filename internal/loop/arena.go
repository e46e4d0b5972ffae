package loop

import "example.com/hubbub/internal/wire"

// arena holds the answers of one turn. Most are written at its end, so they need no memory of their own; what isn't is
// copied by queue.keep.
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
