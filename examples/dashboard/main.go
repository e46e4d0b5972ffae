// Dashboard shows 500 tiles, of which 200 a second change, to everybody who looks, however slow their line is.
//
//	go run ./examples/dashboard
//
// Open http://localhost:8080. What it shows is in README.md.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"math/rand/v2"
	"net/http"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"example.com/hubbub"
)

//go:embed index.html style.css app.js
var files embed.FS

// policy lets the page load what this server has, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// board is the truth: what each tile shows now.
type board struct {
	mu      sync.Mutex
	version int64
	next    int
	tiles   [500]tile
}

// tile is what a message brings, and a snapshot has 500 of. Of two the one with the higher version is newer.
type tile struct {
	Version int64 `json:"version"`
	Load    int   `json:"load"` // percent
}

// newBoard begins to count at the time, so that what a restarted program shows is newer than what was before.
func newBoard() *board {
	b := &board{version: time.Now().UnixMicro()}
	for i := range b.tiles {
		b.tiles[i] = tile{b.version, rand.IntN(101)}
	}
	return b
}

// change gives one tile another load.
func (b *board) change() (key string, t tile) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.version++
	i := b.next
	b.next = (i + 211) % len(b.tiles) // each comes once in 2.5 s
	b.tiles[i] = tile{b.version, max(0, min(100, b.tiles[i].Load+rand.IntN(31)-15))}
	return strconv.Itoa(i), b.tiles[i]
}

// snapshot answers a viewer that has just joined, or can't know what it missed.
func (b *board) snapshot(_ context.Context, r *hubbub.Request) (json.RawMessage, error) {
	if r.Method != "snapshot" {
		return nil, &hubbub.Error{Code: hubbub.Forbidden, Message: "ask for a snapshot"}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return json.Marshal(b.tiles[:])
}

// run changes 200 tiles a second, ten at a time: what a viewer gets at once leaves in one write.
func (b *board) run(ctx context.Context, srv *hubbub.Server) {
	turns := time.NewTicker(time.Second / 20)
	defer turns.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-turns.C:
		}
		for range 10 {
			key, t := b.change()
			// An error says that the server is overloaded, or stops: nobody gets this one, but the tile's next.
			_, _ = srv.Publish(ctx, hubbub.Publication{Room: "tiles", Key: key, Content: t})
		}
	}
}

func main() {
	listen := flag.String("listen", "localhost:8080", "address for HTTP and WebSockets")
	flag.Parse()

	b := newBoard()
	srv, err := hubbub.New(hubbub.Config{
		Hooks: hubbub.Hooks{Request: b.snapshot},
		Rooms: []hubbub.RoomPolicy{
			// Nothing is kept: who comes back wants the tiles as they are, not as they became so.
			{Match: "tiles", Presence: "off", Publish: "server", History: &hubbub.History{}, SlowConsumer: "latest-by-key"},
			{Match: "*", Join: "server", Publish: "server"},
		},
		Chat: "server", Direct: "server", // a viewer looks
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, path := range []string{"/ws", "/hubbub.js", "/healthz", "/readyz"} {
		mux.Handle(path, srv)
	}
	mux.Handle("/slow", slowLine(srv.WebSocket()))
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
	b.run(stop, srv)

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil { // the WebSockets, of which web knows nothing; upgrades are told 503 now
		log.Print(err)
	}
	if err := web.Shutdown(ctx); err != nil {
		log.Print(err)
	}
}
