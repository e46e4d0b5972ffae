package bench

import (
	"context"
	"sync/atomic"
	"time"
)

// ringSize is of how many messages it is known at once how far they are.
const ringSize = 1 << 16

// fanout publishes to rooms, and follows each message to all members.
type fanout struct {
	f     *fleet
	rooms []room
	pubs  []publisher
	ring  []slot
	mask  uint32

	inFlight atomic.Int64
	wake     chan struct{} // a message has arrived everywhere

	// Of the goroutine that drives.
	composer composer
	turn     int    // the publisher whose turn it is
	next     uint32 // the next message's id
	oldest   uint32 // all before it have arrived or expired
	looked   int64  // when expire last looked
}

func newFanout(f *fleet) *fanout {
	o := f.o
	l := &fanout{
		f: f, rooms: make([]room, o.Rooms), pubs: make([]publisher, o.Publishers), wake: make(chan struct{}, 1),
		composer: composer{run: f.run, compress: o.Compression},
	}
	size := 1024
	for o.Rate > 0 && size < ringSize || size < 2*o.Window {
		size *= 2
	}
	l.ring, l.mask = make([]slot, size), uint32(size-1)
	for i := range l.ring {
		l.ring[i].order.Store(uint64(uint32(i)+1) << 32) // an id that has another slot
	}
	for i := range l.pubs {
		p := &l.pubs[i]
		p.room = &l.rooms[i%o.Rooms]
		p.local = len(p.room.pubs)
		p.room.pubs = append(p.room.pubs, p)
	}
	for i := range l.rooms {
		l.rooms[i].ranked = make([]uint32, len(l.rooms[i].pubs))
	}
	return l
}

// enlist gives a connection its place: connection i is in room i modulo Rooms, and the first Publishers of them
// publish.
func (l *fanout) enlist(c *conn) {
	r := &l.rooms[c.room]
	c.live = &r.live
	r.live.Add(1)
	c.seen.next = make([]uint32, len(r.pubs))
	if c.num < len(l.pubs) {
		l.pubs[c.num].c = c
		if !l.f.o.IncludeSender {
			c.own = &l.pubs[c.num]
		}
	}
}

func (l *fanout) deliver(c *conn, m marker) bool {
	if m.publisher >= uint32(len(l.pubs)) {
		c.shard.counts.stray++
		return false
	}
	p := &l.pubs[m.publisher]
	if p.room != &l.rooms[c.room] || p == c.own {
		c.shard.counts.stray++
		return false
	}
	if !c.seen.arrive(p.local, m.seq) {
		return false
	}
	s := &l.ring[m.id&l.mask]
	if !s.is(m.id) {
		return true
	}
	if l.f.o.Order == ByRoom {
		c.placed.follow(p.room, p, c.own, s, m.id)
	}
	if s.left.Add(-1) == 0 {
		l.inFlight.Add(-1)
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return true
}

func (l *fanout) drive(ctx context.Context, from, until int64) {
	if l.f.o.Rate > 0 {
		l.f.pacer.run(ctx, from, until, l.underWay, l.expire, l.publish)
		return
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		now := l.f.clock.now()
		if now >= until || ctx.Err() != nil {
			return
		}
		if l.underWay() < int64(l.f.o.Window) {
			if !l.publish(now) {
				return
			}
			continue
		}
		select {
		case <-l.wake:
		case <-tick.C:
		case <-ctx.Done():
		case <-l.f.gone:
			return
		}
		woke := l.f.clock.now()
		l.f.pacer.full += woke - now
		l.expire(woke)
	}
}

// publish has the next publisher send a message that was due at a time. It says whether there was one with somebody to
// receive it.
func (l *fanout) publish(due int64) bool {
	for range l.pubs {
		p := &l.pubs[l.turn]
		if l.turn++; l.turn == len(l.pubs) {
			l.turn = 0
		}
		receivers := p.room.live.Load()
		if p.c.own != nil {
			receivers--
		}
		if receivers < 1 || p.c.gone() {
			continue
		}
		id := l.next
		l.next++
		if l.ring[id&l.mask].begin(id, receivers, l.f.clock.now()) <= 0 {
			l.inFlight.Add(1) // else the one before it gives up its place
		}
		l.f.published.Add(1)
		seq := p.sent.Add(1) - 1
		l.composer.sendMarked(p.c, marker{id, uint32(p.c.num), seq, due})
		p.c.flush()
		return true
	}
	return false
}

// expire has messages that some receiver never got no longer take a place in the window. Whether they were lost is
// judged at the end.
func (l *fanout) expire(now int64) {
	if now-l.looked < int64(look) {
		return
	}
	l.looked = now
	l.oldest = max(l.oldest, l.next-min(l.next, uint32(len(l.ring))))
	for ; l.oldest != l.next; l.oldest++ {
		s := &l.ring[l.oldest&l.mask]
		if s.left.Load() <= 0 {
			continue
		}
		if now-s.sent < int64(l.f.o.Drain) {
			return
		}
		if s.left.Swap(-1<<40) > 0 {
			l.inFlight.Add(-1)
		}
	}
}

func (l *fanout) stop()           {}
func (l *fanout) underWay() int64 { return l.inFlight.Load() }

func (l *fanout) judge(f *Faults, tail bool) {
	for i := range l.rooms {
		l.judgeRoom(i, f, tail)
	}
}

func (l *fanout) judgeRoom(i int, f *Faults, tail bool) {
	var room Faults
	for num := i; num < len(l.f.conns); num += len(l.rooms) {
		c := l.f.conns[num]
		if c == nil {
			continue
		}
		c.shard.mu.Lock()
		c.seen.judge(&room)
		room.Crossed += c.placed.crossed
		for local, p := range l.rooms[i].pubs {
			if tail && p != c.own && p.c != nil && !c.gone() && !p.c.gone() {
				room.Lost += int64(p.sent.Load() - c.seen.next[local])
			}
		}
		c.shard.mu.Unlock()
	}
	if room.Lost+room.Doubled+room.OutOfOrder > 0 {
		room.Crossed = 0 // ranks follow from what arrived, so they say nothing here
	}
	f.add(room)
}
