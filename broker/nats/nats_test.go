package nats

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
)

func TestMain(m *testing.M) {
	// A clustered server forgets now and then that a store has stopped, and keeps its clock's goroutine.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// One server, in the process: several nodes share it, as they do when it listens.
func TestEmbedded(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) func() broker.Broker {
		s := &embedded{dir: t.TempDir()}
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.stop)
		return func() broker.Broker {
			b, err := connect(nil, Config{}, "", client.InProcessServer(s))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	})
}

// Three servers with three replicas, and nodes at each of them.
func TestThreeServers(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) func() broker.Broker {
		servers := startCluster(t, 3)
		next := 0
		return func() broker.Broker {
			s := servers[next%len(servers)]
			next++
			b, err := Dial(s.ClientURL(), Config{Replicas: 3})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	})
}

// startCluster starts servers that form a cluster, and waits for its leader. They end with the test.
func startCluster(t *testing.T, n int) (servers []*server.Server) {
	t.Helper()
	var routes []*url.URL
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		ports = append(ports, port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
		l.Close()
	}
	for i := range n {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("s", i), Host: "127.0.0.1", Port: -1, NoSigs: true,
			JetStream: true, StoreDir: t.TempDir(), MaxPayload: maxPayload,
			Cluster: server.ClusterOpts{Name: strings.ReplaceAll(t.Name(), " ", "_"), Host: "127.0.0.1", Port: ports[i]},
			Routes:  routes,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
		servers = append(servers, s)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		ready, led := 0, false
		for _, s := range servers {
			led = led || s.JetStreamIsLeader()
			if s.ReadyForConnections(time.Second) && s.JetStreamIsCurrent() {
				ready++
			}
		}
		if ready == n && led {
			return servers
		}
		if time.Now().After(deadline) {
			t.Fatal("the servers find no leader")
		}
	}
}
