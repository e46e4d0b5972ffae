package front

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
)

// Upgrades go on in turns: each from its complete head until its worker has taken the connection in, so that a worker
// that is busy with those who are in holds new ones up, instead of the other way round. The figures are in
// docs/decisions/0012-storms.md.

const (
	// TurnsPerWorker is how many upgrades may be under way at once, for each worker.
	TurnsPerWorker = 4
	// turnPatience is how long an upgrade waits for its turn, about: of so many who come at once that it would be longer
	// some do better to come back.
	turnPatience = 500 * time.Millisecond
	// returnersFirst is how many who come back go before each one who is new: else one client that comes back without end
	// would keep all others out.
	returnersFirst = 3
)

// queue is upgrades that wait for their turn, first come first.
type queue []*ticket

// pop takes the first one out; nil where nobody waits.
func (q *queue) pop() *ticket {
	if len(*q) == 0 {
		return nil
	}
	first := (*q)[0]
	*q = slices.Delete(*q, 0, 1)
	return first
}

// TakeTurn waits for an upgrade's turn, returnersFirst who come back to a session before each one who is new; or not at all where
// the listener isn't ours. It says whether the turn came: before the client had gone, and in about half a second. Who
// has had it already, and Admit took it, waits as long as it takes.
func TakeTurn(r *http.Request, comesBack bool) bool {
	t := ticketOf(r)
	if t == nil {
		return true
	}
	again := t.asked
	t.asked = true
	switch {
	case t.tooLate:
		return false
	case t.turnAtOnce():
		return true
	case again:
		return t.waitForTurn(r.Context(), true)
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience())
	defer cancel()
	return t.waitForTurn(ctx, comesBack)
}

// patience is how long one waits, spread so that not all give up at once.
func patience() time.Duration { return turnPatience*3/4 + rand.N(turnPatience/2) }

// waitAside has a goroutine serve a when the turn has come; or when it hasn't for too long, which TakeTurn says then.
func (t *ticket) waitAside(a *arrival, comesBack bool) {
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	t.aside = a
	t.late = time.AfterFunc(patience(), func() {
		g.mu.Lock()
		t.leave()
		t.tooLate = !t.turn
		g.mu.Unlock()
		g.toReader(a)
	})
	g.line(t, comesBack)
}

// line has a ticket wait in its queue. mu is held.
func (g *Gate) line(t *ticket, comesBack bool) {
	if comesBack {
		g.returners = append(g.returners, t)
	} else {
		g.newcomers = append(g.newcomers, t)
	}
	g.nextTurns()
}

// leave takes a ticket out of its queue. mu is held.
func (t *ticket) leave() {
	isT := func(waits *ticket) bool { return waits == t }
	t.gate.returners = slices.DeleteFunc(t.gate.returners, isT)
	t.gate.newcomers = slices.DeleteFunc(t.gate.newcomers, isT)
}

// turnAtOnce takes a turn where one is free and nobody waits, as nearly always.
func (t *ticket) turnAtOnce() bool {
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if !t.turn && g.turns < g.maxTurns && len(g.returners)+len(g.newcomers) == 0 {
		g.turns++
		t.turn = true
	}
	return t.turn
}

func (t *ticket) waitForTurn(ctx context.Context, comesBack bool) bool {
	g := t.gate
	g.mu.Lock()
	t.aside = nil // whoever serves it now waits itself
	t.mayGo = make(chan struct{})
	g.line(t, comesBack)
	g.mu.Unlock()
	select {
	case <-t.mayGo:
		return true
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t.leave()
	return t.turn
}

// EndTurn lets the next one go on. Any goroutine; never blocks.
func EndTurn(r *http.Request) {
	if t := ticketOf(r); t != nil {
		t.end()
	}
}

// end is EndTurn.
func (t *ticket) end() {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.endTurn()
}

// endTurn is EndTurn; the gate's mu is held.
func (t *ticket) endTurn() {
	if t.turn {
		t.turn = false
		t.gate.turns--
		t.gate.nextTurns()
	}
}

// nextInLine takes out of the queues who goes next; nil where nobody waits. mu is held.
func (g *Gate) nextInLine() *ticket {
	if len(g.newcomers) == 0 {
		return g.returners.pop()
	}
	if len(g.returners) > 0 && g.passed < returnersFirst {
		g.passed++
		return g.returners.pop()
	}
	g.passed = 0
	return g.newcomers.pop()
}

// nextTurns gives the turns that are free to those who wait. mu is held.
func (g *Gate) nextTurns() {
	for g.turns < g.maxTurns {
		next := g.nextInLine()
		if next == nil {
			return
		}
		g.turns++
		next.turn = true
		if next.aside == nil {
			close(next.mayGo)
		} else if next.late.Stop() { // else its time is just over, and who serves it then finds the turn
			g.toReader(next.aside)
		}
	}
}
