package hub

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/history"
)

// quietAge is for how long the rooms of these stories keep what is said.
const quietAge = 2 * time.Minute

// quietNodes keep the newest so many messages of each room.
func quietNodes(t *testing.T, memory *brokertest.Memory, many, messages int, set func(*Config)) []*testNode {
	t.Cleanup(memory.Wait) // for what a node that is gone still closes
	return nodesOf(t, memory, many, func(c *Config) {
		quietRooms(c, messages)
		set(c)
	})
}

func quietRooms(c *Config, messages int) {
	kept := Policy{History: history.Bounds{Messages: messages, Age: quietAge, Bytes: 1 << 20}, IdleTTL: time.Minute}
	c.Policies = NewPolicies(Disconnect, Rule{glob.New("*"), kept})
}

// joins is the answer to a new client's join, and what it says it has already; the client is done with.
func (n *testNode) joins(room string, since map[string]any) (joined map[string]any, client *client) {
	n.t.Helper()
	fields := fmt.Sprintf(`"msg_type":"join_room","room":%q`, room)
	if since != nil {
		fields += fmt.Sprintf(`,"since":{"epoch":%q,"offset":%.0f}`, since["epoch"], since["offset"])
	}
	c := n.comes("", "")
	return c.asks("%s", fields), c
}

// says publishes as the application does.
func (n *testNode) says(room, content string) {
	n.t.Helper()
	if _, _, err := n.h.Publish(n.t.Context(), &Publication{Room: room, Content: []byte(content)}); err != nil {
		n.t.Fatal(err)
	}
}

// fallsQuiet lets so much time pass that the witness is told; then the log forgets where the room was.
func fallsQuiet(memory *brokertest.Memory) {
	time.Sleep(quietAge/2 + 10*time.Second)
	memory.Pass(1000)
	time.Sleep(3 * time.Second)
	synctest.Wait()
}

// A room that one node alone had open, and in which nothing came for longer than its age: when the node is killed its members
// have missed nothing, and are told so on any other.
func TestWhatANodeKnewOfAQuietRoomOutlivesIt(t *testing.T) {
	for _, many := range []int{2, 3} {
		t.Run(fmt.Sprint(many, " nodes"), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				memory := brokertest.NewMemory()
				nodes := quietNodes(t, memory, many, 100, asIs)
				never, _ := nodes[0].joins("never", nil)
				nodes[0].joins("once", nil)
				nodes[0].says("once", "1")
				once, _ := nodes[0].joins("once", nil)
				time.Sleep(quietAge)
				fallsQuiet(memory)
				if n := nodes[1].h.Kept(KeptQuiet) + nodes[many-1].h.Kept(KeptQuiet); n == 0 {
					t.Error("no witness counts what it keeps")
				}
				nodes[0].dies(nodes[1:]...)
				for i, n := range nodes[1:] {
					for room, since := range map[string]map[string]any{"never": never, "once": once} {
						if m, _ := n.joins(room, since); m["recovered"] != true {
							t.Errorf("%q on node %d: %v", room, 1+i, m)
						}
					}
				}
			})
		})
	}
}

// Who moves to another node with the session, as when its node is stopped, has missed nothing of a room that it alone was in;
// the old node has closed it by then. Nor has who leaves, and joins elsewhere.
func TestWhatWasKnownOfAQuietRoomOutlivesItsClosing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		nodes := quietNodes(t, memory, 3, 2, asIs)
		ann := nodes[0].comes("", "ann")
		at := ann.asks(`"msg_type":"join_room","room":"ann's"`)
		bobs, bob := nodes[0].joins("bob's", nil)
		carls, carl := nodes[0].joins("carl's", nil)
		fallsQuiet(memory)
		ann.lose(nodes[0].h)
		bob.asks(`"msg_type":"leave_room","room":"bob's"`)
		carl.asks(`"msg_type":"leave_room","room":"carl's"`)
		back := nodes[1].comes(ann.token(), "ann")
		time.Sleep(20 * time.Second)
		if n := nodes[0].h.Rooms(); n != 0 {
			t.Errorf("%d rooms are open still", n)
		}
		if m := back.resumes("ann's", position(at)); m["recovered"] != true {
			t.Errorf("who has moved: %v", m)
		}
		if m, _ := nodes[2].joins("bob's", bobs); m["recovered"] != true {
			t.Errorf("who has left: %v", m)
		}
		memory.Pass(1000) // of what came since nobody knows
		if m, _ := nodes[2].joins("carl's", carls); m["recovered"] != false {
			t.Errorf("who has left for long: %v", m)
		}
	})
}

// What was said behind what the witness was told last is delivered, or told as lost where nobody keeps it any more.
func TestAWitnessTellsNoLie(t *testing.T) {
	for _, c := range []struct {
		name    string
		happens func(memory *brokertest.Memory, nodes []*testNode)
		comes   int    // of the messages
		reason  string // "" for recovered
	}{
		{"said when the node is gone", func(_ *brokertest.Memory, nodes []*testNode) {
			nodes[0].dies(nodes[1:]...)
			nodes[2].says("quiet", "1")
		}, 1, ""},
		{"said and pushed out when the node is gone", func(_ *brokertest.Memory, nodes []*testNode) {
			nodes[0].dies(nodes[1:]...)
			nodes[2].says("quiet", "1")
			nodes[2].says("quiet", "2")
			nodes[2].says("quiet", "3")
		}, 0, "expired"},
		{"said to the node, which is killed at once", func(_ *brokertest.Memory, nodes []*testNode) {
			nodes[2].says("quiet", "1")
			nodes[2].says("quiet", "2")
			nodes[2].says("quiet", "3")
			synctest.Wait()
			nodes[0].dies(nodes[1:]...)
		}, 0, "expired"},
		{"said to the node, which has told more since", func(memory *brokertest.Memory, nodes []*testNode) {
			nodes[2].says("quiet", "1")
			nodes[2].says("quiet", "2")
			nodes[2].says("quiet", "3")
			time.Sleep(3 * time.Second)
			memory.Pass(1000)
			time.Sleep(3 * time.Second)
			nodes[0].dies(nodes[1:]...)
		}, 0, "expired"},
		{"said and expired while its witness can't be told", func(memory *brokertest.Memory, nodes []*testNode) {
			nodes[0].losing(func(kind callKind) (question, answer bool) { return kind == callQuiet, false })
			nodes[2].says("quiet", "1")
			nodes[2].says("quiet", "2")
			nodes[2].says("quiet", "3")
			time.Sleep(20 * time.Second)
			nodes[0].losing(nil)
			time.Sleep(3 * time.Second)
			memory.Pass(1000)
			time.Sleep(3 * time.Second)
			nodes[0].dies(nodes[1:]...)
		}, 0, "expired"},
		{"said while the witness's answers are lost", func(memory *brokertest.Memory, nodes []*testNode) {
			nodes[0].losing(func(kind callKind) (question, answer bool) { return false, kind == callQuiet })
			time.Sleep(10 * time.Second)
			nodes[2].says("quiet", "1")
			nodes[2].says("quiet", "2")
			nodes[2].says("quiet", "3")
			time.Sleep(10 * time.Second)
			nodes[0].losing(nil)
			memory.Pass(1000)
			time.Sleep(10 * time.Second)
			nodes[0].dies(nodes[1:]...)
		}, 0, "expired"},
		{"missed by the node", func(memory *brokertest.Memory, nodes []*testNode) {
			sh := nodes[0].h.roomShard("quiet")
			sh.mu.Lock()
			at := sh.rooms["quiet"].position()
			sh.mu.Unlock()
			nodes[0].h.Lost("quiet", broker.Log{Floor: at.Offset + 500, At: broker.Position{Epoch: at.Epoch, Offset: at.Offset + 500}})
			time.Sleep(3 * time.Second)
			memory.Pass(1000)
			time.Sleep(3 * time.Second)
			nodes[0].dies(nodes[1:]...)
		}, 0, "expired"},
		{"the log is lost", func(memory *brokertest.Memory, nodes []*testNode) {
			nodes[0].dies(nodes[1:]...)
			memory.Lose()
			synctest.Wait()
		}, 0, "epoch"},
		{"the log is lost while the node is there", func(memory *brokertest.Memory, nodes []*testNode) {
			memory.Lose()
			time.Sleep(quietAge)
			nodes[0].dies(nodes[1:]...)
		}, 0, "epoch"},
		{"its witness dies before it", func(memory *brokertest.Memory, nodes []*testNode) {
			first, other := nodes[1], nodes[2]
			if nodes[0].h.cluster.witness.to != first.inner.ID() {
				first, other = other, first
			}
			first.dies(nodes[0], other)
			time.Sleep(10 * time.Second)
			memory.Pass(1000)
			time.Sleep(3 * time.Second)
			nodes[0].dies(other)
		}, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				memory := brokertest.NewMemory()
				nodes := quietNodes(t, memory, 3, 2, asIs)
				first, _ := nodes[0].joins("quiet", nil)
				fallsQuiet(memory)
				c.happens(memory, nodes)
				for _, n := range nodes[1:] {
					if !nodes[0].h.cluster.sees(n.inner.ID()) {
						continue // it has died before
					}
					m, back := n.joins("quiet", first)
					if recovered := c.reason == ""; m["recovered"] != recovered || !recovered && m["reason"] != c.reason {
						t.Errorf("got %v", m)
					}
					for range c.comes {
						back.next()
					}
				}
			})
		})
	}
}

// What a witness is told counts only as a whole: where something is missing all is told anew.
func TestAWitnessTakesWhatFollows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := quietNodes(t, brokertest.NewMemory(), 1, 2, asIs)[0]
		w, from := &n.h.cluster.witness, broker.NodeID{1}
		since := func() uint64 { return w.nothingSince("quiet", "e", 50) }
		quiet := map[string]map[string]uint64{"e": {"quiet": 10}}
		for _, c := range []struct {
			what  string
			news  quietNews
			anew  bool
			since uint64
		}{
			{"what doesn't begin", quietNews{Life: 1, Number: 2, Quiet: quiet, UpTo: map[string]uint64{"e": 60}}, true, 50},
			{"what begins", quietNews{Life: 1, Number: 1, Quiet: quiet, UpTo: map[string]uint64{"e": 49}}, false, 50},
			{"what follows", quietNews{Life: 1, Number: 2, UpTo: map[string]uint64{"e": 50}}, false, 10},
			{"the room has spoken", quietNews{Life: 1, Number: 3, Spoke: []string{"quiet"}, UpTo: map[string]uint64{"e": 60}}, false, 50},
			{"it is quiet again", quietNews{Life: 1, Number: 4, Quiet: map[string]map[string]uint64{"e": {"quiet": 40}}}, false, 40},
			{"the same again is no news", quietNews{Life: 1, Number: 4, Quiet: map[string]map[string]uint64{"e": {"quiet": 41}}}, false, 40},
			{"it is closed", quietNews{Life: 1, Number: 5, Closed: []string{"quiet"}, UpTo: map[string]uint64{"e": 200}}, false, 40},
			{"something is missing", quietNews{Life: 1, Number: 7, UpTo: map[string]uint64{"e": 70}}, true, 50},
			{"it begins again", quietNews{Life: 2, Number: 1, Quiet: quiet, UpTo: map[string]uint64{"e": 70}}, false, 10},
			{"something of before", quietNews{Life: 1, Number: 2, UpTo: map[string]uint64{"e": 80}}, true, 50},
		} {
			if a := w.hears(n.h, from, &c.news); a.Anew != c.anew || since() != c.since {
				t.Errorf("%s: %+v, nothing since %d", c.what, a, since())
			}
			if since := w.nothingSince("quiet", "e", 100); since != 100 {
				t.Errorf("%s: nothing is said to have come up to 100 since %d", c.what, since)
			}
		}
	})
}

// A witness counts what it keeps, and keeps a sixteenth of what the node may. It forgets what was told of a room that is closed,
// or by a node that is gone, when the log can't prove the rest any more.
func TestWhatAWitnessKeepsIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		nodes := quietNodes(t, memory, 2, 2, func(c *Config) { c.MaxBufferedBytes = 16 * 10 * (quietCost + 2) })
		keeps := func() int64 { return nodes[1].h.Kept(KeptQuiet) }
		var clients []*client
		for i := range 30 {
			_, c := nodes[0].joins(fmt.Sprintf("%02d", i), nil)
			clients = append(clients, c)
		}
		fallsQuiet(memory)
		if n := keeps(); n < 10*(quietCost+2) || n > 11*(quietCost+2) {
			t.Errorf("%d bytes are kept of 30 rooms", n)
		}
		for i, c := range clients {
			c.asks(`"msg_type":"leave_room","room":"%02d"`, i)
		}
		time.Sleep(quietAge - 10*time.Second)
		if keeps() == 0 {
			t.Error("rooms that are closed are forgotten while they may be needed")
		}
		time.Sleep(20 * time.Second)
		if n := keeps(); n != 0 {
			t.Errorf("%d bytes are kept of rooms that were closed for long", n)
		}
		nodes[0].joins("last", nil)
		fallsQuiet(memory)
		if keeps() == 0 {
			t.Error("there was place again, and nothing is kept")
		}
		nodes[0].dies(nodes[1])
		time.Sleep(quietAge - 10*time.Second)
		if keeps() == 0 {
			t.Error("it is forgotten while it may be needed")
		}
		time.Sleep(time.Minute)
		if n := keeps(); n != 0 {
			t.Errorf("%d bytes are kept of a node that is gone for long", n)
		}
	})
}

// Random people, each in one room of three, on nodes that are killed, cut off and lose what they tell each other, and in a log
// that may be lost: who is told that nothing is missing has all that was said. In virtual time; the name of a run is its seed,
// and what is random in the broker isn't repeated.
func TestNobodyIsToldWrongOfAQuietRoom(t *testing.T) {
	runs := uint64(30)
	if testing.Short() {
		runs = 8
	}
	recovered := 0
	for seed := range runs {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { recovered += playQuiet(t, rand.New(rand.NewPCG(seed, 17))) })
		})
	}
	if recovered == 0 {
		t.Error("nobody was recovered")
	}
}

// quietWorld is what these people live in.
type quietWorld struct {
	t         *testing.T
	r         *rand.Rand
	memory    *brokertest.Memory
	nodes     []*testNode
	cut       []bool
	people    []*patient
	said      map[string][]uint64 // by epoch and room: the offsets of what was said
	recovered int
}

// patient is in one room for good, on one node after the other.
type patient struct {
	w    *quietWorld
	room string
	c    *client // nil while it is away
	node *testNode
	at   map[string]any // the position up to which it has all, or was told that it hasn't; nil at first
}

func playQuiet(t *testing.T, r *rand.Rand) int {
	w := &quietWorld{t: t, r: r, memory: brokertest.NewMemory(), cut: make([]bool, 3), said: map[string][]uint64{}}
	w.nodes = quietNodes(t, w.memory, 3, 2, asIs)
	for i := range 6 {
		w.people = append(w.people, &patient{w: w, room: fmt.Sprint("room ", i%3)})
	}
	steps := []func(){w.wait, w.wait, w.wait, w.wait, w.wait, w.pass, w.pass, w.say, w.say, w.burst, w.move, w.move, w.move, w.kill, w.cutOff, w.heal, w.lossy, w.whole, w.lose}
	for range 120 {
		steps[r.IntN(len(steps))]()
		synctest.Wait()
		for _, p := range w.people {
			p.look()
		}
	}
	for i := range w.cut {
		w.memory.Cut(w.nodes[i].inner, false)
	}
	w.whole()
	time.Sleep(10 * time.Second)
	return w.recovered
}

func (w *quietWorld) node() *testNode { return w.nodes[w.r.IntN(len(w.nodes))] }
func (w *quietWorld) wait()           { time.Sleep(time.Duration(w.r.IntN(40)) * time.Second) }
func (w *quietWorld) pass()           { w.memory.Pass(1 + w.r.Uint64N(1000)) }
func (w *quietWorld) say()            { w.sayIn(fmt.Sprint("room ", w.r.IntN(3))) }

// burst pushes out all that a room keeps.
func (w *quietWorld) burst() {
	room := fmt.Sprint("room ", w.r.IntN(3))
	for range 3 {
		w.sayIn(room)
	}
}

func (w *quietWorld) sayIn(room string) {
	at, _, err := w.node().h.Publish(w.t.Context(), &Publication{Room: room, Content: []byte("1")})
	if err != nil {
		w.t.Fatal(err)
	}
	w.said[at.Epoch+room] = append(w.said[at.Epoch+room], at.Offset)
}

func (w *quietWorld) kill() {
	i := w.r.IntN(len(w.nodes))
	if w.cut[i] || w.r.IntN(2) == 0 {
		return
	}
	n := w.nodes[i]
	n.mu.Lock()
	end := n.end
	n.mu.Unlock()
	end()
	w.nodes[i] = newTestNode(w.t, w.memory, func(c *Config) { quietRooms(c, 2) })
	for _, p := range w.people {
		if p.node == n {
			p.c = nil
		}
	}
	time.Sleep(time.Duration(w.r.IntN(3000)) * time.Millisecond)
}

func (w *quietWorld) cutOff() { w.setCut(w.r.IntN(3), true) }
func (w *quietWorld) heal()   { w.setCut(w.r.IntN(3), false) }

func (w *quietWorld) setCut(i int, cut bool) {
	w.cut[i] = cut
	w.memory.Cut(w.nodes[i].inner, cut)
}

// lossy has a node lose half of what it tells its witness, or is answered; whole has all lose nothing any more.
func (w *quietWorld) lossy() {
	w.node().losing(func(kind callKind) (question, answer bool) {
		return kind == callQuiet && rand.IntN(4) == 0, kind == callQuiet && rand.IntN(4) == 0
	})
}

func (w *quietWorld) whole() {
	for _, n := range w.nodes {
		n.losing(nil)
	}
}

func (w *quietWorld) lose() {
	if w.r.IntN(4) == 0 {
		w.memory.Lose()
	}
}

// move has one go away, or come back to any node.
func (w *quietWorld) move() {
	p := w.people[w.r.IntN(len(w.people))]
	if p.c != nil {
		p.c.say(`{"msg_type":"leave_room","room":%q}`, p.room)
		synctest.Wait()
		p.look()
		p.c = nil
		if w.r.IntN(2) == 0 {
			return
		}
	}
	p.node = w.node()
	m, c := p.node.joins(p.room, p.at)
	if m["msg_type"] != "joined" {
		return
	}
	p.c = c
	if m["recovered"] != true {
		p.at = map[string]any{"epoch": m["epoch"], "offset": m["offset"]}
		return
	}
	w.recovered++
	synctest.Wait()
	p.look()
	if missing := p.missing(1e18); len(missing) > 0 {
		w.t.Fatalf("who was at %v was told that nothing is missing (%v), and has not got %v", p.at, m, missing)
	}
	if m["offset"].(float64) > p.at["offset"].(float64) {
		p.at["offset"] = m["offset"]
	}
}

// missing is what was said behind the position of p and before an offset.
func (p *patient) missing(before float64) (offsets []uint64) {
	for _, offset := range p.w.said[p.at["epoch"].(string)+p.room] {
		if float64(offset) > p.at["offset"].(float64) && float64(offset) < before {
			offsets = append(offsets, offset)
		}
	}
	return offsets
}

// look takes all that has come.
func (p *patient) look() {
	for p.c != nil {
		select {
		case m, open := <-p.c.got:
			if !open {
				p.c = nil
				return
			}
			switch m["msg_type"] {
			case "room_message":
				if missing := p.missing(m["offset"].(float64)); len(missing) > 0 {
					p.w.t.Fatalf("%v comes, and %v have not", m, missing)
				}
				p.at["offset"] = m["offset"]
			case "gap":
				if epoch := m["epoch"]; epoch != nil {
					p.at["epoch"] = epoch
				}
				if to := m["to_offset"]; to != nil {
					p.at["offset"] = to
				}
			}
		default:
			return
		}
	}
}

// A room that was closed at its node in one log, and later in another (its policy was changed, and back): what is said of the
// first log must not grow over what came there meanwhile.
func TestWhatIsToldOfARoomInOneLogDoesNotGrowInAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := quietNodes(t, brokertest.NewMemory(), 1, 2, asIs)[0]
		w, from := &n.h.cluster.witness, broker.NodeID{1}
		for i, news := range []quietNews{
			{Quiet: map[string]map[string]uint64{"e1": {"room": 10, "other": 5}}, UpTo: map[string]uint64{"e1": 50}},
			{Closed: []string{"room"}},          // nothing in (10, 50]
			{UpTo: map[string]uint64{"e1": 90}}, // of "other" alone: at 60 "room" has had a message, elsewhere
			{Quiet: map[string]map[string]uint64{"e2": {"room": 3}}, UpTo: map[string]uint64{"e2": 4}},
			{Closed: []string{"room"}}, // in the log e2
		} {
			news.Life, news.Number = 1, uint64(i+1)
			if a := w.hears(n.h, from, &news); a.Anew {
				t.Fatal(a)
			}
		}
		if since := w.nothingSince("room", "e1", 90); since != 90 {
			t.Errorf("the witness says that nothing came in (%d, 90], and knows it of (10, 50] only", since)
		}
	})
}
