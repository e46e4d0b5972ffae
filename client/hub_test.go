package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/client"
	"example.com/hubbub/internal/rawtest"
)

// take is the next of a room's events.
func take(t *testing.T, r *client.Room) client.Event {
	t.Helper()
	for e := range r.Events(within(t)) {
		return e
	}
	t.Fatal("nothing came")
	return nil
}

// takeText is the content of a room's next event, which must be a message.
func takeText(t *testing.T, r *client.Room) string {
	t.Helper()
	e := take(t, r)
	m, is := e.(client.Message)
	if !is {
		t.Fatalf("%#v came, want a message", e)
	}
	return string(m.Content)
}

func join(t *testing.T, r *client.Room) {
	t.Helper()
	if err := r.Join(within(t)); err != nil {
		t.Fatal(err)
	}
}

func publish(t *testing.T, r *client.Room, content any) client.Position {
	t.Helper()
	at, err := r.Publish(within(t), content, client.PublishOptions{})
	if err != nil {
		t.Fatalf("publish %v: %v", content, err)
	}
	return at
}

// waitFor waits for a state.
func waitFor(t *testing.T, h *client.Hub, state client.State) client.Status {
	t.Helper()
	for s := range h.States(within(t)) {
		if s.State == state {
			return s
		}
	}
	t.Fatalf("the client never was %s: %v", state, h.State())
	return client.Status{}
}

func TestEveryVerb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{})
		ann, bob := w.client(client.Options{}), w.client(client.Options{})
		a, b := ann.Room("lobby"), bob.Room("lobby")
		if err := a.JoinWith(within(t), client.JoinOptions{Data: map[string]string{"name": "Ann"}}); err != nil {
			t.Fatal(err)
		}
		join(t, b)
		at := publish(t, a, map[string]any{"text": "<hi>"})
		if got := take(t, b).(client.Message); got.From != ann.ClientID() || got.Position != at || string(got.Content) != `{"text":"<hi>"}` || got.Room != "lobby" {
			t.Errorf("got %+v, published at %v", got, at)
		}
		p := must[client.Presence](t)(b.Presence(within(t)))
		if p.Count != 2 {
			t.Errorf("presence: %+v", p)
		}
		publish(t, a, 2)
		page := must[client.Page](t)(b.History(within(t), client.HistoryOptions{Limit: 1}))
		if len(page.Messages) != 1 || string(page.Messages[0].Content) != "2" || !page.More {
			t.Errorf("history: %+v", page)
		}
		page = must[client.Page](t)(b.History(within(t), client.HistoryOptions{Since: &at}))
		if len(page.Messages) != 1 || string(page.Messages[0].Content) != "2" || page.More {
			t.Errorf("history: %+v", page)
		}
		if err := errors.Join(ann.Chat(within(t), "all"), ann.Send(within(t), bob.ClientID(), "you")); err != nil {
			t.Fatal(err)
		}
		var got []string
		for m := range bob.Messages(within(t)) {
			if got = append(got, fmt.Sprintf("%v %s", m.Direct, m.Content)); len(got) == 2 {
				break
			}
		}
		if want := []string{`false "all"`, `true "you"`}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		var no *client.Error
		if err := ann.Send(within(t), "00000000-0000-4000-8000-000000000000", 1); !errors.As(err, &no) || no.Code != "unknown_client" || no.Retry {
			t.Errorf("to nobody: %v", err)
		}
		if err := b.Leave(within(t)); err != nil {
			t.Fatal(err)
		}
		for m := range b.Messages(within(t)) { // the last one, then it ends
			if string(m.Content) != "2" {
				t.Errorf("got %s", m.Content)
			}
		}
	})
}

func TestARequestIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{Hooks: hubbub.Hooks{Request: func(_ context.Context, r *hubbub.Request) (json.RawMessage, error) {
			return json.Marshal(map[string]any{"you asked": r.Method})
		}}})
		answer := must[json.RawMessage](t)(w.client(client.Options{}).Request(within(t), "rooms.list", nil))
		if string(answer) != `{"you asked":"rooms.list"}` {
			t.Errorf("got %s", answer)
		}
	})
}

func TestWhatIsMissedComesAfterACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{})
		h := w.client(client.Options{})
		id, r := h.ClientID(), h.Room("lobby")
		join(t, r)
		for i := range 3 {
			rawtest.Publish(w.server, "lobby", i)
			w.cut()
			rawtest.Publish(w.server, "lobby", fmt.Sprint(i))
			if got := takeText(t, r); got != fmt.Sprint(i) {
				t.Errorf("got %s, want %d", got, i)
			}
			if got := takeText(t, r); got != fmt.Sprintf("%q", fmt.Sprint(i)) {
				t.Errorf("got %s, want %q", got, fmt.Sprint(i))
			}
		}
		if h.ClientID() != id {
			t.Error("the session was not resumed")
		}
	})
}

func TestAfterTheSessionItJoinsFromWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{ResumeWindow: time.Second})
		h := w.client(client.Options{MinDelay: 20 * time.Second})
		id, r := h.ClientID(), h.Room("lobby")
		if err := r.JoinWith(within(t), client.JoinOptions{Data: "me"}); err != nil {
			t.Fatal(err)
		}
		rawtest.Publish(w.server, "lobby", 1)
		takeText(t, r)
		w.cut()
		rawtest.Publish(w.server, "lobby", 2)
		if got := takeText(t, r); got != "2" {
			t.Errorf("got %s, want 2", got)
		}
		if h.ClientID() == id {
			t.Error("the session was resumed: this test wants it gone")
		}
	})
}

func TestAPageOfARoomThatIsNotThereIsWhereItBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{})
		r := w.client(client.Options{}).Room("lobby")
		page, err := r.History(within(t), client.HistoryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		rawtest.Publish(w.server, "lobby", 1)
		if err := r.JoinWith(within(t), client.JoinOptions{Since: &page.Position}); err != nil {
			t.Fatal(err)
		}
		if got := takeText(t, r); got != "1" { // nothing is Lost
			t.Errorf("got %s", got)
		}
	})
}

func TestWhatCantBeProvedIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{})
		h := w.client(client.Options{})
		r := h.Room("lobby")
		join(t, r)
		publish(t, r, 1)
		w.crash()
		w.start(hubbub.Config{})
		if l, is := take(t, r).(client.Lost); !is || l.Reason != "epoch" || l.Room != "lobby" {
			t.Errorf("got %#v, want Lost", l)
		}
		rawtest.Publish(w.server, "lobby", "new")
		if got := takeText(t, r); got != `"new"` {
			t.Errorf("got %s", got)
		}
	})
}

func TestWhatIsPublishedWhileAwayGoesOutInOrderOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{})
		watcher, h := w.client(client.Options{}).Room("lobby"), w.client(client.Options{})
		join(t, watcher)
		w.cut()
		done := make(chan error, 100)
		for i := range 100 {
			go func() {
				_, err := h.Room("lobby").Publish(within(t), i, client.PublishOptions{})
				done <- err
			}()
			synctest.Wait() // the order of the calls
		}
		for range 100 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		for i := range 100 {
			if got := takeText(t, watcher); got != fmt.Sprint(i) {
				t.Fatalf("got %s, want %d", got, i)
			}
		}
	})
}

func TestAFullQueueSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{})
		h := w.client(client.Options{QueueCalls: 2, QueueBytes: 1000, MinDelay: time.Second})
		r := h.Room("lobby")
		w.cut()
		waitFor(t, h, client.Waiting)
		done := make(chan error, 2)
		go func() { _, err := r.Publish(within(t), make([]int, 200), client.PublishOptions{}); done <- err }()
		synctest.Wait()
		if _, err := r.Publish(within(t), make([]int, 400), client.PublishOptions{}); !errors.Is(err, client.ErrQueueFull) {
			t.Errorf("too many bytes: %v", err)
		}
		go func() { _, err := r.Publish(within(t), 2, client.PublishOptions{}); done <- err }()
		synctest.Wait()
		if _, err := r.Publish(within(t), 3, client.PublishOptions{}); !errors.Is(err, client.ErrQueueFull) {
			t.Errorf("too many calls: %v", err)
		}
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
		publish(t, r, "there is room again")
		if _, err := r.Publish(within(t), make([]byte, 70_000), client.PublishOptions{}); !errors.Is(err, client.ErrTooLarge) {
			t.Errorf("larger than the server takes: %v", err)
		}
	})
}

func TestCloseEndsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{})
		h := w.client(client.Options{})
		r := h.Room("lobby")
		join(t, r)
		rawtest.Publish(w.server, "lobby", 1)
		synctest.Wait()
		h.Close()
		h.Close()
		n := 0
		for range r.Messages(context.Background()) {
			n++ // what had come
		}
		for range h.Events(context.Background()) {
			n++
		}
		for range h.Room("another").Members(context.Background()) {
			n++
		}
		if n != 1 {
			t.Errorf("%d things came, want 1", n)
		}
		if _, err := r.Publish(context.Background(), 1, client.PublishOptions{}); !errors.Is(err, client.ErrClosed) {
			t.Errorf("publish: %v", err)
		}
		synctest.Wait()
		if list, _, _ := w.server.Clients(context.Background(), hubbub.ClientQuery{}); len(list) != 0 {
			t.Errorf("the session is still there: %+v", list)
		}
	})
}
