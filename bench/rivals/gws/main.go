// Gws is the seed's server on github.com/lxzan/gws: a goroutine for each client reads, and a Broadcaster, which frames
// a message once, hands it to each client's own write queue. The library's "best practice" processes the messages of
// one connection in parallel; that is off here, since it loses their order. So are heartbeats, which the seed lacks
// too.
package main

import (
	"iter"
	"log"
	"net/http"
	"os"

	"example.com/hubbub/bench/rivals/seed"
	"github.com/lxzan/gws"
)

var manager = seed.NewManager(func(text []byte, to iter.Seq[*gws.Conn]) {
	broadcaster := gws.NewBroadcaster(gws.OpcodeText, text)
	defer broadcaster.Close()
	for conn := range to {
		broadcaster.Broadcast(conn) // the library closes a connection that fails
	}
})

type rooms struct{ gws.BuiltinEventHandler }

func (rooms) OnOpen(conn *gws.Conn)             { manager.Add(conn) }
func (rooms) OnClose(conn *gws.Conn, err error) { manager.Remove(conn) }

func (rooms) OnMessage(conn *gws.Conn, message *gws.Message) {
	defer message.Close()
	if message.Opcode == gws.OpcodeText {
		manager.Handle(conn, message.Bytes())
	}
}

type echo struct{ gws.BuiltinEventHandler }

func (echo) OnMessage(conn *gws.Conn, message *gws.Message) {
	defer message.Close()
	conn.WriteMessage(message.Opcode, message.Bytes())
}

func serve(handler gws.Event) http.HandlerFunc {
	upgrader := gws.NewUpgrader(handler, &gws.ServerOption{Recovery: gws.Recovery})
	return func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r)
		if err != nil {
			return
		}
		go conn.ReadLoop() // in a goroutine of its own: the request's memory can go
	}
}

func main() {
	http.HandleFunc("/", serve(rooms{}))
	http.HandleFunc("/echo", serve(echo{}))
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
