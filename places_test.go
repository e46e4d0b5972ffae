package hubbub_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"context"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

// The places of addresses and of connections: who takes one, and that each is given back on every way out.

// hijacked is the answer to a request over a pipe, whose near end the handler may take.
type hijacked struct {
	*httptest.ResponseRecorder
	near net.Conn
	err  error // of Hijack
}

func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if h.err != nil {
		return nil, nil, h.err
	}
	return h.near, bufio.NewReadWriter(bufio.NewReader(h.near), bufio.NewWriter(h.near)), nil
}

// upgradeFrom asks the server for a WebSocket as one whose address is remote. w is what it answers to.
func upgradeFrom(s http.Handler, w http.ResponseWriter, remote string) {
	r := httptest.NewRequest("GET", "http://a.example/ws", nil)
	r.RemoteAddr = remote
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", wsclient.Key)
	s.ServeHTTP(w, r)
}

// arrive makes a WebSocket from that address; far is nil where it was refused with status.
func arrive(t testing.TB, s *hubbub.Server, remote string) (far net.Conn, status int) {
	t.Helper()
	near, client := net.Pipe()
	t.Cleanup(func() { client.Close() })
	w := &hijacked{ResponseRecorder: httptest.NewRecorder(), near: near}
	upgradeFrom(s, w, remote)
	if w.Code != http.StatusOK { // nothing was written by the recorder
		return nil, w.Code
	}
	client.SetDeadline(time.Now().Add(rawtest.Patience))
	b := bufio.NewReader(client)
	if r, err := http.ReadResponse(b, nil); err != nil || r.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the answer: %v, %v", r, err)
	}
	client.SetDeadline(time.Time{})
	go io.Copy(io.Discard, b)
	return client, http.StatusSwitchingProtocols
}

// serverFor is a Server without a listener that ends with the test.
func serverFor(t testing.TB, cfg hubbub.Config) *hubbub.Server {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	s, err := hubbub.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Shutdown(ctx)
		if n := s.Connections(); n != 0 {
			t.Errorf("%d connections are still counted", n)
		}
	})
	return s
}

func TestWhichAddressesAreOne(t *testing.T) {
	for _, c := range []struct {
		a, b string
		one  bool
	}{
		{"192.0.2.1:1", "192.0.2.1:2", true},
		{"192.0.2.1:1", "192.0.2.2:1", false},
		{"192.0.2.1:1", "[::ffff:192.0.2.1]:1", true}, // as a listener of both kinds sees it
		{"[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:1", false},
		{"[2001:db8:1:2::1]:1", "[2001:db8:1:2:ffff:ffff:ffff:ffff]:1", true},
		{"[2001:db8:1:2::1]:1", "[2001:db8:1:3::1]:1", false},
		{"[2001:db8:1:2::1]:1", "[2001:db8:1:8002::1]:1", false},
		{"[fe80::1%eth0]:1", "[fe80::2%eth1]:1", true},
		{"[::1]:1", "127.0.0.1:1", false},
		{"@", "", true}, // of a Unix socket: no address
	} {
		s := serverFor(t, hubbub.Config{MaxConnectionsPerIP: 1})
		if _, status := arrive(t, s, c.a); status != http.StatusSwitchingProtocols {
			t.Fatalf("%s: %d", c.a, status)
		}
		want := map[bool]int{true: http.StatusTooManyRequests, false: http.StatusSwitchingProtocols}[c.one]
		if _, status := arrive(t, s, c.b); status != want {
			t.Errorf("%s beside %s gets %d, want %d", c.b, c.a, status, want)
		}
	}
}

// Connections come and go from random addresses, under a bound for each and one for all: who is let in is who finds a
// place under both.
func TestPlacesAreCountedRight(t *testing.T) {
	const each, all = 3, 12
	s := serverFor(t, hubbub.Config{MaxConnectionsPerIP: each, MaxConnections: all})
	addresses := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1"}
	key := func(address string) string {
		return netip.PrefixFrom(netip.MustParseAddr(address), 64).Masked().String()
	}
	type one struct {
		far net.Conn
		key string
	}
	var here []one
	count := map[string]int{} // the model
	random := rand.New(rand.NewPCG(11, 12))
	for step := range 600 {
		if random.IntN(2) == 0 && len(here) > 0 {
			i := random.IntN(len(here))
			here[i].far.Close()
			count[here[i].key]--
			here = append(here[:i], here[i+1:]...)
			rawtest.Eventually(t, "it is gone", func() bool { return s.Connections() == len(here) })
			continue
		}
		address := addresses[random.IntN(len(addresses))]
		k := key(address)
		if a := netip.MustParseAddr(address); a.Is4() {
			k = address
		}
		want := http.StatusSwitchingProtocols
		switch {
		case count[k] == each:
			want = http.StatusTooManyRequests
		case len(here) == all:
			want = http.StatusServiceUnavailable
		}
		far, status := arrive(t, s, netip.AddrPortFrom(netip.MustParseAddr(address), uint16(step+1)).String())
		if status != want {
			t.Fatalf("step %d: %s gets %d beside %d of its own and %d in all, want %d", step, address, status, count[k], len(here), want)
		}
		if far != nil {
			here = append(here, one{far, k})
			count[k]++
		}
	}
}

// stubborn is a connection that can't be taken over.
type stubborn struct{ net.Conn }

func (stubborn) SetDeadline(time.Time) error { return errors.New("no deadlines here") }

// Whatever keeps a client out gives both places back, its address's and its own.
func TestWhoIsKeptOutKeepsNoPlace(t *testing.T) {
	const own = "192.0.2.1:1"
	hooks := hubbub.Hooks{Connect: func(_ context.Context, c *hubbub.Connect) error {
		switch c.Request.Header.Get("X-Hook") {
		case "refuse":
			return &hubbub.Error{Code: hubbub.Forbidden, Message: "no"}
		case "panic":
			panic("in Connect") // a word of which the log is not read here
		}
		return nil
	}}
	for name, fail := range map[string]func(t *testing.T, s *hubbub.Server){
		"nothing to hijack": func(t *testing.T, s *hubbub.Server) { upgradeFrom(s, httptest.NewRecorder(), own) },
		"Hijack fails": func(t *testing.T, s *hubbub.Server) {
			upgradeFrom(s, &hijacked{ResponseRecorder: httptest.NewRecorder(), err: errors.New("not now")}, own)
		},
		"it can't be taken over": func(t *testing.T, s *hubbub.Server) {
			near, far := net.Pipe()
			go io.Copy(io.Discard, far)
			upgradeFrom(s, &hijacked{ResponseRecorder: httptest.NewRecorder(), near: stubborn{near}}, own)
			if _, err := near.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("it is still open: %v", err)
			}
		},
		"it has gone meanwhile": func(t *testing.T, s *hubbub.Server) {
			near, far := net.Pipe()
			far.Close()
			upgradeFrom(s, &hijacked{ResponseRecorder: httptest.NewRecorder(), near: near}, own)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serverFor(t, hubbub.Config{MaxConnections: 1, MaxConnectionsPerIP: 1, Hooks: hooks})
			for range 3 {
				fail(t, s)
				rawtest.Eventually(t, "the place is given back", func() bool { return s.Connections() == 0 })
			}
			if _, status := arrive(t, s, own); status != http.StatusSwitchingProtocols {
				t.Errorf("a good one gets %d", status)
			}
		})
	}
	t.Run("the server is full", func(t *testing.T) {
		s := serverFor(t, hubbub.Config{MaxConnections: 1, MaxConnectionsPerIP: 2})
		far, _ := arrive(t, s, own)
		for range 5 {
			if _, status := arrive(t, s, own); status != http.StatusServiceUnavailable {
				t.Errorf("one too many gets %d", status)
			}
		}
		far.Close()
		rawtest.Eventually(t, "the first is gone", func() bool { return s.Connections() == 0 })
		if _, status := arrive(t, s, own); status != http.StatusSwitchingProtocols {
			t.Errorf("a good one gets %d", status)
		}
	})
	t.Run("the address has its fill", func(t *testing.T) {
		s := serverFor(t, hubbub.Config{MaxConnections: 2, MaxConnectionsPerIP: 1})
		arrive(t, s, own)
		for range 5 {
			if _, status := arrive(t, s, own); status != http.StatusTooManyRequests {
				t.Errorf("one too many gets %d", status)
			}
		}
		if _, status := arrive(t, s, "192.0.2.2:1"); status != http.StatusSwitchingProtocols {
			t.Errorf("another address gets %d", status)
		}
	})
	for what, code := range map[string]int{"refuse": wire.CloseTryLater, "panic": wire.CloseTryLater} {
		t.Run("the hook Connect: "+what, func(t *testing.T) {
			s := rawtest.Start(t, hubbub.Config{MaxConnections: 1, MaxConnectionsPerIP: 1, MaxHookCalls: 1, Hooks: hooks, Logger: slog.New(slog.DiscardHandler)})
			if what == "refuse" {
				code = 4501
			}
			for range 3 {
				c := rawtest.Dial(t, s, "/ws", "X-Hook: "+what)
				c.AnswerClose(code)
				rawtest.Eventually(t, "the place is given back", func() bool { return s.Connections() == 0 })
			}
			enter(t, s)
		})
	}
	t.Run("while the server stops", func(t *testing.T) {
		s := serverFor(t, hubbub.Config{MaxConnections: 2, MaxConnectionsPerIP: 2})
		arrive(t, s, own) // never answers, so Shutdown takes its time
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(ctx) }()
		rawtest.Eventually(t, "it stops", func() bool {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
			return w.Code == http.StatusServiceUnavailable
		})
		for range 5 {
			rawtest.Eventually(t, "it lets nobody in", func() bool {
				_, status := arrive(t, s, own)
				return status == http.StatusServiceUnavailable
			})
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Shutdown: %v", err)
		}
		if n := s.Connections(); n != 0 {
			t.Error(fmt.Sprint(n, " places are still taken"))
		}
	})
}

// Connections that stay open behind their requests have few places where all descriptors are promised to WebSockets:
// who was quiet for longest goes.
func TestQuietConnectionsMakeRoom(t *testing.T) {
	const places = 3*32 + 256 // three lanes, and that of the API
	s := rawtest.Start(t, hubbub.Config{MaxConnections: 1 << 20})
	ask := func(c *rawtest.Client) {
		t.Helper()
		c.SendRaw([]byte("GET /healthz HTTP/1.1\r\nHost: a.example\r\n\r\n"))
		r := c.Response("GET")
		if _, err := io.Copy(io.Discard, r.Body); err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%s, %v", r.Status, err)
		}
	}
	// A busy machine may take so long that all of them have been quiet for the time after which they go anyway.
	for try := 0; ; try++ {
		began := time.Now()
		late := func() bool { return time.Since(began) > 20*time.Second }
		quiet := []*rawtest.Client{}
		for len(quiet) < places && !late() {
			c := rawtest.Connect(t, s)
			ask(c)
			quiet = append(quiet, c)
		}
		for i := 0; i < len(quiet) && !late(); i++ { // all are kept
			ask(quiet[i])
		}
		if late() {
			if try == 10 {
				t.Fatal("it always took too long")
			}
			for _, c := range quiet {
				c.NC.Close()
			}
			continue
		}
		ask(rawtest.Connect(t, s))
		quiet[0].ExpectEOF()
		for _, c := range quiet[1:] { // or it went because the idle time was up, as theirs then is
			if !late() {
				ask(c)
			}
		}
		return
	}
}

// When all places before the upgrade are taken by heads that aren't complete, the oldest of them goes.
func TestTheOldestHalfARequestMakesRoom(t *testing.T) {
	const places = 256
	s := rawtest.Start(t, hubbub.Config{HandshakeTimeout: time.Hour}) // or each would go by itself while the test waits for it
	halves := []*rawtest.Client{rawtest.Connect(t, s)}                // which has sent nothing at all: what isn't read yet would give it time
	for len(halves) < places {
		c := rawtest.Connect(t, s)
		c.SendRaw([]byte(rawtest.Upgrade(s, "/echo")[:20]))
		halves = append(halves, c)
	}
	rawtest.Dial(t, s, "/echo").Quiet()
	halves[0].ExpectEOF()
	last := halves[places-1]
	last.SendRaw([]byte(rawtest.Upgrade(s, "/echo")[20:]))
	last.ExpectUpgrade()
}

// Where the limit of open files allows no more connections a higher --max-connections alone would help nobody.
func TestWhatWouldAllowMoreConnections(t *testing.T) {
	for most, want := range map[int]string{
		1:       "--max-connections above 1",
		0:       "a limit of open files above ",
		1 << 29: ", and then --max-connections above 536870912",
	} {
		s := rawtest.Start(t, hubbub.Config{MaxConnections: most})
		got := hubbub.WouldAllow(s.Server)
		if !strings.Contains(got, want) || strings.Contains(got, "open files") != (most != 1) || strings.Contains(got, "--max-connections") != (most != 0) {
			t.Errorf("at most %d: %s", most, got)
		}
	}
}
