package e2e

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const python = "/usr/bin/python3" // Debian's own, which has python3-websockets

// dialer connects one foreign client; headers are NAME=VALUE.
type dialer func(t *testing.T, url string, headers ...string) *client

func dialWS(t *testing.T, url string, headers ...string) *client {
	return drive(t, "ws", exec.Command("node", append([]string{"ws/client.js", url}, headers...)...))
}

func dialPython(t *testing.T, url string, headers ...string) *client {
	return drive(t, "websockets", exec.Command(python, append([]string{"websockets_client.py", url}, headers...)...))
}

// client is one connection of a client that we did not write, in a process of its own. ws/client.js lists its orders
// and events.
type client struct {
	t      *testing.T
	name   string
	id     string // client_id of the welcome, after join
	stdin  io.WriteCloser
	stderr syncBuffer
	events chan event
}

type event struct {
	Ev     string
	Data   string
	Code   int
	Reason string
	Status int
}

func drive(t *testing.T, name string, cmd *exec.Cmd) *client {
	t.Helper()
	c := &client{t: t, name: name, events: make(chan event, 10_000)}
	cmd.Stderr = &c.stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if c.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err = cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(c.events)
		for lines := bufio.NewReader(stdout); ; {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			var e event
			if err := json.Unmarshal(line, &e); err != nil {
				e = event{Ev: "fault", Data: "not an event: " + string(line)}
			}
			c.events <- e
		}
	}()
	t.Cleanup(func() {
		c.stdin.Close() // the driver ends with its input
		select {
		case <-read:
		case <-time.After(patience):
			t.Errorf("the %s client does not end", name)
			_ = cmd.Process.Kill()
			<-read
		}
		_ = cmd.Wait()
		if t.Failed() && c.stderr.String() != "" {
			t.Logf("the %s client says:\n%s", name, c.stderr.String())
		}
	})
	return c
}

// next is the next event; the server's pings are left out.
func (c *client) next() event {
	c.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e, ok := <-c.events:
			if !ok {
				c.t.Fatalf("the %s client ended: %s", c.name, c.stderr.String())
			}
			if e.Ev != "ping" {
				return e
			}
		case <-timeout:
			c.t.Fatalf("the %s client hears nothing for %v", c.name, patience)
		}
	}
}

// expect is the next event, which must be of this kind.
func (c *client) expect(ev string) event {
	c.t.Helper()
	e := c.next()
	if e.Ev != ev {
		c.t.Fatalf("the %s client got %+v, want the event %q", c.name, short(e), ev)
	}
	return e
}

// opened waits until the connection is open.
func (c *client) opened() *client {
	c.t.Helper()
	c.expect("open")
	return c
}

// welcomed waits until the connection is open and the welcome has come.
func (c *client) welcomed() *client {
	c.t.Helper()
	c.opened()
	c.id = c.message("welcome").str("client_id")
	return c
}

func (c *client) order(o map[string]any) {
	c.t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err = c.stdin.Write(append(b, '\n')); err != nil {
		c.t.Fatalf("the %s client is gone: %v", c.name, err)
	}
}

func (c *client) send(text string) {
	c.t.Helper()
	c.order(map[string]any{"op": "text", "data": text})
}

func (c *client) sendf(format string, args ...any) {
	c.t.Helper()
	c.send(fmt.Sprintf(format, args...))
}

func (c *client) sendBinary(b []byte) {
	c.t.Helper()
	c.order(map[string]any{"op": "binary", "data": base64.StdEncoding.EncodeToString(b)})
}

func (c *client) sendFragments(parts ...string) {
	c.t.Helper()
	c.order(map[string]any{"op": "fragments", "data": parts})
}

func (c *client) ping(data string) {
	c.t.Helper()
	c.order(map[string]any{"op": "ping", "data": data})
}

func (c *client) close(code int, reason string) {
	c.t.Helper()
	c.order(map[string]any{"op": "close", "code": code, "reason": reason})
}

// message is the next event, which must be a message of this kind. News of members, in the lobby, may come at any time
// and are passed over.
func (c *client) message(kind string) message {
	c.t.Helper()
	for {
		data := c.expect("text").Data
		if !strings.HasPrefix(data, `{"msg_type":"member_`) {
			return parse(c.t, data, kind)
		}
	}
}

// ask sends a text with an id and returns the answer, which must come next.
func (c *client) ask(text, answer string) message {
	c.t.Helper()
	c.send(text)
	return c.message(answer)
}

func (c *client) join(room string) {
	c.t.Helper()
	m := c.ask(fmt.Sprintf(`{"msg_type":"join_room","room":%q,"id":"join"}`, room), "joined")
	if m.str("room") != room || m.raw("id") != `"join"` {
		c.t.Errorf("joined %s", m.text)
	}
}

// sync proves that nothing has come but what was expected, and that all which this client sent has been dealt with.
func (c *client) sync() {
	c.t.Helper()
	if m := c.ask(`{"msg_type":"ping","id":"sync"}`, "pong"); m.raw("id") != `"sync"` {
		c.t.Fatalf("the answer to ping: %s", m.text)
	}
}

// settle proves that nothing else is under way from one client to another: what one sends after a message arrives after
// it.
func settle(from, to *client) {
	from.t.Helper()
	from.sendf(`{"msg_type":"direct_message","to":%q,"content":"settle"}`, to.id)
	m := to.message("direct_message")
	if m.raw("content") != `"settle"` {
		from.t.Fatalf("an unexpected message: %s", m.text)
	}
}

// message is what the server sent, as text and parsed.
type message struct {
	t      *testing.T
	text   string
	fields map[string]json.RawMessage
}

func parse(t *testing.T, text, kind string) message {
	t.Helper()
	m := message{t: t, text: text}
	if err := json.Unmarshal([]byte(text), &m.fields); err != nil {
		t.Fatalf("the server sent %.300q: %v", text, err)
	}
	if !strings.HasPrefix(text, `{"msg_type":"`+kind+`"`) {
		t.Fatalf("the server sent %.300s, want it to begin with the msg_type %q", text, kind)
	}
	return m
}

// raw is a field as it stands in the text.
func (m message) raw(key string) string { return string(m.fields[key]) }

func (m message) has(key string) bool { _, ok := m.fields[key]; return ok }

func (m message) str(key string) string {
	m.t.Helper()
	var s string
	if err := json.Unmarshal(m.fields[key], &s); err != nil {
		m.t.Fatalf("%q in %.300s: %v", key, m.text, err)
	}
	return s
}

func (m message) num(key string) int64 {
	m.t.Helper()
	var n int64
	if err := json.Unmarshal(m.fields[key], &n); err != nil {
		m.t.Fatalf("%q in %.300s: %v", key, m.text, err)
	}
	return n
}

func short(e event) event {
	if len(e.Data) > 300 {
		e.Data = e.Data[:300] + "..."
	}
	return e
}

func (c *client) expectBinary() string {
	c.t.Helper()
	b, err := base64.StdEncoding.DecodeString(c.expect("binary").Data)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}
