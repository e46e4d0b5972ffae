package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"sync"
	"time"
)

const (
	// spareFiles is what the process opens beside its connections.
	spareFiles = 64
	// interruptedDrain is how long what is under way is waited for when the run was ended early.
	interruptedDrain = time.Second
)

// runner is one run. Its methods belong to the goroutine of Run.
type runner struct {
	o      Options
	url    *url.URL
	clock  clock
	run    string // its id
	d      *dialer
	server process
	result *Result
	// The measured time lies between them.
	before, after sample

	// For report, which has a goroutine of its own.
	mu     sync.Mutex
	status func() Status // what the phase has to say
	phase  string
	ends   int64 // when the phase does; 0: not known
}

// Run does what o says and blocks until that is done, or until soon after ctx has ended: then the result holds what
// there was until then. An error says that it could not begin: an option that can't be, no server, too few files. What
// went wrong later is in the result.
func Run(ctx context.Context, o Options) (*Result, error) {
	o = o.withDefaults()
	u, err := o.parseURL()
	if err := errors.Join(o.validate(), err); err != nil {
		return nil, &OptionsError{err}
	}
	if err := checkFiles(&o, openFiles()); err != nil {
		return nil, err
	}
	var id [runSize / 2]byte
	rand.Read(id[:]) // never fails
	r := &runner{o: o, url: u, clock: clock{time.Now()}, run: hex.EncodeToString(id[:])}
	f, err := newFleet(&r.o, r.run, r.clock) // before anything is opened: it checks the templates
	if err != nil {
		return nil, &OptionsError{err}
	}
	if r.d, err = newDialer(ctx, &r.o, u); err != nil {
		return nil, err
	}
	f.d = r.d
	r.result = newResult(&r.o, u)
	if r.server, err = findServer(r.d.addr); o.ServerPID > 0 {
		r.server, err = process{pids: []int{o.ServerPID}}, nil
	}
	if err != nil {
		r.result.ServerUnknown = err.Error()
	}
	stop := r.report()
	defer stop()
	if o.Mode == Connect {
		r.connect(ctx)
	} else {
		r.hold(ctx, f)
	}
	return r.result, nil
}

// checkFiles says whether the connections fit under the limit of open files.
func checkFiles(o *Options, limit uint64) error {
	n := o.Conns
	if o.Mode == Connect {
		n = o.Concurrency
	}
	if need := uint64(n) + spareFiles; need > limit {
		return fmt.Errorf("%s connections need %s open files, the limit is %s; raise it (ulimit -n, or nofile in limits.conf) or use fewer connections", group(int64(n)), group(int64(need)), group(int64(limit)))
	}
	return nil
}

// hold opens connections, has the load use them, and closes them.
func (r *runner) hold(ctx context.Context, f *fleet) {
	res := r.result
	switch r.o.Mode {
	case Echo:
		l := newEcho(f)
		f.load, f.again = l, l.again
	case Fanout:
		f.load = newFanout(f)
	}
	memory, known := r.server.memory()
	heap := r.heap(ctx)
	defer f.close()

	r.enter("connecting", 0, func() Status { return Status{Done: f.joined.Load(), Errors: f.troubles()} })
	err := f.open(ctx)
	f.mu.Lock()
	res.Handshakes = newHandshakes(f.handshakes, f.openedIn)
	f.mu.Unlock()
	if err == nil {
		r.enter("settling", r.clock.now()+int64(r.o.Settle), func() Status { return Status{Done: f.live.Load(), Errors: f.troubles()} })
		err = f.rest(ctx, r.o.Settle)
	}
	if len(r.server.pids) > 0 && !known {
		res.ServerUnknown = fmt.Sprintf("there is no process %d that may be looked at", r.server.pids[0])
	}
	if known {
		res.Server = &Server{PIDs: r.server.pids, MemoryBefore: memory, HeapBefore: heap}
		res.Server.MemoryConnected, _ = r.server.memory()
	}
	if err == nil {
		err = r.load(ctx, f)
	}
	tail := true
	if f.load != nil {
		f.load.stop()
		tail = r.drain(ctx, f)
	}
	if s := res.Server; s != nil {
		s.MemoryEnd, _ = r.server.memory()
		s.HeapEnd = r.heap(ctx)
		s.perConnection(f.opened.Load())
	}
	res.ended(ctx, err)
	r.judge(f, tail)
	res.Published, res.Delivered = r.after.published-r.before.published, r.after.delivered-r.before.delivered
	res.ReceivedBytes = r.after.bytes - r.before.bytes
	r.finish(&f.pacer, res.Delivered)
}

// load drives the load, and measures it after the warm-up.
func (r *runner) load(ctx context.Context, f *fleet) error {
	delivered := func() Status {
		h := newHistogram()
		c := f.stats.sum(h)
		return Status{Done: c.delivered, P50: time.Duration(h.ValueAtQuantile(50)), P99: time.Duration(h.ValueAtQuantile(99)), Errors: f.troubles()}
	}
	if f.load == nil {
		r.enter("holding", r.clock.now()+int64(r.o.Duration), func() Status { return Status{Done: f.live.Load(), Errors: f.troubles()} })
		r.before = r.sample(f)
		err := f.rest(ctx, r.o.Duration)
		r.after = r.sample(f)
		return err
	}
	if r.o.Warmup > 0 {
		from := r.clock.now()
		until := from + int64(r.o.Warmup)
		r.enter("warming up", until, delivered)
		f.load.drive(ctx, from, until)
	}
	f.pacer.late.Reset()
	f.pacer.full, f.pacer.held = 0, 0
	r.before = r.sample(f)
	f.stats.from.Store(r.before.at)
	until := r.before.at + int64(r.o.Duration)
	r.enter("measuring", until, delivered)
	f.load.drive(ctx, r.before.at, until)
	r.after = r.sample(f)
	if ctx.Err() == nil && r.clock.now() < until {
		// The last connections may be about to break.
		if err := f.rest(ctx, closeWait/4); err != nil {
			return err
		}
		return errors.New("nobody is left to publish, or to receive")
	}
	select {
	case <-f.gone:
		return errGone
	default:
	}
	return ctx.Err()
}

// drain waits for what is under way. It says whether what has not come by then is lost.
func (r *runner) drain(ctx context.Context, f *fleet) bool {
	wait := r.o.Drain
	if ctx.Err() != nil {
		wait = min(wait, interruptedDrain)
	}
	r.enter("waiting for what is under way", 0, func() Status { return Status{Done: f.stats.sum(nil).delivered, Errors: f.troubles()} })
	began := r.clock.now()
	last, delivered := began, int64(-1)
	for now := began; f.load.underWay() > 0 && now-last < int64(wait) && now-began < 10*int64(wait); now = r.clock.now() {
		if f.rest(context.WithoutCancel(ctx), 2*time.Millisecond) != nil {
			break
		}
		if c := f.stats.sum(nil); c.delivered != delivered {
			last, delivered = now, c.delivered
		}
	}
	return ctx.Err() == nil || f.load.underWay() == 0
}

// judge puts into the result what came, and what went wrong.
func (r *runner) judge(f *fleet, tail bool) {
	h := newHistogram()
	c := f.stats.sum(h)
	faults := &r.result.Faults
	faults.Damaged, faults.Stray, faults.Errors = c.damaged, c.stray, c.errors
	if f.load != nil {
		f.load.judge(faults, tail)
		r.result.Latency = newLatency(h)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	faults.Broken, faults.Failed, faults.First = f.broken, f.failed, f.firstFault
}

// sample is what is known at one moment.
type sample struct {
	at         int64
	delivered  int64
	published  int64
	bytes      int64
	server     time.Duration // processor time; -1: not known
	self       time.Duration
	idle, busy time.Duration // of the machine; both 0: not known
	procs      int
}

// sample looks at everything. f is nil where there is no fleet.
func (r *runner) sample(f *fleet) sample {
	s := sample{at: r.clock.now(), server: -1, self: -1, procs: runtime.GOMAXPROCS(0)}
	if f != nil {
		c := f.stats.sum(nil)
		s.delivered, s.bytes, s.published = c.delivered, c.bytes, f.published.Load()
	}
	if t, ok := r.server.cpu(); ok {
		s.server = t
	}
	if t, ok := selfCPU(); ok {
		s.self = t
	}
	s.idle, s.busy, _ = machineIdle()
	return s
}

// enter begins a phase; status is called by the goroutine of report.
func (r *runner) enter(phase string, ends int64, status func() Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase, r.ends, r.status = phase, ends, status
}

// Status is how far a run is.
type Status struct {
	Phase    string
	Left     time.Duration // of the phase; 0: not known
	Done     int64         // connections, messages or handshakes, by the phase
	Of       int64         // how many there will be; 0: not known
	Rate     float64       // of Done, a second, since the last Status
	P50, P99 time.Duration // latencies so far; 0: none
	Errors   int64         // what went wrong so far
}

// report calls Progress until stop, which waits for its last call.
func (r *runner) report() (stop func()) {
	if r.o.Progress == nil {
		return func() {}
	}
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(r.o.ProgressEvery)
		defer tick.Stop()
		var last Status
		at := r.clock.now()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
			}
			r.mu.Lock()
			status, phase, ends := r.status, r.phase, r.ends
			r.mu.Unlock()
			if status == nil {
				continue
			}
			now := r.clock.now()
			s := status()
			s.Phase = phase
			if ends > now {
				s.Left = time.Duration(ends - now)
			}
			if phase == "connecting" || phase == "settling" || phase == "holding" {
				s.Of = int64(r.o.Conns)
			}
			if phase == last.Phase || last.Phase == "warming up" { // which count the same
				s.Rate = float64(s.Done-last.Done) / time.Duration(now-at).Seconds()
			}
			last, at = s, now
			r.o.Progress(s)
		}
	}()
	return func() { close(ended); <-done }
}
