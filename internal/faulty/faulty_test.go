package faulty

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

// puppet is a client of a few lines, which says hello and shows what comes as often as it is told to.
func puppet(t *testing.T, says, shows int) Client {
	return func(report func(Report)) func(Command) {
		var all sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		return func(c Command) {
			if c.Call == "end" {
				cancel()
				all.Wait()
				report(Report{"ended": true})
				return
			}
			all.Go(func() {
				ws, _, err := websocket.Dial(ctx, c.URL, nil)
				if err != nil {
					return
				}
				defer ws.CloseNow()
				ws.Read(ctx) // the welcome
				for range says {
					ws.Write(ctx, websocket.MessageText, []byte(`{"msg_type":"chat","content":"hello"}`))
				}
				if _, _, err := ws.Read(ctx); err != nil {
					return
				}
				for range shows {
					report(Report{"chat": map[string]any{"content": "hi"}})
				}
				ws.Read(ctx)
			})
		}
	}
}

func TestWhatAClientDoesWrongIsFound(t *testing.T) {
	traces, err := parse([]byte(`[{"name": "hello", "steps": [{"accept": {"resume": ""}}, {"hear": {"content": "hello"}}, {"say": {"msg_type": "chat"}}, {"shows": {"chat": {"content": "hi"}}}]}]`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		says, shows int
		steps       string // another story's
		want        string
	}{
		{1, 1, "", ""},
		{2, 1, "", "also said"},
		{1, 2, "", "also shown"},
		{1, 1, `{"accept": {"resume": "t1"}}`, `want "t1"`},
		{1, 1, `{"accept": {}}, {"hear": {"content": "bye"}}`, `want "bye"`},
		{1, 1, `{"accept": {}}, {"hear": {"content": "hello", "room": "$room"}}`, "room"},
	} {
		trace := traces[0]
		if c.steps != "" {
			others, err := parse([]byte(`[{"name": "other", "steps": [` + c.steps + `]}]`))
			if err != nil {
				t.Fatal(err)
			}
			trace = others[0]
		}
		family, err := trace.Family()
		if err != nil || len(family) != 1 {
			t.Fatal(len(family), err)
		}
		err = Play(t, family[0], puppet(t, c.says, c.shows))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestFamilies(t *testing.T) {
	traces, err := parse([]byte(`[
		{"name": "one", "steps": [{"cut": "end"}]},
		{"name": "list", "each": {"x": ["a", 7]}, "steps": [{"text": "$x"}]},
		{"name": "range", "each": {"x": {"from": 3, "to": 6, "but": [4]}}, "steps": [{"cut": "end"}]},
		{"name": "bytes", "steps": [{"within": {"msg_type": "pong"}}]}]`))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{1, 2, 3, 2 + len(`{"msg_type":"pong"}`)} {
		if family, err := traces[i].Family(); err != nil || len(family) != want {
			t.Errorf("%s: %d stories, %v", traces[i].Name, len(family), err)
		}
	}
	for _, wrong := range []string{`[{"steps":[{}]}]`, `[{"steps":[{"cut":"end","text":""}]}]`, `[{"steps":[{"cuts":"end"}]}]`, `{}`} {
		if _, err := parse([]byte(wrong)); err == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
	if _, err := (Trace{Each: map[string]any{"x": 7.0}}).Family(); err == nil {
		t.Error("a family of nothing is taken")
	}
}
