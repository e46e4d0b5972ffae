// Chat is a chat server in one page: clients join rooms and talk, and the program itself speaks too.
//
//	go run ./examples/chat
//
// Open http://localhost:8080 in two browser windows. SIGINT stops it: every client is told to come back.
package main

import (
	"context"
	"log"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"example.com/hubbub"
)

func main() {
	srv, err := hubbub.New(hubbub.Config{})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", srv) // rooms at /ws, a page at /, /healthz and /readyz
	mux.HandleFunc("POST /announce", func(w http.ResponseWriter, r *http.Request) {
		if _, err := srv.Publish(r.Context(), hubbub.Publication{Room: "lobby", Content: r.FormValue("text")}); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	web := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		log.Print("http://localhost:8080")
		if err := web.ListenAndServe(); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()

	<-stop.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	web.Shutdown(ctx) // takes no more requests, but knows nothing of the WebSockets:
	srv.Shutdown(ctx)
}
