package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gohub "example.com/hubbub/client"
)

// With a data directory a server may be killed at any moment: what it has acknowledged comes to every member, once and
// in order, and nobody is told that something was lost.
func TestKilledWithADataDirectory(t *testing.T) {
	t.Parallel()
	dir, addr := t.TempDir(), freeAddr(t)
	s := startAt(t, addr, "--data-dir", dir)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	dial := func(name string) *gohub.Hub {
		hub, err := gohub.Dial(ctx, s.ws("/ws"), gohub.Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(func() { hub.Close() })
		return hub
	}

	member := dial("member").Room("r")
	if err := member.Join(ctx); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got []string
	at := map[string]uint64{} // of what came
	go func() {
		last := gohub.Position{}
		for e := range member.Events(ctx) {
			mu.Lock()
			switch e := e.(type) {
			case gohub.Message:
				if e.Position.Epoch != last.Epoch && last.Epoch != "" || e.Position.Offset <= last.Offset {
					t.Errorf("%s at %v comes behind %v", e.Content, e.Position, last)
				}
				last = e.Position
				if _, twice := at[string(e.Content)]; twice {
					t.Errorf("%s comes twice", e.Content)
				}
				at[string(e.Content)] = e.Position.Offset
				got = append(got, string(e.Content))
			default:
				t.Errorf("the member is told %T %+v", e, e)
			}
			mu.Unlock()
		}
	}()

	var stop atomic.Bool
	acked := map[string]uint64{}
	var publishers sync.WaitGroup
	for p := range 3 {
		room := dial("publisher").Room("r")
		publishers.Go(func() {
			for i := 0; !stop.Load(); i++ {
				text := fmt.Sprintf(`"%d.%d"`, p, i)
				position, err := room.Publish(ctx, fmt.Sprintf("%d.%d", p, i), gohub.PublishOptions{})
				if err == nil {
					mu.Lock()
					acked[text] = position.Offset
					mu.Unlock()
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acked)
	}
	for range 4 {
		for n, deadline := count(), time.Now().Add(patience); count() < n+20; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nothing is acknowledged any more")
			}
		}
		s.stop(t, syscall.SIGKILL)
		s = startAt(t, addr, "--data-dir", dir)
	}
	stop.Store(true)
	publishers.Wait()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		missing := ""
		mu.Lock()
		for text, offset := range acked {
			if at[text] != offset {
				missing = fmt.Sprintf("%s was acknowledged at %d and came at %d, of %d and %d", text, offset, at[text], len(acked), len(got))
			}
		}
		mu.Unlock()
		if missing == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(missing)
		}
	}
}

// A disk that is full is told to publishers, for the time that it is full: nobody is closed, what was acknowledged stays,
// and when there is room again all goes on without a restart.
func TestADataDirectoryOnAFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	s := start(t, "--data-dir", filepath.Join(disk, "data"))
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	hub, err := gohub.Dial(ctx, s.ws("/ws"), gohub.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hub.Close() })
	room := hub.Room("r")
	if err := room.Join(ctx); err != nil {
		t.Fatal(err)
	}
	first, err := room.Publish(ctx, "first", gohub.PublishOptions{})
	if err != nil {
		t.Fatal(err)
	}
	id := hub.ClientID()
	filler := fill(t, disk)
	big := strings.Repeat("x", 40_000)
	var refused *gohub.Error
	if _, err := room.Publish(ctx, big, gohub.PublishOptions{}); !errors.As(err, &refused) || refused.Code != "unavailable" && refused.Code != "timeout" {
		t.Errorf("with a full disk a publish is told %v", err)
	}
	if err := hub.Chat(ctx, "a chat needs no disk"); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	var last gohub.Position
	for {
		if last, err = room.Publish(ctx, "there is room again", gohub.PublishOptions{}); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("with room on the disk: %v", err)
		}
	}
	if last.Epoch != first.Epoch || last.Offset <= first.Offset {
		t.Errorf("it goes on at %v, it was at %v", last, first)
	}
	page, err := room.History(ctx, gohub.HistoryOptions{})
	if err != nil || len(page.Messages) < 2 || string(page.Messages[0].Content) != `"first"` {
		t.Errorf("the history is %+v, %v", page, err)
	}
	if hub.ClientID() != id {
		t.Error("the client has lost its session")
	}
}

// Where the disk is full before there is any log to write to, the server says so as well: its first room can't begin.
func TestADataDirectoryOnADiskThatIsFullFromTheStart(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	s := start(t, "--data-dir", filepath.Join(disk, "data"))
	failed := scrape(t, s)["hubbub_log_publishes_failed_total"]
	filler := fill(t, disk)
	c := dialRaw(t, s, "/ws", "")
	c.welcomed()
	ask := func(message string) string {
		c.write(text(message))
		return c.expect(fin | opText)
	}
	const publish = `{"msg_type":"room_message","room":"r","content":1,"id":1}`
	for _, message := range []string{publish, `{"msg_type":"join_room","room":"r","id":1}`} {
		if answer := ask(message); !strings.Contains(answer, `"code":"unavailable"`) {
			t.Errorf("with a full disk %s is told %s", message, answer)
		}
	}
	s.says(t, "the log of rooms takes nothing")
	s.says(t, "no space left on device")
	if now := scrape(t, s)["hubbub_log_publishes_failed_total"]; now <= failed {
		t.Errorf("hubbub_log_publishes_failed_total is %v, it was %v", now, failed)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); !strings.Contains(ask(publish), `"msg_type":"ack"`); {
		if time.Now().After(end) {
			t.Fatal("with room on the disk nothing is taken")
		}
	}
}

// smallDisk is a folder with 8 MB of room.
func smallDisk(t *testing.T) string {
	t.Helper()
	disk := t.TempDir()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Fatal("a small tmpfs needs Linux and root")
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=8m", "hubbub-test", disk).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", disk).Run() })
	return disk
}

// fill takes all its room, until the file is removed.
func fill(t *testing.T, disk string) (filler string) {
	t.Helper()
	filler = filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 16<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk isn't full: %v", err)
	}
	return filler
}

// Where few files may be open the default of --max-connections leaves the logs what they need: a server that is full of clients,
// and has some connections of HTTP beside them, opens the log of each room.
func TestAFullServerOpensItsLogs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "hubbub.yaml")
	write(t, config, "rooms:\n  - {match: a.*, history: {messages: 10}}\n  - {match: b.*, history: {messages: 20}}\n  - {match: c.*, history: {messages: 30}}\n")
	s := under(t, `ulimit -n 300; exec "$@"`, "--config", config, "--data-dir", filepath.Join(dir, "data"), "--ping-interval", "1h", "--pong-timeout", "1h")
	for range 30 {
		c := connect(t, s)
		c.write("GET /healthz HTTP/1.1\r\nHost: " + s.addr + "\r\n\r\n")
		if res := c.response("GET"); res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
	}
	client := dialRaw(t, s, "/ws", "")
	client.welcomed()
	others := 0
	for ; ; others++ {
		c := connect(t, s)
		c.write(upgrade(s, "/ws"))
		if res := c.response("GET"); res.StatusCode == 503 {
			break
		} else if res.StatusCode != 101 {
			t.Fatal(res.Status)
		}
	}
	t.Logf("%d are in", others)
	if others < 100 {
		t.Errorf("%d others are let in", others)
	}
	for i := range 64 { // each kind has eight logs
		for _, kind := range []string{"a", "b", "c", "d"} {
			client.write(text(fmt.Sprintf(`{"msg_type":"room_message","room":"%s.%d","content":1,"id":1}`, kind, i)))
			client.message("ack")
		}
	}
}

// A server that has been told to take more clients than the limit of open files leaves room for, beside the logs, says so.
func TestTooFewFilesForTheLogs(t *testing.T) {
	t.Parallel()
	s := under(t, `ulimit -n 300; exec "$@"`, "--data-dir", t.TempDir(), "--max-connections", "240")
	s.says(t, "the limit of open files leaves too few for the logs of rooms")
}
