package hub

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// newKnown is a client of whom that is known.
func newKnown(t testing.TB, h *Hub, l *loop.Loop, who auth.Identity) *client {
	return newSession(t, l, h.session(NewID(), who, netip.Addr{}, nil))
}

// backAs connects a client to the session of another one whose connection has ended, with what is known of it now.
func (c *client) backAs(h *Hub, l *loop.Loop, who auth.Identity) *client {
	c.t.Helper()
	of, ok := h.Resume(c.welcome["resume_token"].(string))
	if !ok {
		c.t.Fatal("the token is not good")
	}
	return newSession(c.t, l, h.session(of.ID, who, netip.Addr{}, &of))
}

// ask says something with the id 1, and gives the answer to it; what comes before that is dropped.
func (c *client) ask(format string, args ...any) map[string]any {
	c.t.Helper()
	c.say(format, args...)
	return c.answer(1.0, func(map[string]any) {})
}

// granting makes grants of patterns for all verbs.
func granting(t testing.TB, patterns ...string) *auth.Grants {
	t.Helper()
	g, err := auth.NewGrants(patterns, patterns, patterns, true, true)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// rule gives the rooms of a name what Access says, and history and full presence.
func rule(match string, a Access) Rule {
	p := DefaultPolicy()
	p.Access, p.Presence = a, PresenceFull
	return Rule{Match: glob.New(match), Policy: p}
}

// outcomeOf is "yes", or why not.
func outcomeOf(answer map[string]any) string {
	if answer["msg_type"] == "error" {
		return answer["code"].(string)
	}
	return "yes"
}

// person is a client for the tables below.
type person struct {
	name    string
	who     auth.Identity
	granted bool
}

func persons(t testing.TB) []person {
	return []person{
		{"nobody", auth.Identity{}, false},
		{"ann", auth.Identity{User: "ann"}, false},
		{"ann, who has other grants", auth.Identity{User: "ann", Grants: granting(t, "other.*")}, false},
		{"bob, who is granted", auth.Identity{User: "bob", Grants: granting(t, "r.*")}, true},
		{"who is granted and has no name", auth.Identity{Grants: granting(t, "r.*")}, true},
	}
}

// want is what the contract says to one who isn't a member.
func (p *person) want(who Who) string {
	switch {
	case who == Anyone, who == Users && p.who.User != "", who == Granted && p.granted:
		return "yes"
	case who == Members:
		return "not_member"
	}
	return "forbidden"
}

// everyWho has a room r.VERB.WHO for each verb and each of those who may do it; all else anyone may there.
func everyWho(c *Config) {
	var rules []Rule
	for w := Anyone; w <= ServerOnly; w++ {
		rules = append(rules, rule("r.join."+w.String(), Access{Join: w}), rule("r.read."+w.String(), Access{Read: w}), rule("r.publish."+w.String(), Access{Publish: w}))
	}
	c.Policies = NewPolicies(Disconnect, rules...)
	c.ResumeWindow = time.Minute
}

func TestWhoMayDoWhat(t *testing.T) {
	for _, p := range persons(t) {
		t.Run(p.name, func(t *testing.T) {
			h, l := newHubOf(t, 2, everyWho)
			for w := Anyone; w <= ServerOnly; w++ {
				read, publish := "r.read."+w.String(), "r.publish."+w.String()
				c := newKnown(t, h, l, p.who)
				expect := func(what, want string, answer map[string]any) {
					t.Helper()
					if got := outcomeOf(answer); got != want {
						t.Errorf("%s where %s may: %v, want %s", what, w, answer, want)
					}
				}
				expect("history", p.want(w), c.ask(`{"msg_type":"history","room":%q,"id":1}`, read))
				expect("presence", p.want(w), c.ask(`{"msg_type":"presence","room":%q,"id":1}`, read))
				expect("a message", p.want(w), c.ask(`{"msg_type":"room_message","room":%q,"content":1,"id":1}`, publish))
				c.say(`{"msg_type":"join_room","room":%q}`, read)
				c.say(`{"msg_type":"join_room","room":%q}`, publish)
				expect("a member's history", "yes", c.ask(`{"msg_type":"history","room":%q,"id":1}`, read))
				expect("a member's presence", "yes", c.ask(`{"msg_type":"presence","room":%q,"id":1}`, read))
				member := p.want(w)
				if w == Members {
					member = "yes"
				}
				expect("a member's message", member, c.ask(`{"msg_type":"room_message","room":%q,"content":1,"id":1}`, publish))
				if w == Members {
					continue // nobody may join by being one
				}
				join := "r.join." + w.String()
				expect("a join", p.want(w), c.ask(`{"msg_type":"join_room","room":%q,"id":1}`, join))
				c.say(`{"msg_type":"leave_room","room":%q}`, join)
				expect("a join with since", p.want(w), c.ask(`{"msg_type":"join_room","room":%q,"since":{"epoch":"x","offset":1},"id":1}`, join))
				c.say(`{"msg_type":"leave_room","room":%q}`, join)
				answer := c.ask(`{"msg_type":"resume","rooms":{%q:null,"free":null},"id":1}`, join)
				rooms := answer["rooms"].(map[string]any)
				if reason, free := rooms[join].(map[string]any)["reason"], rooms["free"].(map[string]any)["reason"]; reason == "forbidden" != (p.want(w) == "forbidden") || free != "expired" {
					t.Errorf("a resume where %s may: %v", w, answer)
				}
				c.nc.Close()
			}
		})
	}
}

// What belongs to no room has rules of its own.
func TestWhoMaySayWhatBelongsToNoRoom(t *testing.T) {
	for w := Anyone; w <= ServerOnly; w++ {
		if w == Members {
			continue
		}
		h, l := newHubOf(t, 2, func(c *Config) { c.Chat, c.Direct = w, w })
		other := newClient(t, h, l)
		for _, p := range persons(t) {
			p.granted = p.who.Grants != nil // it says nothing of rooms
			c := newKnown(t, h, l, p.who)
			chat := c.ask(`{"msg_type":"chat","content":1,"id":1}`)
			there := c.ask(`{"msg_type":"direct_message","to":%q,"content":1,"id":1}`, other.id)
			gone := c.ask(`{"msg_type":"direct_message","to":%q,"content":1,"id":1}`, NewID())
			if outcomeOf(chat) != p.want(w) || outcomeOf(there) != p.want(w) {
				t.Errorf("%s where %s may: %v, %v", p.name, w, chat, there)
			}
			if p.want(w) == "forbidden" && fmt.Sprint(gone) != fmt.Sprint(there) {
				t.Errorf("%s hears who is there: %v, %v", p.name, there, gone)
			}
		}
	}
}

// A room that a client may not know of looks the same whether there is one, and isn't made by asking.
func TestWhatIsDeniedTellsNothingAndIsCounted(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) {
		c.Policies = NewPolicies(Disconnect, rule("r.*", Access{Join: Granted, Read: Granted, Publish: Granted}))
		c.Direct = ServerOnly
	})
	in := newKnown(t, h, l, auth.Identity{Grants: granting(t, "r.1")})
	in.ask(`{"msg_type":"join_room","room":"r.1","id":1}`)
	c := newClient(t, h, l)
	for _, what := range []string{
		`{"msg_type":"join_room","room":%q,"id":1}`, `{"msg_type":"history","room":%q,"id":1}`, `{"msg_type":"presence","room":%q,"id":1}`,
		`{"msg_type":"room_message","room":%q,"content":1,"id":1}`, `{"msg_type":"history","room":%q,"since":{"epoch":"x","offset":7},"id":1}`,
	} {
		there, nowhere := c.ask(what, "r.1"), c.ask(what, "r.2")
		if there["code"] != "forbidden" || fmt.Sprint(there) != fmt.Sprint(nowhere) {
			t.Errorf("%s: %v where there is a room, else %v", what, there, nowhere)
		}
	}
	c.ask(`{"msg_type":"direct_message","to":"x","content":1,"id":1}`)
	c.ask(`{"msg_type":"resume","rooms":{"r.1":null,"r.2":null,"r.3":null},"id":1}`)
	if n := h.Rooms(); n != 1 {
		t.Errorf("%d rooms", n)
	}
	got := map[string]int64{}
	l.Inspect(time.Minute, func(w *loop.Worker) {
		denied := h.Denied(w)
		denied.Each(func(verb string, n int64) { got[verb] += n })
	})
	if want := (map[string]int64{"join": 5, "read": 6, "publish": 2, "chat": 0, "direct": 1}); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// Where a Join is asked and no Read, only members may read, whatever the policy says.
func TestPolicyAndHooksMustAllow(t *testing.T) {
	var asked []string // one client, so one hook at a time
	hooks := func(c *Config) {
		everyWho(c)
		c.Hooks.Join = func(_ context.Context, _ Identity, room string) error {
			asked = append(asked, "join "+room)
			if room == "r.join.users" {
				return &protocol.Error{Code: protocol.LimitReached, Message: "no"}
			}
			return nil
		}
	}
	h, l := newHubOf(t, 1, hooks)
	c := newKnown(t, h, l, auth.Identity{User: "ann"})
	for _, want := range []struct{ what, room, outcome string }{
		{"history", "r.read.anyone", "not_member"},
		{"presence", "r.read.users", "not_member"},
		{"history", "r.read.server", "forbidden"}, // the policy first
		{"join_room", "r.read.server", "yes"},
		{"history", "r.read.server", "yes"},
		{"join_room", "r.join.users", "limit_reached"},
		{"join_room", "r.join.granted", "forbidden"},
		{"join_room", "r.join.server", "forbidden"},
	} {
		if got := c.ask(`{"msg_type":%q,"room":%q,"id":1}`, want.what, want.room); outcomeOf(got) != want.outcome {
			t.Errorf("%s of %s: %v, want %s", want.what, want.room, got, want.outcome)
		}
	}
	answer := c.ask(`{"msg_type":"resume","rooms":{"r.join.anyone":null,"r.join.users":null,"r.join.server":null},"id":1}`)
	for room, want := range map[string]string{"r.join.anyone": "expired", "r.join.users": "limit_reached", "r.join.server": "forbidden"} {
		if got := answer["rooms"].(map[string]any)[room].(map[string]any); got["reason"] != want {
			t.Errorf("%s: %v, want %s", room, got, want)
		}
	}
	slices.Sort(asked)
	if want := "join r.join.anyone, join r.join.users, join r.join.users, join r.read.server"; strings.Join(asked, ", ") != want {
		t.Errorf("asked about %v", asked) // and about nothing that the policy forbids
	}
}

// inboxes are everyone's own, and a closed one.
func inboxes(c *Config) {
	c.Policies = NewPolicies(Disconnect, rule("before.*", Access{}), rule("in.*", Access{Join: ServerOnly, Read: ServerOnly, Publish: Users})).
		WithPersonal(
			Personal{glob.NewTemplate("in.${user}"), Access{Read: Users, Publish: ServerOnly}, 1},
			Personal{glob.NewTemplate("in.${user}.*"), Access{}, 1},
			Personal{glob.NewTemplate("late.${user}"), Access{Join: ServerOnly}, 2},
			Personal{glob.NewTemplate("before.${user}"), Access{Join: ServerOnly}, 1}, // never counts
		)
}

func TestARuleForOnesOwnName(t *testing.T) {
	h, l := newHubOf(t, 1, inboxes)
	for _, c := range []struct{ user, what, room, want string }{
		{"ann", "join_room", "in.ann", "yes"},
		{"ann", "join_room", "in.bob", "forbidden"},
		{"ann", "join_room", "in.an", "forbidden"},
		{"ann", "join_room", "in.ann.x", "yes"},
		{"ann", "history", "in.ann.x", "yes"},
		{"ann", "presence", "in.bob", "forbidden"},
		{"", "join_room", "in.", "forbidden"},
		{"", "join_room", "in.${user}", "forbidden"},
		{"*", "join_room", "in.ann", "forbidden"}, // a star in a name is a star
		{"*", "join_room", "in.*", "yes"},
		{"a.b", "join_room", "in.a.b", "yes"},
		{"a.b", "join_room", "in.a.b.c", "forbidden"}, // it has the dot between the name and the star
		{"a", "join_room", "in.a.b.c", "yes"},
		{"${user}", "join_room", "in.${user}", "yes"},
		{"ann", "join_room", "late.ann", "forbidden"},
		{"ann", "join_room", "late.bob", "yes"},
		{"", "join_room", "late.ann", "yes"},
		{"ann", "join_room", "before.ann", "yes"},
	} {
		k := newKnown(t, h, l, auth.Identity{User: c.user})
		if got := k.ask(`{"msg_type":%q,"room":%q,"id":1}`, c.what, c.room); outcomeOf(got) != c.want {
			t.Errorf("%q, %s of %s: %v, want %s", c.user, c.what, c.room, got, c.want)
		}
		k.nc.Close()
	}
	// Of the room itself the name says nothing: who publishes is told by the same rule for members and others.
	ann, bob := newKnown(t, h, l, auth.Identity{User: "ann"}), newKnown(t, h, l, auth.Identity{User: "bob"})
	ann.ask(`{"msg_type":"join_room","room":"in.ann","id":1}`)
	if got := ann.ask(`{"msg_type":"room_message","room":"in.ann","content":1,"id":1}`); outcomeOf(got) != "forbidden" {
		t.Errorf("ann publishes: %v", got)
	}
	if got := bob.ask(`{"msg_type":"room_message","room":"in.ann","content":1,"id":1}`); outcomeOf(got) != "yes" || got["offset"] != 1.0 {
		t.Errorf("bob publishes: %v", got)
	}
	if h.cfg().Policies.For("in.ann") != h.cfg().Policies.For("in.zoe") {
		t.Error("two policies")
	}
}

func TestGrantsMayHaveOnesOwnName(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) {
		c.Policies = NewPolicies(Disconnect, rule("*", Access{Join: Granted, Read: Granted, Publish: Granted}))
	})
	grants, _ := auth.NewGrants([]string{"in.${user}"}, nil, []string{"out.*"}, false, false)
	c := newKnown(t, h, l, auth.Identity{User: "a*", Grants: grants})
	for _, want := range []struct{ what, room, outcome string }{
		{"join_room", "in.a*", "yes"}, {"join_room", "in.ab", "forbidden"}, {"join_room", "out.1", "forbidden"},
		{"history", "in.b", "forbidden"}, {"history", "in.a*", "yes"}, // it is in it
		{"room_message", "out.1", "yes"}, {"room_message", "in.a*", "forbidden"},
	} {
		if got := c.ask(`{"msg_type":%q,"room":%q,"content":1,"id":1}`, want.what, want.room); outcomeOf(got) != want.outcome {
			t.Errorf("%s of %s: %v, want %s", want.what, want.room, got, want.outcome)
		}
	}
}

// The first of all rules that fits counts, held against a model that tries them one by one.
func TestAccessMeansWhatItsModelMeans(t *testing.T) {
	matches := []string{"a", "a*", "*b", "*", "${user}", "a${user}", "${user}b*", "*${user}"}
	names := []string{"a", "b", "ab", "aa", "aab", "ba", "bb"}
	for i := range 1 << 12 {
		var plain []Rule
		var personal []Personal
		var order []string
		for k := range 4 {
			m := matches[i>>(3*k)&7]
			order = append(order, m)
			a := Access{Join: Who(k % 5), Read: Who((k + 1) % 5)}
			if tm := glob.NewTemplate(m); tm.Plain() != nil {
				plain = append(plain, Rule{tm.Plain(), Policy{Access: a, History: history.Bounds{Messages: k + 1}}})
			} else {
				personal = append(personal, Personal{tm, a, len(plain)})
			}
		}
		p := NewPolicies(Disconnect, plain...).WithPersonal(personal...)
		for _, user := range []string{"", "a", "b", "ab"} {
			for _, name := range names {
				want := Access{}
				for k := len(order) - 1; k >= 0; k-- {
					if glob.NewTemplate(order[k]).Match(name, user) {
						want = Access{Join: Who(k % 5), Read: Who((k + 1) % 5)}
					}
				}
				if got, _ := p.AccessFor(name, user); *got != want {
					t.Fatalf("%v: %q for %q: %+v, want %+v", order, name, user, *got, want)
				}
			}
		}
	}
}

// What it costs to ask: nothing where no rule bounds the verb, and a match for each rule before the one that counts.
func BenchmarkPermit(b *testing.B) {
	stories := map[string]struct {
		set  func(*Config)
		user string
	}{
		"no rules":                       {func(*Config) {}, ""},
		"no rules, a name":               {func(*Config) {}, "ann"},
		"rules for names, nobody's name": {inboxes, ""},
		"rules for names, a name":        {inboxes, "ann"},
	}
	for name, story := range stories {
		b.Run(name, func(b *testing.B) {
			h, _ := newHubOf(b, 1, story.set)
			s := h.session(NewID(), auth.Identity{User: story.user}, netip.Addr{}, nil)
			cmd := &protocol.Command{Kind: protocol.RoomMessage, Room: []byte("room")}
			b.ReportAllocs()
			for b.Loop() {
				if _, no := s.permit(mayPublish, cmd.Room, cmd); no != nil {
					b.Fatal(no)
				}
			}
		})
	}
}
