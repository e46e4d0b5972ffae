package hub

import (
	"errors"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// What nodes tell each other of a room without history, and of chats: each message goes to the members here and, by the
// room's topic, to the nodes that have others. Who is told first is the others: where that fails nobody gets it. The topic
// of a room is its name, that of chats "". A room with history has its messages from its log, and a topic only where
// others must hear of its members (together.go).

const (
	lingers       = 15_000      // milliseconds that a room's topic is listened to when its last member has left
	listensAgain  = time.Second // after chats couldn't be listened to
	toldOfMembers = 2           // the first byte of what is told of a room's members, or above; below stands a record
)

// opens says that a room must be opened before anybody is in it: its log lies elsewhere, or others may tell it something.
func (h *Hub) opens(name string) bool {
	return h.cfg().Broker != nil && (h.cluster != nil || h.remoteLog(name))
}

// listens says that what other nodes tell the rooms of a policy must be heard where they have members.
func (h *Hub) listens(p *Policy) bool {
	return h.cluster != nil && (p.History.Messages == 0 || p.Presence == PresenceFull)
}

// listened is called when what others tell the room is heard, or can't be.
func (h *Hub) listened(r *room, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.gone:
		return
	case err == nil:
		r.remote.topic.ready = true
		h.topicReady(r)
	default:
		r.remote.topic.end()
	}
	r.remote.settle(err)
}

// listenToAll listens to chats, sooner or later. Who is here before has perhaps missed some.
func (h *Hub) listenToAll() {
	r := h.everyone
	r.mu.Lock()
	defer r.mu.Unlock()
	if h.stopping() {
		return
	}
	topic := &r.remote.topic
	topic.close = h.cfg().Broker.Listen("", func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if err != nil {
			topic.close = nil
			time.AfterFunc(listensAgain, h.listenToAll)
			return
		}
		topic.ready = true
		if r.members > 0 {
			r.miss()
		}
	})
}

// listenNoMore ends listenToAll. The hub has stopped.
func (h *Hub) listenNoMore() {
	h.everyone.mu.Lock()
	defer h.everyone.mu.Unlock()
	h.everyone.remote.topic.end()
}

// tellOthers tells the other nodes of a message to a room without history, or a chat; with ErrUnavailable none of them.
// The lock of the room is held, so they are told in its order.
func (h *Hub) tellOthers(m *protocol.Message) error {
	if h.cluster == nil {
		return nil
	}
	return h.cfg().Broker.Tell(m.Room, m.AppendRecord(make([]byte, 0, m.Size())))
}

// hearing calls do with the room of a topic that is listened to, under its lock.
func (h *Hub) hearing(topic string, do func(r *room)) {
	r := h.everyone
	if topic != "" {
		sh := h.roomShard(topic)
		sh.mu.Lock()
		defer sh.mu.Unlock()
		r = sh.rooms[topic]
	} else {
		r.mu.Lock()
		defer r.mu.Unlock()
	}
	if r != nil && r.remote != nil && r.remote.topic.ready {
		do(r)
	}
}

// Heard implements broker.Node.
func (h *Hub) Heard(topic string, from broker.NodeID, body []byte) {
	if topic != "" && len(body) > 0 && body[0] >= toldOfMembers {
		h.heardMembers(topic, from, body)
		return
	}
	m, err := readMessage(topic, body)
	if err != nil {
		h.cfg().Log.Error("another node has told something that can't be read", "topic", topic, "node", from, "error", err)
		h.hearing(topic, (*room).miss)
		return
	}
	if topic == "" {
		m.Kind = protocol.Chat
	}
	m.Place(0, 0)
	except, _ := ParseID([]byte(m.Except))
	h.hearing(topic, func(r *room) { h.hear(r, m, h.here(except)) })
}

var errNoMessage = errors.New("it is no message")

// readMessage is ReadRecord where nothing but a message makes sense.
func readMessage(room string, record []byte) (*protocol.Message, error) {
	m, _, _, err := protocol.ReadRecord(room, record)
	if err == nil && m == nil {
		err = errNoMessage
	}
	return m, err
}

// hear is apply for what another node has published to a room without history, or to all. Nobody there can be made to
// wait, so a worker that has too much to do doesn't get it, and its members are told. r.mu is held.
func (h *Hub) hear(r *room, m *protocol.Message, except *session) {
	if m.Trace != nil {
		defer h.traceFanOut(r, m)()
	}
	r.seq++
	r.pace.add(m.Time)
	h.tailMessage(m, "")
	x := r.posting(m, except)
	for _, l := range r.locals {
		if l.w.Full() {
			r.missed(l)
		} else {
			l.w.Post(&delivery{l, x}, x.cost)
		}
	}
}

// Missed implements broker.Node.
func (h *Hub) Missed(topic string) {
	h.hearing(topic, func(r *room) {
		if !r.keeps() {
			r.miss()
		}
		if topic != "" {
			h.topicMissed(r)
		}
	})
}

// misses is what was missed of what other nodes tell a room. Guarded by the room's mu.
type misses struct {
	gap  *shared
	told map[*local]bool // those on their way to a local; true: more was missed since
}

// miss has all who are in the room now told that they may have missed something. r.mu is held.
func (r *room) miss() {
	r.seq++
	for _, l := range r.locals {
		r.missed(l)
	}
}

// missed has the members of one local told that they have missed something, behind what they get before it; r.seq stands
// for that. One word of it is on its way at a time, however much is missed. r.mu is held.
func (r *room) missed(l *local) {
	m := r.remote.misses
	if m == nil {
		gap := protocol.Answer{Kind: protocol.AnswerGap, Room: r.name, Reason: protocol.GapNode}
		m = &misses{gap: &shared{answer: &gap}, told: map[*local]bool{}}
		r.remote.misses = m
	}
	if _, told := m.told[l]; told {
		m.told[l] = true
		return
	}
	m.told[l] = false
	l.w.Post(&missing{loss{l, m.gap, r.seq}}, 0)
}

// missing is a loss of which one is on its way at a time.
type missing struct{ loss }

func (t *missing) Run(w *loop.Worker) {
	r := t.local.room
	defer func() { // also where it fails
		r.mu.Lock()
		defer r.mu.Unlock()
		m := r.remote.misses
		more := m.told[t.local]
		delete(m.told, t.local)
		if more {
			r.missed(t.local)
		}
	}()
	t.loss.Run(w)
}
