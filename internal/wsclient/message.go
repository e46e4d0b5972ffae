package wsclient

import (
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/flate"
)

// Parts joins the fragments of messages. The zero value is ready.
type Parts struct {
	op       Opcode // Continuation: there is none
	deflated bool
	buf      []byte
}

// Add takes a frame of Parse's that is no control frame. Where ok, whole is a message of at most that many bytes, its
// payload good until the next call; as it came, where it came in one frame.
func (a *Parts) Add(f Frame, most int) (whole Frame, ok bool, err error) {
	switch {
	case (f.Op == Continuation) == (a.op == Continuation), f.Op == Continuation && f.Deflated:
		return whole, false, errFragment
	case f.Fin && a.op == Continuation:
		return f, true, nil
	case len(a.buf)+len(f.Payload) > most:
		return whole, false, tooLong(most)
	}
	if a.op == Continuation {
		a.op, a.deflated = f.Op, f.Deflated
	}
	a.buf = append(a.buf, f.Payload...)
	if !f.Fin {
		return whole, false, nil
	}
	whole = Frame{Op: a.op, Fin: true, Deflated: a.deflated, Payload: a.buf}
	*a = Parts{}
	return whole, true, nil
}

// ErrDeflated says that the server sent compressed data which is broken, or was not agreed on.
var ErrDeflated = errors.New("the server sent compressed data that is broken, or was not agreed on")

// Inflater undoes permessage-deflate without context takeover. The zero value is ready.
type Inflater struct {
	flate io.ReadCloser
	src   bytes.Reader
	limit io.LimitedReader
	in    []byte
	out   bytes.Buffer
}

// Inflate gives the message that p is the compressed form of, at most that many bytes, good until the next call.
func (z *Inflater) Inflate(p []byte, most int) ([]byte, error) {
	// RFC 7692 7.2.2 puts the empty block back; one with BFINAL behind it makes the decoder say EOF.
	z.in = append(append(z.in[:0], p...), "\x00\x00\xff\xff\x01\x00\x00\xff\xff"...)
	z.src.Reset(z.in)
	if z.flate == nil {
		z.flate = flate.NewReader(&z.src)
	} else {
		z.flate.(flate.Resetter).Reset(&z.src, nil) // its error is always nil
	}
	z.out.Reset()
	z.limit = io.LimitedReader{R: z.flate, N: int64(most) + 1}
	n, err := z.out.ReadFrom(&z.limit)
	switch {
	case err != nil:
		return nil, ErrDeflated
	case n > int64(most):
		return nil, tooLong(most)
	}
	return z.out.Bytes(), nil
}
