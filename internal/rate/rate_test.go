package rate

import (
	"math/big"
	"math/rand/v2"
	"testing"
)

// model is a bucket as one would write it without thinking of speed: every take that was granted, and fractions.
type model struct {
	l    Limit
	full *big.Rat
	at   int64
	used bool // at counts: the clock may be at 0, too
}

func newModel(l Limit) *model { return &model{l: l, full: big.NewRat(l.Burst, 1)} }

func (m *model) take(now, n int64) bool {
	if !m.used {
		m.at, m.used = now, true
	}
	if now > m.at {
		m.full.Add(m.full, new(big.Rat).Mul(big.NewRat(now-m.at, m.l.Per), big.NewRat(m.l.N, 1)))
		if m.full.Cmp(big.NewRat(m.l.Burst, 1)) > 0 {
			m.full.SetInt64(m.l.Burst)
		}
		m.at = now
	}
	if m.full.Cmp(big.NewRat(n, 1)) < 0 {
		return false
	}
	m.full.Sub(m.full, big.NewRat(n, 1))
	return true
}

// FuzzBucket holds the bucket against the model, to the last part, and its Wait against what happens then.
func FuzzBucket(f *testing.F) {
	f.Add(int64(50), int64(1000), int64(100), uint64(1))
	f.Add(int64(MaxN), int64(MaxPer), int64(MaxBurst), uint64(2))
	f.Add(int64(1), int64(MaxPer), int64(1), uint64(3))
	f.Add(int64(7), int64(60_000), int64(3), uint64(4))
	f.Add(int64(19), int64(3_600_042), int64(20), uint64(116)) // takes at 0
	f.Fuzz(func(t *testing.T, n, per, burst int64, seed uint64) {
		within := func(v, most int64) int64 { return 1 + int64(uint64(v)%uint64(most)) }
		l := Limit{within(n-1, MaxN), within(per-1, MaxPer), within(burst-1, MaxBurst)}
		random := rand.New(rand.NewPCG(seed, 0))
		var b Bucket
		m := newModel(l)
		now := random.Int64N(2000) - 1000
		for range 200 {
			switch random.IntN(10) {
			case 0:
				now += random.Int64N(1 << 40)
			case 1:
				now -= random.Int64N(10) // another worker's clock
			default:
				now += random.Int64N(l.Per/l.N + 2)
			}
			n := 1 + random.Int64N(l.Burst)
			if random.IntN(2) == 0 {
				n = min(n, 3)
			}
			wait := b.Take(l, now, n)
			if ok := m.take(now, n); ok != (wait == 0) {
				t.Fatalf("%+v: %d at %d: wait %d, the model says %v", l, n, now, wait, ok)
			}
			if wait == 0 {
				continue
			}
			early, then := b, b
			if wait > 1 && now >= b.at && early.Wait(l, now+wait-1, n) == 0 {
				t.Fatalf("%+v: %d at %d: wait %d is too long", l, n, now, wait)
			}
			if then.Wait(l, max(now, b.at)+wait, n) != 0 {
				t.Fatalf("%+v: %d at %d: wait %d is too short", l, n, now, wait)
			}
		}
	})
}

// Whatever a client does, no time sees more than the burst and what the rate brings in it.
func TestNoWindowSeesMoreThanBurstAndRate(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		l := Limit{1 + random.Int64N(100), 1 + random.Int64N(2000), 1 + random.Int64N(50)}
		var b Bucket
		var times []int64
		for now := int64(0); now < 20_000; now += random.Int64N(40) {
			for range random.IntN(4) {
				if b.Take(l, now, 1) == 0 {
					times = append(times, now)
				}
			}
		}
		for i := range times {
			for j := i; j < len(times); j += 7 {
				if got := int64(j - i + 1); got > l.Burst+l.N*(times[j]-times[i])/l.Per {
					t.Fatalf("%+v: %d from %d to %d", l, got, times[i], times[j])
				}
			}
		}
	}
}

// Who keeps to the rate is never refused. Where its moments fall between two milliseconds, it needs a burst of two.
func TestWhoKeepsToTheRateIsNeverRefused(t *testing.T) {
	for _, l := range []Limit{{50, 1000, 1}, {7, 1000, 2}, {600, 60_000, 3}, {1, MaxPer, 1}, {3, 7, 2}} {
		var b Bucket
		for i := range int64(1000) {
			now := (i*l.Per + l.N - 1) / l.N
			if wait := b.Take(l, now, 1); wait != 0 {
				t.Fatalf("%+v: the %d. at %d has to wait %d ms", l, i, now, wait)
			}
		}
	}
}

func TestMoreThanTheBurstNeverPasses(t *testing.T) {
	l := Limit{10, 1000, 5}
	var b Bucket
	if wait := b.Take(l, 0, 6); wait != 1 {
		t.Errorf("of a full bucket: wait %d", wait)
	}
	b.Take(l, 0, 5)
	if wait := b.Take(l, 0, 6); wait != 500 {
		t.Errorf("of an empty bucket: wait %d, it is full in 500", wait)
	}
}

func TestAllIsTakenOrNothing(t *testing.T) {
	l := Limits{Messages: {10, 1000, 10}, Bytes: {100, 1000, 100}}
	var b Buckets
	if wait, _ := b.Take(&l, 0, &Amounts{Messages: 1, Bytes: 90}); wait != 0 {
		t.Fatal(wait)
	}
	if wait, of := b.Take(&l, 0, &Amounts{Messages: 1, Bytes: 20}); wait != 100 || of != Bytes {
		t.Errorf("wait %d of %s", wait, of)
	}
	for i := range 9 {
		if wait, of := b.Take(&l, 0, &Amounts{Messages: 1}); wait != 0 {
			t.Errorf("message %d: wait %d of %s: the one that was refused has taken something", i, wait, of)
		}
	}
	b.Give(&l, &Amounts{Messages: 1})
	if wait, _ := b.Take(&l, 0, &Amounts{Messages: 1, Joins: 5}); wait != 0 {
		t.Errorf("one was given back, and joins have no limit: wait %d", wait)
	}
	if full := b.Full(&l, 0); full != 1000 {
		t.Errorf("full in %d ms", full)
	}
	if full := b.Full(&l, 1000); full != 0 {
		t.Errorf("full in %d ms", full)
	}
}

// goOn has one who is refused all the time do a thing each so many milliseconds, and says when patience ends.
func goOn(l Limit, every, until int64) (ended int64) {
	var b Bucket
	var e Excess
	for now := int64(0); now <= until; now += every {
		if b.Take(l, now, 1) > 0 && e.Refused(l, now, 1) {
			return now
		}
	}
	return -1
}

func TestPatienceEndsAtTenTimesTheRateForTenSeconds(t *testing.T) {
	second := Limit{10, 1000, 10}
	if ended := goOn(second, 10, 60_000); ended < ExcessTime || ended > ExcessTime+1000 {
		t.Errorf("ten times the rate: ended after %d ms", ended)
	}
	if ended := goOn(second, 1, 60_000); ended < ExcessTime || ended > ExcessTime+1000 {
		t.Errorf("a hundred times the rate: ended after %d ms", ended)
	}
	if ended := goOn(second, 12, 120_000); ended >= 0 {
		t.Errorf("eight times the rate: ended after %d ms", ended)
	}
	if ended := goOn(Limit{1, 60_000, 1}, 1000, 600_000); ended >= 0 {
		t.Errorf("once a second at one a minute: ended after %d ms", ended)
	}
}

// Who did much at once and comes back later has not gone on.
func TestOneBurstIsNoGoingOn(t *testing.T) {
	l := Limit{10, 1000, 10}
	var e Excess
	for i := range int64(800) {
		if e.Refused(l, i/100, 1) {
			t.Fatal("ended at once")
		}
	}
	if e.Refused(l, 20_000, 1) || e.Refused(l, 1<<50, 1) || e.Refused(l, 1<<50+5000, 1) {
		t.Error("ended by a look back")
	}
}

func BenchmarkTake(b *testing.B) {
	l := Limits{Messages: {1 << 20, 1000, 1 << 20}, Bytes: {1 << 30, 1000, 1 << 30}}
	var of Buckets
	now := int64(0)
	for b.Loop() {
		now++
		of.Take(&l, now, &Amounts{Messages: 1, Bytes: 100})
	}
}
