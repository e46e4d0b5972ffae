package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// outgoing is a message to the server, of any kind.
type outgoing struct {
	Type      string                      `json:"msg_type"`
	Room      string                      `json:"room,omitempty"`
	To        string                      `json:"to,omitempty"`
	Method    string                      `json:"method,omitempty"`
	Content   json.RawMessage             `json:"content,omitempty"`
	Key       string                      `json:"key,omitempty"`
	PublishID string                      `json:"publish_id,omitempty"`
	Since     *Position                   `json:"since,omitempty"`
	Before    *Position                   `json:"before,omitempty"`
	Limit     int                         `json:"limit,omitempty"`
	Data      json.RawMessage             `json:"data,omitempty"`
	Token     string                      `json:"token,omitempty"`
	Rooms     *map[string]json.RawMessage `json:"rooms,omitempty"`
	Last      *bool                       `json:"last,omitempty"`
	ID        uint64                      `json:"id,omitempty"`
}

// encode is v as JSON, with < and & as they are.
func encode(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// callKind says what becomes of a call that was sent, when the connection ends before its answer.
type callKind int

const (
	repeatable   callKind = iota // done twice is done once: it is sent again
	once                         // sent again where the server knows its publish_id
	atMostOnce                   // ErrUnknown
	ofConnection                 // nobody waits for it, and it ends with the connection
)

// call is a message that wants an answer. Its fields are guarded by Hub.mu once it is with the hub.
type call struct {
	kind    callKind
	message outgoing
	// answered is called with the answer, with Hub.mu held and before anybody else hears of it; what it returns is then
	// put into the inboxes. nil: nothing to do.
	answered func(answer incoming, err error) []delivery

	id        uint64
	frame     []byte
	result    chan result // gets one
	abandoned bool        // nobody waits any more
	overdue   *time.Timer // of one that is ofConnection, once it is sent

	sentAt    time.Time // first; zero: not sent
	sentWall  time.Time // likewise by the clock that goes on while the machine sleeps, and may be set back
	again     bool      // sent more than once
	sentAs    string    // the session's client id and user then
	sentUser  string
	sentEpoch string // of the room then, "" where it isn't known
}

type result struct {
	answer incoming
	err    error
}

// calls are those without an answer.
type calls struct {
	last  uint64
	first []*call // go before the queue: a resume, joins anew
	queue []*call // in the order of the calls
	sent  map[uint64]*call
	count int // of those that somebody waited for
	bytes int // of their frames
}

// do makes a call and waits for its answer.
func (h *Hub) do(ctx context.Context, c *call) (incoming, error) {
	if err := ctx.Err(); err != nil {
		return incoming{}, err
	}
	if err := h.enqueue(c); err != nil {
		return incoming{}, err
	}
	select {
	case r := <-c.result:
		return r.answer, r.err
	case <-ctx.Done():
		return h.abandon(c, ctx.Err())
	}
}

func (h *Hub) enqueue(c *call) (err error) {
	m := &c.message
	for _, name := range []string{m.Room, m.To, m.Method, m.Key, m.PublishID} {
		if !utf8.ValidString(name) { // as JSON it would be another one
			return fmt.Errorf("%q is no UTF-8", name)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.status.State == Closed {
		return h.closedError()
	}
	if err := h.number(c); err != nil {
		return err
	}
	q := &h.calls
	switch {
	case h.session.maxMessage > 0 && len(c.frame) > h.session.maxMessage:
		return fmt.Errorf("%d bytes, %d may be: %w", len(c.frame), h.session.maxMessage, ErrTooLarge)
	case q.count >= h.opts.QueueCalls || q.count > 0 && q.bytes+len(c.frame) > h.opts.QueueBytes:
		return ErrQueueFull
	}
	q.count++
	h.waiting.Add(1)
	q.bytes += len(c.frame)
	q.queue = append(q.queue, c)
	h.wakeWriter()
	select { // the connection's reader may wait for one who waits for this
	case h.poked <- struct{}{}:
	default:
	}
	return nil
}

// number gives a call its id and its frame. h.mu is held.
func (h *Hub) number(c *call) (err error) {
	h.calls.last++
	c.id, c.message.ID, c.result = h.calls.last, h.calls.last, make(chan result, 1)
	if c.kind == once && c.message.PublishID == "" {
		c.message.PublishID = fmt.Sprintf("%s-%d", h.prefix, c.id)
	}
	c.frame, err = encode(c.message)
	return err
}

// beforeQueue has a call go out before what is queued, on this connection or never. h.mu is held.
func (h *Hub) beforeQueue(c *call) {
	c.kind = ofConnection
	if h.conn == nil {
		return
	}
	if h.number(c) == nil { // what it is made of came from JSON
		h.calls.first = append(h.calls.first, c)
		h.wakeWriter()
	}
}

// wakeWriter has the connection write. h.mu is held.
func (h *Hub) wakeWriter() {
	if h.conn != nil {
		h.conn.wakeUp()
	}
}

// abandon takes back a call whose context has ended.
func (h *Hub) abandon(c *call, why error) (incoming, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case r := <-c.result:
		return r.answer, r.err
	default:
	}
	if i := slices.Index(h.calls.queue, c); i >= 0 {
		h.calls.queue = slices.Delete(h.calls.queue, i, i+1)
		h.forget(c)
	}
	c.abandoned = true
	if !c.sentAt.IsZero() && c.kind != repeatable {
		why = fmt.Errorf("%w: %w", ErrUnknown, why)
	}
	return incoming{}, why
}

// forget ends the accounts of a call. h.mu is held.
func (h *Hub) forget(c *call) {
	if c.kind != ofConnection {
		h.calls.count--
		h.waiting.Add(-1)
		h.calls.bytes -= len(c.frame)
	}
}

// settle ends a call that is in no list any more. h.mu is held.
func (h *Hub) settle(c *call, answer incoming, err error) (events []delivery) {
	h.forget(c)
	if c.overdue != nil {
		c.overdue.Stop()
	}
	if c.answered != nil {
		events = c.answered(answer, err)
	}
	c.result <- result{answer, err}
	return events
}

// next is the frame to be written now, nil for none.
func (h *Hub) next(conn *connection) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := &h.calls
	for {
		var from *[]*call
		switch {
		case h.conn != conn || !conn.welcomed:
			return nil
		case len(q.first) > 0:
			from = &q.first
		case conn.wantPing:
			conn.wantPing = false
			return []byte(`{"msg_type":"ping"}`)
		case conn.open && len(q.queue) > 0:
			from = &q.queue
		default:
			return nil
		}
		c := (*from)[0]
		*from = slices.Delete(*from, 0, 1)
		if c.kind != ofConnection && len(c.frame) > h.session.maxMessage {
			err := fmt.Errorf("%d bytes, %d may be: %w", len(c.frame), h.session.maxMessage, ErrTooLarge)
			if !c.sentAt.IsZero() { // to a server that took more
				err = ErrUnknown
			}
			h.settle(c, incoming{}, err)
			continue
		}
		if c.sentAt.IsZero() {
			c.sentAt, c.sentAs, c.sentUser = time.Now(), h.session.clientID, h.session.user
			c.sentWall, c.sentEpoch = c.sentAt.Round(0), h.epoch(c.message.Room)
		} else {
			c.again = true
		}
		q.sent[c.id] = c
		if c.kind == ofConnection {
			c.overdue = time.AfterFunc(h.opts.Timeout, func() { h.late(c) })
		}
		return c.frame
	}
}

// errLate is that the server has not answered what the client itself wanted.
var errLate = &Error{Code: "timeout", Message: "the server did not answer within Options.Timeout", Retry: true}

// late ends a call that was not answered in time; nobody is told but who made it. As long as something comes, or nothing
// is read, the answer may be behind that.
func (h *Hub) late(c *call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch conn := h.conn; {
	case h.calls.sent[c.id] != c:
	case conn != nil && (conn.stopped.Load() || conn.quiet() < h.opts.Timeout):
		c.overdue.Reset(h.opts.Timeout)
	default:
		delete(h.calls.sent, c.id)
		h.settle(c, incoming{}, errLate)
	}
}

// epoch is that of a room that the client is in, "" where it isn't known. h.mu is held.
func (h *Hub) epoch(room string) string {
	if r := h.rooms[room]; r != nil && r.joined && !r.away && r.at != nil {
		return r.at.Epoch
	}
	return ""
}

// unanswered decides on the calls that were sent over a connection before: they go out again, before all that came
// later, or they are unknown. h.mu is held, h.session is the new one, and its rooms are entered.
func (h *Hub) unanswered() {
	q := &h.calls
	all := q.queue
	for id, c := range q.sent {
		if c.kind != ofConnection { // those are of this connection
			delete(q.sent, id)
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *call) int { return cmp.Compare(a.id, b.id) })
	q.queue = nil
	for _, c := range all {
		switch {
		case c.abandoned:
			h.forget(c) // also a join: it is left, as nobody has said that it is wanted
		case c.sentAt.IsZero(), c.kind == repeatable, c.kind == once && h.knows(c):
			q.queue = append(q.queue, c)
		default:
			h.settle(c, incoming{}, ErrUnknown)
		}
	}
}

// knows says whether the server still knows the publish_id of a call that was sent: by the session, or by the user's
// name where the client is in the room and its epoch proves that the server has not begun anew. h.mu is held.
func (h *Hub) knows(c *call) bool {
	switch {
	case max(time.Since(c.sentAt), time.Since(c.sentWall)) > h.opts.DedupWindow*3/4: // it still has to arrive
		return false
	case c.sentAs == h.session.clientID:
		return true
	case c.sentUser == "" || c.sentUser != h.session.user:
		return false
	}
	return c.sentEpoch != "" && c.sentEpoch == h.epoch(c.message.Room)
}

// hungUp ends, with their connection, the calls that no other one can bring an answer to. One that the server found
// tooLarge would end the next one, too. h.mu is held.
func (h *Hub) hungUp(tooLarge bool) {
	for id, c := range h.calls.sent {
		if c.kind == atMostOnce || c.kind == ofConnection || tooLarge && c.kind == once {
			delete(h.calls.sent, id)
			h.settle(c, incoming{}, ErrUnknown)
		}
	}
	first := h.calls.first
	h.calls.first = nil
	for _, c := range first {
		h.settle(c, incoming{}, ErrUnknown)
	}
}

// fail ends all calls, for good. h.mu is held.
func (h *Hub) fail() {
	q := &h.calls
	for _, c := range q.sent {
		err := h.closedError()
		if c.kind == once || c.kind == atMostOnce {
			err = fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		h.settle(c, incoming{}, err)
	}
	for _, c := range q.queue {
		h.settle(c, incoming{}, h.closedError())
	}
	clear(q.sent)
	q.first, q.queue = nil, nil
}

// closedError is ErrClosed, and why. h.mu is held.
func (h *Hub) closedError() error {
	if h.status.Err == nil {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrClosed, h.status.Err)
}
