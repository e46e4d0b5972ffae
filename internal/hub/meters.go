package hub

import (
	"fmt"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"

	"example.com/hubbub/internal/rate"
)

// meters are what users, or addresses, have left of their limits: of those alone that have taken something which hasn't
// come back yet. Any goroutine.
type meters struct {
	limits atomic.Pointer[rate.Limits]
	shards [shards]meterShard
	tidied atomic.Uint32 // how often a shard was tidied
}

type meterShard struct {
	mu  sync.Mutex
	all map[payerName]*rate.Buckets // guarded by mu
}

const (
	// maxMeters is how many a shard knows, so some 65,000 in all and 15 MB, 30 MB if the names are long. Who has more
	// addresses than that has more than any limit on one means, so forgetting what some have taken gives it nothing.
	maxMeters  = 1024
	meterLooks = 8 // how many are looked at for the one that goes
)

// goBy has all begin anew, with other limits.
func (ms *meters) goBy(l *rate.Limits) {
	ms.limits.Store(l)
	for i := range ms.shards {
		sh := &ms.shards[i]
		sh.mu.Lock()
		sh.all = nil
		sh.mu.Unlock()
	}
}

func (ms *meters) shard(name payerName) *meterShard {
	return &ms.shards[maphash.Comparable(seed, name)%shards]
}

// take takes all of cost or nothing: see rate.Buckets.Take.
func (ms *meters) take(name payerName, cost *rate.Amounts) (wait int64, of rate.Kind) {
	l := ms.limits.Load()
	if !l.Covers(cost) {
		return 0, 0
	}
	now := clock()
	sh := ms.shard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	l = ms.limits.Load() // of which all is
	b := sh.all[name]
	if b == nil {
		if len(sh.all) >= maxMeters {
			sh.forgetOne(l, now)
		}
		if sh.all == nil {
			sh.all = map[payerName]*rate.Buckets{}
		}
		b = &rate.Buckets{}
		sh.all[name] = b
	}
	return b.Take(l, now, cost)
}

// wait is what take would say, but takes nothing.
func (ms *meters) wait(name payerName, cost *rate.Amounts) (wait int64, of rate.Kind) {
	sh := ms.shard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	b := sh.all[name]
	if b == nil {
		return 0, 0
	}
	return b.Wait(ms.limits.Load(), clock(), cost)
}

// giveBack gives back what was taken for nothing.
func (ms *meters) giveBack(name payerName, cost *rate.Amounts) {
	sh := ms.shard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if b := sh.all[name]; b != nil {
		b.Give(ms.limits.Load(), cost)
	}
}

// forgetOne forgets the one that is full first, of a few. mu is held.
func (sh *meterShard) forgetOne(l *rate.Limits, now int64) {
	var first payerName
	soonest, looks := int64(math.MaxInt64), 0
	for name, b := range sh.all { // in an order that nobody knows
		if full := b.Full(l, now); full < soonest {
			soonest, first = full, name
		}
		if looks++; looks == meterLooks {
			break
		}
	}
	delete(sh.all, first)
}

// tidy forgets those of one shard that are full again; each slot's time another one's.
func (ms *meters) tidy(now int64) {
	l := ms.limits.Load()
	sh := &ms.shards[ms.tidied.Add(1)%shards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for name, b := range sh.all {
		if b.Full(l, now) == 0 {
			delete(sh.all, name)
		}
	}
	if len(sh.all) == 0 {
		sh.all = nil // a map keeps what it has grown to
	}
}

// known is how many there are.
func (ms *meters) known() (n int) {
	for i := range ms.shards {
		sh := &ms.shards[i]
		sh.mu.Lock()
		n += len(sh.all)
		sh.mu.Unlock()
	}
	return n
}

// audit names those that should have been forgotten: each shard is tidied every 32 s.
func (ms *meters) audit() (faults []string) {
	l, then := ms.limits.Load(), clock()-2*shards*slotTime
	for i := range ms.shards {
		faults = append(faults, ms.shards[i].audit(l, then)...)
	}
	return faults
}

func (sh *meterShard) audit(l *rate.Limits, then int64) (faults []string) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if n := len(sh.all); n > maxMeters {
		faults = append(faults, fmt.Sprintf("%d users or addresses are known in one shard", n))
	}
	for name, b := range sh.all {
		if old := *b; old.Seen() <= then && old.Full(l, then) == 0 {
			faults = append(faults, fmt.Sprintf("%v has all that its limits allow, and is still known", name))
		}
	}
	return faults
}
