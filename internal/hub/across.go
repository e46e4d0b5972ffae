package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/protocol"
)

// What names a client or a user, or lists, over all nodes. A question goes to the node on which the client's session
// began, and where that one hasn't got it to all: who has it (finding.go). Nobody is told that a client isn't there
// unless every node has said so; where one can't be asked, nobody knows which nodes there are, or one is gone that may come
// back, it is ErrUnavailable.

// The kinds of calls for that, from 96 on.
const (
	callSeek           callKind = iota + 96 // which of some clients are there
	callDirect                              // take a direct message
	callJoin                                // put a client into a room
	callRemove                              // take it out
	callDisconnect                          // end its session
	callDisconnectUser                      // those of a user's clients that are there
	callClient                              // what is known of a client
	callRoom                                // what is known of a room
	callRooms                               // a page of a list, as are those that follow
	callClients
	callUsers
	callUserClients
	callSeats // how many connections a user has
	callTail  // what has passed there for a tail that is elsewhere
	callLeft  // that node ends, and has no session any more
)

func init() {
	maps.Copy(calls, map[callKind]call{
		callSeek:           answerSeek,
		callDirect:         answerDirect,
		callJoin:           served((*Hub).joinAsked),
		callRemove:         served((*Hub).removeAsked),
		callDisconnect:     served((*Hub).disconnectAsked),
		callDisconnectUser: served((*Hub).disconnectUserAsked),
		callClient:         served((*Hub).clientAsked),
		callRoom:           served((*Hub).roomAsked),
		callRooms:          served((*Hub).roomsAsked),
		callClients:        served((*Hub).clientsAsked),
		callUsers:          served((*Hub).usersAsked),
		callUserClients:    served((*Hub).userClientsAsked),
		callSeats:          answerSeats,
		callTail:           answerTail,
		callLeft:           answerLeft,
	})
}

const (
	maxServed    = 256             // calls of other nodes that may block here at a time
	servedWithin = 4 * time.Second // how long each may take
	askedWithin  = 5 * time.Second // how long it is waited for; longer, so that its own end is heard
	listedWithin = 2 * time.Second // how long lists are waited for
)

// across is what a node has under way that has to do with others. Any goroutine.
type across struct {
	served atomic.Int32 // calls of other nodes on goroutines of their own
	finder finder
	lent   lent
}

// begin takes a place for something that a call of another node has to wait for; end gives it back. False: there is none.
func (a *across) begin() bool {
	if a.served.Add(1) > maxServed {
		a.served.Add(-1)
		return false
	}
	return true
}

func (a *across) end() { a.served.Add(-1) }

// served makes a call of what may block: it gets a goroutine of its own.
func served[Q, A any](do func(h *Hub, ctx context.Context, question Q) (A, error)) call {
	return func(h *Hub, _ broker.NodeID, question []byte, reply func(any, error)) {
		var q Q
		switch err := json.Unmarshal(question, &q); {
		case err != nil:
			reply(nil, err)
		case h.cluster == nil:
			reply(nil, errUnknownCall)
		case !h.cluster.across.begin():
			reply(nil, ErrOverloaded)
		default:
			go func() {
				var a A
				err := error(errInternal)
				defer h.cluster.across.end()
				defer func() { reply(a, err) }() // also where it panics
				defer h.recovered("answering another node")
				ctx, cancel := context.WithTimeout(context.Background(), servedWithin)
				defer cancel()
				a, err = do(h, ctx, q)
			}()
		}
	}
}

// ownErrors are those that mean the same wherever they were made.
var ownErrors = []error{
	ErrUnknownClient, ErrUnknownUser, ErrOverloaded, ErrNotMember, ErrNoHistory, ErrNoPosition, ErrNoPresence, ErrLimitReached,
	ErrUnavailable, ErrTimeout,
}

// fromNode is what an error is for who has asked another node: that it stops, or is of another version, is its own
// matter; here it can't be asked. Not done is what it says, as all errors do but ErrTimeout.
func fromNode(n broker.NodeID, err error) error {
	if err == nil {
		return nil
	}
	var told *protocol.Error
	if errors.As(err, &told) {
		return err
	}
	for _, own := range ownErrors {
		if errors.Is(err, own) {
			return err
		}
	}
	return fmt.Errorf("%w: node %x: %w", ErrUnavailable, n, err)
}

// whereverItIs does something with a client: by here, or where that says ErrUnknownClient by asking the node that has it.
// A client may move meanwhile: then it is sought again. It blocks, at most askedWithin longer than here does.
func whereverItIs[A any](ctx context.Context, h *Hub, id ID, kind callKind, question any, here func() (A, error)) (a A, err error) {
	a, err = here()
	c := h.cluster
	if c == nil || !errors.Is(err, ErrUnknownClient) {
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, askedWithin)
	defer cancel()
	n, found := nodeOf(id), false
	if !c.sees(n) {
		n, err = c.whoHas(ctx, id)
		if err != nil {
			return a, err
		}
		found = true
	}
	for {
		if n == c.id {
			a, err = here()
		} else {
			a, err = askNode[A](ctx, c, n, kind, question)
			err = fromNode(n, err)
		}
		if err == nil || !errors.Is(err, ErrUnknownClient) && !errors.Is(err, ErrUnavailable) {
			return a, err // the rest says that nothing was done
		}
		if found {
			select {
			case <-time.After(movingPause):
			case <-ctx.Done():
				return a, fmt.Errorf("%w: the client is moving from node to node: %w", ErrUnavailable, ctx.Err())
			}
		}
		if n, err = c.whoHas(ctx, id); err != nil {
			return a, err
		}
		found = true
	}
}
