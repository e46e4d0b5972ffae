package hubbub_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// eachPresence is eachServer with rooms that tell of their members all, a number, or nothing; a lost session is kept
// for resume.
func eachPresence(t *testing.T, resume time.Duration, story func(t *testing.T, s *rawtest.Server)) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		for _, workers := range []int{1, 4} {
			t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
				story(t, rawtest.Start(t, hubbub.Config{IO: io, Workers: workers, ResumeWindow: resume, Rooms: []hubbub.RoomPolicy{
					{Match: "full*", Presence: "full"}, {Match: "off", Presence: "off"},
				}}))
			})
		}
	})
}

// roll is who a client believes to be in a room, by client_id: their data as JSON.
type roll map[string]string

func rollOf(t testing.TB, members any) roll {
	t.Helper()
	r := roll{}
	for _, m := range members.([]any) {
		m := m.(map[string]any)
		id := m["client_id"].(string)
		if _, twice := r[id]; twice {
			t.Errorf("%s is in one list twice", id)
		}
		data, given := m["data"]
		if text, _ := json.Marshal(data); given {
			r[id] = string(text)
		} else {
			r[id] = ""
		}
	}
	return r
}

// asks gives who is in the room by the answer to presence. News may come before it; they are of what it says already.
func (m *member) asks(room string) (here roll, count int) {
	m.T.Helper()
	m.Text(fmt.Sprintf(`{"msg_type":"presence","room":%q,"id":"who"}`, room))
	for {
		got := m.NextJSON()
		if got["id"] != "who" {
			continue
		}
		if got["msg_type"] != "presence" || got["room"] != room {
			m.T.Fatalf("presence is answered by %v", got)
		}
		here = rollOf(m.T, got["members"])
		if count = int(got["count"].(float64)); got["more"] != (len(here) < count) {
			m.T.Errorf("%d of %d are told, and more is %v", len(here), count, got["more"])
		}
		return here, count
	}
}

// learns applies one message to what the client believes. It gives false for another kind of message.
func (r roll) learns(t testing.TB, got map[string]any) bool {
	t.Helper()
	switch got["msg_type"] {
	case "member_joined":
		maps.Copy(r, rollOf(t, got["members"]))
	case "member_left":
		for id := range rollOf(t, got["members"]) { // whom it may not know: it has asked since then
			delete(r, id)
		}
	default:
		return false
	}
	return true
}

// until reads news until the client believes what is so, and was told so many.
func (m *member) until(believed, want roll) {
	m.T.Helper()
	for count := -1; !maps.Equal(believed, want) || count >= 0 && count != len(want); {
		got := m.NextJSON()
		if !believed.learns(m.T, got) {
			m.T.Fatalf("got %v, want news of members", got)
		}
		count = int(got["count"].(float64))
	}
}

func TestMembersAreToldWhoComesAndGoes(t *testing.T) {
	t.Parallel()
	eachPresence(t, -1, func(t *testing.T, s *rawtest.Server) {
		a := enter(t, s)
		a.ask(`{"msg_type":"join_room","room":"full","data":{"name":"Ann", "x":[1]}}`)
		ann := `{"name":"Ann","x":[1]}`
		if here, _ := a.asks("full"); !maps.Equal(here, roll{a.id: ann}) {
			t.Errorf("alone: %v", here)
		}
		b := enter(t, s)
		b.ask(`{"msg_type":"join_room","room":"full"}`)
		here := roll{a.id: ann, b.id: ""}
		a.until(roll{a.id: ann}, here)
		if got, count := b.asks("full"); !maps.Equal(got, here) || count != 2 {
			t.Errorf("b is told %v, %d", got, count)
		}
		c := enter(t, s)
		c.ask(`{"msg_type":"join_room","room":"full","data":null}`)
		a.until(maps.Clone(here), roll{a.id: ann, b.id: "", c.id: "null"})
		c.CloseNow()
		a.until(roll{a.id: ann, b.id: "", c.id: "null"}, here)
		b.Text(`{"msg_type":"leave_room","room":"full"}`)
		a.until(here, roll{a.id: ann})
		// Who is outside may ask as well.
		if got, _ := enter(t, s).asks("full"); !maps.Equal(got, roll{a.id: ann}) {
			t.Errorf("from outside: %v", got)
		}
	})
}

func TestARoomMayCountItsMembersOrKeepThemSecret(t *testing.T) {
	eachPresence(t, -1, func(t *testing.T, s *rawtest.Server) {
		a, b := enter(t, s), enter(t, s)
		a.ask(`{"msg_type":"join_room","room":"count","data":{"not":"kept"}}`)
		a.join("off")
		b.join("count").join("off")
		want := map[string]any{"msg_type": "presence", "room": "count", "count": 2.0}
		if got := b.ask(`{"msg_type":"presence","room":"count"}`); !maps.Equal(got, want) {
			t.Errorf("count: %v", got)
		}
		b.Text(`{"msg_type":"presence","room":"off"}`) // an error also without an id
		if got := b.NextJSON(); got["code"] != "forbidden" {
			t.Errorf("off: %v", got)
		}
		rooms := s.RoomCount()
		want = map[string]any{"msg_type": "presence", "room": "nobody's", "count": 0.0}
		if got := b.ask(`{"msg_type":"presence","room":"nobody's"}`); !maps.Equal(got, want) {
			t.Errorf("a room that isn't: %v", got)
		}
		if here, count := b.asks("full of nobody"); len(here) != 0 || count != 0 {
			t.Errorf("a room that isn't: %v, %d", here, count)
		}
		if n := s.RoomCount(); n != rooms {
			t.Errorf("%d rooms, %d before they were asked for", n, rooms)
		}
		b.Text(`{"msg_type":"presence","room":"count"}`) // nothing to answer
		b.ask(`{"msg_type":"leave_room","room":"count"}`)
		a.hearsNothing()
	})
}

func TestDataIsBounded(t *testing.T) {
	eachPresence(t, -1, func(t *testing.T, s *rawtest.Server) {
		a := enter(t, s)
		data := `"` + strings.Repeat("x", 4094) + `"`
		joins := func(room int) any {
			a.Text(fmt.Sprintf(`{"msg_type":"join_room","room":"full %d","data":%s,"id":1}`, room, data))
			got := a.NextJSON()
			if got["msg_type"] == "error" {
				return got["code"]
			}
			return got["msg_type"]
		}
		for i := range 16 { // 64 KiB in all
			if got := joins(i); got != "joined" {
				t.Fatalf("room %d: %v", i, got)
			}
		}
		if got := joins(16); got != "limit_reached" {
			t.Errorf("a client's data is more than a message's bytes, and the answer %v", got)
		}
		a.ask(`{"msg_type":"leave_room","room":"full 3"}`)
		if got := joins(16); got != "joined" {
			t.Errorf("with less: %v", got)
		}
	})
}

// The data of a client that has come back is its data still, and bounded with what it joins with then.
func TestDataIsBoundedBehindAResume(t *testing.T) {
	eachPresence(t, time.Minute, func(t *testing.T, s *rawtest.Server) {
		a, token := enterFor(t, s)
		joins := func(m *member, room int) any {
			got := m.raw(`{"msg_type":"join_room","room":"full %d","data":%q,"id":1}`, room, strings.Repeat("x", 4094))
			if got["msg_type"] == "error" {
				return got["code"]
			}
			return got["msg_type"]
		}
		for i := range 16 { // 64 KiB in all
			if got := joins(a, i); got != "joined" {
				t.Fatalf("room %d: %v", i, got)
			}
		}
		a.Reset()
		parked(t, s, 1)
		back, _ := comeBack(t, s, token)
		rooms := make([]string, 15) // the last one isn't named, and left
		for i := range rooms {
			rooms[i] = fmt.Sprintf(`"full %d":null`, i)
		}
		back.raw(`{"msg_type":"resume","id":1,"rooms":{%s}}`, strings.Join(rooms, ","))
		if got := joins(back, 15); got != "joined" {
			t.Errorf("in the place of the room that it has left: %v", got)
		}
		if got := joins(back, 16); got != "limit_reached" {
			t.Errorf("a client's data is more than a message's bytes, and the answer %v", got)
		}
	})
}

// A lost connection is no leave as long as its client may come back, with its id and its data.
func TestAShortAbsenceIsNotTold(t *testing.T) {
	t.Parallel()
	eachPresence(t, 2*time.Second, func(t *testing.T, s *rawtest.Server) {
		a := enter(t, s).join("full")
		b, token := enterFor(t, s)
		b.ask(`{"msg_type":"join_room","room":"full","data":"b's"}`)
		here := roll{a.id: "", b.id: `"b's"`}
		a.until(roll{a.id: ""}, here)
		b.Reset()
		parked(t, s, 1)
		if got, count := a.asks("full"); !maps.Equal(got, here) || count != 2 {
			t.Errorf("while b is away: %v, %d", got, count)
		}
		b, _ = comeBack(t, s, token)
		b.ask(`{"msg_type":"resume","rooms":{"full":null}}`)
		if got, _ := b.asks("full"); !maps.Equal(got, here) {
			t.Errorf("b is back: %v", got)
		}
		a.hearsNothing()
		b.Reset() // for good
		a.until(here, roll{a.id: ""})
		if got, count := a.asks("full"); count != 1 {
			t.Errorf("at the end: %v", got)
		}
	})
}

// Many come and go at random, some by losing their connections; those who watched all the while believe what is so.
func TestWatchersBelieveWhatIsSo(t *testing.T) {
	t.Parallel()
	eachPresence(t, -1, func(t *testing.T, s *rawtest.Server) {
		const walkers, watchers, steps = 12, 3, 60
		seed := rand.Uint64()
		t.Log("seed", seed)
		var all sync.WaitGroup
		var mu sync.Mutex
		stay := roll{}
		var watching []*member
		var beliefs []roll
		for range watchers {
			w := enter(t, s)
			w.ask(`{"msg_type":"join_room","room":"full"}`)
			stay[w.id] = ""
			watching, beliefs = append(watching, w), append(beliefs, nil)
		}
		for i := range walkers {
			m := enter(t, s)
			all.Go(func() {
				random := rand.New(rand.NewPCG(seed, uint64(i)))
				in, data := false, ""
				for n := range steps {
					switch {
					case in && random.IntN(4) == 0:
						m.Text(`{"msg_type":"leave_room","room":"full"}`)
						in = false
					case !in:
						data = fmt.Sprint(n / 2 * 2) // at times the same as before
						m.Text(`{"msg_type":"join_room","room":"full","data":` + data + `}`)
						in = true
					case random.IntN(10) == 0:
						m.Reset()
						m, in = enter(t, s), false
					}
					if random.IntN(8) == 0 {
						time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond)
					}
					m.Text(`{"msg_type":"ping","id":"here"}`)
					for m.NextJSON()["id"] != "here" {
					}
				}
				if in {
					mu.Lock()
					defer mu.Unlock()
					stay[m.id] = data
				}
			})
		}
		for i, w := range watching { // each asks at another time
			time.Sleep(time.Duration(30*i) * time.Millisecond)
			beliefs[i], _ = w.asks("full")
		}
		all.Wait()
		for i, w := range watching {
			for !maps.Equal(beliefs[i], stay) {
				_, p, err := w.TryNext()
				if err != nil {
					t.Fatalf("it ends with %v:\n%v\nwant %v", err, beliefs[i], stay)
				}
				var got map[string]any
				if json.Unmarshal(p, &got); !beliefs[i].learns(t, got) {
					t.Fatalf("got %v, want news of members", got)
				}
			}
		}
		out := enter(t, s)
		if here, count := out.asks("full"); !maps.Equal(here, stay) || count != len(stay) {
			t.Errorf("%d are told: %v\nwant %v", count, here, stay)
		}
	})
}
