package presence

import (
	"iter"
	"slices"
	"sort"
	"strings"
)

// far is what a room knows of several nodes.
type far[P any] struct {
	books  []*book               // by index; 0 is this node's own, nil is free
	beside map[string][]claim[P] // of clients whom several nodes have: all claims but the one that counts

	// Of this node's own.
	number  uint64 // of the last change; grows over the lives of a room, too
	told    uint64 // up to which the others were told
	pending []string
	waits   map[string]bool // pending, as a set
}

// book is what is known of one node's members.
type book struct {
	node   Node
	count  int // of its claims that are here
	digest uint64

	known   uint64 // up to which change
	says    int    // how many it says that it has
	listed  bool   // it was asked for all of them once
	listing *listing
}

// listing is a list of a node's members that is being asked for.
type listing struct {
	pages []Page
	news  []News // that came meanwhile
	lost  bool   // too many of them came
}

// maxListing is how many news are kept while a list is asked for.
const maxListing = 64

// Summary is how many members a node has, and the digest of all.
type Summary struct {
	Count  int
	Digest uint64
}

// News is what a node tells the others of its members: what is so as of its change To, of those who have changed behind
// its change From. Without a Summary more of the same follow.
type News struct {
	From, To uint64
	Here     []Entry
	Left     []string
	Summary  *Summary
}

// Page is a part of a node's list, by ClientID, as of its change Number. More says that others come behind it.
type Page struct {
	Number uint64
	Summary
	Members []Entry
	More    bool
}

// Together has the room be one of several nodes', of which this is self. start is a number that is higher than any that
// the room of that name has had on this node. It is called before anybody comes.
func (r *Room[P]) Together(self Node, start uint64) {
	r.far = &far[P]{books: []*book{{node: self, listed: true}}, number: start}
}

// changed notes that something is to be told of a client. Where too much is, the others have to ask: they miss a change.
func (f *far[P]) changed(id string) {
	f.number++
	if f.waits[id] {
		return
	}
	if len(f.pending) >= max(1000, 2*f.books[0].count) {
		f.pending, f.waits, f.told = nil, nil, f.number-1
	}
	if f.waits == nil {
		f.waits = map[string]bool{}
	}
	f.waits[id] = true
	f.pending = append(f.pending, id)
}

// Untold says that there is something to tell the other nodes.
func (r *Room[P]) Untold() bool { return r.far != nil && len(r.far.pending) > 0 }

// Tell is what the other nodes are to be told: at least how many are here. Told says that it was.
func (r *Room[P]) Tell(limits Limits) (all []News) {
	f := r.far
	n, page := News{From: f.told, To: f.number}, page{limits: limits}
	for _, id := range f.pending {
		e, here := r.of(0, id)
		e.ClientID = id
		if !page.fits(e.Member) {
			all = append(all, n)
			n.Here, n.Left, page.members, page.bytes = nil, nil, nil, 0
		}
		page.add(e.Member)
		if here {
			n.Here = append(n.Here, e)
		} else {
			n.Left = append(n.Left, id)
		}
	}
	n.Summary = &Summary{f.books[0].count, f.books[0].digest}
	return append(all, n)
}

// Told says that what Tell has given was told, and that nothing has changed since.
func (r *Room[P]) Told() {
	r.far.told, r.far.pending, r.far.waits = r.far.number, nil, nil
}

// Own is a part of this node's own list: of the members behind an id.
func (r *Room[P]) Own(after string, limits Limits) Page {
	f := r.far
	p := Page{Number: f.number, Summary: Summary{f.books[0].count, f.books[0].digest}}
	list := firsts(func(yield func(Entry)) { r.each(0, yield) }, after, limits.Members)
	page := page{limits: limits}
	for _, e := range list {
		if len(p.Members) == limits.Members || !page.fits(e.Member) {
			p.More = true
			break
		}
		page.add(e.Member)
		p.Members = append(p.Members, e)
	}
	return p
}

// firsts are the first so many behind an id, and one more.
func firsts(each func(func(Entry)), after string, limit int) (list []Entry) {
	order := func(a, b Entry) int { return strings.Compare(a.ClientID, b.ClientID) }
	most := ""
	each(func(e Entry) {
		if e.ClientID <= after || most != "" && e.ClientID > most {
			return
		}
		if list = append(list, e); len(list) > 2*limit+1 {
			slices.SortFunc(list, order)
			clear(list[limit+1:])
			list = list[:limit+1]
			most = list[limit].ClientID
		}
	})
	slices.SortFunc(list, order)
	return list[:min(len(list), limit+1)]
}

// find is a node's book, or nil.
func (f *far[P]) find(node Node) (at uint16, b *book) {
	for i, b := range f.books {
		if b != nil && b.node == node {
			return uint16(i), b
		}
	}
	return 0, nil
}

// book is a node's, or a new one.
func (f *far[P]) book(node Node) (at uint16, b *book) {
	if at, b = f.find(node); b != nil {
		return at, b
	}
	b = &book{node: node}
	free := slices.Index(f.books, nil)
	if free < 0 {
		free = len(f.books)
		f.books = append(f.books, nil)
	}
	f.books[free] = b
	return uint16(free), b
}

// settle forgets a book in which nothing stands.
func (f *far[P]) settle(at uint16) {
	if b := f.books[at]; at > 0 && b.listed && b.listing == nil && b.count == 0 && b.says == 0 {
		f.books[at] = nil
	}
}

// Hears takes what another node has told. ask says that this isn't enough to know its members: Inquire then.
func (r *Room[P]) Hears(node Node, n News, payer P, now int64) (ask bool, charges []Charge[P]) {
	f := r.far
	at, b := f.book(node)
	defer f.settle(at)
	switch {
	case b.listing != nil:
		if len(b.listing.news) < maxListing {
			b.listing.news = append(b.listing.news, n)
		} else {
			b.listing.lost = true
		}
		return false, nil
	case n.To < b.known:
		return false, nil // it is older than what is known
	case n.From > b.known:
		if n.Summary != nil {
			b.says = n.Summary.Count
		}
		return true, nil
	}
	charges = r.apply(at, n, payer, now)
	if n.Summary == nil {
		return false, charges
	}
	b.known, b.says, b.listed = n.To, n.Summary.Count, true
	return *n.Summary != Summary{b.count, b.digest}, charges
}

// apply takes what n says of a node's members.
func (r *Room[P]) apply(at uint16, n News, payer P, now int64) (charges []Charge[P]) {
	for _, e := range n.Here {
		if e.ClientID != "" { // which is nobody's, and would be counted as nobody
			charges = append(charges, r.set(claim[P]{e, payer, at}, true, now))
		}
	}
	for _, id := range n.Left {
		c := claim[P]{from: at}
		c.ClientID = id
		charges = append(charges, r.set(c, false, now))
	}
	return charges
}

// Skip is Hears where there is no room for what is told, but for how many there are.
func (r *Room[P]) Skip(node Node, n News) {
	_, b := r.far.book(node)
	if n.Summary != nil {
		b.says, b.listed = n.Summary.Count, true
	}
}

// Inquire begins to ask a node for its members; false says that this is under way already. known and of are what is
// known of it: where that is so still it need not be told.
func (r *Room[P]) Inquire(node Node) (known uint64, of Summary, begun bool) {
	_, b := r.far.book(node)
	if b.listing != nil {
		return 0, Summary{}, false
	}
	b.listing = &listing{}
	return b.known, Summary{b.count, b.digest}, true
}

// Listed takes a page of what Inquire asks for; nil says that what is known is so. Where more has to be asked for, it is
// behind after; again says that it has to be asked anew, from the beginning.
func (r *Room[P]) Listed(node Node, p *Page, payer P, now int64) (after string, again bool, charges []Charge[P]) {
	at, b := r.far.find(node)
	if b == nil || b.listing == nil {
		return "", false, nil
	}
	l := b.listing
	if p != nil {
		l.pages = append(l.pages, *p)
		if p.More && len(p.Members) > 0 {
			return p.Members[len(p.Members)-1].ClientID, false, nil
		}
	}
	b.listing, b.listed = nil, true
	defer r.far.settle(at)
	if len(l.pages) > 0 {
		charges = r.replace(at, l, payer, now)
	}
	for _, n := range l.news {
		ask, more := r.hearsBehind(at, l, n, payer, now)
		again, charges = again || ask, append(charges, more...)
	}
	return "", again || l.lost, charges
}

// replace has a node's members be those of a list.
func (r *Room[P]) replace(at uint16, l *listing, payer P, now int64) (charges []Charge[P]) {
	is := map[string]bool{}
	for _, p := range l.pages {
		for _, e := range p.Members {
			is[e.ClientID] = true
		}
	}
	var left News
	r.each(at, func(e Entry) {
		if !is[e.ClientID] {
			left.Left = append(left.Left, e.ClientID)
		}
	})
	charges = r.apply(at, left, payer, now)
	for _, p := range l.pages {
		charges = append(charges, r.apply(at, News{Here: p.Members}, payer, now)...)
	}
	b := r.far.books[at]
	b.known, b.says = l.pages[0].Number, l.pages[0].Count
	return charges
}

// hearsBehind takes news that came while a list was asked for: they are older than some of its pages, and newer than
// others.
func (r *Room[P]) hearsBehind(at uint16, l *listing, n News, payer P, now int64) (ask bool, charges []Charge[P]) {
	b := r.far.books[at]
	switch {
	case n.From > b.known:
		return true, nil
	case len(l.pages) == 0 && n.To < b.known:
		return false, nil
	}
	newer := News{}
	for _, e := range n.Here {
		if n.To >= l.number(e.ClientID) {
			newer.Here = append(newer.Here, e)
		}
	}
	for _, id := range n.Left {
		if n.To >= l.number(id) {
			newer.Left = append(newer.Left, id)
		}
	}
	charges = r.apply(at, newer, payer, now)
	if n.Summary == nil || n.To < b.known {
		return false, charges
	}
	b.known, b.says = n.To, n.Summary.Count
	last := uint64(0)
	if len(l.pages) > 0 {
		last = l.pages[len(l.pages)-1].Number
	}
	return n.To >= last && *n.Summary != Summary{b.count, b.digest}, charges
}

// number is as of which change the list says what it says of a client.
func (l *listing) number(id string) uint64 {
	if len(l.pages) == 0 {
		return 0
	}
	i := sort.Search(len(l.pages)-1, func(i int) bool {
		m := l.pages[i].Members
		return m[len(m)-1].ClientID >= id
	})
	return l.pages[i].Number
}

// NotListed ends what Inquire began: the node doesn't answer. still says that it is there, and what it has isn't known.
func (r *Room[P]) NotListed(node Node, still bool) {
	at, b := r.far.find(node)
	if b == nil {
		return
	}
	b.listing = nil
	b.listed = b.listed || !still
	r.far.settle(at)
}

// Forget takes all members of a node out.
func (r *Room[P]) Forget(node Node, now int64) (charges []Charge[P]) {
	at, b := r.far.find(node)
	if b == nil {
		return nil
	}
	var left News
	r.each(at, func(e Entry) { left.Left = append(left.Left, e.ClientID) })
	var nobody P
	charges = r.apply(at, left, nobody, now)
	b.says, b.listed, b.listing = 0, true, nil
	r.far.settle(at)
	return charges
}

// Nodes are those others of which something is known, or asked for.
func (r *Room[P]) Nodes() iter.Seq[Node] {
	return func(yield func(Node) bool) {
		if r.far == nil {
			return
		}
		for _, b := range r.far.books[1:] {
			if b != nil && !yield(b.node) {
				return
			}
		}
	}
}

// Count is how many are here, with those whom other nodes only count.
func (r *Room[P]) Count() int {
	n := len(r.here)
	if r.far != nil {
		for _, b := range r.far.books[1:] {
			if b != nil {
				n += max(0, b.says-b.count)
			}
		}
	}
	return n
}

// OwnLen is how many this node has.
func (r *Room[P]) OwnLen() int {
	if r.far == nil {
		return len(r.here)
	}
	return r.far.books[0].count
}

// Doubt says that what is known of other nodes may not be so any more: they are to be asked.
func (r *Room[P]) Doubt() {
	for _, b := range r.far.books[1:] {
		if b != nil {
			b.listed = false
		}
	}
}

// Number is that of the last change here.
func (r *Room[P]) Number() uint64 { return r.far.number }

// Settled says that each node was asked for its members.
func (r *Room[P]) Settled() bool {
	return r.far == nil || !slices.ContainsFunc(r.far.books, func(b *book) bool { return b != nil && !b.listed })
}
