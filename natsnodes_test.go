package hubbub_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// startNATS runs a NATS server, as an operator does who has one, and gives its URL.
func startNATS(t *testing.T, jetStream bool) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: jetStream, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(rawtest.Patience) {
		t.Fatal("NATS doesn't start")
	}
	return s.ClientURL()
}

// Nodes with NATS of the operator's own, and no secret: one log for each room, tokens that any of them takes, and one set of
// policies.
func TestNodesOverNATS(t *testing.T) {
	t.Parallel()
	url := startNATS(t, true)
	cfg := hubbub.Config{NATS: hubbub.NATS{URLs: []string{url}}, Rooms: []hubbub.RoomPolicy{{Match: "a"}}}
	var nodes []*rawtest.Server
	for range 2 {
		s := rawtest.Start(t, cfg)
		rawtest.Eventually(t, "the node is ready", func() bool { return isReady(s) })
		nodes = append(nodes, s)
	}
	c := rawtest.Dial(t, nodes[1], "/ws")
	welcome := c.NextJSON()
	c.Text(`{"msg_type":"join_room","room":"r","id":1}`)
	joined := nextButGaps(c)
	at, err := nodes[0].Publish(t.Context(), hubbub.Publication{Room: "r", Content: 1})
	if err != nil || at.Epoch != joined["epoch"] {
		t.Fatalf("published at %+v, %v; the member has %v", at, err, joined)
	}
	if m := nextButGaps(c); m["content"] != float64(1) {
		t.Errorf("got %v", m)
	}
	c.CloseNow()
	rawtest.Eventually(t, "the session is parked", func() bool { return nodes[1].Info().Parked == 1 })
	c = rawtest.Dial(t, nodes[0], "/ws?resume="+welcome["resume_token"].(string))
	if m := c.NextJSON(); m["resumed"] != true || m["client_id"] != welcome["client_id"] {
		t.Errorf("resumed on the other node: %v", m)
	}

	other := cfg
	other.Cluster.Name = "another"
	if _, err := hubbub.New(other); err == nil || !strings.Contains(err.Error(), `cluster "hubbub"`) {
		t.Errorf("another cluster with the same account: %v", err)
	}
	other = cfg
	other.Rooms = []hubbub.RoomPolicy{{Match: "b"}}
	s, err := hubbub.New(other)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err == nil || !strings.Contains(err.Error(), `rooms[0] (match "b") is another one there`) {
		t.Errorf("with other policies Serve returns %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// What keeps NATS from being of use is said at the start.
func TestNATSThatIsOfNoUse(t *testing.T) {
	without := startNATS(t, false)
	if _, err := hubbub.New(hubbub.Config{NATS: hubbub.NATS{URLs: []string{without}}}); err == nil || !strings.Contains(err.Error(), "has no JetStream") {
		t.Errorf("without JetStream: %v", err)
	}
	nobody := "nats://me:password@" + freePair(t)
	if _, err := hubbub.New(hubbub.Config{NATS: hubbub.NATS{URLs: []string{nobody}}}); err == nil || strings.Contains(err.Error(), "password") {
		t.Errorf("where nobody listens: %v", err)
	}
}
