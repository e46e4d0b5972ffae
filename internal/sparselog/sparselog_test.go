package sparselog_test

import (
	"bytes"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/internal/sparselog"
)

// text writes lines without their time.
func text(to *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func TestOneLineASecondAndNoneIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log, l := text(&out), &sparselog.Log{}
		expect := func(want string) {
			t.Helper()
			synctest.Wait()
			if out.String() != want {
				t.Errorf("the log has\n%swant\n%s", out.String(), want)
			}
			out.Reset()
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
