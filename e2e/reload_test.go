package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	hubbubclient "example.com/hubbub/client"
)

// While clients talk, the proxy is reloaded and nobody is lost; then the server drains, and each is sent away by a
// Close of its own, through the proxy's old processes.
func TestReloadAndDrainBehindAProxy(t *testing.T) {
	t.Parallel()
	for _, language := range []string{"nginx", "haproxy", "apache"} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			s := start(t, "--trusted-proxies", "127.0.0.1")
			f := deploy(t, language, "TLS here, all paths", s.addr)
			var all []*rawConn
			for range 20 {
				c := f.enter(t)
				c.write(text(`{"msg_type":"join_room","room":"r","id":1}`))
				c.message("joined")
				all = append(all, c)
			}
			last := f.reloadMeanwhile(t, func(n int) {
				all[0].write(text(fmt.Sprintf(`{"msg_type":"room_message","room":"r","content":%d,"id":%d}`, n, n)))
				all[0].message("ack")
			})
			newcomer := f.enter(t)
			var readers sync.WaitGroup
			for _, c := range all[1:] {
				readers.Go(func() {
					for n := 1; n <= last; n++ {
						if m := c.message("room_message"); m.num("content") != int64(n) {
							t.Errorf("got %v, want %d", m, n)
							return
						}
					}
				})
			}
			readers.Wait()
			if !t.Failed() {
				s.drains(t, append(all, newcomer)...)
			}
		})
	}
}

// Caddy ends all WebSockets at a reload by a Close to either side, so that the server may hear each client say goodbye.
// They come back, in the session or a new one, with nothing lost and nothing twice, also of what they publish, since
// they have names. Drain works as behind the others.
func TestReloadAndDrainBehindCaddy(t *testing.T) {
	t.Parallel()
	s := start(t, "--trusted-proxies", "127.0.0.1", "--jwt-key", backendKey, "--anonymous", "on")
	f := deploy(t, "caddyfile", "TLS here, all paths", s.addr)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const clients = 20
	var dials atomic.Int64
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		dials.Add(1)
		return (&tls.Dialer{Config: trusting()}).DialContext(ctx, network, f.addr)
	}
	var rooms []*hubbubclient.Room
	for i := range clients {
		token := tokenFor(t, fmt.Sprint("client ", i))
		h, err := hubbubclient.Dial(ctx, "wss://"+f.name+"/ws", hubbubclient.Options{
			HTTPClient: &http.Client{Transport: &http.Transport{DialTLSContext: dial}},
			Token:      func(context.Context) (string, error) { return token, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		rooms = append(rooms, h.Room("r"))
		if err := rooms[i].Join(ctx); err != nil {
			t.Fatal(err)
		}
	}
	last := f.reloadMeanwhile(t, func(n int) {
		if _, err := rooms[0].Publish(ctx, n, hubbubclient.PublishOptions{}); err != nil {
			t.Fatalf("publish %d: %v", n, err)
		}
	})
	for i, r := range rooms[1:] {
		n := 0
		for e := range r.Events(ctx) {
			n++
			if m, ok := e.(hubbubclient.Message); !ok || string(m.Content) != fmt.Sprint(n) {
				t.Fatalf("client %d got %+v, want %d", i+1, e, n)
			}
			if n == last {
				break
			}
		}
		if n != last {
			t.Fatalf("client %d got %d messages, want %d", i+1, n, last)
		}
	}
	if n := dials.Load(); n < 2*clients {
		t.Errorf("%d connections of %d clients: docs/deploy.md says that Caddy ends them at a reload", n, clients)
	}
	s.drains(t, f.enter(t), f.enter(t))
}

// enter connects a raw hubbubclient.
func (f *frontend) enter(t *testing.T) *rawConn {
	t.Helper()
	c, status := f.ask(t, "127.0.0.2", "/ws")
	if status != 101 {
		t.Fatalf("status %d", status)
	}
	c.welcomed()
	return c
}

// reloadMeanwhile reloads the proxy while say is called with 1, 2 and so on, until what is new has been in force for
// fifty of them. It returns the last.
func (f *frontend) reloadMeanwhile(t *testing.T, say func(n int)) (last int) {
	t.Helper()
	before := f.shows()
	f.renew()
	reloaded := make(chan error, 1)
	go func() { reloaded <- f.reload() }()
	for done := 0; done < 50; {
		last++
		say(last)
		if now := f.shows(); done > 0 || now != "" && now != before {
			done++
		}
	}
	if err := <-reloaded; err != nil {
		t.Fatalf("the reload: %v", err)
	}
	return last
}

// drains stops the server; each of these is told that it has gone.
func (s *server) drains(t *testing.T, all ...*rawConn) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if code := c.untilClose(); code != 1001 {
			t.Errorf("closed with %d, want 1001", code)
		}
		c.Close()
	}
	if status := s.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}
