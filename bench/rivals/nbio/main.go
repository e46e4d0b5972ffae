// Nbio is the seed's server on github.com/lesismal/nbio, by the library's own poller (IOModNonBlocking, its default and
// what its benchmark of a million connections uses): no goroutine for a connection, and writes that don't block. The
// library has no message prepared for many: each client's is framed anew.
package main

import (
	"iter"
	"log"
	"net/http"
	"os"

	"example.com/hubbub/bench/rivals/seed"
	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	"github.com/lesismal/nbio/nbhttp/websocket"
)

var manager = seed.NewManager(func(text []byte, to iter.Seq[*websocket.Conn]) {
	for conn := range to {
		conn.WriteMessage(websocket.TextMessage, text) // the library closes a connection that fails
	}
})

func rooms() *websocket.Upgrader {
	upgrader := websocket.NewUpgrader()
	upgrader.OnOpen(manager.Add)
	upgrader.OnClose(func(conn *websocket.Conn, err error) { manager.Remove(conn) })
	upgrader.OnMessage(func(conn *websocket.Conn, kind websocket.MessageType, text []byte) {
		if kind == websocket.TextMessage {
			manager.Handle(conn, text)
		}
	})
	return upgrader
}

func echo() *websocket.Upgrader {
	upgrader := websocket.NewUpgrader()
	upgrader.OnMessage(func(conn *websocket.Conn, kind websocket.MessageType, data []byte) {
		conn.WriteMessage(kind, data)
	})
	return upgrader
}

func serve(upgrader *websocket.Upgrader) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		upgrader.Upgrade(w, r, nil) // it answers a request that it refuses
	}
}

func main() {
	logging.SetLevel(logging.LevelError)
	mux := http.NewServeMux()
	mux.HandleFunc("/", serve(rooms()))
	mux.HandleFunc("/echo", serve(echo()))
	engine := nbhttp.NewEngine(nbhttp.Config{
		Network:                 "tcp",
		Addrs:                   []string{os.Args[1]},
		Handler:                 mux,
		ReleaseWebsocketPayload: true, // read buffers return to the pool after OnMessage
	})
	if err := engine.Start(); err != nil {
		log.Fatal(err)
	}
	select {}
}
