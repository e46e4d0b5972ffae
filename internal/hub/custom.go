package hub

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// Call is one client message of a type that the application handles itself.
type Call struct {
	Client string // who sent it
	Type   string // its msg_type
	Raw    []byte // the whole message
}

// Custom is the application's code. It is called on a goroutine of its own, one call at a time for each session.
// The reply, one JSON value, is sent back; nil is an ack where the message had an id. ctx ends with the connection
// and when the time is up.
type Custom func(ctx context.Context, c Call) (reply []byte, err error)

// fewCalls is how many messages of one session may wait before it isn't read any more.
const fewCalls = 8

// callQueue holds one session's calls in the order of their arrival: the first is running, or waits for its turn
// among the sessions. Owned by the session's worker.
type callQueue struct {
	waiting []call
	busy    bool
	ctx     context.Context
	cancel  context.CancelFunc
}

type call struct {
	Call
	id []byte
}

func (q *callQueue) close() {
	if q != nil {
		q.waiting = nil
		q.cancel()
	}
}

func (s *session) custom(cmd *protocol.Command, raw []byte) *protocol.Error {
	if s.hub.cfg.Known == nil || !s.hub.cfg.Known(string(cmd.Type)) {
		return &protocol.Error{Code: protocol.UnknownType, Message: "no msg_type " + protocol.Quote(cmd.Type)}
	}
	if s.calls == nil {
		s.calls = &callQueue{}
		s.calls.ctx, s.calls.cancel = context.WithCancel(context.Background())
	}
	c := call{Call: Call{Client: s.id.String(), Type: string(cmd.Type), Raw: append([]byte(nil), raw...)}}
	if cmd.ID != nil {
		c.id = append([]byte(nil), cmd.ID...)
	}
	q := s.calls
	q.waiting = append(q.waiting, c)
	if len(q.waiting) >= fewCalls {
		s.conn.PauseReading()
	}
	s.nextCall()
	return nil
}

// nextCall starts the oldest waiting call unless one is under way.
func (s *session) nextCall() {
	q := s.calls
	if q.busy || len(q.waiting) == 0 {
		return
	}
	c := q.waiting[0]
	q.waiting = q.waiting[1:]
	q.busy = true
	if len(q.waiting) < fewCalls {
		s.conn.ResumeReading()
	}
	s.hub.calls.start(&running{hub: s.hub, ref: s.conn.Ref(), ctx: q.ctx, call: c})
}

// calls bounds the calls of all sessions together. Guarded by mu.
type calls struct {
	hub     *Hub
	mu      sync.Mutex
	n       int
	waiting []*running
}

// start runs r on a goroutine, now or when another call ends. Never blocks.
func (cs *calls) start(r *running) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.n >= cs.hub.cfg.CustomLimit {
		cs.waiting = append(cs.waiting, r)
		return
	}
	cs.n++
	go cs.run(r)
}

func (cs *calls) run(r *running) {
	for r != nil {
		r.run()
		cs.mu.Lock()
		r = nil
		if len(cs.waiting) > 0 {
			r = cs.waiting[0]
			cs.waiting = cs.waiting[1:]
		} else {
			cs.n--
		}
		cs.mu.Unlock()
	}
}

// running is one call of the application's code, and then its answer on the way to the worker.
type running struct {
	hub  *Hub
	ref  loop.Ref
	ctx  context.Context
	call call

	answered atomic.Bool // by the call's end or by the end of its time
}

func (r *running) run() {
	if r.ctx.Err() != nil {
		return // the client is gone
	}
	limit := r.hub.cfg.CustomTimeout
	ctx, cancel := context.WithTimeout(r.ctx, limit)
	defer cancel()
	defer r.ref.Worker().Post(&ended{r}, 0)
	tooLong := &protocol.Error{Code: protocol.Timeout, Message: "the handler of " + protocol.Quote([]byte(r.call.Type)) + " took longer than " + limit.String()}
	late := time.AfterFunc(limit, func() {
		r.answer(nil, tooLong)
		r.hub.cfg.Log.Warn("a handler takes too long; its client's next message waits for it", "msg_type", r.call.Type, "limit", limit)
	})
	defer late.Stop()
	reply, err := r.safely(ctx)
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		err = tooLong
	}
	r.answer(reply, r.asError(err))
}

func (r *running) safely(ctx context.Context) (reply []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.hub.loop.Panics.Add(1)
			r.hub.cfg.Log.Error("panic in a handler", "msg_type", r.call.Type, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = &protocol.Error{Code: protocol.Internal, Message: "internal error"}
		}
	}()
	return r.hub.cfg.Custom(ctx, r.call.Call)
}

// asError keeps the application's own errors from clients, unless they are meant for them.
func (r *running) asError(err error) *protocol.Error {
	var e *protocol.Error
	if err == nil {
		return nil
	}
	if errors.As(err, &e) {
		return e
	}
	if r.ctx.Err() == nil {
		r.hub.cfg.Log.Error("a handler failed", "msg_type", r.call.Type, "client", r.call.Client, "err", err)
	}
	return &protocol.Error{Code: protocol.Internal, Message: "internal error"}
}

func (r *running) answer(reply []byte, e *protocol.Error) {
	if r.answered.CompareAndSwap(false, true) {
		r.ref.Worker().Post(&answered{r, reply, e}, len(reply))
	}
}

type answered struct {
	*running
	reply []byte
	err   *protocol.Error
}

func (a *answered) Run(w *loop.Worker) {
	c := w.Conn(a.ref)
	if c == nil || !c.Open() {
		return
	}
	s := c.Data.(*session)
	switch {
	case a.err != nil:
		s.answerError(a.err, a.call.id)
	case a.reply != nil:
		s.answer(protocol.AppendCustom(s.buf(), a.call.Type, Server, a.reply, a.call.id))
	case a.call.id != nil:
		s.answer(protocol.AppendAck(s.buf(), a.call.id))
	}
}

// ended lets the next call of the same session begin. It comes behind the answer, and not before the call has returned
// even where its time was up earlier: the application may keep a client's state without a lock.
type ended struct{ *running }

func (e *ended) Run(w *loop.Worker) {
	if c := w.Conn(e.ref); c != nil && c.Open() {
		s := c.Data.(*session)
		s.calls.busy = false
		s.nextCall()
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
