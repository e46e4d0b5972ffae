package hubbub_test

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/rawtest"
)

// rolling is a client that goes from node to node.
type rolling struct {
	*rawtest.Client
	welcome map[string]any
	at      map[string]any // its position in the room r
}

func (c *rolling) comes(t *testing.T, s *rawtest.Server) (resumed bool) {
	path := "/ws"
	if c.welcome != nil {
		path += "?resume=" + url.QueryEscape(c.welcome["resume_token"].(string))
	}
	c.Client = rawtest.Dial(t, s, path)
	c.welcome = c.NextJSON()
	return c.welcome["resumed"] == true
}

// until is the next message of a type.
func (c *rolling) until(msgType string) map[string]any {
	for {
		if m := c.NextJSON(); m["msg_type"] == msgType {
			return m
		}
	}
}

// All nodes are restarted, one after the other, and no client loses its session, nor a message of its room: whether it comes
// back while its node still stops, or behind that.
func TestARollingRestartLosesNoSession(t *testing.T) {
	memory := brokertest.NewMemory()
	start := func() *rawtest.Server {
		return rawtest.Start(t, hubbub.Config{Broker: memory.Broker(), Cluster: hubbub.Cluster{Secret: secretOfTests}})
	}
	nodes := []*rawtest.Server{start(), start(), start()}
	var clients []*rolling
	for i := range 12 {
		c := &rolling{}
		c.comes(t, nodes[i%3])
		c.Text(`{"msg_type":"join_room","room":"r","id":1}`)
		c.at = c.until("joined")
		clients = append(clients, c)
	}
	knows := func(s *rawtest.Server) { // all others, when it finds their clients
		asker := &rolling{}
		asker.comes(t, s)
		for _, c := range clients {
			rawtest.Eventually(t, "a node is known", func() bool {
				asker.Text(fmt.Sprintf(`{"msg_type":"direct_message","to":%q,"content":"hello","id":1}`, c.welcome["client_id"]))
				for {
					if m := asker.NextJSON(); m["id"] != nil {
						return m["msg_type"] == "ack"
					}
				}
			})
		}
		asker.SendClose(1000, "")
	}
	for _, s := range nodes {
		knows(s)
	}
	where := map[*rolling]int{}
	for i, c := range clients {
		where[c] = i % 3
	}
	for round := range nodes {
		stops := nodes[round]
		stopped := make(chan error, 1)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		go func() { stopped <- stops.Shutdown(ctx) }()
		var late []*rolling
		for i, c := range clients {
			if where[c] != round {
				continue
			}
			c.until("reconnect")
			c.CloseNow()
			if i%2 == 0 {
				late = append(late, c)
				continue
			}
			c.returns(t, nodes[(round+1)%3])
			where[c] = (round + 1) % 3
		}
		if err := <-stopped; err != nil && !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
			t.Errorf("Shutdown: %v", err)
		}
		if _, err := nodes[(round+1)%3].Publish(t.Context(), hubbub.Publication{Room: "r", Content: round}); err != nil {
			t.Fatal(err)
		}
		for _, c := range late {
			c.returns(t, nodes[(round+2)%3])
			where[c] = (round + 2) % 3
		}
		nodes[round] = start()
		knows(nodes[round])
	}
	for i, c := range clients {
		got := map[any]bool{}
		for len(got) < len(nodes) {
			got[c.until("room_message")["content"]] = true
			if len(got) > len(nodes) {
				t.Errorf("client %d got %v", i, slices.Collect(maps.Keys(got)))
			}
		}
	}
}

// returns is how a client comes back to another node.
func (c *rolling) returns(t *testing.T, s *rawtest.Server) {
	t.Helper()
	was := c.welcome["client_id"]
	if !c.comes(t, s) || c.welcome["client_id"] != was {
		t.Fatalf("welcome %v, not session %v", c.welcome, was)
	}
	c.Text(fmt.Sprintf(`{"msg_type":"resume","rooms":{"r":{"epoch":%q,"offset":%v}},"id":2}`, c.at["epoch"], int64(c.at["offset"].(float64))))
	r := c.until("resumed")["rooms"].(map[string]any)["r"].(map[string]any)
	if r["recovered"] != true {
		t.Errorf("resumed %v", r)
	}
}
