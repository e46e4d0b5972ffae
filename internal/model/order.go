package model

// bits is a set of small numbers.
type bits []uint64

func (b bits) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bits) set(i int)      { b[i/64] |= 1 << (i % 64) }

func (b bits) add(o bits) {
	for i := range b {
		b[i] |= o[i]
	}
}

// before says that a comes before b in the room. Where the room has history the offsets say so; else what somebody saw:
// a member or a publisher had a before b, or a was acknowledged before b was sent, or a chain of these.
func (r *roomLog) before(a, b *message) bool {
	if a.position.Epoch != "" && b.position.Epoch != "" {
		return a.position.Epoch == b.position.Epoch && a.position.Offset < b.position.Offset
	}
	return r.paths[a.n].has(b.n)
}

// arrange finds out what came before what, and where that contradicts itself.
func (c *checking) arrange(r *roomLog) {
	n := len(r.messages)
	next := make([]bits, n)
	words := (n + 63) / 64
	for a, m := range r.messages {
		next[a] = make(bits, words)
		for b, o := range r.messages {
			if m.ackedAt != 0 && m.ackedAt < o.sentAt && !r.unordered() {
				next[a].set(b)
			}
		}
	}
	if len(r.places) == 0 && !r.unordered() { // else each member's order is held against the offsets, in checkSpan
		for _, stream := range r.received {
			r.chain(next, stream, func(m *message) bool { return true })
		}
	}
	for _, stream := range r.published { // of several tries nobody knows which was accepted
		r.chain(next, stream, func(m *message) bool { return m.accepted() && len(m.from) == 1 })
	}
	// All paths (Warshall): what is reached over m is reached from those that reach m.
	for m := range n {
		for a := range n {
			if next[a].has(m) {
				next[a].add(next[m])
			}
		}
	}
	r.paths = next
	for _, m := range r.messages {
		if r.circular(m) {
			c.fault(Disordered, "", r, m, "%s comes before itself, by what all together saw", m)
			return // the others of the circle say no more
		}
	}
	for _, a := range r.messages {
		for _, b := range r.messages {
			if next[a.n].has(b.n) && a.position.Epoch != "" && a.position.Epoch == b.position.Epoch && a.position.Offset >= b.position.Offset {
				c.fault(Disordered, "", r, b, "%s (offset %d) came before %s (offset %d)", a, a.position.Offset, b, b.position.Offset)
				return
			}
		}
	}
}

// unordered says that only what one publisher sent is in order: there is no log, and members are on several nodes.
func (r *roomLog) unordered() bool { return r.policy.Nodes && len(r.places) == 0 }

// chain notes that each message of a stream comes before the next one that counts.
func (r *roomLog) chain(next []bits, stream []int, counts func(*message) bool) {
	last := -1
	for _, n := range stream {
		if !counts(r.messages[n]) {
			continue
		}
		if last >= 0 {
			next[last].set(n)
		}
		last = n
	}
}

// circular says that a message comes before itself: then the order around it means nothing.
func (r *roomLog) circular(m *message) bool { return r.paths[m.n].has(m.n) }
