package hub

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/wsclient"
)

// ledgerOfEvents is a Sink that holds what it is told against what must be so.
type ledgerOfEvents struct {
	mu       sync.Mutex
	clients  map[ID]map[string]bool // those who are connected, and where they are
	members  map[string]int
	occupied map[string]bool
	seen     [Vacated + 1]int
	faults   []string
}

func newLedgerOfEvents() *ledgerOfEvents {
	return &ledgerOfEvents{clients: map[ID]map[string]bool{}, members: map[string]int{}, occupied: map[string]bool{}}
}

func (l *ledgerOfEvents) Event(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[e.Kind]++
	id := e.Client.ID
	rooms, here := l.clients[id]
	must := func(is bool) {
		if !is {
			l.faults = append(l.faults, fmt.Sprintf("event %d of %s in %q: in %v, %d members, occupied %v", e.Kind, id, e.Room, rooms, l.members[e.Room], l.occupied[e.Room]))
		}
	}
	switch e.Kind {
	case Connected:
		must(!here)
		l.clients[id] = map[string]bool{}
	case Disconnected:
		must(here && len(rooms) == 0 && e.Code > 0)
		delete(l.clients, id)
	case Joined:
		must(here && !rooms[e.Room] && l.occupied[e.Room])
		rooms[e.Room] = true
		l.members[e.Room]++
	case Left:
		must(here && rooms[e.Room])
		delete(rooms, e.Room)
		l.members[e.Room]--
	case Occupied:
		must(!l.occupied[e.Room] && l.members[e.Room] == 0)
		l.occupied[e.Room] = true
	case Vacated:
		must(l.occupied[e.Room] && l.members[e.Room] == 0)
		delete(l.occupied, e.Room)
	}
}

// Whatever becomes of clients, sinks are told of it in order, and none of it misses its pair.
func TestEventsComeInOrderAndInPairs(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			sink := newLedgerOfEvents()
			t.Cleanup(func() { // behind the hub's end
				if len(sink.faults) > 0 {
					t.Errorf("%d faults, the first: %s", len(sink.faults), sink.faults[0])
				}
				for kind, n := range sink.seen {
					if n == 0 {
						t.Errorf("no event %d was seen", kind)
					}
				}
				if n := len(sink.clients) + len(sink.occupied); n > 0 {
					t.Errorf("%d clients and rooms are without their end", n)
				}
			})
			h, l := newHubOf(t, 2, func(c *Config) {
				c.ResumeWindow, c.Sinks = time.Second, []Sink{sink}
			})
			play(t, h, l, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

// play has clients come, join, leave, get lost, come back, be kicked and go.
func play(t *testing.T, h *Hub, l *loop.Loop, r *rand.Rand) {
	var on []*client
	var lost []string // tokens
	for range 150 {
		if len(on) < 3 {
			on = append(on, newClient(t, h, l))
		}
		i := r.IntN(len(on))
		c, room := on[i], fmt.Sprint("room ", r.IntN(3))
		gone := false
		switch r.IntN(9) {
		case 0, 1, 2:
			c.say(`{"msg_type":"join_room","room":%q}`, room)
		case 3, 4:
			c.say(`{"msg_type":"leave_room","room":%q}`, room)
		case 5:
			c.nc.Close()
			lost = append(lost, c.welcome["resume_token"].(string))
			gone = true
		case 6:
			c.nc.Write(wsclient.Append(nil, true, wsclient.Close, [4]byte{}, []byte{3, 232})) // 1000
			gone = true
		case 7:
			id, _ := ParseID([]byte(c.id))
			if err := h.Disconnect(t.Context(), id, 4500, ""); err != nil {
				t.Error(err)
			}
			gone = true
		case 8:
			if len(lost) == 0 {
				continue
			}
			of, ok := h.Resume(lost[0])
			if lost = lost[1:]; ok {
				back := newSession(t, l, h.Session(Identity{ID: of.ID}, netip.Addr{}, &of))
				if r.IntN(2) == 0 {
					back.say(`{"msg_type":"resume","rooms":{%q:null},"id":1}`, room)
				}
				on = append(on, back)
			}
			continue
		}
		if gone {
			on = append(on[:i], on[i+1:]...)
			continue
		}
		c.sync()
	}
}

// Who waits for the hooks from outside waits too for one that itself waits for the others.
func TestAHookThatWaitsForTheOthersIsWaitedFor(t *testing.T) {
	h, l := newHub(t, 1)
	open := make(chan bool)
	h.cfg().Hooks.Known = func(string) bool { return true }
	h.cfg().Hooks.Custom = func(_ context.Context, _ Identity, what string, _ []byte) ([]byte, error) {
		if what == "slow" {
			<-open
		} else if left := h.WaitHooks(context.Background()); left != 0 {
			t.Errorf("the hook has waited, and %d others are left", left)
		}
		return nil, nil
	}
	newClient(t, h, l).say(`{"msg_type":"slow"}`)
	newClient(t, h, l).say(`{"msg_type":"waits"}`)
	until(t, "one waits for the other", func() bool {
		h.runs.mu.Lock()
		defer h.runs.mu.Unlock()
		return h.runs.n == 1 && h.runs.inside == 1
	})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if left := h.WaitHooks(over); left != 2 {
		t.Errorf("from outside %d are left, want 2", left)
	}
	close(open)
	if left := h.WaitHooks(t.Context()); left != 0 {
		t.Errorf("%d are left", left)
	}
}

// What is published is told of the rooms that Config.Tells names, in their order, and also where it goes to nobody else.
func TestWhatIsPublishedIsTold(t *testing.T) {
	var told []string
	sink := sinkFunc(func(e Event) { // under each room's lock, and only one goroutine publishes
		if e.Kind == Published {
			told = append(told, fmt.Sprintf("%s %s %d %v", e.Room, e.Message.Content, e.Message.Offset, e.Epoch != ""))
		}
	})
	h, _ := newHubOf(t, 1, func(c *Config) {
		c.Sinks = []Sink{sink}
		c.Tells = func(room string) bool { return room != "quiet" }
		c.Policies = NewPolicies(Disconnect, Rule{Match: glob.New("passing.*"), Policy: Policy{}})
	})
	for i, room := range []string{"a", "quiet", "passing.1", "a", "passing.1"} {
		if _, _, err := h.Publish(context.Background(), &Publication{Room: room, From: "server", Content: []byte(strconv.Itoa(i))}); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"a 0 1 true", "passing.1 2 0 false", "a 3 2 true", "passing.1 4 0 false"}; !slices.Equal(told, want) {
		t.Errorf("told is %q, want %q", told, want)
	}
}

type sinkFunc func(e Event)

func (f sinkFunc) Event(e Event) { f(e) }
