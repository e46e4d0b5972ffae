package rate

import "math/bits"

// What a Limit may have at most: then no product below leaves 63 bits.
const (
	MaxN     = 1 << 30
	MaxPer   = 60 * 60 * 1000 // an hour
	MaxBurst = 1 << 30
)

// Limit is how much may be done: N in each Per milliseconds, and at most Burst at once. N 0 is no limit; where N isn't
// 0, all three are at least 1.
type Limit struct{ N, Per, Burst int64 }

// Bucket is what is left of a Limit. The zero value is full.
type Bucket struct {
	// used is what was taken and has not come back yet, in parts of which Per are one: N of these come back each
	// millisecond, so that nothing is ever rounded.
	used int64
	at   int64 // when used was right
}

// settle gives back what has come back by now.
func (b *Bucket) settle(l Limit, now int64) {
	if *b == (Bucket{}) {
		b.at = now // the clock may be before 0
		return
	}
	passed := now - b.at
	if passed <= 0 {
		return // another goroutine has looked at the clock a moment later
	}
	b.at = now
	if high, back := bits.Mul64(uint64(passed), uint64(l.N)); high == 0 && back < uint64(b.used) {
		b.used -= int64(back)
	} else {
		b.used = 0
	}
}

// Wait is how many milliseconds it takes until n may be taken: 0 for now. What is more than the Burst never may; then it
// is the time until the bucket is full.
func (b *Bucket) Wait(l Limit, now, n int64) int64 {
	if l.N == 0 {
		return 0
	}
	b.settle(l, now)
	room := (l.Burst - min(n, l.Burst)) * l.Per
	if b.used <= room {
		if n > l.Burst {
			return 1
		}
		return 0
	}
	return (b.used - room + l.N - 1) / l.N
}

// Take takes n, or says as Wait does why not.
func (b *Bucket) Take(l Limit, now, n int64) (wait int64) {
	if wait = b.Wait(l, now, n); wait == 0 && l.N != 0 {
		b.used += n * l.Per
	}
	return wait
}

// Give gives back n that were taken for nothing.
func (b *Bucket) Give(l Limit, n int64) {
	if l.N != 0 {
		b.used = max(0, b.used-n*l.Per)
	}
}
