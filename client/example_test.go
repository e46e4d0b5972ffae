package client_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/client"
)

// serve is a server for the examples.
func serve() (url string, stop func()) {
	server, err := hubbub.New(hubbub.Config{})
	if err != nil {
		log.Fatal(err)
	}
	s := httptest.NewServer(server)
	return s.URL + "/ws", func() {
		server.Shutdown(context.Background())
		s.Close()
	}
}

func Example() {
	url, stop := serve()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	ann, err := client.Dial(ctx, url, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer ann.Close()
	lobby := ann.Room("lobby")
	if err := lobby.Join(ctx); err != nil {
		log.Fatal(err)
	}

	bob, err := client.Dial(ctx, url, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer bob.Close()
	if _, err := bob.Room("lobby").Publish(ctx, map[string]string{"text": "hello"}, client.PublishOptions{}); err != nil {
		log.Fatal(err)
	}

	for m := range lobby.Messages(ctx) {
		fmt.Printf("%s in %s\n", m.Content, m.Room)
		break
	}
	// Output: {"text":"hello"} in lobby
}

// What is shown may lack something after a Lost or a Gap: then it is fetched anew.
func ExampleRoom_Events() {
	url, stop := serve()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	hub, err := client.Dial(ctx, url, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close()
	room := hub.Room("prices")
	// A place of a server that is gone, as a program may have kept it on its disk.
	if err := room.JoinWith(ctx, client.JoinOptions{Since: &client.Position{Epoch: "old", Offset: 17}}); err != nil {
		log.Fatal(err)
	}
	for e := range room.Events(ctx) {
		switch e := e.(type) {
		case client.Message:
			fmt.Println("a message:", string(e.Content))
		case client.Gap:
			fmt.Println("missing:", e.Count)
		case client.Lost:
			page, err := room.History(ctx, client.HistoryOptions{})
			fmt.Println("anew, because of", e.Reason, len(page.Messages), err)
			return
		}
	}
	// Output: anew, because of epoch 0 <nil>
}
