// Package presence knows who is in a room, and what its members have been told of it.
//
//	var r presence.Room[*account]                 // the zero value is a room that nobody is in
//	r.Set(member, true, account, now)             // it is here; false: it isn't any more
//	due, any := r.Due()                           // whether there are news, and when to call
//	joined, left, freed := r.News(now, limits)    // what to tell all members, in this order
//	members := r.List(limits)                     // what to tell who asks
//
// # What it promises
//
// Whoever asks once, at any time, and applies all news from then on knows who is here, with their data, as soon as
// there are no more news: those who joined first, then those who left; to hear of a member that one knows, or of the
// end of one that one doesn't, is no harm. News are collected for a while. Who comes and goes meanwhile is in none of
// them, unless somebody has asked then and may remember.
//
// Set says what is so and not what has happened: to say it again, at once or later, changes nothing.
//
// The package is pure: no clock (time is an argument: milliseconds of whatever clock, which doesn't go back), no
// goroutine, no lock, no encoding. A Room belongs to one goroutine at a time; the members that it gives are good for
// ever, since their data is never written to. The account is its holder's: something is kept of each member, for
// somebody, and Set and News say by how much that has changed.
//
// # To test
//
// FuzzRoom plays comings, goings and questions against believers, who know what they were told:
//
//	go test ./internal/presence
//	go test -fuzz FuzzRoom -fuzztime 20s ./internal/presence
//	go test -run - -bench . ./internal/presence
package presence
