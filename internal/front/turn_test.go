package front

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// upgradeAt is a request that came through a gate.
func upgradeAt(g *Gate) *http.Request {
	near, _ := net.Pipe()
	r := httptest.NewRequest("GET", "/ws", nil)
	return r.WithContext(g.Context(r.Context(), near))
}

func gateOf(turns int) *Gate {
	return NewGate(crowd{}, 0, turns, func() string { return "" }, slog.New(slog.DiscardHandler))
}

// Whoever comes back to a session goes before those who are new, and each kind in its order.
func TestWhoComesBackGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gateOf(1)
		defer g.reserve.Close()
		first := upgradeAt(g)
		if !TakeTurn(first, false) || !TakeTurn(first, false) {
			t.Fatal("a free turn isn't to be had")
		}
		went := make(chan string, 10)
		line := map[string]*http.Request{}
		for _, name := range []string{"new 1", "new 2", "back 1", "back 2", "gone"} {
			line[name] = upgradeAt(g)
			ctx, cancel := context.WithCancel(line[name].Context())
			defer cancel()
			line[name] = line[name].WithContext(ctx)
			go func() {
				if TakeTurn(line[name], name[0] == 'b') != (name != "gone") {
					t.Errorf("%s: the turn came, or didn't", name)
				}
				went <- name
			}()
			synctest.Wait()
			if name == "gone" {
				cancel()
				synctest.Wait()
				if <-went != "gone" {
					t.Error("somebody goes on")
				}
			}
		}
		var order []string
		for turn := first; len(order) < 4; turn = line[order[len(order)-1]] {
			if len(went) > 0 {
				t.Fatal("two have the turn")
			}
			EndTurn(turn)
			EndTurn(turn) // does nothing
			order = append(order, <-went)
		}
		EndTurn(line[order[3]])
		if want := []string{"back 1", "back 2", "new 1", "new 2"}; !slices.Equal(order, want) {
			t.Errorf("they go in the order %v, want %v", order, want)
		}
		if left := g.Unsettled(); left != nil {
			t.Error(left)
		}
	})
}

// However many come back, who is new goes on among them.
func TestWhoIsNewIsNotPassedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gateOf(1)
		defer g.reserve.Close()
		turn := upgradeAt(g)
		TakeTurn(turn, false)
		type went struct {
			r   *http.Request
			new bool
		}
		all := make(chan went, 30)
		for i := range 30 {
			r := upgradeAt(g)
			go func() {
				TakeTurn(r, i > 1)
				all <- went{r, i <= 1}
			}()
			synctest.Wait()
		}
		var at []int
		for i := range 30 {
			EndTurn(turn)
			next := <-all
			if turn = next.r; next.new {
				at = append(at, i)
			}
		}
		EndTurn(turn)
		if want := []int{returnersFirst, 2*returnersFirst + 1}; !slices.Equal(at, want) {
			t.Errorf("the new ones went at %v, want %v", at, want)
		}
	})
}

// Who waits too long is told to come back, but not one whose turn was taken away while it was asked about.
func TestATurnIsWaitedForNotTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gateOf(1)
		defer g.reserve.Close()
		asked, first := upgradeAt(g), upgradeAt(g)
		TakeTurn(asked, false)
		Admit(asked)
		if !TakeTurn(first, false) {
			t.Fatal("the turn isn't free while the application is asked")
		}
		again := make(chan bool, 1)
		go func() { again <- TakeTurn(asked, false) }()
		began := time.Now()
		if TakeTurn(upgradeAt(g), false) {
			t.Error("two have the turn")
		}
		if waited := time.Since(began); waited < turnPatience/2 || waited > 2*turnPatience {
			t.Errorf("it waited %v", waited)
		}
		time.Sleep(time.Hour)
		if len(again) > 0 {
			t.Error("who was let in already doesn't wait any more")
		}
		EndTurn(first)
		if !<-again {
			t.Error("the turn never came")
		}
		EndTurn(asked)
		if left := g.Unsettled(); left != nil {
			t.Error(left)
		}
	})
}
