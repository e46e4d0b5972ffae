package hub

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// runs bounds the hooks of all sessions together, and knows what a shutdown has to wait for. All but the first two are
// guarded by mu.
type runs struct {
	hub      *Hub
	connects chan struct{} // a place for each Connect that runs

	mu       sync.Mutex
	less     sync.Cond          // one of the numbers has become less
	n        int                // places of the other hooks that are taken
	waiting  int                // hooks that wait for a place, of all payers
	queued   []*payer           // whose hooks wait; they take turns
	nobody   payer              // of hooks that no client is the reason of
	asked    int                // calls of Connect whose outcome nobody has taken
	upgrades int                // handshakes under way, but for those that wait for such a call
	inside   int                // hooks that wait in WaitHooks themselves; the numbers above leave them out
	called   map[uint64]*caller // by goroutine, each that runs a hook
	last     map[ID]*run        // the last hook of a connection that is gone, until it has ended: who resumes its session comes behind it
}

// caller is a goroutine that runs a hook. Guarded by runs.mu.
type caller struct {
	of *int // the number that counts it
	r  *run // nil of a Connect
}

func (rs *runs) init(h *Hub) {
	rs.hub, rs.less.L, rs.called, rs.last = h, &rs.mu, map[uint64]*caller{}, map[ID]*run{}
	rs.connects = make(chan struct{}, h.cfg().HookLimit)
}

// start runs r on a goroutine, when the hooks of its session's connections before this one have ended, and there is a place. Never
// blocks.
func (rs *runs) start(r *run) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.startBehind(rs.last[r.s.id], r)
}

// startLast is startAfter for the last hook of a session's connection, behind which those of the next one come. last is nil where
// this one had none.
func (rs *runs) startLast(last, r *run) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if last == nil {
		last = rs.last[r.s.id]
	}
	rs.last[r.s.id] = r
	rs.startBehind(last, r)
}

// startAfter runs r when last has ended; at once when that is nil or has ended already.
func (rs *runs) startAfter(last, r *run) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.startBehind(last, r)
}

// due has a run begin that was held until now.
func (rs *runs) due(r *run) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r.awaits--; r.awaits == 0 {
		rs.startNow(r)
	}
}

// startBehind: mu is held, as for all that follow.
func (rs *runs) startBehind(last, r *run) {
	if last != nil && !last.ended {
		last.then = r
		r.awaits++
		r.answerLate()
	}
	if r.awaits == 0 {
		rs.startNow(r)
	}
}

func (rs *runs) startNow(r *run) {
	if rs.n >= rs.hub.cfg().HookLimit || !rs.mayRun(r) {
		rs.waiting++
		p := rs.payerOf(r)
		p.hooks = append(p.hooks, r)
		rs.queue(p)
		return
	}
	rs.take(r, 1)
	go rs.work(r)
}

// take takes a place for r, or gives it back where n is -1.
func (rs *runs) take(r *run, n int) {
	rs.n += n
	rs.count(r, n)
}

// count counts r, or counts it no more, for those who are the reason of it.
func (rs *runs) count(r *run, n int) {
	rs.payerOf(r).running += n
	if r.payer != nil && r.payer.up[1] != nil {
		r.payer.up[1].running += n
	}
}

// payerPlaces is the part of all places that the hooks of one payer may take, and fewPlaces what they always may; those
// of an address may take addressShares times as many.
const (
	payerPlaces = 16
	fewPlaces   = 4
)

// mayRun says that r may run beside the others of its client: slow hooks of one must not take the places of all.
func (rs *runs) mayRun(r *run) bool {
	if r.payer == nil {
		return true
	}
	most := max(fewPlaces, rs.hub.cfg().HookLimit/payerPlaces)
	if address := r.payer.up[1]; address != nil && address.running >= addressShares*most {
		return false
	}
	return rs.payerOf(r).running < most
}

// payerOf is whose hooks are counted together with r, beside those of its address: a user's, or a session's.
func (rs *runs) payerOf(r *run) *payer {
	switch p := r.payer; {
	case p == nil:
		return &rs.nobody
	case p.up[0] != nil:
		return p.up[0]
	default:
		return p
	}
}

// queue has p's hooks take turns with those of the others, if one waits.
func (rs *runs) queue(p *payer) {
	if len(p.hooks) > 0 && !p.queued {
		p.queued = true
		rs.queued = append(rs.queued, p)
	}
}

// work calls r, then what is to come behind it, then what waits for a place.
func (rs *runs) work(r *run) {
	me := &caller{of: &rs.n, r: r}
	defer rs.calls(me)()
	defer func() {
		if r == nil {
			return
		}
		// A hook has ended this goroutine by runtime.Goexit, as a test's FailNow does: another one goes on.
		if next := rs.ended(r, me); next != nil {
			go rs.work(next)
		}
	}()
	for r != nil {
		loop.WakeMonitor() // a hook may compute for long
		r.call()
		r = rs.ended(r, me)
	}
}

// ended gives what me runs next, in the place of r, or gives the place back.
func (rs *runs) ended(r *run, me *caller) (next *run) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r.ended = true
	if rs.last[r.s.id] == r {
		delete(rs.last, r.s.id)
	}
	rs.hub.keep(KeptHooks, r.payer, -r.cost)
	rs.take(r, -1)
	if r.then != nil {
		r.then.awaits--
	}
	switch {
	case r.then != nil && r.then.awaits == 0:
		next = r.then
	case rs.n < rs.hub.cfg().HookLimit: // there may be one more than that: see WaitHooks
		next = rs.pop()
	}
	if next != nil {
		rs.take(next, 1)
		me.r = next
	}
	rs.fill() // what comes behind r may be another's, and one of its own may run now
	rs.less.Broadcast()
	return next
}

// fill has what waits take the places that are free.
func (rs *runs) fill() {
	for rs.n < rs.hub.cfg().HookLimit {
		next := rs.pop()
		if next == nil {
			return
		}
		rs.take(next, 1)
		go rs.work(next)
	}
}

// pop is the next that may run, or nil. It passes those who have their share of the places: there can't be many of
// them, as they have it, but for the clients of an address that has.
func (rs *runs) pop() *run {
	for i, p := range rs.queued {
		r := p.hooks[0]
		if !rs.mayRun(r) {
			continue
		}
		p.hooks[0] = nil
		p.hooks = p.hooks[1:]
		rs.waiting--
		p.queued = false
		rs.queued = slices.Delete(rs.queued, i, i+1)
		rs.queue(p) // at the end
		return r
	}
	return nil
}

// calls notes that the goroutine runs hooks; forget ends that.
func (rs *runs) calls(c *caller) (forget func()) {
	me := goroutine()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.called[me] = c
	return func() {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		delete(rs.called, me)
	}
}

// goroutine is the number of the one that asks. The runtime tells it in the first line of a stack trace alone,
// "goroutine 42 [running]:", and that for 1.6 us.
func goroutine() uint64 {
	var b [64]byte
	head := bytes.TrimPrefix(b[:runtime.Stack(b[:], false)], []byte("goroutine "))
	digits, _, _ := bytes.Cut(head, []byte(" "))
	n, _ := strconv.ParseUint(string(digits), 10, 64)
	return n
}

// UpgradeBegins and UpgradeEnds stand around a handshake that may ask Admit, so that a shutdown waits for what comes of
// it. Any goroutine.
func (h *Hub) UpgradeBegins() { h.runs.add(&h.runs.upgrades, +1) }

// UpgradeEnds is what UpgradeBegins says.
func (h *Hub) UpgradeEnds() { h.runs.add(&h.runs.upgrades, -1) }

func (rs *runs) add(what *int, n int) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	*what += n
	rs.less.Broadcast()
}

// WaitHooks waits until no hook runs and no handshake is under way, or ctx ends, and says how many there are still. A
// hook that calls it waits neither for itself nor for what is to come behind it, but for all others; one of these has
// its place meanwhile, or they might all wait for that. Any goroutine.
func (h *Hub) WaitHooks(ctx context.Context) (left int) {
	rs := &h.runs
	stop := context.AfterFunc(ctx, func() {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		rs.less.Broadcast()
	})
	defer stop()
	me := goroutine()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	mine := rs.called[me]
	if mine != nil {
		rs.lend(mine, 1)
		defer rs.lend(mine, -1)
	}
	for {
		left = rs.n + rs.asked + rs.upgrades
		if mine == nil {
			left += rs.inside
		}
		if left == 0 || ctx.Err() != nil {
			return left
		}
		rs.less.Wait()
	}
}

// lend leaves the place of a hook that waits in WaitHooks to others, or takes it back where n is -1.
func (rs *runs) lend(c *caller, n int) {
	*c.of -= n
	rs.inside += n
	if c.r != nil {
		rs.count(c.r, -n)
	}
	rs.fill()
	rs.less.Broadcast()
}

// InHook says that a hook, or a Connect, calls: it is not over yet itself.
func (h *Hub) InHook() bool {
	me := goroutine()
	h.runs.mu.Lock()
	defer h.runs.mu.Unlock()
	return h.runs.called[me] != nil
}

// run is one call of a hook, and its outcome on the way to the worker.
type run struct {
	s   *session // only its static fields, before the outcome is back on the worker
	ctx context.Context
	do  hook
	raw []byte // the message; nil for what no client waits for

	joins []join // instead of do, of a resume: what is asked about each of its rooms, one after the other

	payer *payer // whose place it takes
	cost  int64  // what the ledger counts for it until it has ended

	answered sync.Once // by the hook's end or by the end of its time

	late *time.Timer // answers where its turn doesn't come in time; nil where nothing is before it. Static when it is called

	// Guarded by runs.mu.
	ended  bool
	then   *run // behind it
	awaits int  // for how much it waits: the end of the one before it, and due
}

// call calls the hook. However that ends, the message is answered and the session goes on.
func (r *run) call() {
	if r.late != nil {
		r.late.Stop()
	}
	if r.ctx.Err() != nil {
		return // the client is gone
	}
	if r.joins != nil {
		r.callJoins()
		return
	}
	limit := r.s.hub.cfg().HookTimeout
	ctx, cancel := context.WithTimeout(r.ctx, limit)
	defer cancel()
	tooLong := tookTooLong(limit)
	late := time.AfterFunc(limit, func() {
		r.answer(outcome{err: tooLong})
		r.s.hub.cfg().Log.Warn("a hook takes too long; what comes behind it waits", "client", r.s.id, "limit", limit)
	})
	defer late.Stop()
	out := outcome{err: errInternal}
	returned := false
	defer func() {
		switch {
		case !returned:
			r.s.hub.hookBroke(r.s.id, recover())
		case out.err != nil && ctx.Err() == context.DeadlineExceeded:
			out.err = tooLong
		}
		r.answer(out)
		if r.raw != nil {
			r.s.conn.Worker().Post(hookEnded{r.s}, 0)
		}
	}()
	out = r.do(ctx)
	returned = true
}

// hookBroke counts and logs a hook that didn't return. why is what it panicked with; nil for runtime.Goexit, which no
// recover stops: the goroutine ends when all that is deferred has run.
func (h *Hub) hookBroke(client ID, why any) {
	if why == nil {
		why = "runtime.Goexit was called"
	}
	h.loop.Panics.Add(1)
	h.cfg().Log.Error("panic in a hook", "client", client, "panic", fmt.Sprint(why), "stack", string(debug.Stack()))
}

var errInternal = &protocol.Error{Code: protocol.Internal, Message: "internal error"}

// answer posts the first outcome. When it returns, that has been posted, whoever did: what comes behind it, as
// hookEnded does, is behind it in the mailbox too.
func (r *run) answer(out outcome) {
	if r.raw != nil {
		r.answered.Do(func() { r.s.conn.Worker().Post(&hookDone{r, out}, len(out.content)) })
	}
}

// answerLate has a message answered whose hook waits for another of its client, which takes no notice of the end of its time: that is of a
// connection before, since a session has one hook after the other.
func (r *run) answerLate() {
	if r.raw == nil {
		return
	}
	limit := r.s.hub.cfg().HookTimeout
	r.late = time.AfterFunc(limit, func() {
		if r.joins != nil {
			r.finishJoins(&verdicts{}, tookTooLong(limit))
		} else {
			r.answer(outcome{err: tookTooLong(limit)})
		}
	})
}

func tookTooLong(limit time.Duration) *protocol.Error {
	return &protocol.Error{Code: protocol.Timeout, Message: "this took the application longer than " + limit.String()}
}

// paysFor has p pay for r, which costs so much beside its place, until it has ended.
func (h *Hub) paysFor(r *run, p *payer, cost int64) {
	r.payer, r.cost = p, cost
	h.keep(KeptHooks, p, cost)
}
