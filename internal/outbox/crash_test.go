package outbox

import (
	"bufio"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/webhook"
)

// What a child process of a test is told, and what it does then.
const (
	childDir  = "HUBBUB_TEST_OUTBOX_DIR"
	childURL  = "HUBBUB_TEST_OUTBOX_URL"
	childLife = "HUBBUB_TEST_OUTBOX_LIFE"
)

// writeUntilKilled tells of events as fast as the disk takes them, and says from time to time how many are written.
func writeUntilKilled() {
	secrets, _ := webhook.ParseSecrets([]string{secret})
	all, _ := Select(nil)
	o, err := Open(Config{
		Target: Target{URL: os.Getenv(childURL), Secrets: secrets, Events: all}, Node: "n1", Dir: os.Getenv(childDir), Log: slog.New(slog.DiscardHandler),
		limits: limits{firstRetry: time.Millisecond, lastRetry: 5 * time.Millisecond, diskSegment: 20 << 10},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for n := 0; ; n++ {
		o.Event(hub.Event{Kind: hub.Joined, Room: os.Getenv(childLife), Client: hub.Identity{ID: hub.NewID(), User: strconv.Itoa(n)}})
		if n%50 == 49 {
			for o.intake.waiting() > 0 {
				time.Sleep(10 * time.Microsecond)
			}
			fmt.Println(n + 1)
		}
	}
}

// A process is killed while it writes, again and again: of each life all that it has written is told, in order and
// without a hole, and before the next one's node.started.
func TestAProcessThatIsKilled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, b := t.TempDir(), newBackend(t)
	var n atomic.Int64
	b.answers(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%5 < 2 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	const lives = 15
	var written [lives]int
	for life := range lives {
		cmd := exec.Command(self, "-test.run=^$")
		cmd.Env = append(os.Environ(), childDir+"="+dir, childURL+"="+b.URL, childLife+"="+fmt.Sprint(life))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		until := 50 * (1 + rand.IntN(40))
		for lines.Scan() {
			if written[life], err = strconv.Atoi(lines.Text()); err != nil {
				t.Fatalf("the child says %q", lines.Text())
			}
			if written[life] == until {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		if written[life] == 0 {
			t.Fatal("the child wrote nothing")
		}
	}
	o := open(t, b.URL, inDir(dir))
	o.joined("end", 0)
	b.sees("the end", func() bool { return len(b.events) > 0 && b.events[len(b.events)-1].Room == "end" })
	withoutHoles(t, b.events, 1)
	if text := o.log.String(); strings.Contains(text, "can't") {
		t.Errorf("the log is %s", text)
	}
	for _, r := range b.taken {
		if r.Dropped != nil || r.Missing != nil {
			t.Errorf("a request says %.200s", r.Body)
		}
	}
	life, next := -1, 0
	for seq, i := uint64(1), 0; i < len(b.events); i++ {
		e := b.events[i]
		if e.Seq < seq {
			continue // again
		}
		seq = e.Seq + 1
		switch {
		case e.Type == "node.started":
			if life >= 0 && next < written[life] {
				t.Errorf("life %d wrote %d events, %d were told", life, written[life], next)
			}
			life, next = life+1, 0
		case e.Room == "end":
		case e.Room != fmt.Sprint(life) || e.User != strconv.Itoa(next):
			t.Fatalf("in life %d, where %d should come, there is %s of %s", life, next, e.User, e.Room)
		default:
			next++
		}
	}
	if life != lives {
		t.Errorf("%d lives were told of, want %d", life, lives)
	}
}
