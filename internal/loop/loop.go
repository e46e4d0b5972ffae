package loop

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/hubbub/internal/sparselog"
	"example.com/hubbub/internal/wire"
)

var (
	errAgain       = errors.New("try again")
	errUnsupported = errors.ErrUnsupported
)

// ErrStopped is what Adopt says once Stop was called.
var ErrStopped = errors.New("the loop has stopped")

// IO names the way in which connections are read and written.
type IO string

// The ways there are. Auto takes Epoll where the connection and the system allow it, and else Pump.
const (
	Auto  IO = "auto"
	Epoll IO = "epoll"
	Pump  IO = "pump"
	Uring IO = "uring" // Epoll, and what a turn writes to plain connections is one submission to io_uring
)

// Config sizes a Loop. Every field must be set; the front door has the defaults.
type Config struct {
	Workers         int
	IO              IO
	MaxMessageBytes int           // of one message, its fragments together
	SendQueueBytes  int           // unsent bytes a connection may have, all but its answers
	SendQueueAge    time.Duration // age of the oldest of them
	// MaxBufferedBytes bounds what all connections hold together; past it the largest debtors are closed.
	MaxBufferedBytes int64
	// Relieve frees bytes that were counted with Hold, before clients are closed, and says how many; nil frees none. A
	// worker calls.
	Relieve      func(excess int64) (freed int64)
	PingInterval time.Duration
	PongTimeout  time.Duration
	Log          *slog.Logger
}

// Handler is what a connection does with messages. All methods are called by the goroutine of the connection's worker
// and must not block.
type Handler interface {
	Controls
	// Opened is called before anything else; what it sends is the first that the client gets.
	Opened(c *Conn)
	// Message is a whole text or binary message. p is good until it returns.
	Message(c *Conn, op wire.Opcode, p []byte)
	// Closed is called once, when nothing more can be sent.
	Closed(c *Conn, e Ending)
	// Stop asks to say good-bye and to Close: the loop stops.
	Stop(c *Conn)
	// Drained is called when all that was queued is written, once after Conn.TellDrained was set.
	Drained(c *Conn)
}

// Addressed is a Handler that knows its client's address, where the socket's is a proxy's.
type Addressed interface{ Address() string }

// Controls are what the loop itself has to say to a client: how that reads is the handler's. Plain has those of RFC
// 6455.
type Controls interface {
	// Wording says how a Close of ours reads to this client: what the loop gives, and what Conn.Close was told. It may
	// be called after Closed; metrics, logs and Closed have the code as it was.
	Wording(code int, reason string) (int, string)
	// Ping asks the peer for a sign of life, by something that makes it answer: any byte will do.
	Ping(c *Conn)
}

// Plain is embedded by handlers whose clients are spoken to as RFC 6455 has it.
type Plain struct{}

// Wording changes nothing.
func (Plain) Wording(code int, reason string) (int, string) { return code, reason }

// Ping sends a Ping frame.
func (Plain) Ping(c *Conn) { c.Answer(wire.Ping, nil) }

// Ending is how a connection ended.
type Ending struct {
	Code int // what the first Close frame means, before any Wording; wire.CloseAbnormal when there was none
	By   Ender
}

// Ender is who ended a connection.
type Ender uint8

// The enders there are.
const (
	ByNobody Ender = iota // TCP was lost, or cut by Kill, without a Close frame
	ByPeer                // by its Close frame
	ByUs                  // by ours, also where it answers a fault of the peer
)

// Loop is a set of workers, each the owner of its connections.
type Loop struct {
	Panics   atomic.Int64 // recovered, in all workers
	Deflates atomic.Int64 // payloads that were compressed, or tried

	settings atomic.Pointer[Config] // immutable: see cfg
	workers  []*Worker
	crowded  bool           // there are more workers than processors: they must give way to each other
	total    atomic.Int64   // connections, and places reserved for them
	load     []atomic.Int64 // connections of each worker, those on their way to it included
	done     sync.WaitGroup
	slow     sparselog.Log // of clients that were too slow

	buffered  atomic.Int64 // bytes, the sum of what the workers told
	killed    atomic.Bool
	lingering sync.Map // of *pump: closed, and still writing what they had accepted

	mu      sync.RWMutex // held for reading while Adopt posts
	stopped bool         // guarded by mu
}

// New starts the workers.
func New(cfg Config) (*Loop, error) {
	l := &Loop{load: make([]atomic.Int64, cfg.Workers), crowded: cfg.Workers > runtime.GOMAXPROCS(0)}
	l.settings.Store(&cfg)
	for i := range cfg.Workers {
		var s sender
		p, err := newPoller(cfg.IO)
		if err == nil {
			if s, err = newSender(cfg.IO); err != nil {
				p.close()
			}
		}
		if err != nil {
			for _, w := range l.workers {
				w.closeIO()
			}
			return nil, fmt.Errorf("start worker %d: %w", i, err)
		}
		l.workers = append(l.workers, &Worker{
			loop: l, index: i, log: cfg.Log, poll: p, together: together{sender: s}, meter: meter{ended: make(chan struct{})},
			arena: newArena(), in: make([]byte, readSize),
		})
	}
	for _, w := range l.workers {
		l.done.Add(1)
		go w.run()
	}
	return l, nil
}

// cfg is what the loop goes by now.
func (l *Loop) cfg() *Config { return l.settings.Load() }

func (w *Worker) cfg() *Config { return w.loop.settings.Load() }

// Reload has all connections go by cfg's MaxMessageBytes, SendQueueBytes, SendQueueAge and MaxBufferedBytes, from their next
// read and write on; the rest stays as New got it. One call at a time, from any goroutine; it doesn't block.
func (l *Loop) Reload(cfg Config) {
	next := *l.cfg()
	next.MaxMessageBytes, next.MaxBufferedBytes = cfg.MaxMessageBytes, cfg.MaxBufferedBytes
	next.SendQueueBytes, next.SendQueueAge = cfg.SendQueueBytes, cfg.SendQueueAge
	l.settings.Store(&next)
}

// Workers are all of them; the slice is not to be changed.
func (l *Loop) Workers() []*Worker { return l.workers }

// Reserve takes a place for a connection unless limit places are taken; Adopt fills it, Release gives it back.
func (l *Loop) Reserve(limit int) bool {
	if l.total.Add(1) <= int64(limit) {
		return true
	}
	l.total.Add(-1)
	return false
}

// Release gives back a place that Reserve took and Adopt has not filled.
func (l *Loop) Release() { l.total.Add(-1) }

// Connections is how many there are, and places reserved for more. Any goroutine.
func (l *Loop) Connections() int { return int(l.total.Load()) }

// Adopt fills a place that Reserve took: it gives nc to the worker with the fewest connections, and h its events.
// preface is written first, in one piece with what Opened sends; first is what was read from nc already; d is what the
// handshake agreed on. nc must not be used any more, unless Adopt returns an error: then both it and the place are
// the caller's as before. Any goroutine; does not block.
func (l *Loop) Adopt(nc net.Conn, h Handler, d wire.Deflate, preface, first []byte) error {
	return l.AdoptThen(nc, h, d, preface, first, nil)
}

// AdoptThen is Adopt, and calls then on the worker when that has taken the connection in. It must not block; nil: nothing
// is called. After an error it isn't called.
func (l *Loop) AdoptThen(nc net.Conn, h Handler, d wire.Deflate, preface, first []byte, then func()) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.stopped {
		return ErrStopped
	}
	c := &Conn{h: h, fd: -1}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("clear the deadlines: %w", err)
	}
	if err := l.take(c, nc); err != nil {
		return err
	}
	w := l.leastLoaded()
	c.w = w
	w.Post(&opening{c, d, preface, first, then}, 0)
	return nil
}

// Wrapper is a net.Conn around another that has read all it will ever read of that by itself, so that the loop may go on
// with the other one.
type Wrapper interface{ Bare() net.Conn }

// Socket is a net.Conn whose descriptor the loop may have as it is, until somebody has had to wait for it; or else by its
// SyscallConn, as that of a *net.TCPConn.
type Socket interface {
	net.Conn
	syscall.Conn
	Descriptor() (fd int, ok bool) // ok: it is the caller's, and the Socket is done with
}

// bare is the connection inside of all Wrappers.
func bare(nc net.Conn) net.Conn {
	for {
		w, ok := nc.(Wrapper)
		if !ok {
			return nc
		}
		nc = w.Bare()
	}
}

// take makes the descriptor of nc the worker's where that can be, and else nc a pump.
func (l *Loop) take(c *Conn, nc net.Conn) error {
	nc = bare(nc)
	below := nc
	secure, link := underTLS(nc)
	if link != nil {
		below = bare(link.nc)
	}
	if l.cfg().IO == Pump || !isTCP(below) {
		c.via = newPump(nc)
		return nil
	}
	fd, err := takeOver(below)
	switch {
	case errors.Is(err, errUnsupported):
		c.via = newPump(nc)
	case err != nil:
		return err
	default:
		c.fd = int32(fd)
		if link != nil {
			link.goOn(secure, c.fd)
			c.via = link
		}
	}
	return nil
}

// isTCP says whether nc is the socket itself: anything else that wraps one may hold bytes back.
func isTCP(nc net.Conn) bool {
	switch nc.(type) {
	case *net.TCPConn, Socket:
		return true
	}
	return false
}

// worked is how long all workers worked in their last turns, nanoseconds: a message that is read by one is written by all.
// It is bounded by what w did, so that with many workers their looking stays a small part of the work.
func (l *Loop) worked(w *Worker) (all int64) {
	most := mostWorked * w.worked.Load()
	for _, each := range l.workers {
		if all += each.worked.Load(); all >= most {
			return most
		}
	}
	return all
}

func (l *Loop) leastLoaded() *Worker {
	best := 0
	for i := range l.load {
		if l.load[i].Load() < l.load[best].Load() {
			best = i
		}
	}
	l.load[best].Add(1)
	return l.workers[best]
}

func (l *Loop) forget(c *Conn) {
	l.load[c.w.index].Add(-1)
	l.total.Add(-1)
}

type opening struct {
	c              *Conn
	deflate        wire.Deflate
	preface, first []byte
	then           func()
}

func (o *opening) Run(w *Worker) {
	w.open(o.c, o)
	if o.then != nil {
		o.then()
	}
}
