package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"example.com/hubbub"
)

// board keeps the shapes. Clients ask it to change one, and it tells the room "board" what has become of that shape: all
// of it, so that hearing it twice is hearing it once. A client that may have missed something asks for the whole board,
// which says up to which message of the room it is.
type board struct {
	publish func(context.Context, hubbub.Publication) (hubbub.Position, error)
	run     string // another one after a restart, which loses the shapes

	mu     sync.Mutex // also while it publishes: the room's order is that of the changes
	shapes map[string]shape
	gone   []string        // the ids that were deleted last: what comes late for one must not bring it back
	at     hubbub.Position // of the newest change
}

// shape is one, where x and y run from 0 to 1.
type shape struct {
	ID    string  `json:"id"`
	Kind  string  `json:"kind"`
	Color int     `json:"color"`
	X     float64 `json:"x"`
	Y     float64 `json:"y"`
}

const (
	maxShapes = 300
	maxGone   = 10_000
	colors    = 8
)

var kinds = []string{"square", "circle", "triangle"}

func newBoard() *board { return &board{run: rand.Text(), shapes: map[string]shape{}} }

// request answers "board", and does "add", "move" and "delete", whose answer is where in the room the outcome stands. Each
// may be asked again by a client that got no answer.
func (b *board) request(ctx context.Context, r *hubbub.Request) (json.RawMessage, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Method == "board" {
		all := slices.AppendSeq([]shape{}, maps.Values(b.shapes))
		return json.Marshal(map[string]any{"run": b.run, "shapes": all, "epoch": b.at.Epoch, "offset": b.at.Offset})
	}
	var s shape
	if err := json.Unmarshal(r.Content, &s); err != nil {
		return nil, &hubbub.Error{Code: hubbub.BadMessage, Message: err.Error()}
	}
	if err := b.do(ctx, r.Method, s); err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"epoch": b.at.Epoch, "offset": b.at.Offset})
}

// do is called with mu held.
func (b *board) do(ctx context.Context, method string, s shape) error {
	_, there := b.shapes[s.ID]
	deleted := slices.Contains(b.gone, s.ID)
	switch {
	case method != "add" && method != "move" && method != "delete":
		return &hubbub.Error{Code: hubbub.BadMessage, Message: "ask for board, add, move or delete"}
	case method == "delete" && there:
		return b.change(ctx, s.ID, nil)
	case method == "delete": // asked before, or by another, or lost with a restart
		return nil
	case deleted, !there && method != "add":
		return &hubbub.Error{Code: hubbub.Forbidden, Message: "this shape is gone"}
	case !there && len(b.shapes) >= maxShapes:
		return &hubbub.Error{Code: hubbub.Forbidden, Message: "the board is full: delete a shape first"}
	case len(s.ID) < 1 || len(s.ID) > 64 || !slices.Contains(kinds, s.Kind) || s.Color < 0 || s.Color >= colors || s.X < 0 || s.X > 1 || s.Y < 0 || s.Y > 1:
		return &hubbub.Error{Code: hubbub.BadMessage, Message: "no shape: an id, a kind, a color, x and y from 0 to 1 are wanted"}
	}
	return b.change(ctx, s.ID, &s)
}

// change tells the room, and remembers it where that went through. What is nil is deleted.
func (b *board) change(ctx context.Context, id string, s *shape) error {
	at, err := b.publish(ctx, hubbub.Publication{Room: "board", Content: map[string]any{"id": id, "shape": s}})
	if err != nil {
		return err // the client is told to try again
	}
	b.at = at
	if s != nil {
		b.shapes[id] = *s
		return nil
	}
	delete(b.shapes, id)
	if b.gone = append(b.gone, id); len(b.gone) > maxGone {
		b.gone = b.gone[1:]
	}
	return nil
}
