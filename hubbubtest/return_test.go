package hubbubtest

import (
	"slices"
	"time"

	"pgregory.net/rapid"

	"example.com/hubbub/internal/model"
)

// How people of the random rooms come back, and what they must be told then.

// late is by how much the server may be behind the clock of the test.
const late = time.Second

// comeBack connects all whose line is gone.
func (w *world) comeBack(t *rapid.T) {
	for _, p := range w.people {
		if !p.Closed() {
			continue
		}
		switch way := rapid.SampledFrom([]string{"resume", "resume", "cut", "late", "otherwise", "anew"}).Draw(t, "way"); way {
		case "anew":
			next, err := p.returnAnew()
			if w.moody.refuses(err) {
				continue
			}
			if err != nil {
				t.Fatalf("%s can't come again: %v", p.Name, err)
			}
			p.Client, p.alive, p.bye = next, time.Now(), false
			for _, room := range w.rooms {
				if p.rooms[room] {
					w.rejoin(t, p, room)
				}
			}
		default:
			w.back(t, p, way)
		}
	}
}

// takeOver has one come back whose connection still stands, or seems to.
func (w *world) takeOver(t *rapid.T) {
	p := w.someone(t)
	if w.window == 0 {
		return // this run has no resume
	}
	if p.Welcome.ResumeToken == "" {
		t.Fatal("the welcome has no token")
	}
	w.back(t, p, rapid.SampledFrom([]string{"resume", "cut"}).Draw(t, "way"))
}

// back brings one back with the token: the line is cut again before all is said; it is late with its message resume; or
// it sends another first.
func (w *world) back(t *rapid.T, p *person, way string) {
	old, o := p.Client, p.options
	o.Token = old.Welcome.ResumeToken
	if way == "cut" {
		d, n := rapid.SampledFrom(directions).Draw(t, "direction"), rapid.IntRange(0, 1000).Draw(t, "bytes")
		end := rapid.SampledFrom([]func(*Link, Direction, int){(*Link).CutAfter, (*Link).EndAfter}).Draw(t, "end")
		o.Link = func(l *Link) { end(l, d, n) }
	}
	must, may := w.resumable(p)
	next, err := old.returnWith(o)
	if w.moody.refuses(err) {
		return // its session is what it was: the next one must find it
	}
	must = must && time.Since(p.alive) < w.window-late // Connect may have taken long
	if err != nil {
		if way != "cut" {
			t.Fatalf("%s can't come back: %v", p.Name, err)
		}
		return
	}
	if is := next.Welcome.Resumed; must && !is || is && !may {
		t.Fatalf("%s is told resumed: %t, and must: %t, may: %t\n%s", p.Name, is, must, may, w.logs())
	}
	old.Link.Slow(Both, 0) // or the check would wait for one that has been taken over
	p.Client, p.alive, p.bye = next, time.Now(), false
	switch way {
	case "late":
		Step(11 * time.Second)
	case "otherwise":
		if _, err := p.request(map[string]any{"msg_type": "ping"}); err != nil {
			return
		}
	}
	var named []string
	since := map[string]Position{}
	for _, room := range w.rooms {
		if p.rooms[room] {
			named = append(named, room)
			since[room] = p.Position(room)
		}
	}
	a, err := p.resume(named)
	if err != nil && (p.Closed() || w.moody != nil) {
		return
	}
	if err != nil || a.Type != "resumed" || len(a.Rooms) != len(named) {
		t.Fatalf("%s resumes %q, and is answered %s, %v", p.Name, named, a, err)
	}
	for _, room := range named {
		w.judge(t, p, room, since[room], a.Rooms[room])
	}
	if next.Welcome.Resumed {
		w.retry(old, p)
	}
}

// resumable says whether the session of a person must still be there, or may.
func (w *world) resumable(p *person) (must, may bool) {
	if w.window == 0 {
		return false, false
	}
	p.mu.Lock()
	end := p.ending
	p.mu.Unlock()
	if end == nil {
		return !p.bye && time.Since(p.alive) < w.window-late, true
	}
	if p.bye && end.code == 1000 {
		return false, false // the server has answered to the good-bye
	}
	const unnoticed = 2 * time.Minute // a line that is dead, until no Pong has come
	return !p.bye && time.Since(p.alive) < w.window-late, time.Since(end.at) < w.window+unnoticed
}

// retry sends again what was published over the old connection by publish_id and not acknowledged.
func (w *world) retry(old *Client, p *person) {
	old.mu.Lock()
	var again []model.Event
	for _, e := range old.requests {
		again = append(again, e)
	}
	old.mu.Unlock()
	slices.SortFunc(again, func(a, b model.Event) int { return int(a.At - b.At) })
	for _, e := range again {
		said := w.said[e.Message]
		if e.Kind != model.Sent || !said.once || time.Since(said.at) > 2*time.Minute-late {
			continue
		}
		content := e.Message[1 : len(e.Message)-1] // a JSON string without escapes
		m := map[string]any{"msg_type": "room_message", "room": e.Room, "content": content, "publish_id": content, "id": w.id()}
		if e.Key != "" {
			m["key"] = e.Key
		}
		p.Send(m)
	}
}

// nameRooms sends resume when it isn't the first message: then it joins.
func (w *world) nameRooms(t *rapid.T) {
	p := w.someone(t)
	named := map[string]any{}
	for _, room := range w.rooms {
		if p.rooms[room] = true; rapid.Bool().Draw(t, "with a position") && p.Position(room).Epoch != "" {
			named[room] = p.Position(room)
		} else {
			named[room] = nil
		}
	}
	p.Send(map[string]any{"msg_type": "resume", "id": w.id(), "rooms": named})
}

// rejoin joins a room, where there is history from where the person was.
func (w *world) rejoin(t *rapid.T, p *person, room string) {
	join, since := map[string]any{"msg_type": "join_room", "room": room}, p.Position(room)
	if since.Epoch != "" {
		join["since"] = since
	}
	a, err := p.request(join)
	switch {
	case err != nil && p.Closed():
		return // what others said was too much for it
	case w.moody != nil && (err != nil || a.Type == "error"):
		return
	case err != nil || a.Type != "joined":
		t.Fatalf("%s joins %q since %+v, and is answered %s, %v", p.Name, room, since, a, err)
	}
	w.judge(t, p, room, since, a)
}

// judge holds what became of one who has all up to since against what the history must have.
func (w *world) judge(t *rapid.T, p *person, room string, since Position, a Message) {
	switch {
	case w.moody != nil && (a.Retry || a.Reason == "forbidden"): // the application doesn't want it there
	case a.Recovered && (since.Epoch == "" || a.Epoch != since.Epoch):
		t.Fatalf("%s, away from %q since %+v, is told that nothing is missing: %+v", p.Name, room, since, a)
	case since.Epoch != "" && !a.Recovered && a.Reason == "":
		t.Fatalf("%s, away from %q since %+v, is not told why it isn't recovered: %+v", p.Name, room, since, a)
	case w.put[room+p.ID]: // it may have been in the room already, and then nothing is brought
	case since.Epoch != "" && !a.Recovered && w.covers(room, since, a.Position):
		t.Fatalf("%s, away from %q since %+v, is told %+v, and the history must go back far enough at %s:\n%s", p.Name, room, since, a, time.Now(), w.logs())
	}
}

// covers says that the room, which is at a position now, must have all that came since another one. Each message is
// taken for a little older and larger than it is; one that nobody has seen with its offset, for the oldest and largest
// of these.
func (w *world) covers(room string, since, now Position) bool {
	if at := w.cleared[room]; at.Epoch == since.Epoch && at.Offset > uint64(since.Offset) {
		return false
	}
	known, worst := w.known(room, since.Epoch)
	if now.Epoch != since.Epoch { // it must not be gone while a message may be kept
		for _, m := range known {
			if time.Since(m.At) < w.policies[room].History.Age {
				return true
			}
		}
		return false
	}
	r := model.NewRoom(since.Epoch, w.policies[room])
	if since.Offset > 0 {
		r.Publish(model.Message{Offset: since.Offset, At: time.Now()}) // the person has this one
	}
	for offset := since.Offset + 1; offset <= now.Offset; offset++ {
		m, ok := known[offset]
		if !ok {
			m = worst
		}
		m.Offset = offset
		r.Publish(m)
	}
	return since.Offset >= now.Offset || r.JoinSince("", model.Position(since), time.Now()).Recovered
}

// known is the messages of an epoch by offset, and the worst of those whose place is unknown.
func (w *world) known(room, epoch string) (known map[int64]model.Message, worst model.Message) {
	const overhead = 256
	known, worst = map[int64]model.Message{}, model.Message{At: time.Now()}
	placed := map[string]bool{} // in this epoch or another
	for _, c := range w.srv.all() {
		requests := map[string]string{}
		for _, e := range c.copyLog().Events {
			content := e.Message
			switch e.Kind {
			case model.Sent:
				requests[e.ID] = content
			case model.Acked:
				content = requests[e.ID]
			}
			said := w.said[content]
			if e.Offset == 0 || said.room != room {
				continue
			}
			placed[content] = true
			if e.Epoch == epoch {
				known[e.Offset] = model.Message{Bytes: said.size + overhead, At: said.at.Add(-late)}
			}
		}
	}
	for content, said := range w.said {
		if said.room != room || placed[content] {
			continue
		}
		worst.Bytes = max(worst.Bytes, said.size+overhead)
		if at := said.at.Add(-late); at.Before(worst.At) {
			worst.At = at
		}
	}
	return known, worst
}
