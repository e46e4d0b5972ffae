package bench

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come: so long that a busy machine is no reason to fail.
const patience = 3 * time.Minute

// lossDrain is how long what was lost is waited for.
const lossDrain = 5 * time.Second

// chatServer is a server of rooms with a protocol of its own, on a WebSocket library that is not ours: who connects
// gets "hello"; "J room number" joins and is answered "joined room"; "P room text" goes as "M text" to the room's other
// members, all in one order.
type chatServer struct {
	URL string
	// mangle, unless it is nil, gives what a member is sent in place of its nth message. It is called under mu.
	mangle func(member, n int, text string) []string
	// publish, unless it is nil, is called for each publish before it is passed on.
	publish func(n int)
	// toSelf sends a message to its publisher too.
	toSelf bool

	mu        sync.Mutex
	members   map[string][]*chatMember
	published int
	headers   []http.Header
}

type chatMember struct {
	num, got int
	out      chan string
	ws       *websocket.Conn
}

func newChatServer(t *testing.T, accept *websocket.AcceptOptions) *chatServer {
	s := &chatServer{members: map[string][]*chatMember{}}
	ctx, cancel := context.WithCancel(context.Background())
	var handlers sync.WaitGroup
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers.Add(1) // before the server loses sight of it
		defer handlers.Done()
		ws, err := websocket.Accept(w, r, accept)
		if err != nil {
			return
		}
		ws.SetReadLimit(1 << 20)
		s.mu.Lock()
		s.headers = append(s.headers, r.Header)
		s.mu.Unlock()
		s.serve(ctx, ws)
	}))
	t.Cleanup(func() { cancel(); h.Close(); handlers.Wait() })
	s.URL = "ws" + strings.TrimPrefix(h.URL, "http") + "/chat"
	return s
}

func (s *chatServer) serve(ctx context.Context, ws *websocket.Conn) {
	defer ws.CloseNow()
	m := &chatMember{out: make(chan string, 1<<16), ws: ws}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case text := <-m.out:
				if ws.Write(ctx, websocket.MessageText, []byte(text)) != nil {
					return
				}
			}
		}
	}()
	m.out <- "hello"
	for {
		_, b, err := ws.Read(ctx)
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(string(b), " ")
		room, text, _ := strings.Cut(rest, " ")
		switch verb {
		case "J":
			s.mu.Lock()
			m.num, _ = strconv.Atoi(text)
			s.members[room] = append(s.members[room], m)
			s.mu.Unlock()
			m.out <- "joined " + room
		case "P":
			s.pass(m, room, text)
		}
	}
}

func (s *chatServer) pass(from *chatMember, room, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.published++
	if s.publish != nil {
		s.publish(s.published)
	}
	for _, m := range s.members[room] {
		if m == from && !s.toSelf {
			continue
		}
		m.got++
		texts := []string{text}
		if s.mangle != nil {
			texts = s.mangle(m.num, m.got, text)
		}
		for _, t := range texts {
			m.out <- "M " + t
		}
	}
}

// options are those of a short fan-out over the server's protocol.
func (s *chatServer) options() Options {
	return Options{
		Mode: Fanout, URL: s.URL, Members: 4, Publishers: 2, Window: 4, Duration: 300 * time.Millisecond, Settle: time.Millisecond, Drain: patience,
		Init: []string{"J %r %i"}, Ready: "joined", Publish: "P %r %p", Order: ByRoom,
	}
}

// run runs to the end.
func run(t *testing.T, o Options) *Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("it took more than %s: %+v", patience, r)
	}
	nothing := o.Mode == Fanout && r.Published == 0 || o.Mode == Connect && r.Handshakes.Opened == 0
	if nothing && o.Rate == 0 && r.Err() == nil && o.Duration < time.Second {
		o.Duration = 10 * time.Second // the machine is so busy that it did not come to it
		return run(t, o)
	}
	return r
}
