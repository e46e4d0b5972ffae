package hubbubtest

import (
	"fmt"
	"strings"
	"testing"

	"example.com/hubbub/internal/model"
)

// What a client makes of a server that has history: it knows how far it has come by joins, messages and gaps.
func TestAClientKnowsItsPosition(t *testing.T) {
	c := &Client{Name: "bob", server: &Server{}, news: make(chan struct{}, 1), requests: map[string]model.Event{}, rooms: map[string]bool{}, positions: map[string]Position{}}
	at := func(want string) {
		t.Helper()
		if p := c.Position("r"); fmt.Sprint(p.Epoch, p.Offset) != want {
			t.Errorf("it is at %+v, want %s", p, want)
		}
	}
	join := func(id int, m map[string]any) {
		m["msg_type"], m["room"], m["id"] = "join_room", "r", id
		c.sent(m)
	}
	c.received([]byte(`{"msg_type":"welcome","client_id":"b"}`))
	join(1, map[string]any{})
	c.received([]byte(`{"msg_type":"joined","room":"r","id":1,"epoch":"e","offset":7}`))
	at("e7")
	c.received([]byte(`{"msg_type":"room_message","from":"a","content":1,"room":"r","time":5,"offset":9}`))
	at("e9")
	c.received([]byte(`{"msg_type":"gap","room":"r","count":2,"reason":"drop-oldest","from_offset":10,"to_offset":12}`))
	at("e12")
	c.sent(map[string]any{"msg_type": "leave_room", "room": "r", "id": 2})
	c.received([]byte(`{"msg_type":"left","room":"r","id":2}`))
	at("e12")
	join(3, map[string]any{"since": Position{"e", 12}})
	c.received([]byte(`{"msg_type":"joined","room":"r","id":3,"epoch":"e","offset":20,"recovered":true}`))
	at("e12") // what it missed is still to come
	c.received([]byte(`{"msg_type":"room_message","from":"a","content":2,"room":"r","time":5,"offset":20}`))
	at("e20")
	c.received([]byte(`{"msg_type":"left","room":"r","reason":"kicked"}`))
	join(4, map[string]any{"since": Position{"e", 20}})
	c.received([]byte(`{"msg_type":"joined","room":"r","id":4,"epoch":"f","offset":3,"recovered":false,"reason":"epoch"}`))
	at("f3")
	c.sent(map[string]any{"msg_type": "room_message", "room": "r", "content": 3, "id": 5, "key": "k"})
	c.received([]byte(`{"msg_type":"ack","id":5,"epoch":"f","offset":4}`))
	at("f3") // its own message doesn't come, and moves nothing
	c.sent(map[string]any{"msg_type": "room_message", "room": "r", "content": 4, "id": 6})
	c.received([]byte(`{"msg_type":"error","code":"forbidden","message":"no","retry":false,"id":6}`))

	want := strings.TrimSpace(strings.ReplaceAll(`
		1 join sent id=1 in "r"
		2 joined id=1 in "r" epoch=e offset=7
		3 received in "r" message=1 from=a epoch=e offset=9
		4 gap in "r" count=2 from_offset=10 to_offset=12 reason=drop-oldest
		5 leave sent id=2 in "r"
		6 left id=2 in "r"
		7 join sent id=3 in "r" since=e/12
		8 joined id=3 in "r" epoch=e offset=20 recovered=true
		9 received in "r" message=2 from=a epoch=e offset=20
		10 left in "r" reason=kicked
		11 join sent id=4 in "r" since=e/20
		12 joined id=4 in "r" epoch=f offset=3 reason=epoch
		13 sent id=5 in "r" message=3 key=k
		14 acked id=5 in "r" epoch=f offset=4
		15 sent id=6 in "r" message=4
		16 refused id=6 in "r" reason=forbidden`, "\t\t", "  bob: "))
	if got := strings.TrimSpace(c.Log()); got != want {
		t.Errorf("the log is\n%s\nwant\n%s", got, want)
	}
}

// Joining, leaving and joining again without a look at the answers: the position is that of the second join.
func TestAClientThatJoinsAgainAtOnceIsWhereItJoinedLast(t *testing.T) {
	c := &Client{Name: "bob", server: &Server{}, news: make(chan struct{}, 1), requests: map[string]model.Event{}, rooms: map[string]bool{}, positions: map[string]Position{}}
	for id, kind := range []string{"join_room", "leave_room", "join_room"} {
		c.sent(map[string]any{"msg_type": kind, "room": "r", "id": id})
	}
	c.received([]byte(`{"msg_type":"joined","room":"r","id":0,"epoch":"e","offset":7}`))
	c.received([]byte(`{"msg_type":"left","room":"r","id":1}`))
	c.received([]byte(`{"msg_type":"joined","room":"r","id":2,"epoch":"f","offset":3}`))
	if p := c.Position("r"); p != (Position{"f", 3}) {
		t.Errorf("it is at %+v, want 3 in the epoch f", p)
	}
}
