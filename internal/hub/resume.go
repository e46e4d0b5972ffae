package hub

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// parked is a session whose connection was lost. Until it is resumed, or its time is up, its rooms count it as a member
// and what is sent to it alone waits. Guarded by its clientShard's mu, but for what is static.
type parked struct {
	// Static.
	id    ID
	user  string
	rooms []*room

	gen      uint32   // of the newest token
	oldest   uint32   // that counts as well: nothing has come over the connections that got those behind it
	by       *session // whose client has claimed it and not yet said what it had
	until    int64    // the hub's clock; moot while by is set
	directs  []*loop.Frame
	unsent   int  // their bytes
	resolved bool // it is parked no more
}

const (
	parkedCost   = 512      // what a parked session counts for
	maxDirects   = 64 << 10 // bytes that wait for a parked session
	resumeWithin = 10 * time.Second
	tokenLife    = 30 * 24 * time.Hour // far beyond any window: that the session is still here is what counts
)

// parking is when a parked session's time is up. It is stale when that has changed.
type parking struct {
	p     *parked
	until int64
}

// Resumption is a token that Resume has found good: whose session it is.
type Resumption struct {
	ID  ID
	gen uint32
}

// tokenSize: version, id, generation, expiry.
const tokenSize = 1 + 16 + 4 + 8

// token is what resumes the session: its id and the generation, and until when, signed.
func (h *Hub) token(id ID, gen uint32) string {
	b := make([]byte, 0, tokenSize+16)
	b = append(b, 1)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint32(b, gen)
	b = binary.BigEndian.AppendUint64(b, uint64(time.Now().Add(tokenLife).Unix()))
	return base64.RawURLEncoding.EncodeToString(h.sign(b))
}

// sign appends the half of an HMAC-SHA256 (RFC 2104 5 allows to truncate it so).
func (h *Hub) sign(b []byte) []byte {
	mac := hmac.New(sha256.New, h.key[:])
	mac.Write(b)
	return append(b, mac.Sum(nil)[:16]...)
}

// Resume reads a token, which a client may have made up. Any goroutine.
func (h *Hub) Resume(token string) (r Resumption, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != tokenSize+16 || h.cfg.ResumeWindow == 0 {
		return r, false
	}
	if !hmac.Equal(h.sign(b[:tokenSize:tokenSize]), b) || b[0] != 1 || time.Now().Unix() > int64(binary.BigEndian.Uint64(b[21:])) {
		return r, false
	}
	copy(r.ID[:], b[1:17])
	r.gen = binary.BigEndian.Uint32(b[17:])
	sh := h.clientShard(r.ID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return r, sh.sessions[r.ID] != nil || sh.parked[r.ID] != nil
}

// resumption is what a session that began with a token goes through.
type resumption struct {
	of      Resumption
	early   []early     // came with the handshake, before it is settled what the session is
	old     *parked     // while it waits for the message resume
	timer   *time.Timer // ends the waiting
	asked   bool        // that message has come
	unheard bool        // nothing has come yet
	oldest  uint32      // the oldest token that counts until then
}

// early is a message that waits until it is settled whose it is.
type early struct {
	op wire.Opcode
	p  []byte
}

// good says whether a token of that generation counts.
func good(token, oldest, gen uint32) bool { return oldest <= token && token <= gen }

// Opened says welcome; where the client wants a session back that another connection has, once that is closed.
func (s *session) Opened(c *loop.Conn) {
	s.conn = c
	if s.more != nil && s.more.resume != nil {
		if rival := s.claim(); rival != nil {
			c.PauseReading()
			rival.conn.Worker().Post(&evict{s, rival}, 0)
			return
		}
	}
	s.welcome()
}

// claim makes the parked session that s wants its own, if the token is good. Where another connection has it, it says
// which.
func (s *session) claim() (rival *session) {
	r := s.more.resume
	sh := s.hub.clientShard(r.of.ID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.parked[r.of.ID]
	switch {
	case p == nil:
		return sh.sessions[r.of.ID]
	case p.user != s.name() || !good(r.of.gen, p.oldest, p.gen):
		return nil
	case p.by != nil:
		return p.by
	}
	p.by, p.gen = s, p.gen+1
	r.old, r.oldest = p, p.oldest
	return nil
}

// evict closes the connection of rival, whose session s claims; then s claims it again, and goes without where there is
// still one in the way.
type evict struct{ s, rival *session }

// Run is called by the rival's worker.
func (e *evict) Run(*loop.Worker) {
	if r := e.rival; r.conn.Open() && r.name() == e.s.name() && good(e.s.more.resume.of.gen, r.oldest(), r.gen) {
		r.conn.Close(protocol.CloseTakenOver, "resumed over another connection")
	}
	e.s.conn.Worker().Post(&evicted{e.s}, 0)
}

type evicted struct{ s *session }

func (e *evicted) Run(*loop.Worker) {
	s := e.s
	if !s.conn.Open() {
		return
	}
	s.claim()
	s.welcome()
	waiting := s.more.resume.early
	s.more.resume.early = nil
	for _, m := range waiting {
		if s.conn.Open() {
			s.Message(s.conn, m.op, m.p)
		}
	}
	s.conn.ResumeReading()
}

// welcome has the session found by its id and by chats, and is the first that the client hears.
func (s *session) welcome() {
	h := s.hub
	w := h.welcome
	if s.more != nil && s.more.resume != nil {
		if old := s.more.resume.old; old != nil {
			s.id, s.gen, w.Resumed = old.id, old.gen, true
		} else {
			s.id = NewID() // somebody else may have the other
		}
	}
	if !w.Resumed { // else it leads to what is parked, until the client has said what it had
		h.clientShard(s.id).set(s)
	}
	h.everyone.mu.Lock()
	h.everyone.members++
	since := h.everyone.seq
	h.everyone.mu.Unlock()
	s.all = s.state().everyone.add(s, since)
	w.ClientID = s.id.String()
	if h.cfg.ResumeWindow > 0 {
		w.ResumeToken = h.token(s.id, s.gen)
	}
	s.answer(protocol.AppendWelcome(s.buf(), w))
	if w.Resumed {
		s.awaitResume()
	}
}

// Closed parks the session, or takes it out of every room.
func (s *session) Closed(_ *loop.Conn, code int) {
	if s.conn == nil {
		return // Opened did not get so far
	}
	defer s.hooksClosed(code)
	if s.all < 0 {
		return // nor did welcome
	}
	h := s.hub
	h.depart(s)
	old := s.old()
	switch parks := h.parks(code); {
	case old != nil && parks:
		s.more.resume.timer.Stop()
		h.parkAgain(old, s.oldest())
	case old != nil:
		s.more.resume.timer.Stop()
		h.take(old, nil)
		h.end(old, old.rooms)
	case parks:
		s.park()
	default:
		for i := len(s.rooms) - 1; i >= 0; i-- {
			s.leave(i)
		}
		h.clientShard(s.id).remove(s.id)
	}
}

// old is the parked session of which the client hasn't said yet what it had, or nil.
func (s *session) old() *parked {
	if s.more == nil || s.more.resume == nil {
		return nil
	}
	return s.more.resume.old
}

// oldest is the generation of the oldest token that counts: the newest alone, once a message has come over the connection
// that got it. Until then its client may never have seen the welcome, nor those of the connections before.
func (s *session) oldest() uint32 {
	if s.more != nil && s.more.resume != nil && s.more.resume.unheard {
		return s.more.resume.oldest
	}
	return s.gen
}

// parks says whether a connection that ended with code leaves its session behind. A client that says good-bye by 1000,
// 1001 or without a code doesn't come back; and one that was told not to needn't.
func (h *Hub) parks(code int) bool {
	if h.cfg.ResumeWindow == 0 {
		return false
	}
	switch code {
	case wire.CloseNormal, wire.CloseGoingAway, wire.CloseNoStatus:
		return false
	}
	return code < 4500
}

// park leaves the session behind: its rooms count it still.
func (s *session) park() {
	h := s.hub
	p := &parked{id: s.id, user: s.name(), gen: s.gen, oldest: s.oldest(), rooms: make([]*room, len(s.rooms))}
	if s.more != nil {
		s.more.pulls = nil
	}
	for i, m := range s.rooms {
		p.rooms[i] = m.local.room
		h.detach(m)
	}
	s.rooms, s.byName = nil, nil
	sh := h.clientShard(p.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.sessions, p.id)
	if sh.parked == nil {
		sh.parked = map[ID]*parked{}
	}
	sh.parked[p.id] = p
	h.hold(parkedCost)
	h.parkedNow.Add(1)
	h.wait(sh, p)
}

// parkAgain is called when the connection that claimed p is lost before the client has said what it had.
func (h *Hub) parkAgain(p *parked, oldest uint32) {
	sh := h.clientShard(p.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p.by, p.oldest = nil, oldest
	h.wait(sh, p)
}

// wait begins p's window. sh.mu is held.
func (h *Hub) wait(sh *clientShard, p *parked) {
	p.until = clock() + h.cfg.ResumeWindow.Milliseconds()
	sh.order = append(sh.order, parking{p, p.until})
}

// take takes p out of the shard, and gives what waited for it. The id leads to s from here on, which may be nil.
func (h *Hub) take(p *parked, s *session) (directs []*loop.Frame) {
	sh := h.clientShard(p.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	h.takeLocked(sh, p)
	if s != nil {
		sh.sessions[p.id] = s
	}
	return p.directs
}

func (h *Hub) takeLocked(sh *clientShard, p *parked) {
	delete(sh.parked, p.id)
	p.resolved = true
	h.hold(-parkedCost - int64(p.unsent))
	h.parkedNow.Add(-1)
}

// end takes the session out of the rooms that it is still counted in.
func (h *Hub) end(p *parked, rooms []*room) {
	for _, r := range rooms {
		r.mu.Lock()
		h.left(r, Identity{p.id, p.user}, nil)
		r.mu.Unlock()
	}
}

// expire ends the parked sessions whose time is up.
func (h *Hub) expire(sh *clientShard, now int64) {
	var over []*parked
	sh.mu.Lock()
	n := 0
	for ; n < len(sh.order) && sh.order[n].until <= now; n++ {
		if o := sh.order[n]; !o.p.resolved && o.p.by == nil && o.p.until == o.until {
			h.takeLocked(sh, o.p)
			over = append(over, o.p)
		}
	}
	clear(sh.order[:n])
	if sh.order = sh.order[n:]; len(sh.order) == 0 {
		sh.order = nil
	}
	sh.mu.Unlock()
	for _, p := range over {
		h.end(p, p.rooms)
	}
}

// direct sends a frame to the client, or keeps it where its session is parked. full is a worker that is above high
// water, or nil.
func (h *Hub) direct(id ID, f *loop.Frame) (full *loop.Worker, err *protocol.Error) {
	sh := h.clientShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := sh.sessions[id]; s != nil {
		ref := s.conn.Ref()
		if ref.Worker().Post(&direct{h, id, ref, f}, f.Len()) {
			full = ref.Worker()
		}
		return full, nil
	}
	p := sh.parked[id]
	switch {
	case p == nil:
		return nil, &protocol.Error{Code: protocol.UnknownClient, Message: "no client " + protocol.Quote([]byte(id.String())) + " is connected"}
	case p.unsent > 0 && p.unsent+f.Len() > maxDirects:
		return nil, &protocol.Error{Code: protocol.Overloaded, Message: "too much waits for the client, which has lost its connection"}
	}
	p.directs = append(p.directs, f)
	p.unsent += f.Len()
	h.hold(int64(f.Len()))
	return nil, nil
}

// direct is a frame on its way to one client.
type direct struct {
	hub   *Hub
	id    ID
	to    loop.Ref
	frame *loop.Frame
}

func (d *direct) Run(w *loop.Worker) {
	if c := w.Conn(d.to); c != nil && c.Open() {
		c.Send(d.frame)
		return
	}
	d.hub.direct(d.id, d.frame) // it has gone meanwhile, and may be parked
}

// awaitResume gives the client a while to say what it had.
func (s *session) awaitResume() {
	r := s.more.resume
	r.unheard = true
	w := s.conn.Worker()
	r.timer = time.AfterFunc(resumeWithin, func() { w.Post(&tooLate{s}, 0) })
}

type tooLate struct{ s *session }

func (t *tooLate) Run(*loop.Worker) {
	if s := t.s; s.conn.Open() && s.old() != nil && !s.more.resume.asked {
		s.startAnew()
	}
}

// heard is called for each message of the client, before it is obeyed: resume is what the first should be.
func (s *session) heard(resume bool) {
	r := s.more.resume
	r.unheard = false
	if r.old == nil || r.asked {
		return
	}
	if r.asked = resume; !resume {
		s.startAnew()
	}
}

// startAnew leaves the rooms that the session had: the client didn't name them.
func (s *session) startAnew() {
	old := s.more.resume.old
	s.more.resume.old = nil
	s.more.resume.timer.Stop()
	for _, f := range s.hub.take(old, s) {
		s.conn.Send(f)
	}
	s.hub.end(old, old.rooms)
}

// resumeRooms obeys the message resume: it answers for every room, then brings what was missed. Rooms that aren't named
// are left. Where no session was resumed the rooms are joined. refused are those that the application's hook refused.
func (s *session) resumeRooms(cmd *protocol.Command, refused []bool) {
	var directs []*loop.Frame
	old := map[string]*room{} // those that count the session already
	p := s.old()
	if p != nil {
		s.more.resume.old = nil
		s.more.resume.timer.Stop()
		directs = s.hub.take(p, s)
		for _, r := range p.rooms {
			old[r.name] = r
		}
	}
	answers := make([]protocol.ResumedRoom, len(cmd.Rooms))
	var pulls []*pull
	for i, c := range cmd.Rooms {
		answers[i] = protocol.ResumedRoom{Room: string(c.Room), Reason: protocol.ReasonForbidden}
		counted := old[answers[i].Room] != nil
		member := s.find(c.Room)
		if refused != nil && refused[i] || len(s.rooms) >= s.hub.cfg.MaxRoomsPerClient && !counted && member < 0 {
			continue
		}
		var since *protocol.Position
		if c.HasAt {
			since = &c.At
		}
		var at position
		var reason string
		var behind *pull
		if member >= 0 { // it has said resume before, or joined
			at, reason = s.stays(s.rooms[member].local.room, since)
		} else {
			at, reason, behind = s.enter(answers[i].Room, since, nil, counted)
			delete(old, answers[i].Room)
		}
		if since == nil && reason == "" {
			reason = protocol.ReasonExpired // it can't be proved
		}
		answers[i].Epoch, answers[i].Offset = s.hub.epochText(at.epoch), at.offset
		answers[i].Recovered, answers[i].Reason = reason == "", reason
		if behind != nil {
			pulls = append(pulls, behind)
		}
	}
	if p != nil {
		s.hub.end(p, slices.Collect(maps.Values(old)))
	}
	s.answer(protocol.AppendResumed(s.buf(), cmd.ID, answers))
	for _, f := range directs {
		s.conn.Send(f)
	}
	for _, p := range pulls {
		s.fallBehind(p)
	}
}

// ParkedSessions is how many wait to be resumed. Any goroutine.
func (h *Hub) ParkedSessions() int { return int(h.parkedNow.Load()) }
