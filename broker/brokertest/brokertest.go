// Package brokertest holds an implementation of broker.Broker to what the seam promises.
//
//	func TestBroker(t *testing.T) {
//		brokertest.Run(t, func(t *testing.T) brokertest.System {
//			servers := start(t)
//			return brokertest.System{
//				Node:   func() broker.Broker { return connect(t, servers) },
//				Faults: []brokertest.Fault{{Name: "a server restarted", Inject: servers.restart}},
//				Wipe:   servers.wipe,
//			}
//		})
//	}
//
// A fault breaks something while nodes publish, read and open rooms, and mends it. What was acknowledged must be in the log
// afterwards, once and in its order, and every node must have seen it.
package brokertest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/broker"
)

// patience is how long a story waits for what must come.
const patience = 2 * time.Minute

// System is what a story plays on: logs that are new.
type System struct {
	// Node gives each node a broker of its own for these logs. Brokers end by their Run.
	Node func() broker.Broker
	// Faults are what can go wrong and doesn't lose a log. There must be one.
	Faults []Fault
	// Wipe loses all logs, and returns when others can begin. There must be one: every log can be lost.
	Wipe func()
	// Clock sets the clock by which messages are dated and expire: ahead of what it is, or behind where that is negative. Nil
	// where it can't be set apart from the machine's.
	Clock func(ahead time.Duration)
}

// Fault is one that can be injected.
type Fault struct {
	Name string
	// Inject breaks something, and has it mended when it returns. It is called by the story's goroutine and may take a minute.
	Inject func()
}

// Run runs the suite. Each of its stories calls setUp once.
func Run(t *testing.T, setUp func(t *testing.T) System) {
	for _, story := range []struct {
		name string
		tell func(t *testing.T, w *world)
	}{
		{"one order for all nodes", oneOrder},
		{"opening in the middle", openingInTheMiddle},
		{"many rooms opened at once", manyRooms},
		{"published once", publishedOnce},
		{"bounds", bounds},
		{"trimming while rooms are opened", trimming},
		{"expiry while rooms are opened", expiry},
		{"reading", reading},
		{"names and sizes", namesAndSizes},
		{"closing and opening again", closingAndOpening},
		{"what was brought", whatWasBrought},
		{"faults", faults},
		{"the log is lost", theLogIsLost},
		{"a clock that jumps", aClockThatJumps},
		{"telling", telling},
		{"ready to hear", readyToHear},
		{"many topics at once", manyTopics},
		{"asking", asking},
		{"who is there", whoIsThere},
		{"faults between nodes", faultsBetween},
		{"the end between nodes", theEndBetween},
		{"the end", theEnd},
	} {
		t.Run(story.name, func(t *testing.T) {
			w := &world{t: t, System: setUp(t), published: map[logKey]map[uint64]string{}, epochs: map[string]string{}}
			if w.Node == nil || len(w.Faults) == 0 || w.Wipe == nil {
				t.Fatal("the System lacks its Node, its Faults or its Wipe: a broker isn't tried without them")
			}
			story.tell(t, w)
		})
	}
}

// world is the nodes of a story, and what was published.
type world struct {
	t *testing.T
	System

	mu        sync.Mutex
	published map[logKey]map[uint64]string // by offset, what was acknowledged
	epochs    map[string]string            // each room's, as it was acknowledged last
	wiped     bool                         // epochs may change
}

// logKey is one log of a room.
type logKey struct{ room, epoch string }

// node is a broker.Node that notes what comes.
type node struct {
	w    *world
	b    broker.Broker
	stop func()

	mu   sync.Mutex
	open map[string]*view

	together // what it has to do with other nodes
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
	n := &node{w: w, b: w.Node(), open: map[string]*view{}, together: newTogether()}
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

// join opens a room and waits for that, and tries again while its log can't be read: on a busy machine nothing of it may
// come for the seconds after which a broker gives up.
func (n *node) join(r broker.Room) (leave func()) {
	n.w.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		leave, err := n.tryToJoin(r)
		if err == nil {
			return leave
		}
		leave()
		if !errors.Is(err, broker.ErrUnavailable) || time.Now().After(deadline) {
			n.w.t.Fatalf("opening %.20q: %v", r.Name, err)
		}
	}
}

func (n *node) tryToJoin(r broker.Room) (leave func(), err error) {
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
	err = wait(n.w.t, done)
	return func() {
		n.mu.Lock()
		delete(n.open, r.Name)
		n.mu.Unlock()
		closed()
	}, err
}

// look is what the node has seen of a room that is open.
func (n *node) look(room string) view {
	n.mu.Lock()
	defer n.mu.Unlock()
	v := *n.open[room]
	v.entries = slices.Clone(v.entries)
	return v
}

// read reads a log, and tries again while it can't be reached.
func (n *node) read(r broker.Room, behind uint64) broker.Log {
	n.w.t.Helper()
	type page struct {
		broker.Log
		err error
	}
	for deadline := time.Now().Add(patience); ; {
		c := make(chan page, 2)
		n.b.Read(r, behind, func(log broker.Log, err error) { c <- page{log, err} })
		p := wait(n.w.t, c)
		if p.err == nil {
			return p.Log
		}
		if time.Now().After(deadline) {
			n.w.t.Fatalf("reading %.20q: %v", r.Name, p.err)
		}
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
	key := logKey{room, at.Epoch}
	if w.published[key] == nil {
		w.published[key] = map[uint64]string{}
	}
	if before, ok := w.published[key][at.Offset]; ok {
		w.t.Errorf("%.20q: offset %d was given to %q and to %q", room, at.Offset, before, body)
	}
	w.published[key][at.Offset] = body
	if e := w.epochs[room]; e != "" && e != at.Epoch && !w.wiped {
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

// order is what was published to a log behind an offset, in its order.
func (w *world) order(key logKey, behind uint64) (offsets []uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for offset := range w.published[key] {
		if offset > behind {
			offsets = append(offsets, offset)
		}
	}
	slices.Sort(offsets)
	return offsets
}

// sees waits until a node has seen all that was acknowledged of a room, and checks that it has seen it in order, once.
func (n *node) sees(room string) view {
	n.w.t.Helper()
	n.w.mu.Lock()
	key := logKey{room, n.w.epochs[room]}
	n.w.mu.Unlock()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		v := n.look(room)
		all := n.w.order(key, v.from)
		if v.at.Epoch == key.epoch && (len(all) == 0 || v.at.Offset >= all[len(all)-1]) {
			n.w.whole(room, v.at.Epoch, v.from, v.entries)
			return v
		}
		if time.Now().After(deadline) {
			n.w.t.Fatalf("%.20q: the node is at %+v, and of %q there are %v", room, v.at, key.epoch, all[max(0, len(all)-5):])
		}
	}
}

// whole says whether entries are what was published to a log behind an offset, up to the last of them.
func (w *world) whole(room, epoch string, behind uint64, entries []broker.Entry) {
	w.t.Helper()
	key := logKey{room, epoch}
	all := w.order(key, behind)
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
		if body, ok := got[offset]; !ok || body != w.published[key][offset] {
			w.t.Fatalf("%.20q: the log behind %d has %.20q (%v) at %d, published was %.20q", room, behind, body, ok, offset, w.published[key][offset])
		}
	}
}
