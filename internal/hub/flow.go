package hub

import (
	"cmp"
	"slices"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// Under a policy other than disconnect, a member whose socket can't take a room's messages lags: they aren't queued for
// it any more, but wait in a lag, which keeps what the policy says and counts the rest. When the socket has drained it
// gets what waits, with a gap before each message that others would have preceded, and when all is sent it is live
// again. What was queued before it began to lag is sent first, in its order.

// lag is what waits for one member of a room. Owned by the worker of both.
type lag struct {
	local       *local
	s           *session
	at          int          // index in local.lags
	slow        SlowConsumer // the room's when it began; it ends under that, whatever the room's is by then
	first, last *waiting
	keys        map[string]*waiting // the newest of each key; under latest one key stands for all
	plain       [2]*waiting         // the oldest and the newest of those that may be dropped for others
	lost        lost                // behind all that waits
}

// waiting is a message that the member will get.
type waiting struct {
	frame      *loop.Frame
	news       bool   // of members, which have no place in the order of messages
	offset     uint64 // 0 in a room without history
	key        string
	keyed      bool // it is in keys
	firm       bool // nothing supersedes it, nor is it dropped for others; counted as those that are keyed
	prev, next *waiting
	plain      *waiting // the next of those that are neither
	lost       lost     // right before it
}

// lost are messages that the member won't get, and the offsets of the first and the last; 0 where they have none.
type lost struct {
	count    int64
	from, to uint64
}

func (l *lost) add(o lost) {
	if o.from != 0 && (l.from == 0 || o.from < l.from) {
		l.from = o.from
	}
	l.count += o.count
	l.to = max(l.to, o.to)
}

// flow is what waits for a session in all rooms.
type flow struct {
	lags  []*lag // in the order in which they are caught up with
	plain int64  // bytes of what may be dropped for others
	keyed int64
	keys  int
}

// What waits beside the bytes of frames counts for so much: as memory, and against the bounds.
const (
	waitingCost = 112
	keyCost     = 96
)

// Bounds on what is kept of keys for one client, over all rooms. A message beyond them counts as one without a key.
const (
	maxKeys     = 16 << 10
	keyedQueues = 16 // times the bound on bytes
)

func (w *waiting) cost() int64 {
	n := int64(w.frame.Len()) + waitingCost
	if w.keyed || w.firm {
		n += keyCost + int64(len(w.key))
	}
	return n
}

// Dropped counts the messages that clients of a worker did not get, by policy; those under disconnect the loop counts.
type Dropped [LatestByKey + 1]int64

// Dropped is a copy. The worker's goroutine, or anyone's once the worker has ended.
func (h *Hub) Dropped(w *loop.Worker) Dropped { return h.workers[w.Index()].dropped }

// deliverOrWait is deliver under a policy other than disconnect.
func (l *local) deliverOrWait(run []*delivery, all *loop.Frame) {
	for i := len(l.members) - 1; i >= 0; i-- { // backwards, as deliver does
		m := l.members[i]
		if !m.conn.Marked && l.takes(m.conn, all) {
			m.conn.Send(all)
			continue
		}
		since := l.since(m.s)
		for _, d := range run {
			if f := d.frame(l); f != nil && d.from != m.s && since < d.seq {
				l.offer(m, &waiting{frame: f, offset: d.message.Offset, key: d.key})
			}
		}
	}
}

// takes says whether the connection takes f without being too slow for the room.
func (l *local) takes(c *loop.Conn, f *loop.Frame) bool {
	switch l.room.policy().SlowConsumer {
	case Disconnect: // the connection is closed where it doesn't fit
		return true
	case DropOldest:
		return c.Fits(f)
	}
	return !c.Congested() && c.Fits(f)
}

// waits says that messages may have to wait for members, or do so from before a reload.
func (l *local) waits() bool { return len(l.lags) > 0 || l.room.policy().SlowConsumer != Disconnect }

// send sends news of members, which every policy treats as messages without a key.
func (l *local) send(m member, f *loop.Frame) {
	if l.waits() {
		l.offer(m, &waiting{frame: f, news: true})
		return
	}
	m.conn.Send(f)
}

// offer sends a message, or has it wait.
func (l *local) offer(m member, w *waiting) {
	g := m.s.lag(l)
	if g == nil {
		if l.takes(m.conn, w.frame) {
			m.conn.Send(w.frame)
			return
		}
		g = &lag{local: l, s: m.s, at: len(l.lags), slow: l.room.policy().SlowConsumer}
		l.lags = append(l.lags, g)
		f := &m.s.extra().flow
		f.lags = append(f.lags, g)
		m.conn.TellDrained = true
		m.conn.Forgive()
	}
	g.add(w)
}

// lag is that of s in l's room, or nil.
func (s *session) lag(l *local) *lag {
	if s.more != nil {
		for _, g := range s.more.flow.lags {
			if g.local == l {
				return g
			}
		}
	}
	return nil
}

// add has w wait, and drops what the policy doesn't keep beside it.
func (g *lag) add(w *waiting) {
	f, most := &g.s.more.flow, int64(g.s.conn.Bound())
	if w.firm {
		w.firm = f.keys < maxKeys && f.keyed+w.cost() <= keyedQueues*most
	}
	if !w.news {
		switch g.slow {
		case Latest:
			w.key = ""
			g.supersede("")
			w.keyed = true
		case LatestByKey:
			if w.key != "" {
				g.supersede(w.key)
				w.keyed = f.keys < maxKeys && f.keyed+w.cost() <= keyedQueues*most
			}
		}
	}
	w.lost, g.lost = g.lost, lost{}
	if w.prev = g.last; w.prev != nil {
		w.prev.next = w
	} else {
		g.first = w
	}
	g.last = w
	if w.keyed {
		if g.keys == nil {
			g.keys = map[string]*waiting{}
		}
		g.keys[w.key] = w
	} else if !w.firm {
		g.addPlain(w)
	}
	g.count(w, 1)
	for f.plain > most && g.plain[0] != g.plain[1] {
		g.drop(g.plain[0])
	}
}

// supersede drops the message of that key, if one waits.
func (g *lag) supersede(key string) {
	if w := g.keys[key]; w != nil {
		g.drop(w)
	}
}

// count counts w, which has begun to wait (sign 1) or doesn't any more (-1).
func (g *lag) count(w *waiting, sign int64) {
	f, cost := &g.s.more.flow, sign*w.cost()
	if w.keyed || w.firm {
		f.keys += int(sign)
		f.keyed += cost
	} else {
		f.plain += cost
	}
	g.s.conn.Owe(cost, sign)
}

// firstOffset is that of the first message that waits, or is told as lost; 0 where none has one. g may be nil.
func (g *lag) firstOffset() uint64 {
	if g == nil {
		return 0
	}
	for w := g.first; w != nil; w = w.next {
		if at := cmp.Or(w.lost.from, w.offset); at != 0 {
			return at
		}
	}
	return g.lost.from
}

// drop takes w away unsent. It is keyed, or the oldest that is neither keyed nor firm.
func (g *lag) drop(w *waiting) {
	into := g.before(w.next)
	into.add(w.lost)
	into.add(lost{1, w.offset, w.offset})
	g.local.state.dropped[g.slow]++
	g.take(w)
}

// take takes w out. It is keyed or firm, or the oldest that is neither.
func (g *lag) take(w *waiting) {
	g.unlink(w)
	if w.keyed || w.firm {
		return
	}
	if g.plain[0] = w.plain; w.plain == nil {
		g.plain[1] = nil
	}
}

// unlink takes w out of all but the list of what is plain.
func (g *lag) unlink(w *waiting) {
	g.count(w, -1)
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		g.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		g.last = w.prev
	}
	if w.keyed {
		delete(g.keys, w.key)
	}
}

// forget takes out what was deleted: that is no loss, and no gap tells of it.
func (g *lag) forget(is func(*waiting) bool) {
	g.plain = [2]*waiting{}
	for w := g.first; w != nil; w = w.next {
		w.plain = nil
		switch {
		case is(w):
			g.before(w.next).add(w.lost)
			g.unlink(w)
		case !w.keyed && !w.firm:
			g.addPlain(w)
		}
	}
}

// before is what is lost right before w, or nil for what is behind all that waits.
func (g *lag) before(w *waiting) *lost {
	if w == nil {
		return &g.lost
	}
	return &w.lost
}

func (g *lag) addPlain(w *waiting) {
	if g.plain[1] != nil {
		g.plain[1].plain = w
	} else {
		g.plain[0] = w
	}
	g.plain[1] = w
}

// end forgets the lag and all that waits.
func (g *lag) end() {
	for g.first != nil {
		g.count(g.first, -1)
		g.first = g.first.next
	}
	f := &g.s.more.flow
	f.lags = slices.DeleteFunc(f.lags, func(o *lag) bool { return o == g })
	l := g.local
	last := len(l.lags) - 1
	l.lags[g.at] = l.lags[last]
	l.lags[g.at].at = g.at
	l.lags[last] = nil
	l.lags = l.lags[:last]
}

// gapCost is about what a gap takes on the wire.
const gapCost = 160

// send sends what waits, as far as left bytes go. It is done when nothing waits any more.
func (g *lag) send(left *int) (done bool) {
	c := g.s.conn
	for w := g.first; w != nil; w = g.first {
		*left -= w.frame.Len()
		if w.lost.count > 0 {
			*left -= gapCost
		}
		if *left < 0 && c.Unsent() > 0 {
			return false
		}
		g.tell(&w.lost)
		if !c.Fits(w.frame) || !c.Open() {
			return false
		}
		g.take(w)
		c.Send(w.frame)
	}
	g.tell(&g.lost)
	return c.Open()
}

// tell tells the member what it won't get, once.
func (g *lag) tell(o *lost) {
	if o.count == 0 {
		return
	}
	r := g.local.room
	gap := protocol.Answer{Kind: protocol.AnswerGap, Room: r.name, Count: o.count, Reason: g.slow.String(), From: o.from, To: o.to}
	*o = lost{}
	g.s.answer(gap)
}

// catchUpLags sends a piece of what waits; the rooms take turns.
func (s *session) catchUpLags() {
	if s.more == nil || len(s.more.flow.lags) == 0 {
		return
	}
	f := &s.more.flow
	left := min(pageBytes/2, s.conn.Room()/2)
	for len(f.lags) > 0 && s.conn.Open() {
		g := f.lags[0]
		if g.send(&left) {
			g.end()
			continue
		}
		if s.conn.Open() {
			f.lags = append(slices.Delete(f.lags, 0, 1), g)
			s.conn.TellDrained = true
		}
		break
	}
	s.conn.Forgive()
}
