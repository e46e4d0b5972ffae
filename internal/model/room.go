package model

import (
	"fmt"
	"time"
)

// History bounds what a room keeps, whichever is reached first; the newest message is kept in any case, until it is too
// old. The zero History keeps nothing.
type History struct {
	Messages int
	Age      time.Duration
	Bytes    int
}

// Policy is what a room promises its members.
type Policy struct {
	History       History
	Presence      string // "off", "count", "full"
	IncludeSender bool
	SlowConsumer  string // "disconnect" and the names of the policies that drop
	QueueBytes    int    // what may wait for a member before SlowConsumer acts
	// Nodes says that its members are on several nodes. Without history only what one publisher sends is in order then,
	// who joins may get what was acknowledged elsewhere before, and a node may say that it doesn't know what it missed.
	Nodes bool
}

// Message is one of a room.
type Message struct {
	Offset    int64
	Text      string
	From, Key string
	Bytes     int
	At        time.Time
}

// Room is the reference model of a room: the simplest thing that keeps the promises. It holds all that was ever
// published; what a server may forget it works out when it is asked.
type Room struct {
	Policy Policy
	Epoch  string

	messages []Message
	members  map[string]*member
}

type member struct {
	reads   bool
	closed  bool // by the policy "disconnect"
	waiting []Item
}

// Item is what a member gets: a message, or word of Gap messages that it won't.
type Item struct {
	Message
	Gap                  int
	FromOffset, ToOffset int64
}

// NewRoom is a room that nobody is in.
func NewRoom(epoch string, p Policy) *Room {
	return &Room{Policy: p, Epoch: epoch, members: map[string]*member{}}
}

// Position is that of the newest message.
func (r *Room) Position() Position {
	if n := len(r.messages); n > 0 {
		return Position{r.Epoch, r.messages[n-1].Offset}
	}
	return Position{Epoch: r.Epoch}
}

// Publish appends m, whose Offset is the next when it is 0, and gives it to all members but its sender. The error says
// that an offset of the server's doesn't increase.
func (r *Room) Publish(m Message) error {
	last := r.Position().Offset
	if m.Offset == 0 {
		m.Offset = last + 1
	}
	if m.Offset <= last {
		return fmt.Errorf("%s has offset %d, and the message before it %d", m.Text, m.Offset, last)
	}
	r.messages = append(r.messages, m)
	for name, o := range r.members {
		if name != m.From || r.Policy.IncludeSender {
			o.push(m, r.Policy)
		}
	}
	return nil
}

// Join makes a member of name, unless it is one; it gets what is published from now on.
func (r *Room) Join(name string) Position {
	if r.members[name] == nil {
		r.members[name] = &member{reads: true}
	}
	return r.Position()
}

// Recovery is the answer to a join that wants what it missed since a position.
type Recovery struct {
	Position  Position
	Recovered bool
	Reason    string // when it is not: "epoch", "no_history", "expired"
	Missed    int    // messages that come then, those of the client's own left out
}

// JoinSince makes a member of name that had everything up to since.
func (r *Room) JoinSince(name string, since Position, now time.Time) Recovery {
	a := Recovery{Position: r.Join(name)}
	switch {
	case r.Policy.History == History{}:
		a.Reason = "no_history"
		return a
	case since.Epoch != r.Epoch || since.Offset > a.Position.Offset:
		a.Reason = "epoch"
		return a
	}
	kept := r.Kept(now)
	if n := len(r.messages); n > len(kept) && r.messages[n-len(kept)-1].Offset > since.Offset {
		a.Reason = "expired"
		return a
	}
	a.Recovered = true
	for _, m := range kept {
		if m.Offset > since.Offset && (m.From != name || r.Policy.IncludeSender) {
			a.Missed++
			r.members[name].push(m, r.Policy)
		}
	}
	return a
}

// Kept is what the history has at that time, oldest first.
func (r *Room) Kept(now time.Time) []Message {
	h, n, bytes := r.Policy.History, 0, 0
	for i := len(r.messages) - 1; i >= 0 && n < h.Messages; i-- {
		m := r.messages[i]
		bytes += m.Bytes
		if now.Sub(m.At) > h.Age || n > 0 && bytes > h.Bytes {
			break
		}
		n++
	}
	return r.messages[len(r.messages)-n:]
}

// Page is what a request for history gets: at most limit messages after since (0: none) and before before (0: no end),
// oldest first; the latest when since is 0. More says that there are others.
func (r *Room) Page(since, before int64, limit int, now time.Time) (page []Message, more bool) {
	for _, m := range r.Kept(now) {
		if m.Offset > since && (before == 0 || m.Offset < before) {
			page = append(page, m)
		}
	}
	if len(page) <= limit {
		return page, false
	}
	if since > 0 {
		return page[:limit], true
	}
	return page[len(page)-limit:], true
}

// Leave ends a membership; what waits for it is gone.
func (r *Room) Leave(name string) { delete(r.members, name) }

// Lose forgets everything, as a restart does: the epoch is another.
func (r *Room) Lose(epoch string) { r.Epoch, r.messages = epoch, nil }

// Stall has a member read nothing until Read.
func (r *Room) Stall(name string) { r.members[name].reads = false }

// Read is what a member has got since the last Read; closed says that the policy has ended its connection.
func (r *Room) Read(name string) (items []Item, closed bool) {
	o := r.members[name]
	items, o.waiting, o.reads = o.waiting, nil, true
	return items, o.closed
}

// push queues m for the member. Of one that reads, the queue is only what a test hasn't looked at.
func (o *member) push(m Message, p Policy) {
	if o.closed {
		return
	}
	if o.reads || o.bytes() == 0 || o.bytes()+m.Bytes <= p.QueueBytes {
		o.waiting = append(o.waiting, Item{Message: m})
		return
	}
	switch p.SlowConsumer {
	case "drop-oldest":
		for i := 0; i < len(o.waiting) && o.bytes()+m.Bytes > p.QueueBytes; i++ {
			o.waiting[i].drop()
		}
	case "latest":
		for i := range o.waiting {
			o.waiting[i].drop()
		}
	case "latest-by-key":
		newest := map[string]bool{m.Key: true}
		for i := len(o.waiting) - 1; i >= 0; i-- {
			w := &o.waiting[i]
			if w.Key != "" && newest[w.Key] {
				w.drop()
			}
			newest[w.Key] = true
		}
		for i := 0; i < len(o.waiting) && m.Key == "" && o.bytes()+m.Bytes > p.QueueBytes; i++ {
			if o.waiting[i].Key == "" {
				o.waiting[i].drop()
			}
		}
	default:
		o.closed = true
		return
	}
	o.waiting = append(o.waiting, Item{Message: m})
	o.joinGaps()
}

func (o *member) bytes() (n int) {
	for _, w := range o.waiting {
		n += w.Bytes
	}
	return n
}

// drop makes a gap of a message.
func (w *Item) drop() {
	if w.Gap == 0 {
		*w = Item{Gap: 1, FromOffset: w.Offset, ToOffset: w.Offset}
	}
}

// joinGaps makes one gap of those that lie behind each other.
func (o *member) joinGaps() {
	out := o.waiting[:0]
	for _, w := range o.waiting {
		if n := len(out) - 1; n >= 0 && w.Gap > 0 && out[n].Gap > 0 {
			out[n].Gap += w.Gap
			out[n].ToOffset = w.ToOffset
			continue
		}
		out = append(out, w)
	}
	o.waiting = out
}
