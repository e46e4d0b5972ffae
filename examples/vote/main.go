// Vote has a message of its own: {"msg_type":"vote","choice":"tea"} counts, and everyone in the room "votes" sees the
// score.
//
//	go run ./examples/vote
package main

import (
	"context"
	"log"
	"maps"
	"sync"

	"example.com/hubbub"
)

func main() {
	var (
		srv   *hubbub.Server
		mu    sync.Mutex
		score = map[string]int{}
	)
	vote := func(ctx context.Context, m *hubbub.Message) (any, error) {
		var in struct {
			Choice string `json:"choice"`
		}
		if err := m.Decode(&in); err != nil {
			return nil, err
		}
		if in.Choice != "tea" && in.Choice != "coffee" {
			return nil, &hubbub.Error{Code: hubbub.Forbidden, Message: "vote for tea or coffee"}
		}
		mu.Lock()
		defer mu.Unlock()
		score[in.Choice]++
		_, err := srv.Publish(ctx, hubbub.Publication{Room: "votes", Content: score})
		return maps.Clone(score), err
	}

	var err error
	srv, err = hubbub.New(hubbub.Config{Handlers: map[string]hubbub.Handler{"vote": vote}})
	if err != nil {
		log.Fatal(err)
	}
	log.Print("ws://localhost:8080/ws")
	log.Fatal(srv.ListenAndServe(":8080"))
}
