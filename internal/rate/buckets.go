package rate

import "math"

// Kind is a thing that is done too often.
type Kind uint8

// The kinds there are.
const (
	Messages Kind = iota // whatever a client sends
	Bytes                // of these
	Joins
	Connects
	Kinds // how many there are
)

var kindNames = [Kinds]string{"messages", "bytes", "joins", "connects"}

func (k Kind) String() string { return kindNames[k] }

// Limits, Buckets and Amounts have one of each Kind.
type (
	Limits  [Kinds]Limit
	Buckets [Kinds]Bucket
	Amounts [Kinds]int64
)

// Covers says that something of these amounts is limited.
func (l *Limits) Covers(amounts *Amounts) bool {
	for k, n := range amounts {
		if n > 0 && l[k].N != 0 {
			return true
		}
	}
	return false
}

// Take takes all of want, or nothing: then of is what there isn't enough of, and wait as in Bucket.Wait.
func (b *Buckets) Take(l *Limits, now int64, want *Amounts) (wait int64, of Kind) {
	if wait, of = b.Wait(l, now, want); wait > 0 {
		return wait, of
	}
	for k := range want {
		if want[k] > 0 && l[k].N != 0 {
			b[k].used += want[k] * l[k].Per
		}
	}
	return 0, 0
}

// Give gives back what was taken for nothing.
func (b *Buckets) Give(l *Limits, taken *Amounts) {
	for k := range taken {
		b[k].Give(l[k], taken[k])
	}
}

// Wait is what Take would say, but takes nothing.
func (b *Buckets) Wait(l *Limits, now int64, want *Amounts) (wait int64, of Kind) {
	for k := range want {
		if want[k] > 0 {
			if wait := b[k].Wait(l[k], now, want[k]); wait > 0 {
				return wait, Kind(k)
			}
		}
	}
	return 0, 0
}

// Full is how many milliseconds it takes until nothing is known any more that a zero value wouldn't say.
func (b *Buckets) Full(l *Limits, now int64) (wait int64) {
	for k := range b {
		wait = max(wait, b[k].Wait(l[k], now, l[k].Burst))
	}
	return wait
}

// Seen is when something was last asked for.
func (b *Buckets) Seen() int64 {
	at := int64(math.MinInt64)
	for k := range b {
		if b[k] != (Bucket{}) {
			at = max(at, b[k].at)
		}
	}
	return at
}
