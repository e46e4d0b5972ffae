// Package room speaks the room protocol: it turns a client's JSON text into a Command, and appends the JSON of what the
// server sends. docs/protocol.md is the same thing for people who write a client.
//
// # What it promises
//
// The package is pure: no connection, no clock, no goroutine, no state but a Dialect's scratch. The slices of a Command
// alias the text it was decoded from, or that scratch: they are good until the next Next or until the text's buffer is
// written again, whichever comes first.
//
// Next reads a text once from left to right, does not recurse, takes linear time, and allocates nothing for a message
// without fault once its scratch has grown. Nothing that a client sends makes it panic.
//
// # Where things are
//
//   - decode.go: Dialect and its Next, and the rules for every message
//   - fields.go: what each kind asks for: rooms, texts, positions
//   - scan.go: the JSON scanner below it, which knows bytes and no fields
//   - content.go: the rules for what the application gives
//   - encode.go: what the server sends
//   - text.go: scanning and lists for the HTTP API
//
// # To test and debug
//
// The vectors in testdata/protocol are run here and by the JavaScript client; a new rule gets a vector first.
// FuzzDecode holds Next against a slow reference on encoding/json:
//
//	go test ./internal/protocol/room
//	go test -fuzz FuzzDecode -fuzztime 20s ./internal/protocol/room
//	go test -run - -bench . ./internal/protocol/room
//
// A refused message says where and why: Error.Message names the byte, the field or the value.
package room
