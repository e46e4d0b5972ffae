package brokertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/broker"
)

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
		if n := len(w.order(w.log(r.Name), 0)); n != each*len(nodes) {
			t.Errorf("%d of %d messages have an offset", n, each*len(nodes))
		}
		for _, n := range nodes {
			n.sees(r.Name)
		}
	}
}

// log is a room's log as something was acknowledged to be in it last.
func (w *world) log(room string) logKey {
	w.mu.Lock()
	defer w.mu.Unlock()
	return logKey{room, w.epochs[room]}
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
		v := member.look(r.Name)
		leave()
		w.whole(r.Name, v.at.Epoch, v.from, v.entries)
	}
	member.join(r)
	close(stop)
	busy.Wait()
	publisher.publish(r, "last", "")
	member.sees(r.Name)
}

// manyRooms opens them as a node does that has just started, while another one publishes.
func manyRooms(t *testing.T, w *world) {
	a, b := w.start(), w.start()
	const many = 300
	var all sync.WaitGroup
	for i := range many {
		r := room(fmt.Sprint("room ", i))
		before := a.send(r, "before", "")
		all.Go(func() {
			b.join(r)
			wait(t, before)
		})
		a.send(r, "meanwhile", "")
	}
	all.Wait()
	for i := range many {
		r := room(fmt.Sprint("room ", i))
		a.publish(r, "behind", "")
		if v := b.sees(r.Name); len(v.entries) != 3 || v.lost > 0 {
			t.Errorf("room %d: %d messages came, and it was lost %d times", i, len(v.entries), v.lost)
		}
	}
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

// trimming opens rooms that are full, of small messages and of some that can't be read at once, while more come.
func trimming(t *testing.T, w *world) {
	publisher, member := w.start(), w.start()
	for _, r := range []struct {
		broker.Room
		size int
	}{{broker.Room{Name: "short", Messages: 5, Age: time.Hour}, 10}, {broker.Room{Name: "heavy", Messages: 200, Age: time.Hour}, 50_000}} {
		filler := strings.Repeat("x", r.size)
		stop := make(chan struct{})
		full := make(chan struct{})
		var busy sync.WaitGroup
		busy.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					c := publisher.send(r.Room, fmt.Sprint(i, filler), "")
					if i%4 == 0 {
						wait(t, c)
					}
				}
				if i == r.Messages+10 {
					close(full)
				}
			}
		})
		wait(t, full)
		for range 15 {
			leave := member.join(r.Room)
			time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
			v := member.look(r.Name)
			leave()
			w.whole(r.Name, v.at.Epoch, v.from, v.entries)
			if len(v.entries) == 0 {
				t.Errorf("%q is full, and nothing was in it", r.Name)
			}
		}
		close(stop)
		busy.Wait()
		member.join(r.Room)
		publisher.publish(r.Room, "last", "")
		member.sees(r.Name)
	}
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
			publisher.until(r, fmt.Sprint(i)) // where ages are short brokers give up early
			time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
		}
	})
	for time.Now().Before(until) {
		leave := member.join(r)
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		v := member.look(r.Name)
		leave()
		w.whole(r.Name, v.at.Epoch, v.from, v.entries)
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
	if log := a.read(r, 0); len(log.Entries) > 0 || log.At.Epoch == "" {
		t.Errorf("a room that nobody has published to: %+v", log)
	}
	begin := time.Now()
	var at []broker.Position
	for c := range slices.Values([]<-chan outcome{a.send(r, "0", ""), a.send(r, "1", ""), a.send(r, "2", ""), b.send(r, "3", ""), b.send(r, "4", "")}) {
		at = append(at, wait(t, c).at)
	}
	for _, n := range []*node{a, b} {
		log := n.read(r, 0)
		if len(log.Entries) != 5 || log.At.Offset != log.Entries[4].Offset {
			t.Fatalf("the log has %+v", log)
		}
		w.whole(r.Name, log.At.Epoch, 0, log.Entries)
		for i, e := range log.Entries {
			if e.Time < begin.Add(-time.Minute).UnixMilli() || e.Time > time.Now().Add(time.Minute).UnixMilli() {
				t.Errorf("message %d is of %v", i, time.UnixMilli(e.Time))
			}
			rest := n.read(r, e.Offset)
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

// whatWasBrought is said of a log once the node has been called for all that came in its open rooms, and not before; also
// where all that came was in others.
func whatWasBrought(t *testing.T, w *world) {
	like := func(name string) broker.Room { return broker.Room{Name: name, Messages: 1000, Age: 8 * time.Second} }
	a, b := w.start(), w.start()
	a.join(like("here"))
	n := a
	upTo := func(epoch string) uint64 {
		for _, at := range n.b.Brought() {
			if at.Epoch == epoch {
				return at.Offset
			}
		}
		return 0
	}
	reaches := func(at broker.Position) {
		t.Helper()
		for deadline := time.Now().Add(patience); upTo(at.Epoch) < at.Offset; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("brought up to %d, and never to %d", upTo(at.Epoch), at.Offset)
			}
		}
	}
	one := b.publish(like("here"), "one", "")
	reaches(one.at)
	if v := a.look("here"); v.at.Offset < one.at.Offset {
		t.Errorf("%+v is said to be brought, and the node is at %+v", one.at, v.at)
	}
	func() {
		a.mu.Lock() // so it can't be called
		defer a.mu.Unlock()
		two := b.publish(like("here"), "two", "")
		for until := time.Now().Add(5 * time.Second); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
			if up := upTo(two.at.Epoch); up >= two.at.Offset {
				t.Fatalf("%+v is said to be brought up to %d, and the node has yet to take it", two.at, up)
			}
		}
		one = two
	}()
	reaches(one.at)
	n = w.start()
	n.join(room("empty"))
	for i := 0; ; i++ { // until one is in the same log
		if o := b.publish(room(fmt.Sprint("elsewhere ", i)), "three", ""); o.at.Epoch == n.look("empty").at.Epoch {
			reaches(o.at)
			return
		}
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
		if o := wait(t, c); o.err != nil && !errors.Is(o.err, broker.ErrUnavailable) && !errors.Is(o.err, broker.ErrTimeout) {
			t.Errorf("a message that was under way: %v", o.err)
		}
	}
	b.publish(r, "last", "")
	b.sees(r.Name)
}
