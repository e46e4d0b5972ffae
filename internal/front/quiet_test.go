package front

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// Each burst of connects is followed by one collection, a second after its last connect; few connects by none.
func TestEachBurstIsFollowedByACollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q Quiet
		defer q.Stop()
		forced := func() uint32 {
			synctest.Wait()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.NumForcedGC
		}
		connect := func(n int) {
			for range n {
				q.Connected()
			}
		}
		connect(quietBurst - 1)
		time.Sleep(2 * quietAfter)
		before := forced()
		for burst := range uint32(3) {
			connect(quietBurst)
			time.Sleep(quietAfter / 2)
			connect(1)
			time.Sleep(quietAfter - time.Millisecond)
			if n := forced() - before; n != burst {
				t.Fatalf("burst %d: %d collections while it may go on, want %d", burst, n, burst)
			}
			time.Sleep(time.Second)
			if n := forced() - before; n != burst+1 {
				t.Fatalf("burst %d: %d collections behind it, want %d", burst, n, burst+1)
			}
		}
	})
}
