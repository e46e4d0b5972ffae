// Package console is the page at "/" on which a newcomer tries Hubbub.
//
// The page is one HTML file with its style and script inside. It opens a WebSocket to the path "ws" beside it, joins
// the room "lobby", and shows what comes. It loads nothing else, and its content security policy says so: the policy
// names the style and the script by their hashes, which are computed from the embedded file when the program starts.
package console

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

//go:embed index.html
var page []byte

// Handler serves the page at "/" to GET and HEAD. Any other path is 404, any other method 405.
func Handler() http.Handler {
	sum := sha256.Sum256(page)
	etag := `"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"`
	script, style := inlineHash("script"), inlineHash("style")

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		switch {
		case r.URL.Path != "/" && r.URL.Path != "":
			problem(w, http.StatusNotFound, "there is nothing at this path")
			return
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			problem(w, http.StatusMethodNotAllowed, "this page is read with GET or HEAD")
			return
		}
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-cache") // kept, but checked by its ETag each time
		h.Set("ETag", etag)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Content-Security-Policy", policy(r.Host, script, style))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(page))
	})
}

// policy allows the page its own style and script, WebSockets to its own origin, and nothing else.
func policy(host, script, style string) string {
	connect := "'self'"
	// CSP 3 lets 'self' cover ws: and wss: of the same host; Safari before 15.4 does not, and needs the host by name.
	if plainHost(host) {
		connect += " ws://" + host + " wss://" + host
	}
	return "default-src 'none'; script-src " + script + "; style-src " + style +
		"; connect-src " + connect + "; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// plainHost says whether a Host header is nothing but a host and a port. It comes from the client and goes into a
// header: a ";" or a space in it would be read as a part of the policy.
func plainHost(host string) bool {
	if host == "" {
		return false
	}
	for _, c := range []byte(host) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '-', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return true
}

// inlineHash is the policy's name for the one <tag> element of the page: the hash of exactly what stands between its
// tags.
func inlineHash(tag string) string {
	_, rest, opened := strings.Cut(string(page), "<"+tag+">")
	body, _, closed := strings.Cut(rest, "</"+tag+">")
	if !opened || !closed {
		panic("console: index.html has no <" + tag + "> element")
	}
	sum := sha256.Sum256([]byte(body))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// problem answers with an RFC 9457 body.
func problem(w http.ResponseWriter, status int, detail string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Connection", "close")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, fmt.Sprintf(`{"type":"about:blank","title":%q,"status":%d,"detail":%q}`+"\n", http.StatusText(status), status, detail))
}
