package outbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/webhook"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// told is an event as the backend gets it.
type told struct {
	Type    string          `json:"type"`
	Seq     uint64          `json:"seq"`
	Time    int64           `json:"time"`
	Room    string          `json:"room"`
	Client  string          `json:"client"`
	User    string          `json:"user"`
	Data    json.RawMessage `json:"data"`
	Code    int             `json:"code"`
	From    string          `json:"from"`
	Content json.RawMessage `json:"content"`
	Key     string          `json:"key"`
	Epoch   string          `json:"epoch"`
	Offset  uint64          `json:"offset"`
}

// request is one as the backend gets it.
type request struct {
	ID      string           `json:"-"`
	Body    string           `json:"-"`
	Type    string           `json:"type"`
	Node    string           `json:"node"`
	Dropped map[string]int64 `json:"dropped"`
	Missing *struct{ From, To uint64 }
	Events  []told `json:"events"`
}

// backend takes requests as an application does, and answers what it is told to.
type backend struct {
	*httptest.Server
	t        *testing.T
	mu       sync.Mutex
	requests []request // all, also those that were not taken
	taken    []request
	events   []told                                       // of those that were taken
	answer   func(w http.ResponseWriter, r *http.Request) // nil: 204
}

func newBackend(t *testing.T) *backend {
	b := &backend{t: t}
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	return b
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it was cut off
	}
	verifier, _ := standardwebhooks.NewWebhook(secret)
	if err := verifier.Verify(body, r.Header); err != nil {
		b.t.Errorf("the signature: %v", err)
	}
	got := request{ID: r.Header.Get("webhook-id"), Body: string(body)}
	if err := json.Unmarshal(body, &got); err != nil {
		b.t.Errorf("%v in %.200s", err, body)
	}
	b.mu.Lock()
	answer := b.answer
	b.requests = append(b.requests, got)
	b.mu.Unlock()
	status := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	if answer != nil {
		answer(status, r)
	} else {
		status.WriteHeader(http.StatusNoContent)
	}
	if status.status/100 == 2 {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.taken = append(b.taken, got)
		b.events = append(b.events, got.Events...)
	}
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// answers has it answer so from now on.
func (b *backend) answers(answer func(http.ResponseWriter, *http.Request)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = answer
}

func status(n int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n) }
}

// sees waits until something is so of what it has got.
func (b *backend) sees(what string, so func() bool) {
	b.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		yes, n := so(), len(b.events)
		b.mu.Unlock()
		if yes {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("the backend never sees %s; it has %d events", what, n)
		}
	}
}

// takes waits until it has taken n events.
func (b *backend) takes(n int) {
	b.t.Helper()
	b.sees(fmt.Sprint(n, " events"), func() bool { return len(b.events) >= n })
}

// log keeps what is logged.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// outbox is an Outbox under test.
type outbox struct {
	*Outbox
	t   *testing.T
	log *log
}

// open starts one whose retries come at once; with is what is special about it.
func open(t *testing.T, url string, with func(c *Config)) *outbox {
	t.Helper()
	o := &outbox{t: t, log: &log{}}
	secrets, err := webhook.ParseSecrets([]string{secret})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Target: Target{URL: url, Secrets: secrets}, Node: "n1", Log: slog.New(slog.NewTextHandler(o.log, nil))}
	cfg.Events, _ = Select(nil)
	cfg.Events[messagePublished] = true
	cfg.limits = limits{firstRetry: time.Millisecond, lastRetry: 20 * time.Millisecond, timeout: time.Minute, tend: 10 * time.Millisecond, drain: time.Minute}
	if with != nil {
		with(&cfg)
	}
	if o.Outbox, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.leave() })
	return o
}

// leave closes the outbox without waiting for the backend.
func (o *outbox) leave() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	o.Close(ctx)
	for _, fault := range o.Unsettled() {
		o.t.Error(fault)
	}
}

// joined tells of the nth join of a room.
func (o *outbox) joined(room string, n int) {
	o.Event(hub.Event{Kind: hub.Joined, Room: room, Client: hub.Identity{ID: hub.NewID(), User: fmt.Sprint("user-", n)}})
}

// says tells of a message.
func (o *outbox) says(room, content string) {
	o.Event(hub.Event{Kind: hub.Published, Room: room, Epoch: "e", Message: &protocol.Message{Room: room, From: "server", Content: []byte(content), Time: time.Now().UnixMilli(), Offset: 7}})
}

// stored says that all that was told lies in the outbox.
func (o *outbox) stored() bool { return o.intake.waiting() == 0 }

// until waits until something is so.
func until(t *testing.T, so func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !so(); time.Sleep(10 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatal("it never is so")
		}
	}
}

// withoutHoles holds the order of what was taken: seq goes up by one from a number on, and what comes again is the same.
func withoutHoles(t *testing.T, events []told, from uint64) {
	t.Helper()
	seen := map[uint64]string{}
	for _, e := range events {
		text := fmt.Sprintf("%+v", e)
		if was, again := seen[e.Seq]; again && was != text {
			t.Fatalf("seq %d stands for two events: %s and %s", e.Seq, was, text)
		}
		if e.Seq != from && seen[e.Seq] == "" {
			t.Fatalf("seq %d comes where %d should", e.Seq, from)
		}
		if e.Seq == from {
			from++
		}
		seen[e.Seq] = text
	}
}

func TestTheBackendIsToldOfEachKind(t *testing.T) {
	b := newBackend(t)
	o := open(t, b.URL, nil)
	id := hub.NewID()
	ann := hub.Identity{ID: id, User: `Ann "the" <b>` + "\u2028"}
	o.Event(hub.Event{Kind: hub.Connected, Client: ann})
	o.Event(hub.Event{Kind: hub.Occupied, Room: "a/b"})
	o.Event(hub.Event{Kind: hub.Joined, Room: "a/b", Client: ann, Data: []byte(`{"x":[1]}`)})
	o.Event(hub.Event{Kind: hub.Published, Room: "a/b", Epoch: "e1", Message: &protocol.Message{Room: "a/b", From: id.String(), User: ann.User, Content: []byte(`"hi"`), Key: []byte("k"), Time: 12345, Offset: 3}})
	o.Event(hub.Event{Kind: hub.Left, Room: "a/b", Client: ann})
	o.Event(hub.Event{Kind: hub.Vacated, Room: "a/b"})
	o.Event(hub.Event{Kind: hub.Disconnected, Client: ann, Code: 1006})
	b.takes(8)
	var types []string
	for i, e := range b.events {
		types = append(types, e.Type)
		if e.Seq != uint64(i+1) || e.Time <= 0 {
			t.Errorf("event %d has seq %d and time %d", i, e.Seq, e.Time)
		}
	}
	want := "node.started client.connected room.occupied member.joined message.published member.left room.vacated client.disconnected"
	if got := strings.Join(types, " "); got != want {
		t.Errorf("it is told %s, want %s", got, want)
	}
	e := b.events[3]
	if e.Client != id.String() || e.User != ann.User || e.Room != "a/b" || string(e.Data) != `{"x":[1]}` {
		t.Errorf("the join is %+v", e)
	}
	e = b.events[4]
	if e.From != id.String() || e.User != ann.User || e.Room != "a/b" || string(e.Content) != `"hi"` || e.Key != "k" || e.Epoch != "e1" || e.Offset != 3 || e.Time != 12345 || e.Client != "" {
		t.Errorf("the message is %+v", e)
	}
	if e = b.events[7]; e.Code != 1006 || e.Client != id.String() {
		t.Errorf("the disconnect is %+v", e)
	}
	for _, r := range b.taken {
		if r.Type != "hubbub.events" || r.Node != "n1" || r.Dropped != nil || r.Missing != nil {
			t.Errorf("a request is %s", r.Body)
		}
	}
}

func TestEventsThatAreNotNamedAreNotTold(t *testing.T) {
	b := newBackend(t)
	o := open(t, b.URL, func(c *Config) { c.Events, _ = Select([]string{"room.vacated"}) })
	o.joined("r", 1)
	o.Event(hub.Event{Kind: hub.Occupied, Room: "r"})
	o.Event(hub.Event{Kind: hub.Vacated, Room: "r"})
	b.takes(2)
	if b.events[0].Type != "node.started" || b.events[1].Type != "room.vacated" {
		t.Errorf("it is told %+v", b.events)
	}
	if s, err := Select(nil); err != nil || s.Messages() || !s[hub.Joined] {
		t.Errorf("by default it is %v, %v", s, err)
	}
	if _, err := Select([]string{"room.vacated", "rooms.vacated"}); err == nil || !strings.Contains(err.Error(), `"rooms.vacated": unknown; there are client.connected, `) {
		t.Errorf("a wrong name: %v", err)
	}
}

// While a request is under way the next one gathers what happens, up to its bounds.
func TestABusyBackendGetsManyAtOnce(t *testing.T) {
	b := newBackend(t)
	first, goOn := make(chan bool, 1), make(chan bool)
	b.answers(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case first <- true:
			<-goOn
		default:
		}
	})
	o := open(t, b.URL, nil)
	<-first
	for i := range 250 {
		o.joined("r", i)
	}
	for range 9 {
		o.says("r", `"`+strings.Repeat("x", 60<<10)+`"`)
	}
	o.says("r", `"`+strings.Repeat("y", 1<<20)+`"`) // larger than a request may be
	o.says("r", `"`+strings.Repeat("z", 5<<20)+`"`) // and larger than anything
	close(goOn)
	b.takes(1 + 250 + 10)
	var sizes []int
	for i, r := range b.taken {
		sizes = append(sizes, len(r.Events))
		if len(r.Body) > maxBody && len(r.Events) > 1 {
			t.Errorf("request %d has %d bytes and %d events", i, len(r.Body), len(r.Events))
		}
	}
	if sizes[0] != 1 || sizes[1] != 100 || sizes[2] != 100 || sizes[len(sizes)-1] != 1 {
		t.Errorf("the requests have %v events", sizes)
	}
	withoutHoles(t, b.events, 1)
	o.Close(context.Background())
	if n := o.Figures().Dropped["message.published"]; n != 1 {
		t.Errorf("%d messages were dropped, want the one that is too large", n)
	}
}

func TestWhatFailsIsSentAgainAsItWas(t *testing.T) {
	b := newBackend(t)
	n := 0
	b.answers(func(w http.ResponseWriter, _ *http.Request) {
		b.mu.Lock()
		defer b.mu.Unlock()
		n++
		switch n % 4 {
		case 0:
			w.WriteHeader(http.StatusAccepted)
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			panic(http.ErrAbortHandler) // the connection is cut
		case 3:
			w.Header().Set("Location", b.URL+"/elsewhere")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	})
	o := open(t, b.URL+"/hook?key=hush", nil)
	for i := range 500 {
		o.joined("r", i)
	}
	b.takes(501)
	withoutHoles(t, b.events, 1)
	if len(b.events) != 501 {
		t.Errorf("%d events were taken", len(b.events))
	}
	body := map[string]string{}
	for _, r := range b.requests {
		if was, again := body[r.ID]; again && was != r.Body {
			t.Errorf("%s comes with another body", r.ID)
		}
		body[r.ID] = r.Body
	}
	if len(body) != len(b.taken) || len(b.requests) < 4*len(b.taken) {
		t.Errorf("%d requests with %d ids, %d taken", len(b.requests), len(body), len(b.taken))
	}
	if text := o.log.String(); strings.Contains(text, "hush") || !strings.Contains(text, "it answered 500") {
		t.Errorf("the log is %s", text)
	}
	if f := o.Figures(); f.Failed != int64(len(b.requests)-len(b.taken)) {
		t.Errorf("the figures are %+v", f)
	}
}

func TestABackendThatIsGoneIsToldNoMore(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		b := newBackend(t)
		b.answers(status(http.StatusGone))
		o := open(t, b.URL, func(c *Config) { c.Dir = dir })
		o.joined("r", 1)
		until(t, func() bool { return o.Figures().Stopped })
		o.joined("r", 2)
		o.Close(context.Background())
		if len(b.requests) != 1 || o.Figures().Events != 0 || !strings.Contains(o.log.String(), "410") {
			t.Errorf("%d requests, figures %+v, log %s", len(b.requests), o.Figures(), o.log)
		}
		if dir == "" {
			continue
		}
		// A restart tries again, and says which seqs were lost.
		b.answers(nil)
		o = open(t, b.URL, func(c *Config) { c.Dir = dir })
		o.joined("r", 3)
		b.takes(2)
		last := b.requests[0].Events[len(b.requests[0].Events)-1].Seq
		if m := b.taken[0].Missing; m == nil || m.From != 1 || m.To != last {
			t.Errorf("it says of what is missing: %+v", m)
		}
		withoutHoles(t, b.events, last+1)
	}
}

// As the log says: another address is told at once, without a restart, and the same one isn't.
func TestAnotherBackendIsToldAfterOneThatIsGone(t *testing.T) {
	gone, b := newBackend(t), newBackend(t)
	gone.answers(status(http.StatusGone))
	var target Target
	o := open(t, gone.URL, func(c *Config) { target = c.Target; target.Events = c.Events })
	o.joined("r", 1)
	until(t, func() bool { // the log's line comes behind the figure
		return o.Figures().Stopped && strings.Contains(o.log.String(), "until --webhook-url is another one, by a reload or a restart, or the server is started again")
	})
	o.Reload(target)
	o.joined("r", 2)
	until(t, o.stored)
	if !o.Figures().Stopped {
		t.Error("the same backend is told again")
	}
	target.URL = b.URL
	o.Reload(target)
	until(t, func() bool { return !o.Figures().Stopped })
	o.joined("r", 3)
	b.takes(2) // that the node has started, and who joined
	if len(gone.requests) != 1 {
		t.Errorf("the one that is gone has %d requests", len(gone.requests))
	}
}

// The backend's answer is bounded in every way.
func TestAHostileBackendCostsNothing(t *testing.T) {
	b := newBackend(t)
	var n atomic.Int64
	b.answers(func(w http.ResponseWriter, r *http.Request) {
		switch n.Add(1) {
		case 1: // a head without an end
			for i := range 1000 {
				w.Header().Set(fmt.Sprint("x-", i), strings.Repeat("x", 1000))
			}
			w.WriteHeader(http.StatusOK)
		case 2: // nothing
			<-r.Context().Done()
			w.WriteHeader(http.StatusGone)
		case 3: // much, and no end of it
			w.WriteHeader(http.StatusServiceUnavailable)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}
	})
	o := open(t, b.URL, func(c *Config) { c.limits.timeout = 200 * time.Millisecond })
	b.sees("four requests", func() bool { return len(b.requests) >= 4 && len(b.taken) >= 1 })
	if f := o.Figures(); f.Failed < 3 { // more on a busy machine
		t.Errorf("the figures are %+v", f)
	}
}

func TestARetryWaitsAsLongAsTheBackendSays(t *testing.T) {
	for _, c := range []struct {
		header string
		want   time.Duration
	}{{"3", 3 * time.Second}, {"100000", maxRetryAfter}, {"99999999999999999999", 0}, {"-1", 0}, {"soon", 0}, {"", 0}} {
		b := newBackend(t)
		b.answers(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", c.header)
			w.WriteHeader(http.StatusTooManyRequests)
		})
		o := open(t, b.URL, func(c *Config) { c.limits.firstRetry, c.limits.lastRetry = time.Hour, time.Hour })
		a := o.send(context.Background(), "msg_1", []byte(`{"events":[]}`), "")
		if a.err == nil || a.after != c.want {
			t.Errorf("Retry-After %q: %+v", c.header, a)
		}
	}
	o := &Outbox{limits: limits{}.withDefaults()}
	for attempts := 1; attempts < 100; attempts++ {
		d, most := o.backoff(attempts), min(30*time.Second, 500*time.Millisecond<<min(attempts-1, 20))
		if d < most/2 || d > most {
			t.Errorf("behind %d attempts it waits %s", attempts, d)
		}
	}
}

// What is given up leaves a hole in seq, and the next request says which.
func TestWhatIsTooOldIsGivenUp(t *testing.T) {
	b := newBackend(t)
	b.answers(status(http.StatusBadGateway))
	o := open(t, b.URL, func(c *Config) { c.limits.giveUp = 300 * time.Millisecond; c.Dir = t.TempDir() })
	for i := range 250 {
		o.joined("old", i)
	}
	until(t, func() bool { return o.Figures().Dropped["member.joined"] >= 250 })
	last := uint64(0)
	b.answers(nil)
	o.joined("new", 0)
	b.sees("the new one", func() bool { return len(b.events) > 0 && b.events[len(b.events)-1].Room == "new" })
	for _, r := range b.requests[:len(b.requests)-len(b.taken)] {
		last = max(last, r.Events[len(r.Events)-1].Seq)
	}
	first := b.taken[0]
	if first.Missing == nil || first.Missing.From != 1 || first.Missing.To != last || first.Events[0].Seq != last+1 {
		t.Errorf("up to %d was sent and given up, then comes %.200s", last, first.Body)
	}
	if dropped := first.Dropped["member.joined"] + int64(last) - 1; dropped != 250 {
		t.Errorf("it is told of %d that were dropped", dropped)
	}
	b.sees("two more", func() bool { o.joined("more", 0); return len(b.taken) > 2 })
	for _, r := range b.taken[1:] {
		if r.Missing != nil || r.Dropped != nil {
			t.Errorf("it is told again: %.200s", r.Body)
		}
	}
}

// Many rooms, many goroutines: each room's events come in their order.
func TestTheOrderOfEachRoomIsKept(t *testing.T) {
	b := newBackend(t)
	var n atomic.Int64
	b.answers(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%3 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	o := open(t, b.URL, func(c *Config) { c.Dir = t.TempDir(); c.limits.diskSegment = 4 << 10 })
	const rooms, each = 16, 300
	var all sync.WaitGroup
	for r := range rooms {
		all.Go(func() {
			for i := range each {
				if room := fmt.Sprint(r); i%3 == 0 {
					o.says(room, fmt.Sprint(i))
				} else {
					o.joined(room, i)
				}
			}
		})
	}
	all.Wait()
	b.takes(1 + rooms*each)
	withoutHoles(t, b.events, 1)
	next := map[string]int{}
	for _, e := range b.events[1:] {
		i := next[e.Room]
		if got := e.User + string(e.Content); got != fmt.Sprint("user-", i) && got != fmt.Sprint(i) {
			t.Fatalf("in room %s comes %s where %d should", e.Room, got, i)
		}
		next[e.Room]++
	}
}

// The log says where webhooks go, and no more of the address: its path may be a secret.
func TestALogHasNoSecretPartOfTheAddress(t *testing.T) {
	b := newBackend(t)
	b.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	o := open(t, b.URL+"/hush?k=hush", nil)
	until(t, func() bool { return strings.Contains(o.log.String(), "the backend takes no webhooks") })
	if log := o.log.String(); strings.Contains(log, "hush") || !strings.Contains(log, "url="+b.URL+" ") {
		t.Error(log)
	}
}

// Once the backend has said that it takes a request, nobody waits for the rest of what it says.
func TestAnAnswerThatDoesNotEnd(t *testing.T) {
	b := newBackend(t)
	hold := make(chan struct{})
	b.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w.(*statusWriter).ResponseWriter).Flush()
		<-hold
	})
	defer close(hold)
	o := open(t, b.URL, func(c *Config) { c.limits.timeout = time.Hour })
	o.joined("r", 0)
	b.sees("both", func() bool { return len(b.requests) == 2 || len(b.requests) == 1 && len(b.requests[0].Events) == 2 })
	until(t, func() bool { return o.Figures().Events == 0 })
}
