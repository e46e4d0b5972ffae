package hub

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

// socketHub is a hub on a loop of one worker, whose clients come over TCP. Nothing in it, once it is set up, takes
// memory for the clients' side: what is allocated while a message is on its way is the server's.
type socketHub struct {
	t        testing.TB
	hub      *Hub
	loop     *loop.Loop
	listener net.Listener
	buf      []byte
}

func newSocketHub(t testing.TB) *socketHub {
	s := &socketHub{t: t, buf: make([]byte, 256<<10)}
	log := slog.New(slog.DiscardHandler)
	s.hub = New(Config{Dialects: speakRoom, Epoch: "e.", MaxRoomsPerClient: 40, MaxBufferedBytes: 1 << 30, MaxMessageBytes: 64 << 10, HookTimeout: time.Second, HookLimit: 10, DedupWindow: time.Minute, Policies: NewPolicies(Disconnect), Log: log})
	var err error
	s.loop, err = loop.New(loop.Config{
		Workers: 1, IO: loop.Auto, MaxMessageBytes: 64 << 10, SendQueueBytes: 1 << 20, MaxBufferedBytes: 1 << 30, SendQueueAge: time.Minute,
		PingInterval: 1000 * time.Hour, PongTimeout: time.Hour, Log: log,
	})
	s.must(err)
	s.hub.Start(s.loop)
	s.listener, err = net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	t.Cleanup(func() {
		s.listener.Close()
		s.loop.Stop(0)
		s.loop.Kill()
		s.loop.Wait()
		s.hub.Stop()
	})
	return s
}

func (s *socketHub) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// pair is a TCP connection: near is for the loop, far the client's.
func (s *socketHub) pair() (near, far net.Conn) {
	far, err := net.Dial("tcp", s.listener.Addr().String())
	s.must(err)
	s.t.Cleanup(func() { far.Close() })
	far.SetDeadline(time.Now().Add(10 * time.Minute)) // so that what is lost ends in a failure
	near, err = s.listener.Accept()
	s.must(err)
	return near, far
}

// adopt gives near to the loop; first is what the client said already.
func (s *socketHub) adopt(near net.Conn, h loop.Handler, first ...byte) {
	s.loop.Reserve(1 << 20)
	s.must(s.loop.Adopt(near, h, wire.Deflate{}, nil, first))
}

// read takes n bytes from a client's socket.
func (s *socketHub) read(far net.Conn, n int) {
	for n > 0 {
		got, err := far.Read(s.buf[:min(n, len(s.buf))])
		s.must(err)
		n -= got
	}
}

// readFrame takes one frame of 126 bytes to 64 KiB from a client's socket, and gives its length.
func (s *socketHub) readFrame(far net.Conn) int {
	s.read(far, 4)
	n := int(binary.BigEndian.Uint16(s.buf[2:]))
	s.read(far, n)
	return 4 + n
}

func masked(format string, args ...any) []byte {
	return wsclient.Append(nil, true, wsclient.Text, [4]byte{1, 2, 3, 4}, fmt.Appendf(nil, format, args...))
}

// fullRoom is a room of n members, and a client that publishes to it without being one of them.
type fullRoom struct {
	*socketHub
	publisher net.Conn
	fars      []net.Conn
	message   []byte
	bytes     int // of one message, on each of fars
}

// newFullRoom gives each member a socket of its own, or has share of them be duplicates of one, so that many need
// neither two descriptors nor a reader each: 500 at most, since the kernel allows no more ways from a socket to the
// runtime's epoll. What a write costs the server is real either way, but for what has to be fetched for each socket.
func newFullRoom(t testing.TB, members, share int) *fullRoom {
	r := &fullRoom{socketHub: newSocketHub(t), message: masked(`{"msg_type":"room_message","room":"full","content":"%s"}`, strings.Repeat("x", 128))}
	var shared *os.File
	for i := range members {
		var near net.Conn
		var err error
		if i%share == 0 {
			var far net.Conn
			near, far = r.pair()
			r.fars = append(r.fars, far)
			shared, err = near.(*net.TCPConn).File()
			r.must(err)
			defer shared.Close()
		} else {
			near, err = net.FileConn(shared)
			r.must(err)
		}
		r.adopt(near, r.session(), masked(`{"msg_type":"join_room","room":"full"}`)...)
		r.readFrame(r.fars[len(r.fars)-1]) // the welcome, which is written when the join is done too
	}
	near, far := r.pair()
	r.adopt(near, r.session())
	r.readFrame(far)
	r.publisher = far

	_, err := far.Write(r.message)
	r.must(err)
	each := r.readFrame(r.fars[0])
	r.bytes = each * members / len(r.fars)
	r.read(r.fars[0], r.bytes-each)
	for _, far := range r.fars[1:] {
		r.read(far, r.bytes)
	}
	return r
}

func (r *fullRoom) session() loop.Handler {
	return r.hub.Session(Identity{ID: NewID()}, netip.Addr{}, nil)
}

// publish returns when every member has the message.
func (r *fullRoom) publish() {
	_, err := r.publisher.Write(r.message)
	r.must(err)
	for _, far := range r.fars {
		r.read(far, r.bytes)
	}
}

// One message of a client to a room, from its write to the last member's read. With sockets=shared the reading is next
// to nothing; with sockets=own it is on another processor, if there is one. The allocations are the server's alone.
func BenchmarkRoomMessage(b *testing.B) {
	run := func(sockets string, members, share int) {
		b.Run(fmt.Sprintf("sockets=%s/members=%d", sockets, members), func(b *testing.B) {
			r := newFullRoom(b, members, share)
			b.ReportAllocs()
			for b.Loop() {
				r.publish()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*members), "ns/delivery")
		})
	}
	for _, members := range []int{1, 100, 1000, 10_000} {
		run("shared", members, 250)
	}
	run("own", 1000, 1)
}

// newcomers has sessions join a local, each be asked for at a delivery, and catch up.
func newcomers(t testing.TB, sessions []session) {
	l := &local{}
	for i := range sessions {
		l.add(&sessions[i], never)
	}
	for i := range sessions {
		if l.since(&sessions[i]) != never {
			t.Fatal("a newcomer isn't known")
		}
	}
	for i := range sessions {
		l.follow(&sessions[i], 1)
	}
	for i := range sessions {
		l.follow(&sessions[i], 0)
	}
	if len(l.fresh) != 0 {
		t.Fatal("who has caught up is still a newcomer")
	}
}

// Of 10,000 members who catch up each is found at once. Were it sought among the others, these rounds would take many
// minutes; so they take about a second.
func TestManyWhoCatchUpAreEachFoundAtOnce(t *testing.T) {
	const rounds = 500
	sessions := make([]session, 10_000)
	began := time.Now()
	for i := range rounds {
		if newcomers(t, sessions); time.Since(began) > 2*time.Minute {
			t.Fatalf("%d of %d rounds in two minutes", i+1, rounds)
		}
	}
}

// Members who all join behind messages that are on their way, or catch up, each asked for at a delivery: for one of
// them.
func BenchmarkNewcomers(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			sessions := make([]session, n)
			for b.Loop() {
				newcomers(b, sessions)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/member")
		})
	}
}

// A message to the echo and back.
func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{60, 16 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			e := newEchoClient(b, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				e.ask()
			}
		})
	}
}

// echoClient sends one message again and again.
type echoClient struct {
	*socketHub
	far     net.Conn
	message []byte
	bytes   int // of what comes back
}

func newEchoClient(t testing.TB, size int) *echoClient {
	e := &echoClient{socketHub: newSocketHub(t), message: masked("%s", strings.Repeat("x", size))}
	e.bytes = len(e.message) - 4 // what comes back has no masking key
	near, far := e.pair()
	e.adopt(near, Echo{})
	e.far = far
	return e
}

// ask returns when the message has come back.
func (e *echoClient) ask() {
	_, err := e.far.Write(e.message)
	e.must(err)
	e.read(e.far, e.bytes)
}
