package presence

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"example.com/hubbub/internal/protocol"
)

// Whatever happens in a room, everybody who asked at any time and then heard the news believes what is so as soon as
// there are no more; who heard everything from the beginning sees nobody come whom it knows, unless it was with other
// data or somebody had asked meanwhile, and nobody go whom it doesn't know. What is said twice, at once or later,
// changes nothing.
func TestTheNewsAddUp(t *testing.T) {
	acts := []act{comes, comes, goes, goes, asks, repeats, waits, tells, listens, delays}
	one := rapid.Custom(func(t *rapid.T) step {
		return step{rapid.SampledFrom(acts).Draw(t, "what"), rapid.IntRange(0, 3).Draw(t, "who"), rapid.IntRange(0, 3).Draw(t, "data")}
	})
	rapid.Check(t, func(t *rapid.T) {
		s := newStory(t, rapid.IntRange(1, 5).Draw(t, "members of a page"))
		for _, step := range rapid.SliceOfN(one, 1, 80).Draw(t, "steps") {
			s.play(step)
		}
		s.end()
	})
}

func FuzzRoom(f *testing.F) {
	f.Add([]byte{0, 0x00, 0x08, 0x06, 0x07, 0x01, 0x02, 0x00, 0x06, 0x07})
	f.Add([]byte{4, 0x00, 0x02, 0x01, 0x06, 0x07, 0x40, 0x03, 0x20, 0x06, 0x07, 0x05})
	f.Add([]byte("\x01they come and go, and somebody asks now and then"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		s := newStory(t, 1+int(b[0])%5)
		for _, b := range b[1:min(len(b), 500)] {
			s.play(step{act(b % 8), int(b>>3) % 4, int(b>>5) % 4})
		}
		s.end()
	})
}

// act is what may happen.
type act int

const (
	comes   act = iota // also who is here already, with the same data or other
	goes               // also who isn't here
	asks               // somebody, who is here
	repeats            // what was said last of somebody is said again
	waits              // time passes
	delays             // the news can't be told now
	tells              // the news, if they are due
	listens            // until they are due
)

type step struct {
	what      act
	who, data int
}

// believer is somebody who has been told of a room's members: by asking once, or from the beginning.
type believer map[string]string // user and data by ClientID

func (b believer) learn(joined, left []protocol.Member) {
	for _, m := range joined {
		b[m.ClientID] = m.User + string(m.Data)
	}
	for _, m := range left {
		delete(b, m.ClientID)
	}
}

// story is a room, and what is to be known of it.
type story struct {
	t     rapid.TB
	said  []string // so far
	now   int64
	room  Room[int]
	twice Room[int] // is told everything twice; a payer is the number of the client
	page  Limits
	all   Limits
	here  believer // what is so
	kept  [4]int64 // by payer

	first     believer // has heard everything
	believers []believer
	asked     bool            // since there were no news
	last      [4]string       // data that each came with last
	changed   map[string]bool // who came with other data since there were no news
}

func newStory(t rapid.TB, members int) *story {
	s := &story{t: t, here: believer{}, first: believer{}, changed: map[string]bool{}}
	s.believers = []believer{s.first}
	size := func(m protocol.Member) int { return 10 + len(m.User) + len(m.Data) }
	s.page, s.all = Limits{members, 33, size}, Limits{1000, 1000, size}
	return s
}

func (s *story) fault(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s: %s", strings.Join(s.said, ", "), fmt.Sprintf(format, args...))
}

func (s *story) say(format string, args ...any) {
	s.said = append(s.said, fmt.Sprintf(format, args...))
}

// member is a client with one of four sorts of user and data.
func member(who, data int) protocol.Member {
	m := protocol.Member{ClientID: string(rune('a' + who))}
	if data&1 > 0 {
		m.User = "u"
	}
	if data&2 > 0 {
		m.Data = []byte("12")
	}
	return m
}

func (s *story) play(step step) {
	who := member(step.who, step.data)
	switch step.what {
	case comes:
		text := who.User + string(who.Data)
		s.say("%s comes with %q", who.ClientID, text)
		if text != s.last[step.who] {
			s.changed[who.ClientID] = true
		}
		s.last[step.who], s.here[who.ClientID] = text, text
		s.set(step.who, who, true)
	case goes:
		s.say("%s goes", who.ClientID)
		delete(s.here, who.ClientID)
		s.set(step.who, protocol.Member{ClientID: who.ClientID}, false)
	case repeats:
		s.say("again of %s", who.ClientID)
		m, here := s.twice.Find(who.ClientID)
		m.ClientID = who.ClientID
		if c := s.twice.Set(m, here, -1, s.now); c.Bytes != 0 {
			s.fault("%d more bytes are kept", c.Bytes)
		}
	case asks:
		s.say("somebody asks")
		s.asked = true
		b := believer{}
		b.learn(s.room.List(s.all), nil)
		s.twice.List(s.all)
		if !maps.Equal(b, s.here) {
			s.fault("%v are listed, %v are here", b, s.here)
		}
		s.believers = append(s.believers, b)
	case waits:
		s.now += int64(20 * (1 + step.who + 4*step.data))
		s.say("it is %d", s.now)
	case delays:
		s.say("the news are put off")
		s.room.PutOff(s.now)
		s.twice.PutOff(s.now)
	case listens:
		if due, any := s.room.Due(); any {
			s.now = max(s.now, due)
		}
		s.tell()
	case tells:
		s.tell()
	}
	s.check()
}

func (s *story) set(payer int, who protocol.Member, here bool) {
	c := s.room.Set(who, here, payer, s.now)
	s.kept[c.Payer] += c.Bytes
	s.twice.Set(who, here, payer, s.now)
	if c := s.twice.Set(who, here, -1, s.now); c.Bytes != 0 {
		s.fault("%d more bytes are kept the second time", c.Bytes)
	}
}

func (s *story) tell() {
	due, any := s.room.Due()
	joined, left, freed := s.room.News(s.now, s.page)
	s.say("at %d %v have joined, %v have left", s.now, joined, left)
	j, l, f := s.twice.News(s.now, s.page)
	if got, want := fmt.Sprint(j, l, f), fmt.Sprint(joined, left, freed); got != want {
		s.fault("told twice: %s", got)
	}
	if (!any || s.now < due) && len(joined)+len(left)+len(freed) > 0 {
		s.fault("that isn't due")
	}
	for _, c := range freed {
		s.kept[c.Payer] -= c.Bytes
	}
	before := maps.Clone(s.first)
	for _, m := range joined {
		if _, known := before[m.ClientID]; known && !s.changed[m.ClientID] && !s.asked {
			s.fault("%s has come, which all knew", m.ClientID)
		}
	}
	for _, b := range s.believers {
		b.learn(joined, nil)
	}
	for _, m := range left {
		if _, known := s.first[m.ClientID]; !known {
			s.fault("%s has gone, and never came", m.ClientID)
		}
		if _, known := before[m.ClientID]; !known && !s.asked {
			s.fault("%s has come and gone, and nobody had asked", m.ClientID)
		}
	}
	for _, b := range s.believers {
		b.learn(nil, left)
	}
	for _, members := range [][]protocol.Member{joined, left} {
		bytes := 0
		for _, m := range members {
			bytes += s.page.Size(m)
		}
		if len(members) > s.page.Members || len(members) > 1 && bytes > s.page.Bytes {
			s.fault("%d members of %d bytes are told of at once", len(members), bytes)
		}
	}
	if _, any := s.room.Due(); any {
		return
	}
	s.asked = false
	clear(s.changed)
	for i, b := range s.believers {
		if !maps.Equal(b, s.here) {
			s.fault("believer %d: %v, but here are %v", i, b, s.here)
		}
	}
}

// end has all news told.
func (s *story) end() {
	for range s.kept {
		s.play(step{what: listens})
	}
	if _, any := s.room.Due(); any {
		s.fault("there is no end of news")
	}
}

// check looks into the room.
func (s *story) check() {
	r := &s.room
	if r.Len() != len(s.here) || r.Len() != s.twice.Len() {
		s.fault("%d are here, %d when told twice, not %d", r.Len(), s.twice.Len(), len(s.here))
	}
	due, any := r.Due()
	if again, anyAgain := s.twice.Due(); any != anyAgain || any && due != again {
		s.fault("the news are due at %d (%t), when told twice at %d (%t)", due, any, again, anyAgain)
	}
	for i, o := range r.here {
		if int(o.at) != i || !o.here || r.all[o.ClientID] != o {
			s.fault("%s is not where it should be", o.ClientID)
		}
	}
	queued := 0
	for id, o := range r.all {
		if o.queued {
			queued++
		} else if !o.here || !o.told || o.stale {
			s.fault("nobody will be told of %s", id)
		}
	}
	if queued != len(r.news) {
		s.fault("%d may have to be told of, %d are queued", queued, len(r.news))
	}
	var kept [4]int64
	for c := range r.Kept() {
		kept[c.Payer] += c.Bytes
	}
	if kept != s.kept {
		s.fault("%v bytes are kept, %v are counted", kept, s.kept)
	}
	if !any && (len(r.all) != len(s.here) || r.news != nil) {
		s.fault("%d are kept, %d are here, and there is memory for %d news", len(r.all), len(s.here), cap(r.news))
	}
}
