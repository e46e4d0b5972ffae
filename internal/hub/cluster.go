package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/protocol"
)

// cluster is what a hub knows of the other nodes; nil where it is alone, and then nothing of this file costs anything.
// What nodes ask each other is a call: its kind, and a question and an answer in JSON. Each kind stands in calls, and its
// handler beside what asks it.
type cluster struct {
	hub *Hub
	b   broker.Broker
	id  broker.NodeID

	mu    sync.Mutex
	peers []broker.Peer // by id
	cut   bool          // nobody knows whether peers are the ones that there are; also before the first View

	moves    moves
	members  members // of rooms that tell who is in them
	asking   questions
	occupied occupied
	claims   claims
	across   across
	witness  witness
}

// seen is whom a node has seen.
type seen struct {
	peers []broker.Peer
	cut   bool
}

// newCluster is nil where the hub is alone.
func newCluster(h *Hub) *cluster {
	if h.cfg().Broker == nil || h.cfg().Alone {
		return nil
	}
	c := &cluster{hub: h, b: h.cfg().Broker, id: h.cfg().Broker.ID(), cut: true}
	c.moves.init()
	c.asking.c = c
	c.claims.init(c.id)
	return c
}

// Peers are the other nodes, by their ids, and what each says of itself; cut says that they are the last ones that were
// known of. Any goroutine.
func (h *Hub) Peers() (peers []broker.Peer, cut bool) {
	if h.cluster == nil {
		return nil, false
	}
	return h.cluster.view()
}

func (c *cluster) view() (peers []broker.Peer, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peers, c.cut
}

// home is where what is known by a key is kept: the same node for all that see the same ones, this one included. Another
// one when nodes come and go, and then what was kept is lost but for what its users bring again. Any goroutine.
func (c *cluster) home(key string) broker.NodeID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return home(idsOf(c.id, c.peers), key)
}

// home is the one of some nodes where what is known by a key is kept.
func home(nodes []broker.NodeID, key string) (at broker.NodeID) {
	most := uint64(0)
	for _, n := range nodes {
		if w := weight(n, key); w > most || w == most && bytes.Compare(n[:], at[:]) > 0 {
			at, most = n, w
		}
	}
	return at
}

// weight is how much a node wants a key: FNV-1a of both, and what MurmurHash3 ends with, since alone its high bits hardly
// depend on the last bytes. It is the same on all nodes, of all versions.
func weight(n broker.NodeID, key string) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range n {
		h = (h ^ uint64(b)) * 1099511628211
	}
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// nodeOf is the node on which a client's session began. It may have moved since.
func nodeOf(id ID) (n broker.NodeID) {
	copy(n[:], id[12:])
	return n
}

// newID makes the id of a session that begins here.
func (h *Hub) newID() ID {
	id := NewID()
	if h.cluster != nil {
		copy(id[12:], h.cluster.id[:])
	}
	return id
}

// callKind is what is asked. A kind keeps its number and its meaning for good: nodes of two versions talk to each other.
type callKind uint8

const (
	callNothing callKind = iota // is always answered: whether a node is there

	callMembers  callKind = 32 // who is in rooms
	callOccupied callKind = 33 // in which rooms a node has members, of those whose home is asked
)

// Of publish_ids (once.go).
const (
	callClaim     callKind = 16 + iota // may it be published
	callPublished                      // these were
	callRelease                        // it wasn't
	callWere                           // which were (homes.go)
)

// call is what a node answers to one kind of question. It is called in the order in which the node from asks, and mustn't
// block: what does goes to a goroutine of its own. reply is called once.
type call func(h *Hub, from broker.NodeID, question []byte, reply func(answer any, err error))

// calls are all kinds.
var calls = map[callKind]call{
	callNothing:  func(_ *Hub, _ broker.NodeID, _ []byte, reply func(any, error)) { reply(nil, nil) },
	callMembers:  answerMembers,
	callOccupied: answerOccupied,

	callClaim:     answerClaim,
	callPublished: answerPublished,
	callRelease:   answerRelease,
	callWere:      answerWere,
}

// answered is the answer to a call on its way.
type answered struct {
	Answer json.RawMessage `json:"answer,omitempty"`
	Error  string          `json:"error,omitempty"` // "" for none
	Known  int             `json:"known,omitempty"` // which of knownErrors it is, from 1
	Code   protocol.Code   `json:"code,omitempty"`  // of a protocol.Error
}

// knownErrors are those that keep what they are on their way from another node. The order is for good.
var knownErrors = []error{
	ErrUnknownClient, ErrUnknownUser, ErrOverloaded, ErrStopped, ErrNotMember, ErrNoHistory, ErrNoPosition, ErrNoPresence,
	ErrLimitReached, broker.ErrUnavailable, broker.ErrTimeout,
}

// errUnknownCall is what a node answers that is of an older version.
var errUnknownCall = errors.New("the node doesn't know this question: it may be of an older version")

// Handle implements broker.Node.
func (h *Hub) Handle(from broker.NodeID, body []byte, reply func(answer []byte)) {
	answer := func(a any, err error) { reply(encodeAnswer(a, err)) }
	if len(body) == 0 || calls[callKind(body[0])] == nil {
		answer(nil, errUnknownCall)
		return
	}
	calls[callKind(body[0])](h, from, body[1:], answer)
}

func encodeAnswer(answer any, err error) []byte {
	var a answered
	if err == nil && answer != nil {
		a.Answer, err = json.Marshal(answer)
	}
	if err != nil {
		a = answered{Error: err.Error(), Known: 1 + slices.IndexFunc(knownErrors, func(known error) bool { return errors.Is(err, known) })}
		var e *protocol.Error
		if errors.As(err, &e) {
			a.Error, a.Code = e.Message, e.Code
		}
	}
	b, _ := json.Marshal(a) // strings and numbers
	return b
}

// decodeAnswer reads what came of a call into answer, a pointer, or nil where nothing is awaited.
func decodeAnswer(b []byte, err error, answer any) error {
	if err != nil {
		return err
	}
	var a answered
	if err := json.Unmarshal(b, &a); err != nil {
		return fmt.Errorf("another node's answer: %w", err)
	}
	switch {
	case a.Code != 0:
		return &protocol.Error{Code: a.Code, Message: a.Error}
	case a.Known > 0 && a.Known <= len(knownErrors):
		return knownErrors[a.Known-1]
	case a.Error != "":
		return errors.New(a.Error)
	case answer == nil || a.Answer == nil:
		return nil
	}
	return json.Unmarshal(a.Answer, answer)
}

// ask asks another node, and gives what it has answered to decodeAnswer, by a goroutine of the broker. It may be called
// under a room's lock.
func (c *cluster) ask(to broker.NodeID, kind callKind, question any, done func(answer []byte, err error)) {
	body, is := question.(rawQuestion)
	var err error
	if !is {
		body, err = json.Marshal(question)
	}
	if err != nil {
		go done(nil, err)
		return
	}
	c.b.Call(to, append([]byte{byte(kind)}, body...), done)
}

// askNode is ask, and waits for the answer or for ctx.
func askNode[A any](ctx context.Context, c *cluster, to broker.NodeID, kind callKind, question any) (answer A, err error) {
	type outcome struct {
		body []byte
		err  error
	}
	done := make(chan outcome, 1)
	c.ask(to, kind, question, func(body []byte, err error) { done <- outcome{body, err} })
	select {
	case o := <-done:
		err = decodeAnswer(o.body, o.err, &answer)
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", ErrTimeout, ctx.Err())
	}
	return answer, err
}

// answeredBy is what one node has answered.
type answeredBy[A any] struct {
	Node   broker.NodeID
	Answer A
	Err    error
}

// askedAll asks all other nodes at once, and waits for their answers, one for each, or for ctx. cut says that there may be
// others, which can't be asked.
func askedAll[A any](ctx context.Context, c *cluster, kind callKind, question any) (answers []answeredBy[A], cut bool) {
	peers, cut := c.view()
	answers = make([]answeredBy[A], len(peers))
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() {
			a := &answers[i]
			a.Node = p.ID
			a.Answer, a.Err = askNode[A](ctx, c, p.ID, kind, question)
		})
	}
	all.Wait()
	return answers, cut
}

// Beat implements broker.Node.
func (h *Hub) Beat() []byte {
	if h.cfg().Beat == nil {
		return nil
	}
	return h.cfg().Beat()
}

// View implements broker.Node.
func (h *Hub) View(peers []broker.Peer, cut bool) {
	c := h.cluster
	if c == nil {
		return
	}
	h.noteView(peers, cut)
	was, wasCut := c.view()
	begin := c.claims.sees(c, peers, wasCut && !cut)
	c.mu.Lock()
	c.peers, c.cut = peers, cut
	c.mu.Unlock()
	begin()
	h.nodesChanged(seen{was, wasCut}, seen{peers, cut})
}
