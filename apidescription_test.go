package hubbub_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// Whatever the description promises the server does: real calls of every kind bring every status and every field that
// stands there, and nothing that doesn't. That the description has all calls, TestDescriptionHasTheCalls says.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	d := described(t)
	t.Run("what is done", func(t *testing.T) { allIsDone(t, d) })
	t.Run("what is refused", func(t *testing.T) { allIsRefused(t, d) })
	t.Run("bodies that don't come", func(t *testing.T) {
		_, b := startAPI(t, hubbub.Config{HandshakeTimeout: time.Second})
		b.desc = d
		for _, path := range []string{"/publish", "/batch"} {
			r := b.request("POST", path, "")
			r.Header.Set("Content-Type", "application/json")
			half, rest := io.Pipe()
			go io.WriteString(rest, "{")
			r.Body = half
			b.failed(b.do(r, ""), 504, "timeout", "body", path)
			rest.Close()
		}
	})
	t.Run("a busy server", func(t *testing.T) { allIsBusy(t, d) })
	t.Run("a cluster", func(t *testing.T) { allOfNodes(t, d) })
	t.Run("a full server", func(t *testing.T) {
		s, b := startAPI(t, hubbub.Config{MaxConnections: 1})
		b.desc = d
		enter(t, s)
		samples(s, b, "")
		b.ok("GET", "/figures", "")
	})
	t.Run("a stopped server", func(t *testing.T) {
		s, b := startAPI(t, hubbub.Config{})
		b.desc = d
		if err := s.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		b.through = s.AdminHandler()
		b.fails(503, "unavailable", "stopping", "GET", "/tail?room=r", "")
		b.fails(503, "unavailable", "stopping", "POST", "/publish", `{"room":"r","content":1}`)
	})
	t.Run("no key", func(t *testing.T) {
		s := rawtest.Start(t, hubbub.Config{})
		b := &backend{t: t, base: "http://" + s.Addr, desc: d}
		for _, c := range examples("x") {
			b.fails(403, "api_off", "HUBBUB_API_KEY", c[0], c[1], c[2])
		}
	})
	for _, what := range d.unseen() {
		t.Errorf("described, and never seen: %s", what)
	}
}

// allIsDone makes every call with everything that it may have.
func allIsDone(t *testing.T, d *description) {
	s, b := startAPI(t, hubbub.Config{
		Hooks: hubbub.Hooks{Connect: asUser},
		Settings: func() []hubbub.Setting {
			return []hubbub.Setting{{"listen", ":1", "a flag", false}, {"jwt-key", "", "a flag", true}}
		},
		RecentLog: func() []string { return []string{"a line"} },
		ReadAgain: func(context.Context) (changed, kept []string, err error) {
			return []string{"rooms"}, []string{"listen"}, nil
		},
		Rooms: []hubbub.RoomPolicy{{Match: "full", Presence: "full"}, {Match: "mute", Presence: "off", History: &hubbub.History{}}},
	})
	b.desc = d
	ann, bob := enterAs(t, s, "ann"), enterAs(t, s, "bob")
	inRoom, stop := b.tail("room=full&content=true")
	defer stop()
	ofUser, stop2 := b.tail("user=ann")
	defer stop2()
	ofClient, stop3 := b.tail("client=" + bob.id)
	defer stop3()

	ann.raw(`{"msg_type":"join_room","room":"full","data":[1, 2],"id":1}`)
	b.ok("PUT", "/rooms/mute/members/"+bob.id, "")
	ann.raw(`{"msg_type":"room_message","room":"full","content":{"a": 1},"key":"k","id":1}`)
	epoch := b.ok("GET", "/rooms/full", "")["epoch"].(string)
	at := func(offset int) string { return url.QueryEscape(fmt.Sprintf("%s:%d", epoch, offset)) }
	b.ok("POST", "/publish", `{"room":"full","content":2,"from":"f","key":"k","publish_id":"p","exclude":"`+bob.id+`"}`, "Idempotency-Key", "p")
	b.ok("POST", "/publish", `{"room":"full","content":2,"publish_id":"p"}`)
	b.ok("POST", "/publish", `{"rooms":["full","mute",""],"content":3}`)
	b.ok("POST", "/publish", `{"client":"`+bob.id+`","content":4}`)
	b.ok("POST", "/publish", `{"user":"ann","content":5}`)
	b.ok("POST", "/publish", `{"everyone":true,"content":6}`)
	b.ok("GET", "/rooms?prefix=f&after=a&limit=1", "")
	b.ok("GET", "/rooms?contains=ul&order=rate&after=9:z", "")
	b.ok("GET", "/rooms/mute?user=ann", "")
	b.ok("GET", "/rooms/full/history?limit=1&since="+at(0), "")
	b.ok("GET", "/rooms/full/history?before="+at(4), "")
	b.ok("GET", "/rooms/full/presence?limit=10", "")
	b.ok("GET", "/clients", "")
	b.ok("GET", "/clients?order=unsent&limit=1", "")
	b.ok("GET", "/clients/"+ann.id, "")
	b.ok("GET", "/users", "")
	b.ok("GET", "/users/ann", "")
	b.ok("GET", "/info", "")
	b.ok("GET", "/log", "")
	b.ok("GET", "/figures", "")
	b.ok("GET", "/samples?since=1", "")
	b.ok("GET", "/settings", "")
	b.ok("GET", "/nodes", "")
	b.ok("GET", "/openapi.yaml", "")
	b.ok("POST", "/reload", "")
	b.fails(400, "bad_message", "no body", "GET", "/openapi.yaml", `{}`)
	b.ok("DELETE", "/rooms/full/history/1?epoch="+epoch, "")
	b.ok("DELETE", "/rooms/full/history", "")
	b.ok("DELETE", "/rooms/mute/members/"+bob.id, "")
	ann.raw(`{"msg_type":"direct_message","to":"%s","content":1,"id":1}`, bob.id)
	b.ok("POST", "/batch", fmt.Sprintf(`{"calls":[{"publish":{"room":"full","content":1}},{"join":{"room":"r","client":%[1]q}},{"leave":{"room":"r","client":%[1]q}},
		{"delete":{"room":"full"}},{"delete":{"room":"full","offset":1,"epoch":"e"}},{"disconnect":{"client":%[1]q,"code":4001,"reason":"r"}},{"disconnect":{"user":"bob"}}]}`, bob.id))
	b.ok("DELETE", "/clients/"+ann.id+"?code=4000&reason=r", "")
	carl := enterAs(t, s, "carl")
	b.ok("DELETE", "/users/carl", "")
	carl.AnswerClose(4500)

	heard := func(next func() (string, map[string]any), until string) (kinds []string) {
		for kind := ""; kind != until; {
			var data map[string]any
			if kind, data = next(); kind == "" {
				t.Fatalf("the tail ended behind %v", kinds)
			}
			if kind == "room_message" && fmt.Sprint(data["content"]) == "map[a:1]" && data["bytes"] != 8.0 {
				t.Error(data)
			}
			kinds = append(kinds, kind)
		}
		return kinds
	}
	if got := heard(inRoom, "left"); !slices.Equal(got[:4], []string{"joined", "room_message", "room_message", "room_message"}) || !slices.Contains(got, "deleted") {
		t.Error(got)
	}
	if got := heard(ofUser, "disconnected"); !slices.Contains(got, "direct_message") {
		t.Error(got)
	}
	if got := heard(ofClient, "disconnected"); !slices.Contains(got, "joined") || !slices.Contains(got, "direct_message") {
		t.Error(got)
	}
}

// examples are calls that would do something, by operation.
func examples(client string) map[string][3]string {
	const room = "/rooms/r"
	return map[string][3]string{
		"publish": {"POST", "/publish", `{"room":"r","content":1}`}, "batch": {"POST", "/batch", `{"calls":[]}`},
		"rooms": {"GET", "/rooms", ""}, "room": {"GET", room, ""}, "history": {"GET", room + "/history", ""}, "presence": {"GET", room + "/presence", ""},
		"delete_history": {"DELETE", room + "/history", ""}, "delete_message": {"DELETE", room + "/history/1", ""},
		"join": {"PUT", room + "/members/" + client, ""}, "leave": {"DELETE", room + "/members/" + client, ""},
		"clients": {"GET", "/clients", ""}, "client": {"GET", "/clients/" + client, ""}, "disconnect_client": {"DELETE", "/clients/" + client, ""},
		"users": {"GET", "/users", ""}, "user": {"GET", "/users/u", ""}, "disconnect_user": {"DELETE", "/users/u", ""},
		"info": {"GET", "/info", ""}, "figures": {"GET", "/figures", ""}, "samples": {"GET", "/samples", ""}, "settings": {"GET", "/settings", ""}, "log": {"GET", "/log", ""}, "nodes": {"GET", "/nodes", ""}, "remove_node": {"DELETE", "/nodes/n", ""}, "reload": {"POST", "/reload", ""}, "tail": {"GET", "/tail?room=r", ""},
	}
}

// allIsRefused has every call refused: without a key, without the right, with a query or a body that can't be, for what
// isn't there, and while too many are on their way.
func allIsRefused(t *testing.T, d *description) {
	cfg, secrets := keyed(t, hubbub.Config{HandshakeTimeout: 10 * time.Minute, MaxRoomsPerClient: 1, Hooks: hubbub.Hooks{Connect: asUser}, Rooms: []hubbub.RoomPolicy{{Match: "silent", History: &hubbub.History{}}}})
	s := rawtest.Start(t, cfg)
	b := &backend{t: t, base: "http://" + s.Addr, desc: d}
	m := enterAs(t, s, "u").join("r")
	for name, c := range examples(m.id) {
		b.key = ""
		b.fails(401, "unauthorized", "Bearer", c[0], c[1], c[2])
		if name != "batch" {
			b.key = secrets["tail"]
			if name == "tail" || name == "log" {
				b.key = secrets["manage"]
			}
			b.fails(403, "forbidden", "right", c[0], c[1], c[2])
		}
		b.key = secrets["all"]
		b.fails(400, "bad_message", "nope", c[0], strings.ReplaceAll(c[1]+"?nope=1", "?room=r?", "?room=r&"), c[2])
	}
	for _, path := range []string{"/publish", "/batch"} {
		b.fails(415, "bad_message", "Content-Type", "POST", path, "{}", "Content-Type", "text/plain")
		b.fails(413, "too_large", "1 MiB", "POST", path, strings.Repeat(" ", 2<<20))
	}
	b.fails(403, "forbidden", "history", "GET", "/rooms/silent/history", "")
	for _, c := range [][3]string{
		{"POST", "/publish", `{"user":"nobody","content":1}`}, {"GET", "/rooms/none", ""}, {"DELETE", "/rooms/r/history/7", ""}, {"PUT", "/rooms/r/members/nobody", ""},
		{"DELETE", "/rooms/none/members/" + m.id, ""}, {"GET", "/clients/nobody", ""}, {"DELETE", "/clients/nobody", ""}, {"GET", "/users/nobody", ""}, {"DELETE", "/users/nobody", ""},
		{"DELETE", "/nodes/nobody", ""}, {"GET", "/log", ""},
	} {
		if a := b.call(c[0], c[1], c[2]); a.status != 404 {
			t.Errorf("%v: %d %s", c, a.status, a.body)
		}
	}
	b.fails(429, "limit_reached", "--max-rooms-per-client", "PUT", "/rooms/second/members/"+m.id, "")
	var stops []func()
	for range 64 {
		_, stop := b.tail("room=r")
		stops = append(stops, stop)
	}
	b.fails(429, "limit_reached", "tails", "GET", "/tail?room=r", "")
	for _, stop := range stops {
		stop()
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, name := range []string{"join", "leave", "client", "disconnect_client", "disconnect_user"} {
		c := examples(m.id)[name]
		direct := *b
		direct.through = s.Server
		b.failed(direct.do(b.request(c[0], c[1], "").WithContext(ended), ""), 504, "timeout", "not done in time", name)
	}
	direct := *b
	direct.through = s.Server
	b.failed(direct.do(b.request("GET", "/clients?order=unsent", "").WithContext(ended), ""), 504, "timeout", "not done in time", "clients")
	fillLane(t, s, b)
	for name, c := range examples(m.id) {
		if name != "tail" {
			b.fails(503, "overloaded", "too many calls", c[0], c[1], c[2])
		}
	}
}

// fillLane takes all places of the API's lane, until the test ends.
func fillLane(t *testing.T, s *rawtest.Server, b *backend) (slow []net.Conn) {
	t.Helper()
	head := "POST /api/v1/publish HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + b.key + "\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
	one := func() {
		nc, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		io.WriteString(nc, head)
		slow = append(slow, nc)
	}
	for range 256 {
		one()
	}
	rawtest.Eventually(t, "the lane is full", func() bool {
		if b.call("GET", "/info", "").status == http.StatusServiceUnavailable {
			return true
		}
		one() // that call may have had the place of the last one, which was refused then
		return false
	})
	return slow
}

// allIsBusy has what can't be taken refused.
func allIsBusy(t *testing.T, d *description) {
	cfg, secrets := keyed(t, hubbub.Config{})
	s, release := busyServer(t, cfg, func(s *rawtest.Server) {
		for range 2 {
			enter(t, s).join("r")
		}
	})
	defer release()
	b := &backend{t: t, base: "http://" + s.Addr, key: secrets["all"], desc: d}
	body := `{"room":"r","content":"` + strings.Repeat("x", 30_000) + `"}`
	rawtest.Eventually(t, "the worker's mailbox is full", func() bool { return b.call("POST", "/publish", body).status == 429 })
	b.fails(429, "overloaded", "nothing was done", "POST", "/publish", body)
	b.fails(429, "overloaded", "", "DELETE", "/rooms/r/history", "")
	at := b.ok("GET", "/rooms/r", "")["offset"].(float64)
	b.fails(429, "overloaded", "", "DELETE", fmt.Sprintf("/rooms/r/history/%.0f", at), "")
}
