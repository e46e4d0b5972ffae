package nats

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/broker"
)

const patience = 2 * time.Minute

// testNode is a broker.Node that notes what it is told of each room.
type testNode struct {
	t testing.TB
	*Broker
	stop func()

	mu    sync.Mutex
	rooms map[string]*seen
	slow  chan struct{} // Deliver waits for it
	// delivering is called instead of noting what is delivered; nil for nothing
	delivering func(entries []broker.Entry)

	others
}

// seen is what a node was told of a room since it was opened, or its log was lost.
type seen struct {
	at     broker.Position
	floor  uint64
	bodies []string
	lost   []broker.Position
}

func run(t testing.TB, b *Broker) *testNode {
	n := &testNode{t: t, Broker: b, rooms: map[string]*seen{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, n) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

func (n *testNode) begin(room string, log broker.Log, lost []broker.Position) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := &seen{at: log.At, floor: log.Floor, lost: lost}
	for _, e := range log.Entries {
		s.bodies = append(s.bodies, string(e.Body))
	}
	n.rooms[room] = s
}

func (n *testNode) Deliver(room string, entries []broker.Entry) {
	n.mu.Lock()
	slow, delivering := n.slow, n.delivering
	n.mu.Unlock()
	if delivering != nil {
		delivering(entries)
		return
	}
	if slow != nil {
		<-slow
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.rooms[room]
	for _, e := range entries {
		if e.Offset <= s.at.Offset {
			n.t.Errorf("%q: offset %d comes behind %d", room, e.Offset, s.at.Offset)
		}
		s.at.Offset = e.Offset
		s.bodies = append(s.bodies, string(e.Body))
	}
}

func (n *testNode) Lost(room string, log broker.Log) {
	n.begin(room, log, append(n.look(room).lost, log.At))
}

func (n *testNode) look(room string) seen {
	n.mu.Lock()
	defer n.mu.Unlock()
	return *n.rooms[room]
}

// open opens a room and waits for that.
func (n *testNode) open(r broker.Room) (closed func()) {
	n.t.Helper()
	done := make(chan error, 1)
	closed = n.Open(r, func(log broker.Log, err error) {
		n.begin(r.Name, log, nil)
		done <- err
	})
	if err := <-done; err != nil {
		n.t.Fatal(err)
	}
	return closed
}

type published struct {
	at        broker.Position
	duplicate bool
	err       error
}

// try publishes, and waits for the answer.
func (n *testNode) try(r broker.Room, body, id string) published {
	n.t.Helper()
	done := make(chan published, 1)
	if err := n.Publish(r, broker.Message{Body: []byte(body), ID: id}, func(at broker.Position, duplicate bool, err error) {
		done <- published{at, duplicate, err}
	}); err != nil {
		return published{err: err}
	}
	return <-done
}

// publish publishes until it is acknowledged.
func (n *testNode) publish(r broker.Room, body, id string) published {
	n.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		p := n.try(r, body, id)
		if p.err == nil {
			return p
		}
		if time.Now().After(deadline) {
			n.t.Fatal(p.err)
		}
	}
}

// sees waits until a node has been told of a room what is wanted.
func (n *testNode) sees(room string, what string, ok func(s seen) bool) seen {
	n.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s := n.look(room)
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s doesn't come; the node has seen %v at %+v", what, s.bodies, s.at)
		}
	}
}

func hasLast(body string) func(s seen) bool {
	return func(s seen) bool { return len(s.bodies) > 0 && s.bodies[len(s.bodies)-1] == body }
}

func testRoom(name string) broker.Room {
	return broker.Room{Name: name, Messages: 1000, Age: time.Hour}
}

func names(prefix string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(prefix, i))
	}
	return all
}
