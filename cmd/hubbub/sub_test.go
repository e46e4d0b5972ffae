package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// subscribed runs hubbub sub until the test ends it, and gives what it prints.
func subscribed(t *testing.T, c subCmd) (lines *bufio.Scanner, end func() error) {
	t.Helper()
	since, err := c.since()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = w
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.run(ctx, since) }()
	ended := false
	end = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		go io.Copy(io.Discard, r)
		err := <-done
		os.Stdout = stdout
		w.Close()
		r.Close()
		return err
	}
	t.Cleanup(func() { end() })
	return bufio.NewScanner(r), end
}

// inRoom waits until a room has so many members.
func inRoom(t *testing.T, s *rawtest.Server, room string, n int) {
	t.Helper()
	rawtest.Eventually(t, fmt.Sprintf("%d in %s", n, room), func() bool {
		p, err := s.Presence(t.Context(), room, hubbub.PresenceQuery{})
		return err == nil && p.Count == n
	})
}

func TestSubPrintsWhatComes(t *testing.T) {
	s := serving(t)
	lines, end := subscribed(t, subCmd{Rooms: []string{"lobby", "kitchen"}, URL: "http://" + s.Addr})
	inRoom(t, s, "lobby", 1)
	inRoom(t, s, "kitchen", 1)
	for _, room := range []string{"lobby", "kitchen"} {
		if err := rawtest.Publish(s, room, "hello \u202e"+room); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() || !strings.HasSuffix(lines.Text(), room+`  server  "hello \u202e`+room+`"`) {
			t.Errorf("printed %q", lines.Text())
		}
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	inRoom(t, s, "lobby", 0)
}

func TestSubPrintsJSONFromAPositionOn(t *testing.T) {
	s := serving(t)
	for i := range 3 {
		if err := rawtest.Publish(s, "lobby", i); err != nil {
			t.Fatal(err)
		}
	}
	room, err := s.Room(t.Context(), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	lines, end := subscribed(t, subCmd{Rooms: []string{"lobby"}, URL: "ws://" + s.Addr, JSON: true, Since: room.Position.Epoch + ":1"})
	for want := 1; want < 3 && lines.Scan(); want++ {
		var got subEvent
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil || got.Event != "message" || string(got.Content) != fmt.Sprint(want) || got.Offset != uint64(want+1) || got.Epoch != room.Position.Epoch {
			t.Errorf("printed %s", lines.Text())
		}
	}
	list, _, err := s.Clients(t.Context(), hubbub.ClientQuery{})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if err := s.Remove(t.Context(), "lobby", list[0].ID); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || !strings.Contains(lines.Text(), `{"event":"left","room":"lobby","reason":"kicked"}`) {
		t.Errorf("printed %q", lines.Text())
	}
	end()
}

// Also when the rooms' ends are heard before the client's.
func TestSubSaysWhyTheServerClosedIt(t *testing.T) {
	s := serving(t)
	for range 30 {
		ended := make(chan error, 1)
		go func() {
			_, err := printed(t, "sub", "lobby", "--url", "ws://"+s.Addr+"/ws?user=ann")
			ended <- err
		}()
		inRoom(t, s, "lobby", 1)
		if err := s.DisconnectUser(t.Context(), "ann", 0, "be kind"); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "the server closed the connection: 4500 be kind") {
			t.Fatalf("it ends with %v", err)
		}
		inRoom(t, s, "lobby", 0)
	}
}

func TestSubRefusesWhatItCantDo(t *testing.T) {
	for _, args := range [][]string{
		{"sub"}, {"sub", "a", "--since", "17"}, {"sub", "a", "--since", ":17"}, {"sub", "a", "b", "--since", "e:17"}, {"sub", "a", "--url", "localhost"},
		{"pub", "--ws", "--user", "ann", "x"}, {"pub", "--ws", "--url", "ftp://x", "a", "x"},
	} {
		if _, err := printed(t, args...); err == nil {
			t.Errorf("hubbub %q does it", args)
		}
	}
	if _, err := printed(t, "sub", "a", "--url", "ws://127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "nobody listens") {
		t.Errorf("where nobody listens: %v", err)
	}
	s := rawtest.Start(t, hubbub.Config{JWT: hubbub.JWT{Key: strings.Repeat("k", 32)}})
	if _, err := printed(t, "sub", "a", "--url", "ws://"+s.Addr); err == nil || !strings.Contains(err.Error(), "HUBBUB_TOKEN") {
		t.Errorf("without a token: %v", err)
	}
	if _, err := printed(t, "pub", "--ws", "a", "x", "--url", "ws://"+s.Addr, "--token", "nonsense"); err == nil || !strings.Contains(err.Error(), "--token") || !strings.Contains(err.Error(), "is no JWT") {
		t.Errorf("with a bad one: %v", err)
	}
	token, err := printed(t, "token", "--user", "ann", "--jwt-key", strings.Repeat("k", 32))
	if err != nil {
		t.Fatal(err)
	}
	if out := run(t, "pub", "--ws", "a", "x", "--url", "ws://"+s.Addr, "--token", strings.TrimSpace(token)); !strings.HasSuffix(out, ":1\n") {
		t.Errorf("with a good one it printed %q", out)
	}
}

func TestPubPublishesAsAClient(t *testing.T) {
	s := serving(t)
	t.Setenv("HUBBUB_API_KEY", "")
	c, id := member(t, s, "ann", "r")
	gets := func(kind string, want any) {
		t.Helper()
		if m := c.NextJSON(); m["msg_type"] != kind || fmt.Sprint(m["content"]) != fmt.Sprint(want) {
			t.Errorf("%v, want %s %v", m, kind, want)
		}
	}
	if out := run(t, "pub", "--ws", "r", `{"a":1}`, "--message-key", "k"); !strings.HasSuffix(out, ":1\n") {
		t.Errorf("printed %q", out)
	}
	gets("room_message", map[string]any{"a": 1})
	run(t, "pub", "--ws", "--client", id, "to you")
	gets("direct_message", "to you")
	run(t, "pub", "--ws", "--everyone", "to all")
	gets("chat", "to all")
	stdin(t, "one\ntwo")
	if out := run(t, "pub", "--ws", "r", "-", "--lines", "--json"); strings.Count(out, `"offset":`) != 2 {
		t.Errorf("printed %q", out)
	}
	gets("room_message", "one")
	gets("room_message", "two")
}
