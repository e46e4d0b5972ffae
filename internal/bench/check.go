package bench

import (
	"sync"
	"sync/atomic"
)

// seen is what one connection has had of each publisher: from it follows what was lost, doubled or out of order. It
// belongs to the lock of the connection's shard.
type seen struct {
	next    []uint32            // by publisher: the number that is expected
	missing map[uint64]struct{} // publisher and number of what was jumped over
	beyond  int64               // jumped over and not kept in missing
	doubled int64
	late    int64
}

// maxMissing bounds what one connection remembers of what it lacks.
const maxMissing = 1 << 16

// arrive takes the next message of a publisher. It is fresh when it came for the first time.
func (s *seen) arrive(publisher int, seq uint32) (fresh bool) {
	next := s.next[publisher]
	key := uint64(publisher)<<32 | uint64(seq)
	if seq < next {
		if _, ok := s.missing[key]; ok {
			delete(s.missing, key)
			s.late++
			return true
		}
		if s.beyond > 0 { // it may be one of them
			s.beyond--
			s.late++
			return true
		}
		s.doubled++
		return false
	}
	s.next[publisher] = seq + 1
	for n := next; n < seq; n++ {
		if len(s.missing) == maxMissing {
			s.beyond += int64(seq - n)
			break
		}
		if s.missing == nil {
			s.missing = map[uint64]struct{}{}
		}
		s.missing[uint64(publisher)<<32|uint64(n)] = struct{}{}
	}
	return true
}

// judge adds what is wrong with what came.
func (s *seen) judge(f *Faults) {
	f.Lost += int64(len(s.missing)) + s.beyond
	f.Doubled += s.doubled
	f.OutOfOrder += s.late
}

// A room's messages are numbered, ranked, in the order in which its members get them, and every member's ranks have to
// rise: then all have one order. A member doesn't get its own messages, so it may rank a message only when all that it
// has published are ranked; and when all that came to it before are. What was ranked is then always a beginning of the
// room's order, if there is one, and a rank that falls proves that there is none. It costs two loads a delivery, and
// the room's lock once a message.

// room is what is known of one room.
type room struct {
	pubs []*publisher
	live atomic.Int64 // members that are connected

	mu     sync.Mutex
	head   uint32   // the last rank
	ranked []uint32 // by publisher: how many of its messages have a rank
}

// publisher is a connection that publishes to its room.
type publisher struct {
	c     *conn
	room  *room
	local int // its place in room.pubs
	// sent counts up before the message is given to the connection.
	sent atomic.Uint32
}

// placed is a member's place in its room's order; its shard's lock guards it.
type placed struct {
	rank    uint32 // of the latest message that had one
	ahead   bool   // the latest had none yet
	crossed int64  // messages that others had in another order
}

// slot is what is known of one message that is under way.
type slot struct {
	order atomic.Uint64 // id and rank; the rank is 0 while there is none
	left  atomic.Int64  // receivers that it has not reached
	sent  int64         // when; the publishing goroutine's
	_     [40]byte      // a cache line of its own
}

// begin takes the slot for a message. left is what the one before it lacked.
func (s *slot) begin(id uint32, receivers, now int64) (left int64) {
	s.order.Store(uint64(id) << 32)
	s.sent = now
	return s.left.Swap(receivers)
}

// is says whether the slot is still that message's.
func (s *slot) is(id uint32) bool { return uint32(s.order.Load()>>32) == id }

// follow moves a member on by a message. own is the member as a publisher that is not sent its own messages, or nil.
func (p *placed) follow(r *room, from *publisher, own *publisher, s *slot, id uint32) {
	order := s.order.Load()
	if uint32(order>>32) != id {
		return
	}
	if uint32(order) == 0 {
		order = r.rank(from, own, s, id, p.ahead)
	}
	rank := uint32(order)
	switch {
	case rank == 0:
		p.ahead = true
	case rank < p.rank:
		p.ahead = false
		p.crossed++
	default:
		p.ahead = false
		p.rank = rank
	}
}

// rank gives a message the next rank, if this member may do that.
func (r *room) rank(from, own *publisher, s *slot, id uint32, ahead bool) (order uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	order = s.order.Load()
	switch {
	case uint32(order>>32) != id:
		return 0 // the slot has gone to another message
	case uint32(order) != 0:
		return order
	}
	if ahead || own != nil && r.ranked[own.local] != own.sent.Load() {
		return 0
	}
	next := order | uint64(r.head+1)
	if !s.order.CompareAndSwap(order, next) {
		return 0
	}
	r.head++
	r.ranked[from.local]++
	return next
}
