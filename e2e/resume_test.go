package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	resumers    = 40
	resumeRooms = 5
	closer      = resumers // as a publisher: who says the last message of each room
)

func roomOf(i int) string { return fmt.Sprintf("room %d", i) }

// Forty people in five rooms, whose connections break all the time: cleanly, by resets, within frames, with bytes
// swallowed before, in the handshake and long after it. What docs/delivery.md promises must hold for each of them in
// each room.
func TestResumeThroughCutsAtRandom(t *testing.T) {
	length, seed := cutFor(t), cutSeed(t)
	config := configFile(t, "rooms:\n  - match: \"*\"\n    history: {messages: 100000, age: 10m, bytes: 64MiB}\n")
	eachIO(t, []string{"--workers", "3", "--config", config}, func(t *testing.T, s *server) {
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("HUBBUB_E2E_SEED=%d HUBBUB_E2E_CUT_FOR=%v has the same schedule", seed, length)
			}
		})
		p := startProxy(t, s, cutsAtRandom(seed))
		ctx, fail := context.WithCancel(t.Context())
		run := &cutRun{t: t, front: p.front, ctx: ctx, fail: fail, quiet: make(chan struct{}), settled: make(chan struct{}, resumers), epochs: map[string]string{}}
		var all sync.WaitGroup
		defer all.Wait()
		defer fail()
		for i := range resumers {
			r := newResumer(run, i, seed)
			run.crowd = append(run.crowd, r)
			all.Go(r.live)
		}
		pause(length, ctx.Done())
		close(p.calm)
		close(run.quiet)
		timeout := time.AfterFunc(3*patience, func() {
			t.Error("the cutting has stopped, and not everybody comes to rest")
			fail()
		})
		defer timeout.Stop()
		for range resumers {
			select {
			case <-run.settled:
			case <-ctx.Done():
			}
		}
		if ctx.Err() == nil {
			run.last = lastOfEachRoom(t, s)
		}
		all.Wait()
		run.check()
		run.checkItTookPlace(p, s, length)
	})
}

// cutFor is how long connections are cut.
func cutFor(t *testing.T) time.Duration {
	text := os.Getenv("HUBBUB_E2E_CUT_FOR")
	switch {
	case text == "" && testing.Short():
		return 5 * time.Second
	case text == "":
		return time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 3*time.Second {
		t.Fatalf("HUBBUB_E2E_CUT_FOR=%q is no time of at least 3s", text)
	}
	return d
}

func cutSeed(t *testing.T) uint64 {
	text := os.Getenv("HUBBUB_E2E_SEED")
	if text == "" {
		return rand.Uint64N(1e9) + 1
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("HUBBUB_E2E_SEED=%q: %v", text, err)
	}
	return seed
}

// lastOfEachRoom publishes what ends each room, and returns the positions. All that anybody published is acknowledged.
func lastOfEachRoom(t *testing.T, s *server) map[string]int64 {
	t.Helper()
	c := dialRaw(t, s, "/ws", "")
	c.welcomed()
	last := map[string]int64{}
	for i := range resumeRooms {
		c.write(text(fmt.Sprintf(`{"msg_type":"room_message","room":%q,"content":%s,"id":1}`, roomOf(i), body(closer, i))))
		last[roomOf(i)] = c.message("ack").num("offset")
	}
	return last
}

// cutRun is what all of the crowd share.
type cutRun struct {
	t       *testing.T
	front   *server
	ctx     context.Context // ends with the first fault, or when the time is up
	fail    func()
	quiet   chan struct{} // closed: nobody publishes anything new
	settled chan struct{} // one from each who is in all its rooms and has all its answers
	crowd   []*resumer
	last    map[string]int64 // closer's message in each room

	mu     sync.Mutex
	epochs map[string]string

	resumed, recovered, overtaken, torn, published, repeated, duplicates atomic.Int64
}

// epoch holds that a room has one for ever.
func (run *cutRun) epoch(room, epoch string) error {
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.epochs[room] == "" {
		run.epochs[room] = epoch
	}
	if epoch == "" || run.epochs[room] != epoch {
		return fmt.Errorf("the epoch of %q is %q, and was %q", room, epoch, run.epochs[room])
	}
	return nil
}

// resumer is one person, who comes back with its token after each cut and keeps what it saw.
type resumer struct {
	run     *cutRun
	me      int
	rng     *rand.Rand
	id      string // of its one session
	token   string
	wanted  []string // rooms that it joins, one after another
	rooms   map[string]*seen
	sent    []publish
	waiting []int // those of sent that nobody has acknowledged, oldest first
	settled bool
	done    bool
}

// seen is what one person saw of a room.
type seen struct {
	epoch  string
	joined int64 // the room's position then
	at     int64 // its own position
	got    []entry
}

type entry struct {
	offset int64
	by, n  int // whose publish, and which
	from   string
}

type publish struct {
	room   string
	times  int   // sent
	offset int64 // as acknowledged
}

// body is the content of a publish, made from whose it is, so that whoever gets it can tell whether it is whole. Some
// are long, so that cuts fall within frames.
func body(by, n int) string {
	pad := (by*31 + n*17) % 300
	if n%20 == 0 {
		pad *= 25
	}
	return fmt.Sprintf(`{"by":%d,"n":%d,"pad":"%s"}`, by, n, strings.Repeat("x", pad))
}

func newResumer(run *cutRun, me int, seed uint64) *resumer {
	r := &resumer{run: run, me: me, rng: rand.New(rand.NewPCG(seed, 1<<32+uint64(me))), rooms: map[string]*seen{}}
	for _, i := range r.rng.Perm(resumeRooms)[:2+r.rng.IntN(resumeRooms-2)] {
		r.wanted = append(r.wanted, roomOf(i))
	}
	return r
}

func (r *resumer) live() {
	for tries := 0; ; tries++ {
		path := "/ws"
		if r.token != "" {
			path += "?resume=" + r.token
		}
		c, err := tryDial(r.run.t, r.run.front, path)
		if err == nil {
			v := &visit{resumer: r, c: c}
			err = v.stay()
			c.Close()
			if v.entered {
				tries = 0
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				r.run.torn.Add(1)
			}
		}
		if r.done || r.run.ctx.Err() != nil {
			return
		}
		if errors.Is(err, errOvertaken) {
			r.run.overtaken.Add(1)
		} else if !lost(err) {
			r.run.t.Errorf("%d, session %q: %v", r.me, r.id, err)
			r.run.fail()
			return
		}
		away := 5*time.Millisecond + time.Duration(r.rng.Int64N(int64(10*time.Millisecond)<<min(tries, 4)))
		if r.rng.IntN(12) == 0 { // a long way within the window of 30 s
			away = time.Second + time.Duration(r.rng.Int64N(int64(3*time.Second)))
		}
		pause(away, r.run.ctx.Done())
	}
}

// visit is one connection of a resumer.
type visit struct {
	*resumer
	c        *rawConn
	welcomed bool
	entered  bool             // its session is new, or `resumed` has come
	joining  string           // the room whose `joined` is under way
	missed   map[string]int64 // the rooms' positions as it came back: what comes up to them was missed
}

// errOvertaken ends a connection whose session went to an earlier one of the same person: that one was given up during
// its handshake, and the server finished it last. The server has heard nothing over either yet, or the old token
// wouldn't count.
var errOvertaken = errors.New("closed with 4001 before anything was heard")

// stay serves a connection until it is lost, or all is done.
func (v *visit) stay() error {
	texts, ended, gone := make(chan string), make(chan error, 1), make(chan struct{})
	defer close(gone)
	go v.c.texts(texts, ended, gone)
	tick := time.NewTicker(300*time.Millisecond + time.Duration(v.rng.Int64N(int64(200*time.Millisecond))))
	defer tick.Stop()
	for !v.done {
		var err error
		select {
		case text := <-texts:
			err = v.hear(text)
		case err = <-ended:
			if v.entered && errors.Is(err, errOvertaken) {
				err = errors.New("closed with 4001, though the server has heard it")
			}
		case <-tick.C:
			err = v.act()
		case <-v.run.ctx.Done():
			return v.run.ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *visit) say(format string, args ...any) error {
	_, err := io.WriteString(v.c, text(fmt.Sprintf(format, args...)))
	return err
}

// act does a bit of what people do.
func (v *visit) act() error {
	if !v.entered {
		return nil
	}
	quiet := false
	select {
	case <-v.run.quiet:
		quiet = true
	default:
	}
	if v.joining == "" && len(v.rooms) < len(v.wanted) && (quiet || v.rng.IntN(4) == 0) {
		v.joining = v.wanted[len(v.rooms)]
		if err := v.say(`{"msg_type":"join_room","room":%q,"id":"join"}`, v.joining); err != nil {
			return err
		}
	}
	for range 1 + v.rng.IntN(3) { // several may be without an answer
		if quiet {
			break
		}
		v.sent = append(v.sent, publish{room: roomOf(v.rng.IntN(resumeRooms))})
		v.waiting = append(v.waiting, len(v.sent)-1)
		v.run.published.Add(1)
		if err := v.publish(len(v.sent) - 1); err != nil {
			return err
		}
	}
	if !v.settled && len(v.waiting) == 0 && len(v.rooms) == len(v.wanted) {
		v.settled = true
		v.run.settled <- struct{}{}
	}
	return nil
}

func (v *visit) publish(n int) error {
	v.sent[n].times++
	return v.say(`{"msg_type":"room_message","room":%q,"content":%s,"publish_id":"p%d","id":%d}`, v.sent[n].room, body(v.me, n), n, n)
}

// reply is anything that the server sends.
type reply struct {
	Type      string `json:"msg_type"`
	ID        any
	ClientID  string `json:"client_id"`
	Token     string `json:"resume_token"`
	Resumed   bool
	Room      string
	From      string
	Content   json.RawMessage
	Epoch     string
	Offset    int64
	Duplicate bool
	Rooms     map[string]struct {
		Epoch     string
		Offset    int64
		Recovered bool
	}
}

func (v *visit) hear(text string) error {
	var m reply
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return fmt.Errorf("%.300q: %v", text, err)
	}
	right := false
	var err error
	switch m.Type {
	case "welcome":
		if right = !v.welcomed && m.ClientID != "" && m.Token != "" && m.Token != v.token && m.Resumed == (v.id != "") && (v.id == "" || m.ClientID == v.id); right {
			err = v.enter(m)
		}
	case "resumed":
		if right = v.welcomed && !v.entered && m.ID == "resume" && len(m.Rooms) == len(v.rooms); right {
			right, err = v.returned(m)
		}
	case "joined":
		if right = v.entered && m.ID == "join" && m.Room == v.joining && m.Room != ""; right {
			v.rooms[m.Room] = &seen{epoch: m.Epoch, joined: m.Offset, at: m.Offset}
			v.joining = ""
			err = v.run.epoch(m.Room, m.Epoch)
		}
	case "ack":
		right, err = v.acknowledged(m)
	case "room_message":
		right, err = v.got(m)
	case "pong":
		v.done = m.ID == "end"
		right = v.done
	}
	if !right { // a gap and an error too
		return fmt.Errorf("%.300s\nwith the session %q, welcomed %v, entered %v, joining %q, waiting for %v", text, v.id, v.welcomed, v.entered, v.joining, v.waiting)
	}
	return err
}

// enter answers the welcome: it resumes, and at once sends again what has no answer.
func (v *visit) enter(m reply) error {
	v.welcomed, v.entered = true, !m.Resumed
	v.id, v.token = m.ClientID, m.Token
	if m.Resumed {
		rooms := map[string]any{}
		for name, s := range v.rooms {
			rooms[name] = map[string]any{"epoch": s.epoch, "offset": s.at}
		}
		positions, _ := json.Marshal(rooms)
		if err := v.say(`{"msg_type":"resume","rooms":%s,"id":"resume"}`, positions); err != nil {
			return err
		}
	}
	for _, n := range v.waiting {
		v.run.repeated.Add(1)
		if err := v.publish(n); err != nil {
			return err
		}
	}
	return nil
}

func (v *visit) returned(m reply) (right bool, err error) {
	v.entered, v.missed = true, map[string]int64{}
	for name, now := range m.Rooms {
		s := v.rooms[name]
		if s == nil || !now.Recovered || now.Epoch != s.epoch || now.Offset < s.at {
			return false, nil
		}
		v.missed[name] = now.Offset
	}
	v.run.resumed.Add(1)
	return true, nil
}

func (v *visit) acknowledged(m reply) (right bool, err error) {
	n, ok := m.ID.(float64)
	i := slices.Index(v.waiting, int(n))
	if !ok || i < 0 || !v.entered || m.Offset == 0 {
		return false, nil
	}
	v.waiting = slices.Delete(v.waiting, i, i+1)
	p := &v.sent[int(n)]
	p.offset = m.Offset
	if m.Duplicate {
		v.run.duplicates.Add(1)
	}
	return !m.Duplicate || p.times > 1, v.run.epoch(p.room, m.Epoch)
}

func (v *visit) got(m reply) (right bool, err error) {
	var content struct{ By, N int }
	s := v.rooms[m.Room]
	if err := json.Unmarshal(m.Content, &content); err != nil || !v.entered || s == nil {
		return false, nil
	}
	if content.By == v.me || m.From == v.id || string(m.Content) != body(content.By, content.N) || m.Offset <= s.at {
		return false, nil
	}
	if m.Offset <= v.missed[m.Room] {
		v.run.recovered.Add(1)
	}
	s.at = m.Offset
	s.got = append(s.got, entry{m.Offset, content.By, content.N, m.From})
	if content.By == closer && v.ended() {
		return true, v.say(`{"msg_type":"ping","id":"end"}`) // what comes before its answer must not be
	}
	return true, nil
}

// ended says whether all its rooms' last messages have come.
func (v *visit) ended() bool {
	for _, s := range v.rooms {
		if len(s.got) == 0 || s.got[len(s.got)-1].by != closer {
			return false
		}
	}
	return true
}

// texts reads a connection in a goroutine of its own: what comes, then why no more does.
func (c *rawConn) texts(texts chan<- string, ended chan<- error, gone <-chan struct{}) {
	for {
		first, payload, err := c.read()
		switch {
		case err != nil:
		case first == fin|opText:
			select {
			case texts <- payload:
			case <-gone:
				return
			}
		case first == fin|opPing:
			_, err = io.WriteString(c, frame(fin|opPong, payload))
		case first == fin|opClose && strings.HasPrefix(payload, "\x0f\xa1"):
			err = errOvertaken
		default:
			err = fmt.Errorf("a frame %#x %.200q", first, payload)
		}
		if err != nil {
			ended <- err
			return
		}
	}
}

// check holds what everybody saw against what was acknowledged.
func (run *cutRun) check() {
	if run.t.Failed() {
		for _, r := range run.crowd {
			if !r.done && run.last != nil {
				run.t.Logf("%d is not done: settled %v, waiting for %v, in %v of %v", r.me, r.settled, r.waiting, slices.Sorted(maps.Keys(r.rooms)), r.wanted)
			}
		}
		return
	}
	for i := range resumeRooms {
		room := roomOf(i)
		log := run.log(room, i)
		for _, r := range run.crowd {
			s := r.rooms[room]
			if s == nil {
				continue
			}
			var want []entry
			for _, e := range log {
				if e.offset > s.joined && e.by != r.me {
					want = append(want, e)
				}
			}
			for j, e := range want {
				if j >= len(s.got) || s.got[j].offset != e.offset || s.got[j].by != e.by || s.got[j].n != e.n || e.by != closer && s.got[j].from != e.from {
					run.t.Errorf("%d in %s, joined at %d: message %d should be %v, and is %v", r.me, room, s.joined, j, e, s.got[j:min(j+3, len(s.got))])
					break
				}
			}
			if len(s.got) > len(want) {
				run.t.Errorf("%d in %s: %d messages more than were published", r.me, room, len(s.got)-len(want))
			}
		}
	}
}

// log is all that was published in a room, by its publishers' own accounts, in the order of the offsets. These have no
// holes and none twice, and each publisher's messages are in the order in which it sent them.
func (run *cutRun) log(room string, i int) []entry {
	log := []entry{{offset: run.last[room], by: closer, n: i}}
	for _, r := range run.crowd {
		for n, p := range r.sent {
			if p.room == room {
				log = append(log, entry{p.offset, r.me, n, r.id})
			}
		}
	}
	slices.SortStableFunc(log, func(a, b entry) int { return int(a.offset - b.offset) })
	newest := map[int]int{}
	for j, e := range log {
		if j > 0 && e.offset != log[j-1].offset+1 {
			run.t.Errorf("%s: after %v comes %v", room, log[j-1], e)
		}
		if n, ok := newest[e.by]; ok && n > e.n {
			run.t.Errorf("%s: %d published %d before %d, and it stands after it", room, e.by, e.n, n)
		}
		newest[e.by] = e.n
	}
	return log
}

// checkItTookPlace holds that there were cuts, and that they did what they are for; and that the server ended no
// connection for another reason. The bounds are far below what is usual.
func (run *cutRun) checkItTookPlace(p *proxy, s *server, length time.Duration) {
	cuts, kinds := p.tally()
	metrics := scrape(run.t, s)
	takenOver := metrics[`hubbub_closed_total{code="4001"}`]
	run.t.Logf("cuts %d (%s), within a frame from the server %d; resumed %d, taken over %v (%d of these by an earlier handshake), messages recovered %d; published %d, repeated %d, of these duplicates %d",
		cuts, kinds, run.torn.Load(), run.resumed.Load(), takenOver, run.overtaken.Load(), run.recovered.Load(), run.published.Load(), run.repeated.Load(), run.duplicates.Load())
	for name, v := range metrics {
		code, ok := strings.CutPrefix(name, `hubbub_closed_total{code="`)
		if code = strings.TrimSuffix(code, `"}`); ok && v > 0 && code != "4001" && code != "1006" {
			run.t.Errorf("%v connections were closed with %s", v, code)
		}
	}
	// Two handshakes must cross, within milliseconds or within what a busy machine makes of them: not for most who are taken over.
	if o := run.overtaken.Load(); o > 1+run.resumed.Load()/100 && float64(o) > takenOver/2 {
		run.t.Errorf("%d connections lost their session to an earlier handshake, of %d that resumed one", o, run.resumed.Load())
	}
	seconds := int64(length / time.Second)
	for _, c := range []struct {
		what       string
		got, least int64
	}{
		{"cuts", int64(cuts), 3 * seconds},
		{"resumed sessions", run.resumed.Load(), 2 * seconds},
		{"connections taken over", int64(takenOver), seconds / 10},
		{"cuts within a frame from the server", run.torn.Load(), seconds / 10},
		{"messages recovered", run.recovered.Load(), 5 * seconds},
		{"messages published", run.published.Load(), 20 * seconds},
		{"publishes repeated", run.repeated.Load(), seconds},
		{"duplicates told", run.duplicates.Load(), seconds / 10},
	} {
		if c.got < c.least && !run.t.Failed() {
			run.t.Errorf("%s: %d, want at least %d", c.what, c.got, c.least)
		}
	}
}

// Two clients that we did not write lose their connection without a Close, miss messages, and come back by token.
func TestForeignClientsResumeByToken(t *testing.T) {
	eachClient(t, nil, func(t *testing.T, s *server, dial dialer) {
		p := startProxy(t, s, nil)
		other := dialRaw(t, s, "/ws", "")
		other.welcomed()
		publish := func(from, to int) {
			for i := from; i <= to; i++ {
				other.write(text(fmt.Sprintf(`{"msg_type":"room_message","room":"r","content":%d,"id":%d}`, i, i)))
				other.message("ack")
			}
		}
		a := dial(t, p.front.ws("/ws")).opened()
		welcome := a.message("welcome")
		joined := a.ask(`{"msg_type":"join_room","room":"r","id":"join"}`, "joined")
		position := func(offset int64) string { return fmt.Sprintf(`{"epoch":%s,"offset":%d}`, joined.raw("epoch"), offset) }
		publish(1, 3)
		var at int64
		for want := 1; want <= 3; want++ {
			m := a.message("room_message")
			if m.raw("content") != strconv.Itoa(want) {
				t.Fatalf("%s, want %d", m.text, want)
			}
			if want < 3 { // the third it gets, and has not dealt with when all is lost
				at = m.num("offset")
			}
		}
		first := a.ask(`{"msg_type":"room_message","room":"r","content":"own","publish_id":"p","id":"own"}`, "ack")
		p.drop()
		e := a.next()
		for e.Ev == "fault" { // a library may say first what happened to the socket
			e = a.next()
		}
		if e.Ev != "close" || e.Code != 1006 {
			t.Fatalf("the %s client got %+v, want the loss of its connection", a.name, short(e))
		}
		publish(4, 40)
		b := dial(t, p.front.ws("/ws?resume="+welcome.str("resume_token"))).opened()
		again := b.message("welcome")
		if again.raw("resumed") != "true" || again.str("client_id") != welcome.str("client_id") || again.str("resume_token") == welcome.str("resume_token") {
			t.Fatalf("%s\nwant the session of %s", again.text, welcome.text)
		}
		resumed := b.ask(`{"msg_type":"resume","rooms":{"r":`+position(at)+`},"id":"back"}`, "resumed")
		want := fmt.Sprintf(`{"r":{"epoch":%s,"offset":%d,"recovered":true}}`, joined.raw("epoch"), at+39)
		if resumed.raw("rooms") != want || resumed.raw("id") != `"back"` {
			t.Fatalf("%s\nwant the rooms %s", resumed.text, want)
		}
		publish(41, 42)
		for n := 3; n <= 42; n++ { // without its own, which follows the third
			if m := b.message("room_message"); m.raw("content") != strconv.Itoa(n) || m.num("offset") <= at {
				t.Fatalf("%s, want %d", m.text, n)
			} else {
				at = m.num("offset")
			}
		}
		repeated := b.ask(`{"msg_type":"room_message","room":"r","content":"own","publish_id":"p","id":"own"}`, "ack")
		if repeated.num("offset") != first.num("offset") || repeated.raw("duplicate") != "true" {
			t.Errorf("%s\nwant the position of %s", repeated.text, first.text)
		}
		b.sync()
	})
}
