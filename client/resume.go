package client

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// welcome begins a session, or goes on with the one before. h.mu is held.
func (h *Hub) welcome(conn *connection, m incoming) error {
	if m.ClientID == "" || m.MaxMessage <= 0 {
		return errors.New("the server's welcome lacks client_id or max_message_bytes")
	}
	resumed := m.Resumed && m.ClientID == h.session.clientID
	h.session = session{
		clientID: m.ClientID, user: m.User, resume: m.ResumeToken, maxMessage: m.MaxMessage,
		expires: milliseconds(m.ExpiresAt), skew: h.session.skew, clockKnown: h.session.clockKnown,
	}
	h.tokens.refused = ""
	conn.welcomed = true
	conn.patience(h.opts, m)
	rooms := h.joined()
	for _, r := range rooms {
		if !r.away {
			r.away, r.since = true, r.position()
		}
	}
	if resumed {
		h.resume(conn, rooms)
	} else {
		conn.unentered = len(rooms)
		for _, r := range rooms {
			r.rejoin(0)
		}
		h.open(conn)
	}
	if !h.session.expires.IsZero() && h.opts.Token != nil {
		conn.wantPing = true // its answer says what time it is at the server
		conn.others.Go(func() { h.refresh(conn.ctx, conn) })
	}
	conn.wakeUp()
	return nil
}

// open lets the calls go out, once the server has answered for all rooms. h.mu is held.
func (h *Hub) open(conn *connection) {
	if conn.open || conn.unentered > 0 {
		return
	}
	conn.open = true
	h.unanswered()
	h.status = Status{State: Online}
	h.change()
	h.opts.Logger.Debug("hubbub client", "state", Online, "client", h.session.clientID)
	conn.wakeUp()
}

// entered counts an answer for a room, or a page of them. hub.mu is held.
func (c *connection) entered() {
	c.unentered--
	c.hub.open(c)
}

// maxRooms is how many a resume may name.
const maxRooms = 1000

// resume says in which rooms the client is, in as many messages as that takes. h.mu is held.
func (h *Hub) resume(conn *connection, rooms []*Room) {
	const frame = 100 // of a message without rooms, at most
	for first := true; first || len(rooms) > 0; first = false {
		page, named, bytes := map[string]json.RawMessage{}, 0, frame
		for _, r := range rooms {
			name, _ := encode(r.name)
			at, _ := encode(r.since)
			if n := len(name) + len(at) + 2; named > 0 && (named == maxRooms || bytes+n > h.session.maxMessage) {
				break
			} else {
				bytes += n
			}
			page[r.name] = at
			named++
		}
		these := rooms[:named]
		rooms = rooms[named:]
		m := outgoing{Type: "resume", Rooms: &page}
		if len(rooms) > 0 {
			m.Last = new(bool)
		}
		conn.unentered++
		h.beforeQueue(&call{message: m, answered: func(m incoming, err error) []delivery { return h.resumed(conn, these, m, err) }})
	}
}

// resumed is the answer to a page. h.mu is held.
func (h *Hub) resumed(conn *connection, rooms []*Room, m incoming, err error) (events []delivery) {
	if h.conn != conn || conn.ctx.Err() != nil {
		return nil
	}
	if err == errLate {
		h.session.resume = "" // the rooms are joined one by one then
		conn.giveUp(errors.New("the server did not answer resume in time"))
		return nil
	}
	for _, r := range rooms {
		p, named := m.Rooms[r.name]
		switch {
		case !r.joined:
		case err != nil || !named || p.Retry:
			r.rejoinLater(1, &Error{Code: p.Reason, Retry: true})
		case p.Reason == "forbidden":
			events = append(events, r.leave(p.Reason)...)
		default:
			events = append(events, r.enter(p, r.since, true)...)
		}
	}
	conn.entered()
	return events
}

// rejoin joins a room again from where the client was. At the first try the queue waits for the answer. hub.mu is held.
func (r *Room) rejoin(tries int) {
	since, conn := r.since, r.hub.conn
	r.hub.beforeQueue(&call{
		message: outgoing{Type: "join_room", Room: r.name, Since: since, Data: r.data},
		answered: func(m incoming, err error) []delivery {
			if conn == r.hub.conn && tries == 0 {
				defer conn.entered()
			}
			var no *Error
			switch {
			case !r.joined || errors.Is(err, ErrUnknown): // left meanwhile, or it is the next connection's
				return nil
			case err == nil:
				return r.enter(m.place(), since, true)
			case !errors.As(err, &no):
				return nil
			case !no.Retry:
				return r.leave(no.Code)
			}
			r.rejoinLater(tries+1, no)
			return nil
		},
	})
}

// rejoinLater does so when the server may have changed its mind. hub.mu is held.
func (r *Room) rejoinLater(tries int, why *Error) {
	h, conn := r.hub, r.hub.conn
	after := min(30*time.Second, time.Second<<min(tries, 5))
	if why.RetryAfter > 0 {
		after = why.RetryAfter
	}
	if conn == nil {
		return
	}
	conn.later("join "+r.name, after, func() {
		if h.conn == conn && r.joined && r.away {
			r.rejoin(tries)
		}
	})
}

// enter notes that the client is in a room. asked is from where on it wanted what it missed, nil for nothing; again says
// that it was there before. The hub's mu is held.
func (r *Room) enter(p place, asked *Position, again bool) (events []delivery) {
	here, stays := p.position(), r.joined && !r.away
	lost := (again || r.away || asked != nil) && !(p.Recovered && asked != nil)
	if !r.joined {
		r.inbox.forgetLeft()
	}
	r.joined, r.away, r.since = true, false, nil
	switch {
	case asked != nil && p.Recovered:
		if r.at == nil || r.at.Epoch != asked.Epoch {
			r.at = &Position{asked.Epoch, asked.Offset}
		}
	case stays && r.at != nil && here != nil && r.at.Epoch == here.Epoch: // what is on its way still comes
	default:
		r.at = here
	}
	if lost {
		e := Lost{Room: r.name, Reason: cmp.Or(p.Reason, "no_history")}
		if here != nil {
			e.Position, e.Reason = *here, cmp.Or(p.Reason, "expired")
		}
		events = append(events, delivery{r.inbox, e})
	}
	r.askMembers()
	return events
}

// leave notes that the client is not in a room any more. The hub's mu is held.
func (r *Room) leave(reason string) []delivery {
	if !r.joined {
		return nil
	}
	r.joined, r.away, r.since, r.at = false, false, nil, nil
	r.unlist(nil)
	return []delivery{{r.inbox, Left{Room: r.name, Reason: reason}}}
}

func (p Position) String() string { return fmt.Sprintf("%s:%d", p.Epoch, p.Offset) }
