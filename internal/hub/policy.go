package hub

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/history"
)

// Policy is what the rooms of one rule get. It is complete: nothing stands for a default. Never changed once compiled.
type Policy struct {
	Access
	History       history.Bounds
	Replicas      int // of its history, for Config.Broker; 0: as many as that has for all that don't say
	Presence      Presence
	IncludeSender bool // who publishes gets its own message too
	SlowConsumer  SlowConsumer
	// IdleTTL is how long a room without members keeps its epoch and its history after the last member left, or after
	// what was published last. 0: not at all.
	IdleTTL time.Duration
}

// Presence is what a room tells of its members.
type Presence uint8

// What Presence may be.
const (
	PresenceOff   Presence = iota
	PresenceCount          // how many they are
	PresenceFull           // who they are, and who comes and goes
)

// Access is who may do what in a room; the application always may. A member may read, whatever Read says.
type Access struct{ Join, Read, Publish Who }

// Who is who may do a thing.
type Who uint8

// What Who may be.
const (
	Anyone     Who = iota
	Members        // not of Join, chats and direct messages
	Users          // who has a name
	Granted        // for whom a pattern of its Grants stands for the room
	ServerOnly     // no client
)

// SlowConsumer is what happens to a member that the room's messages don't fit any more.
type SlowConsumer uint8

// What SlowConsumer may be.
const (
	Disconnect  SlowConsumer = iota // it is closed
	DropOldest                      // its oldest unsent messages go
	Latest                          // only the room's newest message waits
	LatestByKey                     // only the newest message of each key waits
)

// The names of the values, as the config file has them.
var (
	presences     = []string{PresenceOff: "off", PresenceCount: "count", PresenceFull: "full"}
	whos          = []string{Anyone: "anyone", Members: "members", Users: "users", Granted: "granted", ServerOnly: "server"}
	slowConsumers = []string{Disconnect: "disconnect", DropOldest: "drop-oldest", Latest: "latest", LatestByKey: "latest-by-key"}
)

func (p Presence) String() string     { return presences[p] }
func (w Who) String() string          { return whos[w] }
func (s SlowConsumer) String() string { return slowConsumers[s] }

// ParsePresence is the Presence of that name. The error names it and those that there are, as those of the next two do.
func ParsePresence(name string) (Presence, error) { return byName[Presence](presences, name) }

// ParseWho is the Who of that name.
func ParseWho(name string) (Who, error) { return byName[Who](whos, name) }

// ParseOutsider is the Who of that name where there are no members yet: of Join, or of what belongs to no room.
func ParseOutsider(name string) (Who, error) {
	others := slices.Delete(slices.Clone(whos), int(Members), int(Members)+1)
	if _, err := byName[Who](others, name); err != nil {
		return 0, err
	}
	return ParseWho(name)
}

// ParseSlowConsumer is the SlowConsumer of that name.
func ParseSlowConsumer(name string) (SlowConsumer, error) {
	return byName[SlowConsumer](slowConsumers, name)
}

func byName[E ~uint8](names []string, name string) (E, error) {
	i := slices.Index(names, name)
	if i < 0 {
		last := len(names) - 1
		return 0, fmt.Errorf("%q: unknown; use %s or %s", name, strings.Join(names[:last], ", "), names[last])
	}
	return E(i), nil
}

// DefaultPolicy is what a room gets that no rule names, but for SlowConsumer, which a setting of its own decides.
func DefaultPolicy() Policy {
	h := history.Bounds{Messages: 100, Age: 2 * time.Minute, Bytes: 64 << 10}
	return Policy{History: h, Presence: PresenceCount, SlowConsumer: Disconnect, IdleTTL: h.Age}
}

// Rule gives a policy to the rooms whose names match.
type Rule struct {
	Match  *glob.Pattern
	Policy Policy
}

// Personal says who may do what in the rooms whose names match for a client's own name. It says nothing else of them.
type Personal struct {
	Match  *glob.Template
	Access Access
	Before int // the rules from this index on come after it
}

// Policies are the rules in their order. Immutable, so of use to any goroutine.
type Policies struct {
	rules    []Rule
	personal []Personal // in their order
	bounds   [3]bool    // by verb of a room: some rule lets not everyone do it
}

// NewPolicies adds to the rules those that are built in: the room lobby, where the page meets, has full presence, and
// every other room the default. slow is the SlowConsumer of these two.
func NewPolicies(slow SlowConsumer, rules ...Rule) *Policies {
	def := DefaultPolicy()
	def.SlowConsumer = slow
	lobby := def
	lobby.Presence = PresenceFull
	p := &Policies{rules: append(slices.Clip(rules), Rule{glob.New("lobby"), lobby}, Rule{glob.New("*"), def})}
	for i := range rules {
		p.note(rules[i].Policy.Access)
	}
	return p
}

// WithPersonal adds the rules for clients with a name, in their order.
func (p *Policies) WithPersonal(rules ...Personal) *Policies {
	p.personal = rules
	for _, r := range rules {
		p.note(r.Access)
	}
	return p
}

func (p *Policies) note(a Access) {
	for v := range p.bounds {
		p.bounds[v] = p.bounds[v] || a.of(verb(v)) != Anyone
	}
}

// of is who may do it, of the verbs of a room.
func (a *Access) of(v verb) Who {
	switch v {
	case mayJoin:
		return a.Join
	case mayRead:
		return a.Read
	}
	return a.Publish
}

// For is the policy of the room: one pointer for all rooms of a rule. It takes time for each rule before the first that
// matches, and no memory.
func (p *Policies) For(room string) *Policy {
	_, rule := p.Rule(room)
	return &rule.Policy
}

// Rule is the first rule that matches the room, whoever asks, and its index: at the number of NewPolicies' rules the
// built-in ones begin.
func (p *Policies) Rule(room string) (int, *Rule) {
	last := len(p.rules) - 1 // matches everything
	for i := range p.rules[:last] {
		if p.rules[i].Match.Match(room) {
			return i, &p.rules[i]
		}
	}
	return last, &p.rules[last]
}

// AccessFor is who may do what in the room, for a client of that name, "" for none: by the first of all rules that
// fits. personal is the index of a personal one, or -1: then it is that of Rule.
func (p *Policies) AccessFor(room, user string) (a *Access, personal int) {
	i, rule := p.Rule(room)
	if user != "" {
		for k := range p.personal {
			if r := &p.personal[k]; r.Before <= i && r.Match.Match(room, user) {
				return &r.Access, k
			}
		}
	}
	return &rule.Policy.Access, -1
}

// Policy is what a room of that name gets. Any goroutine.
func (h *Hub) Policy(room string) *Policy { return h.cfg().Policies.For(room) }

// Policies are those of all rooms. Any goroutine.
func (h *Hub) Policies() *Policies { return h.cfg().Policies }
