package front

import (
	"log/slog"
	"net"
	"net/http"
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
