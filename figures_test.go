package hubbub_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// samples takes one, and gives those that there are.
func samples(s *rawtest.Server, b *backend, query string) (all []map[string]any) {
	b.t.Helper()
	hubbub.TakeSample(s.Server)
	for _, of := range b.ok("GET", "/samples"+query, "")["samples"].([]any) {
		all = append(all, of.(map[string]any))
	}
	return all
}

func TestSamplesAreWhatHasComeSince(t *testing.T) {
	s, b := startAPI(t, hubbub.Config{Workers: 2})
	samples(s, b, "")
	m := enter(t, s).join("r")
	for range 3 {
		m.raw(`{"msg_type":"room_message","room":"r","content":1,"id":1}`)
	}
	rawtest.Eventually(t, "the messages are counted", func() bool { return b.ok("GET", "/figures", "")["received"].(float64) >= 4 })
	list := samples(s, b, "")
	newest := list[len(list)-1]
	received := 0.0
	for _, of := range list { // another may have been taken meanwhile
		received += of["received"].(float64)
	}
	if received != 4 || newest["connections"] != 1.0 || newest["rooms"] != 1.0 {
		t.Errorf("%v messages, %v", received, newest)
	}
	list = samples(s, b, fmt.Sprintf("?since=%.0f", newest["time"]))
	for _, of := range list {
		if of["received"] != 0.0 || of["time"].(float64) <= newest["time"].(float64) {
			t.Error(of)
		}
	}
	b.fails(400, "bad_message", "since", "GET", "/samples?since=-1", "")
}

func TestSamplesAreOfAnHour(t *testing.T) {
	s, b := startAPI(t, hubbub.Config{})
	for range 365 {
		hubbub.TakeSample(s.Server)
	}
	list := samples(s, b, "")
	if len(list) != 360 {
		t.Errorf("there are %d", len(list))
	}
	last := 0.0
	for _, of := range list {
		if last > of["time"].(float64) {
			t.Fatal("they aren't in order")
		}
		last = of["time"].(float64)
	}
}

// The figures say what /metrics says, and why the server isn't ready.
func TestFigures(t *testing.T) {
	s, b := startAPI(t, hubbub.Config{Workers: 2, MaxConnections: 2})
	m := enter(t, s).join("r")
	f := b.ok("GET", "/figures", "")
	if f["connections"] != 1.0 || f["clients"] != 1.0 || f["rooms"] != 1.0 || f["not_ready"] != nil || f["received"] != 1.0 {
		t.Error(f)
	}
	connections := 0.0
	for _, w := range f["workers"].([]any) {
		connections += w.(map[string]any)["connections"].(float64)
	}
	if len(f["workers"].([]any)) != 2 || connections != 1 {
		t.Error(f["workers"])
	}
	enter(t, s)
	m.raw(`{"msg_type":"nothing"}`)
	f = b.ok("GET", "/figures", "")
	why, _ := f["not_ready"].(string)
	if !strings.Contains(why, "--max-connections") && !strings.Contains(why, "connections") || f["upgrades"].(map[string]any)["accepted"] != 2.0 {
		t.Error(f)
	}
}

// whys is by what each field of a room's policy is as it is: "rule 0 a.*", "setting *".
func whys(b *backend, path string) map[string]string {
	b.t.Helper()
	told := map[string]string{}
	for _, r := range b.ok("GET", path, "")["why"].([]any) {
		r := r.(map[string]any)
		by := r["by"].(string)
		if r["rule"] != nil {
			by += fmt.Sprintf(" %v", r["rule"])
		}
		told[r["field"].(string)] = by + " " + r["match"].(string)
	}
	return told
}

func TestWhyAPolicyIsAsItIs(t *testing.T) {
	ttl := time.Minute
	s, b := startAPI(t, hubbub.Config{
		Hooks: hubbub.Hooks{Connect: asUser}, SlowConsumer: "latest",
		Rooms: []hubbub.RoomPolicy{
			{Match: "inbox.${user}", Join: "users"},
			{Match: "inbox.*", Join: "server", History: &hubbub.History{}},
			{Match: "a*", Presence: "full", IncludeSender: true, SlowConsumer: "drop-oldest", IdleTTL: &ttl},
		},
	})
	ann := enterAs(t, s, "ann").join("inbox.ann").join("abc").join("lobby")
	ann.join("else")
	for _, c := range []struct {
		path string
		want map[string]string
	}{
		{"/rooms/abc", map[string]string{"history": "default 2 a*", "presence": "rule 2 a*", "join": "default 2 a*", "include_sender": "rule 2 a*", "slow_consumer": "rule 2 a*", "idle_ttl_ms": "rule 2 a*"}},
		{"/rooms/inbox.ann", map[string]string{"history": "rule 1 inbox.*", "join": "rule 1 inbox.*", "read": "default 1 inbox.*", "slow_consumer": "setting 1 inbox.*"}},
		{"/rooms/inbox.ann?user=ann", map[string]string{"history": "rule 1 inbox.*", "join": "rule 0 inbox.${user}", "read": "default 0 inbox.${user}"}},
		{"/rooms/inbox.ann?user=bob", map[string]string{"join": "rule 1 inbox.*"}},
		{"/rooms/lobby", map[string]string{"presence": "built_in lobby", "slow_consumer": "setting lobby", "join": "default lobby"}},
		{"/rooms/else", map[string]string{"presence": "default *", "slow_consumer": "setting *"}},
	} {
		got := whys(b, c.path)
		if len(got) != 8 {
			t.Errorf("%s: %v", c.path, got)
		}
		for field, want := range c.want {
			if got[field] != want {
				t.Errorf("%s: %s: %q, want %q", c.path, field, got[field], want)
			}
		}
	}
	if p := b.ok("GET", "/rooms/inbox.ann?user=ann", "")["policy"].(map[string]any); p["join"] != "users" || p["read"] != "members" {
		t.Error(p)
	}
	if p := b.ok("GET", "/rooms/inbox.ann", "")["policy"].(map[string]any); p["join"] != "server" {
		t.Error(p)
	}
	b.fails(400, "bad_message", "user", "GET", "/rooms/lobby?user=", "")
}

func TestAPIListsRoomsByFigures(t *testing.T) {
	s, b := startAPI(t, hubbub.Config{})
	for i := range 3 {
		m := enter(t, s).join("a.all")
		for j := range i {
			m.join(fmt.Sprintf("b.%d", j))
		}
	}
	for range 7 {
		b.ok("POST", "/publish", `{"room":"b.1","content":1}`)
	}
	list := func(query string) (names string) {
		for _, r := range b.ok("GET", "/rooms?"+query, "")["rooms"].([]any) {
			names += fmt.Sprint(r.(map[string]any)["room"], " ")
		}
		return names
	}
	for query, want := range map[string]string{
		"":                               "a.all b.0 b.1 ",
		"order=members":                  "a.all b.0 b.1 ",
		"order=members&limit=1":          "a.all ",
		"order=members&after=3:a.all":    "b.0 b.1 ",
		"order=members&after=2:b.0":      "b.1 ",
		"order=members&contains=.":       "a.all b.0 b.1 ",
		"order=members&contains=b":       "b.0 b.1 ",
		"order=rate&limit=1":             "b.1 ",
		"order=rate&after=0:a.all":       "b.0 ",
		"order=name&prefix=b&contains=1": "b.1 ",
		"order=members&contains=nowhere": "",
	} {
		if got := list(query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	for _, query := range []string{"order=size", "order=members&after=x", "order=rate&after=1:", "order=members&after=-1:x", "order=rate&after=NaN:x"} {
		a := b.call("GET", "/rooms?"+query, "")
		if a.status != 400 {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	rooms, more, err := s.Rooms(t.Context(), hubbub.RoomQuery{Order: "members", After: "a.all", Figure: 3, Limit: 1})
	if err != nil || !more || len(rooms) != 1 || rooms[0].Name != "b.0" {
		t.Error(rooms, more, err)
	}
	if _, _, err := s.Rooms(t.Context(), hubbub.RoomQuery{Order: "size"}); err == nil {
		t.Error("an order that isn't there is taken")
	}
}

// Who is slow is named: of all workers' clients those come first for whom most waits.
func TestAPIListsClientsByWhatWaitsForThem(t *testing.T) {
	s, b := startAPI(t, hubbub.Config{Workers: 4, Hooks: hubbub.Hooks{Connect: asUser}})
	list := func(query string) (clients []map[string]any, more bool) {
		answer := b.ok("GET", "/clients?order=unsent"+query, "")
		for _, c := range answer["clients"].([]any) {
			clients = append(clients, c.(map[string]any))
		}
		return clients, answer["more"].(bool)
	}
	if clients, more := list(""); len(clients) > 0 || more {
		t.Errorf("%v of nobody", clients)
	}
	began := time.Now()
	for i := range 9 {
		enterAs(t, s, fmt.Sprint("quick", i)).join("r")
	}
	enterAs(t, s, "slow").join("large").join("r") // it reads no more
	if clients, more := list("&limit=3"); len(clients) != 3 || !more {
		t.Errorf("%v, more %t", clients, more)
	}
	if clients, more := list("&limit=10"); len(clients) != 10 || more {
		t.Errorf("%d clients, more %t", len(clients), more)
	}
	text := strings.Repeat("x", 60_000)
	var clients []map[string]any
	var more bool
	rawtest.Eventually(t, "something waits for who doesn't read", func() bool {
		b.ok("POST", "/publish", `{"room":"large","content":"`+text+`"}`)
		clients, more = list("")
		return clients[0]["unsent_bytes"].(float64) > 0
	})
	first := clients[0]
	since := time.UnixMilli(int64(first["since"].(float64)))
	if first["user"] != "slow" || fmt.Sprint(first["rooms"]) != "[large r]" || first["address"] != "127.0.0.1" || first["parked"] != false || since.Before(began.Add(-time.Second)) || since.After(time.Now()) {
		t.Errorf("the slowest is %v", first)
	}
	if len(clients) != 10 || more || clients[0]["user"] != "slow" || clients[1]["unsent_bytes"] != 0.0 {
		t.Errorf("%v, more %t", clients, more)
	}
	for i := 2; i < len(clients); i++ {
		if clients[i-1]["client"].(string) >= clients[i]["client"].(string) {
			t.Errorf("those for whom nothing waits aren't by id: %v", clients)
		}
	}
	b.ok("GET", "/clients?order=id&after=", "")
	b.fails(400, "bad_message", "order", "GET", "/clients?order=age", "")
	b.fails(400, "bad_message", "after", "GET", "/clients?order=unsent&after="+noID, "")
}

// While a worker hangs nobody knows what waits for its clients, and no list pretends to.
func TestNoListOfClientsWhileAWorkerHangs(t *testing.T) {
	cfg, secrets := keyed(t, hubbub.Config{})
	s, release := busyServer(t, cfg, func(s *rawtest.Server) { enter(t, s) })
	b := &backend{t: t, base: "http://" + s.Addr, key: secrets["all"], desc: described(t)}
	b.fails(504, "timeout", "not done in time", "GET", "/clients?order=unsent", "")
	release()
	rawtest.Eventually(t, "the one that stayed is listed", func() bool {
		return len(b.ok("GET", "/clients?order=unsent", "")["clients"].([]any)) == 1
	})
}
