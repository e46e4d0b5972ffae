package hubbub_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// With a data directory a room's history, its epoch, what was taken back and what was published once outlive the server.
func TestHistoryOutlivesTheServer(t *testing.T) {
	ctx := t.Context()
	cfg := hubbub.Config{DataDir: t.TempDir()}
	s := rawtest.Start(t, cfg)
	c := rawtest.Dial(t, s, "/ws")
	c.NextJSON() // the welcome
	c.Text(`{"msg_type":"join_room","room":"r","id":1}`)
	joined := c.NextJSON()
	var at []hubbub.Position
	for i := range 4 {
		p, err := s.Publish(ctx, hubbub.Publication{Room: "r", Content: i, PublishID: fmt.Sprint("id ", i)})
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, p)
		if m := c.NextJSON(); m["content"] != float64(i) {
			t.Fatalf("got %v", m)
		}
	}
	if err := s.DeleteMessage(ctx, "r", at[1]); err != nil {
		t.Fatal(err)
	}
	if m := c.NextJSON(); m["msg_type"] != "deleted" {
		t.Fatalf("got %v", m)
	}
	c.CloseNow()
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}

	s = rawtest.Start(t, cfg)
	if p, err := s.Publish(ctx, hubbub.Publication{Room: "r", Content: 0, PublishID: "id 0"}); err != nil || !p.Duplicate || p.Epoch != at[0].Epoch || p.Offset != at[0].Offset {
		t.Errorf("published again: %+v, %v; it stood at %+v", p, err, at[0])
	}
	if r, err := s.Room(ctx, "r"); err != nil || r.Position.Epoch != at[0].Epoch || r.Position.Offset < at[3].Offset {
		t.Errorf("what is known of the room that nobody is in: %+v, %v", r, err)
	}
	if r, err := s.Room(ctx, "nothing"); !errors.Is(err, hubbub.ErrUnknownRoom) {
		t.Errorf("a room that has nothing: %+v, %v", r, err)
	}
	page, err := s.History(ctx, "r", hubbub.HistoryQuery{})
	if err != nil || len(page.Messages) != 3 || page.Position.Epoch != at[0].Epoch || page.Position.Offset < at[3].Offset {
		t.Errorf("the history: %+v, %v", page, err)
	}
	c = rawtest.Dial(t, s, "/ws")
	c.NextJSON()
	c.Text(fmt.Sprintf(`{"msg_type":"join_room","room":"r","since":{"epoch":%q,"offset":%.0f},"id":1}`, joined["epoch"], joined["offset"]))
	if m := c.NextJSON(); m["recovered"] != true || m["epoch"] != joined["epoch"] {
		t.Errorf("got %v", m)
	}
	for _, i := range []int{0, 2, 3} {
		if m := c.NextJSON(); m["content"] != float64(i) || m["offset"] != float64(at[i].Offset) {
			t.Errorf("got %v, want the message %d", m, i)
		}
	}
	// A room that keeps nothing goes as ever.
	if _, err := s.History(ctx, "r", hubbub.HistoryQuery{Since: &hubbub.Position{Epoch: "other"}}); !errors.Is(err, hubbub.ErrNoPosition) {
		t.Errorf("a page behind another epoch: %v", err)
	}
}

// What the log of a room can't take is refused at once, and is in nobody's way.
func TestAPublicationThatNoLogTakes(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{DataDir: t.TempDir()})
	_, err := s.Publish(t.Context(), hubbub.Publication{Room: "r", Content: strings.Repeat("x", 6<<20)})
	if err == nil || errors.Is(err, hubbub.ErrUnavailable) || !strings.Contains(err.Error(), "6291458 bytes") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Publish(t.Context(), hubbub.Publication{Room: "r", Content: strings.Repeat("x", 6<<20-2)}); err != nil {
		t.Errorf("the largest: %v", err)
	}
}

// A room whose policy is another one and then the first again has the log that it had; what was published meanwhile
// isn't there, so nobody may go on from a position of before.
func TestAPolicyThatComesBackHasAnotherEpoch(t *testing.T) {
	for name, other := range map[string]hubbub.History{"of more messages": {Messages: 20}, "of one replica": {Messages: 10, Replicas: 1}} {
		t.Run(name, func(t *testing.T) { policyComesBack(t, hubbub.History{Messages: 10}, other) })
	}
}

func policyComesBack(t *testing.T, first, other hubbub.History) {
	dir := t.TempDir()
	var at []hubbub.Position
	run := func(kept hubbub.History, more func(*rawtest.Server)) {
		s := rawtest.Start(t, hubbub.Config{DataDir: dir, Rooms: []hubbub.RoomPolicy{{Match: "r", History: &kept}}})
		p, err := s.Publish(t.Context(), hubbub.Publication{Room: "r", Content: len(at)})
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, p)
		if more != nil {
			more(s)
		}
		if err := s.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	run(first, nil)
	run(other, nil)
	run(first, func(s *rawtest.Server) {
		if page, err := s.History(t.Context(), "r", hubbub.HistoryQuery{Since: &at[0]}); !errors.Is(err, hubbub.ErrNoPosition) {
			t.Errorf("behind what was before another policy: %+v, %v", page, err)
		}
		if page, err := s.History(t.Context(), "r", hubbub.HistoryQuery{}); err != nil || len(page.Messages) != 2 {
			t.Errorf("the history: %+v, %v", page, err)
		}
	})
	run(first, func(s *rawtest.Server) {
		if page, err := s.History(t.Context(), "r", hubbub.HistoryQuery{Since: &at[2]}); err != nil || len(page.Messages) != 1 {
			t.Errorf("behind what was before a restart: %+v, %v", page, err)
		}
	})
}

// A folder that can't be used is told at once, by what is wrong with it, and nothing is left running.
func TestADataDirectoryThatCantBeUsed(t *testing.T) {
	file := func(path ...string) func(dir string) {
		return func(dir string) {
			path := filepath.Join(append([]string{dir}, path...)...)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for want, spoil := range map[string]func(dir string){
		"another process has it":     func(dir string) { rawtest.Start(t, hubbub.Config{DataDir: dir}) },
		"log: not a directory":       file("log"),
		"storage directory is not a": file("log", "jetstream"),
		"/node: is a directory":      file("node", "x"),
		"webhooks: not a directory":  file("webhooks"),
		"lock: is a directory":       file("lock", "x"),
	} {
		dir := t.TempDir()
		spoil(dir)
		s, err := hubbub.New(hubbub.Config{DataDir: dir, Webhooks: hubbub.Webhooks{URL: "http://127.0.0.1:1/", Secrets: []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}})
		if err == nil {
			s.Shutdown(context.Background())
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// Who is told of a message may name it at once: in a join, and for a page.
func TestWhatIsAcknowledgedMayBeNamedAtOnce(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{DataDir: t.TempDir()})
	member, c := rawtest.Dial(t, s, "/ws"), rawtest.Dial(t, s, "/ws") // the first keeps the room open
	member.NextJSON()
	member.Text(`{"msg_type":"join_room","room":"r","id":1}`)
	member.NextJSON()
	c.NextJSON()
	ask := func(format string, args ...any) map[string]any {
		c.Text(fmt.Sprintf(format, args...))
		return c.NextJSON()
	}
	for i := range 500 {
		p, err := s.Publish(t.Context(), hubbub.Publication{Room: "r", Content: i})
		if err != nil {
			t.Fatal(err)
		}
		if m := ask(`{"msg_type":"join_room","room":"r","since":{"epoch":%q,"offset":%d},"id":1}`, p.Epoch, p.Offset); m["recovered"] != true {
			t.Fatalf("joined behind message %d at %+v: %v", i, p, m)
		}
		ack := ask(`{"msg_type":"room_message","room":"r","content":%d,"id":2}`, i)
		if m := ask(`{"msg_type":"history","room":"r","since":{"epoch":%q,"offset":%.0f},"id":3}`, ack["epoch"], ack["offset"]); m["msg_type"] != "history" {
			t.Fatalf("a page behind %v: %v", ack, m)
		}
		ask(`{"msg_type":"leave_room","room":"r","id":4}`)
		member.NextJSON()
		member.NextJSON()
	}
}

// BenchmarkPublishToDisk is how long an acknowledgement takes where a room's history is on disk, beside memory, one message
// after the other.
func BenchmarkPublishToDisk(b *testing.B) {
	for name, cfg := range map[string]hubbub.Config{"memory": {}, "disk": {DataDir: b.TempDir()}} {
		b.Run(name, func(b *testing.B) {
			s := rawtest.Start(b, cfg)
			for b.Loop() {
				if _, err := s.Publish(b.Context(), hubbub.Publication{Room: "r", Content: "a message"}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
