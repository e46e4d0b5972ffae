package hub

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

// endings are what ends a connection; keeps says whether its session waits to be resumed.
func endings() (all []struct {
	name  string
	end   func(c *client, s *session)
	keeps bool
}) {
	add := func(name string, keeps bool, end func(c *client, s *session)) {
		all = append(all, struct {
			name  string
			end   func(c *client, s *session)
			keeps bool
		}{name, end, keeps})
	}
	peer := func(keeps bool, codes ...int) {
		for _, code := range codes {
			add(fmt.Sprint("the peer, ", code), keeps, func(c *client, _ *session) {
				payload := []byte{byte(code >> 8), byte(code)}
				if code == wire.CloseNoStatus {
					payload = nil
				}
				c.nc.Write(wsclient.Append(nil, true, wsclient.Close, [4]byte{1, 2, 3, 4}, payload))
			})
		}
	}
	peer(false, 1000, 1001, wire.CloseNoStatus)
	peer(true, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4001, 4002, 4401, 4499, 4500, 4501, 4503, 4999)
	us := func(keeps bool, codes ...int) {
		for _, code := range codes {
			add(fmt.Sprint("we, ", code), keeps, func(_ *client, s *session) {
				s.conn.Worker().Post(task(func() { s.conn.Close(code, "") }), 0)
			})
		}
	}
	us(true, 1000, 1001, 1002, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4000, 4001, 4002, 4401, 4499)
	us(false, 4500, 4501, 4503, 4999)
	add("we drain", true, func(_ *client, s *session) {
		s.conn.Worker().Post(task(func() { s.Stop(s.conn) }), 0)
	})
	add("nobody", true, func(c *client, _ *session) { c.nc.Close() })
	add("the peer's fault", true, func(c *client, _ *session) { c.nc.Write([]byte{0x81, 0}) })
	return all
}

func TestWhoEndsAConnectionDecidesAboutItsSession(t *testing.T) {
	for _, e := range endings() {
		t.Run(e.name, func(t *testing.T) {
			h, l := newHub(t, 1)
			h.cfg().ResumeWindow = time.Hour
			s := h.Session(Identity{ID: NewID()}, netip.Addr{}, nil).(*session)
			a := newSession(t, l, s)
			a.say(`{"msg_type":"join_room","room":"r"}`)
			a.sync()
			e.end(a, s)
			until(t, "its connection has ended", func() bool { return h.Clients() == 0 })
			want := 0
			if e.keeps {
				want = 1
			}
			if parked, rooms := h.ParkedSessions(), h.Rooms(); parked != want || rooms != want {
				t.Errorf("%d sessions are parked and %d rooms are there, want %d of each", parked, rooms, want)
			}
			if _, good := h.Resume(a.welcome["resume_token"].(string)); good != e.keeps {
				t.Errorf("the token is good: %t", good)
			}
			if e.keeps {
				back := a.again(h, l, a.welcome["resume_token"].(string))
				if back.welcome["resumed"] != true {
					t.Errorf("who comes back is told %v", back.welcome)
				}
				back.nc.Close()
			}
		})
	}
}
