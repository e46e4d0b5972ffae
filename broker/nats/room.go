package nats

import (
	"context"
	"fmt"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"

	"example.com/hubbub/broker"
)

// What a room holds while its log is read: groups, and bytes beside the first. What is too much is read.
const (
	maxHeld      = 1024
	maxHeldBytes = 256 << 10
)

// room is one that is open on this node.
type room struct {
	st    *stream
	name  string
	token string

	turn sync.Mutex // held while what arrives is delivered: reading the log begins behind that; taken before mu

	mu     sync.Mutex
	sub    *client.Subscription
	nonce  string // of the log that it follows
	closed bool
	opened bool    // the node has what there was then, or is about to
	live   bool    // what arrives is delivered; else it is held, and a job reads the log
	held   []group // by their sequences
	bytes  int     // of held
	again  bool    // something may have been missed: the log has to be read
	lost   bool    // the log is another one: all of it has to be read
	last   uint64  // the sequence that was delivered last
	cease  func()  // ends the reading of the log, or does nothing; nil: it was never read
}

// open subscribes, reads the log and goes on from there.
func (ro *room) open(opened func(broker.Log, error)) {
	select {
	case <-ro.st.b.served:
	case <-ro.st.b.ctx.Done():
	}
	log, err := ro.begin()
	if err != nil {
		ro.close()
		opened(broker.Log{}, err)
		return
	}
	ro.mu.Lock()
	ro.opened = true
	ro.mu.Unlock()
	opened(log, nil)
	ro.st.opened(ro)
	ro.catchUp()
}

// progress is for reading the log: it is over when the room is closed, since nobody wants that any more.
func (ro *room) progress() *progress {
	p := newProgress(ro.st.b.ctx)
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if ro.cease = p.cancel; ro.closed {
		p.cancel()
	}
	return p
}

// begin subscribes to what comes, which is held, and then reads what is there: nothing falls between.
func (ro *room) begin() (log broker.Log, err error) {
	ctx := ro.progress()
	defer ctx.end()
	nonce, err := ro.st.await(ctx)
	if err != nil {
		return log, err
	}
	if err := ro.subscribe(nonce); err != nil {
		return log, err
	}
	flush, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if err := ro.st.b.receive.FlushWithContext(flush); err != nil {
		return log, fmt.Errorf("%w: %v", broker.ErrUnavailable, err)
	}
	if log, err = ro.st.load(ctx, nonce, ro.name, ro.token, 0); err == nil {
		ro.place(&log)
	}
	return log, err
}

// subscribe has the groups of a log come. What is called here may wait for a server that takes nothing, so mu isn't held: a
// worker may want to close the room.
func (ro *room) subscribe(nonce string) error {
	ro.mu.Lock()
	before := ro.sub
	ro.sub, ro.nonce, ro.held, ro.bytes, ro.last = nil, nonce, nil, 0, 0
	ro.mu.Unlock()
	unsubscribe(before)
	sub, err := ro.st.b.receive.ChanSubscribe(ro.st.subject("d", nonce, ro.token), ro.st.arrived)
	if err != nil {
		return fmt.Errorf("%w: %v", broker.ErrUnavailable, err)
	}
	ro.mu.Lock()
	closed := ro.closed
	if !closed {
		ro.sub = sub
	}
	ro.mu.Unlock()
	if closed {
		unsubscribe(sub)
		return broker.ErrUnavailable
	}
	return nil
}

func unsubscribe(sub *client.Subscription) {
	if sub != nil {
		_ = sub.Unsubscribe() // fails where the connection is closed
	}
}

// place has the room go on behind a log.
func (ro *room) place(log *broker.Log) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.last = log.At.Offset >> groupBits
}

func (ro *room) close() {
	ro.mu.Lock()
	sub, cease := ro.sub, ro.cease
	ro.closed, ro.held, ro.sub = true, nil, nil
	ro.mu.Unlock()
	if cease != nil {
		cease()
	}
	if sub != nil {
		ro.st.jobs.add(func() { unsubscribe(sub) })
	}
	ro.st.mu.Lock()
	defer ro.st.mu.Unlock()
	if ro.st.rooms[ro.token] == ro {
		delete(ro.st.rooms, ro.token)
	}
}

// arrived takes what the stream has republished. Called by the stream's receive alone.
func (ro *room) arrived(m *client.Msg) {
	g, err := readGroup(ro.name, m)
	if err != nil {
		ro.st.b.log.Error("a message of a room's log can't be read", "room", ro.name, "sequence", g.seq, "error", err)
		if g.seq == 0 {
			return
		}
	}
	ro.turn.Lock()
	defer ro.turn.Unlock()
	if entries := ro.take(m.Sub, &g); len(entries) > 0 {
		ro.st.b.node.Deliver(ro.name, entries)
	}
}

// take is what may be delivered at once of a group that has arrived. Else it is held.
func (ro *room) take(sub *client.Subscription, g *group) []broker.Entry {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	switch {
	case ro.closed || g.seq <= ro.last || sub != ro.sub:
	case !ro.live && len(ro.held) > 0 && (len(ro.held) == maxHeld || ro.bytes+g.size() > maxHeldBytes):
		ro.again = true
	case !ro.live:
		ro.hold(g)
	case g.before <= ro.last:
		ro.last = g.seq
		return g.entries(nil)
	default:
		ro.hold(g)
		ro.wake()
	}
	return nil
}

// hold: ro.mu is held.
func (ro *room) hold(g *group) {
	ro.held = append(ro.held, *g)
	ro.bytes += g.size()
}

// check has the log read again: something may have been missed.
func (ro *room) check() {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.again = true
	ro.wake()
}

// checkUpTo does so unless the room has come to a sequence of its log.
func (ro *room) checkUpTo(nonce string, seq uint64) {
	if ro.isBehind(nonce, seq) {
		ro.check()
	}
}

func (ro *room) isBehind(nonce string, seq uint64) bool {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	return !ro.closed && ro.nonce == nonce && ro.last < seq
}

// moved says that the room's log is another one.
func (ro *room) moved() {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.lost = true
	ro.wake()
}

// wake has a job read the log; where one does so it will see what has changed. ro.mu is held.
func (ro *room) wake() {
	if ro.live && !ro.closed {
		ro.live = false
		ro.st.jobs.add(ro.catchUp)
	}
}

// catchUp reads the log while there is a reason to, delivers what was held, and then has what arrives delivered at once.
func (ro *room) catchUp() {
	ro.turn.Lock() // what is just being delivered stands before what is read
	ro.turn.Unlock()
	for {
		ro.mu.Lock()
		entries := ro.releaseHeld()
		lost, again, last, nonce := ro.lost, ro.again, ro.last, ro.nonce
		if ro.closed || len(entries) == 0 && !lost && !again {
			ro.live, ro.held, ro.bytes = true, nil, 0
			ro.mu.Unlock()
			return
		}
		ro.lost, ro.again = false, false
		ro.mu.Unlock()
		if len(entries) > 0 {
			ro.st.b.node.Deliver(ro.name, entries)
		}
		var err error
		switch {
		case lost:
			err = ro.reopen()
		case again:
			err = ro.read(nonce, last)
		}
		if err != nil {
			ro.mu.Lock()
			ro.lost, ro.again = ro.lost || lost, ro.again || again
			ro.mu.Unlock()
			ro.st.jobs.again(ro.catchUp)
			return
		}
	}
}

// releaseHeld is what was held, up to where something is missing, which has the log read. ro.mu is held.
func (ro *room) releaseHeld() (entries []broker.Entry) {
	for len(ro.held) > 0 && !ro.lost {
		g := &ro.held[0]
		if g.seq > ro.last {
			if g.before > ro.last {
				ro.again = true
				break
			}
			entries = g.entries(entries)
			ro.last = g.seq
		}
		ro.bytes -= g.size()
		ro.held = ro.held[1:]
	}
	return entries
}

// reopen reads a log that is another one than before.
func (ro *room) reopen() error {
	log, err := ro.begin()
	if err == nil {
		ro.st.b.node.Lost(ro.name, log)
		ro.st.opened(ro)
	}
	return err
}

// read delivers what the log has behind a sequence, which was delivered last. It fails where the log is another one by
// now, which find says to the room.
func (ro *room) read(nonce string, last uint64) error {
	ctx := ro.progress()
	defer ctx.end()
	behind := last<<groupBits | (maxGroup - 1)
	log, err := ro.st.load(ctx, nonce, ro.name, ro.token, behind)
	switch {
	case err != nil:
		return err
	case log.Floor > behind:
		ro.place(&log)
		ro.st.b.node.Lost(ro.name, log)
	case log.At.Offset > behind:
		ro.place(&log)
		if len(log.Entries) > 0 {
			ro.st.b.node.Deliver(ro.name, log.Entries)
		}
	}
	return nil
}

// pause waits, and says whether the broker still runs.
func (b *Broker) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-b.ctx.Done():
		return false
	}
}
