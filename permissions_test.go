package hubbub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// closedRooms are rooms for those who are let in.
var closedRooms = []hubbub.RoomPolicy{
	{Match: "staff.*", Join: "granted", Publish: "granted"},
	{Match: "inbox.${user}", Publish: "server"},
	{Match: "inbox.*", Join: "server"},
	{Match: "wiki", Join: "users", Read: "anyone"},
	{Match: "server", Join: "server"},
}

// claiming connects with a token of that user, and the claim hubbub.
func claiming(t *testing.T, s *rawtest.Server, user string, claim map[string]any) *member {
	t.Helper()
	m, _ := letInAs(t, s, user, "/ws?token="+aToken(t, jwt.MapClaims{"sub": user, "hubbub": claim}), nil)
	return m
}

func TestWhoMayDoWhatOverSockets(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, withTokens(func(c *hubbub.Config) { c.IO, c.Anonymous, c.Rooms = io, true, closedRooms }))
		ann := claiming(t, s, "ann", map[string]any{"join": []string{"staff.*"}, "publish": []string{"staff.${user}"}})
		nobody := enter(t, s)
		for _, c := range []struct {
			who        *member
			what, want string
		}{
			{ann, `"join_room","room":"staff.ann"`, "joined"},
			{ann, `"room_message","room":"staff.ann","content":1`, "ack"},
			{ann, `"room_message","room":"staff.bob","content":1`, "forbidden"},
			{ann, `"join_room","room":"inbox.ann"`, "joined"},
			{ann, `"join_room","room":"inbox.bob"`, "forbidden"},
			{ann, `"room_message","room":"inbox.ann","content":1`, "forbidden"},
			{ann, `"history","room":"inbox.bob"`, "not_member"},
			{ann, `"join_room","room":"wiki"`, "joined"},
			{ann, `"room_message","room":"wiki","content":1`, "ack"},
			{ann, `"chat","content":1`, "ack"},
			{ann, `"direct_message","to":"` + ann.id + `","content":1`, "ack"},
			{nobody, `"join_room","room":"staff.ann"`, "forbidden"},
			{nobody, `"join_room","room":"inbox."`, "forbidden"},
			{nobody, `"join_room","room":"wiki"`, "forbidden"},
			{nobody, `"join_room","room":"wiki","since":{"epoch":"x","offset":0}`, "forbidden"},
			{nobody, `"history","room":"wiki"`, "history"},
			{nobody, `"presence","room":"wiki"`, "presence"},
			{nobody, `"presence","room":"server"`, "not_member"},
			{nobody, `"room_message","room":"wiki","content":1`, "not_member"},
			{nobody, `"room_message","room":"free","content":1`, "ack"},
			{nobody, `"chat","content":1`, "forbidden"}, // by default, since there are tokens
			{nobody, `"direct_message","to":"` + ann.id + `","content":1`, "forbidden"},
			{nobody, `"direct_message","to":"nobody","content":1`, "forbidden"},
		} {
			c.who.Text(`{"msg_type":` + c.what + `,"id":7}`)
			var got map[string]any
			for got = c.who.NextJSON(); got["id"] == nil; got = c.who.NextJSON() { // a chat or a direct message
			}
			if outcome := got["msg_type"]; outcome != c.want && got["code"] != c.want {
				t.Errorf("%s: %v, want %s", c.what, got, c.want)
			}
		}
		scraped(t, s, map[string]float64{
			`denied_total{verb="join"}`: 5, `denied_total{verb="read"}`: 2, `denied_total{verb="publish"}`: 3, `denied_total{verb="chat"}`: 1, `denied_total{verb="direct"}`: 2,
		})
		if log := s.Log.String(); !strings.Contains(log, "a client may not do what it asked for") || !strings.Contains(log, "user=ann verb=publish room=staff.bob") {
			t.Errorf("the log says\n%s", log)
		}
	})
}

// The application, its API and its sockets all put a client into a closed room by one function, and none of its resumes
// is asked.
func TestWhoIsPutIntoAClosedRoom(t *testing.T) {
	s := rawtest.Start(t, withTokens(func(c *hubbub.Config) { c.Rooms = closedRooms }))
	m, welcome := letInAs(t, s, "ann", "/ws?token="+aToken(t, nil), nil)
	if err := s.Join(t.Context(), "server", m.id); err != nil {
		t.Fatal(err)
	}
	if got := m.NextJSON(); got["msg_type"] != "joined" || got["room"] != "server" || got["id"] != nil || got["epoch"] == nil {
		t.Errorf("put in: %v", got)
	}
	if got := m.ask(`{"msg_type":"room_message","room":"server","content":1}`); got["msg_type"] != "ack" {
		t.Errorf("a member publishes: %v", got)
	}
	m.Reset()
	rawtest.Eventually(t, "it has gone", func() bool { return s.Connections() == 0 })
	back, again := letInAs(t, s, "ann", "/ws?token="+aToken(t, nil)+"&resume="+fmt.Sprint(welcome["resume_token"]), nil)
	if again["resumed"] != true {
		t.Fatalf("not resumed: %v", again)
	}
	if got := back.ask(`{"msg_type":"resume","rooms":{"server":null,"inbox.bob":null}}`); fmt.Sprint(got["rooms"]) !=
		fmt.Sprintf("map[inbox.bob:map[reason:forbidden recovered:false] server:map[epoch:%v offset:1 reason:expired recovered:false]]", epochIn(got, "server")) {
		t.Errorf("%v", got)
	}
}

func epochIn(resumed map[string]any, room string) any {
	return resumed["rooms"].(map[string]any)[room].(map[string]any)["epoch"]
}

// A token may name as many rooms as a client may be in; what they are told of them is much, and comes at once.
func TestATokenOfAThousandRooms(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var rooms []string
		for i := range 1000 {
			rooms = append(rooms, fmt.Sprintf("%04d%s", i, strings.Repeat("x", 251)))
		}
		s := rawtest.Start(t, hubbub.Config{IO: io, MaxMessageBytes: 1 << 10, Authenticate: func(context.Context, *hubbub.Credentials) (*hubbub.Identity, error) {
			return &hubbub.Identity{User: "ann", Rooms: rooms}, nil
		}})
		m, _ := letInAs(t, s, "ann", "/ws", nil)
		m.Text(`{"msg_type":"ping","id":1}`)
		for i := range 1000 {
			if got := m.NextJSON(); got["msg_type"] != "joined" || got["room"] != rooms[i] {
				t.Fatalf("number %d is %v", i, got)
			}
		}
		if got := m.NextJSON(); got["msg_type"] != "pong" {
			t.Errorf("behind them: %v", got)
		}
	})
}

// What the backend says of a client at its handshake counts as what a token says.
func TestWhatTheBackendGrants(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"user":"ann","rooms":["server"],"join":["staff.1"],"data":{"name":"Ann"}}`)
	}))
	t.Cleanup(backend.Close)
	s := rawtest.Start(t, hubbub.Config{Rooms: closedRooms, Questions: hubbub.Questions{URL: backend.URL, Events: []string{"connect"}, Secrets: []string{"whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"}}})
	m, welcome := letInAs(t, s, "ann", "/ws", nil)
	if welcome["user"] != "ann" {
		t.Errorf("the welcome is %v", welcome)
	}
	if got := m.NextJSON(); got["msg_type"] != "joined" || got["room"] != "server" {
		t.Errorf("put in: %v", got)
	}
	m.join("staff.1").join("lobby")
	if got := m.ask(`{"msg_type":"join_room","room":"staff.2"}`); got["code"] != "forbidden" {
		t.Errorf("%v", got)
	}
	if got := m.ask(`{"msg_type":"presence","room":"lobby"}`); !strings.Contains(fmt.Sprint(got["members"]), "map[name:Ann]") {
		t.Errorf("%v", got)
	}
}

func TestTheHookRequestAnswers(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{Hooks: hubbub.Hooks{Request: func(_ context.Context, r *hubbub.Request) (json.RawMessage, error) {
		switch r.Method {
		case "broken":
			return json.RawMessage(`{"a":}`), nil
		case "secret":
			return nil, errors.New("a secret")
		case "forbidden":
			return nil, &hubbub.Error{Code: hubbub.Forbidden, Message: "not you"}
		case "nothing":
			return nil, nil
		}
		return json.Marshal([]any{r.Method, r.Content, r.Client != "", r.User})
	}}})
	m := enter(t, s)
	for what, want := range map[string]string{
		`"method":"list","content":{"a": 1}`: `map[content:[list map[a:1] true ] id:9 msg_type:response]`,
		`"method":"list"`:                    `map[content:[list <nil> true ] id:9 msg_type:response]`,
		`"method":"nothing"`:                 `map[content:<nil> id:9 msg_type:response]`,
		`"method":"forbidden"`:               `map[code:forbidden id:9 message:not you msg_type:error retry:false]`,
		`"method":"secret"`:                  `map[code:internal id:9 message:internal error msg_type:error retry:true]`,
		`"method":"broken"`:                  `map[code:internal id:9 message:internal error msg_type:error retry:true]`,
	} {
		if got := m.raw(`{"msg_type":"request",%s,"id":9}`, what); fmt.Sprint(got) != want {
			t.Errorf("%s: %v, want %s", what, got, want)
		}
	}
}
