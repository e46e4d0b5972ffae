package hub

import (
	"testing"

	"example.com/hubbub/broker/brokertest"
)

// A node has died, and the others have yet to notice: who comes meanwhile waits for that.
func TestWhoComesBeforeADeathIsSeen(t *testing.T) {
	t.Parallel()
	nodes := nodesOf(t, brokertest.NewMemory(), 2, func(*Config) {})
	a, b := nodes[0], nodes[1]
	ann := a.comes("", "ann")
	tries, many := 0, make(chan struct{})
	b.losing(func(kind callKind) (question, answer bool) {
		if kind == callSession {
			if tries++; tries == 23 { // more than 2 s
				close(many)
			}
		}
		return true, false
	})
	came := make(chan *client)
	go func() { came <- b.comes(ann.token(), "ann") }()
	<-many
	a.dies(b)
	if back := <-came; back.id != ann.id || back.welcome["resumed"] != true {
		t.Errorf("it begins anew: %v", back.welcome)
	}
}

// The node to which a session was granted has died as well, and the one that grants it again sees that one still.
func TestGrantedAgain(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 3, func(*Config) {})
	a, b, c := nodes[0].h, nodes[1].h.cluster.id, nodes[2].h.cluster.id
	id := NewID()
	if to, err := a.grant(b, grantQuestion{ID: id, Gen: 1, Gone: nodeOf(id)}); to != b || err != nil {
		t.Errorf("it is granted to %v, %v", to, err)
	}
	if to, err := a.grant(c, grantQuestion{ID: id, Gen: 1, Gone: nodeOf(id)}); to != b || err != nil {
		t.Errorf("another one gets it as well: %v, %v", to, err)
	}
	if to, err := a.grant(c, grantQuestion{ID: id, Gen: 2, Gone: b}); to != c || err != nil {
		t.Errorf("nobody gets it: %v, %v", to, err)
	}
}
