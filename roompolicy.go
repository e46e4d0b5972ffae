package hubbub

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
)

// RoomPolicy is what the rooms get whose names match. A field that is zero takes its default.
type RoomPolicy struct {
	// Match is a pattern for the whole name, byte for byte: "*" stands for any run of characters, also none, all else
	// for itself; but "${user}" for the client's own name, literally. A rule with "${user}" sets Join, Read and Publish
	// alone, for clients whose name fits; all else of the room is by the first rule without it. Where a "*" follows
	// "${user}", the text between them must not be in the name, or nothing fits. Any other "${...}" is refused. It must be set.
	Match string
	// History is what the room keeps of its messages, for those who come back or look back; &History{} is nothing.
	// Default: 100 messages, 2 min, 64 KiB.
	History *History
	// Presence is what a room tells of its members: "off", "count" (how many they are) or "full" (who they are, and who
	// comes and goes: in a large room that is most of the traffic). Default: "count".
	Presence string
	// Join is who may become a member: "anyone", "users" (who has a name), "granted" (whose token has a pattern for it),
	// or "server": whom the application puts in. Default: "anyone".
	Join string
	// Read is who may read the history, and who is in the room, without being a member; Publish who may publish. Each
	// is one of those of Join, or "members". A member may read, whatever Read says. Default: "anyone", but "members"
	// where Join is another.
	Read, Publish string
	// IncludeSender gives a client its own messages too. Default: no.
	IncludeSender bool
	// SlowConsumer is what happens to a member that can't keep up: it is closed ("disconnect"), its oldest unsent
	// messages go ("drop-oldest"), or only the newest waits, of the room ("latest") or of each key ("latest-by-key"). A
	// client is told of what it lost. Default: Config.SlowConsumer.
	SlowConsumer string
	// IdleTTL is how long a room without members keeps its history and its place in it, from when the last one left or
	// something was published; pointing to 0, not at all. One without history has nothing to keep and goes at once.
	// Whole seconds, rounded up, at most 24 h. Default: as long as History.Age, and without history 0.
	IdleTTL *time.Duration
}

// History bounds what a room keeps, whichever is reached first; the newest message is kept even when it alone has more
// Bytes. A field that is zero takes its default; when all are, nothing is kept.
type History struct {
	Messages int           // at most 100,000. Default: 100
	Age      time.Duration // whole seconds, rounded up, at most 24 h. Default: 2 min
	Bytes    int           // at most 256 MiB. Default: 64 KiB
	// Replicas is how many stores keep it: 1, 3 or 5, as Cluster.Replicas, which is the default. Rooms that say it have
	// logs of their own, so that changing it is as changing a bound: they begin with an empty one.
	Replicas int `json:",omitzero"` // nodes of versions that don't know it see the same policies
}

// historyOf are the bounds, and the replicas, of a policy.
func historyOf(p *hub.Policy) History {
	return History{Messages: p.History.Messages, Age: p.History.Age, Bytes: p.History.Bytes, Replicas: p.Replicas}
}

// Bounds on what a room may be given, so that a slip of the pen doesn't take the machine's memory.
const (
	maxRules           = 1000
	maxHistoryMessages = 100_000
	maxHistoryBytes    = 256 << 20
	maxRoomAge         = 24 * time.Hour
)

// PolicyOf is what a room of that name gets, with every field set but for History.Replicas, and Match that of the rule which gives it. The rule
// is its index in c.Rooms, or -1 when it is built in: that of "lobby", or the default, "*". The error says that no room
// may have the name, or is Validate's.
func (c Config) PolicyOf(room string) (p RoomPolicy, rule int, err error) {
	if err := protocol.CheckRoom([]byte(room)); err != nil {
		return RoomPolicy{}, 0, fmt.Errorf("%q: %s", room, err.Message)
	}
	if err := c.Validate(); err != nil {
		return RoomPolicy{}, 0, err
	}
	c = c.withDefaults()
	policies, _ := c.policies() // Validate has looked
	at, found := policies.Rule(room)
	if i := c.ruleOf(at, false); i >= 0 {
		return c.Rooms[i], i, nil
	}
	h, ttl := historyOf(&found.Policy), found.Policy.IdleTTL
	return RoomPolicy{
		Match: found.Match.String(), History: &h, Presence: found.Policy.Presence.String(),
		Join: found.Policy.Join.String(), Read: found.Policy.Read.String(), Publish: found.Policy.Publish.String(),
		IncludeSender: found.Policy.IncludeSender, SlowConsumer: found.Policy.SlowConsumer.String(), IdleTTL: &ttl,
	}, -1, nil
}

// ruleOf is the index in Rooms of the rule with that number among those that have "${user}", or among the others; -1 for
// one that is built in.
func (c Config) ruleOf(number int, personal bool) int {
	for i := range c.Rooms {
		if c.Rooms[i].personal() != personal {
			continue
		}
		if number == 0 {
			return i
		}
		number--
	}
	return -1
}

// Access is who may do one thing in a room, and which rule says so.
type Access struct {
	Verb  string // "join", "read" or "publish"
	Who   string // as RoomPolicy has it
	Match string // of the rule
	Rule  int    // its index in Config.Rooms, or -1 when it is built in
}

// AccessOf is who may do what in the room of that name, for the user of that name, "" for a client that has none: the
// first rule counts that fits both. The error is as PolicyOf's.
func (c Config) AccessOf(room, user string) ([]Access, error) {
	if _, _, err := c.PolicyOf(room); err != nil {
		return nil, err
	}
	if user != "" {
		if err := protocol.CheckUser(user); err != nil {
			return nil, err
		}
	}
	c = c.withDefaults()
	policies, _ := c.policies() // Validate has looked
	may, personal := policies.AccessFor(room, user)
	plain, found := policies.Rule(room)
	rule, match := c.ruleOf(plain, false), found.Match.String()
	if personal >= 0 {
		rule = c.ruleOf(personal, true)
		match = c.Rooms[rule].Match
	}
	return []Access{
		{"join", may.Join.String(), match, rule}, {"read", may.Read.String(), match, rule}, {"publish", may.Publish.String(), match, rule},
	}, nil
}

// withDefaults fills in what is zero, and rounds. r's pointers are left alone.
func (r RoomPolicy) withDefaults(slowConsumer string) RoomPolicy {
	def := hub.DefaultPolicy()
	if r.Join == "" {
		r.Join = def.Join.String()
	}
	others := hub.Members.String()
	if r.Join == hub.Anyone.String() {
		others = hub.Anyone.String()
	}
	r.Read, r.Publish = cmp.Or(r.Read, others), cmp.Or(r.Publish, others)
	if r.personal() {
		return r
	}
	h := historyOf(&def)
	if r.History != nil {
		h = *r.History
	}
	if h != (History{}) {
		if h.Messages == 0 {
			h.Messages = def.History.Messages
		}
		if h.Age == 0 {
			h.Age = def.History.Age
		}
		if h.Bytes == 0 {
			h.Bytes = def.History.Bytes
		}
	}
	h.Age = wholeSeconds(h.Age)
	ttl := h.Age
	if r.IdleTTL != nil {
		ttl = wholeSeconds(*r.IdleTTL)
	}
	r.History, r.IdleTTL = &h, &ttl
	if r.Presence == "" {
		r.Presence = def.Presence.String()
	}
	if r.SlowConsumer == "" {
		r.SlowConsumer = slowConsumer
	}
	return r
}

// wholeSeconds rounds up. What is less than 0 stays so, to be refused.
func wholeSeconds(d time.Duration) time.Duration {
	whole := d.Truncate(time.Second)
	switch {
	case d < 0:
		return d
	case whole < d:
		return whole + time.Second
	}
	return whole
}

// policies compiles SlowConsumer and Rooms, in which every field is set. The error names all that is wrong.
func (c Config) policies() (*hub.Policies, error) {
	var errs []error
	slow, err := hub.ParseSlowConsumer(c.SlowConsumer)
	if err != nil {
		errs = append(errs, fmt.Errorf("slow-consumer %w", err))
	}
	if len(c.Rooms) > maxRules {
		return nil, errors.Join(append(errs, fmt.Errorf("rooms: %d rules, at most %d are allowed", len(c.Rooms), maxRules))...)
	}
	var rules []hub.Rule
	var personal []hub.Personal
	matches := make([]*glob.Template, 0, len(c.Rooms))
	for i, r := range c.Rooms {
		bad := func(field, format string, args ...any) {
			errs = append(errs, fmt.Errorf("rooms[%d].%s %s (match %q)", i, field, fmt.Sprintf(format, args...), r.Match))
		}
		if r.SlowConsumer == c.SlowConsumer && err != nil {
			r.SlowConsumer = disconnect // said once
		}
		match := glob.NewTemplate(r.Match)
		if match.Plain() != nil {
			rules = append(rules, hub.Rule{Match: match.Plain(), Policy: r.policy(bad)})
		} else {
			personal = append(personal, hub.Personal{Match: match, Access: r.personalAccess(bad), Before: len(rules)})
		}
		if err := checkMatch(match, matches); err != nil {
			errs = append(errs, fmt.Errorf("rooms[%d].match %q: %w", i, r.Match, err))
		}
		matches = append(matches, match)
	}
	return hub.NewPolicies(slow, rules...).WithPersonal(personal...), errors.Join(errs...)
}

// personal says that the rule's match has "${user}" in it.
func (r RoomPolicy) personal() bool { return strings.Contains(r.Match, glob.User) }

// checkMatch refuses a pattern that can match no room, or none that an earlier rule leaves.
func checkMatch(p *glob.Template, earlier []*glob.Template) error {
	if p.String() == "" {
		return errors.New(`empty; "*" is every room`)
	}
	if p.Never() {
		return errors.New(`a * right behind ${user} fits nothing: put a text between them that is in no user's name`)
	}
	if unknown := glob.Unknown(p.String()); unknown != "" {
		return fmt.Errorf("there is no %s; did you mean %s, the client's own name?", unknown, glob.User)
	}
	// What a name may not have, a pattern that is part of one may not have either.
	if err := protocol.CheckRoom([]byte(p.String())); err != nil {
		return fmt.Errorf("no room has such a name: %s", err.Message)
	}
	for i, e := range earlier {
		if e.Covers(p) {
			return fmt.Errorf("never reached: rooms[%d], match %q, comes first", i, e)
		}
	}
	return nil
}

// access is who may do what; every field is set. It calls bad as policy does.
func (r RoomPolicy) access(bad func(field, format string, args ...any)) (a hub.Access) {
	for _, of := range []struct {
		field, name string
		parse       func(string) (hub.Who, error)
		to          *hub.Who
	}{
		{"join", r.Join, hub.ParseOutsider, &a.Join}, {"read", r.Read, hub.ParseWho, &a.Read}, {"publish", r.Publish, hub.ParseWho, &a.Publish},
	} {
		var err error
		if *of.to, err = of.parse(of.name); err != nil {
			bad(of.field, "%v", err)
		}
	}
	return a
}

// personalAccess is access of a rule whose match has "${user}", which may have nothing else.
func (r RoomPolicy) personalAccess(bad func(field, format string, args ...any)) hub.Access {
	for _, of := range []struct {
		field string
		set   bool
	}{
		{"history", r.History != nil}, {"presence", r.Presence != ""}, {"include-sender", r.IncludeSender},
		{"slow-consumer", r.SlowConsumer != ""}, {"idle-ttl", r.IdleTTL != nil},
	} {
		if of.set {
			bad(of.field, "can't be set where the match has ${user}: join, read and publish alone; set it in a rule without")
		}
	}
	return r.access(bad)
}

// policy is r as the hub wants it; every field is set. It calls bad with the name of each field that can't be used.
func (r RoomPolicy) policy(bad func(field, format string, args ...any)) (p hub.Policy) {
	p.History = history.Bounds{Messages: r.History.Messages, Age: r.History.Age, Bytes: r.History.Bytes}
	p.Replicas, p.IncludeSender, p.IdleTTL = r.History.Replicas, r.IncludeSender, *r.IdleTTL
	var err error
	if p.Presence, err = hub.ParsePresence(r.Presence); err != nil {
		bad("presence", "%v", err)
	}
	p.Access = r.access(bad)
	if p.SlowConsumer, err = hub.ParseSlowConsumer(r.SlowConsumer); err != nil {
		bad("slow-consumer", "%v", err)
	}
	if ttl := p.IdleTTL; (ttl < 0 || ttl > maxRoomAge) && ttl != p.History.Age { // by default it is the age, judged below
		bad("idle-ttl", "%s: not between 0s and 24h", ttl)
	}
	if h := p.History; h != (history.Bounds{}) {
		if h.Messages < 1 || h.Messages > maxHistoryMessages {
			bad("history.messages", "%d: not between 1 and %d", h.Messages, maxHistoryMessages)
		}
		if h.Age < time.Second || h.Age > maxRoomAge {
			bad("history.age", "%s: not between 1s and 24h", h.Age)
		}
		if h.Bytes < 1 || h.Bytes > maxHistoryBytes {
			bad("history.bytes", "%d: not between 1 and %d", h.Bytes, maxHistoryBytes)
		}
	}
	return p
}
