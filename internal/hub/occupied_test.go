package hub

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/wsclient"
)

// occupations is a Sink of several nodes: what the application is told of rooms, "+" and "-".
type occupations struct {
	mu    sync.Mutex
	rooms map[string]string
}

func (o *occupations) Event(e Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch e.Kind {
	case Occupied:
		o.rooms[e.Room] += "+"
	case Vacated:
		o.rooms[e.Room] += "-"
	}
}

func (o *occupations) of(room string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rooms[room]
}

// are waits until the application was told so of so many rooms; ever more is a fault.
func (o *occupations) are(t testing.TB, rooms int, want string) {
	t.Helper()
	until(t, "the application was told "+want, func() bool {
		for i := range rooms {
			if o.of(fmt.Sprint("r", i)) != want {
				return false
			}
		}
		return true
	})
}

// mortal is the sink of a node that dies.
type mortal struct {
	*occupations
	dead atomic.Bool
}

func (m *mortal) Event(e Event) {
	if !m.dead.Load() {
		m.occupations.Event(e)
	}
}

// settle waits until each node has heard that its rooms are known, and so has the next home.
func settle(t testing.TB, hubs ...*Hub) {
	t.Helper()
	until(t, "the homes know", func() bool {
		for _, h := range hubs {
			o := &h.cluster.occupied
			o.mu.Lock()
			busy := len(o.homes) > 0
			for _, e := range o.rooms {
				busy = busy || !e.known
			}
			o.mu.Unlock()
			if busy {
				return false
			}
		}
		return true
	})
}

func occupying(window time.Duration) (*occupations, func(*Config)) {
	sink := &occupations{rooms: map[string]string{}}
	return sink, func(c *Config) {
		fullRooms(c)
		c.ResumeWindow, c.Sinks = window, []Sink{sink}
	}
}

func (c *client) leaves(room string) {
	c.t.Helper()
	c.say(`{"msg_type":"leave_room","room":%q,"id":"left"}`, room)
	c.answer("left", func(map[string]any) {})
}

func (c *client) bye() {
	c.nc.Write(wsclient.Append(nil, true, wsclient.Close, [4]byte{}, []byte{3, 232}))
}

// A room is occupied once and vacated once, wherever its members are; who goes to another node leaves it occupied. Nodes
// that come change the homes of rooms, and that is nothing to tell.
func TestARoomIsOccupiedOnceForAllNodes(t *testing.T) {
	t.Parallel()
	const rooms = 20
	sink, set := occupying(time.Minute)
	memory, all := newNodes(t, 3, set)
	clients := []*client{all[0].client(), all[1].client(), all[2].client()}
	for _, c := range clients {
		for i := range rooms {
			c.joinsWith(fmt.Sprint("r", i), `1`)
		}
	}
	sink.are(t, rooms, "+")
	settle(t, all[0].Hub, all[1].Hub, all[2].Hub)
	late := newNode(t, memory, set)
	know(t, append(slices.Clone(all), late)...)
	settle(t, all[0].Hub, all[1].Hub, all[2].Hub, late.Hub)
	d := late.client()
	for i := range rooms {
		d.joinsWith(fmt.Sprint("r", i), `1`)
	}
	for _, c := range clients {
		for i := range rooms {
			c.leaves(fmt.Sprint("r", i))
		}
	}
	for i := range rooms { // from one node to another
		d.leaves(fmt.Sprint("r", i))
		clients[0].joinsWith(fmt.Sprint("r", i), `1`)
	}
	time.Sleep(vacatedAfter + vacatedAfter/2) // nothing comes of it
	sink.are(t, rooms, "+")
	clients[0].bye()
	sink.are(t, rooms, "+-")
	for i := range rooms {
		clients[1].joinsWith(fmt.Sprint("r", i), `1`)
	}
	sink.are(t, rooms, "+-+")
}

// A room's only member goes on on another node, and on a third one when that has died: nobody hears that it is vacated.
func TestWhoMovesOccupiesARoom(t *testing.T) {
	t.Parallel()
	sink, set := occupying(4 * time.Second)
	var sinks []*mortal
	memory := brokertest.NewMemory()
	nodes := nodesOf(t, memory, 3, func(c *Config) {
		set(c)
		sinks = append(sinks, &mortal{occupations: sink})
		c.Sinks = []Sink{sinks[len(sinks)-1]}
	})
	dead := nodes[2]
	ann := nodes[0].comes("", "ann")
	ann.joinsWith("r0", `1`)
	ann.lose(nodes[0].h)
	back := dead.comes(ann.token(), "ann")
	back.resumes("r0", "null")
	sink.are(t, 1, "+")
	time.Sleep(vacatedAfter + vacatedAfter/2)
	settle(t, nodes[0].h, nodes[1].h, dead.h)
	sinks[2].dead.Store(true)
	memory.Cut(dead.inner, true)
	last := nodes[1].comes(back.token(), "ann")
	last.resumes("r0", "null")
	time.Sleep(vacatedAfter + vacatedAfter/2)
	sink.are(t, 1, "+")
	last.bye()
	until(t, "it is vacated", func() bool { return sink.of("r0") == "+-" })
}

// When a node dies the homes that it was are others, which know of the rooms already; those whose members were on it alone
// are vacated when these can't be resumed any more. A node that ends tells of what it ends with.
func TestRoomsOfANodeThatDies(t *testing.T) {
	t.Parallel()
	const rooms = 20
	sink, set := occupying(time.Second)
	memory, dies := brokertest.NewMemory(), &within{T: t}
	quiet := &mortal{occupations: sink}
	one, two, dead := newNode(t, memory, set), newNode(t, memory, set), newNode(dies, memory, func(c *Config) {
		set(c)
		c.Sinks = []Sink{quiet}
	})
	know(t, one, two, dead)
	a, b := one.client(), newClient(t, dead.Hub, dead.l)
	for i := range rooms {
		if i%2 == 0 {
			a.joinsWith(fmt.Sprint("r", i), `1`)
		}
		b.joinsWith(fmt.Sprint("r", i), `1`)
	}
	sink.are(t, rooms, "+")
	settle(t, one.Hub, two.Hub, dead.Hub)
	quiet.dead.Store(true) // it tells nobody
	memory.Cut(dead.b, true)
	until(t, "rooms are vacated", func() bool {
		for i := range rooms {
			if want := []string{"+", "+-"}[i%2]; sink.of(fmt.Sprint("r", i)) != want {
				return false
			}
		}
		return true
	})
	dies.end()
	a.bye()
	sink.are(t, rooms, "+-")
}

// While a node is cut off both sides may tell the same; each room that was occupied is vacated in the end, and told so.
func TestRoomsWhileANodeIsCutOff(t *testing.T) {
	t.Parallel()
	const rooms = 20
	sink, set := occupying(time.Minute)
	memory, all := newNodes(t, 3, set)
	a, b := all[0].client(), all[1].client()
	for i := range rooms {
		a.joinsWith(fmt.Sprint("r", i), `1`)
		b.joinsWith(fmt.Sprint("r", i), `1`)
	}
	sink.are(t, rooms, "+")
	memory.Cut(all[0].b, true)
	until(t, "they know", func() bool {
		peers, _ := all[1].Peers()
		_, cut := all[0].Peers()
		return cut && len(peers) == 1
	})
	for i := range rooms {
		if i%2 == 0 {
			a.leaves(fmt.Sprint("r", i))
		} else {
			b.leaves(fmt.Sprint("r", i))
		}
	}
	memory.Cut(all[0].b, false)
	know(t, all...)
	time.Sleep(vacatedAfter + vacatedAfter/2)
	for i := range rooms {
		if got := sink.of(fmt.Sprint("r", i)); got[len(got)-1] != '+' {
			t.Errorf("room %d has a member: %s", i, got)
		}
	}
	a.bye()
	b.bye()
	until(t, "all are vacated", func() bool {
		for i := range rooms {
			if got := sink.of(fmt.Sprint("r", i)); got[len(got)-1] != '-' {
				return false
			}
		}
		return true
	})
	for i := range rooms {
		if got := sink.of(fmt.Sprint("r", i)); got != "+-" {
			t.Logf("room %d: %s", i, got)
		}
	}
}
