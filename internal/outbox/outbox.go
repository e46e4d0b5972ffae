package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/sparselog"
	"example.com/hubbub/internal/tracing"
	"example.com/hubbub/internal/webhook"
)

// Config is what an Outbox needs. All must be set, but Dir.
type Config struct {
	Target
	Node   string          // the name of this node
	Dir    string          // the folder where events wait, this process's alone; "" is memory
	Tracer *tracing.Tracer // of the requests with messages that are traced; nil for none
	Log    *slog.Logger

	limits limits
}

// Target is where which events go. Immutable.
type Target struct {
	URL     string // webhook.CheckURL has looked
	Secrets webhook.Secrets
	Events  Selection
}

// limits are the bounds and times of an outbox; zero is the default.
type limits struct {
	fresh                      int64 // bytes of what is not written yet, and as much again that is just being written
	memory, disk               int64 // bytes of what waits to be sent
	memorySegment, diskSegment int64
	firstRetry, lastRetry      time.Duration
	timeout                    time.Duration // of a request
	giveUp                     time.Duration // age of an event
	tend                       time.Duration // between two looks at the disk
	drain                      time.Duration // at the end

	create func(path string) (file, error)
	log    *slog.Logger
}

func (l limits) withDefaults() limits {
	for _, n := range []struct {
		value *int64
		def   int64
	}{{&l.fresh, 8 << 20}, {&l.memory, 32 << 20}, {&l.disk, 256 << 20}, {&l.memorySegment, 256 << 10}, {&l.diskSegment, 4 << 20}} {
		if *n.value == 0 {
			*n.value = n.def
		}
	}
	for _, t := range []struct {
		value *time.Duration
		def   time.Duration
	}{{&l.firstRetry, 500 * time.Millisecond}, {&l.lastRetry, 30 * time.Second}, {&l.timeout, 15 * time.Second}, {&l.giveUp, 24 * time.Hour}, {&l.tend, time.Second}, {&l.drain, 10 * time.Second}} {
		if *t.value == 0 {
			*t.value = t.def
		}
	}
	if l.create == nil {
		l.create = func(path string) (file, error) {
			return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
		}
	}
	return l
}

// Outbox holds what the backend is to be told and tells it, in one order, one request at a time. It is a hub.Sink.
type Outbox struct {
	// Static after Open.
	cfg    Config
	limits limits
	client *http.Client

	target  atomic.Pointer[Target] // where requests go that begin now, and what is told
	intake  intake
	wake    chan struct{} // something lies in intake
	closing chan struct{}
	closed  sync.Once
	until   context.Context // of the closing; set before closing is closed
	ended   chan struct{}
	stopped atomic.Bool // the backend wants no more
	figures figures

	// Owned by the outbox's goroutine from here on.
	spools  [classes]*spool
	cursor  cursor
	file    *cursorFile // nil without a disk
	batch   *batch      // what is to be sent now, or is under way
	posting bool        // it is under way
	due     time.Time   // when it is sent
	to      *Target     // the one that it was last seen to be
	url     string      // of that, as the log may have it
	answers chan answer
	cut     context.CancelFunc // of the request under way
	failing bool               // the disk does; what comes stays in memory
	unsaved bool               // something is not on the disk for sure
	tendAt  time.Time          // when the disk is looked at
	full    sparselog.Log
	traces  map[uint64]string // by stamp, the parents of events that wait and are traced; nil where there is none
}

// Open starts an Outbox, and has it tell that the node has started behind what an earlier process left in cfg.Dir. It
// reads that.
func Open(cfg Config) (*Outbox, error) {
	o := &Outbox{cfg: cfg, limits: cfg.limits.withDefaults(), wake: make(chan struct{}, 1), closing: make(chan struct{}), ended: make(chan struct{}), answers: make(chan answer, 1)}
	o.limits.log, o.intake.most = cfg.Log, o.limits.fresh
	o.client = newClient()
	o.Reload(cfg.Target)
	o.aim()
	o.cursor = newCursor()
	if cfg.Dir != "" {
		var err error
		if o.file, o.cursor, err = openCursor(cfg.Dir); err != nil {
			return nil, err
		}
	}
	for c := range o.spools {
		s, highest, err := openSpool(class(c), cfg.Dir, &o.limits, o.cursor.heads[c], o.cursor.ends[c])
		if err != nil {
			return nil, errors.Join(err, o.file.close())
		}
		o.spools[c], o.intake.stamp = s, max(o.intake.stamp, highest)
	}
	if o.file == nil {
		cfg.Log.Info("webhooks wait in memory, which ends with the process; --data-dir keeps them on disk", "url", o.url, "most_bytes", o.limits.memory)
	} else {
		cfg.Log.Info("webhooks wait on disk", "url", o.url, "dir", cfg.Dir, "waiting", o.waiting(), "most_bytes", o.limits.disk)
	}
	if o.cursor.pending > 0 {
		o.compose() // before anything comes that could push it out
	}
	o.add(fresh{kind: nodeStarted, time: time.Now().UnixMilli()})
	go o.run()
	return o, nil
}

// Reload has what waits, and what comes, go to another target: signed by its secrets, and at once, however long the one before
// has taken nothing. A request that is under way goes where it went. Any goroutine; doesn't block.
func (o *Outbox) Reload(t Target) {
	o.target.Store(&t)
	o.rouse()
}

// aim notes that the target is another one.
func (o *Outbox) aim() {
	to := o.target.Load()
	if to == o.to {
		return
	}
	was := o.to
	o.to, o.url = to, auth.PublicURL(to.URL)
	if was == nil {
		return
	}
	o.due = time.Time{}
	if was.URL != to.URL && o.stopped.Swap(false) {
		o.add(fresh{kind: nodeStarted, time: time.Now().UnixMilli()}) // it has missed what happened
	}
}

// Close takes no more events, and goes on sending until none is left, ctx ends, or 10 s have passed; with a disk until
// the first request fails. What is left then stays on the disk; of what is in memory alone it logs how much is lost.
func (o *Outbox) Close(ctx context.Context) {
	o.closed.Do(func() {
		o.intake.close()
		var cancel context.CancelFunc
		o.until, cancel = context.WithTimeout(ctx, o.limits.drain)
		defer cancel()
		close(o.closing)
		<-o.ended
	})
}

// run is the outbox's goroutine.
func (o *Outbox) run() {
	defer close(o.ended)
	defer o.client.CloseIdleConnections()
	var over <-chan struct{}
	closing, tried := o.closing, false
	for {
		o.aim()
		o.store()
		o.tend(time.Now())
		if o.batch == nil {
			o.compose()
		}
		switch {
		case over != nil && (o.batch == nil || tried && o.file != nil):
			o.end()
			return
		case o.batch != nil && !o.posting && !time.Now().Before(o.due):
			o.post()
		}
		o.figures.note(o)
		timer := time.NewTimer(o.wait())
		select {
		case <-o.wake:
		case <-timer.C:
		case a := <-o.answers:
			o.answered(a)
			tried = over != nil && a.err != nil
		case <-closing:
			closing, over, o.due = nil, o.until.Done(), time.Time{}
		case <-over:
			o.end()
			return
		}
		timer.Stop()
	}
}

// wait is how long nothing has to be done unless something happens.
func (o *Outbox) wait() time.Duration {
	wait := time.Hour
	if o.batch != nil && !o.posting {
		wait = min(wait, time.Until(o.due))
	}
	if o.unsaved || o.failing {
		wait = min(wait, time.Until(o.tendAt))
	}
	return max(0, wait)
}

// store writes what has come into the spools.
func (o *Outbox) store() {
	all, dropped, tooLarge := o.intake.take()
	o.drop(dropped, tooMany)
	o.drop(tooLarge, tooMuch)
	if s := o.spools[states]; dropped != [kinds]int64{messagePublished: dropped[messagePublished]} && len(s.segments) > 0 {
		o.dropTo(s, s.next-1) // it is older, see dropOldest
	}
	for c, q := range all {
		var b []byte
		var of []outline
		for _, p := range q {
			for i := range p {
				at := len(b)
				b = appendRecord(b, &p[i])
				if len(b)-at > maxEvent || o.stopped.Load() {
					b = b[:at]
					var one [kinds]int64
					one[p[i].kind] = 1
					o.drop(one, tooMuch)
					continue
				}
				of = append(of, outline{len(b) - at, p[i].kind})
				if m := p[i].message; m != nil && m.Trace != nil {
					o.trace(p[i].stamp, *m.Trace)
				}
				if len(b) >= writeAtOnce {
					o.write(class(c), b, of)
					b, of = b[:0], of[:0]
				}
			}
			runtime.Gosched() // workers go first
		}
		if len(of) > 0 {
			o.write(class(c), b, of)
		}
	}
	o.intake.written()
}

// writeAtOnce is how many bytes of records are written with one call, at most one record more.
const writeAtOnce = 256 << 10

// write writes records to a spool: to memory where the disk fails.
func (o *Outbox) write(c class, b []byte, of []outline) {
	s := o.spools[c]
	n, err := s.append(b, of, o.failing)
	if err != nil {
		o.diskFails(err)
		for _, r := range of[:n] {
			b = b[r.size:]
		}
		_, _ = s.append(b, of[n:], true) // memory takes all
	}
	o.unsaved = o.file != nil
	o.bound()
}

// Why events are dropped.
const (
	tooMany = "too many wait: the oldest go"
	tooMuch = "an event has more than 4 MiB"
)

// bound drops the oldest of what waits where there is too much, states first: the backend can ask how things are.
func (o *Outbox) bound() {
	for {
		disk, memory := o.bytes()
		inMemory := memory > o.limits.memory
		if !inMemory && disk <= o.limits.disk || !o.dropOldest(inMemory) {
			return
		}
	}
}

// dropOldest drops a segment that is in memory, or one that is on the disk; of states also all that is older, wherever
// it is: the backend reads the snapshot when it is told, and what is older would change that back. It is false where
// there is nothing but what is under way.
func (o *Outbox) dropOldest(memory bool) bool {
	for _, s := range o.spools[:starts] {
		number, ok := s.oldest(memory, o.underWay(s))
		switch {
		case !ok:
			continue
		case s.class == states:
			o.dropTo(s, number)
		default:
			o.drop(s.drop(number, number, o.batch), tooMany)
		}
		return true
	}
	return false
}

// dropTo drops all of a spool up to a segment, but for what is under way.
func (o *Outbox) dropTo(s *spool, number uint64) {
	o.drop(s.drop(0, number, o.batch), tooMany)
	o.goOnBehind(s, number)
}

// goOnBehind has what is told next of a spool begin behind a segment.
func (o *Outbox) goOnBehind(s *spool, number uint64) {
	to := place{number + 1, 0}
	if o.batch != nil {
		o.batch.ends[s.class] = to
		return
	}
	s.head, o.cursor.heads[s.class] = to, to
}

// underWay is the segment up to which events may be under way.
func (o *Outbox) underWay(s *spool) uint64 {
	if o.batch != nil {
		return max(s.head.segment, o.batch.ends[s.class].segment)
	}
	return s.head.segment
}

func (o *Outbox) bytes() (disk, memory int64) {
	for _, s := range o.spools {
		d, m := s.bytes()
		disk, memory = disk+d, memory+m
	}
	return disk, memory
}

// drop counts what was dropped, which the next request says.
func (o *Outbox) drop(left [kinds]int64, why string) {
	n := int64(0)
	for k, left := range left {
		o.cursor.dropped[k] += left
		o.figures.dropped[k].Add(left)
		n += left
	}
	o.unsaved = o.unsaved || n > 0 && o.file != nil
	if n > 0 && !o.stopped.Load() {
		o.full.Log(o.cfg.Log, slog.LevelWarn, "webhooks are dropped, and the backend is told how many", "why", why, "url", o.url, "dropped", n)
	}
}

// lost is told of a segment that can't be read any more, but for what was read of it into a batch, if there is one.
func (o *Outbox) lost(g *segment, into *batch) {
	gone, stays := g.left, into.in(g)
	for k, n := range stays {
		gone[k] -= n
	}
	n := g.events()
	g.left = stays
	o.cfg.Log.Error("webhooks on the disk can't be read", "file", g.path, "events", n-g.events())
	o.drop(gone, "the disk has lost them")
}

// waiting is how many events are in the spools.
func (o *Outbox) waiting() (n int64) {
	for _, s := range o.spools {
		for _, g := range s.segments {
			n += g.events()
		}
	}
	return n
}

// diskFails has what comes stay in memory.
func (o *Outbox) diskFails(err error) {
	if !o.failing {
		o.cfg.Log.Error("the disk takes no webhooks: they stay in memory until it does", "dir", o.cfg.Dir, "err", err, "most_bytes", o.limits.memory)
	}
	o.failing = true
	o.tendAt = time.Now().Add(o.limits.tend)
}

// tend has what was written lie on the disk for sure, and tries whether a disk that has failed works again.
func (o *Outbox) tend(now time.Time) {
	if !(o.unsaved || o.failing) || now.Before(o.tendAt) {
		return
	}
	o.tendAt = now.Add(o.limits.tend)
	if o.failing {
		for _, s := range o.spools {
			if err := s.toDisk(); err != nil {
				o.cfg.Log.Debug("the disk takes no webhooks still", "dir", o.cfg.Dir, "err", err)
				return
			}
		}
	}
	if o.save() && o.failing {
		o.failing = false
		o.cfg.Log.Info("the disk takes webhooks again", "dir", o.cfg.Dir)
	}
}

// save has all of the outbox survive a loss of power, but for what is in memory, and removes what isn't needed then.
func (o *Outbox) save() bool {
	if o.file != nil {
		var errs []error
		for _, s := range o.spools {
			errs = append(errs, s.sync())
		}
		errs = append(errs, o.file.write(&o.cursor))
		if err := errors.Join(errs...); err != nil {
			o.diskFails(err)
			for _, s := range o.spools {
				s.forget()
			}
			return false
		}
		o.unsaved = false
	}
	for _, s := range o.spools {
		s.trim()
	}
	return true
}

// end cuts a request that is under way off, and leaves what there is on the disk.
func (o *Outbox) end() {
	if o.posting {
		o.cut()
		if a := <-o.answers; a.err == nil {
			o.answered(a)
		}
	}
	o.store()
	left, where := o.waiting(), "on the disk"
	if o.file == nil {
		where = "nowhere: they are lost"
	} else if o.failing {
		o.tendAt = time.Time{}
		o.tend(time.Now())
		if o.failing {
			where = "in part nowhere: the disk takes no more"
		}
	}
	if o.save(); left > 0 {
		o.cfg.Log.Warn("webhooks are left that the backend was not told", "url", o.url, "events", left, "kept", where)
	}
	for _, s := range o.spools {
		for _, g := range s.segments {
			if err := g.end(); err != nil {
				o.cfg.Log.Error("the outbox for webhooks can't be closed", "file", g.path, "err", err)
			}
		}
	}
	_ = o.file.close()
	o.figures.note(o)
}

// Unsettled says what is still counted though the outbox is closed: a fault of Hubbub's own.
func (o *Outbox) Unsettled() []string {
	if n := o.intake.waiting(); n != 0 {
		return []string{fmt.Sprintf("%d bytes of webhooks that are not written", n)}
	}
	return nil
}
