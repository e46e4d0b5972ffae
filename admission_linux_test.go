package hubbub_test

import (
	"bufio"
	"net"
	"net/http"
	"syscall"
	"testing"
)

// starved is a ResponseWriter behind which the process may open no file more.
type starved struct {
	http.ResponseWriter
	t *testing.T
}

func (w starved) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := w.ResponseWriter.(http.Hijacker).Hijack()
	var limit syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	limit.Cur = 1
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		w.t.Error(err)
	}
	return nc, rw, err
}

// withoutDescriptors has a request's connection taken over when there is no descriptor left.
func withoutDescriptors(t *testing.T, w http.ResponseWriter, r *http.Request, h http.Handler) {
	var before syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before)
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
	h.ServeHTTP(starved{w, t}, r)
}
