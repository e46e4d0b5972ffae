package main

import "testing"

// Whatever a page asks for, a paddle goes no faster than the rules say and stays in the court, and a match has an end.
func TestAMatchIsPlayedByTheRules(t *testing.T) {
	for _, want := range []float64{-1e300, 0, height / 2, 1e300} {
		m := newMatch("match.1", "ann")
		m.want = &want
		for ticks := 0; m.Winner == ""; ticks++ {
			before := m.state
			m.step()
			if d := m.Player - before.Player; d < -playerSpeed || d > playerSpeed || m.Player < paddle || m.Player > height-paddle {
				t.Fatalf("the paddle went from %f to %f", before.Player, m.Player)
			}
			if m.Y < 0 || m.Y > height || m.X < -topSpeed || m.X > width+topSpeed {
				t.Fatalf("the ball is at %f, %f", m.X, m.Y)
			}
			if ticks > 1_000_000 {
				t.Fatalf("no end with %v", m.Score)
			}
		}
		if m.Score[0] != goals && m.Score[1] != goals {
			t.Errorf("%s wins with %v", m.Winner, m.Score)
		}
	}
}

// Who follows the ball and hits it with a paddle's end beats the bot; who stands in the corner doesn't.
func TestTheBotCanBeBeaten(t *testing.T) {
	play := func(where func(m *match) float64) (won int) {
		for range 20 {
			m := newMatch("match.1", "ann")
			for m.Winner == "" {
				to := where(m)
				m.want = &to
				m.step()
			}
			if m.Winner == "player" {
				won++
			}
		}
		return won
	}
	if won := play(func(m *match) float64 { return m.Y + 0.9*paddle }); won < 10 {
		t.Errorf("a good player wins %d of 20", won)
	}
	if won := play(func(*match) float64 { return 0 }); won > 10 {
		t.Errorf("one in the corner wins %d of 20", won)
	}
}
