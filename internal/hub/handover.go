package hub

import (
	"context"
	"net/netip"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/protocol"
)

// The node that has a session hands it over to the one to which its client came. Until that says that it has it, it is on
// its way, and nobody's: what is sent to the client waits with it. Where the other is gone, or hasn't got it, it is here
// again. So an answer that is lost loses nothing, and nobody has it twice.

// handing is a session on its way to another node. Its rooms, and the ledger, count it here until it has arrived.
type handing struct {
	// Static.
	p    *parked // guarded as a parked one is
	to   broker.NodeID
	over chan struct{} // closed when it has arrived, or is here again

	// Guarded by the client shard's mu.
	nonce  uint64 // of the handshake that asked for it
	packed bool   // an answer has been made
	sent   int    // of p.directs, how many go with it
}

const (
	claimTry   = 600 * time.Millisecond // for one answer
	claimWait  = 2 * time.Second        // for one that another node answers
	claimMost  = 5 * time.Second        // for a session, also of a node that is gone, until all know that
	handedWait = time.Second            // until who got a session is asked whether it has it
)

// claimQuestion asks for a session, or where First isn't 0 for a further part of one that is on its way to who asks. The nonce is
// the same for each try of one handshake.
type claimQuestion struct {
	ID    ID     `json:"id"`
	Gen   uint32 `json:"gen"`
	User  string `json:"user,omitempty"`
	Look  bool   `json:"look,omitempty"` // only whether it is there; User is not known then
	Nonce uint64 `json:"nonce"`
	First uint   `json:"first,omitempty"`
}

type claimAnswer struct {
	Moved   *broker.NodeID `json:"moved,omitempty"` // has it
	Here    bool           `json:"here,omitempty"`  // of a look; User is whose it is
	User    string         `json:"user,omitempty"`
	Session *movedSession  `json:"session,omitempty"`
}

// claimed answers one who asks for a session. ErrUnknownClient says that it isn't here, or not theirs; ErrTimeout that nobody
// knows yet. It waits for the session's connection to end, or for ctx.
func (h *Hub) claimed(ctx context.Context, from broker.NodeID, q claimQuestion) (a claimAnswer, err error) {
	ok := func(user string, oldest, gen uint32) bool {
		a.Here, a.User = true, user
		return (q.Look || user == q.User) && good(q.Gen, oldest, gen)
	}
	if q.First > 0 {
		hd := h.handing(q.ID)
		if hd == nil || hd.to != from || h.nonceOf(hd) != q.Nonce {
			return a, ErrUnknownClient
		}
		return claimAnswer{Session: h.packed(hd, q.First)}, nil
	}
	for ctx.Err() == nil {
		if h.cluster.moves.claims(q.ID) {
			return a, ErrTimeout // this node asks another for it
		}
		hd := h.handing(q.ID)
		switch {
		case hd == nil:
			if q.Look {
				if h.has(q.ID, ok) {
					return a, nil
				}
			} else if hd, err = h.take(ctx, q.ID, from, q.Nonce, ok); err == nil {
				h.cluster.moves.background(func() { h.seeOff(hd) })
				return claimAnswer{Session: h.packed(hd, 0)}, nil
			}
			if h.handing(q.ID) != nil {
				continue // it has gone on its way just now, perhaps to who asks: another try of one handshake was here still
			}
			if to, moved := h.movedTo(q.ID); moved {
				return claimAnswer{Moved: &to}, nil
			}
			if err == nil {
				err = ErrUnknownClient
			}
			return a, err
		case hd.to == from:
			switch again, good := h.again(hd, &q, ok); {
			case !again:
			case !good:
				return a, ErrUnknownClient
			case q.Look:
				return a, nil
			default:
				return claimAnswer{Session: h.packed(hd, 0)}, nil
			}
		default:
			wait(ctx, hd.over)
		}
	}
	return a, ErrTimeout
}

func wait(ctx context.Context, over <-chan struct{}) {
	select {
	case <-over:
	case <-ctx.Done():
	}
}

// again has a session which is on its way go there once more: who asks has given up its other handshake. False where it
// isn't on its way any more; good says that ok.
func (h *Hub) again(hd *handing, q *claimQuestion, ok func(user string, oldest, gen uint32) bool) (again, good bool) {
	sh := h.clientShard(q.ID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	again, good = sh.handing(q.ID) == hd, ok(hd.p.user, hd.p.oldest, hd.p.gen)
	if again && good && !q.Look {
		hd.nonce = q.Nonce
	}
	return again, good
}

// has says that the session is here, and ok of it.
func (h *Hub) has(id ID, ok func(user string, oldest, gen uint32) bool) bool {
	sh := h.clientShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, _, has := sh.has(id, ok)
	return has
}

// has: mu is held. Of p and s one is not nil where it is so; p is not claimed by a connection.
func (sh *clientShard) has(id ID, ok func(user string, oldest, gen uint32) bool) (p *parked, s *session, has bool) {
	switch p, s = sh.parked[id], sh.sessions[id]; {
	case p != nil && p.by == nil:
		return p, nil, ok(p.user, p.oldest, p.gen)
	case p != nil:
		return nil, p.by, ok(p.user, p.oldest, p.gen)
	case s != nil:
		return nil, s, ok(s.name(), s.oldest(), s.gen())
	}
	return nil, nil, false
}

// take takes a session for another node, and ends its connection before. ErrUnknownClient where it isn't here, or isn't ok;
// ErrStopped, and ErrTimeout with ctx.
func (h *Hub) take(ctx context.Context, id ID, to broker.NodeID, nonce uint64, ok func(user string, oldest, gen uint32) bool) (*handing, error) {
	sh := h.clientShard(id)
	try := func() (hd *handing, s *session, has bool) {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		p, s, has := sh.has(id, ok)
		if has && p != nil {
			hd = h.hand(sh, p, to, nonce)
		}
		return hd, s, has
	}
	for ctx.Err() == nil {
		hd, rival, has := try()
		switch {
		case !has:
			return nil, ErrUnknownClient
		case hd != nil:
			return hd, nil
		}
		err := h.onClient(ctx, id, func(s *session) {
			if s == rival && ok(s.name(), s.oldest(), s.gen()) {
				s.conn.Close(protocol.CloseTakenOver, "resumed over another connection")
			}
		}, func() bool { return true })
		if err == ErrStopped {
			return nil, err
		}
	}
	return nil, ErrTimeout
}

// hand has a parked session be on its way. mu is held.
func (h *Hub) hand(sh *clientShard, p *parked, to broker.NodeID, nonce uint64) *handing {
	hd := &handing{p: p, to: to, nonce: nonce, over: make(chan struct{})}
	delete(sh.parked, p.id)
	sh.removeFromUser(p.id, p.user)
	h.parkedNow.Add(-1)
	sh.awayFrom().handed[p.id] = hd
	return hd
}

// seeOff asks a node whether it has the session that it was given, until that is known.
func (h *Hub) seeOff(hd *handing) {
	c, end := h.cluster, time.Now().Add(max(h.cfg().ResumeWindow, 2*claimMost))
	for {
		select {
		case <-hd.over:
			return
		case <-h.stop:
			return
		case <-time.After(handedWait):
		}
		ctx, cancel := c.untilStop(context.Background(), claimTry)
		has, err := askNode[hasAnswer](ctx, c, hd.to, callHas, hasQuestion{hd.p.id, h.nonceOf(hd)})
		cancel()
		switch {
		case h.stopping() || err == nil && has == hasAsked:
		case err == nil && has == hasIt:
			h.arrived(hd)
		case err == nil:
			h.parkedAgain(hd)
		case !c.sees(hd.to) || time.Now().After(end):
			c.moves.doubt(hd.p.id, h.doubtTime()) // it may have it all the same, or have given it on
			h.parkedAgain(hd)
		}
	}
}

func (h *Hub) nonceOf(hd *handing) uint64 {
	sh := h.clientShard(hd.p.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return hd.nonce
}

// arrived is when another node has the session: here it is in no room any more, without having left them, and its id leads
// there.
func (h *Hub) arrived(hd *handing) {
	directs, was := h.seenOff(hd)
	if !was {
		return
	}
	for _, r := range hd.p.rooms {
		h.movesOut(r.room, hd.p)
	}
	h.payers.leave(hd.p.payer)
	h.cluster.sendHeld(hd.to, hd.p.id, directs)
}

// seenOff ends the handing, and gives the direct messages that didn't go with it; false where it was ended before.
func (h *Hub) seenOff(hd *handing) (left []waitingDirect, was bool) {
	sh := h.clientShard(hd.p.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.handing(hd.p.id) != hd {
		return nil, false
	}
	delete(sh.away.handed, hd.p.id)
	if sh.sessions[hd.p.id] == nil && sh.parked[hd.p.id] == nil { // else it has come back
		sh.leads(hd.p.id, hd.to)
	}
	h.unkeep(hd.p)
	close(hd.over)
	return hd.p.directs[hd.sent:], true
}

// parkedAgain has a session that was to go be parked here again.
func (h *Hub) parkedAgain(hd *handing) {
	p := hd.p
	sh := h.clientShard(p.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.handing(p.id) != hd {
		return
	}
	delete(sh.away.handed, p.id)
	h.parkAgain(sh, p)
	close(hd.over)
}

// parkAgain has the id lead to p, which the ledger knows. mu is held.
func (h *Hub) parkAgain(sh *clientShard, p *parked) {
	if sh.parked == nil {
		sh.parked = map[ID]*parked{}
	}
	sh.parked[p.id] = p
	sh.addToUser(p.id, p.user)
	h.parkedNow.Add(1)
	p.until = clock() + h.cfg().ResumeWindow.Milliseconds()
	sh.order = append(sh.order, parking{p.id, p.until})
}

// settleHandings is called as the hub stops: whatever is still on its way is the other node's.
func (h *Hub) settleHandings(sh *clientShard) {
	for _, hd := range sh.handings() {
		h.arrived(hd)
	}
}

func (sh *clientShard) handings() (all []*handing) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.away != nil {
		for _, hd := range sh.away.handed {
			all = append(all, hd)
		}
	}
	return all
}

// movesOut takes a session that is on another node now out of a room, which it hasn't left.
func (h *Hub) movesOut(r *room, p *parked) {
	defer h.recovered("moving out of a room")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members--
	r.active = clock()
	defer h.unused(r, p.payer)
	h.movesAway(r, p.id)
	if r.members == 0 {
		h.occupies(r.name, false)
	}
}

// stays has a room go on telling that a client is in it, of which another session moves out.
func (r *room) stays(id ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.presence != nil {
		r.presence.comesBack(id)
	}
}

// movesIn has a room count a session that was in it on another node.
func (h *Hub) movesIn(p *parked, m movedRoom) {
	defer h.recovered("moving into a room")
	sh := h.roomShard(m.Name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := h.room(sh, m.Name)
	if r.members++; r.members == 1 {
		h.occupies(r.name, true)
	}
	h.used(r)
	p.rooms = append(p.rooms, parkedRoom{r, m.Put})
	if r.policy().Presence == PresenceFull {
		h.presenceOf(r).comesBack(p.id)
		who := protocol.Member{ClientID: p.id.String(), User: p.user, Data: m.Data}
		h.set(r, who, uint16(p.gen)+1, true, p.payer) // that of the node which had it is lower
	}
}

// install has a session that was on another node be parked here; false where one of that id is here already, or the hub
// has stopped.
func (h *Hub) install(id ID, m *movedSession, addr netip.Addr) bool {
	p := &parked{id: id, user: m.User, payer: h.newPayer(m.User, addr), since: m.Since, gen: m.Gen, oldest: m.Oldest, code: m.Code}
	for _, r := range m.Rooms {
		h.movesIn(p, r)
	}
	for _, record := range m.Directs {
		if d := h.movedDirect(record); d != nil {
			p.directs = append(p.directs, waitingDirect{d, p.payer}) // its sender is another node's
			p.unsent += d.Size()
		}
	}
	if m.Doubt > 0 {
		h.cluster.moves.doubt(id, clock()+m.Doubt)
	}
	h.cluster.moves.brought(id)
	done, back := h.installParked(p)
	if back != nil { // it was on its way to where it came from
		h.arrived(back)
		for _, r := range p.rooms {
			r.stays(id)
		}
	}
	if !done {
		for _, r := range p.rooms {
			h.movesOut(r.room, p)
			if h.hasClient(id) {
				r.stays(id) // of the one that is here already
			}
		}
		h.payers.leave(p.payer)
	}
	return done
}

func (h *Hub) installParked(p *parked) (done bool, back *handing) {
	sh := h.clientShard(p.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.parked[p.id] != nil || sh.sessions[p.id] != nil || h.stopping() {
		return false, nil
	}
	for _, d := range p.directs {
		h.keep(KeptParked, d.payer, int64(d.message.Size()))
	}
	if back = sh.handing(p.id); back != nil {
		p.directs = append(p.directs, back.p.directs[back.sent:]...) // whose senders pay
		for _, d := range back.p.directs[back.sent:] {
			p.unsent += d.message.Size()
		}
		back.p.directs = back.p.directs[:back.sent]
	}
	if sh.away != nil {
		delete(sh.away.gone, p.id)
	}
	p.cost = parkedCost + parkedRoomCost*int64(len(p.rooms))
	h.keep(KeptParked, p.payer, p.cost)
	h.parkAgain(sh, p)
	return true, back
}
