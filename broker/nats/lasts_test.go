package nats

import (
	"log/slog"
	"testing"
	"time"

	"example.com/hubbub/broker"
)

// A room that was quiet for longer than its age has had nothing since, which is known after a restart, too; of one that has
// had something that is gone, that is known.
func TestQuietRoomsAreKnownAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start := func() *testNode {
		t.Helper()
		b, err := Start(dir, Config{})
		if err != nil {
			t.Fatal(err)
		}
		return run(t, b)
	}
	quiet := broker.Room{Name: "quiet", Messages: 10, Age: time.Second}
	busy := broker.Room{Name: "busy", Messages: 10, Age: time.Second}
	expired := func(n *testNode, r broker.Room) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			log, err := n.stream(r).read(r.Name, 0)
			if err == nil && len(log.Entries) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("it doesn't expire: %+v, %v", log, err)
			}
		}
	}
	n := start()
	silent := n.publish(quiet, "last", "id").at
	before := n.publish(busy, "one", "").at
	expired(n, quiet)
	after := n.publish(busy, "two", "").at
	expired(n, busy)
	for i := range 3 {
		n.stop()
		n = start()
		log, err := n.stream(quiet).read(quiet.Name, 0)
		if err != nil || log.At.Epoch != silent.Epoch || log.Floor > silent.Offset|(maxGroup-1) || log.Floor < silent.Offset {
			t.Errorf("start %d: the quiet room is %+v, its last was at %+v (%v)", i, log, silent, err)
		}
		if log, err = n.stream(busy).read(busy.Name, 0); err != nil || log.Floor < after.Offset || log.Floor <= before.Offset {
			t.Errorf("start %d: the busy room is %+v, its last was at %+v (%v)", i, log, after, err)
		}
	}
}

// What was on its way when the process was killed is unknown until something new is stored there; a file that doesn't know of
// all that its log has begins anew.
func TestLastsTellNoLie(t *testing.T) {
	dir := t.TempDir()
	open := func(last uint64) *lasts {
		t.Helper()
		l := openLasts(dir, "HB", "NONCE", last, slog.New(slog.DiscardHandler))
		t.Cleanup(l.close)
		return l
	}
	is := func(l *lasts, token string, want uint64, known bool) {
		t.Helper()
		if seq, ok := l.of(token); ok != known || known && seq != want {
			t.Errorf("the last of %q is %d, %v; it should be %d, %v", token, seq, ok, want, known)
		}
	}
	l := open(100)
	is(l, "a", 100, true)
	l.sent("a")
	is(l, "a", 0, false)
	l.told("a", 101, true)
	is(l, "a", 101, true)
	l.sent("a")
	l.told("a", 50, false) // a duplicate of what stands there long
	is(l, "a", 101, true)
	l.sent("b")
	l.told("b", 0, false) // nobody knows
	is(l, "b", 0, false)
	l.sent("b")
	l.told("b", 90, false) // neither does that say what was stored last
	is(l, "b", 0, false)
	l.told("c", 103, true) // the two meet
	l.sent("c")
	is(l, "c", 103, true)
	l.sent("d") // and it is killed
	l = open(105)
	is(l, "a", 101, true)
	is(l, "b", 0, false)
	is(l, "d", 0, false)
	is(l, "e", 100, true)
	l.sent("d")
	l.told("d", 106, true)
	is(l, "d", 106, true)
	l = open(106)
	is(l, "e", 100, true)
	l = open(108) // "b" is unknown, and there are two
	for _, token := range []string{"a", "b", "d", "e"} {
		is(l, token, 108, true)
	}
	l.f.Close() // so it can't be written
	l.sent("a")
	is(l, "a", 0, false)
	is(l, "e", 0, false)
	if l = open(110); l.since != 110 {
		t.Errorf("a file that was given up is used: it knows since %d", l.since)
	}
}
