package hub

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/internal/protocol"
	roomprotocol "example.com/hubbub/internal/protocol/room"
)

// lobbyOf is a room that nobody else knows of. Its lock is held until the test ends: only the test tells its news.
func lobbyOf(t testing.TB, h *Hub) *room {
	r := h.room(h.roomShard("lobby"), "lobby")
	r.mu.Lock()
	t.Cleanup(func() { // before the hub's own
		h.remove(r)
		r.mu.Unlock()
	})
	return r
}

// What doesn't fit into one message comes with the next.
func TestAMessageOfMembersIsBounded(t *testing.T) {
	h, _ := newHub(t, 1)
	r := lobbyOf(t, h)
	const many = 2500
	data := []byte(`"` + strings.Repeat("x", 4094) + `"`)
	for i := range many {
		s := &session{hub: h, id: NewID()}
		defer s.end()
		if i < 100 {
			h.noteJoined(r, s.identity(), s, nil, data, false)
		} else {
			s.self = &self{user: strings.Repeat("\x01", 255)} // each is written as six bytes
			if i > 200 {
				s.self.user = ""
			}
			h.noteJoined(r, s.identity(), s, nil, nil, false)
		}
	}
	told := 0
	for messages := 0; told < many; messages++ {
		due, _ := r.presence.Due()
		joined, left, _ := r.presence.News(due, memberLimits)
		size := len(new(roomprotocol.Dialect).AppendAnswer(nil, &protocol.Answer{Kind: protocol.AnswerMemberJoined, Room: r.name, Count: many, Members: joined}))
		if len(joined) == 0 || len(joined) > 1000 || size > 64<<10 || len(left) > 0 {
			t.Fatalf("message %d has %d members and %d bytes; %d have left", messages, len(joined), size, len(left))
		}
		if told += len(joined); told > 1500 && told < many && len(joined) < 500 {
			t.Errorf("message %d has %d members only", messages, len(joined))
		}
	}
	if told != many {
		t.Errorf("%d of %d were told of", told, many)
	}
}

// What was kept for the hooks of a room is gone with the last call.
func TestHooksOfRoomsLeaveNothingBehind(t *testing.T) {
	h, l := newHub(t, 1)
	var calls atomic.Int32
	h.cfg().Hooks.Joined = func(context.Context, Identity, string) { calls.Add(1) }
	h.cfg().Hooks.Vacated = func(context.Context, string) { calls.Add(1) }
	c := newClient(t, h, l)
	for i := range 10 {
		c.say(`{"msg_type":"join_room","room":"room %d"}`, i%3)
		c.say(`{"msg_type":"leave_room","room":"room %d"}`, i%3)
	}
	c.sync()
	h.WaitHooks(t.Context())
	if n := calls.Load(); n != 20 {
		t.Errorf("%d calls, want 20", n)
	}
	for i := range h.rooms {
		sh := &h.rooms[i]
		sh.mu.Lock()
		if n := len(sh.events); n > 0 {
			t.Errorf("%d rooms have a call still", n)
		}
		sh.mu.Unlock()
	}
	if n := l.Buffered(); n != 0 {
		t.Errorf("%d bytes are counted still", n)
	}
}

// In virtual time: what comes together is told together, when its time has come, and what comes and goes meanwhile is
// not.
func TestNewsAreBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, l := newHub(t, 2)
		watcher := newClient(t, h, l)
		var others []*client
		for range 50 {
			others = append(others, newClient(t, h, l))
		}
		hears := func() (got []string) {
			synctest.Wait()
			for len(watcher.got) > 0 {
				m := <-watcher.got
				got = append(got, fmt.Sprint(m["msg_type"], " ", len(m["members"].([]any)), " of ", m["count"]))
			}
			return got
		}
		check := func(when string, want ...string) {
			t.Helper()
			if got := hears(); !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		all := func(kind string, who ...*client) {
			for _, c := range who {
				c.say(`{"msg_type":%q,"room":"lobby"}`, kind)
			}
			synctest.Wait()
		}
		all("join_room", watcher)
		time.Sleep(time.Second)
		check("alone")

		all("join_room", others...)
		time.Sleep(100*time.Millisecond - 1)
		check("too early")
		time.Sleep(1)
		check("in time", "member_joined 50 of 51")

		all("leave_room", others[:20]...)
		all("join_room", others[:5]...)
		late := newClient(t, h, l)
		all("join_room", late)
		all("leave_room", others[49])
		all("join_room", others[49])
		time.Sleep(100 * time.Millisecond)
		check("joined first", "member_joined 1 of 52", "member_left 15 of 37")

		all("leave_room", late)
		all("join_room", late)
		all("leave_room", others[30:]...)
		all("join_room", others[30:]...)
		time.Sleep(time.Second)
		check("nothing has changed")

		for _, c := range append(others, late) {
			c.nc.Close()
		}
		time.Sleep(100 * time.Millisecond)
		check("the others are gone", "member_left 36 of 1")
		watcher.nc.Close()
	})
}

// In a large room news are collected for longer, and the timer with them: a millisecond for each member.
func TestNewsOfALargeRoomAreToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t, 1)
		r := h.room(h.roomShard("lobby"), "lobby")
		wait := func(what string, want bool) {
			t.Helper()
			synctest.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			if _, any := r.presence.Due(); any != want {
				t.Errorf("%s: news wait: %t, want %t", what, any, want)
			}
		}
		come := func(n int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for range n {
				s := &session{hub: h, id: NewID()}
				h.noteJoined(r, s.identity(), s, nil, nil, false)
			}
		}
		come(299)
		time.Sleep(time.Second)
		wait("all were told of", false)
		come(1)
		time.Sleep(300*time.Millisecond - 1)
		wait("too early", true)
		time.Sleep(1)
		wait("in time", false)
		r.mu.Lock()
		h.remove(r)
		r.mu.Unlock()
	})
}

// While a worker can't keep up its members' news wait, and then are told in time.
func TestNewsWaitForTheWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, l := newHub(t, 1)
		watcher := newClient(t, h, l)
		watcher.say(`{"msg_type":"join_room","room":"lobby"}`)
		time.Sleep(time.Second)
		synctest.Wait()
		r := h.room(h.roomShard("lobby"), "lobby")
		w, blocked := r.locals[0].w, make(chan bool)
		w.Post(task(func() { <-blocked }), 0)
		synctest.Wait()
		w.Post(task(func() {}), 2<<20) // more than a mailbox should hold
		other := &session{hub: h, id: NewID()}
		r.mu.Lock()
		h.noteJoined(r, other.identity(), other, nil, nil, false)
		r.mu.Unlock()
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		r.mu.Lock()
		due, any := r.presence.Due()
		r.mu.Unlock()
		if wait := due - clock(); !any || wait != 50 {
			t.Errorf("while the worker hangs: news wait: %t, for %d ms; want 50", any, wait)
		}
		close(blocked)
		time.Sleep(50*time.Millisecond - 1)
		synctest.Wait()
		if n := len(watcher.got); n > 0 {
			t.Errorf("%d messages too early", n)
		}
		time.Sleep(1)
		synctest.Wait()
		if n := len(watcher.got); n != 1 {
			t.Errorf("%d messages, want the news", n)
		}
		r.mu.Lock()
		h.noteLeft(r, other.identity(), nil, nil)
		r.mu.Unlock()
		watcher.nc.Close()
	})
}
