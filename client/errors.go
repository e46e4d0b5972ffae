package client

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrClosed is what every call says after the end of a Hub. Where the server ended it, the error has that too.
	ErrClosed = errors.New("the client is closed")
	// ErrUnknown says that a message was sent, and nobody can say any more whether it went through. It isn't sent again.
	ErrUnknown = errors.New("sent, and it is unknown whether it went through")
	// ErrQueueFull says that too many calls wait for an answer: see Options.QueueCalls. It was not sent.
	ErrQueueFull = errors.New("too many calls wait for an answer (Options.QueueCalls, Options.QueueBytes)")
	// ErrTooLarge says that a message is larger than the server takes. It was not sent.
	ErrTooLarge = errors.New("larger than the server's max_message_bytes")
)

// Error is what the server answers when it doesn't do what it was asked.
type Error struct {
	Code       string        // of the protocol's table
	Message    string        // for people
	Retry      bool          // the same may succeed later
	RetryAfter time.Duration // after which; 0 where the server doesn't say
}

func (e *Error) Error() string { return e.Message + " (" + e.Code + ")" }

// CloseError is how the server ended a connection.
type CloseError struct {
	Code   int
	Reason string
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("the server closed the connection: %d %s", e.Code, e.Reason)
}

// comesBack says whether a client may, by the ranges of the codes.
func (e *CloseError) comesBack() bool {
	switch {
	case e.Code == 1002 || e.Code == 1007 || e.Code == 1008:
		return false
	default:
		return e.Code < 4500 || e.Code > 4999
	}
}

// HandshakeError is how the server refused a connection.
type HandshakeError struct {
	Status int    // of HTTP
	Detail string // for people
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("the server refused the connection: %d %s", e.Status, e.Detail)
}

// finalError is one after which the client doesn't come back.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// patientError is one after which the server said how long to wait.
type patientError struct {
	error
	after time.Duration
}

func (e patientError) Unwrap() error { return e.error }
