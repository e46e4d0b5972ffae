package hub

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"example.com/hubbub/internal/loop"
)

// Unsettled names each account of the hub that is not back at zero, with what it holds: none, once Stop has returned
// and no hook runs any more. Any goroutine.
func (h *Hub) Unsettled() (all []string) {
	account := func(n int64, what string) {
		if n != 0 {
			all = append(all, fmt.Sprintf("%s: %d", what, n))
		}
	}
	for k := range kinds {
		account(h.Kept(k), "bytes kept of "+k.String())
	}
	account(int64(h.Rooms()), "rooms")
	account(int64(h.Clients()), "clients")
	account(h.parkedNow.Load(), "parked sessions")
	h.everyone.mu.Lock()
	account(int64(h.everyone.members), "members of all")
	h.everyone.mu.Unlock()
	h.runs.mu.Lock()
	account(int64(h.runs.n), "hooks that run")
	account(int64(h.runs.waiting), "hooks that wait")
	account(int64(len(h.runs.last)), "clients whose hooks aren't done")
	account(int64(len(h.runs.connects)), "places of Connect")
	h.runs.mu.Unlock()
	account(int64(h.limits.connections.all()), "connections of users")
	h.payers.mu.Lock()
	account(int64(len(h.payers.all)), "users and addresses for whom something is kept")
	h.payers.mu.Unlock()
	for i := range h.rooms {
		h.rooms[i].mu.Lock()
		account(int64(len(h.rooms[i].events)), "rooms whose hooks aren't done")
		h.rooms[i].mu.Unlock()
		h.clients[i].mu.Lock()
		account(int64(len(h.clients[i].parked)), "parked sessions of a shard")
		if a := h.clients[i].away; a != nil {
			account(int64(len(a.handed)), "sessions on their way to other nodes")
		}
		account(int64(len(h.clients[i].users)), "users of a shard")
		h.clients[i].mu.Unlock()
	}
	return all
}

// recount is what is really there.
type recount struct {
	kept    [kinds]int64
	payers  map[*payer]int64
	members map[*room]int64
	faults  []string

	locals   map[*local]bool // in which sessions are
	owners   map[*payer]bool // of sessions, here or parked
	seats    map[string]int  // by user
	sessions int             // those that chats reach
	parked   int
}

func newRecount() *recount {
	return &recount{
		payers: map[*payer]int64{}, members: map[*room]int64{}, locals: map[*local]bool{}, owners: map[*payer]bool{}, seats: map[string]int{},
	}
}

// add adds what was counted elsewhere.
func (c *recount) add(of *recount) {
	for k, n := range of.kept {
		c.kept[k] += n
	}
	for p, n := range of.payers {
		c.payers[p] += n
	}
	for r, n := range of.members {
		c.members[r] += n
	}
	for user, n := range of.seats {
		c.seats[user] += n
	}
	maps.Copy(c.locals, of.locals)
	maps.Copy(c.owners, of.owners)
	c.sessions += of.sessions
	c.faults = append(c.faults, of.faults...)
}

func (c *recount) keep(k Kind, p *payer, n int64) {
	c.kept[k] += n
	if p != nil {
		c.payers[p] += n
		for _, up := range p.up {
			if up != nil {
				c.payers[up] += n
			}
		}
	}
}

// Audit counts anew all that the hub keeps, and names each account that says something else. It is for a moment at
// which nothing is under way: no message, no hook, no connection that comes or goes. It blocks for some milliseconds;
// any goroutine but a worker's.
func (h *Hub) Audit() []string {
	c := newRecount()
	found := make(chan *recount, len(h.workers))
	h.loop.Inspect(time.Minute, func(w *loop.Worker) {
		c := newRecount()
		c.faults = w.Recount()
		h.recountWorker(w, c)
		h.auditWorker(w, c)
		found <- c
	})
	for range h.workers {
		c.add(<-found)
	}
	for i := range h.clients {
		h.recountParked(&h.clients[i], c)
		h.auditClients(&h.clients[i], c)
		h.recountMemory(&h.memories[i], c)
	}
	if h.cluster != nil {
		c.keep(KeptPublishIDs, nil, h.cluster.claims.bytes())
	}
	for i := range h.rooms {
		h.rooms[i].each(func(r *room) {
			h.recountRoom(r, c)
			h.auditRoom(&h.rooms[i], r, c)
		})
	}
	h.auditAll(c)
	c.faults = append(c.faults, h.limits.users.audit()...)
	c.faults = append(c.faults, h.limits.addresses.audit()...)
	h.recountTails(c)
	if h.cluster != nil {
		h.cluster.asking.recount(c)
		h.cluster.witness.recount(c)
	}
	for k := range KeptHooks { // of what waits for hooks each has its own count
		if has := h.Kept(k); has != c.kept[k] {
			c.faults = append(c.faults, fmt.Sprintf("%d bytes kept of %s are counted, %d are there", has, k, c.kept[k]))
		}
	}
	h.payers.mu.Lock()
	for name, p := range h.payers.all {
		c.payers[p] += 0
		if p.sessions == 0 && p.bytes.Load() == 0 {
			c.faults = append(c.faults, fmt.Sprintf("%v is known though nothing is kept", name))
		}
	}
	h.payers.mu.Unlock()
	if h.Kept(KeptHooks) > 0 {
		return c.faults // who pays for that isn't known here
	}
	for p, n := range c.payers {
		if has := p.bytes.Load(); has != n {
			c.faults = append(c.faults, fmt.Sprintf("%d bytes are counted for a payer (%v), %d are there", has, p.name, n))
		}
	}
	return c.faults
}

// recountWorker counts what the sessions of a worker have. On its goroutine.
func (h *Hub) recountWorker(w *loop.Worker, c *recount) {
	for _, l := range h.workers[w.Index()].everyone {
		if l != nil {
			h.recountMembers(l, c)
		}
	}
}

func (h *Hub) recountMembers(everyone *local, c *recount) {
	for i, m := range everyone.members {
		s := m.s
		c.sessions++
		h.auditSession(s, c)
		if int(s.all) != i {
			c.faults = append(c.faults, fmt.Sprintf("client %s is at %d among all, not at %d", s.id, i, s.all))
		}
		for at, m := range s.rooms {
			c.members[m.local.room]++
			if int(m.at) >= len(m.local.members) || m.local.members[m.at].s != s {
				c.faults = append(c.faults, fmt.Sprintf("client %s is not where it should be in %q", s.id, m.local.room.name))
			}
			if at >= manyRooms {
				c.keep(KeptMemberships, s.more.payer, membershipCost)
			}
		}
		if s.more != nil && s.more.payer != nil {
			c.payers[s.more.payer] += 0
		}
		if s.coming() {
			for _, r := range s.more.coming.left {
				c.members[r.room]++
			}
		}
	}
}

func (h *Hub) recountParked(sh *clientShard, c *recount) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	all := slices.Collect(maps.Values(sh.parked))
	if sh.away != nil {
		for _, hd := range sh.away.handed {
			all = append(all, hd.p)
		}
	}
	for _, p := range all {
		c.keep(KeptParked, p.payer, p.cost)
		unsent := 0
		for _, d := range p.directs {
			c.keep(KeptParked, d.payer, int64(d.message.Size()))
			unsent += d.message.Size()
		}
		if unsent != p.unsent {
			c.faults = append(c.faults, fmt.Sprintf("%d bytes wait for %s, %d are counted", unsent, p.id, p.unsent))
		}
		if p.by == nil {
			for _, r := range p.rooms {
				c.members[r.room]++
			}
		}
	}
}

func (h *Hub) recountMemory(d *memory, c *recount) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.order {
		c.keep(KeptPublishIDs, r.payer, r.key.cost())
	}
	if len(d.order) != len(d.seen) {
		c.faults = append(c.faults, fmt.Sprintf("%d publish_ids are in order, %d are known", len(d.order), len(d.seen)))
	}
}

func (h *Hub) recountTails(c *recount) {
	for _, t := range h.tails.list() {
		t.mu.Lock()
		for _, i := range t.items {
			c.keep(KeptTails, nil, tailItemCost+int64(len(i.Content)))
		}
		t.mu.Unlock()
	}
}

// recountRoom counts what a room has. Its lock is held.
func (h *Hub) recountRoom(r *room, c *recount) {
	bytes := 0
	for i := range r.log.Len() {
		e := r.log.At(i)
		c.keep(KeptHistory, e.Payer, entryBytes(e))
		bytes += e.Size()
	}
	if bytes != r.log.Bytes() {
		c.faults = append(c.faults, fmt.Sprintf("room %q has %d bytes of history, %d are counted", r.name, bytes, r.log.Bytes()))
	}
	if r.empty {
		c.keep(KeptRooms, r.payer, roomCost)
	}
	if n := c.members[r]; int64(r.members) != n {
		c.faults = append(c.faults, fmt.Sprintf("room %q counts %d members, %d are there", r.name, r.members, n))
	}
	if p := r.presence; p != nil {
		for of := range p.Kept() {
			c.keep(KeptPresence, of.Payer, of.Bytes)
		}
		n := p.OwnLen()
		if p.together != nil {
			n -= len(p.together.moving)
		}
		if n != r.members {
			c.faults = append(c.faults, fmt.Sprintf("room %q tells of %d members, %d are there", r.name, n, r.members))
		}
	}
}
