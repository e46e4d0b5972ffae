package nats

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"example.com/hubbub/broker"
)

// Credentials that are wrong for a while, since they are being replaced, aren't the end of a node.
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
	b, err := Dial("nats://hubbub:secret@"+net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Config{})
	if err != nil {
		t.Fatal(err)
	}
	n := run(t, b)
	n.meets(0)
	s = restart(s, "another")
	for until := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		v, err := s.Varz(nil)
		if err != nil {
			t.Fatal(err)
		}
		if v.TotalConnections >= 8 { // of two links
			break
		}
		if time.Now().After(until) {
			t.Fatalf("it has tried %d times, and no more", v.TotalConnections)
		}
	}
	restart(s, "secret")
	for until := time.Now().Add(patience); !n.Health().Up(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("it doesn't come back: %+v", n.Health())
		}
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
