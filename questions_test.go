package hubbub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

const backendSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// question is what the application's backend is asked.
type question struct {
	Type, Node, Client, User, Address, Query, Room, To, Key, Method string
	Everyone                                                        bool
	Content                                                         json.RawMessage
	Headers                                                         map[string]string
}

// answers is a backend over HTTP: what it says to a question, by its type and by what is asked.
type answers func(q question) string

// backendOf starts a backend, which takes nothing that isn't signed.
func backendOf(t *testing.T, says answers) *httptest.Server {
	t.Helper()
	verifier, err := standardwebhooks.NewWebhook(backendSecret)
	if err != nil {
		t.Fatal(err)
	}
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		var q question
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&q); err != nil {
			t.Errorf("the question %s: %v", body, err)
		}
		if q.Node == "" {
			t.Errorf("the question %s names no node", body)
		}
		if err := verifier.Verify(body, r.Header); err != nil {
			t.Errorf("the question %s: %v", body, err)
		}
		said := says(q)
		if status, err := strconv.Atoi(said); err == nil {
			w.WriteHeader(status)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, said)
	}))
	t.Cleanup(b.Close)
	return b
}

// asking is questions to that backend.
func asking(b *httptest.Server, events ...string) hubbub.Questions {
	return hubbub.Questions{URL: b.URL, Events: events, Secrets: []string{backendSecret}, Timeout: rawtest.Patience / 2}
}

func TestTheBackendIsAskedInAClientsLife(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var d diary
		b := backendOf(t, func(q question) string {
			d.add("%s %s %s%s %s %s", q.Type, q.User, q.Room, q.To, q.Key, q.Content)
			switch {
			case q.Type == "hubbub.connect":
				return fmt.Sprintf(`{"user":%q}`, q.Headers["cookie"])
			case q.Room == "private":
				return `{"error":{"code":"forbidden","message":"members only"}}`
			case string(q.Content) == `"damn"`:
				return `{"content": {"text":"d**n"} }`
			case string(q.Content) == `"spam"`:
				return `{"error":{"code":"rate_limited"}}`
			}
			return "{}"
		})
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 2, Questions: asking(b, "connect", "join", "publish")})
		enterAs := func(name string) *member {
			m := &member{Client: rawtest.Dial(t, s, "/ws", "Cookie: "+name)}
			m.id = m.NextJSON()["client_id"].(string)
			return m
		}
		ann, bob := enterAs("ann"), enterAs("bob")
		ann.join("r")
		bob.join("r")
		if got := ann.ask(`{"msg_type":"join_room","room":"private"}`); got["code"] != "forbidden" || got["message"] != "members only" || got["retry"] != false {
			t.Errorf("got %v", got)
		}
		if n := s.RoomCount(); n != 1 {
			t.Errorf("%d rooms: a refused join made one", n)
		}
		ann.Text(`{"msg_type":"room_message","room":"r","key":"k","content":"damn","id":"ask"}`)
		ann.gets(map[string]any{"msg_type": "ack", "id": "ask"})
		if got := bob.NextJSON(); got["user"] != "ann" || fmt.Sprint(got["content"]) != "map[text:d**n]" {
			t.Errorf("got %v", got)
		}
		if got := ann.ask(`{"msg_type":"chat","content":"spam"}`); got["code"] != "rate_limited" || got["retry"] != true {
			t.Errorf("got %v", got)
		}
		ann.ask(`{"msg_type":"direct_message","to":"` + bob.id + `","content":1}`)
		bob.gets(map[string]any{"msg_type": "direct_message", "from": ann.id, "content": 1.0, "user": "ann"})
		// Who isn't in a room may not read it, as with a hook Join: else whom the backend refuses could read it.
		if got := ann.ask(`{"msg_type":"history","room":"private"}`); got["code"] != "not_member" {
			t.Errorf("got %v", got)
		}
		want := []string{"hubbub.connect    ", "hubbub.connect    ", "hubbub.join ann r  ", "hubbub.join bob r  ", "hubbub.join ann private  ",
			`hubbub.publish ann r k "damn"`, `hubbub.publish ann   "spam"`, "hubbub.publish ann " + bob.id + "  1"}
		if got := d.read(); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("the backend was asked\n%q, not\n%q", got, want)
		}
		scraped(t, s, map[string]float64{
			`questions_total{kind="connect",result="allowed"}`: 2, `questions_total{kind="join",result="allowed"}`: 2,
			`questions_total{kind="join",result="refused"}`: 1, `questions_total{kind="publish",result="refused"}`: 1,
			`questions_total{kind="publish",result="invalid"}`: 0, `question_seconds_count{kind="publish"}`: 3,
		})
	})
}

// Token, backend and hook are asked in this order, and add up; no later one changes the name, or puts the end off.
func TestTheBackendIsAskedBehindTheToken(t *testing.T) {
	soon := time.Now().Add(time.Minute).UnixMilli()
	asked := make(chan question, 1)
	b := backendOf(t, func(q question) string {
		asked <- q
		if strings.Contains(q.Query, "other") {
			return `{"user":"bob"}`
		}
		return fmt.Sprintf(`{"rooms":["by the backend"],"join":["backend.*"],"expires_at":%d}`, soon)
	})
	s := rawtest.Start(t, withTokens(func(c *hubbub.Config) {
		c.Questions = asking(b, "connect")
		c.Rooms = []hubbub.RoomPolicy{{Match: "*.*", Join: "granted"}}
	}))
	token := aToken(t, jwt.MapClaims{"hubbub": map[string]any{"rooms": []string{"by the token"}, "join": []string{"token.*"}}})
	m, welcome := letInAs(t, s, "ann", "/ws?token="+token, nil)
	if q := <-asked; q.User != "ann" || welcome["user"] != "ann" || welcome["expires_at"] != float64(soon) {
		t.Errorf("the backend was asked %+v, and the client is told %v", q, welcome)
	}
	for _, room := range []string{"by the token", "by the backend"} {
		if got := m.NextJSON(); got["msg_type"] != "joined" || got["room"] != room {
			t.Errorf("got %v, not that it is in %s", got, room)
		}
	}
	m.join("token.1").join("backend.1")
	if got := m.ask(`{"msg_type":"refresh","token":"` + aToken(t, nil) + `"}`); got["msg_type"] != "refreshed" || got["expires_at"] != float64(soon) {
		t.Errorf("got %v", got)
	}
	m.gets(map[string]any{"msg_type": "left", "room": "token.1", "reason": "forbidden"})
	if status, _, _ := refusedUpgrade(t, s, "?other&token="+aToken(t, nil)); status != 503 {
		t.Errorf("where the backend names another user: %d", status)
	}
	<-asked
	turnedAway(t, s, 401, "/ws", nil) // nobody asks the backend about those
	if len(asked) > 0 {
		t.Error("the backend is asked about a client without a token")
	}
}

// What a client asks of the backend, and what that answers, is between these two.
func TestTheBackendAnswersRequests(t *testing.T) {
	b := backendOf(t, func(q question) string {
		switch q.Method {
		case "price":
			return fmt.Sprintf(`{"content":{"of":%s,"for":%q}}`, q.Content, q.User)
		case "none":
			return `{"content":null}`
		case "broken":
			return `{}`
		}
		return `{"error":{"code":"bad_message","message":"no such method"}}`
	})
	s := rawtest.Start(t, hubbub.Config{Questions: asking(b, "request"), Hooks: hubbub.Hooks{Connect: asUser}})
	m := enterAs(t, s, "ann")
	got := m.ask(`{"msg_type":"request","method":"price","content":"tea"}`)
	if got["msg_type"] != "response" || fmt.Sprint(got["content"]) != "map[for:ann of:tea]" {
		t.Errorf("got %v", got)
	}
	if got := m.ask(`{"msg_type":"request","method":"none"}`); got["msg_type"] != "response" || got["content"] != nil {
		t.Errorf("got %v", got)
	}
	for method, code := range map[string]string{"sing": "bad_message", "broken": "internal"} {
		if got := m.ask(`{"msg_type":"request","method":"` + method + `"}`); got["code"] != code {
			t.Errorf("%s: %v", method, got)
		}
	}
}

// Who a client is, by the backend's answer, is what the rules of rooms go by.
func TestTheBackendSaysWhoAClientIs(t *testing.T) {
	expires := time.Now().Add(time.Hour).UnixMilli()
	b := backendOf(t, func(q question) string {
		if q.Headers["cookie"] == "" {
			return "{}"
		}
		return fmt.Sprintf(`{"user":"ann","data":{"name":"Ann"},"rooms":["team"],"join":["own.${user}"],"publish":["news"],"direct":true,"expires_at":%d}`, expires)
	})
	s := rawtest.Start(t, hubbub.Config{Questions: asking(b, "connect"), Direct: "granted", Rooms: []hubbub.RoomPolicy{
		{Match: "team", Join: "server", Presence: "full"}, {Match: "own.*", Join: "granted"}, {Match: "news", Publish: "granted"},
	}})
	ann := &member{Client: rawtest.Dial(t, s, "/ws", "Cookie: a")}
	welcome := ann.NextJSON()
	if welcome["user"] != "ann" || welcome["expires_at"] != float64(expires) {
		t.Errorf("the welcome is %v", welcome)
	}
	ann.id = welcome["client_id"].(string)
	if got := ann.NextJSON(); got["msg_type"] != "joined" || got["room"] != "team" || got["id"] != nil {
		t.Errorf("got %v", got)
	}
	if got := ann.ask(`{"msg_type":"presence","room":"team"}`); !strings.Contains(fmt.Sprint(got["members"]), "map[name:Ann]") {
		t.Errorf("got %v", got)
	}
	stranger := enter(t, s)
	may := func(m *member, msg string) bool {
		m.Text(strings.TrimSuffix(msg, "}") + `,"id":"ask"}`)
		for {
			if got := m.NextJSON(); got["id"] == "ask" {
				return got["msg_type"] != "error"
			}
		}
	}
	for _, c := range []struct {
		msg           string
		ann, stranger bool
	}{
		{`{"msg_type":"join_room","room":"own.ann"}`, true, false},
		{`{"msg_type":"join_room","room":"own.ann","since":{"epoch":"e","offset":0}}`, true, false},
		{`{"msg_type":"join_room","room":"own.bob"}`, false, false},
		{`{"msg_type":"join_room","room":"team"}`, true, false},
		{`{"msg_type":"history","room":"team"}`, true, false},
		{`{"msg_type":"presence","room":"own.ann"}`, true, false},
		{`{"msg_type":"room_message","room":"news","content":1}`, true, false},
		{`{"msg_type":"room_message","room":"else","content":1}`, true, true},
		{`{"msg_type":"direct_message","to":"` + ann.id + `","content":1}`, true, false},
		{`{"msg_type":"chat","content":1}`, true, false}, // of those with a name, since the backend gives them
	} {
		if got := may(stranger, c.msg); got != c.stranger {
			t.Errorf("a stranger: %s: %v", c.msg, got)
		}
		if got := may(ann, c.msg); got != c.ann {
			t.Errorf("ann: %s: %v", c.msg, got)
		}
	}
}

// What a handshake tells of a client, and what it doesn't.
func TestTheBackendIsToldOfAHandshake(t *testing.T) {
	asked := make(chan question, 2)
	b := backendOf(t, func(q question) string { asked <- q; return "{}" })
	s := rawtest.Start(t, hubbub.Config{Questions: asking(b, "connect")})
	m := &member{Client: rawtest.Dial(t, s, "/ws?room=a%26b&resume=SECRET&token=t&%72esume=SECRET", "Cookie: a=1", "Cookie: b=2", "Authorization: Bearer x",
		"User-Agent: test", "Accept-Language: en", "X-Other: y", "Sec-WebSocket-Protocol: chat, token.x")}
	id := m.NextJSON()["client_id"]
	q := <-asked
	want := map[string]string{"host": s.Addr, "cookie": "a=1; b=2", "authorization": "Bearer x", "user-agent": "test", "accept-language": "en", "sec-websocket-protocol": "chat, token.x"}
	if q.Client != id || q.Address != "127.0.0.1" || q.Query != "room=a%26b&token=t" || !maps.Equal(q.Headers, want) {
		t.Errorf("it is told %+v", q)
	}
}

func TestTheBackendRejects(t *testing.T) {
	b := backendOf(t, func(q question) string {
		if q.Query == "later=" {
			return `{"reject":{"reason":"slowly","retry":true}}`
		}
		return `{"reject":{"reason":"not you"}}`
	})
	s := rawtest.Start(t, hubbub.Config{Questions: asking(b, "connect"), Hooks: hubbub.Hooks{
		Connect:    func(context.Context, *hubbub.Connect) error { t.Error("the hook is asked"); return nil },
		Disconnect: func(context.Context, *hubbub.Disconnect) { t.Error("somebody was let in") },
	}})
	rawtest.Dial(t, s, "/ws").AnswerClose(4501)
	rawtest.Dial(t, s, "/ws?later").AnswerClose(1013)
}

// refusedUpgrade is the answer to a handshake that is refused.
func refusedUpgrade(t *testing.T, s *rawtest.Server, query string) (status int, retryAfter, detail string) {
	t.Helper()
	c := rawtest.Connect(t, s)
	c.SendRaw([]byte(rawtest.Upgrade(s, "/ws"+query)))
	r := c.Response("GET")
	body, _ := io.ReadAll(r.Body)
	return r.StatusCode, r.Header.Get("Retry-After"), string(body)
}

// A backend that can't be asked, or whose answer can't be understood, lets nobody in, and nothing happens in rooms.
func TestWithoutAnAnswerNobodyMay(t *testing.T) {
	for said, is := range map[string]struct{ code, result, logs string }{
		"500":          {"unavailable", "unavailable", "status 500"},
		`{"usr":"a"}`:  {"internal", "invalid", "the field 'usr' is not known"},
		"down":         {"unavailable", "unavailable", "connection refused"},
		"slow":         {"unavailable", "unavailable", "no answer within 50ms"},
		"301":          {"internal", "invalid", "status 301, not 200"},
		`{"content":`:  {"internal", "invalid", "JSON"},
		`{"content":{`: {"internal", "invalid", "JSON"},
	} {
		t.Run(said, func(t *testing.T) {
			var in sync.Map // who is let in first
			over := make(chan struct{})
			b := backendOf(t, func(q question) string {
				if _, ok := in.LoadOrStore("first", true); !ok {
					return `{"user":"ann"}`
				}
				if said == "slow" {
					<-over
				}
				return said
			})
			defer close(over)
			ask := asking(b, "connect", "join", "publish")
			if said == "slow" {
				ask.Timeout = 50 * time.Millisecond
				in.Store("first", true)
			}
			// A hook's time is its own.
			s := rawtest.Start(t, hubbub.Config{Questions: ask, HookTimeout: rawtest.Patience})
			if said != "slow" {
				m := enter(t, s)
				if said == "down" {
					b.Close()
				}
				for _, msg := range []string{`{"msg_type":"join_room","room":"r"}`, `{"msg_type":"room_message","room":"r","content":1}`, `{"msg_type":"chat","content":1}`} {
					if got := m.ask(msg); got["code"] != is.code || got["retry"] != true || strings.Contains(got["message"].(string), is.logs) {
						t.Errorf("%s: got %v", msg, got)
					}
				}
			}
			status, retryAfter, detail := refusedUpgrade(t, s, "")
			if status != 503 || retryAfter == "" || strings.Contains(detail, is.logs) {
				t.Errorf("an upgrade: %d, Retry-After %q, %s", status, retryAfter, detail)
			}
			rawtest.Dial(t, s, "/ws?errors=close").AnswerClose(1013) // a browser sees no status
			scraped(t, s, map[string]float64{`questions_total{kind="connect",result="` + is.result + `"}`: 2, `upgrades_total{result="backend"}`: 2, "rooms": 0})
			if log := s.Log.String(); !strings.Contains(log, is.logs) || strings.Contains(log, backendSecret) {
				t.Errorf("the log is %s", log)
			}
		})
	}
}

// Both must allow: the backend first, then the hook, which gets what the backend has left of a message.
func TestTheBackendIsAskedBeforeTheHook(t *testing.T) {
	var d diary
	b := backendOf(t, func(q question) string {
		d.add("asked %s %s%s", q.Type, q.Room, q.Content)
		switch {
		case q.Type == "hubbub.connect":
			return `{"user":"ann"}`
		case q.Room == "not the backend's":
			return `{"error":{"code":"forbidden","message":"by the backend"}}`
		case q.Type == "hubbub.publish":
			return `{"content":2}`
		}
		return "{}"
	})
	no := &hubbub.Error{Code: hubbub.Forbidden, Message: "by the hook"}
	s := rawtest.Start(t, hubbub.Config{Questions: asking(b, "connect", "join", "publish"), Hooks: hubbub.Hooks{
		Connect: func(_ context.Context, c *hubbub.Connect) error {
			d.add("hook connect %s", c.User)
			switch c.Request.URL.RawQuery {
			case "other":
				c.User = "bob"
			case "no":
				return no
			}
			return nil
		},
		Join: func(_ context.Context, j *hubbub.Join) error {
			d.add("hook join %s", j.Room)
			if j.Room == "not the hook's" {
				return no
			}
			return nil
		},
		Publish: func(_ context.Context, p *hubbub.Publish) error {
			d.add("hook publish %s", p.Content)
			p.Content = json.RawMessage("3")
			return nil
		},
	}})
	rawtest.Dial(t, s, "/ws?no").AnswerClose(4501)
	rawtest.Dial(t, s, "/ws?other").AnswerClose(1013)
	if !strings.Contains(s.Log.String(), `names the user \"bob\", whose name is \"ann\" already`) {
		t.Errorf("the log is %s", s.Log)
	}
	m := enter(t, s).join("r")
	for room, by := range map[string]string{"not the backend's": "by the backend", "not the hook's": "by the hook"} {
		if got := m.ask(fmt.Sprintf(`{"msg_type":"join_room","room":%q}`, room)); got["message"] != by {
			t.Errorf("%s: %v", room, got)
		}
	}
	other := enter(t, s).join("r")
	m.ask(`{"msg_type":"room_message","room":"r","content":1}`)
	other.gets(map[string]any{"msg_type": "room_message", "room": "r", "from": m.id, "user": "ann", "content": 3.0})
	said := strings.Join(d.read(), "; ")
	for _, want := range []string{"asked hubbub.connect ; hook connect ann", "asked hubbub.join r; hook join r", "asked hubbub.publish r1; hook publish 2"} {
		if !strings.Contains(said, want) {
			t.Errorf("not %q in %s", want, said)
		}
	}
	if strings.Contains(said, "hook join not the backend's") {
		t.Error("the hook is asked what the backend has refused")
	}
}

// A client that hangs up while the backend is asked takes the question with it, and so does a server that stops.
func TestAQuestionEndsWithItsClient(t *testing.T) {
	asked, over := make(chan question), make(chan struct{})
	b := backendOf(t, func(q question) string {
		asked <- q
		<-over
		return "{}"
	})
	defer close(over)
	s := rawtest.Start(t, hubbub.Config{Questions: asking(b, "connect", "join")})
	c := rawtest.Connect(t, s)
	c.SendRaw([]byte(rawtest.Upgrade(s, "/ws")))
	<-asked
	c.CloseNow()
	scraped(t, s, map[string]float64{`questions_total{kind="connect",result="abandoned"}`: 1})
	stopped := rawtest.Connect(t, s)
	stopped.SendRaw([]byte(rawtest.Upgrade(s, "/ws")))
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), rawtest.Patience/2)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

func TestWhatQuestionsNeed(t *testing.T) {
	good := hubbub.Questions{URL: "https://backend.example/hook", Events: []string{"join"}, Secrets: []string{backendSecret}}
	if err := (hubbub.Config{Questions: good}).Validate(); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		change func(*hubbub.Questions)
		says   string
	}{
		{func(q *hubbub.Questions) { q.URL = "" }, "hook-events join: it needs --hook-url"},
		{func(q *hubbub.Questions) { *q = hubbub.Questions{Timeout: 1} }, "hook-url: it is empty"},
		{func(q *hubbub.Questions) { q.URL = "https://ann:pass@x/" }, "hook-url: it has a user's name"},
		{func(q *hubbub.Questions) { q.Events = []string{"join", "leave"} }, `hook-events "leave": unknown`},
		{func(q *hubbub.Questions) { q.Events = nil }, "hook-url: it needs --hook-events"},
		{func(q *hubbub.Questions) { q.Secrets = nil }, "it needs --webhook-secret"},
		{func(q *hubbub.Questions) { q.Secrets = []string{"abc"} }, `webhook-secret: secret 1: it doesn't begin with "whsec_"`},
		{func(q *hubbub.Questions) { q.Events = []string{"request"} }, "hook-events request: the hook Request answers requests already"},
		{func(q *hubbub.Questions) { q.Timeout = time.Hour }, "Questions.Timeout 1h0m0s: not between 1ms and 1m"},
		{func(q *hubbub.Questions) { q.AtOnce = -1 }, "Questions.AtOnce -1: not between 1 and 65536"},
	} {
		q := good
		c.change(&q)
		answers := hubbub.Hooks{Request: func(context.Context, *hubbub.Request) (json.RawMessage, error) { return nil, nil }}
		if err := (hubbub.Config{Questions: q, Hooks: answers}).Validate(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, and not %q", q, err, c.says)
		}
	}
}
