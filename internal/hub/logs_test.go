package hub

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/history"
)

// twoHubs are two nodes of which neither keeps a log.
func twoHubs(t *testing.T) (logs *brokertest.Memory, clientOf func(node int) *client) {
	logs = brokertest.NewMemory()
	var clients [2]func() *client
	for i := range clients {
		h, l := newHubOf(t, 2, func(c *Config) { c.Broker, c.ResumeWindow = logs.Broker(), time.Minute })
		clients[i] = func() *client { return newClient(t, h, l) }
	}
	return logs, func(node int) *client { return clients[node]() }
}

// answer is the answer to the message with that id; what comes before it is given to see.
func (c *client) answer(id any, see func(map[string]any)) map[string]any {
	for {
		m := c.next()
		if m["id"] == id {
			return m
		}
		see(m)
	}
}

// What is published on one node reaches the members on both, once and in the log's order, from the position of their
// join on; each publisher's acknowledgements come in the order of its messages for each room.
func TestNodesShareALogThatLiesElsewhere(t *testing.T) {
	logs, clientOf := twoHubs(t)
	const clients, each, rooms = 6, 48, 3 // no more than a room keeps
	var all sync.WaitGroup
	for n := range clients {
		c := clientOf(n % 2)
		all.Go(func() {
			got := map[string][]uint64{}  // offsets of the room's messages, by room
			joined := map[string]uint64{} // and of the join
			acked := map[string]float64{} // the latest id
			own := map[string]map[uint64]bool{}
			see := func(m map[string]any) {
				offset, _ := m["offset"].(float64)
				room, _ := m["room"].(string)
				switch m["msg_type"] {
				case "room_message":
					got[room] = append(got[room], uint64(offset))
				case "joined":
					joined[room] = uint64(offset)
				case "ack":
					id := m["id"].(float64)
					room = fmt.Sprint("room ", int(id)%rooms)
					if id <= acked[room] {
						t.Errorf("%s: the ack of %v comes after that of %v", room, id, acked[room])
					}
					acked[room] = id
					if own[room] == nil {
						own[room] = map[uint64]bool{}
					}
					own[room][uint64(offset)] = true
				default:
					t.Errorf("got %v", m)
				}
			}
			for r := range rooms {
				c.say(`{"msg_type":"join_room","room":"room %d","id":"join"}`, r)
				see(c.answer("join", see))
			}
			for i := 1; i <= each; i++ {
				c.say(`{"msg_type":"room_message","room":"room %d","content":%d,"id":%d}`, i%rooms, i, i)
			}
			for len(own["room 0"])+len(own["room 1"])+len(own["room 2"]) < each {
				see(c.next())
			}
			total := func(room string) (n int) {
				for _, m := range logs.Entries(room) {
					if m.Offset > joined[room] && !own[room][m.Offset] {
						n++
					}
				}
				return n
			}
			for r := range rooms {
				room := fmt.Sprint("room ", r)
				published := func() bool { return len(logs.Entries(room)) == clients*each/rooms }
				for !published() || len(got[room]) < total(room) {
					if !published() {
						time.Sleep(time.Millisecond)
						continue
					}
					see(c.next())
				}
				for i := 1; i < len(got[room]); i++ {
					if got[room][i] <= got[room][i-1] {
						t.Errorf("%s: %d comes after %d", room, got[room][i], got[room][i-1])
					}
				}
				if n := total(room); len(got[room]) != n {
					t.Errorf("%s: %d messages, want %d", room, len(got[room]), n)
				}
			}
		})
	}
	all.Wait()
}

// A client of whom much is under way isn't read; when that is answered, it goes on, and its answers are in order.
func TestOperationsAreBoundedAndInOrder(t *testing.T) {
	logs, clientOf := twoHubs(t)
	c := clientOf(0)
	c.say(`{"msg_type":"join_room","room":"r","id":0}`)
	c.answer(0.0, func(m map[string]any) { t.Errorf("got %v", m) })
	logs.Hold(true)
	const many = 3 * fewAsked
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := 1; i <= many; i++ {
			c.say(`{"msg_type":"room_message","room":"r","content":%d,"id":%d}`, i, i)
		}
		c.say(`{"msg_type":"leave_room","room":"r","id":"left"}`)
		c.say(`{"msg_type":"room_message","room":"r","content":"behind","id":"behind"}`)
	}()
	until(t, "as many are under way as may be", func() bool { return logs.Held() == fewAsked })
	select {
	case m := <-c.got:
		t.Fatalf("got %v while nothing is answered", m)
	case <-sent:
		t.Fatal("all was read") // the pipe holds nothing: what isn't read can't be written
	case <-time.After(50 * time.Millisecond):
	}
	if n := len(logs.Entries("r")); n != fewAsked {
		t.Errorf("%d were published", n)
	}
	logs.Hold(false)
	for i := 1; i <= many; i++ {
		if m := c.next(); m["id"] != float64(i) || m["msg_type"] != "ack" {
			t.Fatalf("got %v, want the ack of %d", m, i)
		}
	}
	if m := c.next(); m["id"] != "left" || m["msg_type"] != "left" {
		t.Fatalf("got %v", m)
	}
	if m := c.next(); m["id"] != "behind" || m["msg_type"] != "ack" {
		t.Fatalf("got %v", m)
	}
	<-sent
}

// While the logs are down joins, messages, pages and resumes are told so, with "retry", and nothing is left behind; a
// room that is open goes on.
func TestWhatCannotBeAskedIsUnavailable(t *testing.T) {
	logs, clientOf := twoHubs(t)
	c, b := clientOf(0), clientOf(0)
	see := func(m map[string]any) { t.Errorf("got %v", m) }
	b.say(`{"msg_type":"join_room","room":"open","id":0}`)
	b.answer(0.0, see)
	logs.Down(true)
	for i, text := range []string{`"msg_type":"join_room","room":"r"`, `"msg_type":"room_message","room":"r","content":1`, `"msg_type":"history","room":"r"`} {
		c.say(`{%s,"id":%d}`, text, i)
		if m := c.answer(float64(i), see); m["code"] != "unavailable" || m["retry"] != true {
			t.Errorf("%s: %v", text, m)
		}
	}
	c.say(`{"msg_type":"resume","id":"r","rooms":{"r":null,"open":null}}`)
	rooms := c.answer("r", see)["rooms"].(map[string]any)
	if got := fmt.Sprint(rooms["r"]); !strings.Contains(got, "unavailable") || !strings.Contains(got, "retry:true") {
		t.Errorf("the resume of what isn't open: %v", got)
	}
	if got := fmt.Sprint(rooms["open"]); strings.Contains(got, "unavailable") {
		t.Errorf("the resume of what is: %v", got)
	}
	logs.Down(false)
	c.say(`{"msg_type":"join_room","room":"r","id":1}`)
	if m := c.answer(1.0, see); m["msg_type"] != "joined" || m["epoch"] != "elsewhere1" {
		t.Errorf("got %v", m)
	}
	c.say(`{"msg_type":"room_message","room":"r","content":1,"publish_id":"x","id":2}`)
	first := c.answer(2.0, see)
	c.say(`{"msg_type":"room_message","room":"r","content":1,"publish_id":"x","id":2}`)
	again := c.answer(2.0, see)
	if first["offset"] != again["offset"] || first["duplicate"] != nil || again["duplicate"] != true {
		t.Errorf("published once: %v, %v", first, again)
	}
	d := clientOf(1) // who wasn't there reads it from the log
	d.say(`{"msg_type":"history","room":"r","id":3}`)
	if m := d.answer(3.0, see); len(m["messages"].([]any)) != 1 {
		t.Errorf("the page: %v", m)
	}
}

// A client that hangs up while its operations are under way leaves nothing behind.
func TestOperationsEndWithTheirSession(t *testing.T) {
	logs, clientOf := twoHubs(t)
	logs.Hold(true)
	for i := range 20 {
		c := clientOf(i % 2)
		c.say(`{"msg_type":"join_room","room":"r%d","id":1}`, i)
		c.say(`{"msg_type":"room_message","room":"other","content":1,"id":2}`)
		c.say(`{"msg_type":"history","room":"r%d","id":3}`, i)
		c.say(`{"msg_type":"ping","id":"sync"}`)
		c.answer("sync", func(map[string]any) {})
		if i%3 == 0 {
			time.Sleep(time.Millisecond)
		}
		c.nc.Close()
	}
	logs.Hold(false)
}

// A room that could not be opened is opened anew for the next who needs it, though the one before isn't done with it.
func TestARoomThatCouldNotBeOpenedIsOpenedAnew(t *testing.T) {
	logs := brokertest.NewMemory()
	h, _ := newHubOf(t, 1, func(c *Config) { c.Broker = logs.Broker() })
	for _, down := range []bool{true, false} {
		logs.Down(down)
		opened := make(chan error, 1)
		h.use("r", func(err error) { opened <- err })
		defer h.unuse("r")
		select {
		case err := <-opened:
			if (err != nil) != down {
				t.Errorf("the logs are down: %t; the room is opened: %v", down, err)
			}
		case <-time.After(time.Minute):
			t.Fatal("nobody is told whether the room is open")
		}
	}
}

// What a log that lies elsewhere keeps comes to who joins with a position, though the room was open on no node: the hub
// has started anew.
func TestALogThatLiesElsewhereOutlivesTheHub(t *testing.T) {
	logs := brokertest.NewMemory()
	see := func(m map[string]any) { t.Errorf("got %v", m) }
	var at map[string]any
	func() {
		t := &within{T: t}
		defer t.end()
		h, l := newHubOf(t, 1, func(c *Config) { c.Broker = logs.Broker() })
		c := newClient(t, h, l)
		c.say(`{"msg_type":"join_room","room":"r","id":1}`)
		at = c.answer(1.0, see)
		for i := range 3 {
			c.say(`{"msg_type":"room_message","room":"r","content":%d,"key":"k","id":2}`, i)
			c.answer(2.0, see)
		}
	}()
	h, l := newHubOf(t, 1, func(c *Config) { c.Broker = logs.Broker() })
	d := newClient(t, h, l)
	d.say(`{"msg_type":"join_room","room":"r","since":{"epoch":%q,"offset":%v},"id":1}`, at["epoch"], at["offset"])
	if m := d.answer(1.0, see); m["recovered"] != true {
		t.Errorf("got %v", m)
	}
	for i := range 3 {
		if m := d.next(); m["content"] != float64(i) || m["key"] != "k" || m["from"] == "" {
			t.Errorf("message %d: %v", i, m)
		}
	}
	e := newClient(t, h, l) // and by pages
	e.say(`{"msg_type":"history","room":"r","limit":2,"id":1}`)
	if m := e.answer(1.0, see); len(m["messages"].([]any)) != 2 || m["more"] != true {
		t.Errorf("the page: %v", m)
	}
}

// within is a part of a test whose cleanups run at its end.
type within struct {
	*testing.T
	cleanups []func()
}

func (w *within) Cleanup(do func()) { w.cleanups = append(w.cleanups, do) }

func (w *within) end() {
	for i := len(w.cleanups) - 1; i >= 0; i-- {
		w.cleanups[i]()
	}
}

// Messages are taken back on all nodes, in their order in the log, and for who reads it later.
func TestDeletionsInALogThatLiesElsewhere(t *testing.T) {
	logs := brokertest.NewMemory()
	var hubs []*Hub
	var clients []*client
	for range 2 {
		h, l := newHubOf(t, 1, func(c *Config) { c.Broker = logs.Broker() })
		hubs, clients = append(hubs, h), append(clients, newClient(t, h, l), newClient(t, h, l))
	}
	see := func(m map[string]any) { t.Errorf("got %v", m) }
	member, reader := clients[2], clients[3]
	member.say(`{"msg_type":"join_room","room":"r","id":1}`)
	at := member.answer(1.0, see)
	var offsets []uint64
	for i := range 4 {
		clients[0].say(`{"msg_type":"room_message","room":"r","content":%d,"id":1}`, i)
		offsets = append(offsets, uint64(clients[0].answer(1.0, see)["offset"].(float64)))
		member.next()
	}
	ctx := t.Context()
	must(t, hubs[0].DeleteMessage(ctx, "r", "", offsets[1]))
	if m := member.next(); m["msg_type"] != "deleted" || m["offset"] != float64(offsets[1]) {
		t.Errorf("got %v", m)
	}
	must(t, hubs[0].DeleteMessage(ctx, "r", "elsewhere1", offsets[1])) // again is no error, and no news
	for epoch, offset := range map[string]uint64{"": offsets[1] + 100_000, "other": offsets[2]} {
		if err := hubs[0].DeleteMessage(ctx, "r", epoch, offset); !errors.Is(err, ErrNoPosition) {
			t.Errorf("%q %d: %v", epoch, offset, err)
		}
	}
	page := func() string {
		reader.say(`{"msg_type":"history","room":"r","id":1}`)
		text := ""
		for _, m := range reader.answer(1.0, see)["messages"].([]any) {
			text += fmt.Sprint(m.(map[string]any)["content"], " ")
		}
		return text
	}
	if got := page(); got != "0 2 3 " {
		t.Errorf("the page has %q", got)
	}
	// Who comes back with what it had is told.
	reader.say(`{"msg_type":"join_room","room":"r","since":{"epoch":%q,"offset":%v},"id":1}`, at["epoch"], offsets[2])
	if m := reader.answer(1.0, see); m["recovered"] != true {
		t.Errorf("got %v", m)
	}
	if m, n := reader.next(), reader.next(); m["msg_type"] != "deleted" || m["offset"] != float64(offsets[1]) || n["content"] != 3.0 {
		t.Errorf("got %v and %v", m, n)
	}
	must(t, hubs[1].DeleteHistory(ctx, "r"))
	for _, c := range []*client{member, reader} {
		if m := c.next(); m["msg_type"] != "deleted" || uint64(m["to_offset"].(float64)) < offsets[3] {
			t.Errorf("got %v", m)
		}
	}
	if got := page(); got != "" {
		t.Errorf("the page has %q", got)
	}
}

// When the log was lost members hear so, with the new epoch and where they stand in it, and go on.
func TestALogElsewhereThatIsLost(t *testing.T) {
	for _, policy := range []SlowConsumer{Disconnect, DropOldest} {
		logs := brokertest.NewMemory()
		h, l := newHubOf(t, 1, func(c *Config) { c.Broker, c.Policies = logs.Broker(), NewPolicies(policy) })
		a, b := newClient(t, h, l), newClient(t, h, l)
		see := func(m map[string]any) { t.Errorf("got %v", m) }
		a.say(`{"msg_type":"join_room","room":"r","id":1}`)
		a.answer(1.0, see)
		b.say(`{"msg_type":"room_message","room":"r","content":1,"id":1}`)
		b.answer(1.0, see)
		a.next()
		logs.Lose()
		gap := a.next()
		if gap["msg_type"] != "gap" || gap["reason"] != "epoch" || gap["epoch"] != "elsewhere2" || gap["to_offset"] == nil || gap["count"] != nil || gap["from_offset"] != nil {
			t.Errorf("got %v", gap)
		}
		b.say(`{"msg_type":"room_message","room":"r","content":2,"id":1}`)
		ack := b.answer(1.0, see)
		if m := a.next(); m["content"] != 2.0 || m["offset"] != ack["offset"] || ack["epoch"] != "elsewhere2" || m["offset"].(float64) <= gap["to_offset"].(float64) {
			t.Errorf("got %v, acknowledged as %v", m, ack)
		}
		// The place that the gap tells is good for a join.
		b.say(`{"msg_type":"join_room","room":"r","since":{"epoch":"elsewhere2","offset":%v},"id":2}`, gap["to_offset"])
		if m := b.answer(2.0, see); m["recovered"] != true {
			t.Errorf("got %v", m)
		}
	}
}

// Sinks are told of what a node has published to a log that lies elsewhere: once, by that node, where it stands.
func TestSinksHearOfWhatALogElsewhereHasTaken(t *testing.T) {
	logs := brokertest.NewMemory()
	var mu sync.Mutex
	told := [2][]string{}
	var clients []*client
	for i := range told {
		h, l := newHubOf(t, 1, func(c *Config) {
			c.Broker, c.Tells = logs.Broker(), func(room string) bool { return room == "told" }
			c.Sinks = []Sink{sinkFunc(func(e Event) {
				if e.Kind == Published {
					mu.Lock()
					defer mu.Unlock()
					told[i] = append(told[i], fmt.Sprintf("%s %s %s:%d", e.Room, e.Message.Content, e.Epoch, e.Message.Offset))
				}
			})}
		})
		clients = append(clients, newClient(t, h, l))
	}
	see := func(m map[string]any) {}
	for _, c := range clients {
		c.say(`{"msg_type":"join_room","room":"told","id":0}`)
		c.answer(0.0, see)
	}
	var want [2][]string
	for i := range 6 {
		c, room := clients[i%2], []string{"told", "untold"}[i/4]
		c.say(`{"msg_type":"room_message","room":%q,"content":%d,"publish_id":"p%d","id":1}`, room, i, i)
		ack := c.answer(1.0, see)
		if room == "told" {
			want[i%2] = append(want[i%2], fmt.Sprintf("told %d %s:%.0f", i, ack["epoch"], ack["offset"]))
		}
		c.say(`{"msg_type":"room_message","room":%q,"content":%d,"publish_id":"p%d","id":1}`, room, i, i)
		if again := c.answer(1.0, see); again["duplicate"] != true {
			t.Errorf("got %v", again)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(told) != fmt.Sprint(want) {
		t.Errorf("the sinks were told %v, want %v", told, want)
	}
}

// Joins that wait for their logs side by side are held against the limits as they end: each by itself would be fine.
func TestJoinsThatWaitAreHeldAgainstTheLimits(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) {
		c.Broker = brokertest.NewMemory().Broker()
		c.Policies = NewPolicies(Disconnect, Rule{glob.New("*"), Policy{History: history.Bounds{Messages: 10, Age: time.Minute, Bytes: 1 << 20}, Presence: PresenceFull, IdleTTL: time.Minute}})
	})
	c := newClient(t, h, l)
	const rooms, fit = 20, 16 // of 64 KiB
	for i := range rooms {
		c.say(`{"msg_type":"join_room","room":"r%d","data":%q,"id":%d}`, i, strings.Repeat("x", 4094), i)
	}
	in := 0
	for range rooms {
		m := c.next()
		for m["msg_type"] == "member_joined" {
			m = c.next()
		}
		switch {
		case m["msg_type"] == "joined":
			in++
		case m["code"] != "limit_reached":
			t.Errorf("got %v", m)
		}
	}
	if in != fit {
		t.Errorf("the client is in %d rooms with its data", in)
	}
}

// In a room that is full the word that its oldest message was taken back pushes that one out. Who has it is told all the
// same: who is there, who comes back, and who does so when the hub has started anew.
func TestTheOldestIsTakenBackInALogThatIsFull(t *testing.T) {
	logs := brokertest.NewMemory()
	see := func(m map[string]any) { t.Errorf("got %v", m) }
	three := func(c *Config) {
		c.Broker = logs.Broker()
		c.Policies = NewPolicies(Disconnect, Rule{glob.New("*"), Policy{History: history.Bounds{Messages: 3, Age: time.Minute, Bytes: 1 << 20}, IdleTTL: time.Minute}})
	}
	var epoch any
	var offsets []float64
	comesBack := func(c *client) {
		c.say(`{"msg_type":"join_room","room":"r","since":{"epoch":%q,"offset":%v},"id":1}`, epoch, offsets[2])
		if m := c.answer(1.0, see); m["recovered"] != true {
			t.Errorf("got %v", m)
		}
		if m := c.next(); m["msg_type"] != "deleted" || m["offset"] != offsets[0] {
			t.Errorf("got %v", m)
		}
	}
	func() {
		t := &within{T: t}
		defer t.end()
		h, l := newHubOf(t, 1, three)
		member := newClient(t, h, l)
		member.say(`{"msg_type":"join_room","room":"r","id":1}`)
		epoch = member.answer(1.0, see)["epoch"]
		for range 3 {
			publish(t, h, "r", `1`)
			offsets = append(offsets, member.next()["offset"].(float64))
		}
		must(t, h.DeleteMessage(t.Context(), "r", "", uint64(offsets[0])))
		if m := member.next(); m["msg_type"] != "deleted" || m["offset"] != offsets[0] {
			t.Errorf("got %v", m)
		}
		comesBack(newClient(t, h, l))
	}()
	h, l := newHubOf(t, 1, three)
	comesBack(newClient(t, h, l))
}
