// Package model is what the server promises of rooms, without the server: a reference model of one room, and a checker
// that holds what clients saw in a run against the promises. Both are pure: time and order are arguments.
//
//	faults := model.Check(model.Run{Logs: logs})  // one Log a connection; nil when every promise was kept
//
// The checker knows nothing of how a run came about. It needs one Log for each connection: what it sent, what was
// acknowledged, what it received, gaps and the end. The order of a room's messages it takes from their offsets, and
// where a room has none from what all its members and publishers saw of it. Each fault names the client, the room and
// the message:
//
//	Lost          accepted, due, and neither delivered nor told by a gap
//	Doubled       delivered to one client twice
//	Disordered    two clients saw two orders, or one saw another than the offsets say
//	Misdelivered  to one who hasn't joined, or from before its join, or never sent, or refused
//	Echoed        delivered to its sender, or to whom it excludes
//	Misplaced     two places for one message, or one place for two
//	Stale         a policy that keeps the newest dropped the newest
//	Revived       delivered to one who was told before that it was taken back
//	Overtold      a gap counts more than what is missing
//	Mistold       of who is in a room, comes or goes, something was told that isn't so
//	Unfounded     a gap for which the room's policy gives no reason
//	Unanswered    a request whose answer never came
//
// Messages are told apart by their content: within a room each must be another.
//
// The map: log.go events and logs; check.go the checks, in order.go what came before what, in span.go a member's view,
// in gap.go what it may miss; presence.go who is in a room; room.go the reference model of a room and its history.
package model
