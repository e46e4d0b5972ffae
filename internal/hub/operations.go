package hub

import (
	"bytes"
	"context"
	"slices"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// A command that can't be obeyed at once is an operation: it waits for the application's code, or for the log of a room
// that lies elsewhere (logs.go), or for another node. A session's operations are few and in order: one hook runs at a time, and what comes
// behind it waits; what is asked of logs goes on side by side, and is answered in order for each room. Past the bounds
// the client isn't read.

// fewWaiting is how many commands of one session may wait before it isn't read any more, and fewAsked how many may be
// asked of logs.
const (
	fewWaiting = 8
	fewAsked   = 64
)

// operations are what is under way for a session. Owned by its worker.
type operations struct {
	running *run         // its hook; nil when none runs
	asked   []*operation // of logs, in the order of their commands
	waiting [][]byte     // commands behind those, as they came
	bytes   int          // of what waits and what is asked
	ctx     context.Context
	cancel  context.CancelFunc
}

// operation is a command of which a log or another node is asked.
type operation struct {
	// Static.
	s       *session
	id      []byte // the command's, copied
	room    string // whose answers come in the order of their commands, or directTo a client; "" is every room
	publish bool   // it may go side by side with others of its kind
	bytes   int
	dropped func() // is called instead of done where the session ends first; nil for nothing

	done func() // what is to be done, once the outcome is here
}

func (s *session) operations() *operations {
	m := s.extra()
	if m.operations == nil {
		m.operations = &operations{}
		m.operations.ctx, m.operations.cancel = context.WithCancel(context.Background())
	}
	return m.operations
}

// mustWait says that a command comes behind others which aren't done. A ping changes nothing and never waits.
func (s *session) mustWait(cmd *protocol.Command) bool {
	if s.more == nil || s.more.operations == nil || cmd.Kind == protocol.Ping {
		return false
	}
	q := s.more.operations
	return q.running != nil || len(q.waiting) > 0 || s.naming() || q.blocks(cmd)
}

// blocks says that cmd must not be obeyed before what is asked of logs: that is for the same room, or for all. What is
// asked of other nodes is for one client.
func (q *operations) blocks(cmd *protocol.Command) bool {
	of := string(cmd.Room)
	if cmd.Kind == protocol.DirectMessage {
		of = directTo(cmd.To)
	}
	return slices.ContainsFunc(q.asked, func(o *operation) bool {
		switch {
		case o.publish && cmd.Kind == protocol.RoomMessage:
			return false
		case o.room == "" || cmd.Kind == protocol.Resume || cmd.Kind == protocol.Refresh:
			return true
		}
		return o.room == of
	})
}

// wait keeps a command until those before it are done.
func (s *session) wait(raw []byte) {
	q := s.more.operations
	q.waiting = append(q.waiting, bytes.Clone(raw))
	q.count(s, len(raw))
	q.bound(s)
}

// full says that no more shall come.
func (q *operations) full(s *session) bool {
	return len(q.waiting) >= fewWaiting || len(q.asked) >= fewAsked || q.bytes >= s.hub.cfg().MaxMessageBytes
}

// bound has the client read only as long as there is room.
func (q *operations) bound(s *session) {
	if q.full(s) {
		s.conn.PauseReading()
	} else {
		s.readOn()
	}
}

// count counts bytes that are kept, or aren't any more.
func (q *operations) count(s *session, n int) {
	q.bytes += n
	s.hub.keep(KeptHooks, s.payer(), int64(n))
}

// ask notes that cmd is asked of a log. o.end says what comes of it.
func (s *session) ask(cmd *protocol.Command, o operation) *operation {
	q := s.operations()
	o.s, o.id = s, bytes.Clone(cmd.ID)
	o.bytes = len(cmd.ID) + len(cmd.Content) + len(cmd.Data)
	q.asked = append(q.asked, &o)
	if s.coming() {
		s.more.coming.asked = true // its time stands meanwhile
	}
	q.count(s, o.bytes)
	q.bound(s)
	return &o
}

// end has done called on the session's worker, behind what comes of the room's operations before it. Once; any
// goroutine.
func (o *operation) end(done func()) {
	o.s.conn.Worker().Post(&operationEnded{o, done}, 0)
}

type operationEnded struct {
	o    *operation
	done func()
}

// Conn implements loop.ConnTask.
func (e *operationEnded) Conn(*loop.Worker) *loop.Conn { return e.o.s.conn }

func (e *operationEnded) Run(*loop.Worker) {
	s := e.o.s
	if !s.conn.Open() {
		return // operationsClosed has been here
	}
	e.o.done = e.done
	s.more.operations.finish(s)
	if s.conn.Open() && s.more.operations.running == nil {
		s.goOn()
	}
}

// finish does what has come of those operations that aren't behind another one.
func (q *operations) finish(s *session) {
	for i := 0; i < len(q.asked) && s.conn.Open(); i++ {
		o := q.asked[i]
		if o.done == nil || slices.ContainsFunc(q.asked[:i], func(before *operation) bool { return before.room == o.room || before.room == "" || o.room == "" }) {
			continue
		}
		q.asked = slices.Delete(q.asked, i, i+1)
		q.count(s, -o.bytes)
		o.done()
		i-- // the one behind it
	}
}

// goOn obeys the commands that wait up to the next one that has to wait; none while rooms of the client's identity are
// still to be joined, as those behind a refresh are sent by who is in them.
func (s *session) goOn() {
	q := s.more.operations
	cmd := &s.state().cmd
	for q.running == nil && len(q.waiting) > 0 && s.conn.Open() && !s.naming() {
		raw := q.waiting[0]
		fine := s.again(raw, cmd)
		if fine && q.blocks(cmd) {
			break
		}
		q.waiting[0] = nil // what is counted no more must not be kept
		q.waiting = q.waiting[1:]
		q.count(s, -len(raw))
		if fine {
			s.do(cmd, raw)
		}
	}
	q.bound(s)
}

// again reads a command that has waited. It was fine when it came.
func (s *session) again(raw []byte, cmd *protocol.Command) bool {
	d := s.speaker()
	_, err := d.Next(raw, d.Binary(), cmd)
	return err == nil
}

// operationsClosed forgets what is under way, and ends the context of the hook that runs, which it gives.
func (s *session) operationsClosed() *run {
	if s.more == nil || s.more.operations == nil {
		return nil
	}
	q := s.more.operations
	for _, o := range q.asked {
		if o.dropped != nil {
			o.dropped()
		}
	}
	q.waiting, q.asked = nil, nil
	q.count(s, -q.bytes)
	q.cancel()
	return q.running
}
