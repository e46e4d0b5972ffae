package hubbub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// Nodes that start while those that are there have as much to do as they can bear.

const (
	busyRooms  = 4
	busyWindow = 64      // publishes of one client on their way
	busyLead   = 8_000   // publishes that the slowest hearer may have yet to hear, of all rooms: less than one keeps
	busyKept   = 10_000  // messages that a room keeps
	busyMost   = 500_000 // publishes of one client: a node that isn't in by then won't be
)

func busyRoom(i int) string { return fmt.Sprint("busy-", i) }

// busy are publishers that don't pause, and who hears them.
type busy struct {
	t      *testing.T
	sent   atomic.Int64
	enough atomic.Bool // they are to end
	all    sync.WaitGroup

	mu      sync.Mutex
	hearers []*hearer
	taken   [busyRooms]map[int64]busyMessage // what was acknowledged, by its offset
	refused map[string]int                   // by code
	epochs  map[string]bool                  // room and epoch
	failed  error
}

type busyMessage struct{ From, N int }

// busyAnswer is what the server says, to publishers and hearers.
type busyAnswer struct {
	MsgType     string `json:"msg_type"`
	Room, Epoch string
	Offset      int64
	ID          *int
	Content     busyMessage
	Code        string
	Recovered   bool
	Rooms       map[string]busyAnswer
}

func (b *busy) fail(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = errors.Join(b.failed, fmt.Errorf(format, args...))
	b.enough.Store(true)
}

// check ends the test where something has failed.
func (b *busy) check() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed != nil {
		b.t.Fatal(b.failed)
	}
}

// hear is what comes next, but for gaps of chats, which a busy node may have missed. A Close is an error. Any goroutine.
func hear(c *rawtest.Client) (a busyAnswer, err error) {
	for a.MsgType == "" || a.MsgType == "gap" && a.Room == "" {
		op, p, err := c.TryNext()
		switch {
		case err != nil:
			return a, err
		case op == wsclient.Ping:
			if err := c.TrySend(rawtest.Frame(wsclient.Pong, true, p)); err != nil {
				return a, err
			}
			continue
		case op != wsclient.Text:
			return a, fmt.Errorf("%v %s", op, rawtest.Brief(p))
		}
		a = busyAnswer{}
		if err := json.Unmarshal(p, &a); err != nil {
			return a, err
		}
	}
	return a, nil
}

// publish has a client publish to all rooms in turns, without a pause, until it is enough. Each message is answered.
func (b *busy) publish(s *rawtest.Server, from int) {
	c := rawtest.Dial(b.t, s, "/ws")
	c.NextJSON() // the welcome
	window := make(chan int, busyWindow)
	b.all.Go(func() {
		defer close(window)
		for n := 0; n < busyMost && !b.enough.Load(); n++ {
			for b.ahead() && !b.enough.Load() {
				time.Sleep(time.Millisecond)
			}
			window <- n
			b.sent.Add(1)
			text := fmt.Sprintf(`{"msg_type":"room_message","room":%q,"content":{"from":%d,"n":%d},"id":%d}`, busyRoom(n%busyRooms), from, n, n)
			if err := c.TrySend(rawtest.Text(text)); err != nil {
				b.fail("publisher %d: %w", from, err)
				return
			}
		}
	})
	b.all.Go(func() {
		answered := map[int]bool{} // those of a room come in order
		for range window {
			a, err := hear(c)
			if err != nil || a.ID == nil || answered[*a.ID] {
				b.fail("publisher %d: %+v, %v", from, a, err)
				for range window { // who sends goes on
				}
				return
			}
			answered[*a.ID] = true
			b.answered(busyMessage{from, *a.ID}, a)
		}
	})
}

func (b *busy) answered(m busyMessage, a busyAnswer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.MsgType != "ack" {
		b.refused[a.Code]++
		return
	}
	b.epochs[busyRoom(m.N%busyRooms)+" "+a.Epoch] = true
	room := b.taken[m.N%busyRooms]
	if was, is := room[a.Offset]; is {
		b.failed = errors.Join(b.failed, fmt.Errorf("%v and %v are acknowledged at %d", was, m, a.Offset))
	}
	room[a.Offset] = m
}

// ahead says that somebody has yet to hear so much that it might fall out of the history.
func (b *busy) ahead() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	sent := b.sent.Load()
	return slices.ContainsFunc(b.hearers, func(h *hearer) bool { return sent-h.heard.Load() > busyLead })
}

// hearer is a client in all rooms.
type hearer struct {
	rolling
	b     *busy
	name  string
	heard atomic.Int64 // how many messages, with those that were sent before it came
	moves atomic.Bool  // it is to stop, since it goes to another node
	done  chan bool    // whether it has heard the end of all rooms

	// Of the goroutine that hears.
	began, last [busyRooms]int64 // offsets: it has joined behind began
	epochs      [busyRooms]string
	got         [busyRooms]map[int64]busyMessage
	ends        int
	again       int // joins that were to be tried again
}

// joins has a client come to a node.
func (b *busy) joins(s *rawtest.Server, name string) *hearer {
	b.t.Helper()
	h := &hearer{b: b, name: name, done: make(chan bool, 1)}
	h.comes(b.t, s)
	h.heard.Store(b.sent.Load())
	for i := range busyRooms {
		h.got[i] = map[int64]busyMessage{}
		h.join(i)
	}
	b.mu.Lock()
	b.hearers = append(b.hearers, h)
	b.mu.Unlock()
	go h.follow()
	return h
}

func (h *hearer) join(i int) {
	h.Text(fmt.Sprintf(`{"msg_type":"join_room","room":%q,"id":%d}`, busyRoom(i), i))
}

// follow hears until the end, or until it moves.
func (h *hearer) follow() {
	for !h.moves.Load() && h.ends < busyRooms {
		a, err := hear(h.Client)
		if err == nil {
			err = h.takes(a)
		}
		if err != nil {
			h.b.fail("%s: %w", h.name, err)
			break
		}
	}
	h.done <- h.ends == busyRooms
}

func (h *hearer) takes(a busyAnswer) error {
	i := 0
	_, _ = fmt.Sscanf(a.Room, "busy-%d", &i) // 0 where it is about no room
	switch {
	case a.MsgType == "joined":
		h.began[i], h.last[i], h.epochs[i] = a.Offset, a.Offset, a.Epoch
	case a.MsgType == "resumed":
		for room, at := range a.Rooms {
			if !at.Recovered {
				return fmt.Errorf("%s is resumed %+v", room, at)
			}
		}
	case a.MsgType == "error" && a.Code == "unavailable" && a.ID != nil && h.epochs[*a.ID] == "" && h.again < 100: // a busy machine
		h.again++
		h.join(*a.ID)
	case a.MsgType != "room_message":
		return fmt.Errorf("got %+v", a)
	case a.Offset <= h.last[i]:
		return fmt.Errorf("%s: %d comes behind %d", a.Room, a.Offset, h.last[i])
	case a.Content.From < 0:
		h.last[i] = a.Offset
		h.ends++
	default:
		h.last[i], h.got[i][a.Offset] = a.Offset, a.Content
		h.heard.Add(1)
	}
	return nil
}

// goes has its session go on at another node, and hear there what it has missed.
func (h *hearer) goes(s *rawtest.Server) {
	h.b.t.Helper()
	h.moves.Store(true)
	<-h.done
	h.b.check()
	h.CloseNow()
	was := h.welcome
	rawtest.Eventually(h.b.t, h.name+" goes on there", func() bool { // a node that doesn't answer in time has it still
		h.welcome = was
		resumed := h.comes(h.b.t, s)
		if !resumed {
			h.CloseNow()
		}
		return resumed
	})
	if h.welcome["client_id"] != was["client_id"] {
		h.b.t.Fatalf("%s: welcome %v, not session %v", h.name, h.welcome, was["client_id"])
	}
	rooms := map[string]any{}
	for i := range busyRooms {
		rooms[busyRoom(i)] = map[string]any{"epoch": h.epochs[i], "offset": h.last[i]}
	}
	text, _ := json.Marshal(map[string]any{"msg_type": "resume", "rooms": rooms, "id": 1})
	h.Text(string(text))
	h.moves.Store(false)
	go h.follow()
}

// comesIn waits until a node is ready, which mustn't need that the others have less to do.
func (b *busy) comesIn(s *rawtest.Server, name string) {
	b.t.Helper()
	rawtest.Eventually(b.t, name+" is ready", func() bool { return isReady(s) || b.enough.Load() })
	b.check()
	b.t.Logf("%s is ready after %d publishes", name, b.sent.Load())
}

// goOn waits until so much more was published.
func (b *busy) goOn(more int64) {
	b.t.Helper()
	to := b.sent.Load() + more
	rawtest.Eventually(b.t, "they go on", func() bool { return b.sent.Load() > to || b.enough.Load() })
	b.check()
}

// end has the publishers end, and each hearer hear that.
func (b *busy) end(s *rawtest.Server) {
	b.t.Helper()
	b.enough.Store(true)
	b.all.Wait()
	for i := range busyRooms {
		rawtest.Eventually(b.t, "the end is published", func() bool { return rawtest.Publish(s, busyRoom(i), busyMessage{From: -1}) == nil })
	}
	for _, h := range b.hearers {
		<-h.done
	}
	b.check()
}

// judge holds what each has heard against what was acknowledged.
func (b *busy) judge() {
	b.t.Helper()
	total := 0
	for i, taken := range b.taken {
		total += len(taken)
		last := map[int]int{} // of each publisher
		for _, at := range slices.Sorted(maps.Keys(taken)) {
			m := taken[at]
			if m.N < last[m.From] {
				b.t.Errorf("%s: message %d of publisher %d stands behind %d", busyRoom(i), m.N, m.From, last[m.From])
			}
			last[m.From] = m.N
		}
		for _, h := range b.hearers {
			b.epochs[busyRoom(i)+" "+h.epochs[i]] = true
			wrong := 0
			for at, m := range taken {
				if got, is := h.got[i][at]; at > h.began[i] && (!is || got != m) {
					wrong++
				}
			}
			if wrong > 0 {
				b.t.Errorf("%s hasn't heard %d of %d messages of %s", h.name, wrong, len(taken), busyRoom(i))
			}
		}
	}
	if len(b.epochs) != busyRooms {
		b.t.Errorf("the rooms have had the epochs %v", slices.Sorted(maps.Keys(b.epochs)))
	}
	b.t.Logf("%d messages were acknowledged, and refused by code: %v", total, b.refused)
}

// A node, and a store that was away and has to catch up, start while the others are under publishers that don't pause. Both become
// ready meanwhile. Who comes to them, or goes on there with a session of the others, hears each message once, in order, in the
// epochs that there were; no publisher is left without an answer, and nobody is closed.
func TestNodesThatStartWhileAllAreBusy(t *testing.T) {
	t.Parallel()
	cfg := hubbub.Config{
		DataDir: t.TempDir(), SendQueueBytes: 32 << 20, ResumeWindow: 10 * time.Minute,
		Rooms: []hubbub.RoomPolicy{{Match: "busy-*", History: &hubbub.History{Messages: busyKept, Bytes: 64 << 20, Age: time.Hour}}},
	}
	stores, addresses := startStores(t, 3, cfg)
	for i, s := range stores {
		rawtest.Eventually(t, fmt.Sprintf("the store %d is ready", i), func() bool { return isReady(s) })
	}
	b := &busy{t: t, refused: map[string]int{}, epochs: map[string]bool{}}
	for i := range busyRooms { // all three have their logs
		b.taken[i] = map[int64]busyMessage{}
		rawtest.Eventually(t, "it is published", func() bool { return rawtest.Publish(stores[0], busyRoom(i), busyMessage{}) == nil })
	}
	if err := stores[2].Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	var move []*hearer
	for i, s := range stores[:2] {
		b.joins(s, fmt.Sprint("who stays at store ", i))
		for j := range 2 {
			move = append(move, b.joins(s, fmt.Sprint("session ", j, " of store ", i)))
		}
	}
	for from := range 4 {
		b.publish(stores[from%2], from)
	}
	b.goOn(2_000)

	node, store := cfg, cfg
	node.DataDir, node.NodeName, node.Cluster = "", "node", hubbub.Cluster{Secret: secretOfTests, Join: addresses}
	store.DataDir, store.NodeName = filepath.Join(cfg.DataDir, "2"), "node-2"
	store.Cluster = hubbub.Cluster{Secret: secretOfTests, Listen: addresses[2], Join: addresses}
	come := []*rawtest.Server{rawtest.Start(t, node), rawtest.Start(t, store)}
	for i, name := range []string{"the node", "the store"} {
		b.comesIn(come[i], name)
		b.joins(come[i], "who comes to "+name)
		b.publish(come[i], 4+i)
	}
	for i, h := range move {
		h.goes(come[i%2])
	}
	b.goOn(4_000)
	b.end(stores[0])
	b.judge()
}
