package hub

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"example.com/hubbub/internal/protocol"
	roomprotocol "example.com/hubbub/internal/protocol/room"
)

// believer is somebody who has been told of a room's members: by asking once, or from the beginning.
type believer struct {
	here map[string]string // data by client_id
}

func (b *believer) learn(joined, left []protocol.Member) {
	for _, m := range joined {
		b.here[m.ClientID] = string(m.Data)
	}
	for _, m := range left {
		delete(b.here, m.ClientID)
	}
}

// members is who is in the room.
func (p *presence) members() map[string]string {
	here := map[string]string{}
	for _, o := range p.here {
		here[o.ClientID] = string(o.Data)
	}
	return here
}

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

// Whatever comes and goes, everybody who asked at any time and then heard the news believes what is so as soon as there
// are no more; a stranger to it all who heard everything sees nobody come whom it knows, unless it was with other data or
// somebody had asked meanwhile, and nobody go whom it doesn't know.
func TestTheNewsAddUp(t *testing.T) {
	h, _ := newHub(t, 1)
	rapid.Check(t, func(t *rapid.T) {
		r := h.room(h.roomShard("lobby"), "lobby")
		r.mu.Lock()
		defer r.mu.Unlock()
		defer h.remove(r)
		sessions := make([]*session, 4)
		in := make([]bool, len(sessions))
		for i := range sessions {
			sessions[i] = &session{hub: h, id: NewID()}
		}
		r.presence = &presence{all: map[ID]*occupant{}}
		p := r.presence
		first := &believer{map[string]string{}}
		believers := []*believer{first}
		asked := false
		last, changed := map[string]string{}, map[string]bool{} // data by client_id; whose was another since the last news
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"move", "move", "move", "ask", "tell"}).Draw(t, "what") {
			case "move":
				i := rapid.IntRange(0, len(sessions)-1).Draw(t, "who")
				s := sessions[i]
				if in[i] = !in[i]; in[i] {
					data, id := rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "data"), s.id.String()
					changed[id] = changed[id] || data != last[id]
					last[id] = data
					h.arrive(r, s, []byte(data), false)
				} else {
					h.part(r, s.identity(), nil, nil)
				}
			case "ask":
				p.asked++
				asked = true
				believers = append(believers, &believer{p.members()})
			case "tell":
				before := maps.Clone(first.here)
				joined, left := h.takeNews(p)
				for _, m := range joined {
					if _, known := before[m.ClientID]; known && !changed[m.ClientID] && !asked {
						t.Errorf("%s has come, which all knew", m.ClientID)
					}
				}
				for _, b := range believers {
					b.learn(joined, nil)
				}
				for _, m := range left {
					if _, known := first.here[m.ClientID]; !known {
						t.Errorf("%s has gone, and never came", m.ClientID)
					}
					if _, known := before[m.ClientID]; !known && !asked {
						t.Errorf("%s was told of, having come and gone, and nobody had asked", m.ClientID)
					}
				}
				for i, b := range believers {
					b.learn(nil, left)
					if want := p.members(); !maps.Equal(b.here, want) {
						t.Fatalf("believer %d: %v, but here are %v", i, b.here, want)
					}
				}
				asked = false
				clear(changed)
				if len(p.all) != len(p.here) {
					t.Errorf("%d are kept, %d are here", len(p.all), len(p.here))
				}
			}
		}
	})
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
			h.arrive(r, s, data, false)
		} else {
			s.self = &self{user: strings.Repeat("\x01", 255)} // each is written as six bytes
			if i > 200 {
				s.self.user = ""
			}
			h.arrive(r, s, nil, false)
		}
	}
	p := r.presence
	told := 0
	for messages := 0; told < many; messages++ {
		joined, left := h.takeNews(p)
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
	h.cfg.Hooks.Joined = func(context.Context, Identity, string) { calls.Add(1) }
	h.cfg.Hooks.Vacated = func(context.Context, string) { calls.Add(1) }
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

// In virtual time: what comes together is told together, when its time has come, and what comes and goes meanwhile is not.
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
		time.Sleep(newsDelay - 1)
		check("too early")
		time.Sleep(1)
		check("in time", "member_joined 50 of 51")

		all("leave_room", others[:20]...)
		all("join_room", others[:5]...)
		late := newClient(t, h, l)
		all("join_room", late)
		all("leave_room", others[49])
		all("join_room", others[49])
		time.Sleep(newsDelay)
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
		time.Sleep(newsDelay)
		check("the others are gone", "member_left 36 of 1")
		watcher.nc.Close()
	})
}

// In a large room news are collected for a millisecond for each member, at most for a second.
func TestNewsOfALargeRoomAreCollectedForLonger(t *testing.T) {
	for members, wait := range map[int]time.Duration{50: newsDelay, 300: 300 * time.Millisecond, 1500: newsDelayMax} {
		synctest.Test(t, func(t *testing.T) {
			h, _ := newHub(t, 1)
			r := h.room(h.roomShard("lobby"), "lobby")
			untold := func() int {
				synctest.Wait()
				r.mu.Lock()
				defer r.mu.Unlock()
				return len(r.presence.news)
			}
			come := func(n int) (last *session) {
				r.mu.Lock()
				defer r.mu.Unlock()
				for range n {
					last = &session{hub: h, id: NewID()}
					h.arrive(r, last, nil, false)
				}
				return last
			}
			one := come(members)
			time.Sleep(3 * newsDelayMax)
			if n := untold(); n > 0 {
				t.Fatalf("%d members: %d were never told of", members, n)
			}
			r.mu.Lock()
			h.part(r, one.identity(), nil, nil)
			r.mu.Unlock()
			come(1)
			time.Sleep(wait - time.Millisecond - 1) // there is one less
			if n := untold(); n != 2 {
				t.Errorf("%d members: %d news wait, want both still", members, n)
			}
			time.Sleep(time.Millisecond + 1)
			if n := untold(); n != 0 {
				t.Errorf("%d members: %d news wait, want none any more", members, n)
			}
			r.mu.Lock()
			h.remove(r)
			r.mu.Unlock()
		})
	}
}
