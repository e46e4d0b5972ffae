// Package brokertest holds an implementation of broker.Broker to what the seam promises.
//
//	func TestBroker(t *testing.T) {
//		brokertest.Run(t, func(t *testing.T) func() broker.Broker {
//			servers := start(t)
//			return func() broker.Broker { return connect(t, servers) }
//		})
//	}
package brokertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/broker"
)

// patience is how long a story waits for what must come.
const patience = 2 * time.Minute

// Run runs the suite. Each of its stories calls setUp once, for logs that are new; what it returns is called for each
// node, and gives a broker of its own for these logs. Brokers end by their Run.
func Run(t *testing.T, setUp func(t *testing.T) (node func() broker.Broker)) {
	for _, story := range []struct {
		name string
		tell func(t *testing.T, w *world)
	}{
		{"one order for all nodes", oneOrder},
		{"opening in the middle", openingInTheMiddle},
		{"published once", publishedOnce},
		{"bounds", bounds},
		{"expiry while rooms are opened", expiry},
		{"reading", reading},
		{"names and sizes", namesAndSizes},
		{"closing and opening again", closingAndOpening},
		{"the end", theEnd},
	} {
		t.Run(story.name, func(t *testing.T) {
			story.tell(t, &world{t: t, make: setUp(t), published: map[string]map[uint64]string{}})
		})
	}
}

// world is the nodes of a story, and what was published.
type world struct {
	t    *testing.T
	make func() broker.Broker

	mu        sync.Mutex
	published map[string]map[uint64]string // by room and offset, what was acknowledged
	epochs    map[string]string
}

// node is a broker.Node that notes what comes.
type node struct {
	w    *world
	b    broker.Broker
	stop func()

	mu   sync.Mutex
	open map[string]*view
}

// view is what a node has seen of a room since it was opened.
type view struct {
	from    uint64 // the floor: everything behind is seen
	opened  uint64 // where the log stood when it was opened
	at      broker.Position
	entries []broker.Entry
	lost    int
}

// start starts a node, which ends with the test.
func (w *world) start() *node {
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{w: w, b: w.make(), open: map[string]*view{}}
	ended := make(chan error, 1)
	go func() { ended <- n.b.Run(ctx, n) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				w.t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			w.t.Error("Run doesn't end")
		}
	})
	w.t.Cleanup(n.stop)
	return n
}

func (n *node) Deliver(room string, entries []broker.Entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	v := n.open[room]
	if v == nil {
		return // it has been closed meanwhile
	}
	for _, e := range entries {
		if e.Offset <= v.opened {
			continue // it was on its way when the room was closed before
		}
		if e.Offset <= v.at.Offset {
			n.w.t.Errorf("%.20q: offset %d comes behind %d", room, e.Offset, v.at.Offset)
		}
		v.at.Offset = e.Offset
		v.entries = append(v.entries, e)
	}
}

func (n *node) Lost(room string, log broker.Log) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if v := n.open[room]; v != nil {
		*v = view{from: log.Floor, at: log.At, entries: log.Entries, lost: v.lost + 1}
	}
}

// join opens a room and waits for that.
func (n *node) join(r broker.Room) (leave func()) {
	n.w.t.Helper()
	done := make(chan error, 1)
	closed := n.b.Open(r, func(log broker.Log, err error) {
		if err == nil {
			n.mu.Lock()
			n.open[r.Name] = &view{from: log.Floor, opened: log.At.Offset, at: log.At, entries: slices.Clone(log.Entries)}
			n.mu.Unlock()
		}
		done <- err
	})
	if err := wait(n.w.t, done); err != nil {
		n.w.t.Fatalf("opening %.20q: %v", r.Name, err)
	}
	return func() {
		n.mu.Lock()
		delete(n.open, r.Name)
		n.mu.Unlock()
		closed()
	}
}

func wait[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("nothing comes")
	}
	return v
}

// outcome is how a message was published.
type outcome struct {
	at        broker.Position
	duplicate bool
	err       error
}

// send publishes without waiting; what comes of it is noted.
func (n *node) send(r broker.Room, body, id string) <-chan outcome {
	c := make(chan outcome, 2)
	for {
		err := n.b.Publish(r, broker.Message{Body: []byte(body), ID: id}, func(at broker.Position, duplicate bool, err error) {
			if err == nil && !duplicate {
				n.w.note(r.Name, at, body)
			}
			c <- outcome{at, duplicate, err}
		})
		if err == nil {
			return c
		}
		time.Sleep(time.Millisecond) // ErrBusy: it is tried again
	}
}

func (w *world) note(room string, at broker.Position, body string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.published[room] == nil {
		w.published[room] = map[uint64]string{}
	}
	if before, ok := w.published[room][at.Offset]; ok {
		w.t.Errorf("%.20q: offset %d was given to %q and to %q", room, at.Offset, before, body)
	}
	w.published[room][at.Offset] = body
	if w.epochs == nil {
		w.epochs = map[string]string{}
	}
	if e := w.epochs[room]; e != "" && e != at.Epoch {
		w.t.Errorf("%.20q: the epoch was %q and is %q", room, e, at.Epoch)
	}
	w.epochs[room] = at.Epoch
}

// publish publishes and waits for the answer.
func (n *node) publish(r broker.Room, body, id string) outcome {
	n.w.t.Helper()
	o := wait(n.w.t, n.send(r, body, id))
	if o.err != nil {
		n.w.t.Fatalf("publishing to %.20q: %v", r.Name, o.err)
	}
	return o
}

// order is what was published to a room behind an offset, in the log's order.
func (w *world) order(room string, behind uint64) (offsets []uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for offset := range w.published[room] {
		if offset > behind {
			offsets = append(offsets, offset)
		}
	}
	slices.Sort(offsets)
	return offsets
}

// sees waits until a node has seen all that was acknowledged of a room, and checks that it has seen it in order, once.
func (n *node) sees(room string) {
	n.w.t.Helper()
	var v view
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		n.mu.Lock()
		v = *n.open[room]
		v.entries = slices.Clone(v.entries)
		n.mu.Unlock()
		all := n.w.order(room, v.from)
		if len(all) == 0 || v.at.Offset >= all[len(all)-1] {
			break
		}
		if time.Now().After(deadline) {
			n.w.t.Fatalf("%.20q: the node is at %d of %d", room, v.at.Offset, all[len(all)-1])
		}
	}
	n.w.whole(room, v.from, v.entries)
}

// whole says whether entries are what was published behind an offset, up to the last of them.
func (w *world) whole(room string, behind uint64, entries []broker.Entry) {
	w.t.Helper()
	all := w.order(room, behind)
	got := map[uint64]string{}
	var last uint64
	for _, e := range entries {
		if e.Offset <= last {
			w.t.Errorf("%.20q: offset %d comes behind %d", room, e.Offset, last)
		}
		last = e.Offset
		got[e.Offset] = string(e.Body)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, offset := range all {
		if offset > last {
			break
		}
		if body, ok := got[offset]; !ok || body != w.published[room][offset] {
			w.t.Fatalf("%.20q: the log behind %d has %.20q (%v) at %d, published was %.20q", room, behind, body, ok, offset, w.published[room][offset])
		}
	}
}

// room is one that keeps much for long.
func room(name string) broker.Room {
	return broker.Room{Name: name, Messages: 1000, Age: time.Hour}
}

func oneOrder(t *testing.T, w *world) {
	nodes := []*node{w.start(), w.start(), w.start()}
	rooms := []broker.Room{room("a"), room("b"), room("c")}
	for _, n := range nodes {
		for _, r := range rooms {
			n.join(r)
		}
	}
	const each = 200
	var all sync.WaitGroup
	for i, n := range nodes {
		for _, r := range rooms {
			all.Go(func() {
				var at uint64
				var answers []<-chan outcome
				for k := range each {
					answers = append(answers, n.send(r, fmt.Sprintf("%d.%d", i, k), ""))
				}
				for k, c := range answers {
					o := wait(t, c)
					if o.err != nil || o.duplicate {
						t.Errorf("message %d: %v, duplicate %v", k, o.err, o.duplicate)
					}
					if o.at.Offset <= at {
						t.Errorf("a publisher's message %d has offset %d, the one before it %d", k, o.at.Offset, at)
					}
					at = o.at.Offset
				}
			})
		}
	}
	all.Wait()
	for _, r := range rooms {
		if n := len(w.order(r.Name, 0)); n != each*len(nodes) {
			t.Errorf("%d of %d messages have an offset", n, each*len(nodes))
		}
		for _, n := range nodes {
			n.sees(r.Name)
		}
	}
}

func openingInTheMiddle(t *testing.T, w *world) {
	r := room("busy")
	publisher, member := w.start(), w.start()
	publisher.publish(r, "first", "")
	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				c := publisher.send(r, fmt.Sprint(i), "")
				if i%10 == 0 {
					wait(t, c)
				}
			}
		}
	})
	for range 30 {
		leave := member.join(r)
		time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
		member.mu.Lock()
		v := *member.open[r.Name]
		v.entries = slices.Clone(v.entries)
		member.mu.Unlock()
		leave()
		w.whole(r.Name, v.from, v.entries)
	}
	member.join(r)
	close(stop)
	busy.Wait()
	publisher.publish(r, "last", "")
	member.sees(r.Name)
}

func publishedOnce(t *testing.T, w *world) {
	r := room("once")
	a, b := w.start(), w.start()
	b.join(r)
	first := a.publish(r, "one", "id")
	if first.duplicate {
		t.Error("the first is a duplicate")
	}
	for _, n := range []*node{a, b} {
		if o := n.publish(r, "again", "id"); !o.duplicate || o.at != first.at {
			t.Errorf("again: %+v, the first was at %+v", o, first.at)
		}
	}
	if o := a.publish(room("another"), "one", "id"); o.duplicate {
		t.Error("the same id in another room is a duplicate")
	}
	// At once, from both.
	var answers []<-chan outcome
	for range 10 {
		answers = append(answers, a.send(r, "storm", "storm"), b.send(r, "storm", "storm"))
	}
	fresh, at := 0, broker.Position{}
	for _, c := range answers {
		o := wait(t, c)
		if o.err != nil {
			t.Fatal(o.err)
		}
		if !o.duplicate {
			fresh++
		}
		if at.Epoch != "" && o.at != at {
			t.Errorf("one message stands at %+v and %+v", at, o.at)
		}
		at = o.at
	}
	if fresh != 1 {
		t.Errorf("%d of 20 were told that they were the first", fresh)
	}
	b.sees(r.Name)
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.open[r.Name].entries); n != 2 {
		t.Errorf("%d messages came, want 2", n)
	}
}

func bounds(t *testing.T, w *world) {
	r := broker.Room{Name: "short", Messages: 5, Age: time.Hour}
	a := w.start()
	var at []broker.Position
	for i := range 12 {
		at = append(at, a.publish(r, fmt.Sprint(i), "").at)
	}
	a.join(r)
	a.mu.Lock()
	v := *a.open[r.Name]
	a.mu.Unlock()
	if n := len(v.entries); n < 5 || v.from >= v.entries[0].Offset || v.from < at[11-n].Offset {
		t.Errorf("%d of the newest are kept, and nothing is missing behind %d: the log is %v", n, v.from, at)
	}
	if v.at != at[11] {
		t.Errorf("the position is %+v, want %+v", v.at, at[11])
	}
	a.publish(r, "next", "")
	a.sees(r.Name)
}

// expiry opens a room whose messages expire all the time. What it says of its floor must be true: a message that was
// acknowledged is there or before it.
func expiry(t *testing.T, w *world) {
	r := broker.Room{Name: "fleeting", Messages: 1000, Age: time.Second}
	publisher, member := w.start(), w.start()
	until := time.Now().Add(4 * time.Second)
	var busy sync.WaitGroup
	busy.Go(func() {
		for i := 0; time.Now().Before(until); i++ {
			publisher.publish(r, fmt.Sprint(i), "")
			time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
		}
	})
	for time.Now().Before(until) {
		leave := member.join(r)
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		member.mu.Lock()
		v := *member.open[r.Name]
		v.entries = slices.Clone(v.entries)
		member.mu.Unlock()
		leave()
		w.whole(r.Name, v.from, v.entries)
	}
	busy.Wait()
	last := publisher.publish(r, "last", "").at
	time.Sleep(3 * time.Second) // all expires
	leave := member.join(r)
	member.mu.Lock()
	v := *member.open[r.Name]
	member.mu.Unlock()
	if len(v.entries) > 0 || v.at.Epoch != last.Epoch || v.at.Offset < last.Offset || v.from < last.Offset {
		t.Errorf("when all has expired the log is %+v, the last was at %+v", v, last)
	}
	leave()
	member.join(r)
	publisher.publish(r, "new", "")
	member.sees(r.Name)
}

func reading(t *testing.T, w *world) {
	r := room("book")
	a, b := w.start(), w.start()
	read := func(n *node, r broker.Room, behind uint64) broker.Log {
		t.Helper()
		type page struct {
			broker.Log
			err error
		}
		c := make(chan page, 1)
		n.b.Read(r, behind, func(log broker.Log, err error) { c <- page{log, err} })
		p := wait(t, c)
		if p.err != nil {
			t.Fatal(p.err)
		}
		return p.Log
	}
	if log := read(a, r, 0); len(log.Entries) > 0 || log.At.Epoch == "" {
		t.Errorf("a room that nobody has published to: %+v", log)
	}
	begin := time.Now()
	var at []broker.Position
	for c := range slices.Values([]<-chan outcome{a.send(r, "0", ""), a.send(r, "1", ""), a.send(r, "2", ""), b.send(r, "3", ""), b.send(r, "4", "")}) {
		at = append(at, wait(t, c).at)
	}
	for _, n := range []*node{a, b} {
		log := read(n, r, 0)
		if len(log.Entries) != 5 || log.At.Offset != log.Entries[4].Offset {
			t.Fatalf("the log has %+v", log)
		}
		w.whole(r.Name, 0, log.Entries)
		for i, e := range log.Entries {
			if e.Time < begin.Add(-time.Minute).UnixMilli() || e.Time > time.Now().Add(time.Minute).UnixMilli() {
				t.Errorf("message %d is of %v", i, time.UnixMilli(e.Time))
			}
			rest := read(n, r, e.Offset)
			if len(rest.Entries) != 4-i || rest.Floor > e.Offset || rest.At.Epoch != at[0].Epoch {
				t.Errorf("behind message %d: %d messages, whole behind %d", i, len(rest.Entries), rest.Floor)
			}
		}
	}
}

func namesAndSizes(t *testing.T, w *world) {
	a, b := w.start(), w.start()
	for _, name := range []string{"a", "a.b", "a b", "*", ">", "a/b?c#d", "$JS.API", "räume", "🎉", "-", strings.Repeat("x", 40),
		strings.Repeat("x", 41), strings.Repeat("x", 254) + "y", strings.Repeat("x", 254) + "z"} {
		r := room(name)
		b.join(r)
		for _, size := range []int{0, 1, 127, 128, 65536, 300000} {
			a.publish(r, strings.Repeat("m", size), "")
		}
		b.sees(name)
		b.mu.Lock()
		if n := len(b.open[name].entries); n != 6 {
			t.Errorf("%.20q: %d messages came", name, n)
		}
		b.mu.Unlock()
	}
}

func closingAndOpening(t *testing.T, w *world) {
	r := room("door")
	a, b := w.start(), w.start()
	for i := range 20 {
		leave := b.join(r)
		a.publish(r, fmt.Sprint("in ", i), "")
		b.sees(r.Name)
		leave()
		a.publish(r, fmt.Sprint("out ", i), "")
	}
	b.join(r)
	b.sees(r.Name)
	b.mu.Lock()
	defer b.mu.Unlock()
	if v := b.open[r.Name]; len(v.entries) != 40 || v.lost > 0 {
		t.Errorf("%d messages are there, want 40; lost %d times", len(v.entries), v.lost)
	}
}

// theEnd ends a node while much is under way: each call is answered once, and another node goes on.
func theEnd(t *testing.T, w *world) {
	r := room("end")
	a, b := w.start(), w.start()
	b.join(r)
	a.publish(r, "first", "")
	var answers []<-chan outcome
	for i := range 500 {
		answers = append(answers, a.send(r, fmt.Sprint(i), ""))
	}
	a.stop()
	for _, c := range answers {
		if o := wait(t, c); o.err != nil && o.err != broker.ErrUnavailable && o.err != broker.ErrTimeout {
			t.Errorf("a message that was under way: %v", o.err)
		}
	}
	b.publish(r, "last", "")
	b.sees(r.Name)
}
