package hub

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/rate"
)

// A user has as many connections as it may over all nodes, however many come at the same time; when one is gone another
// may come, on any node.
func TestConnectionsOfAUserOverAllNodes(t *testing.T) {
	const most = 5
	_, nodes := newNodes(t, 3, func(c *Config) { c.Limits.UserConnections, c.ResumeWindow = most, 0 })
	connect := func(n *node) *client {
		s, err := n.Admit(t.Context(), netip.Addr{}, "", auth.Identity{User: "ann"}, nil)
		if no := new(Limited); errors.As(err, &no) {
			return nil
		} else if err != nil {
			t.Error(err)
			return nil
		}
		return newSession(t, n.l, s)
	}
	taken := func() (n int) {
		for _, node := range nodes {
			n += node.limits.connections.all()
		}
		return n
	}
	for range 5 {
		var all sync.WaitGroup
		var in atomic.Int32
		clients := make(chan *client, 100)
		for i := range 30 {
			all.Go(func() {
				if c := connect(nodes[i%3]); c != nil {
					in.Add(1)
					clients <- c
				}
			})
		}
		all.Wait()
		if n := int(in.Load()); n > most || taken() != n {
			t.Fatalf("%d are in, %d are counted", n, taken())
		}
		for i := int(in.Load()); i < most; i++ { // who came at the same moment may have kept each other out
			c := connect(nodes[i%3])
			if c == nil {
				t.Fatalf("with %d of %d there one more is refused", i, most)
			}
			clients <- c
		}
		for _, n := range nodes {
			if connect(n) != nil {
				t.Fatalf("with %d there one more is let in", most)
			}
		}
		for range most {
			(<-clients).nc.Close()
		}
		until(t, "all are gone", func() bool { return taken() == 0 })
	}
}

// Who connects too often takes none of its user's connections, on any node.
func TestWhoConnectsTooOftenTakesNoConnection(t *testing.T) {
	_, nodes := newNodes(t, 2, func(c *Config) {
		c.Limits.UserConnections, c.ResumeWindow = 2, 0
		c.Limits.User[rate.Connects] = rate.Limit{N: 1, Per: rate.MaxPer, Burst: 1}
	})
	admit := func(n *node, limit string) {
		t.Helper()
		s, err := n.Admit(t.Context(), netip.Addr{}, "", auth.Identity{User: "ann"}, nil)
		no := new(Limited)
		switch {
		case errors.As(err, &no) && no.Limit == limit:
		case err != nil || limit != "":
			t.Fatalf("got %v, want %q", err, limit)
		default:
			newSession(t, n.l, s)
		}
	}
	admit(nodes[0], "")
	for range 3 {
		admit(nodes[0], "connects")
	}
	admit(nodes[1], "") // each node counts connects itself
	admit(nodes[1], "connections")
}
