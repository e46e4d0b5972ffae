// Chat is a chat server with its page: rooms with history, who is there, who types, and lines that break.
//
//	go run ./examples/chat
//
// Open http://localhost:8080 in two browser windows. SIGINT or SIGTERM stops it: every client is told to come back.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"log"
	"maps"
	"net/http"
	"os/signal"
	"slices"
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

// rooms are three kinds, and no others.
var rooms = []hubbub.RoomPolicy{
	{Match: "chat:*", Presence: "full", History: &hubbub.History{Messages: 2000, Age: 24 * time.Hour, Bytes: 1 << 20}},
	{Match: "typing:*", Presence: "off", History: &hubbub.History{}, SlowConsumer: "latest-by-key"}, // who types: nothing to keep
	{Match: "rooms", Publish: "server", History: &hubbub.History{Messages: 1, Age: 24 * time.Hour}}, // the newest list of rooms
	{Match: "*", Join: "server", Publish: "server"},
}

// directory tells the room "rooms" in which rooms of the chat somebody is.
type directory struct {
	srv      *hubbub.Server
	mu       sync.Mutex
	occupied map[string]bool
}

const listed = 100 // names of rooms

func (d *directory) set(ctx context.Context, room string, occupied bool) {
	name, ok := strings.CutPrefix(room, "chat:")
	if !ok {
		return
	}
	d.mu.Lock() // also while it publishes, so that the newest list is the last one
	defer d.mu.Unlock()
	if occupied {
		d.occupied[name] = true
	} else {
		delete(d.occupied, name)
	}
	names := slices.Sorted(maps.Keys(d.occupied))
	_, err := d.srv.Publish(ctx, hubbub.Publication{Room: "rooms", Content: names[:min(len(names), listed)]})
	if err != nil && !errors.Is(err, hubbub.ErrStopped) {
		log.Printf("the list of rooms: %v", err)
	}
}

func main() {
	listen := flag.String("listen", "localhost:8080", "address for HTTP and WebSockets")
	flag.Parse()

	d := directory{occupied: map[string]bool{}}
	var err error
	d.srv, err = hubbub.New(hubbub.Config{Rooms: rooms, Hooks: hubbub.Hooks{
		Occupied: func(ctx context.Context, room string) { d.set(ctx, room, true) },
		Vacated:  func(ctx context.Context, room string) { d.set(ctx, room, false) },
	}})
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	for _, path := range []string{"/ws", "/hubbub.js", "/healthz", "/readyz"} {
		mux.Handle(path, d.srv)
	}
	page := http.FileServerFS(files)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-cache")
		page.ServeHTTP(w, r)
	})
	// What the program itself has to say: curl -d room=general -d text=hello http://localhost:8080/announce
	mux.HandleFunc("POST /announce", func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
		room, text := r.FormValue("room"), r.FormValue("text")
		if room == "" || text == "" {
			http.Error(w, "a room and a text are wanted", http.StatusBadRequest)
			return
		}
		_, err := d.srv.Publish(r.Context(), hubbub.Publication{Room: "chat:" + room, Content: map[string]string{"text": text}})
		switch {
		case errors.Is(err, hubbub.ErrOverloaded), errors.Is(err, hubbub.ErrStopped):
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	web := &http.Server{Addr: *listen, Handler: http.NewCrossOriginProtection().Handler(mux), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		log.Printf("http://%s", *listen)
		if err := web.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()

	<-stop.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := d.srv.Shutdown(ctx); err != nil { // the WebSockets, of which web knows nothing; upgrades are told 503 now
		log.Print(err)
	}
	if err := web.Shutdown(ctx); err != nil {
		log.Print(err)
	}
}
