package hubbub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

const webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// toldBackend is a backend that verifies what it is told, and keeps it.
type toldBackend struct {
	*httptest.Server
	mu     sync.Mutex
	nodes  []string
	events []map[string]any
}

func startToldBackend(t *testing.T) *toldBackend {
	verifier, err := standardwebhooks.NewWebhook(webhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	b := &toldBackend{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // it was cut off
		}
		var told struct {
			Type, Node string
			Events     []map[string]any
		}
		if err := verifier.Verify(body, r.Header); err != nil {
			t.Errorf("the signature: %v", err)
		}
		if err := json.Unmarshal(body, &told); err != nil || told.Type != "hubbub.events" {
			t.Errorf("it is told %.200s", body)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.nodes = append(b.nodes, told.Node)
		b.events = append(b.events, told.Events...)
	}))
	t.Cleanup(b.Close)
	return b
}

// lines are what it was told so far, in words; clients have the names that it was given for them.
func (b *toldBackend) lines(clients map[string]string) (lines []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, e := range b.events {
		if e["seq"] != float64(i+1) {
			lines = append(lines, fmt.Sprint("OUT OF ORDER: ", e))
			continue
		}
		words := []string{e["type"].(string)}
		for _, field := range []string{"room", "client", "user", "data", "code", "from", "content", "key", "offset"} {
			if v, ok := e[field]; ok {
				if name := clients[fmt.Sprint(v)]; name != "" {
					v = name
				}
				words = append(words, fmt.Sprint(v))
			}
		}
		lines = append(lines, strings.Join(words, " "))
	}
	return lines
}

func (b *toldBackend) webhooks(events ...string) hubbub.Webhooks {
	return hubbub.Webhooks{URL: b.URL, Secrets: []string{webhookSecret}, Events: events}
}

// A day in the life of two clients, as the backend is told of it.
func TestTheBackendIsTold(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		b := startToldBackend(t)
		w := b.webhooks("client.connected", "client.disconnected", "member.joined", "member.left", "room.occupied", "room.vacated", "message.published")
		w.Rooms = []string{"chat.*", "wall"}
		s := rawtest.Start(t, hubbub.Config{IO: io, Webhooks: w, NodeName: "n1", Rooms: []hubbub.RoomPolicy{{Match: "wall", History: &hubbub.History{}}}, Hooks: hubbub.Hooks{
			Connect: func(_ context.Context, c *hubbub.Connect) error { c.User = "ann"; return nil },
		}})
		c := rawtest.Dial(t, s, "/ws")
		welcome := c.NextJSON()
		names := map[string]string{welcome["client_id"].(string): "C"}
		say := func(text string) {
			c.Text(text)
			c.NextJSON()
		}
		say(`{"msg_type":"join_room","room":"chat.a","data":{"n":1},"id":1}`)
		say(`{"msg_type":"join_room","room":"quiet","id":2}`)
		say(`{"msg_type":"room_message","room":"chat.a","content":["hi"],"key":"k","id":3}`)
		say(`{"msg_type":"room_message","room":"quiet","content":"nobody is told","id":4}`)
		if err := rawtest.Publish(s, "wall", "by the server, to nobody"); err != nil {
			t.Fatal(err)
		}
		say(`{"msg_type":"leave_room","room":"chat.a","id":5}`)

		// A connection that is lost and resumed is nothing to tell of.
		c.CloseNow()
		rawtest.Eventually(t, "the session is parked", func() bool { return s.Connections() == 0 })
		c = rawtest.Dial(t, s, "/ws?resume="+welcome["resume_token"].(string))
		if again := c.NextJSON(); again["resumed"] != true {
			t.Fatalf("it is not resumed: %v", again)
		}
		say(`{"msg_type":"resume","rooms":[{"room":"quiet"}],"id":6}`)
		c.SendClose(1000, "")
		c.ExpectClose(1000)
		want := strings.Split(`node.started
client.connected C ann
room.occupied chat.a
member.joined chat.a C ann map[n:1]
room.occupied quiet
member.joined quiet C ann
message.published chat.a ann C [hi] k 1
message.published wall server by the server, to nobody
member.left chat.a C ann
room.vacated chat.a
member.left quiet C ann
room.vacated quiet
client.disconnected C ann 1000`, "\n")
		rawtest.Eventually(t, "all is told", func() bool { return len(b.lines(names)) >= len(want) })
		if got := b.lines(names); !slices.Equal(got, want) {
			t.Errorf("it is told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if b.nodes[0] != "n1" {
			t.Errorf("the node is %q", b.nodes[0])
		}
	})
}

// Shutdown tells of all ends: who was in a room has left it, and the backend knows.
func TestShutdownTellsTheBackend(t *testing.T) {
	b := startToldBackend(t)
	s := rawtest.Start(t, hubbub.Config{Webhooks: b.webhooks(), DataDir: t.TempDir()})
	for i := range 50 {
		c := rawtest.Dial(t, s, "/ws")
		c.NextJSON()
		c.Text(fmt.Sprintf(`{"msg_type":"join_room","room":"r%d","id":1}`, i%7))
		c.NextJSON()
		c.CloseNow() // most are parked when the server stops
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, line := range b.lines(nil) {
		count[strings.Fields(line)[0]]++
	}
	if count["client.connected"] != 50 || count["client.disconnected"] != 50 || count["member.joined"] != 50 || count["member.left"] != 50 || count["room.occupied"] != 7 || count["room.vacated"] != 7 || count["node.started"] != 1 {
		t.Errorf("the backend was told %v", count)
	}
}

// The data directory is one server's, keeps its id, and goes on with seq.
func TestTheDataDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	b := startToldBackend(t)
	cfg := hubbub.Config{Webhooks: b.webhooks(), DataDir: dir}
	s := rawtest.Start(t, cfg)
	if _, err := hubbub.New(cfg); err == nil || !strings.Contains(err.Error(), "data-dir "+dir+": another process has it, by its id "+fmt.Sprint(os.Getpid())) {
		t.Errorf("a second server: %v", err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	s = rawtest.Start(t, cfg)
	rawtest.Eventually(t, "both starts are told", func() bool { return len(b.lines(nil)) == 2 })
	if got := b.lines(nil); !slices.Equal(got, []string{"node.started", "node.started"}) {
		t.Errorf("it is told %v", got)
	}
	if b.nodes[0] != b.nodes[1] || len(b.nodes[0]) < 20 {
		t.Errorf("the node is %q", b.nodes)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{file, filepath.Join(file, "below")} {
		cfg.DataDir = bad
		if _, err := hubbub.New(cfg); err == nil || !strings.Contains(err.Error(), "data-dir "+bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestSettingsOfWebhooks(t *testing.T) {
	good := hubbub.Webhooks{URL: "https://backend.example/hook?key=hush", Secrets: []string{webhookSecret}}
	for _, c := range []struct {
		with func(c *hubbub.Config)
		want []string
	}{
		{func(c *hubbub.Config) {}, nil},
		{func(c *hubbub.Config) { c.DataDir, c.NodeName = "x", "eu-1.a_b" }, nil},
		{func(c *hubbub.Config) {
			c.Webhooks.Events, c.Webhooks.Rooms = []string{"message.published"}, []string{"*", "a.*"}
		}, nil},
		{func(c *hubbub.Config) { c.Webhooks.URL = "" }, []string{"webhook-secret: there is nothing to sign"}},
		{func(c *hubbub.Config) { c.Webhooks, c.DataDir = hubbub.Webhooks{}, "d" }, nil},
		{func(c *hubbub.Config) { c.DataDir, c.MaxMessageBytes = "d", 7<<20; c.SendQueueBytes = 8 << 20 }, []string{"max-message-bytes 7340032", "6291456 that the log of rooms takes"}},
		{func(c *hubbub.Config) { c.Webhooks = hubbub.Webhooks{Events: []string{"x"}, Rooms: []string{"y"}} }, []string{"webhook-events x: nothing", "webhook-rooms y: nothing"}},
		{func(c *hubbub.Config) { c.Webhooks.Secrets = nil }, []string{"it needs --webhook-secret"}},
		{func(c *hubbub.Config) { c.Webhooks.Secrets = []string{webhookSecret, "whsec_hush"} }, []string{"webhook-secret: secret 2"}},
		{func(c *hubbub.Config) { c.Webhooks.URL = "backend.example/hush" }, []string{"webhook-url: it doesn't begin with http"}},
		{func(c *hubbub.Config) { c.Webhooks.Events = []string{"member.join"} }, []string{`webhook-events "member.join": unknown`}},
		{func(c *hubbub.Config) { c.Webhooks.Rooms = []string{"a.*"} }, []string{"webhook-rooms a.*: they are for message.published"}},
		{func(c *hubbub.Config) {
			c.Webhooks.Events, c.Webhooks.Rooms = []string{"message.published"}, []string{"", "a\n"}
		}, []string{`webhook-rooms "": no room`, `webhook-rooms "a\n": no room`}},
		{func(c *hubbub.Config) {
			c.Webhooks.Events, c.Webhooks.Rooms = []string{"message.published"}, []string{"a.${user}", "a.${room}"}
		}, []string{`webhook-rooms "a.${user}": no name is put in here`, `webhook-rooms "a.${room}": no name is put in here`}},
		{func(c *hubbub.Config) { c.NodeName = "a b" }, []string{`node-name "a b"`}},
		{func(c *hubbub.Config) { c.NodeName = strings.Repeat("x", 129) }, []string{"129 bytes"}},
	} {
		cfg := hubbub.Config{Webhooks: good}
		c.with(&cfg)
		err := cfg.Validate()
		if (err == nil) != (c.want == nil) {
			t.Errorf("want %q: %v", c.want, err)
		}
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("want %q: %v", want, err)
			}
		}
	}
}
