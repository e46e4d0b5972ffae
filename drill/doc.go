// The drills let go wrong what does go wrong around a server (stalled readers, bad lines, storms of clients, a machine
// without descriptors, memory or disk) and look from outside whether Hubbub keeps its word: nothing acknowledged is
// lost in silence, doubled, out of order or misdelivered, and no client is cut that has done nothing.
//
//	go run ./drill                    # all of them in full, 25 to 30 minutes
//	go run ./drill -short             # short forms: counts are judged, times printed
//	go run ./drill -seed 7 storm      # one, with the schedule of an earlier run
//	go run ./drill -short -alarms     # with a real Prometheus beside each, whose alarms are judged
//
// Each ends by itself and prints one line with PASS or FAIL and its figures. A drill that needs root, or what this
// machine has not, says so and fails.
//
// checker.go judges the logs of all clients, one log a session; its tests plant each fault. fleet_linux.go is thousands
// of clients on one epoll and in one goroutine, so that a drill is plain code without locks: it publishes, and steps
// its fleet. session_linux.go is how they resume. server_linux.go runs the server. A drill is a function in
// load_linux.go, storm_linux.go, connects_linux.go, line_linux.go, starve_linux.go or webhooks_linux.go and a row in
// main_linux.go. prometheus_linux.go runs Prometheus beside the servers, and alarms_linux.go has which alarms are to fire
// in which drill. backend_linux.go is what webhooks are told to, and its checker.
package main
