package faulty

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/model"
)

// SoakTime is how long a Soak takes: HUBBUB_SOAK_FOR, or some seconds.
func SoakTime(t testing.TB) time.Duration {
	t.Helper()
	text := os.Getenv("HUBBUB_SOAK_FOR")
	if text == "" && testing.Short() {
		return 2 * time.Second
	}
	if text == "" {
		return 6 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second {
		t.Fatalf("HUBBUB_SOAK_FOR=%q is no time of at least 1s", text)
	}
	return d
}

// SoakSeed is HUBBUB_SOAK_SEED, or one at random.
func SoakSeed(t testing.TB) uint64 {
	t.Helper()
	text := os.Getenv("HUBBUB_SOAK_SEED")
	if text == "" {
		return rand.Uint64N(1_000_000)
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("HUBBUB_SOAK_SEED=%q is no seed", text)
	}
	return seed
}

const (
	crowd = 3 // clients
	rooms = 3
)

// soak is a run of some clients that publish to each other.
type soak struct {
	t      *testing.T
	lines  *lines
	config hubbub.Config

	mu      sync.Mutex // what is below
	at      int64      // the last event's place
	log     [crowd]*model.Log
	faults  []string
	waits   map[string]chan bool // by the call: whether it succeeded
	last    [crowd]map[string]int
	lost    int
	unknown int
	came    int
	servers int
}

// Soak has clients publish to each other for so long, through lines that break, and past servers that end: now and then
// one says goodbye, now and then one is just gone, and with each all that it knew. It fails the test with what was lost
// and not told, and with what came twice. The same seed has the same faults, as far as time allows.
func Soak(t *testing.T, client Client, length time.Duration, seed uint64) {
	t.Logf("HUBBUB_SOAK_SEED=%d", seed)
	all := hubbub.History{Messages: 100_000, Age: time.Hour, Bytes: 256 << 20}
	s := &soak{t: t, lines: startLines(t, seed), waits: map[string]chan bool{}, config: hubbub.Config{
		Logger: slog.New(slog.DiscardHandler),
		Rooms:  []hubbub.RoomPolicy{{Match: "*", History: &all}}, ResumeWindow: 30 * time.Second, DedupWindow: time.Hour,
		PingInterval: 2 * time.Second, PongTimeout: time.Second,
		Authenticate: func(_ context.Context, c *hubbub.Credentials) (*hubbub.Identity, error) {
			return &hubbub.Identity{User: c.Token}, nil
		},
	}}
	stop := s.serve()
	var do [crowd]func(Command)
	for i := range crowd {
		name := fmt.Sprint("client", i)
		s.log[i] = &model.Log{Name: name, Client: name}
		s.last[i] = map[string]int{}
		do[i] = client(func(r Report) { s.report(i, r) })
		do[i](Command{Call: "new", URL: s.lines.url(), Options: &Options{MinDelay: 5, MaxDelay: 200, Tokens: []string{name}}})
		for n := range rooms {
			s.join(i, room(n), do[i])
		}
	}
	var talking sync.WaitGroup
	end := time.Now().Add(length)
	for i := range crowd {
		for n := range rooms {
			talking.Go(func() { s.talk(i, room(n), do[i], rand.New(rand.NewPCG(seed, uint64(100*i+n))), end) })
		}
	}
	stop = s.restart(rand.New(rand.NewPCG(seed, 2)), end, stop)
	talking.Wait()
	s.lines.calmDown()
	s.settle(do[:])
	for i := range crowd {
		s.call(i, Command{Call: "end"}, do[i], fmt.Sprint("end ", i))
	}
	stop()
	s.judge()
}

func room(n int) string { return fmt.Sprint("room ", n) }

// serve starts a server to which the lines lead from now on, and gives what ends it.
func (s *soak) serve() (stop func()) {
	server, err := hubbub.New(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	s.lines.lead(l.Addr().String(), false)
	s.servers++
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			s.t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			s.t.Errorf("Serve: %v", err)
		}
	}
}

// restart has servers end and others begin until the end. The first third of the time there is one, so that there are
// resumes enough.
func (s *soak) restart(r *rand.Rand, end time.Time, stop func()) func() {
	wait := time.Until(end) / 3
	for time.Now().Add(wait).Before(end) {
		time.Sleep(wait)
		gone := r.IntN(2) == 0
		s.lines.lead("", gone)
		stop() // where the lines are cut nobody hears its goodbye
		time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
		stop = s.serve()
		wait = time.Second + time.Duration(r.IntN(20_000))*time.Millisecond
	}
	time.Sleep(time.Until(end))
	return stop
}

// note adds an event to a client's log. s.mu is held.
func (s *soak) note(i int, e model.Event) *model.Event {
	s.at++
	e.At = s.at
	s.log[i].Events = append(s.log[i].Events, e)
	return &s.log[i].Events[len(s.log[i].Events)-1]
}

// call makes a call and waits for its outcome.
func (s *soak) call(i int, c Command, do func(Command), name string) bool {
	done := make(chan bool, 1)
	s.mu.Lock()
	s.waits[name] = done
	s.mu.Unlock()
	c.As = name
	do(c)
	select {
	case ok := <-done:
		return ok
	case <-time.After(patience):
		s.t.Errorf("client%d: no outcome of %s %s", i, c.Call, name)
		return false
	}
}

func (s *soak) join(i int, room string, do func(Command)) {
	s.mu.Lock()
	name := fmt.Sprintf("join %d %s", i, room)
	s.note(i, model.Event{Kind: model.JoinSent, ID: name, Room: room})
	s.mu.Unlock()
	s.call(i, Command{Call: "join", Room: room}, do, name)
}

// talk publishes one message after the other.
func (s *soak) talk(i int, room string, do func(Command), r *rand.Rand, end time.Time) {
	for n := 0; time.Now().Before(end); n++ {
		s.publish(i, room, fmt.Sprintf("client%d/%s/%d/%s", i, room, n, strings.Repeat("x", r.IntN(300))), do)
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
	}
}

func (s *soak) publish(i int, room, text string, do func(Command)) bool {
	name, _, _ := strings.Cut(text, "/x")
	s.mu.Lock()
	s.note(i, model.Event{Kind: model.Sent, ID: name, Room: room, Message: text})
	s.mu.Unlock()
	content, _ := json.Marshal(text)
	return s.call(i, Command{Call: "publish", Room: room, Content: content}, do, name)
}

// settle waits until all are in their rooms again, and have heard the others' last word.
func (s *soak) settle(do []func(Command)) {
	for _, word := range []string{"ready", "end"} { // who has its answer is in all its rooms
		for i := range do {
			for n := range rooms {
				for try := 0; !s.publish(i, room(n), fmt.Sprintf("client%d/%s/%s%d/", i, room(n), word, try), do[i]) && try < 10; try++ {
				}
			}
		}
	}
	for late := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		missing := ""
		for i := range do {
			for n := range rooms {
				if got := s.last[i][room(n)]; got < crowd-1 {
					missing = fmt.Sprintf("client%d has heard %d last words in %s", i, got, room(n))
				}
			}
		}
		s.mu.Unlock()
		if missing == "" {
			return
		}
		if time.Now().After(late) {
			s.t.Error(missing)
			return
		}
	}
}

// report takes what a client shows.
func (s *soak) report(i int, r Report) {
	var v struct {
		Call, Room, Error, Lost, Left string
		Ended                         bool
		Ok                            Position
		Gap                           any
		At                            *Position
		Message                       *struct {
			Content, Epoch string
			Offset         uint64
		}
	}
	text, _ := json.Marshal(r)
	if err := json.Unmarshal(text, &v); err != nil {
		s.t.Errorf("client%d shows %s: %v", i, text, err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case v.Ended:
		s.waits[fmt.Sprint("end ", i)] <- true
	case v.Call != "":
		s.outcome(i, v.Call, v.Error, position(v.Ok))
	case v.Message != nil:
		s.came++
		from, _, _ := strings.Cut(v.Message.Content, "/")
		s.note(i, model.Event{Kind: model.Received, Room: v.Room, Message: v.Message.Content, From: from, Position: model.Position{Epoch: v.Message.Epoch, Offset: int64(v.Message.Offset)}})
		if strings.Contains(v.Message.Content, "/end") {
			s.last[i][v.Room]++
		}
	case v.Lost != "" && v.At != nil:
		s.lost++
		s.note(i, model.Event{Kind: model.Left, Room: v.Room})
		s.note(i, model.Event{Kind: model.Joined, Room: v.Room, Position: position(*v.At)})
	case v.Room != "" || v.Gap != nil:
		s.faults = append(s.faults, fmt.Sprintf("client%d shows %s", i, text))
	}
}

func position(p Position) model.Position {
	return model.Position{Epoch: p.Epoch, Offset: int64(p.Offset)}
}

// outcome notes what became of a call. s.mu is held.
func (s *soak) outcome(i int, name, failed string, at model.Position) {
	join, room := strings.HasPrefix(name, "join "), strings.Split(name+"/", "/")[1]
	switch {
	case join && failed == "":
		s.note(i, model.Event{Kind: model.Joined, ID: name, Room: strings.SplitN(name, " ", 3)[2], Position: at})
	case !join && failed == "":
		s.note(i, model.Event{Kind: model.Acked, ID: name, Room: room, Position: at})
	case !join && failed == "unknown":
		s.unknown++
		for n := range s.log[i].Events {
			if e := &s.log[i].Events[n]; e.Kind == model.Sent && e.ID == name {
				e.ID = "" // nobody waits for its answer
			}
		}
	default:
		s.faults = append(s.faults, fmt.Sprintf("client%d: %s: %s", i, name, failed))
	}
	s.waits[name] <- failed == ""
	delete(s.waits, name)
}

// judge holds all logs against the promises.
func (s *soak) judge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	acked := 0
	for _, l := range s.log {
		for n, e := range l.Events {
			if e.Kind == model.Acked {
				acked++
			}
			if e.Kind == model.Joined && e.ID != "" { // all had joined before anybody published
				l.Events[n].Position = s.firstEpoch(e.Room)
			}
		}
	}
	for _, f := range s.faults {
		s.t.Error(f)
	}
	for n, f := range model.Check(model.Run{Logs: s.log[:]}) {
		if n == 20 {
			s.t.Error("and more")
			break
		}
		s.t.Error(f)
	}
	cuts, stalls := s.lines.counts()
	s.t.Logf("%d cuts, %d stalls, %d servers; %d acknowledged, %d unknown, %d came, %d times lost was told", cuts, stalls, s.servers, acked, s.unknown, s.came, s.lost)
	if acked == 0 || cuts == 0 {
		s.t.Error("nothing has happened")
	}
}

// firstEpoch is where a room began: the epoch of the first message that was acknowledged there, or came.
func (s *soak) firstEpoch(room string) model.Position {
	var at model.Event
	for _, l := range s.log {
		for _, e := range l.Events {
			if e.Room == room && e.Epoch != "" && (e.Kind == model.Acked || e.Kind == model.Received) && (at.At == 0 || e.At < at.At) {
				at = e
			}
		}
	}
	return model.Position{Epoch: at.Epoch}
}
