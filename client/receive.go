package client

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// incoming is a message of the server, of any kind.
type incoming struct {
	Type string          `json:"msg_type"`
	ID   json.RawMessage `json:"id"`
	Room string          `json:"room"`

	From     string          `json:"from"`
	User     string          `json:"user"` // of welcome, too
	Content  json.RawMessage `json:"content"`
	Time     int64           `json:"time"`
	Key      string          `json:"key"`
	Offset   uint64          `json:"offset"`
	ToOffset uint64          `json:"to_offset"`
	Count    int             `json:"count"`

	Epoch     string           `json:"epoch"`
	Recovered bool             `json:"recovered"`
	Reason    string           `json:"reason"`
	Retry     bool             `json:"retry"` // of an error, too
	Rooms     map[string]place `json:"rooms"` // resumed

	ClientID       string `json:"client_id"` // welcome
	MaxMessage     int    `json:"max_message_bytes"`
	PingIntervalMS int64  `json:"ping_interval_ms"`
	PongTimeoutMS  int64  `json:"pong_timeout_ms"`
	ResumeToken    string `json:"resume_token"`
	Resumed        bool   `json:"resumed"`
	ExpiresAt      int64  `json:"expires_at"`

	FromOffset   uint64      `json:"from_offset"` // gap
	Messages     []published `json:"messages"`    // history
	More         bool        `json:"more"`
	Members      []Member    `json:"members"`
	Code         string      `json:"code"` // error
	Message      string      `json:"message"`
	RetryAfterMS int64       `json:"retry_after_ms"`
	AfterMS      int64       `json:"after_ms"` // reconnect
}

// published is a message of a page.
type published struct {
	From    string          `json:"from"`
	User    string          `json:"user"`
	Content json.RawMessage `json:"content"`
	Time    int64           `json:"time"`
	Key     string          `json:"key"`
	Offset  uint64          `json:"offset"`
}

func (p published) message(room, epoch string) Message {
	m := Message{Room: room, From: p.From, User: p.User, Key: p.Key, Content: p.Content, Time: time.UnixMilli(p.Time)}
	if epoch != "" && p.Offset != 0 {
		m.Position = Position{Epoch: epoch, Offset: p.Offset}
	}
	return m
}

func (m incoming) published() published {
	return published{From: m.From, User: m.User, Content: m.Content, Time: m.Time, Key: m.Key, Offset: m.Offset}
}

// place is what the server says of a room that the client comes to.
type place struct {
	Epoch     string `json:"epoch"`
	Offset    uint64 `json:"offset"`
	Recovered bool   `json:"recovered"`
	Reason    string `json:"reason"`
	Retry     bool   `json:"retry"`
}

func (m incoming) place() place {
	return place{Epoch: m.Epoch, Offset: m.Offset, Recovered: m.Recovered, Reason: m.Reason}
}

// position is nil where the room has no history.
func (p place) position() *Position {
	if p.Epoch == "" {
		return nil
	}
	return &Position{Epoch: p.Epoch, Offset: p.Offset}
}

func (m incoming) err() *Error {
	return &Error{Code: m.Code, Message: m.Message, Retry: m.Retry, RetryAfter: time.Duration(m.RetryAfterMS) * time.Millisecond}
}

// maxOffset is the protocol's.
const maxOffset = 1<<53 - 1

// delivery is an event for an inbox.
type delivery struct {
	to    *inbox
	event Event
}

// receive does what a message of the server says. What it returns is to be put into inboxes. An error says that the
// server can't be talked to.
func (h *Hub) receive(conn *connection, raw []byte) ([]delivery, error) {
	var m incoming
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("the server sent what is no message: %w", err)
	}
	if m.Type == "" || max(m.Offset, m.ToOffset) > maxOffset {
		return nil, fmt.Errorf("the server sent what is no message: msg_type %q, offset %d, to_offset %d", m.Type, m.Offset, m.ToOffset)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !conn.welcomed && m.Type == "welcome":
		return nil, h.welcome(conn, m)
	case !conn.welcomed: // nothing comes before it
		return nil, nil
	case m.ID != nil:
		return h.answer(m), nil
	}
	switch m.Type {
	case "chat":
		return []delivery{{h.inbox, m.published().message("", "")}}, nil
	case "direct_message":
		message := m.published().message("", "")
		message.Direct = true
		return []delivery{{h.inbox, message}}, nil
	case "gap":
		if m.Room == "" {
			return []delivery{{h.inbox, m.gap()}}, nil
		}
	case "reconnect":
		conn.after = min(time.Duration(max(0, m.AfterMS))*time.Millisecond, maxRetryAfter)
		return nil, nil
	case "pong":
		h.pong(conn, m)
		return nil, nil
	case "error":
		h.opts.Logger.Debug("hubbub client: the server refused something", "code", m.Code, "message", m.Message)
		return nil, nil
	case "joined":
		return h.putIn(m), nil
	}
	if r := h.rooms[m.Room]; r != nil && r.joined {
		return r.receive(m), nil
	}
	return nil, nil
}

func (m incoming) gap() Gap {
	return Gap{Room: m.Room, Count: m.Count, Reason: m.Reason, From: m.FromOffset, To: m.ToOffset}
}

// pong learns how far the server's clock is ahead.
func (h *Hub) pong(conn *connection, m incoming) {
	if m.Time > 0 {
		h.session.skew = time.Until(time.UnixMilli(m.Time))
	}
	h.session.clockKnown = true
	if !conn.clockKnown {
		conn.clockKnown = true
		close(conn.clock)
	}
}

// answers are the kinds that say yes to a call.
var answers = map[string]string{
	"chat": "ack", "room_message": "ack", "direct_message": "ack", "join_room": "joined", "leave_room": "left", "presence": "presence",
	"history": "history", "resume": "resumed", "refresh": "refreshed", "request": "response",
}

// answer ends the call that m answers. One that nobody waits for, or that comes twice, is none.
func (h *Hub) answer(m incoming) []delivery {
	id, err := strconv.ParseUint(string(m.ID), 10, 64)
	if err != nil {
		return nil
	}
	c := h.calls.sent[id]
	if c == nil {
		return nil
	}
	delete(h.calls.sent, id)
	switch m.Type {
	case answers[c.message.Type]:
		return h.settle(c, m, nil)
	case "error":
		if c.again && c.kind == once { // of what was sent twice it says nothing of the first
			return h.settle(c, incoming{}, fmt.Errorf("%w: %w", ErrUnknown, m.err()))
		}
		return h.settle(c, incoming{}, m.err())
	}
	return h.settle(c, incoming{}, &Error{Code: "internal", Message: fmt.Sprintf("the server answered %s with %q", c.message.Type, m.Type)})
}

// putIn enters a room that the server has put the client into.
func (h *Hub) putIn(m incoming) []delivery {
	if len(m.Room) == 0 {
		return nil
	}
	r := h.room(m.Room)
	switch {
	case r.joined && r.away: // it is being entered again, from where it was left
		return nil
	case r.joined:
		p := m.place()
		if here := p.position(); here == nil && r.at == nil || here != nil && r.at != nil && here.Epoch == r.at.Epoch {
			return nil
		}
		p.Reason = "epoch"
		return r.enter(p, nil, true)
	}
	return append(r.enter(m.place(), nil, false), delivery{h.inbox, Entered{Room: r.name}})
}

// receive does what the server says of a room that the client is in. The hub's mu is held.
func (r *Room) receive(m incoming) []delivery {
	switch m.Type {
	case "room_message", "gap", "deleted":
		if !r.away { // else it lies beyond what was missed: the answer to the join has all brought, or says Lost
			return r.placed(m)
		}
	case "member_joined", "member_left":
		r.news(m)
	case "left":
		return r.leave(m.Reason)
	}
	return nil
}

// placed does what has its place in the room's order. The hub's mu is held.
func (r *Room) placed(m incoming) []delivery {
	switch m.Type {
	case "room_message":
		epoch := ""
		if r.at != nil && m.Offset != 0 {
			if m.Offset <= r.at.Offset {
				return nil // it has come already
			}
			epoch = r.at.Epoch
			r.moveOn(m.Offset)
		}
		return []delivery{{r.inbox, m.published().message(r.name, epoch)}}
	case "gap":
		r.moveOn(m.ToOffset)
		if m.Epoch != "" { // the room's log was lost, and a new one has begun
			r.at = &Position{m.Epoch, m.ToOffset}
		}
		r.askMembers()
		return []delivery{{r.inbox, m.gap()}}
	case "deleted":
		r.moveOn(m.ToOffset)
		return []delivery{{r.inbox, Deleted{Room: r.name, Offset: m.Offset, ToOffset: m.ToOffset}}}
	}
	return nil
}

// moveOn notes how far the client has come: the server says so in messages, gaps and deletions alone.
func (r *Room) moveOn(offset uint64) {
	if r.at != nil {
		r.at.Offset = max(r.at.Offset, offset)
	}
}
