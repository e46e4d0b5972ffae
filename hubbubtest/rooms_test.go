package hubbubtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.com/hubbub"
	"example.com/hubbub/internal/audit"
	"example.com/hubbub/internal/model"
	"example.com/hubbub/internal/wsclient"
)

// Random people in random rooms over random lines, in virtual time; then the checker says whether anything was lost in
// silence, doubled or out of order. A failure prints the shortest history that shows it, and how to repeat it:
// -rapid.failfile=..., or -rapid.seed=...; -rapid.checks=1000 looks longer. What is random in the server itself (the
// first ping, the order of two publishes at once) is not repeated.

// init has fewer runs than rapid would, to keep go test short; the command line goes before.
func init() { flag.Set("rapid.checks", "50") }

func TestRoomsKeepTheirPromises(t *testing.T) { playRooms(t, nil) }

// The same with an application whose hooks refuse, fail, panic, end their goroutine, and stall beyond their time.
func TestRoomsKeepTheirPromisesWhateverHooksDo(t *testing.T) { playRooms(t, newMoody) }

func playRooms(t *testing.T, hooks func(*rapid.T) *moody) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			w := newWorld(t, hooks)
			t.Repeat(map[string]func(*rapid.T){ // each is as likely as the other
				"join": w.join, "leave": w.leave, "leave and return": w.leaveAndReturn,
				"publish": w.publish, "publish again": w.publish, "publish twice": w.publishTwice, "burst": w.burst, "flood": w.flood, "flood again": w.flood,
				"application": w.application, "take back": w.takeBack, "take back more": w.takeBack, "put in": w.putIn, "chat": w.chat, "direct": w.direct,
				"cut": w.cut, "stall": w.stall, "resume": w.resume, "slow": w.slow,
				"go away": w.goAway, "come back": w.comeBack, "come back again": w.comeBack, "take over": w.takeOver, "name rooms": w.nameRooms,
				"who is there": w.ask, "step": w.step, "check": w.check,
			})
			w.check(t)
			w.quiet(t)
			if w.moody != nil {
				w.moody.judge(t)
			}
		})
	})
}

// world is the server, the people, and what the test knows of them.
type world struct {
	srv    *Server
	people []*person
	rooms  []string
	ids    int
	said   map[string]publication // by content

	policies map[string]model.Policy
	put      map[string]bool            // by room and client id, whom the application has put in
	cleared  map[string]hubbub.Position // by room, where it was when all was taken back last
	window   time.Duration              // in which a session may be resumed; 0: never
	moody    *moody                     // nil for an application without hooks
}

// person comes and goes; each time it is another Client.
type person struct {
	*Client
	rooms map[string]bool // that it wants to be in
	alive time.Time       // when the server had its connection for certain
	bye   bool            // it has said good-bye, or tried to
}

// histories are none; the default; one that is soon full; and two that don't fit into the buffers on the way to a
// client.
var histories = []hubbub.History{
	{},
	{Messages: 100, Age: 2 * time.Minute, Bytes: 64 << 10},
	{Messages: 20, Age: 30 * time.Second, Bytes: 8 << 10},
	{Messages: 60, Age: time.Hour, Bytes: 1 << 20},
	{Messages: 1000, Age: time.Hour, Bytes: 1 << 20},
}

// flows are what may happen to a slow reader.
var flows = []string{"disconnect", "drop-oldest", "latest", "latest-by-key"}

type publication struct {
	room string
	at   time.Time
	size int
	once bool // with a publish_id, which is the content
}

func newWorld(t *rapid.T, hooks func(*rapid.T) *moody) *world {
	w := &world{rooms: []string{"red", "blue"}, said: map[string]publication{}, policies: map[string]model.Policy{}, cleared: map[string]hubbub.Position{}, put: map[string]bool{}}
	cfg := hubbub.Config{
		Workers: rapid.IntRange(1, 3).Draw(t, "workers"), MaxMessageBytes: 8 << 10, SendQueueBytes: 16 << 10, SendQueueAge: 20 * time.Second,
	}
	for _, room := range w.rooms {
		h := rapid.SampledFrom(histories).Draw(t, room)
		w.policies[room] = model.Policy{History: model.History{Messages: h.Messages, Age: h.Age, Bytes: h.Bytes}}
		cfg.Rooms = append(cfg.Rooms, hubbub.RoomPolicy{
			Match: room, History: &h, SlowConsumer: rapid.SampledFrom(flows).Draw(t, "flow of "+room),
			IncludeSender: rapid.Bool().Draw(t, "senders of "+room+" get their own"),
			Presence:      rapid.SampledFrom([]string{"off", "count", "full", "full"}).Draw(t, "presence in "+room),
		})
	}
	cfg.SlowConsumer = rapid.SampledFrom(flows).Draw(t, "flow of chats")
	cfg.ResumeWindow = rapid.SampledFrom([]time.Duration{-1, 5 * time.Second, 30 * time.Second, 10 * time.Minute}).Draw(t, "window")
	w.window = max(0, cfg.ResumeWindow)
	if hooks != nil {
		w.moody = hooks(t)
		t.Cleanup(func() { w.moody.over(t) }) // behind the server's own
		cfg.Hooks, cfg.Logger, cfg.HookTimeout = w.moody.hooks(), w.moody.logger(), 2*time.Second
		cfg.DedupWindow = 24 * time.Hour // what is sent again may wait for minutes, behind hooks
		cfg.MaxHookCalls = rapid.SampledFrom([]int{1, 3, 1000}).Draw(t, "hooks at once")
	}
	w.srv = NewServer(t, cfg)
	for _, name := range []string{"ann", "bob", "cat", "dan"} {
		p := &person{rooms: map[string]bool{}, alive: time.Now()}
		var err error
		for tries := 0; ; tries++ {
			if p.Client, err = w.srv.ConnectWith(name, Options{Buffer: 4 << 10}); err == nil {
				break
			}
			if !w.moody.refuses(err) || tries == 100 {
				t.Fatalf("%s isn't let in: %v", name, err)
			}
		}
		p.alive = time.Now()
		w.people = append(w.people, p)
		for _, room := range w.rooms {
			p.rooms[room] = true
			p.Send(map[string]any{"msg_type": "join_room", "room": room, "id": w.id()})
		}
	}
	return w
}

// someone is a random person whose connection stands, as far as is known; it skips where there is none.
func (w *world) someone(t *rapid.T) *person {
	here := map[string]*person{}
	for _, p := range w.people {
		if !p.Closed() {
			here[p.Name] = p
		}
	}
	if len(here) == 0 {
		t.Skip("nobody is here")
	}
	return here[rapid.SampledFrom(slices.Sorted(maps.Keys(here))).Draw(t, "who")]
}

func (w *world) room(t *rapid.T) string {
	return rapid.SampledFrom(w.rooms).Draw(t, "room")
}

func (w *world) id() int {
	w.ids++
	return 1_000_000 + w.ids // apart from those that Request gives
}

// content is another each time.
func (w *world) content(room string, size int) string {
	s := fmt.Sprintf("%d %s", len(w.said), strings.Repeat("x", size))
	w.said[text(s)] = publication{room: room, at: time.Now(), size: len(s)}
	return s
}

func (w *world) join(t *rapid.T) {
	p, room := w.someone(t), w.room(t)
	p.rooms[room] = true
	join := map[string]any{"msg_type": "join_room", "room": room, "id": w.id()}
	if n := rapid.IntRange(0, 2).Draw(t, "data"); n > 0 {
		join["data"] = n
	}
	p.Send(join)
}

// ask has one ask who is in a room, member or not.
func (w *world) ask(t *rapid.T) { w.askWho(w.someone(t), w.room(t)) }

func (w *world) askWho(p *person, room string) {
	p.Send(map[string]any{"msg_type": "presence", "room": room, "id": w.id()})
}

// quiet waits until no session is kept whose client is gone, and all that was to be told of members has been told.
func (w *world) quiet(t *rapid.T) {
	w.resume(t)
	Step(w.window + 3*time.Minute)
	w.check(t)
	for _, p := range w.people {
		for _, room := range w.rooms {
			if !p.Closed() {
				w.askWho(p, room)
			}
		}
	}
	w.check(t)
}

func (w *world) leave(t *rapid.T) {
	p, room := w.someone(t), w.room(t)
	delete(p.rooms, room)
	p.Send(map[string]any{"msg_type": "leave_room", "room": room, "id": w.id()})
}

// leaveAndReturn has one join a room again, from where it is, while others publish there. It doesn't look away while it
// is gone, so its position can't move in between.
func (w *world) leaveAndReturn(t *rapid.T) {
	p, room := w.someone(t), w.room(t)
	for range rapid.IntRange(0, 3).Draw(t, "own") {
		w.say(p, room, 10, true)
	}
	w.burst(t)
	if _, err := p.request(map[string]any{"msg_type": "leave_room", "room": room}); err != nil {
		return // its line is cut or stalled
	}
	w.say(p, room, 10, true)
	w.burst(t)
	p.rooms[room] = true
	join := map[string]any{"msg_type": "join_room", "room": room, "id": w.id()}
	if since := p.Position(room); since.Epoch != "" {
		join["since"] = since
	}
	if !rapid.Bool().Draw(t, "over a stalled line") {
		p.Send(join)
		w.burst(t)
		return
	}
	p.Link.Stall(ToClient) // until "resume": what it missed may be gone by then
	p.Send(join)
	Step(0)
	for _, o := range w.people {
		if o != p && !o.Closed() {
			w.floodRoom(o, room)
		}
	}
}

func (w *world) say(p *person, room string, size int, answered bool) {
	m := map[string]any{"msg_type": "room_message", "room": room, "content": w.content(room, size)}
	if n := len(w.said) % 4; n > 0 {
		m["key"] = fmt.Sprint(n)
	}
	if answered {
		m["id"] = w.id()
	}
	if answered && size < 1000 {
		said := w.said[text(m["content"])]
		said.once = true
		w.said[text(m["content"])] = said
		m["publish_id"] = m["content"]
	}
	p.Send(m)
}

// publishTwice is a client that has not waited for the answer.
func (w *world) publishTwice(t *rapid.T) {
	p, room := w.someone(t), w.room(t)
	m := map[string]any{"msg_type": "room_message", "room": room, "content": w.content(room, 10)}
	m["publish_id"] = m["content"]
	for range 2 {
		m["id"] = w.id()
		p.Send(m)
	}
}

func (w *world) publish(t *rapid.T) {
	w.say(w.someone(t), w.room(t), rapid.IntRange(0, 300).Draw(t, "size"), rapid.Bool().Draw(t, "with an id"))
}

// flood is more than a stalled reader's queue holds.
func (w *world) flood(t *rapid.T) { w.floodRoom(w.someone(t), w.room(t)) }

func (w *world) floodRoom(p *person, room string) {
	for range 30 {
		w.say(p, room, 4000, true)
	}
}

// burst has everyone publish at once: who is first is for the workers to decide.
func (w *world) burst(t *rapid.T) {
	room := w.room(t)
	for range rapid.IntRange(2, 6).Draw(t, "rounds") {
		for _, p := range w.people {
			if !p.Closed() {
				w.say(p, room, 10, true)
			}
		}
	}
}

func (w *world) application(t *rapid.T) {
	room := w.room(t)
	if _, err := w.srv.Publish(context.Background(), hubbub.Publication{Room: room, Content: w.content(room, 20)}); err != nil {
		t.Fatalf("the application can't publish: %v", err)
	}
}

// takeBack has the application take back one of the newest messages of a room, or all.
func (w *world) takeBack(t *rapid.T) {
	room, back := w.room(t), rapid.Uint64Range(0, 40).Draw(t, "back")
	r, err := w.srv.Room(context.Background(), room)
	if err != nil {
		return // nobody is there
	}
	switch at := r.Position; {
	case back == 0:
		err = w.srv.DeleteHistory(context.Background(), room)
		if r, _ := w.srv.Room(context.Background(), room); err == nil { // others may publish meanwhile
			w.cleared[room] = r.Position
		}
	case at.Offset >= back:
		at.Offset -= back - 1
		err = w.srv.DeleteMessage(context.Background(), room, at)
	}
	if err != nil && !errors.Is(err, hubbub.ErrNoPosition) && !errors.Is(err, hubbub.ErrNoHistory) && !errors.Is(err, hubbub.ErrOverloaded) {
		t.Fatalf("the application can't take back: %v", err)
	}
}

// putIn has the application put somebody into a room, who may be away.
func (w *world) putIn(t *rapid.T) {
	p, room := rapid.SampledFrom(w.people).Draw(t, "who"), w.room(t)
	w.put[room+p.ID] = true
	err := w.srv.Join(context.Background(), room, p.ID)
	if err != nil && !errors.Is(err, hubbub.ErrUnknownClient) {
		t.Fatalf("the application can't put %s into %s: %v", p.Name, room, err)
	}
}

func (w *world) chat(t *rapid.T) {
	w.someone(t).Send(map[string]any{"msg_type": "chat", "content": w.content("", 10), "id": w.id()})
}

func (w *world) direct(t *rapid.T) {
	w.someone(t).Send(map[string]any{"msg_type": "direct_message", "to": w.someone(t).ID, "content": w.content("", 10), "id": w.id()})
}

var directions = []Direction{ToServer, ToClient, Both}

func (w *world) cut(t *rapid.T) {
	l, d, n := w.someone(t).Link, rapid.SampledFrom(directions).Draw(t, "direction"), rapid.IntRange(0, 1000).Draw(t, "bytes")
	if rapid.Bool().Draw(t, "abruptly") {
		l.CutAfter(d, n)
	} else {
		l.EndAfter(d, n)
	}
}

func (w *world) stall(t *rapid.T) {
	w.someone(t).Link.Stall(rapid.SampledFrom(directions).Draw(t, "direction"))
}

func (w *world) resume(t *rapid.T) {
	for _, p := range w.people {
		p.Link.Resume(Both)
	}
}

func (w *world) slow(t *rapid.T) {
	w.someone(t).Link.Slow(rapid.SampledFrom(directions).Draw(t, "direction"), rapid.SampledFrom([]int{0, 50, 500, 5000}).Draw(t, "rate"))
}

func (w *world) goAway(t *rapid.T) {
	p := w.someone(t)
	if rapid.Bool().Draw(t, "in good order") && !p.Link.stalled() {
		p.Link.Slow(Both, 0)
		p.bye = true
		p.queue(wsclient.Close, true, wsclient.ClosePayload(1000, ""))
		Step(0)
		return
	}
	p.Drop()
}

func (w *world) step(t *rapid.T) {
	Step(rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Second, 11 * time.Second, 40 * time.Second, 3 * time.Minute}).Draw(t, "by"))
}

// check holds all that happened so far against the promises.
func (w *world) check(t *rapid.T) {
	for _, p := range w.people {
		p.Link.Slow(Both, 0)
	}
	Step(0)
	for w.moody != nil && w.moody.busy() { // a client whose hooks run isn't read for long
		Step(time.Second)
	}
	// All in one: what happened may not happen a second time, and then rapid shows nothing but this.
	faults := w.srv.Faults()
	Step(0) // nothing is under way then, so every account must fit
	faults = append(faults, audit.Server(w.srv.Server)...)
	if len(faults) > 0 {
		t.Fatalf("%s\n%s", strings.Join(faults, "\n"), w.logs())
	}
	for _, p := range w.people {
		if !p.Closed() && !p.Link.stalled() {
			p.alive = time.Now() // it has just been answered
		}
	}
}

func (w *world) logs() string {
	var b strings.Builder
	for _, c := range w.srv.all() {
		b.WriteString(c.Log())
	}
	return b.String()
}
