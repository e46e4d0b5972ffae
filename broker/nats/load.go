package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/hubbub/broker"
)

// load reads what is kept of a room behind an offset, in the log of a nonce. Where it fails the stream is looked at: it may
// be another one by now.
func (st *stream) load(ctx *progress, nonce, name, token string, behind uint64) (log broker.Log, err error) {
	l := &loading{st: st, ctx: ctx, nonce: nonce, name: name, token: token, subject: st.subject("p", nonce, token), behind: behind}
	l.more, l.last = l.batch, func() (uint64, error) { return st.lastSequence(ctx, l.subject) }
	if err := l.run(); err != nil {
		st.mu.Lock()
		st.look()
		st.mu.Unlock()
		return log, fmt.Errorf("%w: %v", broker.ErrUnavailable, err)
	}
	return l.log, nil
}

// progress is a context that is done when nothing was got on with for logPatience, and after logMost at any rate: others wait
// for their turn. A log may have so much that reading it takes longer than the first where the servers are busy; given up in
// the midst of it, it would be begun anew, again and again.
type progress struct {
	context.Context
	timer  *time.Timer
	cancel context.CancelFunc
}

const (
	logPatience = 2 * apiTimeout
	logMost     = 12 * logPatience
)

func newProgress(ctx context.Context) *progress {
	p := &progress{}
	p.Context, p.cancel = context.WithTimeout(ctx, logMost)
	p.timer = time.AfterFunc(logPatience, p.cancel)
	return p
}

// renew is called where something was got on with.
func (p *progress) renew() { p.timer.Reset(logPatience) }

func (p *progress) end() {
	p.timer.Stop()
	p.cancel()
}

// loading is a log that is being read.
type loading struct {
	st      *stream
	ctx     *progress
	nonce   string
	name    string
	token   string
	subject string
	behind  uint64
	more    func(behind uint64) error // adds groups; tests have others
	last    func() (uint64, error)    // of the subject, as the leader has it
	groups  []group
	trimmed uint64 // what is before this sequence may have been too much for the room's bounds; 0 for none
	log     broker.Log
}

func (l *loading) run() error {
	last, err := l.last()
	if err != nil {
		return err
	}
	l.log.At = broker.Position{Epoch: l.nonce + l.st.b.mark(), Offset: l.behind}
	if last > 0 && l.behind == last<<groupBits|(maxGroup-1) {
		l.log.Floor = l.behind
		return nil // nothing has come
	}
	for last == 0 {
		// The position is the stream's then, as it was before there was still nothing. What comes now is behind it.
		info, err := l.st.info(l.ctx, l.nonce)
		if err != nil {
			return err
		}
		if last, err = l.last(); err != nil {
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
	floor, err := l.st.expiredLately(l.ctx, l.nonce)
	if err != nil {
		return err
	}
	if n := len(l.groups); n > 0 {
		l.log.At.Offset = max(l.behind, l.groups[n-1].last())
	}
	if last == 0 {
		if seq, ok := l.st.lastsNow().of(l.token); ok {
			floor = min(floor, seq<<groupBits|(maxGroup-1))
		}
	}
	if l.trimmed > 0 {
		floor = max(floor, l.trimmed<<groupBits-1)
	}
	l.log.Floor = min(max(l.behind, floor), l.log.At.Offset)
	for i := range l.groups {
		l.log.Entries = l.groups[i].entries(l.log.Entries)
	}
	for len(l.log.Entries) > 0 && l.log.Entries[0].Offset <= l.log.Floor { // of the group of that offset, or about to expire
		l.log.Entries = l.log.Entries[1:]
	}
	return nil
}

// expired is an offset behind which nothing of the stream had expired when it was read, on any replica: each forgets what
// is too old by its own clock, a little earlier or later than the others.
func (st *stream) expired(ctx context.Context, nonce string) (offset uint64, err error) {
	age := st.key.age
	asked, start := time.Now(), st.now().Add(min(age/4, 2*maxSkew)-age)
	question, _ := json.Marshal(map[string]any{"start_time": start, "batch": 1})
	for {
		m, err := st.ask(ctx, "$JS.API.DIRECT.GET."+st.name, question)
		if err != nil {
			return 0, err
		}
		if seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64); err == nil && seq > 0 {
			offset = seq<<groupBits - 1
			break
		}
		info, err := st.info(ctx, nonce)
		if err != nil {
			return 0, err
		}
		if info.State.LastTime.Before(start) { // all is older
			offset = info.State.LastSeq<<groupBits | (maxGroup - 1)
			break
		}
		if !st.b.pause(20 * time.Millisecond) { // something has just been stored, or the replica doesn't have it yet
			return 0, broker.ErrUnavailable
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.nonce == nonce {
		st.gone, st.goneAt = offset, asked
	}
	return offset, nil
}

// expiredLately is expired as it was a moment ago: half of what clocks may differ by is left then. So rooms that are opened
// at once share one question.
func (st *stream) expiredLately(ctx context.Context, nonce string) (offset uint64, err error) {
	st.mu.Lock()
	offset, at := st.gone, st.goneAt
	known := st.nonce == nonce && !at.IsZero() && time.Since(at) < min(st.key.age/8, maxSkew)
	st.mu.Unlock()
	if known {
		return offset, nil
	}
	return st.expired(ctx, nonce)
}

// maxSkew is by how much the clocks of servers may differ. The nodes' own are not asked (stream.now).
const maxSkew = 5 * time.Second

// info is the stream's state, from its leader; while there is none another replica may answer, which knows less.
func (st *stream) info(ctx context.Context, nonce string) (info jetstream.StreamInfo, err error) {
	m, err := st.ask(ctx, "$JS.API.STREAM.INFO."+st.name, nil)
	if err != nil {
		return info, err
	}
	a := struct {
		*jetstream.StreamInfo
		Error *apiError `json:"error"`
	}{StreamInfo: &info}
	switch err := json.Unmarshal(m.Data, &a); {
	case err != nil:
		return info, err
	case a.Error != nil:
		return info, a.Error
	case info.Config.Metadata[epochKey] != nonce:
		return info, errors.New("the log is another one now")
	}
	st.setClock(info.TimeStamp)
	return info, nil
}

// settles is how often the end of a log is looked for that goes on while it is read.
const settles = 3

// readGroups reads the groups from that of behind on, at least up to the sequence last, which the leader has.
//
// Any replica may answer, also one that was cut off and is just catching up: what the leader had dropped by then, since the
// room was full, it never gets, and it has fewer groups than a full room until it has them all. So the leader is asked
// for the end once more: who has that has all that stood behind what was dropped.
func (l *loading) readGroups(last uint64) (err error) {
	behind, most := max((l.behind+1)>>groupBits, 1)-1, l.st.key.messages
	for round := 0; last > behind; round++ {
		if round > settles { // there are always more; so there may be some behind what was dropped
			most -= most / 4
			break
		}
		if behind, err = l.readUpTo(behind, last); err != nil {
			return err
		}
		if last, err = l.last(); err != nil {
			return err
		}
	}
	if n := len(l.groups); n > 0 && n >= most { // what was before may be gone
		l.groups = l.groups[max(0, n-l.st.key.messages):]
		l.trimmed = l.groups[0].seq
	}
	return nil
}

// readUpTo reads behind a sequence up to another one, and says how far it has come.
func (l *loading) readUpTo(behind, last uint64) (uint64, error) {
	for last > behind {
		read := len(l.groups)
		if err := l.more(behind); err != nil {
			return behind, err
		}
		if len(l.groups) > read {
			behind = l.groups[len(l.groups)-1].seq
			continue
		}
		select { // a replica that is behind has answered, or none, or the last has expired meanwhile
		case <-time.After(20 * time.Millisecond):
		case <-l.ctx.Done():
			return behind, l.ctx.Err()
		}
		var err error
		if last, err = l.last(); err != nil {
			return behind, err
		}
	}
	return behind, nil
}

// errNoMessage is JetStream's code where a subject has no message.
const errNoMessage = 10037

// lastSequence is that of a subject's last message, from the stream's leader; 0 for none.
func (st *stream) lastSequence(ctx context.Context, subject string) (uint64, error) {
	m, err := st.stored(ctx, map[string]any{"last_by_subj": subject})
	return m.Sequence, err
}

// subjectOf is the subject of the message of a sequence, from the stream's leader; "" where it is gone.
func (st *stream) subjectOf(ctx context.Context, seq uint64) (string, error) {
	m, err := st.stored(ctx, map[string]any{"seq": seq})
	return m.Subject, err
}

// storedAt is when the message of a sequence was stored, from the stream's leader; zero where it is gone.
func (st *stream) storedAt(ctx context.Context, seq uint64) (time.Time, error) {
	m, err := st.stored(ctx, map[string]any{"seq": seq})
	return m.Time, err
}

// message is what is read of one that is stored; zero where there is none.
type message struct {
	Subject  string    `json:"subject"`
	Sequence uint64    `json:"seq"`
	Time     time.Time `json:"time"`
}

func (st *stream) stored(ctx context.Context, which any) (none message, err error) {
	question, _ := json.Marshal(which)
	m, err := st.ask(ctx, "$JS.API.STREAM.MSG.GET."+st.name, question)
	if err != nil {
		return none, err
	}
	var a struct {
		Message message   `json:"message"`
		Error   *apiError `json:"error"`
	}
	switch err := json.Unmarshal(m.Data, &a); {
	case err != nil:
		return none, err
	case a.Error == nil:
		return a.Message, nil
	case a.Error.Code == errNoMessage:
		return none, nil
	default:
		return none, a.Error
	}
}

// apiError is why JetStream can't do what it was asked, in any of its answers.
type apiError struct {
	Code        int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return e.Description }

// ask asks JetStream until it answers: while a leader is found nobody does. Once there is one it is asked at once.
func (st *stream) ask(ctx context.Context, subject string, question []byte) (m *client.Msg, err error) {
	for {
		once, cancel := context.WithTimeout(ctx, askTimeout)
		stop := context.AfterFunc(st.term(), cancel)
		m, err = st.b.send.RequestWithContext(once, subject, question)
		stop()
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

// batchBytes is about what is read of a log, or of many rooms' tails, at once.
const batchBytes = 4 << 20

// batch reads groups behind a sequence from any replica: as many as come.
func (l *loading) batch(behind uint64) error {
	question := map[string]any{"next_by_subj": l.subject, "seq": behind + 1, "batch": tailsOf, "max_bytes": batchBytes}
	_, err := l.st.direct(l.ctx, question, func(m *client.Msg) error {
		g, err := readGroup(l.name, m)
		switch {
		case g.seq == 0:
			return err
		case err != nil: // nobody can ever read it, and the room must go on
			l.st.b.log.Error("a message of a room's log can't be read", "room", l.name, "sequence", g.seq, "error", err)
		}
		if n := len(l.groups); n > 0 && g.seq <= l.groups[n-1].seq {
			return fmt.Errorf("a direct get: %d comes behind %d", g.seq, l.groups[n-1].seq)
		}
		l.groups = append(l.groups, g)
		l.ctx.renew()
		return nil
	})
	return err
}

// direct asks any replica for messages, at most tailsOf, and calls each for one after the other, none left out. The end is nil
// where no more come for askTimeout. It is of status 204, or 404 where there is nothing.
func (st *stream) direct(ctx context.Context, question any, each func(*client.Msg) error) (end *client.Msg, err error) {
	c := st.b.send
	inbox := c.NewInbox()
	answers := make(chan *client.Msg, tailsOf+1) // SubscribeSync would make one of 512 KiB each time
	sub, err := c.ChanSubscribe(inbox, answers)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails where the connection is closed
	body, _ := json.Marshal(question)
	if err := c.PublishRequest("$JS.API.DIRECT.GET."+st.name, inbox, body); err != nil {
		return nil, err
	}
	patience := time.NewTimer(askTimeout)
	defer patience.Stop()
	for before := "0"; ; {
		var m *client.Msg
		select {
		case m = <-answers:
			patience.Reset(askTimeout)
		case <-patience.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204", "404":
			return m, nil
		case "503": // nobody can answer now
			return nil, nil
		default:
			return nil, fmt.Errorf("a direct get: %s %s", status, m.Header.Get("Description"))
		}
		if m.Header.Get("Nats-Last-Sequence") != before {
			return nil, errors.New("a direct get: an answer was lost on its way") // the connection was cut
		}
		before = m.Header.Get("Nats-Sequence")
		if err := each(m); err != nil {
			return nil, err
		}
	}
}
