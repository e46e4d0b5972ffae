package hubbubtest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
	"example.com/hubbub/internal/rawtest"
)

// Rules that can be stated in a few lines, held against the server in virtual time.

// named lets a client choose its user by ?user=.
func named(_ context.Context, c *hubbub.Connect) error {
	c.User = c.Request.URL.Query().Get("user")
	return nil
}

// figure is a value of /metrics.
func figure(t *testing.T, srv *hubbubtest.Server, name string) float64 {
	t.Helper()
	w := httptest.NewRecorder()
	srv.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// A publish_id counts for its publisher, in its room, for as long as the window since it was first published.
func TestAPublishIDCountsForItsWindow(t *testing.T) {
	const window = 10 * time.Second
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{
			DedupWindow: window, Workers: 2, Hooks: hubbub.Hooks{Connect: named},
			Rooms: []hubbub.RoomPolicy{{Match: "plain", History: &hubbub.History{}}},
		})
		type publisher struct {
			*hubbubtest.Client
			key string
		}
		var all []publisher
		for i, user := range []string{"ann", "ann", "bob", "", ""} {
			c, err := srv.ConnectWith(fmt.Sprint(i, user), hubbubtest.Options{Path: "/ws?user=" + user})
			if err != nil {
				t.Fatal(err)
			}
			key := "user " + user
			if user == "" {
				key = "session " + c.ID
			}
			all = append(all, publisher{c, key})
		}
		reader := srv.Connect("reader")
		rooms := []string{"r", "q", "plain"}
		for _, room := range rooms {
			reader.Join(room)
		}
		type first struct {
			at     time.Time
			offset int64
		}
		seen := map[string]first{} // the model
		random := rand.New(rand.NewPCG(4, 711))
		for i := range 700 {
			hubbubtest.Step(time.Duration(random.IntN(900)) * time.Millisecond)
			p, room, id := all[random.IntN(len(all))], rooms[random.IntN(len(rooms))], fmt.Sprint("id", random.IntN(3))
			key := strings.Join([]string{p.key, room, id}, "|")
			f, known := seen[key]
			age := time.Since(f.at)
			if known && (age-window).Abs() < 2*time.Millisecond {
				continue // the clock that counts has milliseconds
			}
			a := p.Request(map[string]any{"msg_type": "room_message", "room": room, "content": i, "publish_id": id})
			if a.Type != "ack" {
				t.Fatalf("got %s", a)
			}
			duplicate := known && age < window
			if a.Duplicate != duplicate || duplicate && a.Offset != f.offset {
				t.Fatalf("%s, first published %s ago at %d: got %s", key, age, f.offset, a)
			}
			if !duplicate {
				seen[key] = first{time.Now(), a.Offset}
				if m := reader.ExpectMessage(room, i); m.Offset != a.Offset {
					t.Fatalf("acknowledged as %d, delivered as %d", a.Offset, m.Offset)
				}
			}
		}
		reader.ExpectNothing(time.Second)
	})
}

// The messages of a room that has members and in which nobody says anything age out one by one.
func TestTheHistoryOfAQuietRoomAgesOut(t *testing.T) {
	for name, somebody := range map[string]bool{"with a member": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := hubbubtest.NewServer(t, hubbub.Config{Rooms: []hubbub.RoomPolicy{{Match: "*", History: &hubbub.History{Age: 20 * time.Second}}}})
				if somebody {
					srv.Connect("ann").Join("r")
				}
				empty := figure(t, srv, "hubbub_history_bytes")
				var after []float64 // bytes behind each message
				for i := range 4 {
					if err := rawtest.Publish(srv, "r", i); err != nil {
						t.Fatal(err)
					}
					after = append(after, figure(t, srv, "hubbub_history_bytes"))
					hubbubtest.Step(5 * time.Second)
				}
				one := after[1] - after[0]
				if one <= 0 {
					t.Fatalf("behind each message the history has %v bytes", after)
				}
				hubbubtest.Step(1100 * time.Millisecond) // at most a second late
				for left := 3; left >= 0; left-- {
					if got, want := figure(t, srv, "hubbub_history_bytes"), after[0]-one+float64(left)*one; got != want && !(left == 0 && got == empty) {
						t.Errorf("%d messages are young enough: %v bytes, want %v", left, got, want)
					}
					hubbubtest.Step(5 * time.Second)
				}
			})
		})
	}
}

// A room without members goes when its time is up, counted from the last leave or the last message; not before, and at
// most a second later.
func TestARoomWithoutMembersLivesForItsTime(t *testing.T) {
	for _, c := range []struct{ age, ttl time.Duration }{
		{5 * time.Second, time.Minute}, {time.Minute, 5 * time.Second}, {20 * time.Second, 20 * time.Second}, {time.Second, 200 * time.Second}, {300 * time.Second, 70 * time.Second},
	} {
		for name, last := range map[string]func(ann *hubbubtest.Client, srv *hubbubtest.Server){
			"a leave": func(ann *hubbubtest.Client, _ *hubbubtest.Server) { ann.Leave("r") },
			"a message": func(ann *hubbubtest.Client, srv *hubbubtest.Server) {
				ann.Leave("r")
				hubbubtest.Step(c.ttl / 2)
				rawtest.Publish(srv, "r", "the last")
			},
		} {
			t.Run(fmt.Sprint(c.age, ", ", c.ttl, " after ", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					srv := hubbubtest.NewServer(t, hubbub.Config{Rooms: []hubbub.RoomPolicy{{Match: "r", History: &hubbub.History{Age: c.age}, IdleTTL: &c.ttl}}})
					ann := srv.Connect("ann")
					ann.Join("r")
					rawtest.Publish(srv, "r", "one")
					hubbubtest.Step(3 * time.Second)
					last(ann, srv)
					for left := c.ttl - 10*time.Millisecond; left > 0; left -= time.Second {
						hubbubtest.Step(min(left, time.Second))
						if srv.RoomCount() != 1 {
							t.Fatalf("the room is gone %s early", left)
						}
					}
					hubbubtest.Step(1010*time.Millisecond + time.Second) // a second for the sweep, which comes once in one
					if srv.RoomCount() != 0 {
						t.Error("the room is still there")
					}
				})
			})
		}
	}
}

// Whatever is published, a page holds what the rules of the room and of the request say, and no more.
func TestPagesFollowTheModel(t *testing.T) {
	for name, keeps := range map[string]hubbub.History{
		"by number": {Messages: 25, Age: time.Hour, Bytes: 8 << 20},
		"by bytes":  {Messages: 1000, Age: time.Hour, Bytes: 40_000},
		"by age":    {Messages: 1000, Age: 30 * time.Second, Bytes: 8 << 20},
		"all of it": {Messages: 1500, Age: time.Hour, Bytes: 8 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := hubbubtest.NewServer(t, hubbub.Config{Rooms: []hubbub.RoomPolicy{{Match: "*", History: &keeps}}})
				ann, bob := srv.Connect("ann"), srv.Connect("bob")
				epoch := bob.Join("r").Epoch
				var kept []stored // the model
				latest := int64(0)
				random := rand.New(rand.NewPCG(64, 1000))
				for range 200 {
					for range random.IntN(8) {
						size := random.IntN(200)
						if random.IntN(20) == 0 {
							size = random.IntN(30_000)
						}
						latest++
						ann.Publish("r", fmt.Sprint(latest, strings.Repeat("x", size)))
						raw := bob.Receive().Raw
						kept = append(kept, stored{latest, frameLen(len(raw)), time.Now()})
						kept = trim(kept, keeps)
					}
					hubbubtest.Step(time.Duration(random.IntN(3)) * time.Second)
					kept = trim(kept, keeps)
					q := query{limit: 100}
					m := map[string]any{"msg_type": "history", "room": "r"}
					if random.IntN(3) > 0 {
						q.limit = []int{1, 2, 7, 100, 1000}[random.IntN(5)]
						m["limit"] = q.limit
					}
					at := random.Int64N(latest + 1)
					switch random.IntN(3) {
					case 0:
						q.since, q.hasSince = at, true
						m["since"] = hubbubtest.Position{Epoch: epoch, Offset: at}
					case 1:
						q.before, q.hasBefore = at, true
						m["before"] = hubbubtest.Position{Epoch: epoch, Offset: at}
					}
					got := ann.Request(m)
					want, more := q.page(kept)
					var offsets []int64
					for _, m := range got.Messages {
						offsets = append(offsets, m.Offset)
					}
					if got.Type != "history" || got.Offset != latest || !slices.Equal(offsets, want) || got.More != more {
						t.Fatalf("%s: of %v\ngot %v, more: %t\nwant %v, more: %t", text(m), kept, offsets, got.More, want, more)
					}
				}
			})
		})
	}
}

// stored is a message that the model keeps.
type stored struct {
	offset int64
	size   int // of its frame
	at     time.Time
}

// frameLen is the length of a server's frame (RFC 6455 5.2).
func frameLen(payload int) int {
	switch {
	case payload <= 125:
		return 2 + payload
	case payload <= 65535:
		return 4 + payload
	}
	return 10 + payload
}

// trim drops the oldest as the room's policy says.
func trim(kept []stored, p hubbub.History) []stored {
	bytes := 0
	for _, m := range kept {
		bytes += m.size
	}
	for len(kept) > 0 && (len(kept) > p.Messages || bytes > p.Bytes && len(kept) > 1 || time.Since(kept[0].at) >= p.Age) {
		bytes -= kept[0].size
		kept = kept[1:]
	}
	return kept
}

// query is what a page is asked for.
type query struct {
	since, before       int64
	hasSince, hasBefore bool
	limit               int
}

// page is what the answer must hold: whole messages up to 64 KiB, or one.
func (q query) page(kept []stored) (offsets []int64, more bool) {
	var in []stored
	for _, m := range kept {
		if (!q.hasSince || m.offset > q.since) && (!q.hasBefore || m.offset < q.before) {
			in = append(in, m)
		}
	}
	if !q.hasSince {
		slices.Reverse(in)
	}
	bytes := 0
	for len(in) > 0 && (len(offsets) == 0 || len(offsets) < q.limit && bytes+in[0].size <= 64<<10) {
		bytes += in[0].size
		offsets = append(offsets, in[0].offset)
		in = in[1:]
	}
	if !q.hasSince {
		slices.Reverse(offsets)
	}
	return offsets, len(in) > 0
}

func text(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// How a client says good-bye decides whether its session is kept: 1000, 1001 and no code end it, any other keeps it,
// also those by which the server tells clients not to come back: they are the server's to say.
func TestTheClosersCodeDecidesAboutTheSession(t *testing.T) {
	ends := func(codes ...int) map[int]bool {
		m := map[int]bool{}
		for _, c := range codes {
			m[c] = true
		}
		return m
	}(1000, 1001, 1005)
	for _, code := range []int{1000, 1001, 1002, 1003, 1005, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4001, 4002, 4401, 4499, 4500, 4501, 4503, 4999} {
		synctest.Test(t, func(t *testing.T) {
			srv := hubbubtest.NewServer(t, hubbub.Config{})
			ann, bob := srv.Connect("ann"), srv.Connect("bob")
			ann.Join("r")
			payload := []byte{byte(code >> 8), byte(code)}
			if code == 1005 {
				payload = nil
			}
			ann.SendFrame(8, true, payload)
			ann.ExpectClosed(code)
			hubbubtest.Step(0)
			if n := figure(t, srv, "hubbub_parked_sessions"); n == 1 == ends[code] {
				t.Errorf("after %d %v sessions are parked", code, n)
			}
			if rooms := srv.RoomCount(); rooms == 1 == ends[code] {
				t.Errorf("after %d there are %d rooms", code, rooms)
			}
			back, err := srv.ConnectWith("ann again", hubbubtest.Options{Token: ann.Welcome.ResumeToken})
			if err != nil || back.Welcome.Resumed == ends[code] {
				t.Errorf("after %d: resumed is %t, %v", code, back.Welcome.Resumed, err)
			}
			to := map[string]any{"msg_type": "direct_message", "to": ann.ID, "content": "?"}
			if got := bob.Request(to); (got.Code == "unknown_client") != ends[code] {
				t.Errorf("after %d a message to the client gets %s", code, got)
			}
		})
	}
}

// When too much is held, what nobody needs goes first: a large debtor is not closed as long as that is enough.
func TestADebtorOutlivesWhatNobodyNeeds(t *testing.T) {
	const most, debt, size = 8 << 20, 3 << 20, 50_000
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{
			Workers: 4, MaxBufferedBytes: most, SendQueueBytes: 4 << 20, SendQueueAge: time.Hour, PingInterval: 24 * time.Hour, PongTimeout: time.Hour,
			Rooms: []hubbub.RoomPolicy{{Match: "live", History: &hubbub.History{}}, {Match: "*", History: &hubbub.History{Bytes: 1 << 20}}},
		})
		debtor := srv.Connect("the debtor")
		debtor.Join("live")
		debtor.Link.Stall(hubbubtest.ToClient)
		filler := strings.Repeat("x", size)
		owed := 0
		for ; owed*size < debt; owed++ {
			if err := rawtest.Publish(srv, "live", fmt.Sprint(owed, filler)); err != nil {
				t.Fatal(err)
			}
			hubbubtest.Step(0)
		}
		for i := range 2 * most / size {
			if err := rawtest.Publish(srv, fmt.Sprint("room ", i), fmt.Sprint(i, filler)); err != nil {
				t.Fatal(err)
			}
			debtor.SendText(`{"msg_type":"ping"}`) // a turn of its worker, which looks then
			hubbubtest.Step(0)
		}
		if n := srv.RoomCount(); n > most/size {
			t.Errorf("%d rooms are left: nothing was too much", n)
		}
		if n := figure(t, srv, `hubbub_closed_total{code="1013"}`); n != 0 {
			t.Errorf("%v clients were closed, though rooms that nobody needs were there", n)
		}
		debtor.Link.Resume(hubbubtest.ToClient)
		for i := range owed {
			debtor.ExpectMessage("live", fmt.Sprint(i, filler))
		}
	})
}
