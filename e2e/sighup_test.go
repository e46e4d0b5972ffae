package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// While members of a room talk, the built server reads its file again at a signal: they stay, nothing is lost, and the room
// has its new policy. A file with a fault changes nothing, and the call says what is wrong with it.
func TestSIGHUPBesideTraffic(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "hubbub.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const key = "a-key-of-the-api-for-reloads"
	write("max-rooms-per-client: 1\nlog-level: warn\n")
	s := start(t, "--config", file, "--api-key", key, "--max-connections", "50")
	a, b := dialRaw(t, s, "/ws", ""), dialRaw(t, s, "/ws", "")
	for _, c := range []*rawConn{a, b} {
		c.welcomed()
		c.write(text(`{"msg_type":"join_room","room":"r","id":1}`))
		c.message("joined")
	}
	said := 0
	say := func() {
		said++
		a.write(text(fmt.Sprintf(`{"msg_type":"room_message","room":"r","content":%d,"id":%d}`, said, said)))
		a.message("ack")
	}
	say()
	write("max-rooms-per-client: 2\nlog-level: info\nmax-connections: 1\nworkers: 3\nrooms:\n  - match: r\n    publish: members\n")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(s.log.String(), "the settings are read again") {
		say()
	}
	for _, want := range []string{"changed=max-rooms-per-client,rooms,log-level", "kept=workers"} {
		if log := s.log.String(); !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	say()
	for n := 1; n <= said; n++ {
		if m := b.message("room_message"); m.num("content") != int64(n) {
			t.Fatalf("got %v, want %d", m, n)
		}
	}
	a.write(text(`{"msg_type":"join_room","room":"second","id":1}`))
	a.message("joined")
	third := dialRaw(t, s, "/ws", "") // the flag counts before the file
	third.welcomed()
	third.write(text(`{"msg_type":"room_message","room":"r","content":0,"id":1}`))
	if m := third.message("error"); m.str("code") != "not_member" {
		t.Errorf("who isn't in the room publishes: %v", m)
	}

	write("max-rooms-per-client: 3\nchat: nobody\n")
	if status := s.call(t, key, "POST", "/reload", ""); status != http.StatusBadRequest {
		t.Errorf("a fault: %d", status)
	}
	s.says(t, file+": line 2: chat")
	a.write(text(`{"msg_type":"join_room","room":"third","id":1}`))
	if m := a.message("error"); m.str("code") != "limit_reached" {
		t.Errorf("half of the file counts: %v", m)
	}
	write("max-rooms-per-client: 3\n")
	if status := s.call(t, key, "POST", "/reload", ""); status != http.StatusOK {
		t.Errorf("a good file: %d", status)
	}
	a.write(text(`{"msg_type":"join_room","room":"third","id":1}`))
	a.message("joined")
}

// What the log says follows its level, there and back.
func TestSIGHUPSetsTheLogLevel(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "hubbub.yaml")
	const key, line = "a-key-of-the-api-for-reloads", "level=DEBUG msg=\"request refused\""
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("log-level: warn\n")
	s := start(t, "--config", file, "--api-key", key)
	lines := func() int { return strings.Count(s.log.String(), line) }
	refused := func() { // the line of which is written before the answer
		t.Helper()
		answer, err := http.Get(s.http("/ws"))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	refused()
	write("log-level: debug\n")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.says(t, "level=INFO msg=\"the settings are read again\"")
	if n := lines(); n != 0 {
		t.Errorf("%d lines before the reload", n)
	}
	refused()
	s.says(t, line)
	write("log-level: warn\nworkers: 3\n")
	if status := s.call(t, key, "POST", "/reload", ""); status != http.StatusOK {
		t.Fatalf("the reload: %d", status)
	}
	refused()
	if status := s.call(t, key, "POST", "/reload", ""); status != http.StatusOK {
		t.Fatalf("the reload: %d", status)
	}
	for deadline := time.Now().Add(patience); strings.Count(s.log.String(), "what is kept needs a restart") < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no second warning in the log:\n%s", s.log.String())
		}
	}
	if n := lines(); n != 1 {
		t.Errorf("%d lines, and one was of the time between:\n%s", n, s.log.String())
	}
}

// Without a file there is nothing to read again at the signal but a key's: the server says so, and goes on.
func TestSIGHUPWithoutAFile(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	write := func(text string) {
		if err := os.WriteFile(key, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Repeat("the first key ", 3))
	s := start(t, "--jwt-key", "@"+key, "--anonymous", "on")
	c := dialRaw(t, s, "/ws", "")
	c.welcomed()
	hup := func(says string) {
		t.Helper()
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		s.says(t, says)
	}
	hup("there is nothing to read again: the server was started without --config")
	write(strings.Repeat("the second key ", 3))
	hup("changed=jwt-key")
	c.write(text(`{"msg_type":"ping","id":1}`))
	c.message("pong")
	if status := s.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("it ends with %d", status)
	}
}

// hubbub config --diff says what a reload would do, and shows no secret.
func TestConfigDiff(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now, next := filepath.Join(dir, "now.yaml"), filepath.Join(dir, "next.yaml")
	for path, text := range map[string]string{
		now:  "max-connections: 100\nlisten: :8080\njwt-key: the secret that counts now, of 32 bytes\n",
		next: "max-connections: 200\nlisten: :8081\njwt-key: the secret of tomorrow, with 32 bytes\nrooms:\n  - match: a\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, code := hubbub(t, nil, "config", "--config", now, "--diff", next)
	want := "changed: max-connections, from 100 to 200\nchanged: rooms\nchanged: jwt-key\nkept: listen, from :8080 to :8081\n# What is kept needs a restart.\n"
	if code != 0 || out != want {
		t.Errorf("status %d\ngot\n%s\nwant\n%s", code, out, want)
	}
	// What follows from a setting and has no flag isn't named.
	asks := filepath.Join(dir, "asks.yaml")
	if err := os.WriteFile(asks, []byte("max-connections: 100\nlisten: :8080\njwt-key: the secret that counts now, of 32 bytes\nhook-url: http://localhost:1/\nhook-events: request\nwebhook-secret: whsec_U2VDckV0V2ViaG9va1NlY3JldDEyMzQ1Njc4OTA=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code = hubbub(t, nil, "config", "--config", now, "--diff", asks); code != 0 || !strings.Contains(out, "changed: hook-url\n") || strings.Contains(out, "Questions") {
		t.Errorf("status %d, %s", code, out)
	}
	if out, code = hubbub(t, nil, "config", "--config", now, "--diff", now); code != 0 || out != "# Nothing would change.\n" {
		t.Errorf("the same file: %d %s", code, out)
	}
}
