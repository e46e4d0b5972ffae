package nats

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// wire passes on what a route between two servers says, until it is cut.
type wire struct {
	net.Listener
	to string

	mu   sync.Mutex
	down bool
	open []net.Conn
	over sync.WaitGroup
}

func newWire(t *testing.T, to string) *wire {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l, to: to}
	w.over.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.connect(c)
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.cut(true)
		w.over.Wait()
	})
	return w
}

func (w *wire) connect(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	other, err := net.Dial("tcp", w.to)
	if err != nil || w.down {
		_ = c.Close()
		if err == nil {
			_ = other.Close()
		}
		return
	}
	w.open = append(w.open, c, other)
	for _, ends := range [][2]net.Conn{{c, other}, {other, c}} {
		w.over.Go(func() {
			_, _ = io.Copy(ends[0], ends[1])
			_ = ends[0].Close()
		})
	}
}

func (w *wire) cut(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
	for _, c := range w.open {
		_ = c.Close()
	}
	w.open = nil
}

// A route between two servers breaks and is back at once: no node's connection was lost, and yet some words are. They are
// missed, also where none follows.
func TestRouteLoses(t *testing.T) {
	ports := freePorts(t, 4)
	at := func(port int) string { return fmt.Sprint("127.0.0.1:", port) }
	w := newWire(t, at(ports[0]))
	var servers []*server.Server
	for i, route := range []string{at(ports[0]), w.Addr().String()} {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("s", i), Host: "127.0.0.1", Port: ports[2+i], NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
			Cluster: server.ClusterOpts{Name: "routes", Host: "127.0.0.1", Port: ports[i], PoolSize: -1}, Routes: []*url.URL{{Scheme: "nats", Host: route}},
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
	(&cluster{t: t, servers: servers}).ready()
	var nodes []*testNode
	for _, s := range servers {
		b, err := Dial(s.ClientURL(), Config{})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, run(t, b))
	}
	teller, listener := nodes[0], nodes[1]
	teller.meets(1)
	listener.meets(1)
	listener.listen("a")
	for _, down := range []time.Duration{0, 500 * time.Millisecond} {
		w.cut(true)
		time.Sleep(down)
		w.cut(false)
		if err := teller.Tell("a", []byte("lost")); err != nil { // it has no way to the other server yet
			t.Fatal(err)
		}
		listener.until("it is missed", func(o *others) bool {
			if slices.Contains(o.heard, "a: lost") {
				t.Log("the route was quicker: nothing is lost")
				return true
			}
			return slices.Contains(o.heard, "a missed")
		})
		teller.meets(1)
		listener.meets(1)
		if err := teller.Tell("a", []byte("heard")); err != nil {
			t.Fatal(err)
		}
		listener.until("the next is heard", func(o *others) bool { return slices.Contains(o.heard, "a: heard") })
		listener.others.mu.Lock()
		t.Log(listener.heard, listener.Health().Links[1].Reconnects)
		listener.heard = nil
		listener.others.mu.Unlock()
	}
	for i, n := range nodes {
		if h := n.Health(); h.Links[0].Reconnects+h.Links[1].Reconnects > 0 {
			t.Errorf("node %d has lost a connection: %+v", i, h)
		}
	}
}
