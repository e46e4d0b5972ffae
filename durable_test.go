package hubbub_test

import (
	"context"
	"errors"
	"fmt"
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
