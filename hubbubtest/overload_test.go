package hubbubtest_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
	"example.com/hubbub/internal/rawtest"
)

// Too much is held, and who has to go.

// ready is the status of /readyz.
func ready(t *testing.T, srv *hubbubtest.Server) int {
	t.Helper()
	r, err := srv.HTTPClient().Get("http://any.host/readyz")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	return r.StatusCode
}

// The newest message of a room that has members is kept whatever happens; so rooms enough can be too much for good, and
// then nobody is let in, and /readyz says so.
func TestAnOverloadedServerLetsNobodyIn(t *testing.T) {
	const most, size = 1 << 20, 50_000
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{Workers: 2, MaxBufferedBytes: most})
		ann := srv.Connect("ann")
		rooms := 0
		for ; rooms*size < 2*most; rooms++ {
			room := fmt.Sprint("room ", rooms)
			ann.Join(room)
			if err := rawtest.Publish(srv, room, strings.Repeat("x", size)); err != nil {
				t.Fatal(err)
			}
			ann.Receive()
			if rooms*size < most/2 && ready(t, srv) != http.StatusOK {
				t.Fatalf("not ready with %d bytes held", rooms*size)
			}
		}
		if got := ready(t, srv); got != http.StatusServiceUnavailable {
			t.Errorf("/readyz is %d with %d bytes held of %d", got, rooms*size, most)
		}
		_, err := srv.ConnectWith("bob", hubbubtest.Options{})
		if refused := new(hubbubtest.RefusedError); !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable || refused.Header.Get("Retry-After") == "" {
			t.Errorf("an upgrade: %v", err)
		}
		for i := range rooms {
			ann.Leave(fmt.Sprint("room ", i))
		}
		ann.Ping()
		hubbubtest.Step(3 * time.Second)
		if got := ready(t, srv); got != http.StatusOK {
			t.Errorf("/readyz is %d when nobody is in the rooms", got)
		}
		srv.Connect("bob")
	})
}

// Parked sessions go before anybody is closed, the oldest first.
func TestTheOldestParkedSessionsMakeRoom(t *testing.T) {
	const most, size, sessions = 1 << 20, 30_000, 30
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{Workers: 2, MaxBufferedBytes: most})
		ann := srv.Connect("ann")
		var all []*hubbubtest.Client
		for i := range sessions {
			c := srv.Connect(fmt.Sprint("c", i))
			c.Join("r")
			c.Drop()
			hubbubtest.Step(100 * time.Millisecond)
			for range 2 {
				if err := rawtest.SendTo(srv, c.ID, strings.Repeat("x", size)); err != nil {
					t.Fatal(err)
				}
			}
			ann.Ping() // a turn, at the end of which the server looks
			hubbubtest.Step(0)
			all = append(all, c)
		}
		kept := int(figure(t, srv, "hubbub_parked_sessions"))
		if kept == 0 || kept*2*size > most {
			t.Errorf("%d sessions are kept, with %d bytes each, of %d", kept, 2*size, most)
		}
		if a := ann.Request(map[string]any{"msg_type": "presence", "room": "r"}); a.Count != kept {
			t.Errorf("the room counts %d, and %d sessions are kept", a.Count, kept)
		}
		for i, c := range all {
			a := ann.Request(map[string]any{"msg_type": "direct_message", "to": c.ID, "content": 1})
			if gone := a.Code == "unknown_client"; gone != (i < sessions-kept) {
				t.Errorf("session %d of %d, of which %d are kept: %s", i, sessions, kept, a)
			}
		}
		if n := figure(t, srv, `hubbub_closed_total{code="1013"}`); n != 0 {
			t.Errorf("%v clients were closed", n)
		}
	})
}

// Those who have sent half of something large are debtors, too: the largest go.
func TestHalfMessagesAreDebts(t *testing.T) {
	const most, large = 1 << 20, 400_000
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{Workers: 1, MaxBufferedBytes: most, MaxMessageBytes: 512 << 10, SendQueueBytes: 512 << 10})
		small := srv.Connect("small")
		small.SendFrame(1, false, []byte(`{"msg_type":"chat","content":"`))
		closed := func() int { return int(figure(t, srv, `hubbub_closed_total{code="1013"}`)) }
		var all []*hubbubtest.Client
		for sent := 0; closed() == 0; sent += large {
			if sent > 3*most {
				t.Fatalf("%d bytes are half received, of %d, and nobody was closed", sent, most)
			}
			c := srv.Connect(fmt.Sprint("c", sent/large))
			c.SendFrame(1, false, []byte(strings.Repeat("x", large)))
			hubbubtest.Step(time.Second)
			all = append(all, c)
		}
		hubbubtest.Step(5 * time.Second)
		if n := figure(t, srv, "hubbub_buffered_bytes"); n > most {
			t.Errorf("%v bytes are still held", n)
		}
		if n := closed(); n >= len(all) {
			t.Errorf("%d of %d were closed: more than must", n, len(all))
		}
		small.SendFrame(0, true, []byte(`still here"}`))
		small.Ping()
	})
}

// What is half received is held, and in the figure.
func TestHalfAMessageIsCounted(t *testing.T) {
	const size = 40_000
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		before := figure(t, srv, "hubbub_buffered_bytes")
		message := fmt.Sprintf(`{"msg_type":"chat","content":"%s"}`, strings.Repeat("x", size))
		ann.SendFrame(1, false, []byte(message[:size/2]))
		hubbubtest.Step(time.Second)
		if n := figure(t, srv, "hubbub_buffered_bytes") - before; n < size/2 {
			t.Errorf("%v bytes are counted, want %d", n, size/2)
		}
		ann.SendFrame(0, true, []byte(message[size/2:]))
		bob.ExpectChat(strings.Repeat("x", size))
		hubbubtest.Step(time.Second)
		if n := figure(t, srv, "hubbub_buffered_bytes") - before; n != 0 {
			t.Errorf("%v bytes are still counted", n)
		}
	})
}

// Who comes back with a token and says nothing has 10 s; then its session goes on without its rooms, and it gets what
// waited for it.
func TestWhoDoesNotResumeInTimeLeavesItsRooms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		ann.Join("r")
		bob.Join("r")
		count := func() int {
			return bob.Request(map[string]any{"msg_type": "presence", "room": "r"}).Count
		}
		ann.Drop()
		hubbubtest.Step(time.Second)
		bob.Direct(ann, "while you were away")
		back, err := srv.ConnectWith("ann", hubbubtest.Options{Token: ann.Welcome.ResumeToken})
		if err != nil || !back.Welcome.Resumed {
			t.Fatalf("got %s, %v", back.Welcome, err)
		}
		back.ExpectNothing(10*time.Second - time.Millisecond)
		if n := count(); n != 2 {
			t.Errorf("before its time is up the room has %d members", n)
		}
		hubbubtest.Step(time.Second)
		if n := count(); n != 1 {
			t.Errorf("when its time is up the room has %d members", n)
		}
		back.ExpectDirect("while you were away")
		bob.Publish("r", "to those who are here")
		bob.Direct(ann, "still here?")
		back.ExpectDirect("still here?")
		back.ExpectNothing(time.Second)
	})
}
