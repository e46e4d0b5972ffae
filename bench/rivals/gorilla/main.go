// Gorilla is the seed's server on github.com/gorilla/websocket, in the shape of that library's chat example: two
// goroutines and a bounded channel for each client, who is closed when the channel is full. A message to many is a
// PreparedMessage, which is framed once. Write buffers come from a pool, as the documentation advises for many
// connections with few writes; the read buffer has the example's size. Heartbeats and deadlines, which the seed lacks
// too, are left out in this server's favour.
package main

import (
	"iter"
	"log"
	"net/http"
	"os"
	"sync"

	"example.com/hubbub/bench/rivals/seed"
	"github.com/gorilla/websocket"
)

var upgrader = websocket.Upgrader{ReadBufferSize: 1024, WriteBufferPool: &sync.Pool{}}

var manager = seed.NewManager(func(text []byte, to iter.Seq[*client]) {
	message, err := websocket.NewPreparedMessage(websocket.TextMessage, text)
	if err != nil {
		log.Print(err)
		return
	}
	for c := range to {
		select {
		case c.send <- message:
		default:
			c.conn.Close() // its reader sees that, and removes it
		}
	}
})

type client struct {
	conn *websocket.Conn
	send chan *websocket.PreparedMessage
	gone chan struct{} // closed by the reader
}

func (c *client) read() {
	defer func() {
		manager.Remove(c)
		close(c.gone)
		c.conn.Close()
	}()
	for {
		kind, text, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		if kind == websocket.TextMessage {
			manager.Handle(c, text)
		}
	}
}

func (c *client) write() {
	for {
		select {
		case message := <-c.send:
			if c.conn.WritePreparedMessage(message) != nil {
				c.conn.Close()
				return
			}
		case <-c.gone:
			return
		}
	}
}

func serveRooms(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // it has answered
	}
	c := &client{conn, make(chan *websocket.PreparedMessage, seed.QueuedMessages), make(chan struct{})}
	manager.Add(c)
	go c.write() // in goroutines of their own: the request's memory can go
	go c.read()
}

func serveEcho(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	go func() {
		defer conn.Close()
		for {
			kind, data, err := conn.ReadMessage()
			if err != nil || conn.WriteMessage(kind, data) != nil {
				return
			}
		}
	}()
}

func main() {
	http.HandleFunc("/", serveRooms)
	http.HandleFunc("/echo", serveEcho)
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
