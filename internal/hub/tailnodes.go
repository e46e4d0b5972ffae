package hub

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"example.com/hubbub/broker"
)

// A tail hears what passes on all nodes: each of the others has a tail of its own for it, which is lent, and is asked
// again and again what it has heard. Nothing of this is there while no tail is open. Where a lent one isn't asked any
// more, for its listener has gone or can't reach it, it ends.

const (
	maxLent    = 4 * maxTails    // tails that a node lends
	lentFor    = 5 * time.Second // how long one is there that isn't asked
	tailWait   = time.Second     // how long it waits for something to tell
	tailBegins = time.Second     // how long a tail waits for the others as it begins
	tailAgain  = time.Second     // after a node couldn't be asked
	tailSeen   = 2048            // of so many items it is known who has told them first
	tailAsked  = 4 * time.Second // how long an answer is waited for
)

// tailQuestion asks a node what it has heard.
type tailQuestion struct {
	ID   string `json:"id"` // the listener's, anything
	Of   TailOf `json:"of"`
	Wait bool   `json:"wait,omitzero"` // for something to tell
	End  bool   `json:"end,omitzero"`  // it is asked no more
}

// tailAnswer is what it has heard since it was asked last.
type tailAnswer struct {
	Items []TailItem `json:"items,omitempty"`
	Lost  int64      `json:"lost,omitzero"`
	New   bool       `json:"new,omitzero"` // it hears since now
}

// lent are a node's tails for listeners elsewhere. Guarded by mu; tails.mu is taken below.
type lent struct {
	mu  sync.Mutex
	all map[lentName]*lentTail
}

type lentName struct {
	to broker.NodeID
	id string
}

type lentTail struct {
	t    *Tail
	busy bool // it is being asked
	over *time.Timer
}

// answerTail is the call of a tailQuestion.
func answerTail(h *Hub, from broker.NodeID, question []byte, reply func(any, error)) {
	var q tailQuestion
	if err := json.Unmarshal(question, &q); err != nil || h.cluster == nil {
		reply(nil, errUnknownCall)
		return
	}
	all, name := &h.cluster.across.lent, lentName{from, q.ID}
	if q.End {
		all.end(name)
		reply(nil, nil)
		return
	}
	l, fresh, err := all.ask(h, name, q.Of)
	if err != nil {
		reply(nil, err)
		return
	}
	go func() { // at most one for each
		ctx, cancel := context.WithTimeout(context.Background(), tailWait)
		defer cancel()
		if !q.Wait {
			cancel()
		}
		items, lost, err := l.t.Next(ctx)
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = nil
		}
		all.asked(l)
		reply(tailAnswer{items, lost, fresh}, err)
	}()
}

// ask gives the tail of that name, and begins it where there is none.
func (all *lent) ask(h *Hub, name lentName, of TailOf) (l *lentTail, fresh bool, err error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	l = all.all[name]
	switch {
	case l != nil && l.busy:
		return nil, false, ErrOverloaded
	case l != nil:
		l.over.Stop()
		l.busy = true
		return l, false, nil
	case len(all.all) >= maxLent:
		return nil, false, ErrTooManyTails
	}
	t, err := h.openTail(of, true)
	if err != nil {
		return nil, false, err
	}
	if all.all == nil {
		all.all = map[lentName]*lentTail{}
	}
	l = &lentTail{t: t, busy: true}
	l.over = time.AfterFunc(lentFor, func() { all.endIdle(name, l) })
	l.over.Stop()
	all.all[name] = l
	return l, true, nil
}

// asked is called when it isn't being asked any more.
func (all *lent) asked(l *lentTail) {
	all.mu.Lock()
	defer all.mu.Unlock()
	l.busy = false
	l.over.Reset(lentFor)
}

func (all *lent) endIdle(name lentName, l *lentTail) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if !l.busy && all.all[name] == l {
		delete(all.all, name)
		l.t.Close()
	}
}

func (all *lent) end(name lentName) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if l := all.all[name]; l != nil {
		delete(all.all, name)
		l.over.Stop()
		l.t.Close()
	}
}

// far is a tail's side of what it hears from other nodes.
type far struct {
	// Static.
	id     string
	cancel context.CancelFunc

	// Guarded by the tail's mu. Several nodes tell of one thing: a message, each that has members of its room.
	first map[uint64]broker.NodeID // who has told an item first, by its key
	order [tailSeen]uint64         // keys, the oldest at next
	next  int
}

// follow begins to ask the other nodes, and waits until those that are known hear, or tailBegins at most.
func (t *Tail) follow(c *cluster) {
	ctx, cancel := context.WithCancel(context.Background())
	t.mu.Lock()
	t.far = &far{id: rand.Text(), cancel: cancel, first: map[uint64]broker.NodeID{}}
	if t.ended != nil {
		cancel()
	}
	t.mu.Unlock()
	begun := make(chan struct{})
	go t.followAll(ctx, c, begun)
	select {
	case <-begun:
	case <-time.After(tailBegins):
	case <-ctx.Done():
	}
}

// followAll asks each node that there is.
func (t *Tail) followAll(ctx context.Context, c *cluster, begun chan<- struct{}) {
	asked := map[broker.NodeID]context.CancelFunc{}
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		peers, _ := c.view()
		there := map[broker.NodeID]bool{}
		var hear sync.WaitGroup
		for _, p := range peers {
			there[p.ID] = true
			if asked[p.ID] == nil {
				one, cancel := context.WithCancel(ctx)
				asked[p.ID] = cancel
				hear.Add(1)
				go t.followOne(one, c, p.ID, hear.Done)
			}
		}
		for n, cancel := range asked {
			if !there[n] {
				cancel()
				delete(asked, n)
			}
		}
		if begun != nil {
			hear.Wait()
			close(begun)
			begun = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

// followOne asks one node, until ctx is done; begun is called when it hears for the first time, or has failed.
func (t *Tail) followOne(ctx context.Context, c *cluster, n broker.NodeID, begun func()) {
	defer c.ask(n, callTail, tailQuestion{ID: t.far.id, End: true}, func([]byte, error) {})
	begun = sync.OnceFunc(begun)
	defer begun()
	heard := false
	for first := true; ctx.Err() == nil; first = false {
		one, cancel := context.WithTimeout(ctx, tailAsked)
		a, err := askNode[tailAnswer](one, c, n, callTail, tailQuestion{ID: t.far.id, Of: t.of, Wait: !first})
		cancel()
		begun()
		lost := a.Lost
		if heard && (err != nil && !errors.Is(err, ErrUnavailable) || a.New) {
			lost++ // at least one, as far as anybody knows: an answer that was lost, or what passed while it couldn't be asked
		}
		if ctx.Err() == nil {
			t.hearFar(n, a.Items, lost)
		}
		if err == nil {
			heard = true
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(tailAgain):
		}
	}
}

// hearFar hears what another node has told.
func (t *Tail) hearFar(from broker.NodeID, items []TailItem, lost int64) {
	for _, i := range items {
		t.hearOf(from, i)
	}
	if lost == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended == nil {
		t.lost += lost
		t.tell()
	}
}

// again says that another node has told of i already. Where one node tells the same twice it happened twice. The tail's
// mu is held.
func (f *far) again(from broker.NodeID, i *TailItem) bool {
	k := i.key()
	first, known := f.first[k]
	if known {
		return first != from
	}
	delete(f.first, f.order[f.next])
	f.order[f.next], f.first[k] = k, from
	f.next = (f.next + 1) % tailSeen
	return false
}

// key is by what an item is known whichever node tells it. Of what stands in a log that is its place there.
func (i *TailItem) key() uint64 {
	type key struct {
		kind             TailKind
		room, epoch      string
		offset, toOffset uint64
		client, to       ID
		from, key        string
		time             int64
		size, code       int
	}
	k := key{kind: i.Kind, room: i.Room, epoch: i.Epoch, offset: i.Offset, toOffset: i.ToOffset}
	if i.Offset == 0 && i.ToOffset == 0 {
		k.client, k.to, k.from, k.key, k.time, k.size, k.code = i.Client.ID, i.To, i.From, i.Key, i.Time, i.Size, i.Code
	}
	return maphash.Comparable(seed, k)
}
