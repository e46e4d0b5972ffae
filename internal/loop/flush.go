package loop

import "slices"

func (w *Worker) flushAll() {
	for i := 0; i < len(w.dirty); i++ {
		if len(w.joined.b) > joinKeep {
			w.sendTogether()
			w.joined.forget()
		}
		switch c := w.dirty[i]; {
		case !c.dirty:
		case w.together.sender != nil && c.via == nil && c.out.first != nil && !c.full:
			w.collect(c)
		default:
			w.sendTogether()
			w.flushSafely(c)
		}
		if i == len(w.dirty)-1 {
			w.sendTogether() // which may bring more
		}
		if i%events2work == events2work-1 {
			w.breathe()
		}
	}
	clear(w.dirty)
	w.dirty = w.dirty[:0]
	w.arena.reset()
	w.joined.forget()
}

func (w *Worker) flushSafely(c *Conn) {
	defer w.recoverConn(c)
	w.flush(c)
}

// flush writes what is queued, as far as the socket takes it.
func (w *Worker) flush(c *Conn) {
	c.dirty = false
	for c.out.first != nil && !c.full {
		b := w.join(&c.out)
		n, err := c.send(b)
		w.written(c, n, len(b), err)
		if err != nil && err != errAgain {
			w.lost(c)
			return
		}
	}
	if c.state == dead || c.full {
		return
	}
	switch c.settle() {
	case nil:
		c.sent()
	case errAgain:
		c.full = true
		w.rearm(c)
	default:
		w.lost(c)
	}
}

// written accounts for a write of size bytes, of which the socket took n. One that took less is full until it is reported
// writable; of one that failed nothing more is written.
func (w *Worker) written(c *Conn, n, size int, err error) {
	w.counts.Writes++
	w.counts.BytesSent += int64(n)
	if err != nil && err != errAgain {
		return
	}
	if m := c.out.more; m != nil && m.forgiven && n > 0 {
		m.took = w.now
	}
	c.out.advance(n, w)
	if n < size {
		c.full = true
		c.out.keep() // the arena ends with the turn
		w.rearm(c)
	}
}

// joined is the buffer in which the frames of one write are put side by side, and which frames lie in the last of them:
// members of a room mostly get the same ones. Of writes that are made together each has its part of the buffer.
type joined struct {
	b      []byte
	begin  int // of the last
	frames []*Frame
}

const joinSize = 64 << 10

func (j *joined) forget() {
	clear(j.frames)
	j.b, j.begin, j.frames = j.b[:0], 0, j.frames[:0]
}

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
		return j.b[j.begin:]
	}
	clear(j.frames)
	j.frames = j.frames[:0]
	if j.begin = len(j.b); len(w.together.conns) == 0 {
		j.begin = 0
	}
	j.b = append(j.b[:j.begin], q.first.b[m.off:]...)
	took := 1
	for _, f := range m.frames {
		if len(j.b)-j.begin+len(f.b) > joinSize {
			break
		}
		j.b = append(j.b, f.b...)
		took++
	}
	if m.off == 0 && took == len(m.frames)+1 {
		j.frames = append(append(j.frames, q.first), m.frames...)
	}
	return j.b[j.begin:]
}
