package hub

import (
	"context"
	"errors"
	"sync"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// Hooks are the application's code. Each is called on a goroutine of its own, off the workers, and one at a time for a
// session, over all connections that it has here; nil ones cost nothing. ctx ends with the connection, but for Disconnect,
// and when the time is up.
type Hooks struct {
	// Join, Read and Publish may refuse by an error. Read is for a room that the client isn't in: its history and who
	// is in it; where it is nil and Join isn't, that is refused. Publish may give other content; nil leaves it.
	Join    func(ctx context.Context, who Identity, room string) error
	Read    func(ctx context.Context, who Identity, room string) error
	Publish func(ctx context.Context, who Identity, d Draft) (content []byte, err error)
	// Custom obeys the messages whose type is Known. The reply is one JSON value; nil is an ack where there was an id.
	Custom func(ctx context.Context, who Identity, msgType string, raw []byte) (reply []byte, err error)
	Known  func(msgType string) bool
	// Request answers the message request with one JSON value, nil for null. Refresh reads the token of the message
	// refresh: whose it is, and what that one may do from now on.
	Request func(ctx context.Context, who Identity, method string, content []byte) (reply []byte, err error)
	Refresh func(ctx context.Context, who Identity, token string) (auth.Identity, error)
	// Disconnect is the last of these for its connection, and comes once for each client that was let in: see Admit.
	Disconnect func(ctx context.Context, who Identity, code int)

	// What has happened in a room, one at a time for each room and each with its pair: Occupied, Joined and Left,
	// Vacated.
	Joined, Left      func(ctx context.Context, who Identity, room string)
	Occupied, Vacated func(ctx context.Context, room string)
}

// Identity is who a session is.
type Identity struct {
	ID   ID
	User string // "" when the application didn't say
}

// Draft is what a client wants to publish: to a room, to the client To, or with neither to everyone.
type Draft struct {
	Room, To string
	Key      string // "" for none
	Content  []byte
}

// outcome is what a hook decided.
type outcome struct {
	content []byte // the reply of Custom or Request, or what Publish put in place of the content
	err     error
	who     *auth.Identity    // of Refresh
	refused []*protocol.Error // of a resume: what Join said of each room
}

type hook func(ctx context.Context) outcome

// start has the hook run; raw is obeyed, or answered, when it is done.
func (s *session) start(r *run, raw []byte) {
	q := s.operations()
	r.s, r.ctx, r.raw = s, q.ctx, append([]byte(nil), raw...)
	s.hub.paysFor(r, s.payer(), int64(len(raw)))
	q.running = r
	s.hub.runs.start(r)
}

// hooksClosed forgets what is under way, and has Disconnect follow the hook that runs, once due is called. Its turn it has at once:
// who resumes the session, perhaps before that, comes behind it; also behind a hook that runs where there is no Disconnect.
func (s *session) hooksClosed(code int) (due func()) {
	last := s.operationsClosed()
	in := s.admitted() // asked whatever hooks there are: nobody waits for a Connect any more
	if !in || last == nil && s.hub.cfg().Hooks.Disconnect == nil {
		return func() {}
	}
	if !s.began() {
		return func() { s.hub.callDisconnect(s.addr(), s.identity(), code) }
	}
	r := s.hub.disconnection(s.addr(), s.identity(), code)
	r.awaits = 1
	s.hub.runs.startLast(last, r)
	return func() { s.hub.runs.due(r) }
}

// hookDone brings an outcome back to the session's worker.
type hookDone struct {
	*run
	out outcome
}

// Conn implements loop.ConnTask.
func (d *hookDone) Conn(*loop.Worker) *loop.Conn { return d.s.conn }

func (d *hookDone) Run(*loop.Worker) {
	s := d.s
	if !s.conn.Open() {
		return
	}
	cmd := &s.state().cmd
	if !s.again(d.raw, cmd) {
		return
	}
	if err := s.told(d.out.err); err != nil {
		s.answerError(err, cmd.ID)
		return
	}
	switch {
	case cmd.Kind == protocol.Resume:
		s.resumeRooms(cmd, s.takenOut(cmd, d.joins, d.out.refused))
	case cmd.Kind == protocol.Refresh:
		s.refresh(cmd, *d.out.who)
	case cmd.Kind == protocol.Request:
		s.answer(protocol.Answer{Kind: protocol.AnswerResponse, Content: d.out.content, ID: cmd.ID})
	case cmd.Kind != protocol.Custom:
		if no := s.overtaken(cmd); no != nil {
			s.answerError(no, cmd.ID)
			return
		}
		if d.out.content != nil {
			cmd.Content = d.out.content
		}
		s.obey(cmd)
	case d.out.content != nil:
		s.answer(protocol.Answer{Kind: protocol.AnswerReply, Type: string(cmd.Type), Content: d.out.content, ID: cmd.ID})
	case cmd.ID != nil:
		s.answer(protocol.Answer{Kind: protocol.AnswerAck, ID: cmd.ID})
	}
}

// overtaken says that a command which the application has allowed can't be obeyed any more: it has taken the client out
// of the room meanwhile, or put it into others.
func (s *session) overtaken(cmd *protocol.Command) *protocol.Error {
	switch {
	case cmd.Kind == protocol.RoomMessage:
		return s.forbids(mayPublish, cmd.Room)
	case cmd.Kind == protocol.JoinRoom && s.find(cmd.Room) < 0:
		return s.limitOfRooms(0)
	}
	return nil
}

// told keeps the application's own errors from clients, unless they are meant for them.
func (s *session) told(err error) *protocol.Error {
	var e *protocol.Error
	if err == nil {
		return nil
	}
	if errors.As(err, &e) && e != nil {
		return e
	}
	s.hub.cfg().Log.Error("a hook failed", "client", s.id, "err", err)
	return errInternal
}

// hookEnded lets the session go on. It comes behind the outcome, and not before the hook has returned even where its
// time was up earlier: the application may keep a client's state without a lock.
type hookEnded struct{ s *session }

// Conn implements loop.ConnTask.
func (e hookEnded) Conn(*loop.Worker) *loop.Conn { return e.s.conn }

func (e hookEnded) Run(*loop.Worker) {
	if e.s.conn.Open() {
		e.s.more.operations.running = nil
		e.s.goOn()
	}
}

// join is one room of a resume.
type join struct {
	ask hook
	no  *protocol.Error // where nobody is asked
}

// verdicts is what is said of the rooms of a resume.
type verdicts struct {
	mu   sync.Mutex        // the answer is posted under it
	said []*protocol.Error // of those that were asked so far
	over bool              // the message is answered
}

// add notes what was said of the next room; false says that it was too late.
func (j *verdicts) add(no *protocol.Error) (inTime bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.said = append(j.said, no)
	return !j.over
}

// callJoins asks Join about one room after the other, each with a time of its own. When one takes longer, or ends its
// goroutine, that is the answer for it and, as none can be asked beside it, for those behind it.
func (r *run) callJoins() {
	j := &verdicts{}
	defer func() { // also when one has ended this goroutine
		r.finishJoins(j, errInternal)
		r.s.conn.Worker().Post(hookEnded{r.s}, 0)
	}()
	for _, of := range r.joins {
		if of.ask == nil {
			j.add(of.no)
			continue
		}
		if r.ctx.Err() != nil || !r.callJoin(j, of.ask) {
			return
		}
	}
}

// obeyTime is how long after the end of its time a Join may return, so that the rooms behind it are still asked about:
// one that obeys its context does so a moment later.
const obeyTime = 100 * time.Millisecond

// callJoin asks about one room; false says that it was too late.
func (r *run) callJoin(j *verdicts, ask hook) (inTime bool) {
	h := r.s.hub
	ctx, cancel := context.WithTimeout(r.ctx, h.cfg().HookTimeout)
	defer cancel()
	late := time.AfterFunc(h.cfg().HookTimeout+obeyTime, func() {
		r.finishJoins(j, tookTooLong(h.cfg().HookTimeout))
		h.cfg().Log.Warn("a hook takes too long; what comes behind it waits", "client", r.s.id, "limit", h.cfg().HookTimeout)
	})
	defer late.Stop()
	err, returned := error(errInternal), false
	defer func() {
		switch {
		case !returned:
			h.hookBroke(r.s.id, recover())
		case err != nil && ctx.Err() == context.DeadlineExceeded:
			err = tookTooLong(h.cfg().HookTimeout)
		}
		inTime = j.add(r.s.told(err))
	}()
	err = ask(ctx).err
	returned = true
	return
}

// finishJoins answers the message, once: of the rooms that were not asked about with rest.
func (r *run) finishJoins(j *verdicts, rest *protocol.Error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over {
		return
	}
	j.over = true
	all := make([]*protocol.Error, len(r.joins))
	for i := range all {
		all[i] = rest
	}
	copy(all, j.said)
	r.answer(outcome{refused: all})
}

// Refusal is the loop.Handler of a connection that is closed at once, with a code and a reason.
type Refusal struct {
	loop.Plain
	Code   int
	Reason string
}

// Opened closes.
func (r Refusal) Opened(c *loop.Conn) { c.Close(r.Code, r.Reason) }

// Message isn't called.
func (Refusal) Message(*loop.Conn, wire.Opcode, []byte) {}

// Closed has nothing to do.
func (Refusal) Closed(*loop.Conn, loop.Ending) {}

// Stop isn't called.
func (Refusal) Stop(*loop.Conn) {}

// Drained isn't called.
func (Refusal) Drained(*loop.Conn) {}
