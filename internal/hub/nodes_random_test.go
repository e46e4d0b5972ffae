package hub

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/model"
)

// Random people on two and three nodes, in virtual time: they join, leave, publish, try again on other nodes, are cut off
// with their node, and come back. Then the checker holds what they saw against what rooms promise over several nodes. The
// name of a run is its seed; what is random in the broker isn't repeated.
func TestRoomsKeepTheirPromisesOnSeveralNodes(t *testing.T) {
	runs := uint64(60)
	if testing.Short() {
		runs = 10
	}
	for seed := range runs {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { playNodes(t, 2+int(seed%2), rand.New(rand.NewPCG(seed, 16))) })
		})
	}
}

// nodesWorld is the nodes, the people, and what each of them did and saw.
type nodesWorld struct {
	t      *testing.T
	r      *rand.Rand
	memory *brokertest.Memory
	nodes  []*node
	cut    []bool
	people []*walker
	logs   []*model.Log
	apps   []*model.Log         // of the application on each node
	now    int64                // of the logs
	said   []once               // by publish_id
	trying map[string]time.Time // when one of them was sent again, until that is answered
	n      int
}

// once is a message that may be published again by its id.
type once struct{ user, room, content string }

// walker is a person, on one node after the other; each time it is another log.
type walker struct {
	w    *nodesWorld
	user string
	c    *client
	log  *model.Log
	at   int // its node
	sent map[string]model.Event
}

func playNodes(t *testing.T, nodes int, r *rand.Rand) {
	w := &nodesWorld{t: t, r: r, cut: make([]bool, nodes), trying: map[string]time.Time{}}
	kept := Policy{History: history.Bounds{Messages: 1000, Age: time.Hour, Bytes: 1 << 20}, IdleTTL: time.Minute}
	w.memory, w.nodes = newNodes(t, nodes, func(c *Config) {
		c.Policies, c.ResumeWindow = NewPolicies(Disconnect, Rule{glob.New("kept"), kept}, Rule{glob.New("*"), Policy{}}), time.Minute
	})
	for i := range nodes {
		w.apps = append(w.apps, &model.Log{Name: fmt.Sprint("application ", i), Client: Server})
	}
	for i := range 2 * nodes {
		p := &walker{w: w, user: fmt.Sprint("user ", i%nodes)} // each has a client on two nodes
		p.comes(i % nodes)
		w.people = append(w.people, p)
	}
	steps := []func(){w.join, w.join, w.leave, w.say, w.say, w.say, w.burst, w.again, w.again, w.chat, w.application, w.cutOff, w.heal, w.lose, w.wait, w.wait, w.wait}
	for range 150 {
		steps[r.IntN(len(steps))]()
		for _, p := range w.people {
			p.look()
		}
	}
	for i := range w.cut {
		w.setCut(i, false)
	}
	time.Sleep(10 * time.Second)
	synctest.Wait()
	for _, p := range w.people {
		p.look()
	}
	w.judge()
}

func (w *nodesWorld) judge() {
	logs := append(slices.Clone(w.logs), w.apps...)
	policy := func(room string) model.Policy {
		p := model.Policy{SlowConsumer: "disconnect", Nodes: true}
		if room == "kept" {
			p.History = model.History{Messages: 1000, Age: time.Hour, Bytes: 1 << 20}
		}
		return p
	}
	faults := model.Check(model.Run{Logs: logs, Policy: policy})
	if len(faults) == 0 {
		return
	}
	var b strings.Builder
	for _, f := range faults {
		fmt.Fprintln(&b, f)
	}
	for _, l := range logs {
		for _, e := range l.Events {
			fmt.Fprintln(&b, "  "+l.Name+":", e)
		}
	}
	w.t.Fatal(b.String())
}

func (w *nodesWorld) someone() *walker { return w.people[w.r.IntN(len(w.people))] }
func (w *nodesWorld) room() string     { return []string{"live", "other", "kept"}[w.r.IntN(3)] }
func (w *nodesWorld) node() int        { return w.r.IntN(len(w.nodes)) }

// id is another each time.
func (w *nodesWorld) id() string {
	w.n++
	return fmt.Sprint(w.n)
}

func (w *nodesWorld) note(l *model.Log, e model.Event) {
	w.now++
	e.At, e.Time = w.now, time.Now()
	l.Events = append(l.Events, e)
}

func (w *nodesWorld) join() {
	w.someone().asks(model.Event{Kind: model.JoinSent, Room: w.room()}, `"msg_type":"join_room"`)
}
func (w *nodesWorld) leave() {
	w.someone().asks(model.Event{Kind: model.LeaveSent, Room: w.room()}, `"msg_type":"leave_room"`)
}
func (w *nodesWorld) say() { w.someone().says(w.room(), w.r.IntN(2) == 0) }

// burst has all say something at once.
func (w *nodesWorld) burst() {
	room := w.room()
	for range 3 {
		for _, p := range w.people {
			p.says(room, w.r.IntN(3) == 0)
		}
	}
}

// again has a client of the same user try again, wherever it is, what may be published already.
func (w *nodesWorld) again() {
	if len(w.said) == 0 || slices.Contains(w.cut, true) || slices.ContainsFunc(w.nodes, func(n *node) bool { return !n.seesAll(len(w.nodes) - 1) }) {
		return // a node that is cut off may be the only one that knows of it
	}
	m := w.said[max(0, len(w.said)-1-w.r.IntN(8))]
	for _, p := range w.people {
		if p.user == m.user && w.r.IntN(2) == 0 {
			p.asks(model.Event{Kind: model.Sent, Room: m.room, Message: m.content}, fmt.Sprintf(`"msg_type":"room_message","content":%s,"publish_id":%q`, m.content, m.content))
			w.trying[fmt.Sprint(w.n)] = time.Now()
		}
	}
}

func (w *nodesWorld) chat() {
	content := w.id()
	w.someone().asks(model.Event{Kind: model.Sent, Room: model.Everyone, Message: content}, `"msg_type":"chat","content":`+content)
}

func (w *nodesWorld) application() {
	i, but, content := w.node(), w.someone(), w.id()
	id, _ := ParseID([]byte(but.c.id))
	p := &Publication{Room: w.room(), Content: []byte(content), Exclude: id}
	if w.r.IntN(3) == 0 {
		p.Room, p.Everyone = "", true
	}
	e := model.Event{Kind: model.Sent, ID: content, Room: p.Room, Message: content, From: Server, Exclude: but.c.id}
	w.note(w.apps[i], e)
	at, _, err := w.nodes[i].Publish(w.t.Context(), p)
	e = model.Event{Kind: model.Acked, ID: content, Room: p.Room, Position: model.Position{Epoch: at.Epoch, Offset: int64(at.Offset)}}
	if err != nil {
		e.Kind, e.Reason = model.Refused, err.Error()
	}
	w.note(w.apps[i], e)
}

// cutOff doesn't while something is tried again: who is asked for it may be cut off from the one that knows. Who has lost
// its connection isn't answered; a node gives up before ten seconds.
func (w *nodesWorld) cutOff() {
	maps.DeleteFunc(w.trying, func(_ string, at time.Time) bool { return time.Since(at) > 10*time.Second })
	if w.r.IntN(2) == 0 && len(w.trying) == 0 {
		w.setCut(w.node(), true)
	}
}
func (w *nodesWorld) heal() { w.setCut(w.node(), false) }

// setCut cuts a node off, or joins it again.
func (w *nodesWorld) setCut(i int, cut bool) {
	if w.cut[i] != cut {
		w.cut[i] = cut
		w.memory.Cut(w.nodes[i].b, cut)
	}
}

// lose has one lose its connection, and come back at once: to its session, or to a new one on any node.
func (w *nodesWorld) lose() {
	p := w.someone()
	token := p.c.lose(w.nodes[p.at].Hub)
	synctest.Wait()
	p.look()
	w.note(p.log, model.Event{Kind: model.Closed})
	if w.r.IntN(2) == 0 {
		p.comes(w.node())
		return
	}
	of, ok := w.nodes[p.at].Resume(token)
	if !ok {
		w.t.Fatal("the token is not good")
	}
	p.is(newSession(w.t, w.nodes[p.at].l, w.nodes[p.at].session(of.ID, auth.Identity{User: p.user}, netip.Addr{}, &of)))
	id := w.id()
	for _, room := range []string{"live", "kept"} {
		w.note(p.log, model.Event{Kind: model.JoinSent, ID: id, Room: room})
	}
	p.c.say(`{"msg_type":"resume","rooms":{"live":null,"kept":null},"id":%s}`, id)
}

func (w *nodesWorld) wait() {
	time.Sleep(time.Duration(w.r.IntN(5)) * time.Millisecond)
	if w.r.IntN(10) == 0 {
		time.Sleep(time.Second)
	}
}

// comes has p connect to a node, as somebody new.
func (p *walker) comes(at int) {
	p.at = at
	p.is(p.w.nodes[at].as(p.user))
}

func (p *walker) is(c *client) {
	w := p.w
	p.c, p.sent = c, map[string]model.Event{}
	p.log = &model.Log{Name: fmt.Sprintf("%s on %d, log %d", p.user, p.at, len(w.logs)), Client: c.id}
	w.logs = append(w.logs, p.log)
	w.note(p.log, model.Event{Kind: model.JoinSent, Room: model.Everyone, ID: "welcome"})
	w.note(p.log, model.Event{Kind: model.Joined, Room: model.Everyone, ID: "welcome"})
}

// asks sends a message, which is e, and of which these are the fields beside its room and its id.
func (p *walker) asks(e model.Event, fields string) {
	e.ID = p.w.id()
	p.sent[e.ID] = e
	p.w.note(p.log, e)
	if e.Room != model.Everyone {
		fields += fmt.Sprintf(`,"room":%q`, e.Room)
	}
	p.c.say(`{%s,"id":%s}`, fields, e.ID)
}

func (p *walker) says(room string, byID bool) {
	content := p.w.id()
	fields := `"msg_type":"room_message","content":` + content
	if byID {
		fields += fmt.Sprintf(`,"publish_id":%q`, content)
		p.w.said = append(p.w.said, once{p.user, room, content})
	}
	p.asks(model.Event{Kind: model.Sent, Room: room, Message: content}, fields)
}

// look notes all that has come.
func (p *walker) look() {
	for {
		select {
		case m, ok := <-p.c.got:
			if !ok {
				return
			}
			p.sees(m)
		default:
			return
		}
	}
}

func number(v any) int64 {
	f, _ := v.(float64)
	return int64(f)
}

func (p *walker) sees(m map[string]any) {
	w := p.w
	room, _ := m["room"].(string)
	epoch, _ := m["epoch"].(string)
	reason, _ := m["reason"].(string)
	from, _ := m["from"].(string)
	e := model.Event{Room: room, Reason: reason, From: from, Position: model.Position{Epoch: epoch, Offset: number(m["offset"])}}
	if id := number(m["id"]); id > 0 {
		e.ID = fmt.Sprint(id)
		e.Room = p.sent[e.ID].Room
		delete(w.trying, e.ID)
	}
	switch m["msg_type"] {
	case "room_message", "chat":
		e.Kind, e.Message = model.Received, fmt.Sprint(number(m["content"]))
		if e.Offset > 0 {
			e.Epoch = "elsewhere1"
		}
	case "gap":
		e.Kind, e.Count, e.FromOffset, e.ToOffset = model.Gap, int(number(m["count"])), number(m["from_offset"]), number(m["to_offset"])
	case "ack":
		e.Kind = model.Acked
	case "joined":
		e.Kind, e.Room = model.Joined, room
	case "left":
		e.Kind, e.Room = model.Left, room
	case "error":
		e.Kind, e.Reason = model.Refused, m["code"].(string)
	case "resumed":
		for room, a := range m["rooms"].(map[string]any) {
			a := a.(map[string]any)
			e.Room, e.Kind = room, model.Joined
			e.Epoch, _ = a["epoch"].(string)
			e.Offset = number(a["offset"])
			if a["retry"] == true {
				e.Kind = model.Refused
				e.Reason, _ = a["reason"].(string)
			}
			w.note(p.log, e)
		}
		return
	default:
		w.t.Fatalf("%s got %v", p.log.Name, m)
	}
	w.note(p.log, e)
}
