package hubbub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// comeBack connects with a token and reads the welcome.
func comeBack(t testing.TB, s *rawtest.Server, token string) (m *member, welcome map[string]any) {
	t.Helper()
	m = &member{Client: rawtest.Dial(t, s, "/ws?resume="+token)}
	welcome = m.NextJSON()
	if welcome["msg_type"] != "welcome" {
		t.Fatalf("the first message is %v, want welcome", welcome)
	}
	m.id = welcome["client_id"].(string)
	return m, welcome
}

// enterFor is enter, and gives the token too.
func enterFor(t testing.TB, s *rawtest.Server) (m *member, token string) {
	t.Helper()
	m, welcome := comeBack(t, s, "")
	token, _ = welcome["resume_token"].(string)
	if token == "" || welcome["resumed"] != false || welcome["resume_window_ms"] == 0.0 {
		t.Fatalf("no token: %v", welcome)
	}
	return m, token
}

// parked waits until so many sessions are.
func parked(t testing.TB, s *rawtest.Server, n float64) {
	t.Helper()
	scraped(t, s, map[string]float64{"parked_sessions": n})
}

func TestASessionIsResumedWithAllItMissed(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a := enter(t, s)
		b, token := enterFor(t, s)
		epoch, _ := b.epochOf("r")
		other, _ := b.epochOf("quiet")
		b.join("left")
		a.publish("r", 1, 2)
		b.hears("r", 1, 2)
		b.publish("r", 3, 3) // its own doesn't come back
		b.Reset()
		parked(t, s, 1)
		a.publish("r", 4, 6)
		if got := a.ask(`{"msg_type":"direct_message","to":"` + b.id + `","content":"hello"}`); got["msg_type"] != "ack" {
			t.Fatalf("a message to a parked session: %v", got)
		}
		back, welcome := comeBack(t, s, token)
		if welcome["resumed"] != true || back.id != b.id || welcome["resume_token"] == token {
			t.Fatalf("got %v, want the session of %s", welcome, b.id)
		}
		a.publish("r", 7, 7)
		a.ask(`{"msg_type":"direct_message","to":"` + b.id + `","content":"again"}`)
		got := back.raw(`{"msg_type":"resume","id":"x","rooms":{"r":%s,"quiet":%s}}`, at(epoch, 2), at(other, 0))
		want := fmt.Sprint(map[string]any{"msg_type": "resumed", "id": "x", "rooms": map[string]any{
			"r":     map[string]any{"epoch": epoch, "offset": 7.0, "recovered": true},
			"quiet": map[string]any{"epoch": other, "offset": 0.0, "recovered": true},
		}})
		if fmt.Sprint(got) != want {
			t.Fatalf("got  %v\nwant %s", got, want)
		}
		back.gets(map[string]any{"msg_type": "direct_message", "from": a.id, "content": "hello"})
		back.gets(map[string]any{"msg_type": "direct_message", "from": a.id, "content": "again"})
		back.hears("r", 4, 7)
		a.publish("r", 8, 8)
		back.hears("r", 8, 8)
		a.publish("left", 1, 1) // it was not named
		back.hearsNothing()
		parked(t, s, 0)
	})
}

func TestWhatEndsASession(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		for name, leave := range map[string]func(m *member){
			"1000": func(m *member) { m.SendClose(1000, ""); m.ExpectClose(1000) },
			"1001": func(m *member) { m.SendClose(1001, ""); m.ExpectClose(1001) },
			"none": func(m *member) { m.SendRaw([]byte{0x88, 0x80, 0, 0, 0, 0}); m.ExpectClose(1005) },
		} {
			m, token := enterFor(t, s)
			m.join("r")
			leave(m)
			m.CloseNow()
			scraped(t, s, map[string]float64{"connections": 0, "parked_sessions": 0, "rooms": 0})
			if back, welcome := comeBack(t, s, token); welcome["resumed"] != false || back.id == m.id {
				t.Errorf("%s: %v", name, welcome)
			} else {
				back.SendClose(1000, "")
				back.ExpectClose(1000)
			}
		}
		for name, fault := range map[string]func(m *member){ // which is no good-bye
			"not masked": func(m *member) { m.SendRaw([]byte{0x81, 0x00}); m.ExpectClose(1002) },
			// A proxy may have sent it, and the client, who is told nothing, comes back.
			"a Close that is not masked": func(m *member) { m.SendRaw([]byte{0x88, 2, 0x03, 0xe9}); m.ExpectEOF() },
		} {
			m, token := enterFor(t, s)
			fault(m)
			parked(t, s, 1)
			if back, welcome := comeBack(t, s, token); welcome["resumed"] != true || back.id != m.id {
				t.Errorf("%s: %v", name, welcome)
			} else {
				back.SendClose(1000, "")
				back.ExpectClose(1000)
			}
		}
	})
}

func TestALiveConnectionIsTakenOver(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		m, token := enterFor(t, s)
		epoch, _ := m.epochOf("r")
		a := enter(t, s)
		a.publish("r", 1, 1)
		m.hears("r", 1, 1)
		for round := range 5 {
			next, welcome := comeBack(t, s, token)
			if welcome["resumed"] != true || next.id != m.id {
				t.Fatalf("round %d: %v", round, welcome)
			}
			m.AnswerClose(4001)
			token = welcome["resume_token"].(string)
			if got := next.raw(`{"msg_type":"resume","id":1,"rooms":{"r":%s}}`, at(epoch, 1)); got["msg_type"] != "resumed" {
				t.Fatalf("got %v", got)
			}
			m = next
		}
		a.publish("r", 2, 2)
		m.hears("r", 2, 2)
		m.hearsNothing()
	})
}

// The old token counts until the client has said something over the new connection: the welcome may have been lost.
func TestTheOldTokenCountsUntilTheNewConnectionIsHeard(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		m, first := enterFor(t, s)
		m.Reset()
		parked(t, s, 1)
		lost, _ := comeBack(t, s, first)
		lost.Reset() // it never got the welcome, for all the client knows
		m, welcome := comeBack(t, s, first)
		if welcome["resumed"] != true {
			t.Fatalf("got %v", welcome)
		}
		m.ask(`{"msg_type":"ping"}`)
		if thief, welcome := comeBack(t, s, first); welcome["resumed"] != false || thief.id == m.id {
			t.Errorf("a token that was used: %v", welcome)
		}
		m.hearsNothing()
	})
}

// What a client sends before it is known which session it has isn't read, however much it is: the session that it wants
// has ended, and the application is asked once more. Then all of it is obeyed.
func TestNothingIsReadBeforeTheWelcome(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		asked, answer := make(chan bool), make(chan bool)
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 1, HookTimeout: time.Hour, Hooks: hubbub.Hooks{Connect: func(_ context.Context, c *hubbub.Connect) error {
			if c.Request.URL.Query().Get("resume") != "" {
				asked <- true
				<-answer
			}
			return nil
		}}})
		innocent := enter(t, s)
		ann, token := enterFor(t, s)
		back := rawtest.Connect(t, s)
		back.SendRaw([]byte(rawtest.Upgrade(s, "/ws?resume="+token)))
		<-asked
		ann.SendClose(1000, "")
		ann.ExpectClose(1000)
		scraped(t, s, map[string]float64{"connections": 2})
		answer <- true
		back.ExpectUpgrade()
		<-asked
		const pings, size = 10_000, 1000
		sent := make(chan error, 1)
		go func() {
			for i := range pings {
				if err := back.TrySend(rawtest.Frame(wsclient.Text, true, fmt.Appendf(nil, `{"msg_type":"ping","id":%d,"padding":%q}`, i, strings.Repeat("x", size)))); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		before := scrape(t, s)
		const turns = 300 // of their worker, in which it could be read
		for range turns {
			innocent.ask(`{"msg_type":"ping"}`)
		}
		after := scrape(t, s)
		if n := after["hubbub_messages_received_total"] - before["hubbub_messages_received_total"]; n != turns {
			t.Errorf("%v messages were read of one who isn't welcomed yet", n-turns)
		}
		if n := after["hubbub_received_bytes_total"] - before["hubbub_received_bytes_total"]; n > 256<<10 {
			t.Errorf("%v bytes were read of one who isn't welcomed yet", n)
		}
		answer <- true
		if got := back.NextJSON(); got["msg_type"] != "welcome" || got["resumed"] != false {
			t.Fatalf("got %v", got)
		}
		for i := range pings {
			if got := back.NextJSON(); got["msg_type"] != "pong" || got["id"] != float64(i) {
				t.Fatalf("got %v, want pong %d", got, i)
			}
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
}

// A client gave up a handshake and made another, and the server finished the first one last: the session is nobody's
// whom the client can hear, until it comes back with the newest token that it knows.
func TestHandshakesThatCrossLoseNothing(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		for room, ended := range map[string]bool{"the given up one is there": false, "the given up one is lost": true} {
			m, token := enterFor(t, s)
			epoch, before := m.epochOf(room)
			m.Reset()
			parked(t, s, 1)
			second, welcome := comeBack(t, s, token)
			first, _ := comeBack(t, s, token)
			second.AnswerClose(4001)
			a := enter(t, s)
			a.publish(room, 1, 2)
			if ended {
				first.Reset()
				parked(t, s, 1)
			}
			back, _ := comeBack(t, s, welcome["resume_token"].(string))
			got := back.raw(`{"msg_type":"resume","id":1,"rooms":{%q:%s}}`, room, at(epoch, before))
			if r, _ := got["rooms"].(map[string]any); back.id != m.id || r == nil || r[room].(map[string]any)["recovered"] != true {
				t.Fatalf("%s: %v", room, got)
			}
			back.hears(room, 1, 2)
		}
	})
}

// Of many handshakes at once with one token each gets the session, until the next one takes it, and none goes without:
// the client may be waiting on any of them.
func TestManyHandshakesAtOnceAllResume(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		first, token := enterFor(t, s)
		first.Reset()
		for round := range 30 {
			parked(t, s, 1)
			var all []*rawtest.Client
			for range 8 {
				c := rawtest.Connect(t, s)
				all = append(all, c)
			}
			for _, c := range all {
				c.SendRaw([]byte(rawtest.Upgrade(s, "/ws?resume="+token)))
			}
			var left []*rawtest.Client
			for _, c := range all {
				c.ExpectUpgrade()
				op, p := c.Next()
				if op == wsclient.Text { // else it was taken over before it was welcome
					var welcome map[string]any
					json.Unmarshal(p, &welcome)
					if welcome["resumed"] != true || welcome["client_id"] != first.id {
						t.Fatalf("round %d: %s", round, p)
					}
					token = welcome["resume_token"].(string)
					left = append(left, c)
				}
			}
			for _, c := range left {
				c.Reset()
			}
			for _, c := range all {
				c.CloseNow()
			}
			rawtest.Eventually(t, "all are gone", func() bool { return s.Connections() == 0 })
		}
	})
}

func TestAnotherFirstMessageLeavesTheOldRooms(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a := enter(t, s)
		m, token := enterFor(t, s)
		m.join("r")
		m.Reset()
		parked(t, s, 1)
		a.ask(`{"msg_type":"direct_message","to":"` + m.id + `","content":1}`)
		back, _ := comeBack(t, s, token)
		back.Text(`{"msg_type":"ping","id":1}`)
		back.gets(map[string]any{"msg_type": "direct_message", "from": a.id, "content": 1.0})
		if got := back.NextJSON(); got["msg_type"] != "pong" {
			t.Fatalf("got %v", got)
		}
		a.publish("r", 1, 1)
		back.hearsNothing()
		if got := back.raw(`{"msg_type":"resume","id":1,"rooms":{"r":null}}`); got["msg_type"] != "resumed" { // joins
			t.Fatalf("got %v", got)
		}
		a.publish("r", 2, 2)
		back.hears("r", 2, 2)
	})
}

func TestBadTokensStillConnect(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{})
	_, token := enterFor(t, s)
	other := rawtest.Start(t, hubbub.Config{})
	for _, bad := range []string{"x", strings.Repeat("a", 5000), token[:len(token)-1], strings.ToUpper(token), "%00", token + "."} {
		m, welcome := comeBack(t, s, bad)
		if welcome["resumed"] != false {
			t.Errorf("%.20q: %v", bad, welcome)
		}
		if got := m.raw(`{"msg_type":"resume","id":1,"rooms":{"r":%s}}`, at("no", 1)); got["rooms"].(map[string]any)["r"].(map[string]any)["reason"] != "epoch" {
			t.Errorf("%.20q: %v", bad, got)
		}
	}
	if _, welcome := comeBack(t, other, token); welcome["resumed"] != false {
		t.Errorf("another server's token: %v", welcome)
	}
}

func TestAServerMayKeepNoSessions(t *testing.T) {
	off := rawtest.Start(t, hubbub.Config{ResumeWindow: -1})
	if _, welcome := comeBack(t, off, ""); welcome["resume_token"] != nil || welcome["resumed"] != nil {
		t.Errorf("without a window: %v", welcome)
	}
}

// Users and permissions are asked for again.
func TestResumingAsksTheHooksAgain(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		banned := false
		s := rawtest.Start(t, hubbub.Config{IO: io, Hooks: hubbub.Hooks{
			Connect: func(_ context.Context, c *hubbub.Connect) error {
				c.User = c.Request.URL.Query().Get("user")
				return nil
			},
			Join: func(_ context.Context, j *hubbub.Join) error {
				if banned && j.Room == "r" {
					return &hubbub.Error{Code: hubbub.NotMember, Message: "no"}
				}
				return nil
			},
		}})
		dialAs := func(user, token string) (*member, map[string]any) {
			m, w := comeBack(t, s, token+"&user="+user)
			return m, w
		}
		m, welcome := dialAs("ann", "")
		token := welcome["resume_token"].(string)
		m.join("r").join("q")
		m.Reset()
		parked(t, s, 1)
		if thief, welcome := dialAs("bob", token); welcome["resumed"] != false || thief.id == m.id {
			t.Errorf("another user: %v", welcome)
		}
		banned = true
		back, welcome := dialAs("ann", token)
		if welcome["resumed"] != true {
			t.Fatalf("got %v", welcome)
		}
		rooms := back.raw(`{"msg_type":"resume","id":1,"rooms":{"r":null,"q":null}}`)["rooms"].(map[string]any)
		if rooms["r"].(map[string]any)["reason"] != "forbidden" || rooms["q"].(map[string]any)["epoch"] == nil {
			t.Errorf("got %v", rooms)
		}
		a, _ := dialAs("eve", "")
		a.publish("r", 1, 1)
		back.hearsNothing()
	})
}

// A binary frame is an error, and a first message too.
func TestABinaryFirstMessageLeavesTheOldRooms(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{})
	a := enter(t, s)
	m, token := enterFor(t, s)
	m.join("r")
	m.Reset()
	parked(t, s, 1)
	back, _ := comeBack(t, s, token)
	back.Send(wsclient.Binary, true, []byte("x"))
	if got := back.NextJSON(); got["code"] != "binary" {
		t.Fatalf("got %v", got)
	}
	parked(t, s, 0)
	a.publish("r", 1, 1)
	back.hearsNothing()
}

// A client may say resume at any time, and more than once: it is a member once all the same.
func TestResumingTwiceIsResumingOnce(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		a := enter(t, s)
		m, token := enterFor(t, s)
		epoch, _ := m.epochOf("r")
		for range 2 {
			if got := m.raw(`{"msg_type":"resume","id":1,"rooms":{"r":%s}}`, at(epoch, 0)); got["msg_type"] != "resumed" {
				t.Fatalf("got %v", got)
			}
		}
		a.publish("r", 1, 1)
		m.hears("r", 1, 1)
		m.hearsNothing()
		m.Reset()
		parked(t, s, 1)
		back, _ := comeBack(t, s, token)
		back.raw(`{"msg_type":"resume","id":1,"rooms":{"r":%s}}`, at(epoch, 1))
		back.raw(`{"msg_type":"resume","id":1,"rooms":{"r":%s}}`, at(epoch, 1))
		a.publish("r", 2, 2)
		back.hears("r", 2, 2)
		back.ask(`{"msg_type":"leave_room","room":"r"}`)
		a.publish("r", 3, 3)
		back.hearsNothing()
	})
}

// However often the welcome is lost, the token that the client has is good.
func TestATokenOutlivesManyLostWelcomes(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{})
	m, token := enterFor(t, s)
	m.join("r")
	m.Reset()
	for round := range 4 {
		parked(t, s, 1)
		back, welcome := comeBack(t, s, token)
		if welcome["resumed"] != true || back.id != m.id {
			t.Fatalf("round %d: %v", round, welcome)
		}
		back.Reset()
		scraped(t, s, map[string]float64{"connections": 0})
	}
}

// A client takes its session over from a connection on another worker, and has said what it wants in the packet of the
// handshake: that waits until it is settled whose it is, and is obeyed in its order.
func TestWordsInTheHandshakeThatTakesOver(t *testing.T) {
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		enter(t, s)
		for range 6 { // on each worker in turn
			m, token := enterFor(t, s)
			epoch, _ := m.epochOf("r")
			next := &member{Client: rawtest.Connect(t, s)}
			packet := []byte(rawtest.Upgrade(s, "/ws?resume="+token))
			for _, msg := range []string{
				`{"msg_type":"resume","id":1,"rooms":{"r":` + at(epoch, 0) + `}}`,
				`{"msg_type":"ping","id":2}`,
				`{"msg_type":"leave_room","room":"r","id":3}`,
			} {
				packet = append(packet, rawtest.Frame(wsclient.Text, true, []byte(msg))...)
			}
			next.SendRaw(packet)
			next.ExpectUpgrade()
			m.AnswerClose(4001)
			if got := next.NextJSON(); got["client_id"] != m.id || got["resumed"] != true {
				t.Fatalf("got %v", got)
			}
			for i, kind := range []string{"resumed", "pong", "left"} {
				if got := next.NextJSON(); got["msg_type"] != kind || got["id"] != float64(i+1) {
					t.Fatalf("got %v, want %s", got, kind)
				}
			}
			next.CloseNow()
			enter(t, s)
		}
	})
}
