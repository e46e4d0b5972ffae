package hubbub_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// stuckLog stops whoever logs a failed connection, which is a worker, until it is let go.
type stuckLog struct {
	slog.Handler
	stuck, letGo chan struct{}
}

func (l *stuckLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *stuckLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "connection failed" {
		close(l.stuck)
		<-l.letGo
	}
	return l.Handler.Handle(ctx, r)
}

// While a worker is busy with those who are in, a few upgrades wait for it and the others are told to come back.
func TestUpgradesBeyondWhatAWorkerTakesAreToldToComeBack(t *testing.T) {
	log := &stuckLog{slog.DiscardHandler, make(chan struct{}), make(chan struct{})}
	s := rawtest.Start(t, hubbub.Config{Workers: 1, Logger: slog.New(log)})
	in := rawtest.Dial(t, s, "/echo")
	in.SendRaw([]byte{0xff, 0x00}) // no frame
	<-log.stuck
	const turns, more = 4, 20
	answers := make(chan *http.Response, turns+more)
	for range turns + more {
		nc, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(rawtest.Patience))
		io.WriteString(nc, wsclient.Upgrade("a.example", "/echo"))
		go func() {
			r, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				t.Error(err)
			}
			answers <- r
		}()
	}
	for range more {
		r := <-answers
		body, _ := io.ReadAll(r.Body)
		if r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" || !strings.Contains(string(body), "more connect at once") {
			t.Errorf("%s %v %s", r.Status, r.Header, body)
		}
	}
	close(log.letGo)
	for range turns {
		if r := <-answers; r.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("who had a turn: %s", r.Status)
		}
	}
	if got := scrape(t, s)[`hubbub_upgrades_total{result="storm"}`]; got != more {
		t.Errorf("storm is %v", got)
	}
}

// Who hangs up while the application is asked, and then finds no turn, is no storm that an operator should know of.
func TestWhoHasGoneBeforeItsTurnIsNotWarnedOf(t *testing.T) {
	told := &rawtest.Log{}
	log := &stuckLog{slog.NewTextHandler(told, &slog.HandlerOptions{Level: slog.LevelDebug}), make(chan struct{}), make(chan struct{})}
	entered, gone := make(chan struct{}), make(chan struct{})
	s := rawtest.Start(t, hubbub.Config{Workers: 1, Logger: slog.New(log), HookTimeout: time.Hour, Hooks: hubbub.Hooks{Connect: func(ctx context.Context, c *hubbub.Connect) error {
		if c.Request.URL.Query().Has("slow") {
			close(entered)
			<-ctx.Done()
			close(gone)
			return ctx.Err()
		}
		return nil
	}}})
	in := rawtest.Dial(t, s, "/echo")
	asked := rawtest.Connect(t, s)
	asked.SendRaw([]byte(rawtest.Upgrade(s, "/ws?slow")))
	<-entered
	in.SendRaw([]byte{0xff, 0x00}) // no frame
	<-log.stuck
	defer close(log.letGo)
	for range 4 { // as many as have turns
		rawtest.Connect(t, s).SendRaw([]byte(rawtest.Upgrade(s, "/echo")))
	}
	rawtest.Eventually(t, "all turns are taken", func() bool { return s.Connections() == 6 })
	asked.CloseNow()
	<-gone
	rawtest.Eventually(t, "it is refused", func() bool { return strings.Contains(told.String(), "more connect at once") })
	if strings.Contains(told.String(), "level=WARN") {
		t.Errorf("the log: %s", told)
	}
}
