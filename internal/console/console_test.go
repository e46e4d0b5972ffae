package console

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func get(t *testing.T, method, target string, change func(*http.Request)) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, res *http.Response) []byte {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPageIsServed(t *testing.T) {
	res := get(t, "GET", "http://localhost:8080/", nil)
	if res.StatusCode != 200 {
		t.Fatalf("status %d", res.StatusCode)
	}
	if !bytes.Equal(body(t, res), page) {
		t.Error("the body is not the embedded page")
	}
	for name, want := range map[string]string{
		"Content-Type":           "text/html; charset=utf-8",
		"Cache-Control":          "no-cache",
		"X-Content-Type-Options": "nosniff",
		"Referrer-Policy":        "no-referrer",
	} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestHeadHasTheHeadersAndNoBody(t *testing.T) {
	res := get(t, "HEAD", "http://localhost:8080/", nil)
	if res.StatusCode != 200 || len(body(t, res)) != 0 {
		t.Errorf("status %d, want 200 without a body", res.StatusCode)
	}
	if res.Header.Get("ETag") == "" || res.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("headers are missing: %v", res.Header)
	}
}

func TestKnownETagIs304(t *testing.T) {
	etag := get(t, "GET", "http://localhost/", nil).Header.Get("ETag")
	if !regexp.MustCompile(`^"[A-Za-z0-9_-]{20,}"$`).MatchString(etag) {
		t.Fatalf("ETag %q", etag)
	}
	res := get(t, "GET", "http://localhost/", func(r *http.Request) { r.Header.Set("If-None-Match", etag) })
	if res.StatusCode != 304 {
		t.Errorf("status %d, want 304", res.StatusCode)
	}
}

func TestPolicyAllowsOnlyThePageItself(t *testing.T) {
	csp := get(t, "GET", "http://chat.example:8443/", nil).Header.Get("Content-Security-Policy")
	for _, part := range []string{
		"default-src 'none'",
		"frame-ancestors 'none'",
		"base-uri 'none'",
		"form-action 'none'",
		"connect-src 'self' ws://chat.example:8443 wss://chat.example:8443;",
	} {
		if !strings.Contains(csp, part) {
			t.Errorf("the policy lacks %q: %s", part, csp)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
		t.Errorf("the policy is too wide: %s", csp)
	}
	if n := strings.Count(csp, "'sha256-"); n != 2 {
		t.Errorf("%d hashes, want one for the script and one for the style: %s", n, csp)
	}
}

func TestForgedHostStaysOutOfThePolicy(t *testing.T) {
	for _, host := range []string{"evil; script-src *", "a b", "x'", "", "a,b", "a/b", "a\"b", "ä.example"} {
		csp := get(t, "GET", "/", func(r *http.Request) { r.Host = host }).Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "connect-src 'self';") {
			t.Errorf("host %q: %s", host, csp)
		}
	}
	csp := get(t, "GET", "/", func(r *http.Request) { r.Host = "[::1]:8080" }).Header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "ws://[::1]:8080 ") {
		t.Errorf("an IPv6 host is left out: %s", csp)
	}
}

func TestOtherMethodsAndPaths(t *testing.T) {
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		res := get(t, method, "/", nil)
		if res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow %q", method, res.StatusCode, res.Header.Get("Allow"))
		}
		checkProblem(t, res, 405)
	}
	for _, path := range []string{"/index.html", "/x", "/x/", "//"} {
		res := get(t, "GET", "http://localhost"+path, nil)
		if res.StatusCode != 404 {
			t.Errorf("%s: %d, want 404", path, res.StatusCode)
		}
		checkProblem(t, res, 404)
	}
}

func checkProblem(t *testing.T, res *http.Response, status int) {
	t.Helper()
	var p struct {
		Title, Detail string
		Status        int
	}
	if err := json.Unmarshal(body(t, res), &p); err != nil || p.Status != status || p.Title == "" || p.Detail == "" {
		t.Errorf("problem body: %+v, %v", p, err)
	}
	if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("Content-Type %q", ct)
	}
}

// The hashes cover one <style> and one <script>; anything else that the policy would block must not creep into the
// page, nor anything that makes HTML of a stranger's text.
func TestPageKeepsItsOwnRules(t *testing.T) {
	html := string(page)
	for _, tag := range []string{"<style>", "<script>"} {
		if n := strings.Count(html, tag); n != 1 {
			t.Errorf("%d %s elements, want 1", n, tag)
		}
	}
	forbidden := map[string]string{
		"inline style":      `\sstyle=`,
		"inline handler":    `<[^>]*\son[a-z]+=`,
		"external resource": `(src|href)="?(https?:)?//`,
		"HTML from text":    `innerHTML|outerHTML|insertAdjacentHTML|document\.write`,
		"code from text":    `\beval\(|new Function|javascript:`,
	}
	for name, re := range forbidden {
		if m := regexp.MustCompile(re).FindString(html); m != "" {
			t.Errorf("%s: %q", name, m)
		}
	}
}
