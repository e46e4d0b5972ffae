package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"example.com/hubbub"
	"example.com/hubbub/client"
	"example.com/hubbub/internal/rawtest"
)

// shorten has a waiting time be a short one until the test ends.
func shorten(t *testing.T, of *time.Duration) {
	before := *of
	*of = 200 * time.Millisecond
	t.Cleanup(func() { *of = before })
}

// silence is where connections are taken, and nothing is said. took has each of them.
func silence(t *testing.T) (address string, took <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	all := make(chan net.Conn, 16)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { nc.Close() })
			all <- nc
		}
	}()
	return l.Addr().String(), all
}

// interrupted is what a program says, and ends with, when it is interrupted; its standard input stays open.
func interrupted(t *testing.T, cmd *exec.Cmd, stderr *bytes.Buffer, busy func(in io.Writer)) (code int, says string) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	busy(in)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it closes the standard input behind the end
	return cmd.ProcessState.ExitCode(), stderr.String()
}

// While pub reads its message, and while it connects, nothing is in doubt.
func TestPubInterruptedBeforeItPublishes(t *testing.T) {
	cmd, _, stderr := program(t, "pub", "r", "-")
	if code, says := interrupted(t, cmd, stderr, func(in io.Writer) { // it reads when this is more than a pipe takes
		_, _ = io.WriteString(in, strings.Repeat("x", 1<<20))
	}); code != 1 || !strings.HasSuffix(says, "interrupted: nothing was published\n") {
		t.Errorf("while it reads it ends with %d and says %q", code, says)
	}
	address, took := silence(t)
	cmd, _, stderr = program(t, "pub", "--ws", "r", "hello", "--url", "http://"+address)
	if code, says := interrupted(t, cmd, stderr, func(io.Writer) { <-took }); code != 1 || !strings.HasSuffix(says, "interrupted before the connection stood: nothing was published\n") {
		t.Errorf("while it connects it ends with %d and says %q", code, says)
	}
}

// What pub says where the server has gone is in our words, and says whether the message is in doubt.
func TestPubOverSocketWithoutAServer(t *testing.T) {
	s := serving(t)
	hub, err := dial(t.Context(), "http://"+s.Addr, "")
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	s.Shutdown(t.Context())
	rawtest.Eventually(t, "the connection is lost", func() bool { return hub.State().State != client.Online })
	shorten(t, &publishTime)
	c := pubCmd{WS: true, Lines: true, hub: hub}
	if err := c.publishLines(t.Context(), publication{Room: "r"}, strings.NewReader("one\n")); err == nil || err.Error() != "line 1: no connection within 0.2 s: it was not published; acknowledged before: 0" {
		t.Errorf("the server is gone: %v", err)
	}
	address, _ := silence(t)
	shorten(t, &dialTime)
	if _, err := printed(t, "pub", "--ws", "r", "hello", "--url", "http://"+address); err == nil || !strings.Contains(err.Error(), ": no answer within 0.2 s (--url") {
		t.Errorf("the server is silent: %v", err)
	}
}

// What was sent and isn't answered in time is in doubt.
func TestPubOverSocketWithoutAnAnswer(t *testing.T) {
	asked, end := make(chan struct{}, 100), make(chan struct{})
	s := rawtest.Start(t, hubbub.Config{Hooks: hubbub.Hooks{Publish: func(context.Context, *hubbub.Publish) error {
		asked <- struct{}{}
		<-end
		return nil
	}}})
	defer close(end)
	for shorten(t, &publishTime); ; publishTime *= 2 { // until it is long enough for the way there
		_, err := printed(t, "pub", "--ws", "r", "hello", "--url", "http://"+s.Addr)
		if len(asked) == 0 && publishTime < patience {
			continue
		}
		if want := fmt.Sprintf("no answer within %g s: in doubt, it may have been published or not", publishTime.Seconds()); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		return
	}
}

// Over a WebSocket pub joins a room in which only members may publish, and says so where it may not: nothing is in doubt then.
func TestPubOverSocketWhereMembersPublish(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{
		Rooms: []hubbub.RoomPolicy{{Match: "*", Publish: "members"}},
		Hooks: hubbub.Hooks{Join: func(_ context.Context, j *hubbub.Join) error {
			switch j.Room {
			case "closed":
				return &hubbub.Error{Code: hubbub.Forbidden, Message: "not you"}
			case "broken":
				return errors.New("no answer")
			}
			return nil
		}},
	})
	if out, err := printed(t, "pub", "--ws", "r", "hello", "--url", "http://"+s.Addr); err != nil || !strings.HasSuffix(out, ":1\n") {
		t.Errorf("%q, %v", out, err)
	}
	for room, why := range map[string]string{"closed": "not you (forbidden)", "broken": "internal error (internal)"} {
		want := "only members may publish to this room, and it can't be joined: " + why + ": it was not published"
		if _, err := printed(t, "pub", "--ws", room, "hello", "--url", "http://"+s.Addr); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A message of which nobody knows isn't sent once more under another publish_id.
func TestPubOverSocketDoesNotPublishTwice(t *testing.T) {
	var connections, published, joins atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		again := connections.Add(1) > 1
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		say := func(format string, args ...any) {
			_ = ws.Write(r.Context(), websocket.MessageText, fmt.Appendf(nil, format, args...))
		}
		say(`{"msg_type":"welcome","client_id":"c1","max_message_bytes":65536,"resume_token":"t","resumed":%t}`, again)
		for {
			_, raw, err := ws.Read(r.Context())
			if err != nil {
				return
			}
			var m struct {
				Type string          `json:"msg_type"`
				ID   json.RawMessage `json:"id"`
			}
			_ = json.Unmarshal(raw, &m)
			switch m.Type {
			case "resume":
				say(`{"msg_type":"resumed","id":%s,"rooms":{}}`, m.ID)
			case "join_room":
				joins.Add(1)
				say(`{"msg_type":"joined","id":%s,"room":"r","epoch":"e","offset":1}`, m.ID)
			case "room_message":
				if published.Add(1) == 1 {
					return // and its answer is lost
				}
				say(`{"msg_type":"error","id":%s,"code":"not_member","message":"join first"}`, m.ID)
			}
		}
	}))
	t.Cleanup(s.Close)
	_, err := printed(t, "pub", "--ws", "r", "hello", "--url", s.URL)
	if err == nil || !strings.HasSuffix(err.Error(), "in doubt, it may have been published or not") || published.Load() != 2 || joins.Load() != 0 {
		t.Errorf("%v; sent %d times, joined %d times", err, published.Load(), joins.Load())
	}
}

// What pub can't take of the standard input it names.
func TestPubOfAnInputThatCantBeTaken(t *testing.T) {
	serving(t)
	for _, tt := range []struct{ name, input, args, want string }{
		{"nothing", "", "pub r -", "the standard input is empty: nothing was published"},
		{"an empty line", "\n", "pub r -", "the standard input is empty: nothing was published"},
		{"an empty line of Windows", "\r\n", "pub r - --text", "the standard input is empty: nothing was published"},
		{"too long a line", "one\n" + strings.Repeat("x", maxStdin+1), "pub r - --lines", "line 2: read the standard input: a line may have 64 MiB at most; acknowledged before: 1"},
	} {
		stdin(t, tt.input)
		if _, err := printed(t, strings.Fields(tt.args)...); err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

// What begins with a dash is published behind --, and an error says so; -hello is not taken for -h.
func TestPubOfWhatBeginsWithADash(t *testing.T) {
	s := serving(t)
	c, _ := member(t, s, "ann", "r")
	for _, args := range [][]string{
		{"pub", "r", "--", "-1"},
		{"pub", "--", "r", "-hello"},
		{"pub", "r", "--message-key", "k", "--", "--x"},
		{"pub", "r", "--message-key", "k", "behind a flag"},
		{"pub", "--user", "ann", "--", "-to ann"},
	} {
		want := args[len(args)-1]
		run(t, args...)
		if m := c.NextJSON(); fmt.Sprint(m["content"]) != want {
			t.Errorf("%q: %v, want %s", args, m, want)
		}
	}
	for _, args := range []string{"pub r -1", "pub r -hello", "pub r --hello", "pub -hi --everyone", "pub --user ann -x"} {
		cmd, stdout, stderr := program(t, strings.Fields(args)...)
		if code := status(t, cmd); code != statusUsage || stdout.Len() > 0 || !strings.Contains(stderr.String(), "unknown flag") || !strings.Contains(stderr.String(), "behind --") {
			t.Errorf("%s: status %d\n%s%s", args, code, stdout, stderr)
		}
	}
}

// said has the standard error of this process be read, and commands say soon what they wait for.
func said(t *testing.T) <-chan string {
	t.Helper()
	shorten(t, &quiet)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stderr
	os.Stderr = w
	t.Cleanup(func() { os.Stderr = before; w.Close() })
	lines := make(chan string, 16)
	go func() {
		defer r.Close()
		for all := bufio.NewScanner(r); all.Scan(); {
			lines <- all.Text()
		}
	}()
	return lines
}

// A command that waits says what for, and for how long: for the connection, for another, for the answer.
func TestPubSaysWhatItWaitsFor(t *testing.T) {
	heard := make(chan struct{}, 1)
	goOn := make(chan struct{})
	s := rawtest.Start(t, hubbub.Config{Hooks: hubbub.Hooks{Publish: func(context.Context, *hubbub.Publish) error {
		heard <- struct{}{}
		<-goOn
		return nil
	}}})
	lines := said(t)
	says := func(what, want string) {
		t.Helper()
		var heard []string // more where the machine is slow, of the connection before
		for end := time.After(patience); ; {
			select {
			case line := <-lines:
				if line == want {
					return
				}
				heard = append(heard, line)
			case <-end:
				t.Fatalf("while it waits for %s it says %q, want %q", what, heard, want)
			}
		}
	}
	done := make(chan error)
	go func() {
		_, err := printed(t, "pub", "--ws", "r", "hello", "--url", "http://"+s.Addr)
		done <- err
	}()
	<-heard
	says("the answer", "hubbub: sent, and not answered yet, waiting up to 60 s for the answer")
	close(goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if testing.Short() {
		return // pub gives up after half a minute
	}
	address, took := silence(t)
	for _, of := range []struct{ args, want string }{
		{"pub --ws r hello", "hubbub: no answer from http://" + address + " yet, waiting up to 30 s for the connection"},
		{"pub r hello --key " + testKey, "hubbub: no answer from http://" + address + " yet, waiting up to 30s for it"},
	} {
		go func() {
			_, err := printed(t, append(strings.Fields(of.args), "--url", "http://"+address)...)
			done <- err
		}()
		says("the server", of.want)
		for dialled := true; dialled; { // until it has given up
			select {
			case nc := <-took:
				nc.Close()
			case err := <-done:
				if dialled = false; err == nil {
					t.Errorf("%s does well", of.args)
				}
			}
		}
	}
}

// Lines that end since it is interrupted aren't the end of the input: the interrupt comes as an answer does.
func TestInterruptedLinesAreNoSuccess(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	defer func(before *os.File) { os.Stdout = before }(os.Stdout)
	os.Stdout = null // for the positions
	for i := range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, `{"epoch":"e","offset":1}`)
			w.(http.Flusher).Flush()
			time.AfterFunc(time.Duration(i)*5*time.Microsecond, cancel)
		}))
		c := &pubCmd{Lines: true}
		c.URL, c.Key = server.URL, testKey
		if err := c.publishLines(ctx, publication{Room: "r"}, strings.NewReader(strings.Repeat("x\n", 1000))); err == nil {
			t.Error("it ends as if all had been published")
		}
		cancel()
		server.Close()
	}
}
