package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// screen is a terminal, and what a program that draws whole frames has on it.
type screen struct {
	t   *testing.T
	pty *os.File
	out syncBuffer
}

// onTerminal runs hubbub on a terminal of its own, of so many columns and rows, until the test ends.
func onTerminal(t *testing.T, env []string, columns, rows uint16, args ...string) (*screen, *exec.Cmd) {
	t.Helper()
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pty.Close() })
	s := &screen{t: t, pty: pty}
	s.resize(columns, rows)
	number, err := unix.IoctlGetInt(int(pty.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(pty.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := pty.Read(b)
			_, _ = s.out.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	return s, cmd
}

func (s *screen) resize(columns, rows uint16) {
	s.t.Helper()
	if err := unix.IoctlSetWinsize(int(s.pty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) press(key string) {
	s.t.Helper()
	if _, err := s.pty.WriteString(key); err != nil {
		s.t.Fatal(err)
	}
}

// frame is the last one that was drawn to its end; "" before the first.
func (s *screen) frame() string {
	frames := strings.Split(s.out.String(), "\x1b[H")
	for i := len(frames) - 1; i > 0; i-- {
		if whole, _, ended := strings.Cut(frames[i], "\x1b[J"); ended {
			return strings.ReplaceAll(strings.ReplaceAll(whole, "\x1b[K", ""), "\r\n", "\n")
		}
	}
	return ""
}

// shows waits for a frame that is as it should be.
func (s *screen) shows(what string, is func(frame string) bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !is(s.frame()); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("never seen: %s; the last is\n%s", what, s.frame())
		}
	}
}

func says(words ...string) func(string) bool {
	return func(frame string) bool {
		for _, w := range words {
			if !strings.Contains(frame, w) {
				return false
			}
		}
		return true
	}
}

// The table on a real terminal: rooms, rates, keys, another size, and the terminal as it was at the end.
func TestTopOnATerminal(t *testing.T) {
	t.Parallel()
	env := []string{"HUBBUB_API_KEY=" + doctorsKey}
	s := &server{addr: freeAddr(t), exited: make(chan struct{})}
	s.cmd = exec.Command(program, "serve", "--listen", s.addr, "--workers", "2")
	s.cmd.Env = append(os.Environ(), env...)
	s.run(t)
	hostile := "日本 evil z\u0336\u0336\u0336\u0336" // control characters the server refuses; the table's own test has them
	join := func(rooms ...string) {
		c := dialRaw(t, s, "/ws", "")
		c.welcomed()
		for _, r := range rooms {
			name, _ := json.Marshal(r)
			c.asks(fmt.Sprintf(`{"msg_type":"join_room","room":%s,"id":1}`, name), "joined")
		}
	}
	join("large", hostile)
	join("large")
	url := "http://" + s.addr
	screen, cmd := onTerminal(t, env, 100, 30, "top", "--url", url, "--interval", "500ms")
	screen.shows("rooms by members", func(f string) bool {
		large, evil := strings.Index(f, "       2           0  large"), strings.Index(f, "       1           0  日本 evil z\u0336\u0336\\u0336\\u0336")
		return large > 0 && evil > large && says("connections 2 of", "clients 2", "rooms 2", "by members")(f)
	})
	screen.press("s")
	for busy := ""; !strings.Contains(busy, "evil"); { // the first of the rooms by messages
		if out, status := hubbub(t, env, "pub", "--url", url, hostile, `"hello"`); status != 0 {
			t.Fatal(out)
		}
		if _, rooms, sorted := strings.Cut(screen.frame(), "by messages)\n"); sorted {
			busy, _, _ = strings.Cut(rooms, "\n")
		}
	}
	screen.press("?")
	screen.shows("the help", says("pause, and go on"))
	screen.press("?")
	screen.shows("the table again", says("WORKER  CONNECTIONS"))
	screen.press("p")
	screen.shows("that it is paused", says("PAUSED"))
	join("large")
	screen.press("p")
	screen.shows("what came meanwhile", says("connections 3 of"))
	screen.resize(30, 8)
	screen.shows("a smaller terminal", func(f string) bool {
		lines := strings.Split(f, "\n")
		for _, line := range lines {
			if len([]rune(line)) > 30 {
				return false
			}
		}
		return len(lines) == 8
	})
	s.stop(t, syscall.SIGTERM)
	screen.resize(100, 30)
	screen.shows("that the server is gone", says("NO ANSWER", "nobody listens"))
	screen.press("q")
	if err := cmd.Wait(); err != nil {
		t.Errorf("hubbub top ends with %v", err)
	}
	left := func() bool { return strings.Contains(screen.out.String(), "\x1b[?25h\x1b[?1049l") }
	for end := time.Now().Add(patience); !left() && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond) // what it wrote last may still be on its way
	}
	if out := screen.out.String(); !left() {
		t.Errorf("it leaves the terminal as it was in the table: %q", out[max(0, len(out)-200):])
	}
}

// Who is slow is named in the table of clients, beside the rooms and, behind a key, alone.
func TestTopNamesWhoIsSlow(t *testing.T) {
	t.Parallel()
	env := []string{"HUBBUB_API_KEY=" + doctorsKey}
	s := &server{addr: freeAddr(t), exited: make(chan struct{})}
	s.cmd = exec.Command(program, "serve", "--listen", s.addr, "--workers", "2", "--jwt-key", stageKey, "--send-queue-bytes", "8MiB", "--send-queue-age", "10m", "--ping-interval", "24h")
	s.cmd.Env = append(os.Environ(), env...)
	s.run(t)
	enter := func(user string, rooms ...string) (id string) {
		out, status := hubbub(t, append(env, "HUBBUB_JWT_KEY="+stageKey), "token", "--user", user)
		if status != 0 {
			t.Fatal(out)
		}
		c := dialRaw(t, s, "/ws?token="+strings.TrimSpace(out), "")
		id = c.welcomed()
		for _, r := range rooms {
			c.asks(fmt.Sprintf(`{"msg_type":"join_room","room":%q,"id":1}`, r), "joined")
		}
		return id
	}
	enter("ann", "lobby")
	slow := enter("bob", "large", "lobby") // reads no more
	enter("cid", "lobby")
	screen, _ := onTerminal(t, env, 120, 30, "top", "--url", "http://"+s.addr, "--interval", "500ms")
	screen.shows("clients, rooms and workers", says("UNSENT", "       0 B", "bob           "+slow+"  large, lobby", "ann", "cid", "lobby", "WORKER  CONNECTIONS"))
	firstIsSlow := func(frame string) bool {
		_, clients, _ := strings.Cut(frame, "UNSENT")
		_, clients, _ = strings.Cut(clients, "\n")
		first, _, _ := strings.Cut(clients, "\n")
		return strings.Contains(first, slow) && strings.Contains(first, "      2  bob") && strings.Contains(first, "iB")
	}
	message := `{"room":"large","content":"` + strings.Repeat("x", 60_000) + `"}`
	for end := time.Now().Add(patience); scrape(t, s)["hubbub_buffered_bytes"] < 4<<20; { // of which the room's history is one
		if time.Now().After(end) {
			t.Fatal("nothing is held for who reads no more")
		}
		if status := s.call(t, doctorsKey, "POST", "/publish", message); status != http.StatusOK {
			t.Fatalf("a publish is answered %d", status)
		}
	}
	screen.shows("who is slow first", firstIsSlow)
	screen.press("c")
	screen.shows("clients alone", func(f string) bool { return firstIsSlow(f) && !strings.Contains(f, "MEMBERS") })
	screen.resize(120, 14)
	screen.press("c")
	screen.shows("rooms alone, where not both have a place", func(f string) bool { return says("MEMBERS", "lobby")(f) && !strings.Contains(f, "UNSENT") })
	screen.press("c")
	screen.shows("clients on a small terminal", firstIsSlow)
}

// Without a terminal it is one table, with rates, and no control characters.
func TestTopOnce(t *testing.T) {
	t.Parallel()
	env := []string{"HUBBUB_API_KEY=" + doctorsKey}
	s := &server{addr: freeAddr(t), exited: make(chan struct{})}
	s.cmd = exec.Command(program, "serve", "--listen", s.addr)
	s.cmd.Env = append(os.Environ(), env...)
	s.run(t)
	out, status := hubbub(t, env, "top", "--once", "--url", "http://"+s.addr, "--interval", "500ms")
	if status != 0 || !says("there are no rooms", "in 0 msg/s", "WORKER", "cpu ")(out) || strings.ContainsAny(out, "\x1b\r") || strings.Contains(out, "cpu -") {
		t.Errorf("exit status %d\n%s", status, out)
	}
	if out, status := hubbub(t, nil, "top", "--url", "http://"+s.addr); status != 1 || !strings.Contains(out, "HUBBUB_API_KEY") {
		t.Errorf("without a key: exit status %d\n%s", status, out)
	}
	if out, status := hubbub(t, env, "top", "--interval", "1ms"); status != 2 || !strings.Contains(out, "--interval") {
		t.Errorf("exit status %d\n%s", status, out)
	}
}

// On terminals of 80 and of 140 columns all figures are there, and who is slow can be read off whole, to be sent away.
func TestTopByWidth(t *testing.T) {
	t.Parallel()
	env := []string{"HUBBUB_API_KEY=" + doctorsKey}
	s := &server{addr: freeAddr(t), exited: make(chan struct{})}
	s.cmd = exec.Command(program, "serve", "--listen", s.addr, "--node-name", "a-node-of-a-longer-name", "--max-connections", "100000")
	s.cmd.Env = append(os.Environ(), env...)
	s.run(t)
	c := dialRaw(t, s, "/ws", "")
	id := c.welcomed()
	for _, room := range []string{"lobby", "a-room-of-a-longer-name", "another"} {
		c.asks(fmt.Sprintf(`{"msg_type":"join_room","room":%q,"id":1}`, room), "joined")
	}
	whole := func(frame string) bool { // of the figures, nothing is cut
		head, _, _ := strings.Cut(frame, "WORKER")
		return says("hubbub top", "ready", "rooms 3", "cpu", "panics 0")(head) && !strings.Contains(head, "…")
	}
	for columns, is := range map[uint16]func(string) bool{
		80: func(f string) bool { return says(id+"  ")(f) && !says(" AGE ")(f) },
		140: func(f string) bool {
			return says("AGE  ROOMS  USER                    CLIENT")(f) && (says(id+"  lobby, ")(f) || says(id+"  a")(f)) && says("a-room-of-a-longer-name", "another")(f)
		},
	} {
		screen, _ := onTerminal(t, env, columns, 40, "top", "--url", "http://"+s.addr, "--interval", "500ms")
		screen.shows(fmt.Sprintf("a table for %d columns", columns), func(f string) bool { return whole(f) && is(f) })
		screen.press("q")
	}
}
