// Package loop is a set of single-threaded workers that own WebSocket connections: they read, write, time and close
// them, and hand whole messages to a Handler. It knows bytes, frames and timers, and nothing of rooms.
//
//	l, err := loop.New(cfg)             // starts cfg.Workers goroutines
//	if l.Reserve(limit) {
//		err = l.Adopt(conn, handler, deflate, answer, first) // from now on a worker's
//	}
//	l.Stop(0)                           // asks every Handler to say good-bye
//	l.Wait()
//
// Goroutines: everything about a connection happens on its worker's goroutine, Handler's methods included; so a Conn
// needs no lock, and its methods may be called there only. What comes from elsewhere is a Task: Worker.Post leaves it
// in the worker's mailbox, never blocks and never fails. That is the one way between threads. A Ref names a connection
// from anywhere and finds it, if it still is, inside a Task.
//
// A turn: what is readable is read (once, at most 64 KiB a connection), the mailbox is run, timers fire, and each
// connection that got something is written once; then some of those are read whose reads are much work. Nothing waits
// for a peer: what a socket doesn't take is queued within bounds, and past them the client is closed.
//
// The map:
//
//	loop.go          Loop, Config, Handler: the front
//	worker.go        the turn: reading, handing over, writing
//	conn.go          a connection: sending, pausing, the ways to close
//	share.go         what one connection has of a turn, and those who take much
//	frame.go         Frame, and the queue of unsent ones
//	deflate.go       compression: frames in the form that a connection gets
//	arena.go         the memory of a turn's answers
//	flush.go         one write for all that a connection got in a turn
//	sender.go        the writes of many connections by one call; sender_linux.go: io_uring
//	mailbox.go       Post, and what slows publishers
//	stop.go          good-byes, at a pace
//	timer.go         the wheel; pings, silence, patience, deadlines
//	poller.go        what tells a worker where to look; poller_linux.go: epoll in the runtime's poller
//	pump.go          any net.Conn as a non-blocking socket; conn_linux.go: descriptors
//	tls.go           crypto/tls on a worker's descriptor
//
// To debug, log at level debug: each failed connection and each slow client is a line. The tests run on every way of
// reading and writing; main_test.go has what they share.
package loop
