// Package console is the pages of the server: the one at "/" on which a newcomer tries Hubbub, and the console at
// "/console" for who runs it.
//
// The folders page and console have them as they are served: index.html at the page's path, and what that loads, a style
// and modules, below it. The page loads nothing else but "/hubbub.js" beside it, the JavaScript client, and opens a
// WebSocket to "/ws" beside it; the console calls the API at "/api/v1" beside it, with a key that is typed in. Their
// content security policies say so. All addresses are relative, so that they work below any path.
package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed page console
var files embed.FS

// Below is the path below which all lies that the page loads; Path is that of the console, which has its own below it.
const (
	Below = "/page/"
	Path  = "/console"
)

// file is one that is served.
type file struct {
	content []byte
	kind    string // Content-Type
	etag    string
}

// kinds are by the ends of names; of what has another nothing is served.
var kinds = map[string]string{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}

// Handler serves the page at "/" and its files below Below to GET and HEAD. Any other path is 404, any other method
// 405.
func Handler() http.Handler { return serve(readFiles("page", "/"), true) }

// ForOperators serves the console at Path and its files below it, in the same way.
func ForOperators() http.Handler { return serve(readFiles("console", Path), false) }

// Has says of a path whether it is the console's.
func Has(path string) bool { return path == Path || strings.HasPrefix(path, Path+"/") }

func serve(served map[string]file, webSockets bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		f, known := served[r.URL.Path]
		switch {
		case !known:
			problem(w, http.StatusNotFound, "there is nothing at this path")
			return
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			problem(w, http.StatusMethodNotAllowed, "this page is read with GET or HEAD")
			return
		}
		h.Set("Content-Type", f.kind)
		h.Set("Cache-Control", "no-cache") // kept, but checked by its ETag each time
		h.Set("ETag", f.etag)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		connect := "'self'"
		if webSockets {
			connect += webSocketsOf(r.Host)
		}
		h.Set("Content-Security-Policy", policy(connect))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
	})
}

// readFiles has what is embedded in a folder by its path; that of the page itself is index.
func readFiles(folder, index string) map[string]file {
	served := map[string]file{}
	entries, err := files.ReadDir(folder)
	if err != nil {
		panic(err) // it is a part of the program
	}
	for _, e := range entries {
		content, err := files.ReadFile(folder + "/" + e.Name())
		kind := kinds[path.Ext(e.Name())]
		if err != nil || kind == "" {
			panic(fmt.Sprintf("console: %s/%s: of no kind that is served: %v", folder, e.Name(), err))
		}
		sum := sha256.Sum256(content)
		at := "/" + folder + "/" + e.Name()
		if e.Name() == "index.html" {
			at = index
		}
		served[at] = file{content, kind, `"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"`}
	}
	return served
}

// webSocketsOf is for connect-src: CSP 3 lets 'self' cover ws: and wss: of the same host; Safari before 15.4 does not,
// and needs the host by name.
func webSocketsOf(host string) string {
	if !plainHost(host) {
		return ""
	}
	return " ws://" + host + " wss://" + host
}

// policy allows a page what its own origin serves, and connections: nothing inline, and no text that becomes HTML or a
// script.
func policy(connect string) string {
	return strings.Join([]string{
		"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src " + connect, "img-src data:",
		"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'",
	}, "; ")
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

// problem answers with an RFC 9457 body.
func problem(w http.ResponseWriter, status int, detail string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Connection", "close")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, fmt.Sprintf(`{"type":"about:blank","title":%q,"status":%d,"detail":%q}`+"\n", http.StatusText(status), status, detail))
}
