package main

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"
)

// adminAddress is the address of --admin-listen; one without a host is this machine's alone.
func adminAddress(listen string) string {
	if strings.HasPrefix(listen, ":") {
		return "127.0.0.1" + listen
	}
	return listen
}

// admin listens for the operator and the backend, at the socket that was handed over if there is one; nil where it isn't
// set.
func (c *serveCmd) admin(log *slog.Logger, handed *os.File) (net.Listener, error) {
	if c.AdminListen == "" && handed == nil {
		return nil, nil
	}
	l, err := listenOn(handed, adminAddress(c.AdminListen), nil)
	if err != nil {
		return nil, err
	}
	if at, isTCP := l.Addr().(*net.TCPAddr); isTCP && !at.IP.IsLoopback() {
		log.Warn("the admin listener can be reached from other machines, and /metrics and /debug/pprof there ask for no key", "admin-listen", l.Addr().String())
	}
	return l, nil
}

// withPprof adds Go's profiles, which no other listener has.
func withPprof(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == "/debug/pprof/cmdline":
			http.NotFound(w, r) // the command line may have a key in it
		case path == "/debug/pprof/profile":
			pprof.Profile(w, r)
		case path == "/debug/pprof/symbol":
			pprof.Symbol(w, r)
		case path == "/debug/pprof/trace":
			pprof.Trace(w, r)
		case strings.HasPrefix(path, "/debug/pprof/"):
			pprof.Index(w, r)
		default:
			h.ServeHTTP(w, r)
		}
	})
}
