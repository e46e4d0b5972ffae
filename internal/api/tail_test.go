package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/hub"
)

// story is a tail that hears what a test has it hear.
type story chan chapter

type chapter struct {
	items []hub.TailItem
	lost  int64
	err   error
}

func (s story) Next(ctx context.Context) ([]hub.TailItem, int64, error) {
	select {
	case c := <-s:
		return c.items, c.lost, c.err
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

// page is a listener's connection; once it is stalled each write lasts until its deadline.
type page struct {
	*httptest.ResponseRecorder
	mu       sync.Mutex // guards the recorder
	stalled  bool
	deadline time.Time
}

func (p *page) SetWriteDeadline(t time.Time) error {
	p.deadline = t
	return nil
}

func (p *page) Write(b []byte) (int, error) {
	if p.stalled {
		time.Sleep(time.Until(p.deadline))
		return 0, os.ErrDeadlineExceeded
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ResponseRecorder.Write(b)
}

// read is what was written since it was last called.
func (p *page) read() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.Body.Reset()
	return p.Body.String()
}

func TestWhatAListenerIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tail, p := make(story), &page{ResponseRecorder: httptest.NewRecorder()}
		ended := make(chan bool)
		go func() {
			defer close(ended)
			listen(t.Context(), &stream{p, http.NewResponseController(p)}, tail)
		}()
		tell := func(c chapter, want string) {
			t.Helper()
			tail <- c
			synctest.Wait()
			if got := p.read(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		id := hub.NewID()
		tell(chapter{items: []hub.TailItem{
			{Kind: hub.TailRoomMessage, Time: 7, Room: "r", From: "server", Key: "k", Size: 9, Content: []byte("[1,\n \"<\"]"), Epoch: "e", Offset: 3},
			{Kind: hub.TailJoined, Time: 8, Room: "r", Client: hub.Identity{ID: id, User: "ann"}},
		}}, "event: room_message\ndata: {\"time\":7,\"room\":\"r\",\"from\":\"server\",\"key\":\"k\",\"bytes\":9,\"epoch\":\"e\",\"offset\":3,\"content\":[1,\"\\u003c\"]}\n\n"+
			"event: joined\ndata: {\"time\":8,\"room\":\"r\",\"client\":\""+id.String()+"\",\"user\":\"ann\"}\n\n")
		tell(chapter{items: []hub.TailItem{{Kind: hub.TailLeft, Time: 9, Room: "r"}}, lost: 12}, "event: left\ndata: {\"time\":9,\"room\":\"r\"}\n\nevent: lost\ndata: {\"count\":12}\n\n")
		time.Sleep(heartbeat)
		synctest.Wait()
		if got := p.read(); got != ": nothing has passed\n\n" {
			t.Errorf("after a silence: %q", got)
		}
		tail <- chapter{err: hub.ErrStopped}
		<-ended
		if got := p.read(); got != "event: end\ndata: {\"reason\":\"the server is stopping\"}\n\n" {
			t.Errorf("at the end: %q", got)
		}
	})
}

func TestAListenerThatStallsIsLetGoInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tail, p := make(story, 1), &page{ResponseRecorder: httptest.NewRecorder(), stalled: true}
		tail <- chapter{lost: 1}
		begun := time.Now()
		listen(t.Context(), &stream{p, http.NewResponseController(p)}, tail)
		if took := time.Since(begun); took != takeWithin {
			t.Errorf("after %s", took)
		}
		ctx, cancel := context.WithCancelCause(t.Context()) // who goes is let go at once
		cancel(errors.New("gone"))
		listen(ctx, &stream{p, http.NewResponseController(p)}, tail)
		if took := time.Since(begun); took != takeWithin {
			t.Errorf("after %s", took)
		}
	})
}

// What a query may ask to listen to, and nothing else.
func TestWhatCanBeListenedTo(t *testing.T) {
	id := hub.NewID().String()
	for query, fine := range map[string]bool{
		"room=r": true, "client=" + id: true, "user=ann": true, "room=r&content=true": true, "room=r&content=false": true,
		"": false, "content=true": false, "room=r&user=ann": false, "room=r&client=" + id: false, "room=": false, "user=": false, "client=": false,
		"client=ann": false, "room=%00": false, "user=%00": false, "room=r&content=": false, "room=r&content=1": false, "room=r&content=yes": false,
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		of, no := (&call{query: q}).tailOf()
		if fine != (no == nil) || no != nil && no.status != http.StatusBadRequest {
			t.Errorf("%q: %+v, %+v", query, of, no)
		}
		if want := q.Get("content") == "true"; fine && of.Content != want {
			t.Errorf("%q: contents are told: %t", query, of.Content)
		}
	}
}

// Who listens by a key that a reload takes away hears nothing more.
func TestAListenerGoesWithItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := auth.APIKey{Name: "k", Digest: [32]byte{1}, Rights: auth.RightTail}
		a := New(Config{Settings: Settings{Keys: auth.APIKeys{key}}})
		tail, p := make(story), &page{ResponseRecorder: httptest.NewRecorder()}
		ctx, end := context.WithCancel(t.Context())
		ended := make(chan bool)
		go func() {
			defer close(ended)
			listen(ctx, &stream{p, http.NewResponseController(p)}, permitted{tail, func() bool { return a.still(&key, auth.RightTail) }, end})
		}()
		tail <- chapter{lost: 1}
		synctest.Wait()
		if got := p.read(); got == "" {
			t.Error("it hears nothing while its key counts")
		}
		less := key
		less.Rights = auth.RightRead
		a.Reload(Settings{Keys: auth.APIKeys{less}})
		tail <- chapter{lost: 2}
		<-ended
		if got := p.read(); got != "" {
			t.Errorf("it heard %q", got)
		}
	})
}
