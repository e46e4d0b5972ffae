package presence

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"example.com/hubbub/internal/protocol"
)

// Node is the id of a node.
type Node [4]byte

// Entry is a member as a node has it. Where two nodes have one, since it moves from one to the other, that of the higher
// version is the one that counts; versions are compared as numbers that wrap.
type Entry struct {
	protocol.Member
	Version uint16
}

// claim is what one node says of a client: that it is here.
type claim[P any] struct {
	Entry
	payer P
	from  uint16 // index in far.books
}

func (c *claim[P]) cost() int64 { return MemberCost + int64(len(c.User)+len(c.Data)) }

func (o *occupant[P]) claim() claim[P] {
	return claim[P]{Entry{o.Member, o.version}, o.payer, o.from}
}

// digest is of an entry; zero for none. Of several it is that of each, by exclusive or. All nodes have the same one.
func (e *Entry) digest() uint64 {
	if e.ClientID == "" {
		return 0
	}
	h := sha256.New()
	var b [8]byte
	for _, part := range [][]byte{[]byte(e.ClientID), []byte(e.User), e.Data} {
		binary.LittleEndian.PutUint64(b[:], uint64(len(part)))
		h.Write(b[:])
		h.Write(part)
	}
	binary.LittleEndian.PutUint64(b[:], uint64(e.Version))
	h.Write(b[:])
	return binary.LittleEndian.Uint64(h.Sum(nil))
}

// before says that b counts and not a.
func (f *far[P]) before(a, b *claim[P]) bool {
	if d := int16(b.Version - a.Version); d != 0 {
		return d > 0
	}
	return bytes.Compare(f.books[b.from].node[:], f.books[a.from].node[:]) > 0
}

// setBeside is set where several nodes have the client, or will have.
func (r *Room[P]) setBeside(o *occupant[P], c claim[P], here bool, now int64) (charge Charge[P]) {
	f := r.far
	all := append(f.beside[c.ClientID], o.claim())
	i := slices.IndexFunc(all, func(other claim[P]) bool { return other.from == c.from })
	switch {
	case i < 0 && !here:
		return Charge[P]{}
	case i < 0:
		r.noteClaim(claim[P]{}, c)
		all = append(all, c)
		charge = Charge[P]{c.payer, c.cost()}
	case here:
		r.noteClaim(all[i], c)
		charge = Charge[P]{all[i].payer, c.cost() - all[i].cost()}
		c.payer = all[i].payer
		all[i] = c
	default:
		r.noteClaim(all[i], claim[P]{})
		charge = Charge[P]{all[i].payer, -all[i].cost()}
		all = slices.Delete(all, i, i+1)
	}
	best := 0
	for i := range all {
		if f.before(&all[best], &all[i]) {
			best = i
		}
	}
	o.payer = all[best].payer
	r.show(o, &all[best], now)
	all = slices.Delete(all, best, best+1)
	if len(all) == 0 {
		delete(f.beside, c.ClientID)
		return charge
	}
	if f.beside == nil {
		f.beside = map[string][]claim[P]{}
	}
	f.beside[c.ClientID] = all
	return charge
}

// noteClaim notes that a node has is instead of was; either may be none.
func (r *Room[P]) noteClaim(was, is claim[P]) {
	f := r.far
	if f == nil {
		return
	}
	who := is
	if who.ClientID == "" {
		who = was
	}
	b := f.books[who.from]
	if was.ClientID == "" {
		b.count++
	} else if is.ClientID == "" {
		b.count--
	} else if was.User == is.User && was.Version == is.Version && bytes.Equal(was.Data, is.Data) {
		return
	}
	b.digest ^= was.digest() ^ is.digest()
	if who.from == 0 {
		f.changed(who.ClientID)
	}
}

// of is what a node says of a client.
func (r *Room[P]) of(node uint16, id string) (e Entry, here bool) {
	o := r.all[id]
	switch {
	case o == nil || !o.here:
		return Entry{}, false
	case o.from == node:
		return o.claim().Entry, true
	case r.far != nil:
		for _, c := range r.far.beside[id] {
			if c.from == node {
				return c.Entry, true
			}
		}
	}
	return Entry{}, false
}

// each gives all that a node says.
func (r *Room[P]) each(node uint16, yield func(Entry)) {
	for _, o := range r.here {
		if o.from == node {
			yield(o.claim().Entry)
		}
	}
	for _, all := range r.far.beside {
		for _, c := range all {
			if c.from == node {
				yield(c.Entry)
			}
		}
	}
}
