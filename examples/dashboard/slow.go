package main

import (
	"bufio"
	"net"
	"net/http"
	"time"
)

// slowRate is how many bytes a second a slow line carries: a third of what the tiles need.
const slowRate = 9000

// slowLine serves h over lines that are as slow as a bad phone's, to see what becomes of such a viewer.
func slowLine(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(slowWriter{w}, r) })
}

type slowWriter struct{ http.ResponseWriter }

func (w slowWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	return slowConn{c}, rw, err
}

type slowConn struct{ net.Conn }

// Write takes the time that a slow line takes; a deadline or Close ends it at the next piece.
func (c slowConn) Write(b []byte) (n int, err error) {
	for len(b) > n && err == nil {
		var piece int
		piece, err = c.Conn.Write(b[n:min(len(b), n+slowRate/20)])
		n += piece
		time.Sleep(time.Second / 20)
	}
	return n, err
}
