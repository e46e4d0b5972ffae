package hubbub

import (
	"net/http"

	"example.com/hubbub/internal/console"
)

// publicConsole shows the console on the public paths, where the API is on there.
func (s *Server) publicConsole(w http.ResponseWriter, r *http.Request, path string) {
	switch {
	case s.cfg().AdminApart:
		s.refuse(w, r, refusal{status: http.StatusNotFound, detail: "the console is on the admin listener (--admin-listen)"})
	case s.cfg().Page == pageOff:
		s.nothing(w, r)
	case s.api.Off():
		s.refuse(w, r, refusal{status: http.StatusForbidden, detail: "the console is off while the server has no key of the API: run hubbub key, and start hubbub serve with HUBBUB_API_KEY set to the key that it prints"})
	default:
		s.showConsole(w, r, path)
	}
}

// showConsole shows it at an address that ends in no slash: what it loads lies below that.
func (s *Server) showConsole(w http.ResponseWriter, r *http.Request, path string) {
	s.aside(w, r, s.readers, func(w http.ResponseWriter, r *http.Request) {
		if path == console.Path+"/" {
			w.Header().Set("Location", ".."+console.Path)
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
		show(s.operators, w, r, path)
	})
}
