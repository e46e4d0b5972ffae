package model

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// A run writes logs as clients would.
type run struct {
	at      int64
	logs    map[string]*Log
	order   []*Log
	history bool
	offset  int64
	acked   map[string]Position
	policy  Policy
}

func newRun(history bool, names ...string) *run {
	r := &run{logs: map[string]*Log{}, history: history, acked: map[string]Position{}}
	for _, n := range names {
		r.logs[n] = &Log{Name: n, Client: "id of " + n}
		r.order = append(r.order, r.logs[n])
	}
	return r
}

func (r *run) add(name string, e Event) {
	r.at++
	e.At = r.at
	r.logs[name].Events = append(r.logs[name].Events, e)
}

func (r *run) id() string { return fmt.Sprint("#", r.at) }

func (r *run) position() Position {
	if !r.history {
		return Position{}
	}
	return Position{"e", r.offset}
}

func (r *run) join(name string) {
	id := r.id()
	r.add(name, Event{Kind: JoinSent, Room: "lobby", ID: id})
	r.add(name, Event{Kind: Joined, Room: "lobby", ID: id, Position: r.position()})
}

// rejoin comes back with a position; the answer is as it is told.
func (r *run) rejoin(name string, since int64, recovered bool) {
	id := r.id()
	r.add(name, Event{Kind: JoinSent, Room: "lobby", ID: id, Since: &Position{"e", since}})
	r.add(name, Event{Kind: Joined, Room: "lobby", ID: id, Position: r.position(), Recovered: recovered})
}

func (r *run) publish(name, text string) { r.publishKey(name, text, "") }

func (r *run) publishKey(name, text, key string) {
	r.publishEvent(name, Event{Message: text, Key: key})
}

func (r *run) publishExcept(name, text, except string) {
	r.publishEvent(name, Event{Message: text, Exclude: except})
}

func (r *run) publishEvent(name string, e Event) {
	id := r.id()
	r.offset++
	r.acked[e.Message] = r.position()
	e.Kind, e.Room, e.ID = Sent, "lobby", id
	r.add(name, e)
	r.add(name, Event{Kind: Acked, Room: "lobby", ID: id, Position: r.position()})
}

func (r *run) get(name, from, text string) {
	r.add(name, Event{Kind: Received, Room: "lobby", Message: text, From: "id of " + from, Position: r.acked[text]})
}

// gap tells of messages that lie behind each other, the last of them with the offset to.
func (r *run) gap(name, reason string, count int, to int64) {
	e := Event{Kind: Gap, Room: "lobby", Count: count, Reason: reason}
	if r.history {
		e.FromOffset, e.ToOffset = to-int64(count)+1, to
	}
	r.add(name, e)
}

func (r *run) check() []Fault {
	return Check(Run{Logs: r.order, Policy: func(string) Policy { return r.policy }})
}

func (r *run) faults() (all []string) {
	for _, f := range r.check() {
		all = append(all, f.Kind+" "+f.Client+" "+f.Message)
	}
	return all
}

// Each story is told twice: of a room with history, and of one without.
func TestTheCheckerFindsWhatWasPlanted(t *testing.T) {
	for _, story := range []struct {
		name string
		tell func(r *run)
		want string // kind, client, message; "" for a story without a fault
	}{
		{"all is well", func(r *run) {
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
			r.get("cat", "ann", "1")
		}, ""},
		{"a message that isn't for one of them", func(r *run) {
			r.publishExcept("ann", "1", "id of cat")
			r.get("bob", "ann", "1")
		}, ""},
		{"a message that comes to whom it isn't for", func(r *run) {
			r.publishExcept("ann", "1", "id of cat")
			r.get("bob", "ann", "1")
			r.get("cat", "ann", "1")
		}, "echoed cat 1"},
		{"a lost message", func(r *run) {
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
		}, "lost cat 1"},
		{"lost before another", func(r *run) {
			r.publish("ann", "1")
			r.publish("ann", "2")
			r.get("bob", "ann", "1")
			r.get("bob", "ann", "2")
			r.get("cat", "ann", "2")
			r.add("cat", Event{Kind: Closed, Code: 4000})
		}, "lost cat 1"},
		{"a closed client need not have the rest", func(r *run) {
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
			r.add("cat", Event{Kind: Closed, Code: 4000})
		}, ""},
		{"nor one that leaves", func(r *run) {
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
			r.add("cat", Event{Kind: LeaveSent, Room: "lobby", ID: "x"})
			r.add("cat", Event{Kind: Left, Room: "lobby", ID: "x"})
		}, ""},
		{"a stalled client may still get it", func(r *run) {
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
			r.logs["cat"].Waiting = true
		}, ""},
		{"one that was acknowledged and nobody got", func(r *run) {
			r.publish("ann", "1")
			r.logs["bob"].Waiting = true
		}, "lost cat 1"},
		{"one that was not acknowledged, but another got it", func(r *run) {
			r.add("ann", Event{Kind: Sent, Room: "lobby", Message: "1"})
			r.offset++
			r.acked["1"] = r.position()
			r.get("bob", "ann", "1")
		}, "lost cat 1"},
		{"a gap that tells", func(r *run) {
			r.publish("ann", "1")
			r.publish("ann", "2")
			r.get("bob", "ann", "1")
			r.get("bob", "ann", "2")
			r.gap("cat", "drop-oldest", 1, 1)
			r.get("cat", "ann", "2")
		}, ""},
		{"a gap that comes too late", func(r *run) {
			r.publish("ann", "1")
			r.publish("ann", "2")
			r.get("bob", "ann", "1")
			r.get("bob", "ann", "2")
			r.get("cat", "ann", "2")
			r.gap("cat", "drop-oldest", 1, 1)
		}, "lost cat 1, overtold cat "},
		{"a gap that tells too little", func(r *run) {
			r.publish("ann", "1")
			r.publish("ann", "2")
			r.publish("ann", "3")
			for _, text := range []string{"1", "2", "3"} {
				r.get("bob", "ann", text)
			}
			r.gap("cat", "drop-oldest", 1, 1)
			r.get("cat", "ann", "3")
		}, "lost cat 2"},
		{"a gap that tells too much", func(r *run) {
			r.publish("ann", "1")
			r.publish("ann", "2")
			r.get("bob", "ann", "1")
			r.get("bob", "ann", "2")
			r.gap("cat", "drop-oldest", 2, 2)
			r.get("cat", "ann", "2")
		}, "overtold cat "},
		{"a gap of another policy", func(r *run) {
			r.publish("ann", "1")
			r.publish("ann", "2")
			r.get("bob", "ann", "1")
			r.get("bob", "ann", "2")
			r.gap("cat", "latest", 1, 1)
			r.get("cat", "ann", "2")
			r.policy.SlowConsumer = "disconnect"
		}, "unfounded cat "},
		{"drop-oldest without the newest", func(r *run) {
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
			r.gap("cat", "drop-oldest", 1, 1)
		}, "stale cat 1"},
		{"latest without the newest", func(r *run) {
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
			r.gap("cat", "latest", 1, 1)
		}, "stale cat 1"},
		{"latest-by-key without the newest of a key", func(r *run) {
			r.publishKey("ann", "1", "x")
			r.publishKey("ann", "2", "y")
			r.get("bob", "ann", "1")
			r.get("bob", "ann", "2")
			r.gap("cat", "latest-by-key", 1, 1)
			r.get("cat", "ann", "2")
		}, "stale cat 1"},
		{"latest-by-key with the newest of a key", func(r *run) {
			r.publishKey("ann", "1", "x")
			r.publishKey("ann", "2", "x")
			r.get("bob", "ann", "1")
			r.get("bob", "ann", "2")
			r.gap("cat", "latest-by-key", 1, 1)
			r.get("cat", "ann", "2")
			r.policy = Policy{SlowConsumer: "latest-by-key", QueueBytes: 10000}
		}, ""},
		{"one without a key dropped for a newer one", func(r *run) {
			r.publish("ann", "1")
			r.publish("ann", "2")
			r.get("bob", "ann", "1")
			r.get("bob", "ann", "2")
			r.gap("cat", "latest-by-key", 1, 1)
			r.get("cat", "ann", "2")
			r.policy = Policy{SlowConsumer: "latest-by-key", QueueBytes: 10000}
		}, "unfounded cat 1"},
		{"the oldest dropped though all fits", func(r *run) {
			for i := range 30 { // they arrive one by one
				r.publish("ann", fmt.Sprint("before ", i))
				r.get("bob", "ann", fmt.Sprint("before ", i))
				r.get("cat", "ann", fmt.Sprint("before ", i))
			}
			r.publish("ann", "1")
			r.publish("ann", "2")
			r.get("bob", "ann", "1")
			r.get("bob", "ann", "2")
			r.gap("cat", "drop-oldest", 1, 31)
			r.get("cat", "ann", "2")
			r.policy = Policy{SlowConsumer: "drop-oldest", QueueBytes: 10000}
		}, "unfounded cat 1"},
		{"the oldest dropped for want of space", func(r *run) {
			r.publish("ann", "1")
			r.publish("ann", "2"+strings.Repeat("x", 10000))
			r.get("bob", "ann", "1")
			r.get("bob", "ann", "2"+strings.Repeat("x", 10000))
			r.gap("cat", "drop-oldest", 1, 1)
			r.get("cat", "ann", "2"+strings.Repeat("x", 10000))
			r.policy = Policy{SlowConsumer: "drop-oldest", QueueBytes: 10000}
		}, ""},
		{"one's own message, where the policy gives it", func(r *run) {
			r.policy.IncludeSender = true
			r.publish("ann", "1")
			for _, n := range []string{"ann", "bob", "cat"} {
				r.get(n, "ann", "1")
			}
		}, ""},
		{"one's own message lost, where the policy gives it", func(r *run) {
			r.policy.IncludeSender = true
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
			r.get("cat", "ann", "1")
		}, "lost ann 1"},
		{"a gap that counts one's own, where the policy gives it", func(r *run) {
			r.policy.IncludeSender = true
			r.publish("ann", "1")
			r.publish("ann", "2")
			for _, n := range []string{"bob", "cat"} {
				r.get(n, "ann", "1")
				r.get(n, "ann", "2")
			}
			r.gap("ann", "drop-oldest", 1, 1)
			r.get("ann", "ann", "2")
		}, ""},
		{"a message twice", func(r *run) {
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
			r.get("bob", "ann", "1")
			r.get("cat", "ann", "1")
		}, "doubled bob 1"},
		{"one's own message", func(r *run) {
			r.publish("ann", "1")
			r.get("ann", "ann", "1")
			r.get("bob", "ann", "1")
			r.get("cat", "ann", "1")
		}, "echoed ann 1"},
		{"a message that excludes one", func(r *run) {
			r.add("ann", Event{Kind: Sent, Room: "lobby", Message: "1", Exclude: "id of bob"})
			r.get("cat", "ann", "1")
		}, ""},
		{"and comes to that one all the same", func(r *run) {
			r.add("ann", Event{Kind: Sent, Room: "lobby", Message: "1", Exclude: "id of bob"})
			r.get("bob", "ann", "1")
			r.get("cat", "ann", "1")
		}, "echoed bob 1"},
		{"a message from another", func(r *run) {
			r.add("ann", Event{Kind: Sent, Room: "lobby", Message: "1", From: "the shop"})
			for _, n := range []string{"bob", "cat"} {
				r.add(n, Event{Kind: Received, Room: "lobby", Message: "1", From: "the shop"})
			}
			r.logs["ann"].Waiting = true
		}, ""},
		{"a message of nobody", func(r *run) {
			r.add("bob", Event{Kind: Received, Room: "lobby", Message: "1", From: "id of ann"})
			r.logs["ann"].Waiting, r.logs["cat"].Waiting = true, true
		}, "misdelivered bob 1"},
		{"the application may publish past the logs", func(r *run) {
			for _, n := range []string{"ann", "bob", "cat"} {
				r.add(n, Event{Kind: Received, Room: "lobby", Message: "1", From: Server})
			}
		}, ""},
		{"a message under another's name", func(r *run) {
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
			r.get("cat", "bob", "1")
		}, "misdelivered cat 1"},
		{"to one who has left", func(r *run) {
			r.add("cat", Event{Kind: LeaveSent, Room: "lobby", ID: "x"})
			r.add("cat", Event{Kind: Left, Room: "lobby", ID: "x"})
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
			r.get("cat", "ann", "1")
		}, "misdelivered cat 1"},
		{"from before the join", func(r *run) {
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
			r.get("cat", "ann", "1")
			r.join("dan")
			r.get("dan", "ann", "1")
		}, "misdelivered dan 1"},
		{"joining twice, and leaving before the answer", func(r *run) {
			r.add("cat", Event{Kind: JoinSent, Room: "lobby", ID: "x"})
			r.add("cat", Event{Kind: LeaveSent, Room: "lobby", ID: "y"})
			r.add("cat", Event{Kind: Joined, Room: "lobby", ID: "x", Position: r.position()})
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
			r.add("cat", Event{Kind: Left, Room: "lobby", ID: "y"})
		}, ""},
		{"joining, and leaving before the answer", func(r *run) {
			r.add("dan", Event{Kind: JoinSent, Room: "lobby", ID: "x"})
			r.add("dan", Event{Kind: LeaveSent, Room: "lobby", ID: "y"})
			r.add("dan", Event{Kind: Joined, Room: "lobby", ID: "x", Position: r.position()})
			r.add("dan", Event{Kind: Left, Room: "lobby", ID: "y"})
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
			r.get("cat", "ann", "1")
		}, ""},
		{"what was refused", func(r *run) {
			r.add("ann", Event{Kind: Sent, Room: "lobby", Message: "1", ID: "x"})
			r.add("ann", Event{Kind: Refused, Room: "lobby", ID: "x", Reason: "forbidden"})
			r.add("bob", Event{Kind: Received, Room: "lobby", Message: "1", From: "id of ann"})
			r.logs["cat"].Waiting = true
		}, "misdelivered bob 1"},
		{"no answer", func(r *run) {
			r.add("ann", Event{Kind: Sent, Room: "lobby", Message: "1", ID: "x"})
		}, "unanswered ann "},
		{"a resume's answer for one of its two rooms", func(r *run) {
			r.add("dan", Event{Kind: JoinSent, Room: "lobby", ID: "x"})
			r.add("dan", Event{Kind: JoinSent, Room: "attic", ID: "x"})
			r.add("dan", Event{Kind: Joined, Room: "lobby", ID: "x", Position: r.position()})
		}, "unanswered dan "},
		{"an answer to nothing", func(r *run) {
			r.add("ann", Event{Kind: Acked, Room: "lobby", ID: "x"})
		}, "misdelivered ann "},
	} {
		for _, history := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, history %v", story.name, history), func(t *testing.T) {
				r := newRun(history, "ann", "bob", "cat", "dan")
				for _, n := range []string{"ann", "bob", "cat"} {
					r.join(n)
				}
				story.tell(r)
				if got := strings.Join(r.faults(), ", "); got != story.want {
					t.Errorf("found %q, want %q; all of it: %v", got, story.want, r.check())
				}
			})
		}
	}
}

// What was taken back is lost to nobody, and must not come behind the word of it.
func TestTheCheckerKnowsWhatWasTakenBack(t *testing.T) {
	back := func(r *run, name string, offset, to int64) {
		r.add(name, Event{Kind: Deleted, Room: "lobby", Position: Position{"e", offset}, ToOffset: to})
	}
	for _, story := range []struct {
		name, policy string
		tell         func(r *run)
		want         string
	}{
		{"one that nobody got", "", func(r *run) {
			r.publish("ann", "1")
			back(r, "bob", 1, 0)
		}, ""},
		{"behind the message", "", func(r *run) {
			r.publish("ann", "1")
			r.get("bob", "ann", "1")
			back(r, "bob", 1, 0)
			back(r, "cat", 1, 0)
		}, ""},
		{"before the message", "", func(r *run) {
			r.publish("ann", "1")
			back(r, "bob", 1, 0)
			r.get("bob", "ann", "1")
		}, "revived bob 1"},
		{"all, before the message", "", func(r *run) {
			r.publish("ann", "1")
			r.publish("ann", "2")
			back(r, "bob", 0, 2)
			r.get("bob", "ann", "2")
		}, "revived bob 2"},
		{"another message is lost", "", func(r *run) {
			r.publish("ann", "1")
			r.publish("ann", "2")
			back(r, "bob", 1, 0)
			r.get("cat", "ann", "2")
		}, "lost bob 2"},
		{"the newest, for which others went", "latest", func(r *run) {
			r.publish("ann", "1")
			r.publish("ann", "2")
			r.get("cat", "ann", "1")
			r.gap("bob", "latest", 1, 1)
			back(r, "bob", 2, 0)
		}, ""},
	} {
		t.Run(story.name, func(t *testing.T) {
			r := newRun(true, "ann", "bob", "cat")
			r.policy.SlowConsumer = story.policy
			for _, name := range []string{"ann", "bob", "cat"} {
				r.join(name)
			}
			story.tell(r)
			if got := strings.Join(r.faults(), ", "); got != story.want {
				t.Errorf("found %q, want %q", got, story.want)
			}
		})
	}
}

func TestTwoOrdersAreFound(t *testing.T) {
	r := newRun(false, "ann", "bob", "cat", "dan")
	for _, n := range []string{"ann", "bob", "cat", "dan"} {
		r.join(n)
	}
	// Two publishers at once: nobody can say which was first, but all must say the same.
	r.add("ann", Event{Kind: Sent, Room: "lobby", Message: "a", ID: "1"})
	r.add("bob", Event{Kind: Sent, Room: "lobby", Message: "b", ID: "2"})
	r.add("ann", Event{Kind: Acked, Room: "lobby", ID: "1"})
	r.add("bob", Event{Kind: Acked, Room: "lobby", ID: "2"})
	r.get("ann", "bob", "b")
	r.get("bob", "ann", "a")
	r.get("cat", "ann", "a")
	r.get("cat", "bob", "b")
	r.get("dan", "bob", "b")
	r.get("dan", "ann", "a")
	if got := r.faults(); len(got) == 0 || !strings.HasPrefix(got[0], Disordered) {
		t.Errorf("found %q, want that it is disordered", got)
	}
}

func TestOffsetsAreOneOrder(t *testing.T) {
	story := func(events ...Event) []string {
		r := newRun(true, "ann", "bob", "cat")
		for _, n := range []string{"ann", "bob", "cat"} {
			r.join(n)
		}
		r.publish("ann", "1")
		r.publish("ann", "2")
		for _, e := range events {
			r.add("bob", e)
		}
		r.logs["bob"].Waiting, r.logs["cat"].Waiting = true, true
		return r.faults()
	}
	one := Event{Kind: Received, Room: "lobby", Message: "1", From: "id of ann", Position: Position{"e", 1}}
	two := Event{Kind: Received, Room: "lobby", Message: "2", From: "id of ann", Position: Position{"e", 2}}
	if got := story(one, two); got != nil {
		t.Errorf("without a fault found %q", got)
	}
	if got := story(two, one); !slices.Contains(got, "disordered bob 1") {
		t.Errorf("of two swapped messages found %q", got)
	}
	two.Offset = 1
	if got := story(one, two); !slices.Contains(got, "misplaced bob 2") {
		t.Errorf("of one offset for two found %q", got)
	}
	two.Offset, two.Epoch = 2, "f"
	if got := story(one, two); !slices.Contains(got, "misplaced bob 2") {
		t.Errorf("of two epochs found %q", got)
	}
}

// With offsets a gap says from where to where.
func TestAGapNamesItsPlaces(t *testing.T) {
	for _, story := range []struct {
		name     string
		count    int
		from, to int64
		reason   string
		want     string
		ofOwn    bool
	}{
		{name: "the first and the last", count: 2, from: 2, to: 3},
		{name: "none", count: 2, want: "misplaced cat "},
		{name: "backwards", count: 2, from: 3, to: 2, want: "lost cat 2, lost cat 3, misplaced cat "},
		{name: "from one that came", count: 2, from: 1, to: 3, want: "overtold cat "},
		{name: "up to one that comes", count: 2, from: 2, to: 4, want: "overtold cat "},
		{name: "too few", count: 2, from: 3, to: 3, want: "lost cat 2, overtold cat "},
		{name: "too many", count: 3, from: 2, to: 3, want: "overtold cat "},
		{name: "one's own, which a policy doesn't drop", count: 3, from: 2, to: 3, ofOwn: true, want: "overtold cat "},
		{name: "one's own, which is forgotten too", count: 3, from: 2, to: 4, ofOwn: true, reason: "history"},
	} {
		t.Run(story.name, func(t *testing.T) {
			r := newRun(true, "ann", "cat")
			r.join("ann")
			r.join("cat")
			for i := range 5 {
				name := "ann"
				if story.ofOwn && i == 3 {
					name = "cat"
				}
				r.publish(name, fmt.Sprint(i+1))
			}
			if story.ofOwn {
				r.get("ann", "cat", "4")
			}
			r.get("cat", "ann", "1")
			r.add("cat", Event{Kind: Gap, Room: "lobby", Count: story.count, Reason: cmp.Or(story.reason, "drop-oldest"), FromOffset: story.from, ToOffset: story.to})
			if !story.ofOwn {
				r.get("cat", "ann", "4")
			}
			r.get("cat", "ann", "5")
			if got := strings.Join(r.faults(), ", "); got != story.want {
				t.Errorf("found %q, want %q: %v", got, story.want, r.check())
			}
		})
	}
}

// comesBack tells of a client that was away while 2 and 3 were published.
func comesBack(since int64, recovered bool, got ...string) []string {
	r := newRun(true, "ann", "bob", "bob again")
	r.join("ann")
	r.join("bob")
	r.publish("ann", "1")
	r.get("bob", "ann", "1")
	r.add("bob", Event{Kind: Closed})
	r.publish("ann", "2")
	r.publish("ann", "3")
	r.rejoin("bob again", since, recovered)
	for _, text := range got {
		r.get("bob again", "ann", text)
	}
	return r.faults()
}

func TestComingBack(t *testing.T) {
	for _, story := range []struct {
		name      string
		since     int64
		recovered bool
		got       []string
		want      string
	}{
		{"with everything", 1, true, []string{"2", "3"}, ""},
		{"told that it is not recovered", 1, false, nil, ""},
		{"told that it is, and it isn't", 1, true, []string{"3"}, "lost bob again 2"},
		{"with what it has already", 1, true, []string{"1", "2", "3"}, "misdelivered bob again 1"},
		{"in disorder", 1, true, []string{"3", "2"}, "disordered bob again 2"},
		{"not recovered, and yet given what was before", 1, false, []string{"3"}, "misdelivered bob again 3"},
	} {
		t.Run(story.name, func(t *testing.T) {
			if got := strings.Join(comesBack(story.since, story.recovered, story.got...), ", "); got != story.want {
				t.Errorf("found %q, want %q", got, story.want)
			}
		})
	}
}

// A random run of the reference model has no fault; with one delivery lost, doubled, or two swapped it has one.
func TestWhatTheModelDoesIsRight(t *testing.T) {
	for seed := range uint64(15) {
		for _, policy := range []string{"disconnect", "drop-oldest", "latest", "latest-by-key"} {
			for _, history := range []bool{false, true} {
				rnd := rand.New(rand.NewPCG(seed, 1))
				r := play(rnd, policy, history)
				if got := r.check(); len(got) > 0 {
					t.Fatalf("seed %d, %s, history %v: %v", seed, policy, history, got)
				}
				plant(t, rnd, r, fmt.Sprintf("seed %d, %s, history %v", seed, policy, history))
			}
		}
	}
}

// play has a few clients join, publish, stall and leave a room of the model.
func play(rnd *rand.Rand, policy string, history bool) *run {
	names := []string{"ann", "bob", "cat", "dan"}
	r := newRun(history, names...)
	r.policy = Policy{History: History{10, time.Minute, 1000}, SlowConsumer: policy, QueueBytes: 60, IncludeSender: rnd.IntN(2) == 0}
	room := NewRoom("e", r.policy)
	in, closed, stalled := map[string]bool{}, map[string]bool{}, map[string]bool{}
	read := func(name string) {
		items, gone := room.Read(name)
		stalled[name] = false
		for _, i := range items {
			if i.Gap > 0 {
				e := Event{Kind: Gap, Room: "lobby", Count: i.Gap, Reason: policy}
				if history {
					e.FromOffset, e.ToOffset = i.FromOffset, i.ToOffset
				}
				r.add(name, e)
				continue
			}
			r.get(name, i.From, i.Text)
		}
		if gone {
			r.add(name, Event{Kind: Closed, Code: 4000})
			room.Leave(name)
			in[name], closed[name] = false, true
		}
	}
	for range 60 {
		name := names[rnd.IntN(len(names))]
		switch op := rnd.IntN(10); {
		case closed[name]:
		case !in[name]:
			room.Join(name)
			r.join(name)
			in[name] = true
		case op == 0:
			read(name)
			if closed[name] {
				break
			}
			room.Leave(name)
			in[name] = false
			r.add(name, Event{Kind: LeaveSent, Room: "lobby", ID: r.id()})
			r.add(name, Event{Kind: Left, Room: "lobby", ID: r.logs[name].Events[len(r.logs[name].Events)-1].ID})
		case op < 3:
			room.Stall(name)
			stalled[name] = true
		default:
			text := fmt.Sprint(len(r.acked))
			key := []string{"", "x", "y"}[rnd.IntN(3)]
			r.publish(name, text)
			r.logs[name].Events[len(r.logs[name].Events)-2].Key = key
			room.Publish(Message{Text: text, From: name, Key: key, Bytes: 10 + rnd.IntN(15), Offset: r.offset})
			for _, n := range names {
				if in[n] && !stalled[n] {
					read(n)
				}
			}
		}
	}
	for _, n := range names {
		if in[n] {
			read(n)
		}
	}
	return r
}

// plant breaks one delivery after the other, and expects that each is found.
func plant(t *testing.T, rnd *rand.Rand, r *run, what string) {
	for _, l := range r.order {
		events := l.Events
		for i, e := range events {
			if e.Kind != Received || rnd.IntN(4) > 0 {
				continue
			}
			expect := func(change string, kinds ...string) {
				t.Helper()
				got := r.check()
				if !slices.ContainsFunc(got, func(f Fault) bool { return slices.Contains(kinds, f.Kind) && f.Room == "lobby" }) {
					t.Fatalf("%s: %s of %s %s was not found, but %v", what, change, l.Name, e, got)
				}
			}
			l.Events = slices.Insert(slices.Clone(events), i, e)
			expect("doubling", Doubled)
			if next := i + 1; next < len(events) && events[next].Kind == Received {
				l.Events = slices.Clone(events)
				l.Events[i], l.Events[next] = events[next], e
				expect("swapping", Disordered)
			}
			if j := slices.IndexFunc(events[i+1:], func(o Event) bool { return o.Kind == Received || o.Kind == LeaveSent || o.Kind == Closed }); j < 0 || events[i+1+j].Kind == Received {
				if !ended(events[i:]) || j >= 0 && !slices.ContainsFunc(events[i:i+1+j], func(o Event) bool { return o.Kind == Left }) {
					l.Events = slices.Delete(slices.Clone(events), i, i+1)
					expect("losing", Lost)
				}
			}
			l.Events = events
		}
	}
}

func ended(events []Event) bool {
	return slices.ContainsFunc(events, func(e Event) bool { return e.Kind == LeaveSent || e.Kind == Closed })
}

// Who was put into a room and then says how far it had come goes on from there, once and before anything came to it.
func TestWhoWasPutInMayGoOnFromItsPosition(t *testing.T) {
	for want, tell := range map[string]func(r *run){
		"": func(r *run) {
			r.rejoin("bob", 0, true)
			r.get("bob", "ann", "1")
		},
		"lost bob 1":         func(r *run) { r.rejoin("bob", 0, true) },
		"misdelivered bob 1": func(r *run) { r.get("bob", "ann", "1") }, // it said nothing
		"misdelivered bob 1 ": func(r *run) {
			r.publish("ann", "2")
			r.get("bob", "ann", "2")
			r.rejoin("bob", 0, true)
			r.get("bob", "ann", "1")
		},
	} {
		r := newRun(true, "ann", "bob")
		r.publish("ann", "1")
		r.add("bob", Event{Kind: Joined, Room: "lobby", Position: r.position()})
		tell(r)
		if got := r.faults(); len(got) == 0 != (want == "") || len(got) > 0 && got[0] != strings.TrimSpace(want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
