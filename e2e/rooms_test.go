package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// It dials the bare address, sends no ids, and knows three kinds.
func TestTheSimplestClientWorks(t *testing.T) {
	eachClient(t, nil, func(t *testing.T, s *server, dial dialer) {
		a, b, c := dial(t, s.ws("/")).welcomed(), dial(t, s.ws("/")).welcomed(), dial(t, s.ws("")).welcomed()
		for _, member := range []*client{a, b} {
			member.send(`{"msg_type":"join_room","room":"r"}`)
			member.sync() // a join without an id has no answer
		}

		a.send(`{"msg_type":"room_message","room":"r","content":"hi"}`)
		m := b.message("room_message")
		if want := `{"msg_type":"room_message","from":"` + a.id + `","content":"hi","room":"r","time":`; !strings.HasPrefix(m.text, want) {
			t.Errorf("got  %s\nwant %s...", m.text, want)
		}
		settle(a, c) // who is not in the room hears nothing of it
		a.sync()     // nor does the sender

		b.send(`{"msg_type":"chat","content":"x"}`)
		for _, other := range []*client{a, c} {
			m := other.message("chat")
			if want := `{"msg_type":"chat","from":"` + b.id + `","content":"x","time":`; !strings.HasPrefix(m.text, want) {
				t.Errorf("got  %s\nwant %s...", m.text, want)
			}
		}
		b.send(`{"msg_type":"chat"}`)
		if m := a.message("chat"); m.raw("content") != `""` {
			t.Errorf("a chat without content: %s", m.text)
		}
		b.sync()

		now := time.Now().UnixMilli()
		if sent := m.num("time"); sent < now-60_000 || sent > now+1000 {
			t.Errorf("time %d, now is %d", sent, now)
		}
	})
}

func TestWelcomeComesFirst(t *testing.T) {
	eachClient(t, []string{"--max-message-bytes", "32KiB", "--ping-interval", "20s", "--pong-timeout", "7s"}, func(t *testing.T, s *server, dial dialer) {
		seen := map[string]bool{}
		for _, path := range []string{"/", "/ws", "/ws?x=1"} {
			c := dial(t, s.ws(path)).opened()
			m := c.message("welcome")
			id := m.str("client_id")
			if !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(id) || seen[id] {
				t.Errorf("client_id %q is no new UUID", id)
			}
			seen[id] = true
			for key, want := range map[string]int64{"protocol": 1, "max_message_bytes": 32 << 10, "ping_interval_ms": 20_000, "pong_timeout_ms": 7000} {
				if got := m.num(key); got != want {
					t.Errorf("%s: %d, want %d", key, got, want)
				}
			}
			if m.str("resume_token") == "" || m.num("resume_window_ms") != 30_000 || m.raw("resumed") != "false" || strings.ContainsAny(m.text, " \n\t") {
				t.Errorf("welcome: %s", m.text)
			}
		}
	})
}

func TestEcho(t *testing.T) {
	eachClient(t, nil, func(t *testing.T, s *server, dial dialer) {
		c := dial(t, s.ws("/echo")).opened()
		for _, size := range []int{0, 1, 125, 126, 127, 4096, 65_535, 65_536} {
			in := strings.Repeat("x", size)
			c.send(in)
			if got := c.expect("text").Data; got != in {
				t.Errorf("text of %d bytes came back as %d", size, len(got))
			}
			c.sendBinary([]byte(in))
			if got := c.expectBinary(); got != in {
				t.Errorf("binary of %d bytes came back as %d", size, len(got))
			}
		}
		for _, in := range []string{"äöü €", "日本語", "𝄞🎉\U0010ffff", "\u0000\u0001", `{"msg_type":"ping"}`} {
			c.send(in)
			if got := c.expect("text").Data; got != in {
				t.Errorf("%q came back as %q", in, got)
			}
		}
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		c.sendBinary(every)
		if got := c.expectBinary(); got != string(every) {
			t.Errorf("every byte once came back as %x", got)
		}
		c.sendFragments("one ", "", "two € ", "three")
		if got := c.expect("text").Data; got != "one two € three" {
			t.Errorf("fragments came back as %q", got)
		}
		for i := range 500 { // in order, and none lost
			c.send(fmt.Sprint(i))
		}
		for i := range 500 {
			if got := c.expect("text").Data; got != fmt.Sprint(i) {
				t.Fatalf("echo %q, want %d", got, i)
			}
		}
	})
}

func TestAnswersArePairedById(t *testing.T) {
	eachClient(t, nil, func(t *testing.T, s *server, dial dialer) {
		c := dial(t, s.ws("/ws")).welcomed()
		for _, id := range []string{`0`, `7`, `7`, `-1`, `9007199254740991`, `"a"`, `"é\n"`, `"` + strings.Repeat("x", 64) + `"`} {
			for text, answer := range map[string]string{
				`{"msg_type":"chat","content":1,"id":%s}`:                      "ack",
				`{"id":%s,"msg_type":"join_room","room":"ids"}`:                "joined",
				`{"msg_type":"room_message","room":"ids","content":1,"id":%s}`: "ack",
				`{"msg_type":"leave_room","room":"ids","id":%s}`:               "left",
				`{"msg_type":"ping","id":%s}`:                                  "pong",
				`{"msg_type":"no_such_kind","id":%s}`:                          "error",
			} {
				if m := c.ask(fmt.Sprintf(text, id), answer); m.raw("id") != id {
					t.Errorf("the id %s is answered by %s", id, m.text)
				}
			}
		}
		// Without an id only a fault, and ping, is answered.
		c.send(`{"msg_type":"chat","content":1}`)
		c.send(`{"msg_type":"join_room","room":"ids"}`)
		c.send(`{"msg_type":"room_message","room":"ids","content":1}`)
		c.send(`{"msg_type":"leave_room","room":"ids"}`)
		if m := c.ask(`{"msg_type":"ping"}`, "pong"); m.has("id") || m.num("time") == 0 {
			t.Errorf("pong: %s", m.text)
		}
		for _, id := range []string{`9007199254740992`, `1.5`, `1e3`, `""`, `"` + strings.Repeat("x", 65) + `"`, `null`, `true`, `[1]`} {
			m := c.ask(`{"msg_type":"ping","id":`+id+`}`, "error")
			if m.str("code") != "bad_message" {
				t.Errorf("the id %s: %s", id, m.text)
			}
		}
	})
}

func TestLeaving(t *testing.T) {
	eachClient(t, nil, func(t *testing.T, s *server, dial dialer) {
		a, b := dial(t, s.ws("/ws")).welcomed(), dial(t, s.ws("/ws")).welcomed()
		b.join("one")
		b.join("two")
		if m := b.ask(`{"msg_type":"leave_room","room":"one","id":1}`, "left"); m.str("room") != "one" {
			t.Errorf("left: %s", m.text)
		}
		a.send(`{"msg_type":"room_message","room":"one","content":"not for b"}`)
		a.send(`{"msg_type":"room_message","room":"two","content":"for b"}`)
		if m := b.message("room_message"); m.raw("content") != `"for b"` || m.str("room") != "two" {
			t.Errorf("b got %s", m.text)
		}
		b.ask(`{"msg_type":"leave_room","room":"one","id":2}`, "left") // to leave twice is to leave once
		b.join("one")
		a.send(`{"msg_type":"room_message","room":"one","content":"again"}`)
		if m := b.message("room_message"); m.raw("content") != `"again"` {
			t.Errorf("b got %s", m.text)
		}
		settle(a, b)
	})
}

func TestJoiningTwiceIsJoiningOnce(t *testing.T) {
	eachClient(t, nil, func(t *testing.T, s *server, dial dialer) {
		a, b := dial(t, s.ws("/ws")).welcomed(), dial(t, s.ws("/ws")).welcomed()
		for range 3 {
			b.join("twice")
		}
		a.send(`{"msg_type":"room_message","room":"twice","content":1}`)
		b.message("room_message")
		settle(a, b) // no second copy
		b.ask(`{"msg_type":"leave_room","room":"twice","id":1}`, "left")
		a.send(`{"msg_type":"room_message","room":"twice","content":2}`)
		settle(a, b) // and one leave is enough
	})
}

func TestRoomNamesAreComparedByteForByte(t *testing.T) {
	eachClient(t, nil, func(t *testing.T, s *server, dial dialer) {
		a, b := dial(t, s.ws("/ws")).welcomed(), dial(t, s.ws("/ws")).welcomed()
		names := []string{"room", "Room", " room", "room.*", "caf\u00e9", "cafe\u0301", "a/b>c", `q"\\`, "🎉", strings.Repeat("n", 255)}
		for _, name := range names {
			b.join(name)
		}
		for i, name := range names {
			a.sendf(`{"msg_type":"room_message","room":%q,"content":%d}`, name, i)
			m := b.message("room_message")
			if m.str("room") != name || m.num("content") != int64(i) {
				t.Errorf("to %q: %s", name, m.text)
			}
		}
		// The same name, escaped.
		a.send(`{"msg_type":"room_message","room":"\u0072oom","content":"escaped"}`)
		if m := b.message("room_message"); m.str("room") != "room" {
			t.Errorf("escaped: %s", m.text)
		}
		settle(a, b)
	})
}

func TestMessagesOfARoomHaveOneOrder(t *testing.T) {
	eachClient(t, nil, func(t *testing.T, s *server, dial dialer) {
		const each = 300
		var members []*client
		for range 3 {
			c := dial(t, s.ws("/ws")).welcomed()
			c.join("order")
			members = append(members, c)
		}
		a, b := dial(t, s.ws("/ws")).welcomed(), dial(t, s.ws("/ws")).welcomed()
		for i := range each {
			a.sendf(`{"msg_type":"room_message","room":"order","content":"a%d"}`, i)
			b.sendf(`{"msg_type":"room_message","room":"order","content":"b%d"}`, i)
		}
		var first []string
		for i, c := range members {
			var got []string
			next := map[string]int{}
			for range 2 * each {
				content := c.message("room_message").str("content")
				if want := fmt.Sprint(content[:1], next[content[:1]]); content != want {
					t.Fatalf("got %q, want %q", content, want)
				}
				next[content[:1]]++
				got = append(got, content)
			}
			if i == 0 {
				first = got
			} else if strings.Join(got, " ") != strings.Join(first, " ") {
				t.Error("two members saw two orders")
			}
		}
	})
}

func TestDirectMessage(t *testing.T) {
	eachClient(t, nil, func(t *testing.T, s *server, dial dialer) {
		a, b, c := dial(t, s.ws("/ws")).welcomed(), dial(t, s.ws("/")).welcomed(), dial(t, s.ws("/")).welcomed()
		m := a.ask(fmt.Sprintf(`{"msg_type":"direct_message","to":%q,"content":"psst","id":1}`, b.id), "ack")
		if m.raw("id") != "1" {
			t.Errorf("ack: %s", m.text)
		}
		m = b.message("direct_message")
		if want := `{"msg_type":"direct_message","from":"` + a.id + `","content":"psst","time":`; !strings.HasPrefix(m.text, want) {
			t.Errorf("got  %s\nwant %s...", m.text, want)
		}
		settle(a, c) // nobody else got it

		// To oneself too.
		a.sendf(`{"msg_type":"direct_message","to":%q,"content":"me"}`, a.id)
		if m := a.message("direct_message"); m.str("from") != a.id || m.raw("content") != `"me"` {
			t.Errorf("to oneself: %s", m.text)
		}

		for _, to := range []string{"00000000-0000-4000-8000-000000000000", "nobody"} {
			m := a.ask(fmt.Sprintf(`{"msg_type":"direct_message","to":%q,"content":1,"id":"x"}`, to), "error")
			if m.str("code") != "unknown_client" || m.raw("id") != `"x"` || m.raw("retry") != "false" {
				t.Errorf("to %q: %s", to, m.text)
			}
			m = a.ask(fmt.Sprintf(`{"msg_type":"direct_message","to":%q,"content":1}`, to), "error")
			if m.str("code") != "unknown_client" || m.has("id") {
				t.Errorf("to %q without an id: %s", to, m.text)
			}
		}

		// Who has left is unknown.
		b.close(1000, "")
		b.expect("close")
		deadline := time.Now().Add(patience)
		for {
			a.sendf(`{"msg_type":"direct_message","to":%q,"content":1,"id":2}`, b.id)
			e := a.expect("text")
			if strings.Contains(e.Data, "unknown_client") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("a client that has left is still known")
			}
		}
	})
}

func TestContentArrivesByteForByte(t *testing.T) {
	eachClient(t, nil, func(t *testing.T, s *server, dial dialer) {
		a, b := dial(t, s.ws("/ws")).welcomed(), dial(t, s.ws("/ws")).welcomed()
		b.join("bytes")
		for _, content := range []string{
			`null`, `true`, `0`, `-0`, `1.50`, `1e400`, `12345678901234567890.123456789`, `""`, `"\u00e9é\/\ud83c\udf89"`,
			`[ 1 , 2 ]`, `{ "a":1, "a" : 2 , "msg_type":"x"}`, `{}`, `"<script>&amp;"`, "\"\u2028\"",
			strings.Repeat("[", 120) + strings.Repeat("]", 120),
			`"` + strings.Repeat("long ", 12_000) + `"`,
		} {
			a.send(`{"msg_type":"room_message","room":"bytes","content":` + content + `}`)
			m := b.message("room_message")
			if want := `"from":"` + a.id + `","content":` + content + `,"room":"bytes"`; !strings.Contains(m.text, want) {
				t.Errorf("content %.200s arrived as %.300s", content, m.text)
			}
		}
	})
}

func TestBadInputIsAnsweredAndTheConnectionLivesOn(t *testing.T) {
	deep := strings.Repeat("[", 129) + strings.Repeat("]", 129)
	veryDeep := strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000)
	room := func(name string) string { return `{"msg_type":"join_room","room":"` + name + `"}` }
	cases := []struct{ text, codes string }{
		{``, "bad_json"},
		{`{`, "bad_json"},
		{`hello`, "bad_json"},
		{`{"msg_type":"ping"`, "bad_json"},
		{`{"msg_type":"ping"} x`, "bad_json"},
		{`{"msg_type":"ping",}`, "bad_json"},
		{`{'msg_type':'ping'}`, "bad_json"},
		{`{"msg_type":"chat","content":01}`, "bad_json"},
		{`{"msg_type":"chat","content":"` + "\t" + `"}`, "bad_json"},
		{`{"msg_type":"chat","content":NaN}`, "bad_json"},
		{`{"msg_type":"chat","content":"\ud800"}`, "bad_json bad_message"},
		{`{"msg_type":"chat","content":"\udc00\ud800"}`, "bad_json bad_message"},
		{`[]`, "bad_json bad_message"},
		{`"ping"`, "bad_json bad_message"},
		{`null`, "bad_json bad_message"},
		{`{}`, "bad_message"},
		{`{"msg_type":7}`, "bad_message"},
		{`{"msg_type":null}`, "bad_message"},
		{`{"MSG_TYPE":"ping"}`, "bad_message"},
		{`{"msg_type":"ping","msg_type":"ping"}`, "bad_json bad_message"},
		{`{"msg_type":"ping","x":1,"x":2}`, "bad_json bad_message"},
		{`{"msg_type":"ping","msg_\u0074ype":"ping"}`, "bad_json bad_message"},
		{`{"msg_type":"no_such_kind"}`, "unknown_type"},
		{`{"msg_type":""}`, "unknown_type"},
		{`{"msg_type":"Chat"}`, "unknown_type"},
		{`{"msg_type":"welcome"}`, "unknown_type"},
		{`{"msg_type":"join_room"}`, "bad_message"},
		{`{"msg_type":"join_room","room":7}`, "bad_message"},
		{`{"msg_type":"join_room","Room":"r"}`, "bad_message"},
		{`{"msg_type":"leave_room"}`, "bad_message"},
		{`{"msg_type":"room_message","room":"r"}`, "bad_message"},
		{`{"msg_type":"room_message","content":1}`, "bad_message"},
		{`{"msg_type":"direct_message","content":1}`, "bad_message"},
		{`{"msg_type":"direct_message","to":7,"content":1}`, "bad_message"},
		{room(``), "bad_room"},
		{room(`   `), "bad_room"},
		{room(`a\u0000b`), "bad_room"},
		{room(`a\nb`), "bad_room"},
		{room("a\u0085b"), "bad_room"},
		{room("a\u2028b"), "bad_room"},
		{room("a\u2029b"), "bad_room"},
		{room("a\u202eb"), "bad_room"},
		{room("a\u2066b"), "bad_room"},
		{room(strings.Repeat("n", 256)), "bad_room"},
		{room(strings.Repeat("€", 86)), "bad_room"},
		{`{"msg_type":"chat","content":` + deep + `}`, "too_deep"},
		{`{"msg_type":"chat","content":` + veryDeep + `}`, "too_deep"},
	}
	eachClient(t, nil, func(t *testing.T, s *server, dial dialer) {
		c := dial(t, s.ws("/ws")).welcomed()
		check := func(sent, codes string) {
			t.Helper()
			m := c.message("error")
			code := m.str("code")
			if !strings.Contains(" "+codes+" ", " "+code+" ") || m.str("message") == "" || m.raw("retry") != "false" {
				t.Errorf("%.100s is answered by %.300s, want %s", sent, m.text, codes)
			}
			c.sync()
		}
		for _, bad := range cases {
			c.send(bad.text)
			check(bad.text, bad.codes)
		}
		c.sendBinary([]byte(`{"msg_type":"ping"}`))
		check("a binary frame", "binary")
		c.sendBinary(nil)
		check("an empty binary frame", "binary")

		// Nothing to complain about: unknown keys, and white space.
		c.send(" \r\n{ \"x\" : [ { } ] , \"msg_type\" : \"ping\" }\t")
		c.message("pong")
		c.sendFragments(`{"msg_type":`, ``, `"pi`, `ng"}`)
		c.message("pong")
	})
}

func TestTooLongAMessageClosesWith1009(t *testing.T) {
	eachClient(t, nil, func(t *testing.T, s *server, dial dialer) {
		long := strings.Repeat("x", 64<<10)
		for _, path := range []string{"/ws", "/echo"} {
			c := dial(t, s.ws(path)).opened()
			if path == "/ws" {
				c.message("welcome")
			}
			c.send(long + "y")
			if e := c.expect("close"); e.Code != 1009 {
				t.Errorf("%s: closed with %d, want 1009", path, e.Code)
			}
		}
		c := dial(t, s.ws("/ws")).welcomed()
		c.sendFragments(long[:40_000], long[:40_000])
		if e := c.expect("close"); e.Code != 1009 {
			t.Errorf("in fragments: closed with %d, want 1009", e.Code)
		}
		// Exactly the limit is fine.
		c = dial(t, s.ws("/ws")).welcomed()
		head, tail := `{"msg_type":"chat","id":1,"content":"`, `"}`
		c.ask(head+long[:64<<10-len(head)-len(tail)]+tail, "ack")
	})
}

func TestPingAndPong(t *testing.T) {
	flags := []string{"--ping-interval", "1s", "--pong-timeout", "3s"}
	eachClient(t, flags, func(t *testing.T, s *server, dial dialer) {
		room, echo := dial(t, s.ws("/ws")).welcomed(), dial(t, s.ws("/echo")).opened()
		for _, c := range []*client{room, echo} {
			for _, payload := range []string{"are you there?", strings.Repeat("p", 125)} {
				c.ping(payload)
				if got := c.expect("pong").Data; got != payload {
					t.Errorf("pong %q, want %q", got, payload)
				}
			}
		}
		// They say nothing but answer the server's pings, so they stay.
		time.Sleep(5500 * time.Millisecond)
		room.sync()
		echo.send("still here")
		if got := echo.expect("text").Data; got != "still here" {
			t.Errorf("echo %q", got)
		}
	})
}

func TestClosingIsAnswered(t *testing.T) {
	eachClient(t, nil, func(t *testing.T, s *server, dial dialer) {
		for _, path := range []string{"/ws", "/echo"} {
			c := dial(t, s.ws(path)).opened()
			if path == "/ws" {
				c.message("welcome")
			}
			c.close(3456, "so long")
			if e := c.expect("close"); e.Code != 3456 {
				t.Errorf("%s: closed with %d, want 3456", path, e.Code)
			}
		}
	})
}

func TestForeignOriginIsRefused(t *testing.T) {
	eachClient(t, nil, func(t *testing.T, s *server, dial dialer) {
		if e := dial(t, s.ws("/ws"), "Origin=https://evil.example").expect("refused"); e.Status != 403 {
			t.Errorf("status %d, want 403", e.Status)
		}
		dial(t, s.ws("/ws"), "Origin=http://"+s.addr).welcomed()
	})
}

func TestMaxRoomsPerClient(t *testing.T) {
	eachClient(t, []string{"--max-rooms-per-client", "2"}, func(t *testing.T, s *server, dial dialer) {
		c, other := dial(t, s.ws("/ws")).welcomed(), dial(t, s.ws("/ws")).welcomed()
		c.join("one")
		c.join("two")
		c.join("two") // it is in there already
		m := c.ask(`{"msg_type":"join_room","room":"three","id":3}`, "error")
		if m.str("code") != "limit_reached" || m.raw("id") != "3" || m.raw("retry") != "true" {
			t.Errorf("the third room: %s", m.text)
		}
		other.join("three") // the limit is each client's own
		other.send(`{"msg_type":"room_message","room":"three","content":1}`)
		settle(other, c)
		c.ask(`{"msg_type":"leave_room","room":"one","id":4}`, "left")
		c.join("three")
	})
}
