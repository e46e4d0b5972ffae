package main

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
)

// A log is what one session did and saw, over all its connections: a client that resumes goes on with the log that it
// had, one that comes back without its session has another. Times are nanoseconds of one clock; the checker needs no
// other.
type clientLog struct {
	id       string // client_id of its welcome
	joins    []join
	sent     []sent // a message's counter is its place in here
	received []received
	closed   string // why it ended: a close code, "reset", ...; "" while it is open
}

// A join is also what a resume does that could not recover a room: from there on the member gets what is new.
type join struct {
	room        uint32
	joined      int64 // when the answer came; 0: it has not
	first       int   // how much of anything had been received before it
	unrecovered bool
}

// resumed goes on with a log that was closed. Its cut is no excuse any more: what the next connection doesn't bring is
// lost.
func (l *clientLog) resumed() { l.closed = "" }

// unrecovered notes that a resume has told that what was missed in a room will not come.
func (l *clientLog) unrecovered(room uint32, at int64) {
	l.joins = append(l.joins, join{room, at, len(l.received), true})
}

type answer uint8

const (
	unanswered answer = iota
	acked
	refused // answered with an error
)

type sent struct {
	room   uint32
	at     int64 // the first time
	answer answer
	again  bool // sent a second time after a resume
}

// received is one delivery. from is the number of the publisher's log (by the message's "from"), seq the counter in its
// content.
type received struct {
	room, from, seq uint32
}

// unknown is the from of a message that nobody in the drill can have sent.
const unknown = ^uint32(0)

// A verdict is what the logs of all connections say together.
type verdict struct {
	acked, deliveries int
	lost              int // acknowledged, not delivered, and the receiver neither closed nor told
	doubled           int
	disordered        int // against the room's one order, or the publisher's own
	misdelivered      int // to one who has not joined, to its sender, of another room, or never sent
	unanswered        int // publishes whose answer an open connection still waits for
	refused           int
	unrecovered       int // rooms of which a resume told that what was missed will not come
	closed            map[string]int
	examples          []string // the first few faults
}

func (v *verdict) clean() bool {
	return v.lost+v.doubled+v.disordered+v.misdelivered+v.unanswered == 0
}

func (v *verdict) String() string {
	return fmt.Sprintf("%d deliveries: %d lost, %d doubled, %d out of order, %d misdelivered, %d unanswered",
		v.deliveries, v.lost, v.doubled, v.disordered, v.misdelivered, v.unanswered)
}

func (v *verdict) fault(count *int, format string, args ...any) {
	*count++
	if len(v.examples) < 5 {
		v.examples = append(v.examples, fmt.Sprintf(format, args...))
	}
}

// A checking numbers all messages of all logs through: message m of publisher p is first[p] + its counter.
type checking struct {
	verdict
	logs  []*clientLog
	first []int
	from  []uint32 // of each message
	place []int    // of each message, in its room's order
	kept  [][]int  // by log: the message of each delivery, -1 where that is faulty in itself
	order [][]int  // by room
	edges []edge   // "a came before b", once for each log that says so
	stamp []uint32 // of each message: the last log it was marked for
	rooms map[uint32]int
}

type edge struct{ a, b, weight int }

// certain outweighs every receiver: what its own publisher says of an order.
const certain = 1 << 30

// check judges a whole run. The order of a room is what its receivers agree on; it is complete, and loss in front of a
// close is seen, where each room has three members that stay.
func check(logs []*clientLog) *verdict {
	c := &checking{logs: logs, rooms: map[uint32]int{}, verdict: verdict{closed: map[string]int{}}}
	c.number()
	for n := range logs {
		c.sort(n)
	}
	c.arrange()
	for n, log := range logs {
		c.findDisorder(n)
		c.findLoss(n)
		if log.closed != "" {
			c.closed[log.closed]++
		}
	}
	return &c.verdict
}

func (c *checking) message(m int) sent { return c.logs[c.from[m]].sent[m-c.first[c.from[m]]] }

func (c *checking) name(m int) string {
	return fmt.Sprintf("message %d of %d in room %d", m-c.first[c.from[m]], c.from[m], c.message(m).room)
}

func (c *checking) number() {
	for n, log := range c.logs {
		c.first = append(c.first, len(c.from))
		last := map[uint32]int{}
		for i, s := range log.sent {
			m := len(c.from)
			c.from = append(c.from, uint32(n))
			switch {
			case s.answer == acked:
				c.acked++
			case s.answer == refused:
				c.refused++
			case log.closed == "":
				c.fault(&c.unanswered, "client %d got no answer to its message %d", n, i)
			}
			if prev, ok := last[s.room]; ok {
				c.edges = append(c.edges, edge{prev, m, certain})
			}
			last[s.room] = m
			if _, ok := c.rooms[s.room]; !ok {
				c.rooms[s.room] = len(c.rooms)
			}
		}
	}
	c.stamp = make([]uint32, len(c.from))
	c.kept = make([][]int, len(c.logs))
}

// sort keeps what a connection got by right, and learns from its order.
func (c *checking) sort(n int) {
	log, last := c.logs[n], map[uint32]int{}
	c.kept[n] = make([]int, len(log.received))
	for i, r := range log.received {
		c.deliveries++
		c.kept[n][i] = -1
		if why := c.wrong(n, r); why != "" {
			c.fault(&c.misdelivered, "client %d got message %d of %d in room %d, %s", n, r.seq, int32(r.from), r.room, why)
			continue
		}
		m := c.first[r.from] + int(r.seq)
		if c.stamp[m] == uint32(n+1) {
			c.fault(&c.doubled, "client %d got %s twice", n, c.name(m))
			continue
		}
		c.stamp[m] = uint32(n + 1)
		if prev, ok := last[r.room]; ok {
			c.edges = append(c.edges, edge{prev, m, 1})
		}
		last[r.room] = m
		c.kept[n][i] = m
	}
}

func (c *checking) wrong(n int, r received) string {
	switch {
	case int(r.from) >= len(c.logs) || int(r.seq) >= len(c.logs[r.from].sent):
		return "which nobody sent"
	case c.logs[r.from].sent[r.seq].room != r.room:
		return "which was sent to another"
	case int(r.from) == n:
		return "its own"
	case !slices.ContainsFunc(c.logs[n].joins, func(j join) bool { return j.room == r.room }):
		return "which it has not joined"
	}
	return ""
}

// arrange puts every room's messages into one order that follows from the edges. Where they contradict each other, the
// majority decides.
func (c *checking) arrange() {
	slices.SortFunc(c.edges, func(x, y edge) int { return cmp.Or(x.a-y.a, x.b-y.b) })
	merged := c.edges[:0]
	for _, e := range c.edges {
		if k := len(merged) - 1; k >= 0 && merged[k].a == e.a && merged[k].b == e.b {
			merged[k].weight += e.weight
		} else {
			merged = append(merged, e)
		}
	}
	n := len(c.from)
	out, in, against := make([]int, n+1), make([]int, n), make([]int, n)
	for i, e := range merged {
		out[e.a+1] = i + 1
		in[e.b]++
		against[e.b] += e.weight
	}
	for m := range n { // out[m] to out[m+1] are the edges from m
		out[m+1] = max(out[m+1], out[m])
	}
	c.place, c.order = make([]int, n), make([][]int, len(c.rooms))
	done, ready := make([]bool, n), &earliest{of: c}
	for m := range n {
		if in[m] == 0 {
			heap.Push(ready, m)
		}
	}
	for placed := 0; placed < n; {
		if ready.Len() == 0 { // a circle: begin where the fewest object
			heap.Push(ready, leastAgainst(done, against))
		}
		m := heap.Pop(ready).(int)
		if done[m] {
			continue
		}
		done[m] = true
		placed++
		room := c.rooms[c.message(m).room]
		c.place[m] = len(c.order[room])
		c.order[room] = append(c.order[room], m)
		for _, e := range merged[out[m]:out[m+1]] {
			in[e.b]--
			against[e.b] -= e.weight
			if in[e.b] == 0 {
				heap.Push(ready, e.b)
			}
		}
	}
}

// earliest is a heap of messages, by when they were sent: so stand those of which nobody's order says which comes first, as
// where all of a room's sessions have begun anew.
type earliest struct {
	of  *checking
	all []int
}

func (h *earliest) Len() int           { return len(h.all) }
func (h *earliest) Less(i, j int) bool { return h.of.message(h.all[i]).at < h.of.message(h.all[j]).at }
func (h *earliest) Swap(i, j int)      { h.all[i], h.all[j] = h.all[j], h.all[i] }
func (h *earliest) Push(m any)         { h.all = append(h.all, m.(int)) }
func (h *earliest) Pop() any {
	m := h.all[len(h.all)-1]
	h.all = h.all[:len(h.all)-1]
	return m
}

func leastAgainst(done []bool, against []int) int {
	best := -1
	for m := range done {
		if !done[m] && (best < 0 || against[m] < against[best]) {
			best = m
		}
	}
	return best
}

func (c *checking) findDisorder(n int) {
	last := map[uint32]int{}
	step := func(m int) {
		room := c.message(m).room
		if prev, ok := last[room]; ok && c.place[m] < c.place[prev] {
			c.fault(&c.disordered, "client %d has %s after message %d of %d", n, c.name(m), prev-c.first[c.from[prev]], c.from[prev])
		}
		last[room] = m
	}
	for _, m := range c.kept[n] {
		if m >= 0 {
			step(m)
		}
	}
	clear(last)
	for i := range c.logs[n].sent {
		step(c.first[n] + i)
	}
}

// findLoss: from its join on, or from the first message that it got, a member gets all that is acknowledged; until the
// end, or if it was closed or told that more will not come, until the last that it got.
func (c *checking) findLoss(n int) {
	log := c.logs[n]
	for _, m := range c.kept[n] {
		if m >= 0 {
			c.stamp[m] = ^uint32(n)
		}
	}
	for k, j := range log.joins {
		if j.unrecovered {
			c.unrecovered++
		}
		room, ok := c.rooms[j.room]
		if !ok {
			continue // nobody sent anything there
		}
		end, cut := len(c.kept[n]), log.closed != ""
		if next := slices.IndexFunc(log.joins[k+1:], func(o join) bool { return o.room == j.room }); next >= 0 {
			end, cut = log.joins[k+1+next].first, true
		}
		first, last := len(c.order[room]), -1 // places of what it got by this join
		for _, m := range c.kept[n][j.first:end] {
			if m >= 0 && c.message(m).room == j.room {
				first, last = min(first, c.place[m]), max(last, c.place[m])
			}
		}
		for p, m := range c.order[room] {
			msg := c.message(m)
			if msg.answer != acked || int(c.from[m]) == n || c.stamp[m] == ^uint32(n) {
				continue
			}
			due := j.joined > 0 && msg.at > j.joined || p > first
			if told := cut && p > last; due && !told {
				c.fault(&c.lost, "client %d lacks %s", n, c.name(m))
				c.stamp[m] = ^uint32(n) // once, whichever join it was due by
			}
		}
	}
}
