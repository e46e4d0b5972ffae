package loop

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Supports says why the system can't read and write connections in a way, or nil.
func Supports(kind IO) error {
	s, err := newSender(kind)
	if s != nil {
		s.close()
	}
	return err
}

func newSender(kind IO) (sender, error) {
	if kind != Uring {
		return nil, nil
	}
	r, err := newRing()
	if err != nil {
		return nil, fmt.Errorf("io_uring: %w%s", err, remedy(err))
	}
	return r, nil
}

// remedy is what can be done about an error of io_uring, to be put behind it.
func remedy(err error) string {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return ": allow io_uring_setup and io_uring_enter in the seccomp filter, which those of Docker and containerd don't, and set kernel.io_uring_disabled to 0"
	case errors.Is(err, unix.ENOSYS):
		return ": this kernel has none"
	case errors.Is(err, unix.EINVAL):
		return ": Linux 5.19 or later is needed"
	}
	return ""
}

const (
	ringSize = 128 // writes of one call; the worker looks at the clock between two
	ringFew  = 3   // so many are made one by one: a call of io_uring costs more than one of send
)

// From linux/io_uring.h. Both flags are known since 5.19: what is older was never tried.
const (
	setupSubmitAll   = 1 << 7
	setupCoopTaskrun = 1 << 8
	enterGetEvents   = 1 << 0
	opSend           = 26
	offsetRings      = 0
	offsetEntries    = 0x10000000
)

// ringParams is struct io_uring_params.
type ringParams struct {
	entries, doneEntries, flags, threadCPU, threadIdle, features, wq uint32
	_                                                                [3]uint32
	at                                                               struct{ head, tail, mask, size, flags, dropped, index, _, _, _ uint32 }
	doneAt                                                           struct{ head, tail, mask, size, overflow, entries, flags, _, _, _ uint32 }
}

// submission is struct io_uring_sqe.
type submission struct {
	op, flags uint8
	_         uint16
	fd        int32
	_, addr   uint64
	size, msg uint32
	data      uint64
	_         [3]uint64
}

// completion is struct io_uring_cqe.
type completion struct {
	data   uint64
	result int32
	_      uint32
}

// ring is a sender by io_uring (docs/decisions/0020-io-uring.md). A send with MSG_DONTWAIT has ended when the call that
// submits it returns. No flag of it wants the same thread at each call, since a goroutine moves between threads.
type ring struct {
	fd       int
	enter    func(fd, submit, wait, flags int) (int, syscall.Errno) // io_uring_enter; tests have another
	rings    []byte                                                 // mapped
	slots    []byte                                                 // mapped
	entries  []submission
	done     []completion
	tail     *uint32 // of the entries; we write it
	doneHead *uint32 // of the completions; we write it
	doneTail *uint32 // of the completions; the kernel writes it

	n    int // writes that were put
	fds  [ringSize]int32
	bufs [ringSize][]byte // keeps alive what the entries name by address
	all  [ringSize]sent
}

func newRing() (*ring, error) {
	p := ringParams{flags: setupSubmitAll | setupCoopTaskrun}
	fd, _, e := syscall.Syscall(unix.SYS_IO_URING_SETUP, ringSize, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", e)
	}
	r := &ring{fd: int(fd), enter: enterRing}
	if err := r.mapMemory(&p); err != nil {
		r.close()
		return nil, err
	}
	if err := r.try(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *ring) mapMemory(p *ringParams) (err error) {
	size := max(p.at.index+4*p.entries, p.doneAt.entries+p.doneEntries*uint32(unsafe.Sizeof(completion{})))
	if r.rings, err = unix.Mmap(r.fd, offsetRings, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return fmt.Errorf("map the rings: %w", err)
	}
	size = p.entries * uint32(unsafe.Sizeof(submission{}))
	if r.slots, err = unix.Mmap(r.fd, offsetEntries, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return fmt.Errorf("map the entries: %w", err)
	}
	r.entries = unsafe.Slice((*submission)(unsafe.Pointer(&r.slots[0])), p.entries)
	r.done = unsafe.Slice((*completion)(unsafe.Pointer(&r.rings[p.doneAt.entries])), p.doneEntries)
	r.tail = (*uint32)(unsafe.Pointer(&r.rings[p.at.tail]))
	r.doneHead = (*uint32)(unsafe.Pointer(&r.rings[p.doneAt.head]))
	r.doneTail = (*uint32)(unsafe.Pointer(&r.rings[p.doneAt.tail]))
	index := unsafe.Slice((*uint32)(unsafe.Pointer(&r.rings[p.at.index])), p.entries)
	for i := range index {
		index[i] = uint32(i)
	}
	return nil
}

// try sends a byte to a socket of its own: a filter may let io_uring_setup pass and nothing else, and what imitates Linux
// may know io_uring but not how to send.
func (r *ring) try() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make sockets to try it: %w", err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	r.put(int32(pair[0]), []byte{0})
	n, e := r.submit()
	r.n = 0
	switch {
	case e != 0:
		return fmt.Errorf("io_uring_enter: %w", e)
	case n == 0:
		return fmt.Errorf("io_uring_enter: %w", unix.ENOMEM)
	case r.all[0].err != nil:
		return fmt.Errorf("send: %w", r.all[0].err)
	}
	return nil
}

func enterRing(fd, submit, wait, flags int) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(fd), uintptr(submit), uintptr(wait), uintptr(flags), 0, 0)
	return int(n), e
}

func (r *ring) put(fd int32, b []byte) (more bool) {
	r.entries[(*r.tail+uint32(r.n))%ringSize] = submission{
		op: opSend, fd: fd, addr: uint64(uintptr(unsafe.Pointer(&b[0]))), size: uint32(len(b)),
		msg: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL, data: uint64(r.n),
	}
	r.fds[r.n], r.bufs[r.n] = fd, b
	r.n++
	return r.n < ringSize
}

func (r *ring) send() []sent {
	made := 0
	if r.n > ringFew {
		made, _ = r.submit()
	}
	for i := made; i < r.n; i++ { // the kernel had no memory for them, or there are few
		r.all[i].n, r.all[i].err = rawSend(r.fds[i], r.bufs[i])
	}
	all := r.all[:r.n]
	clear(r.bufs[:r.n])
	r.n = 0
	return all
}

// submit has the kernel make what was put, and says how many of these, from the first on, it has made; the others it
// doesn't know of.
func (r *ring) submit() (made int, e syscall.Errno) {
	atomic.StoreUint32(r.tail, *r.tail+uint32(r.n))
	for made < r.n {
		n, err := r.enter(r.fd, r.n-made, 0, 0)
		if err == unix.EINTR {
			continue
		}
		if err != 0 || n <= 0 {
			atomic.StoreUint32(r.tail, *r.tail-uint32(r.n-made))
			e = err
			break
		}
		made += n
	}
	for got := 0; got < made; {
		head, tail := *r.doneHead, atomic.LoadUint32(r.doneTail)
		if head == tail { // it has always ended; but the bytes are the kernel's until it says so
			r.enter(r.fd, 0, made-got, enterGetEvents)
			continue
		}
		for ; head != tail; head++ {
			c := &r.done[head%uint32(len(r.done))]
			r.all[c.data] = c.sent()
			got++
		}
		atomic.StoreUint32(r.doneHead, head)
	}
	return made, e
}

func (c *completion) sent() sent {
	switch e := syscall.Errno(-c.result); {
	case c.result >= 0:
		return sent{n: int(c.result)}
	case e == unix.EAGAIN:
		return sent{err: errAgain}
	default:
		return sent{err: e}
	}
}

func (r *ring) close() {
	for _, m := range [][]byte{r.rings, r.slots} {
		if m != nil {
			unix.Munmap(m)
		}
	}
	unix.Close(r.fd)
}
