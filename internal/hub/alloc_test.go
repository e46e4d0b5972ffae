package hub

import (
	"runtime/debug"
	"slices"
	"testing"
)

// allocations is how many a step takes, over many of them: of the server, since these clients take none. The collector
// rests meanwhile; testing.AllocsPerRun drops the fraction that a list makes which grows now and then.
func allocations(steps int, step func()) float64 {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for range 10 {
		step()
	}
	return testing.AllocsPerRun(steps, step)
}

func TestTheEchoAllocatesNothing(t *testing.T) {
	e := newEchoClient(t, 60)
	if n := allocations(500, e.ask); n != 0 {
		t.Errorf("%v allocations a message", n)
	}
}

// mostForAMessage is what a client's message to a room may allocate, whoever gets it: the frame and its bytes, the
// delivery to the worker, and the publisher's id as text.
const mostForAMessage = 4

func TestARoomMessageAllocatesNothingForAMember(t *testing.T) {
	for _, members := range []int{100, 1000} {
		most := mostForAMessage
		if raceDetector() {
			most += members / 10 // there a worker's yield, once a millisecond, allocates what it writes to its eventfd
		}
		r := newFullRoom(t, members, 1)
		if n := allocations(50, r.publish); n > float64(most) {
			t.Errorf("%d members: %v allocations a message, want %d at most", members, n, most)
		}
	}
}

// raceDetector says that the test was built with -race.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
