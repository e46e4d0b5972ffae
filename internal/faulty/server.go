package faulty

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/internal/wire"
)

// server takes connections and does nothing to them by itself, but that it answers pings.
type server struct {
	l        net.Listener
	arrivals chan *connection // those with the head of an upgrade
	stopped  chan struct{}    // closed by stop
	all      sync.WaitGroup

	mu    sync.Mutex        // what is below
	open  map[net.Conn]bool // nil: it has stopped
	ready Refusal           // what /readyz says
}

// startServer serves until the test ends.
func startServer(t testing.TB) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{l: l, arrivals: make(chan *connection, 100), stopped: make(chan struct{}), open: map[net.Conn]bool{}}
	s.all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.open != nil {
				s.open[nc] = true
				s.all.Go(func() { s.greet(nc) })
			} else {
				nc.Close()
			}
			s.mu.Unlock()
		}
	})
	return s
}

func (s *server) url() string { return "ws://" + s.l.Addr().String() + "/ws" }

// stop ends all connections, and waits for all goroutines.
func (s *server) stop() {
	s.l.Close()
	s.mu.Lock()
	for nc := range s.open {
		nc.Close()
	}
	s.open = nil
	s.mu.Unlock()
	close(s.stopped)
	s.all.Wait()
}

// greet reads a request's head.
func (s *server) greet(nc net.Conn) {
	r := bufio.NewReader(nc)
	head, err := http.ReadRequest(r)
	if err != nil {
		nc.Close()
		return
	}
	if strings.HasSuffix(head.URL.Path, "/readyz") {
		s.mu.Lock()
		ready := s.ready
		s.mu.Unlock()
		fmt.Fprint(nc, ready.answer())
		nc.Close()
		return
	}
	c := &connection{nc: nc, r: r, head: head, heard: make(chan map[string]any, 10_000), ended: make(chan struct{})}
	select {
	case s.arrivals <- c:
	case <-s.stopped: // a client that comes again and again, and that no trace waits for
	}
}

// answer is a whole answer of HTTP; that to /readyz, where nothing is refused.
func (r Refusal) answer() string {
	status := http.StatusOK
	if n, is := r.Status.(float64); is {
		status = int(n)
	}
	text := fmt.Sprintf("HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: 0\r\n", status, http.StatusText(status))
	if r.RetryAfter != "" {
		text += "Retry-After: " + r.RetryAfter + "\r\n"
	}
	return text + "\r\n"
}

// connection is one of the client's.
type connection struct {
	nc    net.Conn
	r     *bufio.Reader
	head  *http.Request
	heard chan map[string]any // what the client has said, less its pings
	ended chan struct{}       // closed at the end of what it says
	deaf  bool

	writing sync.Mutex
}

// token is the one that it shows, in whichever way.
func (c *connection) token() string {
	if t, is := strings.CutPrefix(c.head.Header.Get("Authorization"), "Bearer "); is {
		return t
	}
	for _, offer := range c.offers() {
		if t, is := strings.CutPrefix(offer, "token."); is {
			return t
		}
	}
	return c.head.URL.Query().Get("token")
}

func (c *connection) offers() (all []string) {
	for _, list := range c.head.Header.Values("Sec-WebSocket-Protocol") {
		for one := range strings.SplitSeq(list, ",") {
			all = append(all, strings.TrimSpace(one))
		}
	}
	return all
}

// accept makes a WebSocket of it, and begins to listen.
func (s *server) accept(c *connection) {
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		wire.Accept(c.head.Header.Get("Sec-WebSocket-Key")) + "\r\n"
	if slices.Contains(c.offers(), "hubbub") {
		answer += "Sec-WebSocket-Protocol: hubbub\r\n"
	}
	c.write([]byte(answer + "\r\n"))
	s.all.Go(c.listen)
}

func (c *connection) write(b []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.nc.Write(b) // where it fails the client has gone, and the trace finds that out
}

func textFrame(text []byte) []byte { return wire.AppendFrame(nil, wire.Text, text) }

// now is the time at the server, Unix milliseconds: another one than the client's.
const now = 1_760_000_000_000

// listen notes what the client says until its end.
func (c *connection) listen() {
	defer close(c.ended)
	began := time.Now()
	var reader wire.Reader
	for b := make([]byte, 4096); ; {
		n, err := c.r.Read(b)
		for rest := b[:n]; len(rest) > 0; {
			ev, used, ok, bad := reader.Next(rest, 1<<20, nil)
			if bad != nil {
				c.heard <- map[string]any{"broke": bad.Error()}
				return
			}
			rest = rest[used:]
			if !ok {
				continue
			}
			if ev.Op == wire.Close {
				c.write(wire.AppendClose(nil, ev.Code, ""))
				c.nc.Close()
				return
			}
			if ev.Op == wire.Text {
				c.note(ev.Payload, time.Since(began))
			}
		}
		if err != nil {
			return
		}
	}
}

func (c *connection) note(text []byte, age time.Duration) {
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		m = map[string]any{"broke": fmt.Sprintf("%v: %q", err, text)}
	}
	switch {
	case m["msg_type"] != "ping":
		c.heard <- m
	case !c.deaf:
		pong := map[string]any{"msg_type": "pong", "time": now + age.Milliseconds()}
		if m["id"] != nil {
			pong["id"] = m["id"]
		}
		c.say(pong)
	}
}

func (c *connection) say(m map[string]any) {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // it was JSON
	}
	c.write(textFrame(text))
}

// welcome says welcome, unless the trace wants none.
func (c *connection) welcome(fields map[string]any) {
	m := map[string]any{
		"msg_type": "welcome", "client_id": "c1", "protocol": 1, "max_message_bytes": 65536, "ping_interval_ms": 25000, "pong_timeout_ms": 10000,
	}
	maps.Copy(m, fields)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	if m["msg_type"] != nil {
		c.say(m)
	}
}

// cut ends it without a Close. A reset may take with it what was written and the client has not read.
func (c *connection) cut(how string) {
	if tcp, is := c.nc.(*net.TCPConn); is && how == "reset" {
		tcp.SetLinger(0)
	}
	c.nc.Close()
}

// closeFrame is a Close with any code, those that no server may send too.
func closeFrame(code int, reason string) []byte {
	return wire.AppendFrame(nil, wire.Close, append([]byte{byte(code >> 8), byte(code)}, reason...))
}
