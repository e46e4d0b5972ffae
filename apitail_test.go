package hubbub_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// listener opens a tail on a connection of its own.
func listener(t *testing.T, s *rawtest.Server, b *backend, query string) (net.Conn, *bufio.Reader) {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(rawtest.Patience))
	io.WriteString(nc, "GET /api/v1/tail?"+query+" HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer "+b.key+"\r\n\r\n")
	r := bufio.NewReader(nc)
	awaitLine(t, r, ": listening")
	return nc, r
}

// awaitLine reads up to a line.
func awaitLine(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("no line %q: %v", want, err)
		}
		if strings.TrimSpace(line) == want {
			return
		}
	}
}

// A listener that reads nothing is let go, and holds nobody up; one that hears nothing is kept, and told so.
func TestAListenerThatDoesNotReadIsLetGo(t *testing.T) {
	t.Parallel()
	s, b := startAPI(t, hubbub.Config{Rooms: []hubbub.RoomPolicy{{Match: "*", History: &hubbub.History{}}}})
	m := enter(t, s).join("r")
	nc, _ := listener(t, s, b, "room=r&content=true")
	nc.(*net.TCPConn).SetReadBuffer(4 << 10)
	_, idle := listener(t, s, b, "room=silent")
	open := func(want float64) bool { return scrape(t, s)["hubbub_api_tails"] == want }
	rawtest.Eventually(t, "both are open", func() bool { return open(2) })
	content := `"` + strings.Repeat("x", 60_000) + `"`
	for range 300 { // more than the sockets of both sides hold
		b.ok("POST", "/publish", `{"room":"r","content":`+content+`}`)
		if got := m.NextJSON(); got["msg_type"] != "room_message" {
			t.Fatal(got)
		}
	}
	rawtest.Eventually(t, "who doesn't read is let go", func() bool { return open(1) })
	awaitLine(t, idle, ": nothing has passed")
	b.ok("POST", "/publish", `{"room":"silent","content":1}`)
	awaitLine(t, idle, "event: room_message")
}

func TestAListenerIsToldThatTheServerStops(t *testing.T) {
	s, b := startAPI(t, hubbub.Config{})
	_, r := listener(t, s, b, "user=ann")
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(context.Background()) }()
	awaitLine(t, r, "event: end")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
