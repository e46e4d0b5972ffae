package brokertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"example.com/hubbub/broker"
)

// Memory keeps logs in memory, for as many nodes as a test has in its process. What it calls back comes late and, for
// different rooms, in any order. It is quick enough for virtual time (testing/synctest), and can be told to fail.
type Memory struct {
	mu    sync.Mutex
	epoch int
	last  uint64 // the offset given last: the rooms share them
	rooms map[string]*kept
	nodes []*memoryNode // that run
	calls map[*memoryCall]bool
	ahead time.Duration // the logs' clock before this process's
	down  bool
	held  bool     // publishing isn't answered
	late  []func() // the answers that are held

	work underWay
}

// kept is a room's log.
type kept struct {
	entries []broker.Entry
	floor   uint64
	last    uint64
	ids     map[string]broker.Position
	open    map[*memoryNode]*inbox
}

// inbox brings one node what comes in one room, in order.
type inbox struct {
	mu      sync.Mutex // held while the node is called
	waiting []func(n broker.Node)
	opened  bool
	closed  bool // perhaps before it was opened
	calling bool // the node is being called
}

// underWay counts what is done. It may begin at any time, also while somebody waits for the end, as it mustn't with a
// sync.WaitGroup.
type underWay struct {
	mu    sync.Mutex
	n     int
	ended chan struct{} // closed when n is 0 again; nil while nobody waits
}

// begin counts something whose end calls end.
func (u *underWay) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n++
}

func (u *underWay) do(f func()) {
	u.begin()
	go func() {
		defer u.end()
		f()
	}()
}

func (u *underWay) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n--; u.n == 0 && u.ended != nil {
		close(u.ended)
		u.ended = nil
	}
}

// wait waits until nothing is under way.
func (u *underWay) wait() {
	u.mu.Lock()
	if u.n == 0 {
		u.mu.Unlock()
		return
	}
	if u.ended == nil {
		u.ended = make(chan struct{})
	}
	ended := u.ended
	u.mu.Unlock()
	<-ended
}

// NewMemory makes logs that are empty.
func NewMemory() *Memory {
	return &Memory{rooms: map[string]*kept{}, calls: map[*memoryCall]bool{}, epoch: 1}
}

// Broker is one node's.
func (m *Memory) Broker() broker.Broker {
	return &memoryNode{m: m, id: newNodeID(), served: make(chan struct{}), topics: map[string]*inbox{}, asked: map[*memoryNode]*inbox{}}
}

// Down has all that is asked fail with broker.ErrUnavailable, until it is false again. What is open goes on.
func (m *Memory) Down(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
	m.changed()
}

// Freeze has nothing happen until thaw.
func (m *Memory) Freeze() (thaw func()) {
	m.mu.Lock()
	return m.mu.Unlock
}

// Hold holds the answers to what is published, though it is delivered; with false they are given.
func (m *Memory) Hold(held bool) {
	m.mu.Lock()
	late := m.late
	m.held = held
	if !held {
		m.late = nil
	}
	m.mu.Unlock()
	if !held {
		for _, answer := range late {
			m.later(answer)
		}
	}
}

// Held is how many answers are held.
func (m *Memory) Held() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.late)
}

// Entries is a room's log as it is.
func (m *Memory) Entries(room string) []broker.Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.room(room).entries)
}

// Lose forgets all that was published: the logs begin anew, as others, and the nodes are told.
func (m *Memory) Lose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	for name, r := range m.rooms {
		r.entries, r.ids = nil, map[string]broker.Position{}
		m.last += 1000
		r.last, r.floor = m.last, m.last
		log := r.log(m)
		for n, in := range r.open {
			m.bring(n, in, func(node broker.Node) { node.Lost(name, log) })
		}
	}
}

// Pass has messages of other rooms come, as in a log that many rooms share: a room of which nothing is kept stands so much
// further for who opens it from now on, and nobody can tell him what came before.
func (m *Memory) Pass(offsets uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last += offsets
	for _, r := range m.rooms {
		if len(r.entries) == 0 {
			r.last, r.floor = m.last, m.last
		}
	}
}

// Clock sets the logs' clock: ahead of this process's, or behind where that is negative.
func (m *Memory) Clock(ahead time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ahead = ahead
}

// now is what the logs' clock shows. m.mu is held.
func (m *Memory) now() time.Time { return time.Now().Add(m.ahead) }

// Wait waits until nothing is called back any more.
func (m *Memory) Wait() { m.work.wait() }

// room: m.mu is held.
func (m *Memory) room(name string) *kept {
	r := m.rooms[name]
	if r == nil {
		r = &kept{ids: map[string]broker.Position{}, open: map[*memoryNode]*inbox{}}
		m.rooms[name] = r
	}
	return r
}

// trim forgets what the room's bounds don't keep. m.mu is held.
func (m *Memory) trim(r *kept, of broker.Room) {
	old := m.now().Add(-of.Age).UnixMilli()
	for len(r.entries) > of.Messages || len(r.entries) > 0 && r.entries[0].Time <= old {
		r.floor = r.entries[0].Offset
		r.entries = r.entries[1:]
	}
}

// epochNow: m.mu is held.
func (m *Memory) epochNow() string { return fmt.Sprint("elsewhere", m.epoch) }

// log: m.mu is held.
func (r *kept) log(m *Memory) broker.Log {
	return broker.Log{Entries: slices.Clone(r.entries), Floor: r.floor, At: broker.Position{Epoch: m.epochNow(), Offset: r.last}}
}

// later does something after a moment.
func (m *Memory) later(do func()) {
	m.work.do(func() {
		time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
		do()
	})
}

// bring has a node called, behind what it is called for the room before. m.mu is held.
func (m *Memory) bring(n *memoryNode, in *inbox, call func(broker.Node)) {
	in.waiting = append(in.waiting, call)
	if in.opened {
		m.work.do(func() { m.hand(n, in) })
	}
}

// hand calls the node for what waits.
func (m *Memory) hand(n *memoryNode, in *inbox) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		m.mu.Lock()
		var call func(broker.Node)
		if in.calling = len(in.waiting) > 0; in.calling {
			call, in.waiting = in.waiting[0], in.waiting[1:]
		}
		m.mu.Unlock()
		if call == nil {
			return
		}
		call(n.node)
	}
}

// memoryNode is what one node sees of a Memory.
type memoryNode struct {
	m      *Memory
	id     broker.NodeID
	node   broker.Node
	served chan struct{}

	// Guarded by m.mu.
	runs, cut bool
	brought   broker.Position
	beat      []byte
	peers     []broker.Peer
	views     inbox
	topics    map[string]*inbox
	asked     map[*memoryNode]*inbox // by who asks

	lanes sync.Map // by room, a chan that is a mutex: publishes keep their order
}

func (n *memoryNode) Run(ctx context.Context, node broker.Node) error {
	n.node = node
	n.comes()
	close(n.served)
	n.beats(ctx.Done())
	n.goes()
	n.m.mu.Lock()
	for _, r := range n.m.rooms {
		delete(r.open, n)
	}
	n.m.mu.Unlock()
	n.m.Wait()
	return nil
}

func (n *memoryNode) Open(of broker.Room, opened func(broker.Log, error)) (closed func()) {
	in := &inbox{}
	n.m.later(func() {
		<-n.served
		n.m.mu.Lock()
		if n.m.down {
			n.m.mu.Unlock()
			opened(broker.Log{}, broker.ErrUnavailable)
			return
		}
		r := n.m.room(of.Name)
		n.m.trim(r, of)
		log := r.log(n.m)
		if !in.closed {
			r.open[n] = in
		}
		n.m.mu.Unlock()
		opened(log, nil)
		n.begin(in)
	})
	return n.ending(in, func() {
		if r := n.m.room(of.Name); r.open[n] == in {
			delete(r.open, n)
		}
	})
}

// begin has what waits come, and what comes from now on.
func (n *memoryNode) begin(in *inbox) {
	n.m.mu.Lock()
	in.opened = true
	n.m.mu.Unlock()
	n.m.hand(n, in)
}

// ending is what closes an inbox, and takes it out after a moment. out is called with m.mu.
func (n *memoryNode) ending(in *inbox, out func()) (closed func()) {
	return func() {
		n.m.mu.Lock()
		defer n.m.mu.Unlock()
		in.closed = true
		n.m.later(func() {
			n.m.mu.Lock()
			defer n.m.mu.Unlock()
			out()
		})
	}
}

// Brought: while something is on its way it is what it was before.
func (n *memoryNode) Brought() []broker.Position {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	now := broker.Position{Epoch: n.m.epochNow(), Offset: n.m.last}
	for _, r := range n.m.rooms {
		if in := r.open[n]; in != nil && (in.calling || len(in.waiting) > 0) {
			now = n.brought
		}
	}
	if n.m.down || !n.runs {
		now = n.brought
	}
	n.brought = now
	return []broker.Position{now} // of no epoch while nothing was ever known
}

func (n *memoryNode) Publish(of broker.Room, message broker.Message, done func(broker.Position, bool, error)) error {
	turn := make(chan struct{})
	before, _ := n.lanes.Swap(of.Name, turn)
	n.m.later(func() {
		defer close(turn)
		if before != nil {
			<-before.(chan struct{})
		}
		n.m.mu.Lock()
		defer n.m.mu.Unlock()
		if n.m.down {
			n.m.later(func() { done(broker.Position{}, false, broker.ErrUnavailable) })
			return
		}
		at, duplicate := n.m.append(of, message)
		answer := func() { done(at, duplicate, nil) }
		if n.m.held {
			n.m.late = append(n.m.late, answer)
			return
		}
		n.m.later(answer)
	})
	return nil
}

// append: m.mu is held.
func (m *Memory) append(of broker.Room, message broker.Message) (at broker.Position, duplicate bool) {
	r := m.room(of.Name)
	if at, duplicate = r.ids[message.ID]; duplicate && message.ID != "" {
		return at, true
	}
	m.last += 1 + rand.Uint64N(64) // offsets have holes
	r.last = m.last
	e := broker.Entry{Offset: r.last, Time: m.now().UnixMilli(), Body: slices.Clone(message.Body)}
	r.entries = append(r.entries, e)
	m.trim(r, of)
	at = broker.Position{Epoch: m.epochNow(), Offset: r.last}
	if message.ID != "" {
		r.ids[message.ID] = at
	}
	for n, in := range r.open {
		m.bring(n, in, func(node broker.Node) { node.Deliver(of.Name, []broker.Entry{e}) })
	}
	return at, false
}

func (n *memoryNode) Read(of broker.Room, behind uint64, done func(broker.Log, error)) {
	n.m.later(func() {
		n.m.mu.Lock()
		if n.m.down {
			n.m.mu.Unlock()
			done(broker.Log{}, broker.ErrUnavailable)
			return
		}
		r := n.m.room(of.Name)
		n.m.trim(r, of)
		log := r.log(n.m)
		n.m.mu.Unlock()
		log.Floor = max(log.Floor, behind)
		for len(log.Entries) > 0 && log.Entries[0].Offset <= behind {
			log.Entries = log.Entries[1:]
		}
		done(log, nil)
	})
}
