package nats

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
)

// testServer is a server in the process that can be started again: nodes connect to the one that is there.
type testServer struct {
	t   testing.TB
	dir string

	mu sync.Mutex
	e  *embedded
}

func startEmbedded(t testing.TB) *testServer {
	e := &testServer{t: t, dir: t.TempDir()}
	e.start()
	t.Cleanup(e.stop)
	return e
}

func (e *testServer) start() {
	s := &embedded{dir: e.dir}
	if err := s.start(); err != nil {
		e.t.Error(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.e = s
}

func (e *testServer) stop() { e.server().stop() }

func (e *testServer) server() *embedded {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.e
}

func (e *testServer) restart() {
	e.stop()
	e.start()
}

// wipe has it start with an empty folder.
func (e *testServer) wipe() {
	e.stop()
	if err := os.RemoveAll(e.dir); err != nil {
		e.t.Error(err)
	}
	e.start()
}

// InProcessConn implements client.InProcessConnProvider.
func (e *testServer) InProcessConn() (net.Conn, error) { return e.server().InProcessConn() }

func (e *testServer) node(t testing.TB) *Broker {
	b, err := connect(nil, Config{}, "", client.InProcessServer(e))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// gate lets one node to a server, or doesn't.
type gate struct {
	*testServer
	mu     sync.Mutex
	closed bool
	open   []net.Conn
	stall  chan struct{} // what is written waits for it; nil for nothing
	deaf   bool          // nothing that the server says arrives
}

// stalling is a connection of a gate.
type stalling struct {
	net.Conn
	g *gate
}

func (c stalling) Write(b []byte) (int, error) {
	c.g.mu.Lock()
	stall := c.g.stall
	c.g.mu.Unlock()
	if stall != nil {
		<-stall
	}
	return c.Conn.Write(b)
}

func (c stalling) Read(b []byte) (n int, err error) {
	for deaf := true; deaf && err == nil; {
		n, err = c.Conn.Read(b)
		c.g.mu.Lock()
		deaf = c.g.deaf
		c.g.mu.Unlock()
	}
	return n, err
}

func (g *gate) hears(what bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deaf = !what
}

func (g *gate) InProcessConn() (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, net.ErrClosed
	}
	c, err := g.testServer.InProcessConn()
	if err == nil {
		g.open = append(g.open, c)
	}
	return stalling{c, g}, err
}

// shut cuts what is open, too.
func (g *gate) shut(closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = closed
	for _, c := range g.open {
		_ = c.Close()
	}
	g.open = nil
}

// cluster is servers that form one, and can be started again.
type cluster struct {
	t       testing.TB
	options []*server.Options
	servers []*server.Server
	next    int
}

// startCluster starts servers that form a cluster, and waits for its leader. They end with the test.
func startCluster(t testing.TB, n int) *cluster {
	t.Helper()
	c := &cluster{t: t, servers: make([]*server.Server, n)}
	var routes []*url.URL
	ports := freePorts(t, 2*n)
	for i := range n {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", ports[i])})
	}
	for i := range n {
		c.options = append(c.options, &server.Options{
			ServerName: fmt.Sprint("s", i), Host: "127.0.0.1", Port: ports[n+i], NoSigs: true,
			JetStream: true, StoreDir: t.TempDir(), MaxPayload: maxPayload,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[i]},
			Routes:  routes,
		})
		c.start(i)
	}
	t.Cleanup(func() {
		for i := range n {
			c.stop(i)
		}
	})
	c.ready()
	return c
}

// freePorts are ports that nobody has.
func freePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func (c *cluster) start(i int) {
	options := *c.options[i] // a server changes them
	s, err := server.NewServer(&options)
	if err != nil {
		c.t.Error(err)
		return
	}
	s.Start()
	c.servers[i] = s
}

func (c *cluster) stop(i int) {
	c.servers[i].Shutdown()
	c.servers[i].WaitForShutdown()
}

// ready waits until all servers know each other and follow a leader.
func (c *cluster) ready() {
	c.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		ready, led := 0, false
		for _, s := range c.servers {
			led = led || s.JetStreamIsLeader()
			if s.ReadyForConnections(time.Second) && s.JetStreamIsCurrent() {
				ready++
			}
		}
		if ready == len(c.servers) && led {
			return
		}
		if time.Now().After(deadline) {
			c.t.Error("the servers find no leader")
			return
		}
	}
}

// streams are the names of those that are there.
func (c *cluster) streams() (names []string) {
	info, err := c.servers[0].Jsz(&server.JSzOptions{Accounts: true, Streams: true})
	if err != nil {
		c.t.Error(err)
		return nil
	}
	for _, account := range info.AccountDetails {
		for _, st := range account.Streams {
			names = append(names, st.Name)
		}
	}
	return names
}

// stepDown has each stream choose another leader, five times.
func (c *cluster) stepDown() {
	conn, err := client.Connect(c.servers[0].ClientURL())
	if err != nil {
		c.t.Error(err)
		return
	}
	defer conn.Close()
	for range 5 {
		for _, name := range c.streams() {
			if _, err := conn.Request("$JS.API.STREAM.LEADER.STEPDOWN."+name, nil, 5*time.Second); err != nil {
				c.t.Log(err)
			}
		}
		time.Sleep(100 * time.Millisecond) // publishers go on between
	}
	c.ready()
}

// node connects to the next server.
func (c *cluster) node() *Broker {
	b, err := Dial(c.servers[c.next%len(c.servers)].ClientURL(), Config{Replicas: len(c.servers)})
	if err != nil {
		c.t.Fatal(err)
	}
	c.next++
	return b
}
