// Cursors is a shared board: everybody sees where the others point, and the shapes that all of them add, move and delete.
//
//	go run ./examples/cursors
//
// Open http://localhost:8080 in two browser windows. SIGINT or SIGTERM stops it: every client is told to come back.
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

var rooms = []hubbub.RoomPolicy{
	// Where each client points: for who is slow, the newest of each key, and a key is a client. Nothing of it is kept.
	{Match: "cursors", Presence: "full", Publish: "members", History: &hubbub.History{}, SlowConsumer: "latest-by-key"},
	// What becomes of the shapes: the board alone says it, and what a short cut misses comes from the history.
	{Match: "board", Presence: "off", Publish: "server", History: &hubbub.History{Messages: 2000, Age: 10 * time.Minute, Bytes: 1 << 20}},
	{Match: "*", Join: "server", Publish: "server"},
}

func main() {
	listen := flag.String("listen", "localhost:8080", "address for HTTP and WebSockets")
	flag.Parse()

	b := newBoard()
	srv, err := hubbub.New(hubbub.Config{Rooms: rooms, Hooks: hubbub.Hooks{Request: b.request}})
	if err != nil {
		log.Fatal(err)
	}
	b.publish = srv.Publish // nobody is connected yet

	mux := http.NewServeMux()
	for _, path := range []string{"/ws", "/hubbub.js", "/healthz", "/readyz"} {
		mux.Handle(path, srv)
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

	<-stop.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil { // the WebSockets, of which web knows nothing; upgrades are told 503 now
		log.Print(err)
	}
	if err := web.Shutdown(ctx); err != nil {
		log.Print(err)
	}
}
