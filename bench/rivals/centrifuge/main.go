// Centrifuge is a server on github.com/centrifugal/centrifuge, as its tutorial has it: anybody may subscribe and
// publish. It speaks that library's own JSON protocol, in which a room is a channel, the sender gets its message too,
// and several messages may share a frame, one a line. Its echo is a remote call.
package main

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/centrifugal/centrifuge"
)

func onConnect(client *centrifuge.Client) {
	client.OnSubscribe(func(_ centrifuge.SubscribeEvent, reply centrifuge.SubscribeCallback) {
		reply(centrifuge.SubscribeReply{}, nil)
	})
	client.OnPublish(func(_ centrifuge.PublishEvent, reply centrifuge.PublishCallback) {
		reply(centrifuge.PublishReply{}, nil)
	})
	client.OnRPC(func(call centrifuge.RPCEvent, reply centrifuge.RPCCallback) {
		reply(centrifuge.RPCReply{Data: call.Data}, nil)
	})
}

func main() {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		log.Fatal(err)
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{}}, nil // anonymous
	})
	node.OnConnect(onConnect)
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	// A pool of write buffers, as for gorilla, from which the library's own WebSocket stems.
	http.Handle("/", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{UseWriteBufferPool: true}))
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
