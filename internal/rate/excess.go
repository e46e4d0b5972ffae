package rate

// Who goes on at ExcessRate times its limit for ExcessTime is beyond patience; but one that was refused less than
// ExcessLeast times in that time may be a client that tries again now and then, at a limit that is low.
const (
	ExcessRate  = 10
	ExcessTime  = 10_000 // milliseconds
	ExcessLeast = 20
)

// Excess is what one was refused of a Kind since a while. The zero value is ready.
type Excess struct {
	since, times, n int64
}

// Refused notes that n were refused because of l, and says whether that is beyond patience. What it took is the limit
// itself at most, so what was refused must be one time less.
func (e *Excess) Refused(l Limit, now, n int64) bool {
	if e.times == 0 {
		e.since = now
	}
	e.times++
	e.n += n
	passed := now - e.since
	if passed < ExcessTime {
		return false
	}
	beyond := passed <= MaxPer && e.times >= ExcessLeast && e.n*l.Per >= (ExcessRate-1)*l.N*passed
	*e = Excess{}
	return beyond
}
