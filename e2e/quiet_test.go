package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A node is killed on which alone a room was open, quiet for longer than its age, while other rooms of the same logs were
// published in: its member has missed nothing, and every other node says so. Of a room that nobody had open by then nobody can.
func TestAQuietRoomOutlivesItsNode(t *testing.T) {
	t.Parallel()
	store, rooms := freeAddrs(t), configFile(t, "rooms: [{match: \"*\", history: {messages: 100, age: 20s}}]\n")
	flags := []string{"--config", rooms, "--cluster-secret", stageKey, "--api-key", backendKey}
	first := start(t, append(flags, "--data-dir", t.TempDir(), "--cluster-listen", store)...)
	others := []*server{first, start(t, append(flags, "--join", store)...)}
	killed := start(t, append(flags, "--join", store)...)

	joins := func(s *server, room, since string) message {
		t.Helper()
		c := dialRaw(t, s, "/ws", text(fmt.Sprintf(`{"msg_type":"join_room","room":%q,"id":1%s}`, room, since)))
		for {
			if got := c.expect(fin | opText); strings.HasPrefix(got, `{"msg_type":"joined"`) {
				if room == "control" {
					c.write(text(`{"msg_type":"leave_room","room":"control","id":2}`))
					for !strings.HasPrefix(c.expect(fin|opText), `{"msg_type":"left"`) {
					}
				}
				return parse(t, got, "joined")
			} else if strings.Contains(got, `"error"`) {
				t.Fatalf("%s: %s", room, got)
			}
		}
	}
	since := func(m message) string {
		return fmt.Sprintf(`,"since":{"epoch":%s,"offset":%s}`, m.raw("epoch"), m.raw("offset"))
	}
	quiet, control := joins(killed, "quiet", ""), joins(killed, "control", "")
	for i := range 64 { // some in each log, by the application, so that nobody is in these
		req, _ := http.NewRequest(http.MethodPost, first.http("/api/v1/publish"), strings.NewReader(fmt.Sprintf(`{"room":"other %d","content":1}`, i)))
		req.Header.Set("Authorization", "Bearer "+backendKey)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("publish: %v, %v", res, err)
		}
		res.Body.Close()
	}
	until := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !is(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: never", what)
			}
		}
	}
	until("a witness keeps what it is told", func() bool {
		n := 0.0
		for _, s := range others {
			n += scrape(t, s)[`hubbub_kept_bytes{kind="quiet_rooms"}`]
		}
		return n > 0
	})
	until("the logs have forgotten", func() bool { return joins(others[1], "control", since(control)).raw("recovered") == "false" })
	killed.stop(t, syscall.SIGKILL)
	for i, s := range others {
		if m := joins(s, "quiet", since(quiet)); m.raw("recovered") != "true" {
			t.Errorf("on node %d: %s", i, m.text)
		}
	}
}
