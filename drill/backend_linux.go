package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	backendKey    = "0123456789abcdef"
)

// A backend is told by webhooks what happens, and holds it against what must be: seq has no hole and means one thing,
// and each event has its pair. It may be down, slow or moody.
type backend struct {
	verifier *standardwebhooks.Webhook
	addr     string
	client   *http.Client

	mu       sync.Mutex
	server   *http.Server // nil while it is down
	slow     time.Duration
	moody    bool
	requests int
	refused  int
	starts   int // of the node
	again    int // events that came before
	seq      uint64
	seen     []string // by seq - 1
	rooms    map[string]map[string]bool
	clients  map[string]bool
	faults   []string
}

// toldEvent is an event as far as the drill looks at it.
type toldEvent struct {
	Type, Room, Client string
	Seq                uint64
}

func (d *drill) newBackend() *backend {
	verifier, err := standardwebhooks.NewWebhook(webhookSecret)
	d.check(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	d.check(err)
	b := &backend{verifier: verifier, addr: l.Addr().String(), client: &http.Client{Timeout: patience}, rooms: map[string]map[string]bool{}, clients: map[string]bool{}}
	b.serve(l)
	d.cleanup(func() {
		b.client.CloseIdleConnections()
		b.goDown()
	})
	return b
}

func (b *backend) serve(l net.Listener) {
	srv := &http.Server{Handler: b}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.server = srv
	go srv.Serve(l)
}

// goDown closes its port, and cuts what is under way.
func (b *backend) goDown() {
	b.mu.Lock()
	srv := b.server
	b.server = nil
	b.mu.Unlock()
	if srv != nil {
		srv.Close()
	}
}

// comeUp opens its port again, which another program may have taken for a moment.
func (b *backend) comeUp(d *drill) {
	var l net.Listener
	var err error
	for range 100 {
		if l, err = net.Listen("tcp", b.addr); err == nil {
			b.serve(l)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	d.check(err)
}

// is has it be slow or moody from now on.
func (b *backend) is(slow time.Duration, moody bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slow, b.moody = slow, moody
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return // it was cut off
	}
	b.mu.Lock()
	slow := b.slow
	b.mu.Unlock()
	time.Sleep(slow)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests++
	before := b.moody && rand.IntN(3) == 0 // it takes nothing; or it takes all, and says that it doesn't
	if !before {
		b.take(body, r.Header)
	}
	if before || b.moody && rand.IntN(3) == 0 {
		b.refused++
		w.WriteHeader(http.StatusInternalServerError)
	}
}

func (b *backend) fault(format string, args ...any) {
	if len(b.faults) < 20 {
		b.faults = append(b.faults, fmt.Sprintf(format, args...))
	}
}

// take takes what a request tells. mu is held.
func (b *backend) take(body []byte, header http.Header) {
	if err := b.verifier.Verify(body, header); err != nil {
		b.fault("a signature: %v", err)
		return
	}
	var told struct {
		Dropped, Missing json.RawMessage
		Events           []json.RawMessage
	}
	if err := json.Unmarshal(body, &told); err != nil {
		b.fault("%v: %.100s", err, body)
		return
	}
	if told.Dropped != nil || told.Missing != nil {
		b.fault("not told: %s %s", told.Dropped, told.Missing)
	}
	for _, raw := range told.Events {
		var e toldEvent
		if err := json.Unmarshal(raw, &e); err != nil {
			b.fault("%v: %.100s", err, raw)
			return
		}
		switch {
		case e.Seq == 0 || e.Seq > b.seq+1:
			b.fault("seq %d comes behind %d", e.Seq, b.seq)
		case e.Seq <= b.seq:
			b.again++
			if b.seen[e.Seq-1] != string(raw) {
				b.fault("seq %d is %s and %s", e.Seq, b.seen[e.Seq-1], raw)
			}
			continue
		}
		b.seq = e.Seq
		b.seen = append(b.seen, string(raw))
		b.happens(e)
	}
}

// happens holds an event against what is so. mu is held.
func (b *backend) happens(e toldEvent) {
	members, occupied := b.rooms[e.Room]
	ok := true
	switch e.Type {
	case "node.started": // what was before has ended with the process
		b.starts++
		clear(b.rooms)
		clear(b.clients)
	case "client.connected":
		ok = !b.clients[e.Client]
		b.clients[e.Client] = true
	case "client.disconnected":
		ok = b.clients[e.Client]
		delete(b.clients, e.Client)
	case "room.occupied":
		ok = !occupied
		b.rooms[e.Room] = map[string]bool{}
	case "room.vacated":
		ok = occupied && len(members) == 0
		delete(b.rooms, e.Room)
	case "member.joined":
		if ok = occupied && !members[e.Client] && b.clients[e.Client]; ok {
			members[e.Client] = true
		}
	case "member.left":
		ok = members[e.Client]
		delete(members, e.Client)
	default:
		ok = false
	}
	if !ok {
		b.fault("seq %d, %s of %q in %q: it can't be", e.Seq, e.Type, e.Client, e.Room)
	}
}

// differs holds what the backend knows against the snapshot that the server gives, and says in how many rooms they
// differ.
func (b *backend) differs(s *server) (rooms, differ int, err error) {
	port := s.addr.Port
	snapshot := map[string]int{}
	for after, more := "", true; more; {
		req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/api/v1/rooms?limit=1000&after=%s", port, after), nil)
		if err != nil {
			return 0, 0, err
		}
		req.Header.Set("Authorization", "Bearer "+backendKey)
		resp, err := b.client.Do(req)
		if err != nil {
			return 0, 0, err
		}
		var page struct {
			Rooms []struct {
				Room    string
				Members int
			}
			More bool
		}
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return 0, 0, fmt.Errorf("the snapshot: status %d, %v", resp.StatusCode, err)
		}
		for _, r := range page.Rooms {
			if after = r.Room; r.Members > 0 {
				snapshot[r.Room] = r.Members
			}
		}
		more = page.More
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for room, members := range b.rooms {
		if snapshot[room] != len(members) {
			differ++
		}
		delete(snapshot, room)
	}
	return len(b.rooms), differ + len(snapshot), nil
}
