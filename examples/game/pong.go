package main

import "math/rand/v2"

// The court, in units of its own. The player has the left side, the bot the right one. Speeds are of one tick.
const (
	width, height = 160.0, 90.0
	paddle        = 9.0 // half of a paddle's length
	edge          = 6.0 // how far a paddle's face is from its wall
	playerSpeed   = 2.5
	botSpeed      = 1.2 // slower than a ball can be, so that it can be beaten
	serveSpeed    = 1.5
	topSpeed      = 4.0
	goals         = 5 // who has so many wins
)

// match is one game against the bot. It belongs to the hall, whose lock guards all but room and name.
type match struct {
	room, name string
	state

	vx, vy float64
	want   *float64 // where the player's paddle shall be; nil: where it is
	aim    float64  // how far from its middle the bot tries to hit the ball
	wait   int      // ticks until the serve
}

// state is what a page is told at each tick.
type state struct {
	X      float64 `json:"x"` // of the ball
	Y      float64 `json:"y"`
	Player float64 `json:"player"` // the middles of the paddles
	Bot    float64 `json:"bot"`
	Score  [2]int  `json:"score"` // the player's, the bot's
	Winner string  `json:"winner,omitempty"`
}

func newMatch(room, name string) *match {
	m := &match{room: room, name: name, state: state{Player: height / 2, Bot: height / 2}}
	m.serve(-1)
	return m
}

// serve puts the ball into the middle, from where it flies in a second and a half, to the left or to the right.
func (m *match) serve(direction float64) {
	m.X, m.Y = width/2, height/2
	m.vx, m.vy = direction*serveSpeed, rand.Float64()*2-1
	m.wait = 45
}

// step is one tick: paddles, ball, goals.
func (m *match) step() {
	if m.want != nil {
		m.Player = towards(m.Player, *m.want, playerSpeed)
	}
	m.Bot = towards(m.Bot, m.Y+m.aim, botSpeed)
	if m.wait > 0 {
		m.wait--
		return
	}
	m.X, m.Y = m.X+m.vx, m.Y+m.vy
	if m.Y < 0 || m.Y > height {
		m.Y, m.vy = max(0, min(height, m.Y)), -m.vy
	}
	switch {
	case m.vx < 0 && m.X <= edge && m.X-m.vx > edge:
		m.hit(edge, m.Player)
	case m.vx > 0 && m.X >= width-edge && m.X-m.vx < width-edge:
		m.hit(width-edge, m.Bot)
		m.aim = (rand.Float64()*2 - 1) * paddle
	case m.X < 0:
		m.goal(1)
	case m.X > width:
		m.goal(0)
	}
}

// hit sends the ball back where the paddle is, faster, and the steeper the farther from its middle.
func (m *match) hit(x, at float64) {
	off := (m.Y - at) / paddle
	if off < -1.1 || off > 1.1 {
		return
	}
	m.X = x
	m.vx = -max(-topSpeed, min(topSpeed, m.vx*1.06))
	m.vy = off * 1.8
}

func (m *match) goal(side int) {
	if m.Score[side]++; m.Score[side] == goals {
		m.Winner = [...]string{"player", "bot"}[side]
	}
	m.serve([...]float64{1, -1}[side]) // to the one who has lost the point
}

// towards moves a paddle by one tick, and not out of the court.
func towards(at, want, speed float64) float64 {
	at += max(-speed, min(speed, want-at))
	return max(paddle, min(height-paddle, at))
}
