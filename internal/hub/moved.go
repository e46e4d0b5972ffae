package hub

import (
	"example.com/hubbub/broker"
	"example.com/hubbub/internal/protocol"
)

// Sessions that have gone to another node, or are on their way there (handover.go).

// away is what a shard knows of them. Guarded by the shard's mu.
type away struct {
	handed map[ID]*handing      // of which nobody knows yet whether they have arrived
	gone   map[ID]broker.NodeID // where those went that did
}

// manyGone is how many a shard knows that have gone. Of one that it has forgotten whoever looks for it asks all nodes, and a
// token that another node gave out since then names that.
const manyGone = 1024

// movedTo says to which node a session that began here, or was here, has gone; false where it is here, or nobody knows.
// Any goroutine; it takes no lock above the client shard's.
func (h *Hub) movedTo(id ID) (to broker.NodeID, moved bool) {
	sh := h.clientShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.movedTo(id)
}

// movedTo: mu is held.
func (sh *clientShard) movedTo(id ID) (to broker.NodeID, moved bool) {
	if sh.away != nil {
		to, moved = sh.away.gone[id]
	}
	return to, moved
}

// whereTo is movedTo, also while the session is on its way.
func (h *Hub) whereTo(id ID) (to broker.NodeID, moved bool) {
	if hd := h.handing(id); hd != nil {
		return hd.to, true
	}
	return h.movedTo(id)
}

// handing is that of a session on its way to another node, or nil.
func (h *Hub) handing(id ID) *handing {
	sh := h.clientShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.handing(id)
}

// handing: mu is held.
func (sh *clientShard) handing(id ID) *handing {
	if sh.away == nil {
		return nil
	}
	return sh.away.handed[id]
}

// leads has the id lead to another node. mu is held.
func (sh *clientShard) leads(id ID, to broker.NodeID) {
	a := sh.awayFrom()
	if a.gone == nil {
		a.gone = map[ID]broker.NodeID{}
	}
	for other := range a.gone {
		if len(a.gone) < manyGone {
			break
		}
		delete(a.gone, other) // any
	}
	a.gone[id] = to
}

// awayFrom: mu is held.
func (sh *clientShard) awayFrom() *away {
	if sh.away == nil {
		sh.away = &away{handed: map[ID]*handing{}}
	}
	return sh.away
}

// forgetGone forgets those that went to a node which is gone for good.
func (h *Hub) forgetGone(to broker.NodeID) {
	for i := range h.clients {
		h.clients[i].forgetGone(to)
	}
}

func (sh *clientShard) forgetGone(to broker.NodeID) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.away == nil {
		return
	}
	for id, at := range sh.away.gone {
		if at == to {
			delete(sh.away.gone, id)
		}
	}
}

// movedSession is a parked session on its way.
type movedSession struct {
	User    string      `json:"user,omitempty"`
	Since   uint32      `json:"since"`
	Gen     uint32      `json:"gen"`
	Oldest  uint32      `json:"oldest"`
	Code    int         `json:"code"`
	Rooms   []movedRoom `json:"rooms,omitempty"`
	Directs [][]byte    `json:"directs,omitempty"` // records of the messages that wait for it
	Doubt   int64       `json:"doubt,omitempty"`   // how long others may have it as well, in milliseconds
	Next    uint        `json:"next,omitempty"`    // of its rooms, the first that is in a further part; 0 where this is the last
}

type movedRoom struct {
	Name string `json:"name"`
	Put  bool   `json:"put,omitempty"`
	Data []byte `json:"data,omitempty"` // which the room's members see
}

// movedAtOnce is how many bytes of a session's rooms go in one answer, and of direct messages; what is more comes behind it.
const movedAtOnce = 256 << 10

// movingDirects are records of as many as go at once, of which there is one at least.
func movingDirects(all []waitingDirect) (records [][]byte) {
	size := 0
	for _, d := range all {
		if size += d.message.Size(); size > movedAtOnce && len(records) > 0 {
			break
		}
		records = append(records, d.message.AppendRecord(nil))
	}
	return records
}

// movedDirect is the direct message of a record; nil where it can't be read.
func (h *Hub) movedDirect(record []byte) *protocol.Message {
	m, _, _, err := protocol.ReadRecord("", record)
	if err != nil || m == nil {
		h.cfg().Log.Error("a direct message from another node can't be read", "error", err)
		return nil
	}
	m.Kind = protocol.DirectMessage
	m.Place(0, 0)
	return m
}

// packed is a session that is handed over, as it goes: in parts, of which this one begins with its room first. Its first sent
// direct messages go with the first part: the same with each answer of one handing, since nobody knows which of them comes.
func (h *Hub) packed(hd *handing, first uint) *movedSession {
	p := hd.p
	m := &movedSession{User: p.user, Since: p.since, Gen: p.gen, Oldest: p.oldest, Code: p.code, Doubt: h.cluster.moves.doubted(p.id)}
	size := 0
	for i, r := range p.rooms[min(first, uint(len(p.rooms))):] {
		data := r.shownData(p.id)
		if size += len(r.name) + len(data); size > movedAtOnce && i > 0 {
			m.Next = first + uint(i)
			break
		}
		m.Rooms = append(m.Rooms, movedRoom{r.name, r.put, data})
	}
	if first > 0 {
		return m
	}
	sh := h.clientShard(p.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !hd.packed && len(p.directs) > 0 && p.directs[0].message.Size() <= movedAtOnce { // else it might be too much for one answer
		hd.sent = len(movingDirects(p.directs))
	}
	hd.packed = true
	for _, d := range p.directs[:hd.sent] {
		m.Directs = append(m.Directs, d.message.AppendRecord(nil))
	}
	return m
}

// shownData is what the room's members see of one of them.
func (r *room) shownData(id ID) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.presence == nil {
		return nil
	}
	who, _ := r.presence.Find(id.String())
	return who.Data
}
