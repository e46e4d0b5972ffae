// Coder is the seed's server on github.com/coder/websocket, in the shape of that library's chat example: the request's
// goroutine reads, another one writes what comes through a bounded channel, and a client whose channel is full is
// closed. The library has no message prepared for many: each client's is framed anew. Deadlines, which the seed lacks
// too, are left out in this server's favour: a context that can end costs the library a timer's work a message.
package main

import (
	"context"
	"iter"
	"log"
	"net/http"
	"os"

	"example.com/hubbub/bench/rivals/seed"
	"github.com/coder/websocket"
)

var manager = seed.NewManager(func(text []byte, to iter.Seq[*client]) {
	for c := range to {
		select {
		case c.send <- text:
		default:
			go c.conn.Close(websocket.StatusPolicyViolation, "too slow to keep up with messages")
		}
	}
})

type client struct {
	conn *websocket.Conn
	send chan []byte
	gone chan struct{} // closed by the reader
}

func (c *client) read() {
	for {
		kind, text, err := c.conn.Read(context.Background())
		if err != nil {
			return
		}
		if kind == websocket.MessageText {
			manager.Handle(c, text)
		}
	}
}

func (c *client) write() {
	for {
		select {
		case text := <-c.send:
			if c.conn.Write(context.Background(), websocket.MessageText, text) != nil {
				c.conn.CloseNow()
				return
			}
		case <-c.gone:
			return
		}
	}
}

func serveRooms(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil) // compression is off unless asked for
	if err != nil {
		return // it has answered
	}
	defer conn.CloseNow()
	c := &client{conn, make(chan []byte, seed.QueuedMessages), make(chan struct{})}
	defer close(c.gone)
	manager.Add(c)
	defer manager.Remove(c)
	go c.write()
	c.read()
}

func serveEcho(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ctx := context.Background()
	for {
		kind, data, err := conn.Read(ctx)
		if err != nil || conn.Write(ctx, kind, data) != nil {
			return
		}
	}
}

func main() {
	http.HandleFunc("/", serveRooms)
	http.HandleFunc("/echo", serveEcho)
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
