// Package hubbubtest is for tests of programs that are built on hubbub: a server in memory, clients that speak the room
// protocol, lines between them that can be cut at any byte, stalled or slowed, and a checker for what was delivered.
//
//	func TestDinner(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) { // optional: with it the clock is the test's
//			srv := hubbubtest.NewServer(t, hubbub.Config{})
//			ann, bob := srv.Connect("ann"), srv.Connect("bob")
//			ann.Join("kitchen")
//			bob.Join("kitchen")
//			ann.Publish("kitchen", "dinner is ready")
//			bob.ExpectMessage("kitchen", "dinner is ready")
//			ann.ExpectNothing(time.Second)
//
//			bob.Link.Stall(hubbubtest.Both) // in a tunnel
//			hubbubtest.Step(time.Minute)    // of the bubble's clock: no time at all
//			bob.Link.Resume(hubbubtest.Both)
//			bob.ExpectClosed(4002) // no sign of life
//
//			srv.Check() // nothing lost in silence, doubled or out of order
//		})
//	}
//
// Nothing here uses a socket, so everything works with the real clock, and in the bubble of testing/synctest with its
// virtual one. Two things differ: in a bubble waiting costs no time and is exact, so that ExpectNothing proves
// something; and Step works there alone. NewServer must be called inside the bubble.
//
// A client with an identity is one that shows something in its handshake, which Config.Authenticate makes an Identity of:
//
//	ann, err := srv.ConnectWith("ann", hubbubtest.Options{Header: http.Header{"Authorization": {"Bearer ann's"}}})
//
// Goroutines: the methods of Client, and those of Server that may fail the test, are for the test's goroutine, one at a
// time for each client. All of Link may be called from anywhere. A client reads and answers Pings on a goroutine of its
// own, so only a stalled or slow link makes it a slow reader. All goroutines end with the test's cleanup.
//
// A failure says what came instead, and the last lines of that client's log; Client.Log and Server.Log are all of it.
//
// It needs nothing beside hubbub itself and the standard library. For another WebSocket client, or for HTTP, there are
// Server.DialContext and Server.HTTPClient; in a bubble such a client must be closed before the test ends.
//
// The map: server.go the server; client.go a connection, expect.go what a test asks of it, log.go what it remembers;
// message.go and frame.go what goes over the line, by internal/wsclient; link.go and network.go the line; clock.go the
// clock. The checker is internal/model.
package hubbubtest
