// Package broker is the seam between a node of Hubbub and what is outside of it: the logs of rooms with history, on disk
// and for several nodes at once, and the other nodes. A node without one keeps its logs itself, in memory, and pays
// nothing for this.
//
// A broker knows nothing of what is in a message: bodies are bytes. It orders those of a log, gives each its offset, keeps
// what the room's bounds say, and brings them to every node that has the room open, without a gap or with the news of one.
// Between nodes it brings what is told to a topic to those that listen, and asks one of them. Package brokertest holds any
// broker to that.
package broker

import (
	"context"
	"errors"
	"time"
)

// Room is a room with history, and how much of it is kept. All nodes must have the same bounds, and Replicas, for a room.
type Room struct {
	Name     string        // 1 to 255 bytes of UTF-8
	Messages int           // the newest so many, at least 1
	Age      time.Duration // of these, none that is older; at least a second
	Replicas int           // how many machines keep it; 0: as many as the broker has for all that don't say
}

// Position is a place in a room's log: behind the message of that offset.
type Position struct {
	Epoch  string // another one means that the log was lost
	Offset uint64 // below 2^53; grows from message to message, not always by one
}

// Entry is a message in a log.
type Entry struct {
	Offset uint64
	Time   int64 // when the log took it, Unix milliseconds
	Body   []byte
}

// Log is what is kept of a room.
type Log struct {
	Entries []Entry // oldest first
	// Floor is an offset behind which nothing is missing: who has all up to there, or up to any offset above, has missed
	// what Entries say, and nothing else.
	Floor uint64
	At    Position // the newest message's, or where it would be
}

// Message is what is published. With an ID it is published once within the broker's window, whoever publishes it.
type Message struct {
	Body []byte
	ID   string
}

// ErrBusy says that too much waits to be published already. Nothing was done.
var ErrBusy = errors.New("too many messages wait for the room's log")

// ErrUnavailable says that the log, or the other nodes, can't be reached, and that nothing was done.
var ErrUnavailable = errors.New("the room's log, or the other nodes, can't be reached")

// ErrTimeout says that nobody knows whether a message was published: no answer came in time.
var ErrTimeout = errors.New("the room's log or another node didn't answer in time; it may have been done")

// NodeID names a node in one life of its process: it has another one each time that it starts.
type NodeID [4]byte

// Peer is another node that is there.
type Peer struct {
	ID   NodeID
	Beat []byte // what it said of itself last: its Node.Beat
}

// Broker keeps logs and connects nodes. But for Run no method waits, and each may be called by any goroutine. What is called back is called
// once, never before the call returns, by a goroutine of the broker.
type Broker interface {
	// Run serves a node until ctx is done, and returns when all that was asked until then is answered. What is asked later
	// fails with ErrUnavailable. It is called once. An error says why it can't serve.
	Run(ctx context.Context, n Node) error

	// Open has what is published to the room come by Node.Deliver, behind what opened is given, until closed is called.
	// It is called once for a room until then. After an error the room isn't open, and closed does nothing.
	Open(r Room, opened func(Log, error)) (closed func())

	// Publish appends to the room's log. Messages that one node publishes to a room keep their order. The position is
	// that of the first time where one with its ID was stored before; that is a duplicate, unless a try of this call that
	// wasn't answered may have stored it, so that webhooks are told of it once at least. ErrBusy is returned at once, and
	// done isn't called then; done gets an error that is ErrUnavailable or ErrTimeout (errors.Is).
	Publish(r Room, m Message, done func(at Position, duplicate bool, err error)) error

	// Read reads what is kept of a room behind an offset, 0 for all, whether it is open here or not.
	Read(r Room, behind uint64, done func(Log, error))

	// Brought says of logs, by their epochs, up to which offset this node has been called for all that came in the rooms that
	// are open here, and has returned; some rooms may have had more. It stays behind by some seconds. Nil is that the broker
	// doesn't say, and then less is known of rooms in which nothing comes when a node has died.
	Brought() []Position

	// ID is this node's, and doesn't change.
	ID() NodeID

	// Listen has what other nodes tell a topic come by Node.Heard, until closed is called. ready is called when everything
	// does that a node which has heard of it by then tells from there on, or with ErrUnavailable; then nobody listens. It is
	// called once for a topic until then. A topic has at most 255 bytes; "" is one.
	Listen(topic string, ready func(error)) (closed func())

	// Tell brings a body to all other nodes that listen to the topic. What one node tells a topic keeps its order, and comes
	// once or is lost; Node.Missed says so. ErrUnavailable where it can't be sent, and then it won't be.
	Tell(topic string, body []byte) error

	// Call asks another node, and gives what its Node.Handle has answered. ErrUnavailable says that it was never asked,
	// ErrTimeout that it may have been, but doesn't answer, or is gone. What is asked of one node keeps its order. Bodies and
	// answers have at most 512 KiB, or what a message has that is published, and a kilobyte.
	Call(to NodeID, body []byte, done func(answer []byte, err error))
}

// Node is what a broker calls. No method may block. Deliver and Lost are never called twice at a time for one room, nor
// Heard and Missed for one topic, nor Handle for one node that asks, nor View.
type Node interface {
	// Deliver brings what comes next in a room's log: nothing is missing before it. What was on its way when a room was
	// closed may still come when it has been opened again, even beside what comes then, and stands before where that began.
	Deliver(room string, entries []Entry)
	// Lost says that messages behind what was delivered are gone: log is how it goes on. With another epoch the whole log
	// was lost.
	Lost(room string, log Log)

	// Heard brings what another node has told a topic. As with Deliver some may still come when the topic is closed.
	Heard(topic string, from NodeID, body []byte)
	// Missed says that what was told to a topic may be lost, up to now.
	Missed(topic string)

	// Handle is what another node asks. reply is called once, by any goroutine, now or later.
	Handle(from NodeID, body []byte, reply func(answer []byte))

	// Beat is what the others shall know of this node. It is called about once a second; at most 4 KiB.
	Beat() []byte
	// View brings all other nodes that are there, by their ids, each time that one comes, is gone or has said something else
	// of itself. A node is gone a few seconds after nothing is heard of it. Cut says that this node can't hear of the
	// others, so that nobody knows: the view is the last one then. It is called first as soon as it is known who is there,
	// though that be nobody.
	View(peers []Peer, cut bool)
}
