package e2e

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scrape reads /metrics: each line's value by what stands before it.
func scrape(t *testing.T, s *server) map[string]float64 {
	t.Helper()
	res, err := http.Get(s.http("/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %s, %v", res.Status, err)
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		if all[line[:i]], err = strconv.ParseFloat(line[i+1:], 64); err != nil {
			t.Fatalf("/metrics: %q: %v", line, err)
		}
	}
	return all
}

// becomes waits until /metrics has a value.
func becomes(t *testing.T, s *server, name string, want float64) {
	t.Helper()
	var got float64
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got = scrape(t, s)[name]; got == want {
			return
		}
	}
	t.Errorf("%s is %v, want %v", name, got, want)
}

func TestMetricsFollowAnExchange(t *testing.T) {
	// Neither history nor parked sessions keep a room that nobody is in.
	config := filepath.Join(t.TempDir(), "hubbub.yaml")
	if err := os.WriteFile(config, []byte("resume-window: 0s\nrooms:\n  - match: \"*\"\n    history: off\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	eachClient(t, []string{"--config", config, "--send-queue-bytes", "64KiB", "--allowed-origins", "https://ok.example"}, func(t *testing.T, s *server, dial dialer) {
		before := scrape(t, s)
		grew := func(name string, by float64) {
			t.Helper()
			becomes(t, s, "hubbub_"+name, before["hubbub_"+name]+by)
		}
		becomes(t, s, "hubbub_connections", 0)
		a, b := dial(t, s.ws("/ws")).welcomed(), dial(t, s.ws("/ws")).welcomed()
		a.join("r")
		b.join("r")
		a.ask(`{"msg_type":"room_message","room":"r","content":"hello","id":1}`, "ack")
		b.message("room_message")
		b.send(`{"msg_type":`)
		b.message("error")
		a.ask(`{"msg_type":"direct_message","to":"nobody","content":1,"id":2}`, "error")
		becomes(t, s, "hubbub_connections", 2)
		becomes(t, s, "hubbub_rooms", 1)
		grew("messages_received_total", 5)
		grew("messages_sent_total", 2+2+1+1+2)
		grew(`errors_total{code="bad_json"}`, 1)
		grew(`errors_total{code="unknown_client"}`, 1)
		grew(`upgrades_total{result="accepted"}`, 2)
		grew("panics_total", 0)
		now := scrape(t, s)
		for _, name := range []string{"hubbub_received_bytes_total", "hubbub_sent_bytes_total", "hubbub_turn_seconds_count"} {
			if now[name] <= before[name] {
				t.Errorf("%s is %v and was %v", name, now[name], before[name])
			}
		}
		a.close(1000, "")
		a.expect("close")
		grew(`closed_total{code="1000"}`, 1)
		broken := dialRaw(t, s, "/ws", "")
		broken.welcomed()
		broken.write("\x81\x00")
		broken.expectClose(1002)
		grew(`closed_total{code="1002"}`, 1)
		refused := connect(t, s)
		refused.write(strings.Replace(upgrade(s, "/ws"), "\r\n\r\n", "\r\nOrigin: https://evil.example\r\n\r\n", 1))
		refused.response("GET")
		grew(`upgrades_total{result="origin"}`, 1)
		plain, err := http.Get(s.http("/ws"))
		if err != nil {
			t.Fatal(err)
		}
		plain.Body.Close()
		grew(`upgrades_total{result="no_upgrade"}`, 1)

		// A member that doesn't read is closed with 4000, and what waited for it is dropped.
		lazy := dialRaw(t, s, "/ws", text(`{"msg_type":"join_room","room":"flood"}`))
		becomes(t, s, "hubbub_rooms", 2)
		publisher := dialRaw(t, s, "/ws", "")
		publisher.welcomed()
		for scrape(t, s)[`hubbub_closed_total{code="4000"}`] == before[`hubbub_closed_total{code="4000"}`] {
			publisher.write(text(`{"msg_type":"room_message","room":"flood","content":"` + strings.Repeat("x", 60_000) + `"}`))
		}
		grew(`closed_total{code="4000"}`, 1)
		if scrape(t, s)[`hubbub_dropped_total{policy="disconnect"}`] <= before[`hubbub_dropped_total{policy="disconnect"}`] {
			t.Error("nothing is counted as dropped")
		}
		lazy.Close()
		publisher.Close()
		b.close(1000, "")
		b.expect("close")
		becomes(t, s, "hubbub_connections", 0)
		becomes(t, s, "hubbub_rooms", 0)
		becomes(t, s, "hubbub_buffered_bytes", 0)
		// Each ended once.
		now = scrape(t, s)
		var ended float64
		for name, v := range now {
			if strings.HasPrefix(name, "hubbub_closed_total{") {
				ended += v
			}
		}
		if accepted := now[`hubbub_upgrades_total{result="accepted"}`]; ended != accepted {
			t.Errorf("%v connections were accepted and %v ended", accepted, ended)
		}
		if log := s.log.String(); !strings.Contains(log, `msg="slow client closed"`) || !strings.Contains(log, "--allowed-origins") {
			t.Error("the log tells neither of the slow client nor of the refused page")
		}
	})
}

// A scrape in the middle of a flood is answered, and what it says is not in the past.
func TestMetricsUnderLoad(t *testing.T) {
	eachIO(t, []string{"--workers", "2"}, func(t *testing.T, s *server) {
		member, publisher := dialRaw(t, s, "/ws", ""), dialRaw(t, s, "/ws", "")
		member.welcomed()
		publisher.welcomed()
		member.write(text(`{"msg_type":"join_room","room":"r","id":1}`))
		member.message("joined")
		reading := make(chan struct{})
		go func() {
			defer close(reading)
			_ = member.SetReadDeadline(time.Time{})
			_, _ = io.Copy(io.Discard, member.r)
		}()
		n := 0
		for range 20 {
			n = flood(publisher, "r", n, 20*time.Millisecond)
			now := scrape(t, s)
			if now["hubbub_connections"] != 2 || now["hubbub_rooms"] != 1 {
				t.Errorf("under load: %v connections, %v rooms", now["hubbub_connections"], now["hubbub_rooms"])
			}
		}
		becomes(t, s, "hubbub_messages_received_total", float64(n+1))
		becomes(t, s, "hubbub_messages_sent_total", float64(2*n+3)) // each with its ack; two welcomes and joined
		member.Close()
		<-reading
	})
}
