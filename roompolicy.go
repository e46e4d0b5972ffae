package hubbub

import (
	"errors"
	"fmt"
	"time"

	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
)

// RoomPolicy is what the rooms get whose names match. A field that is zero takes its default.
type RoomPolicy struct {
	// Match is a pattern for the whole name, byte for byte: "*" stands for any run of characters, also none, all else
	// for itself. It must be set.
	Match string
	// History is what the room keeps of its messages, for those who come back or look back; &History{} is nothing.
	// Default: 100 messages, 2 min, 64 KiB.
	History *History
	// Presence is what a room tells of its members: "off", "count" (how many they are) or "full" (who they are, and who
	// comes and goes: in a large room that is most of the traffic). Default: "count".
	Presence string
	// Publish is who may publish: "anyone", "members", or "server", the application alone. Default: "anyone".
	Publish string
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
}

// Bounds on what a room may be given, so that a slip of the pen doesn't take the machine's memory.
const (
	maxRules           = 1000
	maxHistoryMessages = 100_000
	maxHistoryBytes    = 256 << 20
	maxRoomAge         = 24 * time.Hour
)

// PolicyOf is what a room of that name gets, with every field set, and Match that of the rule which gives it. The rule
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
	rule, found := policies.Rule(room)
	if rule < len(c.Rooms) {
		return c.Rooms[rule], rule, nil
	}
	h, ttl := History(found.Policy.History), found.Policy.IdleTTL
	return RoomPolicy{
		Match: found.Match.String(), History: &h, Presence: found.Policy.Presence.String(), Publish: found.Policy.Publish.String(),
		IncludeSender: found.Policy.IncludeSender, SlowConsumer: found.Policy.SlowConsumer.String(), IdleTTL: &ttl,
	}, -1, nil
}

// withDefaults fills in what is zero, and rounds. r's pointers are left alone.
func (r RoomPolicy) withDefaults(slowConsumer string) RoomPolicy {
	def := hub.DefaultPolicy()
	h := History(def.History)
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
	if r.Publish == "" {
		r.Publish = def.Publish.String()
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
	rules := make([]hub.Rule, 0, len(c.Rooms))
	for i, r := range c.Rooms {
		bad := func(field, format string, args ...any) {
			errs = append(errs, fmt.Errorf("rooms[%d].%s %s (match %q)", i, field, fmt.Sprintf(format, args...), r.Match))
		}
		if r.SlowConsumer == c.SlowConsumer && err != nil {
			r.SlowConsumer = disconnect // said once
		}
		rule := hub.Rule{Match: glob.New(r.Match), Policy: r.policy(bad)}
		if err := checkMatch(rule.Match, rules); err != nil {
			errs = append(errs, fmt.Errorf("rooms[%d].match %q: %w", i, r.Match, err))
		}
		rules = append(rules, rule)
	}
	return hub.NewPolicies(slow, rules...), errors.Join(errs...)
}

// checkMatch refuses a pattern that can match no room, or none that an earlier rule leaves.
func checkMatch(p *glob.Pattern, earlier []hub.Rule) error {
	if p.String() == "" {
		return errors.New(`empty; "*" is every room`)
	}
	// What a name may not have, a pattern that is part of one may not have either.
	if err := protocol.CheckRoom([]byte(p.String())); err != nil {
		return fmt.Errorf("no room has such a name: %s", err.Message)
	}
	for i, e := range earlier {
		if e.Match.Covers(p) {
			return fmt.Errorf("never reached: rooms[%d], match %q, comes first", i, e.Match)
		}
	}
	return nil
}

// policy is r as the hub wants it; every field is set. It calls bad with the name of each field that can't be used.
func (r RoomPolicy) policy(bad func(field, format string, args ...any)) (p hub.Policy) {
	p.History, p.IncludeSender, p.IdleTTL = history.Bounds(*r.History), r.IncludeSender, *r.IdleTTL
	var err error
	if p.Presence, err = hub.ParsePresence(r.Presence); err != nil {
		bad("presence", "%v", err)
	}
	if p.Publish, err = hub.ParsePublish(r.Publish); err != nil {
		bad("publish", "%v", err)
	}
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
