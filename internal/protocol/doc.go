// Package protocol speaks the room protocol: it turns a client's JSON text into a Command, and
// appends the JSON of what the server sends. docs/protocol.md is the same thing for people who
// write a client.
//
//	var c protocol.Command // one for each worker, used again for every message
//	if err := protocol.Decode(text, &c); err != nil {
//		out = protocol.AppendError(out, err, 0, c.ID)
//		return
//	}
//	switch c.Kind {
//	case protocol.RoomMessage:
//		out = protocol.AppendRoomMessageHead(out, from, c.Content, string(c.Room), now)
//		out = protocol.AppendRoomMessageTail(out, offset, user, c.Key)
//		...
//	}
//
// # What it promises
//
// The package is pure: no connection, no clock, no goroutine, no state but the Command. Functions
// may be called from any goroutine; a Command belongs to one at a time. The slices of a Command
// alias the text it was decoded from, or its own scratch: they are good until the next Decode into
// it or until the text's buffer is written again, whichever comes first.
//
// Decode reads a text once from left to right, does not recurse, takes linear time, and allocates
// nothing for a message without fault once its scratch has grown. Nothing that a client sends makes
// it panic.
//
// # Where things are
//
//   - codes.go: the tables of error codes and close codes, and Error
//   - decode.go: Command, and the rules for every message
//   - fields.go: what each kind asks for: rooms, texts, positions
//   - scan.go: the JSON scanner below it, which knows bytes and no fields
//   - room.go: the rules of a room's name
//   - content.go: the rules for what the application gives
//   - encode.go: what the server sends
//   - history.go: its answers that hold positions, pages of a history, and gaps
//   - presence.go: who is in a room
//
// # To test and debug
//
// The vectors in testdata/protocol are run here and by the JavaScript client; a new rule gets a
// vector first. FuzzDecode holds Decode against a slow reference on encoding/json:
//
//	go test ./internal/protocol
//	go test -fuzz FuzzDecode -fuzztime 20s ./internal/protocol
//	go test -run - -bench . ./internal/protocol
//
// A refused message says where and why: Error.Message names the byte, the field or the value.
package protocol
