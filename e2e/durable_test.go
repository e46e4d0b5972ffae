package e2e

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gohub "example.com/hubbub/client"
)

// With a data directory a server may be killed at any moment: what it has acknowledged comes to every member, once and
// in order, and nobody is told that something was lost.
func TestKilledWithADataDirectory(t *testing.T) {
	t.Parallel()
	dir, addr := t.TempDir(), freeAddr(t)
	s := startAt(t, addr, "--data-dir", dir)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	dial := func(name string) *gohub.Hub {
		hub, err := gohub.Dial(ctx, s.ws("/ws"), gohub.Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(func() { hub.Close() })
		return hub
	}

	member := dial("member").Room("r")
	if err := member.Join(ctx); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got []string
	at := map[string]uint64{} // of what came
	go func() {
		last := gohub.Position{}
		for e := range member.Events(ctx) {
			mu.Lock()
			switch e := e.(type) {
			case gohub.Message:
				if e.Position.Epoch != last.Epoch && last.Epoch != "" || e.Position.Offset <= last.Offset {
					t.Errorf("%s at %v comes behind %v", e.Content, e.Position, last)
				}
				last = e.Position
				if _, twice := at[string(e.Content)]; twice {
					t.Errorf("%s comes twice", e.Content)
				}
				at[string(e.Content)] = e.Position.Offset
				got = append(got, string(e.Content))
			default:
				t.Errorf("the member is told %T %+v", e, e)
			}
			mu.Unlock()
		}
	}()

	var stop atomic.Bool
	acked := map[string]uint64{}
	var publishers sync.WaitGroup
	for p := range 3 {
		room := dial("publisher").Room("r")
		publishers.Go(func() {
			for i := 0; !stop.Load(); i++ {
				text := fmt.Sprintf(`"%d.%d"`, p, i)
				position, err := room.Publish(ctx, fmt.Sprintf("%d.%d", p, i), gohub.PublishOptions{})
				if err == nil {
					mu.Lock()
					acked[text] = position.Offset
					mu.Unlock()
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acked)
	}
	for range 4 {
		for n, deadline := count(), time.Now().Add(patience); count() < n+20; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nothing is acknowledged any more")
			}
		}
		s.stop(t, syscall.SIGKILL)
		s = startAt(t, addr, "--data-dir", dir)
	}
	stop.Store(true)
	publishers.Wait()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		missing := ""
		mu.Lock()
		for text, offset := range acked {
			if at[text] != offset {
				missing = fmt.Sprintf("%s was acknowledged at %d and came at %d, of %d and %d", text, offset, at[text], len(acked), len(got))
			}
		}
		mu.Unlock()
		if missing == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(missing)
		}
	}
}
