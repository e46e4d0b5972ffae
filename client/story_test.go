package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/client"
	"example.com/hubbub/internal/rawtest"
)

func TestWhatWasSentAndNotAnsweredIsUnknownWhereTheSessionIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{ResumeWindow: time.Second})
		watcher, h := w.client(client.Options{}).Room("lobby"), w.client(client.Options{MinDelay: 20 * time.Second})
		join(t, watcher)
		w.lines[1].deafen() // it goes out, and no answer comes
		done := make(chan error, 2)
		go func() {
			_, err := h.Room("lobby").Publish(within(t), "sent", client.PublishOptions{})
			done <- err
		}()
		go func() { done <- h.Chat(within(t), "sent") }()
		synctest.Wait()
		w.lines[1].Close()
		waitFor(t, h, client.Waiting)
		go func() {
			_, err := h.Room("lobby").Publish(within(t), "not sent", client.PublishOptions{})
			done <- err
		}()
		for range 2 {
			if err := <-done; !errors.Is(err, client.ErrUnknown) {
				t.Errorf("sent: %v", err)
			}
		}
		if err := <-done; err != nil {
			t.Errorf("not sent: %v", err)
		}
		for _, want := range []string{`"sent"`, `"not sent"`, `"last"`} { // it had gone through, and didn't go again
			if want == `"last"` {
				publish(t, h.Room("lobby"), "last")
			}
			if got := takeText(t, watcher); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	})
}

func TestACallEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{})
		h := w.client(client.Options{})
		r := h.Room("lobby")
		w.lines[0].deafen()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Publish(ctx, 1, client.PublishOptions{}); !errors.Is(err, client.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("sent: %v", err)
		}
		w.cut()
		waitFor(t, h, client.Waiting)
		ctx, cancel = context.WithTimeout(t.Context(), time.Microsecond)
		defer cancel()
		if _, err := r.Publish(ctx, 1, client.PublishOptions{}); errors.Is(err, client.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("not sent: %v", err)
		}
		publish(t, r, 2)
	})
}

func TestMoreRoomsThanOneResumeNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 2500
		w := newWorld(t, hubbub.Config{MaxRoomsPerClient: n})
		h := w.client(client.Options{QueueCalls: n})
		id, done := h.ClientID(), make(chan error, n)
		for i := range n {
			go func() { done <- h.Room(fmt.Sprint("room ", i)).Join(within(t)) }()
		}
		for range n {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		w.cut()
		for i := range n {
			rawtest.Publish(w.server, fmt.Sprint("room ", i), i)
		}
		for i := range n {
			if got := takeText(t, h.Room(fmt.Sprint("room ", i))); got != fmt.Sprint(i) {
				t.Fatalf("got %s, want %d", got, i)
			}
		}
		if h.ClientID() != id {
			t.Error("the session was not resumed")
		}
	})
}

func TestADeadLineIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{})
		h := w.client(client.Options{PingInterval: 5 * time.Second, PongTimeout: 2 * time.Second})
		r := h.Room("lobby")
		join(t, r)
		time.Sleep(time.Minute) // a quiet line isn't dead
		if w.dials() != 1 {
			t.Errorf("%d connections in a quiet minute", w.dials())
		}
		w.lines[0].stall()
		rawtest.Publish(w.server, "lobby", 1)
		began := time.Now()
		if got := takeText(t, r); got != "1" {
			t.Errorf("got %s", got)
		}
		if took := time.Since(began); took < 2*time.Second || took > 10*time.Second {
			t.Errorf("it took %s to see that the line is dead", took)
		}
	})
}

func TestASlowReaderLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keepsAll(false))
		h := w.client(client.Options{BufferBytes: 20_000})
		r := h.Room("lobby")
		join(t, r)
		const n = 3000
		go func() {
			for i := range n {
				for rawtest.Publish(w.server, "lobby", fmt.Sprint(i, strings.Repeat("x", 1000))) != nil {
					time.Sleep(time.Millisecond) // too much at once
				}
			}
		}()
		i := 0
		for e := range r.Events(within(t)) {
			m, is := e.(client.Message)
			if !is || !strings.HasPrefix(string(m.Content), fmt.Sprintf(`"%dx`, i)) {
				t.Fatalf("got %T %.20s, want %d", e, m.Content, i)
			}
			if i++; i == n {
				break
			}
			time.Sleep(30 * time.Millisecond) // 90 s in all, longer than the server waits
		}
		if w.dials() < 2 {
			t.Error("the server did not close it: it is not slow enough for this test")
		}
	})
}

func TestALoopMayPublishWhileMoreComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keepsAll(false))
		h := w.client(client.Options{BufferBytes: 30_000})
		r := h.Room("lobby")
		join(t, r)
		for i := range 100 {
			rawtest.Publish(w.server, "lobby", fmt.Sprint(i, strings.Repeat("x", 500)))
		}
		i := 0
		for range r.Messages(within(t)) {
			publish(t, h.Room("answers"), i)
			if i++; i == 100 {
				break
			}
		}
		if s := h.State(); w.dials() != 1 || s.State != client.Online {
			t.Errorf("%d connections, %+v", w.dials(), s)
		}
	})
}

func TestWhatNobodyReadsIsDroppedAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keepsAll(false))
		h := w.client(client.Options{BufferBytes: 10_000})
		r := h.Room("lobby")
		join(t, r)
		const n = 1000
		for i := range n {
			rawtest.Publish(w.server, "lobby", i)
		}
		publish(t, r, "and the client still answers")
		g, is := take(t, r).(client.Gap)
		if !is || g.Reason != "unread" || g.Count < n/2 {
			t.Fatalf("got %+v", g)
		}
		for i := g.Count; i < n; i++ {
			if got := takeText(t, r); got != fmt.Sprint(i) {
				t.Fatalf("got %s, want %d", got, i)
			}
		}
	})
}

func TestWhatTheServerDoesToAMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{})
		h := w.client(client.Options{})
		r := h.Room("inbox")
		if err := w.server.Join(t.Context(), "inbox", h.ClientID()); err != nil {
			t.Fatal(err)
		}
		for e := range h.Events(within(t)) {
			if e != (client.Entered{Room: "inbox"}) {
				t.Errorf("got %+v", e)
			}
			break
		}
		one := must[hubbub.Position](t)(w.server.Publish(t.Context(), hubbub.Publication{Room: "inbox", Content: 1}))
		takeText(t, r)
		if err := w.server.DeleteMessage(t.Context(), "inbox", one); err != nil {
			t.Fatal(err)
		}
		if e := take(t, r); e != (client.Deleted{Room: "inbox", Offset: one.Offset}) {
			t.Errorf("got %+v", e)
		}
		rawtest.Publish(w.server, "inbox", 2)
		takeText(t, r)
		if err := w.server.DeleteHistory(t.Context(), "inbox"); err != nil {
			t.Fatal(err)
		}
		if e := take(t, r); e != (client.Deleted{Room: "inbox", ToOffset: one.Offset + 1}) {
			t.Errorf("got %+v", e)
		}
		w.cut() // it is still in, and goes on from behind what was taken back
		rawtest.Publish(w.server, "inbox", 3)
		for e := range r.Events(within(t)) {
			if _, again := e.(client.Deleted); again { // the server says once more what it may have said
				continue
			}
			if m, is := e.(client.Message); !is || string(m.Content) != "3" {
				t.Errorf("got %+v", e)
			}
			break
		}
		if err := w.server.Remove(t.Context(), "inbox", h.ClientID()); err != nil {
			t.Fatal(err)
		}
		if e := take(t, r); e != (client.Left{Room: "inbox", Reason: "kicked"}) {
			t.Errorf("got %+v", e)
		}
		join(t, r)
		rawtest.Publish(w.server, "inbox", 4)
		if got := takeText(t, r); got != "4" {
			t.Errorf("got %s", got)
		}
	})
}

func TestAGapIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := keepsAll(false)
		cfg.SlowConsumer, cfg.SendQueueBytes, cfg.MaxMessageBytes = "drop-oldest", 10_000, 10_000
		w := newWorld(t, cfg)
		h := w.client(client.Options{BufferBytes: 10_000})
		r := h.Room("lobby")
		join(t, r)
		next, total := 0, 0
		go func() {
			for i := range 400 {
				rawtest.Publish(w.server, "lobby", fmt.Sprint(i, strings.Repeat("x", 1000)))
			}
		}()
		for e := range r.Events(within(t)) {
			switch e := e.(type) {
			case client.Gap:
				next += e.Count
				total += e.Count
			case client.Message:
				if !strings.HasPrefix(string(e.Content), fmt.Sprintf(`"%dx`, next)) {
					t.Fatalf("got %.20s, want %d", e.Content, next)
				}
				next++
			}
			if next == 400 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if total == 0 {
			t.Error("there was no gap")
		}
	})
}

func TestMembersAreAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{Rooms: []hubbub.RoomPolicy{{Match: "secret", Presence: "off"}, {Match: "*", Presence: "full"}}})
		watcher := w.client(client.Options{})
		r := watcher.Room("lobby")
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		var latest client.Presence
		var ended sync.WaitGroup
		ended.Go(func() {
			for p := range r.Members(ctx) {
				mu.Lock()
				latest = p
				mu.Unlock()
			}
		})
		join(t, r)
		is := func(want ...string) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			got := map[string]bool{}
			for _, m := range latest.Members {
				got[string(m.Data)] = true
			}
			for _, name := range want {
				if !got[name] {
					t.Errorf("%s is missing in %+v", name, latest)
				}
			}
			if len(latest.Members) != len(want) || latest.Count != len(want) {
				t.Errorf("%+v, want %q", latest, want)
			}
		}
		is("")
		ann, bob := w.client(client.Options{}), w.client(client.Options{})
		for name, h := range map[string]*client.Hub{"ann": ann, "bob": bob} {
			if err := h.Room("lobby").JoinWith(within(t), client.JoinOptions{Data: name}); err != nil {
				t.Fatal(err)
			}
		}
		is("", `"ann"`, `"bob"`)
		w.lines[0].Close()
		bob.Close()
		is("", `"ann"`)
		if err := ann.Room("lobby").Leave(within(t)); err != nil {
			t.Fatal(err)
		}
		is("")
		cancel()
		ended.Wait()
		join(t, watcher.Room("secret"))
		for _, err := range watcher.Room("secret").Members(within(t)) {
			var no *client.Error
			if !errors.As(err, &no) || no.Code != "forbidden" {
				t.Errorf("of a room that doesn't tell: %v", err)
			}
		}
	})
}

func TestAServerThatStopsAndStartsLosesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{})
		h := w.client(client.Options{})
		r := h.Room("lobby")
		join(t, r)
		old := w.server
		stopped := make(chan error)
		go func() { stopped <- old.Shutdown(within(t)) }()
		s := waitFor(t, h, client.Waiting)
		var closed *client.CloseError
		if !errors.As(s.Err, &closed) || closed.Code != 1001 {
			t.Errorf("it waits for %v", s.Err)
		}
		if err := <-stopped; err != nil {
			t.Fatal(err)
		}
		w.start(hubbub.Config{})
		publish(t, r, "in the new one")
		if l, is := take(t, r).(client.Lost); !is || l.Reason != "epoch" {
			t.Errorf("got %+v", l)
		}
	})
}

// A client with a name publishes again what was sent and not answered, as long as the server may know it.
func TestWhoHasANamePublishesOnceThoughItsSessionIsGone(t *testing.T) {
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			cfg := keepsAll(true)
			cfg.ResumeWindow = time.Second
			w := newWorld(t, cfg)
			named := func(name string) func(context.Context) (string, error) {
				return func(context.Context) (string, error) { return name, nil }
			}
			watcher := w.client(client.Options{Token: named("watcher")}).Room("lobby")
			h := w.client(client.Options{Token: named("ann"), MinDelay: 20 * time.Second})
			join(t, watcher)
			r := h.Room("lobby")
			join(t, r)
			w.lines[1].deafen()
			done := make(chan error, 1)
			go func() {
				_, err := r.Publish(within(t), "sent", client.PublishOptions{})
				done <- err
			}()
			if got := takeText(t, watcher); got != `"sent"` {
				t.Errorf("got %s", got)
			}
			if restart {
				w.crash()
				w.start(cfg)
			} else {
				w.lines[1].Close()
			}
			if err := <-done; errors.Is(err, client.ErrUnknown) != restart || !restart && err != nil {
				t.Errorf("restart %v: %v", restart, err)
			}
			if restart {
				if l, is := take(t, watcher).(client.Lost); !is {
					t.Errorf("got %+v", l)
				}
			}
			publish(t, r, "last")
			if got := takeText(t, watcher); got != `"last"` {
				t.Errorf("restart %v: got %s, want the last", restart, got)
			}
		})
	}
}
