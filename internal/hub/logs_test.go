package hub

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/protocol"
)

// slowLogs are Logs in memory, for several hubs, whose answers come late and in any order.
type slowLogs struct {
	mu    sync.Mutex
	rooms map[string]*slowLog
	down  bool // nothing can be asked
	slow  bool // publishing isn't answered until it is false again
	late  []func()
	all   sync.WaitGroup
}

type slowLog struct {
	queue    []func() // publishing, in its order
	messages []*protocol.Message
	ids      map[string]history.Position
	open     []*Hub
}

func newSlowLogs() *slowLogs { return &slowLogs{rooms: map[string]*slowLog{}} }

// of is what one hub sees of the logs.
func (l *slowLogs) of(h **Hub) Logs { return &hubsLogs{l, h} }

type hubsLogs struct {
	*slowLogs
	hub **Hub
}

func (l *slowLogs) room(name string) *slowLog {
	if l.rooms[name] == nil {
		l.rooms[name] = &slowLog{ids: map[string]history.Position{}}
	}
	return l.rooms[name]
}

func (r *slowLog) at() history.Position {
	at := history.Position{Epoch: "elsewhere"}
	if n := len(r.messages); n > 0 {
		at.Offset = r.messages[n-1].Offset
	}
	return at
}

var errDown = errors.New("the logs are down")

// later does something after a moment.
func (l *slowLogs) later(do func()) {
	l.all.Go(func() {
		time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
		do()
	})
}

func (l *hubsLogs) Open(room string, opened func(history.Position, error)) (close func()) {
	l.later(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.down {
			opened(history.Position{}, errDown)
			return
		}
		r := l.room(room)
		opened(r.at(), nil)
		r.open = append(r.open, *l.hub)
	})
	return func() {
		l.later(func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			r := l.room(room)
			for i, h := range r.open {
				if h == *l.hub {
					r.open = append(r.open[:i:i], r.open[i+1:]...)
					return
				}
			}
		})
	}
}

func (l *hubsLogs) Publish(m *protocol.Message, id string, done func(history.Position, bool, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.room(m.Room)
	r.queue = append(r.queue, func() {
		at, duplicate := r.ids[id]
		if id == "" || !duplicate {
			prev := r.at().Offset
			m.Place(prev, prev+1+rand.Uint64N(64)) // offsets have holes
			r.messages = append(r.messages, m)
			at = r.at()
			r.ids[id] = at
			for _, h := range r.open {
				if !h.Deliver(m) {
					panic("a hole")
				}
			}
		}
		answer := func() { l.later(func() { done(at, duplicate && id != "", nil) }) }
		if l.slow {
			l.late = append(l.late, answer)
			return
		}
		answer()
	})
	l.later(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		next := r.queue[0]
		r.queue = r.queue[1:]
		if l.down {
			l.later(func() { done(history.Position{}, false, errDown) })
			return
		}
		next()
	})
}

func (l *hubsLogs) Read(room string, q PageQuery, done func([]*protocol.Message, history.Position, bool, error)) {
	l.later(func() {
		l.mu.Lock()
		r := l.room(room)
		from := max(0, len(r.messages)-q.Limit)
		page, at, more, down := r.messages[from:len(r.messages):len(r.messages)], r.at(), from > 0, l.down
		l.mu.Unlock()
		if down {
			done(nil, at, false, errDown)
			return
		}
		done(page, at, more, nil)
	})
}

// twoHubs are two nodes of which neither keeps a log.
func twoHubs(t *testing.T) (logs *slowLogs, clientOf func(node int) *client) {
	logs = newSlowLogs()
	t.Cleanup(logs.all.Wait)
	var clients [2]func() *client
	for i := range clients {
		at := new(*Hub)
		h, l := newHubOf(t, 2, func(c *Config) { c.Logs, c.ResumeWindow = logs.of(at), time.Minute })
		*at = h
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
	const clients, each, rooms = 6, 60, 3
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
				logs.mu.Lock()
				defer logs.mu.Unlock()
				for _, m := range logs.room(room).messages {
					if m.Offset > joined[room] && !own[room][m.Offset] {
						n++
					}
				}
				return n
			}
			for r := range rooms {
				room := fmt.Sprint("room ", r)
				published := func() bool {
					logs.mu.Lock()
					defer logs.mu.Unlock()
					return len(logs.room(room).messages) == clients*each/rooms
				}
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
	logs.mu.Lock()
	logs.slow = true
	logs.mu.Unlock()
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
	until(t, "as many are under way as may be", func() bool {
		logs.mu.Lock()
		defer logs.mu.Unlock()
		return len(logs.late) == fewAsked
	})
	select {
	case m := <-c.got:
		t.Fatalf("got %v while nothing is answered", m)
	case <-sent:
		t.Fatal("all was read") // the pipe holds nothing: what isn't read can't be written
	case <-time.After(50 * time.Millisecond):
	}
	logs.mu.Lock()
	if n := len(logs.room("r").messages); n != fewAsked {
		t.Errorf("%d were published", n)
	}
	logs.slow = false
	for _, answer := range logs.late {
		answer()
	}
	logs.mu.Unlock()
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
	logs.mu.Lock()
	logs.down = true
	logs.mu.Unlock()
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
	logs.mu.Lock()
	logs.down = false
	logs.mu.Unlock()
	c.say(`{"msg_type":"join_room","room":"r","id":1}`)
	if m := c.answer(1.0, see); m["msg_type"] != "joined" || m["epoch"] != "elsewhere" {
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
	logs.mu.Lock()
	logs.slow = true
	logs.mu.Unlock()
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
	logs.mu.Lock()
	defer logs.mu.Unlock()
	for _, answer := range logs.late {
		answer()
	}
	logs.slow = false
}

// A room that could not be opened is opened anew for the next who needs it, though the one before isn't done with it.
func TestARoomThatCouldNotBeOpenedIsOpenedAnew(t *testing.T) {
	logs, at := newSlowLogs(), new(*Hub)
	t.Cleanup(logs.all.Wait)
	h, _ := newHubOf(t, 1, func(c *Config) { c.Logs = logs.of(at) })
	*at = h
	for _, down := range []bool{true, false} {
		logs.mu.Lock()
		logs.down = down
		logs.mu.Unlock()
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
