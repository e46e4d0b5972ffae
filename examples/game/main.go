// Game is Pong against a bot: the program is the authority, at 30 ticks a second, and pages show what it says.
//
//	go run ./examples/game
//
// Open http://localhost:8080. What it shows is in README.md.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/hubbub"
)

//go:embed index.html style.css app.js
var files embed.FS

// policy lets the page load what this server has, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

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

func main() {
	listen := flag.String("listen", "localhost:8080", "address for HTTP and WebSockets")
	away := flag.Duration("away", 30*time.Second, "how long a player may be away before the bot wins")
	flag.Parse()

	h := &hall{matches: map[string]*match{}}
	var err error
	h.srv, err = hubbub.New(hubbub.Config{
		Hooks:        hubbub.Hooks{Request: h.request, Left: h.left},
		ResumeWindow: *away,
		Limits:       hubbub.Limits{Client: hubbub.ClientLimits{Messages: hubbub.Rate{N: 60, Burst: 120}}},
		Rooms: []hubbub.RoomPolicy{
			// Of a match only the newest state counts: nothing is kept, and for a slow player nothing else waits.
			{Match: "match.*", Presence: "off", Join: "server", Publish: "server", History: &hubbub.History{}, SlowConsumer: "latest"},
			{Match: "results", Presence: "off", Publish: "server", History: &hubbub.History{Messages: 20, Age: 24 * time.Hour}},
			{Match: "*", Join: "server", Publish: "server"},
		},
		Chat: "server", Direct: "server", // players don't talk
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, path := range []string{"/ws", "/hubbub.js", "/healthz", "/readyz"} {
		mux.Handle(path, h.srv)
	}
	page := http.FileServerFS(files)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-cache")
		page.ServeHTTP(w, r)
	})

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	web := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		log.Printf("http://%s", *listen)
		if err := web.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	h.run(stop)

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.srv.Shutdown(ctx); err != nil { // the WebSockets, of which web knows nothing; upgrades are told 503 now
		log.Print(err)
	}
	if err := web.Shutdown(ctx); err != nil {
		log.Print(err)
	}
}
