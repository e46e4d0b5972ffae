package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hubbub/broker"
)

// The session of a node that is gone is nobody's. Who has its token gets its id again, with nothing in it, where no other
// node has the session: one node decides that for each id. A node that comes back, since it was cut off only, is told which
// of its sessions others have now.

// moves is what a node knows of sessions that come and go.
type moves struct {
	ctx  context.Context // ends with the hub
	stop context.CancelFunc
	work sync.WaitGroup

	serving atomic.Int32 // calls of other nodes

	mu       sync.Mutex // above cluster.mu
	ended    bool
	leaving  bool
	claiming map[ID]*claiming
	taken    map[ID]taken                   // of the last minute
	held     map[uint64]*heldCame           // what has come of what other nodes held for clients
	came     map[ID]int64                   // sessions that other nodes gave this one, and until when what these have asked before is too old
	grants   map[ID]grant                   // as the node that decides
	known    []broker.Peer                  // the last view
	lost     map[broker.NodeID]int64        // nodes that are gone, and until when their sessions are given to others
	left     map[broker.NodeID]bool         // nodes that have no session any more, since they end
	rivals   map[broker.NodeID]map[ID]doubt // ids that nodes may have as well
	doubts   uint64                         // that were noted
	asking   map[broker.NodeID]bool         // they are told so
}

// doubt is that a node may have a session as well.
type doubt struct {
	until  int64
	number uint64 // of all that were noted: another one where it was noted anew
}

// manyDoubts is how many there are about one node at most, some 11 MB. Beyond that a session may stay on two nodes.
const manyDoubts = 1 << 17

// taken is by which handshake a session came, and until when that is known. By the hub's clock, as all times here.
type taken struct {
	nonce uint64
	until int64
}

// grant is who may have the id of a session whose node is gone.
type grant struct {
	to    broker.NodeID
	gen   uint32
	until int64
}

const takenTime = 60_000 // milliseconds

func (m *moves) init() {
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.claiming, m.taken, m.came, m.grants = map[ID]*claiming{}, map[ID]taken{}, map[ID]int64{}, map[ID]grant{}
	m.held = map[uint64]*heldCame{}
	m.lost, m.rivals, m.asking = map[broker.NodeID]int64{}, map[broker.NodeID]map[ID]doubt{}, map[broker.NodeID]bool{}
	m.left = map[broker.NodeID]bool{}
}

// background does something on a goroutine of its own, for which the hub's Stop waits; false where it is too late.
func (m *moves) background(do func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return false
	}
	m.work.Go(do)
	return true
}

// end ends all that is under way, and waits for it.
func (m *moves) end() {
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	m.stop()
	m.work.Wait()
}

func (m *moves) took(id ID, nonce uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken[id] = taken{nonce, clock() + takenTime}
}

// tookBy says that the session came by that handshake.
func (m *moves) tookBy(id ID, nonce uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	came := m.taken[id]
	return came.nonce == nonce && came.until != 0
}

// doubt notes that any other node may have a session that is here, or comes, also one that is gone, perhaps for this node alone:
// which of them gave it to which isn't known.
func (m *moves) doubt(id ID, until int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.known {
		m.rival(p.ID, id, until)
	}
	for node := range m.lost {
		m.rival(node, id, until)
	}
}

// rival: mu is held.
func (m *moves) rival(of broker.NodeID, id ID, until int64) {
	ids := m.rivals[of]
	if ids == nil {
		ids = map[ID]doubt{}
		m.rivals[of] = ids
	}
	if before, is := ids[id]; is || len(ids) < manyDoubts {
		m.doubts++
		ids[id] = doubt{max(until, before.until), m.doubts}
	}
}

// doubted is how long, in milliseconds, a session is doubted still; 0 where it isn't.
func (m *moves) doubted(id ID) (left int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ids := range m.rivals {
		if d, is := ids[id]; is {
			left = max(left, d.until-clock())
		}
	}
	return left
}

// doubtTime is until when a node that can't be heard may have a session: its client would have to be with it still.
func (h *Hub) doubtTime() int64 {
	return clock() + (h.cfg().ResumeWindow + h.cfg().PingInterval + h.cfg().PongTimeout).Milliseconds() + 10_000
}

// noteView is View's part here.
func (h *Hub) noteView(peers []broker.Peer, cut bool) {
	m := &h.cluster.moves
	m.mu.Lock()
	defer m.mu.Unlock()
	if cut {
		return
	}
	for _, p := range m.known {
		m.lost[p.ID] = clock() + h.cfg().ResumeWindow.Milliseconds()
	}
	for _, p := range peers {
		delete(m.lost, p.ID)
	}
	m.known = peers
}

// tidyMoves forgets what is too old, and tells nodes that are there again of sessions that they may have as well.
func (h *Hub) tidyMoves(now int64) {
	for _, node := range h.cluster.moves.tidy(now) {
		h.forgetGone(node)
	}
	for _, node := range h.cluster.rivals() {
		if !h.cluster.moves.background(func() { h.tellRivals(node) }) {
			return
		}
	}
}

// tidy gives the nodes that are gone for good.
func (m *moves) tidy(now int64) (gone []broker.NodeID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, t := range m.taken {
		if t.until <= now {
			delete(m.taken, id)
		}
	}
	for of, came := range m.held {
		if came.until <= now {
			delete(m.held, of)
		}
	}
	for id, until := range m.came {
		if until <= now {
			delete(m.came, id)
		}
	}
	for id, g := range m.grants {
		if g.until <= now {
			delete(m.grants, id)
		}
	}
	for node, until := range m.lost {
		if until <= now {
			delete(m.lost, node)
			delete(m.left, node)
			gone = append(gone, node)
		}
	}
	for node, ids := range m.rivals {
		for id, d := range ids {
			if d.until <= now {
				delete(ids, id)
			}
		}
		if len(ids) == 0 {
			delete(m.rivals, node)
		}
	}
	return gone
}

// rivals are the nodes that are there and to be told something.
func (c *cluster) rivals() (nodes []broker.NodeID) {
	c.moves.mu.Lock()
	defer c.moves.mu.Unlock()
	for node := range c.moves.rivals {
		if !c.moves.asking[node] && c.sees(node) {
			c.moves.asking[node] = true
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// heir is the node that decides who has the id of a session whose node is gone: the same one for all that see the same
// others.
func (c *cluster) heir(id ID, but func(broker.NodeID) bool) (at broker.NodeID, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := "client " + string(id[:])
	var most uint64
	try := func(n broker.NodeID) {
		if w := weight(n, key); !but(n) && (!ok || w > most || w == most && bytes.Compare(n[:], at[:]) > 0) {
			at, most, ok = n, w, true
		}
	}
	try(c.id)
	for _, p := range c.peers {
		try(p.ID)
	}
	return at, ok
}

// untilStop is ctx with so much time, that ends with the hub.
func (c *cluster) untilStop(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, most)
	stop := context.AfterFunc(c.moves.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

type heirQuestion struct {
	ID   ID            `json:"id"`
	Gone broker.NodeID `json:"gone"` // the node that had it
}

type heirAnswer struct {
	Here  bool           `json:"here,omitempty"`
	Moved *broker.NodeID `json:"moved,omitempty"` // it was here, and went there
	Gone  bool           `json:"gone,omitempty"`  // that node was here, not long ago, and is gone
	Seen  bool           `json:"seen,omitempty"`  // that node is here
}

// orphan answers whether a session is here, or where it has gone: it may have gone on to a node that was asked before.
func (h *Hub) orphan(q heirQuestion) heirAnswer {
	a := heirAnswer{Gone: h.cluster.moves.lostLately(q.Gone), Seen: h.cluster.sees(q.Gone)}
	sh := h.clientShard(q.ID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	a.Here = sh.parked[q.ID] != nil || sh.sessions[q.ID] != nil || sh.handing(q.ID) != nil
	if to, moved := sh.movedTo(q.ID); moved && !a.Here {
		a.Moved = &to
	}
	return a
}

func (m *moves) lostLately(node broker.NodeID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, lately := m.lost[node]
	return lately
}

// misses says that a node is gone which may come back with its sessions, or whose clients may come for them.
func (m *moves) misses() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for node := range m.lost {
		if !m.left[node] {
			return true
		}
	}
	return false
}

// sayLeft tells the others that this node ends, and where its sessions were has none any more: else they would wait for it.
func (c *cluster) sayLeft(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, findWithin)
	defer cancel()
	peers, _ := c.view()
	c.askEach(ctx, peers, callLeft, nil, func(broker.NodeID, []byte, error) {})
}

// answerLeft is the call of sayLeft.
func answerLeft(h *Hub, from broker.NodeID, _ []byte, reply func(any, error)) {
	if h.cluster != nil {
		h.cluster.moves.hasLeft(from)
	}
	reply(nil, nil)
}

// hasLeft: a node that isn't known is forgotten by nobody, so nothing is noted of it.
func (m *moves) hasLeft(node broker.NodeID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, lost := m.lost[node]
	if lost || slices.ContainsFunc(m.known, func(p broker.Peer) bool { return p.ID == node }) {
		m.left[node] = true
	}
}

// inherit finds out which node has a session whose node is gone. That is this one where nobody has it, and it was granted;
// of a look where it might be. here says that it is there, or was, since another has given it there (leads). errGone says to try again.
func (h *Hub) inherit(ctx context.Context, s *chase) (at broker.NodeID, here bool, err error) {
	c, r, gone := h.cluster, s.r, s.gone
	ctx, cancel := context.WithTimeout(ctx, claimTry)
	defer cancel()
	answers, cut := askedAll[heirAnswer](ctx, c, callOrphan, heirQuestion{r.ID, gone})
	if cut { // perhaps for a moment only
		return at, false, errGone
	}
	lately, heard, seen := c.moves.lostLately(gone), false, false
	for _, a := range answers {
		switch {
		case a.Node == gone:
		case a.Err == nil && a.Answer.Here:
			return a.Node, true, nil
		case a.Err == nil:
			heard, lately, seen = true, lately || a.Answer.Gone, seen || a.Answer.Seen
		case errors.Is(a.Err, ErrTimeout):
			return at, false, errGone // it may have it
		}
	}
	for _, a := range answers { // it may have gone on to one that was asked before it was there
		if a.Err == nil && a.Answer.Moved != nil && c.leads(s, *a.Answer.Moved) {
			return s.at, true, nil
		}
	}
	switch still := c.sees(gone); {
	case still && !heard: // it may be this node that can't be heard
		return at, false, errGone
	case !still && !lately && seen: // this node has just come, and hasn't heard of that one yet, or that has just died
		return at, false, errGone
	case !still && !lately:
		return at, false, ErrUnknownClient
	case s.q.Look:
		return c.id, false, nil
	}
	if at, err = h.inherits(ctx, r, gone, s.granted); err == nil && at == c.id {
		c.moves.doubt(r.ID, h.doubtTime())
	}
	return at, false, err
}

type grantQuestion struct {
	ID   ID            `json:"id"`
	Gen  uint32        `json:"gen"`
	Not  broker.NodeID `json:"not"`
	Gone broker.NodeID `json:"gone"`
}

// inherits asks for the id of a session that nobody has.
func (h *Hub) inherits(ctx context.Context, r *Resumption, gone, not broker.NodeID) (at broker.NodeID, err error) {
	c := h.cluster
	home, _ := c.heir(r.ID, func(n broker.NodeID) bool { return n == gone })
	q := grantQuestion{r.ID, r.gen, not, gone}
	if home == c.id {
		at, err = h.grant(c.id, q)
	} else {
		at, err = askNode[broker.NodeID](ctx, c, home, callGrant, q)
	}
	if errors.Is(err, ErrTimeout) || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrStopped) {
		err = fmt.Errorf("%w: %w", errGone, err)
	}
	return at, err
}

// grant says who has the id: the first that asks, until it is gone or hasn't got it.
func (h *Hub) grant(to broker.NodeID, q grantQuestion) (broker.NodeID, error) {
	c := h.cluster
	m := &c.moves
	m.mu.Lock()
	defer m.mu.Unlock()
	switch g, is := m.grants[q.ID]; {
	case is && g.gen > q.Gen:
		return to, ErrUnknownClient
	case is && g.to != to && g.to != q.Not && g.to != q.Gone && (g.to == c.id || c.sees(g.to)):
		return g.to, nil
	}
	m.grants[q.ID] = grant{to, q.Gen, clock() + max(h.cfg().ResumeWindow, 2*claimMost).Milliseconds()}
	return to, nil
}
