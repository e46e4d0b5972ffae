package hubbub_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"example.com/hubbub"
	"example.com/hubbub/internal/wire"
)

// The tests' own WebSocket client: it knows the bytes and nothing else, and holds every frame of the server against
// RFC 6455. Only what it sends comes from the package wire; what it receives it reads by itself.

// patience is how long a test waits for what must come: so long that a busy machine is no reason to fail.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && !fuzzing() {
		if err := errors.Join(goleak.Find(), leakedDescriptors()); err != nil {
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
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		open := map[string]int{}
		list, _ := os.ReadDir("/proc/self/fd")
		for _, e := range list {
			if name, e := os.Readlink("/proc/self/fd/" + e.Name()); e == nil {
				kind, _, _ := strings.Cut(name, ":[") // "socket:[1234]"
				open[kind]++
			}
		}
		sockets, polls := open["socket"], open["anon_inode:[eventpoll]"]
		if sockets == 0 && polls <= 1 && open["anon_inode:[eventfd]"] <= 1 {
			return nil
		}
		err = fmt.Errorf("descriptors are still open: %v", open)
	}
	return err
}

// eachIO runs a test once for each way of reading and writing connections.
func eachIO(t *testing.T, test func(t *testing.T, io string)) {
	t.Helper()
	if runtime.GOOS == "linux" {
		t.Run("epoll", func(t *testing.T) { test(t, "epoll") })
	}
	t.Run("pump", func(t *testing.T) { test(t, "pump") })
}

// testServer is a Server that listens on the loopback.
type testServer struct {
	*hubbub.Server
	addr string
	log  *logBuffer
}

// startServer serves until the test ends; a panic in the server fails the test.
func startServer(t testing.TB, cfg hubbub.Config) *testServer {
	t.Helper()
	s := &testServer{log: &logBuffer{}}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if cfg.PingInterval == 0 {
		cfg.PingInterval = time.Hour // or one would come among the frames that a test expects
	}
	server, err := hubbub.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Server, s.addr = server, l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		s.checkLog(t)
	})
	return s
}

// checkLog fails the test if something panicked in the server.
func (s *testServer) checkLog(t testing.TB) {
	t.Helper()
	if log := s.log.String(); strings.Contains(log, "panic") {
		t.Errorf("the server's log speaks of a panic:\n%s", log)
	}
}

// logBuffer keeps the beginning of a log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() < 4<<20 || bytes.Contains(p, []byte("panic")) {
		l.b.Write(p)
	}
	return len(p), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after %s: %s", patience, what)
		}
	}
}

// rawClient is one TCP connection to a server, after dial a WebSocket. One goroutine may send while another receives.
type rawClient struct {
	t       testing.TB
	nc      *net.TCPConn
	r       *bufio.Reader
	timeout time.Duration // for each thing that is waited for
}

const testKey = "dGhlIHNhbXBsZSBub25jZQ==" // of RFC 6455 1.3, and so is its answer
const testAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

var testMask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// connect makes a TCP connection and sends nothing.
func connect(t testing.TB, s *testServer) *rawClient {
	t.Helper()
	nc, err := net.DialTimeout("tcp", s.addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &rawClient{t: t, nc: nc.(*net.TCPConn), r: bufio.NewReader(nc), timeout: patience}
}

// upgradeHead is the head of a good handshake, and more header lines ("Origin: http://a.example").
func upgradeHead(s *testServer, path string, extra ...string) string {
	head := "GET " + path + " HTTP/1.1\r\nHost: " + s.addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: " + testKey + "\r\nSec-WebSocket-Version: 13\r\n"
	for _, line := range extra {
		head += line + "\r\n"
	}
	return head + "\r\n"
}

// dial makes a WebSocket; extra are more header lines.
func dial(t testing.TB, s *testServer, path string, extra ...string) *rawClient {
	t.Helper()
	c := connect(t, s)
	c.sendRaw([]byte(upgradeHead(s, path, extra...)))
	c.expectUpgrade()
	return c
}

// expectUpgrade reads the head of an answer, which must be 101 and all that RFC 6455 4.2.2 says of it.
func (c *rawClient) expectUpgrade() {
	c.t.Helper()
	r := c.response("GET")
	if r.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(r.Body)
		c.t.Fatalf("upgrade: %s: %s", r.Status, body)
	}
	for name, want := range map[string]string{"Upgrade": "websocket", "Connection": "upgrade", "Sec-Websocket-Accept": testAccept} {
		if got := r.Header[name]; len(got) != 1 || !strings.EqualFold(got[0], want) {
			c.t.Fatalf("upgrade: header %s is %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"Sec-Websocket-Protocol", "Content-Length", "Transfer-Encoding"} {
		if got := r.Header[name]; got != nil {
			c.t.Fatalf("upgrade: header %s is %q, want none", name, got)
		}
	}
}

// response reads an HTTP answer.
func (c *rawClient) response(method string) *http.Response {
	c.t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(c.timeout))
	r, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("read an HTTP answer: %v", err)
	}
	return r
}

// frame is a client's frame, masked.
func frame(op wire.Opcode, fin bool, payload []byte) []byte {
	return wire.AppendClientFrame(nil, fin, op, testMask, payload)
}

// send sends one frame.
func (c *rawClient) send(op wire.Opcode, fin bool, payload []byte) {
	c.t.Helper()
	c.sendRaw(frame(op, fin, payload))
}

// text sends a whole text message.
func (c *rawClient) text(s string) {
	c.t.Helper()
	c.send(wire.Text, true, []byte(s))
}

// sendRaw sends bytes as they are, in one write.
func (c *rawClient) sendRaw(b []byte) {
	c.t.Helper()
	if err := c.trySend(b); err != nil {
		c.t.Fatalf("send %d bytes: %v", len(b), err)
	}
}

// trySend is sendRaw where the server may hang up meanwhile.
func (c *rawClient) trySend(b []byte) error {
	c.nc.SetWriteDeadline(time.Now().Add(c.timeout))
	_, err := c.nc.Write(b)
	return err
}

// sendChopped sends bytes in pieces of n, each a write of its own.
func (c *rawClient) sendChopped(b []byte, n int) {
	c.t.Helper()
	for len(b) > 0 {
		p := b[:min(n, len(b))]
		c.sendRaw(p)
		b = b[len(p):]
	}
}

// sendClose sends a Close frame; wire.CloseNoStatus gives one without a code.
func (c *rawClient) sendClose(code int, reason string) {
	c.t.Helper()
	c.send(wire.Close, true, closePayload(code, reason))
}

func closePayload(code int, reason string) []byte {
	if code == wire.CloseNoStatus {
		return nil
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
}

// next is the server's next frame, of any kind; none in time fails the test.
func (c *rawClient) next() (op wire.Opcode, payload []byte) {
	c.t.Helper()
	op, payload, err := c.tryNext()
	if err != nil {
		c.t.Fatalf("next frame: %v", err)
	}
	return op, payload
}

// tryNext is next for a stream that may end: then it is io.EOF between two frames, and another error inside of one.
func (c *rawClient) tryNext() (op wire.Opcode, payload []byte, err error) {
	c.nc.SetReadDeadline(time.Now().Add(c.timeout))
	return readServerFrame(c.r)
}

// readServerFrame reads one frame and holds it against what RFC 6455 demands of a server without extensions, and
// against what ours promises beyond: its messages are never fragmented.
func readServerFrame(r io.Reader) (op wire.Opcode, payload []byte, err error) {
	var head [2]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	op = wire.Opcode(head[0] & 0x0f)
	size := uint64(head[1] & 0x7f)
	switch {
	case head[0]&0x80 == 0:
		return 0, nil, fmt.Errorf("a fragment: %x", head)
	case head[0]&0x70 != 0:
		return 0, nil, fmt.Errorf("a reserved bit: %x", head)
	case head[1]&0x80 != 0:
		return 0, nil, fmt.Errorf("a masked frame: %x", head)
	case op != wire.Text && op != wire.Binary && op != wire.Close && op != wire.Ping && op != wire.Pong:
		return 0, nil, fmt.Errorf("an opcode of no message: %x", head)
	case op >= wire.Close && size > 125:
		return 0, nil, fmt.Errorf("a long control frame: %x", head)
	}
	if size > 125 {
		n, least := 2, uint64(126)
		if size == 127 {
			n, least = 8, 1<<16
		}
		var ext [8]byte
		if _, err = io.ReadFull(r, ext[8-n:]); err != nil {
			return 0, nil, inside(err)
		}
		size = binary.BigEndian.Uint64(ext[:])
		if size < least || size > 1<<30 {
			return 0, nil, fmt.Errorf("the length %d in %d bytes", size, n)
		}
	}
	payload = make([]byte, size)
	if _, err = io.ReadFull(r, payload); err != nil {
		return 0, nil, inside(err)
	}
	return op, payload, checkPayload(op, payload)
}

func checkPayload(op wire.Opcode, p []byte) error {
	switch {
	case op == wire.Text && !utf8.Valid(p):
		return errors.New("a text that is not UTF-8")
	case op == wire.Close && len(p) == 1:
		return errors.New("a Close of one byte")
	case op == wire.Close && len(p) > 1 && !utf8.Valid(p[2:]):
		return errors.New("a Close whose reason is not UTF-8")
	}
	return nil
}

// inside is the error of a stream that ends in the middle of a frame.
func inside(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// beside is the next frame beside the pings of the heartbeat, the first of which may come at any time.
func (c *rawClient) beside() (op wire.Opcode, payload []byte) {
	c.t.Helper()
	for {
		if op, payload = c.next(); op != wire.Ping {
			return op, payload
		}
	}
}

// expect waits for a frame of that kind with that payload; pings don't count.
func (c *rawClient) expect(op wire.Opcode, payload []byte) {
	c.t.Helper()
	gotOp, got := c.beside()
	if gotOp != op || !bytes.Equal(got, payload) {
		c.t.Fatalf("got %v %s, want %v %s", gotOp, brief(got), op, brief(payload))
	}
}

// brief shows the beginning of a payload.
func brief(p []byte) string {
	if len(p) <= 64 {
		return fmt.Sprintf("%q", p)
	}
	return fmt.Sprintf("%q... (%d bytes)", p[:64], len(p))
}

// nextJSON is the next message, which must be text with a JSON object; pings in between are answered.
func (c *rawClient) nextJSON() map[string]any {
	c.t.Helper()
	for {
		op, p := c.next()
		if op == wire.Ping {
			c.send(wire.Pong, true, p)
			continue
		}
		if op != wire.Text {
			c.t.Fatalf("got %v %s, want a text", op, brief(p))
		}
		var m map[string]any
		if err := json.Unmarshal(p, &m); err != nil {
			c.t.Fatalf("the message %s: %v", brief(p), err)
		}
		return m
	}
}

// expectClose waits for a Close frame with that code (wire.CloseNoStatus: without one), behind which the stream ends
// in good order. It sends nothing: where the server began, answerClose is meant.
func (c *rawClient) expectClose(code int) {
	c.t.Helper()
	c.expectCloseFrame(code)
	c.expectEOF()
}

// answerClose waits for a Close frame of the server, answers it, and waits for the stream's end.
func (c *rawClient) answerClose(code int) {
	c.t.Helper()
	c.expectCloseFrame(code)
	c.sendClose(code, "")
	c.expectEOF()
}

func (c *rawClient) expectCloseFrame(code int) {
	c.t.Helper()
	op, p := c.beside()
	if op != wire.Close {
		c.t.Fatalf("got %v %s, want a Close with %d", op, brief(p), code)
	}
	got := wire.CloseNoStatus
	if len(p) >= 2 {
		got = int(binary.BigEndian.Uint16(p))
	}
	if got != code {
		c.t.Fatalf("got Close %d %q, want %d", got, p, code)
	}
}

// expectEOF waits for the end of the stream: nothing more, and no reset.
func (c *rawClient) expectEOF() {
	c.t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(c.timeout))
	b, err := c.r.ReadByte()
	if err == nil {
		c.t.Fatalf("got the byte %#x, want the end of the stream", b)
	}
	if !errors.Is(err, io.EOF) {
		c.t.Fatalf("got %v, want the end of the stream", err)
	}
}

// isEndOrReset says that TCP ended, in good order or not.
func isEndOrReset(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// quiet says that nothing came by now of what the server had to say before it obeyed what was sent last: a ping goes
// there, and its pong must be the next frame.
func (c *rawClient) quiet() {
	c.t.Helper()
	c.send(wire.Ping, true, []byte("anything before this?"))
	c.expect(wire.Pong, []byte("anything before this?"))
}

// endSending ends the client's half of the TCP stream.
func (c *rawClient) endSending() {
	c.t.Helper()
	if err := c.nc.CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// closeNow closes the TCP connection in good order and without a Close frame.
func (c *rawClient) closeNow() { c.nc.Close() }

// reset closes the TCP connection with a reset.
func (c *rawClient) reset() {
	c.nc.SetLinger(0)
	c.nc.Close()
}
