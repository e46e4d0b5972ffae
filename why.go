package hubbub

import (
	"example.com/hubbub/internal/api"
	"example.com/hubbub/internal/hub"
)

// why says by what each field of a room's policy is as it is, for a user's clients, "" for those without a name. c.Rooms
// are as they were written, without defaults, and policies what they come to.
func (c Config) why(policies *hub.Policies, room, user string) (all []api.Reason) {
	at, found := policies.Rule(room)
	plain := c.ruleOf(at, false)
	lobby := plain < 0 && found.Match.String() != "*"
	_, personal := policies.AccessFor(room, user)
	may := plain
	if personal >= 0 {
		may = c.ruleOf(personal, true)
	}
	add := func(field string, rule int, says func(r *RoomPolicy) bool, otherwise string) {
		reason := api.Reason{Field: field, By: otherwise, Match: found.Match.String()}
		if rule >= 0 {
			if reason.Match, reason.Rule = c.Rooms[rule].Match, &rule; says(&c.Rooms[rule]) {
				reason.By = "rule"
			}
		}
		all = append(all, reason)
	}
	presence := "default"
	if lobby {
		presence = "built_in"
	}
	add("history", plain, func(r *RoomPolicy) bool { return r.History != nil }, "default")
	add("presence", plain, func(r *RoomPolicy) bool { return r.Presence != "" }, presence)
	add("join", may, func(r *RoomPolicy) bool { return r.Join != "" }, "default")
	add("read", may, func(r *RoomPolicy) bool { return r.Read != "" }, "default")
	add("publish", may, func(r *RoomPolicy) bool { return r.Publish != "" }, "default")
	add("include_sender", plain, func(r *RoomPolicy) bool { return r.IncludeSender }, "default")
	add("slow_consumer", plain, func(r *RoomPolicy) bool { return r.SlowConsumer != "" }, "setting")
	add("idle_ttl_ms", plain, func(r *RoomPolicy) bool { return r.IdleTTL != nil }, "default")
	return all
}
