package hub

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/protocol"
)

// Direct messages to clients on other nodes. One goes to the node that the client's id bears; who has given a session
// away passes it on, and where that leads nowhere the client is sought. Of one sender one message to a client is on its
// way at a time, the next one goes when that is answered: so they keep their order however the client moves meanwhile.

// visitor is a client of another node that has sent something which waits here: its user and its address pay for it on
// each node as they would on their own.
type visitor struct {
	id   ID
	user string
	addr netip.Addr
}

// visits makes the payer of a visitor; who calls it calls payers.leave when it is charged.
func (h *Hub) visits(v *visitor) *payer {
	name := v.user
	if name == "" {
		name = "\x00" + v.id.String() // no user's name
	}
	return h.newPayer(name, v.addr)
}

// maxHops is how often a direct message is passed on.
const maxHops = 4

// directQuestion stands before the record of a direct message on its way to another node.
type directQuestion struct {
	To     ID     `json:"to,omitzero"`   // the client, or
	User   string `json:"user,omitzero"` // all of a user's clients
	Hops   int    `json:"hops,omitzero"`
	Held   bool   `json:"held,omitzero"`   // see directBy
	Client bool   `json:"client,omitzero"` // a client has sent it: the record says which
	Addr   string `json:"addr,omitzero"`   // of that, where the server bounds what one may take
	heldPart

	message *protocol.Message
}

// rawQuestion is a question that isn't JSON.
type rawQuestion []byte

func (q *directQuestion) encode() rawQuestion {
	head, _ := json.Marshal(q) // strings and numbers
	b := binary.AppendUvarint(make([]byte, 0, len(head)+q.message.Size()+64), uint64(len(head)))
	return q.message.AppendRecord(append(b, head...))
}

var errDirect = errors.New("the direct message can't be read: it may be of a newer version")

func decodeDirect(b []byte) (q *directQuestion, err error) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return nil, errDirect
	}
	q = &directQuestion{}
	if err := json.Unmarshal(b[used:][:n], q); err != nil {
		return nil, err
	}
	q.message, _, _, err = protocol.ReadRecord("", b[used:][n:])
	if err != nil || q.message == nil || (q.To == ID{}) == (q.User == "") {
		return nil, errDirect
	}
	q.message.Kind = protocol.DirectMessage
	q.message.Place(0, 0)
	return q, nil
}

// sender is who pays for what waits of q's message, nil for the application.
func (q *directQuestion) sender() *visitor {
	if !q.Client {
		return nil
	}
	v := &visitor{user: q.message.User}
	v.id, _ = ParseID([]byte(q.message.From))
	v.addr, _ = netip.ParseAddr(q.Addr)
	return v
}

// answerDirect is the call of a direct message.
func answerDirect(h *Hub, _ broker.NodeID, question []byte, reply func(any, error)) {
	q, err := decodeDirect(question)
	switch {
	case err != nil:
		reply(nil, err)
	case h.cluster == nil:
		reply(nil, errUnknownCall)
	case h.stopping():
		reply(nil, ErrStopped)
	case q.User != "":
		p := &Publication{User: q.User}
		p.Exclude, _ = ParseID([]byte(q.message.Except))
		reply(nil, h.sendHere(p, q.message))
	case q.Held && q.Of != 0:
		if !h.cluster.moves.background(func() {
			defer h.recovered("taking a direct message")
			ctx, cancel := h.cluster.untilStop(context.Background(), claimWait)
			defer cancel()
			reply(nil, h.takeHeld(ctx, q.To, q.heldPart, q.message))
		}) {
			reply(nil, ErrStopped)
		}
	default:
		h.cluster.takeDirect(q, movingTries, reply)
	}
}

// takeDirect gives the message to the client if it is here, or passes it on. A message that was passed on may be here
// before the client is: then it waits, as long as tries says.
func (c *cluster) takeDirect(q *directQuestion, tries int, reply func(any, error)) {
	h := c.hub
	if !q.Held && !h.clientShard(q.To).takes(q.To, q.message) {
		reply(nil, ErrOverloaded) // who reads from that client isn't here to be slowed down
		return
	}
	_, no := h.directBy(q.To, q.message, nil, q.sender(), q.Held)
	switch {
	case no == nil:
		reply(nil, nil)
		return
	case no.Code != protocol.UnknownClient:
		reply(nil, no)
		return
	}
	to, moved := h.movedTo(q.To)
	switch {
	case moved && to != c.id && q.Hops < maxHops:
		q.Hops++
		c.ask(to, callDirect, q.encode(), func(answer []byte, err error) {
			reply(nil, fromNode(to, decodeAnswer(answer, err, nil)))
		})
	case q.Hops > 0 && tries > 0 && c.across.begin():
		time.AfterFunc(movingPause, func() {
			defer c.across.end()
			defer h.recovered("taking a direct message")
			c.takeDirect(q, tries-1, reply)
		})
	default:
		reply(nil, ErrUnknownClient)
	}
}

// sendDirect brings a message to a client that isn't here. done is called once, perhaps before it returns: with nil when
// it is there, and else as fromNode says, or with a *protocol.Error.
func (c *cluster) sendDirect(q *directQuestion, done func(error)) {
	to, known := c.hub.movedTo(q.To)
	if known {
		q.Hops = 1
	} else {
		to, known = c.lastAt(q.To)
	}
	if !known || !c.sees(to) {
		to = nodeOf(q.To)
	}
	if to == c.id || !c.sees(to) {
		c.seekDirect(q, done)
		return
	}
	c.ask(to, callDirect, q.encode(), func(answer []byte, err error) {
		err = fromNode(to, decodeAnswer(answer, err, nil))
		if errors.Is(err, ErrUnknownClient) || errors.Is(err, ErrUnavailable) {
			c.notAt(q.To, to)
			c.seekDirect(q, done) // nothing was done there; a node forgets in time where sessions have gone
			return
		}
		done(err)
	})
}

// seekDirect is sendDirect where nobody knows where the client is.
func (c *cluster) seekDirect(q *directQuestion, done func(error)) {
	q.Hops = 1
	c.find(q.To, func(to broker.NodeID, err error) {
		switch {
		case err != nil:
			done(err)
		case to == c.id:
			_, no := c.hub.directBy(q.To, q.message, nil, q.sender(), q.Held)
			done(refusedAs(no))
		default:
			c.ask(to, callDirect, q.encode(), func(answer []byte, err error) {
				err = fromNode(to, decodeAnswer(answer, err, nil))
				if errors.Is(err, ErrUnknownClient) {
					c.notAt(q.To, to)
				}
				done(err)
			})
		}
	})
}

// refusedAs is no as an error.
func refusedAs(no *protocol.Error) error {
	if no == nil {
		return nil
	}
	return no
}

// directTo is what orders a session's direct messages to one client, as a room does its messages: no room's name.
func directTo(client []byte) string { return "\x00" + canonical(client) }

// directElsewhere is directMessage to a client that isn't here.
func (s *session) directElsewhere(cmd *protocol.Command, to ID, m *protocol.Message) {
	q := &directQuestion{To: to, Client: true, message: m}
	if addr := s.addr(); addr.IsValid() {
		q.Addr = addr.String()
	}
	o := s.ask(cmd, operation{room: directTo(cmd.To)})
	s.hub.cluster.sendDirect(q, func(err error) {
		o.end(func() {
			if err != nil {
				s.answerError(undelivered(err, to), o.id)
			} else if o.id != nil {
				s.answer(protocol.Answer{Kind: protocol.AnswerAck, ID: o.id})
			}
		})
	})
}

// undelivered is what the sender of a direct message is told.
func undelivered(err error, to ID) *protocol.Error {
	var no *protocol.Error
	switch {
	case errors.As(err, &no):
		return no
	case errors.Is(err, ErrUnknownClient):
		return unknownClient([]byte(to.String()))
	case errors.Is(err, ErrOverloaded):
		return &protocol.Error{Code: protocol.Overloaded, Message: "too much waits for the client already"}
	case errors.Is(err, ErrTimeout):
		return &protocol.Error{Code: protocol.Timeout, Message: "the client's node didn't answer in time; the message may have come"}
	}
	return &protocol.Error{Code: protocol.Unavailable, Message: "a node that may have the client can't be asked"}
}

func unknownClient(to []byte) *protocol.Error {
	return &protocol.Error{Code: protocol.UnknownClient, Message: "no client " + protocol.Quote(to) + " is connected"}
}

// sendToClient sends the application's direct message to one client, wherever it is.
func (h *Hub) sendToClient(ctx context.Context, p *Publication) error {
	m := p.message(protocol.DirectMessage)
	m.Place(0, 0)
	err := h.send([]ID{p.Client}, p, m)
	if h.cluster == nil || !errors.Is(err, ErrUnknownClient) {
		return err
	}
	done := make(chan error, 1)
	h.cluster.sendDirect(&directQuestion{To: p.Client, message: m}, func(err error) { done <- err })
	select {
	case err := <-done:
		return applications(err)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrTimeout, ctx.Err())
	case <-time.After(askedWithin):
		return fmt.Errorf("%w: the client's node doesn't answer", ErrTimeout)
	}
}

// applications is what the application is told of a direct message that a client would be told of otherwise.
func applications(err error) error {
	var no *protocol.Error
	if errors.As(err, &no) {
		if no.Code == protocol.UnknownClient {
			return ErrUnknownClient
		}
		return ErrOverloaded
	}
	return err
}

// sendToUser sends the application's direct message to all of a user's clients, on whichever nodes they are.
func (h *Hub) sendToUser(ctx context.Context, p *Publication) error {
	m := p.message(protocol.DirectMessage)
	m.Place(0, 0)
	if h.cluster == nil {
		return h.sendHere(p, m)
	}
	q := &directQuestion{User: p.User, message: m}
	return h.cluster.onAll(ctx, listedWithin, callDirect, q.encode(), func() error { return h.sendHere(p, m) })
}

// sendHere sends m to all of a user's clients that are here.
func (h *Hub) sendHere(p *Publication, m *protocol.Message) error {
	ids := h.clientsOf(p.User)
	if len(ids) == 0 {
		return ErrUnknownUser
	}
	return h.send(ids, p, m)
}

// onAll has something done with a user's clients by all nodes, by this one through here, and says what came of it in
// all: nil where it was done somewhere and no node has failed, ErrUnknownUser where all nodes say so, ErrTimeout where
// some have done it and others failed, or may have done it; else what a node says that has failed, and then nothing was
// done.
func (c *cluster) onAll(ctx context.Context, within time.Duration, kind callKind, question any, here func() error) error {
	peers, cut := c.view()
	if cut {
		return errCut
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	done, failed := 0, error(nil)
	note := func(err error) {
		switch {
		case err == nil:
			done++
		case !errors.Is(err, ErrUnknownUser) && !errors.Is(failed, ErrTimeout):
			failed = err
		}
	}
	note(here())
	c.askEach(ctx, peers, kind, question, func(n broker.NodeID, answer []byte, err error) {
		note(fromNode(n, decodeAnswer(answer, err, nil)))
	})
	switch {
	case failed != nil && done > 0 && !errors.Is(failed, ErrTimeout):
		return fmt.Errorf("%w: it was done on %d nodes, and not on all: %v", ErrTimeout, done, failed)
	case failed != nil:
		return failed
	case done == 0 && c.moves.misses():
		return errGoneToo
	case done == 0:
		return ErrUnknownUser
	}
	return nil
}
