package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"example.com/hubbub/client"
)

// A server that does what it is told to, and lies where it is told to.

// talk is one connection of it.
type talk struct {
	t   *testing.T
	ctx context.Context // until the client has ended: one that is still there would come back, and be heard by the last script
	ws  *websocket.Conn
}

func (c *talk) say(format string, args ...any) {
	c.ws.Write(c.ctx, websocket.MessageText, fmt.Appendf(nil, format, args...))
}

func (c *talk) welcome(more string) {
	c.say(`{"msg_type":"welcome","client_id":"0b0e8f1c-5d6e-4f70-8192-a3b4c5d6e7f8","protocol":1,"max_message_bytes":65536,"ping_interval_ms":25000,"pong_timeout_ms":10000%s}`, more)
}

type heard struct {
	Type   string                      `json:"msg_type"`
	Room   string                      `json:"room"`
	ID     json.RawMessage             `json:"id"`
	Rooms  map[string]*client.Position `json:"rooms"`
	Since  *client.Position            `json:"since"`
	Data   json.RawMessage             `json:"data"`
	Unique string                      `json:"publish_id"`
}

// hear is the next message of the client; Type is "" when the connection has ended.
func (c *talk) hear() (m heard) {
	_, raw, err := c.ws.Read(c.ctx)
	if err == nil {
		json.Unmarshal(raw, &m)
	}
	return m
}

// scripted is a client of a server that plays these scripts, one for each connection, the last one again and again.
func scripted(t *testing.T, o client.Options, scripts ...func(c *talk, r *http.Request)) *client.Hub {
	t.Helper()
	var n atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		script := scripts[min(int(n.Add(1)), len(scripts))-1]
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.CloseNow()
		script(&talk{t, ctx, ws}, r)
	}))
	t.Cleanup(func() { cancel(); s.Close() })
	if o.MinDelay == 0 {
		o.MinDelay, o.MaxDelay = time.Millisecond, time.Millisecond
	}
	h := must[*client.Hub](t)(client.New(s.URL, o))
	t.Cleanup(func() { h.Close() })
	return h
}

// stays is a script that says welcome and answers joins and publishes.
func stays(c *talk, _ *http.Request) {
	c.welcome("")
	for m := c.hear(); m.Type != ""; m = c.hear() {
		switch m.Type {
		case "join_room":
			c.say(`{"msg_type":"joined","room":%q,"id":%s,"epoch":"e","offset":5}`, m.Room, m.ID)
		case "room_message":
			c.say(`{"msg_type":"ack","id":%s}`, m.ID)
		}
	}
}

func TestItComesBackByTheRangeOfTheCloseCode(t *testing.T) {
	for _, code := range []int{1000, 1001, 1009, 1011, 1013, 3000, 4000, 4001, 4002, 4499} {
		back := make(chan bool, 1)
		scripted(t, client.Options{}, func(c *talk, _ *http.Request) {
			c.welcome("")
			c.ws.Close(websocket.StatusCode(code), "why")
		}, func(c *talk, r *http.Request) {
			select {
			case back <- true:
			default: // it was silent for so long that the client has come once more
			}
			stays(c, r)
		})
		select {
		case <-back:
		case <-within(t).Done():
			t.Errorf("%d: it doesn't come back", code)
		}
	}
	for _, code := range []int{1002, 1007, 1008, 4500, 4501, 4503, 4999} {
		h := scripted(t, client.Options{}, func(c *talk, _ *http.Request) {
			c.welcome("")
			c.ws.Close(websocket.StatusCode(code), "why")
		})
		var closed *client.CloseError
		if s := waitFor(t, h, client.Closed); !errors.As(s.Err, &closed) || closed.Code != code || closed.Reason != "why" {
			t.Errorf("%d: it ended with %v", code, s.Err)
		}
		if err := h.Chat(within(t), 1); !errors.Is(err, client.ErrClosed) || !errors.As(err, &closed) {
			t.Errorf("%d: a call afterwards: %v", code, err)
		}
	}
}

func TestAPlannedCloseSaysWhenToComeBack(t *testing.T) {
	h := scripted(t, client.Options{}, func(c *talk, _ *http.Request) {
		c.welcome("")
		c.say(`{"msg_type":"reconnect","after_ms":1500,"reason":"drain"}`)
		c.ws.Close(websocket.StatusGoingAway, "")
	}, stays)
	began := time.Now()
	waitFor(t, h, client.Waiting)
	waitFor(t, h, client.Online)
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("it came back after %s, 1.5s was asked for", took)
	}
}

func TestARefusedHandshake(t *testing.T) {
	var answers atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answers.Add(1) == 1 {
			w.Header().Set("Retry-After", "1")
			http.Error(w, `{"detail":"full","code":"overloaded"}`, http.StatusServiceUnavailable)
			return
		}
		http.Error(w, `{"detail":"not from there"}`, http.StatusForbidden)
	})
	s := httptest.NewServer(handler)
	defer s.Close()
	began := time.Now()
	_, err := client.Dial(within(t), s.URL, client.Options{MinDelay: time.Millisecond, MaxDelay: time.Millisecond})
	var refused *client.HandshakeError
	if !errors.As(err, &refused) || refused.Status != 403 || refused.Detail != "not from there" {
		t.Errorf("dial: %v", err)
	}
	if took := time.Since(began); took < time.Second || answers.Load() != 2 {
		t.Errorf("%d tries in %s, 2 and a second were asked for", answers.Load(), took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	answers.Store(0)
	if _, err := client.Dial(ctx, s.URL, client.Options{}); !errors.As(err, &refused) || refused.Status != 503 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial with a short time: %v", err)
	}
	if _, err := client.New("localhost:8080", client.Options{}); err == nil {
		t.Error("an address without a scheme is taken")
	}
}

func TestAnswersLateTwiceWrongAndOutOfOrder(t *testing.T) {
	h := scripted(t, client.Options{}, func(c *talk, _ *http.Request) {
		c.welcome(`,"news":{"of":"tomorrow"}`)
		c.say(`{"msg_type":"welcome","client_id":"x"}`)
		one, two, three := c.hear(), c.hear(), c.hear()
		c.say(`{"msg_type":"tomorrow"}`)
		c.say(`{"msg_type":"ack","id":"text"}`)
		c.say(`{"msg_type":"ack","id":12345}`)
		c.say(`{"msg_type":"left","id":%s}`, three.ID)
		c.say(`{"msg_type":"error","id":%s,"code":"rate_limited","message":"slowly","retry":true,"retry_after_ms":1500}`, two.ID)
		c.say(`{"msg_type":"error","id":%s,"code":"internal","message":"twice"}`, two.ID)
		c.say(`{"msg_type":"ack","id":%s,"epoch":"e","offset":7}`, one.ID)
		c.hear()
	})
	waitFor(t, h, client.Online)
	type result struct {
		n   int
		at  client.Position
		err error
	}
	done := make(chan result, 3)
	for n := range 3 {
		go func() {
			at, err := h.Room("r").Publish(within(t), n, client.PublishOptions{})
			done <- result{n, at, err}
		}()
	}
	var oks, slow, wrong int
	for range 3 {
		r := <-done
		var no *client.Error
		switch {
		case r.err == nil && r.at == client.Position{Epoch: "e", Offset: 7}:
			oks++
		case errors.As(r.err, &no) && no.Code == "rate_limited" && no.Retry && no.RetryAfter == 1500*time.Millisecond:
			slow++
		case errors.As(r.err, &no) && no.Code == "internal":
			wrong++
		default:
			t.Errorf("%d: %v, %v", r.n, r.at, r.err)
		}
	}
	if oks != 1 || slow != 1 || wrong != 1 {
		t.Errorf("%d acknowledged, %d refused, %d answered wrongly", oks, slow, wrong)
	}
}

func TestLiesAboutOffsetsDoubleNothing(t *testing.T) {
	h := scripted(t, client.Options{}, func(c *talk, _ *http.Request) {
		c.welcome("")
		c.say(`{"msg_type":"joined","room":"r","id":%s,"epoch":"e","offset":5}`, c.hear().ID)
		for _, offset := range []int{5, 6, 6, 8, 7, 8, 9} {
			c.say(`{"msg_type":"room_message","room":"r","from":"server","content":%d,"offset":%d}`, offset, offset)
		}
		c.say(`{"msg_type":"room_message","room":"other","content":1,"offset":%d}`, 99)
		c.say(`no message`)
		c.hear()
	}, func(c *talk, _ *http.Request) {
		c.welcome("")
		m := c.hear()
		if m.Type != "join_room" || m.Since == nil || *m.Since != (client.Position{Epoch: "e", Offset: 9}) || string(m.Data) != `"me"` {
			c.t.Errorf("it came back with %+v", m)
		}
		c.say(`{"msg_type":"joined","room":"r","id":%s,"epoch":"e","offset":9,"recovered":true}`, m.ID)
		c.say(`{"msg_type":"room_message","room":"r","from":"server","content":10,"offset":10}`)
		c.hear()
	})
	r := h.Room("r")
	if err := r.JoinWith(within(t), client.JoinOptions{Data: "me"}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for e := range r.Events(within(t)) {
		if got = append(got, string(e.(client.Message).Content)); len(got) == 4+0 {
			break
		}
	}
	if want := []string{"6", "8", "9", "10"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A resume that is cut at each of its stages, and answered with rooms that are not in, not known and not to be had.
func TestAResumeThatGoesWrong(t *testing.T) {
	resumable := `,"resume_token":"t1","resume_window_ms":30000,"resumed":false`
	h := scripted(t, client.Options{}, func(c *talk, r *http.Request) {
		c.welcome(resumable)
		for range 4 {
			m := c.hear()
			c.say(`{"msg_type":"joined","room":%q,"id":%s,"epoch":"e","offset":5}`, m.Room, m.ID)
		}
	}, func(c *talk, r *http.Request) {
		if got := r.URL.Query().Get("resume"); got != "t1" {
			c.t.Errorf("resume=%q", got)
		}
		c.welcome(`,"resume_token":"t2","resume_window_ms":30000,"resumed":true`)
		c.hear() // and cut
	}, func(c *talk, r *http.Request) {
		if got := r.URL.Query().Get("resume"); got != "t2" {
			c.t.Errorf("resume=%q", got)
		}
		c.welcome(`,"resume_token":"t3","resume_window_ms":30000,"resumed":true`)
		m := c.hear()
		if m.Type != "resume" || len(m.Rooms) != 4 || m.Rooms["a"] == nil || *m.Rooms["a"] != (client.Position{Epoch: "e", Offset: 5}) {
			c.t.Errorf("it says %+v", m)
		}
		c.say(`{"msg_type":"resumed","id":%s,"rooms":{"a":{"epoch":"e","offset":5,"recovered":true},"b":{"recovered":false,"reason":"forbidden"},"c":{"recovered":false,"reason":"timeout","retry":true}}}`, m.ID)
		for rejoined := map[string]bool{}; len(rejoined) < 2; { // c, and d, which was not answered
			switch m = c.hear(); m.Type {
			case "":
				c.t.Errorf("the client has gone, and has rejoined only %v", rejoined)
				return
			case "join_room":
				rejoined[m.Room] = true
				if m.Since == nil || m.Since.Offset != 5 {
					c.t.Errorf("it joins with %+v", m)
				}
				c.say(`{"msg_type":"joined","room":%q,"id":%s,"epoch":"e","offset":8,"recovered":false,"reason":"expired"}`, m.Room, m.ID)
			}
		}
		c.hear()
	})
	for _, name := range []string{"a", "b", "c", "d"} {
		join(t, h.Room(name))
	}
	if l, is := take(t, h.Room("b")).(client.Left); !is || l.Reason != "forbidden" {
		t.Errorf("got %+v", l)
	}
	for _, name := range []string{"c", "d"} {
		if l, is := take(t, h.Room(name)).(client.Lost); !is || l.Reason != "expired" || l.Position.Offset != 8 {
			t.Errorf("got %+v", l)
		}
	}
}

// A room that a token names has messages before the answer to the join that brings what was missed. They lie beyond that,
// and a line that is cut in between must not have the client go on from there.
func TestOnTheWayBackNothingThatWasMissedIsPassed(t *testing.T) {
	h := scripted(t, client.Options{}, func(c *talk, _ *http.Request) {
		c.welcome("")
		c.say(`{"msg_type":"joined","room":"inbox","epoch":"e","offset":5}`)
	}, func(c *talk, _ *http.Request) {
		c.welcome("")
		c.hear()
		c.say(`{"msg_type":"joined","room":"inbox","epoch":"e","offset":7}`)
		c.say(`{"msg_type":"room_message","room":"inbox","from":"server","content":8,"offset":8}`)
	}, func(c *talk, _ *http.Request) {
		c.welcome("")
		m := c.hear()
		if m.Since == nil || m.Since.Offset != 5 {
			c.t.Errorf("it joins with %+v", m)
		}
		c.say(`{"msg_type":"joined","room":"inbox","id":%s,"epoch":"e","offset":8,"recovered":true}`, m.ID)
		for n := 6; n <= 8; n++ {
			c.say(`{"msg_type":"room_message","room":"inbox","from":"server","content":%d,"offset":%d}`, n, n)
		}
		c.hear()
	})
	var got []string
	for e := range h.Room("inbox").Events(within(t)) {
		m, is := e.(client.Message)
		if !is {
			t.Errorf("got %+v", e)
			continue
		}
		if got = append(got, string(m.Content)); string(m.Content) == "8" {
			break
		}
	}
	if want := []string{"6", "7", "8"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAPublishThatIsSentAgainAndRefusedMayHaveGoneThrough(t *testing.T) {
	h := scripted(t, client.Options{}, func(c *talk, _ *http.Request) {
		c.welcome(`,"resume_token":"t1","resumed":false`)
		c.hear() // and cut
	}, func(c *talk, _ *http.Request) {
		c.welcome(`,"resume_token":"t2","resumed":true`)
		c.say(`{"msg_type":"resumed","id":%s,"rooms":{}}`, c.hear().ID)
		for {
			m := c.hear()
			if m.Type == "" {
				return
			}
			c.say(`{"msg_type":"error","id":%s,"code":"rate_limited","message":"too many","retry":true}`, m.ID)
		}
	})
	_, err := h.Room("r").Publish(within(t), 1, client.PublishOptions{})
	if !errors.Is(err, client.ErrUnknown) {
		t.Errorf("sent twice: %v", err)
	}
	if _, err = h.Room("r").Publish(within(t), 2, client.PublishOptions{}); err == nil || errors.Is(err, client.ErrUnknown) {
		t.Errorf("sent once: %v", err)
	}
}

func TestAListOfMembersEndsWithTheMembership(t *testing.T) {
	h := scripted(t, client.Options{}, func(c *talk, _ *http.Request) {
		c.welcome("")
		c.say(`{"msg_type":"joined","room":"r","id":%s}`, c.hear().ID)
		asked := c.hear()
		c.say(`{"msg_type":"left","room":"r","reason":"kicked"}`)
		c.say(`{"msg_type":"presence","room":"r","id":%s,"count":1,"members":[{"client_id":"a"}]}`, asked.ID)
		c.say(`{"msg_type":"chat","from":"server","content":1}`)
		c.hear()
	})
	r := h.Room("r")
	ctx, cancel := context.WithCancel(within(t))
	watched := make(chan bool)
	go func() {
		defer close(watched)
		for range r.Members(ctx) {
		}
	}()
	join(t, r)
	for range h.Messages(within(t)) {
		break // all of it has come
	}
	short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	defer stop()
	for list := range r.Members(short) {
		t.Errorf("of a room that it isn't in there is %+v", list)
	}
	cancel()
	<-watched
}

func TestWhatCantBeSaidEndsNoClient(t *testing.T) {
	h := scripted(t, client.Options{}, stays)
	waitFor(t, h, client.Online)
	if _, err := h.Room("r").Publish(within(t), json.RawMessage("\"\xff\""), client.PublishOptions{}); err == nil {
		t.Error("a content that is no UTF-8 is taken")
	}
	if err := h.Room("\xff").Join(within(t)); err == nil {
		t.Error("a room's name that is no UTF-8 is taken")
	}
	if _, err := h.Room("r").Publish(within(t), 1, client.PublishOptions{}); err != nil {
		t.Error(err)
	}
}

// Whether a token's end is near is known by the server's clock, which its first pong tells; until then none is renewed, nor
// another one taken for the next connection.
func TestNoTokenIsRenewedBeforeTheServersClockIsKnown(t *testing.T) {
	const now = 1_760_000_000_000 // long ago, by the client's clock
	for _, told := range []bool{true, false} {
		var asked atomic.Int64
		done := make(chan bool, 100) // it may come more than once, on a busy machine
		scripted(t, client.Options{Token: func(context.Context) (string, error) { return fmt.Sprint(asked.Add(1)), nil }}, func(c *talk, _ *http.Request) {
			c.welcome(fmt.Sprintf(`,"resumed":false,"expires_at":%d`, now+3_600_000))
			if m := c.hear(); m.Type != "ping" {
				c.t.Errorf("it says %+v", m)
			}
			time.Sleep(20 * time.Millisecond) // in which it would
			if told {
				c.say(`{"msg_type":"pong","time":%d}`, now)
			}
			c.say(`{"msg_type":"reconnect","after_ms":1,"reason":"drain"}`)
			c.ws.Close(websocket.StatusGoingAway, "")
		}, func(c *talk, r *http.Request) {
			done <- true
			stays(c, r)
		})
		select {
		case <-done:
		case <-within(t).Done():
			t.Fatal("it doesn't come back")
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("the clock was told: %t; %d tokens were asked for, one was good for an hour", told, n)
		}
	}
}

// Once it is known, a pong that is late holds up nothing.
func TestTheServersClockIsKnownFromTheConnectionBefore(t *testing.T) {
	renewed := make(chan bool, 100)
	scripted(t, client.Options{Token: func(context.Context) (string, error) { return "token", nil }}, func(c *talk, _ *http.Request) {
		c.welcome(fmt.Sprintf(`,"resumed":false,"expires_at":%d`, time.Now().Add(time.Hour).UnixMilli()))
		if m := c.hear(); m.Type != "ping" {
			c.t.Errorf("it says %+v", m)
		}
		c.say(`{"msg_type":"pong","time":%d}`, time.Now().UnixMilli())
		c.say(`{"msg_type":"reconnect","after_ms":1,"reason":"drain"}`)
		c.ws.Close(websocket.StatusGoingAway, "")
	}, func(c *talk, r *http.Request) { // it answers no ping
		c.welcome(fmt.Sprintf(`,"resumed":false,"expires_at":%d`, time.Now().Add(time.Second).UnixMilli()))
		for m := c.hear(); m.Type != ""; m = c.hear() {
			if m.Type == "refresh" {
				renewed <- true
				c.say(`{"msg_type":"refreshed","id":%s,"expires_at":%d}`, m.ID, time.Now().Add(time.Hour).UnixMilli())
			}
		}
	})
	select {
	case <-renewed:
	case <-within(t).Done():
		t.Fatal("the token isn't renewed")
	}
}
