package loop

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const pollBatch = 512 // events a turn

// epoller is an epoll instance that is polled with raw system calls while there is work, and parks in the runtime's own
// poller, which watches the epoll descriptor, while there is none (docs/decisions/0001-takeover-and-wake.md).
type epoller struct {
	fd     int
	file   *os.File
	raw    syscall.RawConn
	until  time.Time  // the deadline that file has
	late   bool       // that deadline has passed: file must get a new one before it can be waited for
	mu     sync.Mutex // a late wake must not write to a descriptor that is somebody else's by then
	eventf int        // guarded by mu. eventfd: a post's way to end a park. Edge-triggered and never read: each write is a new edge.
	n      int        // events that park already took
	evs    [pollBatch]unix.EpollEvent
	ready  [pollBatch]ready
	look   func(uintptr) bool // made once, or each park would allocate it
	step   func(uintptr) bool // of yield
	parked bool               // step has parked already
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
	p.step = func(uintptr) bool {
		if p.parked {
			return true
		}
		p.parked = true
		p.wake() // here and no earlier: Read forgets at its start what was reported before
		return false
	}
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
	p.arm(until)
	if err := p.raw.Read(p.look); err != nil {
		p.late = true
	}
}

// yield parks although there is work, and wakes itself: only a scheduler that runs dry polls the network, so a Gosched
// would leave requests waiting for the runtime's monitor, up to 10 ms.
func (p *epoller) yield() {
	if p.late {
		p.arm(time.Time{})
	}
	p.parked = false
	if err := p.raw.Read(p.step); err != nil {
		p.late = true
	}
}

// arm sets the deadline of the next Read; after a time-out Read would fail at once without a new one.
func (p *epoller) arm(until time.Time) {
	if p.late || !until.Equal(p.until) {
		p.late = false
		p.until = until
		p.file.SetReadDeadline(until)
	}
}

var one = [8]byte{1}

// wake never blocks in the kernel, so it can be raw: an ordinary call sets off the runtime's monitor, which then looks
// round sixty times before it sleeps again, a fifth of the processor time of 22 fan-outs a second.
func (p *epoller) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.eventf >= 0 {
		syscall.RawSyscall(unix.SYS_WRITE, uintptr(p.eventf), uintptr(unsafe.Pointer(&one[0])), uintptr(len(one)))
	}
}

// WakeMonitor sees to it that the goroutine that calls it, and whatever it then does, loses the processor after 10 ms
// as any other would: only the runtime's monitor takes it away, that sleeps while all is idle, and ordinary system
// calls wake it, but not the raw ones of a worker. Any goroutine; it doesn't block.
func WakeMonitor() { syscall.Syscall(unix.SYS_GETPID, 0, 0, 0) }

func (p *epoller) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.file.Close()
	unix.Close(p.eventf)
	p.eventf = -1
}
