package loop

import "time"

// A connection's share of a turn. A read may hold hundreds of small messages, each of which is dear to obey, or large
// when it is inflated, and the others would wait for all of them. The clock is looked at after so much work, and counts
// from the first look. Whose read came to that look is heavy: those are read when all else of a turn is done, and have
// heavyTime of it together, however many they are (docs/decisions/0009-shares.md).
const (
	shareTime   = 250 * time.Microsecond
	heavyTime   = 500 * time.Microsecond
	lookWork    = 4 << 10
	messageWork = 64 // of a message, beside its bytes
)

type share struct {
	looked time.Duration // by the clock, when it was looked at first; 0 before
	next   int           // the work at which it is looked at next
}

// over says that c, which is fed, has had its share.
func (s *share) over(w *Worker) bool {
	if w.work < s.next {
		return false
	}
	s.next = w.work + lookWork
	now := time.Since(began)
	if s.looked == 0 {
		s.looked = now
	}
	return now-s.looked >= shareTime
}

// readHeavy reads from those whose reads are much work, in the order in which they came, as long as there is time. What
// they publish goes out in the next turn, behind what the others have said until then.
func (w *Worker) readHeavy() {
	n := len(w.heavy) // who is read comes behind them again
	if n == 0 {
		return
	}
	end := time.Since(began) + heavyTime
	heard := 0
	for now := time.Duration(0); heard < n && now < end; heard++ {
		w.hearSafely(w.heavy[heard])
		if w.arena.busy() {
			w.flushAll()
		}
		now = time.Duration(w.breathe())
	}
	left := copy(w.heavy, w.heavy[heard:])
	clear(w.heavy[left:])
	w.heavy = w.heavy[:left]
	w.flushAll()
}

func (w *Worker) hearSafely(c *Conn) {
	defer w.recoverConn(c)
	c.listed = false
	w.hear(c)
}
