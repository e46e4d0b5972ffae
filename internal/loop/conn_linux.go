package loop

import (
	"fmt"
	"io"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func newPoller(kind IO) (poller, error) {
	if kind == Pump {
		return newChanPoller(), nil
	}
	return newEpoller()
}

// takeOver gives a duplicate of nc's descriptor, which the caller owns, and closes nc, which takes it out of
// the runtime's poller; the connection itself stays open.
func takeOver(nc net.Conn) (fd int, err error) {
	tcp, ok := nc.(*net.TCPConn) // anything that wraps one may hold bytes back
	if !ok {
		return -1, fmt.Errorf("take over a %T: %w", nc, errUnsupported)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return -1, err
	}
	var dup error
	err = raw.Control(func(old uintptr) { fd, dup = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil {
		err = dup
	}
	if err != nil {
		return -1, fmt.Errorf("duplicate the descriptor: %w", err)
	}
	tcp.Close()
	return fd, nil
}

// recv reads what the socket has, without waiting: io.EOF at the end, errAgain when there is nothing.
func (c *Conn) recv(b []byte) (int, error) {
	if c.pump != nil {
		return c.pump.recv(b)
	}
	for {
		// A raw call: it never blocks, so the runtime needn't know.
		n, _, e := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			if n == 0 {
				return 0, io.EOF
			}
			return int(n), nil
		case unix.EAGAIN:
			return 0, errAgain
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// send writes what the socket takes, without waiting.
func (c *Conn) send(b []byte) (int, error) {
	if c.pump != nil {
		return c.pump.send(b)
	}
	for {
		n, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch e {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, errAgain
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// shutdownWrite ends our half of the stream; what was sent still arrives.
func (c *Conn) shutdownWrite() {
	if c.pump != nil {
		c.pump.shutdownWrite()
		return
	}
	unix.Shutdown(int(c.fd), unix.SHUT_WR)
}

// hangUp closes the socket: with a reset, so that nothing lingers in the kernel, or in good order.
func (c *Conn) hangUp(reset bool) {
	if c.pump != nil {
		c.pump.hangUp(reset)
		return
	}
	if reset {
		unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	unix.Close(int(c.fd))
}
