package nats

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"example.com/hubbub/broker"
)

// Credentials that are wrong for a while, since they are being replaced, aren't the end of a node. It tries less and less
// often, and its log says once what is wrong.
func TestRefusedForAWhile(t *testing.T) {
	port, dir := freePorts(t, 1)[0], t.TempDir()
	start := func(password string) *server.Server {
		t.Helper()
		s, err := server.NewServer(&server.Options{
			Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir, Username: "hubbub", Password: password,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(s.WaitForShutdown)
		t.Cleanup(s.Shutdown)
		if !s.ReadyForConnections(patience / 4) {
			t.Fatal("the server doesn't start")
		}
		return s
	}
	restart := func(s *server.Server, password string) *server.Server {
		s.Shutdown()
		s.WaitForShutdown()
		return start(password)
	}
	s := start("secret")
	var log logged
	b, err := Dial("nats://hubbub:secret@"+net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	n := run(t, b)
	n.meets(0)
	s = restart(s, "another")
	refusing(t, s, 2)
	restart(s, "secret")
	for until := time.Now().Add(patience); !n.Health().Up(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("it doesn't come back: %+v", n.Health())
		}
	}
	if said := log.String(); strings.Count(said, "refuses the credentials") != 1 || strings.Count(said, "iolation") != 1 {
		t.Errorf("the log doesn't say what is wrong, once: %s", log.String())
	}
}

// So do nodes that have another secret than their stores, whether they have been let in before or not.
func TestAnotherSecret(t *testing.T) {
	t.Parallel()
	c := newStores(t, 1)
	c.start(0)
	var log logged
	logger := slog.New(slog.NewTextHandler(&log, nil))
	known, err := Join(c.configs[0].Cluster, Config{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	defer known.Close()
	ready(t, known)
	c.kill(0)
	c.configs[0].Secret += "!"
	c.start(0)
	refusing(t, c.brokers[0].server.running(), 2)
	other := c.configs[0].Cluster
	other.Secret += "?"
	stranger, err := Join(other, Config{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	const why = "a store refuses this node: it has another --cluster-secret or another --cluster-name"
	c.until("both say why", func() bool { return strings.Count(log.String(), `"`+why+`"`) == 2 })
	c.kill(0)
	c.configs[0].Secret = testSecret
	c.start(0)
	ready(t, known)
	if strings.Count(log.String(), `"`+why+`"`) != 2 || strings.Contains(log.String(), "violation") {
		t.Errorf("the log doesn't say what is wrong, once: %s", log.String())
	}
}

// refusing waits until a server has refused some links five times each. Their pauses add up to 3 s at least; half of that
// must have gone by, for other connections are counted, too. Did the pauses not grow, it would be 0.8 s at most.
func refusing(t *testing.T, s *server.Server, links uint64) {
	t.Helper()
	count := func() uint64 {
		v, err := s.Varz(nil)
		if err != nil {
			t.Fatal(err)
		}
		return v.TotalConnections
	}
	began, before := time.Now(), count()
	for ; count() < before+5*links; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("they have tried %d times, and no more", count()-before)
		}
	}
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("%d links have tried %d times in %v: their pauses don't grow", links, count()-before, took)
	}
}

// Who waits for a topic of a node that may not speak to others learns that it won't be one.
func TestTopicsOfANodeThatCantBegin(t *testing.T) {
	at := outside(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "secret", Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"hb.n1.>"}}}}}
	})
	b, err := Dial("nats://u:secret@"+at, Config{})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 2)
	b.Listen("before", func(err error) { told <- err })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Run(ctx, &testNode{t: t}); err == nil {
		t.Fatal("it runs")
	}
	b.Listen("after", func(err error) { told <- err })
	for range 2 {
		select {
		case err := <-told:
			if !errors.Is(err, broker.ErrUnavailable) {
				t.Errorf("the topic is ready: %v", err)
			}
		case <-time.After(patience / 4):
			t.Fatal("nobody says so")
		}
	}
}
