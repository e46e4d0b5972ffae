// Package protocol is what clients and server say to each other, whatever the bytes: a Command is what a client asks
// for, a Message what somebody has published, an Answer what the server says besides. A Dialect turns bytes into the
// one and the others into bytes; package room below is the room protocol of docs/protocol.md, the first of them.
//
//	rest, err := dialect.Next(frame, false, &cmd)
//	...
//	out = dialect.AppendMessage(out, &protocol.Message{Kind: protocol.RoomMessage, Room: name, From: from, Content: cmd.Content})
//	out = dialect.AppendAnswer(out, &protocol.Answer{Kind: protocol.AnswerAck, ID: cmd.ID})
//
// The package is pure: no connection, no clock, no goroutine. Functions may be called from any goroutine.
//
//   - command.go: Command, and what a client may ask for at once
//   - message.go: Message, and how much it counts for
//   - answer.go: Answer, and its kinds
//   - dialect.go: Dialect
//   - codes.go: the tables of error codes, close codes and reasons; Error
//   - room.go, user.go: the rules of names
package protocol
