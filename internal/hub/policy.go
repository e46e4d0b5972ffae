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
	History       history.Bounds
	Presence      Presence
	Publish       Publish
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

// Publish is who may publish to a room; the application always may.
type Publish uint8

// What Publish may be.
const (
	Anyone Publish = iota
	Members
	ServerOnly
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
	publishes     = []string{Anyone: "anyone", Members: "members", ServerOnly: "server"}
	slowConsumers = []string{Disconnect: "disconnect", DropOldest: "drop-oldest", Latest: "latest", LatestByKey: "latest-by-key"}
)

func (p Presence) String() string     { return presences[p] }
func (p Publish) String() string      { return publishes[p] }
func (s SlowConsumer) String() string { return slowConsumers[s] }

// ParsePresence is the Presence of that name. The error names it and those that there are, as those of the next two do.
func ParsePresence(name string) (Presence, error) { return byName[Presence](presences, name) }

// ParsePublish is the Publish of that name.
func ParsePublish(name string) (Publish, error) { return byName[Publish](publishes, name) }

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
	return Policy{History: h, Presence: PresenceCount, Publish: Anyone, SlowConsumer: Disconnect, IdleTTL: h.Age}
}

// Rule gives a policy to the rooms whose names match.
type Rule struct {
	Match  *glob.Pattern
	Policy Policy
}

// Policies are the rules in their order. Immutable, so of use to any goroutine.
type Policies struct {
	rules []Rule
}

// NewPolicies adds to the rules those that are built in: the room lobby, where the page meets, has full presence, and
// every other room the default. slow is the SlowConsumer of these two.
func NewPolicies(slow SlowConsumer, rules ...Rule) *Policies {
	def := DefaultPolicy()
	def.SlowConsumer = slow
	lobby := def
	lobby.Presence = PresenceFull
	return &Policies{append(slices.Clip(rules), Rule{glob.New("lobby"), lobby}, Rule{glob.New("*"), def})}
}

// For is the policy of the room: one pointer for all rooms of a rule. It takes time for each rule before the first that
// matches, and no memory.
func (p *Policies) For(room string) *Policy {
	_, rule := p.Rule(room)
	return &rule.Policy
}

// Rule is the first rule that matches the room, and its index: at the number of NewPolicies' rules the built-in ones
// begin.
func (p *Policies) Rule(room string) (int, *Rule) {
	last := len(p.rules) - 1 // matches everything
	for i := range p.rules[:last] {
		if p.rules[i].Match.Match(room) {
			return i, &p.rules[i]
		}
	}
	return last, &p.rules[last]
}

// Policy is what a room of that name gets. Any goroutine.
func (h *Hub) Policy(room string) *Policy { return h.cfg.Policies.For(room) }
