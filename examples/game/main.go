// Game is Pong against a bot: the program is the authority, at 30 ticks a second, and pages show what it says.
//
//	go run ./examples/game
//
// Open http://localhost:8080. What it shows is in README.md.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"log"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"example.com/hubbub"
)

//go:embed index.html style.css app.js
var files embed.FS

// policy lets the page load what this server has, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

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
			// Of a match only the newest state counts: it is kept for who comes back, and waits for who is slow.
			{Match: "match.*", Presence: "off", Join: "server", Publish: "server", History: &hubbub.History{Messages: 1, Age: *away + time.Minute}, SlowConsumer: "latest"},
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
