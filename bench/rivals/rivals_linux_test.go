// Package rivals_test starts each rival as compare.py does, and talks to it as one of its clients would.
package rivals_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A dialect is how clients of some server say what the scenarios need.
type dialect struct {
	path, echoPath string
	hello          func(p *peer) // until the server lets a client speak
	join           func(room string) string
	publish        func(room, content string) string
	echo           func(content string) string
	content        func(frame string) (string, bool) // of a room's message, or of an echo
	toSender       bool                              // the sender gets its own messages too
}

var seed = dialect{
	path: "/", echoPath: "/echo",
	hello: func(*peer) {},
	join:  func(room string) string { return fmt.Sprintf(`{"msg_type":"join_room","room":%q}`, room) },
	publish: func(room, content string) string {
		return fmt.Sprintf(`{"msg_type":"room_message","room":%q,"content":%q}`, room, content)
	},
	echo: func(content string) string { return content },
	content: func(frame string) (string, bool) {
		var m struct {
			Kind    string `json:"msg_type"`
			From    string
			Content string
		}
		if json.Unmarshal([]byte(frame), &m) != nil { // an echo
			return frame, true
		}
		return m.Content, m.Kind == "room_message" && len(m.From) == 36
	},
}

var centrifuge = dialect{
	path: "/", echoPath: "/",
	hello: func(p *peer) { p.write(`{"id":1,"connect":{}}`); p.await(`"connect":`) },
	join:  func(room string) string { return fmt.Sprintf(`{"id":2,"subscribe":{"channel":%q}}`, room) },
	publish: func(room, content string) string {
		return fmt.Sprintf(`{"id":3,"publish":{"channel":%q,"data":%q}}`, room, content)
	},
	echo: func(content string) string { return fmt.Sprintf(`{"id":4,"rpc":{"method":"echo","data":%q}}`, content) },
	content: func(frame string) (string, bool) {
		var m struct {
			Push *struct{ Pub struct{ Data string } }
			RPC  *struct{ Data string }
		}
		json.Unmarshal([]byte(frame), &m)
		switch {
		case m.Push != nil:
			return m.Push.Pub.Data, true
		case m.RPC != nil:
			return m.RPC.Data, true
		}
		return "", false
	},
	toSender: true,
}

var socketio = dialect{
	path: "/socket.io/?EIO=4&transport=websocket", echoPath: "/socket.io/?EIO=4&transport=websocket",
	hello:   func(p *peer) { p.write("40"); p.await(`40{"sid":`) },
	join:    func(room string) string { return fmt.Sprintf(`42["join_room",%q]`, room) },
	publish: func(room, content string) string { return fmt.Sprintf(`42["room_message",%q,%q]`, room, content) },
	echo:    func(content string) string { return fmt.Sprintf(`42["echo",%q]`, content) },
	content: func(frame string) (string, bool) {
		var event []json.RawMessage
		if json.Unmarshal([]byte(strings.TrimPrefix(frame, "42")), &event) != nil || len(event) != 2 {
			return "", false
		}
		var m struct{ Content string }
		var echoed string
		if json.Unmarshal(event[1], &echoed) == nil {
			return echoed, true
		}
		return m.Content, json.Unmarshal(event[1], &m) == nil && m.Content != ""
	},
}

var rivals = []struct {
	name    string
	command []string // the address follows; nil: the Go program of that name
	dialect dialect
}{
	{"gorilla", nil, seed},
	{"coder", nil, seed},
	{"gws", nil, seed},
	{"nbio", nil, seed},
	{"centrifuge", nil, centrifuge},
	{"ws", []string{"node", "npm/ws.js"}, seed},
	{"socketio", []string{"node", "npm/socketio.js"}, socketio},
}

var bin string // where the Go rivals are built

func TestMain(m *testing.M) {
	var err error
	if bin, err = os.MkdirTemp("", "rivals"); err != nil {
		panic(err)
	}
	if out, err := exec.Command("go", "build", "-o", bin+"/", "./...").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the rivals: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(bin)
	os.Exit(code)
}

func TestRivals(t *testing.T) {
	for _, rival := range rivals {
		t.Run(rival.name, func(t *testing.T) {
			t.Parallel()
			command := rival.command
			if command == nil {
				command = []string{filepath.Join(bin, rival.name)}
			}
			server := start(t, command, rival.dialect)
			t.Run("a message reaches the other members of its room", server.testFanOut)
			t.Run("the echo answers in order", server.testEcho)
		})
	}
}

func (s server) testFanOut(t *testing.T) {
	ann, ben, eve := s.dial(t, s.path), s.dial(t, s.path), s.dial(t, s.path)
	ann.write(s.join("lobby"))
	ben.write(s.join("lobby"))
	eve.write(s.join("elsewhere"))
	// A join has no answer: they have joined once they hear each other.
	s.untilHeard(ann, "lobby", ben)
	s.untilHeard(ben, "lobby", ann)
	s.untilHeard(ann, "elsewhere", eve)

	// What somebody should not get would come before what they should.
	ann.write(s.publish("lobby", "from ann"))
	if got := ben.next(); got != "from ann" {
		t.Errorf("ben got %q, want what ann published", got)
	}
	if s.toSender {
		if got := ann.next(); got != "from ann" {
			t.Errorf("ann got %q, want her own message, as this protocol has it", got)
		}
	}
	ben.write(s.publish("lobby", "from ben"))
	if got := ann.next(); got != "from ben" {
		t.Errorf("ann got %q, want what ben published", got)
	}
	ann.write(s.publish("elsewhere", "for eve"))
	if got := eve.next(); got != "for eve" {
		t.Errorf("eve got %q, want what was published in her room", got)
	}
}

func (s server) testEcho(t *testing.T) {
	p := s.dial(t, s.echoPath)
	for i := range 100 {
		p.write(s.echo(fmt.Sprint("say ", i)))
	}
	for i := range 100 {
		if got, want := p.next(), fmt.Sprint("say ", i); got != want {
			t.Fatalf("the echo answered %q, want %q", got, want)
		}
	}
}

// server is a rival that runs.
type server struct {
	dialect
	address string
}

// start runs a rival until the test ends, and returns once it listens.
func start(t *testing.T, command []string, d dialect) server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	var output bytes.Buffer
	process := exec.Command(command[0], append(command[1:], address)...)
	process.Stdout, process.Stderr = &output, &output
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when the test is killed
	if err := process.Start(); err != nil {
		t.Fatalf("starting %v: %v", command, err)
	}
	t.Cleanup(func() {
		process.Process.Kill()
		process.Wait()
		if t.Failed() {
			t.Logf("%v said: %s", command, &output)
		}
	})
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return server{d, address}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v doesn't listen: %v", command, err)
		}
	}
}

// peer is a client of a server.
type peer struct {
	t      *testing.T
	server server
	conn   *websocket.Conn
	ctx    context.Context
	lines  []string // of a frame that holds several messages
}

const probe = "probe "

func (s server) dial(t *testing.T, path string) *peer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	conn, _, err := websocket.Dial(ctx, "ws://"+s.address+path, nil)
	if err != nil {
		t.Fatalf("dialing %s: %v", path, err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	p := &peer{t: t, server: s, conn: conn, ctx: ctx}
	s.hello(p)
	return p
}

func (p *peer) write(text string) {
	p.t.Helper()
	if err := p.conn.Write(p.ctx, websocket.MessageText, []byte(text)); err != nil {
		p.t.Fatalf("writing %s: %v", text, err)
	}
}

// line returns the next message as it came.
func (p *peer) line() string {
	p.t.Helper()
	for len(p.lines) == 0 {
		_, text, err := p.conn.Read(p.ctx)
		if err != nil {
			p.t.Fatalf("reading: %v", err)
		}
		p.lines = strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	}
	line := p.lines[0]
	p.lines = p.lines[1:]
	return line
}

// await reads up to a message that contains part.
func (p *peer) await(part string) {
	p.t.Helper()
	for !strings.Contains(p.line(), part) {
	}
}

// content returns what the next message of a room, or the next echo, holds.
func (p *peer) content() string {
	p.t.Helper()
	for {
		if content, ok := p.server.content(p.line()); ok {
			return content
		}
	}
}

// next is content without what untilHeard sent.
func (p *peer) next() string {
	p.t.Helper()
	for {
		if content := p.content(); !strings.HasPrefix(content, probe) {
			return content
		}
	}
}

// untilHeard has a speaker publish until a listener hears it.
func (s server) untilHeard(speaker *peer, room string, listener *peer) {
	listener.t.Helper()
	heard, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-heard:
				done <- nil
				return
			case <-time.After(10 * time.Millisecond):
				text := s.publish(room, fmt.Sprint(probe, i))
				if err := speaker.conn.Write(speaker.ctx, websocket.MessageText, []byte(text)); err != nil {
					done <- errors.Join(errors.New("publishing"), err)
					return
				}
			}
		}
	}()
	listener.content()
	close(heard)
	if err := <-done; err != nil {
		listener.t.Fatal(err)
	}
}
