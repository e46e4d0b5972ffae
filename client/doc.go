// Package client is the Go client of a Hubbub server. It comes back when the line breaks, and then it has lost nothing
// and has nothing twice, or it says what it may lack.
//
//	hub, err := client.Dial(ctx, "ws://localhost:8080/ws", client.Options{})
//	if err != nil {
//		return err
//	}
//	defer hub.Close()
//	lobby := hub.Room("lobby")
//	if err := lobby.Join(ctx); err != nil {
//		return err
//	}
//	lobby.Publish(ctx, "hello", client.PublishOptions{})
//	for m := range lobby.Messages(ctx) {
//		fmt.Println(m.From, string(m.Content))
//	}
//
// # What it promises
//
// A room's messages come in the room's order, none twice, over lost connections and restarts of the server: the client
// resumes its session, or joins again from the position that it had reached. Where the server can't prove that nothing
// was missed, Room.Events has a Lost; where it says which messages will not come, a Gap. Messages leaves both out.
//
// What is published while the line is away waits, at most Options.QueueCalls calls and Options.QueueBytes bytes, and
// goes out in the order of the calls; beyond it is ErrQueueFull. A publish that was sent and not answered is sent again,
// and published once by its publish_id, where the server still knows who sent it: the session was resumed, or the client
// has a user name and is in the room, whose epoch is still the same. Else it is ErrUnknown, and never sent again; so it is
// where the server refuses the second sending, which says nothing of the first. Chat, Send and Request have no such id:
// sent and not answered they are ErrUnknown.
//
// A join that lasts is the client's, not the connection's: it holds until Leave, Close, or a Left.
//
// # Slow readers
//
// Each room keeps up to Options.BufferBytes of what nobody has read yet. While somebody ranges over it and is slower
// than that, the client reads no more of its connection, of any room, and the server does with it what its policy for
// slow consumers says; a connection that is closed for it comes back by itself. Only while a call waits for its answer
// is more read, up to four times as much, so that a loop may publish. A loop that takes longer than that over a call is
// at the call's context. While nobody ranges over a room the oldest are dropped, and the next who does is told by a Gap
// with the reason "unread".
//
// # Goroutines
//
// A Hub has one goroutine, and three more while it is connected; none is left when Close returns. All methods may be
// called from any goroutine. Those with a context wait for the server's answer, also while there is no connection: bound
// them with a deadline. Two loops over one room share its messages as two readers of a channel do.
//
// # The map
//
// hub.go has Hub and its states; room.go what one does with a room; event.go what comes of it; inbox.go what waits to be
// read; call.go the calls that wait for answers; content.go what may be said; keeper.go how a connection is made and when
// it comes back; handshake.go what a refusal says; token.go whose tokens; connection.go a connection's goroutines;
// receive.go what the server's messages do; resume.go how rooms are entered again; members.go the lists of members;
// errors.go the errors.
//
// To see what it does, give it Options.Logger at level debug. To test a program that uses it, hubbubtest has a server in
// memory: Options.HTTPClient with its DialContext reaches it.
package client
