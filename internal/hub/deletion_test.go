package hub

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/protocol"
)

// slowRooms are rooms under each policy for members that can't keep up, by the policy's name.
func slowRooms(c *Config) {
	resumable(c)
	var rules []Rule
	for p := Disconnect; p <= LatestByKey; p++ {
		policy := DefaultPolicy()
		policy.SlowConsumer = p
		policy.History.Messages, policy.History.Bytes = 10_000, 64<<20
		rules = append(rules, Rule{glob.New(p.String()), policy})
	}
	c.Policies = NewPolicies(Disconnect, append(rules, plainRooms)...)
}

// pageOf are the offsets of what the room keeps.
func pageOfRoom(t testing.TB, h *Hub, room string) (offsets []uint64) {
	page, _, _, err := h.History(t.Context(), room, PageQuery{Limit: protocol.MaxPage})
	must(t, err)
	for _, m := range page {
		offsets = append(offsets, m.Offset)
	}
	return offsets
}

// A message that was taken back is in no page any more, and members hear of it behind the message itself. A second time
// nothing happens.
func TestAMessageIsTakenBack(t *testing.T) {
	h, l := newHub(t, 1)
	a := newClient(t, h, l)
	a.say(`{"msg_type":"join_room","room":"r"}`)
	a.sync()
	for _, text := range []string{`"a"`, `"b"`, `"c"`} {
		publish(t, h, "r", text)
	}
	kept := h.Kept(KeptHistory)
	for range 2 {
		must(t, h.DeleteMessage(t.Context(), "r", "", 2))
	}
	for _, want := range []string{"a", "b", "c"} {
		a.wants("room_message", map[string]any{"content": want})
	}
	a.wants("deleted", map[string]any{"room": "r", "offset": 2.0, "to_offset": nil})
	if got := a.sync(); len(got) > 0 {
		t.Errorf("and then %v", got)
	}
	if got := pageOfRoom(t, h, "r"); fmt.Sprint(got) != "[1 3]" {
		t.Errorf("kept: %v", got)
	}
	if now := h.Kept(KeptHistory); now >= kept {
		t.Errorf("%d bytes were kept, and %d are", kept, now)
	}
	for _, fault := range h.Audit() {
		t.Error(fault)
	}
}

// All that a room keeps is taken back: its position and its epoch stay, and what comes then goes on behind it.
func TestAHistoryIsTakenBack(t *testing.T) {
	h, l := newHub(t, 1)
	a := newClient(t, h, l)
	a.say(`{"msg_type":"join_room","room":"r"}`)
	a.sync()
	publish(t, h, "r", `"a"`)
	publish(t, h, "r", `"b"`)
	before, _, _ := h.Room(t.Context(), "r")
	for range 2 {
		must(t, h.DeleteHistory(t.Context(), "r"))
	}
	after, _, _ := h.Room(t.Context(), "r")
	publish(t, h, "r", `"c"`)
	for _, want := range []string{"a", "b"} {
		a.wants("room_message", map[string]any{"content": want})
	}
	a.wants("deleted", map[string]any{"room": "r", "offset": nil, "to_offset": 2.0})
	a.wants("room_message", map[string]any{"content": "c", "offset": 3.0})
	if got := pageOfRoom(t, h, "r"); fmt.Sprint(got) != "[3]" || after != before {
		t.Errorf("kept: %v, and the room at %v became one at %v", got, before, after)
	}
	b := newClient(t, h, l)
	for since, reason := range []any{"expired", "expired", nil, nil} {
		b.say(`{"msg_type":"join_room","room":"r","since":{"epoch":%q,"offset":%d},"id":1}`, after.Position.Epoch, since)
		b.wants("joined", map[string]any{"reason": reason})
		if since == 2 { // it may have been here before
			b.wants("deleted", map[string]any{"to_offset": 2.0})
			b.wants("room_message", map[string]any{"offset": 3.0})
		}
		b.say(`{"msg_type":"leave_room","room":"r"}`)
		if got := b.sync(); len(got) > 0 {
			t.Errorf("since %d it gets %v", since, got)
		}
	}
	if kept := h.Kept(KeptPublishIDs); kept != 0 {
		t.Error(kept)
	}
	for _, fault := range h.Audit() {
		t.Error(fault)
	}
}

func TestWhatCanNotBeTakenBack(t *testing.T) {
	h, l := newHubOf(t, 1, slowRooms)
	a := newClient(t, h, l)
	a.say(`{"msg_type":"join_room","room":"r"}`)
	a.sync()
	publish(t, h, "r", `1`)
	info, _, _ := h.Room(t.Context(), "r")
	for _, c := range []struct {
		room, epoch string
		offset      uint64
		want        error
	}{
		{"r", "", 2, ErrNoPosition},
		{"r", "", 0, ErrNoPosition},
		{"r", "other", 1, ErrNoPosition},
		{"elsewhere", "", 1, ErrNoPosition},
		{"plain", "", 1, ErrNoHistory},
		{"r", info.Position.Epoch, 1, nil},
	} {
		if err := h.DeleteMessage(t.Context(), c.room, c.epoch, c.offset); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := h.DeleteHistory(t.Context(), "plain"); !errors.Is(err, ErrNoHistory) {
		t.Error(err)
	}
	if err := h.DeleteHistory(t.Context(), "elsewhere"); err != nil {
		t.Error(err)
	}
	if _, ok, _ := h.Room(t.Context(), "elsewhere"); ok {
		t.Error("a room was made to delete its history")
	}
	if err := h.DeleteHistory(t.Context(), "empty"); err != nil {
		t.Error(err)
	}
}

// What waits for a member that lags isn't sent once it was taken back, under whatever policy; what it was sent before
// is taken back behind it. No gap tells of it, and those that were told stay true.
func TestWhoLagsGetsNothingThatWasTakenBack(t *testing.T) {
	for p := DropOldest; p <= LatestByKey; p++ {
		for _, all := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, all %t", p, all), func(t *testing.T) {
				h, l := newHubOf(t, 1, slowRooms)
				a := newClient(t, h, l)
				room := p.String()
				a.say(`{"msg_type":"join_room","room":%q}`, room)
				a.sync()
				a.deaf.Lock()
				last := lagging(t, h, room, idOf(a))
				var deleted []uint64
				if all {
					must(t, h.DeleteHistory(t.Context(), room))
				} else {
					for _, offset := range []uint64{1, last - 7, last - 3, last} {
						deleted = append(deleted, offset)
						must(t, h.DeleteMessage(t.Context(), room, "", offset))
					}
				}
				for range 40 { // no less is heard of it though much has to go
					p := &Publication{Room: room, Content: []byte(`"` + strings.Repeat("y", 50_000) + `"`)}
					until(t, "the worker has room", func() bool { _, _, err := h.Publish(t.Context(), p); return err == nil })
				}
				until(t, "the worker has room", func() bool {
					_, _, err := h.Publish(t.Context(), &Publication{Room: room, Content: []byte(`"end"`)})
					return err == nil
				})
				a.deaf.Unlock()
				gone := map[float64]bool{}
				for m := a.next(); m["content"] != "end"; m = a.next() {
					switch at, _ := m["offset"].(float64); {
					case m["msg_type"] == "deleted" && all:
						for o := range last + 1 {
							gone[float64(o)] = true
						}
					case m["msg_type"] == "deleted":
						gone[at] = true
					case m["msg_type"] == "room_message" && (gone[at] || at == float64(last) && p != Latest): // which alone may have been on its way
						t.Errorf("%v comes, which waited as it was taken back", at)
					}
				}
				for _, o := range deleted {
					if !gone[float64(o)] {
						t.Errorf("it didn't hear that %d was taken back", o)
					}
				}
				if all && !gone[1] {
					t.Error("it didn't hear that all were taken back")
				}
				until(t, "all is settled", func() bool { return len(h.Audit()) == 0 })
			})
		}
	}
}

// lagging publishes until a member lags, and some more, with keys; it gives the last offset.
func lagging(t testing.TB, h *Hub, room string, id ID) (last uint64) {
	s := h.here(id)
	content := []byte(`"` + strings.Repeat("x", 50_000) + `"`)
	for more := 10; more > 0; {
		p := &Publication{Room: room, Content: content, Key: fmt.Append(nil, last)}
		if last%2 == 0 {
			p.Key = nil
		}
		until(t, "the worker has room", func() bool {
			at, _, err := h.Publish(t.Context(), p)
			last = max(last, at.Offset)
			return err == nil
		})
		lags := make(chan bool)
		s.conn.Worker().Post(task(func() { lags <- s.more != nil && len(s.more.flow.lags) > 0 }), 0)
		if <-lags {
			more--
		}
	}
	return last
}

// What waits for a lagging member is dropped, superseded and taken back in any order; the lists stay whole.
func TestALagStaysWhole(t *testing.T) {
	h, l := newHubOf(t, 1, slowRooms)
	a := newClient(t, h, l)
	room := LatestByKey.String()
	a.say(`{"msg_type":"join_room","room":%q}`, room)
	a.sync()
	a.deaf.Lock()
	defer a.deaf.Unlock()
	lagging(t, h, room, idOf(a))
	s := h.here(idOf(a))
	done := make(chan bool)
	s.conn.Worker().Post(task(func() {
		defer close(done)
		g := s.more.flow.lags[0]
		f := g.first.frame
		for i := range 20_000 {
			w := &waiting{frame: f, offset: uint64(1000 + i)}
			switch rand.IntN(6) {
			case 0, 1:
				w.key = fmt.Sprint(rand.IntN(20))
			case 2:
				w.offset, w.news, w.firm = 0, true, true
			case 3:
				g.forget(func(o *waiting) bool { return o.offset != 0 && o.offset%7 == uint64(i%7) })
				continue
			case 4:
				if g.first != nil && (g.first.keyed || g.first.firm || g.first == g.plain[0]) {
					g.take(g.first)
				}
				continue
			}
			g.add(w)
			if fault := faultOf(g); fault != "" {
				t.Errorf("after %d steps: %s", i, fault)
				return
			}
		}
	}), 0)
	<-done
}

// faultOf says what of a lag contradicts what waits in it.
func faultOf(g *lag) string {
	plain, bytes, keyed, keys := g.plain[0], int64(0), int64(0), 0
	var prev *waiting
	for w := g.first; w != nil; prev, w = w, w.next {
		switch {
		case w.prev != prev:
			return "a message doesn't know the one before it"
		case w.keyed && g.keys[w.key] != w:
			return "a key leads elsewhere"
		case w.keyed || w.firm:
			keys++
			keyed += w.cost()
		case plain != w:
			return "the plain ones are out of order"
		default:
			plain = plain.plain
			bytes += w.cost()
		}
	}
	f := &g.s.more.flow
	if g.last != prev || plain != nil || bytes != f.plain || keyed != f.keyed || keys != f.keys {
		return fmt.Sprintf("%d bytes wait, %d by key of %d keys; counted are %+v", bytes, keyed, keys, f)
	}
	return ""
}

// Who comes back hears what was taken back while it was away of what it had, and gets nothing of it; with too much of
// that it is told that it can't be mended.
func TestWhoComesBackHearsWhatWasTakenBack(t *testing.T) {
	h, l := newHubOf(t, 1, slowRooms)
	room := Disconnect.String()
	a, b := newClient(t, h, l), newClient(t, h, l)
	a.say(`{"msg_type":"join_room","room":%q,"id":1}`, room)
	epoch := a.next()["epoch"]
	for i := range 5 {
		publish(t, h, room, fmt.Sprint(i+1))
	}
	a.sync()
	must(t, h.DeleteMessage(t.Context(), room, "", 1))
	token := a.lose(h)
	must(t, h.DeleteMessage(t.Context(), room, "", 2))
	publish(t, h, room, `6`)
	publish(t, h, room, `7`)
	must(t, h.DeleteMessage(t.Context(), room, "", 6))

	back := a.again(h, l, token)
	back.say(`{"msg_type":"resume","rooms":{%q:{"epoch":%q,"offset":5}},"id":1}`, room, epoch)
	b.say(`{"msg_type":"join_room","room":%q,"since":{"epoch":%q,"offset":5},"id":1}`, room, epoch)
	back.wants("resumed", map[string]any{})
	b.wants("joined", map[string]any{"recovered": true})
	for _, c := range []*client{back, b} {
		c.wants("deleted", map[string]any{"offset": 1.0})
		c.wants("deleted", map[string]any{"offset": 2.0})
		c.wants("room_message", map[string]any{"offset": 7.0})
		if got := c.sync(); len(got) > 0 {
			t.Errorf("and then %v", got)
		}
	}

	for i := range history.MaxDeleted {
		publish(t, h, room, fmt.Sprint(i+8))
	}
	at, _, _ := h.Room(t.Context(), room)
	for i := range history.MaxDeleted + 1 {
		must(t, h.DeleteMessage(t.Context(), room, "", uint64(7+i)))
		c := newClient(t, h, l)
		c.say(`{"msg_type":"join_room","room":%q,"since":{"epoch":%q,"offset":%d},"id":1}`, room, epoch, at.Position.Offset)
		want := i < history.MaxDeleted
		c.wants("joined", map[string]any{"recovered": want})
		if got := c.sync(); want != (len(got) == i+1) || !want != (len(got) == 0) {
			t.Errorf("with %d messages taken back it hears of %d", i+1, len(got))
		}
		c.nc.Close()
	}
}

// Who comes back to many rooms in which much was taken back hears of all of it, and is not too slow for that.
func TestMuchThatWasTakenBackIsHeardPieceByPiece(t *testing.T) {
	h, l := newHubOf(t, 1, resumable)
	const rooms, each = 20, history.MaxDeleted
	a := newClient(t, h, l)
	resume := ""
	for i := range rooms {
		room := fmt.Sprintf("%d %s", i, strings.Repeat(`"`, 240)) // takes two bytes for each
		a.say(`{"msg_type":"join_room","room":%q,"id":1}`, room)
		epoch := a.next()["epoch"]
		for range each {
			publish(t, h, room, `1`)
			a.next()
		}
		resume += fmt.Sprintf(`,%q:{"epoch":%q,"offset":%d}`, room, epoch, each)
	}
	token := a.lose(h)
	for i := range rooms {
		for offset := range uint64(each) {
			must(t, h.DeleteMessage(t.Context(), fmt.Sprintf("%d %s", i, strings.Repeat(`"`, 240)), "", offset+1))
		}
	}
	back := a.again(h, l, token)
	back.say(`{"msg_type":"resume","rooms":{%s},"id":1}`, resume[1:])
	if got := back.next(); got["msg_type"] != "resumed" {
		t.Fatal(got)
	}
	for i := range rooms * each {
		if got := back.next(); got["msg_type"] != "deleted" {
			t.Fatalf("%v, after %d that were taken back", got, i)
		}
	}
}

// What is taken back while a client says what it had is told when it has said all.
func TestWhatIsTakenBackDuringAHomecoming(t *testing.T) {
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprintf("all %t", all), func(t *testing.T) {
			h, l := newHubOf(t, 1, resumable)
			a := newClient(t, h, l)
			a.say(`{"msg_type":"join_room","room":"r","id":1}`)
			epoch := a.next()["epoch"]
			publish(t, h, "r", `1`)
			publish(t, h, "r", `2`)
			a.sync()
			back := a.again(h, l, a.lose(h))
			publish(t, h, "r", `3`)
			back.say(`{"msg_type":"resume","rooms":{"r":{"epoch":%q,"offset":2}},"last":false,"id":1}`, epoch)
			back.wants("resumed", map[string]any{})
			if all {
				must(t, h.DeleteHistory(t.Context(), "r"))
			} else {
				must(t, h.DeleteMessage(t.Context(), "r", "", 1))
				must(t, h.DeleteMessage(t.Context(), "r", "", 3))
			}
			if got := back.sync(); len(got) > 0 {
				t.Fatalf("before it has come it gets %v", got)
			}
			back.say(`{"msg_type":"resume","rooms":{},"id":2}`)
			back.wants("resumed", map[string]any{})
			if all {
				back.wants("deleted", map[string]any{"to_offset": 3.0})
				back.wants("gap", map[string]any{"reason": "history", "to_offset": 3.0})
			} else {
				back.wants("deleted", map[string]any{"offset": 1.0})
			}
			publish(t, h, "r", `4`)
			back.wants("room_message", map[string]any{"offset": 4.0})
		})
	}
}

// Many who join, come back and lag while messages come and are taken back: nobody gets a message behind the word that it
// was taken back, each hears of all that it has, and the accounts stay true.
func TestTakingBackMeetsEverything(t *testing.T) {
	t.Parallel()
	for p := Disconnect; p <= LatestByKey; p++ {
		t.Run(p.String(), func(t *testing.T) {
			h, l := newHubOf(t, 2, slowRooms)
			room := p.String()
			stop := make(chan bool)
			var busy sync.WaitGroup
			busy.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					at, _, err := h.Publish(t.Context(), &Publication{Room: room, Content: fmt.Appendf(nil, `"%d %s"`, i, strings.Repeat("x", 3000)), Key: fmt.Append(nil, i%5)})
					if err != nil {
						time.Sleep(time.Millisecond)
						continue
					}
					if i%3 == 0 && at.Offset > 20 {
						if err := h.DeleteMessage(t.Context(), room, "", at.Offset-rand.Uint64N(20)); err != nil && !errors.Is(err, ErrNoPosition) && !errors.Is(err, ErrOverloaded) {
							t.Error(err)
						}
					}
					if i%100 == 99 {
						if err := h.DeleteHistory(t.Context(), room); err != nil && !errors.Is(err, ErrOverloaded) {
							t.Error(err)
						}
					}
				}
			})
			var clients sync.WaitGroup
			for n := range 6 {
				clients.Go(func() { heed(t, h, newClient(t, h, l), room, n) })
			}
			clients.Wait()
			close(stop)
			busy.Wait()
			until(t, "all is settled", func() bool { return len(h.Audit()) == 0 })
		})
	}
}

// heed joins the room again and again with what it has, and holds what comes against what it has heard.
func heed(t *testing.T, h *Hub, c *client, room string, n int) {
	gone, to := map[float64]bool{}, 0.0
	epoch, offset := "", 0.0
	for range 6 {
		since := ""
		if epoch != "" {
			since = fmt.Sprintf(`,"since":{"epoch":%q,"offset":%.0f}`, epoch, offset)
		}
		c.say(`{"msg_type":"join_room","room":%q%s,"id":"j"}`, room, since)
		if n%2 == 0 {
			c.deaf.Lock()
			time.Sleep(5 * time.Millisecond)
			c.deaf.Unlock()
		}
		for got := 0; got < 30; got++ {
			m, ok := <-c.got
			if !ok {
				return // too slow
			}
			at, _ := m["offset"].(float64)
			upTo, _ := m["to_offset"].(float64)
			switch m["msg_type"] {
			case "joined":
				if epoch = m["epoch"].(string); m["recovered"] != true {
					offset = at
				}
			case "room_message":
				if gone[at] || at <= to {
					t.Errorf("%v comes though it was taken back; all up to %v were", at, to)
				}
				offset = max(offset, at)
			case "gap":
				offset = max(offset, upTo)
			case "deleted":
				gone[at], to, offset = true, max(to, upTo), max(offset, upTo)
			}
		}
		c.say(`{"msg_type":"leave_room","room":%q,"id":"l"}`, room)
		for m := range c.got {
			at, _ := m["offset"].(float64)
			upTo, _ := m["to_offset"].(float64)
			if m["id"] == "l" {
				break
			}
			offset = max(offset, upTo)
			if m["msg_type"] == "room_message" {
				offset = max(offset, at)
			}
		}
	}
}
