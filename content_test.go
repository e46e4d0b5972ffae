package hubbub_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// badContents are what an application may give by mistake; what each is called, and where the fault lies.
var badContents = []struct{ name, content, where string }{
	{"invalid UTF-8", `{"a":"` + "\xff" + `"}`, "byte 5: a string is not valid UTF-8"},
	{"invalid UTF-8 in a key", `{"` + "\xc3\x28" + `":1}`, "byte 1: a string is not valid UTF-8"},
	{"an overlong form", `["` + "\xc0\x80" + `"]`, "byte 1: a string is not valid UTF-8"},
	{"a surrogate in UTF-8", `"` + "\xed\xa0\x80" + `"`, "byte 0: a string is not valid UTF-8"},
	{"an escaped lone surrogate", `["\ud800"]`, "byte 2: an escaped surrogate stands alone"},
	{"an escaped low surrogate", `["\udc00\ud800"]`, "byte 2: an escaped surrogate stands alone"},
	{"500 levels", strings.Repeat("[", 500) + strings.Repeat("]", 500), "deeper than 128 at byte 127"},
	{"a level too many", strings.Repeat(`{"a":`, 128) + "1" + strings.Repeat("}", 128), "deeper than 128"},
}

// nextText is the next message as it came.
func nextText(m *member) string {
	m.T.Helper()
	op, p := m.Beside()
	if op != wsclient.Text {
		m.T.Fatalf("got %v %s, want a text", op, rawtest.Brief(p))
	}
	return string(p)
}

// expectRefused connects, and must be closed at once.
func expectRefused(t *testing.T, s *rawtest.Server, code int, reason string) {
	t.Helper()
	c := rawtest.Dial(t, s, "/ws")
	c.Expect(wsclient.Close, wsclient.ClosePayload(code, reason))
	c.CloseNow()
}

const deepest = 127 // levels of a content: the message is one more

func TestWhatTheApplicationPublishesIsHeldToTheProtocol(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		a := enter(t, s)
		a.join("r")
		for name, give := range map[string]func(content any) error{
			"Publish":   func(content any) error { return rawtest.Publish(s, "r", content) },
			"Broadcast": func(content any) error { return rawtest.Broadcast(s, content) },
			"Send":      func(content any) error { return rawtest.SendTo(s, a.id, content) },
		} {
			for _, bad := range badContents {
				for _, content := range []any{json.RawMessage(bad.content), map[string]any{"in": json.RawMessage(bad.content)}} {
					err := give(content)
					if err == nil || !strings.Contains(err.Error(), "content") {
						t.Fatalf("%s of %s: %v, want an error that speaks of the content", name, bad.name, err)
					}
					if errors.As(err, new(*hubbub.Error)) {
						t.Errorf("%s of %s: %v is meant for a client", name, bad.name, err)
					}
					if _, inside := content.(map[string]any); !inside && !strings.Contains(err.Error(), bad.where) {
						t.Errorf("%s of %s: %v, want that it says %q", name, bad.name, err, bad.where)
					}
				}
			}
			deep := strings.Repeat("[", deepest) + strings.Repeat("]", deepest)
			for _, good := range []string{deep, `"\ud83d\ude00"`, `" é 😀"`, "null", "1e999", `{"a":1,"a":2}`} {
				if err := give(json.RawMessage(good)); err != nil {
					t.Errorf("%s of %.20s: %v", name, good, err)
				}
				if got := nextText(a); !strings.Contains(got, `"content":`+good) {
					t.Errorf("%s of %.20s: got %s", name, good, got)
				}
			}
		}
	})
}

// What is wrong is the application's fault: it is logged, and the client hears "internal", also where nobody else gets
// anything.
func TestWhatHooksAndHandlersGiveIsHeldToTheProtocol(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var given atomic.Value // of a json.RawMessage
		s := rawtest.Start(t, hubbub.Config{IO: io,
			Hooks: hubbub.Hooks{Publish: func(_ context.Context, p *hubbub.Publish) error {
				p.Content = given.Load().(json.RawMessage)
				return nil
			}},
			Handlers: handlers{
				"raw":    func(context.Context, *hubbub.Message) (any, error) { return given.Load(), nil },
				"within": func(context.Context, *hubbub.Message) (any, error) { return struct{ In any }{given.Load()}, nil },
			},
		})
		a, b := enter(t, s), enter(t, s)
		a.join("r")
		b.join("r")
		for _, bad := range badContents {
			given.Store(json.RawMessage(bad.content))
			for _, m := range []string{
				`{"msg_type":"room_message","room":"r","content":1,"id":7}`, `{"msg_type":"chat","content":1,"id":7}`,
				`{"msg_type":"direct_message","to":"` + b.id + `","content":1,"id":7}`, `{"msg_type":"raw","id":7}`, `{"msg_type":"within","id":7}`,
			} {
				a.Text(m)
				a.gets(map[string]any{"msg_type": "error", "code": "internal", "message": "internal error", "retry": true, "id": 7.0})
			}
			if !strings.Contains(s.Log.String(), bad.where) {
				t.Errorf("the log doesn't say where %s is", bad.name)
			}
		}
		for _, none := range []string{"", " ", "tru", `{"a":1} x`} {
			given.Store(json.RawMessage(none))
			a.Text(`{"msg_type":"chat","content":1,"id":7}`)
			a.gets(map[string]any{"msg_type": "error", "code": "internal", "message": "internal error", "retry": true, "id": 7.0})
		}
		given.Store(json.RawMessage(" [1, 2]\n"))
		a.Text(`{"msg_type":"room_message","room":"r","content":1}`)
		if got := nextText(b); !strings.Contains(got, `"content":[1, 2],"room"`) {
			t.Errorf("got %s", got)
		}
		page := a.ask(`{"msg_type":"history","room":"r"}`)
		if got := page["messages"].([]any); len(got) != 1 {
			t.Errorf("the history has %d messages, want the good one", len(got))
		}
		b.hearsNothing()
	})
}

func TestWhatConnectSaysIsHeldToTheProtocol(t *testing.T) {
	type answer struct {
		user   string
		refuse error
	}
	var says atomic.Value // of an answer
	says.Store(answer{})
	cfg := hubbub.Config{Hooks: hubbub.Hooks{
		Connect: func(_ context.Context, c *hubbub.Connect) error {
			a := says.Load().(answer)
			c.User = a.user
			return a.refuse
		},
		Join: func(context.Context, *hubbub.Join) error { return says.Load().(answer).refuse },
	}}
	for _, bad := range []struct{ name, user, why string }{
		{"too long", strings.Repeat("é", 128), "256 bytes"},
		{"invalid UTF-8", "ann\xff", "not valid UTF-8"},
		{"a control", "ann\n", "U+000A"},
		{"a control of Latin 1", "ann\u0085", "U+0085"},
	} {
		s := rawtest.Start(t, cfg) // of its own: such lines come once a second
		says.Store(answer{user: bad.user})
		expectRefused(t, s, 1013, "try again later")
		if !strings.Contains(s.Log.String(), bad.why) {
			t.Errorf("%s: the log doesn't say %q", bad.name, bad.why)
		}
	}
	s := rawtest.Start(t, cfg)
	for _, good := range []string{"", "a", "ann é 😀", strings.Repeat("x", 255)} {
		says.Store(answer{user: good})
		enter(t, s)
	}
	a := enter(t, s)
	long := strings.Repeat("é", 100)
	for _, c := range []struct{ says, want string }{
		{"\xffno", "\ufffdno"},
		{long, long[:122]}, // 123 bytes would cut the last rune
	} {
		says.Store(answer{refuse: &hubbub.Error{Code: hubbub.Forbidden, Message: c.says}})
		expectRefused(t, s, 4501, c.want)
	}
	a.Text(`{"msg_type":"join_room","room":"r","id":1}`)
	a.gets(map[string]any{"msg_type": "error", "code": "forbidden", "message": long, "retry": false, "id": 1.0})
	says.Store(answer{refuse: &hubbub.Error{Code: hubbub.Forbidden, Message: "\xffno"}})
	a.Text(`{"msg_type":"join_room","room":"r","id":1}`)
	a.gets(map[string]any{"msg_type": "error", "code": "forbidden", "message": "\ufffdno", "retry": false, "id": 1.0})

	// A *Error that is nil is an error all the same: errors.Is and err != nil say so too.
	says.Store(answer{refuse: (*hubbub.Error)(nil)})
	a.Text(`{"msg_type":"join_room","room":"r","id":1}`)
	a.gets(map[string]any{"msg_type": "error", "code": "internal", "message": "internal error", "retry": true, "id": 1.0})
	expectRefused(t, s, 1013, "try again later")
}
