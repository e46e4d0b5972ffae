package presence

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"example.com/hubbub/internal/protocol"
)

// Three nodes have members in one room, and tell each other. Whatever was lost, came late or twice meanwhile: when what
// they say at last is heard, and what they ask then is answered, all know the same members, who are those that there are;
// and so does whoever has asked once and heard the news of one of them. What is kept is accounted for.
func TestNodesAgreeInTheEnd(t *testing.T) {
	one := rapid.Custom(func(t *rapid.T) byte { return rapid.Byte().Draw(t, "step") })
	rapid.Check(t, func(t *rapid.T) {
		w := newNodes(t, rapid.IntRange(1, 4).Draw(t, "members of a page"))
		for _, step := range rapid.SliceOfN(one, 40, 150).Draw(t, "steps") {
			w.play(step)
		}
		w.end()
	})
}

func FuzzNodes(f *testing.F) {
	f.Add([]byte("\x01they come and go, on three nodes, and much is lost"))
	f.Add([]byte{2, 0x00, 0x40, 0x80, 0x23, 0x63, 0x05, 0x25, 0x47, 0x09, 0xc1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		w := newNodes(t, 1+int(b[0])%4)
		for _, step := range b[1:min(len(b), 500)] {
			w.play(step)
		}
		w.end()
	})
}

// nodes are the three, what is on its way between them, and what is so.
type nodes struct {
	t     rapid.TB
	said  []string
	now   int64
	page  Limits
	lives uint64
	of    [3]*node
	gen   map[string]uint16
}

// node is one of them. Its members' payer is "own", and that of those elsewhere is "far".
type node struct {
	id    Node
	room  *Room[string]
	here  map[string]Entry
	kept  map[string]int64
	heard [3][]News     // by who told them, on their way
	asked [3][]question // by whom it asks, on their way
	told  believer      // by this node's news
}

// question is one that is on its way, or its answer.
type question struct {
	after    string
	known    uint64
	of       Summary
	answered bool
	page     *Page
}

func newNodes(t rapid.TB, members int) *nodes {
	w := &nodes{t: t, gen: map[string]uint16{}}
	w.page = Limits{members, 1000, func(m protocol.Member) int { return 10 + len(m.User) + len(m.Data) }}
	for i := range w.of {
		w.of[i] = &node{id: Node{byte(i + 1)}}
		w.begin(i)
	}
	return w
}

// begin has a node begin to hear of the room, without members.
func (w *nodes) begin(i int) {
	n := w.of[i]
	w.lives++
	n.room, n.here, n.kept, n.told = &Room[string]{}, map[string]Entry{}, map[string]int64{}, believer{}
	n.room.Together(n.id, w.lives<<32)
	for k := range w.of {
		n.heard[k], n.asked[k] = nil, nil
		w.inquire(i, k)
	}
}

func (w *nodes) say(format string, args ...any) {
	w.said = append(w.said, fmt.Sprintf(format, args...))
}

func (w *nodes) fault(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s: %s", strings.Join(w.said, ", "), fmt.Sprintf(format, args...))
}

func (n *node) pay(charges ...Charge[string]) {
	for _, c := range charges {
		n.kept[c.Payer] += c.Bytes
	}
}

func (w *nodes) play(step byte) {
	i := int(step>>6) % 3
	n, other := w.of[i], (i+1+int(step>>5)%2)%3
	who := string(rune('a' + int(step>>4)%4))
	switch step % 10 {
	case 0, 1: // comes, or comes with other data, or from another node
		w.gen[who]++
		e := Entry{protocol.Member{ClientID: who, User: "u", Data: []byte{'0' + byte(w.gen[who]%3)}}, w.gen[who]}
		w.say("%s comes to %d", who, i)
		n.here[who] = e
		n.pay(n.room.SetVersion(e, true, "own", w.now))
	case 2:
		w.say("%s goes from %d", who, i)
		delete(n.here, who)
		n.pay(n.room.Set(protocol.Member{ClientID: who}, false, "own", w.now))
	case 3:
		w.tell(i)
	case 4:
		w.hear(i, other)
	case 5:
		if len(n.heard[other]) > 0 {
			w.say("%d doesn't hear what %d told", i, other)
			n.heard[other] = n.heard[other][1:]
		}
	case 6:
		w.answer(i, other)
	case 7:
		w.now += int64(50 * (1 + int(step>>4)))
		w.news(i)
	case 8:
		switch {
		case step>>4&1 == 0 && len(n.asked[other]) > 0:
			w.say("%d isn't answered by %d", i, other)
			n.asked[other] = nil
			n.room.NotListed(w.of[other].id, step>>5&1 == 0)
		case step>>4&3 == 1:
			w.say("%d takes %d for dead", i, other)
			n.asked[other] = nil
			n.pay(n.room.Forget(w.of[other].id, w.now)...)
		}
	case 9:
		if step>>4&3 == 0 && len(n.here) == 0 {
			w.say("%d begins anew", i)
			w.begin(i)
		} else if len(n.heard[other]) > 0 {
			w.say("%d hears twice what %d told", i, other)
			n.heard[other] = append(n.heard[other][:1:1], n.heard[other]...)
		}
	}
	w.check()
}

func (w *nodes) tell(i int) {
	n := w.of[i]
	all := n.room.Tell(w.page)
	n.room.Told()
	w.say("%d tells %d times", i, len(all))
	for k, other := range w.of {
		if k != i {
			other.heard[i] = append(other.heard[i], all...)
		}
	}
}

func (w *nodes) hear(i, from int) {
	n := w.of[i]
	if len(n.heard[from]) == 0 {
		return
	}
	news := n.heard[from][0]
	n.heard[from] = n.heard[from][1:]
	ask, charges := n.room.Hears(w.of[from].id, news, "far", w.now)
	w.say("%d hears from %d of %d and %d (%t)", i, from, len(news.Here), len(news.Left), ask)
	n.pay(charges...)
	if ask {
		w.inquire(i, from)
	}
}

func (w *nodes) inquire(i, of int) {
	if i == of || w.of[of] == nil {
		return
	}
	if known, summary, begun := w.of[i].room.Inquire(w.of[of].id); begun {
		w.of[i].asked[of] = []question{{known: known, of: summary}}
	}
}

// answer has a question come to who is asked, or the answer come back.
func (w *nodes) answer(i, from int) {
	n, other := w.of[i], w.of[from]
	if len(n.asked[from]) == 0 {
		return
	}
	q := &n.asked[from][0]
	if !q.answered {
		q.answered = true
		p := other.room.Own(q.after, w.page)
		if q.after != "" || p.Number != q.known || p.Summary != q.of {
			q.page = &p
		}
		w.say("%d is asked by %d", from, i)
		return
	}
	page := q.page
	n.asked[from] = nil
	after, again, charges := n.room.Listed(other.id, page, "far", w.now)
	w.say("%d is answered by %d (%q, %t)", i, from, after, again)
	n.pay(charges...)
	switch {
	case after != "":
		n.asked[from] = []question{{after: after}}
	case again:
		w.inquire(i, from)
	}
}

func (w *nodes) news(i int) {
	n := w.of[i]
	joined, left, freed := n.room.News(w.now, Limits{1000, 1 << 20, w.page.Size})
	for _, c := range freed {
		n.kept[c.Payer] -= c.Bytes
	}
	n.told.learn(joined, left)
}

// check looks into the rooms.
func (w *nodes) check() {
	for i, n := range w.of {
		kept := map[string]int64{}
		for c := range n.room.Kept() {
			kept[c.Payer] += c.Bytes
		}
		for _, payer := range []string{"own", "far"} {
			if kept[payer] != n.kept[payer] {
				w.fault("node %d keeps %d bytes for %q, %d are counted", i, kept[payer], payer, n.kept[payer])
			}
		}
		if n.room.OwnLen() != len(n.here) {
			w.fault("node %d counts %d of its own, and has %d", i, n.room.OwnLen(), len(n.here))
		}
		for at, b := range n.room.far.books {
			if b == nil {
				continue
			}
			count, digest := 0, uint64(0)
			n.room.each(uint16(at), func(e Entry) { count++; digest ^= e.digest() })
			if count != b.count || digest != b.digest {
				w.fault("node %d has %d of node %v, and counts %d", i, count, b.node, b.count)
			}
		}
	}
}

// end has all be told and asked.
func (w *nodes) end() {
	for round := range 8 {
		for i := range w.of {
			if w.of[i].room.Untold() || round == 0 {
				w.tell(i)
			}
			for k := range w.of {
				if round == 0 && i != k && !w.of[i].room.Settled() {
					w.inquire(i, k)
				}
			}
		}
		for i := range w.of {
			for k := range w.of {
				if i == k {
					continue
				}
				for len(w.of[i].heard[k]) > 0 {
					w.hear(i, k)
				}
				for len(w.of[i].asked[k]) > 0 {
					w.answer(i, k)
				}
			}
		}
		w.check()
	}
	is := believer{}
	version := map[string]uint16{}
	for _, n := range w.of {
		for id, e := range n.here {
			if e.Version >= version[id] {
				version[id], is[id] = e.Version, e.User+string(e.Data)
			}
		}
	}
	for i, n := range w.of {
		w.now += 10_000
		w.news(i)
		got := believer{}
		got.learn(n.room.List(Limits{1000, 1 << 20, w.page.Size}), nil)
		if !maps.Equal(got, is) || !maps.Equal(n.told, is) || n.room.Count() != len(is) {
			w.fault("node %d lists %v and has told %v, but there are %v", i, got, n.told, is)
		}
		if !n.room.Settled() {
			w.fault("node %d doesn't know of all", i)
		}
		if slices.ContainsFunc(n.room.far.books, func(b *book) bool { return b != nil && b.listing != nil }) {
			w.fault("node %d still asks", i)
		}
	}
}

// Of a node that is gone nobody is counted any more, also of those whom it has only counted: there was no room for who
// they are, or it wasn't asked yet.
func TestWhoeverANodeThatIsGoneHasCounted(t *testing.T) {
	known := News{To: 2, Here: []Entry{{Member: protocol.Member{ClientID: "a"}, Version: 1}}, Summary: &Summary{Count: 1}}
	for name, hears := range map[string]func(r *Room[string]){
		"skipped": func(r *Room[string]) { r.Skip(Node{2}, News{To: 9, Summary: &Summary{Count: 3}}) },
		"missed":  func(r *Room[string]) { r.Hears(Node{2}, News{From: 8, To: 9, Summary: &Summary{Count: 3}}, "", 0) },
	} {
		t.Run(name, func(t *testing.T) {
			var r Room[string]
			r.Together(Node{1}, 1)
			r.Hears(Node{2}, known, "", 0)
			if hears(&r); r.Count() != 3 {
				t.Fatalf("%d are counted, want 3", r.Count())
			}
			if r.Forget(Node{2}, 0); r.Count() != 0 || !r.Settled() {
				t.Errorf("%d are counted, want none; settled: %t", r.Count(), r.Settled())
			}
		})
	}
}
