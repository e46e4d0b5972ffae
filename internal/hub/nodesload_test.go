package hub

import (
	"context"
	"sync/atomic"
	"testing"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/glob"
)

// counting counts what a broker brings to a node of rooms.
type counting struct {
	broker.Broker
	brought atomic.Int64
}

type countingNode struct {
	broker.Node
	of *counting
}

func (c *counting) Run(ctx context.Context, n broker.Node) error {
	return c.Broker.Run(ctx, countingNode{n, c})
}

func (n countingNode) Deliver(room string, entries []broker.Entry) {
	n.of.brought.Add(int64(len(entries)))
	n.Node.Deliver(room, entries)
}

func (n countingNode) Heard(topic string, from broker.NodeID, body []byte) {
	if topic != "" {
		n.of.brought.Add(1)
	}
	n.Node.Heard(topic, from, body)
}

// A room whose members are all on one node doesn't load the others, though they publish to it: nothing of it is brought
// to them, whether it keeps a history or not.
func TestRoomsOfOneNodeDontLoadTheOthers(t *testing.T) {
	const many = 60
	policies := NewPolicies(Disconnect, Rule{glob.New("live"), Policy{}}, Rule{glob.New("full"), Policy{Presence: PresenceFull}})
	m := brokertest.NewMemory()
	var nodes []*node
	var brokers []*counting
	for range 3 {
		b := &counting{Broker: m.Broker()}
		n := &node{t: t, b: b}
		n.Hub, n.l = newHubOf(t, 2, func(c *Config) { c.Broker, c.Policies = b, policies })
		nodes, brokers = append(nodes, n), append(brokers, b)
	}
	know(t, nodes...)
	for _, room := range []string{"live", "full", "kept"} {
		member := newClient(t, nodes[0].Hub, nodes[0].l)
		member.joinsWith(room, "null")
		before := brokers[0].brought.Load()
		for i, n := range nodes {
			c := newClient(t, n.Hub, n.l)
			for k := range many {
				c.say(`{"msg_type":"room_message","room":%q,"content":%d,"id":%d}`, room, k, k+1)
			}
			c.answer(float64(many), func(map[string]any) {}) // the last ack
			for k := range many {
				got := member.next()
				for got["msg_type"] == "gap" && got["room"] == nil { // of chats: a node that comes can't know what was said before
					got = member.next()
				}
				if got["msg_type"] != "room_message" || got["content"] != float64(k) {
					t.Fatalf("%s: of node %d the member got %v as its message %d", room, i, got, k)
				}
			}
		}
		if got := brokers[0].brought.Load() - before; got < 2*many { // what is published there needn't be brought
			t.Errorf("%s: the members' node was brought %d messages", room, got)
		}
		for i, b := range brokers[1:] {
			if got := b.brought.Load(); got != 0 {
				t.Errorf("%s: node %d, where nobody is in it, was brought %d messages", room, i+1, got)
			}
		}
	}
}
