package hub

import (
	"hash/maphash"
	"strconv"
	"sync"

	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// apply gives m its place in the room's order on this node, keeps it in the history and sends it to the members but
// from: once a local, not once a member. m has its place in the log, by the policy that r goes by: whoever gives it that has
// renewed r before, and a reload that comes in between waits for the next message. p pays for what is kept. r.mu is held,
// so all workers get the room's messages in one order. It returns a worker whose mailbox is above high water, or nil.
func (h *Hub) apply(r *room, m *protocol.Message, from *session, p *payer) (full *loop.Worker) {
	if m.Trace != nil {
		defer h.traceFanOut(r, m)()
	}
	r.seq++
	r.pace.add(m.Time)
	h.tailMessage(m, r.position().Epoch)
	if len(r.locals) > 0 {
		x := r.posting(m, from)
		for _, l := range r.locals {
			if l.w.Post(&delivery{l, x}, x.cost) {
				full = l.w
			}
		}
	}
	if r.keeps() {
		h.store(r, history.Entry[*payer]{Message: m, Seq: r.seq, At: clock(), Payer: p})
	}
	return full
}

// posting is what the deliveries of m share. r.mu is held.
func (r *room) posting(m *protocol.Message, from *session) *posting {
	x := &posting{shared: shared{message: m}, from: from, seq: r.seq, cost: m.Size()}
	if r.policy().SlowConsumer == LatestByKey {
		x.key = string(m.Key)
	}
	return x
}

// full is a worker that has too much to do, or nil. r.mu is held.
func (r *room) full() *loop.Worker {
	for _, l := range r.locals {
		if l.w.Full() {
			return l.w
		}
	}
	return nil
}

// publish gives m its place in the log of the room, which this node keeps itself, and has it applied. r.mu is held.
func (h *Hub) publish(r *room, m *protocol.Message, from *session, p *payer) (at history.Position, full *loop.Worker) {
	if r.keeps() {
		m.Place(r.log.Next())
	} else {
		m.Place(0, 0)
	}
	full = h.apply(r, m, from, p)
	at = r.position()
	if r.tells {
		h.tellPublished(m, at.Epoch)
	}
	return at, full
}

// publishKey is what a message with a publish_id is known by.
func (s *session) publishKey(cmd *protocol.Command) publishKey {
	key := publishKey{user: s.name(), room: string(cmd.Room), id: string(cmd.PublishID)}
	if key.user == "" {
		key.session = s.id
	}
	return key
}

// roomMessage publishes what a client sent.
func (s *session) roomMessage(cmd *protocol.Command) {
	var r *room // a member knows it without a search
	var name string
	if i := s.find(cmd.Room); i >= 0 {
		r = s.rooms[i].local.room
		name = r.name
	} else {
		name = string(cmd.Room)
	}
	if s.hub.remoteLog(name) {
		s.publishRemotely(cmd)
		return
	}
	if s.hub.cluster != nil {
		s.publishOnNodes(name, cmd)
		return
	}
	if cmd.PublishID == nil {
		at, full := s.publish(r, name, cmd)
		s.published(cmd, at, false, full)
		return
	}
	var full *loop.Worker
	at, duplicate, _ := s.hub.once(s.publishKey(cmd), s.payer(), func() (at history.Position, err error) {
		at, full = s.publish(r, name, cmd)
		return at, nil
	})
	s.published(cmd, at, duplicate, full)
}

// publish brings a client's message to the room, where the hub is alone; r may be nil. A room that nobody is in and that
// keeps no history isn't made for it.
func (s *session) publish(r *room, name string, cmd *protocol.Command) (at history.Position, full *loop.Worker) {
	m := s.message(protocol.RoomMessage, cmd)
	m.Room = name
	sh := s.hub.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if r == nil {
		r = s.hub.published(sh, m)
	}
	if r == nil {
		s.hub.tailMessage(m, "")
		return at, nil
	}
	s.hub.renew(r)
	var from *session
	if !r.policy().IncludeSender {
		from, m.Except = s, m.From
	}
	var p *payer
	if r.keeps() {
		p = s.payer()
	}
	return s.hub.publish(r, m, from, p)
}

// publishHere brings m to the room, on this node and the others, or nowhere: ErrUnavailable. Who is excluded stands in
// m, and is from where it is here. sh.mu is held.
func (h *Hub) publishHere(sh *roomShard, m *protocol.Message, from *session, p *payer) (at history.Position, full *loop.Worker, err error) {
	if err = h.tellOthers(m); err != nil {
		return at, nil, err
	}
	r := h.published(sh, m)
	if r == nil {
		h.tailMessage(m, "")
		return at, nil, nil
	}
	at, full = h.publish(r, m, from, p)
	return at, full, nil
}

// published is the room for a message to it, or nil where it would go nowhere but to sinks. sh.mu is held.
func (h *Hub) published(sh *roomShard, m *protocol.Message) *room {
	if r := sh.rooms[m.Room]; r != nil {
		h.renew(r)
		return r
	}
	if h.cfg().Policies.For(m.Room).History.Messages > 0 {
		return h.room(sh, m.Room)
	}
	if h.cfg().tells(m.Room) {
		m.Place(0, 0)
		h.tellPublished(m, "")
	}
	return nil
}

// published pauses a publisher that is ahead of a worker, and acknowledges.
func (s *session) published(cmd *protocol.Command, at history.Position, duplicate bool, full *loop.Worker) {
	if full != nil {
		s.conn.Throttle(full)
	}
	if cmd.ID != nil {
		s.answer(protocol.Answer{Kind: protocol.AnswerAck, ID: cmd.ID, Epoch: at.Epoch, Offset: at.Offset, Duplicate: duplicate})
	}
}

// publishKey is who published what where: fields, never one joined string, or two could be taken for one another.
type publishKey struct {
	user    string // of these three one at most: all are zero for the application itself
	session ID
	apiKey  string // the name of the key by which the application's backend came
	room    string
	id      string
}

// text is the key as one string, each part behind its length; "" for a message without a publish_id.
func (k publishKey) text() string {
	if k.id == "" {
		return ""
	}
	text := ""
	for _, part := range []string{k.user, string(k.session[:]), k.apiKey, k.room, k.id} {
		text += strconv.Itoa(len(part)) + ":" + part
	}
	return text
}

// publishCost is what one that is remembered counts for, beside its strings.
const publishCost = 256

// memory is what was published by publish_id within the window.
type memory struct {
	mu    sync.Mutex // held while a message is published: taken before a room's
	seen  map[publishKey]history.Position
	order []remembered // by age
	ended int          // how many were before the first of order
}

type remembered struct {
	key   publishKey
	until int64 // by the hub's clock
	payer *payer
}

func (k publishKey) cost() int64 {
	return publishCost + int64(len(k.user)+len(k.apiKey)+len(k.room)+len(k.id))
}

// memory is where a key is remembered.
func (h *Hub) memory(key publishKey) *memory {
	return &h.memories[maphash.Comparable(seed, key)%shards]
}

// once publishes, unless that was done within the window: then it tells where. What fails may be tried again.
func (h *Hub) once(key publishKey, p *payer, publish func() (history.Position, error)) (at history.Position, duplicate bool, err error) {
	d := h.memory(key)
	d.mu.Lock()
	defer d.mu.Unlock()
	now := clock()
	h.forget(d, now)
	if at, ok := d.seen[key]; ok {
		return at, true, nil
	}
	if at, err = publish(); err != nil {
		return at, false, err
	}
	if d.seen == nil {
		d.seen = map[publishKey]history.Position{}
	}
	d.seen[key] = at
	d.order = append(d.order, remembered{key, now + h.cfg().DedupWindow.Milliseconds(), p})
	h.keep(KeptPublishIDs, p, key.cost())
	return at, false, nil
}

// forget drops what is older than the window. d.mu is held.
func (h *Hub) forget(d *memory, now int64) {
	n := 0
	for ; n < len(d.order) && d.order[n].until <= now; n++ {
		delete(d.seen, d.order[n].key)
		h.keep(KeptPublishIDs, d.order[n].payer, -d.order[n].key.cost())
	}
	clear(d.order[:n])
	d.order, d.ended = d.order[n:], d.ended+n
	if len(d.order) == 0 {
		d.seen, d.order = nil, nil
	}
}
