package hubbubtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
	"example.com/hubbub/internal/rawtest"
)

// Whatever the application gives, clients get valid text frames of valid JSON: by every way that content, words and
// names have from its code to a client, live, in a page of the history and after a resume.
func FuzzWhatTheApplicationGives(f *testing.F) {
	for _, content := range []string{
		`{"a":1}`, "\"\xff\"", "{\"\xc3\x28\":1}", `"\ud800"`, `"\ud83d\ude00"`, strings.Repeat("[", 200) + strings.Repeat("]", 200), "", " null ", "tru", "1 2", "\x00", "\xed\xa0\x80",
	} {
		f.Add([]byte(content))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		raw := func() json.RawMessage { return content }
		word := func() error { return &hubbub.Error{Code: hubbub.Forbidden, Message: string(content)} }
		srv := hubbubtest.NewServer(t, hubbub.Config{
			Hooks: hubbub.Hooks{
				Connect: func(_ context.Context, c *hubbub.Connect) error {
					switch c.Request.URL.Query().Get("as") {
					case "named":
						c.User = string(content)
					case "refused":
						return word()
					}
					return nil
				},
				Publish: func(_ context.Context, p *hubbub.Publish) error {
					if p.Room == "changed" {
						p.Content = content
					}
					return nil
				},
			},
			Handlers: map[string]hubbub.Handler{
				"raw":    func(context.Context, *hubbub.Message) (any, error) { return raw(), nil },
				"within": func(context.Context, *hubbub.Message) (any, error) { return map[string]any{"in": raw()}, nil },
				"word":   func(context.Context, *hubbub.Message) (any, error) { return nil, word() },
			},
		})
		ann := srv.Connect("ann")
		ann.Join("r")
		ann.Join("changed")
		for _, err := range []error{rawtest.Publish(srv.Server, "r", raw()), rawtest.Publish(srv.Server, string(content), 1),
			rawtest.Broadcast(srv.Server, map[string]any{"in": raw()}), rawtest.SendTo(srv.Server, ann.ID, raw())} {
			if err != nil && !utf8.ValidString(err.Error()) {
				t.Errorf("an error that is not UTF-8: %q", err)
			}
		}
		answers := []hubbubtest.Message{
			ann.Request(map[string]any{"msg_type": "room_message", "room": "changed", "content": 1}),
			ann.Request(map[string]any{"msg_type": "raw"}),
			ann.Request(map[string]any{"msg_type": "within"}),
			ann.Request(map[string]any{"msg_type": "word"}),
			ann.Request(map[string]any{"msg_type": "history", "room": "r"}),
			ann.Request(map[string]any{"msg_type": "history", "room": "changed"}),
		}
		if c, err := srv.ConnectWith("named", hubbubtest.Options{Path: "/ws?as=named"}); err == nil {
			c.Publish("r", 1)
			c.Drop()
		}
		if _, err := srv.ConnectWith("refused", hubbubtest.Options{Path: "/ws?as=refused"}); err == nil || errors.As(err, new(*hubbubtest.RefusedError)) {
			t.Errorf("refused by the hook, got %v", err)
		}
		ann.Send(map[string]any{"msg_type": "direct_message", "to": ann.ID, "content": "that was all"})
		for len(answers) < 1000 {
			m := ann.Receive() // the kit refuses a text that isn't UTF-8
			answers = append(answers, m)
			if string(m.Content) == `"that was all"` {
				break
			}
		}
		for _, m := range answers {
			if !json.Valid(m.Raw) || !utf8.Valid(m.Raw) {
				t.Errorf("a client got %q", m.Raw)
			}
		}
		if ann.Closed() {
			t.Fatal("ann was closed")
		}
	})
}
