package loop

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hang is how long a test waits for what must come: it only guards against hanging.
const hang = 5 * time.Minute

// eachIO runs a story on every way there is to read and write, beside other stories: most of them wait for timers.
func eachIO(t *testing.T, story func(t *testing.T, cfg Config)) {
	t.Parallel()
	for _, kind := range []IO{Epoll, Uring, Pump} {
		if Supports(kind) != nil || kind == Uring && testing.Short() { // which reads as Epoll does
			continue
		}
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			story(t, Config{
				Workers: 1, IO: kind, MaxMessageBytes: 64 << 10, SendQueueBytes: 1 << 20, MaxBufferedBytes: 1 << 30, SendQueueAge: time.Hour,
				PingInterval: 1000 * time.Hour, // or one would come among the frames that a story expects
				PongTimeout:  10 * time.Second, Log: slog.New(slog.DiscardHandler),
			})
		})
	}
}

// start runs a loop until the test ends, under watch.
func start(t *testing.T, cfg Config) *Loop {
	t.Helper()
	l := alone(t, cfg)
	t.Cleanup(watch(t, l))
	return l
}

// alone runs a loop whose mailboxes get what the test posts and nothing else.
func alone(t *testing.T, cfg Config) *Loop {
	t.Helper()
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Stop(0)
		l.Kill()
		l.Wait()
		for _, account := range l.Unsettled() {
			t.Errorf("not back at zero after the end: %s", account)
		}
	})
	return l
}

// watch holds the accounts of the workers against what is there, again and again: between two tasks all must fit at any
// time. end does so once more.
func watch(t *testing.T, l *Loop) (end func()) {
	var once sync.Once
	look := func(w *Worker) {
		if faults := w.Recount(); len(faults) > 0 {
			once.Do(func() { t.Errorf("the accounts don't fit: %s", strings.Join(faults, "; ")) })
		}
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				l.Inspect(hang, look)
			}
		}
	}()
	return func() {
		close(stop)
		<-ended
		l.Inspect(hang, look)
	}
}

// connect gives the far end of a TCP connection that the loop has adopted.
func connect(t *testing.T, l *Loop, h Handler) net.Conn {
	t.Helper()
	return connectDeflated(t, l, h, wire.Deflate{})
}

// connectDeflated is connect after a handshake that agreed on compression.
func connectDeflated(t *testing.T, l *Loop, h Handler, d wire.Deflate) net.Conn {
	t.Helper()
	return connectWith(t, l, h, d, nil)
}

// sockets are the two ends of a TCP connection; the far one is closed at the end.
func sockets(t *testing.T) (near, far net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	far, err = net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	near, err = listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return near, far
}

// connectWith is connectDeflated where first came with the handshake.
func connectWith(t *testing.T, l *Loop, h Handler, d wire.Deflate, first []byte) net.Conn {
	t.Helper()
	near, far := sockets(t)
	l.Reserve(1 << 20)
	if err := l.Adopt(near, h, d, nil, first); err != nil {
		t.Fatal(err)
	}
	far.SetDeadline(time.Now().Add(hang))
	return far
}

// script is a Handler of functions; those that are nil do nothing.
type script struct {
	Plain
	opened  func(*Conn)
	message func(*Conn, wire.Opcode, []byte)
	closed  func(c *Conn, code int)
	ended   func(Ending)
	stop    func(*Conn)
	drained func(*Conn)
	wording func(code int, reason string) (int, string)
	ping    func(*Conn)
}

func (s *script) Wording(code int, reason string) (int, string) {
	if s.wording != nil {
		return s.wording(code, reason)
	}
	return s.Plain.Wording(code, reason)
}

func (s *script) Ping(c *Conn) {
	if s.ping != nil {
		s.ping(c)
		return
	}
	s.Plain.Ping(c)
}

func (s *script) Opened(c *Conn) {
	if s.opened != nil {
		s.opened(c)
	}
}

func (s *script) Message(c *Conn, op wire.Opcode, p []byte) {
	if s.message != nil {
		s.message(c, op, p)
	}
}

func (s *script) Closed(c *Conn, e Ending) {
	if s.closed != nil {
		s.closed(c, e.Code)
	}
	if s.ended != nil {
		s.ended(e)
	}
}

func (s *script) Drained(c *Conn) {
	if s.drained != nil {
		s.drained(c)
	}
}

func (s *script) Stop(c *Conn) {
	if s.stop != nil {
		s.stop(c)
		return
	}
	c.Close(wire.CloseGoingAway, "")
}

// frameTo is a client's text frame.
func frameTo(text string) []byte {
	return wsclient.Append(nil, true, wsclient.Text, [4]byte{1, 2, 3, 4}, []byte(text))
}

// expect reads exactly the bytes of the server's frames want.
func expect(t *testing.T, far net.Conn, want ...[]byte) {
	t.Helper()
	for _, w := range want {
		got := make([]byte, len(w))
		if _, err := io.ReadFull(far, got); err != nil {
			t.Fatalf("waiting for %.80q: %v", w, err)
		}
		if string(got) != string(w) {
			t.Fatalf("got %.80q, want %.80q", got, w)
		}
	}
}

func text(s string) []byte { return wire.AppendFrame(nil, wire.Text, []byte(s)) }

// do runs f on the worker's goroutine and waits for it.
func do(w *Worker, f func()) {
	done := make(chan struct{})
	w.Post(taskFunc(func(*Worker) { defer close(done); f() }), 0)
	<-done
}

type taskFunc func(*Worker)

func (f taskFunc) Run(w *Worker) { f(w) }

// until waits for a condition that another goroutine brings about.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(hang); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
