package hub

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// Connect asks the application whether the client with that id may come in. It gets what is known of the client, in a
// copy of its own, and adds to that.
type Connect func(ctx context.Context, id ID, who *auth.Identity) error

// Admit finds out who a new client is and whether it may come in, and gives the handler for its connection. addr is its
// address where what one address may do or have kept is bounded, and token that of the session that it wants back, ""
// for none. connect is asked with the id that the client gets; nil lets everyone in. An error is connect's, or says why
// it could not be asked; Refuse makes a handler of it. It is a *Limited where the client's user connects too often.
// known is who the client is by what it has shown.
//
// Each time that connect lets a client in, the hook Disconnect follows, once, for the same id and user: where nobody
// waits for the answer any more, where another id has to be asked about, and else at the handler's Closed. So that must
// be called also when the handler gets no connection; the Conn is nil then.
//
// Any goroutine, between UpgradeBegins and UpgradeEnds; it waits for connect or for ctx.
func (h *Hub) Admit(ctx context.Context, addr netip.Addr, token string, known auth.Identity, connect Connect) (loop.Handler, error) {
	var resume *Resumption
	id := h.newID()
	if token != "" {
		if of, ok := h.Resume(token); ok {
			resume, id = &of, of.ID
		}
	}
	if err := checkIdentity(&known); err != nil {
		return nil, err
	}
	if resume != nil && resume.elsewhere && !h.comes(ctx, addr, resume, known.User, connect != nil) {
		resume, id = nil, h.newID()
	}
	if no := h.userConnects(ctx, known.User, resume); no != nil {
		return nil, no
	}
	if connect == nil {
		if resume != nil && known.User != resume.User {
			resume, id = nil, h.newID()
		}
		return h.session(id, known, addr, resume), nil
	}
	id, who, err := h.await(ctx, addr, id, known, connect, nil)
	if err == nil && resume != nil && resume.elsewhere {
		h.comes(ctx, addr, resume, who.User, false)
	}
	if err == nil && resume != nil && (resume.elsewhere || who.User != resume.User) {
		resume = nil // that session isn't this user's: the hook was told an id that the client can't have
		told := Identity{id, who.User}
		id, who, err = h.await(ctx, addr, h.newID(), known, connect, &told)
	}
	if err != nil {
		return nil, err
	}
	if known.User == "" {
		if no := h.userConnects(ctx, who.User, resume); no != nil {
			h.callDisconnect(addr, Identity{id, who.User}, wire.CloseAbnormal)
			return nil, no
		}
	}
	s := h.session(id, who, addr, resume)
	if resume != nil {
		// The values of the handshake's context are of use after the handshake; its end is not.
		s.self.resume.again = &again{context.WithoutCancel(ctx), known, connect}
	}
	return s, nil
}

// Refuse is the handler of a client that isn't let in because of err: with 4501, "don't come back", where it is an
// error of the application for the client, with a code that says not to retry, and else with 1013.
func Refuse(err error) Refusal {
	var e *protocol.Error
	switch {
	case !errors.As(err, &e) || e == nil:
		return Refusal{Code: wire.CloseTryLater, Reason: "try again later"}
	case e.Code.Retry():
		return Refusal{Code: wire.CloseTryLater, Reason: e.Message}
	}
	return Refusal{Code: protocol.CloseRefused, Reason: e.Message}
}

// asking is one call of a Connect, on a goroutine of its own, for an upgrade or for a session. Who waits for it waits
// for the end of its ctx, which comes with the outcome or with the time's end, and then takes the outcome, once; what
// the application lets in when nobody waits any more has its Disconnect at once.
type asking struct {
	// Static.
	hub     *Hub
	id      ID
	known   auth.Identity
	connect Connect
	addr    netip.Addr // who pays for a Disconnect
	instead *Identity  // has its Disconnect before; nil for nobody
	ctx     context.Context
	cancel  context.CancelFunc

	// Guarded by runs.mu.
	who  auth.Identity
	err  error
	over bool // the outcome is there
	left bool // nobody waits for it
}

// ask begins to ask. Never blocks.
func (h *Hub) ask(ctx context.Context, addr netip.Addr, id ID, known auth.Identity, connect Connect, instead *Identity) *asking {
	a := &asking{hub: h, connect: connect, addr: addr, instead: instead, id: id, known: known}
	a.ctx, a.cancel = context.WithTimeout(ctx, h.cfg().HookTimeout)
	h.runs.mu.Lock()
	defer h.runs.mu.Unlock()
	h.runs.asked++
	go a.call()
	return a
}

// await asks on behalf of an upgrade. What counts meanwhile is the call alone: that may be the one which shuts the
// server down, and then it doesn't wait for its own upgrade.
func (h *Hub) await(ctx context.Context, addr netip.Addr, id ID, known auth.Identity, connect Connect, instead *Identity) (ID, auth.Identity, error) {
	a := h.ask(ctx, addr, id, known, connect, instead)
	h.UpgradeEnds()
	select {
	case <-a.ctx.Done():
	case <-h.stop: // there is nobody who would serve the client
	}
	h.UpgradeBegins()
	who, err := a.take()
	return id, who, err
}

var errBroke = errors.New("it panicked or ended its goroutine")

// call calls the hook. However that ends, there is an outcome.
func (a *asking) call() {
	who, err, broke := a.known, errBroke, true
	defer func() {
		if broke {
			a.hub.hookBroke(a.id, recover())
		}
		a.settle(who, err)
	}()
	defer a.hub.runs.calls(&caller{of: &a.hub.runs.asked})()
	if no := a.wait(); no != nil {
		err = no
	} else {
		defer func() { <-a.hub.runs.connects }()
		loop.WakeMonitor() // as for every hook
		err = a.connect(a.ctx, a.id, &who)
	}
	broke = false
}

// wait waits until the hook may be called, and takes a place for it.
func (a *asking) wait() error {
	if a.instead != nil {
		select {
		case <-a.hub.callDisconnect(a.addr, *a.instead, wire.CloseAbnormal):
		case <-a.ctx.Done():
			return fmt.Errorf("wait for the hook Disconnect: %w", a.ctx.Err())
		}
	}
	select {
	case a.hub.runs.connects <- struct{}{}:
		return nil
	case <-a.ctx.Done():
		return fmt.Errorf("no room for another hook: %w", a.ctx.Err())
	}
}

// settle notes the outcome.
func (a *asking) settle(who auth.Identity, err error) {
	rs := &a.hub.runs
	rs.mu.Lock()
	a.who, a.err, a.over = who, err, true
	if err == nil {
		a.err = checkIdentity(&who)
	}
	left := a.left
	in := err == nil && (left || a.err != nil) // but comes to nothing
	rs.mu.Unlock()
	if in {
		a.hub.callDisconnect(a.addr, Identity{a.id, who.User}, wire.CloseAbnormal)
	}
	if left {
		rs.add(&rs.asked, -1)
	}
	a.cancel()
}

// take gives the outcome. Where there is none nobody waits any more: the time is up, or the client or the server is
// gone.
func (a *asking) take() (auth.Identity, error) {
	rs := &a.hub.runs
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if !a.over {
		a.left = true
		a.cancel()
		return auth.Identity{}, fmt.Errorf("no answer: %w", a.ctx.Err())
	}
	rs.asked--
	rs.less.Broadcast()
	return a.who, a.err
}

// callDisconnect has the hook Disconnect called for a client that was let in and got no session; told is closed when it has
// returned. It waits for no other hook: another connection may have a session of that id. Any goroutine; never blocks.
func (h *Hub) callDisconnect(addr netip.Addr, who Identity, code int) (told <-chan struct{}) {
	done := make(chan struct{})
	if h.cfg().Hooks.Disconnect == nil {
		close(done)
		return done
	}
	r := h.disconnection(addr, who, code)
	tell := r.do
	r.do = func(ctx context.Context) outcome {
		defer close(done)
		return tell(ctx)
	}
	h.runs.startAfter(nil, r)
	return done
}

// disconnection is a call of Disconnect, if there is one. It is the last that is kept for the client, whose session may have ended.
func (h *Hub) disconnection(addr netip.Addr, who Identity, code int) *run {
	r := &run{s: &session{hub: h, id: who.ID}, ctx: context.Background(), do: func(ctx context.Context) (none outcome) {
		if disconnect := h.cfg().Hooks.Disconnect; disconnect != nil {
			disconnect(ctx, who, code)
		}
		return none
	}}
	p := h.newPayer(who.User, addr)
	h.paysFor(r, p, eventCost)
	h.payers.leave(p) // r keeps it known
	return r
}

// readmission is for a session whose client wants back one that turns out to be gone.
type readmission struct {
	again   *again  // nil where the application isn't asked, or not any more
	asking  *asking // while it is asked again
	refused bool    // by that
}

// again is what asks the application once more.
type again struct {
	ctx     context.Context
	known   auth.Identity
	connect Connect
}

// readmit gives the session an id of its own: since it was admitted under that of the one which its client wants back,
// this one has ended or another connection has got it. It waits where the application has to be asked about that id;
// readmitted comes then. The goroutine of the session's worker.
func (s *session) readmit() (waits bool) {
	r, told := s.self.resume, s.identity()
	s.id = s.hub.newID()
	if r.again == nil {
		return false
	}
	s.conn.PauseReading()
	r.asking = s.hub.ask(r.again.ctx, s.self.addr, s.id, r.again.known, r.again.connect, &told)
	r.again = nil
	w := s.conn.Worker()
	context.AfterFunc(r.asking.ctx, func() { w.Post(&readmitted{s}, 0) })
	return true
}

// readmitted is when readmit is over.
type readmitted struct{ s *session }

func (m *readmitted) Conn(*loop.Worker) *loop.Conn { return m.s.conn }

func (m *readmitted) Run(*loop.Worker) {
	s := m.s
	if s.self.resume.asking == nil {
		return // Closed has been here
	}
	if err := s.letIn(); err != nil {
		s.told(err) // to the log
		no := Refuse(err)
		s.conn.Close(no.Code, no.Reason)
		return
	}
	s.welcome(false)
	s.readOn()
}

// letIn takes what the application said to readmit.
func (s *session) letIn() error {
	r := s.self.resume
	who, err := r.asking.take()
	r.asking, r.refused = nil, err != nil
	if err == nil {
		s.self.is(who)
	}
	return err
}

// admitted says whether a Disconnect is due: the application has let the client in.
func (s *session) admitted() bool {
	if s.self == nil || s.self.resume == nil {
		return true
	}
	if s.self.resume.asking != nil {
		s.letIn()
	}
	return !s.self.resume.refused
}
