package hubbub_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"

	"maps"
	"net"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

// member is a client of the room protocol.
type member struct {
	*rawtest.Client
	id      string
	offsets map[any]float64 // of the last message from each room
}

// enter connects a client and reads its welcome.
func enter(t testing.TB, s *rawtest.Server) *member {
	t.Helper()
	m := &member{Client: rawtest.Dial(t, s, "/ws")}
	welcome := m.NextJSON()
	if welcome["msg_type"] != "welcome" {
		t.Fatalf("the first message is %v, want welcome", welcome)
	}
	m.id = welcome["client_id"].(string)
	return m
}

// ask sends a message with an id and gives the answer to it, which must be the next message.
func (m *member) ask(msg string) map[string]any {
	m.T.Helper()
	m.Text(strings.TrimSuffix(msg, "}") + `,"id":"ask"}`)
	got := m.NextJSON()
	if got["id"] != "ask" {
		m.T.Fatalf("%s is answered by %v", msg, got)
	}
	delete(got, "id")
	m.position(got)
	return got
}

// position takes the position out of a message, if it has one. Offsets of a room only grow.
func (m *member) position(got map[string]any) {
	m.T.Helper()
	offset, ok := got["offset"].(float64)
	if !ok {
		return
	}
	if room := got["room"]; got["msg_type"] == "room_message" {
		if m.offsets == nil {
			m.offsets = map[any]float64{}
		}
		if offset <= m.offsets[room] {
			m.T.Errorf("offset %v of %v comes after %v", offset, room, m.offsets[room])
		}
		m.offsets[room] = offset
	} else if epoch, _ := got["epoch"].(string); epoch == "" {
		m.T.Errorf("an offset without an epoch: %v", got)
	}
	delete(got, "offset")
	delete(got, "epoch")
}

func (m *member) join(room string) *member {
	m.T.Helper()
	want := map[string]any{"msg_type": "joined", "room": room}
	if got := m.ask(`{"msg_type":"join_room","room":"` + room + `"}`); !maps.Equal(got, want) {
		m.T.Fatalf("join: %v", got)
	}
	return m
}

// gets takes the next message, which must have these fields; time is checked and taken out.
func (m *member) gets(want map[string]any) {
	m.T.Helper()
	got := m.NextJSON()
	if at, ok := got["time"].(float64); ok {
		if d := time.Since(time.UnixMilli(int64(at))); d < -time.Minute || d > time.Minute {
			m.T.Errorf("the time of %v is %s off", got, d)
		}
		delete(got, "time")
	}
	m.position(got)
	if !reflect.DeepEqual(got, want) {
		m.T.Fatalf("got  %v\nwant %v", got, want)
	}
}

// hearsNothing shows by a ping that nothing came before its answer. What other workers posted has arrived by then only
// if its sender was acknowledged before and the mailboxes ran: so each worker of the server is made to turn.
func (m *member) hearsNothing() {
	m.T.Helper()
	for range 3 {
		if got := m.ask(`{"msg_type":"ping"}`); got["msg_type"] != "pong" {
			m.T.Fatalf("got %v, want nothing", got)
		}
		time.Sleep(time.Millisecond)
	}
}

func roomMessage(from *member, room string, content any) map[string]any {
	return map[string]any{"msg_type": "room_message", "from": from.id, "content": content, "room": room}
}

func ack() map[string]any { return map[string]any{"msg_type": "ack"} }

// eachServer tells a story to servers of every IO, with one worker and with four.
func eachServer(t *testing.T, story func(t *testing.T, s *rawtest.Server)) {
	eachServerWith(t, hubbub.Config{}, story)
}

func eachServerWith(t *testing.T, cfg hubbub.Config, story func(t *testing.T, s *rawtest.Server)) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		for _, workers := range []int{1, 4} {
			t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
				cfg.IO, cfg.Workers = io, workers
				story(t, rawtest.Start(t, cfg))
			})
		}
	})
}

func TestARoomMessageReachesEveryMemberButTheSender(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a, b, c, out := enter(t, s).join("r"), enter(t, s).join("r"), enter(t, s).join("r"), enter(t, s)
		if got := a.ask(`{"msg_type":"room_message","room":"r","content":{"x":[1,"é"]}}`); !maps.Equal(got, ack()) {
			t.Errorf("got %v, want an ack", got)
		}
		want := roomMessage(a, "r", map[string]any{"x": []any{1.0, "é"}})
		b.gets(want)
		c.gets(want)
		a.hearsNothing()
		out.hearsNothing()
		// A sender need not be a member.
		out.ask(`{"msg_type":"room_message","room":"r","content":"from outside"}`)
		for _, m := range []*member{a, b, c} {
			m.gets(roomMessage(out, "r", "from outside"))
		}
	})
}

func TestJoiningTwiceIsJoiningOnce(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a, b := enter(t, s).join("r").join("r"), enter(t, s).join("r")
		b.ask(`{"msg_type":"room_message","room":"r","content":1}`)
		a.gets(roomMessage(b, "r", 1.0))
		a.hearsNothing()
		if got := a.ask(`{"msg_type":"leave_room","room":"r"}`); !maps.Equal(got, map[string]any{"msg_type": "left", "room": "r"}) {
			t.Errorf("leave: %v", got)
		}
		b.ask(`{"msg_type":"room_message","room":"r","content":2}`)
		a.hearsNothing()
		a.ask(`{"msg_type":"leave_room","room":"r"}`) // leaving what one has left changes nothing
		a.join("r")
		b.ask(`{"msg_type":"room_message","room":"r","content":3}`)
		a.gets(roomMessage(b, "r", 3.0))
	})
}

func TestAnEmptyRoomIsGone(t *testing.T) {
	eachPresence(t, -1, func(t *testing.T, s *rawtest.Server) {
		a, b := enter(t, s).join("r").join("only a's"), enter(t, s).join("r")
		if n := s.RoomCount(); n != 2 {
			t.Errorf("%d rooms, want 2", n)
		}
		a.ask(`{"msg_type":"leave_room","room":"r"}`)
		if n := s.RoomCount(); n != 2 {
			t.Errorf("%d rooms, want 2: b is still in r", n)
		}
		a.CloseNow()
		b.Reset()
		rawtest.Eventually(t, "no room is left", func() bool { return s.RoomCount() == 0 })
		rawtest.Eventually(t, "no connection is left", func() bool { return s.Connections() == 0 })
	})
}

func TestAChatReachesEveryoneButTheSender(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a, b, c := enter(t, s), enter(t, s).join("r"), enter(t, s)
		echo := rawtest.Dial(t, s, "/echo")
		a.ask(`{"msg_type":"chat","content":"hello"}`)
		want := map[string]any{"msg_type": "chat", "from": a.id, "content": "hello"}
		b.gets(want)
		c.gets(want)
		a.hearsNothing()
		b.Text(`{"msg_type":"chat"}`) // a missing content is ""
		a.gets(map[string]any{"msg_type": "chat", "from": b.id, "content": ""})
		echo.Text("not a client")
		echo.Expect(wsclient.Text, []byte("not a client"))
	})
}

func TestADirectMessageReachesOneClient(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a, b, c := enter(t, s), enter(t, s), enter(t, s)
		a.ask(`{"msg_type":"direct_message","to":"` + b.id + `","content":null}`)
		b.gets(map[string]any{"msg_type": "direct_message", "from": a.id, "content": nil})
		c.hearsNothing()
		a.Text(`{"msg_type":"direct_message","to":"` + strings.ToUpper(a.id) + `","content":"note to self"}`) // an id in capitals is the same
		a.gets(map[string]any{"msg_type": "direct_message", "from": a.id, "content": "note to self"})
		c.SendClose(1000, "")
		c.ExpectClose(1000)
		rawtest.Eventually(t, "c is gone", func() bool { return s.Connections() == 2 })
		for _, to := range []string{c.id, "nobody", ""} {
			a.Text(`{"msg_type":"direct_message","to":"` + to + `","content":1}`) // an error also without an id
			if got := a.NextJSON(); got["code"] != "unknown_client" || got["retry"] != false {
				t.Errorf("to %q: %v", to, got)
			}
		}
	})
}

// Every publisher counts up, and every member must see all counts in one and the same order.
func TestMembersSeeOneOrder(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		const publishers, each = 4, 500
		var watchers []*member
		for range 5 {
			watchers = append(watchers, enter(t, s).join("r"))
		}
		for p := range publishers {
			from := enter(t, s)
			go func() {
				for i := range each {
					if from.TrySend(rawtest.Frame(wsclient.Text, true, fmt.Appendf(nil, `{"msg_type":"room_message","room":"r","content":[%d,%d]}`, p, i))) != nil {
						return
					}
				}
			}()
		}
		var first []string
		for i, w := range watchers {
			var seen []string
			last := map[float64]float64{}
			for range publishers * each {
				c := w.NextJSON()["content"].([]any)
				p, n := c[0].(float64), c[1].(float64)
				if n != 0 && n != last[p]+1 {
					t.Fatalf("publisher %v: %v after %v", p, n, last[p])
				}
				last[p] = n
				seen = append(seen, fmt.Sprint(c))
			}
			if i == 0 {
				first = seen
			} else if !slices.Equal(first, seen) {
				t.Fatal("two members saw different orders")
			}
		}
	})
}

// More members than a turn writes to at once, so rooms are put off, and what is published to them meanwhile catches up.
func TestRoomsThatTakeTurnsLoseNothing(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		const rooms, members, each = 6, 40, 60
		name := func(room int) string { return fmt.Sprint("r", room%rooms) }
		var all []*member
		var in []map[any]float64 // the rooms of each, and the number that comes next there
		for r := range rooms {
			for i := range members {
				m, next := enter(t, s).join(name(r)), map[any]float64{name(r): 0}
				if i%4 == 0 {
					m.join(name(r + 1))
					next[name(r+1)] = 0
				}
				all, in = append(all, m), append(in, next)
			}
		}
		for i := range each {
			for r := range rooms {
				if err := rawtest.Publish(s, name(r), i); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i, m := range all {
			for range len(in[i]) * each {
				got := m.NextJSON()
				if want, is := in[i][got["room"]]; !is || got["content"] != want {
					t.Fatalf("client %d gets %v, want number %v", i, got, want)
				}
				in[i][got["room"]]++
			}
		}
	})
}

// A room that is put off costs the mailbox what it was posted with, whatever ran in its place: else an idle mailbox
// would count bytes that nobody waits for, and its publishers would be paused for good.
func TestAPublisherIsReadAgain(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 1})
		const members, pairs, packets = 150, 28, 60
		var all []*member
		for _, room := range []string{"large", "small"} {
			for range members {
				all = append(all, enter(t, s).join(room))
			}
		}
		large := fmt.Sprintf(`{"msg_type":"room_message","room":"large","content":"%s"}`, strings.Repeat("x", 2000))
		var packet []byte
		for range pairs {
			packet = append(packet, rawtest.Frame(wsclient.Text, true, []byte(large))...)
			packet = append(packet, rawtest.Frame(wsclient.Text, true, []byte(`{"msg_type":"room_message","room":"small","content":1}`))...)
		}
		from := enter(t, s)
		for range packets {
			from.SendRaw(packet)
			for _, m := range all {
				for range pairs { // half a million: what is in them others look at
					if op, _ := m.Beside(); op != wsclient.Text {
						t.Fatal(op)
					}
				}
			}
		}
	})
}

func TestTheBackendPublishes(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a, b := enter(t, s).join("r"), enter(t, s)
		if err := rawtest.Publish(s, "r", map[string]int{"n": 1}); err != nil {
			t.Error(err)
		}
		a.gets(map[string]any{"msg_type": "room_message", "from": "server", "content": map[string]any{"n": 1.0}, "room": "r"})
		if err := rawtest.Broadcast(s, "to all"); err != nil {
			t.Error(err)
		}
		a.gets(map[string]any{"msg_type": "chat", "from": "server", "content": "to all"})
		b.gets(map[string]any{"msg_type": "chat", "from": "server", "content": "to all"})
		if err := rawtest.SendTo(s, b.id, 7); err != nil {
			t.Error(err)
		}
		b.gets(map[string]any{"msg_type": "direct_message", "from": "server", "content": 7.0})
		if err := rawtest.SendTo(s, "nobody", 7); !errors.Is(err, hubbub.ErrUnknownClient) {
			t.Errorf("to nobody: %v", err)
		}
		if err := rawtest.Publish(s, "nobody is here", 1); err != nil {
			t.Error(err)
		}
		if err := rawtest.Publish(s, "bad\x00room", 1); err == nil {
			t.Error("a room's name with a control character was accepted")
		}
		if err := rawtest.Publish(s, "r", func() {}); err == nil {
			t.Error("what is no JSON was accepted")
		}
	})
}

// Bad input is answered and the connection lives on.
func TestBadInputIsAnswered(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a := enter(t, s)
		for msg, want := range map[string]string{
			`{`:                                                "bad_json",
			`[]`:                                               "bad_json",
			`{"msg_type":"ping","x":"\ud800"}`:                 "bad_json",
			`{"msg_type":1}`:                                   "bad_message",
			`{"msg_type":"ping","msg_type":"ping"}`:            "bad_message",
			`{"MSG_TYPE":"ping"}`:                              "bad_message",
			`{"msg_type":"join_room"}`:                         "bad_message",
			`{"msg_type":"join_room","room":7}`:                "bad_message",
			`{"msg_type":"join_room","room":" "}`:              "bad_room",
			`{"msg_type":"join_room","room":"a\tb"}`:           "bad_room",
			`{"msg_type":"nothing"}`:                           "unknown_type",
			`{"msg_type":"presence"}`:                          "bad_message",
			`{"msg_type":"resume","rooms":{}}`:                 "bad_message",
			`{"msg_type":"join_room","room":"r","since":null}`: "bad_message",
			`{"msg_type":"join_room","room":"r","data":"` + strings.Repeat("x", 4095) + `"}`: "bad_message",
			`{"x":` + strings.Repeat("[", 128) + strings.Repeat("]", 128) + `}`:              "too_deep",
		} {
			a.Text(msg)
			if got := a.NextJSON(); got["msg_type"] != "error" || got["code"] != want {
				t.Errorf("%s is answered by %v, want the error %s", msg, got, want)
			}
		}
		a.Send(wsclient.Binary, true, []byte(`{"msg_type":"ping"}`))
		if got := a.NextJSON(); got["code"] != "binary" {
			t.Errorf("a binary frame is answered by %v", got)
		}
		if n := s.RoomCount(); n != 0 {
			t.Errorf("%d rooms were made by bad messages", n)
		}
		a.hearsNothing()
	})
}

func TestALimitOnRooms(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, MaxRoomsPerClient: 40})
		a, b := enter(t, s), enter(t, s)
		for i := range 40 {
			a.join(fmt.Sprint("room ", i))
		}
		if got := a.ask(`{"msg_type":"join_room","room":"one more"}`); got["code"] != "limit_reached" || got["retry"] != true {
			t.Errorf("got %v", got)
		}
		a.join("room 7") // is in there already
		// Leaving in any order keeps the rest in place.
		for _, i := range []int{39, 0, 20, 1} {
			a.ask(fmt.Sprintf(`{"msg_type":"leave_room","room":"room %d"}`, i))
		}
		for i := range 40 {
			b.ask(fmt.Sprintf(`{"msg_type":"room_message","room":"room %d","content":%d}`, i, i))
			if !slices.Contains([]int{39, 0, 20, 1}, i) {
				a.gets(roomMessage(b, fmt.Sprint("room ", i), float64(i)))
			}
		}
		a.join("one more")
		a.hearsNothing()
	})
}

func TestALimitOnConnections(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, MaxConnections: 2})
		a := rawtest.Dial(t, s, "/ws")
		rawtest.Dial(t, s, "/echo")
		c := rawtest.Connect(t, s)
		c.SendRaw([]byte(rawtest.Upgrade(s, "/ws")))
		r := c.Response("GET")
		if r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
			t.Errorf("the third gets %s, Retry-After %q", r.Status, r.Header.Get("Retry-After"))
		}
		if log := s.Log.String(); !strings.Contains(log, "--max-connections") {
			t.Errorf("the log doesn't say which flag would allow it: %s", log)
		}
		a.CloseNow()
		rawtest.Eventually(t, "a place is free", func() bool { return s.Connections() == 1 })
		rawtest.Dial(t, s, "/ws")
	})
}

func TestALimitOnConnectionsOfOneAddress(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, MaxConnectionsPerIP: 2})
		a := rawtest.Dial(t, s, "/ws")
		rawtest.Dial(t, s, "/echo")
		for range 2 {
			c := rawtest.Connect(t, s)
			c.SendRaw([]byte(rawtest.Upgrade(s, "/ws")))
			if r := c.Response("GET"); r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") == "" {
				t.Errorf("the third gets %s, Retry-After %q", r.Status, r.Header.Get("Retry-After"))
			}
		}
		if n := s.Connections(); n != 2 {
			t.Errorf("%d connections, want 2: a refused one kept its place", n)
		}
		a.Reset()
		rawtest.Eventually(t, "a place is free", func() bool { return s.Connections() == 1 })
		rawtest.Dial(t, s, "/ws")
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		nc, err := dialer.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		other := &rawtest.Client{T: t, NC: nc.(*net.TCPConn), R: bufio.NewReader(nc), Timeout: rawtest.Patience}
		other.SendRaw([]byte(rawtest.Upgrade(s, "/ws")))
		other.ExpectUpgrade()
	})
}

// One stalled reader: the others miss nothing, and it is told why it was closed once it reads again.
func TestAStalledReaderHurtsOnlyItself(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, SendQueueBytes: 128 << 10, MaxMessageBytes: 64 << 10})
		stalled, healthy, from := enter(t, s).join("r"), enter(t, s).join("r"), enter(t, s)
		content := strings.Repeat("z", 32<<10)
		tooSlow := func() bool { return strings.Contains(s.Log.String(), "slow client closed") }
		for sent := 0; !tooSlow(); sent++ {
			if sent > 2000 {
				t.Fatal("64 MB are on the way to a client that doesn't read, and it is still connected")
			}
			from.ask(`{"msg_type":"room_message","room":"r","content":"` + content + `"}`)
			healthy.gets(roomMessage(from, "r", content))
		}
		rawtest.Eventually(t, "the stalled client is given up", func() bool { return s.Connections() == 2 }) // its Close is waited for 5 s
		// What reached its socket before is whole.
		for {
			op, p, err := stalled.TryNext()
			if err != nil {
				break
			}
			if op == wsclient.Text && !strings.Contains(string(p), content) {
				t.Errorf("a broken message: %s", rawtest.Brief(p))
			}
		}
	})
}

func TestFiveThousandIdleConnectionsAddNoGoroutines(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("only the event loop promises this")
		return
	}
	s := rawtest.Start(t, hubbub.Config{IO: "epoll", MaxConnections: 6000})
	const n = 5000
	runtime.GC()
	before := runtime.NumGoroutine()
	clients := make([]*rawtest.Client, n)
	for i := range clients {
		clients[i] = rawtest.Dial(t, s, "/ws")
	}
	const kept = 64 // of the front's, at most, which wait for the next handshakes
	rawtest.Eventually(t, "the handshakes' goroutines end", func() bool { return runtime.NumGoroutine() <= before+kept+2 })
	if got := s.Connections(); got != n {
		t.Errorf("%d connections, want %d", got, n)
	}
	for _, c := range clients {
		c.CloseNow()
	}
	rawtest.Eventually(t, "all are gone", func() bool { return s.Connections() == 0 })
}

// Stopping: what is queued, reconnect, 1001; and no upgrade any more.
func TestShutdownTellsEveryone(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 2})
		a, b, echo := enter(t, s).join("r"), enter(t, s), rawtest.Dial(t, s, "/echo")
		b.ask(`{"msg_type":"room_message","room":"r","content":"last words"}`)
		done := make(chan error)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*rawtest.Patience)
			defer cancel()
			done <- s.Shutdown(ctx)
		}()
		a.gets(roomMessage(b, "r", "last words"))
		for _, m := range []*member{a, b} {
			got := m.NextJSON()
			if after, ok := got["after_ms"].(float64); got["msg_type"] != "reconnect" || got["reason"] != "drain" || !ok || after < 0 || after > 2000 {
				t.Errorf("got %v, want reconnect within 2 s", got)
			}
			m.AnswerClose(wire.CloseGoingAway)
		}
		echo.AnswerClose(wire.CloseGoingAway)
		if err := <-done; err != nil {
			t.Error(err)
		}
		w := &recorder{header: http.Header{}}
		r, _ := http.NewRequest("GET", "/readyz", nil)
		s.ServeHTTP(w, r)
		if w.status != http.StatusServiceUnavailable {
			t.Errorf("readyz is %d after Shutdown", w.status)
		}
	})
}

// A client that never answers is cut off when the time is up.
func TestShutdownEndsWithItsContext(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		enter(t, s) // reads nothing more
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		if n := s.Connections(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }

// A Server mounts in any mux, on any server, TLS too: there its connections run on the pump.
func TestTheServerMountsAnywhere(t *testing.T) {
	s, err := hubbub.New(hubbub.Config{})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/app/rooms", s.WebSocket())
	mux.Handle("/app/echo", s.Echo())
	for _, tls := range []bool{false, true} {
		url, client, stop := serve(mux, tls)
		ctx, cancel := context.WithTimeout(context.Background(), rawtest.Patience)
		c, _, err := websocket.Dial(ctx, url+"/app/echo", &websocket.DialOptions{HTTPClient: client})
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadLimit(1 << 20)
		for _, n := range []int{0, 1, 125, 126, 65535, 65536} {
			want := strings.Repeat("x", n)
			if err := c.Write(ctx, websocket.MessageText, []byte(want)); err != nil {
				t.Fatal(err)
			}
			if _, got, err := c.Read(ctx); err != nil || string(got) != want {
				t.Errorf("tls %v, %d bytes: %d bytes and %v came back", tls, n, len(got), err)
			}
		}
		if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
			t.Error(err)
		}
		c, _, err = websocket.Dial(ctx, url+"/app/rooms", &websocket.DialOptions{HTTPClient: client})
		if err != nil {
			t.Fatal(err)
		}
		if _, welcome, err := c.Read(ctx); err != nil || !strings.HasPrefix(string(welcome), `{"msg_type":"welcome",`) {
			t.Errorf("tls %v: %s, %v", tls, welcome, err)
		}
		c.CloseNow()
		cancel()
		stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), rawtest.Patience)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

func TestConfigNamesEveryBadValue(t *testing.T) {
	_, err := hubbub.New(hubbub.Config{
		Workers: -1, MaxMessageBytes: 2 << 20, PingInterval: time.Millisecond, SlowConsumer: "shout", IO: "kqueue",
		AllowedOrigins: []string{"example.com"},
		Handlers:       map[string]hubbub.Handler{"chat": func(context.Context, *hubbub.Message) (any, error) { return nil, nil }},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"workers -1", "send-queue-bytes 1048576: less than max-message-bytes", "ping-interval 1ms",
		`slow-consumer "shout": unknown; use disconnect, drop-oldest, latest or latest-by-key`, `io "kqueue": unknown`, `allowed-origins "example.com"`, `handler "chat"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	if err := (hubbub.Config{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
}

// 500 clients a second at most, whoever is still there is served, and upgrades are refused.
func TestTheDrainIsPaced(t *testing.T) {
	t.Parallel()
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 2})
		const n = 600
		var members []*member
		for range n {
			m := enter(t, s).join("r")
			members = append(members, m)
		}
		var gone atomic.Int64
		var all sync.WaitGroup
		for _, m := range members {
			all.Go(func() {
				for {
					op, p, err := m.TryNext()
					if err != nil {
						t.Errorf("a client was cut off: %v", err)
						return
					}
					if op == wsclient.Close {
						gone.Add(1)
						m.TrySend(rawtest.Frame(wsclient.Close, true, p))
						return
					}
				}
			})
		}
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(context.Background()) }()
		refused := false
		for gone.Load() < n {
			before := time.Since(began)
			if g := gone.Load(); float64(g) > 500*time.Since(began).Seconds()+50 {
				t.Fatalf("%d have gone after %s", g, before)
			}
			if g := gone.Load(); !refused && g > 0 && g < n {
				refused = true
				c := rawtest.Connect(t, s)
				c.SendRaw([]byte(rawtest.Upgrade(s, "/ws")))
				if r := c.Response("GET"); r.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("an upgrade gets %s", r.Status)
				}
				if err := rawtest.Publish(s, "r", "still here"); err != nil {
					t.Errorf("Publish while draining: %v", err)
				}
			}
			time.Sleep(5 * time.Millisecond)
			if time.Since(began) > rawtest.Patience {
				t.Fatalf("only %d have gone", gone.Load())
			}
		}
		if !refused {
			t.Error("all went at once: nothing was tried in between")
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		all.Wait()
	})
}
