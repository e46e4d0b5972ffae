package loop

import (
	"fmt"
	"io"
	"net"
	"net/netip"
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

// takeOver gives the descriptor of nc, which isTCP, to the caller; or a duplicate, and closes nc, which takes it out of
// the runtime's poller; the connection itself stays open.
func takeOver(nc net.Conn) (fd int, err error) {
	if s, ok := nc.(Socket); ok {
		if fd, ok := s.Descriptor(); ok {
			return fd, nil
		}
	}
	raw, err := nc.(syscall.Conn).SyscallConn()
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
	nc.Close()
	return fd, nil
}

// rawRecv reads what the socket has, without waiting: io.EOF at the end, errAgain when there is nothing.
func rawRecv(fd int32, b []byte) (int, error) {
	for {
		// A raw call: it never blocks, so the runtime needn't know.
		n, _, e := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
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

// rawSend writes what the socket takes, without waiting.
func rawSend(fd int32, b []byte) (int, error) {
	for {
		n, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
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

// rawPeer is the address of the socket's peer, or empty.
func rawPeer(fd int32) string {
	switch a, _ := unix.Getpeername(int(fd)); a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	}
	return ""
}

func rawShutdownWrite(fd int32) { unix.Shutdown(int(fd), unix.SHUT_WR) }

func rawHangUp(fd int32, reset bool) {
	if reset {
		unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	unix.Close(int(fd))
}
