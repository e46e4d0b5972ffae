package hubbubtest

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
)

var procStart = time.Now()

func TestProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(procStart))
		var logs strings.Builder
		srv, err := hubbub.New(hubbub.Config{IO: "pump", Logger: slog.New(slog.NewTextHandler(&logs, nil))})
		if err != nil {
			t.Fatal(err)
		}
		n := newNetwork()
		served := make(chan error, 1)
		go func() { served <- srv.Serve(n) }()
		l, err := n.dial(context.Background(), &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 1}, 1<<16)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(l.client, "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
		r := bufio.NewReader(l.client)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(res.Status)
		began := time.Now()
		for {
			b := make([]byte, 1000)
			k, err := r.Read(b)
			t.Logf("%v %q %v", time.Since(began), b[:k], err)
			if err != nil {
				break
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		t.Log(srv.Shutdown(ctx), <-served)
		t.Log(logs.String())
	})
}
