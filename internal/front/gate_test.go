package front

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
)

// crowd is a listener that always has one more.
type crowd struct{ net.Listener }

func (crowd) Accept() (net.Conn, error) {
	near, _ := net.Pipe()
	return near, nil
}

func (crowd) Close() error { return nil }

// Who waits for a place gets the first that is free, at once, though nobody else's time is up.
func TestAFreePlaceIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(crowd{}, 0, 1, func() string { return "" }, slog.New(slog.DiscardHandler))
		defer g.reserve.Close()
		defer g.Close()
		var last net.Conn
		for range maxHandshakes {
			last, _ = g.Accept()
			g.Changed(last, http.StateActive) // its head is complete
		}
		accepted := make(chan bool, 1)
		go func() {
			g.Accept()
			accepted <- true
		}()
		synctest.Wait()
		if len(accepted) > 0 {
			t.Fatal("there is a place for one more")
		}
		g.Changed(last, http.StateHijacked)
		synctest.Wait()
		if len(accepted) == 0 {
			t.Error("a place is free, and nobody takes it")
		}
	})
}

// Those who stay, whether they may be sent away for others or not, are together as many as there are descriptors for;
// beyond that the oldest goes of those who may. Where all are kept nobody does.
func TestWhoStaysIsBoundedWithThoseWhoAreKept(t *testing.T) {
	g := NewGate(crowd{}, 0, 1, func() string { return "" }, slog.New(slog.DiscardHandler))
	defer g.reserve.Close()
	defer g.Close()
	var all []net.Conn
	stay := func(keep bool) {
		nc, _ := g.Accept()
		all = append(all, nc)
		g.Changed(nc, http.StateIdle)
		if keep {
			r := httptest.NewRequest("GET", "/", nil)
			Keep(r.WithContext(g.Context(r.Context(), nc)))
		}
	}
	const kept = 10
	for i := range g.maxBeside {
		stay(i < kept)
	}
	count := func() (beside, kept int) { return len(g.beside), len(g.kept) }
	if b, k := count(); b != g.maxBeside-kept || k != kept {
		t.Fatalf("%d stay and %d are kept, of %d", b, k, g.maxBeside)
	}
	stay(false)
	if b, k := count(); b != g.maxBeside-kept || k != kept {
		t.Errorf("with one more %d stay and %d are kept, of %d", b, k, g.maxBeside)
	}
	if _, stays := g.beside[all[kept]]; stays {
		t.Error("the oldest of those who may go has not gone")
	}
	for range g.maxBeside {
		stay(true)
	}
	if b, k := count(); b != 0 || k != g.maxBeside+kept {
		t.Errorf("%d stay and %d are kept, where all have a key", b, k)
	}
	for _, nc := range all {
		g.Changed(nc, http.StateClosed)
		nc.Close()
	}
	if left := g.Unsettled(); left != nil {
		t.Errorf("%v", left)
	}
}
