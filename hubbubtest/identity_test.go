package hubbubtest_test

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
)

// people are who may come in, by the token that they show: a name and what is known of it now.
type people struct {
	mu  sync.Mutex
	all map[string]hubbub.Identity
}

func (p *people) set(token string, who hubbub.Identity) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[string]hubbub.Identity{}
	}
	p.all[token] = who
}

func (p *people) authenticate(_ context.Context, c *hubbub.Credentials) (*hubbub.Identity, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	who, ok := p.all[c.Token]
	switch {
	case !ok:
		return nil, &hubbub.Error{Code: hubbub.Forbidden, Message: "nobody has this token"}
	case !who.Expires.IsZero() && time.Now().After(who.Expires):
		return nil, hubbub.ErrTokenExpired
	}
	return &who, nil
}

// showing are the Options of who shows that token.
func showing(token string) hubbubtest.Options {
	return hubbubtest.Options{Header: http.Header{"Authorization": {"Bearer " + token}}}
}

func connectAs(t *testing.T, srv *hubbubtest.Server, token string) *hubbubtest.Client {
	t.Helper()
	c, err := srv.ConnectWith(token, showing(token))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// expect takes the next message of that type.
func expect(t *testing.T, c *hubbubtest.Client, kind, room, reason string) {
	t.Helper()
	if m := c.Receive(); m.Type != kind || m.Room != room || m.Reason != reason {
		t.Errorf("%s got %s, want %s %s %s", c.Name, m, kind, room, reason)
	}
}

// A client whose rooms come with its token hears all of them, over a lost connection, the token's end and a session
// that is gone, and the others see it as they would see anyone.
func TestATokensRoomsOverAClientsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		who := &people{}
		srv := hubbubtest.NewServer(t, hubbub.Config{
			Authenticate: who.authenticate, JWT: hubbub.JWT{Leeway: -1}, ResumeWindow: 30 * time.Second, PingInterval: time.Minute,
			Rooms: []hubbub.RoomPolicy{{Match: "team", Join: "server", Presence: "full"}, {Match: "desk", Join: "granted", Presence: "full"}},
		})
		who.set("bob", hubbub.Identity{User: "bob", Rooms: []string{"team"}, Join: []string{"desk"}, Publish: []string{"desk"}})
		bob := connectAs(t, srv, "bob")
		expect(t, bob, "joined", "team", "")
		bob.Join("desk")
		end := time.Now().Add(5 * time.Minute)
		who.set("ann", hubbub.Identity{User: "ann", Expires: end, Rooms: []string{"team"}, Join: []string{"desk"}})
		ann := connectAs(t, srv, "ann")
		expect(t, ann, "joined", "team", "")
		ann.Join("desk")
		say := func(room string, n int) { bob.Publish(room, n) }
		say("team", 1)
		ann.ExpectMessage("team", 1)

		ann.Drop() // and comes back in time
		hubbubtest.Step(10 * time.Second)
		say("team", 2)
		say("desk", 2)
		ann = ann.Reconnect()
		ann.ExpectMessage("desk", 2)
		ann.ExpectMessage("team", 2)

		hubbubtest.Step(time.Until(end) + 6*time.Second) // the token's end
		if !ann.Closed() {
			t.Fatal("the token has expired, and she is there")
		}
		if _, err := srv.ConnectWith("ann", showing("ann")); err == nil {
			t.Error("she is let in by a token that has expired")
		}
		say("team", 3)
		end = time.Now().Add(time.Hour)
		who.set("ann", hubbub.Identity{User: "ann", Expires: end, Rooms: []string{"team"}}) // and no desk
		ann = ann.Reconnect()
		if !ann.Welcome.Resumed {
			t.Errorf("not resumed: %+v", ann.Welcome)
		}
		ann.ExpectMessage("team", 3)
		say("desk", 4) // is not for her
		say("team", 4)
		ann.ExpectMessage("team", 4)

		who.set("more", hubbub.Identity{User: "ann", Expires: end, Rooms: []string{"team", "hall"}})
		var fresh struct{ ExpiresAt int64 }
		if m := ann.Request(map[string]any{"msg_type": "refresh", "token": "more"}); m.Type != "refreshed" || json.Unmarshal(m.Raw, &fresh) != nil {
			t.Errorf("refreshed: %s", m)
		}
		expect(t, ann, "joined", "hall", "")

		ann.Drop() // and comes back when the session is gone
		hubbubtest.Step(40 * time.Second)
		say("team", 5)
		ann = ann.Reconnect()
		if ann.Welcome.Resumed {
			t.Error("the session outlived its time")
		}
		expect(t, ann, "joined", "team", "") // at once, and what she missed when she says where she was
		ann.ExpectMessage("team", 5)
		hubbubtest.Step(time.Second)
		say("team", 6)
		hubbubtest.Step(time.Second)
		srv.Check()
	})
}
