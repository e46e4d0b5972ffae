package hubbub_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

func TestAPIPublishesToWhomItNames(t *testing.T) {
	s, b := startAPI(t, hubbub.Config{Hooks: hubbub.Hooks{Connect: asUser}})
	ann, bob := enterAs(t, s, "ann"), enterAs(t, s, "bob")
	ann.join("r")
	bob.join("r")
	got := b.ok("POST", "/publish", `{"room":"r","content":{"a" : [1.0]},"from":"shop","key":"k","exclude":"`+bob.id+`"}`)
	if got["epoch"] == "" || got["offset"] != 1.0 {
		t.Fatal(got)
	}
	if text := nextText(ann); !strings.Contains(text, `"from":"shop","content":{"a" : [1.0]},`) || !strings.Contains(text, `"key":"k"`) {
		t.Error(text)
	}
	bob.hearsNothing()
	if got := b.ok("POST", "/publish", `{"client":"`+bob.id+`","content":"psst"}`); len(got) != 0 {
		t.Error(got)
	}
	bob.gets(map[string]any{"msg_type": "direct_message", "from": "server", "content": "psst"})
	b.ok("POST", "/publish", `{"user":"ann","content":1}`)
	ann.gets(map[string]any{"msg_type": "direct_message", "from": "server", "content": 1.0})
	b.ok("POST", "/publish", `{"everyone":true,"content":null}`)
	for _, m := range []*member{ann, bob} {
		m.gets(map[string]any{"msg_type": "chat", "from": "server", "content": nil})
	}
	all := results(b.ok("POST", "/publish", `{"rooms":["r","new","","r"],"content":2,"publish_id":"p"}`))
	if len(all) != 4 || all[0]["offset"] != 2.0 || all[1]["offset"] != 1.0 || errorCode(all[2]) != "bad_room" || all[3]["duplicate"] != true {
		t.Error(all)
	}
	ann.gets(map[string]any{"msg_type": "room_message", "from": "server", "room": "r", "content": 2.0})
	b.fails(404, "unknown_client", "client", "POST", "/publish", `{"client":"`+strings.Repeat("0", 8)+`-0000-4000-8000-000000000000","content":1}`)
	b.fails(404, "unknown_client", "client", "POST", "/publish", `{"client":"nobody","content":1}`)
	b.fails(404, "not_found", "user", "POST", "/publish", `{"user":"nobody","content":1}`)
	ann.hearsNothing()
}

func TestAPIPublishesOnce(t *testing.T) {
	s, b := startAPI(t, hubbub.Config{})
	m := enter(t, s)
	m.join("r")
	first := b.ok("POST", "/publish", `{"room":"r","content":1}`, "Idempotency-Key", "order-1")
	for _, again := range []map[string]any{
		b.ok("POST", "/publish", `{"room":"r","content":1}`, "Idempotency-Key", "order-1"),
		b.ok("POST", "/publish", `{"room":"r","content":1,"publish_id":"order-1"}`),
		b.ok("POST", "/publish", `{"room":"r","content":1,"publish_id":"order-1"}`, "Idempotency-Key", "order-1"),
	} {
		if again["duplicate"] != true || again["offset"] != first["offset"] || again["epoch"] != first["epoch"] {
			t.Errorf("%v, after %v", again, first)
		}
	}
	b.fails(400, "bad_message", "Idempotency-Key", "POST", "/publish", `{"room":"r","content":1,"publish_id":"x"}`, "Idempotency-Key", "order-1")
	b.fails(400, "bad_message", "Idempotency-Key", "POST", "/publish", `{"everyone":true,"content":1}`, "Idempotency-Key", "order-1")
	b.fails(400, "bad_message", "Idempotency-Key", "POST", "/publish", `{"room":"r","content":1}`, "Idempotency-Key", strings.Repeat("x", 65))
	b.fails(400, "bad_message", "publish_id", "POST", "/batch", `{"calls":[]}`, "Idempotency-Key", "order-1")
	m.gets(map[string]any{"msg_type": "room_message", "from": "server", "room": "r", "content": 1.0})
	m.hearsNothing()
}

// Another key, a user and a session of the same name are other publishers.
func TestAPIPublishersAreAKindAndAName(t *testing.T) {
	cfg, secrets := keyed(t, hubbub.Config{Hooks: hubbub.Hooks{Connect: asUser}})
	s := rawtest.Start(t, cfg)
	b := &backend{t: t, base: "http://" + s.Addr, key: secrets["all"], desc: described(t)}
	const body = `{"room":"r","content":1,"publish_id":"p"}`
	b.ok("POST", "/publish", body)
	other := *b
	other.key = secrets["publish"]
	user := enterAs(t, s, "all")
	for i, got := range []map[string]any{
		other.ok("POST", "/publish", body),
		user.raw(`{"msg_type":"room_message","room":"r","content":1,"publish_id":"p","id":1}`),
	} {
		if got["duplicate"] != nil || got["offset"] != float64(i+2) {
			t.Errorf("%d: %v", i, got)
		}
	}
	if at, err := s.Publish(t.Context(), hubbub.Publication{Room: "r", Content: 1, PublishID: "p"}); err != nil || at.Duplicate || at.Offset != 4 {
		t.Errorf("%+v, %v", at, err)
	}
}

func TestAPIDoesABatchInOrder(t *testing.T) {
	t.Parallel()
	s, b := startAPI(t, hubbub.Config{Hooks: hubbub.Hooks{Connect: asUser}})
	m, gone := enterAs(t, s, "ann"), enterAs(t, s, "gone")
	calls := []string{
		fmt.Sprintf(`{"join":{"room":"r","client":%q}}`, m.id),
		`{"publish":{"room":"r","content":"first","publish_id":"p"}}`,
		`{"publish":{"room":"r","contents":"second"}}`,
		`{"publish":{"room":"r","content":"third"}}`,
		`{"delete":{"room":"r","offset":2}}`,
		`{"delete":{"room":"none","offset":2,"epoch":"e"}}`,
		`{"publish":{"rooms":["r",""],"content":4}}`,
		fmt.Sprintf(`{"leave":{"room":"r","client":%q}}`, m.id),
		fmt.Sprintf(`{"leave":{"room":"r","client":%q}}`, m.id),
		`{"disconnect":{"user":"gone","code":4321,"reason":"bye"}}`,
		fmt.Sprintf(`{"disconnect":{"client":%q}}`, gone.id),
		`{"delete":{"room":"r"}}`,
	}
	all := results(b.call("POST", "/batch", `{"calls":[`+strings.Join(calls, ",")+`]}`).fields)
	if len(all) != len(calls) {
		t.Fatal(all)
	}
	for i, want := range []string{"", "", "bad_message", "", "", "bad_position", "", "", "not_member", "", "unknown_client", ""} {
		if got := errorCode(all[i]); got != want {
			t.Errorf("%s: %v, want %q", calls[i], all[i], want)
		}
	}
	if inner := results(all[6]); len(inner) != 2 || inner[0]["offset"] != 3.0 || errorCode(inner[1]) != "bad_room" {
		t.Error(all[6])
	}
	if all[1]["offset"] != 1.0 || all[3]["offset"] != 2.0 {
		t.Error(all[1], all[3])
	}
	if got := m.NextJSON(); got["msg_type"] != "joined" || got["room"] != "r" || got["id"] != nil {
		t.Error(got)
	}
	m.gets(map[string]any{"msg_type": "room_message", "from": "server", "room": "r", "content": "first"})
	m.gets(map[string]any{"msg_type": "room_message", "from": "server", "room": "r", "content": "third"})
	if got := m.NextJSON(); got["msg_type"] != "deleted" || got["offset"] != 2.0 {
		t.Error(got)
	}
	m.gets(map[string]any{"msg_type": "room_message", "from": "server", "room": "r", "content": 4.0})
	m.gets(map[string]any{"msg_type": "left", "room": "r", "reason": "kicked"})
	gone.AnswerClose(4321)
	if page := b.ok("GET", "/rooms/r/history", ""); len(page["messages"].([]any)) != 0 || page["offset"] != 3.0 {
		t.Error(page)
	}
}

// A key does in a batch what it may do alone.
func TestAPIKeysHaveRights(t *testing.T) {
	cfg, secrets := keyed(t, hubbub.Config{})
	s := rawtest.Start(t, cfg)
	desc := described(t)
	for right, path := range map[string]string{"publish": "POST /publish", "read": "GET /info", "manage": "DELETE /users/nobody", "tail": "GET /tail?nonsense=1"} {
		method, path, _ := strings.Cut(path, " ")
		for name, secret := range secrets {
			b := &backend{t: t, base: "http://" + s.Addr, key: secret, desc: desc}
			a := b.call(method, path, "")
			if allowed := name == "all" || name == right; (a.status == 403) == allowed {
				t.Errorf("%s %s with the key %s: %d %s", method, path, name, a.status, a.body)
			}
		}
	}
	b := &backend{t: t, base: "http://" + s.Addr, key: secrets["publish"], desc: desc}
	all := results(b.ok("POST", "/batch", `{"calls":[{"publish":{"room":"r","content":1}},{"delete":{"room":"r"}}]}`))
	if errorCode(all[0]) != "" || errorCode(all[1]) != "forbidden" {
		t.Error(all)
	}
	for _, sent := range []string{"", "Bearer", "Bearer ", "Bearer " + secrets["all"] + "x", "Basic " + secrets["all"], secrets["all"], "Bearer " + strings.Repeat("x", 20000)} {
		r := b.request("GET", "/info", "")
		r.Header.Set("Authorization", sent)
		a := b.do(r, "")
		b.failed(a, 401, "unauthorized", "Bearer KEY", sent)
		if a.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%q: %v", sent, a.header)
		}
	}
	for sent, want := range map[string]int{"bearer " + secrets["all"]: 200, "Bearer   " + secrets["all"] + " ": 200} {
		if a := b.call("GET", "/info", "", "Authorization", sent); a.status != want {
			t.Errorf("%q: %d", sent, a.status)
		}
	}
	r := b.request("GET", "/info", "")
	r.Header["Authorization"] = []string{"Bearer " + secrets["all"], "Bearer " + secrets["all"]}
	b.failed(b.do(r, ""), 401, "unauthorized", "twice", "two headers")
	// Neither what exists nor a key in a query counts without one.
	b.key = ""
	b.fails(401, "unauthorized", "", "GET", "/nothing", "")
	b.fails(401, "unauthorized", "", "PATCH", "/publish", "")
	b.fails(401, "unauthorized", "", "GET", "/info?key="+secrets["all"], "")
	for _, secret := range secrets {
		if strings.Contains(s.Log.String(), secret) {
			t.Error("a key is in the log")
		}
	}
	if !strings.Contains(s.Log.String(), "no key that counts") {
		t.Error("wrong keys are not in the log")
	}
}

func TestAPIIsOffWithoutAKey(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{})
	b := &backend{t: t, base: "http://" + s.Addr, key: "anything that is long enough", desc: described(t)}
	b.fails(403, "api_off", "hubbub key", "GET", "/info", "")
	b.fails(403, "api_off", "HUBBUB_API_KEY", "POST", "/nothing", `{}`)
	if a := b.call("GET", "/openapi.yaml", ""); a.status != 200 || !strings.HasPrefix(string(a.body), "openapi: 3.1.0\n") {
		t.Errorf("%d %.40s", a.status, a.body)
	}
}

func TestAPIKeySettingsThatCannotBe(t *testing.T) {
	_, ann, _ := hubbub.NewAPIKey("ann")
	_, bob, _ := hubbub.NewAPIKey("bob")
	twin := ann
	twin.Name = "twin"
	for says, keys := range map[string][]hubbub.APIKey{
		`api-keys[1].name "ann": api-keys[0] has it already`: {ann, {Name: "ann", SHA256: bob.SHA256, Allow: bob.Allow}},
		`api-keys[1].sha256: it is that of api-keys[0]`:      {ann, twin},
		`api-keys[0].sha256: it must be the 64`:              {{Name: "a", SHA256: "abc", Allow: ann.Allow}},
		`api-keys[0].name ""`:                                {{SHA256: ann.SHA256, Allow: ann.Allow}},
		`api-keys[0].allow: none`:                            {{Name: "a", SHA256: ann.SHA256}},
		`api-keys[0].allow: "write": unknown`:                {{Name: "a", SHA256: ann.SHA256, Allow: []string{"read", "write"}}},
	} {
		if err := (hubbub.Config{APIKeys: keys}).Validate(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %s", err, says)
		}
	}
	for _, secret := range []string{"", "fifteen-letters", strings.Repeat("x", 513), "with a blank in it", "with-ümlaut-in-it"} {
		if _, err := hubbub.APIKeyOf("k", secret); err == nil || len(secret) > 5 && strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v", secret, err)
		}
	}
	secret, key, err := hubbub.NewAPIKey("k", "read")
	if err != nil || len(secret) < 26 || len(key.SHA256) != 64 || !slices.Equal(key.Allow, []string{"read"}) {
		t.Error(secret, key, err)
	}
	if again, _, _ := hubbub.NewAPIKey("k", "read"); again == secret {
		t.Error("two keys are one")
	}
}

// Whatever a room is called, each call's path finds it: on the server itself, below a base path, and below a mux.
func TestAPIPathsTakeEveryRoom(t *testing.T) {
	names := []string{"a/b", "/", "a//b/", "100%", "%2F%25", "two words", "a+b", "😀 né", "?#&=;:@,", `back\slash"`, "..%", strings.Repeat("€", 85), strings.Repeat("/", 255)}
	story := func(t *testing.T, s *hubbub.Server, b *backend, m *member) {
		for _, name := range names {
			at := "/rooms/" + url.PathEscape(name)
			quoted, _ := json.Marshal(name)
			b.ok("PUT", at+"/members/"+m.id, "")
			if got := m.NextJSON(); got["msg_type"] != "joined" || got["room"] != name {
				t.Fatal(got)
			}
			b.ok("POST", "/publish", `{"room":`+string(quoted)+`,"content":1}`)
			m.gets(map[string]any{"msg_type": "room_message", "from": "server", "room": name, "content": 1.0})
			if got := b.ok("GET", at, ""); got["room"] != name || got["members"] != 1.0 {
				t.Error(got)
			}
			if got := b.ok("GET", at+"/history", ""); got["room"] != name || len(got["messages"].([]any)) != 1 {
				t.Error(got)
			}
			if got := b.ok("GET", at+"/presence", ""); got["count"] != 1.0 {
				t.Error(got)
			}
			if got := b.ok("GET", "/rooms?prefix="+url.QueryEscape(name), ""); got["rooms"].([]any)[0].(map[string]any)["room"] != name {
				t.Error(got)
			}
			b.ok("DELETE", at+"/history/1", "")
			if got := m.NextJSON(); got["msg_type"] != "deleted" || got["room"] != name || got["offset"] != 1.0 {
				t.Error(got)
			}
			b.ok("DELETE", at+"/history", "")
			b.ok("DELETE", at+"/members/"+m.id, "")
			for got := m.NextJSON(); got["msg_type"] != "left"; got = m.NextJSON() {
				if got["msg_type"] != "deleted" {
					t.Fatal(got)
				}
			}
		}
		b.fails(400, "bad_room", "room", "GET", "/rooms/"+strings.Repeat("x", 256), "")
		b.fails(400, "bad_room", "U+0007", "GET", "/rooms/a%07", "")
		b.fails(400, "bad_room", "UTF-8", "GET", "/rooms/%ff", "")
		b.fails(404, "not_found", "room", "GET", "/rooms/nobody", "")
	}
	t.Run("as it is", func(t *testing.T) {
		s, b := startAPI(t, hubbub.Config{})
		story(t, s.Server, b, enter(t, s))
	})
	t.Run("base path", func(t *testing.T) {
		s, b := startAPI(t, hubbub.Config{BasePath: "/live"})
		b.base += "/live"
		m := &member{Client: rawtest.Dial(t, s, "/live/ws")}
		m.id = m.NextJSON()["client_id"].(string)
		story(t, s.Server, b, m)
	})
	t.Run("mux", func(t *testing.T) {
		s, b := startAPI(t, hubbub.Config{})
		mux := http.NewServeMux()
		mux.Handle("/some/where/", http.StripPrefix("/some/where", s.Server))
		other := httptest.NewServer(mux)
		defer other.Close()
		b.base = other.URL + "/some/where"
		story(t, s.Server, b, enter(t, s))
	})
}

func TestAPIListsAreReadPageByPage(t *testing.T) {
	s, b := startAPI(t, hubbub.Config{Rooms: []hubbub.RoomPolicy{{Match: "full", Presence: "full"}}, Hooks: hubbub.Hooks{Connect: asUser}})
	var ids, users []string
	for i := range 5 {
		user := fmt.Sprintf("user %d", i)
		m := enterAs(t, s, url.QueryEscape(user))
		if got := m.raw(`{"msg_type":"join_room","room":"full","data":{"n" : %d},"id":1}`, i); got["msg_type"] != "joined" {
			t.Fatal(got)
		}
		ids, users = append(ids, m.id), append(users, user)
		b.ok("POST", "/publish", fmt.Sprintf(`{"room":"room %d","content":1}`, i))
	}
	slices.Sort(ids)
	read := func(path, list, field string) (all []string) {
		after := "" // which means the beginning
		for more := true; more; {
			got := b.ok("GET", path+"?limit=2&after="+url.QueryEscape(after), "")
			for _, item := range got[list].([]any) {
				all = append(all, item.(map[string]any)[field].(string))
			}
			more = got["more"].(bool)
			after = all[len(all)-1]
		}
		return all
	}
	if got := read("/rooms/full/presence", "members", "client_id"); !slices.Equal(got, ids) {
		t.Errorf("presence %v, want %v", got, ids)
	}
	if got := read("/clients", "clients", "client"); !slices.Equal(got, ids) {
		t.Errorf("clients %v, want %v", got, ids)
	}
	if got := read("/users", "users", "user"); !slices.Equal(got, users) {
		t.Errorf("users %v, want %v", got, users)
	}
	if got := read("/rooms", "rooms", "room"); !slices.Equal(got, []string{"full", "room 0", "room 1", "room 2", "room 3", "room 4"}) {
		t.Errorf("rooms %v", got)
	}
	one := b.ok("GET", "/clients/"+strings.ToUpper(ids[0]), "")
	if one["client"] != ids[0] || !slices.Equal(one["rooms"].([]any), []any{"full"}) || one["address"] != "127.0.0.1" || one["parked"] != false {
		t.Error(one)
	}
	if got := b.ok("GET", "/users/user%201", ""); got["user"] != "user 1" || len(got["clients"].([]any)) != 1 {
		t.Error(got)
	}
	for path, says := range map[string]string{
		"/rooms?limit=0": "limit", "/rooms?limit=1001": "limit", "/rooms?limit=": "limit", "/rooms?limit=%2B5": "limit", "/rooms?limit=1&limit=2": "limit twice", "/rooms?Limit=1": "Limit",
		"/clients?after=bob": "after", "/info?x=1": "x", "/users?%zz": "query", "/rooms/r/history?since=1": "since", "/rooms/r/history?before=e:-1": "before",
		"/rooms/r/history?since=e:1&before=e:2": "exclude each other", "/rooms/full/presence?after=x": "after",
	} {
		b.fails(400, "bad_message", says, "GET", path, "")
	}
	b.fails(400, "bad_position", "position", "GET", "/rooms/room%200/history?since=other:1", "")
	b.fails(404, "unknown_client", "client", "GET", "/clients/nobody", "")
	b.fails(404, "not_found", "user", "GET", "/users/nobody", "")
}

func TestAPIWithWhatIsNoCall(t *testing.T) {
	s, b := startAPI(t, hubbub.Config{MaxMessageBytes: 1024})
	const good = `{"room":"r","content":1}`
	if a := b.fails(405, "bad_message", "POST", "GET", "/publish", ""); a.header.Get("Allow") != "POST" {
		t.Error(a.header)
	}
	if a := b.fails(405, "bad_message", "GET, HEAD, DELETE", "OPTIONS", "/clients/x", ""); a.header.Get("Allow") != "GET, HEAD, DELETE" {
		t.Error(a.header)
	}
	if a := b.call("HEAD", "/info", ""); a.status != 200 || len(a.body) != 0 {
		t.Error(a)
	}
	for _, path := range []string{"", "/", "/publish/", "/nothing", "/rooms/a/b", "/rooms/a/history/1/2", "//publish"} {
		b.fails(404, "not_found", "no such call", "GET", path, "")
	}
	for _, kind := range []string{"text/plain", "application/jsonx", "application/json; charset=latin1", "application/x-www-form-urlencoded", ";"} {
		b.fails(415, "bad_message", "Content-Type", "POST", "/publish", good, "Content-Type", kind)
	}
	for _, kind := range []string{"application/json; charset=utf-8", "Application/JSON;charset=\"UTF-8\""} {
		b.ok("POST", "/publish", good, "Content-Type", kind)
	}
	b.fails(415, "bad_message", "Content-Encoding", "POST", "/publish", good, "Content-Encoding", "gzip")
	b.fails(400, "bad_message", "no body", "DELETE", "/users/x", good)
	b.fails(400, "bad_json", "ends too early", "POST", "/publish", " ")
	b.fails(413, "too_large", "content has 1026 bytes, at most 1024", "POST", "/publish", `{"room":"r","content":"`+strings.Repeat("x", 1024)+`"}`)
	b.ok("POST", "/publish", `{"room":"r","content":"`+strings.Repeat("x", 1022)+`"}`)
	if a := b.call("GET", "/info", "", "Origin", "https://evil.example"); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error(a.header)
	}
	_ = s
}

// What is too large is refused before it is read where its length is told, and as soon as it shows where it isn't.
func TestAPIBodiesThatAreTooLarge(t *testing.T) {
	s, b := startAPI(t, hubbub.Config{MaxMessageBytes: 1024})
	head := "POST /api/v1/publish HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + b.key + "\r\nContent-Type: application/json\r\n"
	for name, rest := range map[string]string{
		"told":    fmt.Sprintf("Content-Length: %d\r\n\r\n", 1<<20+1025),
		"expects": fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", 1<<20+1025),
		"chunked": "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("10000\r\n"+strings.Repeat(" ", 0x10000)+"\r\n", 17),
	} {
		nc, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(time.Now().Add(rawtest.Patience))
		go io.WriteString(nc, head+rest)
		got, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var problem map[string]any
		if err := json.NewDecoder(got.Body).Decode(&problem); err != nil || got.StatusCode != 413 || problem["code"] != "too_large" || !got.Close {
			t.Errorf("%s: %d %v, %v", name, got.StatusCode, problem, err)
		}
		nc.Close()
	}
	// The largest that is allowed goes through, chunked too.
	body := `{"calls":[` + strings.Repeat(" ", 1<<20) + `]}`
	r := b.request("POST", "/batch", body)
	r.ContentLength = -1
	if a := b.do(r, body); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// Slow bodies fill the API's lane and nothing else: probes, upgrades and those without a key are answered meanwhile.
func TestAPISlowBodiesHoldNobodyUp(t *testing.T) {
	s, b := startAPI(t, hubbub.Config{HandshakeTimeout: 10 * time.Minute})
	slow := fillLane(t, s, b)
	if a := b.fails(503, "overloaded", "too many calls", "GET", "/info", ""); a.header.Get("Retry-After") == "" {
		t.Error(a.header)
	}
	nobody := *b
	nobody.key = ""
	nobody.fails(401, "unauthorized", "", "GET", "/info", "")
	enter(t, s)
	if got := scrape(t, s); got[`hubbub_api_calls_total{call="info",status="503"}`] == 0 || got["hubbub_api_unauthorized_total"] != 1 {
		t.Error(got)
	}
	for _, nc := range slow {
		nc.Close()
	}
	rawtest.Eventually(t, "the lane is free again", func() bool { return b.call("GET", "/info", "").status == 200 })
}

// What needs no key is no place to wait in either: a body that doesn't come is refused at once.
func TestAPIDescriptionWaitsForNoBody(t *testing.T) {
	s, b := startAPI(t, hubbub.Config{HandshakeTimeout: 10 * time.Minute})
	nc, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(rawtest.Patience))
	io.WriteString(nc, "GET /api/v1/openapi.yaml HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
	got, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil || got.StatusCode != 400 || !got.Close {
		t.Errorf("%v, %v", got, err)
	}
	b.key = ""
	b.ok("GET", "/openapi.yaml", "")
}

// timed is a listener whose connections note until when the server may write.
type timed struct {
	net.Listener
	until chan time.Time
}

type timedConn struct {
	net.Conn
	until chan time.Time
}

func (l timed) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return timedConn{nc, l.until}, err
}

func (c timedConn) SetWriteDeadline(t time.Time) error {
	c.until <- t
	return c.Conn.SetWriteDeadline(t)
}

// However long a body takes to come, and the call to be done, the answer has its time: else nobody would know whether
// it was done.
func TestAPIAnswersHaveTheirTimeBehindTheBody(t *testing.T) {
	for name, rest := range map[string]string{"done": `"content":1}`, "refused": `"content":!}`} {
		cfg, secrets := keyed(t, hubbub.Config{})
		s := rawtest.Start(t, cfg)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		until := make(chan time.Time, 10)
		go s.Serve(timed{l, until})
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(rawtest.Patience))
		fmt.Fprintf(nc, "POST /api/v1/publish HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"+
			`{"room":"r",`, secrets["all"], len(`{"room":"r",`)+len(rest))
		for given := time.Duration(0); given <= 0 || given > 20*time.Second; { // the call's, behind net/http's own
			given = time.Until(<-until)
		}
		sent := time.Now()
		io.WriteString(nc, rest)
		if _, err := http.ReadResponse(bufio.NewReader(nc), nil); err != nil {
			t.Fatal(err)
		}
		last := sent
		for len(until) > 0 {
			if at := <-until; at.After(last) {
				last = at
			}
		}
		if last.Sub(sent) < 10*time.Second {
			t.Errorf("%s: behind the body the answer has %v", name, last.Sub(sent))
		}
	}
}

func TestAPIApartIsOnTheAdminListenerAlone(t *testing.T) {
	s, b := startAPI(t, hubbub.Config{AdminApart: true, BasePath: "/live"})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.ServeAdmin(l, s.AdminHandler()) }()
	t.Cleanup(func() {
		s.Shutdown(context.Background())
		if err := <-served; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
	get := func(url string) int {
		t.Helper()
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		r, _ := http.NewRequest("GET", url, nil)
		r.Header.Set("Authorization", "Bearer "+b.key)
		got, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got.Body.Close()
		return got.StatusCode
	}
	admin, public := "http://"+l.Addr().String(), "http://"+s.Addr+"/live"
	for url, want := range map[string]int{
		admin + "/api/v1/info": 200, admin + "/metrics": 200, admin + "/healthz": 200, admin + "/readyz": 200, admin + "/": 404, admin + "/ws": 404,
		public + "/api/v1/info": 404, public + "/api/v1/openapi.yaml": 404, public + "/metrics": 404, public + "/healthz": 200, public + "/": 200,
	} {
		if got := get(url); got != want {
			t.Errorf("%s: %d, want %d", url, got, want)
		}
	}
	for _, path := range []string{"/metrics", "/api/v1/info", "/debug/pprof/", "/debug/pprof/heap"} {
		r, body := knock(t, s, "GET", "/live"+path, noUpgrade)
		if r.StatusCode != 404 || !strings.Contains(body, "--admin-listen") || strings.Contains(body, "--base-path") {
			t.Errorf("%s: %s %s", path, r.Status, body)
		}
	}
	b.base = admin
	b.ok("POST", "/publish", `{"room":"r","content":1}`)
}

func TestAPIDisconnects(t *testing.T) {
	t.Parallel()
	s, b := startAPI(t, hubbub.Config{Hooks: hubbub.Hooks{Connect: asUser}})
	one, two, three := enterAs(t, s, "one"), enterAs(t, s, "two"), enterAs(t, s, "two")
	for path, says := range map[string]string{"?code=1000": "code", "?code=5000": "code", "?code=x": "code", "?code=%2B4500": "code", "?reason=" + strings.Repeat("x", 124): "reason", "?why=x": "why"} {
		b.fails(400, "bad_message", says, "DELETE", "/clients/"+one.id+path, "")
	}
	b.ok("DELETE", "/clients/"+one.id+"?code=4001&reason=go%20away", "")
	op, payload := one.Next()
	if code, reason := int(payload[0])<<8|int(payload[1]), string(payload[2:]); op != wsclient.Close || code != 4001 || reason != "go away" {
		t.Error(op, code, reason)
	}
	b.ok("DELETE", "/users/two", "")
	two.AnswerClose(4500)
	three.AnswerClose(4500)
	b.fails(404, "unknown_client", "client", "DELETE", "/clients/"+one.id, "")
	b.fails(404, "not_found", "user", "DELETE", "/users/two", "")
}
