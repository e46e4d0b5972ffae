package hubbub_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/rawtest"
)

// One of two nodes reloads other policies and limits while clients of the other one publish: these count on it and not on
// the other one, the rooms of both go on, and nobody is closed, nor misses a message.
func TestANodeOfTwoReloads(t *testing.T) {
	t.Parallel()
	memory := brokertest.NewMemory()
	of := func(publish string, most int) hubbub.Config {
		return hubbub.Config{
			PingInterval: 24 * time.Hour, Cluster: hubbub.Cluster{Secret: secretOfTests}, MaxRoomsPerClient: most,
			Rooms: []hubbub.RoomPolicy{{Match: "told", History: &hubbub.History{}, Publish: publish}, {Match: "*", Publish: publish}},
		}
	}
	var nodes []*rawtest.Server
	reload := map[*rawtest.Server]func(cfg hubbub.Config){}
	for range 2 {
		broker := memory.Broker()
		cfg := of("anyone", 3)
		cfg.Broker = broker
		s := rawtest.Start(t, cfg)
		nodes = append(nodes, s)
		reload[s] = func(cfg hubbub.Config) {
			t.Helper()
			cfg.Broker, cfg.Logger = broker, s.Logger()
			if changed, kept, err := s.Reload(cfg); err != nil || !slices.Equal(changed, []string{"max-rooms-per-client", "rooms"}) || len(kept) > 0 {
				t.Fatalf("changed %v, kept %v, %v", changed, kept, err)
			}
		}
	}
	apart := func(want float64) {
		t.Helper()
		for _, s := range nodes {
			rawtest.Eventually(t, fmt.Sprint("a node hears that ", want, " others differ"), func() bool {
				return scrape(t, s)["hubbub_peers"] == 1 && scrape(t, s)["hubbub_peers_apart"] == want
			})
		}
	}
	apart(0)
	here, there, rooms := rawtest.Dial(t, nodes[0], "/ws"), rawtest.Dial(t, nodes[1], "/ws"), []string{"told", "kept"}
	for _, c := range []*rawtest.Client{here, there} {
		c.NextJSON() // the welcome
		for _, room := range rooms {
			c.Text(`{"msg_type":"join_room","room":"` + room + `","id":1}`)
			if m := nextButGaps(c); m["msg_type"] != "joined" {
				t.Fatal(m)
			}
		}
	}
	said := 0
	// say has the client of the other node publish to both rooms, which the one of this node gets.
	say := func() {
		t.Helper()
		said++
		for _, room := range rooms {
			there.Text(fmt.Sprintf(`{"msg_type":"room_message","room":%q,"content":%d,"id":1}`, room, said))
			if m := there.NextJSON(); m["msg_type"] != "ack" {
				t.Fatalf("who publishes on the other node gets %v", m)
			}
		}
	}
	asks := func(c *rawtest.Client, text, want string) {
		t.Helper()
		c.Text(text)
		if m := c.NextJSON(); m["msg_type"] != want && m["code"] != want {
			t.Errorf("%s is answered by %v, want %s", text, m, want)
		}
	}
	for range 10 {
		say()
		reload[nodes[0]](of("server", 2))
		say()
		reload[nodes[0]](of("anyone", 3))
	}
	say()
	reload[nodes[0]](of("server", 2))
	say()
	apart(1)
	next := map[any]float64{}
	for range said * len(rooms) {
		m := here.NextJSON()
		if next[m["room"]]++; m["msg_type"] != "room_message" || m["content"] != next[m["room"]] {
			t.Fatalf("got %v, want message %v of a room", m, next[m["room"]])
		}
	}
	for _, room := range rooms {
		asks(here, `{"msg_type":"room_message","room":"`+room+`","content":0,"id":1}`, "forbidden")
	}
	asks(here, `{"msg_type":"join_room","room":"third","id":1}`, "limit_reached")
	asks(there, `{"msg_type":"join_room","room":"third","id":1}`, "joined")

	reload[nodes[1]](of("server", 2))
	apart(0)
	asks(there, `{"msg_type":"room_message","room":"kept","content":0,"id":1}`, "forbidden")
	for _, room := range rooms { // the application may, on either node, and both hear of it
		for i, s := range nodes {
			if _, err := s.Publish(t.Context(), hubbub.Publication{Room: room, Content: i}); err != nil {
				t.Fatal(err)
			}
			for _, c := range []*rawtest.Client{here, there} {
				if m := c.NextJSON(); m["room"] != room || m["content"] != float64(i) {
					t.Errorf("got %v, want what node %d publishes to %s", m, i, room)
				}
			}
		}
	}
}
