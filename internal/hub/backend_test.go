package hub

import (
	"fmt"
	"testing"
	"time"

	"example.com/hubbub/internal/glob"
)

func idOf(c *client) ID {
	id, _ := ParseID([]byte(c.id))
	return id
}

// lose has the client's connection lost, and waits until its session is parked.
func (c *client) lose(h *Hub) (token string) {
	sh, id := h.clientShard(idOf(c)), idOf(c)
	c.nc.Close()
	until(c.t, "it is parked", func() bool {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		p := sh.parked[id]
		return p != nil && p.by == nil
	})
	return c.welcome["resume_token"].(string)
}

func resumable(c *Config) { c.ResumeWindow = time.Minute }

// Who is taken out of a room while it comes home gets nothing of it any more: neither what it missed there, nor what is new.
func TestWhoIsRemovedWhileItComesHomeGetsNothingMore(t *testing.T) {
	for name, policy := range map[string]string{"with history": "kept", "without": "plain"} {
		t.Run(name, func(t *testing.T) {
			h, l := newHubOf(t, 1, func(c *Config) {
				resumable(c)
				c.Policies = NewPolicies(Disconnect, plainRooms)
			})
			a, b := newClient(t, h, l), newClient(t, h, l)
			a.say(`{"msg_type":"join_room","room":%q,"id":1}`, policy)
			joined := a.next()
			b.say(`{"msg_type":"join_room","room":%q}`, policy)
			b.sync()
			token := a.lose(h)
			b.say(`{"msg_type":"room_message","room":%q,"content":1}`, policy)
			b.sync()
			back := a.again(h, l, token)
			at := "null"
			if joined["epoch"] != nil {
				at = fmt.Sprintf(`{"epoch":%q,"offset":0}`, joined["epoch"])
			}
			back.say(`{"msg_type":"resume","rooms":{%q:%s},"last":false,"id":1}`, policy, at)
			if got := back.next(); got["msg_type"] != "resumed" {
				t.Fatal(got)
			}
			if err := h.Remove(t.Context(), policy, idOf(a)); err != nil {
				t.Fatal(err)
			}
			if got := back.next(); got["msg_type"] != "left" || got["reason"] != "kicked" {
				t.Fatal(got)
			}
			back.say(`{"msg_type":"resume","rooms":{},"id":2}`)
			if got := back.next(); got["msg_type"] != "resumed" {
				t.Fatal(got)
			}
			b.say(`{"msg_type":"room_message","room":%q,"content":2}`, policy)
			b.sync()
			if got := back.sync(); len(got) > 0 {
				t.Errorf("it still gets %v", got)
			}
			for _, l := range h.roomShard(policy).rooms[policy].locals {
				until(t, "nobody is taken for a newcomer", func() bool {
					n := make(chan int, 1)
					l.w.Post(task(func() { n <- len(l.fresh) }), 0)
					return <-n == 0
				})
			}
		})
	}
}

var plainRooms = Rule{glob.New("plain"), Policy{}}
