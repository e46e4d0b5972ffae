package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"example.com/hubbub/internal/wsclient"
)

// A fleet is many clients on one epoll, in one goroutine: a drill's thread. Nothing happens but inside of step, so a
// drill needs no locks.
type fleet struct {
	d        *drill
	to       unix.SockaddrInet4
	nodes    *nodes // of which one is dialed; nil for to
	ep       int
	byFD     map[int32]*client
	dialed   int
	logs     []*clientLog
	numbers  map[string]uint32 // client_id -> its log
	now      int64             // nanoseconds since began
	began    time.Time
	open     int           // upgraded and not ended
	latency  []int32       // microseconds, of the watched
	lastCame int64         // when the last delivery or answer came to anyone
	lastEnd  int64         // when the last client ended
	lag      time.Duration // the longest that the clients were not looked after
	faults   []string
	resuming resuming
	gaps     map[string]int           // told, by reason
	came     int                      // deliveries
	slowest  time.Duration            // answer to a publish, since this was set to 0
	history  map[historyPlace]message // what was delivered at each, of clients that resume
	buf      []byte
	text     []byte
	frame    []byte
	events   [256]unix.EpollEvent
}

type state uint8

const (
	dialing state = iota
	upgrading
	opened
	ended
)

// want is how a client is to be.
type want struct {
	rooms   []uint32
	distant bool   // little fits into its line, as over Ethernet; on loopback 4 MB may
	stalls  bool   // never reads any more once it has joined
	watched bool   // its latencies and gaps count
	retries bool   // comes back when it is refused
	resumes bool   // comes back with its session
	hello   []byte // sent in place of an upgrade
}

type client struct {
	want
	fd      int
	state   state
	stalled bool
	status  int    // of a refused upgrade
	why     string // it ended
	broken  bool   // a write has met the server's reset, which no read tells then
	waiting int    // joins without an answer
	retryAt int64
	log     *clientLog
	num     uint32
	session *session // of one that resumes
	in, out []byte
	last    int64         // when the last delivery came
	gap     time.Duration // the longest between two deliveries
}

func (c *client) ready() bool { return c.state == opened && c.log.id != "" && c.waiting == 0 }

func (d *drill) newFleet(s *server) *fleet {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	d.check(err)
	f := &fleet{d: d, to: s.addr, ep: ep, byFD: map[int32]*client{}, numbers: map[string]uint32{}, gaps: map[string]int{}, history: map[historyPlace]message{}, began: time.Now(), buf: make([]byte, 256<<10)}
	d.cleanup(func() {
		for fd := range f.byFD {
			unix.Close(int(fd))
		}
		unix.Close(ep)
	})
	return f
}

func (f *fleet) clock() int64 { return int64(time.Since(f.began)) }

func (f *fleet) newClient(w want) *client {
	c := &client{want: w}
	if w.resumes {
		c.session = &session{at: make([]place, len(w.rooms))}
	}
	f.dial(c)
	return c
}

// dial begins to connect; a client that comes back begins anew.
func (f *fleet) dial(c *client) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	f.d.check(err)
	*c = client{want: c.want, fd: fd, session: c.session}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if c.distant {
		f.d.check(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10))
		f.d.check(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1448))
	}
	if f.to.Addr[0] == 127 { // one address has 28,000 ports only
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		f.dialed++
		f.d.check(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(2 + f.dialed%8)}}))
	}
	to := f.to
	if f.nodes != nil {
		to = f.nodes.any().addr
	}
	if err := unix.Connect(fd, &to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		f.d.check(err)
	}
	f.byFD[int32(fd)] = c
	f.watch(c, unix.EPOLL_CTL_ADD)
}

func (f *fleet) watch(c *client, op int) {
	ev := unix.EpollEvent{Events: unix.EPOLLRDHUP, Fd: int32(c.fd)}
	if !c.stalled {
		ev.Events |= unix.EPOLLIN
	}
	if c.state == dialing || len(c.out) > 0 {
		ev.Events |= unix.EPOLLOUT
	}
	f.d.check(unix.EpollCtl(f.ep, op, c.fd, &ev))
}

// end closes a client's socket and says why in its log.
func (f *fleet) end(c *client, why string) {
	if c.state == ended {
		return
	}
	if c.state == opened {
		f.open--
		c.log.closed = why
		if c.session != nil && c.session.lost == 0 {
			c.session.lost = f.clock()
		}
	}
	c.state, c.why, f.lastEnd = ended, why, f.clock()
	delete(f.byFD, int32(c.fd))
	unix.Close(c.fd)
	c.in, c.out = nil, nil
	if c.retries {
		c.retryAt = f.clock() + int64(200*time.Millisecond) + f.d.rng.Int64N(int64(time.Second))
	}
}

// reset ends a client as a crash of its machine does.
func (f *fleet) reset(c *client) {
	if c.state != ended {
		unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		f.end(c, "reset by the drill")
	}
}

// stall stops reading; go on again with c.stalled = false and watch.
func (f *fleet) stall(c *client, stalled bool) {
	c.stalled = stalled
	f.watch(c, unix.EPOLL_CTL_MOD)
}

// step waits for at most this long and handles what has come.
func (f *fleet) step(wait time.Duration) {
	f.d.alive()
	if f.now > 0 {
		f.lag = max(f.lag, time.Duration(f.clock()-f.now))
	}
	asked := f.clock()
	n, err := unix.EpollWait(f.ep, f.events[:], int((wait+time.Millisecond-1)/time.Millisecond))
	if err != nil && !errors.Is(err, unix.EINTR) {
		f.d.check(err)
	}
	f.lag = max(f.lag, time.Duration(f.clock()-asked)-wait)
	for _, ev := range f.events[:max(n, 0)] {
		if c := f.byFD[ev.Fd]; c != nil {
			f.handle(c, ev.Events)
		}
	}
	f.now = f.clock()
}

func (f *fleet) handle(c *client, events uint32) {
	f.now = f.clock()
	if events&unix.EPOLLOUT != 0 {
		if c.state == dialing {
			if code, _ := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); code != 0 {
				f.end(c, unix.Errno(code).Error())
				return
			}
			c.state = upgrading
			if c.out = append(c.out, c.hello...); c.hello == nil {
				c.out = appendUpgrade(c.out, c.token())
			}
		}
		f.flush(c)
	}
	if c.stalled && events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		f.stall(c, false) // the server has ended it: read what it says
	}
	if c.state != ended && events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		f.read(c)
	}
}

func (f *fleet) flush(c *client) {
	had := c.state == upgrading || len(c.out) > 0
	for len(c.out) > 0 {
		n, err := f.put(c, c.out)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return // what was sent before the reset may still be read
		}
		c.out = c.out[n:]
	}
	if len(c.out) == 0 {
		c.out = nil
	}
	if had {
		f.watch(c, unix.EPOLL_CTL_MOD)
	}
}

// write sends bytes; what the socket doesn't take waits.
func (f *fleet) write(c *client, b []byte) {
	if c.state == ended {
		return
	}
	n := 0
	if len(c.out) == 0 {
		n, _ = f.put(c, b)
		if n = max(n, 0); n == len(b) {
			return
		}
	}
	c.out = append(c.out, b[n:]...)
	f.watch(c, unix.EPOLL_CTL_MOD)
}

// put is one write. The kernel tells of a reset once: after a write that met it, as the Pong to a Ping that came before
// it, a read gives the end of the stream.
func (f *fleet) put(c *client, b []byte) (int, error) {
	n, err := unix.Write(c.fd, b)
	c.broken = c.broken || errors.Is(err, unix.ECONNRESET)
	return n, err
}

func (f *fleet) send(c *client, op wsclient.Opcode, payload []byte) {
	var mask [4]byte
	binary.NativeEndian.PutUint32(mask[:], rand.Uint32())
	f.frame = wsclient.Append(f.frame[:0], true, op, mask, payload)
	f.write(c, f.frame)
}

func (f *fleet) read(c *client) {
	n, err := unix.Read(c.fd, f.buf)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return
	case err != nil, n == 0 && c.broken:
		f.end(c, "reset")
		return
	case n == 0:
		f.end(c, "ended without a Close")
		return
	}
	data := f.buf[:n]
	if len(c.in) > 0 {
		data = append(c.in, data...)
	}
	if c.state == upgrading {
		head, rest, whole := bytes.Cut(data, []byte("\r\n\r\n"))
		if whole && !f.upgraded(c, string(head)) {
			return
		} else if whole {
			data = rest
		}
	}
	for c.state == opened {
		frame, size, err := wsclient.Parse(data, maxFrame)
		if err == nil && size > len(data) {
			break
		}
		if err == nil && (!frame.Fin || frame.Deflated) {
			err = errors.New("the server sent a fragment, or compressed what nobody asked it to")
		}
		if err != nil {
			f.faults = append(f.faults, err.Error())
			f.end(c, "nonsense")
			break
		}
		f.onFrame(c, frame.Op, frame.Payload)
		data = data[size:]
	}
	if len(data) == 0 || c.state == ended {
		c.in = nil
	} else {
		c.in = append(c.in[:0], data...)
	}
}

// upgraded says whether the answer to the handshake opens the connection.
func (f *fleet) upgraded(c *client, head string) bool {
	c.status, _ = strconv.Atoi(strings.TrimPrefix(head[:min(len(head), 12)], "HTTP/1.1 "))
	if c.status != 101 || !strings.Contains(head, wsclient.Accept) {
		f.end(c, fmt.Sprintf("refused with %d", c.status))
		return false
	}
	c.state = opened
	f.open++
	if c.token() != "" {
		c.log, c.num = c.session.log, c.session.num
		c.waiting++ // for the answer to its resume
		return true
	}
	f.begin(c)
	return true
}

func (f *fleet) onFrame(c *client, op wsclient.Opcode, p []byte) {
	switch op {
	case wsclient.Text:
		if d, ok := parseDelivery(p); ok {
			f.deliver(c, d)
			return
		}
		var m serverMessage
		if err := json.Unmarshal(p, &m); err != nil {
			f.faults = append(f.faults, fmt.Sprintf("%v: %.100s", err, p))
			return
		}
		f.onMessage(c, m)
	case wsclient.Ping:
		f.send(c, wsclient.Pong, p)
	case wsclient.Close:
		end := "without a code"
		if code, _, err := wsclient.ParseClose(p); err != nil {
			f.faults = append(f.faults, err.Error())
		} else if code != wsclient.NoStatus {
			end = strconv.Itoa(code)
		}
		f.send(c, wsclient.Close, p[:min(2, len(p))])
		f.end(c, end)
	}
}

func (f *fleet) onMessage(c *client, m serverMessage) {
	switch m.Kind {
	case "welcome":
		if c.session != nil && f.welcomed(c, m) {
			return
		}
		c.log.id = m.ClientID
		f.numbers[m.ClientID] = c.num
	case "room_message":
		d, ok := newDelivery([]byte(m.From), []byte(m.Content), []byte(strings.TrimPrefix(m.Room, "r")), m.Offset)
		if !ok {
			f.faults = append(f.faults, fmt.Sprintf("a message that no drill sent: %+.100v", m))
			return
		}
		f.deliver(c, d)
	case "joined":
		i := slices.IndexFunc(c.log.joins, func(j join) bool { return "r"+strconv.Itoa(int(j.room)) == m.Room && j.joined == 0 })
		if i < 0 {
			f.faults = append(f.faults, "joined unasked: "+m.Room)
			return
		}
		c.log.joins[i].joined = f.now
		if at := c.place(c.log.joins[i].room); at != nil {
			*at = m.place
		}
		if c.waiting--; c.waiting == 0 && c.stalls {
			f.stall(c, true)
		}
	case "resumed":
		f.resumed(c, m)
	case "gap":
		f.gap(c, m)
	case "ack", "error":
		if string(m.ID) == `"j"` && c.session != nil { // a room can't be joined just now
			f.resuming.retried++
			c.session.token, c.session.lost = "", 0
			f.reset(c)
			return
		}
		seq, err := strconv.Atoi(string(m.ID))
		if err != nil || seq >= len(c.log.sent) {
			f.faults = append(f.faults, fmt.Sprintf("an unexpected answer: %+v", m))
			return
		}
		f.lastCame = f.now
		f.slowest = max(f.slowest, time.Duration(f.now-c.log.sent[seq].at))
		if c.log.sent[seq].answer = acked; m.Kind == "error" {
			c.log.sent[seq].answer = refused
		}
		if m.Duplicate {
			f.resuming.duplicates++
		}
	}
}

func (f *fleet) deliver(c *client, d delivery) {
	from, ok := f.numbers[string(d.from)]
	if !ok || from != d.sender {
		from = unknown
	}
	c.log.received = append(c.log.received, received{d.room, from, d.seq})
	f.came++
	f.lastCame = f.now
	if c.session != nil {
		f.advance(c, d, from)
	}
	if !c.watched || from == unknown || int(d.seq) >= len(f.logs[from].sent) || f.logs[from].sent[d.seq].again {
		return
	}
	f.latency = append(f.latency, int32(min((f.now-f.logs[from].sent[d.seq].at)/1000, 1<<30)))
	if c.last > 0 {
		c.gap = max(c.gap, time.Duration(f.now-c.last))
	}
	c.last = f.now
}

// until steps until a condition holds, for at most so long.
func (f *fleet) until(limit time.Duration, done func() bool) bool {
	for end := f.clock() + int64(limit); !done(); {
		if f.clock() > end {
			return false
		}
		f.step(5 * time.Millisecond)
	}
	return true
}

func (f *fleet) rest(d time.Duration) { f.until(d, func() bool { return false }) }

// openAll connects n clients, some hundred at a time, and waits until they have joined.
func (f *fleet) openAll(n int, w func(i int) want) []*client {
	var all []*client
	first := 0 // all before it are ready
	ok := f.until(time.Duration(n)*5*time.Millisecond+patience, func() bool {
		for len(all) < n && len(f.byFD)-f.open < 200 {
			all = append(all, f.newClient(w(len(all))))
		}
		for first < len(all) && all[first].ready() {
			first++
		}
		if first < len(all) && all[first].retries && all[first].state == ended && f.clock() > all[first].retryAt {
			f.dial(all[first])
		}
		return first == n
	})
	if !ok {
		f.d.abort("only %d of %d clients are connected and have joined (%s)", first, n, whyEnded(all))
	}
	return all
}
