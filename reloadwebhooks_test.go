package hubbub_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// Webhooks that a reload takes away and another brings back: from the disk the new backend is told what waits at once,
// though the one of before takes none still; in memory not before that one has been told.
func TestWebhooksComeBackAtOnce(t *testing.T) {
	const drain = 10 * time.Second // how long the one of before may go on
	for name, dir := range map[string]string{"in memory": "", "on disk": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			asked, end := make(chan struct{}, 100), make(chan struct{})
			var told atomic.Int32
			hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				asked <- struct{}{}
				<-end
				if body, _ := io.ReadAll(r.Body); strings.Contains(string(body), `"room":"a"`) {
					told.Add(1)
				}
			}))
			release := sync.OnceFunc(func() { close(end) })
			t.Cleanup(hangs.Close)
			t.Cleanup(release)
			cfg := hubbub.Config{PingInterval: 24 * time.Hour, DataDir: dir}
			to := func(url string) hubbub.Webhooks {
				return hubbub.Webhooks{URL: url, Secrets: []string{webhookSecret}, Events: []string{"member.joined"}}
			}
			cfg.Webhooks = to(hangs.URL)
			s := rawtest.Start(t, cfg)
			cfg.Logger = s.Logger()
			<-asked
			m := enter(t, s).join("a")
			backend := startToldBackend(t)
			begun := time.Now()
			for _, w := range []hubbub.Webhooks{{}, to(backend.URL)} {
				if w.URL != "" && dir == "" {
					release()
				}
				cfg.Webhooks = w
				if _, _, err := s.Reload(cfg); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(begun); took >= drain {
				t.Errorf("it took %s", took)
			}
			if n := told.Load(); (n == 1) != (dir == "") {
				t.Errorf("the backend of before was told %d times of what waited", n)
			}
			release()
			m.join("b")
			want := []string{"member.joined b", "node.started <nil>"}
			if dir != "" {
				want = append([]string{"member.joined a"}, want...)
			}
			rawtest.Eventually(t, "the new backend is told", func() bool {
				backend.mu.Lock()
				defer backend.mu.Unlock()
				var all []string
				for _, e := range backend.events {
					all = append(all, strings.TrimSpace(fmt.Sprint(e["type"], " ", e["room"])))
				}
				slices.Sort(all)
				return slices.Equal(slices.Compact(all), want)
			})
		})
	}
}
