package hub

import (
	"runtime/debug"
	"testing"
	"unsafe"
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

// mostForAMessage is what a client's message to a room may allocate, whoever gets it: the message and its content, the
// frame and its bytes, what the deliveries share and the delivery to the worker, and the room's name where the
// publisher is no member.
const mostForAMessage = 7

func TestARoomMessageAllocatesNothingForAMember(t *testing.T) {
	for _, members := range []int{100, 1000} {
		r := newFullRoom(t, members, 1)
		// A hub takes two or three a second for its clocks, and on a busy machine a step with many members takes seconds.
		if n, most := allocations(50, r.publish), float64(mostForAMessage+members/200); n > most {
			t.Errorf("%d members: %v allocations a message, want %v at most", members, n, most)
		}
	}
}

func TestASessionIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(session{}); n > 80 { // a size class of the allocator
		t.Errorf("a session takes %d bytes", n)
	}
}
