package e2e

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The commands that call a server, and the limits of its file.

func TestCommandsCallAServer(t *testing.T) {
	t.Parallel()
	const key = "a-key-of-sixteen-bytes-or-more"
	s := start(t, "--api-key", key)
	env := []string{"HUBBUB_URL=" + s.http(""), "HUBBUB_API_KEY=" + key}
	c := dialRaw(t, s, "/ws", "")
	id := c.welcomed()
	c.write(text(`{"msg_type":"join_room","room":"a/b","id":1}`))
	c.message("joined")
	if out, status := hubbub(t, env, "pub", "a/b", `{"n":1}`); status != 0 || !strings.HasSuffix(out, ":1\n") {
		t.Errorf("pub: exit status %d, %s", status, out)
	}
	if m := c.message("room_message"); m.raw("content") != `{"n":1}` {
		t.Errorf("got %s", m.text)
	}
	if out, status := hubbub(t, env, "rooms", "a/"); status != 0 || !strings.HasPrefix(strings.TrimSpace(out), "1 ") || !strings.HasSuffix(out, "  a/b\n") {
		t.Errorf("rooms: exit status %d, %s", status, out)
	}
	if out, status := hubbub(t, env, "kick", "client:"+id, "--room", "a/b"); status != 0 {
		t.Errorf("kick: exit status %d, %s", status, out)
	}
	c.message("left")
	if out, status := hubbub(t, env, "kick", "client:"+id); status != 0 {
		t.Errorf("kick: exit status %d, %s", status, out)
	}
	c.expectClose(4500)
	if out, status := hubbub(t, env, "kick", "client:"+id); status != 1 || !strings.Contains(out, "unknown_client") {
		t.Errorf("kick of nobody: exit status %d, %s", status, out)
	}
	if out, status := hubbub(t, env, "tail", "lobby"); status != 2 || !strings.Contains(out, "room:NAME") {
		t.Errorf("tail of nothing: exit status %d, %s", status, out)
	}
	if out, status := hubbub(t, []string{"HUBBUB_URL=" + s.http("")}, "rooms"); status != 1 || !strings.Contains(out, "HUBBUB_API_KEY") {
		t.Errorf("without a key: exit status %d, %s", status, out)
	}
}

// relay passes connections on to a server, until it withholds what the server says.
type relay struct {
	net.Listener
	withhold atomic.Bool
	asked    chan struct{} // a client has sent something meanwhile
	mu       sync.Mutex
	all      []net.Conn // guarded by mu
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, asked: make(chan struct{}, 1)}
	t.Cleanup(r.gone)
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", to)
			if err != nil {
				here.Close()
				continue
			}
			r.mu.Lock()
			r.all = append(r.all, here, there)
			r.mu.Unlock()
			go r.pass(there, here, true)
			go r.pass(here, there, false)
		}
	}()
	return r
}

func (r *relay) pass(to, from net.Conn, asks bool) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			to.Close()
			return
		}
		switch held := r.withhold.Load(); {
		case held && asks:
			select {
			case r.asked <- struct{}{}:
			default:
			}
		case held:
			continue
		}
		_, _ = to.Write(b[:n])
	}
}

// gone ends it with all connections.
func (r *relay) gone() {
	r.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, nc := range r.all {
		nc.Close()
	}
}

// An interrupted pub --lines says how many lines were acknowledged, and whether one is in doubt.
func TestPubSaysWhatIsInDoubt(t *testing.T) {
	t.Parallel()
	const key = "a-key-of-sixteen-bytes-or-more"
	s := start(t, "--api-key", key)
	interrupt := func(cmd *exec.Cmd, _ *relay) { _ = cmd.Process.Signal(os.Interrupt) }
	const doubt = "line 4: interrupted: in doubt, it may have been published or not; acknowledged before: 2\n"
	for name, tt := range map[string]struct {
		args []string
		ends func(cmd *exec.Cmd, r *relay)
		last bool // a line is under way then
		says []string
	}{
		"interrupted under way":       {nil, interrupt, true, []string{doubt}},
		"interrupted over WebSocket":  {[]string{"--ws"}, interrupt, true, []string{doubt}},
		"interrupted between lines":   {nil, interrupt, false, []string{"interrupted between two lines; acknowledged before: 2\n"}},
		"the server goes under way":   {nil, func(_ *exec.Cmd, r *relay) { r.gone() }, true, []string{"line 4: ", ": in doubt, it may have been published or not; acknowledged before: 2\n"}},
		"the server is gone for long": {nil, nil, false, []string{"line 4: ", "; acknowledged before: 2\n"}}, // in doubt, where it is sent before its end is seen
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, s.addr)
			cmd := exec.Command(program, append([]string{"pub", "--lines", "in doubt", "-", "--url", "http://" + r.Addr().String()}, tt.args...)...)
			cmd.Env = append(os.Environ(), "HUBBUB_API_KEY="+key)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var out, log syncBuffer
			cmd.Stdout, cmd.Stderr = &out, &log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			t.Cleanup(func() { _ = cmd.Process.Kill() })
			_, _ = io.WriteString(in, "one\n\ntwo\n")
			for end := time.Now().Add(patience); strings.Count(out.String(), "\n") < 2; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("it prints %q, %q", out.String(), log.String())
				}
			}
			r.withhold.Store(true)
			if tt.last {
				_, _ = io.WriteString(in, "three\n")
				select {
				case <-r.asked:
				case <-time.After(patience):
					t.Fatal("the line isn't sent")
				}
			}
			if tt.ends == nil {
				r.gone()
				_, _ = io.WriteString(in, "three\n")
			} else {
				tt.ends(cmd, r)
			}
			select {
			case <-ended:
			case <-time.After(patience):
				t.Fatalf("it doesn't end: %q", log.String())
			}
			if status := cmd.ProcessState.ExitCode(); status != 1 {
				t.Errorf("it ends with %d", status)
			}
			for _, want := range tt.says {
				if !strings.Contains(log.String(), want) {
					t.Errorf("it says %q, which lacks %q", log.String(), want)
				}
			}
		})
	}
}

func TestLimitsOfTheFile(t *testing.T) {
	t.Parallel()
	s := start(t, "--config", configFile(t, "limits:\n  client: {messages: 2/h}\n  address: {connects: 1/h}\n"))
	c := dialRaw(t, s, "/ws", "")
	c.welcomed()
	for range 3 {
		c.write(text(`{"msg_type":"ping","id":7}`))
	}
	c.message("pong")
	c.message("pong")
	if m := c.message("error"); m.str("code") != "rate_limited" || m.num("retry_after_ms") < 60_000 {
		t.Errorf("got %s", m.text)
	}
	second := connect(t, s)
	second.write(upgrade(s, "/ws"))
	if r := second.response("GET"); r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") == "" {
		t.Errorf("the second connect: %s", r.Status)
	}
}
