package hubbub_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// The page is at the bare address and what it loads is beside it, so that it works below any path.
func TestThePageAndWhatItLoads(t *testing.T) {
	for _, base := range []string{"", "/live"} {
		s := rawtest.Start(t, hubbub.Config{BasePath: base})
		r, page := knock(t, s, "GET", base+"/", noUpgrade)
		if r.StatusCode != http.StatusOK || r.Header.Get("ETag") == "" || !strings.Contains(r.Header.Get("Content-Security-Policy"), "script-src 'self';") {
			t.Fatalf("%s/: %s %v", base, r.Status, r.Header)
		}
		loads := regexp.MustCompile(`(?:src|href)="([^"]+\.(?:js|css))"`).FindAllStringSubmatch(page, -1)
		if len(loads) < 3 {
			t.Errorf("it loads %v", loads)
		}
		for _, file := range loads {
			if r, body := knock(t, s, "GET", base+"/"+file[1], noUpgrade); r.StatusCode != http.StatusOK || body == "" {
				t.Errorf("%s/%s: %s", base, file[1], r.Status)
			}
		}
		for _, path := range []string{"/page/", "/page", "/page/index.html", "/page/nothing.js", "/page/../page/page.js", "/page/page.js/"} {
			if r, _ := knock(t, s, "GET", base+path, noUpgrade); r.StatusCode != http.StatusNotFound {
				t.Errorf("%s%s: %s", base, path, r.Status)
			}
		}
		if r, _ := knock(t, s, "POST", base+"/page/page.js", noUpgrade); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("POST: %s, Allow %q", r.Status, r.Header.Get("Allow"))
		}
	}
}

// Without the page its address says what is here instead, and takes upgrades as ever.
func TestAServerWithoutAPage(t *testing.T) {
	for _, base := range []string{"", "/live"} {
		s := rawtest.Start(t, hubbub.Config{BasePath: base, Page: "off"})
		for _, method := range []string{"GET", "HEAD", "POST"} {
			r, body := knock(t, s, method, base+"/", noUpgrade)
			if r.StatusCode != http.StatusNotFound || r.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s %s/: %s %v", method, base, r.Status, r.Header)
			}
			for _, what := range []string{"no page", base + "/ws,", base + "/hubbub.js,"} {
				if method == "GET" && !strings.Contains(body, what) {
					t.Errorf("the answer doesn't say %q: %s", what, body)
				}
			}
		}
		for path, status := range map[string]int{"/page/page.js": 404, "/hubbub.js": 200} {
			if r, _ := knock(t, s, "GET", base+path, noUpgrade); r.StatusCode != status {
				t.Errorf("%s%s: %s, want %d", base, path, r.Status, status)
			}
		}
		if r, _ := knock(t, s, "GET", base+"/", nil); r.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("an upgrade at %s/: %s", base, r.Status)
		}
	}
	if err := (hubbub.Config{Page: "perhaps"}).Validate(); err == nil || !strings.Contains(err.Error(), `page "perhaps": unknown; use "on" or "off"`) {
		t.Errorf("page perhaps: %v", err)
	}
}
