package front

import "time"

// Lane bounds the requests of one kind that want no WebSocket. They hold no place in the gate (StepAside), so that
// neither holds the other up: probes are answered while upgrades wait, and upgrades pass those who read slowly.
type Lane chan struct{}

const (
	lanes      = 3                // probes, metrics, the page; the API's is wide
	laneWidth  = 32               // places in a lane
	wideLane   = 256              // in that of the API, whose callers have a key
	readWithin = 10 * time.Second // the whole answer; else slow readers might keep the places
)

// NewLane has all its places free.
func NewLane() Lane { return make(Lane, laneWidth) }

// NewWideLane is one for those who are known.
func NewWideLane() Lane { return make(Lane, wideLane) }

// Enter takes a place, unless none is free.
func (l Lane) Enter() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}

// Leave gives it back.
func (l Lane) Leave() { <-l }
