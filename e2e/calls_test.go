package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// The commands that call a server, and the limits of its file.

func TestCommandsCallAServer(t *testing.T) {
	t.Parallel()
	const key = "a-key-of-sixteen-bytes-or-more"
	s := start(t, "--api-key", key)
	env := []string{"HUBBUB_URL=" + s.http(""), "HUBBUB_API_KEY=" + key}
	c := dialRaw(t, s, "/ws", "")
	id := c.welcomed()
	c.write(text(`{"msg_type":"join_room","room":"a/b","id":1}`))
	c.message("joined")
	if out, status := hubbub(t, env, "pub", "a/b", `{"n":1}`); status != 0 || !strings.HasSuffix(out, ":1\n") {
		t.Errorf("pub: exit status %d, %s", status, out)
	}
	if m := c.message("room_message"); m.raw("content") != `{"n":1}` {
		t.Errorf("got %s", m.text)
	}
	if out, status := hubbub(t, env, "rooms", "a/"); status != 0 || !strings.HasPrefix(strings.TrimSpace(out), "1 ") || !strings.HasSuffix(out, "  a/b\n") {
		t.Errorf("rooms: exit status %d, %s", status, out)
	}
	if out, status := hubbub(t, env, "kick", "client:"+id, "--room", "a/b"); status != 0 {
		t.Errorf("kick: exit status %d, %s", status, out)
	}
	c.message("left")
	if out, status := hubbub(t, env, "kick", "client:"+id); status != 0 {
		t.Errorf("kick: exit status %d, %s", status, out)
	}
	c.expectClose(4500)
	if out, status := hubbub(t, env, "kick", "client:"+id); status != 1 || !strings.Contains(out, "unknown_client") {
		t.Errorf("kick of nobody: exit status %d, %s", status, out)
	}
	if out, status := hubbub(t, env, "tail", "lobby"); status != 2 || !strings.Contains(out, "room:NAME") {
		t.Errorf("tail of nothing: exit status %d, %s", status, out)
	}
	if out, status := hubbub(t, []string{"HUBBUB_URL=" + s.http("")}, "rooms"); status != 1 || !strings.Contains(out, "HUBBUB_API_KEY") {
		t.Errorf("without a key: exit status %d, %s", status, out)
	}
}

func TestLimitsOfTheFile(t *testing.T) {
	t.Parallel()
	s := start(t, "--config", configFile(t, "limits:\n  client: {messages: 2/h}\n  address: {connects: 1/h}\n"))
	c := dialRaw(t, s, "/ws", "")
	c.welcomed()
	for range 3 {
		c.write(text(`{"msg_type":"ping","id":7}`))
	}
	c.message("pong")
	c.message("pong")
	if m := c.message("error"); m.str("code") != "rate_limited" || m.num("retry_after_ms") < 60_000 {
		t.Errorf("got %s", m.text)
	}
	second := connect(t, s)
	second.write(upgrade(s, "/ws"))
	if r := second.response("GET"); r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") == "" {
		t.Errorf("the second connect: %s", r.Status)
	}
}
