package nats

import (
	"flag"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
)

func TestMain(m *testing.M) {
	if os.Getenv(costly) == apart {
		flag.Parse()
		serveApart()
		return
	}
	if settings := os.Getenv(storeApart); settings != "" {
		serveStore(settings)
		return
	}
	flag.Parse()
	flag.Set("test.parallel", "2") // each has three servers, which elect nobody where the processors are too busy
	askEvery, bear, tellEvery = 2*time.Second, 3*time.Second, 2*time.Second
	// A clustered server that is stopped while it makes a log (setupMetaGroup, createRaftGroup: startRaftNode fails then)
	// forgets the log's store: its goroutine and that of its clock stay.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"))
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

// Three stores with a secret and TLS, and nodes that have joined them: the same stores for all stories.
func TestStores(t *testing.T) {
	files := testTLS(t)
	c := newStores(t, 3, func(s *Store) { s.TLS = files })
	c.startAll()
	brokertest.Run(t, func(t *testing.T) brokertest.System {
		c.t = t
		c.forget()
		return brokertest.System{
			Node: func() broker.Broker {
				b := c.join()
				ready(t, b)
				return b
			},
			Faults: []brokertest.Fault{
				{Name: "a store killed", Inject: func() { c.restart(0) }},
				{Name: "the streams' leader killed", Inject: func() { c.restart(c.streamLeader()) }},
				{Name: "the meta leader killed", Inject: func() { c.restart(c.metaLeader()) }},
				{Name: "leaders stepped down", Inject: c.stepDown},
				{Name: "connections cut", Inject: c.cut},
				{Name: "all stores killed", Inject: func() { c.restart(0, 1, 2) }},
				{Name: "all stores restarted as planned", Inject: c.restartAsPlanned},
			},
			Wipe: c.wipe,
		}
	})
}
