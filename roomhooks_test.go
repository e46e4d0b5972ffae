package hubbub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// roomDiary is what the hooks of rooms saw, by room.
type roomDiary struct {
	mu    sync.Mutex
	lines map[string][]string
	busy  map[string]*atomic.Int32
	apart []string // calls that ran beside another one of their room
}

func (d *roomDiary) add(room, what string) (done func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lines == nil {
		d.lines, d.busy = map[string][]string{}, map[string]*atomic.Int32{}
	}
	d.lines[room] = append(d.lines[room], what)
	if d.busy[room] == nil {
		d.busy[room] = new(atomic.Int32)
	}
	busy := d.busy[room]
	if busy.Add(1) > 1 {
		d.apart = append(d.apart, what)
	}
	return func() { busy.Add(-1) }
}

func (d *roomDiary) read(room string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines[room])
}

// hooks writes the diary; then is called at the end of each.
func (d *roomDiary) hooks(then func(ctx context.Context)) hubbub.Hooks {
	note := func(ctx context.Context, room, what string) {
		defer d.add(room, what)()
		then(ctx)
	}
	return hubbub.Hooks{
		Joined:   func(ctx context.Context, j *hubbub.Joined) { note(ctx, j.Room, "joined "+j.Client) },
		Left:     func(ctx context.Context, l *hubbub.Left) { note(ctx, l.Room, "left "+l.Client) },
		Occupied: func(ctx context.Context, room string) { note(ctx, room, "occupied") },
		Vacated:  func(ctx context.Context, room string) { note(ctx, room, "vacated") },
	}
}

// isOver says that all rooms are empty, as far as the hooks were told, and no hook runs.
func (d *roomDiary) isOver() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for room, lines := range d.lines {
		if d.busy[room].Load() > 0 || lines[len(lines)-1] != "vacated" {
			return false
		}
	}
	return true
}

// check finds what has no pair or is out of order.
func (d *roomDiary) check(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.apart) > 0 {
		t.Errorf("%d calls ran beside another of their room", len(d.apart))
	}
	for room, lines := range d.lines {
		open := false
		members := map[string]bool{}
		for i, line := range lines {
			what, who, _ := strings.Cut(line, " ")
			switch ok := true; what {
			case "occupied":
				ok, open = !open, true
				fallthrough
			case "vacated":
				if what == "vacated" {
					ok, open = open && len(members) == 0, false
				}
				if !ok {
					t.Fatalf("%s: %q at %d of\n%q", room, line, i, lines)
				}
			default:
				if !open || members[who] == (what == "joined") {
					t.Fatalf("%s: %q at %d of\n%q", room, line, i, lines)
				}
				if members[who] = true; what == "left" {
					delete(members, who)
				}
			}
		}
		if open || len(members) > 0 {
			t.Errorf("%s: without their pair: %v, occupied is %v", room, members, open)
		}
	}
}

func TestRoomHooksComeInOrder(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var d roomDiary
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 4, ResumeWindow: -1, Hooks: d.hooks(func(context.Context) {})})
		a, b := enter(t, s).join("r"), enter(t, s)
		b.join("r").join("r")
		a.ask(`{"msg_type":"leave_room","room":"r"}`)
		a.ask(`{"msg_type":"leave_room","room":"r"}`)
		b.Reset()
		rawtest.Eventually(t, "r is vacated", func() bool { return slices.Contains(d.read("r"), "vacated") })
		a.join("r")
		rawtest.Eventually(t, "a is back", func() bool { return len(d.read("r")) == 8 })
		want := []string{"occupied", "joined " + a.id, "joined " + b.id, "left " + a.id, "left " + b.id, "vacated", "occupied", "joined " + a.id}
		if got := d.read("r"); !slices.Equal(got, want) {
			t.Errorf("the hooks saw\n%q, want\n%q", got, want)
		}
	})
}

// Clients come and go at random, are cut or resumed, and hooks are slow, panic or exit: at the end of the server
// nothing lacks its pair.
func TestNoRoomHookMissesItsPair(t *testing.T) {
	t.Parallel()
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var d roomDiary
		s := rawtest.Start(t, hubbub.Config{
			IO: io, Workers: 4, Logger: quietLogger(), MaxHookCalls: 3, ResumeWindow: time.Second, HookTimeout: 2 * time.Millisecond,
			Hooks: d.hooks(func(context.Context) {
				switch rand.IntN(40) {
				case 0:
					panic("a hook's own fault")
				case 1:
					time.Sleep(3 * time.Millisecond) // longer than it should
				case 2:
					runtime.Goexit()
				}
			}),
		})
		var all sync.WaitGroup
		for range 8 {
			m, token := enterFor(t, s)
			all.Go(func() {
				for range 60 {
					kind := "join_room"
					if rand.IntN(2) == 0 {
						kind = "leave_room"
					}
					m.Text(fmt.Sprintf(`{"msg_type":%q,"room":"room %d","id":"x"}`, kind, rand.IntN(3)))
					m.NextJSON()
					switch rand.IntN(20) {
					case 0:
						m.Reset()
						m, token = enterFor(t, s)
					case 1:
						m.Reset()
						var welcome map[string]any
						m, welcome = comeBack(t, s, token)
						token = welcome["resume_token"].(string)
						m.Text(`{"msg_type":"resume","rooms":{"room 1":null,"room 2":null},"id":1}`)
						m.NextJSON()
					}
				}
			})
		}
		all.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Shutdown(ctx) // nobody answers the Close: they are cut off
		rawtest.Eventually(t, "the last hook has returned", d.isOver)
		d.check(t)
		if n := len(d.read("room 0")); n < 20 {
			t.Errorf("only %d calls for a room", n)
		}
	})
}

// One who joins and leaves faster than the application keeps up is held back, and nobody else.
func TestRoomHooksThatWaitAreBounded(t *testing.T) {
	t.Parallel()
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var d roomDiary
		gate := make(chan struct{})
		s := rawtest.Start(t, hubbub.Config{IO: io, MaxRoomsPerClient: 10, Logger: quietLogger(), Hooks: d.hooks(func(context.Context) { <-gate })})
		a, b := enter(t, s), enter(t, s)
		refused := false
		for range 100 {
			if got := a.ask(`{"msg_type":"join_room","room":"r"}`); got["code"] == "rate_limited" {
				refused = true
				break
			}
			a.ask(`{"msg_type":"leave_room","room":"r"}`)
		}
		if !refused {
			t.Error("a hundred joins and leaves wait for the application")
		}
		if got := a.ask(`{"msg_type":"resume","rooms":{"other":null}}`); got["code"] != "rate_limited" {
			t.Errorf("a resume, which joins too: %v", got)
		}
		b.join("r")
		close(gate)
		rawtest.Eventually(t, "a may join again", func() bool {
			return a.ask(`{"msg_type":"join_room","room":"r"}`)["msg_type"] == "joined"
		})
		s.Shutdown(timeout(t))
		d.check(t)
	})
}
