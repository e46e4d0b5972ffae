package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"example.com/hubbub/internal/wsclient"
)

const (
	// hopeless is after how many failures in a row no more connections are tried.
	hopeless = 50
	// closeWait is how long the servers' answers to our Close are waited for.
	closeWait = 2 * time.Second
)

// load is what a mode does with connections that are open.
type load interface {
	// deliver takes a message that came to a connection, under the lock of its shard, and says whether it was the first
	// time.
	deliver(c *conn, m marker) bool
	// drive sends from one time on the run's clock, which has just passed, until another, until ctx ends or nobody is
	// there to send to. It returns at once then, whatever is under way.
	drive(ctx context.Context, from, until int64)
	// stop has nothing more sent.
	stop()
	// underWay is how many messages have not arrived everywhere.
	underWay() int64
	// judge adds what is wrong with what came. With tail, what has not come by now is lost.
	judge(f *Faults, tail bool)
}

// fleet is all connections of a run.
type fleet struct {
	// Static once connections are opened.
	o          *Options
	d          *dialer
	clock      clock
	run        string // the run's id
	payloads   *payloads
	inits      []template
	publish    template
	ready      []byte // nil: nothing is waited for
	failure    []byte // what an error message begins with; nil: unknown
	replies    map[string]string
	stats      *stats
	load       load        // nil: none
	again      func(*conn) // Echo: after a read that brought messages back
	pacer      pacer       // of the goroutine that drives the load
	bufferSize int

	conns     []*conn // by number; written by openers, each its own
	opened    atomic.Int64
	live      atomic.Int64
	joined    atomic.Int64
	published atomic.Int64
	openedIn  int64          // nanoseconds that opening took; Run's goroutine
	tasks     sync.WaitGroup // goroutines of connections
	gone      chan struct{}  // closed when the last connection broke

	mu         sync.Mutex
	broken     map[string]int // why, and how many
	failed     map[string]int
	firstFault string                  // the first failure in full, or the first error message
	handshakes *hdrhistogram.Histogram // how long opening took
}

// newFleet prepares; the templates are checked here.
func newFleet(o *Options, run string, k clock) (*fleet, error) {
	f := &fleet{
		o: o, clock: k, run: run, payloads: newPayloads(run, o.Size), stats: newStats(run, o.Compression), bufferSize: loadBuffer,
		conns: make([]*conn, o.Conns), gone: make(chan struct{}), replies: map[string]string{},
		broken: map[string]int{}, failed: map[string]int{}, handshakes: newHistogram(),
	}
	f.pacer = pacer{f: f, late: newHistogram()}
	if o.Mode == Idle {
		f.bufferSize = idleBuffer
	}
	for _, text := range o.Init {
		t, err := parseTemplate(text)
		if err != nil {
			return nil, fmt.Errorf("init: %w", err)
		}
		f.inits = append(f.inits, t)
	}
	var err error
	if f.publish, err = parseTemplate(o.Publish); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	if (o.Mode == Echo || o.Mode == Fanout) && !f.publish.has('p') {
		return nil, fmt.Errorf("publish: %q has no %%p, the payload by which a message is known again", o.Publish)
	}
	for _, r := range o.Reply {
		frame, answer, _ := strings.Cut(r, "=")
		f.replies[frame] = answer
	}
	if o.Ready != "" {
		f.ready = []byte(o.Ready)
	}
	if o.hubbub {
		f.failure = []byte(hubbubError)
	}
	return f, nil
}

// open opens all connections, some at a time, and waits until they have joined. Its error says why there are fewer.
func (f *fleet) open(ctx context.Context) error {
	var next, failures atomic.Int64
	start := f.clock.now()
	var openers sync.WaitGroup
	for range min(f.o.Concurrency, len(f.conns)) {
		openers.Go(func() {
			for ctx.Err() == nil && failures.Load() < hopeless {
				num := int(next.Add(1)) - 1
				if num >= len(f.conns) {
					return
				}
				began := f.clock.now()
				c, err := f.d.dial(ctx)
				if err != nil {
					if ctx.Err() == nil {
						failures.Add(1)
						f.fail(err)
					}
					continue
				}
				failures.Store(0)
				f.mu.Lock()
				record(f.handshakes, f.clock.now()-began)
				f.mu.Unlock()
				f.begin(num, c)
			}
		})
	}
	openers.Wait()
	f.openedIn = f.clock.now() - start
	switch n := f.opened.Load(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case n < int64(len(f.conns)):
		return fmt.Errorf("only %d of %d connections opened", n, len(f.conns))
	}
	return f.join(ctx)
}

// begin takes a connection that was opened.
func (f *fleet) begin(num int, d dialed) {
	c := &conn{f: f, num: num, tcp: d.tcp, nc: d.conn, deflate: d.deflate, shard: f.stats.shards[num%len(f.stats.shards)]}
	if f.o.Rooms > 0 {
		c.room = num % f.o.Rooms
	}
	if l, ok := f.load.(enlister); ok {
		l.enlist(c)
	}
	f.conns[num] = c
	f.tasks.Add(1)
	f.live.Add(1) // before opened: ended relies on it
	f.opened.Add(1)
	c.shard.mu.Lock()
	f.sendInits(c)
	c.shard.mu.Unlock()
	go c.run(d.rest)
}

// enlister is a load that gives each connection a part to play, before it reads.
type enlister interface{ enlist(c *conn) }

// sendInits sends the frames of Init, or with InitWait the next one, under the lock of the connection's shard.
func (f *fleet) sendInits(c *conn) {
	for c.inits < len(f.inits) {
		c.shard.composer.send(c, f.inits[c.inits], nil)
		c.inits++
		if f.o.InitWait {
			break
		}
	}
	c.flush()
	if f.ready == nil && c.inits == len(f.inits) {
		f.joins(c)
	}
}

func (f *fleet) joins(c *conn) {
	if !c.ready {
		c.ready = true
		f.joined.Add(1)
	}
}

// join waits until all connections have joined.
func (f *fleet) join(ctx context.Context) error {
	for end := f.clock.now() + int64(f.o.Timeout); ; {
		joined, all := f.joined.Load(), int64(len(f.conns))
		if joined == all {
			return nil
		}
		if f.clock.now() > end {
			return fmt.Errorf("only %d of %d connections have joined after %s: no frame with %s came", joined, all, f.o.Timeout, f.ready)
		}
		if err := f.rest(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

var errGone = errors.New("the server closed every connection")

// rest waits. Its error says that there is nothing more to wait for.
func (f *fleet) rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.gone:
		return errGone
	case <-t.C:
		return nil
	}
}

// message takes a message that came to a connection, under the lock of its shard.
func (f *fleet) message(c *conn, p []byte, now int64) {
	m, at, ok := f.payloads.find(p, c.hint)
	if !ok || f.load == nil {
		f.other(c, p)
		return
	}
	c.hint = at
	sh, from := c.shard, f.stats.from.Load()
	for ok {
		rest, intact := f.payloads.intact(p[at:])
		if !intact {
			sh.counts.damaged++
		}
		if f.load.deliver(c, m) {
			sh.counts.delivered++
			if m.due >= from {
				record(sh.latency, now-m.due)
			}
		}
		if len(rest) < markerSize {
			return
		}
		// Some servers put several messages into one frame.
		p = rest
		m, at, ok = f.payloads.find(p, 0)
	}
}

// other takes a frame that is no message of this run.
func (f *fleet) other(c *conn, p []byte) {
	c.shard.counts.others++
	if answer, ok := f.replies[string(p)]; ok {
		c.queue(wsclient.Text, []byte(answer))
		c.flush()
		return
	}
	if f.failure != nil && bytes.HasPrefix(p, f.failure) {
		c.shard.counts.errors++
		f.note("the server says " + string(p[:min(len(p), 300)]))
		return
	}
	f.sendInits(c)
	if f.ready != nil && bytes.Contains(p, f.ready) {
		f.joins(c)
	}
}

// note keeps the first of what went wrong.
func (f *fleet) note(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.firstFault == "" {
		f.firstFault = text
	}
}

// fail counts a connection that was not opened.
func (f *fleet) fail(err error) {
	f.note(err.Error())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed[reason(err)]++
}

// troubles is how much went wrong so far that is known at once.
func (f *fleet) troubles() (n int64) {
	c := f.stats.sum(nil)
	n = c.damaged + c.stray + c.errors
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range f.failed {
		n += int64(k)
	}
	for _, k := range f.broken {
		n += int64(k)
	}
	return n
}

// ended counts a connection that is over; wanted: by us.
func (f *fleet) ended(c *conn, wanted bool, err error) {
	if c.live != nil {
		c.live.Add(-1)
	}
	left := f.live.Add(-1)
	if wanted {
		return
	}
	f.mu.Lock()
	f.broken[endReason(err)]++
	f.mu.Unlock()
	if left == 0 && f.opened.Load() == int64(len(f.conns)) {
		close(f.gone)
	}
}

// close closes all connections and waits until their goroutines are gone.
func (f *fleet) close() {
	for _, c := range f.conns {
		if c != nil {
			c.close()
		}
	}
	done := make(chan struct{})
	go func() { f.tasks.Wait(); close(done) }()
	t := time.NewTimer(closeWait)
	defer t.Stop()
	select {
	case <-done:
		return
	case <-t.C:
	}
	for _, c := range f.conns {
		if c != nil {
			abandon(c.tcp)
		}
	}
	<-done
}
