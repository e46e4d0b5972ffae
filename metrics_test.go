package hubbub_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// scrape reads /metrics: each line's value by what stands before it.
func scrape(t testing.TB, s *rawtest.Server) map[string]float64 {
	t.Helper()
	r, err := http.Get("http://" + s.Addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", r.Status, err, b)
	}
	return parseMetrics(t, string(b))
}

func parseMetrics(t testing.TB, text string) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all[line[:i]] = v
	}
	return all
}

// scraped waits until /metrics has these values, and shows what it has instead.
func scraped(t testing.TB, s *rawtest.Server, want map[string]float64) (all map[string]float64) {
	t.Helper()
	var wrong []string
	for range rawtest.Looks {
		all, wrong = scrape(t, s), nil
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if got, ok := all["hubbub_"+name]; !ok || got != want[name] {
				wrong = append(wrong, fmt.Sprintf("%s is %v, want %v", name, got, want[name]))
			}
		}
		if len(wrong) == 0 {
			return all
		}
	}
	t.Fatal(strings.Join(wrong, "\n"))
	return nil
}

func TestMetricsOfAnExchange(t *testing.T) {
	t.Parallel()
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		scraped(t, s, map[string]float64{
			"connections": 0, "rooms": 0, "messages_received_total": 0, "messages_sent_total": 0, "received_bytes_total": 0, "sent_bytes_total": 0,
			`dropped_total{policy="disconnect"}`: 0, `closed_total{code="1000"}`: 0, `closed_total{code="4000"}`: 0, `closed_total{code="4002"}`: 0,
			`errors_total{code="bad_json"}`: 0, `errors_total{code="internal"}`: 0, `upgrades_total{result="accepted"}`: 0,
			"buffered_bytes": 0, "history_bytes": 0, "panics_total": 0, `mailbox_depth{worker="0"}`: 0,
		})
		a, b, c := enter(t, s).join("r"), enter(t, s).join("r"), enter(t, s).join("other")
		a.ask(`{"msg_type":"room_message","room":"r","content":1}`)
		b.gets(roomMessage(a, "r", 1.0))
		a.ask(`{"msg_type":"chat","content":2}`)
		b.NextJSON()
		c.NextJSON()
		c.Text(`{"msg_type":"no such"}`)
		c.Text(`{`)
		c.Text(`{`)
		for range 3 {
			c.NextJSON()
		}
		all := scraped(t, s, map[string]float64{
			"connections": 3, "rooms": 2,
			"messages_received_total":           3 + 2 + 3,             // joins, publishes, bad ones
			"messages_sent_total":               3 + 3 + 2 + 1 + 2 + 3, // welcome, joined, ack, room_message, chat, error
			`errors_total{code="unknown_type"}`: 1, `errors_total{code="bad_json"}`: 2, `errors_total{code="bad_room"}`: 0,
			`upgrades_total{result="accepted"}`: 3, "buffered_bytes": 0, "panics_total": 0,
		})
		if all["hubbub_received_bytes_total"] < 100 || all["hubbub_sent_bytes_total"] < 500 || all["hubbub_turn_seconds_count"] < 3 || all["hubbub_turn_seconds_sum"] <= 0 || all["hubbub_history_bytes"] < 100 {
			t.Errorf("bytes, history and turns: %v", all)
		}
		a.SendClose(1000, "")
		a.ExpectClose(1000)
		b.SendRaw([]byte{0x81, 0x00}) // not masked
		b.ExpectClose(1002)
		c.SendClose(4000, "") // a client can't pass itself off as slow
		c.ExpectClose(4000)
		scraped(t, s, map[string]float64{
			"connections": 0, "rooms": 2 /* r has history, other a parked member */, "parked_sessions": 2, `closed_total{code="1000"}`: 1, `closed_total{code="1002"}`: 1, `closed_total{code="other"}`: 1,
			`closed_total{code="4000"}`: 0, `closed_total{code="1006"}`: 0,
		})
	})
}

// What MaxBufferedBytes bounds is in the figures, all of it and of each kind.
func TestAllThatIsBoundedIsInTheFigures(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	s := rawtest.Start(t, hubbub.Config{Workers: 1, Rooms: []hubbub.RoomPolicy{{Match: "full", Presence: "full"}}, Handlers: handlers{
		"wait": func(context.Context, *hubbub.Message) (any, error) { <-release; return nil, nil },
	}})
	tail, err := s.Tail(hubbub.TailOf{Room: "nobody's"}) // nobody asks it for anything
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	away := enter(t, s)
	away.Reset()
	parked(t, s, 1)
	m := enter(t, s)
	m.ask(`{"msg_type":"direct_message","to":"` + away.id + `","content":"waits"}`)
	m.ask(`{"msg_type":"join_room","room":"full","data":"shown"}`)
	for i := range 20 { // of which the first few aren't counted
		m.join(fmt.Sprint("r", i))
	}
	m.ask(`{"msg_type":"room_message","room":"nobody's","content":1,"publish_id":"p"}`)
	enter(t, s).Text(`{"msg_type":"wait"}`)
	enter(t, s).SendRaw(rawtest.Frame(wsclient.Text, true, []byte(`{"msg_type":"chat"}`))[:20]) // half received
	var missing []string
	defer func() {
		if missing != nil {
			t.Errorf("missing in the figures: %q", missing)
		}
	}()
	rawtest.Eventually(t, "all kinds are kept, and in the figures", func() bool {
		all := scrape(t, s)
		missing = nil
		kept := 0.0
		for _, kind := range []string{"history", "rooms", "memberships", "publish_ids", "parked", "presence", "tails", "hooks"} {
			n := all[`hubbub_kept_bytes{kind="`+kind+`"}`]
			if kept += n; n <= 0 {
				missing = append(missing, kind)
			}
		}
		figures := all["hubbub_buffered_bytes"] + all["hubbub_history_bytes"]
		if figures <= kept {
			missing = append(missing, "what is half received")
		}
		if account := float64(hubbub.Buffered(s.Server)); figures != account {
			missing = append(missing, fmt.Sprint(figures-account, " bytes"))
		}
		return len(missing) == 0
	})
}

func TestMetricsOfEveryUpgrade(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{Workers: 1, MaxConnections: 2})
	const version, key = "Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Key: " + wsclient.Key + "\r\n"
	for _, c := range []struct{ head, result string }{
		{"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", "no_upgrade"},
		{"DELETE /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + version + key + "\r\n", "bad_method"},
		{"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\n" + key + "\r\n", "bad_version"},
		{"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + version + "\r\n", "bad_handshake"},
		{"GET /ws HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + version + key + "\r\n", "origin"},
	} {
		conn := rawtest.Connect(t, s)
		conn.SendRaw([]byte(c.head))
		conn.Response("GET")
		scraped(t, s, map[string]float64{`upgrades_total{result="` + c.result + `"}`: 1})
	}
	rawtest.Dial(t, s, "/echo")
	rawtest.Dial(t, s, "/ws")
	for range 2 {
		conn := rawtest.Connect(t, s)
		conn.SendRaw([]byte(rawtest.Upgrade(s, "/ws")))
		conn.Response("GET")
	}
	// A path that is none, and a page, are no upgrade.
	for _, path := range []string{"/nothing", "/"} {
		if r, err := http.Get("http://" + s.Addr + path); err == nil {
			r.Body.Close()
		}
	}
	scraped(t, s, map[string]float64{
		`upgrades_total{result="accepted"}`: 2, `upgrades_total{result="max_connections"}`: 2, `upgrades_total{result="stopping"}`: 0,
		`upgrades_total{result="no_upgrade"}`: 1, `upgrades_total{result="bad_method"}`: 1, `upgrades_total{result="bad_version"}`: 1,
		`upgrades_total{result="bad_handshake"}`: 1, `upgrades_total{result="origin"}`: 1, `upgrades_total{result="failed"}`: 0,
	})
}

func TestMetricsOfSlowAndDeadClients(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		t.Parallel()
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 2, PingInterval: time.Second, PongTimeout: time.Second, SendQueueBytes: 64 << 10})
		slow, _ := enter(t, s).join("r"), enter(t, s) // the second never answers a ping
		go func() {                                   // the first would, if it read
			for slow.TrySend(rawtest.Frame(wsclient.Pong, true, nil)) == nil {
				time.Sleep(50 * time.Millisecond)
			}
		}()
		content := strings.Repeat("x", 32<<10)
		for range 1000 {
			if err := rawtest.Publish(s, "r", content); err != nil && !errors.Is(err, hubbub.ErrOverloaded) {
				t.Fatal(err)
			}
			if s.RoomCount() == 0 {
				break
			}
		}
		all := scraped(t, s, map[string]float64{`closed_total{code="4000"}`: 1, `closed_total{code="4002"}`: 1})
		if all[`hubbub_dropped_total{policy="disconnect"}`] < 1 {
			t.Error("nothing is counted as dropped")
		}
		slow.CloseNow()
		const parked = 2*512 + 64 // two sessions, one of which has a room
		scraped(t, s, map[string]float64{"connections": 0, "buffered_bytes": parked, `kept_bytes{kind="parked"}`: parked})
		log := s.Log.String()
		for _, want := range []string{"level=INFO msg=\"slow client closed\" code=4000", "level=DEBUG msg=\"connection failed\"", "no sign of life"} {
			if !strings.Contains(log, want) {
				t.Errorf("the log has no %q:\n%s", want, log)
			}
		}
	})
}

func TestScrapesUnderLoad(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		ctx, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		members := []*member{enter(t, s).join("r"), enter(t, s).join("r"), enter(t, s).join("r")}
		for _, m := range members[1:] {
			load.Go(func() {
				for {
					if _, _, err := m.TryNext(); err != nil {
						return
					}
				}
			})
		}
		load.Go(func() {
			for ctx.Err() == nil {
				if members[0].TrySend(rawtest.Frame(wsclient.Text, true, []byte(`{"msg_type":"room_message","room":"r","content":"load"}`))) != nil {
					return
				}
			}
		})
		var scrapers sync.WaitGroup
		for range 2 {
			scrapers.Go(func() {
				last := map[string]float64{}
				for range 50 {
					now := scrape(t, s)
					for name, v := range now {
						if total := strings.Contains(name, "_total") || strings.Contains(name, "turn_seconds"); total && v < last[name] && strings.HasPrefix(name, "hubbub_") {
							t.Errorf("%s fell from %v to %v", name, last[name], v)
						}
					}
					last = now
				}
				if last["hubbub_messages_sent_total"] < 2 || last["hubbub_connections"] != 3 {
					t.Errorf("under load: %v", last)
				}
			})
		}
		scrapers.Wait()
		stop()
		members[0].CloseNow()
		for _, m := range members[1:] {
			m.CloseNow()
		}
		load.Wait()
	})
}

func TestMetricsAreReadOnly(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{Workers: 1})
	r, err := http.Post("http://"+s.Addr+"/metrics", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %s, Allow %q", r.Status, r.Header.Get("Allow"))
	}
	r, err = http.Head("http://" + s.Addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("HEAD: %s, %s", r.Status, r.Header.Get("Content-Type"))
	}
}

// Two servers in one program have figures of their own, also once they have ended.
func TestEachServerCountsForItself(t *testing.T) {
	t.Parallel()
	one, two := rawtest.Start(t, hubbub.Config{Workers: 1}), rawtest.Start(t, hubbub.Config{Workers: 1})
	enter(t, one)
	scraped(t, one, map[string]float64{"connections": 1, `upgrades_total{result="accepted"}`: 1})
	scraped(t, two, map[string]float64{"connections": 0, `upgrades_total{result="accepted"}`: 0})
	if err := one.Shutdown(timeout(t)); err != nil && !strings.Contains(err.Error(), "deadline") {
		t.Error(err)
	}
	answer := httptest.NewRecorder()
	one.Metrics().ServeHTTP(answer, httptest.NewRequest("GET", "/any/path", nil))
	if got := parseMetrics(t, answer.Body.String()); got["hubbub_connections"] != 0 || got["hubbub_messages_sent_total"] < 1 {
		t.Errorf("after the end: %s", answer.Body)
	}
}

func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}
