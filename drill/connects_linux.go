package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The processes of the drill "connects", beside its own with the members, and the server's.
const (
	connecting = "connecting" // PORT N: connects N times as fast as it goes, and says how that ended
	accepting  = "accepting"  // says its port; a bare accept loop
)

// connects: a storm of new clients beside the members of a busy room, and for comparison the same storm elsewhere.
func connects(d *drill) {
	members, storm, times := pick(d, 1_000, 300), pick(d, 10_000, 3_000), pick(d, 9, 2)
	s := d.serve()
	f := d.newFleet(s)
	all := f.openAll(members, func(int) want { return want{rooms: []uint32{1}, watched: true} })
	publisher := f.openAll(1, func(int) want { return want{} })[0]
	talk := func(due int64) { f.publish(publisher, 1, 200, due) }
	bare, _ := d.child(accepting)
	var port int
	f.pace(20, 2*time.Second, talk)
	if _, err := fmt.Sscan(<-bare, &port); err != nil {
		d.abort("the bare accept loop: %v", err)
	}
	// during is the members' p99 while n clients connect there, and what these say.
	during := func(port int) (time.Duration, string) {
		said, stop := d.child(connecting, strconv.Itoa(port), strconv.Itoa(storm))
		f.latency = f.latency[:0]
		for {
			f.pace(20, 50*time.Millisecond, talk)
			select {
			case line := <-said:
				_, p99, _ := f.quantiles()
				stop() // not before: that 10,000 go is another matter
				f.pace(20, 2*time.Second, talk)
				return p99, line
			default:
			}
		}
	}
	var beside, here []time.Duration
	refused, late := 0, 0
	for range times {
		p99, _ := during(port)
		beside = append(beside, p99)
		p99, line := during(s.addr.Port)
		here = append(here, p99)
		var opened, told, other int
		var seconds float64
		if _, err := fmt.Sscan(line, &opened, &told, &other, &seconds); err != nil {
			d.abort("the clients' process said %q", line)
		}
		d.must(opened == storm, "only %d of %d are connected after %.1f s", opened, storm, seconds)
		refused, late = refused+told, late+other
	}
	v := f.settle(patience)
	d.say("%d connects %d times, %d told 503 first, %d cut whose heads were late; %d members' p99 in ms, beside a bare accept loop: %s; beside the server's: %s", storm, times, refused, late, members, inMS(beside), inMS(here))
	d.judge(f, v)
	d.noneEnded(all, "members")
	d.timed(median(here) < 100*time.Millisecond, "the members' p99 is not under 100 ms")
	d.timed(median(here) < median(beside)*3/2, "the members' p99 is not within 1.5 of what it is beside a bare accept loop")
}

func median(all []time.Duration) time.Duration { return slices.Sorted(slices.Values(all))[len(all)/2] }

func inMS(all []time.Duration) string {
	text := fmt.Sprintf("median %.0f of", ms(median(all)))
	for _, d := range all {
		text += fmt.Sprintf(" %.0f", ms(d))
	}
	return text
}

// child runs a process of the drill's own, and gives the lines that it says, few enough, and what ends it.
func (d *drill) child(words ...string) (lines <-chan string, stop func()) {
	self, err := os.Executable()
	d.check(err)
	cmd := exec.Command(self, words...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := cmd.StdoutPipe()
	d.check(err)
	d.check(cmd.Start())
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	d.cleanup(stop)
	said := make(chan string, 4096)
	go func() {
		defer close(said)
		for in := bufio.NewScanner(out); in.Scan(); {
			said <- in.Text()
		}
	}()
	return said, stop
}

// runConnecting is that process: who is told 503 comes back. It says how many are in, how many were told 503, how many
// times it ended otherwise, and after how long, and stays.
func runConnecting(args []string) {
	port, _ := strconv.Atoi(args[0])
	n, _ := strconv.Atoi(args[1])
	d := &drill{deadline: time.Now().Add(2 * time.Minute), rng: rand.New(rand.NewPCG(uint64(port), 0))}
	d.guarded(func() {
		f := d.newFleet(&server{d: d, addr: unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}})
		told, other := 0, 0
		var all []*client
		f.until(time.Minute, func() bool {
			for range min(64, n-len(all)) {
				all = append(all, f.newClient(want{retries: true}))
			}
			done := 0
			for _, c := range all {
				switch {
				case c.state == opened || c.status == 200:
					done++
				case c.state == ended && f.clock() > c.retryAt:
					if told++; c.status != 503 {
						told--
						other++
					}
					f.dial(c)
				}
			}
			return done == n
		})
		fmt.Println(f.open, told, other, time.Duration(f.clock()).Seconds())
		f.rest(time.Hour)
	})
	fmt.Println(d.faults) // read only where the line above is missing
}

// runAccepting is a server that does the least that there is.
func runAccepting() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = nc.Read(make([]byte, 1024))
			_, _ = nc.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
			nc.Close()
		}()
	}
}
