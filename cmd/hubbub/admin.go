package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"strconv"
	"strings"
)

// adminAddress is the address of --admin-listen; one without a host is this machine's alone.
func adminAddress(listen string) string {
	if strings.HasPrefix(listen, ":") {
		return "127.0.0.1" + listen
	}
	return listen
}

// collisions are the addresses of which no two can be listened at together.
func (c *serveCmd) collisions() (errs []error) {
	type place struct{ setting, address string }
	at := []place{{"listen " + c.Listen, c.Listen}}
	if c.AdminListen != "" {
		at = append(at, place{"admin-listen " + c.AdminListen, adminAddress(c.AdminListen)})
	}
	if host, port, err := net.SplitHostPort(c.ClusterListen); err == nil {
		n, _ := strconv.Atoi(port)
		at = append(at, place{"cluster-listen " + c.ClusterListen, c.ClusterListen},
			place{"cluster-listen " + c.ClusterListen + ", by the port above it, which is for other stores", net.JoinHostPort(host, strconv.Itoa(n+1))})
	}
	for i, a := range at {
		for _, b := range at[:i] {
			if overlap(a.address, b.address) {
				errs = append(errs, fmt.Errorf("%s: --%s has this address; give one of them another port", a.setting, b.setting))
			}
		}
	}
	return errs
}

// overlap says whether two addresses can't be listened at together. A port of 0 is a free one each time.
func overlap(a, b string) bool {
	if a == b && strings.HasPrefix(a, "unix:") {
		return true
	}
	_, portA, errA := net.SplitHostPort(a)
	_, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false // no name is looked up for it
	}
	x, errA := net.ResolveTCPAddr("tcp", a)
	y, errB := net.ResolveTCPAddr("tcp", b)
	takes := func(x, y net.IP) bool {
		return len(x) == 0 || x.Equal(net.IPv6unspecified) || x.Equal(net.IPv4zero) && y.To4() != nil || x.Equal(y)
	}
	return errA == nil && errB == nil && (takes(x.IP, y.IP) || takes(y.IP, x.IP))
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
