// Package hub is what a message means: sessions, rooms, and who gets what. It is the Handler of the loop's connections.
//
// Ownership: a session, the list of its rooms and its place among the members of each belong to the session's worker,
// and are touched by that worker's goroutine only. A room is split: what it is as a whole (its name, order, counts, and
// which workers have members) is guarded by a lock of one of 64 shards; its members lie in one local for each worker
// and dialect. Publishing posts one delivery to each of these under the room's lock, so all members see one order, and
// no lock stands between a message and the members.
//
// Everyone is a room too, without a name: a chat is a message in it.
//
// The map:
//
//	hub.go      Hub; the index of clients
//	session.go  a client: its messages and what each of them does; the echo
//	parked.go   sessions whose connection was lost, and what waits for them
//	resume.go   how they come back: the token, and what the client says of its rooms
//	ledger.go   what is kept, and for whom; audit.go: whether that is so
//	room.go     rooms, joining and leaving
//	delivery.go how what is published reaches the members on a worker
//	publish.go  a message's way into a room; publish_ids
//	dialect.go  what clients speak: frames of messages and answers, made once for each dialect
//	history.go  what a room keeps; pages, and what a member missed
//	epoch.go    what a room's log is called, also while the room isn't there
//	tidy.go     what goes when its time is up, or when memory is short
//	policy.go   what a room keeps, tells and allows, by its name
//	presence.go who is in a room (internal/presence knows), and when its members are told of it
//	permit.go   what a client may do: policies, hooks, limits
//	limits.go   how often a client, its user and its address may do a thing; meters.go: what they have left of it
//	identity.go what is known of a client: rooms that it is put into, data that it shows, a token in place of another
//	expiry.go   whose connections are closed because that has expired
//	backend.go  what the application asks for: to publish, of rooms; clients.go: of clients and users; firsts.go: in pages
//	deletion.go what it takes back
//	tail.go     what passes, for who looks for a fault
//	admit.go    who a new client is, and whether the application lets it in
//	operations.go what a session has under way: commands that wait for hooks, or for logs
//	logs.go     rooms whose logs lie elsewhere; elsewhere.go: what is asked of them
//	topics.go   what nodes tell each other of rooms without history; together.go: of who is in rooms
//	once.go     publish_ids there, on all nodes; homes.go: who keeps them when nodes come and go
//	hooks.go    the application's own code, in order for each session
//	events.go   what happens to clients and in rooms: sinks are told, and hooks called in order for each room
//	runs.go     how it is called: off the workers, so many at once, and what Shutdown waits for
//	id.go       client ids
package hub
