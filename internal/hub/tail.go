package hub

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/protocol"
)

// Tails hear what passes, for people who look for a fault. Nobody waits for one: where too much comes for it, it leaves
// out what is new, and counts that. While there is none, all that they cost is a look at one pointer.

// Bounds on tails.
const (
	maxTails     = 64
	maxTailBytes = 256 << 10 // of what waits for one; a single item may have more
	tailItemCost = 256       // what an item counts for, beside its content
)

// TailOf says what a Tail hears: exactly one of these.
type TailOf struct {
	Room   string // what passes it: messages, joins, leaves, deletions. It need not be there yet
	Client ID     // what it sends, what it gets as direct messages, its joins and leaves, and that it connects and disconnects
	User   string // that of all clients of a user

	Content bool // what messages say is told, too
}

// TailItem is something that has passed. Fields that a kind doesn't have are zero.
type TailItem struct {
	Kind TailKind
	Time int64 // Unix milliseconds

	Client Identity // whose doing it is; zero for the application's
	Room   string   // of all but a chat, a direct message, connects and disconnects
	To     ID       // of a direct message

	// Of messages.
	From    string
	Key     string
	Size    int    // of the content
	Content []byte // nil unless it was asked for; not to be changed

	Epoch    string // of messages and deletions in a room with history
	Offset   uint64 // of a message, or of the one that was deleted
	ToOffset uint64 // of a deletion of all up to there

	Code int // of a disconnect, as closes are counted
}

// TailKind is what has passed, by the name that its message has on the wire, if it has one.
type TailKind string

// The kinds there are.
const (
	TailRoomMessage   TailKind = "room_message"
	TailChat          TailKind = "chat"
	TailDirectMessage TailKind = "direct_message"
	TailJoined        TailKind = "joined"
	TailLeft          TailKind = "left"
	TailDeleted       TailKind = "deleted"
	TailConnected     TailKind = "connected"
	TailDisconnected  TailKind = "disconnected"
)

// Tail is what is heard, until it is closed.
type Tail struct {
	// Static.
	hub  *Hub
	of   TailOf
	id   string        // of.Client as it stands in a message
	wake chan struct{} // has room for one: something waits, or it has ended
	lent bool          // its listener is on another node

	// Guarded by mu.
	mu    sync.Mutex // taken last
	far   *far       // nil where other nodes tell it nothing
	items []TailItem
	bytes int64
	lost  int64
	ended error
}

// tails are those that are open.
type tails struct {
	mu  sync.Mutex // held while all changes
	all atomic.Pointer[[]*Tail]
}

// ErrTailClosed says that the tail was closed.
var ErrTailClosed = errors.New("the tail is closed")

// Tail begins to listen, on all nodes. ErrTooManyTails, ErrStopped, and an error that says so where of doesn't name one
// thing. Whoever calls it closes the tail. It waits for the other nodes, a second at most; one that can't be asked just
// now is heard as soon as it can be. Any goroutine.
func (h *Hub) Tail(of TailOf) (*Tail, error) {
	t, err := h.openTail(of, false)
	if err == nil && h.cluster != nil {
		t.follow(h.cluster)
	}
	return t, err
}

// openTail begins to listen on this node.
func (h *Hub) openTail(of TailOf, lent bool) (*Tail, error) {
	named := 0
	for _, is := range []bool{of.Room != "", of.Client != ID{}, of.User != ""} {
		if is {
			named++
		}
	}
	if named != 1 {
		return nil, errors.New("a tail is of a room, of a client or of a user")
	}
	t := &Tail{hub: h, of: of, wake: make(chan struct{}, 1), lent: lent}
	if of.Client != (ID{}) {
		t.id = of.Client.String()
	}
	h.tails.mu.Lock()
	defer h.tails.mu.Unlock()
	all, own := h.tails.list(), 0
	for _, other := range all {
		if !other.lent {
			own++
		}
	}
	switch {
	case h.stopping():
		return nil, ErrStopped
	case own >= maxTails && !lent:
		return nil, ErrTooManyTails
	}
	all = append(slices.Clip(all), t)
	h.tails.all.Store(&all)
	return t, nil
}

func (ts *tails) list() []*Tail {
	if all := ts.all.Load(); all != nil {
		return *all
	}
	return nil
}

// Next waits for what has passed since the last call: items in their order for each room and each client, and how many
// were left out behind them because too many came. The error is ctx's, ErrTailClosed or ErrStopped. Any goroutine, one
// at a time.
func (t *Tail) Next(ctx context.Context) (items []TailItem, lost int64, err error) {
	for {
		if items, lost, err = t.take(); err != nil || len(items) > 0 || lost > 0 {
			return items, lost, err
		}
		select {
		case <-t.wake:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

func (t *Tail) take() (items []TailItem, lost int64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	items, lost = t.items, t.lost
	t.hub.keep(KeptTails, nil, -t.bytes)
	t.items, t.bytes, t.lost = nil, 0, 0
	return items, lost, t.ended
}

// Close ends the tail, and whoever waits for it. Any goroutine; a second call does nothing.
func (t *Tail) Close() { t.end(ErrTailClosed) }

func (t *Tail) end(err error) {
	ts := &t.hub.tails
	ts.mu.Lock()
	defer ts.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(ts.list()), func(o *Tail) bool { return o == t })
	if ts.all.Store(&all); len(all) == 0 {
		ts.all.Store(nil)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended == nil {
		t.ended = err
		t.hub.keep(KeptTails, nil, -t.bytes)
		t.items, t.bytes, t.lost = nil, 0, 0
		if t.far != nil {
			t.far.cancel()
		}
		t.tell()
	}
}

func (t *Tail) tell() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// hear keeps an item for whoever listens. It never waits for that one.
func (t *Tail) hear(i TailItem) { t.hearOf(broker.NodeID{}, i) }

// hearOf is hear of what another node has told; zero for this one.
func (t *Tail) hearOf(from broker.NodeID, i TailItem) {
	if !t.of.Content || t.lent && len(i.Content) > maxTailBytes {
		i.Content = nil
	}
	cost := tailItemCost + int64(len(i.Content))
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ended != nil, t.far != nil && t.far.again(from, &i):
		return
	case len(t.items) > 0 && t.bytes+cost > maxTailBytes, t.lost > 0:
		t.lost++ // what is left out lies behind what is told
	default:
		t.items = append(t.items, i)
		t.bytes += cost
		t.hub.keep(KeptTails, nil, cost)
	}
	t.tell()
}

// tailMessage tells of a message that is published to a room or to all, whether it reaches anybody or not.
func (h *Hub) tailMessage(m *protocol.Message, epoch string) {
	if h.tails.all.Load() != nil {
		h.tails.message(m, epoch, ID{}, "")
	}
}

// tailDirect tells of a direct message to a client, and whose that is.
func (h *Hub) tailDirect(m *protocol.Message, to ID, user string) {
	if h.tails.all.Load() != nil {
		h.tails.message(m, "", to, user)
	}
}

var tailKinds = map[protocol.Kind]TailKind{protocol.RoomMessage: TailRoomMessage, protocol.Chat: TailChat, protocol.DirectMessage: TailDirectMessage}

func (ts *tails) message(m *protocol.Message, epoch string, to ID, user string) {
	for _, t := range ts.list() {
		switch of := &t.of; {
		case of.Room != "" && of.Room == m.Room:
		case t.id != "" && (t.id == m.From || of.Client == to):
		case of.User != "" && (of.User == m.User || of.User == user):
		default:
			continue
		}
		from, _ := ParseID([]byte(m.From))
		t.hear(TailItem{Kind: tailKinds[m.Kind], Time: m.Time, Client: Identity{from, m.User}, Room: m.Room, To: to, From: m.From, Key: string(m.Key),
			Size: len(m.Content), Content: m.Content, Epoch: epoch, Offset: m.Offset})
	}
}

// tailDeleted tells of what was taken back. r.mu is held.
func (h *Hub) tailDeleted(r *room, news *protocol.Answer) {
	for _, t := range h.tails.list() {
		if t.of.Room == r.name {
			t.hear(TailItem{Kind: TailDeleted, Time: time.Now().UnixMilli(), Room: r.name, Epoch: r.position().Epoch, Offset: news.From, ToOffset: news.To})
		}
	}
}

var tailEvents = map[EventKind]TailKind{Connected: TailConnected, Disconnected: TailDisconnected, Joined: TailJoined, Left: TailLeft}

// tailEvent tells of what has happened to a client.
func (h *Hub) tailEvent(e *Event) {
	if h.tails.all.Load() == nil || tailEvents[e.Kind] == "" {
		return
	}
	for _, t := range h.tails.list() {
		if t.of.Room != "" && t.of.Room == e.Room || t.id != "" && t.of.Client == e.Client.ID || t.of.User != "" && t.of.User == e.Client.User {
			t.hear(TailItem{Kind: tailEvents[e.Kind], Time: time.Now().UnixMilli(), Client: e.Client, Room: e.Room, Code: e.Code})
		}
	}
}

// endTails ends those that are open as the hub stops.
func (h *Hub) endTails() {
	h.tails.mu.Lock()
	all := h.tails.list() // nobody begins to listen from here on
	h.tails.mu.Unlock()
	for _, t := range all {
		t.end(ErrStopped)
	}
}
