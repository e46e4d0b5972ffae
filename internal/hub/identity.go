package hub

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/protocol"
)

// What a session does with what is known of its client beyond a name: rooms that it is put into, data that it shows, and
// a token that takes the place of another.

// known is that; nil for nothing. The goroutine of the session's worker.
func (s *session) known() *auth.Identity {
	if s.self == nil {
		return nil
	}
	return s.self.who
}

// checkIdentity refuses what can't be known of a client.
func checkIdentity(who *auth.Identity) error {
	if who.User != "" {
		if err := protocol.CheckUser(who.User); err != nil {
			return err
		}
	}
	if len(who.Data) > protocol.MaxData {
		return fmt.Errorf("the client's data has %d bytes, at most %d are allowed", len(who.Data), protocol.MaxData)
	}
	for _, name := range who.Rooms {
		if err := protocol.CheckRoom([]byte(name)); err != nil {
			return err
		}
	}
	return nil
}

// expiresAt is when it does, in Unix milliseconds, or 0 for never.
func expiresAt(who *auth.Identity) int64 {
	if who == nil || who.Expires.IsZero() {
		return 0
	}
	return who.Expires.UnixMilli()
}

// named says that the client's identity names the room: it needs no permission to be there.
func (s *session) named(room string) bool {
	who := s.known()
	return who != nil && slices.Contains(who.Rooms, room)
}

// shows is the data that the client shows in rooms: its identity's, which it can't change, or else its own.
func (s *session) shows(own []byte) []byte {
	if who := s.known(); who != nil && who.Data != nil {
		return who.Data
	}
	return own
}

// fewTold is how much of what a client is told of its rooms may wait for it: its queue must not overflow with that.
const fewTold = 16 << 10

// placings are the rooms into which the server puts a client without its asking.
type placings struct {
	left    []string // those of its identity into which it is still to be put
	entered []entry  // those with history into which it was
}

// entry is where a session was put into a room with history.
type entry struct {
	local  *local
	offset uint64 // of the room's position then
}

func (s *session) placings() *placings {
	m := s.extra()
	if m.placings == nil {
		m.placings = &placings{}
	}
	return m.placings
}

// forget is called when the session leaves a room.
func (p *placings) forget(l *local) {
	p.entered = slices.DeleteFunc(p.entered, func(e entry) bool { return e.local == l })
}

// giveUp takes out a room into which the session is still to be put.
func (p *placings) giveUp(room string) (was bool) {
	i := slices.Index(p.left, room)
	if i >= 0 {
		p.left = slices.Delete(slices.Clone(p.left), i, i+1) // a copy: it is the identity's own list
	}
	return i >= 0
}

// naming says that the client is still to be put into rooms of its identity.
func (s *session) naming() bool {
	return s.more != nil && s.more.placings != nil && len(s.more.placings.left) > 0
}

// joinNamed puts the client into the rooms that its identity names, but for those that old has named: of these it may
// have been in and left. It does so as the socket takes the word of it; until then the client isn't read. Those that
// count a session which is coming home are left to its resume, or to the end of that.
func (s *session) joinNamed(old *auth.Identity) {
	who := s.known()
	if who == nil || len(who.Rooms) == 0 {
		return
	}
	fresh := who.Rooms
	if len(old.Rooms) > 0 {
		fresh = slices.DeleteFunc(slices.Clone(fresh), func(name string) bool { return slices.Contains(old.Rooms, name) })
	}
	if len(fresh) > 0 {
		s.placings().left = fresh
		s.goOnNaming()
	}
}

// goOnNaming goes on with that.
func (s *session) goOnNaming() {
	for s.naming() {
		if s.conn.Unsent() > fewTold {
			s.conn.PauseReading()
			s.conn.TellDrained = true
			return
		}
		name := s.more.placings.left[0]
		s.more.placings.left = s.more.placings.left[1:]
		if no := s.enterNamed(name); no != nil { // as it would be for the others
			s.more.placings.left = nil
			s.hub.unnamed.Log(s.hub.cfg().Log, slog.LevelWarn, "a client can't be put into all rooms that its identity names", "client", s.id, "user", s.name(), "room", name, "err", no)
			s.answerError(no, nil)
		}
		if !s.conn.Open() {
			s.more.placings.left = nil // what it was told found it too slow
			return
		}
	}
	s.readOn()
}

// readOn has the client read, unless something of the session's own stands before that.
func (s *session) readOn() {
	if !s.naming() && (s.more == nil || s.more.operations == nil || !s.more.operations.full(s)) {
		s.conn.ResumeReading()
	}
}

func (s *session) enterNamed(name string) *protocol.Error {
	switch {
	case s.find([]byte(name)) >= 0 || s.coming() && s.more.coming.left[name].room != nil:
		return nil
	case s.hub.opens(name):
		s.enterWhenOpen(name, false)
		return nil
	}
	return s.enter(name, false)
}

// enter makes the client a member without its asking, and tells it so. put is the membership's.
func (s *session) enter(name string, put bool) *protocol.Error {
	others := 0
	if s.coming() {
		others = len(s.more.coming.left)
	}
	no := s.limitOfRooms(others)
	if no == nil {
		no = s.limitOfData(&protocol.Command{Room: []byte(name)})
	}
	if no != nil {
		return no
	}
	at, _, behind := s.becomeMember(name, nil, nil, false)
	m := &s.rooms[len(s.rooms)-1]
	m.put = put
	switch {
	case behind != nil: // it is coming home
		s.more.coming.pulls = append(s.more.coming.pulls, behind)
	case m.local.room.keeps():
		all := s.placings()
		all.entered = append(all.entered, entry{m.local, at.Offset})
	}
	s.answer(joinedByServer(name, at))
	return nil
}

// untouched says that the session was put into the room and has got nothing of it yet, so that a position which its
// client had reached before can be gone on from. r.mu is held; the room is at that position.
func (s *session) untouched(l *local, at history.Position) bool {
	if s.more == nil {
		return false
	}
	if all := s.more.placings; all != nil {
		if i := slices.Index(all.entered, entry{l, at.Offset}); i >= 0 {
			all.entered = slices.Delete(all.entered, i, i+1) // once
			return true
		}
	}
	c := s.more.coming
	if c == nil {
		return false
	}
	before := len(c.pulls)
	c.pulls = slices.DeleteFunc(c.pulls, func(p *pull) bool { return p.local == l }) // another one takes its place
	return len(c.pulls) < before
}

// enterWhenOpen is enter for a room that must be opened. What the client says of that room waits meanwhile.
func (s *session) enterWhenOpen(name string, put bool) {
	h := s.hub
	coming := s.coming() && s.more.coming.asked
	o := s.ask(&protocol.Command{}, operation{room: name, dropped: func() { h.unuse(name) }})
	if s.coming() {
		s.more.coming.asked = coming // the client has said nothing yet
	}
	h.use(name, func(err error) {
		o.end(func() {
			defer h.unuse(name)
			var no *protocol.Error
			switch {
			case err != nil:
				no = unavailable(err)
			case s.find([]byte(name)) < 0:
				no = s.enter(name, put)
			}
			if no != nil {
				s.answerError(no, nil)
			}
		})
	})
}

// refresh takes over what a new token says of the client, beside what the application has said, and takes it out of
// rooms that it may be in no more.
func (s *session) refresh(cmd *protocol.Command, fresh auth.Identity) {
	old := s.known()
	if err := checkIdentity(&fresh); err != nil {
		s.answerError(s.told(err), cmd.ID)
		return
	}
	if s.self == nil || fresh.User != s.self.user || fresh.User == "" && old == nil {
		s.answerError(&protocol.Error{Code: protocol.Forbidden, Message: "the token is another user's: connect anew with it"}, cmd.ID)
		return
	}
	if old == nil {
		old = &auth.Identity{}
	}
	if old.Beside != nil { // of the same user, so it is no other's
		fresh.Add(*old.Beside)
	}
	s.self.who = nil
	if fresh.BeyondName() {
		s.self.who = &fresh
	}
	s.expire()
	s.answer(protocol.Answer{Kind: protocol.AnswerRefreshed, ID: cmd.ID, Expires: expiresAt(&fresh)})
	if !sameJoins(old, &fresh) {
		s.leaveForbidden(old.Rooms)
	}
	if fresh.Data != nil && !bytes.Equal(fresh.Data, old.Data) {
		s.showAnew()
	}
	s.joinNamed(old)
}

// sameJoins says that two identities may be in the same rooms.
func sameJoins(a, b *auth.Identity) bool {
	joins := func(i *auth.Identity) []*glob.Template {
		if i.Grants == nil {
			return nil
		}
		return i.Grants.Join
	}
	same := func(p, q *glob.Template) bool { return p.String() == q.String() }
	return slices.Equal(a.Rooms, b.Rooms) && slices.EqualFunc(joins(a), joins(b), same)
}

// leaveForbidden takes the client out of the rooms that the policies let it be in no more. Nobody else is asked; so where
// the application has a say, those go too that only the old identity's names let it be in.
func (s *session) leaveForbidden(oldRooms []string) {
	unasked := func(room string) bool { return s.hub.cfg().Hooks.Join != nil && slices.Contains(oldRooms, room) }
	for _, m := range slices.Clone(s.rooms) {
		name := m.local.room.name
		if m.put || s.named(name) || s.isOne(s.whoMay(mayJoin, []byte(name)), mayJoin, []byte(name)) && !unasked(name) {
			continue
		}
		i := s.find([]byte(name))
		if i < 0 {
			return // what it was told found it too slow: it is in no room
		}
		s.leave(i)
		s.inform(protocol.Answer{Kind: protocol.AnswerLeft, Room: name, Reason: protocol.LeftForbidden})
	}
}

// showAnew has the members of the client's rooms see its new data.
func (s *session) showAnew() {
	for i := range s.rooms {
		r := s.rooms[i].local.room
		if r.policy().Presence == PresenceFull && s.payer().may(int64(len(s.known().Data))) {
			s.showIn(r)
			s.rooms[i].data = uint16(len(s.known().Data))
		}
	}
}

func (s *session) showIn(r *room) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.hub.set(r, protocol.Member{ClientID: s.idText(), User: s.name(), Data: s.known().Data}, uint16(s.gen()), true, s.payer())
}
