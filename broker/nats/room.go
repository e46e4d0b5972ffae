package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/hubbub/broker"
)

// maxHeld is how many groups a room holds while its log is read. Who misses one sees it in the chain.
const maxHeld = 1024

// settled is when all servers of a cluster know surely that a room is open here. What was published before that may have
// passed it by.
const settled = 2 * time.Second

// room is one that is open on this node.
type room struct {
	st    *stream
	name  string
	token string

	mu     sync.Mutex
	sub    *client.Subscription
	closed bool
	live   bool    // what arrives is delivered; else it is held, and a goroutine reads the log
	held   []group // by their sequences
	again  bool    // something may have been missed: the log has to be read
	lost   bool    // the log is another one: all of it has to be read
	last   uint64  // the sequence that was delivered last
}

// open subscribes, reads the log and goes on from there.
func (ro *room) open(opened func(broker.Log, error)) {
	select {
	case <-ro.st.b.served:
	case <-ro.st.b.ctx.Done():
	}
	log, err := ro.begin()
	opened(log, err)
	if err != nil {
		ro.close()
		return
	}
	ro.catchUp()
	ro.st.b.after(settled, ro.check)
}

// begin subscribes to what comes, which is held, and then reads what is there: nothing falls between.
func (ro *room) begin() (log broker.Log, err error) {
	ctx, cancel := context.WithTimeout(ro.st.b.ctx, 2*apiTimeout)
	defer cancel()
	nonce, err := ro.st.await(ctx)
	if err != nil {
		return log, err
	}
	if err := ro.subscribe(nonce); err != nil {
		return log, err
	}
	if err := ro.st.b.receive.FlushWithContext(ctx); err != nil {
		return log, fmt.Errorf("%w: %v", broker.ErrUnavailable, err)
	}
	if log, err = ro.st.load(ro.name, ro.token, 0); err == nil {
		ro.place(&log)
	}
	return log, err
}

func (ro *room) subscribe(nonce string) error {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.unsubscribe()
	if ro.closed {
		return broker.ErrUnavailable
	}
	sub, err := ro.st.b.receive.ChanSubscribe(ro.st.subject("d", nonce, ro.token), ro.st.arrived)
	if err != nil {
		return fmt.Errorf("%w: %v", broker.ErrUnavailable, err)
	}
	ro.sub, ro.held, ro.last = sub, nil, 0
	return nil
}

// unsubscribe: ro.mu is held.
func (ro *room) unsubscribe() {
	if ro.sub != nil {
		_ = ro.sub.Unsubscribe() // fails where the connection is closed
		ro.sub = nil
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
	ro.closed = true
	ro.unsubscribe()
	ro.mu.Unlock()
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
		ro.st.b.log.Error("a message of a room's log can't be read", "room", ro.name, "error", err)
		return
	}
	ro.mu.Lock()
	switch {
	case ro.closed || g.seq <= ro.last || m.Sub != ro.sub:
	case !ro.live && len(ro.held) < maxHeld:
		ro.held = append(ro.held, g)
	case !ro.live:
		ro.again = true
	case g.before <= ro.last:
		ro.last = g.seq
		ro.mu.Unlock()
		ro.st.b.node.Deliver(ro.name, g.entries(nil))
		return
	default:
		ro.held = append(ro.held, g)
		ro.wake()
	}
	ro.mu.Unlock()
}

// check has the log read again: something may have been missed.
func (ro *room) check() {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.again = true
	ro.wake()
}

// moved says that the room's log is another one.
func (ro *room) moved() {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.lost = true
	ro.wake()
}

// wake has a goroutine read the log; where one does so it will see what has changed. ro.mu is held.
func (ro *room) wake() {
	if ro.live && !ro.closed {
		ro.live = false
		ro.st.b.work.Go(ro.catchUp)
	}
}

// catchUp reads the log while there is a reason to, delivers what was held, and then has what arrives delivered at once.
func (ro *room) catchUp() {
	for {
		ro.mu.Lock()
		entries := ro.releaseHeld()
		lost, again, last := ro.lost, ro.again, ro.last
		if ro.closed || len(entries) == 0 && !lost && !again {
			ro.live, ro.held = true, nil
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
			err = ro.read(last)
		}
		if err == nil {
			continue
		}
		ro.mu.Lock()
		ro.lost, ro.again = ro.lost || lost, ro.again || again
		ro.mu.Unlock()
		if !ro.st.b.pause(10 * retryAfter) {
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
		ro.held = ro.held[1:]
	}
	return entries
}

// reopen reads a log that is another one than before.
func (ro *room) reopen() error {
	log, err := ro.begin()
	if err == nil {
		ro.st.b.node.Lost(ro.name, log)
		ro.st.b.after(settled, ro.check)
	}
	return err
}

// read delivers what the log has behind a sequence, which was delivered last.
func (ro *room) read(last uint64) error {
	behind := last<<groupBits | (maxGroup - 1)
	log, err := ro.st.load(ro.name, ro.token, behind)
	switch {
	case err != nil:
		return err
	case log.Floor > behind:
		ro.place(&log)
		ro.st.b.node.Lost(ro.name, log)
	case len(log.Entries) > 0:
		ro.place(&log)
		ro.st.b.node.Deliver(ro.name, log.Entries)
	}
	return nil
}

// after does something later, unless the broker has ended by then.
func (b *Broker) after(d time.Duration, do func()) {
	b.work.Go(func() {
		if b.pause(d) {
			do()
		}
	})
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

// load reads what is kept of a room behind an offset.
func (st *stream) load(name, token string, behind uint64) (log broker.Log, err error) {
	ctx, cancel := context.WithTimeout(st.b.ctx, 2*apiTimeout)
	defer cancel()
	nonce, err := st.await(ctx)
	if err != nil {
		return log, err
	}
	select {
	case st.b.loads <- struct{}{}:
		defer func() { <-st.b.loads }()
	case <-ctx.Done():
		return log, broker.ErrUnavailable
	}
	l := &loading{st: st, ctx: ctx, name: name, subject: st.subject("p", nonce, token), behind: behind}
	if err := l.run(nonce); err != nil {
		return log, fmt.Errorf("%w: %v", broker.ErrUnavailable, err)
	}
	return l.log, nil
}

// loading is a log that is being read.
type loading struct {
	st      *stream
	ctx     context.Context
	name    string
	subject string
	behind  uint64
	groups  []group
	log     broker.Log
}

func (l *loading) run(nonce string) error {
	last, err := l.st.lastSequence(l.ctx, l.subject)
	if err != nil {
		return err
	}
	l.log.At = broker.Position{Epoch: nonce, Offset: l.behind}
	if last > 0 && l.behind == last<<groupBits|(maxGroup-1) {
		l.log.Floor = l.behind
		return nil // nothing has come
	}
	for last == 0 {
		// The position is the stream's then, as it was before there was still nothing. What comes now is behind it.
		info, err := l.info(nonce)
		if err != nil {
			return err
		}
		if last, err = l.st.lastSequence(l.ctx, l.subject); err != nil {
			return err
		}
		if last == 0 {
			l.log.At.Offset = max(l.behind, info.State.LastSeq<<groupBits|(maxGroup-1))
			break
		}
	}
	if err := l.readGroups(last); err != nil {
		return err
	}
	floor, err := l.expired(nonce)
	if err != nil {
		return err
	}
	l.log.Floor = max(l.behind, floor)
	if n := len(l.groups); n > 0 {
		l.log.At.Offset = max(l.behind, l.groups[n-1].last())
		if n >= l.st.key.messages { // what was too much was before the first
			l.log.Floor = max(l.log.Floor, l.groups[0].seq<<groupBits-1)
		}
	}
	l.log.Floor = min(l.log.Floor, l.log.At.Offset)
	for i := range l.groups {
		l.log.Entries = l.groups[i].entries(l.log.Entries)
	}
	for len(l.log.Entries) > 0 && l.log.Entries[0].Offset <= l.behind { // of the group of that offset
		l.log.Entries = l.log.Entries[1:]
	}
	return nil
}

// expired is an offset behind which nothing of the stream had expired when it was read, on any replica: each forgets what
// is too old by its own clock, a little earlier or later than the others.
func (l *loading) expired(nonce string) (offset uint64, err error) {
	age := l.st.key.age
	question, _ := json.Marshal(map[string]any{"start_time": time.Now().Add(min(age/4, maxSkew) - age), "batch": 1})
	m, err := l.st.ask(l.ctx, "$JS.API.DIRECT.GET."+l.st.name, question)
	if err != nil {
		return 0, err
	}
	if seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64); err == nil && seq > 0 {
		return seq<<groupBits - 1, nil
	}
	info, err := l.info(nonce) // all is older than that
	return info.State.LastSeq<<groupBits | (maxGroup - 1), err
}

// maxSkew is by how much the clocks of servers and nodes may differ.
const maxSkew = 5 * time.Second

// info is the stream's state, from its leader.
func (l *loading) info(nonce string) (info jetstream.StreamInfo, err error) {
	m, err := l.st.ask(l.ctx, "$JS.API.STREAM.INFO."+l.st.name, nil)
	if err != nil {
		return info, err
	}
	a := struct {
		*jetstream.StreamInfo
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
	}{StreamInfo: &info}
	switch err := json.Unmarshal(m.Data, &a); {
	case err != nil:
		return info, err
	case a.Error != nil:
		return info, errors.New(a.Error.Description)
	case info.Config.Metadata[epochKey] != nonce:
		return info, errors.New("the log is another one now")
	}
	return info, nil
}

// readGroups reads the groups from that of behind on, at least up to the sequence last, which the leader has.
func (l *loading) readGroups(last uint64) error {
	behind := max((l.behind+1)>>groupBits, 1) - 1
	for last > behind {
		if err := l.batch(behind); err != nil {
			return err
		}
		if n := len(l.groups); n > 0 {
			behind = l.groups[n-1].seq
		}
		if behind >= last {
			break
		}
		select { // a replica that is behind has answered, or none, or the last has expired meanwhile
		case <-time.After(20 * time.Millisecond):
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
		var err error
		if last, err = l.st.lastSequence(l.ctx, l.subject); err != nil {
			return err
		}
	}
	return nil
}

// errNoMessage is JetStream's code where a subject has no message.
const errNoMessage = 10037

// lastSequence is that of a subject's last message, from the stream's leader; 0 for none.
func (st *stream) lastSequence(ctx context.Context, subject string) (uint64, error) {
	question, _ := json.Marshal(map[string]any{"last_by_subj": subject})
	m, err := st.ask(ctx, "$JS.API.STREAM.MSG.GET."+st.name, question)
	if err != nil {
		return 0, err
	}
	var a struct {
		Message struct {
			Sequence uint64 `json:"seq"`
		} `json:"message"`
		Error *struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	switch err := json.Unmarshal(m.Data, &a); {
	case err != nil:
		return 0, err
	case a.Error == nil:
		return a.Message.Sequence, nil
	case a.Error.Code == errNoMessage:
		return 0, nil
	default:
		return 0, errors.New(a.Error.Description)
	}
}

// ask asks JetStream until it answers: while a leader is found nobody does.
func (st *stream) ask(ctx context.Context, subject string, question []byte) (m *client.Msg, err error) {
	for {
		once, cancel := context.WithTimeout(ctx, askTimeout)
		m, err = st.b.send.RequestWithContext(once, subject, question)
		cancel()
		if err == nil {
			return m, nil
		}
		select {
		case <-time.After(retryAfter):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// askTimeout is how long a question waits for an answer, or for the next part of one: some are never answered.
const askTimeout = time.Second

// batch reads groups behind a sequence from any replica: as many as come.
func (l *loading) batch(behind uint64) error {
	c := l.st.b.send
	inbox := c.NewInbox()
	sub, err := c.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails where the connection is closed
	question, _ := json.Marshal(map[string]any{"next_by_subj": l.subject, "seq": behind + 1, "batch": 1000})
	if err := c.PublishRequest("$JS.API.DIRECT.GET."+l.st.name, inbox, question); err != nil {
		return err
	}
	for {
		once, cancel := context.WithTimeout(l.ctx, askTimeout)
		m, err := sub.NextMsgWithContext(once)
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, client.ErrNoResponders):
			return l.ctx.Err()
		case err != nil:
			return err
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204", "404": // the end of the batch; none is there
			return nil
		default:
			return fmt.Errorf("a direct get: %s %s", status, m.Header.Get("Description"))
		}
		g, err := readGroup(l.name, m)
		if err != nil {
			return err
		}
		if n := len(l.groups); n > 0 && g.seq <= l.groups[n-1].seq {
			return fmt.Errorf("a direct get: %d comes behind %d", g.seq, l.groups[n-1].seq)
		}
		l.groups = append(l.groups, g)
	}
}
