package front

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockets is how a gate has its connections where the loop can take descriptors: they are accepted without package net,
// one goroutine waits for what comes first on all of them, and an upgrade that has come whole, and needs to wait for
// nobody, is served by the goroutine that has read it. What else comes goes on as it does where there are no sockets.
type sockets struct {
	gate *Gate

	// The accepting goroutine's.
	addr     net.Addr        // of the listener
	listener syscall.RawConn // which has no Read, so that it's waited for with an epoll of its own
	queue    *poll
	first    [4 << 10]byte

	heads   *poll // has those that wait
	mu      sync.Mutex
	waiting map[int32]*arrival // nothing has come on them yet; by descriptor
	timed   bool               // heads has a deadline: when the first of those waiting has had its time
	closing bool
}

// listenerClosed is how often it's looked whether the listener was closed by another than the gate, of which epoll
// doesn't tell.
const listenerClosed = time.Second

// poll is an epoll that is waited for as the runtime waits for a socket.
type poll struct {
	*os.File
	fd    int
	ready syscall.RawConn
}

func newPoll() (*poll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	unix.SetNonblock(fd, true) // else os thinks that it can't be waited for
	file := os.NewFile(uintptr(fd), "epoll")
	ready, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &poll{file, fd, ready}, nil
}

// newSockets is nil where there can be none: then the gate accepts by its listener.
func newSockets(g *Gate) *sockets {
	var l *net.TCPListener
	switch ours := g.Listener.(type) { // of another's nobody says whether it has TCP's keep-alive on
	case quiet:
		l = ours.TCPListener
	case noKeepAlive:
		l = ours.TCPListener
	}
	if l == nil || !g.Quick.Descriptors {
		return nil
	}
	s := &sockets{gate: g, addr: l.Addr(), waiting: map[int32]*arrival{}}
	var err error
	if s.queue, err = newPoll(); err != nil {
		return nil
	}
	if s.heads, err = newPoll(); err != nil {
		s.queue.Close()
		return nil
	}
	if s.listener, err = l.SyscallConn(); err == nil {
		failed := s.listener.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0) // which is handed down, where one has set it
			err = unix.EpollCtl(s.queue.fd, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN})
		})
		err = errors.Join(err, failed)
	}
	if err != nil {
		s.queue.Close()
		s.heads.Close()
		return nil
	}
	s.queue.SetReadDeadline(time.Now().Add(listenerClosed))
	go s.watch()
	return s
}

// accept is a listener's.
func (s *sockets) accept() (net.Conn, error) {
	var nc *socket
	var failed syscall.Errno
	var closed error
	take := func(fd uintptr) { nc, failed = accept(fd) }
	for {
		err := s.queue.ready.Read(func(uintptr) bool {
			closed = s.listener.Control(take)
			return closed != nil || failed != unix.EAGAIN
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.queue.SetReadDeadline(time.Now().Add(listenerClosed))
		case err != nil || closed != nil:
			return nil, s.failed(net.ErrClosed)
		case failed != 0:
			return nil, s.failed(os.NewSyscallError("accept4", failed))
		default:
			nc.listener = s.addr
			return nc, nil
		}
	}
}

func (s *sockets) failed(err error) error {
	return &net.OpError{Op: "accept", Net: "tcp", Addr: s.addr, Err: err}
}

// begin has what comes first on a new connection served. The accepting goroutine calls.
func (s *sockets) begin(a *arrival) {
	a.headBy = time.Now().Add(a.quick.Head)
	nc := a.Conn.(*socket)
	if s.serve(a, nc, s.first[:]) {
		return
	}
	a.waits.Store(true)
	s.mu.Lock()
	s.waiting[int32(nc.fd)] = a
	if !s.timed {
		s.timed = true
		s.heads.SetReadDeadline(a.headBy)
	}
	s.mu.Unlock()
	if err := nc.watch(s.heads.fd); err != nil {
		if err != net.ErrClosed { // by the gate, for another
			s.gate.short.Log(s.gate.log, slog.LevelWarn, "cannot wait for what comes on a connection", "remote", nc.remote, "err", err)
		}
		s.forget(a, nc)
		s.gate.drop(a)
	}
}

// serve has what has come on a connection served, and says whether anything has.
func (s *sockets) serve(a *arrival, nc *socket, b []byte) bool {
	n, err := nc.tryRead(b)
	if err == errNothing {
		return false
	}
	s.forget(a, nc) // before its descriptor may be another's
	nc.unwatch(s.heads.fd)
	switch {
	case err != nil:
		s.gate.drop(a)
	case !s.gate.upgradesAtOnce(a, b[:n]):
		a.came = bytes.Clone(b[:n])
		s.gate.toReader(a)
	}
	return true
}

// forget takes a connection out of those that wait, if it does.
func (s *sockets) forget(a *arrival, nc *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[int32(nc.fd)] == a {
		delete(s.waiting, int32(nc.fd))
	}
	if s.closing && len(s.waiting) == 0 {
		s.heads.SetReadDeadline(time.Now())
	}
}

// watch serves what comes, until the gate is closed and nobody waits any more.
func (s *sockets) watch() {
	over := false
	defer func() {
		if over {
			s.heads.Close()
		} else { // what it called has ended the goroutine
			go s.watch()
		}
	}()
	b := make([]byte, len(s.first))
	events := make([]unix.EpollEvent, 64)
	for !over {
		n := 0
		err := s.heads.ready.Read(func(uintptr) bool {
			came, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.heads.fd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
			if e == 0 {
				n = int(came)
			}
			return n > 0
		})
		if err != nil {
			over = s.expire()
			continue
		}
		for _, e := range events[:n] {
			s.mu.Lock()
			a := s.waiting[e.Fd]
			s.mu.Unlock()
			if a == nil {
				continue // it was closed meanwhile
			}
			a.waits.Store(false)
			if !s.serve(a, a.Conn.(*socket), b) { // an event of the one that had the descriptor before
				a.waits.Store(true)
			}
		}
	}
}

// expire closes those that have had their time, and says whether that was all: the gate is closed, and nobody waits.
func (s *sockets) expire() (over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var next time.Time
	now := time.Now()
	for _, a := range s.waiting {
		switch {
		case !a.headBy.After(now):
			a.Conn.Close() // of which the watch will hear
		case next.IsZero() || a.headBy.Before(next):
			next = a.headBy
		}
	}
	s.timed = !next.IsZero()
	s.heads.SetReadDeadline(next)
	return s.closing && len(s.waiting) == 0
}

// close ends accept, and the watch when those that wait are closed. It waits for an accept4 that blocks.
func (s *sockets) close() {
	s.mu.Lock()
	s.closing = true
	s.heads.SetReadDeadline(time.Now())
	s.mu.Unlock()
	s.queue.Close()
}
