package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gohub "example.com/hubbub/client"
)

// firstCluster is somebody who reads "First cluster in five minutes" of docs/cluster.md, and has three machines on one.
type firstCluster struct {
	t        *testing.T
	f        *files
	env      []string
	nodes    []*server
	proxy    string // the address of the one in front
	doc      *docPage
	conf     *strings.Replacer
	commands []string
	shown    string // the command that shows the nodes
}

func newFirstCluster(t *testing.T) *firstCluster {
	c := &firstCluster{t: t, doc: readDoc(t, "docs/cluster.md").section("First cluster in five minutes"), proxy: freeAddr(t)}
	var hosts, public []string
	for i := range 3 {
		store, addr := freeAddrs(t), freeAddr(t)
		c.nodes = append(c.nodes, &server{addr: addr})
		public = append(public, fmt.Sprintf("store-%d:8080", i+1), addr)
		hosts = append(hosts, fmt.Sprintf("store-%d:7422", i+1), store, fmt.Sprintf("--host store-%d", i+1), "--host "+store)
	}
	c.f = &files{t: t, dir: t.TempDir(), instead: strings.NewReplacer(append(hosts, public...)...)}
	c.conf = strings.NewReplacer(append(public, "bind :80", "bind "+c.proxy, "chat.example.com", "chat")...)
	if err := os.Symlink(program, filepath.Join(c.f.dir, "hubbub")); err != nil {
		t.Fatal(err)
	}
	c.env = append(os.Environ(), "PATH="+c.f.dir+":"+os.Getenv("PATH"), "HUBBUB_API_KEY="+backendKey,
		"HUBBUB_CONFIG="+configFile(t, "rooms: [{match: \"live.*\", history: off}, {match: \"who\", presence: full}]\n"))
	return c
}

// freeAddrs is freeAddr, and nothing listens at the port above either; the kernel gives neither to who doesn't ask for one.
func freeAddrs(t *testing.T) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprint("127.0.0.1:", 18000+2*rand.IntN(3000))
		ports.Lock()
		taken := ports.given[addr]
		if ports.given == nil {
			ports.given = map[string]bool{}
		}
		ports.given[addr] = true
		ports.Unlock()
		if !taken && isFree(addr) && isFree(portAbove(addr)) {
			return addr
		}
	}
	t.Fatal("no two ports are free")
	return ""
}

// initialize runs cluster init, and sees that it prints the commands that stand in the docs.
func (c *firstCluster) initialize() {
	c.t.Helper()
	init := exec.Command("bash", "-c", c.f.instead.Replace(c.doc.commands("hubbub cluster init")[0]))
	init.Dir, init.Env = c.f.dir, c.env
	out, err := init.CombinedOutput()
	if err != nil {
		c.t.Fatalf("cluster init: %v\n%s", err, out)
	}
	printed := strings.TrimSpace(string(out))
	secret := regexp.MustCompile(`(?m)^export (HUBBUB_CLUSTER_SECRET=\S+)$`).FindStringSubmatch(printed)
	if secret == nil {
		c.t.Fatalf("cluster init prints no secret:\n%s", printed)
	}
	c.env = append(c.env, secret[1])
	c.commands = c.doc.commands("hubbub serve")
	// Here all three are one machine, for which it prints folders and ports of their own.
	printed = regexp.MustCompile(`(?m)(--data-dir hubbub-data)-\d+|( --listen :\d+)`).ReplaceAllString(printed, "$1")
	for _, command := range c.commands {
		if !strings.Contains(printed, "\n"+c.f.instead.Replace(command)+"\n") {
			c.t.Errorf("cluster init doesn't print what the docs have, %s:\n%s", command, printed)
		}
	}
}

// run starts a node; it may not be ready yet when this returns.
func (c *firstCluster) run(i int) {
	c.t.Helper()
	s := &server{addr: c.nodes[i].addr, exited: make(chan struct{})}
	s.cmd = exec.Command("bash", "-c", "exec "+c.f.instead.Replace(c.commands[i]))
	s.cmd.Dir = filepath.Join(c.f.dir, fmt.Sprint(i))
	if err := os.MkdirAll(s.cmd.Dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	s.cmd.Env = append(c.env, "HUBBUB_LISTEN="+s.addr)
	s.begin(c.t)
	c.nodes[i] = s
}

// balance runs the proxy.
func (c *firstCluster) balance() {
	c.t.Helper()
	balance(c.t, c.conf.Replace(c.doc.next("haproxy", "# three nodes\n")))
}

// balance runs HAProxy with a configuration.
func balance(t *testing.T, conf string) {
	t.Helper()
	run, _ := deployed["haproxy"](t, &frontend{}, t.TempDir(), conf)
	log := &syncBuffer{}
	run.Stdout, run.Stderr, run.SysProcAttr = log, log, &syscall.SysProcAttr{Setpgid: true}
	if err := run.Start(); err != nil {
		t.Fatalf("%v (make deps installs it)", err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-run.Process.Pid, syscall.SIGKILL)
		_ = run.Wait()
		if t.Failed() {
			t.Logf("haproxy says:\n%s", log)
		}
	})
}

func (c *firstCluster) dial(ctx context.Context, addr string) *gohub.Hub {
	c.t.Helper()
	hub, err := gohub.New("ws://"+addr+"/ws", gohub.Options{MaxDelay: time.Second})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { hub.Close() })
	for s := range hub.States(ctx) {
		if s.State == gohub.Online {
			return hub
		}
	}
	c.t.Fatalf("no connection to %s: %v", addr, ctx.Err())
	return nil
}

// gets waits for a message with this content.
func gets(ctx context.Context, t *testing.T, from <-chan gohub.Message, want string) {
	t.Helper()
	for {
		select {
		case m := <-from:
			if string(m.Content) == want {
				return
			}
		case <-ctx.Done():
			t.Fatalf("%s didn't come", want)
		}
	}
}

// hears collects what comes in a room.
func hears(ctx context.Context, t *testing.T, room *gohub.Room) <-chan gohub.Message {
	t.Helper()
	if err := room.Join(ctx); err != nil {
		t.Fatalf("join %s: %v", room.Name(), err)
	}
	out := make(chan gohub.Message, 10_000)
	go func() {
		for m := range room.Messages(ctx) {
			out <- m
		}
	}()
	return out
}

// The first page of docs/cluster.md: three stores, two clients on two of them who chat with and without history, a direct
// message, who is there. Then one of them is killed: its clients are back on others, and what is published arrives.
func TestFirstCluster(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	c := newFirstCluster(t)
	c.initialize()
	for i := range c.nodes {
		c.run(i)
	}
	for _, s := range c.nodes {
		s.waitReady(t)
	}
	c.shown = c.doc.commands("hubbub nodes")[0]
	c.isWell(true)
	c.balance()
	c.doc.ended()
	c.talk(ctx)
	for i := range c.nodes { // one of them leads the room's log
		c.kill(ctx, i)
	}
	c.replace(ctx, 0)
}

// isWell waits until hubbub nodes shows three nodes and three stores with all that they shall have, or what isn't well.
func (c *firstCluster) isWell(well bool) {
	c.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		cmd := exec.Command("bash", "-c", c.f.instead.Replace(c.shown))
		cmd.Env = c.env
		out, err := cmd.CombinedOutput()
		if is := err == nil && strings.Count(string(out), "  yes") == 6; is == well && (is || strings.Contains(string(out), "is away")) {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("hubbub nodes: %v\n%s", err, out)
		}
	}
}

// talk has two clients on two nodes do what clients do.
func (c *firstCluster) talk(ctx context.Context) {
	t := c.t
	ann, bob := c.dial(ctx, c.nodes[0].addr), c.dial(ctx, c.nodes[1].addr)
	for _, room := range []string{"r", "live.1"} {
		heard := hears(ctx, t, bob.Room(room))
		if _, err := ann.Room(room).Publish(ctx, "to "+room, gohub.PublishOptions{}); err != nil {
			t.Fatalf("publish to %s: %v", room, err)
		}
		gets(ctx, t, heard, `"to `+room+`"`)
	}
	page, err := c.dial(ctx, c.nodes[2].addr).Room("r").History(ctx, gohub.HistoryOptions{})
	if err != nil || len(page.Messages) != 1 {
		t.Errorf("the history on the third node: %+v, %v", page, err)
	}
	direct := make(chan gohub.Message, 10)
	go func() {
		for m := range bob.Messages(ctx) {
			direct <- m
		}
	}()
	if err := ann.Send(ctx, bob.ClientID(), "for you alone"); err != nil {
		t.Errorf("a direct message: %v", err)
	} else {
		gets(ctx, t, direct, `"for you alone"`)
	}
	hears(ctx, t, ann.Room("who"))
	hears(ctx, t, bob.Room("who"))
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		is, err := ann.Room("who").Presence(ctx)
		if err == nil && is.Count == 2 && len(is.Members) == 2 {
			break
		}
		if time.Now().After(end) {
			t.Errorf("who is there: %+v, %v", is, err)
			break
		}
	}
}

// kill kills a node while clients are on all of them, and starts it again.
func (c *firstCluster) kill(ctx context.Context, i int) {
	t := c.t
	var clients []*gohub.Hub
	var heard []<-chan gohub.Message
	for range 9 {
		hub := c.dial(ctx, c.proxy)
		clients = append(clients, hub)
		heard = append(heard, hears(ctx, t, hub.Room("r")))
	}
	publisher := c.dial(ctx, c.nodes[(i+1)%3].addr).Room("r")
	c.nodes[i].stop(t, syscall.SIGKILL)
	began := time.Now()
	back := make(chan time.Duration, 1)
	go func() {
		time.Sleep(100 * time.Millisecond) // a socket whose process was killed is reset at once
		for ctx.Err() == nil && slices.ContainsFunc(clients, func(hub *gohub.Hub) bool { return hub.State().State != gohub.Online }) {
			time.Sleep(5 * time.Millisecond)
		}
		back <- time.Since(began)
	}()
	text := fmt.Sprintf(`"after the node %d"`, i)
	for {
		_, err := publisher.Publish(ctx, json.RawMessage(text), gohub.PublishOptions{})
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("nothing is acknowledged any more: %v", err)
		}
	}
	published := time.Since(began)
	for i := range heard {
		gets(ctx, t, heard[i], text)
	}
	// On a machine that does nothing else it is 5 s at most for the clients, and 10 s for what is published.
	t.Logf("node %d killed: its clients are back after %s, published again after %s, all have it after %s", i, (<-back).Round(time.Millisecond), published.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	if i > 0 {
		c.isWell(false)
	}
	c.run(i)
	c.nodes[i].waitReady(t)
	c.isWell(true)
}

// replace stops a node as one does for an upgrade: its clients go on elsewhere as the same clients, and miss nothing.
func (c *firstCluster) replace(ctx context.Context, i int) {
	t := c.t
	var clients []*gohub.Hub
	var ids []string
	var heard []<-chan gohub.Message
	for range 9 {
		hub := c.dial(ctx, c.proxy)
		clients, ids = append(clients, hub), append(ids, hub.ClientID())
		heard = append(heard, hears(ctx, t, hub.Room("r")))
	}
	publisher := c.dial(ctx, c.nodes[(i+1)%3].addr).Room("r")
	if status := c.nodes[i].stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("the node ends with %d", status)
	}
	if _, err := publisher.Publish(ctx, "after the restart", gohub.PublishOptions{}); err != nil {
		t.Errorf("after a node was stopped in good order: %v", err)
	}
	for i, hub := range clients {
		gets(ctx, t, heard[i], `"after the restart"`)
		if id := hub.ClientID(); id != ids[i] {
			t.Errorf("the client %s is %s now", ids[i], id)
		}
	}
	c.run(i)
	c.nodes[i].waitReady(t)
}

func portAbove(addr string) string {
	host, port, _ := strings.Cut(addr, ":")
	var n int
	fmt.Sscan(port, &n)
	return fmt.Sprintf("%s:%d", host, n+1)
}

func isFree(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		l.Close()
	}
	return err == nil
}
