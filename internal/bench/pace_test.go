package bench

import (
	"math"
	"testing"
	"time"
)

// All that a rate and a time come to is sent, no more and no less, also by a generator that was kept from it for all of
// that time; how late it was is known.
func TestARateIsKeptByWhoComesLate(t *testing.T) {
	for _, rate := range []float64{0.5, 7, 300, 333.3, 100_000} {
		f := &fleet{o: &Options{Rate: rate, Size: 64}, clock: clock{time.Now()}}
		p := pacer{f: f, late: newHistogram()}
		until := f.clock.now()
		from := until - int64(2*time.Second)
		sent := int64(0)
		p.run(t.Context(), from, until, func() int64 { return 0 }, func(int64) {}, func(due int64) bool {
			if due < from || due >= until {
				t.Errorf("%g a second: one is due %s after its time", rate, time.Duration(due-from))
			}
			sent++
			return true
		})
		if want := int64(math.Ceil(2 * rate)); sent != want {
			t.Errorf("%g a second: %d were sent in two seconds, want %d", rate, sent, want)
		}
		if first := time.Duration(p.late.Max()); first < 1900*time.Millisecond || p.late.TotalCount() != sent {
			t.Errorf("%g a second: %d are known to be late, by %s at most", rate, p.late.TotalCount(), first)
		}
	}
}
