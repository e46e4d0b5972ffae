package front

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a TCP connection that the runtime's poller doesn't know until somebody has to wait for it: of an upgrade that
// has come whole nobody has. All of it but what waits may be called from any goroutine.
type socket struct {
	remote   netip.AddrPort
	listener net.Addr

	fd int

	mu          sync.Mutex
	gone        bool      // fd is another's: it was given away, or is closed
	watched     bool      // by sockets, whose goroutine closes it
	shut        bool      // Close has come while it was watched
	file        *os.File  // in the runtime's poller; fd is the file's
	read, write time.Time // deadlines, of no avail before there is a file
}

// accept takes the next connection out of a listener's queue, if there is one.
func accept(listener uintptr) (*socket, syscall.Errno) {
	for {
		var from unix.RawSockaddrInet6 // has the space of the other one
		size := uint32(unsafe.Sizeof(from))
		// No raw call: another process that has the listener can make it block.
		fd, _, e := syscall.Syscall6(unix.SYS_ACCEPT4, listener, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch e {
		case 0:
			one := int32(1)
			syscall.RawSyscall6(unix.SYS_SETSOCKOPT, fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, uintptr(unsafe.Pointer(&one)), 4, 0)
			return &socket{fd: int(fd), remote: addressOf(&from)}, 0
		case unix.EINTR, unix.ECONNABORTED:
		default:
			return nil, e
		}
	}
}

func addressOf(from *unix.RawSockaddrInet6) netip.AddrPort {
	port := (*[2]byte)(unsafe.Pointer(&from.Port))
	number := uint16(port[0])<<8 | uint16(port[1])
	if from.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(from)).Addr), number)
	}
	return netip.AddrPortFrom(inZone(netip.AddrFrom16(from.Addr), from.Scope_id), number)
}

// inZone is an address as package net has it; zone is a link's number, 0: none.
func inZone(addr netip.Addr, zone uint32) netip.Addr {
	if addr = addr.Unmap(); zone == 0 || addr.Is4() {
		return addr
	}
	if link, err := net.InterfaceByIndex(int(zone)); err == nil {
		return addr.WithZone(link.Name)
	}
	return addr.WithZone(strconv.Itoa(int(zone)))
}

// errNothing says that nothing has come yet.
var errNothing = errors.New("nothing has come")

// tryRead reads what has come, without waiting.
func (s *socket) tryRead(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.shut {
		return 0, net.ErrClosed
	}
	for {
		n, err := syscall.Read(s.fd, b) // of package syscall, as net's is: what a client in this process did before is known to the race detector
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return 0, errNothing
		case err != nil:
			return 0, s.failed("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// watch has an epoll tell when something has come, by the socket's descriptor.
func (s *socket) watch(epoll int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return net.ErrClosed
	}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.fd)}); err != nil {
		return err
	}
	s.watched = true
	return nil
}

// unwatch ends watch, if there was one.
func (s *socket) unwatch(epoll int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.watched {
		return
	}
	s.watched = false
	if s.shut {
		s.close()
	} else {
		unix.EpollCtl(epoll, unix.EPOLL_CTL_DEL, s.fd, nil)
	}
}

// Close ends the connection. Of one that is watched the watch hears, and closes it.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gone:
		return net.ErrClosed
	case s.file != nil:
		s.gone = true
		return s.file.Close()
	case s.watched:
		s.shut = true
		return unix.Shutdown(s.fd, unix.SHUT_RDWR)
	}
	return s.close()
}

// close is the descriptor's. mu is held.
func (s *socket) close() error {
	s.gone = true
	return unix.Close(s.fd)
}

// Descriptor gives the socket to the caller, unless somebody has had to wait for it.
func (s *socket) Descriptor() (fd int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.watched || s.file != nil {
		return -1, false
	}
	s.gone = true
	return s.fd, true
}

// waits puts the socket into the runtime's poller, for what may take time.
func (s *socket) waits() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.watched {
		return nil, net.ErrClosed
	}
	if s.file == nil {
		s.file = os.NewFile(uintptr(s.fd), "tcp")
		s.file.SetReadDeadline(s.read)
		s.file.SetWriteDeadline(s.write)
	}
	return s.file, nil
}

// Read implements net.Conn.
func (s *socket) Read(b []byte) (int, error) {
	file, err := s.waits()
	if err != nil {
		return 0, s.failed("read", err)
	}
	n, err := file.Read(b)
	return n, s.failed("read", err)
}

// Write implements net.Conn. What the socket takes at once needs no waiting.
func (s *socket) Write(b []byte) (int, error) {
	sent, err := s.tryWrite(b)
	if err != nil || sent == len(b) {
		return sent, s.failed("write", err)
	}
	file, err := s.waits()
	if err != nil {
		return sent, s.failed("write", err)
	}
	n, err := file.Write(b[sent:])
	return sent + n, s.failed("write", err)
}

// tryWrite writes what the socket takes without waiting, nothing where it may be waited for.
func (s *socket) tryWrite(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.file != nil || len(b) == 0:
		return 0, nil
	case s.gone:
		return 0, net.ErrClosed
	}
	n, err := syscall.Write(s.fd, b)
	if err == unix.EAGAIN || err == unix.EINTR {
		return 0, nil
	}
	return max(n, 0), err
}

// failed is an error as package net has them, whose kind net/http looks at.
func (s *socket) failed(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var path *os.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: "tcp", Source: s.listener, Addr: s.RemoteAddr(), Err: err}
}

// CloseWrite sends a FIN behind what was written.
func (s *socket) CloseWrite() error {
	var err error
	if failed := s.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) }); failed != nil {
		return failed
	}
	return err
}

// SetDeadline implements net.Conn.
func (s *socket) SetDeadline(t time.Time) error { return s.setDeadlines(&t, &t) }

// SetReadDeadline implements net.Conn.
func (s *socket) SetReadDeadline(t time.Time) error { return s.setDeadlines(&t, nil) }

// SetWriteDeadline implements net.Conn.
func (s *socket) SetWriteDeadline(t time.Time) error { return s.setDeadlines(nil, &t) }

func (s *socket) setDeadlines(read, write *time.Time) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return net.ErrClosed
	}
	if read != nil {
		if s.read = *read; s.file != nil {
			err = s.file.SetReadDeadline(*read)
		}
	}
	if write != nil && err == nil {
		if s.write = *write; s.file != nil {
			err = s.file.SetWriteDeadline(*write)
		}
	}
	return err
}

// RemoteAddr implements net.Conn.
func (s *socket) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.remote) }

// RemoteAddrPort is RemoteAddr in one piece.
func (s *socket) RemoteAddrPort() netip.AddrPort { return s.remote }

// LocalAddr implements net.Conn: it asks the system, where the socket is still ours.
func (s *socket) LocalAddr() net.Addr {
	addr := s.listener
	s.Control(func(fd uintptr) {
		switch a, _ := unix.Getsockname(int(fd)); a := a.(type) {
		case *unix.SockaddrInet4:
			addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)))
		case *unix.SockaddrInet6:
			addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(inZone(netip.AddrFrom16(a.Addr), a.ZoneId), uint16(a.Port)))
		}
	})
	return addr
}

// SyscallConn implements syscall.Conn.
func (s *socket) SyscallConn() (syscall.RawConn, error) { return rawSocket{s}, nil }

// Control is a syscall.RawConn's.
func (s *socket) Control(f func(fd uintptr)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return net.ErrClosed
	}
	f(uintptr(s.fd)) // whatever else has it doesn't close it but by Close
	return nil
}

// rawSocket is a syscall.RawConn that looks at a socket, and doesn't wait for it.
type rawSocket struct{ *socket }

func (rawSocket) Read(func(fd uintptr) bool) error  { return errors.ErrUnsupported }
func (rawSocket) Write(func(fd uintptr) bool) error { return errors.ErrUnsupported }
