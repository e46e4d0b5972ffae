package presence

import (
	"bytes"
	"iter"
	"slices"
	"strings"

	"example.com/hubbub/internal/protocol"
)

// MemberCost is how many bytes a member counts for, beside its user and its data.
const MemberCost = 256

// News are collected for a millisecond for each member, within these bounds: more of them make more news, and each
// message goes to more.
const (
	collectMin = 100 // milliseconds
	collectMax = 1000
)

// Room is who is in a room. P is for whom something is kept.
type Room[P any] struct {
	all   map[string]*occupant[P] // by ClientID: who is here, and who is gone but not yet told to be
	here  []*occupant[P]          // in no order
	news  []*occupant[P]          // who may have to be told of, oldest first
	due   int64                   // when they are told; while there are any
	far   *far[P]                 // who is here on other nodes; nil where there are none
	asked uint32                  // how often somebody was told who is here
}

// occupant is a client in a room, and what the room's members know of it. Told is what the news so far amount to; when
// it equals here again before the next ones, nobody need hear of what was between, unless somebody asked then.
type occupant[P any] struct {
	protocol.Member
	payer   P
	asked   uint32 // Room.asked when here changed last
	at      int32  // index in Room.here
	from    uint16 // index in far.books of the node that has it; 0 is this one
	version uint16 // that it has there: see Entry
	here    bool
	told    bool
	stale   bool // somebody may know other than told
	queued  bool // it is in Room.news
}

func (o *occupant[P]) cost() int64 { return MemberCost + int64(len(o.User)+len(o.Data)) }

// Charge is how many bytes are kept for somebody.
type Charge[P any] struct {
	Payer P
	Bytes int64
}

// Set has who be here, with that user and that data, of which it takes a copy; or not be here, for which who is its
// ClientID alone. The others hear of it in time: of many that come and go at once together. To set what is so already
// changes nothing. It gives how many more bytes are kept, and for whom: payer, or for whom who was kept before. What is
// kept of one who left is kept until the news of it.
func (r *Room[P]) Set(who protocol.Member, here bool, payer P, now int64) Charge[P] {
	return r.SetVersion(Entry{Member: who}, here, payer, now)
}

// SetVersion is Set where there are several nodes: this one has who, or hasn't.
func (r *Room[P]) SetVersion(who Entry, here bool, payer P, now int64) Charge[P] {
	return r.set(claim[P]{Entry: who, payer: payer}, here, now)
}

func (r *Room[P]) set(c claim[P], here bool, now int64) Charge[P] {
	o := r.all[c.ClientID]
	switch {
	case here && o != nil && bytes.Equal(o.Data, c.Data):
		c.Data = o.Data
	case here:
		c.Data = bytes.Clone(c.Data)
	}
	switch {
	case o == nil && !here:
		return Charge[P]{}
	case o == nil:
		o = &occupant[P]{Member: protocol.Member{ClientID: c.ClientID}, payer: c.payer}
		if r.all == nil {
			r.all = map[string]*occupant[P]{}
		}
		r.all[c.ClientID] = o
		return Charge[P]{o.payer, r.take(o, &c, now)}
	case !o.here && !here:
		return Charge[P]{}
	case !o.here:
		before := o.cost()
		return Charge[P]{o.payer, r.take(o, &c, now) - before}
	case o.from != c.from, r.far != nil && r.far.beside[c.ClientID] != nil:
		return r.setBeside(o, c, here, now)
	case here:
		before := o.cost()
		return Charge[P]{o.payer, r.take(o, &c, now) - before}
	}
	r.noteClaim(o.claim(), claim[P]{})
	r.move(o, false)
	r.queue(o, now)
	return Charge[P]{Payer: o.payer}
}

// take has o be what c says, and gives what it costs then.
func (r *Room[P]) take(o *occupant[P], c *claim[P], now int64) int64 {
	if moved := !o.here; moved {
		r.noteClaim(claim[P]{}, *c)
		r.show(o, c, now)
		r.move(o, true)
		r.queue(o, now)
	} else {
		r.noteClaim(o.claim(), *c)
		r.show(o, c, now)
	}
	return o.cost()
}

// show has o have the user and the data of c; all hear of it in time where they know others.
func (r *Room[P]) show(o *occupant[P], c *claim[P], now int64) {
	o.from, o.version = c.from, c.Version
	if o.User == c.User && bytes.Equal(o.Data, c.Data) {
		return
	}
	o.User, o.Data = c.User, c.Data
	o.stale = o.stale || o.told
	r.queue(o, now)
}

// queue has o be looked at when the news are told.
func (r *Room[P]) queue(o *occupant[P], now int64) {
	if !o.queued {
		o.queued = true
		if r.news = append(r.news, o); len(r.news) == 1 {
			r.PutOff(now)
		}
	}
}

// move takes o in, or out.
func (r *Room[P]) move(o *occupant[P], here bool) {
	if o.here != o.told && o.asked != r.asked {
		o.stale = true // somebody was told what turns out to be not worth telling
	}
	o.asked = r.asked
	if o.here = here; here {
		o.at = int32(len(r.here))
		r.here = append(r.here, o)
		return
	}
	last := len(r.here) - 1
	r.here[o.at] = r.here[last]
	r.here[o.at].at = o.at
	r.here[last] = nil
	r.here = r.here[:last]
}

// Due is when the news may be told; false where there are none.
func (r *Room[P]) Due() (at int64, any bool) { return r.due, len(r.news) > 0 }

// PutOff collects the news for another while.
func (r *Room[P]) PutOff(now int64) {
	r.due = now + min(max(int64(len(r.here)), collectMin), collectMax)
}

// News takes the oldest news, when they are due, as many as two pages hold: first of those who joined, then of those
// who left. Who came and went meanwhile is in both if somebody was told of it, and else in none. What is kept no more
// is freed. If there are more news they are due after another while.
func (r *Room[P]) News(now int64, limits Limits) (joined, left []protocol.Member, freed []Charge[P]) {
	if now < r.due {
		return nil, nil, nil
	}
	in, out := page{limits: limits}, page{limits: limits}
	n := 0
	for _, o := range r.news {
		comes := o.here && (!o.told || o.stale) || !o.here && !o.told && o.stale
		goes := !o.here && (o.told || o.stale)
		if comes && !in.fits(o.Member) || goes && !out.fits(o.Member) {
			break
		}
		if comes {
			in.add(o.Member)
		}
		if goes {
			out.add(o.Member)
		}
		o.told, o.stale, o.queued = o.here, false, false
		if !o.here {
			delete(r.all, o.ClientID)
			freed = append(freed, Charge[P]{o.payer, o.cost()})
		}
		n++
	}
	if r.news = slices.Delete(r.news, 0, n); len(r.news) == 0 {
		r.news = nil
	}
	r.PutOff(now)
	return in.members, out.members, freed
}

// List is who is here, as many as a page holds. Whoever is told may remember it.
func (r *Room[P]) List(limits Limits) []protocol.Member {
	r.asked++
	p := page{limits: limits}
	for _, o := range r.here {
		if !p.fits(o.Member) {
			break
		}
		p.add(o.Member)
	}
	return p.members
}

// After are the first so many who are here, by ClientID, that come after one; more says that there are others behind
// them. Who is told so isn't taken for one who follows the news.
func (r *Room[P]) After(id string, limit int) (list []protocol.Member, more bool) {
	order := func(a, b protocol.Member) int { return strings.Compare(a.ClientID, b.ClientID) }
	most := "" // who comes behind that is too many; "" while nobody is
	for _, o := range r.here {
		if o.ClientID <= id || most != "" && o.ClientID > most {
			continue
		}
		if list = append(list, o.Member); len(list) > 2*limit+1 {
			slices.SortFunc(list, order)
			clear(list[limit+1:])
			list = list[:limit+1]
			most = list[limit].ClientID
		}
	}
	slices.SortFunc(list, order)
	if len(list) > limit {
		return list[:limit], true
	}
	return list, false
}

// Find is the member of that ClientID, if it is here.
func (r *Room[P]) Find(id string) (who protocol.Member, here bool) {
	if o := r.all[id]; o != nil && o.here {
		return o.Member, true
	}
	return protocol.Member{}, false
}

// FindOwn is the member of that ClientID, if this node itself has it.
func (r *Room[P]) FindOwn(id string) (who protocol.Member, here bool) {
	e, here := r.of(0, id)
	return e.Member, here
}

// Len is how many are here.
func (r *Room[P]) Len() int { return len(r.here) }

// Kept is all that is kept, also of those who left and are to be told of.
func (r *Room[P]) Kept() iter.Seq[Charge[P]] {
	return func(yield func(Charge[P]) bool) {
		for _, o := range r.all {
			if !yield(Charge[P]{o.payer, o.cost()}) {
				return
			}
		}
		if r.far == nil {
			return
		}
		for _, all := range r.far.beside {
			for _, c := range all {
				if !yield(Charge[P]{c.payer, c.cost()}) {
					return
				}
			}
		}
	}
}
