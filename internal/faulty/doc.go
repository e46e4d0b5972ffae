// Package faulty has both clients, that in Go and that in JavaScript, face the same faults, and judges them alike.
//
// Load reads testdata/protocol/traces, whose README says the format: stories of what a program does, what a server does
// to it, and what must come of that. Play plays one of them over a socket of the loopback, as the server, to a Client. Of those there
// are two drivers, each a page: client/driver_test.go, which calls the Go client, and js/test/driver.js, which a Program
// starts and which does for the JavaScript client what it reads as lines of JSON.
//
// Soak has some clients publish to each other through lines that break, stand still, and lead to servers that are
// restarted: the real ones. What came is held against what was acknowledged by internal/model's checker.
//
// To see why a trace fails, run it alone and read the frames, which the error has:
//
//	go test ./client -run 'TestTraces/resume.json/.*epoch'
package faulty
