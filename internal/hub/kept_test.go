package hub

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/wire"
)

// A session that was parked and is here again leaves nothing behind until its window would have ended: what waited for
// it is counted no more, so it must not be kept.
func TestAResumedSessionKeepsNothingOfItsParking(t *testing.T) {
	h, l := newHub(t, 1)
	h.cfg().ResumeWindow = time.Hour
	session := func() *client { return newSession(t, l, h.Session(Identity{ID: NewID()}, netip.Addr{}, nil)) }
	a, b := session(), session()
	a.nc.Close()
	until(t, "it is parked", func() bool { return h.ParkedSessions() == 1 })
	b.say(`{"msg_type":"direct_message","to":%q,"content":%q}`, a.id, strings.Repeat("x", 20_000))
	b.sync()
	sh := h.clientShard(func() ID { id, _ := ParseID([]byte(a.id)); return id }())
	sh.mu.Lock()
	var left weak.Pointer[parked]
	for _, p := range sh.parked {
		left = weak.Make(p)
	}
	sh.mu.Unlock()
	back := a.again(h, l, a.welcome["resume_token"].(string))
	back.say(`{"msg_type":"resume","rooms":{},"id":1}`)
	if got := back.sync(); len(got) != 2 {
		t.Errorf("%d messages after the resume, want resumed and the direct one", len(got))
	}
	until(t, "what was parked is collected", func() bool { runtime.GC(); return left.Value() == nil })
}

// A client that comes and goes all the time in a long window leaves no more behind than one that doesn't.
func TestComingAndGoingOftenKeepsLittle(t *testing.T) {
	h, l := newHub(t, 1)
	h.cfg().ResumeWindow = time.Hour
	a := newSession(t, l, h.Session(Identity{ID: NewID()}, netip.Addr{}, nil))
	id, _ := ParseID([]byte(a.id))
	sh := h.clientShard(id)
	for range 300 {
		a.nc.Close()
		until(t, "it is parked", func() bool {
			sh.mu.Lock()
			defer sh.mu.Unlock()
			p := sh.parked[id]
			return p != nil && p.by == nil
		})
		a = a.again(h, l, a.welcome["resume_token"].(string))
		a.say(`{"msg_type":"resume","rooms":{},"id":1}`)
		a.sync()
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if n := len(sh.order); n > 100 {
		t.Errorf("%d times are kept for one client", n)
	}
}

// A message that waited for a hook is counted until it is obeyed, and not kept longer, though nothing comes behind it.
func TestAMessageThatHasWaitedIsNotKept(t *testing.T) {
	h, l := newHub(t, 1)
	open := make(chan bool, 10)
	h.cfg().Hooks.Known = func(string) bool { return true }
	h.cfg().Hooks.Custom = func(context.Context, Identity, string, []byte) ([]byte, error) { <-open; return nil, nil }
	a := newClient(t, h, l)
	a.say(`{"msg_type":"slow"}`)
	a.say(`{"msg_type":"slow","padding":%q}`, strings.Repeat("x", 20_000))
	a.sync()
	id, _ := ParseID([]byte(a.id))
	w := h.here(id).conn.Worker()
	var raw weak.Pointer[byte]
	w.Post(task(func() { raw = weak.Make(&h.clientShard(id).sessions[id].more.operations.waiting[0][0]) }), 0)
	a.sync()
	if raw.Value() == nil {
		t.Fatal("nothing waits")
	}
	open <- true
	open <- true
	until(t, "it is let go", func() bool { a.sync(); runtime.GC(); return raw.Value() == nil })
}

// What is refused because too much is kept is refused before the application has seen it.
func TestARefusalComesBeforeTheHook(t *testing.T) {
	h, l := newHub(t, 1)
	var seen atomic.Int32
	h.cfg().Hooks.Publish = func(_ context.Context, _ Identity, p Draft) ([]byte, error) {
		seen.Add(1)
		return p.Content, nil
	}
	a := newClient(t, h, l)
	l.Keep(2 << 30)
	defer l.Keep(-2 << 30)
	a.say(`{"msg_type":"room_message","room":"r","content":1,"publish_id":"p","id":1}`)
	if got := a.next(); got["code"] != "overloaded" || seen.Load() != 0 {
		t.Errorf("the hook was called %d times, then %v", seen.Load(), got)
	}
}

// While the server keeps too much, what would have to be kept is refused, whoever asks for it, and nothing else.
func TestWhatAnOverloadedServerRefuses(t *testing.T) {
	h, l := newHub(t, 1)
	a := newClient(t, h, l)
	l.Keep(2 << 30)
	for _, c := range []struct{ message, code string }{
		{`{"msg_type":"join_room","room":"lobby","data":1,"id":1}`, "overloaded"},
		{`{"msg_type":"join_room","room":"counted","data":1,"id":1}`, ""}, // nobody is shown its data
		{`{"msg_type":"join_room","room":"lobby","id":1}`, ""},
		{`{"msg_type":"room_message","room":"r","content":1,"publish_id":"p","id":1}`, "overloaded"},
		{`{"msg_type":"room_message","room":"r","content":1,"id":1}`, ""},
	} {
		a.say("%s", c.message)
		if got := a.next(); got["code"] != c.code && (c.code != "" || got["msg_type"] == "error") {
			t.Errorf("%s: %v", c.message, got)
		}
	}
	p := &Publication{Room: "r", Content: []byte("1"), PublishID: "p"}
	if _, _, err := h.Publish(t.Context(), p); err != ErrOverloaded {
		t.Errorf("the application's publish_id: %v", err)
	}
	l.Keep(-2 << 30)
	a.say(`{"msg_type":"leave_room","room":"lobby"}`)
	a.say(`{"msg_type":"join_room","room":"lobby","data":1,"id":1}`)
	if got := a.next(); got["msg_type"] != "joined" {
		t.Errorf("later: %v", got)
	}
	if _, _, err := h.Publish(t.Context(), p); err != nil {
		t.Errorf("the application's publish_id, later: %v", err)
	}
}

// A client whose share is used up may join again where it is: that is how it asks whether it has missed something.
func TestAShareThatIsUsedUpForbidsNothingThatIsThere(t *testing.T) {
	h, l := newHub(t, 1)
	h.cfg().share = 5 * membershipCost
	a := newClient(t, h, l)
	refused := false
	for i := 0; i < 30 && !refused; i++ {
		a.say(`{"msg_type":"join_room","room":"r%d","id":1}`, i)
		got := a.next()
		if refused = got["msg_type"] == "error"; refused && got["code"] != "limit_reached" {
			t.Errorf("refused by %v", got)
		}
	}
	if !refused {
		t.Error("nothing is refused")
	}
	a.say(`{"msg_type":"join_room","room":"r1","id":3}`)
	if got := a.next(); got["msg_type"] != "joined" {
		t.Errorf("a room that it is in: %v", got)
	}
}

// What its user's lost sessions take of the user's share no other of them can take: that one ends with its connection,
// and is told of as gone. Another user's is kept.
func TestASessionBeyondTheShareIsNotParked(t *testing.T) {
	gone := make(chan Identity, 100)
	h, l := newHubOf(t, 1, func(c *Config) {
		c.ResumeWindow = time.Hour
		c.Sinks = []Sink{sinkFunc(func(e Event) {
			if e.Kind == Disconnected {
				gone <- e.Client
			}
		})}
	})
	const parked = 4
	h.cfg().share = parked*parkedCost + 100
	for range parked {
		newUser(t, h, l, "ann").nc.Close()
	}
	until(t, "as many as may are parked", func() bool { return h.ParkedSessions() == parked })
	newUser(t, h, l, "ann").nc.Close()
	until(t, "the one beyond the share is gone", func() bool { return len(gone) > 0 })
	if who := <-gone; who.User != "ann" || h.ParkedSessions() != parked {
		t.Errorf("%s is gone, %d are parked", who.User, h.ParkedSessions())
	}
	newUser(t, h, l, "bob").nc.Close()
	until(t, "another user's is parked", func() bool { return h.ParkedSessions() == parked+1 })
}

// A room that keeps no history has nothing to come back to, whatever its idle-ttl: when nobody is in it any more it
// goes, and nobody could be told to pay for it.
func TestARoomWithoutHistoryGoesWithItsLastMember(t *testing.T) {
	h, l := newHub(t, 1)
	h.cfg().Policies = NewPolicies(Disconnect, Rule{glob.New("*"), Policy{IdleTTL: time.Hour}})
	a := newClient(t, h, l)
	for i := range 50 {
		a.say(`{"msg_type":"join_room","room":"r%d"}`, i)
		a.say(`{"msg_type":"room_message","room":"r%d","content":1}`, i)
		a.say(`{"msg_type":"leave_room","room":"r%d"}`, i)
	}
	a.sync()
	if n, bytes := h.Rooms(), h.Kept(KeptRooms); n != 0 || bytes != 0 {
		t.Errorf("%d rooms are there, of %d bytes", n, bytes)
	}
}

// Frames of what members have missed are shared for a moment, and not kept for one who doesn't take them: nobody counts
// them, and the messages may have gone out of the history.
func TestFramesOfWhatWasMissedAreNotKept(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) {
		many := DefaultPolicy()
		many.History.Bytes, many.History.Messages = 8<<20, 1000
		c.Policies = NewPolicies(Disconnect, Rule{glob.New("r"), many})
	})
	a := newClient(t, h, l)
	a.say(`{"msg_type":"join_room","room":"r","id":1}`)
	join := fmt.Sprintf(`{"msg_type":"join_room","room":"r","id":1,"since":{"epoch":%q,"offset":0}}`, a.next()["epoch"])
	for range 100 {
		a.say(`{"msg_type":"room_message","room":"r","content":%q}`, strings.Repeat("x", 40_000))
	}
	a.sync()
	slow, far := net.Pipe() // nobody reads from it
	defer far.Close()
	l.Reserve(1 << 20)
	if err := l.Adopt(slow, h.Session(Identity{ID: NewID()}, netip.Addr{}, nil), wire.Deflate{}, nil, masked("%s", join)); err != nil {
		t.Fatal(err)
	}
	until(t, "it is a member", func() bool { _, n := h.whoIsHere("r"); return n == 2 })
	b := newClient(t, h, l)
	b.say("%s", join)
	if b.next()["offset"] != 100.0 || b.next()["offset"] != 1.0 { // of joined, and of the first message
		t.Fatal("it isn't told what it missed")
	}
	for b.next()["offset"] != 100.0 {
	}
	h.tidy(clock() + 10*time.Minute.Milliseconds())
	if n := h.Kept(KeptHistory); n != 0 {
		t.Fatalf("%d bytes of history are kept", n)
	}
	until(t, "they are let go", func() bool {
		n := make(chan int, 1)
		w := l.Workers()[0]
		w.Post(task(func() { n <- len(h.roomShard("r").rooms["r"].locals[0].replay) }), 0)
		return <-n == 0
	})
}

// Under an idle-ttl of 0 a room goes with its last member, too, and its history with it.
func TestARoomThatMayNotBeIdleGoesWithItsLastMember(t *testing.T) {
	h, l := newHub(t, 1)
	h.cfg().Policies = NewPolicies(Disconnect, Rule{glob.New("*"), Policy{History: DefaultPolicy().History}})
	a := newClient(t, h, l)
	a.say(`{"msg_type":"join_room","room":"r"}`)
	a.say(`{"msg_type":"room_message","room":"r","content":1}`)
	a.sync()
	if n := h.Rooms(); n != 1 {
		t.Fatalf("%d rooms with a member", n)
	}
	a.say(`{"msg_type":"leave_room","room":"r"}`)
	a.sync()
	if n, bytes := h.Rooms(), h.Kept(KeptHistory); n != 0 || bytes != 0 {
		t.Errorf("%d rooms are there, with %d bytes of history", n, bytes)
	}
}

// What waits for one slow member under latest-by-key is bounded however many keys there are: what is too much waits as
// one without a key does, and goes.
func TestWhatWaitsByKeyIsBounded(t *testing.T) {
	const queue = 1 << 20 // as newHub has it
	h, l := newHub(t, 1)
	h.cfg().Policies = NewPolicies(Disconnect, Rule{glob.New("*"), Policy{SlowConsumer: LatestByKey}})
	a, b := newClient(t, h, l), newClient(t, h, l)
	a.say(`{"msg_type":"join_room","room":"r"}`)
	a.sync()
	id, _ := ParseID([]byte(a.id))
	s := h.here(id)
	a.deaf.Lock()
	defer a.deaf.Unlock()
	content := []byte(`"` + strings.Repeat("x", 60_000) + `"`)
	var keyed int64
	for i := range 600 { // 36 MB
		p := &Publication{Room: "r", From: Server, Content: content, Key: []byte(strconv.Itoa(i))}
		until(t, "the worker has room", func() bool { _, _, err := h.Publish(t.Context(), p); return err == nil })
	}
	b.sync()
	looked := make(chan bool)
	s.conn.Worker().Post(task(func() { keyed = s.more.flow.keyed; close(looked) }), 0)
	<-looked
	if most := int64(keyedQueues * queue); keyed > most || keyed < most-100_000 {
		t.Errorf("%d bytes wait by key, want %d at most, and about that", keyed, most)
	}
	if all := l.Buffered(); all > (keyedQueues+3)*queue {
		t.Errorf("%d bytes are buffered", all)
	}
}

// A room that a client leaves behind without members is kept at its cost, as is what it has published there.
func TestAnEmptyRoomIsPaidForByWhoLeftItLast(t *testing.T) {
	h, l := newHub(t, 1)
	a, b := newClient(t, h, l), newClient(t, h, l)
	a.say(`{"msg_type":"join_room","room":"r"}`)
	b.say(`{"msg_type":"room_message","room":"r","content":1}`)
	b.sync()
	a.say(`{"msg_type":"leave_room","room":"r"}`)
	a.sync()
	paid := func(c *client) int64 {
		s, bytes := h.here(idOf(c)), make(chan int64)
		s.conn.Worker().Post(task(func() { bytes <- s.payer().bytes.Load() }), 0)
		return <-bytes
	}
	if room, message := paid(a), paid(b); room != roomCost || room+message != h.allKept() {
		t.Errorf("who left last pays for %d bytes, who published for %d, of %d", room, message, h.allKept())
	}
}

// A member that has got all that waited without a key lags on for what waits by key; what comes without one then is
// bounded as before.
func TestWhatWaitsWithoutAKeyBeginsAnew(t *testing.T) {
	const queue = 1 << 20 // as newHub has it
	h, l := newHub(t, 1)
	h.cfg().Policies = NewPolicies(Disconnect, Rule{glob.New("*"), Policy{SlowConsumer: LatestByKey}})
	a, b := newClient(t, h, l), newClient(t, h, l)
	a.say(`{"msg_type":"join_room","room":"r"}`)
	a.sync()
	s := h.here(idOf(a))
	a.deaf.Lock()
	defer a.deaf.Unlock()
	publish := func(n int, key []byte) {
		p := &Publication{Room: "r", From: Server, Content: []byte(`"` + strings.Repeat("x", 60_000) + `"`), Key: key}
		for range n {
			until(t, "the worker has room", func() bool { _, _, err := h.Publish(t.Context(), p); return err == nil })
		}
		b.sync()
	}
	onWorker := func(f func(g *lag)) {
		looked := make(chan bool)
		s.conn.Worker().Post(task(func() { defer close(looked); f(s.more.flow.lags[0]) }), 0)
		<-looked
	}
	publish(40, nil)
	publish(1, []byte("key"))
	onWorker(func(g *lag) {
		for g.plain[0] != nil { // as send does
			g.take(g.plain[0])
		}
	})
	publish(40, nil)
	onWorker(func(g *lag) {
		if n := s.more.flow.plain; n > queue || n < queue-100_000 || g.first.key != "key" {
			t.Errorf("%d bytes wait without a key, behind %q", n, g.first.key)
		}
	})
}

// Word of what was taken back waits for who lags as a message with a key does, and is bounded so: beyond that it may be
// dropped like any other, and the gap tells.
func TestTheDeletionsThatWaitAreBounded(t *testing.T) {
	h, l := newHub(t, 1)
	h.cfg().Policies = NewPolicies(Disconnect, Rule{glob.New("*"), Policy{SlowConsumer: DropOldest}})
	a, b := newClient(t, h, l), newClient(t, h, l)
	a.say(`{"msg_type":"join_room","room":"r"}`)
	a.sync()
	s := h.here(idOf(a))
	a.deaf.Lock()
	defer a.deaf.Unlock()
	for range 40 { // until it lags
		publish(t, h, "r", `"`+strings.Repeat("x", 60_000)+`"`)
		b.sync()
	}
	onItsWorker(h, s, func() {
		g, f := s.more.flow.lags[0], &s.more.flow
		for range maxKeys {
			g.add(&waiting{frame: loop.NewFrame(wire.Text, []byte("deleted")), news: true, firm: true})
		}
		keys, plain := f.keys, f.plain
		for range 10 {
			g.add(&waiting{frame: loop.NewFrame(wire.Text, []byte("deleted")), news: true, firm: true})
		}
		if keys != maxKeys || f.keys != keys || plain == 0 || f.plain > int64(s.conn.Bound()) {
			t.Errorf("%d and then %d deletions wait, of at most %d, and %d bytes of what may be dropped", keys, f.keys, maxKeys, f.plain)
		}
	})
}

// Who has nothing yet may have one thing, though it is larger than a share: no share forbids what another limit allows.
func TestAShareTakesOneThingWhateverItsSize(t *testing.T) {
	h, l := newHub(t, 1)
	h.cfg().share = 100
	a := newClient(t, h, l)
	for i, code := range []any{nil, "rate_limited"} {
		a.say(`{"msg_type":"room_message","room":"r","content":%q,"id":%d}`, strings.Repeat("x", 1000), i)
		if got := a.next(); got["code"] != code {
			t.Errorf("message %d: %v, want the code %v", i, got, code)
		}
	}
}
