package loop

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// pump makes any net.Conn look like a non-blocking socket: one goroutine reads ahead by one buffer, one writes from a
// bounded buffer, and both post to the worker what became possible. It serves where the descriptor can't be taken over:
// other systems than Linux, a user's own TLS server, Unix sockets.
type pump struct {
	nc  net.Conn
	ref Ref // static after start

	what atomic.Uint32 // events that are posted and not yet seen by the worker

	mu      sync.Mutex
	changed sync.Cond // in was emptied, out was filled, or closed was set
	in      []byte    // read and not yet taken by recv
	inErr   error
	out     []byte // taken by send and not yet written
	writing int    // bytes that the writer has in hand
	outErr  error
	refused bool // send took less than it was given: tell when there is room
	shut    bool // end our half once out is written
	closed  bool // hang up once out is written
}

const (
	pumpRead  = 4 << 10
	pumpWrite = 64 << 10
	// pumpLinger is how long a closed connection may take to write what it had accepted, as the kernel does for a
	// closed socket.
	pumpLinger = 5 * time.Second
)

func newPump(nc net.Conn) *pump {
	p := &pump{nc: nc}
	p.changed.L = &p.mu
	return p
}

func (p *pump) start(ref Ref) {
	p.ref = ref
	p.ref.w.loop.done.Add(2)
	go p.readAhead()
	go p.writeBehind()
}

// tell posts what became possible. One post stands for all until the worker has seen it.
func (p *pump) tell(what events) {
	if p.what.Or(uint32(what)) == 0 {
		p.ref.w.Post(p, 0)
	}
}

// Run is the worker's side of tell.
func (p *pump) Run(w *Worker) {
	what := events(p.what.Swap(0))
	if c := w.Conn(p.ref); c != nil {
		w.event(c, what)
	}
}

func (p *pump) readAhead() {
	defer p.ref.w.loop.done.Done()
	buf := make([]byte, pumpRead)
	for {
		n, err := p.nc.Read(buf)
		p.mu.Lock()
		p.in, p.inErr = buf[:n], err
		p.mu.Unlock()
		switch {
		case err == io.EOF:
			p.tell(canRead | ended)
			return
		case err != nil: // a reset: seen at once, also where it isn't read for now
			p.tell(canRead | hungUp)
			return
		}
		p.tell(canRead)
		p.mu.Lock()
		for len(p.in) > 0 && !p.closed {
			p.changed.Wait()
		}
		over := p.closed
		p.mu.Unlock()
		if over {
			return
		}
	}
}

func (p *pump) recv(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.in) == 0 {
		if p.inErr != nil {
			return 0, p.inErr
		}
		return 0, errAgain
	}
	n := copy(b, p.in)
	p.in = p.in[n:]
	if len(p.in) == 0 {
		p.changed.Broadcast()
	}
	return n, nil
}

func (p *pump) send(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.outErr != nil {
		return 0, p.outErr
	}
	n := min(len(b), max(0, pumpWrite-len(p.out)-p.writing))
	p.out = append(p.out, b[:n]...)
	p.refused = n < len(b)
	p.changed.Broadcast()
	if n == 0 && len(b) > 0 {
		return 0, errAgain
	}
	return n, nil
}

func (p *pump) writeBehind() {
	defer p.ref.w.loop.done.Done()
	defer p.ref.w.loop.lingering.Delete(p)
	defer p.nc.Close()
	for {
		p.mu.Lock()
		for len(p.out) == 0 && !p.shut && !p.closed {
			p.changed.Wait()
		}
		b := p.out
		p.out, p.writing = nil, len(b)
		shut, closed := p.shut, p.closed
		p.shut = false
		p.mu.Unlock()

		var err error
		if len(b) > 0 {
			_, err = p.nc.Write(b)
		} else if closed {
			return
		} else if half, ok := p.nc.(interface{ CloseWrite() error }); ok && shut {
			half.CloseWrite()
		}

		p.mu.Lock()
		p.writing = 0
		p.shut = p.shut || shut && len(b) > 0 // still to be done, now that the rest is out
		p.outErr = err
		tell := p.refused || err != nil
		p.refused = false
		p.mu.Unlock()
		if tell {
			p.tell(canWrite)
		}
		if err != nil {
			p.tell(canRead | hungUp)
			return
		}
	}
}

// settle has nothing to do: the writer goes on by itself.
func (p *pump) settle() error { return nil }

func (p *pump) shutdownWrite() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = true
	p.changed.Broadcast()
}

// hangUp lets the writer finish within pumpLinger, unless with a reset. It never waits.
func (p *pump) hangUp(reset bool) {
	p.mu.Lock()
	p.closed = true
	p.inErr = io.ErrClosedPipe
	pending := len(p.out)+p.writing > 0 && p.outErr == nil
	l := p.ref.w.loop
	if pending && !reset {
		l.lingering.Store(p, nil) // Kill finds it; the writer, which sees closed only now, takes it off
	}
	p.changed.Broadcast()
	p.mu.Unlock()
	if reset || !pending || l.killed.Load() {
		if tcp, ok := p.nc.(*net.TCPConn); ok && reset {
			tcp.SetLinger(0)
		}
		p.nc.Close()
		return
	}
	p.nc.SetReadDeadline(time.Now()) // the reader may go
	p.nc.SetWriteDeadline(time.Now().Add(pumpLinger))
}
