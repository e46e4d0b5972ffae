package nats

import (
	"errors"
	"testing"

	client "github.com/nats-io/nats.go"
)

// A store that hears of none of the others any more isn't ready: what they send may be dropped on its way, which its own
// server would take for silence. With one of two it is, and other nodes don't count.
func TestAloneStoreIsNotReady(t *testing.T) {
	t.Parallel()
	e := startEmbedded(t)
	b := newBroker(nil, Config{})
	b.stores = &stores{b: b, own: "a", others: []string{"b", "c"}}
	if _, err := b.connected("", client.InProcessServer(e)); err != nil {
		t.Fatal(err)
	}
	first, second, node := newPuppet(t, e), newPuppet(t, e), newPuppet(t, e)
	n := run(t, b)
	n.meets(0)
	alone := func(want bool) {
		t.Helper()
		if err := n.Ready(); errors.Is(err, errNoLeader) != want {
			t.Errorf("Ready says %v", err)
		}
		if h := n.Health(); h.Cut != want || !h.Up() {
			t.Errorf("cut off: %t, the links are up: %t", h.Cut, h.Up())
		}
	}
	alone(true)
	first.beat(storeFlag, nil)
	node.beat(0, nil)
	n.meets(2)
	alone(false)
	second.beat(storeFlag, nil)
	n.meets(3)
	first.beat(storeFlag|byeFlag, nil)
	n.meets(2)
	alone(false)
	node.beat(0, nil)
	n.meets(0) // nothing comes of them any more
	alone(true)
	second.beat(0, nil) // a beat's further part
	second.beat(storeFlag, nil)
	n.meets(1)
	n.until("it is ready again", func(*others) bool { return n.Ready() == nil })
}
