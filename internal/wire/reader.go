package wire

import "unicode/utf8"

// Event is one whole message or one control frame.
type Event struct {
	Op Opcode // Text or Binary for a message; Close, Ping or Pong
	// Payload is unmasked. It is valid until the next call of Next and may alias the bytes that Next was given. Of a
	// Close it is the reason alone.
	Payload []byte
	Code    int // of a Close; CloseNoStatus when the frame had none
}

const (
	// A message in more than maxTinyFragments pieces has to have minMeanFragment bytes a piece: each costs a turn of
	// the loop and a header, whatever it brings (CVE-2026-48779 of ws: one-byte fragments).
	maxTinyFragments = 4096
	minMeanFragment  = 16

	// minBuffer is the least that is allocated for a message in pieces.
	minBuffer = 64
)

// Reader is the receiving half of a server's connection. The zero value is ready. It is a plain value: copied, with the
// original forgotten, it goes on from where it was.
type Reader struct {
	// The message that is being assembled.
	op       Opcode // Text or Binary; Continuation, the zero value: there is none
	text     textCheck
	deflated bool   // its first frame had RSV1
	parts    int    // frames of it that began
	buf      []byte // its payload as far as it came, unmasked

	// The frame whose payload is being received, of that message or control.
	frame frame
	ctl   []byte // a control frame's payload as far as it came, still masked

	// The header that is being received.
	head    [maxClientHeader]byte
	headLen uint8
}

// frame is a header, and how much of its payload has come. A frame that is not open is zero.
type frame struct {
	open     bool
	fin      bool
	deflated bool
	op       Opcode
	key      [4]byte
	size     int
	done     int
}

// Idle says that nothing is half received: the Reader equals its zero value, and its owner may forget it.
func (r *Reader) Idle() bool {
	return r.op == Continuation && !r.frame.open && r.headLen == 0
}

// Buffered is how many bytes of heap the Reader holds, at most twice what came of the unfinished message and a small
// constant.
func (r *Reader) Buffered() int { return cap(r.buf) + cap(r.ctl) }

// Next consumes the first n bytes of b. Where ok is true they ended with ev; otherwise they are all of b and more are
// needed. limit bounds a message's payload, over all its fragments, and once inflated. z is nil where compression was
// not negotiated. An error is final: the owner answers it and gives no more bytes, and the Reader is zero again. What
// follows a Close is for the owner to ignore.
func (r *Reader) Next(b []byte, limit int, z *Inflater) (ev Event, n int, ok bool, err *Error) {
	for {
		if !r.frame.open {
			var f frame
			n, err = r.header(&f, b, n, limit, z != nil)
			if err != nil {
				*r = Reader{}
			}
			if !f.open {
				return Event{}, n, false, err
			}
			if f.fin && f.op != Continuation && f.size <= len(b)-n {
				end := n + f.size
				if f.deflated {
					Mask(b[n:end], f.key, 0)
					err = z.message(&ev, f.op, b[n:end], limit)
				} else {
					err = f.whole(&ev, b[n:end:end])
				}
				if err != nil {
					*r = Reader{}
				}
				return ev, end, err == nil, err
			}
			r.begin(f)
		}
		p := b[n:min(len(b), n+r.frame.size-r.frame.done)]
		n += len(p)
		ok, err = r.take(&ev, p, limit, z)
		if err != nil {
			*r = Reader{}
		}
		if err != nil || ok || r.frame.open {
			return ev, n, ok, err
		}
	}
}

// header reads a header into f, from b[n:] after what came of it before, and gives where it ends. f is not open where b
// ends within the header.
func (r *Reader) header(f *frame, b []byte, n, limit int, deflate bool) (end int, err *Error) {
	if r.headLen == 0 {
		size, err := r.parse(f, b[n:], limit, deflate)
		if err == nil && !f.open {
			r.headLen = uint8(copy(r.head[:], b[n:]))
			return len(b), nil
		}
		return n + size, err
	}
	had := int(r.headLen)
	have := had + copy(r.head[had:], b[n:])
	size, err := r.parse(f, r.head[:have], limit, deflate)
	if err != nil || !f.open {
		r.headLen = uint8(have)
		return n + have - had, err
	}
	r.head, r.headLen = [maxClientHeader]byte{}, 0
	return n + size - had, nil
}

// parse reads a header at the front of h into f and gives its size. Where h ends within the header f is not opened. A
// fault is found with the byte that makes it one, whether or not the rest is there.
func (r *Reader) parse(f *frame, h []byte, limit int, deflate bool) (n int, err *Error) {
	if len(h) == 0 {
		return 0, nil
	}
	op, fin := Opcode(h[0]&opBits), h[0]&finBit != 0
	if err := r.checkFirst(h[0], op, fin, deflate); err != nil || len(h) == 1 {
		return 0, err
	}
	// 5.1: "The server MUST close the connection upon receiving a frame that is not masked. In this case, a server MAY
	// send a Close frame with a status code of 1002". It doesn't where the frame is a Close: Caddy before 2.7 sends such
	// ones by itself when it is reloaded, and a client that is told 1002 for it stays away, for a fault that isn't its.
	if h[1]&maskBit == 0 {
		if op == Close {
			return 0, errUnmaskedClose
		}
		return 0, errUnmasked
	}
	size, n, err := r.length(h, op, limit)
	if err != nil || n == 0 || len(h) < n+4 {
		return 0, err
	}
	// Filled in place: handing frames around by value took a third of the time of a small message.
	f.open, f.fin, f.op, f.key, f.size = true, fin, op, [4]byte(h[n:]), int(size)
	f.deflated = h[0]&rsv1 != 0
	return n + 4, nil
}

// checkFirst holds a header's first byte against the rules and the message that is being assembled.
func (r *Reader) checkFirst(first byte, op Opcode, fin, deflate bool) *Error {
	switch {
	// 5.2: RSV1 to RSV3 "MUST be 0 unless an extension is negotiated". RFC 7692 6.1 has RSV1 on the first frame of a
	// compressed message, and 6 nowhere else.
	case first&rsvBits != 0 && (!deflate || first&rsvBits != rsv1 || op != Text && op != Binary):
		return errReservedBits
	// 5.2: "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket Connection_."
	case !op.known():
		return errOpcode
	// 5.5: control frames "MUST NOT be fragmented".
	case op.Control():
		if !fin {
			return errControlPart
		}
	// 5.4: a fragmented message is a first frame with another opcode than 0, then frames with opcode 0.
	case op == Continuation:
		if r.op == Continuation {
			return errNoMessage
		}
	// 5.4: "The fragments of one message MUST NOT be interleaved between the fragments of another message".
	case r.op != Continuation:
		return errInterleaved
	}
	return nil
}

// length reads the length from the header's second byte on, and gives the header's size up to it. Where h ends within
// the length that is 0.
func (r *Reader) length(h []byte, op Opcode, limit int) (size uint64, n int, err *Error) {
	short := h[1] & lenBits
	if op.Control() {
		switch {
		// 5.5: control frames "MUST have a payload length of 125 bytes or less".
		case short > maxControl:
			return 0, 0, errControlSize
		// 5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer".
		case op == Close && short == 1:
			return 0, 0, errCloseSize
		}
		return uint64(short), 2, nil
	}
	least, most := uint64(short), uint64(short)
	n = 2
	if short > maxByte {
		var shortest uint64
		least, most, shortest, n = extended(h)
		switch {
		// 5.2: of 64 bits "the most significant bit MUST be 0".
		case least>>63 != 0:
			return 0, 0, errLengthHighBit
		// 5.2: "the minimal number of bytes MUST be used to encode the length".
		case most < shortest:
			return 0, 0, errLengthForm
		}
	}
	// 10.4: limits on "the total message size after reassembly from multiple frames". Unsigned, and never by a sum that
	// could overflow.
	if least > uint64(max(limit-len(r.buf), 0)) {
		deflated := r.deflated || h[0]&rsv1 != 0
		if !deflated || least > uint64(max(maxDeflated(limit)-len(r.buf), 0)) {
			return 0, 0, errTooBig
		}
	}
	if least != most {
		return 0, 0, nil
	}
	parts := r.parts + 1
	if parts > maxTinyFragments && len(r.buf)+int(least) < parts*minMeanFragment {
		return 0, 0, errTinyFragments
	}
	return least, n, nil
}

// extended reads a length of two or eight bytes as far as it came: what it is at least and at most, the shortest that
// may stand in this form, and the header's size up to it.
func extended(h []byte) (least, most, shortest uint64, n int) {
	n, shortest = 4, maxByte+1
	if h[1]&lenBits == len64 {
		n, shortest = MaxHeader, maxLen16+1
	}
	if len(h) >= n {
		h = h[:n]
	}
	for _, b := range h[2:] {
		least = least<<8 | uint64(b)
	}
	open := 8 * (n - len(h))
	least <<= open
	return least, least | (1<<open - 1), shortest, n
}

// whole makes an event of a frame that is all there and not compressed.
func (f *frame) whole(ev *Event, p []byte) *Error {
	ascii := Mask(p, f.key, 0)
	switch {
	case f.op == Close:
		return parseClose(ev, p)
	// 8.1: text that is not UTF-8 fails the connection.
	case f.op == Text && !ascii && !utf8.Valid(p):
		return errText
	}
	ev.Op, ev.Payload = f.op, p
	return nil
}

// begin opens a frame whose payload comes in pieces or is one of several.
func (r *Reader) begin(f frame) {
	r.frame = f
	switch {
	case f.op.Control():
		r.ctl = make([]byte, 0, f.size)
		return
	case f.op != Continuation:
		r.op, r.deflated = f.op, f.deflated
	}
	r.parts++
}

// take receives the next piece of the open frame's payload, of any size up to what it lacks. It closes the frame with
// its last byte.
func (r *Reader) take(ev *Event, p []byte, limit int, z *Inflater) (ok bool, err *Error) {
	f := &r.frame
	if f.op.Control() {
		r.ctl = append(r.ctl, p...)
		f.done += len(p)
		if f.done < f.size {
			return false, nil
		}
		err = f.whole(ev, r.ctl)
		r.ctl, r.frame = nil, frame{}
		return err == nil, err
	}
	p = r.store(p)
	ascii := Mask(p, f.key, f.done)
	f.done += len(p)
	// 8.1, and 5.6: "a particular text frame might include a partial UTF-8 sequence; however, the whole message MUST
	// contain valid UTF-8".
	if r.op == Text && !r.deflated && !(ascii && r.text.done()) && !r.text.feed(p) {
		return false, errText
	}
	switch {
	case f.done < f.size:
		return false, nil
	case !f.fin:
		r.frame = frame{}
		return false, nil
	case !r.text.done():
		return false, errText
	}
	done := *r
	*r = Reader{}
	if done.deflated {
		err = z.message(ev, done.op, done.buf, limit)
		return err == nil, err
	}
	ev.Op, ev.Payload = done.op, done.buf
	return true, nil
}

// store appends p to the message and gives it back from there. The buffer doubles with what has arrived, and the length
// that a frame claims only makes it smaller.
func (r *Reader) store(p []byte) []byte {
	have, need := len(r.buf), len(r.buf)+len(p)
	if need > cap(r.buf) {
		c := max(2*need, minBuffer)
		if r.frame.fin {
			c = min(c, have+r.frame.size-r.frame.done)
		}
		grown := make([]byte, have, c)
		copy(grown, r.buf)
		r.buf = grown
	}
	r.buf = append(r.buf, p...)
	return r.buf[have:]
}
