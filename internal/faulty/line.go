package faulty

import (
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// lines lead clients to a server that may change, and break: after so many bytes, or they stand still and break later.
type lines struct {
	l   net.Listener
	all sync.WaitGroup

	mu     sync.Mutex // what is below
	random *rand.Rand
	behind string // the server's address, "" while there is none
	calm   bool   // nothing breaks any more
	open   map[*line]bool
	cuts   int
	stalls int
}

// line is one of them.
type line struct {
	near, far net.Conn

	mu    sync.Mutex // what is below
	left  int        // bytes that it still carries, both ways together
	still chan struct{}
}

func startLines(t testing.TB, seed uint64) *lines {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &lines{l: l, random: rand.New(rand.NewPCG(seed, 1)), open: map[*line]bool{}}
	p.all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			p.all.Go(func() { p.carry(near) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.all.Wait()
	})
	return p
}

func (p *lines) url() string { return "ws://" + p.l.Addr().String() + "/ws" }

// lead has new lines lead to another server, or to none, and cuts those that are there.
func (p *lines) lead(address string, cut bool) {
	p.mu.Lock()
	p.behind = address
	p.mu.Unlock()
	if cut {
		p.cut()
	}
}

func (p *lines) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.open {
		l.end()
	}
}

// calmDown has nothing break any more, but for what is under way.
func (p *lines) calmDown() {
	p.mu.Lock()
	p.calm = true
	p.mu.Unlock()
	p.cut()
}

// counts are how many lines were cut, and how many stood still.
func (p *lines) counts() (cuts, stalls int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts, p.stalls
}

// carry carries a client's line to the server, until either ends it or its fate does.
func (p *lines) carry(near net.Conn) {
	p.mu.Lock()
	behind := p.behind
	p.mu.Unlock()
	if behind == "" {
		near.Close()
		return
	}
	far, err := net.Dial("tcp", behind)
	if err != nil {
		near.Close()
		return
	}
	l := &line{near: near, far: far, left: 1 << 50, still: make(chan struct{})}
	p.mu.Lock()
	p.open[l] = true
	fate := p.fate(l)
	p.mu.Unlock()
	var ways sync.WaitGroup
	ways.Go(func() { p.copy(l, far, near) })
	ways.Go(func() { p.copy(l, near, far) })
	ways.Wait()
	if fate != nil {
		fate.Stop()
	}
	p.mu.Lock()
	delete(p.open, l)
	p.mu.Unlock()
}

// fate draws what becomes of a line. p.mu is held.
func (p *lines) fate(l *line) *time.Timer {
	if p.calm {
		return nil
	}
	switch p.random.IntN(10) {
	case 0:
		l.left = p.random.IntN(400) // in the handshake
	case 1, 2:
		return time.AfterFunc(time.Duration(p.random.IntN(3000))*time.Millisecond, func() {
			p.mu.Lock()
			p.stalls++
			p.mu.Unlock()
			l.stall()
		})
	default:
		l.left = 400 + p.random.IntN(20_000)
	}
	return nil
}

func (p *lines) copy(l *line, to, from net.Conn) {
	defer l.end()
	for b := make([]byte, 16<<10); ; {
		n, err := from.Read(b)
		carried, broke := l.takes(n)
		if carried > 0 {
			to.Write(b[:carried])
		}
		if broke {
			p.mu.Lock()
			p.cuts++
			p.mu.Unlock()
		}
		if err != nil || broke {
			return
		}
	}
}

// takes says how many of n bytes a line carries, once it doesn't stand still, and whether it breaks then.
func (l *line) takes(n int) (carried int, broke bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.still:
		return 0, false // swallowed: neither end hears anything
	default:
	}
	if carried = min(n, l.left); carried < n || l.left == 0 {
		l.left = 0
		return carried, true
	}
	l.left -= n
	return carried, false
}

// stall has a line carry nothing any more, though it seems open.
func (l *line) stall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.still:
	default:
		close(l.still)
	}
}

func (l *line) end() {
	l.near.Close()
	l.far.Close()
}
