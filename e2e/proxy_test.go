package e2e

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy stands between clients and a server and breaks their connections.
type proxy struct {
	front  *server         // where clients dial
	behind string          // the server's address
	plan   func(n int) cut // what becomes of the nth connection; nil: it is left alone
	calm   chan struct{}   // closed: nothing is cut any more, and what is half cut ends at once
	away   atomic.Bool     // whoever dials is hung up on
	all    sync.WaitGroup

	mu    sync.Mutex
	links map[*link]bool
	cuts  map[string]int // how many of each kind took place
}

// cut is what befalls a connection.
type cut struct {
	kind    string
	after   time.Duration // from its beginning
	limited bool          // only so many bytes still pass in one direction, and what comes after them is swallowed
	up      bool          // that direction: to the server
	bytes   int64
	silence time.Duration // between the last of these bytes and the end
	end     ending
	late    time.Duration // clientFirst: how much later the server hears of it
}

type ending int

const (
	clean ending = iota // FIN to both sides, once all that was sent has passed
	reset
	clientFirst // reset for the client, while the server believes it still there
)

// startProxy carries connections to a server until the test ends.
func startProxy(t *testing.T, s *server, plan func(n int) cut) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{front: &server{addr: l.Addr().String()}, behind: s.addr, plan: plan, calm: make(chan struct{}), links: map[*link]bool{}, cuts: map[string]int{}}
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for n := 0; ; n++ {
			client, err := l.Accept()
			if err != nil {
				return
			}
			if p.away.Load() {
				client.Close()
				continue
			}
			server, err := net.Dial("tcp", p.behind)
			if err != nil {
				t.Errorf("the proxy's connection %d: %v", n, err)
				client.Close()
				continue
			}
			k := &link{client: client.(*net.TCPConn), server: server.(*net.TCPConn)}
			k.up.spent, k.down.spent = make(chan struct{}), make(chan struct{})
			p.mu.Lock()
			p.links[k] = true
			p.mu.Unlock()
			p.all.Go(func() { p.carry(n, k) })
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-accepting
		p.each((*link).close)
		p.all.Wait()
	})
	return p
}

func (p *proxy) each(do func(*link)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range p.links {
		do(k)
	}
}

// drop ends all connections, without a Close of WebSocket's.
func (p *proxy) drop() { p.each((*link).finish) }

// cutOff drops all, and lets nobody in until away is false again.
func (p *proxy) cutOff() {
	p.away.Store(true)
	p.drop()
}

// carry serves the nth connection until it has ended, by a cut or by itself.
func (p *proxy) carry(n int, k *link) {
	var ways sync.WaitGroup
	ways.Go(func() { k.copy(k.server, k.client, &k.up) })
	ways.Go(func() { k.copy(k.client, k.server, &k.down) })
	ended := make(chan struct{})
	go func() {
		ways.Wait()
		close(ended)
	}()
	if p.plan != nil {
		c := p.plan(n)
		select {
		case <-ended:
		case <-p.calm:
		case <-time.After(c.after):
			p.mu.Lock()
			p.cuts[c.kind]++
			p.mu.Unlock()
			k.cut(c, p.calm)
		}
	}
	<-ended
	k.close()
	p.mu.Lock()
	delete(p.links, k)
	p.mu.Unlock()
}

// tally says how many connections were cut, and how.
func (p *proxy) tally() (n int, kinds string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var each []string
	for _, kind := range slices.Sorted(maps.Keys(p.cuts)) {
		each = append(each, fmt.Sprintf("%s %d", kind, p.cuts[kind]))
		n += p.cuts[kind]
	}
	return n, strings.Join(each, ", ")
}

// awaitCut waits until one more connection is cut.
func (p *proxy) awaitCut(t *testing.T) {
	t.Helper()
	before, _ := p.tally()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if n, _ := p.tally(); n > before {
			return
		}
	}
	t.Fatal("no connection is cut")
}

// link is one connection through the proxy.
type link struct {
	client, server *net.TCPConn
	up, down       way
	apart          atomic.Bool // the end of one side is not told to the other
}

// way is one direction.
type way struct {
	mu      sync.Mutex
	limited bool
	left    int64         // bytes that still pass, where it is limited
	spent   chan struct{} // closed when none is left
}

func (w *way) limit(bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limited, w.left = true, bytes
	if bytes == 0 {
		close(w.spent)
	}
}

// take is how many of n bytes pass.
func (w *way) take(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.limited {
		return n
	}
	pass := min(int64(n), w.left)
	if w.left -= pass; pass > 0 && w.left == 0 {
		close(w.spent)
	}
	return int(pass)
}

// copy carries one direction to its end. It goes on reading when nothing can be written any more: a connection that is
// closed over unread bytes is reset, and a clean end would be none.
func (k *link) copy(to, from *net.TCPConn, w *way) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if pass := w.take(n); pass > 0 {
			_, _ = to.Write(buf[:pass])
		}
		if err != nil {
			if !k.apart.Load() {
				if err == io.EOF {
					_ = to.CloseWrite()
				} else {
					k.reset()
				}
			}
			return
		}
	}
}

func (k *link) cut(c cut, calm <-chan struct{}) {
	if c.limited {
		w := &k.down
		if c.up {
			w = &k.up
		}
		w.limit(c.bytes)
		select {
		case <-w.spent:
			pause(c.silence, calm)
		case <-time.After(300*time.Millisecond + c.silence): // so little came
		case <-calm:
		}
	}
	switch c.end {
	case clean:
		k.finish()
	case reset:
		k.reset()
	case clientFirst:
		k.apart.Store(true)
		_ = k.client.SetLinger(0)
		k.client.Close()
		pause(c.late, calm)
		k.reset()
	}
}

func pause(d time.Duration, calm <-chan struct{}) {
	select {
	case <-time.After(d):
	case <-calm:
	}
}

func (k *link) finish() {
	_ = k.client.CloseWrite()
	_ = k.server.CloseWrite()
}

func (k *link) reset() {
	_ = k.client.SetLinger(0)
	_ = k.server.SetLinger(0)
	k.close()
}

func (k *link) close() {
	k.client.Close()
	k.server.Close()
}

// cutsAtRandom is a plan: every connection is cut, some in the handshake or just after it, most after seconds.
func cutsAtRandom(seed uint64) func(n int) cut {
	return func(n int) cut {
		rng := rand.New(rand.NewPCG(seed, uint64(n)))
		within := func(d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }
		c := cut{after: 200*time.Millisecond + within(5*time.Second), up: rng.IntN(2) == 0, end: ending(rng.IntN(2))}
		early := rng.IntN(3) == 0
		if early {
			c.after = within(10 * time.Millisecond)
		}
		switch rng.IntN(6) {
		case 0:
			c.kind, c.end = "clean", clean
		case 1:
			c.kind, c.end = "reset", reset
		case 2, 3:
			c.kind, c.limited, c.bytes = "torn", true, rng.Int64N(500)
			if early { // 0 to where what was missed follows, with the handshake's own bytes
				c.after, c.bytes = 0, rng.Int64N(1500)
			}
		case 4:
			c.kind, c.limited, c.silence, c.end = "swallowed", true, within(time.Second), reset
		case 5:
			c.kind, c.end, c.late = "client first", clientFirst, within(2*time.Second)
		}
		return c
	}
}
