package model

import (
	"cmp"
	"slices"
)

// span is a membership: a client's time in a room, from a join to a leave or the end of its connection.
type span struct {
	log      *Log
	room     *roomLog
	askedAt  int64    // when the join was sent: what was acknowledged before is not for this member
	joinedAt int64    // when its answer came: what was sent after is for this member
	joined   Position // the room's at the join, by the answer
	start    Position // what it has already: joined, or its own Since when it is recovered
	put      bool     // it was put in, and has said nothing itself
	parked   bool     // what was sent to a session while it was parked comes too: direct messages
	items    []Event  // what came: messages, gaps, and word of what was taken back
	leaving  bool     // the leave is sent
	complete bool     // it is a member to the end, and has got all that it gets

	got     map[*message]int // index in items
	arrived map[place]int64  // when what its connection got came
}

// spans divides a log into memberships. What came outside of one is a fault.
func (c *checking) spans(l *Log) (all []*span) {
	asked, open := map[string]Event{}, map[string]*span{}
	end := func(room string) {
		if s := open[room]; s != nil {
			s.complete = false // what was on its way passed the end, or did not
			all = append(all, s)
			delete(open, room)
		}
	}
	for _, e := range l.Events {
		s := open[e.Room]
		switch e.Kind {
		case JoinSent:
			asked[e.ID+" "+e.Room] = e // a resume has one id for many rooms
		case Joined:
			request := asked[e.ID+" "+e.Room]
			// Joining twice is joining once, but who was put in may then say how far it had come.
			if s == nil || s.put && len(s.items) == 0 && e.Recovered && request.Since != nil {
				open[e.Room] = c.newSpan(l, request, e)
			}
		case LeaveSent:
			if s != nil {
				s.leaving = true
			}
		case Left:
			end(e.Room)
		case Received:
			if s == nil {
				r := c.room(e.Room)
				c.fault(Misdelivered, l.Name, r, r.message(e.Message), "%s got %s, and is not a member", l.Name, e.Message)
				continue
			}
			s.items = append(s.items, e)
		case Gap, Deleted:
			if s != nil {
				s.items = append(s.items, e)
			}
		case Closed:
			for room := range open {
				end(room)
			}
		}
	}
	for _, s := range open {
		s.complete = !s.leaving && !l.Waiting
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *span) int { return cmp.Compare(a.joinedAt, b.joinedAt) })
	return all
}

func (c *checking) newSpan(l *Log, asked, joined Event) *span {
	s := &span{log: l, room: c.room(joined.Room), askedAt: asked.At, joinedAt: joined.At, joined: joined.Position, start: joined.Position, got: map[*message]int{}}
	if asked.Since != nil && joined.Recovered {
		s.start = *asked.Since
		if s.start.Epoch != joined.Epoch {
			c.fault(Misplaced, l.Name, s.room, nil, "%s was recovered from epoch %q into %q", l.Name, s.start.Epoch, joined.Epoch)
		}
	}
	s.parked = asked.Since == nil && joined.Recovered
	s.put = joined.ID == ""
	return s
}

// own says that m isn't for s because its client sent it, or is excluded.
func (c *checking) own(s *span, m *message) bool {
	if m.exclude != "" && m.exclude == s.log.Client {
		return true
	}
	if s.room.name == Direct(s.log.Client) || s.room.policy.IncludeSender {
		return false
	}
	if len(m.from) > 1 && m.by != "" {
		return m.by == s.log.Client
	}
	return slices.Contains(m.from, s.log.Client)
}

// checkSpan holds what a member got against the room's order.
func (c *checking) checkSpan(s *span) {
	c.checkJoined(s)
	var last *message
	for i, e := range s.items {
		if e.Kind != Received {
			continue
		}
		m := s.room.byText[e.Message]
		c.checkReceived(s, m, e)
		if slices.ContainsFunc(s.items[:i], func(before Event) bool { return before.takesBack(m) }) {
			c.fault(Revived, s.log.Name, s.room, m, "%s got %s after the word that it was taken back", s.log.Name, m)
		}
		if _, twice := s.got[m]; twice {
			c.fault(Doubled, s.log.Name, s.room, m, "%s got %s twice", s.log.Name, m)
			continue
		}
		if s.room.unordered() { // the last one may be another publisher's
			for g := range s.got {
				if s.room.before(m, g) {
					c.fault(Disordered, s.log.Name, s.room, m, "%s got %s after %s", s.log.Name, m, g)
				}
			}
		}
		s.got[m] = i
		if last != nil && s.room.before(m, last) && !s.room.unordered() {
			c.fault(Disordered, s.log.Name, s.room, m, "%s got %s after %s", s.log.Name, m, last)
		}
		last = m
	}
	c.checkMissing(s)
}

// checkJoined holds the position in the answer to a join against what was acknowledged before and sent after.
func (c *checking) checkJoined(s *span) {
	if s.joined.Epoch == "" {
		return
	}
	for _, m := range s.room.messages {
		switch {
		case m.position.Epoch != s.joined.Epoch:
		case m.ackedAt != 0 && m.ackedAt < s.askedAt && m.position.Offset > s.joined.Offset && !s.room.policy.Nodes:
			c.fault(Misplaced, s.log.Name, s.room, m, "%s joined at offset %d, after %s with offset %d", s.log.Name, s.joined.Offset, m, m.position.Offset)
		case m.sentAt > s.joinedAt && m.position.Offset <= s.joined.Offset:
			c.fault(Misplaced, s.log.Name, s.room, m, "%s joined at offset %d, before %s with offset %d", s.log.Name, s.joined.Offset, m, m.position.Offset)
		}
	}
}

// checkReceived holds one delivery against what its sender said.
func (c *checking) checkReceived(s *span, m *message, e Event) {
	bad := func(kind, format string, args ...any) {
		c.fault(kind, s.log.Name, s.room, m, "%s got %s, "+format, append([]any{s.log.Name, m}, args...)...)
	}
	switch {
	case m.sentAt == 0 && !slices.Contains(c.names, e.From):
		bad(Misdelivered, "which nobody sent")
	case m.sentAt != 0 && !slices.Contains(m.from, e.From):
		bad(Misdelivered, "as if from %s", e.From)
	case m.wasRefused() && m.refused != "timeout" && m.refused != "internal":
		bad(Misdelivered, "which was refused: %s", m.refused)
	case c.own(s, m):
		bad(Echoed, "its own, or one that excludes it")
	}
	if m.position.Epoch != "" {
		if m.position.Epoch != s.start.Epoch || m.position.Offset <= s.start.Offset {
			bad(Misdelivered, "at %s/%d, and has all up to %s/%d", m.position.Epoch, m.position.Offset, s.start.Epoch, s.start.Offset)
		}
		return
	}
	if m.ackedAt != 0 && m.ackedAt < s.askedAt && !s.parked && !s.room.policy.Nodes {
		bad(Misdelivered, "from before its join")
	}
	key := receipt{s.log.Client, m}
	if other, ok := c.got[key]; ok && other != s.log.Name {
		bad(Doubled, "which %s has", other)
	}
	c.got[key] = s.log.Name
}

// missed is a message that a member should have got, and didn't: between which of the items it belongs.
type missed struct {
	m      *message
	lo, hi int
}

// checkMissing finds what a member lacks, and who told it so.
func (c *checking) checkMissing(s *span) {
	var lacks []missed
	perhaps := 0 // messages that a gap may count beside those
	for _, m := range s.room.messages {
		if _, ok := s.got[m]; ok {
			continue
		}
		if c.own(s, m) || s.room.tookBack(m) {
			perhaps++ // a gap of offsets may count it, though it would not have come
			continue
		}
		if miss := s.place(m); m.accepted() && s.begins(m) && (s.complete || miss.hi < len(s.items)) && !s.room.circular(m) {
			lacks = append(lacks, miss)
		} else if !m.wasRefused() {
			perhaps++
		}
	}
	slices.SortStableFunc(lacks, func(a, b missed) int { return cmp.Compare(a.hi, b.hi) })
	left := make([]int, len(s.items))
	for i, e := range s.items {
		left[i] = e.Count
	}
	for _, miss := range lacks {
		told := false
		for i := miss.lo; i < miss.hi && !told; i++ {
			if gap := s.items[i]; gap.unknown() && s.room.policy.Nodes && covers(gap, miss.m) {
				told = true
				continue
			}
			if told = left[i] > 0 && covers(s.items[i], miss.m); told {
				left[i]--
				c.checkDropped(s, miss.m, s.items[i])
			}
		}
		if !told {
			c.fault(Lost, s.log.Name, s.room, miss.m, "%s lacks %s, and no gap says so", s.log.Name, miss.m)
		}
	}
	more, faults := 0, len(c.faults)
	for i, e := range s.items {
		if e.Kind == Gap {
			c.checkGap(s, i)
		}
		more += left[i]
	}
	if more > perhaps && faults == len(c.faults) && s.room.policy.Presence != "full" { // there it counts news of members too
		c.fault(Overtold, s.log.Name, s.room, nil, "gaps tell %s of %d messages more than it lacks", s.log.Name, more-perhaps)
	}
}

// begins says that m comes after the member's join, or what it had before.
func (s *span) begins(m *message) bool {
	if m.position.Epoch != "" && s.start.Epoch != "" {
		return m.position.Epoch == s.start.Epoch && m.position.Offset > s.start.Offset
	}
	if m.sentAt > s.joinedAt {
		return true
	}
	for g := range s.got {
		if s.room.before(g, m) {
			return true
		}
	}
	return false
}

// place finds the items between which m belongs: behind the last message that comes before it, in front of the first
// that comes after it.
func (s *span) place(m *message) missed {
	miss := missed{m, 0, len(s.items)}
	for g, i := range s.got {
		if s.room.before(g, m) {
			miss.lo = max(miss.lo, i+1)
		}
		if s.room.before(m, g) {
			miss.hi = min(miss.hi, i)
		}
	}
	return miss
}
