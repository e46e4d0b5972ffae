package loop

import (
	"log/slog"

	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// Conn is one WebSocket connection. Its worker's goroutine owns all of it: every method but Ref is called there. While
// nothing is half read or unsent it holds no buffer, and takes 112 bytes (TestAnIdleConnectionIsSmall).
type Conn struct {
	// Static after Adopt, the slot after it was given to the worker.
	w    *Worker
	h    Handler
	via  transport // nil when the worker reads and writes the plain descriptor itself
	fd   int32
	slot uint32
	gen  uint32
	bits uint8 // the window of what is compressed for it; 0 without compression

	// HoldReads stops reading while the socket takes no more. Opened may set it.
	HoldReads bool
	// Marked is the handler's own.
	Marked bool
	// TellDrained asks for one call of Drained.
	TellDrained bool

	turn   uint32 // the last in which it was read
	timer  uint32 // its tick of the wheel, 0 for none
	in     *half  // nil while nothing is half received
	out    queue
	seen   int64 // when the peer last sent or took a byte, worker's clock; later by what its ping left late
	due    int64 // the next ping while open, then the time at which patience ends
	state  state
	paused pauses
	unread bool // the socket may hold more than was read
	ended  bool // the peer ended its half: read on to the end of the stream
	heavy  bool // its last read was much work: it is read after the others
	full   bool // the socket takes no more until it is reported writable
	dirty  bool // on the worker's list of connections to write at the end of the turn
	listed bool // on one of the worker's lists of those to read again
}

// half is what a connection keeps of a message that hasn't come whole, and of what was read and not yet looked at.
type half struct {
	wire.Reader
	left    []byte
	whole   int   // what left was when it was kept
	counted int64 // bytes of both, as the worker counts them
}

// transport is what looks like a non-blocking socket: errAgain says that there is nothing to read, or no room. recv may
// give bytes and the error that follows them, and gives it again at the next call. send may keep what it took for a
// while; settle pushes that on, and is errAgain while some is left. Only the worker calls.
type transport interface {
	recv(b []byte) (int, error)
	send(b []byte) (int, error)
	settle() error
	shutdownWrite()
	hangUp(reset bool) // never waits
}

func (c *Conn) recv(b []byte) (int, error) {
	if c.via != nil {
		return c.via.recv(b)
	}
	return rawRecv(c.fd, b)
}

func (c *Conn) send(b []byte) (int, error) {
	if c.via != nil {
		return c.via.send(b)
	}
	return rawSend(c.fd, b)
}

func (c *Conn) settle() error {
	if c.via != nil {
		return c.via.settle()
	}
	return nil
}

// shutdownWrite ends our half of the stream; what was sent still arrives.
func (c *Conn) shutdownWrite() {
	if c.via != nil {
		c.via.shutdownWrite()
		return
	}
	rawShutdownWrite(c.fd)
}

// hangUp closes the socket: with a reset, so that nothing lingers in the kernel, or in good order.
func (c *Conn) hangUp(reset bool) {
	if c.via != nil {
		c.via.hangUp(reset)
		return
	}
	rawHangUp(c.fd, reset)
}

// Remote is the client's address and port; empty where they can't be told any more.
func (c *Conn) Remote() string {
	if a, ok := c.h.(Addressed); ok {
		return a.Address()
	}
	if p, ok := c.via.(*pump); ok {
		return p.nc.RemoteAddr().String()
	}
	return rawPeer(c.fd)
}

type state uint8

const (
	open     state = iota
	leaving        // Closed is being called; who called it settles what comes next
	closing        // our Close is queued or sent; the peer's answer is awaited
	failing        // our Close follows a fault of the peer: when it is out, end our half and drain for a moment
	draining       // our half is shut; what the peer still sends is thrown away
	ending         // the peer's Close was answered: hang up once that is out
	dead
)

type pauses uint8

const (
	pauseThrottle pauses = 1 << iota // a mailbox is above high water
	pauseHandler                     // PauseReading
)

// Milliseconds. A Close of ours waits closeWait for its answer; a peer that doesn't even take it is reset after
// takeWait; after a fault the peer's rest is read and thrown away for drainWait, since closing a socket that holds
// unread bytes resets it and the peer might never see the code.
const (
	closeWait = 5000
	takeWait  = 1000
	drainWait = 1000
)

// maxAnswers bounds the answers that one client leaves unsent, beside one message.
const maxAnswers = 64 << 10

// Ref names a connection from anywhere; the connection may be gone by the time it is used.
type Ref struct {
	w         *Worker
	slot, gen uint32
}

// Ref is good from Opened on. Any goroutine.
func (c *Conn) Ref() Ref { return Ref{c.w, c.slot, c.gen} }

// Worker is the worker that owns the connection; nil for the zero Ref.
func (r Ref) Worker() *Worker { return r.w }

// Worker is the owner.
func (c *Conn) Worker() *Worker { return c.w }

// Open is false once the closing has begun: nothing more will be sent or received.
func (c *Conn) Open() bool { return c.state == open }

// Unsent is the number of bytes that wait for the socket.
func (c *Conn) Unsent() int { return c.out.unsent() }

// Send queues f; it is written at the end of the turn. Where the queue would exceed its bound, the socket is tried at
// once, and if it takes too little the client is too slow: it is closed with 4000 and Send is false.
func (c *Conn) Send(f *Frame) bool {
	if c.state != open {
		return false
	}
	if c.bits != 0 {
		f = c.deflated(f)
	}
	return c.put(f)
}

// put is Send for a frame in the form that goes out: the bounds count what is really sent.
func (c *Conn) put(f *Frame) bool {
	if !c.Fits(f) {
		c.tooSlow("the queue is full", f.holds)
		return false
	}
	if c.state != open { // the socket was found broken
		return false
	}
	c.push(f)
	return true
}

// Fits says that Send won't find the client too slow. Where the queue would exceed its bound the socket is tried first;
// that may end the connection, and then anything fits.
func (c *Conn) Fits(f *Frame) bool {
	if c.fits(f.Len(), f.answer) {
		return true
	}
	if !c.full {
		c.w.flush(c)
	}
	return c.state != open || c.fits(f.Len(), f.answer)
}

// Congested says that the socket takes no more for now.
func (c *Conn) Congested() bool { return c.full }

// Touched says that the connection is written to at the end of this turn, so that one message more costs no write more.
func (c *Conn) Touched() bool { return c.dirty }

// Bound is how many bytes of rooms' messages the queue holds at most, and Room how many still fit.
func (c *Conn) Bound() int { return c.w.cfg().SendQueueBytes }

// Room is what Bound says.
func (c *Conn) Room() int { return max(0, c.Bound()-c.out.unsent()) }

// Forgive says that the queue holds what waited elsewhere before, or that more waits there. Until the queue is empty it
// isn't too old while the socket takes a byte now and then, and each is a sign of life: no ping gets through before
// what is queued.
func (c *Conn) Forgive() {
	if c.out.first == nil {
		return
	}
	if m := c.out.widen(c.w); !m.forgiven {
		m.forgiven, m.took = true, c.w.now
	}
}

// fits says whether n more bytes stay within the bounds. A queue that is empty takes any single frame.
func (c *Conn) fits(n int, answer bool) bool {
	if answer {
		answers := c.out.answers()
		return answers == 0 || answers+n <= maxAnswers+c.w.cfg().MaxMessageBytes+2*wire.MaxHeader
	}
	return c.out.first == nil || c.out.unsent()+n <= c.w.cfg().SendQueueBytes
}

func (c *Conn) push(f *Frame) {
	c.w.work += len(f.b)
	c.out.push(f, c.w)
	if !c.dirty && !c.full {
		c.dirty = true
		c.w.dirty = append(c.w.dirty, c)
	}
}

// Answer queues a frame for this client alone, copying payload. In the turn's common case that takes no memory: the
// bytes lie in the worker's arena, behind the connection's earlier answers.
func (c *Conn) Answer(op wire.Opcode, payload []byte) bool {
	if c.state != open {
		return false
	}
	if c.bits != 0 && deflatable(op, len(payload)) {
		op, payload = c.deflatedAnswer(op, payload)
	}
	w := c.w
	if c.full || !c.fits(len(payload)+wire.MaxHeader, true) || !w.arena.room(len(payload)+wire.MaxHeader) {
		return c.put(NewAnswer(op, payload))
	}
	if last := c.out.last(); last != nil && last.lent && w.arena.endsWith(last.b) {
		before := len(last.b)
		last.b = w.arena.extend(last.b, op, payload)
		n := len(last.b) - before
		w.work += n
		last.holds += messages(op)
		c.out.grow(n, w)
		return true
	}
	f := w.arena.frame()
	if f == nil {
		return c.put(NewAnswer(op, payload))
	}
	f.b = w.arena.extend(nil, op, payload)
	f.holds = messages(op)
	f.at = w.real
	c.push(f)
	return true
}

// PauseReading stops reading from the client, and delivering what was read already, until ResumeReading.
func (c *Conn) PauseReading() { c.pause(pauseHandler) }

// ResumeReading undoes PauseReading.
func (c *Conn) ResumeReading() { c.resume(pauseHandler) }

// Paused says that PauseReading holds.
func (c *Conn) Paused() bool { return c.paused&pauseHandler != 0 }

func (c *Conn) pause(why pauses) { c.paused |= why }

func (c *Conn) resume(why pauses) {
	if c.paused&why == 0 {
		return
	}
	c.paused &^= why
	if c.paused == 0 {
		c.seen = c.w.now // its clock stood
		c.again()
	}
}

// again has the connection read in this or one of the next turns if there may be something.
func (c *Conn) again() {
	switch {
	case !c.unread || c.listed || c.stopped() || c.state == dead:
		return
	case c.heavy:
		c.w.heavy = append(c.w.heavy, c)
	default:
		c.w.again = append(c.w.again, c)
	}
	c.listed = true
}

// stopped says that the socket isn't read for now.
func (c *Conn) stopped() bool {
	return c.state == open && (c.paused != 0 || c.HoldReads && c.full)
}

// Close sends what is queued, then a Close frame in the handler's Wording, and waits a while for the peer's. The
// handler's Closed is called before it returns.
func (c *Conn) Close(code int, reason string) {
	if c.state != open {
		return
	}
	c.leave(code, ByUs)
	c.beginClose(closing, code, reason, closeWait)
}

// tooSlow closes a client that doesn't read: nothing of the queue can be kept for it, and lost messages more.
func (c *Conn) tooSlow(why string, lost int32) {
	if c.state != open {
		return
	}
	c.w.loop.slow.Log(c.w.log, slog.LevelInfo, "slow client closed", "code", protocol.CloseSlowConsumer, "remote", c.Remote(), "unsent", c.debt(), "why", why)
	owed := c.w.owed[c]
	c.leave(protocol.CloseSlowConsumer, ByUs)
	c.drop(int64(lost) + owed.messages)
	c.beginClose(closing, protocol.CloseSlowConsumer, "slow consumer: "+why, takeWait)
}

// fail ends the connection after a fault of the peer (RFC 6455 7.1.7).
func (c *Conn) fail(code int, reason string) {
	switch c.state {
	case open:
		c.w.log.Debug("connection failed", "remote", c.Remote(), "code", code, "reason", reason)
		if code == wire.CloseAbnormal { // no Close answers this
			c.w.peerEnded(c)
			return
		}
		c.leave(code, ByUs)
		c.beginClose(failing, code, reason, takeWait)
	case closing: // our Close is under way already; a second one is not allowed
		c.w.destroy(c, false)
	}
}

// leave tells the handler, once, that the connection is over for it. It doesn't panic: whoever closes a connection goes
// on to end it, also where it stands in the midst of others.
func (c *Conn) leave(code int, by Ender) {
	c.state = leaving
	c.w.countClose(code, by)
	defer func() {
		if r := recover(); r != nil {
			c.w.panicked(r)
		}
	}()
	c.h.Closed(c, Ending{code, by})
}

// beginClose queues a Close frame of ours; the peer has wait milliseconds to take it.
func (c *Conn) beginClose(s state, code int, reason string, wait int64) {
	code, reason = c.wording(code, reason)
	c.queueClose(s, code, reason, wait)
}

// wording is the handler's; where that panics a Close reads as it is.
func (c *Conn) wording(code int, reason string) (reads int, why string) {
	reads, why = code, reason
	defer func() {
		if r := recover(); r != nil {
			c.w.panicked(r)
		}
	}()
	return c.h.Wording(code, reason)
}

func (c *Conn) queueClose(s state, code int, reason string, wait int64) {
	c.state = s
	if s != closing { // nothing of what the peer still sends matters
		c.forgetHalf()
	}
	c.push(&Frame{b: wire.AppendClose(nil, code, reason), at: Monotonic(), answer: true})
	c.paused = 0
	c.again()
	c.due = c.w.now + wait
	c.w.rearm(c)
}

// answerClose is what the peer's Close gets: its own code back, and TCP ended at once (RFC 6455 5.5.1, 7.1.1).
func (c *Conn) answerClose(code int) {
	if c.state == closing {
		c.w.destroy(c, false)
		return
	}
	c.leave(code, ByPeer)
	c.queueClose(ending, code, "", takeWait)
}

// sent is called when the queue has become empty.
func (c *Conn) sent() {
	switch c.state {
	case closing:
		c.due = c.w.now + closeWait
		c.w.rearm(c)
	case failing:
		c.shutdownWrite()
		c.state = draining
		c.due = c.w.now + drainWait
		c.w.rearm(c)
	case ending:
		c.w.destroy(c, false)
	case open:
		if c.HoldReads && c.unread {
			c.seen = c.w.now
			c.again()
		}
		if c.TellDrained {
			c.TellDrained = false
			c.h.Drained(c)
		}
	}
}
