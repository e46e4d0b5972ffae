package nats

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/hubbub/broker"
)

// A server that is started again on its folder has the same logs, knows what was published, and rooms that are open go on.
func TestRestartKeeps(t *testing.T) {
	e := startEmbedded(t)
	a, b := run(t, e.node(t)), run(t, e.node(t))
	r := testRoom("kept")
	b.open(r)
	first := a.publish(r, "first", "id")
	e.restart()
	again := a.publish(r, "again", "id")
	if !again.duplicate || again.at != first.at {
		t.Errorf("the same id is at %+v, it was at %+v", again, first.at)
	}
	second := a.publish(r, "second", "")
	if second.at.Epoch != first.at.Epoch || second.at.Offset <= first.at.Offset {
		t.Errorf("it goes on at %+v, it was at %+v", second.at, first.at)
	}
	s := b.sees(r.Name, "the second", hasLast("second"))
	if !slices.Equal(s.bodies, []string{"first", "second"}) || len(s.lost) > 0 {
		t.Errorf("who had it open has seen %v, lost %v", s.bodies, s.lost)
	}
	c := run(t, e.node(t))
	c.open(r)
	if s := c.look(r.Name); !slices.Equal(s.bodies, []string{"first", "second"}) || s.at != second.at {
		t.Errorf("who opens it sees %v at %+v", s.bodies, s.at)
	}
}

// Offsets grow even over a log that was lost, in each shard.
func TestOffsetsGrowOverAWipe(t *testing.T) {
	e := startEmbedded(t)
	a := run(t, e.node(t))
	before := map[string]broker.Position{}
	for _, name := range names("room ", 20) {
		for range 3 {
			before[name] = a.publish(testRoom(name), "m", "").at
		}
		a.open(testRoom(name))
	}
	e.wipe()
	for name, was := range before {
		is := a.publish(testRoom(name), "n", "").at
		if is.Epoch == was.Epoch || is.Offset <= was.Offset {
			t.Errorf("%q is at %+v and was at %+v", name, is, was)
		}
		s := a.sees(name, "n", hasLast("n"))
		if len(s.bodies) != 1 || len(s.lost) == 0 || s.at.Epoch != is.Epoch {
			t.Errorf("%q: the node has seen %v of %+v, lost at %v", name, s.bodies, s.at, s.lost)
		}
	}
}

// Folders that are put back as they were before have lost what was acknowledged meanwhile. What is stored next would have
// the offsets of that, so it is another log.
func TestOlderCopyIsAnotherLog(t *testing.T) {
	t.Run("one server", func(t *testing.T) {
		e := startEmbedded(t)
		olderCopy(t, func() *Broker { return e.node(t) }, e.stop, e.start, []*string{&e.dir})
	})
	t.Run("three stores", func(t *testing.T) {
		t.Parallel()
		c := newStores(t, 3)
		c.startAll()
		var dirs []*string
		for i := range c.configs {
			dirs = append(dirs, &c.configs[i].Dir)
		}
		olderCopy(t, c.join, func() {
			for i := range c.configs {
				c.kill(i)
			}
		}, c.startAll, dirs)
	})
}

func olderCopy(t *testing.T, node func() *Broker, stop, start func(), dirs []*string) {
	a, b := run(t, node()), run(t, node())
	r := testRoom("copied")
	a.publish(r, "in the copy", "")
	stop()
	older := make([]string, len(dirs))
	for i, dir := range dirs {
		older[i] = t.TempDir()
		if err := os.CopyFS(older[i], os.DirFS(*dir)); err != nil {
			t.Fatal(err)
		}
	}
	start()
	b.open(r)
	was := a.publish(r, "not in the copy", "").at
	b.sees(r.Name, "what isn't in the copy", hasLast("not in the copy"))
	stop()
	for i, dir := range dirs {
		*dir = older[i]
	}
	start()
	b.sees(r.Name, "another log", func(s seen) bool { return s.at.Epoch != was.Epoch })
	is := a.publish(r, "new", "").at
	if is.Epoch == was.Epoch {
		t.Errorf("it goes on in the same log at %d, it was at %d", is.Offset, was.Offset)
	}
	s := b.sees(r.Name, "new", hasLast("new"))
	if !slices.Equal(s.bodies, []string{"new"}) || s.at != is {
		t.Errorf("the node has seen %v up to %+v, published at %+v", s.bodies, s.at, is)
	}
}

// A node that is slow to take what comes loses some of it on the way, and reads it.
func TestSlowNodeMissesNothing(t *testing.T) {
	e := startEmbedded(t)
	a, broker := run(t, e.node(t)), e.node(t)
	broker.maxArrived = 2
	b := run(t, broker)
	busy, quiet := testRoom("busy"), testRoom("busy too")
	for broker.stream(busy) != broker.stream(quiet) { // of the same stream
		quiet.Name += "!"
	}
	b.open(busy)
	b.open(quiet)
	slow := make(chan struct{})
	b.mu.Lock()
	b.slow = slow
	b.mu.Unlock()
	var want []string
	for i := range 50 {
		body := fmt.Sprint(i)
		a.publish(busy, body, "")
		want = append(want, body)
	}
	a.publish(quiet, "once", "") // nothing follows that could show that it is missing
	b.mu.Lock()
	b.slow = nil
	b.mu.Unlock()
	close(slow)
	if s := b.sees(busy.Name, "the last", hasLast("49")); !slices.Equal(s.bodies, want) || len(s.lost) > 0 {
		t.Errorf("the node has seen %v, lost %v", s.bodies, s.lost)
	}
	b.sees(quiet.Name, "what is quiet", hasLast("once"))
}

// What a server doesn't bring, though nothing follows it, is found by looking at the tails.
func TestTailIsFound(t *testing.T) {
	e := startEmbedded(t)
	a, b := run(t, e.node(t)), run(t, e.node(t))
	r := broker.Room{Name: "quiet", Messages: 10, Age: 10 * time.Second}
	other := broker.Room{Name: "nothing", Messages: 10, Age: 10 * time.Second}
	b.open(r)
	b.open(other)
	ro := b.stream(r).rooms[token(r.Name)]
	ro.mu.Lock()
	if err := ro.sub.Unsubscribe(); err != nil { // as if no server knew of it
		t.Error(err)
	}
	ro.mu.Unlock()
	if err := b.receive.Flush(); err != nil {
		t.Error(err)
	}
	a.publish(r, "alone", "")
	s := b.sees(r.Name, "what stands alone", hasLast("alone"))
	if len(s.lost) > 0 || len(b.look(other.Name).lost) > 0 {
		t.Errorf("something was told as lost: %v", s.lost)
	}
}

// What expired before a node that was cut off could see it is told as lost, though nothing is left to show it.
func TestGoneBeforeItWasSeen(t *testing.T) {
	e := startEmbedded(t)
	g := &gate{testServer: e}
	cutOff, err := connect(nil, Config{}, "", client.InProcessServer(g))
	if err != nil {
		t.Fatal(err)
	}
	a, b := run(t, e.node(t)), run(t, cutOff)
	r := broker.Room{Name: "fleeting", Messages: 10, Age: time.Second}
	b.open(r)
	g.shut(true)
	at := a.publish(r, "gone", "").at
	c := run(t, e.node(t))
	for left := 1; left > 0; time.Sleep(10 * time.Millisecond) { // until it has expired
		read := make(chan int)
		c.Read(r, 0, func(log broker.Log, err error) { read <- len(log.Entries) })
		left = <-read
	}
	time.Sleep(r.Age / 2) // for all
	g.shut(false)
	s := b.sees(r.Name, "word of a gap", func(s seen) bool { return len(s.lost) > 0 })
	if s.floor < at.Offset || s.at.Epoch != at.Epoch {
		t.Errorf("what is gone was at %+v; it goes on behind %d of %+v", at, s.floor, s.at)
	}
	a.publish(r, "next", "")
	b.sees(r.Name, "the next", hasLast("next"))
}

// A stream of that name that somebody else has made isn't touched; rooms that would be in it are refused.
func TestForeignStream(t *testing.T) {
	e := startEmbedded(t)
	a := run(t, e.node(t))
	r := testRoom("taken")
	name := newStream(a.Broker, streamKeyOf(r)).name
	config := jetstream.StreamConfig{Name: name, Subjects: []string{"theirs.>"}, Storage: jetstream.FileStorage}
	if _, err := a.js.CreateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if p := a.try(r, "m", ""); !errors.Is(p.err, broker.ErrUnavailable) || !strings.Contains(p.err.Error(), "isn't Hubbub's") {
		t.Errorf("publishing: %v", p.err)
	}
	opened := make(chan error, 1)
	a.Open(r, func(_ broker.Log, err error) { opened <- err })
	if err := <-opened; !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("opening: %v", err)
	}
	for _, nonce := range []string{"", "a.b", "*", ">", "x y"} {
		config.Metadata = map[string]string{epochKey: nonce}
		if _, err := a.js.UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		if p := a.try(r, "m", ""); !errors.Is(p.err, broker.ErrUnavailable) {
			t.Errorf("with the nonce %q: %v", nonce, p.err)
		}
	}
	if err := a.js.DeleteStream(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	a.publish(r, "now", "") // nobody has it any more
}

// A stream of ours whose configuration was changed is mended.
func TestChangedStream(t *testing.T) {
	e := startEmbedded(t)
	a := run(t, e.node(t))
	r := testRoom("changed")
	first := a.publish(r, "first", "").at
	st := a.stream(r)
	s, err := a.js.Stream(t.Context(), st.name)
	if err != nil {
		t.Fatal(err)
	}
	config := s.CachedInfo().Config
	config.RePublish, config.AllowDirect, config.MaxMsgsPerSubject = nil, false, 1
	if _, err := a.js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	b := run(t, e.node(t))
	b.open(r)
	if at := a.publish(r, "second", "").at; at.Epoch != first.Epoch {
		t.Errorf("it goes on at %+v", at)
	}
	b.sees(r.Name, "the second", hasLast("second"))
}

// What in a room's subject isn't a group is passed over: it must not stop the room.
func TestForeignMessage(t *testing.T) {
	e := startEmbedded(t)
	a, b := run(t, e.node(t)), run(t, e.node(t))
	r := testRoom("littered")
	b.open(r)
	a.publish(r, "first", "")
	st := a.stream(r)
	if _, err := a.js.Publish(t.Context(), st.subject("p", st.nonce, token(r.Name)), []byte("litter")); err != nil {
		t.Fatal(err)
	}
	a.publish(r, "last", "")
	c := run(t, e.node(t))
	c.open(r)
	for _, n := range []*testNode{b, c} {
		s := n.sees(r.Name, "the last", hasLast("last"))
		if !slices.Equal(s.bodies, []string{"first", "last"}) || len(s.lost) > 0 {
			t.Errorf("a node has seen %v, lost %v", s.bodies, s.lost)
		}
	}
}

// A message that the servers don't take is refused, and those behind it are published.
func TestTooLarge(t *testing.T) {
	e := startEmbedded(t)
	a := run(t, e.node(t))
	r := testRoom("large")
	large := make(chan error, 1)
	if err := a.Publish(r, broker.Message{Body: make([]byte, maxPayload+1)}, func(_ broker.Position, _ bool, err error) { large <- err }); err != nil {
		t.Fatal(err)
	}
	a.publish(r, "small", "")
	if err := <-large; !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("a message that is too large: %v", err)
	}
}

// While no server is there publishers wait, and are told; what was queued for long is not published later.
func TestNobodyThere(t *testing.T) {
	e := startEmbedded(t)
	a := run(t, e.node(t))
	r := testRoom("alone")
	a.open(r)
	a.publish(r, "first", "")
	e.stop()
	read := make(chan error, 1)
	a.Read(r, 0, func(_ broker.Log, err error) { read <- err })
	if p := a.try(r, "lost", ""); !errors.Is(p.err, broker.ErrUnavailable) && !errors.Is(p.err, broker.ErrTimeout) {
		t.Errorf("publishing: %+v", p)
	}
	if err := <-read; !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("reading: %v", err)
	}
	e.start()
	a.publish(r, "last", "")
	if s := a.sees(r.Name, "the last", hasLast("last")); !slices.Equal(s.bodies, []string{"first", "last"}) {
		t.Errorf("the node has seen %v", s.bodies)
	}
}

// A server that takes nothing any more, but keeps its connections, holds up nobody who publishes, opens or closes.
func TestStalledServer(t *testing.T) {
	e := startEmbedded(t)
	g := &gate{testServer: e}
	stalled, err := connect(nil, Config{}, "", client.InProcessServer(g))
	if err != nil {
		t.Fatal(err)
	}
	a := run(t, stalled)
	open := testRoom("open")
	closed := a.open(open)
	a.publish(open, "first", "")
	stall := make(chan struct{})
	g.mu.Lock()
	g.stall = stall
	g.mu.Unlock()
	answers := make(chan error, 1000)
	var sent int
	for _, name := range names("room ", 100) {
		for range 4 {
			err := a.Publish(testRoom(name), broker.Message{Body: make([]byte, 60<<10)}, func(_ broker.Position, _ bool, err error) { answers <- err })
			if err != nil {
				t.Fatal(err)
			}
			sent++
		}
		a.Open(testRoom(name), func(broker.Log, error) {})()
	}
	closed()
	close(stall)
	for range sent {
		if err := <-answers; err != nil && !errors.Is(err, broker.ErrTimeout) && !errors.Is(err, broker.ErrUnavailable) {
			t.Error(err)
		}
	}
	a.publish(open, "last", "")
}

// A message whose answer was lost is published again under its id, and known then: by this node's own try, so that it is new
// to whoever published it.
func TestAnAnswerIsLost(t *testing.T) {
	e := startEmbedded(t)
	g := &gate{testServer: e}
	through, err := connect(nil, Config{}, "", client.InProcessServer(g))
	if err != nil {
		t.Fatal(err)
	}
	a, b, r := run(t, through), run(t, e.node(t)), testRoom("room")
	b.open(r)
	a.publish(r, "first", "")
	g.hears(false)
	told := make(chan bool, 2)
	done := func(_ broker.Position, duplicate bool, err error) {
		if err != nil {
			t.Error(err)
		}
		told <- duplicate
	}
	for range 2 {
		if err := a.Publish(r, broker.Message{Body: []byte("second"), ID: "id"}, done); err != nil {
			t.Fatal(err)
		}
	}
	b.sees(r.Name, "the second", hasLast("second"))
	g.hears(true)
	g.shut(false)
	if first, again := <-told, <-told; first || !again {
		t.Errorf("a duplicate: %v, and the next with its id %v", first, again)
	}
}

// The servers' clock seems to have jumped by a day, as it does to who has asked them just before. Who opens a room then is
// told what is true, and members notice nothing.
func TestServersClockJumps(t *testing.T) {
	t.Parallel()
	s := startEmbedded(t)
	n := run(t, s.node(t))
	r := testRoom("room")
	var want []string
	published := func(body string) {
		n.publish(r, body, "")
		want = append(want, body)
	}
	published("first")
	n.open(r)
	for _, jump := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		other := run(t, s.node(t))
		st := other.stream(r)
		if _, err := st.await(t.Context()); err != nil {
			t.Fatal(err)
		}
		st.setClock(time.Now().Add(jump))
		if now := st.now(); time.Since(now).Round(time.Minute) != -jump {
			t.Fatalf("the clock shows %v", now)
		}
		other.open(r)
		published(fmt.Sprint("behind ", jump))
		v := other.sees(r.Name, "the last", hasLast(want[len(want)-1]))
		if len(v.lost) > 0 || !slices.Equal(v.bodies, want[len(want)-len(v.bodies):]) || jump < 0 && len(v.bodies) != len(want) {
			t.Errorf("after %v: who has opened it has seen %v, lost %v", jump, v.bodies, v.lost)
		}
	}
	if v := n.sees(r.Name, "the last", hasLast(want[len(want)-1])); !slices.Equal(v.bodies, want) || len(v.lost) > 0 {
		t.Errorf("a member has seen %v, lost %v", v.bodies, v.lost)
	}
}

// Who was cut off as the log's leader says that it has less than others have seen, and is elected again before that is
// resolved: the log has all of it, and stays. Where it stores something else at what was seen, it is another log.
func TestLeaderThatWasBehindIsElectedAgain(t *testing.T) {
	e := startEmbedded(t)
	n := run(t, e.node(t))
	r := testRoom("room")
	var last broker.Position
	for i := range 3 {
		last = n.publish(r, fmt.Sprint(i), "").at
	}
	ctx := t.Context()
	st := newStream(n.Broker, streamKeyOf(r)) // as the node's own, but that nobody watches it
	nonce, err := st.await(ctx)
	if err != nil {
		t.Fatal(err)
	}
	info, err := st.info(ctx, nonce)
	if err != nil {
		t.Fatal(err)
	}
	doubted := func(seen uint64) *doubt {
		return &doubt{nonce: nonce, seen: seen, last: info.State.LastSeq - 1, leader: leader(&info), at: info.TimeStamp, id: "d" + newNonce()}
	}
	st.doubt = doubted(last.Offset >> groupBits)
	if !st.resolve(ctx) || st.doubt != nil {
		t.Error("what it has is taken for lost")
	}
	if again := n.publish(r, "again", "").at; again.Epoch != last.Epoch {
		t.Errorf("it goes on at %+v, it was at %+v", again, last)
	}
	if info, err = st.info(ctx, nonce); err != nil {
		t.Fatal(err)
	}
	st.doubt = doubted(info.State.LastSeq + 2)
	n.publish(r, "where another was", "")
	n.publish(r, "where another was", "")
	if st.resolve(ctx) {
		t.Error("what was lost is taken for kept")
	}
	for until := time.Now().Add(patience); n.publish(r, "in another log", "").at.Epoch == last.Epoch; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("it goes on in the same log")
		}
	}
}
