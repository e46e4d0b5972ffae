package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const (
	allTilesShown = `document.querySelectorAll("#tiles li[data-version]").length === 500`
	// A tile's version as the page shows it never falls: set up once, then read.
	watchTiles = `(() => {
		window.fell = 0;
		const shown = new Map();
		new MutationObserver((all) => {
			for (const { target } of all) {
				const version = +target.dataset.version;
				if (version < shown.get(target)) window.fell++;
				shown.set(target, version);
			}
		}).observe(document.querySelector("#tiles"), { subtree: true, attributeFilter: ["data-version"] });
		return true;
	})()`
	sumOfVersions = `[...document.querySelectorAll("#tiles li")].reduce((sum, li) => sum + +li.dataset.version, 0)`
)

func TestExampleDashboard(t *testing.T) {
	t.Parallel()
	s := startExample(t, "dashboard")
	line := startProxy(t, s, nil)
	defer line.away.Store(true) // pages outlive a server that was started last
	b := startBrowser(t)

	// A new viewer sees all tiles, and they change.
	strictPage(t, s)
	p := b.open(line.front.http("/"), "WebSocket connection to", "Failed to load resource")
	p.until(allTilesShown)
	p.shows("#state", "online")
	eval[bool](p, watchTiles)
	changes := func(p *page) {
		t.Helper()
		p.until(fmt.Sprintf("%s > %f", sumOfVersions, eval[float64](p, sumOfVersions)))
	}
	changes(p)
	p.until(`+document.querySelector("#rate").textContent > 0`)
	p.picture("examples/dashboard/screenshot.png")

	// Over a cut line, and over a restart, it shows what is now: each tile newer than before.
	oldest := `Math.min(...[...document.querySelectorAll("#tiles li")].map((li) => +li.dataset.version))`
	newest := `Math.max(...[...document.querySelectorAll("#tiles li")].map((li) => +li.dataset.version))`
	line.drop()
	changes(p)
	before := eval[float64](p, newest)
	line.away.Store(true)
	if status := s.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	p.shows("#state", "waiting")
	startExampleAt(t, s.addr, "dashboard")
	line.away.Store(false)
	p.shows("#state", "online")
	p.until(fmt.Sprintf("%s > %f", oldest, before))

	// Through a slow line, switched by the keyboard, tiles are overtaken and never go back.
	p.do(chromedp.Focus(chromedp.CSS("#slow")), chromedp.KeyEvent(" "))
	p.shows("#state", "online")
	p.until(`+document.querySelector("#skipped").textContent > 0`)
	before = eval[float64](p, newest)
	p.until(fmt.Sprintf("%s > %f", oldest, before))
	p.do(chromedp.KeyEvent(kb.Tab), chromedp.Focus(chromedp.CSS("#slow")), chromedp.KeyEvent(" "))
	p.until(`document.querySelector("#skipped").textContent === "0"`)
	before = eval[float64](p, newest)
	p.until(fmt.Sprintf("%s > %f", oldest, before))
	if fell := eval[int](p, "window.fell"); fell != 0 {
		t.Errorf("%d tiles went back", fell)
	}
	p.shows("#old", "0")

	// It fits a phone, in the dark, and where nothing shall move it moves once a second.
	p.prefers([2]string{"prefers-color-scheme", "dark"}, [2]string{"prefers-reduced-motion", "reduce"})
	p.do(chromedp.EmulateViewport(360, 640, chromedp.EmulateMobile))
	p.until(`document.documentElement.scrollWidth <= 360`)
	changes(p)
	eval[bool](p, `(() => {
		window.asked = 0;
		window.requestAnimationFrame = () => window.asked++;
		return true;
	})()`)
	changes(p)
	changes(p)
	if n := eval[int](p, "window.asked"); n != 0 {
		t.Errorf("it asks for %d frames", n)
	}
	p.picture("bin/dashboard-phone.png")
}

// strictPage looks at what a server's page may load: nothing that its own server hasn't.
func strictPage(t *testing.T, s *server) {
	t.Helper()
	res, err := http.Get(s.http("/"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	policy := res.Header.Get("Content-Security-Policy")
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		t.Errorf("%s with the policy %q", res.Status, policy)
	}
}

// What a slow viewer gets of each tile is never an old value after a new one, and what was left out it is told.
func TestExampleDashboardsSlowLine(t *testing.T) {
	t.Parallel()
	s := startExample(t, "dashboard")
	c := dialRaw(t, s, "/slow", "")
	c.welcomed()
	c.write(text(`{"msg_type":"join_room","room":"tiles","id":1}`))
	c.message("joined")
	seen, left := map[string]int64{}, 1000
	for left > 0 {
		var m struct {
			Type    string `json:"msg_type"`
			Key     string
			Reason  string
			Count   int
			Content struct{ Version int64 }
		}
		if err := json.Unmarshal([]byte(c.expect(fin|opText)), &m); err != nil {
			t.Fatal(err)
		}
		switch m.Type {
		case "gap":
			if m.Reason != "latest-by-key" || m.Count < 1 {
				t.Errorf("a gap of %d for the reason %q", m.Count, m.Reason)
			}
			left -= m.Count
		case "room_message":
			if m.Content.Version <= seen[m.Key] {
				t.Errorf("tile %s had version %d and gets %d", m.Key, seen[m.Key], m.Content.Version)
			}
			seen[m.Key] = m.Content.Version
		}
	}
}
