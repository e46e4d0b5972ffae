package hubbub_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub"
)

// A Handler is called for one message of a client at a time, also when a call outlasts its time: who keeps a client's
// state without a lock relies on it.
func TestCallsForOneClientNeverOverlap(t *testing.T) {
	eachIO(t, func(t *testing.T, io string) {
		var running, most atomic.Int32
		release := make(chan struct{})
		handler := func(ctx context.Context, m *hubbub.Message) (any, error) {
			n := running.Add(1)
			defer running.Add(-1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			<-release // deaf to ctx
			return "done", nil
		}
		s := startServer(t, hubbub.Config{IO: io, HookTimeout: 20 * time.Millisecond,
			Handlers: map[string]hubbub.Handler{"deaf": handler}})
		c := dial(t, s, "/ws")
		c.nextJSON()
		c.text(`{"msg_type":"deaf","id":1}`)
		c.text(`{"msg_type":"deaf","id":2}`)
		if m := c.nextJSON(); m["code"] != "timeout" || m["id"] != 1.0 {
			t.Errorf("got %v, want a timeout for the first call", m)
		}
		c.text(`{"msg_type":"ping","id":3}`)
		for m := c.nextJSON(); m["id"] != 3.0; m = c.nextJSON() { // the answer to the second may come before
		}
		// The second can't have begun: the first is still under way.
		if most.Load() > 1 {
			t.Errorf("%d calls of one client ran at once", most.Load())
		}
		close(release)
		eventually(t, "all calls have ended", func() bool { return running.Load() == 0 })
	})
}
