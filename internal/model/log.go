package model

import (
	"fmt"
	"time"
)

// Position is a place in a room's order. Epoch is "" where the room has no history.
type Position struct {
	Epoch  string
	Offset int64
}

// Everyone is the room of a chat: every connection is in it from its welcome on.
const Everyone = ""

// Direct is the room of what goes to one client, which is in it from its welcome on. No real room has such a name.
func Direct(client string) string { return "\x00" + client }

// Kind is what an Event is.
type Kind int

// The kinds of events. Those that the server sent are named by what the client learned.
const (
	Sent      Kind = iota + 1 // a message left for a room
	Acked                     // its answer; Position where the room has history
	Refused                   // a request was answered with an error; Reason is its code
	JoinSent                  // Since, where it wants what it missed
	Joined                    // Position of the room at the join, which without an ID is the server's own doing; Recovered where there was a Since, or a session's direct messages waited
	LeaveSent                 //
	Left                      // the answer, or the server's own doing; Reason then says why
	Received                  // a message came: From, and Position where the room has history
	Gap                       // messages will not come: Count, Reason, and FromOffset to ToOffset where known
	Asked                     // another request that must be answered
	Answered                  // and was
	Closed                    // the connection ended; Code is 0 without a Close frame
	Present                   // the answer to an Asked: Count, and where the room tells who, Members
	Came                      // Members joined; Count of the members then
	Went                      // Members left; Count of those who stay
	PutIn                     // the application put the client From into the room; in the log of the application
	Deleted                   // a message was taken back, that at the Position; or all up to ToOffset, in its epoch
)

var kindNames = [...]string{"", "sent", "acked", "refused", "join sent", "joined", "leave sent", "left", "received", "gap", "asked", "answered", "closed", "present", "came", "went", "put in", "deleted"}

func (k Kind) String() string {
	if k < 1 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return kindNames[k]
}

// Member is somebody in a room: the client id, and the data of its join as JSON, "" for none.
type Member struct{ Client, Data string }

// Event is a line in a client's log. Fields that its kind doesn't name are empty.
type Event struct {
	At      int64 // its place among the events of all logs: what was seen earlier has a smaller one; from 1 on
	Kind    Kind
	ID      string // of the request, on both sides; "" when none was given: then no answer comes
	Room    string // also Everyone and Direct
	Message string // the content, which tells it from all others of the room
	From    string // the sender's client id; of one that was Sent, where it isn't the log's
	Exclude string // of one that was Sent: the client id of who doesn't get it
	Key     string // by which it may be conflated
	Data    string // of a join
	Members []Member
	Time    time.Time // by the clock of the test; presence is judged by it

	Position
	Since     *Position
	Recovered bool

	Count                int
	FromOffset, ToOffset int64
	Reason               string
	Code                 int
}

func (e Event) String() string {
	s := fmt.Sprintf("%d %s", e.At, e.Kind)
	add := func(name string, v any, is bool) {
		if is {
			s += fmt.Sprintf(" %s=%v", name, v)
		}
	}
	add("id", e.ID, e.ID != "")
	if e.Room != "" || e.Kind != Refused && e.Kind != Asked && e.Kind != Answered && e.Kind != Closed {
		s += " in " + roomText(e.Room)
	}
	add("message", &message{text: e.Message}, e.Message != "")
	add("key", e.Key, e.Key != "")
	add("from", e.From, e.From != "")
	add("epoch", e.Epoch, e.Epoch != "")
	add("offset", e.Offset, e.Offset != 0)
	if e.Since != nil {
		add("since", fmt.Sprintf("%s/%d", e.Since.Epoch, e.Since.Offset), true)
	}
	add("recovered", true, e.Recovered)
	add("count", e.Count, e.Kind == Gap || e.Kind >= Present && e.Kind < PutIn)
	add("members", e.Members, len(e.Members) > 0)
	add("data", e.Data, e.Data != "")
	add("from_offset", e.FromOffset, e.FromOffset != 0)
	add("to_offset", e.ToOffset, e.ToOffset != 0)
	add("reason", e.Reason, e.Reason != "")
	add("code", e.Code, e.Code != 0)
	return s
}

// takesBack says that by this event m was taken back.
func (e *Event) takesBack(m *message) bool {
	at := m.position
	return e.Kind == Deleted && at.Epoch != "" && at.Epoch == e.Epoch && (at.Offset == e.Offset || at.Offset <= e.ToOffset)
}

// Log is what one connection did and saw, in order.
type Log struct {
	Name   string // for people
	Client string // the client id; a session that was resumed has the same one
	Events []Event
	// Waiting says that something may still be on its way to the client when the run ends: its line is stalled, say.
	// Then what it has not got yet isn't lost.
	Waiting bool
}

// Fault is a promise that was broken.
type Fault struct {
	Kind    string // one of the constants below
	Client  string // the log's name
	Room    string
	Message string
	Text    string // all of it, for people
}

func (f Fault) String() string { return f.Kind + ": " + f.Text }

// The kinds of faults; doc.go says what each means.
const (
	Lost         = "lost"
	Doubled      = "doubled"
	Disordered   = "disordered"
	Misdelivered = "misdelivered"
	Echoed       = "echoed"
	Misplaced    = "misplaced"
	Stale        = "stale"
	Revived      = "revived"
	Overtold     = "overtold"
	Unfounded    = "unfounded"
	Mistold      = "mistold"
	Unanswered   = "unanswered"
)
