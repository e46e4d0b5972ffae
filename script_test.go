package hubbub_test

import (
	"net/http"
	"os"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// The JavaScript client is beside the WebSocket, for pages of every origin.
func TestTheJavaScriptClientIsServed(t *testing.T) {
	want, err := os.ReadFile("js/hubbub.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, base := range []string{"", "/live"} {
		s := rawtest.Start(t, hubbub.Config{BasePath: base})
		r, body := knock(t, s, "GET", base+"/hubbub.js", map[string]string{"Connection": "", "Upgrade": "", "Origin": "https://elsewhere.example"})
		if r.StatusCode != http.StatusOK || body != string(want) {
			t.Fatalf("%s/hubbub.js: %s, %d bytes", base, r.Status, len(body))
		}
		for name, value := range map[string]string{
			"Content-Type":                 "text/javascript; charset=utf-8",
			"Cache-Control":                "no-cache",
			"Access-Control-Allow-Origin":  "*",
			"Cross-Origin-Resource-Policy": "cross-origin",
			"X-Content-Type-Options":       "nosniff",
		} {
			if got := r.Header.Get(name); got != value {
				t.Errorf("%s: %q, want %q", name, got, value)
			}
		}
		etag := r.Header.Get("ETag")
		if r, body := knock(t, s, "GET", base+"/hubbub.js", map[string]string{"If-None-Match": etag}); r.StatusCode != http.StatusNotModified || body != "" {
			t.Errorf("with the ETag %s: %s", etag, r.Status)
		}
		if r, body := knock(t, s, "HEAD", base+"/hubbub.js", nil); r.StatusCode != http.StatusOK || body != "" {
			t.Errorf("HEAD: %s, %d bytes", r.Status, len(body))
		}
		if r, _ := knock(t, s, "POST", base+"/hubbub.js", nil); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("POST: %s, Allow %q", r.Status, r.Header.Get("Allow"))
		}
	}
}
