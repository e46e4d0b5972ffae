package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// The commands that call a server, against a real one.

const testKey = "0123456789abcdef"

// serving is a server that knows testKey, and a second one that may only read.
func serving(t *testing.T) *rawtest.Server {
	t.Helper()
	all, err := hubbub.APIKeyOf("all", testKey)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := hubbub.APIKeyOf("reader", "r"+testKey, "read")
	if err != nil {
		t.Fatal(err)
	}
	s := rawtest.Start(t, hubbub.Config{APIKeys: []hubbub.APIKey{all, reader}, Hooks: hubbub.Hooks{Connect: func(_ context.Context, c *hubbub.Connect) error {
		c.User = c.Request.URL.Query().Get("user")
		return nil
	}}})
	t.Setenv("HUBBUB_URL", "http://"+s.Addr)
	t.Setenv("HUBBUB_API_KEY", testKey)
	return s
}

// run is what a command prints; it must do well.
func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := printed(t, args...)
	if err != nil {
		t.Fatalf("hubbub %q: %v", args, err)
	}
	return out
}

// stdin has the standard input be this text.
func stdin(t *testing.T, text string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stdin
	os.Stdin = r
	go func() {
		w.WriteString(text)
		w.Close()
	}()
	t.Cleanup(func() { os.Stdin = before; r.Close() })
}

// member is a client in a room, with its id.
func member(t *testing.T, s *rawtest.Server, user, room string) (c *rawtest.Client, id string) {
	t.Helper()
	c = rawtest.Dial(t, s, "/ws?user="+user)
	id = c.NextJSON()["client_id"].(string)
	if room != "" {
		b, _ := json.Marshal(map[string]any{"msg_type": "join_room", "room": room, "id": 1})
		c.Text(string(b))
		if m := c.NextJSON(); m["msg_type"] != "joined" {
			t.Fatal(m)
		}
	}
	return c, id
}

func TestPubPublishes(t *testing.T) {
	s := serving(t)
	c, id := member(t, s, "ann", "r/ö %")
	gets := func(kind string, want any) {
		t.Helper()
		m := c.NextJSON()
		if got := fmt.Sprint(m["content"]); m["msg_type"] != kind || got != fmt.Sprint(want) {
			t.Errorf("%v, want %s %v", m, kind, want)
		}
	}
	if out := run(t, "pub", "r/ö %", "hello"); !strings.HasSuffix(out, ":1\n") {
		t.Errorf("printed %q", out)
	}
	gets("room_message", "hello")
	run(t, "pub", "r/ö %", `{"a":[1,"<>"]}`, "--from", "kitchen")
	gets("room_message", map[string]any{"a": []any{1, "<>"}})
	run(t, "pub", "r/ö %", "42", "--text")
	gets("room_message", "42")
	run(t, "pub", "r/ö %", "once", "--publish-id", "x", "--message-key", "k")
	gets("room_message", "once")
	if out := run(t, "pub", "r/ö %", "once", "--publish-id", "x"); !strings.HasSuffix(out, ":4, as before\n") {
		t.Errorf("printed %q", out)
	}
	if out := run(t, "pub", "r/ö %", "once", "--publish-id", "x", "--json"); !strings.Contains(out, `"offset":4,"duplicate":true`) {
		t.Errorf("printed %q", out)
	}
	run(t, "pub", "--client", id, "to you")
	gets("direct_message", "to you")
	run(t, "pub", "--user", "ann", "to ann")
	gets("direct_message", "to ann")
	run(t, "pub", "--everyone", "to all")
	gets("chat", "to all")
	stdin(t, "of the input\n")
	run(t, "pub", "r/ö %", "-")
	gets("room_message", "of the input")
	stdin(t, "one\n\n2\r\nthree")
	if out := run(t, "pub", "r/ö %", "-", "--lines"); strings.Count(out, "\n") != 3 {
		t.Errorf("printed %q", out)
	}
	for _, want := range []any{"one", 2, "three"} {
		gets("room_message", want)
	}
}

func TestRoomsListsAllPages(t *testing.T) {
	s := serving(t)
	member(t, s, "", "room 0007")
	for i := range 1500 {
		if err := rawtest.Publish(s, fmt.Sprintf("room %04d", i), i); err != nil {
			t.Fatal(err)
		}
	}
	if err := rawtest.Publish(s, "other", 1); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(run(t, "rooms", "room ")), "\n")
	if len(lines) != 1500 {
		t.Fatalf("%d lines", len(lines))
	}
	for i, line := range lines {
		members := 0
		if i == 7 {
			members = 1
		}
		if f := strings.Fields(line); f[0] != fmt.Sprint(members) || !strings.HasSuffix(f[1], ":1") || !strings.HasSuffix(line, fmt.Sprintf("  room %04d", i)) {
			t.Fatalf("line %d: %q", i, line)
		}
	}
	var r room
	if out := run(t, "rooms", "other", "--json"); json.Unmarshal([]byte(out), &r) != nil || r.Room != "other" || r.Offset != 1 {
		t.Errorf("printed %q", out)
	}
	if out := run(t, "rooms", "none"); out != "" {
		t.Errorf("printed %q", out)
	}
}

func TestKick(t *testing.T) {
	s := serving(t)
	one, id := member(t, s, "ann", "r")
	two, _ := member(t, s, "ann", "r")
	member(t, s, "ann", "")
	left := func(c *rawtest.Client) {
		t.Helper()
		if m := c.NextJSON(); m["msg_type"] != "left" || m["reason"] != "kicked" {
			t.Errorf("got %v", m)
		}
	}
	if out := run(t, "kick", "client:"+id, "--room", "r"); out != "1 out of the room r\n" {
		t.Errorf("printed %q", out)
	}
	left(one)
	if _, err := printed(t, "kick", "client:"+id, "--room", "r"); err == nil || !strings.Contains(err.Error(), "not_member") {
		t.Errorf("once more: %v", err)
	}
	if out := run(t, "kick", "user:ann", "--room", "r"); out != "1 out of the room r\n" {
		t.Errorf("printed %q", out)
	}
	left(two)
	if _, err := printed(t, "kick", "user:ann", "--room", "r"); err == nil || !strings.Contains(err.Error(), "no client of the user ann") {
		t.Errorf("once more: %v", err)
	}
	run(t, "kick", "client:"+id, "--code", "4242", "--reason", "be kind")
	one.AnswerClose(4242)
	run(t, "kick", "user:ann", "--json")
	two.AnswerClose(4500)
	if _, err := printed(t, "kick", "user:nobody"); err == nil || !strings.Contains(err.Error(), "not_found") {
		t.Errorf("nobody: %v", err)
	}
}

func TestTailShowsWhatPasses(t *testing.T) {
	s := serving(t)
	type result struct {
		out string
		err error
	}
	ended := make(chan result, 1)
	go func() {
		out, err := printed(t, "tail", "room:r", "--content")
		ended <- result{out, err}
	}()
	rawtest.Eventually(t, "the tail listens", func() bool {
		w := httptest.NewRecorder()
		s.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		return strings.Contains(w.Body.String(), "hubbub_api_tails 1\n")
	})
	c, id := member(t, s, "ann", "r")
	if err := rawtest.Publish(s, "r", "hello\u009b31m"); err != nil {
		t.Fatal(err)
	}
	c.NextJSON()
	c.CloseNow()
	s.Shutdown(t.Context())
	r := <-ended
	lines := strings.Split(r.out, "\n")
	if !errors.Is(r.err, errStopping) || len(lines) < 2 || !strings.Contains(lines[0], "joined         room=r client="+id+" user=ann") ||
		!strings.Contains(lines[1], `room_message   room=r from=server offset=1 bytes=`) || !strings.HasSuffix(lines[1], `"hello\u009b31m"`) {
		t.Errorf("%v, printed\n%s", r.err, r.out)
	}
}

// JSON for programs is the same value, and does nothing to a terminal that it comes to.
func TestJSONForTerminals(t *testing.T) {
	raw := "{\"a\":\r\n\"\u009b2J \u202e \U000e0041 \u00fc \\n\"}\n"
	text := printableJSON([]byte(raw))
	if strings.ContainsFunc(text, hidden) {
		t.Errorf("%q", text)
	}
	var want, got any
	if err := errors.Join(json.Unmarshal([]byte(raw), &want), json.Unmarshal([]byte(text), &got)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q is %q, %v", text, got, err)
	}
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == apiPath+"/tail" {
			io.WriteString(w, "event: room_message\ndata: {\"content\":\"\u009b\"}\n\n")
			return
		}
		io.WriteString(w, "{\"rooms\":[{\"room\":\"\u009b\"}],\"epoch\":\"\u009b\"}")
	}))
	defer page.Close()
	t.Setenv("HUBBUB_URL", page.URL)
	t.Setenv("HUBBUB_API_KEY", testKey)
	for _, args := range [][]string{{"rooms", "--json"}, {"pub", "r", "1", "--json"}, {"tail", "room:r", "--json"}} {
		if out, _ := printed(t, args...); !strings.Contains(out, `"\u009b"`) || strings.Contains(out, "\u009b") {
			t.Errorf("%v prints %q", args, out)
		}
	}
}

// Whatever is wrong, the error says what to set.
func TestCallsThatCantBeDoneSayWhatToSet(t *testing.T) {
	s := serving(t)
	off := rawtest.Start(t, hubbub.Config{})
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" && strings.HasPrefix(r.URL.Path, "/away") {
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
			return
		}
		fmt.Fprintln(w, "<html>")
	}))
	defer page.Close()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	for _, c := range []struct {
		args string
		want []string
	}{
		{"rooms --key wrong-wrong-wrong", []string{"doesn't know this key", "HUBBUB_API_KEY"}},
		{"pub r hello --key r" + testKey, []string{"right publish", "forbidden"}},
		{"rooms --url http://" + off.Addr, []string{"hubbub key", "HUBBUB_API_KEY", "api_off"}},
		{"rooms --url http://" + nobody.Addr().String(), []string{"nobody listens", "--url", "HUBBUB_URL"}},
		{"rooms --url http://" + s.Addr + "/live", []string{"no API of Hubbub", "--base-path"}},
		{"rooms --url http://" + s.Addr + "/api/v1", []string{"leave /api/v1 out of --url"}},
		{"rooms --url " + page.URL, []string{"no JSON", "--url"}},
		{"rooms --url " + page.URL + "/away", []string{"302", "sends to http://elsewhere.example/"}},
		{"rooms --url localhost:8080", []string{"--url", "http://localhost:8080"}},
		{"rooms --url http://x/?a=b", []string{"--url"}},
		{"pub", []string{"a room and a content"}},
		{"pub r", []string{"a content"}},
		{"pub r a b", []string{"put it in quotes"}},
		{"pub --everyone a b", []string{"put it in quotes"}},
		{"pub --everyone --user ann hello", []string{"exclude each other"}},
		{"pub --user ann hello --message-key k", []string{"--message-key"}},
		{"pub r hello --lines", []string{"--lines"}},
		{"pub r - --lines --publish-id x", []string{"--publish-id"}},
		{"pub --user nobody hello", []string{"not_found"}},
		{"pub --client x hello", []string{"unknown_client"}},
		{"kick ann", []string{"client:ID or user:NAME"}},
		{"kick room:r", []string{"client:ID or user:NAME"}},
		{"kick user:ann --room r --reason x", []string{"--reason"}},
		{"kick user:ann --code 1", []string{"4000 to 4999"}},
		{"tail lobby", []string{"room:NAME", "user:NAME"}},
		{"tail client:x", []string{"no client's id"}},
	} {
		_, err := printed(t, strings.Fields(c.args)...)
		if err == nil {
			t.Errorf("%s: no error", c.args)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v\nlacks %s", c.args, err, part)
			}
		}
		if strings.Contains(err.Error(), testKey) {
			t.Errorf("%s: the error has the key: %v", c.args, err)
		}
	}
	t.Setenv("HUBBUB_API_KEY", "")
	os.Unsetenv("HUBBUB_API_KEY")
	if _, err := printed(t, "rooms"); err == nil || !strings.Contains(err.Error(), "set HUBBUB_API_KEY") {
		t.Errorf("without a key: %v", err)
	}
}

// What comes from a server can't write over the terminal, whatever it is, and a stream that is no stream ends.
func FuzzReadEvents(f *testing.F) {
	f.Add("event: lost\ndata: {\"count\":3}\n\n: nothing\n\nevent: end\ndata: {}\n\n")
	f.Add("event: room_message\ndata: {\"time\":1,\"room\":\"r\\u001b[2J\",\"content\":\"\u009b\"}\n\n")
	f.Add("event\n\n\ndata\n\n")
	f.Fuzz(func(t *testing.T, stream string) {
		if readEvents(strings.NewReader(stream), func(string, []byte) {}) == nil {
			t.Error("a stream has ended, and that is no error")
		}
		if p := printable(stream); strings.ContainsFunc(p, hidden) {
			t.Errorf("%q is printed as %q", stream, p)
		}
	})
}

// Where no connection stood, or TLS meets none, nothing was published: no word of doubt, but what to write instead.
func TestPubWhereNothingWasSent(t *testing.T) {
	plain := serve(t, hubbub.Config{}, nil)
	config, _ := certificate(t)
	secure := serve(t, hubbub.Config{}, config)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for url, says := range map[string]string{
		"https://" + plain:                   "has no TLS: write http://",
		"http://" + secure:                   "has TLS: write https://",
		"https://" + secure:                  "certificate",
		"http://" + closed.Addr().String():   "nobody listens",
		"http://no-such-host.invalid:1/live": "no-such-host",
	} {
		_, err := printed(t, "pub", "r", "x", "--url", url, "--key", testKey)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "in doubt") {
			t.Errorf("%s: %v, want %q", url, err, says)
		}
	}
}
