// Package hubbub is a real-time messaging server as a library: clients hold a WebSocket open, join rooms, and what one
// of them or the application publishes reaches every member at once.
//
//	srv, err := hubbub.New(hubbub.Config{})
//	if err != nil {
//		log.Fatal(err)
//	}
//	http.Handle("/", srv)          // rooms at /ws, an echo at /echo, a page to try it at /
//	srv.Publish(ctx, hubbub.Publication{Room: "lobby", Content: "hello"}) // to every member of a room
//	srv.Publish(ctx, hubbub.Publication{Everyone: true, Content: "hello, all"})
//	srv.Publish(ctx, hubbub.Publication{Client: id, Content: "psst"}) // or User: a name
//
// What clients say is in docs/protocol.md; a kind of message of your own is a Handler in the Config. The same server as
// a command is cmd/hubbub.
//
// Goroutines: a Server has one for each worker, each of which owns many connections; an idle connection costs a small
// struct and neither a goroutine nor a buffer. A Handler runs on a goroutine of its own. All methods of Server may be
// called from anywhere; Serve, ListenAndServe and Shutdown block, and those that do something with one client wait for
// its worker.
//
// To see what it does, give Config a Logger of level debug: each refused request, failed connection and slow client is
// a line. To test with it, serve it on a listener at 127.0.0.1:0, as the tests of this package do.
//
// The map: config.go and roompolicy.go settings, Handler; server.go the Server; what you ask it for: backend.go
// Publish, rooms.go, clients.go and tail.go what each is about; api.go the HTTP API, its keys and AdminHandler;
// listen.go its listeners; cluster.go, links.go and nodeview.go other nodes; shutdown.go its end; handshake.go from
// request to connection; identify.go who asks; hooks.go your code in a client's life; questions.go and webhooks.go what
// your backend is asked and told; memory.go, limit_*.go and metrics.go what their names say. Below it: internal/front
// (what stands before a session), internal/api (the HTTP API), internal/hub (rooms, sessions), internal/loop (workers,
// connections), internal/protocol (messages), internal/wire (frames). docs/architecture.md has a picture.
package hubbub
