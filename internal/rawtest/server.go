// Package rawtest is a Server on the loopback for tests, and a WebSocket client that knows its bytes and nothing else:
// it holds every frame of the server against RFC 6455, and fails its test where one isn't as it should be. Frames are
// internal/wsclient's.
//
//	func TestMain(m *testing.M) { rawtest.Main(m) }
//
//	s := rawtest.Start(t, hubbub.Config{})
//	c := rawtest.Dial(t, s, "/echo")
//	c.Text("hello")
//	c.Expect(wsclient.Text, []byte("hello"))
//	c.SendClose(1000, "")
//	c.ExpectClose(1000)
//
// For clients that speak the room protocol, and for lines that break, there is hubbubtest.
package rawtest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/hubbub"
	"example.com/hubbub/internal/audit"
)

// Patience is how long a test waits for what must come: so long that a busy machine is no reason to fail.
const Patience = 2 * time.Minute

// ofNATS are goroutines that a NATS server forgets, see TestMain of broker/nats. One that nobody stops has others, too.
var ofNATS = []goleak.Option{
	goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
}

// Main runs a package's tests, and fails them if a goroutine or a descriptor is left.
func Main(m *testing.M) {
	code := m.Run()
	if code == 0 && !fuzzing() {
		if err := errors.Join(goleak.Find(ofNATS...), leakedDescriptors()); err != nil {
			fmt.Fprintln(os.Stderr, "after all tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// fuzzing says whether this process fuzzes; then the goroutines of package testing live on.
func fuzzing() bool {
	f := flag.Lookup("test.fuzz")
	return f != nil && f.Value.String() != ""
}

// leakedDescriptors finds what is still open, but for the epoll and the eventfd of the runtime itself.
func leakedDescriptors() error {
	if runtime.GOOS != "linux" {
		return nil
	}
	var err error
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		open := map[string]int{}
		list, _ := os.ReadDir("/proc/self/fd")
		for _, e := range list {
			if name, e := os.Readlink("/proc/self/fd/" + e.Name()); e == nil {
				if strings.HasPrefix(name, "socket:[") { // and a number
					name = "socket"
				}
				open[name]++
			}
		}
		sockets, polls := open["socket"], open["anon_inode:[eventpoll]"]
		if sockets == 0 && polls <= 1 && open["anon_inode:[eventfd]"] <= 1 && open["anon_inode:[io_uring]"] == 0 {
			return nil
		}
		err = fmt.Errorf("descriptors are still open: %v", open)
	}
	return err
}

// EachIO runs a test once for each way of reading and writing connections, with -short for the first that the system has:
// the loop's own tests know the others.
func EachIO(t *testing.T, test func(t *testing.T, io string)) {
	t.Helper()
	for _, io := range []string{"epoll", "uring", "pump"} {
		if (hubbub.Config{IO: io}).Validate() != nil {
			continue
		}
		t.Run(io, func(t *testing.T) { test(t, io) })
		if testing.Short() {
			return
		}
	}
}

// Looks are the times to look whether something has come, until Patience is over. They come less often as time goes on:
// some ask a server for a handshake each time.
func Looks(look func() bool) {
	pause := time.Millisecond
	for deadline := time.Now().Add(Patience); look() && time.Now().Before(deadline); time.Sleep(pause) {
		pause = min(pause*5/4, 20*time.Millisecond)
	}
}

// Eventually waits for a condition.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for range Looks {
		if holds() {
			return
		}
	}
	t.Fatalf("not after %s: %s", Patience, what)
}

// Server is a Server that listens on the loopback.
type Server struct {
	*hubbub.Server
	Addr string
	Log  *Log
	cfg  hubbub.Config
}

// Logger is the one that it was started with, for a reload.
func (s *Server) Logger() *slog.Logger { return s.cfg.Logger }

// Settings are its workers, and how it reads and writes.
func (s *Server) Settings() (workers int, io string) { return s.cfg.Workers, s.cfg.IO }

// Start serves until the test ends; a panic in the server fails the test. Without a PingInterval there are no pings, or
// one would come among the frames that a test expects.
func Start(t testing.TB, cfg hubbub.Config) *Server {
	t.Helper()
	return StartOn(t, cfg, func(*slog.Logger) (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") })
}

// StartOn is Start on a listener of the test's own.
func StartOn(t testing.TB, cfg hubbub.Config, listen func(log *slog.Logger) (net.Listener, error)) *Server {
	t.Helper()
	s := &Server{Log: &Log{}}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(s.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if cfg.PingInterval == 0 {
		cfg.PingInterval = 24 * time.Hour // the most there may be: the first is due at any time in it
	}
	server, err := hubbub.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen(cfg.Logger)
	if err != nil {
		t.Fatal(err)
	}
	s.Server, s.Addr, s.cfg = server, l.Addr().String(), cfg
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		s.checkAccounts(t)
		ctx, cancel := context.WithTimeout(context.Background(), 2*Patience)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		s.CheckLog(t)
	})
	return s
}

// checkAccounts waits until all that the server counts is what is there: what a test leaves behind may be under way still.
func (s *Server) checkAccounts(t testing.TB) {
	t.Helper()
	var faults []string
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if faults = audit.Server(s.Server); len(faults) == 0 {
			return
		}
	}
	t.Errorf("the server's accounts don't fit: %s", strings.Join(faults, "; "))
}

// CheckLog fails the test if something panicked in the server.
func (s *Server) CheckLog(t testing.TB) {
	t.Helper()
	if log := s.Log.String(); strings.Contains(log, "panic") {
		t.Errorf("the server's log speaks of a panic:\n%s", log)
	}
}

// Log keeps the beginning of a log. The zero value is ready. Any goroutine.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() < 4<<20 || bytes.Contains(p, []byte("panic")) {
		l.b.Write(p)
	}
	return len(p), nil
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Publisher is a Server, or hubbubtest's.
type Publisher interface {
	Publish(context.Context, hubbub.Publication) (hubbub.Position, error)
}

// Publish sends content to a room, Broadcast to everyone, and SendTo to one client.
func Publish(s Publisher, room string, content any) error {
	_, err := s.Publish(context.Background(), hubbub.Publication{Room: room, Content: content})
	return err
}

// Broadcast is what Publish says.
func Broadcast(s Publisher, content any) error {
	_, err := s.Publish(context.Background(), hubbub.Publication{Everyone: true, Content: content})
	return err
}

// SendTo is what Publish says.
func SendTo(s Publisher, client string, content any) error {
	_, err := s.Publish(context.Background(), hubbub.Publication{Client: client, Content: content})
	return err
}
