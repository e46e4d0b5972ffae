// Package js is the JavaScript client as the server gives it to pages: hubbub.js beside the WebSocket, so that what a
// page loads is of the same version. hubbub.js itself, its types, tests and npm package are in this folder too.
package js

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"time"
)

//go:embed hubbub.js
var module []byte

// Handler answers GET and HEAD with the module, whatever their path, and pages of every origin may load it. Other
// methods are for the caller to refuse.
func Handler() http.Handler {
	sum := sha256.Sum256(module)
	etag := `"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/javascript; charset=utf-8")
		h.Set("Cache-Control", "no-cache") // kept, but checked by its ETag each time: it goes with the server's version
		h.Set("ETag", etag)
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(module))
	})
}
