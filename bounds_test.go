package hubbub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

// Each bound, at its edge and one past it, as a client meets it.

func TestEveryFieldAtItsEdge(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	position := func(epoch, offset string) string { return `{"epoch":"` + epoch + `","offset":` + offset + `}` }
	const top = "9007199254740991" // 2^53-1
	s := rawtest.Start(t, hubbub.Config{Rooms: []hubbub.RoomPolicy{{Match: "full*", Presence: "full"}}})
	for _, c := range []struct {
		what      string
		in        string // %s stands for the field
		fits, not string
		code      string // of the second; the first is no error, or another
	}{
		{"an id, a string", `{"msg_type":"ping","id":"%s"}`, x(64), x(65), "bad_message"},
		{"an id, a string that is shorter unescaped", `{"msg_type":"ping","id":"%s"}`, `\u0078` + x(63), `\u0078` + x(64), "bad_message"},
		{"an id of no bytes", `{"msg_type":"ping","id":"%s"}`, "x", "", "bad_message"},
		{"an id, a number", `{"msg_type":"ping","id":%s}`, top, "9007199254740992", "bad_message"},
		{"an id, a number below zero", `{"msg_type":"ping","id":%s}`, "-" + top, "-9007199254740992", "bad_message"},
		{"a room", `{"msg_type":"join_room","room":"%s","id":1}`, x(255), x(256), "bad_room"},
		{"a room in letters of two bytes", `{"msg_type":"join_room","room":"%s","id":1}`, strings.Repeat("é", 127), strings.Repeat("é", 128), "bad_room"},
		{"a room that is left", `{"msg_type":"leave_room","room":"%s","id":1}`, x(255), x(256), "bad_room"},
		{"a room in a resume", `{"msg_type":"resume","rooms":{"%s":null},"id":1}`, x(255), x(256), "bad_room"},
		{"data", `{"msg_type":"join_room","room":"full","data":"%s","id":1}`, x(4094), x(4095), "bad_message"},
		{"a key", `{"msg_type":"room_message","room":"r","content":1,"key":"%s","id":1}`, x(255), x(256), "bad_message"},
		{"a publish_id", `{"msg_type":"room_message","room":"r","content":1,"publish_id":"%s","id":1}`, x(64), x(65), "bad_message"},
		{"a limit", `{"msg_type":"history","room":"r","limit":%s,"id":1}`, "1000", "1001", "bad_message"},
		{"a least limit", `{"msg_type":"history","room":"r","limit":%s,"id":1}`, "1", "0", "bad_message"},
		{"an epoch", `{"msg_type":"join_room","room":"r","since":%s,"id":1}`, position(x(64), "1"), position(x(65), "1"), "bad_message"},
		{"an epoch of no bytes", `{"msg_type":"join_room","room":"r","since":%s,"id":1}`, position("x", "1"), position("", "1"), "bad_message"},
		{"an offset", `{"msg_type":"join_room","room":"r","since":%s,"id":1}`, position("x", top), position("x", "9007199254740992"), "bad_message"},
		{"an offset below zero", `{"msg_type":"join_room","room":"r","since":%s,"id":1}`, position("x", "0"), position("x", "-1"), "bad_message"},
		{"arrays in content", `{"msg_type":"chat","content":%s,"id":1}`, strings.Repeat("[", 127) + strings.Repeat("]", 127), strings.Repeat("[", 128) + strings.Repeat("]", 128), "too_deep"},
		{"objects in a key that is unknown", `{"msg_type":"ping","x":%s,"id":1}`, strings.Repeat(`{"x":`, 126) + "{}" + strings.Repeat("}", 126), strings.Repeat(`{"x":`, 127) + "{}" + strings.Repeat("}", 127), "too_deep"},
	} {
		m := enter(t, s)
		if got := m.raw(c.in, c.fits); got["code"] != nil || got["id"] == nil {
			t.Errorf("%s at its bound: %v", c.what, got)
		}
		if got := m.raw(c.in, c.not); got["code"] != c.code || got["retry"] != false {
			t.Errorf("%s beyond its bound: %v, want %s", c.what, got, c.code)
		}
		m.CloseNow()
	}
}

// A user's name has at most 255 bytes; a Connect hook that gives more lets nobody in.
func TestAUsersNameAtItsEdge(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{Hooks: hubbub.Hooks{Connect: func(_ context.Context, c *hubbub.Connect) error {
		c.User = c.Request.URL.Query().Get("user")
		return nil
	}}})
	a := &member{Client: rawtest.Dial(t, s, "/ws")}
	a.NextJSON()
	name := strings.Repeat("n", 255)
	b := &member{Client: rawtest.Dial(t, s, "/ws?user="+name)}
	b.NextJSON()
	b.ask(`{"msg_type":"chat","content":1}`)
	if got := a.NextJSON(); got["user"] != name {
		t.Errorf("got %v", got)
	}
	rawtest.Dial(t, s, "/ws?user="+name+"n").ExpectCloseFrame(wire.CloseTryLater)
}

// --max-message-bytes counts what is in a message: whole, in pieces, or inflated.
func TestAMessageAtItsBound(t *testing.T) {
	const bound = 1 << 10
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, MaxMessageBytes: bound})
		content := func(n int) string { // of a message of n bytes
			const around = `{"msg_type":"ping","id":1,"x":""}`
			return around[:len(around)-2] + strings.Repeat("x", n-len(around)) + around[len(around)-2:]
		}
		for name, say := range map[string]func(c *rawtest.Client, msg string){
			"whole": func(c *rawtest.Client, msg string) { c.Text(msg) },
			"in two": func(c *rawtest.Client, msg string) {
				c.SendRaw(append(rawtest.Frame(wsclient.Text, false, []byte(msg[:10])), rawtest.Frame(wsclient.Continuation, true, []byte(msg[10:]))...))
			},
			"byte by byte": func(c *rawtest.Client, msg string) { c.SendRaw(rawtest.InFragments(wsclient.Text, []byte(msg), 1)) },
			"with an empty end": func(c *rawtest.Client, msg string) {
				c.SendRaw(append(rawtest.Frame(wsclient.Text, false, []byte(msg)), rawtest.Frame(wsclient.Continuation, true, nil)...))
			},
		} {
			m := enter(t, s)
			say(m.Client, content(bound))
			if got := m.NextJSON(); got["msg_type"] != "pong" {
				t.Errorf("%s, at the bound: %v", name, got)
			}
			say(m.Client, content(bound-1))
			if got := m.NextJSON(); got["msg_type"] != "pong" {
				t.Errorf("%s, below the bound: %v", name, got)
			}
			say(m.Client, content(bound+1))
			m.AnswerClose(wire.CloseTooBig)
		}
		for n, code := range map[int]int{bound: 0, bound + 1: wire.CloseTooBig} {
			c := rawtest.DialDeflate(t, s, "permessage-deflate", "permessage-deflate; server_no_context_takeover; client_no_context_takeover")
			c.Say(wsclient.Binary, make([]byte, n), 2)
			if code != 0 {
				c.AnswerClose(code)
			} else if _, got, _ := c.Hear(); len(got) != n {
				t.Errorf("%d bytes inflated came back as %d", n, len(got))
			}
		}
	})
}

// A resume names more rooms than a client may be in: it is in as many, and told which of the rest it may try again.
func TestAResumeWithTooManyRooms(t *testing.T) {
	eachServerWith(t, hubbub.Config{MaxRoomsPerClient: 3}, func(t *testing.T, s *rawtest.Server) {
		m, token := enterFor(t, s)
		for _, room := range []string{"a", "b", "c"} {
			m.join(room)
		}
		for round := range 2 { // the second time the session is gone, and the resume is as many joins
			if m.Reset(); round == 0 {
				parked(t, s, 1)
			} else {
				token = "of-nobody"
			}
			back, welcome := comeBack(t, s, token)
			if welcome["resumed"] != (round == 0) {
				t.Fatalf("got %v", welcome)
			}
			got := back.raw(`{"msg_type":"resume","id":1,"rooms":{"d":null,"a":null,"b":null,"c":null,"e":null}}`) // d while the others aren't named yet
			in := 0
			for room, answer := range got["rooms"].(map[string]any) {
				switch a := answer.(map[string]any); {
				case a["epoch"] != nil:
					in++
				case a["reason"] != "limit_reached" || a["recovered"] != false:
					t.Errorf("room %s: %v", room, a)
				}
			}
			if in != 3 {
				t.Errorf("it is in %d rooms, and may be in 3: %v", in, got)
			}
			if got := back.ask(`{"msg_type":"join_room","room":"f"}`); got["code"] != "limit_reached" {
				t.Errorf("one room more: %v", got)
			}
			m, token = back, welcome["resume_token"].(string)
		}
	})
}

// What waits for a parked session is bounded by 64 KiB and one message, whoever sends it.
func TestWhatWaitsForAParkedSessionIsBounded(t *testing.T) {
	const most = 64 << 10
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a := enter(t, s)
		b, token := enterFor(t, s)
		b.Reset()
		parked(t, s, 1)
		filler := strings.Repeat("x", 5000)
		sent := 0
		for ; sent < 100; sent++ {
			got := a.ask(fmt.Sprintf(`{"msg_type":"direct_message","to":%q,"content":[%d,%q]}`, b.id, sent, filler))
			if got["msg_type"] == "ack" {
				continue
			}
			if got["code"] != "overloaded" || got["retry"] != true {
				t.Fatalf("got %v", got)
			}
			break
		}
		if bytes := sent * len(filler); bytes < most-2*len(filler) || bytes > most {
			t.Errorf("%d bytes wait for a client that is away, want about %d", bytes, most)
		}
		if err := rawtest.SendTo(s, b.id, filler); !errors.Is(err, hubbub.ErrOverloaded) {
			t.Errorf("Send: %v", err)
		}
		back, _ := comeBack(t, s, token)
		back.raw(`{"msg_type":"resume","id":1,"rooms":{}}`)
		for i := range sent {
			if got := back.NextJSON(); got["msg_type"] != "direct_message" || got["content"].([]any)[0] != float64(i) {
				t.Fatalf("got %v, want number %d", rawtest.Brief(fmt.Append(nil, got)), i)
			}
		}
		if err := rawtest.SendTo(s, back.id, "again"); err != nil {
			t.Error(err)
		}
		back.gets(map[string]any{"msg_type": "direct_message", "from": "server", "content": "again"})
		a.ask(fmt.Sprintf(`{"msg_type":"direct_message","to":%q,"content":1}`, b.id))
		back.gets(map[string]any{"msg_type": "direct_message", "from": a.id, "content": 1.0})
		back.hearsNothing()
	})
}

// One message may be larger than all that may wait.
func TestOneLargeMessageWaitsForAParkedSession(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{MaxMessageBytes: 256 << 10})
	b, token := enterFor(t, s)
	b.Reset()
	parked(t, s, 1)
	large := strings.Repeat("x", 200<<10)
	if err := rawtest.SendTo(s, b.id, large); err != nil {
		t.Fatal(err)
	}
	if err := rawtest.SendTo(s, b.id, "one more"); !errors.Is(err, hubbub.ErrOverloaded) {
		t.Errorf("behind it: %v", err)
	}
	back, _ := comeBack(t, s, token)
	back.raw(`{"msg_type":"resume","id":1,"rooms":{}}`)
	back.gets(map[string]any{"msg_type": "direct_message", "from": "server", "content": large})
}

// A read may hold hundreds of messages that are large when they are inflated. Behind one that waits for the application
// few are: the rest lies there as it came.
func TestAReadBehindAHookIsNotInflated(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		release := make(chan struct{})
		defer close(release)
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 1, HookTimeout: time.Hour, Handlers: handlers{
			"wait": func(context.Context, *hubbub.Message) (any, error) { <-release; return nil, nil },
		}})
		const size = 60_000
		message := deflated(`{"msg_type":"wait","padding":"` + strings.Repeat("a", size) + `"}`)
		c := rawtest.Dial(t, s, "/ws", "Sec-WebSocket-Extensions: permessage-deflate")
		c.SendRaw(bytes.Repeat(message, 60<<10/len(message)))
		kept := func() float64 { return scrape(t, s)[`hubbub_kept_bytes{kind="hooks"}`] }
		rawtest.Eventually(t, "the hook runs", func() bool { return kept() >= size })
		innocent := enter(t, s)
		for range 100 { // as many turns
			innocent.ask(`{"msg_type":"ping"}`)
		}
		if n := kept(); n > 10*size {
			t.Errorf("%v bytes wait behind a hook, of messages of %d", n, size)
		}
	})
}
