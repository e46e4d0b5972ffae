package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The JavaScript client in real browsers: the stories that both tell. Nothing is lost and nothing doubled, the order is
// kept, and `lost` is said only where it is true.

var browserStories = []struct {
	name string
	tell func(t *testing.T, open opener)
}{
	{"a restart", func(t *testing.T, open opener) { overARestart(t, open, syscall.SIGTERM) }},
	{"a crash", func(t *testing.T, open opener) { overARestart(t, open, syscall.SIGKILL) }},
	{"a cut, and the queue meanwhile", overACut},
	{"two tabs of one user", twoTabsOfOneUser},
	{"a full server", aFullServer},
	{"a token's end", aTokensEnd},
	{"a worker", func(t *testing.T, open opener) { inAWorker(t, open, "dedicated") }},
	{"a shared worker", func(t *testing.T, open opener) { inAWorker(t, open, "shared") }},
	{"a page that closes while it publishes", aPageThatCloses},
	{"back and forward", backAndForward},
}

func TestClientInChromium(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	for _, story := range browserStories {
		t.Run(story.name, func(t *testing.T) { story.tell(t, b.show) })
	}
}

func TestClientInFirefox(t *testing.T) {
	t.Parallel()
	f := startFirefox(t)
	for _, story := range browserStories {
		t.Run(story.name, func(t *testing.T) { story.tell(t, f.open) })
	}
}

// couple is Ann and Bob, each in a page of their own, in the room "r".
func (g *stage) couple(options string) (ann, bob *guest) {
	g.t.Helper()
	ann, bob = g.guest(g.page(), "ann", options), g.guest(g.page(), "bob", options)
	ann.join("r")
	bob.join("r")
	for _, v := range []*guest{ann, bob} {
		v.until("two members", func(r record) bool { return r.Members.Count == 2 && len(r.Members.List) == 2 })
	}
	return ann, bob
}

func overARestart(t *testing.T, open opener, sig syscall.Signal) {
	g := setStage(t, open)
	ann, bob := g.couple("{}")
	g.publish("r", 1, 10)
	ann.hears(10)
	bob.hears(10)

	g.line.away.Store(true)
	g.s.stop(t, sig)
	for _, v := range []*guest{ann, bob} {
		r := v.until("away", func(r record) bool { return r.State != "online" })
		if sig == syscall.SIGTERM && !r.ended(1001) {
			t.Errorf("%s: %+v, want the code 1001", v.name, r.States)
		}
	}
	ann.publish("r", 11, 15) // typed while away
	g.restart()
	g.line.away.Store(false)
	ann.until("all acknowledged, none pending", func(r record) bool { return len(r.Acked) == 5 && r.Pending == 0 })
	for _, v := range []*guest{ann, bob} {
		v.until("two members again", func(r record) bool { return r.State == "online" && r.Members.Count == 2 })
	}
	g.publish("r", 16, 16)
	for _, v := range []*guest{ann, bob} {
		r := v.until("the last message", func(r record) bool { return len(r.Got) > 0 && r.Got[len(r.Got)-1] == 16 })
		// Whether Bob hears what Ann says while he is on his way back is open: that is what he is told of.
		if !slices.Equal(r.Told, [][2]string{{"lost", "epoch"}}) {
			t.Errorf("%s was told %v, want that it can't be proved, once", v.name, r.Told)
		}
		if !slices.IsSorted(r.Got) || len(slices.Compact(slices.Clone(r.Got))) != len(r.Got) {
			t.Errorf("%s has %v", v.name, r.Got)
		}
	}
	kept := ask[[]int](t, bob.tab, `guests.bob.hub.room("r").history({}).then((h) => h.messages.map((m) => m.content))`)
	if r := ann.record(); !slices.Equal(kept, []int{11, 12, 13, 14, 15, 16}) || !slices.Equal(r.Acked, kept[:5]) || len(r.Failed) != 0 {
		t.Errorf("the room has %v; acknowledged %v, failed %s", kept, r.Acked, r.Failed)
	}
}

func overACut(t *testing.T, open opener) {
	g := setStage(t, open)
	ann, bob := g.couple("{queue: 5}")
	g.publish("r", 1, 10)
	ann.hears(10)
	bob.hears(10)
	before := [2]record{ann.record(), bob.record()}

	g.line.away.Store(true)
	g.line.drop()
	for _, v := range []*guest{ann, bob} {
		v.until("away", func(r record) bool { return r.State != "online" })
	}
	g.publish("r", 11, 30)
	ann.publish("r", 31, 36)
	r := ann.until("the one that is too many fails", func(r record) bool { return len(r.Failed) == 1 })
	if got := string(r.Failed[0]); got != `[36,"queue_full",null]` {
		t.Errorf("it fails with %s", got)
	}
	g.line.away.Store(false)
	ann.until("all acknowledged, none pending", func(r record) bool { return len(r.Acked) == 5 && r.Pending == 0 })
	ann.hears(30)
	bob.hears(35)
	bob.until("none pending", func(r record) bool { return r.Pending == 0 })
	for i, v := range []*guest{ann, bob} {
		if r := v.online(); r.ID != before[i].ID || r.Pending != 0 {
			t.Errorf("%s is %s with %d pending, was %s", v.name, r.ID, r.Pending, before[i].ID)
		}
	}
	if r := ann.record(); !slices.Equal(r.Acked, []int{31, 32, 33, 34, 35}) || len(r.Failed) != 1 {
		t.Errorf("acknowledged %v, failed %s", r.Acked, r.Failed)
	}
}

func twoTabsOfOneUser(t *testing.T, open opener) {
	g := setStage(t, open)
	g.site.gives(func() string { return token(time.Hour) })
	ann, other := g.couple(`{token: "fetch"}`)
	for _, v := range []*guest{ann, other} {
		if r := v.record(); r.User != "ann" {
			t.Errorf("%s is the user %q", v.name, r.User)
		}
	}
	g.publish("r", 1, 5)
	ann.hears(5)
	other.hears(5)
	g.call("POST", "/publish", `{"user":"ann","content":7}`)
	for _, v := range []*guest{ann, other} {
		v.until("a message to the user", func(r record) bool { return slices.Equal(r.Direct, []int{7}) })
	}
	g.line.drop() // both come back, each to its own session
	ann.publish("r", 6, 8)
	other.hears(8)
	ann.hears(5)
	if a, o := ann.online(), other.online(); a.ID == o.ID {
		t.Errorf("both are %s", a.ID)
	}
	ann.tab.leave()
	other.until("alone", func(r record) bool { return r.Members.Count == 1 && len(r.Members.List) == 1 })
	g.publish("r", 9, 9)
	other.hears(9)
}

// A page can't see the answer to a refused handshake; what the server wants it learns from /readyz.
func aFullServer(t *testing.T, open opener) {
	g := setStage(t, open, "--max-connections", "1", "--ping-interval", "10m") // so that the first one may be silent
	first := dialRaw(t, g.s, "/echo", "")
	v := g.guest(g.page(), "ann", "{}")
	r := v.until("it waits as long as the server says", func(r record) bool {
		return slices.ContainsFunc(r.States, func(s stateOf) bool { return s.State == "waiting" && s.Delay >= 900 })
	})
	if slices.ContainsFunc(r.States, func(s stateOf) bool { return s.Refused }) {
		t.Errorf("it says that this page alone is refused: %+v", r.States)
	}
	v.publish("r", 1, 1)
	first.Close()
	v.until("its turn", func(r record) bool { return slices.Equal(r.Acked, []int{1}) })
}

func aTokensEnd(t *testing.T, open opener) {
	t.Run("it is renewed before", func(t *testing.T) {
		g := setStage(t, open) // which waits for 10 s more, so that a busy machine is in time
		var asked atomic.Int32
		g.site.gives(func() string { asked.Add(1); return token(3 * time.Second) })
		v := g.guest(g.page(), "ann", `{token: "fetch"}`)
		v.join("r")
		v.until("two renewals", func(record) bool { return asked.Load() >= 3 })
		g.publish("r", 1, 3)
		v.hears(3)
		if r := v.record(); r.path() != "connecting online" || r.User != "ann" {
			t.Errorf("%s was %s", r.User, r.path())
		}
	})
	t.Run("it has come", func(t *testing.T) {
		g := setStage(t, open, "--jwt-leeway", "0s")
		stale := token(-time.Minute)
		var asked atomic.Int32
		g.site.gives(func() string {
			if asked.Add(1) == 1 {
				return stale
			}
			return token(time.Hour)
		})
		p := g.page()
		v := g.guest(p, "ann", `{token: "fetch"}`)
		if r := v.online(); !r.ended(4401) {
			t.Errorf("%+v", r.States)
		}
		// Who can't get another one, or has one that is none, stays away.
		for name, c := range map[string]struct {
			token string
			code  int
		}{"stale": {stale, 4401}, "bad": {"x.y.z", 4503}} {
			v := g.guest(p, name, fmt.Sprintf("{token: %q}", c.token))
			r := v.until("closed", func(r record) bool { return r.State == "closed" })
			if !r.ended(c.code) || strings.Contains(r.path(), "online") || r.Socket || r.Timers != 0 {
				t.Errorf("%s: %+v", name, r)
			}
		}
	})
}

// Whether a page with a WebSocket is kept for the way back is the browser's affair. One that is kept goes on where it
// was; of one that isn't nothing is left.
func backAndForward(t *testing.T, open opener) {
	for name, connected := range map[string]bool{"connected": true, "away": false} {
		t.Run(name, func(t *testing.T) {
			g := setStage(t, open, "--resume-window", "2s")
			v := g.guest(g.page(), "ann", "{}")
			v.join("r")
			g.publish("r", 1, 3)
			v.hears(3)
			if !connected {
				g.line.away.Store(true)
				g.line.drop()
				v.until("away", func(r record) bool { return r.State == "waiting" })
			}
			if err := v.tab.visit(g.site.url + "/page.html?elsewhere"); err != nil {
				t.Fatal(err)
			}
			// Kept or not, after a while it is no member any more.
			becomes(t, g.s, "hubbub_connections", 0)
			becomes(t, g.s, "hubbub_parked_sessions", 0)
			g.publish("r", 4, 6)
			g.line.away.Store(false)
			if err := v.tab.back(); err != nil {
				t.Fatal(err)
			}
			wait(t, v.tab, `globalThis.ready && location.search === ""`)
			kept := ask[bool](t, v.tab, `life.includes("pageshow persisted")`)
			t.Logf("the page was kept: %v", kept)
			if !kept {
				v = g.guest(v.tab, "ann", "{}")
				v.join("r")
				g.publish("r", 1, 6)
			}
			v.hears(6)
		})
	}
}

func inAWorker(t *testing.T, open opener, kind string) {
	g := setStage(t, open)
	p := g.page()
	employ := fmt.Sprintf("void employ(%q)", kind)
	if _, err := p.evaluate(employ); err != nil {
		t.Fatal(err)
	}
	v := &guest{t: t, tab: p, name: "ann", worker: true}
	v.do("visit", fmt.Sprintf("%q, {}", g.line.front.ws("/ws")))
	v.join("r")
	g.publish("r", 1, 10)
	v.hears(10)
	before := v.record()
	g.line.drop()
	g.publish("r", 11, 20)
	v.publish("r", 21, 25)
	v.hears(20)
	if r := v.until("all acknowledged", func(r record) bool { return len(r.Acked) == 5 }); r.ID != before.ID {
		t.Errorf("it is %s, and was %s", r.ID, before.ID)
	}
	if kind == "shared" { // another page goes on with it as the first one goes
		q := g.page()
		if _, err := q.evaluate(employ); err != nil {
			t.Fatal(err)
		}
		v.tab = q
		v.hears(20)
		p.leave()
		g.publish("r", 26, 26)
		v.until("one more", func(r record) bool { return len(r.Got) == 21 })
	}
	v.do("close", "")
	if r := v.record(); r.State != "closed" || r.Timers != 0 || r.Socket {
		t.Errorf("after close(): %+v", r)
	}
	becomes(t, g.s, "hubbub_connections", 0)
}

func aPageThatCloses(t *testing.T, open opener) {
	g := setStage(t, open, "--resume-window", "5s") // for who goes without a Close
	ann, bob := g.couple("{queue: 5000}")
	ann.publish("r", 1, 3000)
	ann.tab.leave()
	bob.until("alone", func(r record) bool { return r.Members.Count == 1 && len(r.Members.List) == 1 })
	becomes(t, g.s, "hubbub_connections", 1)
	g.publish("r", 0, 0)
	r := bob.until("the last message", func(r record) bool { return len(r.Got) > 0 && r.Got[len(r.Got)-1] == 0 })
	closed := scrape(t, g.s)
	t.Logf("%d of 3000 came; closed with 1001: %v, with 1006: %v", len(r.Got)-1, closed[`hubbub_closed_total{code="1001"}`], closed[`hubbub_closed_total{code="1006"}`])
	for i, got := range r.Got[:len(r.Got)-1] {
		if got != i+1 {
			t.Fatalf("message %d is %d", i+1, got)
		}
	}
	if len(r.Told) != 0 {
		t.Errorf("Bob was told %v", r.Told)
	}
}
