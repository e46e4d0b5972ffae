package hub

import (
	"math"
	"slices"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// Where Config.Broker keeps the logs of rooms with history, for several nodes or on disk, the hub is its Node. Where there
// is none, each node keeps its own, and nothing of this file is in the way.

// remote is what a room has where its log lies elsewhere, or other nodes may have members of it. Guarded by the room's
// mu; members, and users, hold it open.
type remote struct {
	log, topic part          // topic: what other nodes tell the room (topics.go)
	opened     []func(error) // who waits for both
	users      int           // who needs the room to stay, beside its members
	begun      int64         // when its log was read, or begun by another; the hub's clock
	told       uint64        // the life of the account in which the witness is told of it as quiet; 0 for none (witness.go)
	behind     []appended    // what the log has taken from this node, and hasn't brought here yet
	misses     *misses       // nil until something was missed of what others tell
}

// part is something of a room that the broker brings.
type part struct {
	needed bool   // static
	ready  bool   // all that comes from now on is brought: where it is a log, its position is known
	close  func() // nil unless it is ready, or asked for
}

func (p *part) done() bool { return p.ready || !p.needed }

// end has it brought no more.
func (p *part) end() {
	if p.close != nil {
		p.close()
	}
	p.ready, p.close = false, nil
}

// open says that who joins now misses nothing of what is published from then on.
func (m *remote) open() bool { return m.log.done() && m.topic.done() }

// appended is a message whose publisher isn't told yet.
type appended struct {
	offset uint64
	tell   func()
}

// whenBrought calls tell once the room, where it is open here, has come as far as a position in its log: who is told of it
// may name it at once, in a join or for a page. tell mustn't block.
func (h *Hub) whenBrought(name string, at broker.Position, tell func()) {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[name]
	if r == nil || !r.known() || r.position().Epoch != at.Epoch || r.position().Offset >= at.Offset {
		tell()
		return
	}
	r.remote.behind = append(r.remote.behind, appended{at.Offset, tell})
}

// brought tells publishers that the room has come up to an offset. r.mu is held.
func (r *room) brought(to uint64) {
	r.remote.behind = slices.DeleteFunc(r.remote.behind, func(a appended) bool {
		if a.offset <= to {
			a.tell()
		}
		return a.offset <= to
	})
}

// Remote says whether rooms may have their logs elsewhere, so that a publish may wait.
func (h *Hub) Remote() bool { return h.cfg().Broker != nil }

// remoteLog says that the room's log lies elsewhere.
func (h *Hub) remoteLog(name string) bool {
	return h.cfg().Broker != nil && h.cfg().Policies.For(name).History.Messages > 0
}

// brokers is the room of that name to the broker.
func (h *Hub) brokers(name string) broker.Room {
	p := h.cfg().Policies.For(name)
	return broker.Room{Name: name, Messages: p.History.Messages, Age: p.History.Age, Replicas: p.Replicas}
}

// use opens a room that must be (opens), and calls ready when it is, at once or later. The room stays until unuse.
func (h *Hub) use(name string, ready func(error)) {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := h.room(sh, name)
	m := r.remote
	m.users++
	if m.open() {
		ready(nil)
		return
	}
	m.opened = append(m.opened, ready)
	if !m.log.done() && m.log.close == nil {
		m.log.close = h.cfg().Broker.Open(h.brokers(name), func(log broker.Log, err error) { h.opened(r, log, err) })
	}
	if !m.topic.done() && m.topic.close == nil {
		m.topic.close = h.cfg().Broker.Listen(name, func(err error) { h.listened(r, err) })
	}
}

// unuse is use's end.
func (h *Hub) unuse(name string) {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[name]
	r.remote.users--
	h.unused(r, nil)
}

// opened is called when a room's log has been read, or can't be.
func (h *Hub) opened(r *room, log broker.Log, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.gone:
		return
	case err == nil:
		h.begin(r, log)
		r.remote.log.ready = true
	default:
		r.remote.log.end()
	}
	r.remote.settle(err)
}

// settle tells those who wait for the room, once it is open or can't be. r.mu is held.
func (m *remote) settle(err error) {
	if err == nil && !m.open() {
		return
	}
	for _, ready := range m.opened {
		ready(err)
	}
	m.opened = nil
}

// begin has the room's history be a log's. r.mu is held.
func (h *Hub) begin(r *room, log broker.Log) {
	h.speaks(r, false)
	h.clearHistory(r, 0)
	r.remote.begun = clock()
	r.log = h.readLog(r.name, log, &r.seq)
	for i := range r.log.Len() {
		h.count(KeptHistory, entryBytes(r.log.At(i)))
	}
	if r.log.Len() > 0 {
		h.schedule(r, r.log.At(0).At+r.policy().History.Age.Milliseconds())
	}
}

// readLog is what a broker keeps of a room, within the room's bounds; seq goes on with each entry. Nobody keeps account
// of it.
func (h *Hub) readLog(name string, log broker.Log, seq *uint64) (l history.Log[*payer]) {
	l.Begin(history.Position{Epoch: log.At.Epoch, Offset: log.Floor})
	now, wall := clock(), time.Now().UnixMilli()
	for _, entry := range log.Entries {
		*seq++
		e, from, to := h.readEntry(name, entry, l.Position().Offset)
		e.Seq, e.At = *seq, now-max(0, wall-entry.Time)
		switch taken := l.Find(from); {
		case from != 0 && taken == nil && from <= l.Floor():
			l.Gone(from)
		case from != 0 && taken != nil && !taken.Deleted:
			l.Delete(taken)
		}
		l.Append(e)
		if to != 0 {
			to = min(to, e.Prev)
			for l.At(0).Offset <= to {
				l.Drop()
			}
			l.Cleared(to)
		}
	}
	l.Skip(log.At.Offset)
	for bounds := &h.cfg().Policies.For(name).History; l.Over(bounds, now); {
		l.Drop()
	}
	return l
}

// readEntry reads an entry of a log that stands behind the offset prev: a message, or what holds the place of one and
// takes back others.
func (h *Hub) readEntry(room string, entry broker.Entry, prev uint64) (e history.Entry[*payer], from, to uint64) {
	m, from, to, err := protocol.ReadRecord(room, entry.Body)
	if err != nil {
		h.cfg().Log.Error("a room's log has a message that can't be read", "room", room, "offset", entry.Offset, "error", err)
	}
	if e.Message = m; m == nil {
		e.Message, e.Deleted = &protocol.Message{Kind: protocol.RoomMessage, Room: room}, true
	}
	e.Place(prev, entry.Offset)
	return e, from, to
}

// Deliver implements broker.Node.
func (h *Hub) Deliver(room string, entries []broker.Entry) {
	sh := h.roomShard(room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[room]
	if r == nil || !r.remote.log.ready {
		return // nobody needs it
	}
	for _, e := range entries {
		if !r.gone && e.Offset > r.position().Offset { // as the hub stops it may go with any of them
			h.deliverEntry(r, e)
		}
	}
	if !r.gone {
		r.brought(r.position().Offset)
	}
}

// deliverEntry applies what comes next in a room's log. r.mu is held.
func (h *Hub) deliverEntry(r *room, entry broker.Entry) {
	h.speaks(r, false)
	e, from, to := h.readEntry(r.name, entry, r.position().Offset)
	if !e.Deleted {
		except, _ := ParseID([]byte(e.Except))
		h.renew(r)
		h.apply(r, e.Message, h.here(except), nil)
		return
	}
	var news *protocol.Answer
	switch { // before what says so is kept, and may push it out
	case from != 0:
		news = h.takeBack(r, from)
	case to != 0:
		news = h.takeBackAll(r, min(to, e.Prev))
	}
	r.seq++
	e.Seq, e.At = r.seq, clock()
	h.store(r, e)
	if news != nil {
		r.retract(news)
		h.tailDeleted(r, news)
	}
}

// Lost implements broker.Node: what the room's members have missed can't be brought, and they are told so.
func (h *Hub) Lost(room string, log broker.Log) {
	sh := h.roomShard(room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[room]
	if r == nil || !r.remote.log.ready {
		return
	}
	was := r.position()
	gap := protocol.Answer{Kind: protocol.AnswerGap, Room: room, Reason: protocol.GapNode, From: history.Next(was.Offset), To: log.Floor}
	if log.At.Epoch != was.Epoch {
		gap = protocol.Answer{Kind: protocol.AnswerGap, Room: room, Reason: protocol.ReasonEpoch, Epoch: log.At.Epoch, To: log.Floor}
	}
	r.seq++ // stands for what nobody knows the number of: who catches up finds a gap there
	behind := log.Entries
	log.Entries = nil
	at := log.At
	log.At.Offset = log.Floor
	h.begin(r, log)
	x := &shared{answer: &gap}
	for _, l := range r.locals {
		l.w.Post(&loss{local: l, shared: x}, 0)
	}
	for _, e := range behind {
		if !r.gone {
			h.deliverEntry(r, e)
		}
	}
	if !r.gone {
		r.log.Skip(at.Offset)
		r.brought(math.MaxUint64)
	}
}

// loss is word of a gap, on its way to the members of one local.
type loss struct {
	local *local
	*shared
	seq uint64 // in a room without history: who has joined behind that misses nothing
}

func (t *loss) Run(*loop.Worker) {
	l := t.local
	f := t.frame(l)
	for i := len(l.members) - 1; f != nil && i >= 0; i-- { // backwards, as deliver does
		switch m := l.members[i]; {
		case t.seq != 0 && l.since(m.s) >= t.seq:
		case m.s.coming() && l.room.name != "": // the resume tells it
		case !l.waits():
			m.conn.Send(f)
		default:
			l.offer(m, &waiting{frame: f, news: true, firm: true})
		}
	}
}
