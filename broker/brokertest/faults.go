package brokertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub/broker"
)

// roomy keeps all that a story publishes.
func roomy(name string) broker.Room {
	return broker.Room{Name: name, Messages: 1_000_000, Age: time.Hour}
}

// faults has three nodes publish to two rooms and a fourth open and close them, while one fault after the other is injected.
func faults(t *testing.T, w *world) {
	tr := &traffic{w: w, nodes: []*node{w.start(), w.start(), w.start()}, rooms: []broker.Room{roomy("one"), roomy("two")}}
	visitor := w.start()
	for _, n := range tr.nodes {
		for _, r := range tr.rooms {
			n.join(r)
		}
	}
	for _, f := range w.Faults {
		ok := t.Run(f.Name, func(t *testing.T) {
			tr.run(visitor, f.Inject)
			for _, r := range tr.rooms {
				tr.nodes[0].until(r, "last of "+f.Name)
				for i, n := range tr.nodes {
					if v := n.sees(r.Name); v.lost > 0 {
						t.Errorf("node %d was told %d times that messages of %q are gone", i, v.lost, r.Name)
					}
				}
				log := visitor.read(r, 0)
				w.whole(r.Name, log.At.Epoch, log.Floor, log.Entries)
				once(t, r.Name, log.Entries)
				w.ordered(t, r.Name)
			}
			t.Logf("%d acknowledged, %d told as failed", tr.acked.Load(), tr.failed.Load())
		})
		if !ok {
			return
		}
	}
}

// traffic is nodes that publish as quickly as it is acknowledged.
type traffic struct {
	w             *world
	nodes         []*node
	rooms         []broker.Room
	numbers       atomic.Int64
	acked, failed atomic.Int64
}

// run has all nodes publish while something happens, and for a while before and after.
func (tr *traffic) run(visitor *node, happens func()) {
	stop := make(chan struct{})
	counts := make([]atomic.Int64, len(tr.nodes)*len(tr.rooms))
	var busy sync.WaitGroup
	for i, n := range tr.nodes {
		for k, r := range tr.rooms {
			busy.Go(func() { tr.publish(n, i, r, &counts[i*len(tr.rooms)+k], stop) })
		}
	}
	busy.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rand.IntN(20)) * time.Millisecond):
			}
			r := tr.rooms[rand.IntN(len(tr.rooms))]
			leave, err := visitor.tryToJoin(r)
			if err != nil {
				tr.allow(err)
				continue
			}
			v := visitor.look(r.Name)
			leave()
			tr.w.whole(r.Name, v.at.Epoch, v.from, v.entries)
		}
	})
	more := func() {
		for i := range counts {
			want := counts[i].Load() + 20
			for deadline := time.Now().Add(patience); counts[i].Load() < want; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					tr.w.t.Errorf("nothing is acknowledged any more to publisher %d", i)
					return
				}
			}
		}
	}
	more()
	happens()
	more()
	close(stop)
	busy.Wait()
}

// publish publishes to a room, at most 20 at a time, until it is stopped.
func (tr *traffic) publish(n *node, i int, r broker.Room, count *atomic.Int64, stop chan struct{}) {
	var answers []<-chan outcome
	take := func() {
		o := wait(tr.w.t, answers[0])
		answers = answers[1:]
		if o.err != nil {
			tr.allow(o.err)
			tr.failed.Add(1)
			time.Sleep(time.Millisecond)
			return
		}
		tr.acked.Add(1)
		count.Add(1)
	}
	for {
		select {
		case <-stop:
			for len(answers) > 0 {
				take()
			}
			return
		default:
		}
		answers = append(answers, n.send(r, fmt.Sprintf("%d.%d", i, tr.numbers.Add(1)), ""))
		if len(answers) == 20 {
			take()
		}
	}
}

// allow says whether it is an error that publishers and joiners may be told.
func (tr *traffic) allow(err error) {
	if !errors.Is(err, broker.ErrUnavailable) && !errors.Is(err, broker.ErrTimeout) {
		tr.w.t.Errorf("while something was broken: %v", err)
	}
}

// until publishes until it is acknowledged.
func (n *node) until(r broker.Room, body string) outcome {
	for deadline := time.Now().Add(patience); ; {
		o := wait(n.w.t, n.send(r, fmt.Sprint(body, " ", time.Now().UnixNano()), ""))
		if o.err == nil || time.Now().After(deadline) {
			return o
		}
	}
}

// once says whether no body is there twice.
func once(t *testing.T, room string, entries []broker.Entry) {
	at := map[string]uint64{}
	for _, e := range entries {
		if before, twice := at[string(e.Body)]; twice {
			t.Errorf("%q: %q stands at %d and at %d", room, e.Body, before, e.Offset)
		}
		at[string(e.Body)] = e.Offset
	}
}

// ordered says whether each publisher's messages stand in the order in which it published them.
func (w *world) ordered(t *testing.T, room string) {
	key := w.log(room)
	last := map[string]int{}
	for _, offset := range w.order(key, 0) {
		w.mu.Lock()
		body := w.published[key][offset]
		w.mu.Unlock()
		who, number, _ := strings.Cut(body, ".")
		n, err := strconv.Atoi(number)
		if err != nil {
			continue // not of the traffic
		}
		if n <= last[who] {
			t.Errorf("%q: publisher %s's message %d stands behind its %d", room, who, n, last[who])
		}
		last[who] = n
	}
}

// theLogIsLost wipes all logs: nodes are told so, publishers land in the new ones, and nothing of the old ones is in these.
func theLogIsLost(t *testing.T, w *world) {
	tr := &traffic{w: w, nodes: []*node{w.start(), w.start(), w.start()}, rooms: []broker.Room{roomy("one"), roomy("two")}}
	visitor := w.start()
	was := map[string]logKey{}
	for _, r := range tr.rooms {
		for _, n := range tr.nodes {
			n.join(r)
		}
		tr.nodes[0].publish(r, "first", "")
		was[r.Name] = w.log(r.Name)
	}
	w.mu.Lock()
	w.wiped = true
	w.mu.Unlock()
	tr.run(visitor, w.Wipe)
	for _, r := range tr.rooms {
		o := tr.nodes[0].until(r, "last")
		if o.err != nil || o.at.Epoch == was[r.Name].epoch {
			t.Fatalf("after its log was lost %q goes on: %+v, it was in %q", r.Name, o, was[r.Name].epoch)
		}
		for i, n := range tr.nodes {
			v := n.sees(r.Name)
			if v.lost == 0 {
				t.Errorf("node %d wasn't told that the log of %q was lost", i, r.Name)
			}
			w.apart(t, r.Name, was[r.Name], v.entries)
			once(t, r.Name, v.entries)
		}
		log := visitor.read(r, 0)
		if log.At.Epoch != o.at.Epoch {
			t.Errorf("the log of %q is %q, want %q", r.Name, log.At.Epoch, o.at.Epoch)
		}
		w.whole(r.Name, log.At.Epoch, log.Floor, log.Entries)
		w.apart(t, r.Name, was[r.Name], log.Entries)
		w.ordered(t, r.Name)
	}
}

// apart says whether nothing stands in a log that another one was acknowledged to have.
func (w *world) apart(t *testing.T, room string, other logKey, entries []broker.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	bodies := map[string]bool{}
	for _, body := range w.published[other] {
		bodies[body] = true
	}
	for _, e := range entries {
		if bodies[string(e.Body)] {
			t.Errorf("%q: %q was in the log that was lost, and is in the new one at %d", room, e.Body, e.Offset)
		}
	}
}
