package hub

import (
	"cmp"
	"strconv"
	"time"

	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// Bytes that are counted beside the sizes of messages, for --max-buffered-bytes.
const (
	entryCost = 160
	roomCost  = 512 // of a room without members
)

// entryBytes is what a message that is kept counts for.
func entryBytes(e *history.Entry[*payer]) int64 { return int64(e.Size()) + entryCost }

// clock is what ages are measured by, in milliseconds, whatever the wall's clock does.
func clock() int64 { return loop.Monotonic() }

// position is that of the message that was published last, where the room has history. r.mu is held.
func (r *room) position() (none history.Position) {
	if !r.keeps() {
		return none // it may have had one, before a reload
	}
	return r.log.Position()
}

// keeps says whether the room has history.
func (r *room) keeps() bool { return r.policy().History.Messages > 0 }

// store keeps a message, and drops what is too old or too much then. r.mu is held.
func (h *Hub) store(r *room, e history.Entry[*payer]) {
	if !r.log.Append(e) {
		panic("hub: a message is missing in the log of " + r.name)
	}
	h.charge(e.Payer, entryBytes(&e))
	h.count(KeptHistory, entryBytes(&e)-h.dropWhile(r, func() bool { return r.log.Over(&r.policy().History, e.At) }))
	r.active = e.At
	h.schedule(r, e.At+r.policy().History.Age.Milliseconds())
	h.unused(r, e.Payer)
}

// dropWhile drops the room's oldest messages while that is so, and says what they counted for; the caller takes it off.
// r.mu is held.
func (h *Hub) dropWhile(r *room, so func() bool) (cost int64) {
	for so() {
		e := r.log.Drop()
		h.charge(e.Payer, -entryBytes(&e))
		cost += entryBytes(&e)
	}
	return cost
}

// trim drops what is too old of the room's history. r.mu is held.
func (h *Hub) trim(r *room, now int64) {
	h.count(KeptHistory, -h.dropWhile(r, func() bool { return r.log.Over(&r.policy().History, now) }))
}

// clearHistory keeps the newest so many messages of the room. r.mu is held.
func (h *Hub) clearHistory(r *room, newest int) {
	h.count(KeptHistory, -h.dropWhile(r, func() bool { return r.log.Len() > newest }))
}

// page is what history and recovery read at once.
const (
	pageBytes    = 64 << 10
	pageMessages = 100 // where the client names no limit
)

// recover says whether all that came behind since is in the history, and if not why. r.mu is held.
func (r *room) recover(since *protocol.Position) (reason string) {
	if !r.keeps() {
		return protocol.ReasonNoHistory
	}
	return r.log.Recover(since.Epoch, since.Offset)
}

// readHistory answers the message history: one page.
func (s *session) readHistory(cmd *protocol.Command) {
	if cmd.ID == nil {
		return // nobody waits for the answer
	}
	h := s.hub
	name := string(cmd.Room)
	policy := h.cfg().Policies.For(name)
	if policy.History.Messages == 0 {
		s.answerError(errNoHistory, cmd.ID)
		return
	}
	if h.remoteLog(name) && s.find(cmd.Room) < 0 {
		s.readRemotely(cmd)
		return
	}
	page, at, more, err := h.page(name, pageOf(cmd))
	if err != nil {
		s.answerError(err, cmd.ID)
		return
	}
	s.answer(protocol.Answer{Kind: protocol.AnswerHistory, ID: cmd.ID, Room: name, Epoch: at.Epoch, Offset: at.Offset, Messages: page, More: more})
}

// errNoHistory is what is told who asks for what isn't there.
var errNoHistory = &protocol.Error{Code: protocol.Forbidden, Message: "the room keeps no history"}

// pageOf is the page that cmd asks for.
func pageOf(cmd *protocol.Command) (q PageQuery) {
	q.Limit = cmp.Or(cmd.Limit, pageMessages)
	if cmd.HasSince {
		q.Since = &cmd.Since
	}
	if cmd.HasBefore {
		q.Before = &cmd.Before
	}
	return q
}

// page is what q asks for of the room of that name, and the room's position. A room that isn't there is made for the
// answer, since its epoch is part of it, and has the same one when it is made again.
func (h *Hub) page(name string, q PageQuery) (page []*protocol.Message, at history.Position, more bool, err *protocol.Error) {
	sh := h.roomShard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := h.room(sh, name)
	defer h.unused(r, nil)
	if !r.keeps() { // a reload has come
		return nil, at, false, errNoHistory
	}
	h.trim(r, clock())
	return pageOfLog(&r.log, q)
}

// pageOfLog is what q asks for of a room's log.
func pageOfLog(log *history.Log[*payer], q PageQuery) (page []*protocol.Message, at history.Position, more bool, err *protocol.Error) {
	at = log.Position()
	ask := history.Query{Limit: q.Limit, Bytes: pageBytes}
	if q.Since != nil {
		ask.Since, err = &q.Since.Offset, checkPosition(at, q.Since, at.Offset)
	}
	if q.Before != nil { // before what is to come stands all that there is
		ask.Before, err = &q.Before.Offset, checkPosition(at, q.Before, history.Next(at.Offset))
	}
	if err != nil {
		return nil, at, false, err
	}
	page, more = log.Page(ask)
	return page, at, more, nil
}

func checkPosition(at history.Position, asked *protocol.Position, most uint64) *protocol.Error {
	if string(asked.Epoch) == at.Epoch && asked.Offset <= most {
		return nil
	}
	return &protocol.Error{Code: protocol.BadPosition, Message: "the room has no position " + protocol.Quote(asked.Epoch) + ", " + strconv.FormatUint(asked.Offset, 10)}
}

// pull brings a member what it missed, piece by piece as its socket takes it. Until it has caught up, what is new isn't
// queued for it: it stands in the history too. Owned by the session's worker.
type pull struct {
	local  *local
	seq    uint64 // of the last message that it got, or that wasn't for it
	offset uint64 // of that
	since  uint64 // where it began
	told   bool   // what was taken back of what it had then
}

// behind begins a pull behind an offset of the log, which Recover has found good. r.mu is held.
func (r *room) behind(l *local, offset uint64) pull {
	p := pull{local: l, seq: r.seq, offset: offset, since: offset}
	if i := r.log.Behind(offset); i < r.log.Len() {
		p.seq = r.log.At(i).Seq - 1
	}
	return p
}

// catchUp goes on with a pull. It is over when it returns true.
func (s *session) catchUp(p *pull) (done bool) {
	next := s.take(p)
	frames := make([]*loop.Frame, 0, len(next.messages)) // before the room may let go of them
	for _, m := range next.messages {
		if f := p.local.replayed(m); f != nil {
			frames = append(frames, f)
		}
	}
	if next.done {
		p.local.follow(s, p.seq)
	}
	for _, a := range next.before {
		s.answer(a)
	}
	for _, f := range frames {
		s.conn.Send(f)
	}
	if len(frames) > 0 {
		s.conn.Forgive() // they are older than the time that they wait here
	}
	return next.done
}

// replayTime is how long frames of the history are kept for others who catch up: nobody counts them.
const replayTime = time.Second

// replayed is a frame of a message of the history, for all members who catch up at the same time; nil where their
// dialect has no word for it.
func (l *local) replayed(m *protocol.Message) *loop.Frame {
	f := l.replay[m.Offset]
	if f == nil {
		x := shared{message: m}
		f = x.frame(l)
		if l.replay == nil {
			l.replay = map[uint64]*loop.Frame{}
			l.w.At(l.w.Now()+replayTime.Milliseconds(), replayEnds{l})
		}
		l.replay[m.Offset] = f
	}
	return f
}

// replayEnds lets go of what was replayed, also while somebody still catches up: it may be for long.
type replayEnds struct{ *local }

func (r replayEnds) Run(*loop.Worker) { r.replay = nil }

// piece is the next part of a pull.
type piece struct {
	before   []protocol.Answer // what was taken back of what the member has, and what went out of the history
	messages []*protocol.Message
	done     bool // it is the last one
}

// fewUnsent is how much may be unsent to a client that is told what was taken back in a room: a hundred deletions then
// stay within the bound on answers, whatever the room's name.
const fewUnsent = 4 << 10

// take is the next piece of a pull: as much as the connection has room for.
func (s *session) take(p *pull) (next piece) {
	r := p.local.room
	r.mu.Lock()
	defer r.mu.Unlock()
	log := &r.log
	if len(p.local.replay) > log.Len() {
		clear(p.local.replay) // most of it has gone out of the history
	}
	if !p.told {
		if next.before = r.deletedSince(p.since); len(next.before) > 0 && s.conn.Unsent() > fewUnsent {
			return piece{} // the answers of all rooms together would be too many for it
		}
		p.told = true
	}
	base := r.seq // of the newest that is not kept
	if log.Len() > 0 {
		base = log.At(0).Seq - 1
	}
	if p.seq < base {
		next.before = append(next.before, protocol.Answer{Kind: protocol.AnswerGap, Room: r.name, Count: int64(base - p.seq), Reason: protocol.GapHistory, From: history.Next(p.offset), To: log.Floor()})
		p.seq, p.offset = base, log.Floor()
	}
	room, me := min(pageBytes, s.conn.Room()/2), s.idText()
	for i := log.After(p.seq); i < log.Len(); i++ {
		e := log.At(i)
		if e.Except != me && !e.Deleted {
			room -= e.Size()
			if room < 0 && (len(next.messages) > 0 || s.conn.Unsent() > 0) {
				break
			}
			next.messages = append(next.messages, e.Message)
		}
		p.seq, p.offset = e.Seq, e.Offset
	}
	next.done = p.seq == r.seq
	return next
}

type pulling struct{ s *session }

func (p *pulling) Conn(*loop.Worker) *loop.Conn { return p.s.conn }

func (p *pulling) Run(*loop.Worker) {
	if p.s.naming() && p.s.conn.Open() {
		p.s.goOnNaming()
		if q := p.s.more.operations; q != nil && q.running == nil && p.s.conn.Open() {
			p.s.goOn()
		}
	}
	p.s.pull()
	p.s.catchUpLags()
}

// pull brings what waited for the session alone, and then takes one piece of what it is missing.
func (s *session) pull() {
	if !s.bringWaited() {
		return
	}
	for s.more != nil && len(s.more.pulls) > 0 && s.conn.Open() {
		if !s.catchUp(s.more.pulls[0]) {
			if s.conn.Unsent() == 0 {
				continue // its dialect has no word for any of that
			}
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
