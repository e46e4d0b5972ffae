package hubbubtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"time"

	"pgregory.net/rapid"

	"example.com/hubbub"
)

// moody is an application whose hooks do at random all that they should not. It notes what it was told, which must come
// in pairs whatever the hooks do. Which hook meets which mood is not repeated by a seed: they run beside each other.
type moody struct {
	log logBuffer

	mu      sync.Mutex
	mood    *rand.Rand
	running int
	clients map[string]int  // by id, Connects less Disconnects
	in      map[string]bool // by room and id, between Joined and Left
	taken   map[string]bool // rooms between Occupied and Vacated
	members map[string]int  // by room, between Joined and Left
	faults  []string
}

func newMoody(t *rapid.T) *moody {
	seed := rapid.Uint64().Draw(t, "moods")
	return &moody{
		mood: rand.New(rand.NewPCG(seed, 1)), clients: map[string]int{}, in: map[string]bool{}, taken: map[string]bool{}, members: map[string]int{},
	}
}

func (m *moody) logger() *slog.Logger { return slog.New(slog.NewTextHandler(&m.log, nil)) }

// begin notes that a hook runs, and what is true from now on; the hook calls what it returns when it ends, however.
func (m *moody) begin(note func()) (end func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running++
	note()
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.running--
	}
}

func (m *moody) busy() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.running > 0
}

// whim is what a hook does.
func (m *moody) whim(ctx context.Context) error {
	m.mu.Lock()
	n := m.mood.IntN(100)
	m.mu.Unlock()
	switch {
	case n < 70:
		return nil
	case n < 75:
		return &hubbub.Error{Code: hubbub.Forbidden, Message: "no"}
	case n < 80:
		return &hubbub.Error{Code: hubbub.RateLimited, Message: "not now"}
	case n < 83:
		return errors.New("a fault of the application")
	case n < 86:
		panic("planted")
	case n < 89:
		runtime.Goexit()
	case n < 92:
		time.Sleep(3 * time.Second) // beyond its time, and fine then
	case n < 94:
		<-ctx.Done()
		return ctx.Err()
	default:
		time.Sleep(time.Duration(n) * time.Millisecond)
	}
	return nil
}

// refuses says that err is what a client is told whom Connect did not let in: a Close before the welcome, which says
// not to come back, or to try again.
func (m *moody) refuses(err error) bool {
	var end *ending
	return m != nil && errors.As(err, &end) && (end.code == 4501 || end.code == 1013)
}

func (m *moody) fault(format string, args ...any) {
	m.faults = append(m.faults, fmt.Sprintf(format, args...))
}

func (m *moody) hooks() hubbub.Hooks {
	decide := func(ctx context.Context) error {
		defer m.begin(func() {})()
		return m.whim(ctx)
	}
	tell := func(ctx context.Context, note func()) {
		defer m.begin(note)()
		_ = m.whim(ctx) // nobody asks for its answer
	}
	return hubbub.Hooks{
		Connect: func(ctx context.Context, c *hubbub.Connect) error {
			defer m.begin(func() {})()
			err := m.whim(ctx)
			if err == nil { // it is let in, though nobody may wait for that any more
				m.begin(func() { m.clients[c.Client]++ })()
			}
			return err
		},
		Disconnect: func(ctx context.Context, d *hubbub.Disconnect) {
			tell(ctx, func() {
				if m.clients[d.Client]--; m.clients[d.Client] < 0 {
					m.fault("%s is gone more often than it came", d.Client)
				}
			})
		},
		Join:    func(ctx context.Context, _ *hubbub.Join) error { return decide(ctx) },
		Read:    func(ctx context.Context, _ *hubbub.Read) error { return decide(ctx) },
		Publish: func(ctx context.Context, _ *hubbub.Publish) error { return decide(ctx) },
		Occupied: func(ctx context.Context, room string) {
			tell(ctx, func() {
				if m.taken[room] || m.members[room] != 0 {
					m.fault("%s is occupied twice", room)
				}
				m.taken[room] = true
			})
		},
		Joined: func(ctx context.Context, j *hubbub.Joined) {
			tell(ctx, func() {
				if key := j.Room + " " + j.Client; m.in[key] || !m.taken[j.Room] {
					m.fault("%s has joined %s twice, or before it was occupied", j.Client, j.Room)
				} else {
					m.in[key] = true
				}
				m.members[j.Room]++
			})
		},
		Left: func(ctx context.Context, l *hubbub.Left) {
			tell(ctx, func() {
				key := l.Room + " " + l.Client
				if !m.in[key] {
					m.fault("%s has left %s, and never joined", l.Client, l.Room)
				}
				delete(m.in, key)
				m.members[l.Room]--
			})
		},
		Vacated: func(ctx context.Context, room string) {
			tell(ctx, func() {
				if !m.taken[room] || m.members[room] != 0 {
					m.fault("%s is vacated with %d members", room, m.members[room])
				}
				m.taken[room] = false
			})
		},
	}
}

// judge says what was wrong so far.
func (m *moody) judge(t *rapid.T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if log := m.log.String(); strings.Contains(log, "panic in a worker") || strings.Contains(log, "panic while") {
		m.fault("the server's log speaks of a panic of its own:\n%s", log)
	}
	if len(m.faults) > 0 {
		t.Fatalf("%s", strings.Join(m.faults, "\n"))
	}
}

// over holds all pairs against each other when the server has ended.
func (m *moody) over(t T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, n := range m.clients {
		if n != 0 {
			t.Errorf("%s came %d times more often than it went", id, n)
		}
	}
	for key := range m.in {
		t.Errorf("%s: joined, and never left", key)
	}
	for room, is := range m.taken {
		if is {
			t.Errorf("%s is occupied for ever", room)
		}
	}
	for _, f := range m.faults {
		t.Errorf("%s", f)
	}
}
