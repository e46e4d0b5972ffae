package presence

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"example.com/hubbub/internal/protocol"
)

// limits hold so much that all fit.
var limits = Limits{1000, 1 << 20, func(m protocol.Member) int { return len(m.Data) }}

// hear takes the news when they are due, as "+a=1 -b".
func hear(r *Room[string]) string {
	due, _ := r.Due()
	joined, left, _ := r.News(due, limits)
	var all []string
	for _, m := range joined {
		all = append(all, "+"+m.ClientID+"="+string(m.Data))
	}
	for _, m := range left {
		all = append(all, "-"+m.ClientID)
	}
	return strings.Join(all, " ")
}

// Each story is told in one line: +a=1 comes with the data 1, -a goes, ? asks, ! hears the news.
func TestNews(t *testing.T) {
	for _, c := range []struct{ name, story, want string }{
		{"an empty room", "!", ""},
		{"who comes and who goes", "+a=1 +b=2 ! -a +c=3 !", "+a=1 +b=2, +c=3 -a"},
		{"who comes and goes is in none", "+a=1 -a !", ""},
		{"who goes and comes is in none", "+a=1 ! -a +a=1 !", "+a=1, "},
		{"that is said twice", "+a=1 +a=1 ! +a=1 ! -a -a ! -a !", "+a=1, , -a, "},
		{"who was never here", "-a !", ""},
		{"who comes again with other data", "+a=1 ! -a +a=2 !", "+a=1, +a=2"},
		{"who has other data", "+a=1 ! +a=2 ! +a=2 !", "+a=1, +a=2, "},
		{"who has other data before anybody heard", "+a=1 +a=2 !", "+a=2"},
		{"who has had other data and goes", "+a=1 ! +a=2 -a !", "+a=1, -a"},
		{"who comes and goes while somebody asks", "+a=1 ? -a !", "+a=1 -a"},
		{"who goes and comes while somebody asks", "+a=1 ! -a ? +a=1 !", "+a=1, +a=1"},
		{"who comes and goes, and then somebody asks", "+a=1 -a ? !", ""},
		{"who comes and goes after somebody asked", "? +a=1 -a !", ""},
		{"who goes while somebody asks", "+a=1 ! ? -a ? !", "+a=1, -a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r Room[string]
			var got []string
			for _, s := range strings.Fields(c.story) {
				id, data, _ := strings.Cut(s[1:], "=")
				switch who := (protocol.Member{ClientID: id, Data: []byte(data)}); s[0] {
				case '+':
					r.Set(who, true, "", 1)
				case '-':
					r.Set(who, false, "", 1)
				case '?':
					r.List(limits)
				case '!':
					got = append(got, hear(&r))
				}
			}
			if got := strings.Join(got, ", "); got != c.want {
				t.Errorf("%s: %q, want %q", c.story, got, c.want)
			}
		})
	}
}

func TestPagesById(t *testing.T) {
	for _, limit := range []int{1, 7, 100, 299, 300, 1000} {
		var r Room[int]
		var want, got []string
		for range 300 {
			id := fmt.Sprintf("%016x", rand.Uint64())
			want = append(want, id)
			r.Set(protocol.Member{ClientID: id}, true, 0, 0)
		}
		slices.Sort(want)
		for after, more := "", true; more; {
			var page []protocol.Member
			if page, more = r.After(after, limit); len(page) > limit || more && len(page) < limit {
				t.Fatalf("limit %d: a page of %d, more: %t", limit, len(page), more)
			}
			for _, m := range page {
				after, got = m.ClientID, append(got, m.ClientID)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: got %d members, want %d, each once and in order", limit, len(got), len(want))
		}
	}
}

// The hub's lock is held over a page.
func BenchmarkPage(b *testing.B) {
	for _, limit := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("limit=%d", limit), func(b *testing.B) {
			var r Room[int]
			for range 100_000 {
				r.Set(protocol.Member{ClientID: fmt.Sprintf("%016x", rand.Uint64())}, true, 0, 0)
			}
			for b.Loop() {
				r.After("", limit)
			}
		})
	}
}

// filled is a room of so many members, of whom all have heard.
func filled(members int) (r *Room[int], now int64) {
	r, now = &Room[int]{}, 5000
	for i := range members {
		r.Set(protocol.Member{ClientID: fmt.Sprint(i), User: "user", Data: []byte(`"data"`)}, true, i%10, now)
	}
	now += collectMax
	r.News(now, Limits{members, 1 << 30, limits.Size})
	return r, now
}

// In a large room news are collected for a millisecond for each member, at most for a second, from the first on.
func TestNewsAreCollected(t *testing.T) {
	for members, want := range map[int]int64{1: 100, 100: 100, 101: 101, 300: 300, 1000: 1000, 1500: 1000} {
		r, now := filled(members - 1)
		if _, any := r.Due(); any {
			t.Fatalf("%d members: not all were told of", members)
		}
		r.Set(protocol.Member{ClientID: "a"}, true, 0, now)
		r.Set(protocol.Member{ClientID: "b"}, true, 0, now+want-1) // delays nothing
		if due, any := r.Due(); !any || due != now+want {
			t.Errorf("%d members: due after %d ms (%t), want %d", members, due-now, any, want)
		}
		if joined, _, _ := r.News(now+want-1, limits); len(joined) > 0 {
			t.Errorf("%d members: told too early", members)
		}
		if joined, _, _ := r.News(now+want, limits); len(joined) != 2 {
			t.Errorf("%d members: %d are told of, want both", members, len(joined))
		}
	}
}

// News that can't be told now come later, and so do those that don't fit.
func TestNewsThatArePutOffAreDueAgain(t *testing.T) {
	r, now := filled(200)
	for i := range 5 {
		r.Set(protocol.Member{ClientID: fmt.Sprint(i)}, false, 0, now)
	}
	r.PutOff(now + 50)
	if due, any := r.Due(); !any || due != now+50+195 {
		t.Errorf("put off after 50 ms: due after %d (%t)", due-now, any)
	}
	now += 500
	for _, want := range []int{2, 2, 1} {
		_, left, freed := r.News(now, Limits{2, 1 << 20, limits.Size})
		if len(left) != want || len(freed) != want {
			t.Errorf("%d have left and %d are freed, want %d", len(left), len(freed), want)
		}
		due, any := r.Due()
		if any != (want == 2) || any && due != now+195 {
			t.Errorf("the rest is due after %d ms (%t)", due-now, any)
		}
		now += 500
	}
}

// A page holds so many members and so many bytes; and one member, however large.
func TestAPageIsBounded(t *testing.T) {
	var r Room[int]
	for i, bytes := range []int{10, 10, 10, 500, 10, 90, 10} {
		r.Set(protocol.Member{ClientID: fmt.Sprint(i), Data: []byte(strings.Repeat("1", bytes))}, true, 0, 0)
	}
	small := Limits{2, 100, limits.Size}
	if n := len(r.List(small)); n != 2 {
		t.Errorf("%d members are listed, want 2", n)
	}
	if n := len(r.List(Limits{10, 530, limits.Size})); n != 4 {
		t.Errorf("%d members are listed, want 4", n)
	}
	var got []int
	for now := int64(0); ; now++ {
		if _, any := r.Due(); !any {
			break
		}
		if joined, _, _ := r.News(now, small); len(joined) > 0 {
			got = append(got, len(joined))
		}
	}
	if want := []int{2, 1, 1, 2, 1}; !slices.Equal(got, want) {
		t.Errorf("told of in pages of %v, want %v", got, want)
	}
}

// What is kept is for whom it was kept first, until all have heard that it is there no more.
func TestWhatIsKept(t *testing.T) {
	var r Room[string]
	kept := func() map[string]int64 {
		all := map[string]int64{}
		for c := range r.Kept() {
			all[c.Payer] += c.Bytes
		}
		return all
	}
	who := protocol.Member{ClientID: "a", User: "ann", Data: []byte("1234")}
	if c := r.Set(who, true, "first", 0); c != (Charge[string]{"first", MemberCost + 7}) {
		t.Errorf("comes: %v", c)
	}
	who.Data = []byte("1")
	if c := r.Set(who, true, "other", 0); c != (Charge[string]{"first", -3}) {
		t.Errorf("has less data: %v", c)
	}
	if c := r.Set(protocol.Member{ClientID: "a"}, false, "other", 0); c.Bytes != 0 {
		t.Errorf("goes: %v", c)
	}
	if got, want := kept(), map[string]int64{"first": MemberCost + 4}; !maps.Equal(got, want) {
		t.Errorf("%v is kept, want %v", got, want)
	}
	if _, here := r.Find("a"); here {
		t.Error("who has gone is found")
	}
	if _, _, freed := r.News(100, limits); !slices.Equal(freed, []Charge[string]{{"first", MemberCost + 4}}) {
		t.Errorf("freed: %v", freed)
	}
	if got := kept(); len(got) > 0 {
		t.Errorf("%v is kept still", got)
	}
}

// The data is the room's own: what it came in is used for what comes next.
func TestDataIsCopied(t *testing.T) {
	var r Room[int]
	data := []byte("1")
	r.Set(protocol.Member{ClientID: "a", Data: data}, true, 0, 0)
	data[0] = '2'
	if who, here := r.Find("a"); !here || string(who.Data) != "1" {
		t.Errorf("%s is here: %t", who.Data, here)
	}
}

// Many come, are told of, go, and are told of; for one of them.
func BenchmarkComeAndGo(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			ids := make([]string, n)
			for i := range ids {
				ids[i] = fmt.Sprintf("%08d-0000-4000-8000-000000000000", i)
			}
			page := Limits{1000, 1 << 20, limits.Size}
			var r Room[*int]
			now := int64(0)
			hear := func() {
				for _, any := r.Due(); any; _, any = r.Due() {
					now += collectMax
					r.News(now, page)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				for _, here := range []bool{true, false} {
					for _, id := range ids {
						r.Set(protocol.Member{ClientID: id}, here, nil, now)
					}
					hear()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/member")
		})
	}
}

// A page for the application of a large room, which is read under a lock: it should take about as long as a look at
// each member.
func BenchmarkAfter(b *testing.B) {
	r, _ := filled(100_000)
	for _, limit := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("limit=%d", limit), func(b *testing.B) {
			for b.Loop() {
				r.After("", limit)
			}
		})
	}
}

// What a member that all have heard of takes, its id of 48 bytes included: MemberCost should be about that.
func BenchmarkMember(b *testing.B) {
	const n = 100_000
	live := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for b.Loop() {
		before := live()
		r, now := &Room[*int]{}, int64(0)
		for i := range n {
			r.Set(protocol.Member{ClientID: fmt.Sprintf("%08d-0000-4000-8000-000000000000", i)}, true, nil, now)
		}
		for _, any := r.Due(); any; _, any = r.Due() {
			now += collectMax
			r.News(now, limits)
		}
		b.ReportMetric(float64(live()-before)/n, "B/member")
		runtime.KeepAlive(r)
	}
}
