package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"

	"example.com/hubbub/internal/wire"
)

// maxMessage bounds what the server may send in one message, over all its
// fragments and once inflated.
const maxMessage = 16 << 20

// frame is what one frame of a server says.
type frame struct {
	op       wire.Opcode
	fin      bool
	deflated bool
	payload  []byte
}

var (
	errMasked   = errors.New("the server masked a frame")
	errReserved = errors.New("the server set a reserved bit, or an unknown opcode")
	errControl  = errors.New("the server sent a control frame in pieces, or with more than 125 bytes")
	errLength   = fmt.Errorf("the server sent a message of more than %d bytes", maxMessage)
	errFragment = errors.New("the server mixed up the fragments of messages")
	errDeflated = errors.New("the server sent compressed data that is broken, or was not agreed on")
)

// parseFrame reads the frame at the front of b. It takes size bytes; where b has
// less, f is not there yet and size is a lower bound. f.payload aliases b.
func parseFrame(b []byte) (f frame, size int, err error) {
	const header = 2
	if len(b) < header {
		return f, header, nil
	}
	f.op, f.fin, f.deflated = wire.Opcode(b[0]&0x0F), b[0]&0x80 != 0, b[0]&0x40 != 0
	n, at := uint64(b[1]&0x7F), header
	switch {
	case b[1]&0x80 != 0:
		return f, 0, errMasked
	case b[0]&0x30 != 0, f.op > wire.Binary && f.op < wire.Close, f.op > wire.Pong:
		return f, 0, errReserved
	case f.op.Control() && (!f.fin || n > 125 || f.deflated):
		return f, 0, errControl
	case n == 126:
		at += 2
	case n == 127:
		at += 8
	}
	if len(b) < at {
		return f, at, nil
	}
	switch n {
	case 126:
		n = uint64(binary.BigEndian.Uint16(b[header:]))
	case 127:
		n = binary.BigEndian.Uint64(b[header:])
	}
	if n > maxMessage {
		return f, 0, errLength
	}
	size = at + int(n)
	if len(b) >= size {
		f.payload = b[at:size]
	}
	return f, size, nil
}

// assembly joins the fragments of a message.
type assembly struct {
	op       wire.Opcode // Continuation: there is none
	deflated bool
	buf      []byte
}

// add takes a data frame. Where ok, p is the whole message, good until the next
// call.
func (a *assembly) add(f frame) (p []byte, deflated, ok bool, err error) {
	switch {
	case (f.op == wire.Continuation) == (a.op == wire.Continuation), f.op == wire.Continuation && f.deflated:
		return nil, false, false, errFragment
	case f.fin && a.op == wire.Continuation:
		return f.payload, f.deflated, true, nil
	case len(a.buf)+len(f.payload) > maxMessage:
		return nil, false, false, errLength
	}
	if a.op == wire.Continuation {
		a.op, a.deflated = f.op, f.deflated
	}
	a.buf = append(a.buf, f.payload...)
	if !f.fin {
		return nil, false, false, nil
	}
	p, deflated = a.buf, a.deflated
	*a = assembly{}
	return p, deflated, true, nil
}

// inflater undoes permessage-deflate without context takeover. The zero value is
// ready; wire's is the server's, and takes masked frames only.
type inflater struct {
	flate io.ReadCloser
	src   bytes.Reader
	limit io.LimitedReader
	in    []byte
	out   bytes.Buffer
}

// inflate gives the message that p is the compressed form of, good until the next
// call.
func (z *inflater) inflate(p []byte) ([]byte, error) {
	// RFC 7692 7.2.2 puts the empty block back; one with BFINAL behind it makes the
	// decoder say EOF.
	z.in = append(append(z.in[:0], p...), "\x00\x00\xff\xff\x01\x00\x00\xff\xff"...)
	z.src.Reset(z.in)
	if z.flate == nil {
		z.flate = flate.NewReader(&z.src)
	} else {
		z.flate.(flate.Resetter).Reset(&z.src, nil) // its error is always nil
	}
	z.out.Reset()
	z.limit = io.LimitedReader{R: z.flate, N: maxMessage + 1}
	n, err := z.out.ReadFrom(&z.limit)
	switch {
	case err != nil:
		return nil, errDeflated
	case n > maxMessage:
		return nil, errLength
	}
	return z.out.Bytes(), nil
}
