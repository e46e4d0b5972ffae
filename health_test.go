package hubbub_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// /readyz says 200 exactly while an upgrade would be let in, and else why not.
func TestReadyWhileAnUpgradeWouldBeLetIn(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{MaxConnections: 2})
	ready := func(status int, detail string) {
		t.Helper()
		for _, method := range []string{"GET", "HEAD"} {
			r, body := knock(t, s, method, "/readyz", noUpgrade)
			if r.StatusCode != status || method == "GET" && !strings.Contains(body, detail) {
				t.Errorf("%s /readyz: %s %s, want %d, %s", method, r.Status, body, status, detail)
			}
			if r.Header.Get("Access-Control-Allow-Origin") != "*" || r.Header.Get("Access-Control-Expose-Headers") != "Retry-After" {
				t.Errorf("a page elsewhere can't read all of it: %v", r.Header)
			}
			if status == http.StatusOK {
				continue
			}
			if after, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || after < 1 {
				t.Errorf("Retry-After: %q", r.Header.Get("Retry-After"))
			}
		}
		change := map[string]string(nil)
		want := http.StatusSwitchingProtocols
		if status != http.StatusOK {
			want = status
		}
		if r, body := knock(t, s, "GET", "/echo", change); r.StatusCode != want {
			t.Errorf("an upgrade gets %s %s, want %d", r.Status, body, want)
		}
	}
	// Each upgrade above stays open until the test ends.
	ready(200, "ready")
	ready(200, "ready")
	ready(503, "too many connections")
	if log := s.Log.String(); strings.Count(log, "path=/readyz") != strings.Count(log, "level=DEBUG msg=\"request refused\"") {
		t.Errorf("a probe is no upgrade that is refused:\n%s", log)
	}
}

func TestNotReadyWhileItStillAccepts(t *testing.T) {
	server, err := hubbub.New(hubbub.Config{ShutdownDelay: time.Hour, Logger: quietLogger()})
	if err != nil {
		t.Fatal(err)
	}
	s := mount(t, &rawtest.Server{Server: server}, server)
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { defer close(stopped); server.Shutdown(ctx) }()
	rawtest.Eventually(t, "it is not ready", func() bool {
		r, body := knock(t, s, "GET", "/readyz", noUpgrade)
		return r.StatusCode == 503 && strings.Contains(body, "stopping")
	})
	rawtest.Dial(t, s, "/echo").CloseNow()
	stop()
	<-stopped
}

// held is a writer that doesn't get on.
type held struct {
	http.ResponseWriter
	begun chan struct{}
	let   chan struct{}
}

func (h held) Write(b []byte) (int, error) {
	select {
	case h.begun <- struct{}{}:
		<-h.let
	case <-h.let:
	}
	return h.ResponseWriter.Write(b)
}

// Anyone may scrape, so only some may at once; the next is told when to come back, like everyone who is refused.
func TestTooManyScrapesAtOnce(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{})
	h := held{begun: make(chan struct{}), let: make(chan struct{})}
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			s.ServeHTTP(held{httptest.NewRecorder(), h.begun, h.let}, httptest.NewRequest("GET", "/metrics", nil))
		})
		<-h.begun
	}
	r, body := knock(t, s, "GET", "/metrics", noUpgrade)
	if r.StatusCode != 503 || r.Header.Get("Retry-After") == "" || !r.Close || r.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("one more gets %s %v %s", r.Status, r.Header, body)
	}
	close(h.let)
	all.Wait()
	if r, body := knock(t, s, "GET", "/metrics", noUpgrade); r.StatusCode != 200 {
		t.Errorf("then: %s %s", r.Status, body)
	}
}
