package model

import "math"

// What a gap may say, and what a policy may take from a member that can't keep up.

// newest says that a policy keeps the newest message, whatever it drops.
var newest = map[string]bool{"drop-oldest": true, "latest": true, "latest-by-key": true}

// history is the reason of a gap that no policy makes: what was to be recovered is no longer kept.
const history = "history"

// node is the reason of a gap that one of several nodes makes which has missed what others told it, or a part of a log.
const node = "node"

// unknown says that nobody knows how many messages won't come.
func (e *Event) unknown() bool { return e.Kind == Gap && e.Reason == node && e.Count == 0 }

// checkGap holds the gap at index i of s.items against the room's policy and against the places that it names.
func (c *checking) checkGap(s *span, i int) {
	gap, r := s.items[i], s.room
	bad := func(kind, format string, args ...any) {
		c.fault(kind, s.log.Name, r, nil, "%s got a gap, %s: "+format, append([]any{s.log.Name, gap}, args...)...)
	}
	if slow := r.policy.SlowConsumer; slow != "" && gap.Reason != slow && !(gap.unknown() && r.policy.Nodes) && (gap.Reason != history || s.start.Epoch == "") {
		bad(Unfounded, "its policy is %s", slow)
	}
	from, to := gap.FromOffset, gap.ToOffset
	switch {
	case gap.unknown() && from == 0 && to == 0: // by a node; nobody knows how many
		return
	case s.start.Epoch == "" || from == 0 && r.policy.Presence == "full": // where it counts news of members it may count them alone
		if from != 0 || to != 0 {
			bad(Misplaced, "there are no offsets")
		}
		return
	case from < 1 || to < from:
		bad(Misplaced, "it says from where to where")
		return
	}
	for _, o := range []int64{from, to} {
		m := r.places[Position{s.start.Epoch, o}]
		if m == nil {
			continue
		}
		if _, got := s.got[m]; got || gap.Reason != history && c.own(s, m) {
			bad(Overtold, "and %s, at %d, is not missing", m, o)
			return
		}
	}
	for _, e := range s.items[i:] {
		if e.Kind == Received && e.Epoch != "" && e.Offset < to {
			bad(Disordered, "%s, at %d, comes after it", e.Message, e.Offset)
		}
	}
	if n := c.gone(s, gap); gap.Count > n && r.policy.Presence != "full" {
		bad(Overtold, "of these only %d are missing", n)
	}
}

// gone is how many messages a gap may count: those in its range that didn't come and would have, and where the history
// was forgotten also those that would not.
func (c *checking) gone(s *span, gap Event) (n int) {
	for o := gap.FromOffset; o <= gap.ToOffset; o++ {
		m := s.room.places[Position{s.start.Epoch, o}]
		if _, got := s.got[m]; m == nil || !got && (gap.Reason == history || !c.own(s, m)) {
			n++
		}
	}
	return n
}

func covers(gap Event, m *message) bool {
	o := m.position.Offset
	return gap.FromOffset == 0 || m.position.Epoch == "" || gap.FromOffset <= o && o <= gap.ToOffset
}

// checkDropped holds a message that a gap covers against the policy that the gap names.
//
//	drop-oldest    it goes when more waits than the queue holds, but never the newest
//	latest         it goes for a newer one
//	latest-by-key  it goes for a newer one with its key; without one it is treated as by drop-oldest, among its like
func (c *checking) checkDropped(s *span, m *message, gap Event) {
	byKey := gap.Reason == "latest-by-key"
	if !newest[gap.Reason] {
		return
	}
	if gap.Reason != "latest" && !(byKey && m.key != "") {
		if s.room.policy.Presence == "full" {
			return // news of members wait as messages without a key do, and may be the newest
		}
		if most := s.room.policy.QueueBytes; most > 0 && c.waited(s, m, gap) <= most {
			c.fault(Unfounded, s.log.Name, s.room, m, "%s lacks %s, and no more waited than the queue holds", s.log.Name, m)
		}
	}
	if !s.complete {
		return
	}
	for _, g := range s.room.messages {
		_, came := s.got[g]
		if (came || s.room.tookBack(g)) && g != m && !s.room.before(g, m) && (!byKey || g.key == m.key) { // newer, or nobody knows
			return
		}
	}
	c.fault(Stale, s.log.Name, s.room, m, "%s lacks %s, the newest", s.log.Name, m)
}

// frameCost is more than what a message counts for beside its content.
const frameCost = 512

// waited is how many bytes may have waited for the client, in all its rooms, together with m, which a gap told to be
// gone: what was sent before the gap came, and had not arrived before m was sent.
func (c *checking) waited(s *span, m *message, gap Event) (bytes int) {
	for _, r := range c.rooms {
		if r.policy.Presence == "full" {
			return math.MaxInt // news wait too
		}
		for _, o := range r.messages {
			at, came := s.arrived[place{r.name, o.text}]
			if o.sentAt < gap.At && (!came || at > m.sentAt) {
				bytes += len(o.text) + frameCost
			}
		}
	}
	return bytes
}

// place is a message of a room.
type place struct{ room, text string }

// arrivals is when each message came over a connection first.
func arrivals(l *Log) map[place]int64 {
	at := map[place]int64{}
	for _, e := range l.Events {
		if p := (place{e.Room, e.Message}); e.Kind == Received && at[p] == 0 {
			at[p] = e.At
		}
	}
	return at
}
