package nats

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"

	"example.com/hubbub/broker"
)

const (
	maxQueue   = 1024 // messages that wait in a lane
	ackTimeout = time.Second
	retryAfter = 50 * time.Millisecond
	unwell     = 3 * time.Second  // a server in this process that hasn't taken a message for so long may have to be started anew
	giveUp     = 10 * time.Second // what isn't acknowledged by then is told as failed
	messageFee = 256              // bytes that a message costs while it waits, beside its own
)

// pending is a message that waits to be published.
type pending struct {
	broker.Message
	done func(at broker.Position, duplicate bool, err error)
}

func cost(m *broker.Message) int64 { return int64(len(m.Body)) + messageFee }

// lane is what a node publishes to a room: one group is under way, and what comes meanwhile is the next. So the order
// stays whatever becomes of the servers. Guarded by the stream's mu.
type lane struct {
	st     *stream
	room   string
	token  string
	queue  []pending
	flight *flight // nil where nothing is under way
}

// flight is a group that is under way.
type flight struct {
	l        *lane
	messages []pending
	data     []byte
	id       string
	nonce    string // of the log that it was sent to last
	number   string // the last part of the subject that its answer comes to, for that log
	begun    time.Time
	until    time.Time
	timer    *time.Timer
	queued   bool   // the connection is to take it
	unsure   bool   // one try had no answer: it may have been stored
	why      error  // what the last answer said
	ended    bool   // its messages are being told
	lasts    *lasts // that know of it, once it is to be sent
	stored   uint64 // the sequence that it was acknowledged with
	fresh    bool   // it wasn't there before
}

// outcome is what is told of the i-th message of a group.
type outcome func(i int) (at broker.Position, duplicate bool, err error)

func failure(err error) outcome {
	return func(int) (broker.Position, bool, error) { return broker.Position{}, false, err }
}

func (st *stream) publish(room string, m broker.Message, done func(broker.Position, bool, error)) error {
	if st.b.waiting.Add(cost(&m)) > maxWaiting {
		st.b.waiting.Add(-cost(&m))
		return broker.ErrBusy
	}
	t := token(room)
	st.mu.Lock()
	defer st.mu.Unlock()
	l := st.lanes[t]
	switch {
	case st.over:
		st.b.waiting.Add(-cost(&m))
		go done(broker.Position{}, false, broker.ErrUnavailable)
		return nil
	case l == nil:
		l = &lane{st: st, room: room, token: t}
		st.lanes[t] = l
	case len(l.queue) >= maxQueue:
		st.b.waiting.Add(-cost(&m))
		return broker.ErrBusy
	}
	l.queue = append(l.queue, pending{m, done})
	if st.nonce == "" {
		st.look()
	} else {
		l.goOn()
	}
	return nil
}

// goOn sends the next group, unless one is under way. st.mu is held.
func (l *lane) goOn() {
	if l.flight != nil {
		return
	}
	if len(l.queue) == 0 {
		delete(l.st.lanes, l.token)
		return
	}
	if l.st.over {
		return // fail ends them
	}
	n, size := 1, len(l.queue[0].Body)
	for n < len(l.queue) && n < maxGroup && l.queue[0].ID == "" && l.queue[n].ID == "" && size+len(l.queue[n].Body) <= groupBytes {
		size += len(l.queue[n].Body)
		n++
	}
	f := &flight{l: l, messages: l.queue[:n:n], nonce: l.st.nonce, begun: time.Now(), until: time.Now().Add(l.st.patience())}
	if l.queue = l.queue[n:]; len(l.queue) == 0 {
		l.queue = nil
	}
	f.data = appendGroup(make([]byte, 0, size+len(l.room)+16+4*n), l.room, f.messages)
	l.flight = f
	l.st.b.work.Add(1) // until it is told
	l.st.b.flights.add(f)
	if f.id = f.messages[0].ID; f.id != "" {
		f.id = "p" + digest(strconv.Itoa(len(l.room))+":"+l.room+f.id)
	} else {
		f.id = "g" + l.st.b.flights.inbox + f.number
	}
	f.timer = time.AfterFunc(giveUp, f.tick)
	f.send()
}

// send has the group sent, or does so again: it is stored once. st.mu is held, perhaps by a worker: it doesn't wait for the
// connection.
func (f *flight) send() {
	st := f.l.st
	if f.nonce != st.nonce { // what is answered for the log that was lost isn't an answer for this one
		st.b.flights.remove(f)
		f.nonce = st.nonce
		st.b.flights.add(f)
	}
	f.timer.Reset(ackTimeout)
	if !f.queued {
		f.queued = true
		st.b.flights.queue(f)
	}
}

// take is the group as it is sent now; nil where nobody waits for it any more. noted has to be told before, nil for nobody.
func (f *flight) take() (m *client.Msg, noted *lasts) {
	st := f.l.st
	st.mu.Lock()
	defer st.mu.Unlock()
	f.queued = false
	if f.ended {
		return nil, nil
	}
	m = client.NewMsg(st.subject("p", f.nonce, f.l.token))
	m.Header.Set("Nats-Msg-Id", f.id)
	m.Data = f.data
	m.Reply = st.b.flights.inbox + f.number
	f.timer.Reset(ackTimeout)
	if f.lasts != st.lasts { // of the log that it goes to
		f.lasts, noted = st.lasts, st.lasts
	}
	return m, noted
}

// refused is called when the connection doesn't take the group.
func (f *flight) refused(err error) {
	st := f.l.st
	if errors.Is(err, client.ErrMaxPayload) {
		st.b.log.Error("a message is larger than the NATS servers take; raise their max_payload", "room", f.l.room, "bytes", len(f.data))
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if f.ended {
		return
	}
	if errors.Is(err, client.ErrMaxPayload) {
		f.until = time.Now()
	}
	f.why = fmt.Errorf("%w: %v", broker.ErrUnavailable, err)
	f.timer.Reset(retryAfter)
}

// sendAgain has what isn't answered sent again now: whom it was sent to leads no more, or can't answer this connection.
func (st *stream) sendAgain() {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, l := range st.lanes {
		if f := l.flight; f != nil && !f.ended && !f.queued {
			f.timer.Reset(0)
		}
	}
}

// patience is how long a group is sent again: while JetStream knows its id for sure.
func (st *stream) patience() time.Duration {
	return min(giveUp, st.window()*3/4)
}

// tick is called when it is time to try again.
func (f *flight) tick() {
	st := f.l.st
	st.mu.Lock()
	if f.ended {
		st.mu.Unlock()
		return
	}
	switch {
	case f.why != nil:
	case f.queued:
		f.why = fmt.Errorf("%w: the connection to NATS takes nothing", broker.ErrUnavailable)
	default:
		f.unsure = true // no answer came
		st.look()
	}
	if st.b.server != nil && time.Since(f.begun) > unwell {
		st.b.work.Go(st.b.server.revive)
	}
	if time.Now().Before(f.until) {
		f.why = nil
		f.send()
		st.mu.Unlock()
		return
	}
	f.ended = true
	st.mu.Unlock()
	if f.unsure {
		f.tell(failure(broker.ErrTimeout))
	} else {
		f.tell(failure(f.why))
	}
}

// answer is what JetStream says of a message that was published.
type answer struct {
	Sequence  uint64    `json:"seq"`
	Duplicate bool      `json:"duplicate"`
	Error     *apiError `json:"error"`
}

func (f *flight) answered(m *client.Msg) {
	st := f.l.st
	var a answer
	err := json.Unmarshal(m.Data, &a)
	st.mu.Lock()
	switch {
	case f.ended || !strings.HasSuffix(m.Subject, "."+f.number):
		st.mu.Unlock()
		return
	case m.Header.Get("Status") == "503": // nobody has this subject: the stream has no leader, or isn't there any more
		f.why = broker.ErrUnavailable
		st.look()
	case err != nil || a.Error == nil && a.Sequence == 0:
		f.why = fmt.Errorf("%w: an answer that can't be read", broker.ErrUnavailable)
	case a.Error != nil:
		f.why = fmt.Errorf("%w: %w", broker.ErrUnavailable, a.Error)
	default:
		f.ended = true
		if f.nonce == st.nonce {
			st.acked = max(st.acked, a.Sequence)
		}
		st.mu.Unlock()
		duplicate := a.Duplicate && f.messages[0].ID != "" && !f.unsure // else it is, or may be, one of our own tries
		f.stored, f.fresh = a.Sequence, !a.Duplicate || f.messages[0].ID == ""
		f.tell(func(i int) (broker.Position, bool, error) {
			return broker.Position{Epoch: f.nonce + st.b.mark(), Offset: a.Sequence<<groupBits | uint64(i)}, duplicate, nil
		})
		return
	}
	f.timer.Reset(retryAfter)
	st.mu.Unlock()
}

// tell tells the group's messages how it ended, and then has the lane go on: the next can't be told before. It is
// called by who has set ended, once, without the stream's mu.
func (f *flight) tell(o outcome) {
	st := f.l.st
	defer st.b.work.Done()
	f.timer.Stop()
	st.b.flights.remove(f)
	if f.lasts != nil {
		f.lasts.told(f.l.token, f.stored, f.fresh)
	}
	for i, m := range f.messages {
		st.b.waiting.Add(-cost(&m.Message))
		m.done(o(i))
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	f.l.flight = nil
	f.l.goOn()
}

// fail ends all that waits in the stream's lanes, and what is under way.
func (st *stream) fail(why error) {
	st.mu.Lock()
	var waiting []pending
	var flights []*flight
	for _, l := range st.lanes {
		waiting = append(waiting, l.queue...)
		l.queue = nil
		switch f := l.flight; {
		case f == nil:
			delete(st.lanes, l.token)
		case !f.ended:
			f.ended = true
			flights = append(flights, f)
		}
	}
	st.mu.Unlock()
	for _, f := range flights {
		f.tell(failure(broker.ErrTimeout))
	}
	for _, m := range waiting {
		st.b.waiting.Add(-cost(&m.Message))
		m.done(broker.Position{}, false, why)
	}
}
