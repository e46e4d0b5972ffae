// Package bench is the load generator behind `hubbub bench`. It opens connections to a WebSocket server by URL, has
// them send, and says how fast what was sent arrived, what it cost the server, and whether anything was lost, doubled
// or out of order.
//
//	r, err := bench.Run(ctx, bench.Options{Mode: bench.Fanout, Members: 1000})
//	if err != nil {
//		return err // it could not begin
//	}
//	r.Print(os.Stdout)
//	return r.Err() // what went wrong, counted
//
// Run blocks until the run is over or ctx has ended, and leaves no goroutine and no connection behind. docs/bench.md
// says what the figures mean.
//
// A connection has one goroutine that reads; another exists while it has something to write. What they count lies in
// shards, each with a lock that is taken once a read. The state of a connection's checks belongs to its shard's lock as
// well. The order of locks: shard, then room, then connection.
//
// The map:
//
//	options.go    Options, their defaults and what can't be
//	run.go        Run: the phases of a run
//	dial.go       TCP, TLS, source addresses (source_*.go)
//	handshake.go  the upgrade
//	conn.go       one connection: reading, writing, closing
//	fleet.go      all of them: opening, counting those that broke
//	stats.go      the shards
//	marker.go     how a message is known again when it arrives
//	template.go   what is sent
//	check.go      lost, doubled, out of order; one order for all of a room
//	pace.go       when to send: at a rate (sleep_*.go)
//	fanout.go, echo.go, connect.go   the modes
//	server_*.go   the server's CPU and memory, when it runs on this machine
//	heap.go       the Go heap of a Hubbub, by its /metrics
//	generator.go  this process's CPU: was it the limit?
//	self_*.go     what the system says about this process
//	result.go     Result; table.go prints it
package bench
