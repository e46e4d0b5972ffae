package hub

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

// letters is a dialect of binary frames, each of which may hold several commands, one a line: "J room", "L room" and "P
// room content"; "H room" asks for a page. It has no word for acknowledgements, nor for messages of content 0.
type letters struct{ encoded *atomic.Int32 }

func (letters) Next(frame []byte, _ bool, c *protocol.Command) (rest []byte, err *protocol.Error) {
	*c = protocol.Command{}
	line, rest, _ := bytes.Cut(frame, []byte("\n"))
	word, args, _ := bytes.Cut(line, []byte(" "))
	c.ID, c.Room = []byte("1"), args
	switch string(word) {
	case "J":
		c.Kind = protocol.JoinRoom
	case "L":
		c.Kind = protocol.LeaveRoom
	case "H":
		c.Kind = protocol.History
	case "P":
		c.Kind = protocol.RoomMessage
		c.Room, c.Content, _ = bytes.Cut(args, []byte(" "))
	default:
		return rest, &protocol.Error{Code: protocol.UnknownType, Message: string(word)}
	}
	return rest, nil
}

func (d letters) AppendMessage(dst []byte, m *protocol.Message) []byte {
	if string(m.Content) == "0" {
		return dst
	}
	d.encoded.Add(1)
	return fmt.Appendf(dst, "M %s %s", m.Room, m.Content)
}

func (letters) AppendAnswer(dst []byte, a *protocol.Answer) []byte {
	switch a.Kind {
	case protocol.AnswerWelcome:
		return fmt.Appendf(dst, "W %s", a.Welcome.ClientID)
	case protocol.AnswerJoined:
		return fmt.Appendf(dst, "J %s", a.Room)
	case protocol.AnswerLeft:
		return fmt.Appendf(dst, "L %s", a.Room)
	case protocol.AnswerError:
		return fmt.Appendf(dst, "E %s %s", a.Err.Code, a.Err.Message)
	case protocol.AnswerPing:
		return append(dst, '?')
	case protocol.AnswerMemberJoined:
		return fmt.Appendf(dst, "+%d", a.Count)
	case protocol.AnswerHistory:
		dst = fmt.Appendf(dst, "H %s", a.Room)
		for _, m := range a.Messages {
			dst = fmt.Appendf(dst, " %s", m.Content)
		}
		return dst
	}
	return dst
}

func (letters) Binary() bool { return true }

func (letters) Close(code int, reason string) (int, string) {
	return code - 300, strings.ToUpper(reason)
}

// lettersClient is the far end of a session that speaks the second dialect.
type lettersClient struct {
	t      *testing.T
	nc     net.Conn
	frames chan string
}

func newLetters(t *testing.T, h *Hub, l *loop.Loop) *lettersClient {
	s := h.session(NewID(), auth.Identity{}, netip.Addr{}, nil)
	s.self = &self{dialect: 1}
	c := lettersOf(t, l, s)
	if w := c.next(); !strings.HasPrefix(w, "82 W ") {
		t.Fatalf("the welcome is %q", w)
	}
	return c
}

func lettersOf(t *testing.T, l *loop.Loop, s *session) *lettersClient {
	near, far := net.Pipe()
	l.Reserve(1 << 20)
	if err := l.Adopt(near, s, wire.Deflate{}, nil, nil); err != nil {
		t.Fatal(err)
	}
	c := &lettersClient{t: t, nc: far, frames: make(chan string, 1<<10)}
	go func() {
		defer close(c.frames)
		for {
			f, err := wsclient.Read(far, 1<<16)
			if err != nil {
				return
			}
			c.frames <- fmt.Sprintf("%x %s", int(f.Op)|0x80, f.Payload)
		}
	}()
	return c
}

func (c *lettersClient) next() string {
	c.t.Helper()
	f, ok := <-c.frames
	if !ok {
		c.t.Fatal("the stream has ended")
	}
	return f
}

func (c *lettersClient) say(frame string) {
	c.nc.Write(wsclient.Append(nil, true, wsclient.Binary, [4]byte{1, 2, 3, 4}, []byte(frame)))
}

func (c *lettersClient) want(frames ...string) {
	c.t.Helper()
	for _, want := range frames {
		if got := c.next(); got != "82 "+want {
			c.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// Clients of two dialects meet in one room: what one publishes reaches the members of both, each in its own, and is
// made once for each dialect that has members there, and for none that has not.
func TestTwoDialectsMeetInARoom(t *testing.T) {
	var encoded atomic.Int32
	h, l := newHubOf(t, 1, func(c *Config) {
		c.Dialects = append(c.Dialects, func() protocol.Dialect { return letters{&encoded} })
	})
	a, b := newClient(t, h, l), newClient(t, h, l)
	x, y := newLetters(t, h, l), newLetters(t, h, l)
	a.say(`{"msg_type":"join_room","room":"r"}`)
	b.say(`{"msg_type":"join_room","room":"r"}`)
	a.sync()
	b.sync()
	x.say("J r\nP r 1\nnonsense\nL nowhere") // one frame, four commands
	x.want("J r", "E unknown_type nonsense", "L nowhere")
	y.say("J r")
	y.want("J r")

	before := encoded.Load()
	x.say(`P r "from x"`)
	y.want(`M r "from x"`)
	a.say(`{"msg_type":"room_message","room":"r","content":"from a"}`)
	x.want(`M r "from a"`)
	y.want(`M r "from a"`)
	for _, c := range []*client{a, b} {
		var got []any
		for _, m := range c.sync() {
			got = append(got, m["content"])
		}
		want := `[1 from x from a]`
		if c == a {
			want = `[1 from x]`
		}
		if fmt.Sprint(got) != want {
			t.Errorf("a member got %v, want %v", got, want)
		}
	}
	if n := encoded.Load() - before; n != 2 {
		t.Errorf("encoded %d times for two messages to two members", n)
	}

	x.say("L r\nH r")
	x.want("L r", `H r 1 "from x" "from a"`)
	y.say("L r")
	y.want("L r")
	before = encoded.Load()
	a.say(`{"msg_type":"room_message","room":"r","content":"among ourselves"}`)
	a.sync()
	b.sync() // b has it, too, once a's next word is answered
	if n := encoded.Load() - before; n != 0 {
		t.Errorf("encoded %d times for nobody", n)
	}
	if _, _, err := h.Publish(t.Context(), &Publication{Everyone: true, Content: []byte(`"all"`)}); err != nil {
		t.Fatal(err)
	}
	x.want(`M  "all"`)
	y.want(`M  "all"`)
	if got := b.sync(); len(got) != 1 || got[0]["content"] != "all" {
		t.Errorf("got %v", got)
	}
}

// News of members, and what a member missed, come in its own dialect.
func TestNewsAndMissedMessagesComeInTheMembersDialect(t *testing.T) {
	var encoded atomic.Int32
	h, l := newHubOf(t, 2, func(c *Config) {
		c.Dialects = append(c.Dialects, func() protocol.Dialect { return letters{&encoded} })
	})
	x, a := newLetters(t, h, l), newClient(t, h, l)
	x.say("J lobby")
	x.want("J lobby") // who is alone in the news knows it
	a.say(`{"msg_type":"join_room","room":"lobby"}`)
	x.want("+2")
	if m := a.next(); m["msg_type"] != "member_joined" || m["count"] != 2.0 {
		t.Errorf("got %v", m)
	}
	x.say(`P lobby "early"`)
	if m := a.next(); m["content"] != "early" {
		t.Errorf("got %v", m)
	}
	id, _ := ParseID([]byte(a.id))
	if _, _, err := h.Publish(t.Context(), &Publication{Client: id, Content: []byte(`1`)}); err != nil {
		t.Fatal(err)
	}
	if m := a.next(); m["msg_type"] != "direct_message" {
		t.Errorf("got %v", m)
	}
}

// Members who catch up at the same time share the frames, and nothing is left of these when all have.
func TestThoseWhoCatchUpShareTheFrames(t *testing.T) {
	var encoded atomic.Int32
	l := &local{w: new(loop.Worker), state: &workerState{speakers: speakers([]func() protocol.Dialect{func() protocol.Dialect { return letters{&encoded} }})}}
	a, b := &session{}, &session{}
	l.add(a, never)
	l.add(b, never)
	one, two := &protocol.Message{Offset: 1, Content: []byte("1")}, &protocol.Message{Offset: 2, Content: []byte("2")}
	if f := l.replayed(one); l.replayed(one) != f || l.replayed(two) == f || encoded.Load() != 2 {
		t.Errorf("two messages were encoded %d times", encoded.Load())
	}
	l.follow(a, 0)
	l.replayed(two)
	if encoded.Load() != 2 {
		t.Error("b had to have the message encoded anew")
	}
	l.follow(b, 0)
	if l.replay != nil {
		t.Errorf("%d frames are kept for nobody", len(l.replay))
	}
}

// A message for which a dialect has no word costs its members nothing: they get the others, at once, in a recovery, and
// when they have been too slow.
func TestADialectMayHaveNoWordForAMessage(t *testing.T) {
	for _, slow := range []SlowConsumer{Disconnect, DropOldest} {
		t.Run(slow.String(), func(t *testing.T) {
			var encoded atomic.Int32
			h, l := newHubOf(t, 1, func(c *Config) {
				c.Dialects = append(c.Dialects, func() protocol.Dialect { return letters{&encoded} })
				many := DefaultPolicy()
				many.SlowConsumer, many.History.Messages, many.History.Bytes = slow, 2000, 1<<20
				c.Policies = NewPolicies(slow, Rule{glob.New("r"), many})
			})
			x, y := newLetters(t, h, l), newLetters(t, h, l)
			x.say("J r")
			x.want("J r")
			y.say("J r\nP r 0\nP r 1\nP r 0")
			y.want("J r")
			x.want("M r 1")
			local := h.roomShard("r").rooms["r"].locals[0]
			first, second := local.members[0].s, local.members[1].s
			publish := func(content string, exclude ID) {
				if _, _, err := h.Publish(t.Context(), &Publication{Room: "r", Content: []byte(content), Exclude: exclude}); err != nil {
					t.Error(err)
				}
			}
			local.w.Post(task(func() { // these are delivered together, and one by one to whom one of them isn't for
				publish("0", ID{})
				publish("2", second.id)
				publish("3", ID{})
			}), 0)
			x.want("M r 2", "M r 3")
			y.want("M r 3")
			local.w.Post(task(func() {
				for range 1500 { // more than a page
					publish("0", ID{})
				}
				publish("4", ID{})
			}), 0)
			x.want("M r 4")
			local.w.Post(task(func() {
				local.follow(first, never)
				first.fallBehind(&pull{local: local})
			}), 0)
			x.want("M r 1", "M r 2", "M r 3", "M r 4")
		})
	}
}

// What the loop itself has to say comes in the client's dialect, too: its pings and its Closes.
func TestPingsAndClosesComeInTheClientsDialect(t *testing.T) {
	var encoded atomic.Int32
	h, l := newHubOf(t, 1, func(c *Config) {
		c.Dialects = append(c.Dialects, func() protocol.Dialect { return letters{&encoded} })
	})
	x := newLetters(t, h, l)
	list, _, _ := h.ClientsAfter(t.Context(), ID{}, 10)
	s := h.here(list[0].ID)
	s.conn.Worker().Post(task(func() { s.Ping(s.conn) }), 0)
	x.want("?")
	if err := h.Disconnect(t.Context(), list[0].ID, 4500, "kicked"); err != nil {
		t.Fatal(err)
	}
	if got := x.next(); got != "88 \x10hKICKED" { // 4200
		t.Errorf("the Close is %q", got)
	}
	counts := make(chan loop.Counts, 1)
	w := l.Workers()[0]
	w.Post(task(func() { counts <- w.Counts() }), 0)
	if c := <-counts; c.Closed[4500] != 1 {
		t.Errorf("the metrics count %v, not the neutral code", c.Closed)
	}
}

// The loop asks for a sign of life also before the welcome, but not in the client's dialect: the welcome comes before
// all else there.
func TestNoWordOfTheDialectComesBeforeTheWelcome(t *testing.T) {
	var encoded atomic.Int32
	h, l := newHubOf(t, 1, func(c *Config) {
		c.Dialects = append(c.Dialects, func() protocol.Dialect { return letters{&encoded} })
	})
	goOn := make(chan bool)
	s := h.session(NewID(), auth.Identity{}, netip.Addr{}, &Resumption{ID: NewID()})
	s.self.dialect = 1
	s.self.resume.again = &again{context.Background(), auth.Identity{}, func(context.Context, ID, *auth.Identity) error { <-goOn; return nil }}
	x := lettersOf(t, l, s)
	until(t, "it is asked about", func() bool {
		h.runs.mu.Lock()
		defer h.runs.mu.Unlock()
		return h.runs.asked == 1
	})
	w := l.Workers()[0]
	w.Post(task(func() { s.Ping(s.conn) }), 0)
	if got := x.next(); got != "89 " {
		t.Errorf("the ping is %q", got)
	}
	goOn <- true
	if got := x.next(); !strings.HasPrefix(got, "82 W ") {
		t.Errorf("got %q, want the welcome", got)
	}
}
