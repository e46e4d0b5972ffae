package nats

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
)

// A store that was removed is refused while its folder is the old one: before it is among the others where they are there, else
// when they come. The others say which one it is. With an empty folder a store is in at the same address.
func TestRemovedStoreIsRefused(t *testing.T) {
	t.Parallel()
	c := newStores(t, 3)
	c.startAll()
	n := run(t, c.join())
	ready(t, n.Broker)
	r := testRoom("room")
	n.open(r)
	n.publish(r, "before", "")
	c.kill(2)
	cluster := c.configs[0].Cluster
	c.until("the store can be removed", func() bool { return cluster.Remove(t.Context(), "store2") == nil })
	n.publish(r, "after", "")

	if b, err := StartStore(c.configs[2], c.config()); !errors.Is(err, ErrRemoved) {
		if err == nil {
			b.Close()
		}
		t.Errorf("a store that was removed isn't refused: %v", err)
	}
	told := func() bool {
		o, err := n.Look(t.Context())
		return err == nil && slices.ContainsFunc(o.Problems, func(p string) bool {
			return strings.HasPrefix(p, "the store store2 ("+c.configs[2].Listen+") was removed") && strings.Contains(p, "give it an empty data-dir")
		})
	}
	c.until("the others say that it came back", told)

	c.kill(0)
	c.kill(1)
	c.start(2)
	late := c.brokers[2]
	c.brokers[2] = nil
	ended := make(chan error, 1)
	go func() {
		ended <- late.Run(context.Background(), &testNode{t: t, Broker: late, rooms: map[string]*seen{}})
	}()
	c.start(0)
	c.start(1)
	if err := <-ended; !errors.Is(err, ErrRemoved) || !errors.Is(late.Ready(), ErrRemoved) {
		t.Errorf("a store that was removed, and was there before the others, ends with %v, and says %v", err, late.Ready())
	}
	n.publish(r, "without it", "")
	c.until("it is removed once more, where the others have met it", func() bool {
		_ = cluster.Remove(t.Context(), "store2") // it may be none of them
		o, err := n.Look(t.Context())
		return err == nil && o.Leader != "" && !slices.ContainsFunc(o.Stores, func(s StoreState) bool { return s.Name == "store2" })
	})

	c.configs[2].Dir, c.configs[2].ID = filepath.Join(t.TempDir(), "log"), "new"
	c.startAll()
	c.well(n)
	if told() {
		t.Error("another store has come in its place, and it is told of still")
	}
	if s := n.sees(r.Name, "the last", hasLast("without it")); !slices.Equal(s.bodies, []string{"before", "after", "without it"}) || len(s.lost) > 0 {
		t.Errorf("a node has seen %v, lost %v", s.bodies, s.lost)
	}
}

// A store that the others keep isn't noted as removed, and what nobody knows the name of is noted by what NATS calls it.
func TestOnlyWhoIsRemovedIsNoted(t *testing.T) {
	t.Parallel()
	c := newStores(t, 3)
	c.startAll()
	b := c.brokers[0]
	away := 2
	if c.brokers[away].server.running().JetStreamIsLeader() {
		away = 1 // one that leads the others doesn't answer how it was removed
	}
	store := c.configs[away].ID
	conn, err := client.Connect(client.DefaultURL, client.InProcessServer(b.server), c.configs[0].login(forStores))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	noted := func(name string) (removed bool) {
		t.Helper()
		c.until("it is known whether "+name+" was removed", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), apiTimeout) // who led what nodes agree on may be the one that is removed
			defer cancel()
			err := c.configs[away].refusal(ctx, b.send, name)
			removed = errors.Is(err, ErrRemoved)
			return err == nil || removed
		})
		return removed
	}
	peer := c.brokers[away].server.running().Node()
	if _, err := removeNoted(t.Context(), conn, b.js, "nobody", 3); err == nil {
		t.Error("one that there isn't is removed")
	}
	lost, err := client.Connect(client.DefaultURL, client.InProcessServer(b.server), c.configs[0].login(forStores))
	if err != nil {
		t.Fatal(err)
	}
	lost.Close()
	if _, err := removeNoted(t.Context(), lost, b.js, store, 3); err == nil {
		t.Error("it is removed, though the question was lost")
	}
	if noted("nobody") || noted(store) || noted(peer) {
		t.Error("one is noted that wasn't removed")
	}
	if unnoted, err := removeNoted(t.Context(), conn, b.js, "Server name unknown at this time (peerID: "+peer+")", 3); unnoted != nil || err != nil {
		t.Errorf("it isn't removed: %v, %v", unnoted, err)
	}
	if !noted(peer) || noted(store) {
		t.Error("it isn't noted by what NATS calls it, or by more than that")
	}
}

// Of several stores that were removed, and try to come back, each is told of.
func TestEachRefusedStoreIsToldOf(t *testing.T) {
	t.Parallel()
	c := newStores(t, 1)
	c.startAll()
	b := c.brokers[0]
	ready(t, b)
	for _, id := range []string{"old-1", "old-2", "old-1"} {
		if err := note(t.Context(), b.js, removedKey+id, []byte("removed"), 1); err != nil {
			t.Fatal(err)
		}
		s := Store{Listen: id + ":7422", ID: id}
		if err := s.refusal(t.Context(), b.send, "other", id); !errors.Is(err, ErrRemoved) {
			t.Errorf("%s: %v", id, err)
		}
	}
	var o Overview
	o.mentionRefused(t.Context(), b.send)
	if len(o.Problems) != 2 || !strings.HasPrefix(o.Problems[0], "the store old-1 (old-1:7422) was removed") || !strings.HasPrefix(o.Problems[1], "the store old-2 (old-2:7422) was removed") {
		t.Errorf("it tells of %q", o.Problems)
	}
}

// Stores that are silent, as machines that are off, are waited for at the same time.
func TestSilentStoresAreAskedAtOnce(t *testing.T) {
	s := Store{Cluster: Cluster{Secret: testSecret, Join: []string{"127.0.0.1:1"}}, Listen: "127.0.0.1:1", ID: "store"}
	events := make(chan string, 4)
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		s.Join = append(s.Join, l.Addr().String())
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			events <- "begins"
			_, _ = c.Read(make([]byte, 1)) // until it is given up
			events <- "ends"
			c.Close()
		}()
	}
	e := &embedded{dir: t.TempDir(), store: &s}
	if err := os.MkdirAll(filepath.Join(e.dir, server.JetStreamStoreDir, server.DEFAULT_SYSTEM_ACCOUNT, "_js_", "_meta_"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := e.removed(); err != nil {
		t.Error(err)
	}
	got := []string{<-events, <-events, <-events, <-events}
	if want := []string{"begins", "begins", "ends", "ends"}; !slices.Equal(got, want) {
		t.Errorf("they were asked %q", got)
	}
}

// namesBy has names looked up at a name server that answers a question by this; nil: it is silent.
func namesBy(t *testing.T, answer func(question []byte) []byte) {
	t.Helper()
	s, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before; s.Close() })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.LocalAddr().String())
	}}
	go func() {
		for b := make([]byte, 1500); ; {
			n, from, err := s.ReadFrom(b)
			if err != nil {
				return
			}
			if answer != nil {
				_, _ = s.WriteTo(answer(b[:n]), from)
			}
		}
	}()
}

// A name server that says nothing holds up a store that starts for no longer than a silent store does.
func TestASilentNameServerIsNotWaitedFor(t *testing.T) {
	namesBy(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	e := &embedded{store: &Store{Cluster: Cluster{Secret: testSecret, Join: []string{"x"}}, ID: "store"}}
	ended := make(chan error, 1)
	go func() { ended <- e.removedSays(ctx, "store-b.example.:7422") }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("nobody was asked, and it says that it wasn't removed")
		}
	case <-time.After(4 * time.Second): // the resolver tries again after five
		t.Error("it waits for the name server still")
	}
}

// Of a name's addresses one is silent, which may come first or last: the other is asked.
func TestAStoreWithASilentAddressIsAsked(t *testing.T) {
	namesBy(t, func(question []byte) []byte {
		end := 12 // behind the head
		for question[end] != 0 {
			end += 1 + int(question[end])
		}
		end += 5
		a := append([]byte{question[0], question[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question[12:end]...)
		if question[end-3] == 1 { // an address of version 4
			a[7] = 2
			for last := range byte(2) {
				a = append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, last+1)
			}
		}
		return a
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan struct{}, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			asked <- struct{}{}
			c.Close()
		}
	}()
	address := net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: l.Addr().(*net.TCPAddr).Port}
	full, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(full)
	if err := syscall.Bind(full, &syscall.SockaddrInet4{Port: address.Port, Addr: [4]byte(address.IP.To4())}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(full, 0); err != nil {
		t.Fatal(err)
	}
	for silent := false; !silent; { // its queue is filled
		c, err := net.DialTimeout("tcp", address.String(), 300*time.Millisecond)
		if silent = err != nil; !silent {
			defer c.Close()
		}
	}
	e := &embedded{store: &Store{Cluster: Cluster{Secret: testSecret, Join: []string{"x"}}, ID: "store"}}
	for range cap(asked) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_ = e.removedSays(ctx, net.JoinHostPort("store-b.example.", strings.Split(l.Addr().String(), ":")[1])) // it is hung up on
		cancel()
		select {
		case <-asked:
		default:
			t.Fatal("only the silent address was tried")
		}
	}
}
