package front

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// atTheGate is a gate with sockets in front of a server whose upgrades serve has.
func atTheGate(t *testing.T, turns int, head time.Duration, serve http.HandlerFunc) (g *Gate, addr string) {
	t.Helper()
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	g = NewGate(l, 1000, turns, func() string { return "" }, slog.New(slog.DiscardHandler))
	g.slowHead = time.Hour // who goes for others goes for being silent
	g.Quick = &Quick{
		Upgrade: func(r *http.Request) http.HandlerFunc {
			failsIn("choosing", r)
			if r.URL.Path != "/ws" {
				return nil
			}
			return serve
		},
		Answer: lines, Head: head, Idle: time.Minute, Descriptors: true,
		Long: func(r *http.Request) bool { return r.Header.Get("Long") != "" },
		ComesBack: func(r *http.Request) bool {
			failsIn("waiting", r)
			return r.URL.RawQuery == "back"
		},
	}
	web := &http.Server{
		ConnState: g.Changed, ConnContext: g.Context, ReadHeaderTimeout: head, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "net/http") }),
	}
	served := make(chan error, 1)
	go func() { served <- web.Serve(g) }()
	t.Cleanup(func() {
		web.Close()
		<-served
		if left := g.Unsettled(); left != nil {
			t.Error(left)
		}
		// The listener, two epolls and the reserve are closed too.
		for range 1000 {
			if descriptors(t) < before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%d descriptors are open, before there was a gate %d", descriptors(t), before)
	})
	return g, l.Addr().String()
}

// failsIn panics, or ends the goroutine, where the request asks for that.
func failsIn(where string, r *http.Request) {
	switch r.URL.RawQuery {
	case "panic-" + where:
		panic("in " + where)
	case "exit-" + where:
		runtime.Goexit()
	}
}

func descriptors(t *testing.T) int {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(time.Minute))
	return nc
}

// takes has the connection as the loop has it, says who it is from, and echoes what came behind the request.
func takes(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !TakeTurn(r, false) {
			http.Error(w, "too late", 503)
			return
		}
		nc, first := w.(*Upgrading).Take()
		fd, ok := nc.(interface{ Descriptor() (int, bool) }).Descriptor()
		if !ok {
			t.Error("the descriptor isn't to be had")
			EndTurn(r)
			return
		}
		if nc.Close() == nil || nc.SetDeadline(time.Time{}) == nil {
			t.Error("whoever has given it away can still close it")
		}
		delay, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY)
		alive, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		unix.Write(fd, fmt.Appendf(nil, "%s nodelay=%d keepalive=%d behind=%q\n", r.RemoteAddr, delay, alive, first))
		EndTurn(r)
		unix.Close(fd)
	}
}

func said(t *testing.T, nc net.Conn) string {
	t.Helper()
	line, err := bufio.NewReader(nc).ReadString('\n')
	if err != nil {
		t.Errorf("the answer: %q, %v", line, err)
	}
	return line
}

// A head may come with the connection or later, and with more than itself; what comes in pieces, or is no upgrade, is
// net/http's with all that was read.
func TestWhatComesOnASocket(t *testing.T) {
	_, addr := atTheGate(t, 4, time.Minute, takes(t))
	for name, tt := range map[string]struct {
		says []string
		want string
	}{
		"at once":       {[]string{anUpgrade}, ` nodelay=1 keepalive=0 behind=""` + "\n"},
		"long":          {[]string{strings.Replace(anUpgrade, "\r\n\r\n", "\r\nLong: 1\r\n\r\n", 1) + "more"}, ` nodelay=1 keepalive=0 behind="more"` + "\n"},
		"late":          {[]string{"", anUpgrade}, ` nodelay=1 keepalive=0 behind=""` + "\n"},
		"with more":     {[]string{anUpgrade + "more"}, ` nodelay=1 keepalive=0 behind="more"` + "\n"},
		"in two":        {[]string{anUpgrade[:20], "", anUpgrade[20:]}, "HTTP/1.1 200 OK\r\n"},
		"late, in two":  {[]string{"", anUpgrade[:20], "", anUpgrade[20:]}, "HTTP/1.1 200 OK\r\n"},
		"another":       {[]string{"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"}, "HTTP/1.1 200 OK\r\n"},
		"of Quick":      {[]string{"q1\n"}, "to q1\n"},
		"late of Quick": {[]string{"", "q1\n"}, "to q1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc := dial(t, addr)
			for _, piece := range tt.says {
				if piece == "" {
					time.Sleep(20 * time.Millisecond)
				}
				io.WriteString(nc, piece)
			}
			want := tt.want
			if want[0] == ' ' {
				want = nc.LocalAddr().String() + want
			}
			if got := said(t, nc); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// plainGate has sockets, and serves nothing itself.
func plainGate(t *testing.T) *Gate {
	t.Helper()
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := NewGate(l, 1000, 1, func() string { return "" }, slog.New(slog.DiscardHandler))
	g.Quick = &Quick{Head: time.Minute, Idle: time.Minute, Descriptors: true}
	t.Cleanup(func() { g.Close() })
	return g
}

// net/http's connection is one as package net has them: it waits, times out as such, and half of it can be closed.
func TestASocketIsAConnection(t *testing.T) {
	g := plainGate(t)
	l := g.Listener
	got := make(chan net.Conn, 1)
	go func() {
		nc, _ := g.Accept()
		got <- nc
	}()
	client := dial(t, l.Addr().String())
	io.WriteString(client, "x")
	nc := <-got
	if nc.LocalAddr().String() != l.Addr().String() || nc.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("from %v to %v, want from %v to %v", nc.RemoteAddr(), nc.LocalAddr(), client.LocalAddr(), l.Addr())
	}
	b := make([]byte, 2<<20)
	if n, err := nc.Read(b); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	nc.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) // instead of which it has the time for the head
	nc.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := nc.Read(b)
	if failed, ok := err.(net.Error); !ok || !failed.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing came: %T %v", err, err)
	}
	nc.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	sent := int64(0)
	for err = nil; err == nil && sent < 1<<30; { // more than the sockets hold
		var n int
		n, err = nc.Write(b)
		sent += int64(n)
	}
	if failed, ok := err.(net.Error); !ok || !failed.Timeout() {
		t.Errorf("a client that doesn't read: %T %v after %d bytes", err, err, sent)
	}
	read := make(chan int64, 1)
	go func() {
		n, _ := io.Copy(io.Discard, client)
		read <- n
	}()
	closeWrite(nc)
	if n := <-read; n != sent {
		t.Errorf("it got %d bytes of %d", n, sent)
	}
	io.WriteString(client, "y")
	nc.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := nc.Read(b); n != 1 || err != nil {
		t.Errorf("behind half a close: %d, %v", n, err)
	}
	client.Close()
	if _, err := nc.Read(b); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	nc.Close()
	for name, err := range map[string]error{"Close": nc.Close(), "SetDeadline": nc.SetDeadline(time.Now())} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s of a closed one: %v", name, err)
		}
	}
	for name, f := range map[string]func([]byte) (int, error){"Read": nc.Read, "Write": nc.Write} {
		if _, err := f(b); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s of a closed one: %v", name, err)
		}
	}
	g.Changed(nc, http.StateClosed)
}

// Who says nothing has its time, whole, each its own; and nobody else is held up by it.
func TestSilentSocketsHaveTheirTime(t *testing.T) {
	const head = 300 * time.Millisecond
	_, addr := atTheGate(t, 4, head, takes(t))
	var silent sync.WaitGroup
	for range 20 {
		time.Sleep(20 * time.Millisecond)
		began := time.Now()
		nc := dial(t, addr)
		silent.Go(func() {
			if n, err := nc.Read(make([]byte, 1)); n != 0 || err == nil || time.Since(began) < head {
				t.Errorf("after %v: %d, %v; want the end after %v", time.Since(began), n, err, head)
			}
		})
		other := dial(t, addr)
		io.WriteString(other, anUpgrade)
		said(t, other)
	}
	silent.Wait()
}

// Of too many who say nothing the oldest go; who says something meanwhile is served, also one of those who waited.
func TestSilentSocketsGoForOthers(t *testing.T) {
	g, addr := atTheGate(t, 4, time.Hour, takes(t))
	var all []net.Conn
	for range 8 * maxHandshakes {
		nc := dial(t, addr)
		all = append(all, nc)
		for end := time.Now().Add(time.Minute); !arrived(g, nc) && time.Now().Before(end); { // a busy kernel may turn them round
			time.Sleep(100 * time.Microsecond)
		}
	}
	for _, nc := range []net.Conn{dial(t, addr), all[len(all)-1]} {
		io.WriteString(nc, anUpgrade)
		said(t, nc)
	}
	gone, end := 0, time.Now().Add(time.Minute)
	for _, nc := range all[:len(all)-maxHandshakes] {
		nc.SetReadDeadline(end)
		if _, err := nc.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			gone++
		}
	}
	if gone != len(all)-maxHandshakes {
		t.Errorf("%d of %d have gone", gone, len(all)-maxHandshakes)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := len(g.arrived); n > maxHandshakes {
		t.Errorf("%d have a place", n)
	}
}

// arrived says that a client's connection has a place at the gate.
func arrived(g *Gate, client net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for nc := range g.arrived {
		if nc.RemoteAddr().(*net.TCPAddr).Port == client.LocalAddr().(*net.TCPAddr).Port {
			return true
		}
	}
	return false
}

// A gate that closes ends those of which nothing has come, at once.
func TestAGateThatClosesEndsWaitingSockets(t *testing.T) {
	for range 20 {
		g, addr := atTheGate(t, 4, time.Hour, takes(t))
		var all []net.Conn
		for range 10 {
			all = append(all, dial(t, addr))
		}
		g.Close()
		for _, nc := range all {
			if n, err := nc.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%d, %v; want the end", n, err)
			}
		}
	}
}

// A gate that nobody has accepted at keeps nothing open.
func TestAGateThatClosesBeforeItBegins(t *testing.T) {
	for _, quick := range []*Quick{nil, {Descriptors: true}} {
		before := descriptors(t)
		l, err := Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		g := NewGate(l, 1000, 1, func() string { return "" }, slog.New(slog.DiscardHandler))
		g.Quick = quick
		g.Close()
		for range 2 {
			if nc, err := g.Accept(); nc != nil || !errors.Is(err, net.ErrClosed) {
				t.Errorf("accepted %v, %v", nc, err)
			}
		}
		if n := descriptors(t); n != before {
			t.Errorf("%d descriptors are open, %d before", n, before)
		}
	}
}

// The listener may be closed by whoever has made it: Accept says so then.
func TestAListenerThatAnotherCloses(t *testing.T) {
	g := plainGate(t)
	l := g.Listener
	failed := make(chan error)
	go func() {
		_, err := g.Accept()
		failed <- err
	}()
	client := dial(t, l.Addr().String()) // it accepts
	client.Close()
	l.Close()
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want %v", err, net.ErrClosed)
	}
}

// Who is refused gets the whole answer, also if it goes on writing, and others are served meanwhile.
func TestARefusedSocketIsHeardOut(t *testing.T) {
	took := takes(t)
	_, addr := atTheGate(t, 4, time.Minute, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "no" {
			w.Header().Set("Connection", "close")
			w.WriteHeader(503)
			io.WriteString(w, "not now")
			return
		}
		took(w, r)
	})
	for range 3 * maxHandshakes / 2 { // more than have a place, each heard out for half a second
		nc := dial(t, addr)
		io.WriteString(nc, strings.Replace(anUpgrade, "/ws", "/ws?no", 1)+"and more")
		other := dial(t, addr)
		io.WriteString(other, anUpgrade)
		said(t, other)
		if got, err := io.ReadAll(nc); err != nil || !bytes.HasPrefix(got, []byte("HTTP/1.1 503 ")) || !bytes.HasSuffix(got, []byte("not now")) {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

// A gate that closes while an upgrade is served lets it be answered, or taken, and closes what is refused.
func TestAGateThatClosesMeetsAnUpgradeOnASocket(t *testing.T) {
	for _, waits := range []bool{false, true} {
		for _, refuses := range []bool{false, true} {
			t.Run(fmt.Sprintf("refused=%v,watched=%v", refuses, waits), func(t *testing.T) {
				took := takes(t)
				serving := make(chan bool)
				g, addr := atTheGate(t, 1, time.Minute, func(w http.ResponseWriter, r *http.Request) {
					close(serving)
					g := w.(*Upgrading).a.gate
					for over := false; !over; time.Sleep(time.Millisecond) {
						g.mu.Lock()
						over = g.closed
						g.mu.Unlock()
					}
					if !refuses {
						took(w, r)
						return
					}
					w.WriteHeader(503)
					io.WriteString(w, "not now")
				})
				nc := dial(t, addr)
				if waits {
					time.Sleep(20 * time.Millisecond)
				}
				io.WriteString(nc, anUpgrade)
				<-serving
				g.Close()
				got, err := io.ReadAll(nc)
				if want := map[bool]string{false: "nodelay=1", true: "not now"}[refuses]; err != nil || !bytes.Contains(got, []byte(want)) {
					t.Errorf("%q, %v; want %q", got, err, want)
				}
			})
		}
	}
}

// Neither a panic nor a runtime.Goexit of who serves an upgrade ends the goroutine that others need.
func TestSocketsOutliveWhatServesThem(t *testing.T) {
	took := takes(t)
	_, addr := atTheGate(t, 1, time.Minute, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.RawQuery {
		case "panic":
			panic("in an upgrade")
		case "exit":
			runtime.Goexit()
		}
		took(w, r)
	})
	for i := range 40 {
		for _, how := range []string{"?panic", "?exit", ""} {
			nc := dial(t, addr)
			if i%2 == 0 {
				time.Sleep(2 * time.Millisecond) // so that the other goroutine reads it
			}
			io.WriteString(nc, strings.Replace(anUpgrade, "/ws", "/ws"+how, 1))
			if how == "" {
				said(t, nc)
			} else if n, err := nc.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("%s: %d, %v", how, n, err)
			}
		}
	}
}

// Where no turn is free an upgrade waits without a goroutine: who comes back goes before who is new, and who waits for
// too long is told so. Others are served while they wait, and no turn is lost.
func TestSocketsWaitForTheirTurn(t *testing.T) {
	var holder *http.Request
	var held net.Conn
	var mu sync.Mutex
	var order []string
	var late atomic.Int32
	took := takes(t)
	g, addr := atTheGate(t, 1, time.Minute, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch name := r.Header.Get("Name"); {
		case name == "holder":
			if !TakeTurn(r, false) {
				t.Error("the first one has no turn")
			}
			holder = r
			held, _ = w.(*Upgrading).Take()
			return
		case !TakeTurn(r, true):
			late.Add(1)
			w.WriteHeader(503)
			io.WriteString(w, "late\n")
			return
		default:
			order = append(order, name)
		}
		took(w, r)
	})
	connect := func(name, query string) net.Conn {
		nc := dial(t, addr)
		io.WriteString(nc, strings.Replace(strings.Replace(anUpgrade, "/ws", "/ws"+query, 1), "\r\n\r\n", "\r\nName: "+name+"\r\n\r\n", 1))
		return nc
	}
	waiting := func(n int) {
		t.Helper()
		for range 6000 {
			g.mu.Lock()
			now := len(g.returners) + len(g.newcomers)
			g.mu.Unlock()
			if now == n {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatalf("never %d waited", n)
	}
	hold := func() {
		t.Helper()
		connect("holder", "")
		for range 6000 {
			mu.Lock()
			has := holder != nil
			mu.Unlock()
			if has {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatal("nobody has the turn")
	}
	release := func() {
		mu.Lock()
		defer mu.Unlock()
		EndTurn(holder)
		held.Close()
		holder = nil
	}

	// The order: retried where a busy machine lets them be late.
	for try := 0; ; try++ {
		hold()
		late.Store(0)
		order = nil
		var all []net.Conn
		for i, query := range []string{"", "", "?back", "?back"} {
			all = append(all, connect(fmt.Sprint(i), query))
			if late.Load() == 0 {
				waiting(i + 1)
			}
		}
		quick := dial(t, addr)
		io.WriteString(quick, "q\n")
		hears(t, quick, "to q\n")
		release()
		for _, nc := range all {
			nc.Read(make([]byte, 1))
		}
		if mu.Lock(); late.Load() == 0 {
			if !slices.Equal(order, []string{"2", "3", "0", "1"}) {
				t.Errorf("they went in the order %v", order)
			}
			mu.Unlock()
			break
		}
		mu.Unlock()
		if try == 20 {
			t.Fatal("they were always too late")
		}
	}

	// Too late.
	hold()
	for _, nc := range []net.Conn{connect("a", ""), connect("b", "?back")} {
		if got := said(t, nc); got != "HTTP/1.1 503 Service Unavailable\r\n" {
			t.Errorf("who waits for too long gets %q", got)
		}
	}
	waiting(0)
	release()
	said(t, connect("c", ""))
}

// Who says whether an upgrade is Quick's may panic, or end the goroutine, as who serves it may: that closes the one
// connection.
func TestSocketsOutliveWhoChooses(t *testing.T) {
	held := make(chan *http.Request, 1)
	took := takes(t)
	_, addr := atTheGate(t, 1, time.Minute, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "hold" {
			TakeTurn(r, false)
			nc, _ := w.(*Upgrading).Take()
			nc.Close()
			held <- r
			return
		}
		took(w, r)
	})
	for _, waits := range []bool{false, true} {
		connect := func(how string) net.Conn {
			nc := dial(t, addr)
			if waits {
				time.Sleep(20 * time.Millisecond)
			}
			io.WriteString(nc, strings.Replace(anUpgrade, "/ws", "/ws"+how, 1))
			return nc
		}
		ends := func(how string) {
			t.Helper()
			if n, err := connect(how).Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %d, %v", how, n, err)
			}
		}
		ends("?panic-choosing")
		ends("?exit-choosing")
		connect("?hold")
		r := <-held
		ends("?panic-waiting")
		ends("?exit-waiting")
		EndTurn(r)
		said(t, connect(""))
	}
}

// A panic behind Take leaves nobody who would close the connection.
func TestASocketOfWhoPanicsIsClosed(t *testing.T) {
	_, addr := atTheGate(t, 1, time.Minute, func(w http.ResponseWriter, r *http.Request) {
		defer EndTurn(r)
		TakeTurn(r, false)
		w.(*Upgrading).Take()
		panic("in an upgrade")
	})
	nc := dial(t, addr)
	io.WriteString(nc, anUpgrade)
	nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := nc.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d, %v; want the end", n, err)
	}
}

// A listener's socket may be another process's as well, who makes it block: then accepting takes a thread, and all else
// goes on.
func TestAListenerThatBlocks(t *testing.T) {
	if os.Getenv("HUBBUB_LISTENER_BLOCKS") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAListenerThatBlocks$")
		cmd.Env = append(os.Environ(), "HUBBUB_LISTENER_BLOCKS=1")
		stuck := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
		defer stuck.Stop()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { unix.SetNonblock(int(fd), false) })
	g := NewGate(l, 1000, 1, func() string { return "" }, slog.New(slog.DiscardHandler))
	g.Quick = &Quick{Head: time.Minute, Idle: time.Minute, Descriptors: true}
	go g.Accept()
	for range 3 {
		dial(t, l.Addr().String())
		time.Sleep(20 * time.Millisecond) // it is back in accept
		runtime.GC()                      // stops all that runs
	}
}

// Who has made a listener says whether TCP's own keep-alive is on.
func TestTheKeepAliveOfAListener(t *testing.T) {
	for name, tt := range map[string]struct {
		listen func() (net.Listener, error)
		want   int
	}{
		"of package net": {func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }, 1},
		"ours":           {func() (net.Listener, error) { return Listen("127.0.0.1:0") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := tt.listen()
			if err != nil {
				t.Fatal(err)
			}
			g := NewGate(l, 1000, 1, func() string { return "" }, slog.New(slog.DiscardHandler))
			g.Quick = &Quick{Head: time.Minute, Idle: time.Minute, Descriptors: true}
			defer g.Close()
			io.WriteString(dial(t, l.Addr().String()), "x")
			nc, err := g.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer g.drop(nc)
			raw, err := nc.(*arrival).Conn.(syscall.Conn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			raw.Control(func(fd uintptr) {
				if got, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE); got != tt.want || err != nil {
					t.Errorf("keep-alive is %d, %v; want %d", got, err, tt.want)
				}
			})
		})
	}
}

// A link's address has the link's name, as package net gives it.
func TestTheZoneOfAnAddress(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		addr, want string
		zone       uint32
	}{
		{"fe80::1", "fe80::1%lo", uint32(lo.Index)}, {"fe80::1", "fe80::1%999999", 999999}, {"::1", "::1", 0}, {"::ffff:127.0.0.1", "127.0.0.1", 0},
	} {
		if got := inZone(netip.MustParseAddr(tt.addr), tt.zone).String(); got != tt.want {
			t.Errorf("%s in zone %d is %s, want %s", tt.addr, tt.zone, got, tt.want)
		}
	}
}
