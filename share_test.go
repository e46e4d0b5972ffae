package hubbub_test

import (
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// One client takes what all share: each of these fills what is kept for it until it is refused, alone, and the server
// stays ready for the others.
func TestNobodyTakesWhatAllShare(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for _, c := range []struct {
		name string
		say  func(i int) string // with an id; %d is the number of the message
		code string
		most int // messages that may be taken
	}{
		{"publish_ids", func(i int) string {
			return fmt.Sprintf(`{"msg_type":"room_message","room":"nobody is here","content":1,"publish_id":"%d","id":%d}`, i, i)
		}, "rate_limited", 10_000},
		{"rooms that nobody is in", func(i int) string {
			return fmt.Sprintf(`{"msg_type":"room_message","room":"r%d","content":1,"id":%d}`, i, i)
		}, "rate_limited", 10_000},
		{"histories", func(i int) string {
			return fmt.Sprintf(`{"msg_type":"room_message","room":"r%d","content":"%s","id":%d}`, i, long, i)
		}, "rate_limited", 2_500},
		{"rooms that it has left", func(i int) string {
			room := i / 3
			return []string{
				fmt.Sprintf(`{"msg_type":"join_room","room":"r%d","id":%d}`, room, i),
				fmt.Sprintf(`{"msg_type":"room_message","room":"r%d","content":"%s","id":%d}`, room, long, i),
				fmt.Sprintf(`{"msg_type":"leave_room","room":"r%d","id":%d}`, room, i),
			}[i%3]
		}, "rate_limited", 7_500},
		{"data in rooms", func(i int) string {
			return fmt.Sprintf(`{"msg_type":"join_room","room":"full%d","data":"%s","id":%d}`, i, strings.Repeat("x", 4000), i)
		}, "limit_reached", 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := rawtest.Start(t, hubbub.Config{Workers: 1, MaxBufferedBytes: 16 << 20, Rooms: []hubbub.RoomPolicy{{Match: "full*", Presence: "full"}}})
			parkedOne, token := enterFor(t, s)
			parkedOne.join("mine")
			parkedOne.Reset()
			parked(t, s, 1)
			greedy := enter(t, s)
			taken, refused := 0, 0
			for i := 0; i < 30_000 && refused < 100; i += 100 {
				var packet []byte
				for n := range 100 {
					packet = append(packet, rawtest.Frame(wsclient.Text, true, []byte(c.say(i+n)))...)
				}
				greedy.SendRaw(packet)
				for range 100 {
					switch got := greedy.NextJSON(); {
					case got["msg_type"] != "error":
						taken++
					case got["code"] != c.code || got["retry"] != true:
						t.Fatalf("refused by %v", got)
					default:
						refused++
					}
				}
			}
			if refused == 0 || taken > c.most {
				t.Errorf("%d were taken, %d refused", taken, refused)
			}
			all := scrape(t, s)
			if kept := all["hubbub_buffered_bytes"] + all["hubbub_history_bytes"]; kept > 16<<20/7 || kept < 10_000 {
				t.Errorf("%v bytes are kept", kept)
			}
			if status := statusAt(s, "/readyz"); status != http.StatusOK {
				t.Errorf("readyz is %d", status)
			}
			// The others notice nothing.
			other := enter(t, s).join("mine too")
			for i := range 20 {
				if got := other.raw(`{"msg_type":"room_message","room":"mine too","content":1,"publish_id":"p%d","id":1}`, i); got["msg_type"] != "ack" {
					t.Fatalf("another client: %v", got)
				}
			}
			if _, welcome := comeBack(t, s, token); welcome["resumed"] != true {
				t.Errorf("a parked session is gone: %v", welcome)
			}
		})
	}
}

// fill publishes by publish_ids of that prefix until it is refused, and says how many were taken.
func (m *member) fill(prefix string) (taken int) {
	m.T.Helper()
	for {
		var packet []byte
		for i := range 100 {
			packet = append(packet, rawtest.Frame(wsclient.Text, true, fmt.Appendf(nil, `{"msg_type":"room_message","room":"nobody is here","content":1,"publish_id":"%s%d","id":%d}`, prefix, taken+i, i))...)
		}
		m.SendRaw(packet)
		refused := 0
		for range 100 {
			switch got := m.NextJSON(); got["code"] {
			case nil:
				taken++
			case "rate_limited":
				refused++
			default:
				m.T.Fatalf("got %v", got)
			}
		}
		if refused > 0 {
			return taken
		}
		if taken > 100_000 {
			m.T.Fatal("nobody is ever refused")
		}
	}
}

// A user has one share over all of its sessions, also over those that have ended; an address some, where its
// connections are bounded.
func TestAUserAndAnAddressHaveShares(t *testing.T) {
	cfg := hubbub.Config{MaxBufferedBytes: 64 << 20, Hooks: hubbub.Hooks{Connect: func(_ context.Context, c *hubbub.Connect) error {
		c.User = c.Request.URL.Query().Get("user")
		return nil
	}}}
	t.Run("user", func(t *testing.T) {
		s := rawtest.Start(t, cfg)
		as := func(user string) *member {
			m := &member{Client: rawtest.Dial(t, s, "/ws?user="+user)}
			m.NextJSON()
			return m
		}
		ann := as("ann")
		share := ann.fill("a")
		if n := as("ann").fill("b"); n > 0 {
			t.Errorf("a second session of the user took %d more", n)
		}
		ann.SendClose(1000, "")
		ann.ExpectClose(1000)
		if n := as("ann").fill("c"); n > 0 {
			t.Errorf("a session after the first took %d more", n)
		}
		if n := as("bob").fill("d"); n < share-1 || n > share+1 {
			t.Errorf("another user may take %d, the first took %d", n, share)
		}
	})
	type limits struct {
		set    func(*hubbub.Config)
		shares float64
	}
	for name, c := range map[string]limits{
		"nothing":                {func(*hubbub.Config) {}, 8},
		"max-connections-per-ip": {func(c *hubbub.Config) { c.MaxConnectionsPerIP = 100 }, 4},
		"trusted-proxies":        {func(c *hubbub.Config) { c.TrustedProxies = []string{"192.0.2.1"} }, 4},
		"of a silent proxy":      {func(c *hubbub.Config) { c.TrustedProxies = []string{"127.0.0.1"} }, 8},
	} {
		t.Run("address, "+name, func(t *testing.T) {
			cfg := cfg
			c.set(&cfg)
			s := rawtest.Start(t, cfg)
			one, all := 0, 0
			for i := range 8 {
				m := &member{Client: rawtest.Dial(t, s, "/ws")}
				m.NextJSON()
				n := m.fill(fmt.Sprint("s", i, "-"))
				one = max(one, n)
				all += n
			}
			if got := float64(all) / float64(one); got < c.shares-0.1 || got > c.shares+0.1 {
				t.Errorf("eight clients of one address took %.2f shares, want %v", got, c.shares)
			}
		})
	}
}

// statusAt is that of a GET.
func statusAt(s *rawtest.Server, path string) int {
	r, err := http.Get("http://" + s.Addr + path)
	if err != nil {
		return 0
	}
	r.Body.Close()
	return r.StatusCode
}

// What one limit allows the others do not forbid: as many rooms as a client may have, with data, can be joined and come
// back to by a client whose server is small.
func TestAsManyRoomsAsAllowedCanBeResumed(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{MaxBufferedBytes: 16 << 20, Rooms: []hubbub.RoomPolicy{{Match: "*", Presence: "full"}}})
	m, token := enterFor(t, s)
	const rooms, each = 1000, 400
	name := func(i int) string { return fmt.Sprintf("%036d", i) }
	joined := map[string]any{}
	for i := range rooms {
		m.Text(fmt.Sprintf(`{"msg_type":"join_room","room":"%s","data":{"n":%d},"id":%d}`, name(i), i, i))
		for {
			got := m.NextJSON()
			if got["msg_type"] == "joined" {
				joined[name(i)] = got["epoch"]
				break
			}
			if got["msg_type"] != "member_joined" {
				t.Fatalf("room %d: %v", i, got)
			}
		}
	}
	m.Reset()
	parked(t, s, 1)
	a := enter(t, s)
	a.publish(name(0), 1, 1)
	a.Text(`{"msg_type":"direct_message","to":"` + m.id + `","content":"waits"}`)
	a.publish(name(999), 1, 1)
	back, welcome := comeBack(t, s, token)
	if welcome["resumed"] != true {
		t.Fatalf("got %v", welcome)
	}
	for from := 0; from < rooms; from += each {
		var b strings.Builder
		to := min(rooms, from+each)
		for i := from; i < to; i++ {
			fmt.Fprintf(&b, `,"%s":{"epoch":"%s","offset":0}`, name(i), joined[name(i)])
		}
		msg := fmt.Sprintf(`{"msg_type":"resume","id":%d,"last":%v,"rooms":{%s}}`, from, to == rooms, b.String()[1:])
		if len(msg) > 64<<10 {
			t.Fatalf("a resume has %d bytes", len(msg))
		}
		got := back.raw("%s", msg)
		answers := got["rooms"].(map[string]any)
		if got["msg_type"] != "resumed" || len(answers) != to-from {
			t.Fatalf("%d answers: %v", len(answers), got["msg_type"])
		}
		for room, answer := range answers {
			if answer.(map[string]any)["recovered"] != true {
				t.Fatalf("%s: %v", room, answer)
			}
		}
		a.publish(name(from), 2, 2) // comes when all is said
	}
	direct := back.NextJSON()
	if direct["content"] != "waits" {
		t.Fatalf("after the last resumed comes %v", direct)
	}
	got := map[string]int{}
	for range 5 {
		got[back.NextJSON()["room"].(string)]++
	}
	if got[name(0)] != 2 || got[name(999)] != 1 || got[name(400)] != 1 || got[name(800)] != 1 {
		t.Errorf("missed messages: %v", got)
	}
	back.hearsNothing()
}

// Who has joined until its share was used up may lose its connection all the same: a parked session takes less than
// what its rooms took before.
func TestWhoseShareIsUsedUpByRoomsCanResume(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{MaxBufferedBytes: 1 << 20})
	m, token := enterFor(t, s)
	rooms := 0
	for m.raw(`{"msg_type":"join_room","room":"r%d","id":1}`, rooms)["msg_type"] == "joined" {
		rooms++
	}
	if rooms >= 1000 {
		t.Fatalf("%d rooms, which is no share", rooms)
	}
	m.Reset()
	parked(t, s, 1)
	back, welcome := comeBack(t, s, token)
	if welcome["resumed"] != true {
		t.Fatalf("got %v", welcome)
	}
	names := make([]string, rooms)
	for i := range names {
		names[i] = fmt.Sprintf(`"r%d":null`, i)
	}
	for room, answer := range back.raw(`{"msg_type":"resume","id":1,"rooms":{%s}}`, strings.Join(names, ","))["rooms"].(map[string]any) {
		if answer.(map[string]any)["retry"] == true {
			t.Errorf("%s: %v", room, answer)
		}
	}
}

// A resume of several messages ends with another kind of message, too; what is not named then is left.
func TestAResumeThatSaysNoMoreIsOver(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		m, token := enterFor(t, s)
		m.join("a").join("b")
		m.Reset()
		parked(t, s, 1)
		watcher := enter(t, s)
		back, _ := comeBack(t, s, token)
		back.raw(`{"msg_type":"resume","id":1,"rooms":{"a":null},"last":false}`)
		watcher.publish("a", 1, 1)
		back.hearsNothing() // a ping ends nothing
		scraped(t, s, map[string]float64{"parked_sessions": 1})
		if got := back.raw(`{"msg_type":"presence","room":"b","id":2}`); got["msg_type"] == "room_message" {
			got = back.NextJSON()
		}
		scraped(t, s, map[string]float64{"parked_sessions": 0})
		if got := watcher.raw(`{"msg_type":"presence","room":"b","id":3}`); got["count"] != 0.0 {
			t.Errorf("the room that was not named: %v", got)
		}
		if got := watcher.raw(`{"msg_type":"presence","room":"a","id":4}`); got["count"] != 1.0 {
			t.Errorf("the room that was named: %v", got)
		}
	})
}

// deflated is a compressed message of a client (RFC 7692): small on the wire, large behind it.
func deflated(text string) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	io.WriteString(w, text)
	w.Flush()
	p := bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff})
	f := rawtest.Frame(wsclient.Text, true, p)
	f[0] |= 0x40
	return f
}

// beside measures how long an innocent client's ping takes while others attack; it judges nothing that depends on time.
func beside(t *testing.T, s *rawtest.Server) (median, p95 time.Duration) {
	innocent := enter(t, s)
	var took []time.Duration
	for range 40 {
		began := time.Now()
		innocent.ask(`{"msg_type":"ping"}`)
		took = append(took, time.Since(began))
		time.Sleep(time.Millisecond)
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*95/100]
}

// A read of 64 KiB may hold hundreds of messages that are large when they are inflated, or dear to obey. A connection
// is fed its share of a turn, all such together little more, and what is left counts as half received.
func TestOneReadIsNotOneTurn(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, kind string) {
		bomb := deflated(`{"msg_type":"ping","padding":"` + strings.Repeat("a", 65000) + `"}`)
		bombs := float64(64 << 10 / len(bomb))
		resume := rawtest.Frame(wsclient.Text, true, []byte(resumes(1)))
		for _, c := range []struct {
			name      string
			attackers int
			message   []byte
			least     float64 // messages of such an attack
			most      float64 // in a turn
		}{
			// How many a turn's share is of depends on the machine; all that came in one read, and of 20, is far more.
			{"compressed messages", 1, bomb, 1000, bombs / 5}, {"compressed messages", 20, bomb, 1000, bombs / 5},
			{"resumes", 1, resume, 100, 3}, {"resumes", 20, resume, 100, 6},
		} {
			s := rawtest.Start(t, hubbub.Config{Workers: 1, IO: kind})
			packet := bytes.Repeat(c.message, 64<<10/len(c.message))
			before := scrape(t, s)
			a := attack(t, s, c.attackers, "Sec-WebSocket-Extensions: permessage-deflate", packet)
			received := func(s map[string]float64) float64 { return s["hubbub_messages_received_total"] }
			median, p95 := beside(t, s)
			for range 250 { // a busy machine takes longer until there was an attack at all
				if received(scrape(t, s))-received(before) >= c.least {
					break
				}
				beside(t, s)
			}
			a.end()
			after := scrape(t, s)
			t.Logf("an innocent's round trip beside %d who send %d %s a packet: median %s, p95 %s", c.attackers, len(packet)/len(c.message), c.name, median, p95)
			turns := after["hubbub_turn_seconds_count"] - before["hubbub_turn_seconds_count"]
			messages := received(after) - received(before)
			if messages < c.least || messages/turns > c.most {
				t.Errorf("%d attackers: %v %s in %v turns", c.attackers, messages, c.name, turns)
			}
		}
	})
}

// attackers send a packet again and again, as fast as it is read, and read what they are told.
type attackers struct {
	all  []*rawtest.Client
	over sync.WaitGroup
}

func attack(t testing.TB, s *rawtest.Server, n int, header string, packet []byte) *attackers {
	a := &attackers{}
	for range n {
		c := rawtest.Dial(t, s, "/ws", header)
		a.all = append(a.all, c)
		go io.Copy(io.Discard, c.R)
		a.over.Go(func() {
			for c.TrySend(packet) == nil {
			}
		})
	}
	return a
}

func (a *attackers) end() {
	for _, c := range a.all {
		c.Reset()
	}
	a.over.Wait()
}

// floods are the cheapest and the dearest messages that a client may send, as fast as the server reads them.
var floods = []struct {
	name string
	say  func(i int) string
}{
	{"pings", func(int) string { return `{"msg_type":"ping"}` }},
	{"joins and leaves", func(i int) string {
		return fmt.Sprintf(`{"msg_type":"%s","room":"other"}`, []string{"join_room", "leave_room"}[i%2])
	}},
	{"joins and leaves of a room that tells 1000", func(i int) string {
		return fmt.Sprintf(`{"msg_type":"%s","room":"lobby"}`, []string{"join_room", "leave_room"}[i%2])
	}},
	{"presence of 1000", func(i int) string { return fmt.Sprintf(`{"msg_type":"presence","room":"lobby","id":%d}`, i) }},
	{"history pages", func(i int) string { return fmt.Sprintf(`{"msg_type":"history","room":"full","limit":1000,"id":%d}`, i) }},
	{"direct messages", func(int) string { return "" }}, // to itself; below
	{"room messages to nobody", func(int) string { return `{"msg_type":"room_message","room":"full","content":"x"}` }},
	{"resumes", resumes},
}

// resumes is a resume of 900 rooms, the most work that a message can be.
func resumes(i int) string {
	var rooms strings.Builder
	for r := range 900 {
		fmt.Fprintf(&rooms, `,"resumed%d":null`, r)
	}
	return fmt.Sprintf(`{"msg_type":"resume","id":%d,"rooms":{%s}}`, i, rooms.String()[1:])
}

// BenchmarkBeside is how long an innocent client's round trip takes on the worker of those who attack; each operation
// is a ping of the innocent.
func BenchmarkBeside(b *testing.B) {
	for _, kind := range []string{"epoll", "pump"} {
		for _, n := range []int{1, 20} {
			b.Run(fmt.Sprintf("io=%s/attackers=%d", kind, n), func(b *testing.B) { benchmarkBeside(b, kind, n) })
		}
	}
}

func benchmarkBeside(b *testing.B, kind string, attackers int) {
	s := rawtest.Start(b, hubbub.Config{Workers: 1, IO: kind})
	watchers := make([]*member, 999)
	for i := range watchers {
		watchers[i] = enter(b, s)
		watchers[i].Text(`{"msg_type":"join_room","room":"lobby"}`)
		go io.Copy(io.Discard, watchers[i].R)
	}
	for range 100 {
		if err := rawtest.Publish(s, "full", strings.Repeat("x", 500)); err != nil {
			b.Fatal(err)
		}
	}
	innocent := enter(b, s)
	measure := func(b *testing.B) {
		var took []time.Duration
		for b.Loop() {
			began := time.Now()
			innocent.ask(`{"msg_type":"ping"}`)
			took = append(took, time.Since(began))
			time.Sleep(time.Millisecond)
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
		b.ReportMetric(float64(took[len(took)*95/100].Microseconds()), "p95-us")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("nothing", measure)
	beside := func(name, extension string, packet []byte) {
		b.Run(name, func(b *testing.B) {
			a := attack(b, s, attackers, extension, packet)
			before, began := scrape(b, s)["hubbub_messages_received_total"], time.Now()
			measure(b)
			b.ReportMetric((scrape(b, s)["hubbub_messages_received_total"]-before)/time.Since(began).Seconds(), "messages/s")
			a.end()
		})
	}
	bomb := deflated(`{"msg_type":"ping","padding":"` + strings.Repeat("a", 65000) + `"}`)
	beside("compressed bombs", "Sec-WebSocket-Extensions: permessage-deflate", bytes.Repeat(bomb, 64<<10/len(bomb)))
	for _, f := range floods {
		say := f.say
		if f.name == "direct messages" {
			to := enter(b, s)
			go io.Copy(io.Discard, to.R)
			say = func(int) string { return `{"msg_type":"direct_message","to":"` + to.id + `","content":"x"}` }
		}
		var packet []byte
		for i := 0; len(packet) < 60<<10; i++ {
			packet = append(packet, rawtest.Frame(wsclient.Text, true, []byte(say(i)))...)
		}
		beside(f.name, "X-Nothing: 1", packet)
	}
}
