package nats

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
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
)

// pending is a message that waits to be published.
type pending struct {
	broker.Message
	done func(at broker.Position, duplicate bool, err error)
}

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
	number   string // the last part of the subject that its answer comes to
	until    time.Time
	timer    *time.Timer
	unsure   bool  // one try had no answer: it may have been stored
	why      error // what the last answer said
	ended    bool  // its messages are being told
}

// outcome is what is told of the i-th message of a group.
type outcome func(i int) (at broker.Position, duplicate bool, err error)

func failure(err error) outcome {
	return func(int) (broker.Position, bool, error) { return broker.Position{}, false, err }
}

func (st *stream) publish(room string, m broker.Message, done func(broker.Position, bool, error)) error {
	if st.b.waiting.Add(int64(len(m.Body))) > maxWaiting {
		st.b.waiting.Add(-int64(len(m.Body)))
		return broker.ErrBusy
	}
	t := token(room)
	st.mu.Lock()
	defer st.mu.Unlock()
	l := st.lanes[t]
	if l == nil {
		l = &lane{st: st, room: room, token: t}
		st.lanes[t] = l
	}
	if len(l.queue) >= maxQueue {
		st.b.waiting.Add(-int64(len(m.Body)))
		return broker.ErrBusy
	}
	l.queue = append(l.queue, pending{m, done})
	switch {
	case st.over:
		go st.fail(broker.ErrUnavailable)
	case st.nonce == "":
		st.look()
	default:
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
	n, size := 1, len(l.queue[0].Body)
	for n < len(l.queue) && n < maxGroup && l.queue[0].ID == "" && l.queue[n].ID == "" && size+len(l.queue[n].Body) <= groupBytes {
		size += len(l.queue[n].Body)
		n++
	}
	f := &flight{l: l, messages: l.queue[:n:n], until: time.Now().Add(giveUp)}
	if l.queue = l.queue[n:]; len(l.queue) == 0 {
		l.queue = nil
	}
	f.data = appendGroup(make([]byte, 0, size+len(l.room)+16+4*n), l.room, f.messages)
	l.flight = f
	l.st.b.flights.add(f)
	if f.id = f.messages[0].ID; f.id != "" {
		f.id = "p" + digest(strconv.Itoa(len(l.room))+":"+l.room+f.id)
	} else {
		f.id = "g" + l.st.b.flights.inbox + f.number
	}
	f.timer = time.AfterFunc(giveUp, f.tick)
	f.send()
}

// send sends the group, or does so again: it is stored once. st.mu is held.
func (f *flight) send() {
	st := f.l.st
	m := client.NewMsg(st.subject("p", st.nonce, f.l.token))
	m.Header.Set("Nats-Msg-Id", f.id)
	m.Data = f.data
	m.Reply = st.b.flights.inbox + f.number
	if err := st.b.send.PublishMsg(m); err != nil {
		f.why = fmt.Errorf("%w: %v", broker.ErrUnavailable, err)
		f.timer.Reset(retryAfter)
		return
	}
	f.timer.Reset(ackTimeout)
}

// tick is called when it is time to try again.
func (f *flight) tick() {
	st := f.l.st
	st.mu.Lock()
	if f.ended {
		st.mu.Unlock()
		return
	}
	if f.why == nil {
		f.unsure = true // no answer came
		st.look()
	}
	if st.b.server != nil && time.Until(f.until) < giveUp-unwell {
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
	Sequence  uint64 `json:"seq"`
	Duplicate bool   `json:"duplicate"`
	Error     *struct {
		Description string `json:"description"`
	} `json:"error"`
}

func (f *flight) answered(m *client.Msg) {
	st := f.l.st
	var a answer
	err := json.Unmarshal(m.Data, &a)
	st.mu.Lock()
	nonce := st.nonce
	switch {
	case f.ended:
		st.mu.Unlock()
		return
	case m.Header.Get("Status") == "503": // nobody has this subject: the stream has no leader, or isn't there any more
		f.why = broker.ErrUnavailable
		st.look()
	case err != nil || a.Error == nil && a.Sequence == 0:
		f.why = fmt.Errorf("%w: an answer that can't be read", broker.ErrUnavailable)
	case a.Error != nil:
		f.why = fmt.Errorf("%w: %s", broker.ErrUnavailable, a.Error.Description)
	default:
		f.ended = true
		st.mu.Unlock()
		f.tell(func(i int) (broker.Position, bool, error) {
			return broker.Position{Epoch: nonce, Offset: a.Sequence<<groupBits | uint64(i)}, a.Duplicate, nil
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
	f.timer.Stop()
	st.b.flights.remove(f)
	for i, m := range f.messages {
		st.b.waiting.Add(-int64(len(m.Body)))
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
		st.b.waiting.Add(-int64(len(m.Body)))
		m.done(broker.Position{}, false, why)
	}
}

// flights are the groups of all lanes that are under way, by the number in the subject of their answer.
type flights struct {
	inbox string // this connection's own, which no other ever had
	mu    sync.Mutex
	next  uint64
	all   map[string]*flight
}

func (fs *flights) listen(c *client.Conn) error {
	fs.inbox, fs.all = c.NewInbox()+".", map[string]*flight{}
	s, err := c.Subscribe(fs.inbox+"*", func(m *client.Msg) {
		fs.mu.Lock()
		f := fs.all[m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]]
		fs.mu.Unlock()
		if f != nil {
			f.answered(m)
		}
	})
	if err != nil {
		return err
	}
	return s.SetPendingLimits(-1, -1) // one for each group that is under way, which are bounded
}

func (fs *flights) add(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.next++
	f.number = strconv.FormatUint(fs.next, 36)
	fs.all[f.number] = f
}

func (fs *flights) remove(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.all, f.number)
}
