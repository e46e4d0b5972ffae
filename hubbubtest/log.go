package hubbubtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"example.com/hubbub/internal/model"
)

// What a client sent and received, as the checker wants it. All of it with c.mu held.

// note adds a line to the log.
func (c *Client) note(e model.Event) {
	e.At, e.Time = c.server.clock.Add(1), time.Now()
	c.log.Events = append(c.log.Events, e)
}

// sent notes what the client is about to send.
func (c *Client) sent(m map[string]any) {
	word := func(key string) string { s, _ := m[key].(string); return s }
	e := model.Event{Room: word("room"), Key: word("key")}
	if id, ok := m["id"]; ok {
		e.ID = text(id)
	}
	switch word("msg_type") {
	case "room_message":
		e.Kind, e.Message = model.Sent, text(m["content"])
	case "chat":
		e.Kind, e.Room, e.Message = model.Sent, model.Everyone, text(m["content"])
	case "direct_message":
		e.Kind, e.Room, e.Message = model.Sent, model.Direct(word("to")), text(m["content"])
	case "join_room":
		e.Kind = model.JoinSent
		if data, ok := m["data"]; ok {
			e.Data = text(data)
		}
		if since, ok := m["since"].(Position); ok {
			e.Since = &model.Position{Epoch: since.Epoch, Offset: since.Offset}
		}
	case "leave_room":
		e.Kind = model.LeaveSent
		delete(c.rooms, e.Room)
	case "resume":
		e.Kind = model.Asked
		c.resumeSent(e.ID, m)
	default:
		e.Kind = model.Asked
	}
	if e.ID != "" {
		c.requests[e.ID] = e
	}
	c.note(e)
}

// resumeSent notes a resume, which is a join of each room that it names.
func (c *Client) resumeSent(id string, m map[string]any) {
	rooms, _ := m["rooms"].(map[string]any)
	for _, room := range slices.Sorted(maps.Keys(rooms)) {
		e := model.Event{ID: id, Kind: model.JoinSent, Room: room}
		if since, ok := rooms[room].(Position); ok {
			e.Since = &model.Position{Epoch: since.Epoch, Offset: since.Offset}
		}
		c.asked[id] = append(c.asked[id], room)
		c.note(e)
	}
}

// resumed notes what became of each room.
func (c *Client) resumed(id string, answer Message) {
	for _, room := range c.asked[id] {
		a, named := answer.Rooms[room]
		e := model.Event{ID: id, Kind: model.Joined, Room: room, Reason: a.Reason, Position: model.Position(a.Position), Recovered: a.Recovered}
		switch {
		case answer.Type == "error":
			e.Kind, e.Reason = model.Refused, answer.Code
		case !named:
			continue // the checker finds a request without an answer
		case a.Reason == "forbidden" || a.Retry: // it isn't in the room
			e.Kind = model.Refused
			delete(c.rooms, room)
		default:
			c.enter(room, a, false)
		}
		c.note(e)
	}
	delete(c.asked, id)
}

// enter notes that the client is in a room, and from where on. What has come behind the position of one that is
// recovered, or was a member already, is still to come.
func (c *Client) enter(room string, answer Message, member bool) {
	if c.rooms[room] = true; answer.Epoch != "" && !answer.Recovered && !member {
		c.positions[room] = answer.Position
	}
}

// received notes a message, and puts it where the test takes it from.
func (c *Client) received(raw []byte) {
	m, err := parse(raw)
	if err != nil {
		m.Type, m.Reason = "not JSON", err.Error()
	}
	c.mu.Lock()
	e := model.Event{Room: m.Room, From: m.From, Reason: m.Reason, Message: compact(m.Content), Key: m.Key}
	switch m.Type {
	case "welcome":
		c.ID, c.log.Client = m.ClientID, m.ClientID
	case "chat":
		e.Kind, e.Room = model.Received, model.Everyone
	case "direct_message":
		e.Kind, e.Room = model.Received, model.Direct(c.ID)
	case "room_message":
		e.Kind = model.Received
		c.moveOn(&e, m.Offset)
	case "gap":
		e.Kind, e.Count, e.FromOffset, e.ToOffset = model.Gap, m.Count, m.FromOffset, m.ToOffset
		c.moveOn(&e, m.ToOffset)
		e.Position = model.Position{}
	case "deleted":
		e.Kind, e.ToOffset = model.Deleted, m.ToOffset
		c.moveOn(&e, m.ToOffset)
		e.Position = model.Position{Epoch: c.positions[m.Room].Epoch, Offset: m.Offset}
	case "member_joined", "member_left":
		e.Kind, e.Count, e.Members = model.Came, m.Count, members(m.Members)
		if m.Type == "member_left" {
			e.Kind = model.Went
		}
	default:
		e = c.answered(m)
	}
	if e.Kind != 0 {
		c.note(e)
	}
	c.mu.Unlock()
	c.arrive(m)
}

// moveOn notes how far the client has come, where the room has history.
func (c *Client) moveOn(e *model.Event, offset int64) {
	p := c.positions[e.Room]
	if offset == 0 || p.Epoch == "" {
		return
	}
	e.Position = model.Position{Epoch: p.Epoch, Offset: offset}
	p.Offset = max(p.Offset, offset)
	c.positions[e.Room] = p
}

// answered is the event of an answer; its kind is 0 where there is nothing to note.
func (c *Client) answered(m Message) model.Event {
	request, ok := c.requests[string(m.ID)]
	if !ok {
		if m.Type == "left" { // the server's own doing
			delete(c.rooms, m.Room)
			return model.Event{Kind: model.Left, Room: m.Room, Reason: m.Reason}
		}
		if m.Type == "joined" {
			// How far it had come before counts until it has said so: it may go on from there.
			c.enter(m.Room, m, c.rooms[m.Room] || c.positions[m.Room].Epoch == m.Epoch)
			return model.Event{Kind: model.Joined, Room: m.Room, Position: model.Position(m.Position)}
		}
		return model.Event{}
	}
	delete(c.requests, string(m.ID))
	e := model.Event{ID: request.ID, Room: request.Room, Reason: m.Reason, Position: model.Position(m.Position), Recovered: m.Recovered}
	c.resumed(e.ID, m)
	switch {
	case m.Type == "error":
		e.Kind, e.Reason = model.Refused, m.Code
	case request.Kind == model.Sent:
		e.Kind = model.Acked
	case request.Kind == model.LeaveSent:
		e.Kind = model.Left
		delete(c.rooms, e.Room) // it may have been in by the answer to a join before that
	case request.Kind == model.JoinSent:
		e.Kind = model.Joined
		if request.Since == nil {
			m.Recovered = false
		}
		c.enter(m.Room, m, c.rooms[m.Room])
	case m.Type == "presence":
		e.Kind, e.Count, e.Members = model.Present, m.Count, members(m.Members)
	default:
		e.Kind = model.Answered
	}
	return e
}

// members reads a list of members.
func members(raw json.RawMessage) (all []model.Member) {
	var list []struct {
		ID   string          `json:"client_id"`
		Data json.RawMessage `json:"data"`
	}
	if raw != nil && json.Unmarshal(raw, &list) != nil {
		return nil
	}
	for _, m := range list {
		all = append(all, model.Member{Client: m.ID, Data: compact(m.Data)})
	}
	return all
}

// copyLog is the log so far.
func (c *Client) copyLog() *model.Log {
	stalled := c.Link.stalled()
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.log
	l.Events, l.Waiting = slices.Clone(l.Events), stalled
	return &l
}

// shown is how much of a log a failure shows.
const shown = 20

// Log is what the client sent and saw, a line each.
func (c *Client) Log() string { return c.lines(1 << 30) }

func (c *Client) lines(most int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	events := c.log.Events
	if n := len(events) - most; n > 0 {
		events = events[n:]
	}
	for _, e := range events {
		fmt.Fprintln(&b, "  "+c.Name+":", e)
	}
	return b.String()
}

// fatalf fails the test with what the client saw last.
func (c *Client) fatalf(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf("hubbubtest: %s: %s; what it saw last:\n%s", c.Name, fmt.Sprintf(format, args...), c.lines(shown))
}

// equal says whether a content is what a test expects.
func equal(got json.RawMessage, want any) bool { return compact(got) == text(want) }
