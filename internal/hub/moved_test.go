package hub

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/protocol"
)

// Members of a room hear nothing of one that goes on on another node, and see it there with its data all the time.
func TestWhoMovesStaysInItsRooms(t *testing.T) {
	t.Parallel()
	nodes := nodesOf(t, brokertest.NewMemory(), 3, fullRooms)
	a, b := nodes[0], nodes[1]
	var watchers []*client
	want := map[string]any{}
	for i, n := range nodes {
		w := n.comes("", fmt.Sprint("watcher ", i))
		w.joinsWith("r", `"watches"`)
		want[w.id] = "watches"
		watchers = append(watchers, w)
	}
	ann := a.comes("", "ann")
	ann.joinsWith("r", `{"n":1}`)
	for _, w := range watchers {
		until(t, "it is seen", func() bool { return len(w.who("r")) == 4 })
	}
	see := func() {
		for _, w := range watchers {
			all := w.who("r")
			if len(all) != 4 || fmt.Sprint(all[ann.id]) != "map[n:1]" {
				t.Errorf("%v are told to be there", all)
			}
		}
	}
	ann.lose(a.h)
	see()
	back := b.comes(ann.token(), "ann")
	see()
	back.resumes("r", "null")
	see()
	until(t, "it has left its node", func() bool {
		sh := a.h.roomShard("r")
		sh.mu.Lock()
		defer sh.mu.Unlock()
		r := sh.rooms["r"]
		return len(r.presence.together.moving) == 0 && r.presence.OwnLen() == 1
	})
	see()
	for i, w := range watchers {
		w.say(`{"msg_type":"ping","id":"last"}`)
		w.answer("last", func(m map[string]any) {
			for _, of := range m["members"].([]any) {
				if m["msg_type"] != "member_joined" || of.(map[string]any)["user"] == "ann" && m["count"].(float64) != 4 {
					t.Errorf("watcher %d: %v", i, m)
				}
			}
		})
	}
	audited(t, nodes...)
}

// What is sent to a client while it moves from node to node comes, once, if its line then holds until it has come. What
// was on its way when a connection broke may be lost.
func TestDirectMessagesFollowAClient(t *testing.T) {
	t.Parallel()
	nodes := nodesOf(t, brokertest.NewMemory(), 3, func(*Config) {})
	ann := nodes[0].comes("", "ann")
	bob := nodes[2].comes("", "bob")
	var breaks atomic.Int64 // odd while a connection breaks
	var over atomic.Bool
	var mu sync.Mutex
	var mustCome []string
	var sender sync.WaitGroup
	sender.Go(func() {
		for i := 0; !over.Load(); i++ {
			before := breaks.Load()
			for acked := false; !acked; {
				bob.say(`{"msg_type":"direct_message","to":%q,"content":"%d","id":%d}`, ann.id, i, i)
				acked = bob.answer(float64(i), func(map[string]any) {})["msg_type"] == "ack"
			}
			mu.Lock()
			if before%2 == 0 && before == breaks.Load() {
				mustCome = append(mustCome, fmt.Sprint(i))
			}
			mu.Unlock()
		}
	})
	defer sender.Wait()
	defer over.Store(true)
	got := map[string]int{}
	take := func(m map[string]any) {
		if m["msg_type"] == "direct_message" {
			got[m["content"].(string)]++
		}
	}
	c := ann
	allCome := func() {
		t.Helper()
		mu.Lock()
		all := slices.Clone(mustCome)
		mu.Unlock()
		end := time.After(time.Minute) // of a flood that goes on
		for _, content := range all {
			for got[content] == 0 {
				select {
				case m := <-c.got:
					take(m)
				case <-end:
					t.Fatalf("%s of %d hasn't come", content, len(all))
				}
			}
		}
	}
	for i := 1; i <= 12; i++ {
		breaks.Add(1)
		allCome()
		c.lose(nodes[(i-1)%3].h)
		breaks.Add(1)
		for m := range c.got {
			take(m)
		}
		next := nodes[i%3].comes(c.token(), "ann")
		if next.id != ann.id {
			t.Fatalf("welcome %v", next.welcome)
		}
		next.say(`{"msg_type":"resume","rooms":{},"id":"resume"}`)
		next.answer("resume", func(m map[string]any) { t.Errorf("before resumed: %v", m) })
		c = next
	}
	over.Store(true)
	sender.Wait()
	allCome()
	for i, n := range got {
		if n > 1 {
			t.Errorf("%s came %d times", i, n)
		}
	}
	if len(mustCome) == 0 {
		t.Error("nothing had to come")
	}
	audited(t, nodes...)
}

// Many sessions move at once, and each arrives whole.
func TestManySessionsMoveAtOnce(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 3, func(*Config) {})
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			from, to := nodes[i%3], nodes[(i+1)%3]
			user := fmt.Sprint("user ", i)
			c, joined := from.member(user, fmt.Sprint("r", i%5))
			if i%2 == 0 {
				c.lose(from.h)
				must(t, from.h.sendToClient(context.Background(), &Publication{Client: idOf(c), Content: []byte(`"direct"`)}))
			}
			back := to.comes(c.token(), user)
			if back.id != c.id {
				t.Errorf("welcome %v", back.welcome)
				return
			}
			back.resumes(fmt.Sprint("r", i%5), position(joined))
			if i%2 == 0 {
				if m := back.next(); m["content"] != "direct" {
					t.Errorf("got %v", m)
				}
			}
		})
	}
	all.Wait()
	audited(t, nodes...)
}

// Whatever another node tells a topic, nothing breaks, and the accounts hold.
func TestWhateverAnotherNodeTells(t *testing.T) {
	m := &protocol.Message{Kind: protocol.RoomMessage, Room: "r", Content: []byte(`"told"`)}
	nodes := nodesOf(t, brokertest.NewMemory(), 2, fullRooms)
	nodes[0].member("ann", "r")
	for _, told := range []string{
		"", "\x02", "\x02{}", "\x03", string(m.AppendRecord(nil)),
		"\x02" + `{"To":9,"Here":[{}],"Summary":{"Count":-1}}`, "\x02" + `{"From":9,"To":1,"Left":["x",""]}`,
	} {
		for _, topic := range []string{"r", "", "nobody's"} {
			nodes[0].h.Heard(topic, nodes[1].inner.ID(), []byte(told))
			nodes[0].h.Missed(topic)
		}
	}
}

// What a session has survives the way in JSON, whatever it is.
func TestAMovedSessionIsTheSame(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	h, _ := newHubOf(t, 1, func(*Config) {})
	var all []waitingDirect
	for _, text := range []string{`"a"`, `"` + long + `"`, `"` + long + `"`, `"` + long + `"`, `{"b":[1,2]}`} {
		all = append(all, waitingDirect{message: &protocol.Message{Kind: protocol.DirectMessage, From: "f", User: "ü", Time: 5, Content: []byte(text)}})
	}
	first := movingDirects(all)
	if len(first) != 3 {
		t.Errorf("%d messages go at once", len(first))
	}
	for i, record := range first {
		m := h.movedDirect(record)
		if m == nil || m.Kind != protocol.DirectMessage || m.From != "f" || m.User != "ü" || m.Time != 5 || string(m.Content) != string(all[i].message.Content) {
			t.Errorf("message %d is another one: %v", i, m)
		}
	}
	if h.movedDirect([]byte("?")) != nil {
		t.Error("what is no message is one")
	}
}
