package hubbub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// upgraded is how an upgrade is answered; the connection stays.
func upgraded(t *testing.T, s *rawtest.Server, target string, change map[string]string) (*rawtest.Client, *http.Response, string) {
	c := rawtest.Connect(t, s)
	c.SendRaw([]byte(rawtest.Request(s, "GET", target, "HTTP/1.1", change)))
	r := c.Response("GET")
	body := ""
	if r.StatusCode != http.StatusSwitchingProtocols {
		b, _ := io.ReadAll(r.Body)
		body = string(b)
	}
	return c, r, body
}

// answered is the status of an upgrade, and one header of the answer.
func answered(target string, change map[string]string, header string) func(*testing.T, *rawtest.Server) string {
	return func(t *testing.T, s *rawtest.Server) string {
		_, r, _ := upgraded(t, s, target, change)
		return strings.TrimSpace(fmt.Sprint(r.StatusCode, " ", r.Header.Get(header)))
	}
}

// code is that of the error, or the kind of the answer, of the last of some messages.
func code(messages ...string) func(*testing.T, *rawtest.Server) string {
	return func(t *testing.T, s *rawtest.Server) (last string) {
		m := enter(t, s)
		for _, text := range messages {
			got := m.ask(text)
			if last, _ = got["code"].(string); last == "" {
				last = got["msg_type"].(string)
			}
		}
		return last
	}
}

// limit is the first limit that an eager client meets.
func limit(t *testing.T, s *rawtest.Server) string {
	for range 3 {
		c, r, body := upgraded(t, s, "/ws?token="+aToken(t, nil), nil)
		if r.StatusCode != http.StatusSwitchingProtocols {
			for _, by := range []string{"user", "address"} {
				for _, of := range []string{"connects", "connections"} {
					if strings.Contains(body, "too many "+of+" of this "+by) {
						return "limits." + by + "." + of
					}
				}
			}
			return body
		}
		c.NextJSON()
		for i := range 2 {
			for _, text := range []string{fmt.Sprintf(`{"msg_type":"ping","id":1,"pad":%q}`, strings.Repeat("x", 50<<10)), fmt.Sprintf(`{"msg_type":"join_room","room":"%d","id":1}`, i)} {
				c.Text(text)
				if got := c.NextJSON(); got["code"] == "rate_limited" {
					_, name, _ := strings.Cut(fmt.Sprint(got["message"]), "(")
					return strings.TrimSuffix(name, ")")
				}
			}
		}
	}
	return "none"
}

// Each setting that reloads has its effect before, and another one behind the reload.
func TestEachSettingTakesEffectAtAReload(t *testing.T) {
	type change = func(*hubbub.Config)
	key := func(c *hubbub.Config) { c.JWT.Key = jwtSecret }
	withToken := "/ws?token=" + aToken(t, nil)
	expired := "/ws?token=" + aToken(t, jwt.MapClaims{"exp": time.Now().Add(-3 * time.Second).Unix()})
	held := func(t *testing.T, s *rawtest.Server) { enter(t, s) }
	secret, apiKey, err := hubbub.NewAPIKey("backend")
	if err != nil {
		t.Fatal(err)
	}
	stories := map[string]struct {
		old, next     change
		first         func(*testing.T, *rawtest.Server)
		look          func(*testing.T, *rawtest.Server) string
		before, after string
	}{
		"max-connections":        {next: func(c *hubbub.Config) { c.MaxConnections = 1 }, first: held, look: answered("/ws", nil, ""), before: "101", after: "503"},
		"max-connections-per-ip": {old: func(c *hubbub.Config) { c.MaxConnectionsPerIP = 100 }, next: func(c *hubbub.Config) { c.MaxConnectionsPerIP = 1 }, first: held, look: answered("/ws", nil, ""), before: "101", after: "429"},
		"max-rooms-per-client":   {next: func(c *hubbub.Config) { c.MaxRoomsPerClient = 1 }, look: code(`{"msg_type":"join_room","room":"a"}`, `{"msg_type":"join_room","room":"b"}`), before: "joined", after: "limit_reached"},
		"max-message-bytes": {next: func(c *hubbub.Config) { c.MaxMessageBytes = 1024 }, look: func(t *testing.T, s *rawtest.Server) string {
			return fmt.Sprint(rawtest.Dial(t, s, "/ws").NextJSON()["max_message_bytes"])
		}, before: "65536", after: "1024"},
		"max-buffered-bytes": {old: func(c *hubbub.Config) { c.MaxBufferedBytes = 1 << 30 }, next: func(c *hubbub.Config) { c.MaxBufferedBytes = 1 << 29 }, look: func(_ *testing.T, s *rawtest.Server) string {
			return fmt.Sprint(s.Info().MaxBuffered)
		}, before: fmt.Sprint(1 << 30), after: fmt.Sprint(1 << 29)},
		"rooms":           {next: func(c *hubbub.Config) { c.Rooms = []hubbub.RoomPolicy{{Match: "*", Join: "server"}} }, look: code(`{"msg_type":"join_room","room":"a"}`), before: "joined", after: "forbidden"},
		"chat":            {next: func(c *hubbub.Config) { c.Chat = "server" }, look: code(`{"msg_type":"chat","content":1}`), before: "ack", after: "forbidden"},
		"direct":          {next: func(c *hubbub.Config) { c.Direct = "server" }, look: code(`{"msg_type":"direct_message","to":"x","content":1}`), before: "unknown_client", after: "forbidden"},
		"allowed-origins": {next: func(c *hubbub.Config) { c.AllowedOrigins = []string{"https://a.example"} }, look: answered("/ws", map[string]string{"Origin": "https://a.example"}, ""), before: "403", after: "101"},
		"trusted-proxies": {old: func(c *hubbub.Config) { c.MaxConnectionsPerIP = 1 }, next: func(c *hubbub.Config) { c.MaxConnectionsPerIP, c.TrustedProxies = 1, []string{"127.0.0.1"} }, first: held,
			look: answered("/ws", map[string]string{"X-Forwarded-For": "192.0.2.1"}, ""), before: "429", after: "101"},
		"subprotocols": {next: func(c *hubbub.Config) { c.Subprotocols = []string{"a"} }, look: answered("/ws", map[string]string{"Sec-WebSocket-Protocol": "a"}, "Sec-WebSocket-Protocol"), before: "101", after: "101 a"},
		"page":         {next: func(c *hubbub.Config) { c.Page = "off" }, look: statusOf("/", ""), before: "200", after: "404"},
		"compression": {next: func(c *hubbub.Config) { c.Compression = "off" }, look: answered("/ws", map[string]string{"Sec-WebSocket-Extensions": "permessage-deflate"}, "Sec-WebSocket-Extensions"),
			before: "101 permessage-deflate; server_no_context_takeover; client_no_context_takeover", after: "101"},
		"jwt-key":      {old: key, next: func(c *hubbub.Config) { c.JWT.Key = strings.Repeat("another ", 8) }, look: answered(withToken, nil, ""), before: "101", after: "401"},
		"jwt-jwks":     {old: key, next: func(c *hubbub.Config) { c.JWT = hubbub.JWT{JWKS: "http://127.0.0.1:1/", Audience: "a"} }, look: answered(withToken, nil, ""), before: "101", after: "401"},
		"jwt-issuer":   {old: key, next: func(c *hubbub.Config) { key(c); c.JWT.Issuer = "i" }, look: answered(withToken, nil, ""), before: "101", after: "401"},
		"jwt-audience": {old: key, next: func(c *hubbub.Config) { key(c); c.JWT.Audience = "a" }, look: answered(withToken, nil, ""), before: "101", after: "401"},
		"jwt-leeway":   {old: func(c *hubbub.Config) { key(c); c.JWT.Leeway = -1 }, next: func(c *hubbub.Config) { key(c); c.JWT.Leeway = time.Minute }, look: answered(expired, nil, ""), before: "401", after: "101"},
		"jwt-cookie":   {old: key, next: func(c *hubbub.Config) { key(c); c.JWT.Cookie = "t" }, look: fromOwnPage(map[string]string{"Cookie": "t=" + aToken(t, nil)}), before: "401", after: "101"},
		"anonymous":    {old: key, next: func(c *hubbub.Config) { key(c); c.Anonymous = true }, look: answered("/ws", nil, ""), before: "401", after: "101"},
		"api-keys":     {next: func(c *hubbub.Config) { c.APIKeys = []hubbub.APIKey{apiKey} }, look: statusOf("/api/v1/info", secret), before: "403", after: "200"},
		"HookTimeout": {old: func(c *hubbub.Config) { c.HookTimeout = time.Minute }, next: func(c *hubbub.Config) { c.HookTimeout = 10 * time.Millisecond },
			look: func(t *testing.T, s *rawtest.Server) string {
				m := enter(t, s)
				m.Text(`{"msg_type":"request","method":"limit","id":1}`)
				return fmt.Sprint(m.NextJSON()["content"])
			}, before: "true", after: "false"},
		"shutdown-delay": {old: func(c *hubbub.Config) { c.ShutdownDelay = time.Hour }, next: func(*hubbub.Config) {}, look: func(*testing.T, *rawtest.Server) string { return "" }}, // or its end would take that long
	}
	for by, kinds := range map[string]string{"client": "messages bytes joins", "user": "connections connects messages bytes joins", "address": "connects messages bytes joins"} {
		for of := range strings.FieldsSeq(kinds) {
			name, s := "limits."+by+"."+of, stories["rooms"]
			s.old = func(c *hubbub.Config) { key(c); c.Anonymous = true }
			s.next = func(c *hubbub.Config) {
				s.old(c)
				if of == "connections" {
					c.Limits.User.Connections = 1
					return
				}
				r := hubbub.Rate{N: 1, Per: time.Hour, Burst: 1}
				if of == "bytes" {
					r.Burst = 64 << 10
				}
				setRate(&c.Limits, by, of, r)
			}
			s.look, s.before, s.after = limit, "none", name
			stories[name] = s
		}
	}
	shownElsewhere := []string{
		"send-queue-bytes", "send-queue-age", // internal/loop
		"slow-consumer",                                                                                                                        // internal/hub
		"webhook-url", "webhook-events", "webhook-rooms", "webhook-secret", "hook-url", "hook-events", "Questions.Timeout", "Questions.AtOnce", // below
	}
	for _, name := range hubbub.Reloadable() {
		if _, told := stories[name]; !told && !slices.Contains(shownElsewhere, name) {
			t.Errorf("nothing shows that %s takes effect", name)
		}
	}
	for name, story := range stories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			of := func(change change) hubbub.Config {
				cfg := hubbub.Config{PingInterval: 24 * time.Hour, Hooks: hubbub.Hooks{Request: leftOfTime}}
				if change != nil {
					change(&cfg)
				}
				return cfg
			}
			s := rawtest.Start(t, of(story.old))
			if story.first != nil {
				story.first(t, s)
			}
			if got := story.look(t, s); got != story.before {
				t.Fatalf("before: %q, want %q", got, story.before)
			}
			next := of(story.next)
			next.Logger = s.Logger()
			changed, kept, err := s.Reload(next)
			if err != nil || !slices.Contains(changed, name) || len(kept) > 0 {
				t.Fatalf("changed %v, kept %v, %v", changed, kept, err)
			}
			if got := story.look(t, s); got != story.after {
				t.Errorf("behind the reload: %q, want %q", got, story.after)
			}
		})
	}
}

// leftOfTime answers whether a hook has more than a second.
func leftOfTime(ctx context.Context, _ *hubbub.Request) (json.RawMessage, error) {
	at, _ := ctx.Deadline()
	return fmt.Appendf(nil, "%t", time.Until(at) > time.Second), nil
}

func setRate(l *hubbub.Limits, by, of string, r hubbub.Rate) {
	*map[string]*hubbub.Rate{
		"client.messages": &l.Client.Messages, "client.bytes": &l.Client.Bytes, "client.joins": &l.Client.Joins,
		"user.connects": &l.User.Connects, "user.messages": &l.User.Messages, "user.bytes": &l.User.Bytes, "user.joins": &l.User.Joins,
		"address.connects": &l.Address.Connects, "address.messages": &l.Address.Messages, "address.bytes": &l.Address.Bytes, "address.joins": &l.Address.Joins,
	}[by+"."+of] = r
}

// statusOf is that of a GET.
func statusOf(path, key string) func(*testing.T, *rawtest.Server) string {
	return func(t *testing.T, s *rawtest.Server) string {
		r := httptest.NewRequest("GET", path, nil)
		if key != "" {
			r.Header.Set("Authorization", "Bearer "+key)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return fmt.Sprint(w.Code)
	}
}

// fromOwnPage is answered for a page of the server itself.
func fromOwnPage(change map[string]string) func(*testing.T, *rawtest.Server) string {
	return func(t *testing.T, s *rawtest.Server) string {
		change["Origin"] = "http://" + s.Addr
		return answered("/ws", change, "")(t, s)
	}
}

// While clients publish as fast as they can, everything that reloads is reloaded, by two at a time, and with faults: nobody
// is closed, nothing is lost, and the order stays.
func TestReloadsBesideTraffic(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		const publishers, each = 3, 300
		base := hubbub.Config{PingInterval: 24 * time.Hour, Logger: s.Logger()}
		variants := []func(*hubbub.Config){
			func(*hubbub.Config) {},
			func(c *hubbub.Config) {
				c.Rooms = []hubbub.RoomPolicy{{Match: "r", History: &hubbub.History{}, Presence: "full"}}
			},
			func(c *hubbub.Config) {
				c.Rooms = []hubbub.RoomPolicy{{Match: "r", SlowConsumer: "drop-oldest", Publish: "members"}}
			},
			func(c *hubbub.Config) {
				c.Limits.Client.Messages = hubbub.Rate{N: 1 << 20}
				c.MaxConnections, c.MaxRoomsPerClient, c.MaxConnectionsPerIP = 1, 1, 1
			},
			func(c *hubbub.Config) {
				c.SlowConsumer, c.AllowedOrigins, c.Compression = "latest-by-key", []string{"https://a.example"}, "off"
			},
		}
		var all []*member
		for range publishers + 2 {
			all = append(all, enter(t, s).join("r"))
		}
		end := make(chan struct{})
		var reloads sync.WaitGroup
		var done, refused atomic.Int64
		for k := range 2 {
			reloads.Go(func() {
				for i := k; ; i++ {
					select {
					case <-end:
						return
					default:
					}
					cfg := base
					cfg.Workers, cfg.IO = s.Settings()
					variants[i%len(variants)](&cfg)
					if i%7 == 6 {
						cfg.Chat = "nobody"
						if _, _, err := s.Reload(cfg); err == nil {
							t.Error("a fault is no error")
						}
						refused.Add(1)
					} else if _, kept, err := s.Reload(cfg); err != nil || len(kept) > 0 {
						t.Errorf("kept %v, %v", kept, err)
					}
					done.Add(1)
				}
			})
		}
		var publish, read sync.WaitGroup
		for i := range publishers {
			publish.Go(func() {
				for n := range each {
					all[i].Text(fmt.Sprintf(`{"msg_type":"room_message","room":"r","key":"%d.%d","content":[%d,%d]}`, i, n, i, n))
				}
			})
		}
		for me, m := range all {
			read.Go(func() {
				next := map[int]int{}
				if me < publishers {
					next[me] = each
				}
				for sum := 0; sum < publishers*each; {
					got := m.NextJSON()
					if got["msg_type"] != "room_message" {
						if kind := got["msg_type"]; kind != "member_joined" && kind != "member_left" {
							t.Errorf("member %d got %v", me, got)
							return
						}
						continue
					}
					of := got["content"].([]any)
					from, n := int(of[0].(float64)), int(of[1].(float64))
					if n != next[from] {
						t.Errorf("member %d got message %d of %d, want %d", me, n, from, next[from])
						return
					}
					next[from]++
					sum = 0
					for from := range publishers {
						sum += next[from]
					}
				}
			})
		}
		publish.Wait()
		read.Wait()
		close(end)
		reloads.Wait()
		if done.Load() == 0 {
			t.Error("nothing was reloaded")
		}
		if t.Failed() {
			return
		}
		all[0].Text(`{"msg_type":"ping"}`)
		for got := all[0].NextJSON(); got["msg_type"] != "pong"; got = all[0].NextJSON() {
			if got["msg_type"] != "member_joined" {
				t.Errorf("a client gets %v", got)
			}
		}
		if _, _, err := s.Reload(base); err != nil {
			t.Error(err)
		}
	})
}

// What differs from another node's rooms is found while a reload takes rules away.
func TestNodesAreToldApartBesideReloads(t *testing.T) {
	var many []hubbub.RoomPolicy
	for i := range 40 {
		many = append(many, hubbub.RoomPolicy{Match: fmt.Sprint(i)})
	}
	s := rawtest.Start(t, hubbub.Config{Rooms: many})
	difference := hubbub.TellsApart(s.Server)
	end := make(chan struct{})
	var looks sync.WaitGroup
	looks.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
				difference()
			}
		}
	})
	for i := range 40 {
		cfg := hubbub.Config{Logger: s.Logger(), Rooms: many[:i%2*len(many)]}
		if _, _, err := s.Reload(cfg); err != nil {
			t.Error(err)
		}
	}
	close(end)
	looks.Wait()
}

// A fault changes nothing, and is named; what can't change is named and kept.
func TestAReloadIsAllOrNothing(t *testing.T) {
	t.Parallel()
	s := rawtest.Start(t, hubbub.Config{})
	base := hubbub.Config{PingInterval: 24 * time.Hour, Logger: s.Logger()}
	next := base
	next.MaxRoomsPerClient, next.Chat = 1, "nobody"
	before := scrape(t, s)
	if _, _, err := s.Reload(next); err == nil || !strings.Contains(err.Error(), `chat "nobody"`) {
		t.Fatalf("a fault: %v", err)
	}
	const successful, at = "hubbub_config_last_reload_successful", "hubbub_config_last_reload_success_timestamp_seconds"
	if now := scrape(t, s); now[successful] != 0 || now[at] != before[at] || before[successful] != 1 || time.Since(time.UnixMilli(int64(1e3*before[at]))) > rawtest.Patience {
		t.Errorf("the metrics say successful %v at %v, before it %v at %v", now[successful], now[at], before[successful], before[at])
	}
	if got := code(`{"msg_type":"join_room","room":"a"}`, `{"msg_type":"join_room","room":"b"}`)(t, s); got != "joined" {
		t.Errorf("half of it counts: %s", got)
	}
	next = base
	next.MaxRoomsPerClient, next.Workers, next.ResumeWindow = 1, 7, time.Hour
	changed, kept, err := s.Reload(next)
	if err != nil || !slices.Equal(changed, []string{"max-rooms-per-client"}) || !slices.Equal(kept, []string{"workers", "resume-window"}) {
		t.Errorf("changed %v, kept %v, %v", changed, kept, err)
	}
	if now := scrape(t, s); now[successful] != 1 || now[at] <= before[at] {
		t.Errorf("the metrics say successful %v at %v, before it at %v", now[successful], now[at], before[at])
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Reload(base); !errors.Is(err, hubbub.ErrReloadStopping) {
		t.Errorf("behind the end: %v", err)
	}
}

// A reload that failed, and is told after a later one that succeeded, isn't the last.
func TestAReloadThatFailsLateIsNotTheLast(t *testing.T) {
	failed, late, first := make(chan struct{}), make(chan struct{}), true
	var s *rawtest.Server
	var cfg hubbub.Config
	cfg.ReadAgain = func(context.Context) (changed, kept []string, err error) {
		if first {
			first = false
			close(failed)
			<-late
			return nil, nil, errors.New("a bad file")
		}
		next := cfg
		next.Logger = s.Logger()
		return s.Reload(next)
	}
	s = rawtest.Start(t, cfg)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ReadAgain(context.Background())
	}()
	<-failed
	if _, _, err := s.ReadAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(late)
	<-done
	if scrape(t, s)["hubbub_config_last_reload_successful"] != 1 {
		t.Error("the last reload succeeded, and the metrics say that it failed")
	}
}

// What waits for a backend that is down goes to the one that a reload names, signed with the new secret; an event that
// wasn't told before is.
func TestWebhooksGoWhereAReloadSays(t *testing.T) {
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	t.Cleanup(down.Close)
	cfg := hubbub.Config{PingInterval: 24 * time.Hour}
	cfg.Webhooks = hubbub.Webhooks{URL: down.URL, Secrets: []string{"whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"}, Events: []string{"member.joined"}}
	s := rawtest.Start(t, cfg)
	cfg.Logger = s.Logger()
	m := enter(t, s).join("a")
	backend := startToldBackend(t)
	cfg.Webhooks = hubbub.Webhooks{URL: backend.URL, Secrets: []string{webhookSecret}, Events: []string{"member.joined", "message.published"}, Rooms: []string{"b"}}
	if changed, _, err := s.Reload(cfg); err != nil || !slices.Equal(changed, []string{"webhook-url", "webhook-events", "webhook-rooms", "webhook-secret"}) {
		t.Fatalf("changed %v, %v", changed, err)
	}
	m.join("b")
	for _, room := range []string{"a", "b"} {
		m.Text(`{"msg_type":"room_message","room":"` + room + `","content":1}`)
	}
	rawtest.Eventually(t, "all is told", func() bool {
		backend.mu.Lock()
		defer backend.mu.Unlock()
		var all []string
		for _, e := range backend.events {
			all = append(all, fmt.Sprint(e["type"], " ", e["room"]))
		}
		slices.Sort(all)
		return slices.Equal(slices.Compact(all), []string{"member.joined a", "member.joined b", "message.published b", "node.started <nil>"})
	})
	cfg.Webhooks = hubbub.Webhooks{}
	if _, _, err := s.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	m.join("c") // nobody is told
}

// A question that is under way has its answer by what it began with; the next one goes to the new backend.
func TestQuestionsGoWhereAReloadSays(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-answer
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{}`)
	}))
	t.Cleanup(old.Close)
	cfg := hubbub.Config{PingInterval: 24 * time.Hour}
	cfg.Questions = hubbub.Questions{URL: old.URL, Events: []string{"join"}, Secrets: []string{webhookSecret}}
	s := rawtest.Start(t, cfg)
	cfg.Logger = s.Logger()
	m := enter(t, s)
	m.Text(`{"msg_type":"join_room","room":"a","id":1}`)
	<-asked
	next := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"error":{"message":"no"}}`)
	}))
	t.Cleanup(next.Close)
	cfg.Questions = hubbub.Questions{URL: next.URL, Events: []string{"join", "request"}, Secrets: []string{webhookSecret}, Timeout: 30 * time.Second, AtOnce: 8}
	changed, _, err := s.Reload(cfg)
	if err != nil || !slices.Equal(changed, []string{"hook-url", "hook-events", "Questions.Timeout", "Questions.AtOnce"}) {
		t.Fatalf("changed %v, %v", changed, err)
	}
	close(answer)
	if got := m.NextJSON(); got["msg_type"] != "joined" {
		t.Errorf("what was asked before: %v", got)
	}
	if got := m.ask(`{"msg_type":"join_room","room":"b"}`); got["msg_type"] != "error" {
		t.Errorf("what is asked then: %v", got)
	}
}
