package hub

import (
	"slices"
	"strconv"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// history is the newest messages of a room, oldest first, without a hole: the last one's offset is the room's seq.
// Guarded by the room's mu.
type history struct {
	ring  []entry // its length is a power of two
	first int     // index of the oldest
	n     int
	bytes int // of the frames
}

type entry struct {
	frame *loop.Frame
	at    int64  // milliseconds of the hub's clock
	from  ID     // the session that doesn't get it back; zero for none
	payer *payer // who published it; nil for the application
}

func (e *entry) cost() int64 { return int64(e.frame.Len()) + entryCost }

// Bytes that are counted beside those of the frames, for --max-buffered-bytes.
const (
	entryCost = 160
	roomCost  = 512 // of a room without members
)

// clock is what ages are measured by, in milliseconds, whatever the wall's clock does.
func clock() int64 { return loop.Monotonic() }

func (h *history) at(i int) *entry { return &h.ring[(h.first+i)&(len(h.ring)-1)] }

func (h *history) push(e entry) {
	if h.n == len(h.ring) {
		ring := make([]entry, max(4, 2*len(h.ring)))
		for i := range h.n {
			ring[i] = *h.at(i)
		}
		h.ring, h.first = ring, 0
	}
	h.n++
	*h.at(h.n - 1) = e
	h.bytes += e.frame.Len()
}

func (h *history) pop() (oldest entry) {
	e := h.at(0)
	oldest, *e = *e, entry{}
	h.bytes -= oldest.frame.Len()
	h.first = (h.first + 1) & (len(h.ring) - 1)
	if h.n--; h.n == 0 {
		h.ring, h.first = nil, 0
	}
	return oldest
}

// over says that the policy doesn't keep the oldest. The newest message stays even when it alone is too large.
func (h *history) over(p *History, now int64) bool {
	return h.n > 0 && (h.n > p.Messages || h.n > 1 && h.bytes > p.Bytes || now-h.at(0).at >= p.Age.Milliseconds())
}

// position is a place in the log of a room. The zero one is that of a room without history.
type position struct{ epoch, offset uint64 }

// epochText is an epoch as clients see it, "" for none: the hub's own part keeps those of another process apart.
func (h *Hub) epochText(epoch uint64) string {
	if epoch == 0 {
		return ""
	}
	return h.born + strconv.FormatUint(epoch, 36)
}

// position is that of the message posted last. r.mu is held.
func (r *room) position() position {
	if !r.keeps() {
		return position{}
	}
	return position{r.epoch, r.seq}
}

// keeps says whether the room has history.
func (r *room) keeps() bool { return r.policy.History.Messages > 0 }

// store keeps a message, and drops what is too old or too much then. r.mu is held.
func (h *Hub) store(r *room, e entry) {
	h.charge(e.payer, e.cost())
	r.history.push(e)
	h.count(KeptHistory, e.cost()-h.dropWhile(r, func() bool { return r.history.over(&r.policy.History, e.at) }))
}

// dropWhile drops the room's oldest messages while that is so, and says what they counted for; the caller takes it off.
// r.mu is held.
func (h *Hub) dropWhile(r *room, so func() bool) (cost int64) {
	for so() {
		e := r.history.pop()
		h.charge(e.payer, -e.cost())
		cost += e.cost()
	}
	return cost
}

// trim drops what is too old of the room's history. r.mu is held.
func (h *Hub) trim(r *room, now int64) {
	h.count(KeptHistory, -h.dropWhile(r, func() bool { return r.history.over(&r.policy.History, now) }))
}

// clearHistory keeps the newest so many messages of the room. r.mu is held.
func (h *Hub) clearHistory(r *room, newest int) {
	h.count(KeptHistory, -h.dropWhile(r, func() bool { return r.history.n > newest }))
}

// page is what history and recovery read at once.
const (
	pageBytes    = 64 << 10
	pageMessages = 100 // where the client names no limit
)

// recover says whether all that came behind since is in the history, and if not why. r.mu is held.
func (h *Hub) recover(r *room, since *protocol.Position) (reason string) {
	switch {
	case !r.keeps():
		return protocol.ReasonNoHistory
	case string(since.Epoch) != h.epochText(r.epoch) || since.Offset > r.seq:
		return protocol.ReasonEpoch
	case since.Offset < r.seq-uint64(r.history.n):
		return protocol.ReasonExpired
	}
	return ""
}

// mayRead says whether the client may read a room's history and who is in it, as far as the application isn't asked: a member
// may, and anyone unless the application decides who may join and not who may read.
func (s *session) mayRead(cmd *protocol.Command) *protocol.Error {
	hooks := &s.hub.cfg.Hooks
	if hooks.Join == nil || hooks.Read != nil || s.find(cmd.Room) >= 0 {
		return nil
	}
	return &protocol.Error{Code: protocol.NotMember, Message: "only members may read this room"}
}

// readHistory answers the message history: one page.
func (s *session) readHistory(cmd *protocol.Command) {
	if cmd.ID == nil {
		return // nobody waits for the answer
	}
	h := s.hub
	name := string(cmd.Room)
	policy := h.cfg.Policies.For(name)
	if policy.History.Messages == 0 {
		s.answerError(&protocol.Error{Code: protocol.Forbidden, Message: "the room keeps no history"}, cmd.ID)
		return
	}
	entries, at, more, err := h.page(name, cmd)
	if err != nil {
		s.answerError(err, cmd.ID)
		return
	}
	p := protocol.AppendHistoryHead(s.buf(), name, h.epochText(at.epoch), at.offset)
	for _, e := range entries {
		p = protocol.AppendHistoryMessage(p, e.frame.Payload())
	}
	s.answer(protocol.AppendHistoryTail(p, more, cmd.ID))
}

// page is what cmd asks for of the room of that name, and the room's position. A room that isn't there is made for the
// answer, since its epoch is part of it.
func (h *Hub) page(name string, cmd *protocol.Command) (entries []entry, at position, more bool, err *protocol.Error) {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := h.room(sh, name)
	defer h.vacated(r, nil)
	h.trim(r, clock())
	for _, at := range []struct {
		given bool
		*protocol.Position
		most uint64 // before what is to come stands all that there is
	}{{cmd.HasSince, &cmd.Since, r.seq}, {cmd.HasBefore, &cmd.Before, r.seq + 1}} {
		if at.given && (string(at.Epoch) != h.epochText(r.epoch) || at.Offset > at.most) {
			return nil, position{}, false, &protocol.Error{Code: protocol.BadPosition, Message: "the room has no position " + protocol.Quote(at.Epoch) + ", " + strconv.FormatUint(at.Offset, 10)}
		}
	}
	entries, more = r.page(cmd)
	return entries, r.position(), more, nil
}

// page takes out of the history what cmd asks for, and says whether there is more in that direction: after since, or
// before. r.mu is held.
func (r *room) page(cmd *protocol.Command) (entries []entry, more bool) {
	limit := cmd.Limit
	if limit == 0 {
		limit = pageMessages
	}
	h := &r.history
	base := r.seq - uint64(h.n) // the offset before the oldest
	from, to := 0, h.n          // indices of those that may be in the page
	switch {
	case cmd.HasSince:
		from = min(h.n, int(max(cmd.Since.Offset, base)-base))
	case cmd.HasBefore:
		to = int(min(max(cmd.Before.Offset, base+1)-base-1, uint64(h.n)))
	}
	size := 0
	fits := func(i int) bool {
		size += h.at(i).frame.Len()
		return len(entries) == 0 || len(entries) < limit && size <= pageBytes
	}
	if cmd.HasSince {
		for ; from < to && fits(from); from++ {
			entries = append(entries, *h.at(from))
		}
		return entries, from < to
	}
	for ; to > from && fits(to-1); to-- {
		entries = append(entries, *h.at(to - 1))
	}
	slices.Reverse(entries)
	return entries, to > from
}

// pull brings a member what it missed, piece by piece as its socket takes it. Until it has caught up, what is new isn't
// queued for it: it stands in the history too. Owned by the session's worker.
type pull struct {
	local *local
	next  uint64 // the offset of the last message that it got, or that wasn't for it
}

// catchUp goes on with a pull. It is over when it returns true.
func (s *session) catchUp(p *pull) (done bool) {
	entries, gap, done := s.take(p)
	if done {
		p.local.admit(s, p.next)
	}
	if gap.Count > 0 {
		s.answer(protocol.AppendGap(s.buf(), gap))
	}
	for _, e := range entries {
		s.conn.Send(e.frame)
	}
	if len(entries) > 0 {
		s.conn.Forgive() // they are older than the time that they wait here
	}
	return done
}

// take is the next piece of a pull: what the connection has room for, and what went out of the history before. It is the
// last one where done.
func (s *session) take(p *pull) (entries []entry, gap protocol.Gap, done bool) {
	r := p.local.room
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &r.history
	base := r.seq - uint64(h.n)
	if p.next < base {
		gap = protocol.Gap{Room: r.name, Count: int64(base - p.next), Reason: protocol.GapHistory, From: p.next + 1, To: base}
		p.next = base
	}
	room := min(pageBytes, s.conn.Room()/2)
	for i := int(p.next - base); i < h.n; i++ {
		e := h.at(i)
		if e.from != s.id || e.from == (ID{}) {
			room -= e.frame.Len()
			if room < 0 && (len(entries) > 0 || s.conn.Unsent() > 0) {
				break
			}
			entries = append(entries, *e)
		}
		p.next++
	}
	return entries, gap, p.next == r.seq
}

type pulling struct{ s *session }

func (p *pulling) Conn(*loop.Worker) *loop.Conn { return p.s.conn }

func (p *pulling) Run(*loop.Worker) {
	p.s.pull()
	p.s.catchUpLags()
}

// pull takes one piece of what the session is missing.
func (s *session) pull() {
	for s.more != nil && len(s.more.pulls) > 0 && s.conn.Open() {
		if !s.catchUp(s.more.pulls[0]) {
			s.conn.TellDrained = true
			return
		}
		if s.more == nil || len(s.more.pulls) == 0 {
			return // a send found the client too slow
		}
		s.more.pulls[0] = nil
		s.more.pulls = s.more.pulls[1:]
	}
}

// fallBehind begins a pull.
func (s *session) fallBehind(p *pull) {
	m := s.extra()
	m.pulls = append(m.pulls, p)
	if len(m.pulls) == 1 {
		s.pull()
	}
}
