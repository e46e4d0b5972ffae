package loop

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	pollBatch = 512 // events a turn
	// A worker that runs dry polls on for so long before it parks: messages come in groups, and a wake costs
	// more than this (docs/decisions/0001-takeover-and-wake.md).
	spin = 10 * time.Microsecond
)

// epoller is an epoll instance that is polled with raw system calls while there is work, and parks in the
// runtime's own poller, which watches the epoll descriptor, while there is none.
type epoller struct {
	fd     int
	file   *os.File
	raw    syscall.RawConn
	until  time.Time // the deadline that file has
	eventf int       // eventfd: a post's way to end a park
	n      int       // events that park already took
	evs    [pollBatch]unix.EpollEvent
	ready  [pollBatch]ready
	look   func(uintptr) bool
}

// wakeSlot marks the eventfd among the events.
const wakeSlot = ^uint32(0)

func newEpoller() (poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	// Non-blocking before NewFile: only then does the runtime's poller take it.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("epoll non-blocking: %w", err)
	}
	eventf, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	p := &epoller{fd: fd, eventf: eventf, file: os.NewFile(uintptr(fd), "epoll")}
	p.look = func(uintptr) bool { p.n = p.wait(); return p.n > 0 }
	err = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, eventf, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET&0xffffffff, Fd: -1, Pad: -1})
	if err == nil {
		p.raw, err = p.file.SyscallConn()
	}
	if err == nil {
		err = p.file.SetReadDeadline(time.Time{}) // fails when the runtime doesn't poll it
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("epoll in the runtime's poller: %w", err)
	}
	return p, nil
}

// add watches fd for everything, edge-triggered, once and for all: no system call when a socket becomes full.
func (p *epoller) add(fd int, slot, gen uint32) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(slot), Pad: int32(gen)}
	_, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	if e != 0 {
		return fmt.Errorf("epoll_ctl: %w", e)
	}
	return nil
}

func (p *epoller) wait() int {
	n, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.evs[0])), pollBatch, 0, 0, 0)
	if e != 0 {
		return 0
	}
	return int(n)
}

func (p *epoller) poll() []ready {
	n := p.n
	p.n = 0
	if n == 0 {
		n = p.wait()
	}
	out := p.ready[:0]
	for i := range p.evs[:n] {
		e := &p.evs[i]
		if uint32(e.Fd) == wakeSlot {
			var b [8]byte
			unix.Read(p.eventf, b[:])
			continue
		}
		var what events
		if e.Events&(unix.EPOLLIN|unix.EPOLLRDHUP) != 0 {
			what |= canRead
		}
		if e.Events&unix.EPOLLRDHUP != 0 {
			what |= ended
		}
		if e.Events&unix.EPOLLOUT != 0 {
			what |= canWrite
		}
		if e.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			what |= hungUp
		}
		out = append(out, ready{uint32(e.Fd), uint32(e.Pad), what})
	}
	return out
}

func (p *epoller) park(until time.Time) {
	for start := time.Now(); time.Since(start) < spin; {
		if p.n = p.wait(); p.n > 0 {
			return
		}
	}
	if !until.Equal(p.until) { // once a second at most: arming a deadline is not free
		p.until = until
		p.file.SetReadDeadline(until)
	}
	p.raw.Read(p.look) // its error is the deadline's, or that of a close: both end the park
}

func (p *epoller) wake() {
	one := [8]byte{1}
	unix.Write(p.eventf, one[:])
}

func (p *epoller) close() {
	p.file.Close()
	unix.Close(p.eventf)
}
