package console

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
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

func TestPageAndItsFilesAreServed(t *testing.T) {
	for path, kind := range map[string]string{"/": "text/html", "/page/page.css": "text/css", "/page/page.js": "text/javascript"} {
		res := get(t, "GET", "http://localhost:8080"+path, nil)
		if res.StatusCode != 200 {
			t.Fatalf("%s: status %d", path, res.StatusCode)
		}
		name := strings.TrimPrefix(path, "/")
		if name == "" {
			name = "page/index.html"
		}
		if want, err := files.ReadFile(name); err != nil || !bytes.Equal(body(t, res), want) {
			t.Errorf("%s: the body is not the embedded file: %v", path, err)
		}
		for header, want := range map[string]string{
			"Content-Type":                 kind + "; charset=utf-8",
			"Cache-Control":                "no-cache",
			"X-Content-Type-Options":       "nosniff",
			"Referrer-Policy":              "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := res.Header.Get(header); got != want {
				t.Errorf("%s: %s: %q, want %q", path, header, got, want)
			}
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
	seen := map[string]string{}
	for path := range readFiles("page", "/") {
		etag := get(t, "GET", "http://localhost"+path, nil).Header.Get("ETag")
		if !regexp.MustCompile(`^"[A-Za-z0-9_-]{20,}"$`).MatchString(etag) {
			t.Fatalf("%s: ETag %q", path, etag)
		}
		if other := seen[etag]; other != "" {
			t.Errorf("%s has the ETag of %s", path, other)
		}
		seen[etag] = path
		res := get(t, "GET", "http://localhost"+path, func(r *http.Request) { r.Header.Set("If-None-Match", etag) })
		if res.StatusCode != 304 {
			t.Errorf("%s: status %d, want 304", path, res.StatusCode)
		}
	}
}

func TestPolicyAllowsOnlyThePageItself(t *testing.T) {
	csp := get(t, "GET", "http://chat.example:8443/", nil).Header.Get("Content-Security-Policy")
	for _, part := range []string{
		"default-src 'none'",
		"frame-ancestors 'none'",
		"base-uri 'none'",
		"form-action 'none'",
		"script-src 'self';",
		"style-src 'self';",
		"require-trusted-types-for 'script'",
		"connect-src 'self' ws://chat.example:8443 wss://chat.example:8443;",
	} {
		if !strings.Contains(csp, part) {
			t.Errorf("the policy lacks %q: %s", part, csp)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
		t.Errorf("the policy is too wide: %s", csp)
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
	for _, path := range []string{"/index.html", "/page/index.html", "/page/", "/page/../page/page.js", "/page/x.js", "/x", "/x/", "//"} {
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

// What the policy would block must not creep in, nor anything that makes HTML of a stranger's text.
func TestPageKeepsItsOwnRules(t *testing.T) {
	forbidden := map[string]string{
		"inline script":     `<script>`,
		"inline style":      `<style|\sstyle=|\.style\b|cssText`,
		"inline handler":    `<[^>]*\son[a-z]+=`,
		"external resource": `(src|href)="?(https?:)?//|url\(|@import`,
		"address of root":   `(src|href)="/|from "/`,
		"HTML from text":    `innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|setHTML`,
		"code from text":    `\beval\(|new Function|javascript:`,
	}
	all := readFiles("page", "/")
	maps.Copy(all, readFiles("console", Path))
	for path, f := range all {
		for name, re := range forbidden {
			if m := regexp.MustCompile(re).Find(f.content); m != nil {
				t.Errorf("%s: %s: %q", path, name, m)
			}
		}
	}
}

func TestConsoleIsServedBelowItsPath(t *testing.T) {
	for path := range readFiles("console", Path) {
		w := httptest.NewRecorder()
		ForOperators().ServeHTTP(w, httptest.NewRequest("GET", "http://chat.example"+path, nil))
		if w.Code != 200 || w.Body.Len() == 0 {
			t.Errorf("%s: %d", path, w.Code)
		}
		csp := w.Header().Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "connect-src 'self';", "frame-ancestors 'none'", "form-action 'none'", "require-trusted-types-for 'script'"} {
			if !strings.Contains(csp, part) {
				t.Errorf("%s: the policy lacks %q: %s", path, part, csp)
			}
		}
	}
	for path, want := range map[string]bool{"/console": true, "/console/": true, "/console/x.js": true, "/consoles": false, "/": false} {
		if Has(path) != want {
			t.Errorf("%s: %t", path, !want)
		}
	}
	if w := httptest.NewRecorder(); true {
		ForOperators().ServeHTTP(w, httptest.NewRequest("GET", "/page/page.js", nil))
		checkProblem(t, w.Result(), 404)
	}
}
