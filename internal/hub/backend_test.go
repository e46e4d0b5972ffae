package hub

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/history"
)

func idOf(c *client) ID {
	id, _ := ParseID([]byte(c.id))
	return id
}

// lose has the client's connection lost, and waits until its session is parked.
func (c *client) lose(h *Hub) (token string) {
	sh, id := h.clientShard(idOf(c)), idOf(c)
	c.nc.Close()
	until(c.t, "it is parked", func() bool {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		p := sh.parked[id]
		return p != nil && p.by == nil
	})
	return c.welcome["resume_token"].(string)
}

func resumable(c *Config) { c.ResumeWindow = time.Minute }

// Who is taken out of a room while it comes home gets nothing of it any more: neither what it missed there, nor what is
// new.
func TestWhoIsRemovedWhileItComesHomeGetsNothingMore(t *testing.T) {
	for name, policy := range map[string]string{"with history": "kept", "without": "plain"} {
		t.Run(name, func(t *testing.T) {
			h, l := newHubOf(t, 1, func(c *Config) {
				resumable(c)
				c.Policies = NewPolicies(Disconnect, plainRooms)
			})
			a, b := newClient(t, h, l), newClient(t, h, l)
			a.say(`{"msg_type":"join_room","room":%q,"id":1}`, policy)
			joined := a.next()
			b.say(`{"msg_type":"join_room","room":%q}`, policy)
			b.sync()
			token := a.lose(h)
			b.say(`{"msg_type":"room_message","room":%q,"content":1}`, policy)
			b.sync()
			back := a.again(h, l, token)
			at := "null"
			if joined["epoch"] != nil {
				at = fmt.Sprintf(`{"epoch":%q,"offset":0}`, joined["epoch"])
			}
			back.say(`{"msg_type":"resume","rooms":{%q:%s},"last":false,"id":1}`, policy, at)
			if got := back.next(); got["msg_type"] != "resumed" {
				t.Fatal(got)
			}
			if err := h.Remove(t.Context(), policy, idOf(a)); err != nil {
				t.Fatal(err)
			}
			if got := back.next(); got["msg_type"] != "left" || got["reason"] != "kicked" {
				t.Fatal(got)
			}
			back.say(`{"msg_type":"resume","rooms":{},"id":2}`)
			if got := back.next(); got["msg_type"] != "resumed" {
				t.Fatal(got)
			}
			b.say(`{"msg_type":"room_message","room":%q,"content":2}`, policy)
			b.sync()
			if got := back.sync(); len(got) > 0 {
				t.Errorf("it still gets %v", got)
			}
			for _, l := range h.roomShard(policy).rooms[policy].locals {
				until(t, "nobody is taken for a newcomer", func() bool {
					n := make(chan int, 1)
					l.w.Post(task(func() { n <- len(l.fresh) }), 0)
					return <-n == 0
				})
			}
		})
	}
}

// Who is excluded from a message to everyone doesn't get it while it comes home either.
func TestWhoComesHomeIsExcludedToo(t *testing.T) {
	h, l := newHubOf(t, 1, resumable)
	a := newClient(t, h, l)
	back := a.again(h, l, a.lose(h))
	if _, _, err := h.Publish(t.Context(), &Publication{Everyone: true, Content: []byte(`1`), Exclude: idOf(a)}); err != nil {
		t.Fatal(err)
	}
	if got := back.sync(); len(got) > 0 {
		t.Errorf("it got %v", got)
	}
}

// A call that has ended a session says so, though the context of the hook that makes it ends with the connection.
func TestAHookEndsItsOwnClient(t *testing.T) {
	h, l := newHubOf(t, 1, resumable)
	h.cfg().Hooks.Known = func(string) bool { return true }
	failed := make(chan error, 1)
	h.cfg().Hooks.Custom = func(ctx context.Context, who Identity, _ string, _ []byte) ([]byte, error) {
		failed <- h.Disconnect(ctx, who.ID, 4500, "")
		return nil, nil
	}
	for range 20 {
		a := newClient(t, h, l)
		a.say(`{"msg_type":"end"}`)
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
}

// What says that its context has ended has done nothing, and does nothing later.
func TestWhoGivesUpHasDoneNothing(t *testing.T) {
	h, l := newHubOf(t, 1, resumable)
	a := newClient(t, h, l)
	a.say(`{"msg_type":"join_room","room":"r"}`)
	a.sync()
	w, goOn := l.Workers()[0], make(chan bool)
	w.Post(task(func() { <-goOn }), 0)
	ctx, cancel := context.WithCancel(t.Context())
	waits, failed := make(chan bool, 1), make(chan error)
	go func() { failed <- h.Remove(asked{ctx, waits}, "r", idOf(a)) }()
	<-waits
	cancel()
	err := <-failed
	goOn <- true
	if got := a.sync(); !errors.Is(err, context.Canceled) || len(got) > 0 {
		t.Errorf("%v, and then %v", err, got)
	}
}

// A call that has posted to a worker which ends before it runs that looks for its client again.
func TestAClientIsSoughtAgainWhenItsWorkerHasEnded(t *testing.T) {
	h, l := newHubOf(t, 1, resumable)
	a := newClient(t, h, l)
	s := h.here(idOf(a))
	a.lose(h)
	l.Stop(0)
	l.Wait()
	p := h.takeParked(s.id)
	sh := h.clientShard(s.id)
	sh.add(s) // as it was a moment before

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	waits := make(chan bool, 1)
	failed := make(chan error)
	go func() { failed <- h.Disconnect(asked{ctx, waits}, s.id, 4500, "") }()
	<-waits
	sh.remove(s)
	if err := <-failed; !errors.Is(err, ErrUnknownClient) {
		t.Error(err)
	}
	h.endParked(p, 4500)
}

// asked is a context that tells when it is first waited for.
type asked struct {
	context.Context
	first chan bool
}

func (a asked) Done() <-chan struct{} {
	select {
	case a.first <- true:
	default:
	}
	return a.Context.Done()
}

// What comes when the hub has stopped is refused, and what was under way then leaves nothing behind.
func TestNothingIsLeftOfWhatMeetsTheStop(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) {
		resumable(c)
		c.Policies = NewPolicies(Disconnect, plainRooms)
	})
	a := newClient(t, h, l)
	a.say(`{"msg_type":"join_room","room":"r"}`)
	a.say(`{"msg_type":"room_message","room":"r","content":1}`)
	a.sync()
	a.lose(h)
	ending := h.takeParked(idOf(a))
	l.Stop(0)
	l.Wait()
	h.Stop()
	h.endParked(ending, 4500)
	p := &Publication{Room: "other", Content: []byte(`1`)}
	if _, err := h.publishToRoom(p); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	p.Room = "plain" // goes nowhere
	if _, _, err := h.once(publishKey{id: "p"}, nil, func() (history.Position, error) { return h.publishToRoom(p) }); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	if n, kept := h.Rooms(), h.allKept(); n != 0 || kept != 0 {
		t.Errorf("%d rooms, and %d bytes are kept", n, kept)
	}
	if err := h.Remove(context.Background(), "r", NewID()); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
}

// A client that is taken out of a room where it is parked, and comes back there at the same time, is in the room once,
// or not at all; and whoever counts, counts so.
func TestARemovalMeetsAResume(t *testing.T) {
	t.Parallel()
	sink := newLedgerOfEvents()
	h, l := newHubOf(t, 2, func(c *Config) {
		resumable(c)
		c.Sinks = []Sink{sink}
	})
	other := newClient(t, h, l)
	other.say(`{"msg_type":"join_room","room":"lobby"}`)
	other.sync()
	sh := h.roomShard("lobby")
	stop := make(chan bool)
	var busy sync.WaitGroup
	busy.Go(func() { // others keep the room's lock
		for {
			select {
			case <-stop:
				return
			default:
			}
			sh.mu.Lock()
			for end := time.Now().Add(200 * time.Microsecond); time.Now().Before(end); {
			}
			sh.mu.Unlock()
		}
	})
	for range 300 {
		a := newClient(t, h, l)
		a.say(`{"msg_type":"join_room","room":"lobby"}`)
		a.sync()
		token := a.lose(h)
		of, _ := h.Resume(token)
		removed := make(chan error)
		go func() { removed <- h.Remove(context.Background(), "lobby", idOf(a)) }()
		back := newSession(t, l, h.Session(Identity{ID: of.ID}, netip.Addr{}, &of))
		back.say(`{"msg_type":"resume","rooms":{"lobby":null},"id":1}`)
		back.sync()
		if err := <-removed; err != nil && !errors.Is(err, ErrNotMember) {
			t.Fatal(err)
		}
		back.say(`{"msg_type":"leave_room","room":"lobby"}`)
		back.sync()
		back.nc.Close()
	}
	close(stop)
	busy.Wait()
	settled(t, h)
	sink.mu.Lock()
	defer sink.mu.Unlock()
	if len(sink.faults) > 0 {
		t.Errorf("%d faults, the first: %s", len(sink.faults), sink.faults[0])
	}
}

// What is left for clients that are away is held against the share of who sends it.
func TestWhatWaitsForThoseWhoAreAwayIsTheSenders(t *testing.T) {
	h, l := newHubOf(t, 1, resumable)
	h.cfg().share = 20_000
	a, b := newClient(t, h, l), newClient(t, h, l)
	a.lose(h)
	for i, code := range []any{nil, nil, "rate_limited"} {
		b.say(`{"msg_type":"direct_message","to":%q,"content":%q,"id":%d}`, a.id, strings.Repeat("x", 9_000), i)
		if got := b.next(); got["code"] != code {
			t.Errorf("message %d: %v, want the code %v", i, got, code)
		}
	}
}

var plainRooms = Rule{glob.New("plain"), Policy{}}
