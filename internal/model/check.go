package model

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Server is the From of what the application itself publishes. It may also be published past every log.
const Server = "server"

// checking is one call of Check.
type checking struct {
	policy func(room string) Policy
	names  []string // see Run
	rooms  map[string]*roomLog
	got    map[receipt]string // of messages without position: the log that has it
	faults []Fault
}

// receipt is a message that a client got, on whichever of its connections.
type receipt struct {
	client string
	m      *message
}

// roomLog is what all logs together say of a room.
type roomLog struct {
	name      string
	policy    Policy
	messages  []*message
	byText    map[string]*message
	places    map[Position]*message
	paths     []bits  // paths[a] has b when a comes before b; see arrange
	received  [][]int // by member: what it got, in that order
	published [][]int // by publisher: what it sent
	deletions []Event // those that anybody heard of
}

// tookBack says that m need not have come to anybody: it was taken back.
func (r *roomLog) tookBack(m *message) bool {
	return slices.ContainsFunc(r.deletions, func(e Event) bool { return e.takesBack(m) })
}

// message is one of a room, or at least somebody says so.
type message struct {
	n        int // its index in the room's messages
	text     string
	key      string
	from     []string // client ids that sent it: more than once where a publish was retried
	exclude  string   // the client id of who doesn't get it
	sentAt   int64    // first; 0 when nobody did
	ackedAt  int64    // first; 0 when it was not
	refused  string   // the first code with which it was refused
	refusals int      // how often; each time that it was sent may be answered otherwise
	position Position // Epoch is "" while unknown, or without history
	received bool     // by anyone
	by       string   // the client id of whose it was for those who got it; several may have sent it
}

// String is short enough for a person.
func (m *message) String() string {
	if len(m.text) > 40 {
		return m.text[:40] + "..."
	}
	return m.text
}

// wasRefused says that the room can't have the message: each time that it was sent it was refused.
func (m *message) wasRefused() bool {
	return m.ackedAt == 0 && m.refused != "" && m.refusals == len(m.from)
}

// accepted says that the room has the message.
func (m *message) accepted() bool { return m.ackedAt != 0 || m.received }

// Run is what happened between a server and its clients.
type Run struct {
	Logs []*Log
	// Policy is what a room promises, Everyone's too; nil: nothing is known of it. Where SlowConsumer is "", any gap
	// may come.
	Policy func(room string) Policy
	// Names are by which the application may have published past every log, beside Server.
	Names []string
	// Now is the time at the end of the logs, and Window how long a session may outlive its connection. Without Now
	// nobody's view of who is in a room is judged.
	Now    time.Time
	Window time.Duration
}

// Check holds a whole run against the promises, and says which were broken. What is still on its way must have arrived
// when the logs end, but for those that are Waiting.
func Check(run Run) []Fault {
	c := &checking{policy: run.Policy, names: append(slices.Clip(run.Names), Server), rooms: map[string]*roomLog{}, got: map[receipt]string{}}
	for _, l := range run.Logs {
		c.collectSent(l)
	}
	for _, l := range run.Logs {
		c.collectReceived(l)
	}
	for _, r := range c.rooms {
		c.arrange(r)
	}
	for _, l := range run.Logs {
		c.checkAnswers(l)
		arrived := arrivals(l)
		for _, s := range c.spans(l) {
			s.arrived = arrived
			c.checkSpan(s)
		}
	}
	c.checkPresence(run)
	slices.SortStableFunc(c.faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Client, b.Client), cmp.Compare(a.Room, b.Room))
	})
	return c.faults
}

func (c *checking) fault(kind, client string, r *roomLog, m *message, format string, args ...any) {
	f := Fault{Kind: kind, Client: client, Text: fmt.Sprintf(format, args...)}
	if r != nil {
		f.Room = r.name
		f.Text += " in " + roomText(r.name)
	}
	if m != nil {
		f.Message = m.text
	}
	c.faults = append(c.faults, f)
}

func roomText(name string) string {
	switch {
	case name == Everyone:
		return "the chat"
	case name[0] == 0:
		return "direct messages"
	}
	return fmt.Sprintf("%q", name)
}

func (c *checking) room(name string) *roomLog {
	r := c.rooms[name]
	if r == nil {
		r = &roomLog{name: name, byText: map[string]*message{}, places: map[Position]*message{}}
		if c.policy != nil {
			r.policy = c.policy(name)
		}
		c.rooms[name] = r
	}
	return r
}

func (r *roomLog) message(text string) *message {
	m := r.byText[text]
	if m == nil {
		m = &message{n: len(r.messages), text: text}
		r.byText[text] = m
		r.messages = append(r.messages, m)
	}
	return m
}

// collectSent takes what a client published, and what became of it.
func (c *checking) collectSent(l *Log) {
	requests := map[string]*message{}
	published := map[*roomLog][]int{}
	for _, e := range l.Events {
		switch e.Kind {
		case Sent:
			r := c.room(e.Room)
			m := r.message(e.Message)
			if m.sentAt == 0 || e.At < m.sentAt {
				m.sentAt = e.At
			}
			m.key, m.exclude = e.Key, e.Exclude
			published[r] = append(published[r], m.n)
			m.from = append(m.from, cmp.Or(e.From, l.Client))
			if e.ID != "" {
				requests[e.ID] = m
			}
		case Acked:
			m := requests[e.ID]
			if m == nil {
				continue // checkAnswers says it
			}
			if m.ackedAt == 0 || e.At < m.ackedAt {
				m.ackedAt = e.At
			}
			c.place(l, c.room(e.Room), m, e.Position)
		case Refused:
			if m := requests[e.ID]; m != nil {
				m.refusals++
				if m.refused == "" {
					m.refused = e.Reason
				}
			}
		}
	}
	for r, stream := range published {
		r.published = append(r.published, stream)
	}
}

// place notes where a message stands in its room.
func (c *checking) place(l *Log, r *roomLog, m *message, p Position) {
	if p.Epoch == "" {
		return
	}
	if o := r.places[p]; o != nil && o != m {
		c.fault(Misplaced, l.Name, r, m, "%s and %s both stand at %s/%d", m, o, p.Epoch, p.Offset)
	}
	r.places[p] = m
	switch m.position {
	case Position{}:
		m.position = p
	case p:
	default:
		c.fault(Misplaced, l.Name, r, m, "%s stands at %s/%d, and for %s at %s/%d", m, m.position.Epoch, m.position.Offset, l.Name, p.Epoch, p.Offset)
	}
}

// collectReceived takes what came, in the order in which it came.
func (c *checking) collectReceived(l *Log) {
	streams := map[*roomLog][]int{}
	for _, e := range l.Events {
		r := c.room(e.Room)
		if e.Kind == Deleted {
			r.deletions = append(r.deletions, e)
		}
		if e.Kind != Received {
			continue
		}
		m := r.message(e.Message)
		m.received = true
		m.by = cmp.Or(m.by, e.From)
		c.place(l, r, m, e.Position)
		if s := streams[r]; !slices.Contains(s, m.n) {
			streams[r] = append(s, m.n)
		}
	}
	for r, stream := range streams {
		r.received = append(r.received, stream)
	}
}

// checkAnswers finds requests without an answer, and answers without a request.
func (c *checking) checkAnswers(l *Log) {
	type request struct{ id, room string } // a resume is a join of many rooms, under one id
	open, closed := map[request]Event{}, false
	for _, e := range l.Events {
		switch e.Kind {
		case Sent, JoinSent, LeaveSent, Asked:
			if e.ID != "" {
				open[request{e.ID, e.Room}] = e
			}
		case Acked, Refused, Joined, Left, Answered, Present:
			if e.ID == "" {
				continue
			}
			if _, ok := open[request{e.ID, e.Room}]; !ok {
				c.fault(Misdelivered, l.Name, nil, nil, "%s got an answer that it didn't ask for: %s", l.Name, e)
			}
			delete(open, request{e.ID, e.Room})
		case Closed:
			closed = true
		}
	}
	if closed || l.Waiting {
		return
	}
	for _, e := range open {
		c.fault(Unanswered, l.Name, nil, nil, "%s got no answer: %s", l.Name, e)
	}
}
