package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/hubbub/internal/wsclient"
)

const (
	idleBuffer = 512
	loadBuffer = 4 << 10
	// maxMessage bounds what the server may send in one message, over all its fragments and once inflated.
	maxMessage = 16 << 20
	// closeNormal is RFC 6455's "normal closure".
	closeNormal = 1000
	// maxSpare is the largest buffer for writing that a connection keeps.
	maxSpare = 64 << 10
)

// conn is one open connection.
type conn struct {
	// Static after it was opened.
	f       *fleet
	num     int
	room    int
	shard   *shard
	tcp     *net.TCPConn
	nc      net.Conn // tcp, or TLS on it
	deflate bool
	live    *atomic.Int64 // the room's, or nil

	// Guarded by the shard's lock.
	parts  wsclient.Parts
	inits  int  // frames of Init that it has sent
	ready  bool // it has joined
	hint   int  // where the last marker was: probably where the next one is
	seen   seen
	placed placed
	own    *publisher // nil: it gets all that is published
	echoed int        // messages of this read that came back

	sent atomic.Uint32 // Echo: messages sent

	mu      sync.Mutex
	out     []byte // frames that wait
	spare   []byte
	writing bool
	closing bool // our Close is sent
	closed  bool
}

// closeFrame is the end of a connection by a Close.
type closeFrame struct {
	code int
	text string
}

func (e *closeFrame) Error() string {
	if e.code == wsclient.NoStatus {
		return "closed by the server"
	}
	return fmt.Sprintf("closed by the server with %d %s", e.code, e.text)
}

// run reads until the connection ends. first is what came behind the handshake.
func (c *conn) run(first []byte) {
	defer c.f.tasks.Done()
	err := c.receive(first)
	c.mu.Lock()
	wanted := c.closing
	if e := (*closeFrame)(nil); errors.As(err, &e) && !wanted {
		c.closing = true
		c.out = wsclient.AppendClose(c.out, [4]byte{}, closeNormal, "")
		c.nc.SetWriteDeadline(time.Now().Add(time.Second))
		if !c.writing {
			c.nc.Write(c.out) // else whoever writes sends it; it is a courtesy
		}
	}
	c.closed, c.out, c.spare = true, nil, nil
	c.mu.Unlock()
	abandon(c.tcp)
	c.f.ended(c, wanted, err)
}

// receive gives what comes to feed. It ends with an error always.
func (c *conn) receive(first []byte) error {
	buf := make([]byte, max(c.f.bufferSize, len(first)))
	have := copy(buf, first)
	var err error
	for {
		if have > 0 {
			used, need, err := c.feed(buf[:have])
			if err != nil {
				return err
			}
			have = copy(buf, buf[used:have])
			if need > len(buf) {
				// It doubles with what has come, whatever length a frame claims.
				grown := make([]byte, min(need, max(2*len(buf), 2*have)))
				copy(grown, buf[:have])
				buf = grown
			}
		}
		if err != nil {
			return err
		}
		var n int
		n, err = c.nc.Read(buf[have:])
		have += n
		if n == 0 && err != nil {
			return err
		}
	}
}

// feed takes the frames that are whole in b. need is at least what the next one takes.
func (c *conn) feed(b []byte) (used, need int, err error) {
	now := c.f.clock.now()
	c.shard.mu.Lock()
	defer c.shard.mu.Unlock()
	for {
		f, size, err := wsclient.Parse(b[used:], maxMessage)
		if err != nil {
			return used, 0, err
		}
		if size > len(b)-used {
			need = size
			break
		}
		used += size
		if err := c.frame(f, now); err != nil {
			return used, 0, err
		}
	}
	c.shard.counts.bytes += int64(used)
	if c.echoed > 0 {
		c.f.again(c)
	}
	return used, need, nil
}

func (c *conn) frame(f wsclient.Frame, now int64) error {
	switch f.Op {
	case wsclient.Ping:
		c.queue(wsclient.Pong, f.Payload)
		c.flush()
		return nil
	case wsclient.Pong:
		return nil
	case wsclient.Close:
		code, text, err := wsclient.ParseClose(f.Payload)
		if err != nil {
			return err
		}
		return &closeFrame{code, text}
	}
	m, ok, err := c.parts.Add(f, maxMessage)
	if err != nil || !ok {
		return err
	}
	p := m.Payload
	if m.Deflated {
		if !c.deflate {
			return wsclient.ErrDeflated
		}
		if p, err = c.shard.inflater.Inflate(p, maxMessage); err != nil {
			return err
		}
	}
	c.f.message(c, p, now)
	return nil
}

// queue appends a frame to what waits; flush sees that it is written. Neither waits for the server.
func (c *conn) queue(op wsclient.Opcode, payload []byte) {
	var mask [4]byte
	binary.NativeEndian.PutUint32(mask[:], rand.Uint32())
	c.mu.Lock()
	if !c.closed && !c.closing {
		c.out = wsclient.Append(c.out, true, op, mask, payload)
	}
	c.mu.Unlock()
}

func (c *conn) flush() {
	c.mu.Lock()
	start := !c.writing && !c.closed && len(c.out) > 0
	if start {
		c.writing = true
		c.f.tasks.Add(1) // the reading goroutine's own keeps it above 0
	}
	c.mu.Unlock()
	if start {
		go c.write()
	}
}

// write writes until nothing waits: a goroutine of its own, because a reader that waited for the server could wait for
// ever, when the server waits for it.
func (c *conn) write() {
	defer c.f.tasks.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 0 {
		b := c.out
		c.out, c.spare = c.spare[:0], nil
		c.mu.Unlock()
		_, err := c.nc.Write(b)
		c.mu.Lock()
		if err != nil {
			c.out = nil
			c.tcp.CloseWrite() // the reader learns the same, and what came before it
		}
		if cap(b) <= maxSpare && !c.closed {
			c.spare = b[:0]
		}
	}
	c.writing = false
}

// close sends a Close; the server's answer ends the connection.
func (c *conn) close() {
	c.mu.Lock()
	if !c.closing && !c.closed {
		c.closing = true
		c.out = wsclient.AppendClose(c.out, [4]byte{}, closeNormal, "")
	}
	c.mu.Unlock()
	c.flush()
}

// gone says that it is over, or will be soon.
func (c *conn) gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed || c.closing
}

// endReason says why a connection broke, the same for all that broke alike.
func endReason(err error) string {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "ended without a Close"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset by the server"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	}
	return reason(err)
}
