package faulty

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long is waited for what must come: so long that a busy machine is no reason to fail.
const patience = 2 * time.Minute

// Run runs all traces of a folder, with so many stories of each file at a time. With -short it tells a tenth of those that a
// trace with many stands for.
func Run(t *testing.T, dir string, client Client, atOnce int) {
	for file, traces := range Load(t, dir) {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			for _, trace := range traces {
				family, err := trace.Family()
				if err != nil {
					t.Fatal(err)
				}
				t.Run(trace.Name, func(t *testing.T) {
					places := make(chan struct{}, atOnce)
					var all sync.WaitGroup
					for i, one := range family {
						if testing.Short() && len(family) > 50 && i%10 != 0 {
							continue
						}
						places <- struct{}{}
						all.Go(func() {
							defer func() { <-places }()
							if err := Play(t, one, client); err != nil {
								t.Errorf("%s: %v", one.Name, err)
							}
						})
						if t.Failed() {
							break
						}
					}
					all.Wait()
				})
			}
		})
	}
}

// play is one story under way.
type play struct {
	trace  Trace
	server *server
	conn   *connection // the newest
	waits  *connection // has come, and is not accepted yet
	ended  time.Time   // when the one before had ended

	mu      sync.Mutex // what is below
	reports map[string][]map[string]any
	changed chan struct{}
	log     []string
}

// Play plays a story as the server, and says where a client goes another way.
func Play(t testing.TB, trace Trace, client Client) error {
	p := &play{trace: trace, server: startServer(t), reports: map[string][]map[string]any{}, changed: make(chan struct{})}
	defer p.server.stop()
	do := client(p.report)
	o := trace.Options
	if o.MinDelay == 0 {
		o.MinDelay = 1
	}
	if o.MaxDelay == 0 {
		o.MaxDelay = o.MinDelay
	}
	do(Command{Call: "new", URL: p.server.url(), Options: &o})
	for i, s := range slices.Concat(trace.beginning(), trace.Steps) {
		if s.Do != nil {
			c := *s.Do
			c.Content = p.filled(c.Content)
			if call, is := trace.fill(c.Call).(string); is {
				c.Call = call
			}
			p.note("the program: %+v", c)
			do(c)
			continue
		}
		if err := p.step(s); err != nil {
			do(Command{Call: "end"})
			return fmt.Errorf("step %d, %s: %w\n%s", i+1, s.verb(), err, p.told())
		}
	}
	do(Command{Call: "end"})
	if err := p.rest(); err != nil {
		return fmt.Errorf("at the end: %w\n%s", err, p.told())
	}
	return nil
}

func (p *play) filled(raw json.RawMessage) json.RawMessage {
	var v any
	if raw == nil || json.Unmarshal(raw, &v) != nil {
		return raw
	}
	filled, _ := json.Marshal(p.trace.fill(v))
	return filled
}

// note writes down what happens, for who reads why it failed.
func (p *play) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, fmt.Sprintf(format, args...))
}

func (p *play) told() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return "\t" + strings.Join(p.log, "\n\t")
}

// report takes what the client shows.
func (p *play) report(r Report) {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // the driver made it
	}
	var plain map[string]any
	json.Unmarshal(text, &plain)
	p.note("the client shows %s", text)
	p.mu.Lock()
	defer p.mu.Unlock()
	of := queueOf(plain)
	p.reports[of] = append(p.reports[of], plain)
	close(p.changed)
	p.changed = make(chan struct{})
}

// queueOf is in which order a report stands: that of the call, the states, the room, or the hub.
func queueOf(r map[string]any) string {
	for _, kind := range []string{"call", "state", "ended", "room"} {
		if v, is := r[kind]; is {
			if kind == "state" || kind == "ended" {
				v = ""
			}
			return fmt.Sprint(kind, " ", v)
		}
	}
	return "hub"
}

// next waits for the next report of an order, and takes it.
func (p *play) next(of string) (map[string]any, error) {
	late := time.After(patience)
	for {
		p.mu.Lock()
		if list := p.reports[of]; len(list) > 0 {
			p.reports[of] = list[1:]
			p.mu.Unlock()
			return list[0], nil
		}
		changed, gone := p.changed, len(p.reports["ended "]) > 0
		p.mu.Unlock()
		if gone && of != "ended " {
			return nil, fmt.Errorf("the client has ended without")
		}
		select {
		case <-changed:
		case <-late:
			return nil, fmt.Errorf("it does not come (%s)", of)
		}
	}
}

func (p *play) step(s Step) error {
	switch {
	case s.Gives != nil:
		return p.outcomes(s.Gives, func(want any) map[string]any { return map[string]any{"error": nil, "ok": want} })
	case s.Fails != nil:
		all := map[string]any{}
		for name, code := range s.Fails {
			all[name] = code
		}
		return p.outcomes(all, func(want any) map[string]any { return map[string]any{"error": want} })
	case s.Shows != nil:
		got, err := p.next(queueOf(s.Shows))
		return p.compare(map[string]any(s.Shows), got, err)
	case s.State != nil:
		return p.state(s.State)
	case s.Come != nil:
		c, err := p.arrival(*s.Come)
		p.waits = c
		return err
	case s.Accept != nil:
		return p.accept(*s.Accept)
	case s.Refuse != nil:
		return p.refuse(*s.Refuse)
	}
	if p.conn == nil {
		return fmt.Errorf("there is no connection yet")
	}
	return p.onConnection(s)
}

func (p *play) onConnection(s Step) error {
	switch {
	case s.Hear != nil:
		got, err := p.hear()
		return p.compare(s.Hear, got, err)
	case s.Say != nil:
		return p.say(s.Say)
	case s.Within != nil:
		frame := textFrame(p.filled(s.Within))
		at, _ := p.trace.vars["cut_at"].(int)
		at = min(at, len(frame)-1)
		p.note("the server writes %d bytes of %s", at, frame)
		p.conn.write(frame[:at])
		p.end("end")
	case s.Text != nil:
		text := *s.Text
		if v, is := p.trace.fill(text).(string); is {
			text = v
		}
		p.note("the server: %s", text)
		p.conn.write(textFrame([]byte(text)))
	case s.Raw != nil:
		text := *s.Raw
		if v, is := p.trace.fill(text).(string); is {
			text = v
		}
		raw, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			return err
		}
		p.note("the server: %x", raw)
		p.conn.write(raw)
	case s.Cut != "":
		p.end(s.Cut)
	case s.Close != nil:
		return p.close(*s.Close)
	}
	return nil
}

func (p *play) compare(want, got map[string]any, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %v", err, p.trace.fill(want))
	}
	if diff := p.trace.match(want, got); diff != "" {
		return fmt.Errorf("%s: got %v", diff, got)
	}
	return nil
}

// outcomes waits for what becomes of calls.
func (p *play) outcomes(all map[string]any, wanted func(any) map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		got, err := p.next("call " + name)
		if err := p.compare(wanted(all[name]), got, err); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// state waits until the client says that it is in a state; others before it don't count.
func (p *play) state(want Report) error {
	for {
		got, err := p.next("state ")
		if err != nil {
			return fmt.Errorf("%w: %v", err, want)
		}
		if got["state"] == want["state"] {
			return p.compare(want, got, nil)
		}
	}
}

// earlyTimers is by how much a client may be back too soon: its timers go by a clock of their own, in whole milliseconds.
const earlyTimers = 5 * time.Millisecond

// arrival waits for the client's next handshake.
func (p *play) arrival(afterMS int) (*connection, error) {
	if c := p.waits; c != nil {
		p.waits = nil
		return c, nil
	}
	select {
	case c := <-p.server.arrivals:
		p.note("the client comes: %s", c.head.URL)
		if took := time.Since(p.ended); took < time.Duration(afterMS)*time.Millisecond-earlyTimers {
			return nil, fmt.Errorf("it comes back after %v", took)
		}
		return c, nil
	case <-time.After(patience):
		return nil, fmt.Errorf("the client does not come")
	}
}

func (p *play) accept(a Accept) error {
	c, err := p.arrival(0)
	if err != nil {
		return err
	}
	if resume := c.head.URL.Query().Get("resume"); a.Resume != nil && resume != *a.Resume {
		return fmt.Errorf("resume=%s, want %q", resume, *a.Resume)
	}
	if a.Token != nil && c.token() != *a.Token {
		return fmt.Errorf("its token is %q, want %q", c.token(), *a.Token)
	}
	if p.conn != nil {
		if err := p.heardAll(); err != nil {
			return err
		}
	}
	p.conn, c.deaf = c, a.Deaf
	p.server.mu.Lock()
	p.server.ready = Refusal{}
	p.server.mu.Unlock()
	p.server.accept(c)
	fields, _ := p.trace.fill(a.Welcome).(map[string]any)
	c.welcome(fields)
	return nil
}

// refuse refuses the next handshake, and has /readyz say the same: that is where a page learns of it.
func (p *play) refuse(r Refusal) error {
	r.Status = p.trace.fill(r.Status)
	p.server.mu.Lock()
	p.server.ready = r
	p.server.mu.Unlock()
	c, err := p.arrival(0)
	if err != nil {
		return err
	}
	c.write([]byte(r.answer()))
	c.nc.Close()
	p.ended = time.Now()
	return nil
}

func (p *play) hear() (map[string]any, error) {
	select {
	case m := <-p.conn.heard:
		p.note("the client: %v", m)
		p.trace.vars["id"] = m["id"]
		return m, nil
	case <-p.conn.ended:
	case <-time.After(patience):
		return nil, fmt.Errorf("the client does not say")
	}
	select {
	case m := <-p.conn.heard: // it said so, and went
		p.note("the client: %v", m)
		p.trace.vars["id"] = m["id"]
		return m, nil
	default:
		return nil, fmt.Errorf("the client has gone without")
	}
}

// heardAll says what the client has said, and the trace has not listened to.
func (p *play) heardAll() error {
	select {
	case m := <-p.conn.heard:
		return fmt.Errorf("the client has also said %v", m)
	default:
		return nil
	}
}

func (p *play) say(raw json.RawMessage) error {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return err
	}
	list, many := p.trace.fill(v).([]any)
	if !many {
		list = []any{p.trace.fill(v)}
	}
	var frames []byte // in one packet, as a server's turn has them
	for _, m := range list {
		text, err := json.Marshal(m)
		if err != nil {
			return err
		}
		p.note("the server: %s", text)
		frames = append(frames, textFrame(text)...)
	}
	p.conn.write(frames)
	return nil
}

func (p *play) end(how string) {
	p.note("the server cuts the line (%s)", how)
	p.conn.cut(how)
	p.ended = time.Now()
}

// close says Close, and waits for the client's.
func (p *play) close(c Close) error {
	code, is := p.trace.fill(c.Code).(float64)
	if !is {
		return fmt.Errorf("code %v is no number", c.Code)
	}
	p.note("the server closes with %v %s", code, c.Reason)
	p.conn.write(closeFrame(int(code), c.Reason))
	p.ended = time.Now()
	select {
	case <-p.conn.ended:
		p.conn.nc.Close()
		return nil
	case <-time.After(patience):
		return fmt.Errorf("the client doesn't answer the Close")
	}
}

// rest holds what is left when the story has been told: nothing may be.
func (p *play) rest() error {
	if got, err := p.next("ended "); err != nil || got["ended"] != true {
		return fmt.Errorf("the client has not come to its end: %v %v", got, err)
	}
	if p.conn != nil {
		if !p.conn.deaf { // all that it had said is heard before its end
			select {
			case <-p.conn.ended:
			case <-time.After(patience):
				return fmt.Errorf("the client has ended, and its connection has not")
			}
		}
		p.conn.cut("end")
		if err := p.heardAll(); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for of, list := range p.reports {
		// A call that is still open ends with the client, and where it stands is nobody's business.
		if len(list) > 0 && of != "state " && !strings.HasPrefix(of, "call ") {
			return fmt.Errorf("the client has also shown %v", list)
		}
	}
	return nil
}
