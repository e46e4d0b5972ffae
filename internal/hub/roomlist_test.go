package hub

import (
	"context"
	"fmt"
	"slices"
	"testing"
)

func TestRoomsByFigures(t *testing.T) {
	h, l := newHub(t, 2)
	crowd := []*client{newClient(t, h, l), newClient(t, h, l), newClient(t, h, l)}
	var want []string
	for i := range 12 { // a room has as many members as its third letter says
		name := fmt.Sprintf("r.%d%02d", i%3+1, i)
		for _, c := range crowd[:i%3+1] {
			c.say(`{"msg_type":"join_room","room":%q}`, name)
			c.sync()
		}
		want = append(want, name)
	}
	slices.SortFunc(want, func(a, b string) int {
		if a[2] != b[2] {
			return int(b[2]) - int(a[2])
		}
		return slices.Compare([]byte(a), []byte(b))
	})
	all := func(q RoomQuery) (names []string) {
		for more := true; more; {
			list, again, err := h.RoomsAfter(context.Background(), q)
			if err != nil || len(list) == 0 || len(list) > q.Limit {
				t.Fatal(list, err)
			}
			for _, r := range list {
				names = append(names, r.Name)
				q.After, q.Figure = r.Name, q.Order.figure(r)
			}
			more = again
		}
		return names
	}
	for limit := 1; limit < 14; limit++ {
		if got := all(RoomQuery{Order: ByMembers, Prefix: "r.", Limit: limit}); !slices.Equal(got, want) {
			t.Errorf("%d at a time: %v, want %v", limit, got, want)
		}
	}
	if got := all(RoomQuery{Contains: "11", Limit: 5}); !slices.Equal(got, []string{"r.111", "r.311"}[1:]) && !slices.Equal(got, []string{"r.311"}) {
		t.Error(got)
	}
	for range 5 {
		crowd[0].say(`{"msg_type":"room_message","room":"r.205","content":1}`)
	}
	crowd[0].sync()
	if got := all(RoomQuery{Order: ByRate, Limit: 3}); got[0] != "r.3"+"05" && got[0] != "r.205" {
		t.Error(got)
	}
}

func TestPace(t *testing.T) {
	var p pace
	const at = 1_767_225_600_000
	for i := range 100 {
		p.add(at + int64(i)*100) // ten a second, a whole window
	}
	for _, then := range []struct{ ms, want int64 }{{9_999, 100}, {10_000, 100}, {15_000, 50}, {19_999, 0}, {20_000, 0}, {90_000, 0}} {
		if got := p.recent(at + then.ms); int64(got) != then.want {
			t.Errorf("%d ms later %d, want %d", then.ms, got, then.want)
		}
	}
	p.add(at + 12_000)
	p.add(at + 9_000)  // a little late
	p.add(at - 60_000) // from the log
	if got := p.recent(at + 15_000); got != 52 {
		t.Error(got)
	}
	p.add(at + 60_000)
	if got := p.recent(at + 60_000); got != 1 {
		t.Error(got)
	}
}
