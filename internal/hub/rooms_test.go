package hub

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	roomprotocol "example.com/hubbub/internal/protocol/room"
	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newHub is a hub on a loop that ends with the test.
func newHub(t testing.TB, workers int) (*Hub, *loop.Loop) {
	return newHubOf(t, workers, func(*Config) {})
}

// newHubOf is newHub with other settings.
func newHubOf(t testing.TB, workers int, set func(*Config)) (*Hub, *loop.Loop) {
	cfg := Config{Dialects: speakRoom, Epoch: "e.", MaxRoomsPerClient: 40, MaxBufferedBytes: 1 << 30, MaxMessageBytes: 64 << 10, HookTimeout: time.Second, HookLimit: 10, DedupWindow: time.Minute, Policies: NewPolicies(Disconnect), Log: slog.New(slog.DiscardHandler)}
	set(&cfg)
	h := New(cfg)
	l, err := loop.New(loop.Config{
		Workers: workers, IO: loop.Pump, MaxMessageBytes: 64 << 10, SendQueueBytes: 1 << 20, MaxBufferedBytes: 1 << 30, SendQueueAge: time.Minute,
		PingInterval: 1000 * time.Hour, PongTimeout: time.Hour, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Start(l)
	served := serve(h)
	heard(t, h)
	t.Cleanup(func() {
		settled(t, h)
		l.Stop(0)
		l.Kill()
		l.Wait()
		h.Stop()
		served()
		var accounts []string
		soon(func() bool { // a hook may just be returning
			accounts = append(h.Unsettled(), l.Unsettled()...)
			return len(accounts) == 0
		})
		for _, account := range accounts {
			t.Errorf("not back at zero after the end: %s", account)
		}
		if n := l.Panics.Load(); n != 0 {
			t.Errorf("%d panics", n)
		}
	})
	return h, l
}

// settled waits until every account of the hub fits what is there.
func settled(t testing.TB, h *Hub) {
	t.Helper()
	var faults []string
	if !soon(func() bool { faults = h.Audit(); return len(faults) == 0 }) {
		t.Errorf("the accounts don't fit: %s", strings.Join(faults, "; "))
	}
}

// serve has the hub's broker, if it has one, serve it, until end.
func serve(h *Hub) (end func()) {
	if h.cfg().Broker == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.cfg().Broker.Run(ctx, h) }()
	return func() {
		cancel()
		<-ended
	}
}

// client is one end of a pipe whose other end is a session.
type client struct {
	t   testing.TB
	nc  net.Conn
	id  string
	got chan map[string]any

	deaf sync.Mutex // held while it shall read nothing

	code atomic.Int32 // with which the server has closed it

	welcome map[string]any
}

func newClient(t testing.TB, h *Hub, l *loop.Loop) *client {
	return newSession(t, l, h.Session(Identity{ID: NewID()}, netip.Addr{}, nil))
}

// connectTo is the far end of a connection of that session.
func connectTo(t testing.TB, l *loop.Loop, s loop.Handler) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	l.Reserve(1 << 20)
	if err := l.Adopt(near, s, wire.Deflate{}, nil, nil); err != nil {
		t.Fatal(err)
	}
	return far
}

// newSession is the client of that session, which has said welcome.
func newSession(t testing.TB, l *loop.Loop, s loop.Handler) *client {
	c := &client{t: t, nc: connectTo(t, l, s), got: make(chan map[string]any, 1<<16)}
	go c.read()
	c.welcome = c.next()
	c.id = c.welcome["client_id"].(string)
	return c
}

// read takes every frame at once, so that nobody is slow.
func (c *client) read() {
	defer close(c.got)
	r := bufio.NewReaderSize(c.nc, 64<<10)
	for {
		f, err := wsclient.Read(r, 1<<30)
		if err != nil {
			return
		}
		c.deaf.Lock() // waits
		c.deaf.Unlock()
		switch f.Op {
		case wsclient.Close: // answered, so that nobody waits for it
			if len(f.Payload) >= 2 {
				c.code.Store(int32(binary.BigEndian.Uint16(f.Payload)))
			}
			c.nc.Write(wsclient.Append(nil, true, wsclient.Close, [4]byte{1, 2, 3, 4}, f.Payload))
		case wsclient.Text:
			m := map[string]any{}
			json.Unmarshal(f.Payload, &m)
			c.got <- m
		}
	}
}

func (c *client) next() map[string]any {
	select {
	case m, ok := <-c.got:
		if !ok {
			c.t.Fatal("the stream has ended")
		}
		return m
	case <-time.After(3 * time.Minute): // a busy machine is no reason to fail
		c.t.Fatal("no message in time")
		return nil
	}
}

func (c *client) say(format string, args ...any) {
	c.nc.Write(wsclient.Append(nil, true, wsclient.Text, [4]byte{1, 2, 3, 4}, fmt.Appendf(nil, format, args...)))
}

// sync gives all that came up to the answer to a ping.
func (c *client) sync() (got []map[string]any) {
	c.say(`{"msg_type":"ping","id":"sync"}`)
	for {
		m := c.next()
		if m["id"] == "sync" {
			return got
		}
		got = append(got, m)
	}
}

var speakRoom = []func() protocol.Dialect{func() protocol.Dialect { return new(roomprotocol.Dialect) }}

type task func()

func (t task) Run(*loop.Worker) { t() }

// A fault in the delivery to one room costs the others nothing, though they are behind it in the same turn, and more
// than a turn's writes. Its own members are closed: some may have got what others have not.
func TestAPanicInADeliveryStaysInItsRoom(t *testing.T) {
	t.Run("more follows", func(t *testing.T) { panicInADelivery(t, true) })
	t.Run("nothing follows", func(t *testing.T) { panicInADelivery(t, false) })
}

func panicInADelivery(t *testing.T, more bool) {
	h, l := newHub(t, 1)
	rooms, locals := map[string]*room{}, map[string]*local{}
	var all []*client
	var alone *client // in the room of the fault
	var w *loop.Worker
	for name, members := range map[string]int{"a": 1, "b": 140, "c": 140} {
		for range members {
			c := newClient(t, h, l)
			c.say(`{"msg_type":"join_room","room":%q}`, name)
			c.sync()
			all = append(all, c)
			if name == "a" {
				alone = c
			}
		}
		sh := h.roomShard(name)
		sh.mu.Lock()
		r := h.room(sh, name)
		rooms[name], locals[name], w = r, r.locals[0], r.locals[0].w
		sh.mu.Unlock()
	}
	post := func(name string, m *protocol.Message) {
		r := rooms[name]
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seq++
		x := &posting{shared: shared{message: m}, seq: r.seq}
		if m != nil {
			x.cost = m.Size()
		}
		w.Post(&delivery{locals[name], x}, x.cost)
	}
	say := func(what string) *protocol.Message {
		return &protocol.Message{Kind: protocol.Chat, Content: fmt.Appendf(nil, "%q", what)}
	}
	w.Post(task(func() { // so these lie in one turn, and so does what comes then
		post("a", nil) // the fault
		post("b", say("first"))
		post("c", say("first"))
		if !more {
			return
		}
		w.Post(task(func() {
			post("a", say("second")) // alone: fewer tasks than the others have left
			w.Post(task(func() {
				post("b", say("second"))
				post("c", say("second"))
			}), 0)
		}), 0)
	}), 0)
	for _, c := range all {
		if c == alone {
			for range c.got { // to the end of the stream
			}
			continue
		}
		want := []any{"first", "second"}
		if !more {
			want = want[:1]
		}
		var said []any
		for !slices.Contains(said, want[len(want)-1]) {
			said = append(said, c.next()["content"])
		}
		if !slices.Equal(said, want) {
			t.Fatalf("a member got %v, want %v", said, want)
		}
	}
	if n := l.Panics.Swap(0); n != 1 {
		t.Errorf("%d panics, want the one that was planted", n)
	}
}

// FuzzRooms plays random joins, leaves, publishes and deaths of a few clients in a few rooms, and holds what each
// client gets against a model: sets of members.
func FuzzRooms(f *testing.F) {
	f.Add([]byte{0x00, 0x01, 0x02, 0x80, 0x81, 0x40, 0x82, 0xc0, 0x00, 0x80})
	f.Add([]byte("joins and leaves in no order at all, and a chat now and then"))
	many := []byte{}
	for i := range 120 {
		many = append(many, byte(i*37))
	}
	f.Add(many)
	f.Fuzz(func(t *testing.T, ops []byte) {
		ops = ops[:min(len(ops), 200)]
		h, l := newHub(t, 1) // with one worker a client's ping comes behind all that was published before
		const nClients, nRooms = 4, 5
		clients := make([]*client, nClients)
		for i := range clients {
			clients[i] = newClient(t, h, l)
		}
		members := make([]map[int]bool, nRooms)
		for i := range members {
			members[i] = map[int]bool{}
		}
		want := make([][]string, nClients)
		for step, op := range ops {
			who, room := int(op)%nClients, int(op>>2)%nRooms
			c := clients[who]
			switch op >> 5 {
			case 0, 1, 2: // join
				c.say(`{"msg_type":"join_room","room":"room %d"}`, room)
				members[room][who] = true
			case 3, 4: // leave
				c.say(`{"msg_type":"leave_room","room":"room %d"}`, room)
				delete(members[room], who)
			case 5, 6: // publish
				c.say(`{"msg_type":"room_message","room":"room %d","content":%d}`, room, step)
				for _, m := range slices.Sorted(maps.Keys(members[room])) {
					if m != who {
						want[m] = append(want[m], fmt.Sprint("room ", room, " ", step))
					}
				}
			case 7: // chat, or die and come back as somebody new
				if room > 0 {
					c.say(`{"msg_type":"chat","content":%d}`, step)
					for m := range clients {
						if m != who {
							want[m] = append(want[m], fmt.Sprint("<nil> ", step))
						}
					}
					break
				}
				check(t, c, want[who])
				want[who] = nil
				c.nc.Close()
				for range c.got { // until its end
				}
				for h.Clients() == nClients {
					time.Sleep(time.Millisecond)
				}
				for _, r := range members {
					delete(r, who)
				}
				clients[who] = newClient(t, h, l)
			}
			c = clients[who]
			for _, m := range c.sync() { // the op is done before the next one, of another client, begins
				c.got <- m
			}
		}
		for i, c := range clients {
			check(t, c, want[i])
		}
		rooms := 0
		for _, m := range members {
			if len(m) > 0 {
				rooms++
			}
		}
		h.tidy(clock() + time.Hour.Milliseconds()) // history is what else keeps a room
		if got := h.Rooms(); got != rooms {
			t.Errorf("%d rooms exist, %d have members", got, rooms)
		}
		for _, c := range clients {
			c.nc.Close()
		}
	})
}

func check(t *testing.T, c *client, want []string) {
	t.Helper()
	var got []string
	for _, m := range c.sync() {
		got = append(got, fmt.Sprint(m["room"], " ", m["content"]))
	}
	if !slices.Equal(got, want) {
		t.Errorf("a client got\n%v, want\n%v", got, want)
	}
}

func TestIDs(t *testing.T) {
	seen := map[ID]bool{}
	for range 1000 {
		id := NewID()
		if seen[id] {
			t.Fatal("the same id twice")
		}
		seen[id] = true
		text := id.String()
		if text[14] != '4' || text[19] != '8' && text[19] != '9' && text[19] != 'a' && text[19] != 'b' {
			t.Errorf("%s is no UUID of version 4", text)
		}
		if got, ok := ParseID([]byte(text)); !ok || got != id {
			t.Errorf("%s is read as %s, %v", text, got, ok)
		}
		if got, ok := ParseID([]byte(strings.ToUpper(text))); !ok || got != id {
			t.Errorf("%s in capitals is read as %s, %v", text, got, ok)
		}
	}
	for _, bad := range []string{"", "x", "5f0c3a52-8a55-4c1e-9a53-2f6f0c8e1d7", "{f0c3a52-8a55-4c1e-9a53-2f6f0c8e1d77", "5f0c3a52_8a55-4c1e-9a53-2f6f0c8e1d77", "5f0c3a52-8a55-4c1e-9a53-2f6f0c8e1dzz"} {
		if _, ok := ParseID([]byte(bad)); ok {
			t.Errorf("%q was read as an id", bad)
		}
	}
}

// heard waits until the hub hears other nodes' chats: who comes before is told that it may have missed some.
func heard(t testing.TB, h *Hub) {
	if h.cluster == nil {
		return
	}
	until(t, "chats are heard", func() bool {
		h.everyone.mu.Lock()
		defer h.everyone.mu.Unlock()
		return h.everyone.remote.topic.ready
	})
}
