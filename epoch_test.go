package hubbub_test

import (
	"fmt"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// Whoever reads a page of a room that isn't there and joins from it has missed nothing, and is told so, also when the
// room was made in between; but not when what was published in it is forgotten.
func TestAPageOfARoomThatIsNotThereIsWhereItBegins(t *testing.T) {
	var none time.Duration
	s, b := startAPI(t, hubbub.Config{Rooms: []hubbub.RoomPolicy{{Match: "*.brief", IdleTTL: &none}}})
	m := enter(t, s)
	place := func(page map[string]any) (string, int) {
		epoch, _ := page["epoch"].(string)
		offset, ok := page["offset"].(float64)
		if epoch == "" || !ok {
			t.Fatalf("no position: %v", page)
		}
		return epoch, int(offset)
	}
	for name, page := range map[string]func(room string) (string, int){
		"socket": func(room string) (string, int) {
			return place(m.raw(`{"msg_type":"history","room":%q,"id":1}`, room))
		},
		"API": func(room string) (string, int) { return place(b.ok("GET", "/rooms/"+room+"/history", "")) },
		"library": func(room string) (string, int) {
			page, err := s.History(t.Context(), room, hubbub.HistoryQuery{})
			if err != nil {
				t.Fatal(err)
			}
			return page.Position.Epoch, int(page.Position.Offset)
		},
		"who was in it": func(room string) (string, int) {
			epoch, offset := m.epochOf(room)
			m.raw(`{"msg_type":"leave_room","room":%q,"id":1}`, room)
			return epoch, offset
		},
	} {
		t.Run(name, func(t *testing.T) {
			room := name[:3]
			epoch, offset := page(room)
			if again, _ := page(room); again != epoch || offset != 0 {
				t.Errorf("got %s, %d, and then %s", epoch, offset, again)
			}
			enter(t, s).rejoins(room, epoch, 0, 0).CloseNow()
			rawtest.Publish(s, room, 1)
			enter(t, s).rejoins(room, epoch, 0, 1).hears(room, 1, 1)

			room += ".brief" // it goes with what was published
			epoch, _ = page(room)
			rawtest.Publish(s, room, 1)
			if got := enter(t, s).raw(`{"msg_type":"join_room","room":%q,"since":%s,"id":1}`, room, at(epoch, 0)); got["reason"] != "epoch" || got["epoch"] == epoch {
				t.Errorf("a message is lost since epoch %s, and the answer is %v", epoch, got)
			}
		})
	}
	// Others that are forgotten meanwhile change nothing.
	epoch, _ := m.epochOf("quiet.brief")
	m.raw(`{"msg_type":"leave_room","room":"quiet.brief","id":1}`)
	for i := range 1000 {
		rawtest.Publish(s, fmt.Sprint(i, ".brief"), 1)
	}
	m.rejoins("quiet.brief", epoch, 0, 0)
}
