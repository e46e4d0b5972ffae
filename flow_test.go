package hubbub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// Members that don't read, under the policies that drop messages rather than close them.

var dropping = []string{"drop-oldest", "latest", "latest-by-key"}

const flowQueue = 256 << 10

// eachFlow runs a story under each policy, without history on several workers, and with it on one.
func eachFlow(t *testing.T, story func(t *testing.T, s *rawtest.Server, policy string, history bool)) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		for _, policy := range dropping {
			for workers, history := range map[int]bool{1: true, 4: false} {
				if io != "epoll" && history { // the policies are above of that
					continue
				}
				t.Run(fmt.Sprintf("%s/workers=%d/history=%t", policy, workers, history), func(t *testing.T) {
					rule := hubbub.RoomPolicy{Match: "*", SlowConsumer: policy}
					if !history {
						rule.History = &hubbub.History{}
					}
					story(t, rawtest.Start(t, hubbub.Config{IO: io, Workers: workers, SendQueueBytes: flowQueue, ResumeWindow: time.Hour, Rooms: []hubbub.RoomPolicy{rule}}), policy, history)
				})
			}
		}
	})
}

// enterSlow is enter for one that won't read for long: its socket holds little of that, so that few messages fill it.
func enterSlow(t *testing.T, s *rawtest.Server) *member {
	t.Helper()
	m := enter(t, s)
	if err := m.NC.SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	return m
}

// keyOf is the key under which message n is published; each fourth has none.
func keyOf(n int) string {
	if n%4 == 3 {
		return ""
	}
	return fmt.Sprint("tile ", n%7)
}

const padding = 16 << 10

func publication(n int) string {
	key := ""
	if k := keyOf(n); k != "" {
		key = fmt.Sprintf(`,"key":"%s"`, k)
	}
	return fmt.Sprintf(`{"msg_type":"room_message","room":"r"%s,"content":[%d,"%s"]}`, key, n, strings.Repeat("z", padding))
}

// number is which publication a message is.
func number(t testing.TB, m map[string]any) int {
	t.Helper()
	c, ok := m["content"].([]any)
	if m["msg_type"] != "room_message" || !ok {
		t.Fatalf("got %v, want a room_message", m)
	}
	return int(c[0].(float64))
}

// flood publishes from on, and has the healthy member read, until the slow ones, which don't, take nothing any more and
// all lose messages all the while. It returns the number of the next publication.
func flood(t *testing.T, s *rawtest.Server, policy string, from *member, next, slow int, healthy *member) int {
	t.Helper()
	dropped := fmt.Sprintf(`hubbub_dropped_total{policy="%s"}`, policy)
	last := scrape(t, s)[dropped]
	for steady := 0; steady < 3; {
		if next > 5000 {
			t.Fatal("80 MB are on the way to a client that doesn't read, and it loses nothing")
		}
		const batch = 30
		for range batch {
			from.ask(publication(next))
			if _, got := healthy.Next(); !bytes.Contains(got, fmt.Appendf(nil, `"content":[%d,`, next)) { // quicker than to decode them all
				t.Fatalf("a healthy member got %.100s, want publication %d", got, next)
			}
			next++
		}
		now := scrape(t, s)[dropped]
		if steady++; now-last < float64(slow*batch-batch/2) { // by key less is lost than published
			steady = 0
		}
		last = now
	}
	return next
}

// readOn reads up to the publication last, and holds it all against what was published from first on: each is got or
// told to be lost, in order, once.
func readOn(t *testing.T, m *member, policy string, history bool, first, last int, base float64) (got []int, lost int) {
	t.Helper()
	for due := first; due <= last; {
		msg := m.NextJSON()
		if msg["msg_type"] != "gap" {
			n := number(t, msg)
			if n != due {
				t.Fatalf("got publication %d, want %d", n, due)
			}
			if offset, has := msg["offset"]; has != history || has && offset != base+float64(n) {
				t.Fatalf("publication %d has the offset %v", n, offset)
			}
			got = append(got, n)
			due++
			continue
		}
		count := int(msg["count"].(float64))
		want := map[string]any{"msg_type": "gap", "room": "r", "reason": policy, "count": float64(count)}
		if history {
			want["from_offset"], want["to_offset"] = base+float64(due), base+float64(due+count-1)
		}
		if fmt.Sprint(msg) != fmt.Sprint(want) {
			t.Fatalf("got  %v\nwant %v", msg, want)
		}
		lost += count
		due += count
	}
	return got, lost
}

func TestASlowMemberIsToldOfAllThatItLost(t *testing.T) {
	t.Parallel()
	eachFlow(t, func(t *testing.T, s *rawtest.Server, policy string, history bool) {
		slow, healthy, from := enterSlow(t, s).join("r"), enter(t, s).join("r"), enter(t, s)
		next, told, first := 0, 0, 0
		for range 2 { // it can happen again
			next = flood(t, s, policy, from, first, 1, healthy)
			if held, most := scrape(t, s)["hubbub_buffered_bytes"], float64(2*flowQueue+16*padding); held > most {
				t.Errorf("%v bytes are kept for one slow member, want %v at most", held, most)
			}
			got, lost := readOn(t, slow, policy, history, first, next-1, 1)
			told += lost
			checkNewest(t, policy, got, next)
			// It is live again.
			for range 3 {
				from.ask(publication(next))
				for _, m := range []*member{slow, healthy} {
					if got := number(t, m.NextJSON()); got != next {
						t.Fatalf("got %d, want %d", got, next)
					}
				}
				next++
			}
			first = next
		}
		want := map[string]float64{`closed_total{code="4000"}`: 0, "buffered_bytes": 0, "connections": 3}
		for _, p := range append(dropping, "disconnect") {
			want[`dropped_total{policy="`+p+`"}`] = 0
		}
		want[`dropped_total{policy="`+policy+`"}`] = float64(told)
		scraped(t, s, want)
	})
}

// checkNewest holds the end of what a slow member got against what the policy promises, after next publications.
func checkNewest(t *testing.T, policy string, got []int, next int) {
	t.Helper()
	if got[len(got)-1] != next-1 {
		t.Fatalf("the last is %d, want %d", got[len(got)-1], next-1)
	}
	behind := 0 // of what came in one piece at the end
	for behind = 1; behind < len(got) && got[len(got)-behind-1] == next-1-behind; behind++ {
	}
	switch policy {
	case "drop-oldest":
		if most := flowQueue / padding; behind > most || behind < most/2 {
			t.Errorf("%d messages after the gap, want as many as fit into the queue", behind)
		}
	case "latest":
		if behind != 1 {
			t.Errorf("%d messages after the gap, want the newest alone", behind)
		}
	case "latest-by-key":
		has := map[int]bool{}
		for _, n := range got {
			has[n] = true
		}
		for n := next - 7*4; n < next; n++ {
			if k := keyOf(n); k != "" && !has[n] && (n+28 >= next && !newer(n, next)) {
				t.Errorf("publication %d, the newest of %s, is missing", n, k)
			}
		}
	}
}

// newer says that there is a later publication with the same key.
func newer(n, next int) bool {
	for i := n + 1; i < next; i++ {
		if keyOf(i) == keyOf(n) {
			return true
		}
	}
	return false
}

// A dashboard: each tile has its last value at once, whatever was lost between.
func TestADashboardHasEveryTilesLastValue(t *testing.T) {
	const tiles, rounds = 500, 100
	s := rawtest.Start(t, hubbub.Config{SendQueueBytes: flowQueue, Rooms: []hubbub.RoomPolicy{{Match: "*", SlowConsumer: "latest-by-key"}}})
	slow, healthy, from := enterSlow(t, s).join("r"), enter(t, s).join("r"), enter(t, s)
	pad := strings.Repeat("z", 200)
	for round := range rounds {
		var b []byte
		for _, tile := range rand.Perm(tiles) {
			b = append(b, rawtest.Frame(wsclient.Text, true, fmt.Appendf(nil, `{"msg_type":"room_message","room":"r","key":"%d","content":[%d,"%s"]}`, tile, round, pad))...)
		}
		from.SendRaw(b)
		for range tiles {
			if got := number(t, healthy.NextJSON()); got != round {
				t.Fatalf("a healthy member got a message of round %d, want %d", got, round)
			}
		}
	}
	values := map[string]int{}
	got, lost := 0, 0
	for due := 1.0; due <= tiles*rounds; {
		m := slow.NextJSON()
		if m["msg_type"] == "gap" {
			if m["from_offset"] != due || m["reason"] != "latest-by-key" {
				t.Fatalf("at offset %v: %v", due, m)
			}
			lost += int(m["count"].(float64))
			due = m["to_offset"].(float64) + 1
			continue
		}
		if m["offset"] != due {
			t.Fatalf("got the offset %v, want %v", m["offset"], due)
		}
		values[m["key"].(string)] = number(t, m)
		got++
		due++
	}
	for tile := range tiles {
		if v := values[fmt.Sprint(tile)]; v != rounds-1 {
			t.Errorf("tile %d has the value %d, want %d", tile, v, rounds-1)
		}
	}
	if lost == 0 || got+lost != tiles*rounds {
		t.Errorf("%d messages and %d lost, %d were published", got, lost, tiles*rounds)
	}
	scraped(t, s, map[string]float64{`dropped_total{policy="latest-by-key"}`: float64(lost), "buffered_bytes": 0})
}

func TestASlowMemberThatGoesLeavesNothingBehind(t *testing.T) {
	eachFlow(t, func(t *testing.T, s *rawtest.Server, policy string, _ bool) {
		leaves, ends, cut, healthy, from := enterSlow(t, s).join("r"), enterSlow(t, s).join("r"), enterSlow(t, s).join("r"), enter(t, s).join("r"), enter(t, s)
		next := flood(t, s, policy, from, 0, 3, healthy)
		leaves.Text(`{"msg_type":"leave_room","room":"r","id":"leave"}`)
		ends.SendClose(1000, "")
		cut.Reset()
		rawtest.Eventually(t, "who left and who said good-bye are no members, and who was cut is to be resumed", func() bool {
			return from.ask(`{"msg_type":"presence","room":"r"}`)["count"] == 2.0
		})
		heard := 0 // what was queued before, but nothing that waited
		for m := leaves.NextJSON(); m["msg_type"] != "left"; m = leaves.NextJSON() {
			if m["msg_type"] == "gap" {
				heard += int(m["count"].(float64))
			} else {
				heard = number(t, m) + 1
			}
		}
		if heard >= next-40 {
			t.Errorf("it heard of %d of %d messages before the answer to its leave", heard, next)
		}
		for range 3 {
			from.ask(publication(next))
			healthy.NextJSON()
			next++
		}
		leaves.hearsNothing()
		ends.CloseNow()
		const parked = 512 + 64 // a session and its room: that of who was cut
		scraped(t, s, map[string]float64{"connections": 3, "buffered_bytes": parked, `kept_bytes{kind="parked"}`: parked})
	})
}

// The sender's own messages are neither sent to it nor counted as lost, and make none of the others' go.
func TestASlowMemberThatPublishes(t *testing.T) {
	eachFlow(t, func(t *testing.T, s *rawtest.Server, policy string, history bool) {
		slow, healthy, from := enterSlow(t, s).join("r"), enter(t, s).join("r"), enter(t, s)
		next := flood(t, s, policy, from, 0, 1, healthy)
		for i := range 7 {
			slow.Text(fmt.Sprintf(`{"msg_type":"room_message","room":"r","key":"tile %d","content":[-1]}`, i))
			healthy.NextJSON()
		}
		from.ask(`{"msg_type":"room_message","room":"r","content":[-2]}`)
		healthy.NextJSON()
		got, lost := 0, 0
		for {
			m := slow.NextJSON()
			if m["msg_type"] == "gap" {
				lost += int(m["count"].(float64))
				continue
			}
			if n := number(t, m); n == -2 {
				break
			} else if n == -1 {
				t.Fatal("it got its own message")
			}
			got++
		}
		if got+lost != next {
			t.Errorf("%d messages and %d lost, %d were published", got, lost, next)
		}
		scraped(t, s, map[string]float64{`dropped_total{policy="` + policy + `"}`: float64(lost), "buffered_bytes": 0})
	})
}

// What belongs to no room follows the server's own policy; there is nothing of which the latest could be kept.
func TestASlowReaderOfChats(t *testing.T) {
	for _, policy := range dropping {
		t.Run(policy, func(t *testing.T) {
			s := rawtest.Start(t, hubbub.Config{SendQueueBytes: flowQueue, SlowConsumer: policy})
			slow, from := enterSlow(t, s), enter(t, s)
			const all = 1000
			for n := range all {
				from.ask(fmt.Sprintf(`{"msg_type":"chat","content":[%d,"%s"]}`, n, strings.Repeat("z", padding)))
			}
			lost := 0
			for due := 0; due < all; {
				m := slow.NextJSON()
				if m["msg_type"] == "gap" {
					if _, has := m["room"]; has || m["reason"] != "drop-oldest" {
						t.Fatalf("got %v", m)
					}
					lost += int(m["count"].(float64))
					due += int(m["count"].(float64))
					continue
				}
				if n := int(m["content"].([]any)[0].(float64)); n != due {
					t.Fatalf("got chat %d, want %d", n, due)
				}
				due++
			}
			if lost == 0 {
				t.Error("nothing was lost")
			}
			scraped(t, s, map[string]float64{`dropped_total{policy="drop-oldest"}`: float64(lost), `dropped_total{policy="latest"}`: 0, "buffered_bytes": 0})
		})
	}
}

// With context takeover what was compressed must be sent, so what waits isn't compressed yet.
func TestASlowMemberWithContextTakeover(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{Compression: "context", SendQueueBytes: flowQueue, Rooms: []hubbub.RoomPolicy{{Match: "*", SlowConsumer: "latest-by-key"}}})
	ctx, cancel := context.WithTimeout(context.Background(), rawtest.Patience)
	defer cancel()
	slow, _, err := websocket.Dial(ctx, "ws://"+s.Addr+"/ws", &websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		t.Fatal(err)
	}
	defer slow.CloseNow()
	slow.SetReadLimit(1 << 20)
	read := func() (m map[string]any) {
		_, p, err := slow.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(p, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	read()
	slow.Write(ctx, websocket.MessageText, []byte(`{"msg_type":"join_room","room":"r","id":1}`))
	read()
	from := enter(t, s)
	const all = 1000
	letters := make([]byte, 16<<10) // hardly compressible
	for n := range all {
		for i := range letters {
			letters[i] = 'a' + byte(rand.IntN(26))
		}
		from.ask(fmt.Sprintf(`{"msg_type":"room_message","room":"r","key":"%d","content":[%d,"%s"]}`, n%10, n, letters))
	}
	lost := 0
	for due := 0; due < all; {
		m := read()
		if m["msg_type"] == "gap" {
			lost += int(m["count"].(float64))
			due += int(m["count"].(float64))
			continue
		}
		if n := number(t, m); n != due {
			t.Fatalf("got %d, want %d", n, due)
		}
		due++
	}
	if lost == 0 {
		t.Error("nothing was lost")
	}
}
