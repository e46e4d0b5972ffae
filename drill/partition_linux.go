package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"
)

// islands are a network namespace of each node, all on one bridge in that of the clients, 10.98.0.254.
type islands struct {
	d     *drill
	sea   string // the clients' namespace
	names []string
}

func (d *drill) newIslands(n int) *islands {
	d.needRoot("network namespaces")
	is := &islands{d: d, sea: fmt.Sprintf("hubbub-drill-%d-sea", os.Getpid())}
	for i := range n {
		is.names = append(is.names, fmt.Sprintf("hubbub-drill-%d-%d", os.Getpid(), i))
	}
	for _, ns := range append([]string{is.sea}, is.names...) {
		d.command("ip", "netns", "add", ns)
		d.cleanup(func() { d.command("ip", "netns", "del", ns) })
		d.command("ip", "-n", ns, "link", "set", "lo", "up")
	}
	d.command("ip", "-n", is.sea, "link", "add", "bridge", "type", "bridge")
	d.command("ip", "-n", is.sea, "addr", "add", "10.98.0.254/24", "dev", "bridge")
	d.command("ip", "-n", is.sea, "link", "set", "bridge", "up")
	for i, ns := range is.names {
		port := fmt.Sprint("port", i)
		d.command("ip", "-n", ns, "link", "add", "line", "type", "veth", "peer", "name", port, "netns", is.sea)
		d.command("ip", "-n", is.sea, "link", "set", port, "master", "bridge", "up")
		d.command("ip", "-n", ns, "addr", "add", fmt.Sprintf("10.98.0.%d/24", i+1), "dev", "line")
		d.command("ip", "-n", ns, "link", "set", "line", "up")
		nft := []string{"ip", "netns", "exec", ns, "nft"}
		d.command(append(nft, "add table inet drill")...)
		d.command(append(nft, "add chain inet drill in { type filter hook input priority 0; }")...)
		d.command(append(nft, "add chain inet drill out { type filter hook output priority 0; }")...)
	}
	return is
}

// cut drops what a node gets from the others, and with both also what it sends to them; its clients still reach it.
func (is *islands) cut(i int, both bool) {
	nft := []string{"ip", "netns", "exec", is.names[i], "nft"}
	is.d.command(append(nft, "add rule inet drill in ip saddr 10.98.0.1-10.98.0.253 counter drop")...)
	if both {
		is.d.command(append(nft, "add rule inet drill out ip daddr 10.98.0.1-10.98.0.253 counter drop")...)
	}
}

func (is *islands) heal(i int) {
	is.d.command("ip", "netns", "exec", is.names[i], "nft", "flush", "table", "inet", "drill")
}

// partition: a node is cut off from the others, both ways and one way, while its clients stay.
func partition(d *drill) {
	is := d.newIslands(3)
	d.inside(is.sea, func() {
		ns := d.newStores(3, func(i int) ([]string, [4]byte) {
			return []string{"ip", "netns", "exec", is.names[i]}, [4]byte{10, 98, 0, byte(i + 1)}
		})
		c := d.newCompany(ns, pick(d, 600, 150), pick(d, 100, 30))
		rate, times := pick(d, 300.0, 150), pick(d, 20, 2)
		var shown, longest time.Duration
		said := 0
		for round := range times {
			i := d.rng.IntN(3)
			long := pick(d, 5*time.Second+time.Duration(d.rng.Int64N(int64(115*time.Second))), 12*time.Second)
			is.cut(i, round%2 == 0)
			unready := false
			c.talk(rate, long, func() {
				if !unready && c.talks%160 == 0 {
					unready = !ns.all[i].ready()
				}
			})
			if unready {
				said++
			}
			is.heal(i)
			c.slowest = 0
			c.talk(rate, 5*time.Second, nil)
			ns.await(ns.all...)
			longest = max(longest, long)
			shown = max(shown, c.presence())
		}
		d.say("%d times a node was cut off, for at most %.0f s; %d times /readyz said so; presence right %.1f s after", times, longest.Seconds(), said, shown.Seconds())
		c.judgeCompany(true) // the cut node refuses what it can't publish
		d.must(said > 0, "no node that was cut off ever said so")
	})
}

const bussing = "nats"

// runBus is the process of a NATS server: port and folder.
func runBus(args []string) {
	var port int
	_, err := fmt.Sscan(args[0], &port)
	var s *natsserver.Server
	if err == nil {
		s, err = natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: args[1], NoSigs: true, MaxPayload: 8 << 20})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s.Start()
	s.WaitForShutdown()
}

// busRestarted: two nodes on a NATS server of the operator's, which is killed and comes back; once its store is wiped.
func busRestarted(d *drill) {
	port, store := d.freePort(), filepath.Join(d.dir, "nats")
	bus := d.startBus(port, store)
	ns := &nodes{d: d}
	d.check(os.WriteFile(filepath.Join(d.dir, "hubbub.yaml"), []byte(policies), 0o600))
	for i := range 2 {
		h := how{addr: [4]byte{127, 0, 0, 1}, port: d.freePort()}
		h.flags = []string{"--config", filepath.Join(d.dir, "hubbub.yaml"), "--nats", fmt.Sprintf("nats://127.0.0.1:%d", port), "--cluster-secret", clusterSecret, "--api-key", backendKey, "--resume-window", "60s", "--node-name", fmt.Sprint("node-", i)}
		one := &node{how: h, server: d.launch(h)}
		ns.all = append(ns.all, one)
	}
	ns.await(ns.all...)
	c := d.newCompany(ns, pick(d, 600, 150), pick(d, 100, 30))
	rate, times := pick(d, 500.0, 200), pick(d, 10, 3)
	refusing := 0
	for round := range times {
		c.talk(rate, pick(d, 5*time.Second, 2*time.Second), nil)
		bus.Process.Kill()
		bus.Wait()
		if round == times-1 {
			c.settle(patience) // what was acknowledged is where it is to be: what comes now is of another log
			d.check(os.RemoveAll(store))
		}
		said := false
		c.talk(rate, pick(d, time.Duration(d.rng.Int64N(int64(10*time.Second))), 3*time.Second), func() {
			if !said && c.talks%80 == 0 {
				said = !ns.all[0].ready()
			}
		})
		if said {
			refusing++
		}
		bus = d.startBus(port, store)
		c.talk(rate, pick(d, 10*time.Second, 4*time.Second), nil)
		ns.await(ns.all...)
	}
	c.talk(rate, 2*time.Second, nil)
	shown := c.presence()
	d.say("NATS killed %d times, its store wiped the last time; %d times /readyz said so; presence right %.1f s after", times, refusing, shown.Seconds())
	c.judgeCompany(true)
	d.must(c.gaps["epoch"] > 0, "nobody was told that the log was lost")
}

func (d *drill) startBus(port int, store string) *exec.Cmd {
	d.check(os.MkdirAll(store, 0o755))
	self, err := os.Executable()
	d.check(err)
	cmd := exec.Command(self, bussing, fmt.Sprint(port), store)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	d.check(cmd.Start())
	d.cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// storeFull: one of three stores has a disk that is full for a while.
func storeFull(d *drill) {
	d.needRoot("a small disk")
	small := filepath.Join(d.dir, "store0")
	d.check(os.MkdirAll(small, 0o755))
	d.check(unix.Mount("hubbub-drill", small, "tmpfs", 0, "size=24m"))
	d.cleanup(func() { d.check(unix.Unmount(small, unix.MNT_DETACH)) })
	ns := d.newStores(3, nil)
	c := d.newCompany(ns, pick(d, 300, 150), pick(d, 100, 30))
	rate := pick(d, 300.0, 150)
	c.talk(rate, 2*time.Second, nil)
	full, err := os.Create(filepath.Join(small, "full"))
	d.check(err)
	for err == nil {
		_, err = full.Write(make([]byte, 64<<10))
	}
	full.Close()
	c.talk(rate, pick(d, 60*time.Second, 12*time.Second), nil)
	c.slowest = 0
	d.check(os.Remove(filepath.Join(small, "full")))
	c.talk(rate, pick(d, 20*time.Second, 8*time.Second), nil)
	ns.await(ns.all...)
	shown := c.presence()
	d.say("a store's disk was full for a while; slowest answer afterwards %.1f s, presence right %.1f s after; its log says: %s", c.slowest.Seconds(), shown.Seconds(), firstLine(ns.all[0].log.String()))
	c.judgeCompany(true)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line[:min(len(line), 160)]
}
