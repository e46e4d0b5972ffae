package loop

// sender makes many writes by one call of the kernel. A worker's goroutine owns it.
type sender interface {
	// put adds a write to the next send and says whether there is room for another one. b isn't empty, and stays as it is
	// until send returns.
	put(fd int32, b []byte) (more bool)
	// send makes all writes that were put, each as far as its socket takes it without waiting, and gives what became of
	// them in the order of put. When it returns the kernel is done with every one. The slice is good until the next put.
	send() []sent
	close()
}

// sent is what became of one write: bytes that the socket took, or why it took none; errAgain where it has no room.
type sent struct {
	n   int
	err error
}

// together is what a worker with a sender has collected of a turn's writes.
type together struct {
	sender // nil: each connection is written to by itself
	conns  []*Conn
	sizes  []int // of the writes, bytes
}

// joinKeep is how many bytes of joined frames are collected before they are sent; those of the last may lie above it.
const joinKeep = 256 << 10

// collect puts the write of a connection that has something queued beside those of others. No handler may run between
// this and sendTogether, which is told nothing of what it would queue or end.
func (w *Worker) collect(c *Conn) {
	t := &w.together
	c.dirty = false
	b := w.join(&c.out)
	t.conns = append(t.conns, c)
	t.sizes = append(t.sizes, len(b))
	if !t.put(c.fd, b) {
		w.sendTogether()
	}
}

// sendTogether writes what was collected. All queues are brought up to date before anything is done about it: a handler
// that is called then finds each as its socket left it.
func (w *Worker) sendTogether() {
	t := &w.together
	if len(t.conns) == 0 {
		return
	}
	conns, all := t.conns, t.send()
	for i, c := range conns {
		w.written(c, all[i].n, t.sizes[i], all[i].err)
	}
	t.conns, t.sizes = t.conns[:0], t.sizes[:0]
	for _, c := range conns {
		w.flushSafely(c) // what one write didn't take; and one that failed fails again, or it was no fault of the socket's
	}
	clear(conns)
}
