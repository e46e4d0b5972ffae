package sparselog_test

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/internal/sparselog"
)

// lines is what was written since the last look.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

// text writes lines without their time.
func text(to *lines) *slog.Logger {
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func TestOneLineASecondAndNoneIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		log, l := text(&out), &sparselog.Log{}
		expect := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := out.take(); got != want {
				t.Errorf("the log has\n%swant\n%s", got, want)
			}
		}
		for i := range 100 {
			l.Log(log, slog.LevelInfo, "slow", "i", i)
		}
		expect("level=INFO msg=slow i=0\n") // at once
		time.Sleep(time.Second)
		expect("level=INFO msg=slow i=99 more_like_it=98\n")
		time.Sleep(500 * time.Millisecond)
		l.Log(log, slog.LevelWarn, "again")
		expect("")
		time.Sleep(500 * time.Millisecond)
		expect("level=WARN msg=again\n")
		time.Sleep(5 * time.Second)
		expect("")
		l.Log(log, slog.LevelDebug, "nobody wants it")
		l.Log(log, slog.LevelInfo, "at once again")
		expect("level=INFO msg=\"at once again\"\n")
		time.Sleep(2 * time.Second)
	})
}
