package protocol

// Dialect is a protocol that clients speak: how its bytes become commands, and how messages and answers become bytes.
// It is pure. Next keeps scratch between its calls, so each worker has a Dialect of its own; the other methods may be
// called from any goroutine.
type Dialect interface {
	// Next reads the first command of a frame into c, which it resets, and gives what is behind it: nothing for most.
	// The slices of c alias the frame or the dialect's scratch, and are good until the next call. Where err says what
	// is wrong with the command, c.ID pairs it with the answer if it can be paired.
	Next(frame []byte, binary bool, c *Command) (rest []byte, err *Error)
	// AppendMessage appends what a client is sent of m: nothing where the dialect has no word for it.
	AppendMessage(dst []byte, m *Message) []byte
	// AppendAnswer appends what a client is sent of a: nothing where the dialect has no word for it.
	AppendAnswer(dst []byte, a *Answer) []byte
	// Binary says that the dialect's frames are binary, not text.
	Binary() bool
	// Close is how a Close of ours reads to its clients.
	Close(code int, reason string) (int, string)
}
