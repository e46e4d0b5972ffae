//go:build unix

package hubbub_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

var fanoutMembers = flag.Int("members", 1000, "how many members the room of BenchmarkFanout has")

// BenchmarkFanout publishes to a room, one message an operation, in a closed loop: window of them are under way at
// once, and one is done when its last receiver has it. This process is the server and a child all the clients, so what
// is reported is the server's alone: allocations, and
//
//	cpu-ns/delivery  processor time, the kernel's included, for each message that a member received
//	messages/write   how many of these shared a write: by chance twice as many in one run as in the next, so compare the
//	                 processor time of two kinds only where it is the same
//	p50-ns, p99-ns   from the publish to the arrival at a member that reads
//
// Kinds:
//
//	plain       what the others are compared with, at the same size and window
//	tls         every client on TLS 1.3
//	compressed  every client with permessage-deflate
//	stalled     one more member never reads; its socket is full when the measurement begins, and when it is closed
//	            as a slow consumer it comes back
//	workers2    two workers, the others have one; only with -cpu 1 do they share a processor
//
// To see each kind beside plain, in turns, since -count would repeat one kind before it begins with the next:
//
//	for i in $(seq 9); do go test -run '^$' -bench Fanout -cpu 1 . -members 1000; done > fanout.txt
//	go run golang.org/x/perf/cmd/benchstat@latest -col /kind fanout.txt
func BenchmarkFanout(b *testing.B) {
	for _, size := range []int{128, 2048} {
		benchFanout(b, "plain", fleetConfig{Size: size}, hubbub.Config{})
	}
	benchFanout(b, "tls", fleetConfig{Size: 128, TLS: true}, hubbub.Config{})
	benchFanout(b, "stalled", fleetConfig{Size: 128, Stalled: true}, hubbub.Config{})
	benchFanout(b, "workers2", fleetConfig{Size: 128}, hubbub.Config{Workers: 2})
	benchFanout(b, "compressed", fleetConfig{Size: 2048, Compressed: true}, hubbub.Config{})
}

// BenchmarkIdle is what idle clients take: B/connection is the live heap of a server with 3,000 of them, which are in a
// room and have said nothing since, for each.
//
//	go test -run '^$' -bench Idle -benchtime 1x .
func BenchmarkIdle(b *testing.B) {
	const clients = 3000
	for _, secure := range []bool{false, true} {
		b.Run(fmt.Sprintf("tls=%v", secure), func(b *testing.B) {
			cfg := hubbub.Config{Workers: 1, MaxConnections: 2 * clients}
			start := func() *rawtest.Server { return rawtest.Start(b, cfg) }
			if secure {
				start = func() *rawtest.Server { s, _, _ := startTLS(b, cfg); return s }
			}
			s := start()
			before := liveHeap()
			startFleet(b, fleetConfig{Addr: s.Addr, Members: clients, TLS: secure})
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(liveHeap()-before)/clients, "B/connection")
		})
	}
}

func liveHeap() uint64 {
	for range 3 { // pools let go at the second
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func benchFanout(b *testing.B, kind string, fc fleetConfig, cfg hubbub.Config) {
	b.Run(fmt.Sprintf("kind=%s/size=%d", kind, fc.Size), func(b *testing.B) {
		if cfg.Workers == 0 {
			cfg.Workers = 1
		}
		start := func() *rawtest.Server { return rawtest.Start(b, cfg) }
		if fc.TLS {
			start = func() *rawtest.Server { s, _, _ := startTLS(b, cfg); return s }
		}
		s := start()
		fc.Addr, fc.Members = s.Addr, *fanoutMembers
		f := startFleet(b, fc)
		for _, window := range []int{1, 16} {
			b.Run(fmt.Sprintf("window=%d", window), func(b *testing.B) {
				if fc.Stalled {
					fillStalled(b, s)
				}
				f.publish(window, window) // lists grow to what the load needs
				b.ReportAllocs()
				b.ResetTimer()
				writes := hubbub.Writes(s.Server)
				before := processorTime(b)
				got := f.publish(b.N, window)
				spent := processorTime(b) - before
				b.ReportMetric(float64(spent)/float64(b.N*fc.Members), "cpu-ns/delivery")
				b.ReportMetric(float64(b.N*fc.Members)/float64(hubbub.Writes(s.Server)-writes), "messages/write")
				b.ReportMetric(float64(got.P50), "p50-ns")
				b.ReportMetric(float64(got.P99), "p99-ns")
			})
		}
	})
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// fillStalled sends to the member that doesn't read, alone, until its socket takes no more.
func fillStalled(b *testing.B, s *rawtest.Server) {
	content := strings.Repeat("x", 32<<10)
	rawtest.Eventually(b, "the socket of the stalled member is full", func() bool {
		if scrape(b, s)["hubbub_buffered_bytes"] > 0 {
			return true
		}
		if err := rawtest.Publish(s, stalledRoom, content); err != nil {
			b.Fatal(err)
		}
		return false
	})
}

// fleet is the child that has the clients.
type fleet struct {
	b     *testing.B
	tasks *json.Encoder
	done  *json.Decoder
}

// fleetConfig says what the clients are like.
type fleetConfig struct {
	Addr                     string
	Members, Size            int // Size in bytes, of a message's content
	TLS, Compressed, Stalled bool
}

// fleetTask has the child publish, in all and at once.
type fleetTask struct{ Messages, Window int }

// fleetResult is what it measured.
type fleetResult struct{ P50, P99 time.Duration }

// fleetVariable is in the child's environment, and holds its fleetConfig.
const fleetVariable = "HUBBUB_TEST_FLEET"

// startFleet returns when all are members. The child ends with the benchmark, or with this process.
func startFleet(b *testing.B, fc fleetConfig) *fleet {
	b.Helper()
	text, err := json.Marshal(fc)
	if err != nil {
		b.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	child := exec.Command(exe)
	child.Env = append(os.Environ(), fleetVariable+"="+string(text), "GOMAXPROCS=1")
	child.Stderr = os.Stderr
	in, err1 := child.StdinPipe()
	out, err2 := child.StdoutPipe()
	if err := errors.Join(err1, err2, child.Start()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := child.Wait(); err != nil {
			b.Errorf("the clients' process: %v", err)
		}
	})
	f := &fleet{b, json.NewEncoder(in), json.NewDecoder(out)}
	f.publish(0, 1)
	return f
}

func (f *fleet) publish(messages, window int) (got fleetResult) {
	f.b.Helper()
	if err := errors.Join(f.tasks.Encode(fleetTask{messages, window}), f.done.Decode(&got)); err != nil {
		f.b.Fatalf("the clients' process: %v", err)
	}
	return got
}

// What follows is the child's side. It runs before the tests would.
func init() {
	text, ok := os.LookupEnv(fleetVariable)
	if !ok {
		return
	}
	var c clients
	err := json.Unmarshal([]byte(text), &c.fleetConfig)
	if err == nil {
		err = c.run()
	}
	if err != nil {
		c.fail(err)
	}
	os.Exit(0)
}

// fleetRoom has all members; in stalledRoom is the one that doesn't read, so that it can be written to alone.
const fleetRoom, stalledRoom = "fleet", "stalled"

// publishers take turns. They are spread over the workers, as the publishers of a room are: all that one connection
// publishes is read by one worker, which then writes it with few writes, however many there are.
const publishers = 16

type clients struct {
	fleetConfig
	publishers []net.Conn
	sessions   tls.ClientSessionCache
	measured   atomic.Pointer[measurement]
}

// measurement is of one task. What is received is told apart by its order, which is the same for all: message i of the
// task is every member's first+i-th. Of those under way at once another may have been taken first, so that one latency is
// a little too long and another too short.
type measurement struct {
	first   int
	sent    []atomic.Int64 // when each was published, nanoseconds
	missing []atomic.Int32 // how many members lack each
	latency []uint32       // nanoseconds, of each delivery
	done    chan struct{}  // a token for each message that all have
}

var began = time.Now()

func (c *clients) fail(err error) {
	fmt.Fprintln(os.Stderr, "BenchmarkFanout, clients:", err)
	os.Exit(1)
}

func (c *clients) run() error {
	c.sessions = tls.NewLRUClientSessionCache(1)
	for range c.Members {
		_, r, err := c.dial(fleetRoom)
		if err != nil {
			return err
		}
		go c.receive(r)
	}
	if c.Stalled {
		go c.stall()
	}
	for range publishers {
		publisher, r, err := c.dial()
		if err != nil {
			return err
		}
		go io.Copy(io.Discard, r)
		c.publishers = append(c.publishers, publisher)
	}
	content := strings.Repeat("All work and no play makes Jack a dull boy. ", c.Size/44+1)[:c.Size]
	message := rawtest.Frame(wsclient.Text, true, []byte(`{"msg_type":"room_message","room":"`+fleetRoom+`","content":"`+content+`"}`))

	published := 0
	tasks, done := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var t fleetTask
		if tasks.Decode(&t) != nil { // the benchmark is over
			return nil
		}
		got, err := c.publish(message, published, t)
		if err != nil {
			return err
		}
		published += t.Messages
		if err := done.Encode(got); err != nil {
			return err
		}
	}
}

func (c *clients) publish(message []byte, first int, t fleetTask) (fleetResult, error) {
	m := &measurement{
		first: first, sent: make([]atomic.Int64, t.Messages), missing: make([]atomic.Int32, t.Messages),
		latency: make([]uint32, t.Messages*c.Members), done: make(chan struct{}, t.Window),
	}
	for i := range m.missing {
		m.missing[i].Store(int32(c.Members))
	}
	c.measured.Store(m)
	for i := range t.Messages {
		if i >= t.Window {
			<-m.done
		}
		m.sent[i].Store(int64(time.Since(began)))
		if _, err := c.publishers[i%publishers].Write(message); err != nil {
			return fleetResult{}, err
		}
	}
	for range min(t.Messages, t.Window) {
		<-m.done
	}
	slices.Sort(m.latency)
	at := func(percent int) (d time.Duration) {
		if n := len(m.latency); n > 0 {
			d = time.Duration(m.latency[n*percent/100])
		}
		return d
	}
	return fleetResult{at(50), at(99)}, nil
}

// receive is a member that reads as fast as it can.
func (c *clients) receive(r *bufio.Reader) {
	for n := 0; ; n++ {
		compressed, err := skipMessage(r)
		if err == nil && compressed != c.Compressed {
			err = fmt.Errorf("a message is compressed: %v, want %v", compressed, c.Compressed)
		}
		if err != nil {
			c.fail(err)
		}
		m := c.measured.Load()
		i := n - m.first
		took := int64(time.Since(began)) - m.sent[i].Load()
		left := int(m.missing[i].Add(-1))
		m.latency[i*c.Members+left] = uint32(min(took, 1<<32-1))
		if left == 0 {
			m.done <- struct{}{}
		}
	}
}

// stall is a member that never reads. When the server has closed its connection it comes back.
func (c *clients) stall() {
	for {
		nc, _, err := c.dial(fleetRoom, stalledRoom)
		if err != nil {
			c.fail(err)
		}
		raw, err := nc.(*net.TCPConn).SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) {
				for n := 0; n == 0; { // a hang-up is told also to who asks for nothing
					n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, -1)
				}
			})
		}
		if err != nil {
			c.fail(err)
		}
		nc.Close()
	}
}

// dial makes a client that is in rooms, and has read all that it was sent.
func (c *clients) dial(rooms ...string) (net.Conn, *bufio.Reader, error) {
	nc, err := net.Dial("tcp", c.Addr)
	if err != nil {
		return nil, nil, err
	}
	if c.TLS {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, ClientSessionCache: c.sessions, ServerName: "fleet"})
	}
	var extra []string
	if c.Compressed {
		extra = append(extra, "Sec-WebSocket-Extensions: permessage-deflate")
	}
	out := []byte(wsclient.Upgrade(c.Addr, "/ws", extra...))
	for _, room := range rooms {
		out = append(out, rawtest.Frame(wsclient.Text, true, []byte(`{"msg_type":"join_room","room":"`+room+`","id":1}`))...)
	}
	if _, err := nc.Write(out); err != nil {
		return nil, nil, err
	}
	r := bufio.NewReader(nc)
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return nil, nil, fmt.Errorf("upgrade: %s", answer.Status)
	}
	for range 1 + len(rooms) { // welcome, and joined
		if _, err := skipMessage(r); err != nil {
			return nil, nil, err
		}
	}
	return nc, r, nil
}

// maxHead is the longest head of a server's frame.
const maxHead = 10

// skipMessage reads past the next message and says whether it was compressed.
func skipMessage(r *bufio.Reader) (compressed bool, err error) {
	for {
		f, size := wsclient.Frame{}, 2
		for n := 0; n < min(size, maxHead); { // until the head is there, or the frame if that is shorter
			n = min(size, maxHead)
			head, err := r.Peek(n)
			if err == nil {
				f, size, err = wsclient.Parse(head, 1<<30)
			}
			if err != nil {
				return false, err
			}
		}
		if _, err := r.Discard(size); err != nil {
			return false, err
		}
		switch f.Op {
		case wsclient.Close:
			return false, errors.New("the server closed a connection")
		case wsclient.Text:
			return f.Deflated, nil
		}
	}
}
