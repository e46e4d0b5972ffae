package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.com/hubbub/internal/wsclient"
)

// healthy clients talk in five rooms while something is going wrong.
type healthy struct {
	f    *fleet
	all  []*client
	rate float64 // publishes a second
}

func (d *drill) healthyOn(s *server, n int) *healthy {
	f := d.newFleet(s)
	return &healthy{f, f.openAll(n, func(i int) want { return want{rooms: []uint32{uint32(i % 5)}, watched: true} }), 20}
}

// talk publishes for so long, or until something is done, which is looked for 20 times a second.
func (h *healthy) talk(long time.Duration, done func() bool) bool {
	start := h.f.clock()
	for n := 0; ; h.f.step(20 * time.Millisecond) {
		if done != nil && done() {
			return true
		}
		now := h.f.clock()
		if now > start+int64(long) {
			return false
		}
		for ; float64(n) < float64(now-start)/1e9*h.rate; n++ {
			i := h.f.d.rng.IntN(len(h.all))
			h.f.publish(h.all[i], uint32(i%5), 200, start+int64(float64(n)/h.rate*1e9))
		}
	}
}

// judge says how they fared.
func (h *healthy) judge(d *drill, s *server) {
	if !s.lives() {
		d.abort("no more of it: %s", whyEnded(h.all)) // s.end says why
	}
	d.judge(h.f, h.f.settle(patience))
	d.noneEnded(h.all, "healthy clients")
	_, p99, worst := h.f.quantiles()
	d.say("p99 %.0f ms, max %.0f ms", ms(p99), ms(worst))
}

// descriptors: more clients than the server has descriptors for, once with its own limit below theirs and once with one
// that lets it run out.
func descriptors(d *drill) {
	for _, flags := range [][]string{nil, {"--max-connections", "5000"}} {
		s := d.serveAs(how{under: []string{"prlimit", "--nofile=1000:1000"}, flags: flags})
		h := d.healthyOn(s, 400)
		crowd := d.newFleet(s)
		var all []*client
		for range 2600 {
			all = append(all, crowd.newClient(want{}))
		}
		start := crowd.clock()
		answered := h.talk(40*time.Second, func() bool {
			crowd.step(0)
			return count(all, func(c *client) bool { return c.ready() || c.state == ended }) == len(all)
		})
		took := time.Duration(crowd.clock() - start)
		hang := count(all, func(c *client) bool { return !c.ready() && c.state != ended })
		h.talk(5*time.Second, func() bool { crowd.step(0); return false })
		if flags != nil {
			d.say("AND WITH %s", strings.Join(flags, " "))
		}
		d.say("of %d more clients %d served, %s, %d hang, in %.1f s", len(all), crowd.open, whyEnded(all), hang, took.Seconds())
		d.must(answered, "%d clients hang for 40 s", hang)
		for _, c := range all {
			crowd.reset(c)
		}
		again := d.newFleet(s)
		c := again.newClient(want{retries: true})
		back := h.talk(20*time.Second, func() bool {
			if again.step(0); c.state == ended && again.clock() > c.retryAt {
				again.dial(c)
			}
			return c.ready()
		})
		d.must(back, "nobody can connect after the crowd has gone: %s", whyEnded([]*client{c}))
		h.judge(d, s)
	}
}

// memory: attackers that make a server of 256 MiB hold what it can't.
func memory(d *drill) {
	d.needRoot("a cgroup")
	group := fmt.Sprintf("/sys/fs/cgroup/memory/hubbub-drill-%d", os.Getpid())
	if err := os.Mkdir(group, 0o755); err != nil {
		d.abort("not possible here: a memory cgroup (version 1): %v", err)
	}
	d.cleanup(func() {
		for range 100 { // the kernel needs a moment after the last process
			if os.Remove(group) == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		d.must(false, "%s can't be removed", group)
	})
	d.check(os.WriteFile(filepath.Join(group, "memory.limit_in_bytes"), []byte("256M"), 0))
	s := d.serveAs(how{under: []string{"sh", "-c", `echo $$ > "$0"/cgroup.procs && exec "$@"`, group}})
	if !s.flagged("--max-buffered-bytes") {
		d.say("the server has no --max-buffered-bytes")
	}
	h := d.healthyOn(s, 50)
	a := newAttack(d, s)
	start := a.clock()
	h.talk(pick(d, 60*time.Second, 20*time.Second), func() bool { a.step(); return !s.lives() })
	took := time.Duration(a.clock() - start)
	most, _ := os.ReadFile(filepath.Join(group, "memory.max_usage_in_bytes"))
	peak, _ := strconv.Atoi(strings.TrimSpace(string(most)))
	d.say("%d attacks in %.1f s: %s; at most %d MiB", a.begun, took.Seconds(), whyEnded(a.all), peak>>20)
	h.judge(d, s)
}

// An attack is a crowd that comes back each time that it is refused or closed.
type attack struct {
	*fleet
	all   []*client
	armed map[*client]bool // they have upgraded, but not sent yet
	half  []byte
	begun int
}

const (
	halfSent = 4000 // who send nearly a whole message and no more
	pairs    = 250  // who publish to one that doesn't read
	heads    = 1000 // who never end their request
)

func newAttack(d *drill, s *server) *attack {
	a := &attack{fleet: d.newFleet(s), armed: map[*client]bool{}}
	a.half = wsclient.Append(nil, true, wsclient.Text, [4]byte{3: 1}, make([]byte, 60<<10))[:59<<10]
	for range halfSent {
		a.all = append(a.all, &client{state: ended, want: want{retries: true}})
	}
	for i := range pairs {
		room := []uint32{uint32(1000 + i)}
		a.all = append(a.all, &client{state: ended, want: want{retries: true, rooms: room, stalls: true, distant: true}},
			&client{state: ended, want: want{retries: true}})
	}
	for range heads {
		hello := fmt.Appendf(nil, "GET /ws HTTP/1.1\r\nHost: drill\r\nX: %s", strings.Repeat("x", 30<<10))
		a.all = append(a.all, &client{state: ended, want: want{retries: true, hello: hello}})
	}
	return a
}

// step lets at most 100 of them begin, and those who are connected do their worst.
func (a *attack) step() {
	now := a.clock()
	begin := 100
	for i, c := range a.all {
		switch {
		case c.state == ended && begin > 0 && now >= c.retryAt:
			begin--
			a.begun++
			a.dial(c)
			a.armed[c] = c.hello == nil
		case !a.armed[c] || !c.ready():
		case i < halfSent:
			a.armed[c] = false
			a.write(c, a.half)
			a.stall(c, true) // a Pong would be taken for more of the message
		case !c.stalls && a.all[i-1].ready():
			a.armed[c] = false
			for range 16 {
				a.publish(c, a.all[i-1].rooms[0], 60<<10, now)
			}
		}
	}
	for range 20 {
		a.fleet.step(0)
	}
}

// fullDisk: the log's disk has no room.
func fullDisk(d *drill) {
	d.needRoot("a small tmpfs")
	dir, err := os.MkdirTemp("", "hubbub-drill-disk-")
	d.check(err)
	d.cleanup(func() { d.check(os.Remove(dir)) })
	d.command("mount", "-t", "tmpfs", "-o", "size=64k", "hubbub-drill", dir)
	d.cleanup(func() { d.command("umount", "-l", dir) })
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	d.check(err)
	defer log.Close()
	s := d.serveAs(how{stderr: log, flags: []string{"--log-level", "debug"}})
	filler, err := os.Create(filepath.Join(dir, "filler"))
	d.check(err)
	defer filler.Close()
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	d.must(errors.Is(err, unix.ENOSPC), "the disk isn't full: %v", err)
	h := d.healthyOn(s, 100)
	refusedAll := d.newFleet(s) // each makes it write a line
	bad := 0
	h.talk(pick(d, 30*time.Second, 8*time.Second), func() bool {
		for range 10 {
			refusedAll.newClient(want{hello: []byte(wsclient.Upgrade("drill", "/ws", "Origin: http://elsewhere.example"))})
			bad++
		}
		refusedAll.step(0)
		return !s.lives()
	})
	_, err = log.Write(make([]byte, 8192))
	d.must(errors.Is(err, unix.ENOSPC), "the disk is no longer full: %v", err)
	d.say("%d requests that are logged", bad)
	h.judge(d, s)
}

// stopped: the server's process stands still, longer than a client may.
func stopped(d *drill) {
	var flags []string
	if d.short {
		flags = []string{"--ping-interval", "5s", "--pong-timeout", "2s"}
	}
	s := d.serve(flags...)
	h := d.healthyOn(s, pick(d, 5000, 1000))
	h.talk(4500*time.Millisecond, nil) // in the short form the next pings are due
	h.rate = 2                         // what waits when it goes on is to be no trial of its own
	s.signal(syscall.SIGSTOP)
	h.talk(pick(d, 60*time.Second, 20*time.Second), nil)
	s.signal(syscall.SIGCONT)
	goesOn := h.f.clock()
	h.talk(pick(d, 45*time.Second, 12*time.Second), nil)
	d.say("%d clients, stopped for %v, not looked after for %.0f ms at most", len(h.all), pick(d, 60*time.Second, 20*time.Second), ms(h.f.lag))
	if h.f.lastEnd > 0 {
		d.say("the last close %.1f s after SIGCONT", time.Duration(h.f.lastEnd-goesOn).Seconds())
	}
	h.judge(d, s)
}

// killed: a process with many clients is killed, several times.
func killed(d *drill) {
	n, times := pick(d, 5000, 1000), pick(d, 5, 3)
	s := d.serve()
	h := d.healthyOn(s, 200)
	before := s.fds()
	self, err := os.Executable()
	d.check(err)
	for range times {
		cmd := exec.Command(self, "clients", strconv.Itoa(s.addr.Port), strconv.Itoa(n))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		out, err := cmd.StdoutPipe()
		d.check(err)
		d.check(cmd.Start())
		said := make(chan string, 1)
		go func() {
			line, _ := bufio.NewReader(out).ReadString('\n')
			said <- line
		}()
		var line string
		h.talk(time.Minute, func() bool {
			select {
			case line = <-said:
				return true
			default:
				return false
			}
		})
		h.talk(time.Second, nil)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if line != "ready\n" {
			d.abort("the clients' process did not connect: %q", line)
		}
		h.talk(2*time.Second, nil)
	}
	d.say("%d clients killed %d times", n, times)
	h.judge(d, s)
	d.leftOver(s, before, "after it")
}

// runClients is the process that is killed: clients in the rooms of the others.
func runClients(args []string) {
	port, _ := strconv.Atoi(args[0])
	n, _ := strconv.Atoi(args[1])
	d := &drill{deadline: time.Now().Add(2 * time.Minute)}
	d.guarded(func() {
		f := d.newFleet(&server{d: d, addr: unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}})
		f.openAll(n, func(i int) want { return want{rooms: []uint32{uint32(i % 5)}} })
		fmt.Println("ready")
		f.rest(time.Hour)
	})
	fmt.Println(d.faults)
}
