package loop

import (
	"sync"
	"sync/atomic"

	"example.com/hubbub/internal/wire"
)

// minDeflate is the least payload that is compressed: below, a message mostly fits into the same packets anyway, and
// costs as much time as a large one saves.
const minDeflate = 512

// deflatable says whether a message is worth trying.
func deflatable(op wire.Opcode, size int) bool {
	return size >= minDeflate && (op == wire.Text || op == wire.Binary)
}

// forms are a frame's compressed twins, one for each window that some connection agreed on, made when the first of them
// needs it. They are shared by all workers.
type forms struct {
	parts []*Frame // of a joined frame; static

	mu     sync.Mutex // held while one is made, by a worker that others may wait for: a part's inside the joined one's
	byBits [maxBits - minBits + 1]atomic.Pointer[Frame]
}

// The windows of RFC 7692.
const minBits, maxBits = 8, 15

// deflated is the form of f for a window without context takeover: f itself where nothing of it gets smaller.
func (f *Frame) deflated(bits uint8, w *Worker) *Frame {
	if !f.large {
		return f
	}
	all := f.forms.Load()
	if all == nil {
		all = new(forms)
		if !f.forms.CompareAndSwap(nil, all) {
			all = f.forms.Load()
		}
	}
	form := &all.byBits[bits-minBits]
	if d := form.Load(); d != nil {
		return d
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if d := form.Load(); d != nil {
		return d
	}
	d := w.deflateFrame(f, all.parts, bits, nil)
	form.Store(d)
	return d
}

// deflateFrame makes a form of f: of a joined frame its parts' forms side by side, and else of its payload. With a
// window the parts are compressed for it.
func (w *Worker) deflateFrame(f *Frame, parts []*Frame, bits uint8, window *wire.Window) *Frame {
	d := &Frame{at: f.at, holds: f.holds, answer: f.answer}
	if parts == nil {
		d.b = w.deflateBytes(f.b, bits, window)
	}
	for _, part := range parts {
		switch {
		case !part.large:
			d.b = append(d.b, part.b...)
		case window != nil:
			d.b = append(d.b, w.deflateBytes(part.b, bits, window)...)
		default:
			d.b = append(d.b, part.deflated(bits, w).b...)
		}
	}
	if len(d.b) >= len(f.b) {
		return f
	}
	return d
}

// deflateBytes makes of one frame the compressed one, or gives it back where that is no smaller.
func (w *Worker) deflateBytes(b []byte, bits uint8, window *wire.Window) []byte {
	op, payload := wire.ServerFrame(b)
	z, ok := w.deflate(payload, bits, window)
	if !ok {
		return b
	}
	return wire.AppendFrame(make([]byte, 0, wire.MaxHeader+len(z)), op|wire.Deflated, z)
}

func (w *Worker) deflate(payload []byte, bits uint8, window *wire.Window) ([]byte, bool) {
	if w.deflater == nil {
		w.deflater = new(wire.Deflater)
	}
	w.loop.Deflates.Add(1)
	return w.deflater.Deflate(payload, bits, window)
}

// takeover is what a connection keeps where messages refer to those before them. Each message is then compressed for
// each connection. What was compressed must be sent, or the peer's window would differ: a frame may leave the queue
// unsent only when the connection ends.
type takeover struct {
	sent, received *wire.Window // nil where there is no takeover in that direction
}

// agree takes over what the handshake agreed on.
func (w *Worker) agree(c *Conn, d wire.Deflate) {
	c.bits = d.ServerBits
	if !d.ServerTakeover && !d.ClientTakeover {
		return
	}
	var t takeover
	if d.ServerTakeover {
		t.sent = wire.NewWindow(d.ServerBits)
	}
	if d.ClientTakeover {
		t.received = wire.NewPeerWindow(d.ClientBits)
	}
	if w.takeovers == nil {
		w.takeovers = map[*Conn]takeover{}
	}
	w.takeovers[c] = t
}

// inflaterFor is what the connection's messages are read with; nil where they can't be compressed.
func (w *Worker) inflaterFor(c *Conn) *wire.Inflater {
	if c.bits == 0 {
		return nil
	}
	if w.inflater == nil {
		w.inflater = new(wire.Inflater)
	}
	w.inflater.Window = w.takeovers[c].received
	return w.inflater
}

// deflated is the form of f that this connection gets. It must be sent.
func (c *Conn) deflated(f *Frame) *Frame {
	if !f.large {
		return f
	}
	window := c.sentWindow()
	if window == nil {
		return f.deflated(c.bits, c.w)
	}
	var parts []*Frame
	if all := f.forms.Load(); all != nil {
		parts = all.parts
	}
	return c.w.deflateFrame(f, parts, c.bits, window)
}

// sentWindow is what compression may refer back to; nil without context takeover.
func (c *Conn) sentWindow() *wire.Window { return c.w.takeovers[c].sent }

// deflatedAnswer compresses a message for this client alone, where that makes it smaller. p is good until the next.
func (c *Conn) deflatedAnswer(op wire.Opcode, payload []byte) (wire.Opcode, []byte) {
	if z, ok := c.w.deflate(payload, c.bits, c.sentWindow()); ok {
		return op | wire.Deflated, z
	}
	return op, payload
}
