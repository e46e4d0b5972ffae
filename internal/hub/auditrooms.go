package hub

import (
	"fmt"
	"slices"
)

// late is how long after its time a thing may still be there: it is looked at each slot, on a machine that is busy.
const late = 4 * slotTime

// auditRoom says of a room whether it will be looked at in time, and knows its locals. Its lock is held.
func (h *Hub) auditRoom(sh *roomShard, r *room, c *recount) {
	fault := func(format string, args ...any) {
		c.faults = append(c.faults, fmt.Sprintf("room %q: ", r.name)+fmt.Sprintf(format, args...))
	}
	now := clock()
	at := int64(0) // when it has to be looked at; 0 for never
	if r.log.Len() > 0 {
		at = r.log.At(0).At + r.policy().History.Age.Milliseconds()
	}
	if r.empty && r.members > 0 || !r.empty && !r.needed() {
		fault("that nobody is in it is counted: %t", r.empty)
	}
	if idle := r.active + r.stay(); r.empty && (at == 0 || idle < at) {
		at = idle
	}
	switch {
	case at == 0:
	case r.due == 0 || r.due > max(at/slotTime, sh.wheel.tick)+1:
		fault("it has to be looked at by %d ms, and will be at tick %d of %d ms", at, r.due, slotTime)
	case !slices.Contains(sh.wheel.slots[r.due%wheelSlots], r):
		fault("it is not where it is due")
	case now > at+late:
		fault("something is kept of it %d ms after its time", now-at)
	}
	for _, l := range r.locals {
		if !c.locals[l] {
			fault("members of worker %d are known, and there is none", l.w.Index())
		}
		delete(c.locals, l)
	}
	if p := r.presence; p != nil {
		if _, news := p.Due(); news && !p.runs {
			fault("there are news of members, and nobody tells them")
		}
	}
}

// auditClients holds the names of a shard against who is there, and the order of those who are parked against them.
func (h *Hub) auditClients(sh *clientShard, c *recount) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	named := map[string]map[ID]bool{}
	note := func(user string, id ID) {
		if user != "" {
			if named[user] == nil {
				named[user] = map[ID]bool{}
			}
			named[user][id] = true
		}
	}
	for _, s := range sh.sessions {
		note(s.name(), s.id)
	}
	now := clock()
	for _, p := range sh.parked {
		note(p.user, p.id)
		c.owners[p.payer] = true
		c.parked++
		switch {
		case p.by != nil:
		case !slices.ContainsFunc(sh.order, func(o parking) bool { return sh.due(o) == p }):
			c.faults = append(c.faults, fmt.Sprintf("client %s is parked, and nobody looks when its time is up", p.id))
		case now > p.until+late:
			c.faults = append(c.faults, fmt.Sprintf("client %s is parked %d ms after its time", p.id, now-p.until))
		}
	}
	if len(sh.order) > 2*len(sh.parked)+staleParkings+1 {
		c.faults = append(c.faults, fmt.Sprintf("%d parkings are kept of %d sessions", len(sh.order), len(sh.parked)))
	}
	for user, ids := range sh.users {
		for i, id := range ids.all {
			if !named[user][id] || ids.find(id) != i {
				c.faults = append(c.faults, fmt.Sprintf("client %s is known to be %q's, and isn't", id, user))
			}
		}
		if len(ids.all) != len(named[user]) {
			c.faults = append(c.faults, fmt.Sprintf("%d clients are %q's, %d are known", len(named[user]), user, len(ids.all)))
		}
		delete(named, user)
	}
	for user := range named {
		c.faults = append(c.faults, fmt.Sprintf("no client of %q is known, and there are some", user))
	}
}

// auditAll looks at what is counted of all sessions together, once each was looked at.
func (h *Hub) auditAll(c *recount) {
	fault := func(format string, args ...any) { c.faults = append(c.faults, fmt.Sprintf(format, args...)) }
	if n := h.parkedNow.Load(); n != int64(c.parked) {
		fault("%d sessions are parked, %d are counted", c.parked, n)
	}
	h.everyone.mu.Lock()
	if n := h.everyone.members; n != c.sessions {
		fault("%d are reached by chats, %d are counted", c.sessions, n)
	}
	h.everyone.mu.Unlock()
	for l := range c.locals {
		fault("room %q doesn't know its members of worker %d", l.room.name, l.w.Index())
	}
	seats := &h.limits.connections
	seats.mu.Lock()
	for user, n := range seats.taken {
		if c.seats[user] != n || n == 0 {
			fault("%q has %d connections, %d are counted", user, c.seats[user], n)
		}
		delete(c.seats, user)
	}
	seats.mu.Unlock()
	for user, n := range c.seats {
		fault("%q has %d connections, none is counted", user, n)
	}
	if h.Kept(KeptHooks) == 0 {
		h.auditPayers(c)
	}
}

// auditPayers looks at who is known to pay, while no hook runs or waits.
func (h *Hub) auditPayers(c *recount) {
	sessions := map[*payer]int{}
	for p := range c.owners {
		for _, up := range p.up {
			if up != nil {
				sessions[up]++
			}
		}
	}
	h.runs.mu.Lock()
	defer h.runs.mu.Unlock()
	h.payers.mu.Lock()
	defer h.payers.mu.Unlock()
	for name, p := range h.payers.all {
		if p.sessions != sessions[p] {
			c.faults = append(c.faults, fmt.Sprintf("%v has %d sessions, %d are counted", name, sessions[p], p.sessions))
		}
		c.owners[p] = true
	}
	for p := range c.owners {
		if n := p.events.Load(); n != 0 || p.running != 0 || len(p.hooks) > 0 {
			c.faults = append(c.faults, fmt.Sprintf("no hook runs, and of a payer (%v) %d calls and %d hooks are counted, and %d wait", p.name, n, p.running, len(p.hooks)))
		}
	}
}
