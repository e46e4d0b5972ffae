package front

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// crowd is a listener that always has one more.
type crowd struct{ net.Listener }

func (crowd) Accept() (net.Conn, error) {
	near, _ := net.Pipe()
	return near, nil
}

func (crowd) Close() error { return nil }

// Who waits for a place gets the first that is free, at once, though nobody else's time is up.
func TestAFreePlaceIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(crowd{}, 0, 1, func() string { return "" }, slog.New(slog.DiscardHandler))
		defer g.reserve.Close()
		defer g.Close()
		var last net.Conn
		for range maxHandshakes {
			last, _ = g.Accept()
			g.complete(last)
		}
		accepted := make(chan bool, 1)
		go func() {
			g.Accept()
			accepted <- true
		}()
		synctest.Wait()
		if len(accepted) > 0 {
			t.Fatal("there is a place for one more")
		}
		g.Changed(last, http.StateHijacked)
		synctest.Wait()
		if len(accepted) == 0 {
			t.Error("a place is free, and nobody takes it")
		}
	})
}

// Whoever waits with an end to it is woken at that end, also where it comes before the waiting has begun.
func TestTheEndOfAWaitIsntMissed(t *testing.T) {
	var mu sync.Mutex
	c := sync.NewCond(&mu)
	over := make(chan bool)
	go func() {
		c.L.Lock()
		defer c.L.Unlock()
		for range 100_000 {
			waitAtMost(c, 0)
		}
		close(over)
	}()
	select {
	case <-over:
	case <-time.After(time.Minute):
		t.Error("it waits for ever")
	}
}

// Those who stay, whether they may be sent away for others or not, are together as many as there are descriptors for;
// beyond that the oldest goes of those who may. Where all are kept nobody does.
func TestWhoStaysIsBoundedWithThoseWhoAreKept(t *testing.T) {
	g := NewGate(crowd{}, 0, 1, func() string { return "" }, slog.New(slog.DiscardHandler))
	defer g.reserve.Close()
	defer g.Close()
	var all []net.Conn
	stay := func(keep bool) {
		nc, _ := g.Accept()
		all = append(all, nc)
		g.Changed(nc, http.StateIdle)
		if keep {
			r := httptest.NewRequest("GET", "/", nil)
			Keep(r.WithContext(g.Context(r.Context(), nc)))
		}
	}
	const kept = 10
	for i := range g.maxBeside {
		stay(i < kept)
	}
	count := func() (beside, kept int) { return len(g.beside), len(g.kept) }
	if b, k := count(); b != g.maxBeside-kept || k != kept {
		t.Fatalf("%d stay and %d are kept, of %d", b, k, g.maxBeside)
	}
	stay(false)
	if b, k := count(); b != g.maxBeside-kept || k != kept {
		t.Errorf("with one more %d stay and %d are kept, of %d", b, k, g.maxBeside)
	}
	if _, stays := g.beside[all[kept]]; stays {
		t.Error("the oldest of those who may go has not gone")
	}
	for range g.maxBeside {
		stay(true)
	}
	if b, k := count(); b != 0 || k != g.maxBeside+kept {
		t.Errorf("%d stay and %d are kept, where all have a key", b, k)
	}
	for _, nc := range all {
		g.Changed(nc, http.StateClosed)
		nc.Close()
	}
	if left := g.Unsettled(); left != nil {
		t.Errorf("%v", left)
	}
}

// A first request holds a place while it is served, and none before and behind that, where net/http may wait for its client.
// A later one holds none.
func TestARequestHoldsAPlaceWhileItIsServed(t *testing.T) {
	g := NewGate(crowd{}, 0, 1, func() string { return "" }, slog.New(slog.DiscardHandler))
	defer g.reserve.Close()
	defer g.Close()
	nc, _ := g.Accept()
	defer nc.Close()
	places := func(want int, when string) {
		t.Helper()
		if len(g.arrived) != want || len(g.arrived)+len(g.beside) != 1 {
			t.Errorf("%s: %d places, and %d beside", when, len(g.arrived), len(g.beside))
		}
	}
	places(1, "accepted")
	g.Changed(nc, http.StateActive)
	places(0, "the head has come")
	ctx := g.Context(t.Context(), nc)
	want := 1
	h := g.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { places(want, "served") }))
	for ; want >= 0; want-- {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/ws", nil).WithContext(ctx))
		places(0, "behind a request")
	}
	g.Changed(nc, http.StateClosed)
}

// scarce is a listener with so many descriptors.
type scarce struct {
	net.Listener
	left *atomic.Int32
}

func (s scarce) Accept() (net.Conn, error) {
	if s.left.Load() <= 0 {
		return nil, syscall.EMFILE
	}
	nc, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	s.left.Add(-1)
	return &scarceConn{TCPConn: nc.(*net.TCPConn), left: s.left}, nil
}

type scarceConn struct {
	*net.TCPConn
	left *atomic.Int32
	once sync.Once
}

func (c *scarceConn) Close() error {
	c.once.Do(func() { c.left.Add(1) })
	return c.TCPConn.Close()
}

// Where there is no descriptor for a newcomer, the oldest goes of those who keep the server waiting.
func TestSilentOnesGoWhereDescriptorsAreShort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var left atomic.Int32
	left.Store(3)
	g := NewGate(scarce{l, &left}, 0, 1, func() string { return "sorry" }, slog.New(slog.DiscardHandler))
	defer g.Close()
	dial := func() net.Conn {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return nc
	}
	var silent []net.Conn
	var readers sync.WaitGroup
	for range 3 {
		silent = append(silent, dial())
		nc, err := g.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		readers.Go(func() { nc.Read(make([]byte, 1)) })
	}
	for seen := false; !seen; time.Sleep(silentHead) { // as others who wait for a place have them looked at
		g.mu.Lock()
		g.lookForSilent()
		seen = len(g.silent) == 3
		if !seen {
			g.silent = nil
		}
		g.mu.Unlock()
	}
	newcomer := dial()
	nc, err := g.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if nc.RemoteAddr().String() != newcomer.LocalAddr().String() {
		t.Errorf("accepted %v, not the newcomer %v", nc.RemoteAddr(), newcomer.LocalAddr())
	}
	if n, err := silent[0].Read(make([]byte, 9)); n > 0 || err == nil {
		t.Errorf("the oldest silent one reads %d bytes, %v", n, err)
	}
	for _, nc := range silent {
		nc.Close()
	}
	readers.Wait()
}

// few is a listener that has these connections and no more, until it is closed.
type few struct {
	net.Listener
	conns chan net.Conn
}

func (f few) Accept() (net.Conn, error) {
	if nc, more := <-f.conns; more {
		return nc, nil
	}
	return nil, net.ErrClosed
}

func (f few) Close() error {
	close(f.conns)
	return nil
}

// stream is a connection of which something can be told, as of a socket.
type stream struct{ net.Conn }

func (stream) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }

// The goroutines that read what comes first serve one connection behind the other, few of them wait, and a gate that
// closes leaves none, nor a connection that net/http doesn't have.
func TestReadersAreUsedAgainAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const crowd = maxIdleReaders + 64 // fewer than may stay
		l := few{conns: make(chan net.Conn, crowd)}
		g := NewGate(l, 0, 1, func() string { return "" }, slog.New(slog.DiscardHandler))
		g.Quick = &Quick{Answer: lines, Head: time.Hour, Idle: time.Hour}
		go g.Accept()
		var clients []net.Conn
		connect := func() net.Conn {
			near, client := net.Pipe()
			l.conns <- stream{near}
			clients = append(clients, client)
			return client
		}
		for range crowd {
			client := connect()
			io.WriteString(client, "q\n") // so that it holds no place
			hears(t, client, "to q\n")
		}
		synctest.Wait()
		if idle := g.idle.Load(); idle != 0 {
			t.Errorf("%d wait, and all are to read", idle)
		}
		for _, client := range clients {
			client.Close()
		}
		synctest.Wait()
		if idle := g.idle.Load(); idle != maxIdleReaders {
			t.Errorf("%d goroutines wait for the next connection, want %d", idle, maxIdleReaders)
		}
		answered := connect()
		io.WriteString(answered, "q\n")
		hears(t, answered, "to q\n")
		silent := connect()
		synctest.Wait()
		if idle := g.idle.Load(); idle != maxIdleReaders-2 {
			t.Errorf("with two connections %d wait: they aren't used again", idle)
		}
		began := time.Now()
		g.Close()
		for name, client := range map[string]net.Conn{"answered": answered, "silent": silent} {
			if _, err := client.Read(make([]byte, 1)); err != io.EOF || time.Since(began) != 0 {
				t.Errorf("%s: %v after %v, want the end at once", name, err, time.Since(began))
			}
		}
		if left := g.Unsettled(); left != nil {
			t.Error(left)
		}
	}) // which waits for all goroutines
}

// A goroutine of the gate that ends by runtime.Goexit (a test's t.FailNow in what it calls) must leave nothing behind, as
// net/http's doesn't.
func TestAGoroutineThatEndsLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := few{conns: make(chan net.Conn, 1)}
		g := NewGate(l, 0, 1, func() string { return "" }, slog.New(slog.DiscardHandler))
		g.Quick = &Quick{Upgrade: func(*http.Request) http.HandlerFunc {
			return func(http.ResponseWriter, *http.Request) { runtime.Goexit() }
		}, Head: time.Hour, Idle: time.Hour}
		go g.Accept()
		near, client := net.Pipe()
		l.conns <- stream{near}
		io.WriteString(client, anUpgrade)
		synctest.Wait()
		client.SetReadDeadline(time.Now().Add(2 * time.Hour))
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the client waits: %v", err)
		}
		if left := g.Unsettled(); left != nil {
			t.Error(left)
		}
		g.Close()
	})
}

// Half requests, and connections without one, come faster than they may stay. Who comes behind them isn't held up: those
// that keep the server waiting go for that, and not because they are old.
func TestHalfRequestsHoldNobodyUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := NewGate(l, 0, 1, func() string { return "" }, slog.New(slog.DiscardHandler))
	g.slowHead = time.Hour
	web := http.Server{ConnState: g.Changed, ConnContext: g.Context}
	go web.Serve(g)
	defer web.Close()
	var all []net.Conn
	connect := func() net.Conn {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, nc)
		return nc
	}
	for i := range 20 * maxHandshakes {
		if nc := connect(); i%2 == 0 {
			io.WriteString(nc, "GET / HTTP/1.1\r\n")
		}
	}
	last := connect()
	io.WriteString(last, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	hears(t, last, "HTTP/1.1 404")
	for _, nc := range all {
		nc.Close()
	}
}
