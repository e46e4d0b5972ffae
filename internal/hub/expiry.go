package hub

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// A worker's sessions whose identities expire lie in a heap, with one alarm for the first of them: an alarm for each
// would keep sessions from being collected that ended long before. Times are the wall's, as those of tokens.

// expiry is when a session's connection is closed. In the heap from the welcome to Closed.
type expiry struct {
	s  *session
	at int64 // Unix milliseconds
	i  int   // in the heap
}

// expiries is the heap, for container/heap.
type expiries []*expiry

func (e expiries) Len() int           { return len(e) }
func (e expiries) Less(i, j int) bool { return e[i].at < e[j].at }
func (e expiries) Swap(i, j int)      { e[i], e[j] = e[j], e[i]; e[i].i, e[j].i = i, j }
func (e *expiries) Push(x any)        { *e = append(*e, x.(*expiry)) }
func (e *expiries) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = nil
	*e = (*e)[:last]
	return x
}

const (
	// spread is the time over which those whose identities expire together are closed, each at its own random moment:
	// they come back at once.
	spread = 5 * time.Second
	// lookAgain is how often the wall's clock is looked at while some identity is to expire: it may be set, or the
	// machine may have slept, which the worker's clock doesn't show.
	lookAgain = 5 * time.Second
	// expireAtOnce is how many are closed before others have their turn.
	expireAtOnce = 100
)

// expire notes when the session's identity expires, in place of what was noted before.
func (s *session) expire() {
	s.forgetExpiry()
	who := s.known()
	if who == nil || who.Expires.IsZero() {
		return
	}
	end := who.Expires.Add(s.hub.cfg().Leeway + rand.N(spread))
	st := s.state()
	x := &expiry{s, end.UnixMilli() + 1, len(st.expiring)} // its part of a millisecond counts too: never early
	s.self.expiry = x
	heap.Push(&st.expiring, x)
	st.watch(s.conn.Worker())
}

// forgetExpiry is called when the session ends, too.
func (s *session) forgetExpiry() {
	if s.self != nil && s.self.expiry != nil {
		heap.Remove(&s.state().expiring, s.self.expiry.i)
		s.self.expiry = nil
	}
}

// watch sets the alarm for the first that expires.
func (st *workerState) watch(w *loop.Worker) {
	if len(st.expiring) == 0 {
		return
	}
	left := min(max(0, st.expiring[0].at-time.Now().UnixMilli()), lookAgain.Milliseconds())
	if due := w.Now() + left; st.alarm == 0 || due < st.alarm {
		st.alarm = due
		w.At(due, &expired{st, due})
	}
}

// expired closes whose time has come.
type expired struct {
	st  *workerState
	due int64
}

// Run implements loop.Task.
func (e *expired) Run(w *loop.Worker) {
	st := e.st
	if st.alarm != e.due {
		return // another one was set for earlier
	}
	st.alarm = 0
	now := time.Now().UnixMilli()
	for n := 0; len(st.expiring) > 0 && st.expiring[0].at <= now; n++ {
		if n == expireAtOnce {
			st.alarm = e.due
			w.Post(e, 0)
			return
		}
		s := st.expiring[0].s
		s.forgetExpiry() // whatever becomes of the Close
		s.conn.Close(protocol.CloseTokenExpired, "the token has expired")
	}
	st.watch(w)
}
