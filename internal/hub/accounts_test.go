package hub

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/wsclient"
)

// What the hub keeps for clients is counted while it is kept, and given back with it.

// again connects a client to the session of another one whose connection has ended.
func (c *client) again(h *Hub, l *loop.Loop, token string) *client {
	of, ok := h.Resume(token)
	if !ok {
		c.t.Fatal("the token is not good")
	}
	return newSession(c.t, l, h.Session(Identity{ID: of.ID}, netip.Addr{}, &of))
}

func TestWhatIsKeptIsCountedAndGivenBack(t *testing.T) {
	const window = 5 * time.Second
	data := `"` + strings.Repeat("d", 3000) + `"`
	large := strings.Repeat("x", 20_000)
	for name, story := range map[string]func(h *Hub, l *loop.Loop, a, b *client) (least int, end func()){
		"presence, which ends with a leave": func(h *Hub, l *loop.Loop, a, b *client) (int, func()) {
			a.say(`{"msg_type":"join_room","room":"lobby","data":%s}`, data)
			a.sync()
			return 3000, func() { a.say(`{"msg_type":"leave_room","room":"lobby"}`); a.sync() }
		},
		"presence, which ends with a good-bye": func(h *Hub, l *loop.Loop, a, b *client) (int, func()) {
			a.say(`{"msg_type":"join_room","room":"lobby","data":%s}`, data)
			a.sync()
			return 3000, func() { a.nc.Write(wsclient.Append(nil, true, wsclient.Close, [4]byte{}, []byte{3, 232})) }
		},
		"presence, which is joined anew with more": func(h *Hub, l *loop.Loop, a, b *client) (int, func()) {
			for _, d := range []string{`"little"`, data} {
				a.say(`{"msg_type":"leave_room","room":"lobby"}`)
				a.say(`{"msg_type":"join_room","room":"lobby","data":%s}`, d)
			}
			a.sync()
			return 3000, func() { a.say(`{"msg_type":"leave_room","room":"lobby"}`); a.sync() }
		},
		"a parked session and what waits for it": func(h *Hub, l *loop.Loop, a, b *client) (int, func()) {
			a.nc.Close()
			until(a.t, "it is parked", func() bool { return h.ParkedSessions() == 1 })
			for range 3 {
				b.say(`{"msg_type":"direct_message","to":%q,"content":%q}`, a.id, large)
			}
			b.sync()
			return 3 * len(large), func() {
				back := a.again(h, l, a.welcome["resume_token"].(string))
				back.say(`{"msg_type":"resume","rooms":{},"id":1}`)
				if got := back.sync(); len(got) != 4 {
					a.t.Errorf("%d messages after the resume, want resumed and 3", len(got))
				}
			}
		},
		"a parked session whose window ends": func(h *Hub, l *loop.Loop, a, b *client) (int, func()) {
			a.nc.Close()
			until(a.t, "it is parked", func() bool { return h.ParkedSessions() == 1 })
			b.say(`{"msg_type":"direct_message","to":%q,"content":%q}`, a.id, large)
			b.sync()
			return len(large), func() { h.tidy(clock() + window.Milliseconds()) }
		},
		"a parked session that is claimed and starts anew": func(h *Hub, l *loop.Loop, a, b *client) (int, func()) {
			a.nc.Close()
			until(a.t, "it is parked", func() bool { return h.ParkedSessions() == 1 })
			b.say(`{"msg_type":"direct_message","to":%q,"content":%q}`, a.id, large)
			b.sync()
			return len(large), func() {
				back := a.again(h, l, a.welcome["resume_token"].(string))
				if got := back.sync(); len(got) != 1 || got[0]["msg_type"] != "direct_message" {
					a.t.Errorf("got %d messages, want what waited", len(got))
				}
			}
		},
		"a parked session that is claimed and lost again": func(h *Hub, l *loop.Loop, a, b *client) (int, func()) {
			a.nc.Close()
			until(a.t, "it is parked", func() bool { return h.ParkedSessions() == 1 })
			b.say(`{"msg_type":"direct_message","to":%q,"content":%q}`, a.id, large)
			b.sync()
			back := a.again(h, l, a.welcome["resume_token"].(string))
			back.nc.Close()
			until(a.t, "it is gone", func() bool { return l.Connections() == 1 })
			return len(large), func() { h.tidy(clock() + window.Milliseconds()) }
		},
		"publish_ids": func(h *Hub, l *loop.Loop, a, b *client) (int, func()) {
			for i := range 50 {
				a.say(`{"msg_type":"room_message","room":"plain","content":1,"publish_id":"%050d"}`, i)
			}
			a.sync()
			return 50 * 50, func() { h.tidy(clock() + time.Minute.Milliseconds()) }
		},
		"a room's history, which ages": func(h *Hub, l *loop.Loop, a, b *client) (int, func()) {
			a.say(`{"msg_type":"join_room","room":"r"}`)
			for range 3 {
				b.say(`{"msg_type":"room_message","room":"r","content":%q}`, large)
			}
			b.sync()
			return 3 * len(large), func() { h.tidy(clock() + 10*time.Minute.Milliseconds()); a.sync() }
		},
		"a room's history, which is left alone": func(h *Hub, l *loop.Loop, a, b *client) (int, func()) {
			b.say(`{"msg_type":"room_message","room":"r","content":%q}`, large)
			b.sync()
			return len(large), func() { h.tidy(clock() + 10*time.Minute.Milliseconds()) }
		},
		"a room that was asked for its history": func(h *Hub, l *loop.Loop, a, b *client) (int, func()) {
			b.say(`{"msg_type":"history","room":"r","id":1}`)
			b.sync()
			return 0, func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, l := newHub(t, 2)
			h.cfg().ResumeWindow, h.cfg().welcome.ResumeWindow = window, window
			h.cfg().Policies = NewPolicies(Disconnect, Rule{glob.New("plain"), Policy{}})
			session := func() *client { return newSession(t, l, h.Session(Identity{ID: NewID()}, netip.Addr{}, nil)) }
			a, b := session(), session()
			a.sync()
			b.sync()
			before := l.Buffered()
			least, end := story(h, l, a, b)
			until(t, "what is kept is counted", func() bool { return l.Buffered() >= before+int64(least) })
			end()
			until(t, "all is given back", func() bool { return l.Buffered() == before })
			if n := h.Kept(KeptHistory); n != 0 {
				t.Errorf("%d bytes of history are still counted", n)
			}
		})
	}
}

// until waits for a condition that another goroutine brings about.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	if !soon(cond) {
		t.Fatalf("not in time: %s", what)
	}
}

// soon says whether a condition that another goroutine brings about comes true in a minute.
func soon(cond func() bool) bool {
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
