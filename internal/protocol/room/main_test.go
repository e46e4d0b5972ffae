package room

import (
	"time"

	"example.com/hubbub/internal/protocol"
)

var dialect Dialect

// decoding is a Command and the Dialect that reads it, as a worker has them.
type decoding struct {
	protocol.Command
	dialect Dialect
}

func decode(text []byte, c *decoding) *protocol.Error {
	_, err := c.dialect.Next(text, false, &c.Command)
	return err
}

func elapsed(f func()) float64 {
	start := time.Now()
	f()
	return float64(time.Since(start).Nanoseconds())
}
