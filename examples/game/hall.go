package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"strings"
	"sync"
	"time"

	"example.com/hubbub"
)

const (
	tick       = time.Second / 30
	maxMatches = 1000
)

// hall is where matches are played.
type hall struct {
	srv *hubbub.Server // static once it serves

	mu      sync.Mutex
	number  int
	matches map[string]*match // by the player's client id, which outlives a lost connection
}

// request is what a page may ask: to play, and where its paddle shall go.
func (h *hall) request(ctx context.Context, r *hubbub.Request) (json.RawMessage, error) {
	var in struct {
		Name string
		To   *float64
	}
	if len(r.Content) > 0 && json.Unmarshal(r.Content, &in) != nil {
		return nil, &hubbub.Error{Code: hubbub.BadMessage, Message: "name is a string, to a number or null"}
	}
	switch r.Method {
	case "play":
		return nil, h.play(ctx, r.Client, in.Name)
	case "move":
		h.mu.Lock()
		defer h.mu.Unlock()
		if m := h.matches[r.Client]; m != nil {
			m.want = in.To
		}
		return nil, nil
	}
	return nil, &hubbub.Error{Code: hubbub.Forbidden, Message: "play or move"}
}

// play puts a client into the room of a match: nobody gets there by itself. One that is in a match goes on with it.
func (h *hall) play(ctx context.Context, client, name string) error {
	h.mu.Lock()
	m, begun := h.matches[client], true
	if m == nil && len(h.matches) == maxMatches {
		h.mu.Unlock()
		return &hubbub.Error{Code: hubbub.LimitReached, Message: "all tables are taken"}
	}
	if m == nil {
		h.number++
		m, begun = newMatch(fmt.Sprintf("match.%d", h.number), cleanName(name)), false
		h.matches[client] = m
	}
	h.mu.Unlock()
	err := h.srv.Join(ctx, m.room, client)
	if err != nil && !begun {
		h.end(client, m.room)
	}
	return err
}

func cleanName(name string) string {
	if runes := []rune(strings.TrimSpace(name)); len(runes) > 20 {
		return string(runes[:20])
	} else if len(runes) > 0 {
		return string(runes)
	}
	return "somebody"
}

// left hears that a player is gone: it has left, or its line was lost and it has not come back in time. The bot wins.
func (h *hall) left(_ context.Context, l *hubbub.Left) {
	if m := h.end(l.Client, l.Room); m != nil {
		m.Winner = "bot"
		h.tell(m, true)
	}
}

// end takes a match out of the hall, and is nil where it isn't there any more.
func (h *hall) end(client, room string) *match {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.matches[client]
	if m == nil || m.room != room {
		return nil
	}
	delete(h.matches, client)
	return m
}

// run plays all matches, tick by tick.
func (h *hall) run(ctx context.Context) {
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		h.mu.Lock()
		for client, m := range h.matches {
			m.step()
			// An error says that the server is overloaded, or stops. The next tick says it all again.
			_, _ = h.srv.Publish(ctx, hubbub.Publication{Room: m.room, Content: m.state})
			if m.Winner != "" {
				delete(h.matches, client)
				h.tell(m, false)
			}
		}
		h.mu.Unlock()
	}
}

// tell has everybody see how a match ended.
func (h *hall) tell(m *match, away bool) {
	_, err := h.srv.Publish(context.Background(), hubbub.Publication{Room: "results", Content: map[string]any{
		"match": m.room, "name": m.name, "score": m.Score, "winner": m.Winner, "away": away,
	}})
	if err != nil && !errors.Is(err, hubbub.ErrStopped) {
		log.Printf("the result of %s: %v", m.room, err)
	}
}
