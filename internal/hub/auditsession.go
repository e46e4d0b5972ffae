package hub

import (
	"fmt"

	"example.com/hubbub/internal/loop"
)

// What each session, and each local that it is in, says of others must be what these say of it. audit.go asks here.

// fault notes what is wrong with a session.
func (c *recount) fault(s *session, format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf("client %s: ", s.id)+fmt.Sprintf(format, args...))
}

// auditSession holds what a session knows against all that it is in. The goroutine of its worker.
func (h *Hub) auditSession(s *session, c *recount) {
	if who := s.known(); s.self != nil {
		if s.self.sits {
			c.seats[s.name()]++
		}
		expires, x := expiresAt(who) != 0, s.self.expiry
		if all := s.state().expiring; expires != (x != nil) || x != nil && (x.i >= len(all) || all[x.i] != x) {
			c.fault(s, "its identity's end is not what its worker goes by")
		}
	}
	h.auditLocal(s, s.everyone(), c)
	in := map[*local]bool{}
	for _, m := range s.rooms {
		in[m.local] = true
		c.locals[m.local] = true
		h.auditLocal(s, m.local, c)
		s.auditShown(m, c)
	}
	h.auditReading(s, c)
	m := s.more
	if m == nil {
		return
	}
	if m.payer != nil {
		c.owners[m.payer] = true
	}
	if len(s.rooms) > manyRooms && m.byName == nil || m.byName != nil && len(m.byName) != len(s.rooms) {
		c.fault(s, "%d rooms, %d by name", len(s.rooms), len(m.byName))
	}
	for name, i := range m.byName {
		if i >= len(s.rooms) || s.rooms[i].local.room.name != name {
			c.fault(s, "room %q is not where its name leads", name)
		}
	}
	s.auditMissing(in, c)
	s.auditFlow(in, c)
}

// auditShown holds what a room shows of a member against what the session counts for it.
func (s *session) auditShown(m membership, c *recount) {
	r := m.local.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.presence == nil {
		return // its policy isn't full
	}
	if who, here := r.presence.Find(s.id.String()); !here || len(who.Data) != int(m.data) {
		c.fault(s, "room %q shows %d bytes of its data, and has %d; it shows it: %t", r.name, len(who.Data), m.data, here)
	}
}

// auditLocal holds a member's side of a room against the room's. A worker that has nothing to do has delivered all; but of a
// log that lies elsewhere there are places for which nothing is delivered, and chats don't come to where nobody is.
func (h *Hub) auditLocal(s *session, l *local, c *recount) {
	if l.w != s.conn.Worker() || l.dialect != s.dialect() {
		c.fault(s, "in %q it is with those of another worker or dialect", l.room.name)
	}
	if since, fresh := l.fresh[s]; fresh && since != never && l.room != h.everyone && l.room.remote == nil {
		c.fault(s, "in %q it still waits for message %d, and %d was the last", l.room.name, since, l.seen)
	}
	for of := range l.fresh {
		if l.room != h.everyone && of.find([]byte(l.room.name)) < 0 {
			c.fault(of, "it is a newcomer in %q and no member", l.room.name)
		}
	}
	if len(l.fresh) == 0 && (l.fresh != nil || l.replay != nil) {
		c.fault(s, "in %q nobody catches up, and what was replayed is kept", l.room.name)
	}
	if s.conn.Marked {
		c.fault(s, "in %q it is marked, and nothing is delivered", l.room.name)
	}
	for i, g := range l.lags {
		if g.at != i || g.local != l || g.s.lag(l) != g {
			c.fault(g.s, "in %q it isn't where those who lag should be", l.room.name)
		}
	}
}

// auditReading says of a session that isn't read, and nothing stands before that.
func (h *Hub) auditReading(s *session, c *recount) {
	waits := s.naming()
	if s.more != nil && s.more.operations != nil {
		q := s.more.operations
		waits = waits || q.full(s)
		bytes := 0
		for _, raw := range q.waiting {
			bytes += len(raw)
		}
		for _, o := range q.asked {
			bytes += o.bytes
		}
		if bytes != q.bytes {
			c.fault(s, "%d bytes of commands wait, %d are counted", bytes, q.bytes)
		}
		if len(q.waiting) > 0 && q.running == nil && len(q.asked) == 0 && !s.naming() {
			c.fault(s, "%d commands wait for nothing", len(q.waiting))
		}
	}
	if s.conn.Paused() != waits && (s.more == nil || s.more.operations == nil || s.more.operations.running == nil) {
		c.fault(s, "it is not read: %t, and that it must wait is %t", s.conn.Paused(), waits)
	}
}

// auditMissing looks at what the session is still to be brought, of the rooms that it is in.
func (s *session) auditMissing(in map[*local]bool, c *recount) {
	m := s.more
	waits := map[*local]bool{} // that are followed later
	pulls := m.pulls
	if s.coming() {
		pulls = append(pulls[:len(pulls):len(pulls)], m.coming.pulls...)
		for _, l := range m.coming.quiet {
			waits[l] = true
		}
		asks := m.operations != nil && (m.operations.running != nil || len(m.operations.asked) > 0)
		if m.coming.asked && !asks || !m.coming.asked && !m.alarm {
			c.fault(s, "it is coming home, and nobody looks when its time is up")
		}
	}
	for _, p := range pulls {
		if waits[p.local] {
			c.fault(s, "room %q is caught up with twice", p.local.room.name)
		}
		waits[p.local] = true
	}
	for l := range waits {
		if !in[l] || l.fresh[s] != never {
			c.fault(s, "it catches up with %q, and is no newcomer there", l.room.name)
		}
	}
	for l := range in {
		if l.fresh[s] == never && !waits[l] {
			c.fault(s, "it gets nothing of %q, and doesn't catch up", l.room.name)
		}
	}
	if m.placings != nil {
		for _, e := range m.placings.entered {
			if !in[e.local] {
				c.fault(s, "it was put into %q, and isn't there", e.local.room.name)
			}
		}
	}
	for _, d := range m.waited {
		c.keep(KeptParked, d.payer, int64(d.message.Size()))
	}
	if (len(m.waited)+len(m.pulls)+len(m.flow.lags) > 0 || s.naming()) && !s.conn.TellDrained {
		c.fault(s, "something waits for it, and nobody looks when its socket has drained")
	}
}

// auditFlow recounts what lags.
func (s *session) auditFlow(in map[*local]bool, c *recount) {
	f := &s.more.flow
	var has flow
	for _, g := range f.lags {
		if !in[g.local] && g.local != s.everyone() || g.s != s {
			c.fault(s, "it lags in %q, and isn't there", g.local.room.name)
		}
		plain := g.plain[0]
		var prev *waiting
		for w := g.first; w != nil; prev, w = w, w.next {
			switch {
			case w.prev != prev || w.keyed && g.keys[w.key] != w:
				c.fault(s, "what waits in %q is not in order", g.local.room.name)
			case w.keyed || w.firm:
				has.keys++
				has.keyed += w.cost()
			case plain != w:
				c.fault(s, "what may be dropped in %q is not in order", g.local.room.name)
			default:
				plain = plain.plain
				has.plain += w.cost()
			}
		}
		if g.last != prev || plain != nil {
			c.fault(s, "the end of what waits in %q is another", g.local.room.name)
		}
	}
	if has.plain != f.plain || has.keyed != f.keyed || has.keys != f.keys {
		c.fault(s, "%d bytes and %d of %d keys wait, %d and %d of %d are counted", has.plain, has.keyed, has.keys, f.plain, f.keyed, f.keys)
	}
	if owed := s.conn.Owed(); owed != f.plain+f.keyed {
		c.fault(s, "%d bytes are owed to it, %d wait", owed, f.plain+f.keyed)
	}
}

// auditWorker looks at what a worker has beside its sessions.
func (h *Hub) auditWorker(w *loop.Worker, c *recount) {
	st := h.workers[w.Index()]
	if len(st.gathered) > 0 {
		c.faults = append(c.faults, fmt.Sprintf("worker %d: %d rooms are gathered and not delivered", w.Index(), len(st.gathered)))
	}
	if len(st.expiring) > 0 && st.alarm == 0 {
		c.faults = append(c.faults, fmt.Sprintf("worker %d: nobody looks when %d identities expire", w.Index(), len(st.expiring)))
	}
}
