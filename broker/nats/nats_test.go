package nats

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
)

func TestMain(m *testing.M) {
	askEvery, tellEvery = time.Second/2, 2*time.Second
	// A clustered server forgets now and then that a store has stopped, and keeps its clock's goroutine.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// One server, in the process: several nodes share it, as they do when it listens.
func TestEmbedded(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.System {
		s := startEmbedded(t)
		return brokertest.System{
			Node:   func() broker.Broker { return s.node(t) },
			Faults: []brokertest.Fault{{Name: "restarted on its folder", Inject: s.restart}},
			Wipe:   s.wipe,
		}
	})
}

// Three servers with three replicas, and nodes at each of them.
func TestThreeServers(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.System {
		c := startCluster(t, 3)
		return brokertest.System{
			Node: func() broker.Broker { return c.node() },
			Faults: []brokertest.Fault{
				{Name: "the first server restarted", Inject: func() { c.restart(0) }},
				{Name: "the second server restarted", Inject: func() { c.restart(1) }},
				{Name: "the third server restarted", Inject: func() { c.restart(2) }},
				{Name: "the streams' leader restarted", Inject: func() { c.restart(c.streamLeader()) }},
				{Name: "the meta leader restarted", Inject: func() { c.restart(c.metaLeader()) }},
				{Name: "leaders stepped down", Inject: c.stepDown},
				{Name: "connections cut", Inject: c.cut},
				{Name: "all servers restarted", Inject: func() { c.restart(0, 1, 2) }},
			},
			Wipe: c.wipe,
		}
	})
}

// Three stores with a secret and TLS, and nodes that have joined them.
func TestStores(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.System {
		files := testTLS(t)
		c := newStores(t, 3, func(s *Store) { s.TLS = files })
		c.startAll()
		return brokertest.System{
			Node: func() broker.Broker {
				b := c.join()
				ready(t, b)
				return b
			},
			Faults: []brokertest.Fault{
				{Name: "a store killed", Inject: func() { c.restart(0) }},
				{Name: "two stores killed", Inject: func() { c.restart(1, 2) }},
				{Name: "all stores restarted as planned", Inject: c.restartAsPlanned},
			},
			Wipe: c.wipe,
		}
	})
}
