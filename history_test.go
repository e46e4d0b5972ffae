package hubbub_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// at is a position as clients write it.
func at(epoch string, offset int) string {
	return fmt.Sprintf(`{"epoch":%q,"offset":%d}`, epoch, offset)
}

// raw asks and gives the answer with its position left in.
func (m *member) raw(format string, args ...any) map[string]any {
	m.T.Helper()
	m.Text(fmt.Sprintf(format, args...))
	return m.NextJSON()
}

// epochOf joins the room, and gives the epoch and the offset of the answer.
func (m *member) epochOf(room string) (epoch string, offset int) {
	m.T.Helper()
	got := m.raw(`{"msg_type":"join_room","room":%q,"id":1}`, room)
	epoch, _ = got["epoch"].(string)
	n, ok := got["offset"].(float64)
	if epoch == "" || !ok {
		m.T.Fatalf("no position: %v", got)
	}
	return epoch, int(n)
}

// publish sends messages with the contents from to to, each acknowledged.
func (m *member) publish(room string, from, to int) {
	m.T.Helper()
	for i := from; i <= to; i++ {
		if got := m.ask(fmt.Sprintf(`{"msg_type":"room_message","room":%q,"content":%d}`, room, i)); got["msg_type"] != "ack" {
			m.T.Fatalf("message %d: %v", i, got)
		}
	}
}

// hears expects the room's messages with the contents from to to, whose offsets are the same numbers.
func (m *member) hears(room string, from, to int) {
	m.T.Helper()
	for i := from; i <= to; i++ {
		got := m.NextJSON()
		if got["msg_type"] != "room_message" || got["room"] != room || got["content"] != float64(i) || got["offset"] != float64(i) {
			m.T.Fatalf("got %v, want message %d", got, i)
		}
	}
}

// rejoins joins with since and expects to be told that all is recovered.
func (m *member) rejoins(room, epoch string, since, offset int) *member {
	m.T.Helper()
	got := m.raw(`{"msg_type":"join_room","room":%q,"since":%s,"id":1}`, room, at(epoch, since))
	if got["recovered"] != true || got["epoch"] != epoch || got["offset"] != float64(offset) {
		m.T.Fatalf("got %v, want all recovered up to %d", got, offset)
	}
	return m
}

func TestSinceBringsWhatWasMissed(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a, b := enter(t, s), enter(t, s)
		epoch, _ := b.epochOf("r")
		a.publish("r", 1, 3)
		b.hears("r", 1, 3)
		b.Reset()
		a.publish("r", 4, 9)
		b = enter(t, s).rejoins("r", epoch, 3, 9)
		b.hears("r", 4, 9)
		a.publish("r", 10, 12)
		b.hears("r", 10, 12)
		b.hearsNothing()
		// Nothing is missing: nothing follows.
		enter(t, s).rejoins("r", epoch, 12, 12).hearsNothing()
		// A member has had all: a position that is not the latest can't be proved.
		b.rejoins("r", epoch, 12, 12)
		if got := b.raw(`{"msg_type":"join_room","room":"r","since":%s,"id":1}`, at(epoch, 5)); got["recovered"] != false || got["reason"] != "expired" {
			t.Errorf("got %v", got)
		}
		b.hearsNothing()
	})
}

func TestRecoveryLeavesOutOnesOwn(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a := enter(t, s)
		a.publish("r", 1, 3)
		other := enter(t, s)
		other.publish("r", 4, 4)
		epoch, _ := other.epochOf("r")
		a.rejoins("r", epoch, 0, 4)
		a.hears("r", 4, 4)
		a.hearsNothing()
	})
}

func TestWhatCantBeProvedIsSaid(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, Rooms: []hubbub.RoomPolicy{
			{Match: "short", History: &hubbub.History{Messages: 2}}, {Match: "none", History: &hubbub.History{}},
		}})
		a := enter(t, s)
		a.publish("short", 1, 5)
		a.publish("none", 1, 1)
		epoch, _ := enter(t, s).epochOf("short")
		for _, c := range []struct{ room, since, reason string }{
			{"short", at(epoch, 2), "expired"},
			{"short", at(epoch, 0), "expired"},
			{"short", at("other", 5), "epoch"},
			{"short", at(epoch, 6), "epoch"}, // such a message there never was
			{"none", at(epoch, 1), "no_history"},
			{"never seen", at(epoch, 1), "epoch"},
		} {
			m := enter(t, s)
			if got := m.raw(`{"msg_type":"join_room","room":%q,"since":%s,"id":1}`, c.room, c.since); got["recovered"] != false || got["reason"] != c.reason {
				t.Errorf("%s since %s: %v, want the reason %s", c.room, c.since, got, c.reason)
			}
			m.hearsNothing()
		}
		// A resume without a position proves nothing either, and says of a room that keeps nothing what a join says.
		for room, reason := range map[string]string{"short": "expired", "none": "no_history"} {
			m := enter(t, s)
			for _, as := range []string{"who joins", "a member"} {
				got := m.raw(`{"msg_type":"resume","rooms":{%q:null},"id":1}`, room)["rooms"].(map[string]any)[room].(map[string]any)
				if got["recovered"] != false || got["reason"] != reason {
					t.Errorf("%s is named with null by %s: %v, want the reason %s", room, as, got, reason)
				}
			}
		}
		enter(t, s).rejoins("short", epoch, 3, 5).hears("short", 4, 5)
	})
}

func TestHistoryIsReadInPages(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a := enter(t, s)
		a.publish("r", 1, 60)
		epoch, _ := enter(t, s).epochOf("r")
		page := func(fields string) (contents string, more bool) {
			t.Helper()
			got := a.raw(`{"msg_type":"history","room":"r","id":1%s}`, fields)
			if got["msg_type"] != "history" || got["epoch"] != epoch || got["offset"] != 60.0 {
				t.Fatalf("%s: %v", fields, got)
			}
			for _, m := range got["messages"].([]any) {
				m := m.(map[string]any)
				if m["offset"] != m["content"] || m["from"] != a.id || m["time"] == nil || m["room"] != nil || m["msg_type"] != nil {
					t.Fatalf("in a page: %v", m)
				}
				contents += fmt.Sprint(m["content"], " ")
			}
			return contents, got["more"].(bool)
		}
		for _, c := range []struct {
			fields, want string
			more         bool
		}{
			{`,"limit":3`, "58 59 60 ", true},
			{`,"limit":3,"before":` + at(epoch, 58), "55 56 57 ", true},
			{`,"limit":3,"before":` + at(epoch, 3), "1 2 ", false},
			{`,"limit":3,"before":` + at(epoch, 1), "", false},
			{`,"limit":3,"since":` + at(epoch, 0), "1 2 3 ", true},
			{`,"limit":3,"since":` + at(epoch, 57), "58 59 60 ", false},
			{`,"limit":3,"since":` + at(epoch, 60), "", false},
			{`,"limit":3,"before":` + at(epoch, 61), "58 59 60 ", true},
		} {
			if got, more := page(c.fields); got != c.want || more != c.more {
				t.Errorf("%s: got %q, more %v; want %q, %v", c.fields, got, more, c.want, c.more)
			}
		}
		if got, more := page(""); strings.Count(got, " ") != 60 || more {
			t.Errorf("the latest page has %q, more %v", got, more)
		}
		for fields, code := range map[string]string{
			`,"since":` + at("other", 1): "bad_position", `,"since":` + at(epoch, 61): "bad_position", `,"before":` + at(epoch, 62): "bad_position", `,"limit":1001`: "bad_message",
		} {
			if got := a.raw(`{"msg_type":"history","room":"r","id":1%s}`, fields); got["code"] != code || got["id"] != 1.0 {
				t.Errorf("%s: %v, want %s", fields, got, code)
			}
		}
	})
}

func TestAPageIs64KiBOrOneMessage(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{MaxMessageBytes: 1 << 20, Rooms: []hubbub.RoomPolicy{{Match: "*", History: &hubbub.History{Bytes: 8 << 20}}}})
	a := enter(t, s)
	for _, size := range []int{20_000, 20_000, 20_000, 20_000, 300_000} {
		content, _ := json.Marshal(strings.Repeat("x", size))
		a.ask(`{"msg_type":"room_message","room":"r","content":` + string(content) + `}`)
	}
	epoch, _ := enter(t, s).epochOf("r")
	for fields, want := range map[string]int{"": 1, `,"since":` + at(epoch, 0): 3, `,"before":` + at(epoch, 5): 3} {
		if got := a.raw(`{"msg_type":"history","room":"r","id":1%s}`, fields); len(got["messages"].([]any)) != want || got["more"] != true {
			t.Errorf("%s: %d messages, want %d", fields, len(got["messages"].([]any)), want)
		}
	}
}

// A recovery that is larger than a client may leave unsent is read as its socket takes it, while the room goes on.
func TestALargeRecoveryIsReadAsTheSocketTakesIt(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 2, MaxMessageBytes: 4 << 10, SendQueueBytes: 16 << 10,
			Rooms: []hubbub.RoomPolicy{{Match: "*", History: &hubbub.History{Messages: 100_000, Bytes: 64 << 20}}}})
		filler := strings.Repeat("x", 1000)
		var all sync.WaitGroup
		send := func(n int) {
			for i := range n {
				if err := rawtest.Publish(s, "r", fmt.Sprint(i, filler)); err == hubbub.ErrOverloaded {
					time.Sleep(time.Millisecond)
				}
			}
		}
		send(3000)
		epoch, _ := enter(t, s).epochOf("r")
		all.Go(func() { send(500) })
		m := enter(t, s)
		first := m.raw(`{"msg_type":"join_room","room":"r","since":%s,"id":1}`, at(epoch, 0))
		if first["recovered"] != true {
			t.Fatalf("got %v", first)
		}
		all.Wait()
		rawtest.Publish(s, "r", "the end")
		last := 0.0
		for last = 0.0; ; {
			got := m.NextJSON()
			if got["msg_type"] != "room_message" || got["offset"] != last+1 {
				t.Fatalf("after %v: %.100v", last, got)
			}
			last++
			if got["content"] == "the end" {
				break
			}
		}
		if last < 3001 {
			t.Errorf("%v messages", last)
		}
		m.hearsNothing()
	})
}

// Many join with since, again and again, while others publish: whoever joins gets every message once and in order.
func TestRecoveryMeetsTheLiveStreamWithoutAGap(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		epoch, _ := enter(t, s).epochOf("r")
		due := make(chan int, 50) // no more than the room keeps, however slow who reads them is
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				for n := range due {
					if err := rawtest.Publish(s, "r", n); err != nil {
						t.Error(err)
					}
					time.Sleep(200 * time.Microsecond)
				}
			})
		}
		defer func() { close(due); all.Wait() }()
		publish := func(n int) {
			for i := range n {
				due <- i
			}
		}
		publish(20)
		at0 := 0
		for range 30 {
			m := enter(t, s)
			publish(30) // while it joins: it gets those that are there, and some of these
			got := m.raw(`{"msg_type":"join_room","room":"r","since":%s,"id":1}`, at(epoch, at0))
			if got["recovered"] != true {
				t.Fatalf("since %d: %v", at0, got)
			}
			for range 30 {
				got := m.NextJSON()
				if at0++; got["offset"] != float64(at0) {
					t.Fatalf("got %v, want the offset %d", got, at0)
				}
			}
			m.Reset()
		}
	})
}

func TestPublishingOnceByPublishID(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a, b := enter(t, s), enter(t, s)
		b.join("r")
		once := func(m *member, room, id string) (offset float64, duplicate bool) {
			t.Helper()
			got := m.raw(`{"msg_type":"room_message","room":%q,"content":1,"publish_id":%q,"id":1}`, room, id)
			if got["msg_type"] != "ack" {
				t.Fatalf("got %v", got)
			}
			offset, _ = got["offset"].(float64)
			duplicate, _ = got["duplicate"].(bool)
			return offset, duplicate
		}
		for _, c := range []struct {
			m         *member
			room, id  string
			offset    float64
			duplicate bool
		}{
			{a, "r", "x", 1, false}, {a, "r", "x", 1, true}, {a, "r", "y", 2, false}, {a, "r", "x", 1, true},
			{b, "r", "x", 3, false}, // another publisher
			{a, "q", "x", 1, false}, // another room
			{a, "r", "y", 2, true},
		} {
			if offset, duplicate := once(c.m, c.room, c.id); offset != c.offset || duplicate != c.duplicate {
				t.Errorf("%s in %s: offset %v, duplicate %v; want %v, %v", c.id, c.room, offset, duplicate, c.offset, c.duplicate)
			}
			if c.m == a && c.room == "r" && !c.duplicate {
				b.gets(roomMessage(a, "r", 1.0))
			}
		}
		b.hearsNothing()
	})
}

func TestWhoMayPublish(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, Rooms: []hubbub.RoomPolicy{
			{Match: "club", Publish: "members"}, {Match: "news", Publish: "server"}, {Match: "mirror", IncludeSender: true},
		}})
		a, b := enter(t, s), enter(t, s)
		for _, room := range []string{"club", "news", "mirror"} {
			b.join(room)
		}
		say := func(m *member, room string) any {
			return m.ask(fmt.Sprintf(`{"msg_type":"room_message","room":%q,"content":1}`, room))["code"]
		}
		if got := say(a, "club"); got != "not_member" {
			t.Errorf("a stranger in the club gets %v", got)
		}
		a.join("club")
		if got := say(a, "club"); got != nil {
			t.Errorf("a member of the club gets %v", got)
		}
		b.gets(roomMessage(a, "club", 1.0))
		if got := say(b, "news"); got != "forbidden" {
			t.Errorf("a client in the news gets %v", got)
		}
		if err := rawtest.Publish(s, "news", 2); err != nil {
			t.Error(err)
		}
		b.gets(map[string]any{"msg_type": "room_message", "from": "server", "content": 2.0, "room": "news"})
		b.Text(`{"msg_type":"room_message","room":"mirror","content":3}`)
		b.gets(roomMessage(b, "mirror", 3.0))
		a.publish("mirror", 4, 4)
		b.gets(roomMessage(a, "mirror", 4.0))
		a.hearsNothing()
	})
}

// Above --max-buffered-bytes the rooms without members go first, and nobody is closed for them.
func TestHistoryOfEmptyRoomsGoesFirst(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{MaxBufferedBytes: 4 << 20, SendQueueBytes: 1 << 20, Rooms: []hubbub.RoomPolicy{{Match: "*", History: &hubbub.History{Bytes: 1 << 20}}}})
	a := enter(t, s)
	epoch, _ := a.epochOf("mine")
	content := strings.Repeat("x", 50_000)
	for i := range 300 {
		for rawtest.Publish(s, fmt.Sprint("room ", i), content) != nil {
			time.Sleep(time.Millisecond)
		}
		if i < 5 {
			rawtest.Publish(s, "mine", i)
			a.NextJSON()
		}
		if i%10 == 0 {
			a.hearsNothing() // a turn of every worker
		}
	}
	scraped(t, s, map[string]float64{"connections": 1, `closed_total{code="1013"}`: 0})
	if n := s.RoomCount(); n > 100 {
		t.Errorf("%d rooms are left", n)
	}
	enter(t, s).rejoins("mine", epoch, 0, 5)
}
