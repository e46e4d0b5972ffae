package api

import (
	_ "embed"
	"net/http"
)

//go:embed openapi.yaml
var openAPI []byte

// describe needs no key: what it says is the same everywhere.
func (a *API) describe(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/yaml")
	w.Write(openAPI)
}
