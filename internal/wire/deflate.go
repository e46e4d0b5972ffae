package wire

import (
	"bytes"
	"io"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"
)

const (
	// flushed is the empty block that ends what a sync flush wrote. RFC 7692 7.2.1 takes it off each message, and 7.2.2
	// puts it back.
	flushed = "\x00\x00\xff\xff"
	// last is an empty block with BFINAL set, behind which the decoder says EOF: so the message must have ended between
	// two blocks.
	last = "\x01\x00\x00\xff\xff"

	// maxKept is the largest buffer that is kept from one message to the next.
	maxKept = 128 << 10
	// minInflated is the least that is allocated for an inflated message.
	minInflated = 4 << 10
)

// maxDeflated bounds a compressed payload whose message may have limit bytes. What can't be compressed grows: an eighth
// is zlib's own bound.
func maxDeflated(limit int) int { return limit + limit/8 + 64 }

// Window is the end of what was sent in one direction, to which the messages that follow may refer: context takeover.
// It grows with what passes, to its size.
type Window struct {
	size int
	b    []byte
}

// NewWindow makes the window of 1<<bits bytes that the server keeps of what it sends. It keeps 8 KiB at most: each
// message is compressed behind the whole of it again, and more costs more time than it saves bytes.
func NewWindow(bits uint8) *Window { return &Window{size: 1 << min(bits, takeoverBits)} }

// NewPeerWindow makes the window of what the peer sends; it decides what it refers to. zlib takes 9 bits where it is
// told 8, so that much is kept.
func NewPeerWindow(bits uint8) *Window { return &Window{size: 1 << max(bits, minBits+1)} }

func (w *Window) bytes() []byte {
	if w == nil {
		return nil
	}
	return w.b
}

func (w *Window) add(p []byte) {
	if w == nil {
		return
	}
	if len(p) > w.size {
		p = p[len(p)-w.size:]
	}
	keep := w.b[len(w.b)-min(len(w.b), w.size-len(p)):]
	if need := len(keep) + len(p); need > cap(w.b) {
		grown := make([]byte, 0, min(2*need, w.size))
		w.b = append(grown, keep...)
	} else {
		w.b = w.b[:copy(w.b[:cap(w.b)], keep)]
	}
	w.b = append(w.b, p...)
}

// Inflater undoes permessage-deflate for any number of connections, one whole message at a time: between two it holds
// nothing of either. The zero value is ready; it takes its memory with the first message.
type Inflater struct {
	// Window is that of the connection whose messages come next; nil without context takeover.
	Window *Window

	flate io.ReadCloser
	src   bytes.Reader
	in    []byte // the message and what is put behind it
	out   []byte
}

// message makes an event of a compressed payload.
func (z *Inflater) message(ev *Event, op Opcode, p []byte, limit int) *Error {
	out, err := z.inflate(p, limit)
	switch {
	case err == errDeflate && z.Window == nil && z.refersBack(p, limit):
		return errTakeover
	case err != nil:
		return err
	case op == Text && !utf8.Valid(out):
		return errText
	}
	z.Window.add(out)
	ev.Op, ev.Payload = op, out
	return nil
}

// refersBack says, of a payload that is broken by itself, that it would be whole behind something: some clients'
// libraries take a context over although they agreed not to.
func (z *Inflater) refersBack(p []byte, limit int) bool {
	_, err := z.inflateBehind(make([]byte, 1<<maxBits), p, limit)
	return err == nil
}

// inflate gives the message that p is the compressed form of. It is good until the next call. The limit counts what
// comes out, while it comes out: 64 KiB can become 64 MiB (CVE-2026-27571 of nats-server).
func (z *Inflater) inflate(p []byte, limit int) ([]byte, *Error) {
	return z.inflateBehind(z.Window.bytes(), p, limit)
}

// inflateBehind is inflate where p may refer to dict.
func (z *Inflater) inflateBehind(dict, p []byte, limit int) ([]byte, *Error) {
	in := append(z.in[:0], p...)
	in = append(append(in, flushed...), last...)
	if cap(in) <= maxKept {
		z.in = in
	}
	z.src.Reset(in)
	defer z.src.Reset(nil)
	z.start(dict)
	out := z.out[:0]
	for {
		if len(out) == cap(out) {
			grown := make([]byte, len(out), min(max(2*len(out), minInflated), limit+1))
			copy(grown, out)
			out = grown
			if cap(out) <= maxKept {
				z.out = out
			}
		}
		n, err := z.flate.Read(out[len(out):min(cap(out), limit+1)])
		out = out[:len(out)+n]
		switch {
		case len(out) > limit:
			return nil, errTooBig
		case err == nil:
			continue
		case err != io.EOF:
			return nil, errDeflate
		}
		left := z.src.Len()
		if left == 0 {
			break
		}
		// A block that reaches into what is not the peer's isn't whole.
		if left < len(last) {
			return nil, errDeflate
		}
		// RFC 7692 7.2.3.4: the peer may set BFINAL, which ends a stream of deflate but not the message. Behind it
		// another begins, without history.
		z.start(nil)
	}
	return out, nil
}

// start has the decoder read on from src, behind what dict is the end of.
func (z *Inflater) start(dict []byte) {
	if z.flate == nil {
		z.flate = flate.NewReader(&z.src)
	}
	z.flate.(flate.Resetter).Reset(&z.src, dict) // its error is always nil
}

// Deflater compresses messages of any number of connections, one at a time. The zero value is ready. Each window size
// that was asked for holds 0.8 to 1.1 MB.
type Deflater struct {
	writers [maxBits + 1]*flate.Writer // by bits
	out     sink
}

type sink struct{ b []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

// level is flate's for the largest window; docs/decisions/0004 has its figures.
const level = 1

// Deflate compresses a message for a connection whose window has 1<<bits bytes; w is nil without context takeover. It
// is good until the next call. Where it would be no smaller it is not for sending: ok is false, and w as it was.
func (z *Deflater) Deflate(payload []byte, bits uint8, w *Window) (p []byte, ok bool) {
	p = z.deflate(payload, bits, w.bytes())
	if len(p) >= len(payload) {
		return nil, false
	}
	w.add(payload)
	return p, true
}

func (z *Deflater) deflate(payload []byte, bits uint8, dict []byte) []byte {
	f := z.writers[bits]
	if f == nil {
		var err error
		if bits == maxBits {
			f, err = flate.NewWriter(nil, level)
		} else {
			f, err = flate.NewWriterWindow(nil, 1<<bits)
		}
		if err != nil {
			panic(err) // level and windows are good ones
		}
		z.writers[bits] = f
	}
	if cap(z.out.b) > maxKept {
		z.out.b = nil
	}
	z.out.b = z.out.b[:0]
	// The errors of all three are those of out, which has none.
	f.ResetDict(&z.out, dict)
	f.Write(payload)
	f.Flush()
	return bytes.TrimSuffix(z.out.b, []byte(flushed))
}
